package log

import (
	"crypto/sha256"
	"encoding/binary"
)

// eventDigestLabel begins what is hashed into an event digest, so that no other hash of the format can be one.
const eventDigestLabel = "treeline/event/v1\n"

// hmacBlock is the block size of SHA-256 in bytes, which HMAC pads its key to (RFC 2104).
const hmacBlock = sha256.BlockSize

// Salt returns the salt of the claim with the given pointer, HMAC-SHA256(key = seed, message = pointer). Whoever holds a
// salt learns nothing about the seed or about other salts, so a claim can be shown without giving away the rest. It doesn't
// allocate for pointers of up to 160 bytes, which all valid ones are.
func Salt(seed *[32]byte, pointer string) [32]byte {
	s := newSalter(seed)
	return s.salt(pointer)
}

// Commitment returns the commitment to one claim,
//
//	SHA-256(salt ‖ u32(len(pointer)) ‖ pointer ‖ value)
//
// where value is the claim's value in canonical form (RFC 8785) and the length counts bytes.
func Commitment(salt *[32]byte, pointer string, value []byte) [32]byte {
	var buf [512]byte
	c, _ := commit(buf[:0], salt, pointer, value)
	return c
}

// Digest returns the event digest, which the event's entry commits to:
//
//	SHA-256("treeline/event/v1\n" ‖ u32(len(p1)) ‖ p1 ‖ commitment(p1) ‖ u32(len(p2)) ‖ p2 ‖ commitment(p2) ‖ …)
//
// over the event's claims in ascending order of their pointers. The seed must be 32 bytes from a cryptographic random
// source, used for this event only and kept beside it: it is all that hides the values from whoever knows the digest.
func (e *Event) Digest(seed *[32]byte) [32]byte {
	var digestBuf, commitBuf [1024]byte // enough for the usual event; larger ones move to the heap
	data, scratch := append(digestBuf[:0], eventDigestLabel...), commitBuf[:0]
	s := newSalter(seed)
	for _, c := range e.Claims() {
		salt := s.salt(c.Pointer)
		var commitment [32]byte
		commitment, scratch = commit(scratch, &salt, c.Pointer, c.Value)
		data = appendCommitted(data, c.Pointer, &commitment)
	}
	return sha256.Sum256(data)
}

// commit is Commitment with a buffer to work in, which it returns, maybe grown, for the next call.
func commit(scratch []byte, salt *[32]byte, pointer string, value []byte) ([32]byte, []byte) {
	b := append(scratch[:0], salt[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(pointer)))
	b = append(b, pointer...)
	b = append(b, value...)
	return sha256.Sum256(b), b
}

// appendCommitted appends one claim to the input of an event digest.
func appendCommitted(dst []byte, pointer string, commitment *[32]byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(pointer)))
	dst = append(dst, pointer...)
	return append(dst, commitment[:]...)
}

// salter makes the salts of one event. It is HMAC-SHA256 (RFC 2104) in one piece, on the stack: crypto/hmac, keyed once and
// reset for each salt, allocates and takes an event's digest a third longer.
type salter struct {
	inner, outer [hmacBlock]byte // the key, xored with RFC 2104's ipad and opad
}

func newSalter(seed *[32]byte) salter {
	var s salter
	for i := range hmacBlock {
		var k byte // the key is padded with zeros to a block
		if i < len(seed) {
			k = seed[i]
		}
		s.inner[i], s.outer[i] = k^0x36, k^0x5c
	}
	return s
}

func (s *salter) salt(pointer string) [32]byte {
	var innerBuf [hmacBlock + 160]byte
	inner := sha256.Sum256(append(append(innerBuf[:0], s.inner[:]...), pointer...))
	var outer [hmacBlock + sha256.Size]byte
	copy(outer[:], s.outer[:])
	copy(outer[hmacBlock:], inner[:])
	return sha256.Sum256(outer[:])
}
