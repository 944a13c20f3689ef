package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/treeline-log/treeline/log"
)

// A cursor is where the next page of a list begins. Its text is the base64url form of
//
//	version (1) ‖ u64 position ‖ MAC (16)
//
// where MAC is the beginning of HMAC-SHA256 over version, position, the log's number and the list's parameters, under a
// key derived from the server's seed: a cursor works for the log and the parameters that it was made for, and nobody
// else can make one.
const (
	cursorVersion = 1
	cursorBody    = 1 + 8
	cursorMAC     = 16
)

var errCursor = badRequest("cursor: not one that this server made for this log and these parameters; start again without it")

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

func (c cursors) encode(position uint64, id log.ID, params string) string {
	body := binary.BigEndian.AppendUint64([]byte{cursorVersion}, position)
	return base64.RawURLEncoding.EncodeToString(append(body, c.mac(body, id, params)...))
}

// decode returns the position in a cursor, or errCursor.
func (c cursors) decode(text string, id log.ID, params string) (uint64, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != cursorBody+cursorMAC || base64.RawURLEncoding.EncodeToString(b) != text {
		return 0, errCursor
	}
	body := b[:cursorBody]
	if !hmac.Equal(b[cursorBody:], c.mac(body, id, params)) || body[0] != cursorVersion {
		return 0, errCursor
	}
	return binary.BigEndian.Uint64(body[1:]), nil
}
