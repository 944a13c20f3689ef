package merkle

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/transparency-dev/merkle/rfc6962"
)

// HashSize is the length of a [Hash] in bytes.
const HashSize = sha256.Size

// MaxSize is the largest size of a tree that this package works with, 2^63-1.
// A size, and so every index, then fits the signed 64-bit integers of SQL, and
// no node of the tree is above level 62.
const MaxSize = 1<<63 - 1

// A Hash is a SHA-256 hash: of an entry, of a node, or the root of a tree.
type Hash [HashSize]byte

// String returns the hash as 64 lower-case hexadecimal digits.
func (h Hash) String() string {
	return hex.EncodeToString(h[:])
}

// smallEntry is the length in bytes up to which LeafHash works on the stack.
// The entries of a log are 73 bytes long.
const smallEntry = 127

// LeafHash returns the hash of the leaf that holds entry, which is
// SHA-256(0x00 ‖ entry) (RFC 6962, section 2.1). It doesn't allocate for
// entries of up to 127 bytes.
func LeafHash(entry []byte) Hash {
	if len(entry) <= smallEntry {
		var buf [1 + smallEntry]byte
		buf[0] = rfc6962.RFC6962LeafHashPrefix
		n := copy(buf[1:], entry)
		return sha256.Sum256(buf[:1+n])
	}
	d := sha256.New()
	d.Write([]byte{rfc6962.RFC6962LeafHashPrefix})
	d.Write(entry)
	var h Hash
	d.Sum(h[:0])
	return h
}

// NodeHash returns the hash of the node with the given children, which is
// SHA-256(0x01 ‖ left ‖ right) (RFC 6962, section 2.1). It doesn't allocate.
func NodeHash(left, right Hash) Hash {
	var buf [1 + 2*HashSize]byte
	buf[0] = rfc6962.RFC6962NodeHashPrefix
	copy(buf[1:], left[:])
	copy(buf[1+HashSize:], right[:])
	return sha256.Sum256(buf[:])
}

// EmptyRoot returns the root of the tree of size zero, which is the SHA-256 of
// nothing (RFC 6962, section 2.1).
func EmptyRoot() Hash {
	return sha256.Sum256(nil)
}

// perfectRoot returns the root of the perfect subtree over hashes, whose number
// is a power of two.
func perfectRoot(hashes []Hash) Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return NodeHash(perfectRoot(hashes[:half]), perfectRoot(hashes[half:]))
}
