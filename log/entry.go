package log

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/treeline-log/treeline/merkle"
)

// EntrySize is the length of an entry in bytes.
const EntrySize = 1 + 8 + merkle.HashSize + sha256.Size

// entryVersion is the first byte of an entry that commits to an event. Entries with another one belong to other kinds of
// logs, or to versions of the format that this package doesn't know.
const entryVersion = 0x01

// MaxReceivedAt is the largest time an entry can carry, 9999-12-31T23:59:59.999999Z in µs since 1970 UTC: the last one that
// RFC 3339 can write, so that every entry has a disclosure.
const MaxReceivedAt = maxTime

// ErrUnknownVersion means that an entry begins with a version byte other than 0x01. Nothing can be said about such an
// entry, which is not the same as finding it wrong.
var ErrUnknownVersion = errors.New("unknown entry version")

// Entry is what the log commits to at one index: the data of a leaf of its tree and a link of its chain.
//
//	0x01 ‖ u64(received_at) ‖ previous ‖ event digest
//
// Content is not in it, only the digest, so entries may be shown to whoever may know when the log grew.
type Entry struct {
	// ReceivedAt is the server's clock when it took the event, in µs since 1970 UTC, from 0 to MaxReceivedAt. It never
	// decreases within a log.
	ReceivedAt int64
	// Previous is the leaf hash of the entry before this one, or Genesis of the log's origin at index 0. Alone it proves
	// neither that the other entry is in the log nor where: only a tree does.
	Previous merkle.Hash
	// Digest is the event digest, see Event.Digest.
	Digest [sha256.Size]byte
}

// Append appends the EntrySize bytes of the entry to dst.
func (e Entry) Append(dst []byte) []byte {
	dst = append(dst, entryVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.ReceivedAt))
	dst = append(dst, e.Previous[:]...)
	return append(dst, e.Digest[:]...)
}

// LeafHash returns the hash of the leaf that holds the entry. It is what the next entry's Previous must be, and what the
// API shows as the event's hash.
func (e Entry) LeafHash() merkle.Hash {
	var buf [EntrySize]byte
	return merkle.LeafHash(e.Append(buf[:0]))
}

// ParseEntry reads an entry. The error wraps ErrUnknownVersion if the first byte is not 0x01; any other error means that b
// is not an entry.
func ParseEntry(b []byte) (Entry, error) {
	if len(b) > 0 && b[0] != entryVersion {
		return Entry{}, fmt.Errorf("entry begins with byte 0x%02x: %w", b[0], ErrUnknownVersion)
	}
	if len(b) != EntrySize {
		return Entry{}, fmt.Errorf("entry: got %d bytes, want %d", len(b), EntrySize)
	}
	receivedAt := binary.BigEndian.Uint64(b[1:])
	if receivedAt > MaxReceivedAt {
		return Entry{}, fmt.Errorf("entry: received_at is %d µs, want at most %d", receivedAt, int64(MaxReceivedAt))
	}
	e := Entry{ReceivedAt: int64(receivedAt)}
	copy(e.Previous[:], b[9:])
	copy(e.Digest[:], b[9+merkle.HashSize:])
	return e, nil
}

// Genesis returns what the entry at index 0 of a log has as Previous, SHA-256("treeline/log/v1\n" ‖ origin ‖ "\n"). It ties
// the chain to its log from the first entry on.
func Genesis(origin string) merkle.Hash {
	return sha256.Sum256([]byte("treeline/log/v1\n" + origin + "\n"))
}
