package log

import (
	"context"
	"fmt"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// tiles reads a log's tree from a store, as tiles. It is a merkle.TileReader.
type tiles struct {
	store Reader
	log   ID
}

// ReadTile returns the hashes of a tile: level 0 is computed from the entries, the others are stored.
func (t tiles) ReadTile(ctx context.Context, tile merkle.Tile) ([]merkle.Hash, error) {
	from := tile.Index * merkle.TileWidth
	to := from + uint64(tile.Width)
	if tile.Level > 0 {
		return t.store.Nodes(ctx, t.log, tile.Level, from, to)
	}
	hashes := make([]merkle.Hash, 0, tile.Width)
	err := t.store.Entries(ctx, t.log, from, to, func(entry []byte) error {
		hashes = append(hashes, merkle.LeafHash(entry))
		return nil
	})
	return hashes, err
}

// storedEntry reads the entry that a store has at index. It is ErrDamaged if it isn't one.
func storedEntry(index uint64, b []byte) (Entry, error) {
	e, err := ParseEntry(b)
	if err != nil {
		return Entry{}, fmt.Errorf("entry %d: %w: %w", index, err, ErrDamaged)
	}
	return e, nil
}

// storedTime returns when the entry that a store has at index of a log was received, 0 in a hub. It is ErrDamaged if it isn't an
// entry of such a log.
func storedTime(info Info, index uint64, b []byte) (int64, error) {
	if !info.IsHub() {
		e, err := storedEntry(index, b)
		return e.ReceivedAt, err
	}
	if _, err := checkpoint.ParseHubEntry(b); err != nil {
		return 0, fmt.Errorf("entry %d: %w: %w", index, err, ErrDamaged)
	}
	return 0, nil
}

// checkHead checks a head against the rows that it summarises, and returns its range: the tree's right edge is rebuilt
// from stored nodes and from the entries they don't cover yet, and the newest entry must have the hash and the time that
// the head gives. It is ErrDamaged if they don't agree.
func checkHead(ctx context.Context, store Reader, info Info, head Head) (*merkle.Range, error) {
	edge, err := merkle.ResumeRange(head.Size, head.Edge)
	if err != nil {
		return nil, fmt.Errorf("head: %v: %w", err, ErrDamaged)
	}
	rebuilt, err := merkle.RangeFromTiles(ctx, head.Size, tiles{store, info.ID})
	if err != nil {
		return nil, err
	}
	if got, want := rebuilt.Root(), edge.Root(); got != want {
		return nil, fmt.Errorf("the rows give root %v, the head of size %d says %v: %w", got, head.Size, want, ErrDamaged)
	}
	if head.Size == 0 {
		if head.Last != Genesis(info.Origin) {
			return nil, fmt.Errorf("the empty log begins with hash %v, not with its origin's: %w", head.Last, ErrDamaged)
		}
		return edge, nil
	}
	err = store.Entries(ctx, info.ID, head.Size-1, head.Size, func(b []byte) error {
		receivedAt, err := storedTime(info, head.Size-1, b)
		if err != nil {
			return err
		}
		if got := merkle.LeafHash(b); got != head.Last || receivedAt != head.ReceivedAt {
			return fmt.Errorf("entry %d has hash %v, the head says %v: %w", head.Size-1, got, head.Last, ErrDamaged)
		}
		return nil
	})
	return edge, err
}
