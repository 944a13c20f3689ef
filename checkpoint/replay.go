package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/treeline-log/treeline/merkle"
)

// The layout of an entry, and what the chain of them begins with, are those of the
// specification. They are written down here a second time on purpose: what is signed
// was then checked by code that the code which wrote it has no part in.
const (
	entryVersion  = 0x01
	entrySize     = 1 + 8 + 2*merkle.HashSize // version, received_at, previous, digest
	genesisPrefix = "treeline/log/v1\n"
)

// genesis returns what stands for the hash before that of the first entry.
func genesis(origin string) merkle.Hash {
	return sha256.Sum256([]byte(genesisPrefix + origin + "\n"))
}

// A replay goes through the entries of a log, checks each against those before it,
// and rebuilds the tree over them.
type replay struct {
	tree  *merkle.Range
	order order

	// nodes has, for each level of stored tiles from 1 on, the hashes which have
	// become complete since firstNode of that level. See checkTiles.
	nodes     [][]merkle.Hash
	firstNode []uint64
}

// An order is what the entries of a log keep to among themselves. Events are a chain; in
// a hub each log grows.
type order interface {
	// add goes on to the entry at index and returns its leaf hash. The error, if any, says
	// what is wrong with the entry.
	add(index uint64, entry []byte) (leaf merkle.Hash, err error)
	// settle checks what the entries added since clone say of anything outside the log. The first
	// result says what is wrong, the second is an error of reading.
	settle(ctx context.Context) (wrong, err error)
	// clone returns an order that goes on from the same entry, and shares nothing.
	clone() order
}

// clone returns a replay that goes on from the same entry, and shares nothing.
func (r replay) clone() replay {
	return replay{tree: r.tree.Clone(), order: r.order.clone()}
}

// add appends an entry. The error, if any, says what is wrong with the entry.
func (r *replay) add(entry []byte) error {
	leaf, err := r.order.add(r.tree.Size(), entry)
	if err != nil {
		return err
	}
	r.tree.Append(leaf, r.visit)
	return nil
}

// chained is the order of events.
type chained struct{ Chain }

func (c *chained) clone() order {
	next := *c
	return &next
}

func (c *chained) add(index uint64, entry []byte) (merkle.Hash, error) { return c.Add(index, entry) }

// settle has nothing to do: all that an event says can be seen in its log.
func (c *chained) settle(context.Context) (wrong, err error) { return nil, nil }

// splitEntry returns those fields of an entry that depend on the one before it.
func splitEntry(entry []byte) (receivedAt uint64, previous merkle.Hash, err error) {
	if len(entry) != entrySize {
		return 0, merkle.Hash{}, fmt.Errorf("got %d bytes, want %d", len(entry), entrySize)
	}
	if entry[0] != entryVersion {
		return 0, merkle.Hash{}, fmt.Errorf("got version 0x%02x, want 0x%02x", entry[0], entryVersion)
	}
	receivedAt = binary.BigEndian.Uint64(entry[1:])
	if receivedAt > math.MaxInt64 {
		return 0, merkle.Hash{}, fmt.Errorf("received at %d µs, want < 2^63", receivedAt)
	}
	return receivedAt, merkle.Hash(entry[9 : 9+merkle.HashSize]), nil
}

// visit keeps the new nodes that are stored in tiles above the leaves.
func (r *replay) visit(level uint, index uint64, h merkle.Hash) {
	const height = 8 // of a tile: every eighth level is stored
	if level == 0 || level%height != 0 {
		return
	}
	l := int(level/height) - 1
	if l == len(r.nodes) {
		r.nodes = append(r.nodes, nil)
		r.firstNode = append(r.firstNode, 0)
	}
	if len(r.nodes[l]) == 0 {
		r.firstNode[l] = index
	}
	r.nodes[l] = append(r.nodes[l], h)
}

// checkTiles compares the nodes that the entries gave with those that are stored, from
// which proofs will be built. The entries are right if the root is, but a wrong tile
// would make a signed tree that can't be proven anything about. The first result says
// what differs, the second is an error of reading.
func (r *replay) checkTiles(ctx context.Context, tiles merkle.TileReader) (mismatch, err error) {
	for l, nodes := range r.nodes {
		for i := 0; i < len(nodes); {
			index := r.firstNode[l] + uint64(i)
			tile, ok := merkle.TileOf(l+1, index/merkle.TileWidth, r.tree.Size())
			if !ok {
				panic(fmt.Sprintf("checkpoint: node %d of tile level %d is in no tile", index, l+1))
			}
			stored, err := tiles.ReadTile(ctx, tile)
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", tile.Path(), err)
			}
			if len(stored) != tile.Width {
				return fmt.Errorf("%s has %d hashes, want %d", tile.Path(), len(stored), tile.Width), nil
			}
			for j := index % merkle.TileWidth; j < uint64(tile.Width); j++ {
				if stored[j] != nodes[i] {
					return fmt.Errorf("hash %d of %s is %v, the entries give %v", j, tile.Path(), stored[j], nodes[i]), nil
				}
				i++
			}
		}
	}
	return nil, nil
}
