package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/treeline-log/treeline/log"
)

// cursor is where the next page of a list begins. Its text is the base64url form of
//
//	version (1) ‖ u64 position ‖ u64 asOf ‖ MAC (16)
//
// where MAC is the beginning of HMAC-SHA256 over version, position, asOf, the log's number and the list's parameters, under a
// key derived from the server's seed: a cursor works for the log and the parameters that it was made for, and nobody
// else can make one.
type cursor struct {
	position uint64 // newest first the size of what is still to be searched, oldest first the index to begin at
	asOf     int64  // when the first page was asked for, µs since 1970 UTC: what the list's times before now are counted from
}

const (
	cursorVersion = 1
	cursorBody    = 1 + 8 + 8
	cursorMAC     = 16
)

var errCursor = badParameter("cursor", "not one that this server made for this log and these parameters; start again without it")

// cursors makes and reads cursors.
type cursors struct {
	key [32]byte
}

func (c cursors) mac(body []byte, id log.ID, params string) []byte {
	h := hmac.New(sha256.New, c.key[:])
	h.Write(body)
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(id)))
	h.Write([]byte(params))
	return h.Sum(nil)[:cursorMAC]
}

func (c cursors) encode(at cursor, id log.ID, params string) string {
	body := binary.BigEndian.AppendUint64([]byte{cursorVersion}, at.position)
	body = binary.BigEndian.AppendUint64(body, uint64(at.asOf))
	return base64.RawURLEncoding.EncodeToString(append(body, c.mac(body, id, params)...))
}

// decode returns the cursor in a text, or errCursor.
func (c cursors) decode(text string, id log.ID, params string) (cursor, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != cursorBody+cursorMAC || base64.RawURLEncoding.EncodeToString(b) != text {
		return cursor{}, errCursor
	}
	body := b[:cursorBody]
	if !hmac.Equal(b[cursorBody:], c.mac(body, id, params)) || body[0] != cursorVersion {
		return cursor{}, errCursor
	}
	return cursor{binary.BigEndian.Uint64(body[1:]), int64(binary.BigEndian.Uint64(body[9:]))}, nil
}
