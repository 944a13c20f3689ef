package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/treeline-log/treeline/merkle"
)

// HubName is the name of the hub in its origin, <host>/logs/hub. No other log has it.
const HubName = "hub"

// ErrNotHubEntry is wrapped by the error of [ParseHubEntry] about bytes that begin with another version than
// a hub's entries: they are of another kind of log, or of one that this package doesn't know.
var ErrNotHubEntry = errors.New("not the version of a hub's entry")

// The layout of a hub's entry. What writes them has its own, see entryVersion.
const (
	hubEntryVersion = 0x02
	hubEntrySize    = 1 + 32 + 8 + merkle.HashSize // version, log id, size, root
)

// A HubEntry is what a hub, the log of other logs' checkpoints, says about one of them: that it signed a tree of
// that size and root.
//
//	0x02 ‖ log id ‖ u64(size) ‖ root
//
// Sizes of one log strictly increase along the hub. Whether each tree extends the one before is not in the
// entries: the hub's monitor demands a consistency proof for each two that follow each other.
type HubEntry struct {
	LogID [32]byte // see [LogID]
	Size  uint64   // from 1 to merkle.MaxSize
	Root  merkle.Hash
}

// ParseHubEntry reads an entry of a hub. The error wraps [ErrNotHubEntry] if the first byte is another than 0x02; any other
// error means that b is malformed.
func ParseHubEntry(b []byte) (HubEntry, error) {
	if len(b) > 0 && b[0] != hubEntryVersion {
		return HubEntry{}, fmt.Errorf("got version 0x%02x, want 0x%02x: %w", b[0], hubEntryVersion, ErrNotHubEntry)
	}
	if len(b) != hubEntrySize {
		return HubEntry{}, fmt.Errorf("hub entry: got %d bytes, want %d", len(b), hubEntrySize)
	}
	e := HubEntry{LogID: [32]byte(b[1:33]), Size: binary.BigEndian.Uint64(b[33:]), Root: merkle.Hash(b[41:])}
	if e.Size == 0 || e.Size > merkle.MaxSize {
		return HubEntry{}, fmt.Errorf("hub entry: size %d, want 1 to %d", e.Size, uint64(merkle.MaxSize))
	}
	return e, nil
}
