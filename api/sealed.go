package api

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"

	"github.com/treeline-log/treeline/log"
)

// sealedCursors makes and reads the cursors of lists that are taken from the system log. A place in there would tell each tenant how
// much the others do, so what these cursors hold is encrypted: their text is the base64url form of
//
//	nonce (12) ‖ AES-256-GCM of (u64 system ‖ u64 position ‖ u64 asOf) ‖ tag (16)
//
// with the list's log and its parameters as additional data, under a key derived from the server's seed.
type sealedCursors struct {
	aead cipher.AEAD
}

// sealedCursor is where the next page begins: system is the number of the system log that the position is in.
type sealedCursor struct {
	system log.ID
	cursor
}

func newSealedCursors(key [32]byte) sealedCursors { return sealedCursors{newAEAD(key)} }

// newAEAD returns AES-256-GCM with random nonces, which are at the beginning of what it seals.
func newAEAD(key [32]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 32 bytes are a key
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func sealedFor(id log.ID, params string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(id)), params...)
}

func (c sealedCursors) encode(at sealedCursor, id log.ID, params string) string {
	body := binary.BigEndian.AppendUint64(nil, uint64(at.system))
	body = binary.BigEndian.AppendUint64(body, at.position)
	body = binary.BigEndian.AppendUint64(body, uint64(at.asOf))
	return base64.RawURLEncoding.EncodeToString(c.aead.Seal(nil, nil, body, sealedFor(id, params)))
}

// decode returns the cursor in a text, or errCursor.
func (c sealedCursors) decode(text string, id log.ID, params string) (sealedCursor, error) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || base64.RawURLEncoding.EncodeToString(sealed) != text {
		return sealedCursor{}, errCursor
	}
	body, err := c.aead.Open(nil, nil, sealed, sealedFor(id, params))
	if err != nil || len(body) != 3*8 {
		return sealedCursor{}, errCursor
	}
	n := func(i int) uint64 { return binary.BigEndian.Uint64(body[8*i:]) }
	return sealedCursor{log.ID(n(0)), cursor{n(1), int64(n(2))}}, nil
}
