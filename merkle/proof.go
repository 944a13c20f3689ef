package merkle

import (
	"context"
	"errors"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
)

// ErrOutOfRange is wrapped by errors about positions that make no sense: an
// index that is not below the size, a consistency proof to a smaller size, a
// size above [MaxSize].
var ErrOutOfRange = errors.New("out of range")

// A TileReader reads the tiles of one tree, wherever they are stored.
type TileReader interface {
	// ReadTile returns the hashes of t, exactly t.Width of them. It is only
	// asked for tiles of hashes (t.Level >= 0) that a tree of the size in
	// question implies ([TileOf]), which the stored tree may have outgrown: a
	// wider tile is then to be cut. The caller doesn't modify what it gets and
	// makes no concurrent calls.
	ReadTile(ctx context.Context, t Tile) ([]Hash, error)
}

// RangeFromTiles returns the compact range of the tree of the given size, from
// tiles of r. No tile is read twice. It trusts what it reads: compare
// [Range.Root] with a root that is known.
//
// A size above [MaxSize] is an error wrapping [ErrOutOfRange]; errors of r are
// wrapped.
func RangeFromTiles(ctx context.Context, size uint64, r TileReader) (*Range, error) {
	if size > MaxSize {
		return nil, fmt.Errorf("%w: size %d of a tree, want <= %d", ErrOutOfRange, size, uint64(MaxSize))
	}
	hashes, err := readNodes(ctx, compact.RangeNodes(0, size, nil), size, r)
	if err != nil {
		return nil, err
	}
	return ResumeRange(size, hashes)
}

// InclusionProof returns the proof that the entry with the given index is in
// the tree of the given size (RFC 6962, section 2.1.1: the sibling of the leaf
// first, a child of the root last; empty for a tree of one entry). Only tiles of
// the tree of that size are read, each at most once, so the proof is the same
// however much the stored tree has grown since. It trusts what it reads.
//
// An index that is not below size, or a size above [MaxSize], is an error
// wrapping [ErrOutOfRange]; errors of r are wrapped.
func InclusionProof(ctx context.Context, index, size uint64, r TileReader) ([]Hash, error) {
	if err := checkInclusion(index, size); err != nil {
		return nil, err
	}
	nodes, err := proof.Inclusion(index, size)
	if err != nil {
		return nil, fmt.Errorf("inclusion proof of index %d in size %d: %w", index, size, err)
	}
	return readProof(ctx, nodes, size, r)
}

// ConsistencyProof returns the proof that the tree of size to extends the tree
// of size from (RFC 6962, section 2.1.2). It is empty if from is zero or the two
// are equal. Only tiles of the tree of size to are read, each at most once. It
// trusts what it reads.
//
// It is an error wrapping [ErrOutOfRange] if from is greater than to, or to
// above [MaxSize]; errors of r are wrapped.
func ConsistencyProof(ctx context.Context, from, to uint64, r TileReader) ([]Hash, error) {
	if err := checkConsistency(from, to); err != nil {
		return nil, err
	}
	nodes, err := proof.Consistency(from, to)
	if err != nil {
		return nil, fmt.Errorf("consistency proof from size %d to %d: %w", from, to, err)
	}
	return readProof(ctx, nodes, to, r)
}

// checkInclusion returns an error wrapping ErrOutOfRange unless a tree of the
// given size can be and has the index.
func checkInclusion(index, size uint64) error {
	if size > MaxSize || index >= size {
		return fmt.Errorf("%w: index %d in a tree of size %d, want index < size <= %d",
			ErrOutOfRange, index, size, uint64(MaxSize))
	}
	return nil
}

// checkConsistency returns an error wrapping ErrOutOfRange unless a tree can
// grow from the one size to the other.
func checkConsistency(from, to uint64) error {
	if to > MaxSize || from > to {
		return fmt.Errorf("%w: tree from size %d to %d, want from <= to <= %d",
			ErrOutOfRange, from, to, uint64(MaxSize))
	}
	return nil
}

// readProof reads the nodes of a proof in a tree of the given size, and hashes
// together those that make up the one node of the proof that isn't perfect.
func readProof(ctx context.Context, nodes proof.Nodes, size uint64, r TileReader) ([]Hash, error) {
	hashes, err := readNodes(ctx, nodes.IDs, size, r)
	if err != nil {
		return nil, err
	}
	// hashes[begin:end] are the perfect subtrees under that node, from right to
	// left. Their slice is ours, so that the hashes can be merged in place.
	_, begin, end := nodes.Ephem()
	if begin < end {
		for _, left := range hashes[begin+1 : end] {
			hashes[begin] = NodeHash(left, hashes[begin])
		}
		hashes = append(hashes[:begin+1], hashes[end:]...)
	}
	return hashes, nil
}

// readNodes returns the hashes of perfect nodes of the tree of the given size.
func readNodes(ctx context.Context, ids []compact.NodeID, size uint64, r TileReader) ([]Hash, error) {
	type readTile struct {
		Tile
		hashes []Hash
	}
	var tiles []readTile // those read so far: two a level at most, so a search is cheap

	read := func(t Tile) ([]Hash, error) {
		for _, known := range tiles {
			if known.Tile == t {
				return known.hashes, nil
			}
		}
		hashes, err := r.ReadTile(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", t.Path(), err)
		}
		if got, want := len(hashes), t.Width; got != want {
			return nil, fmt.Errorf("read %s: got %d hashes, want %d", t.Path(), got, want)
		}
		tiles = append(tiles, readTile{t, hashes})
		return hashes, nil
	}

	nodes := make([]Hash, 0, len(ids))
	for _, id := range ids {
		// The node is the root of the 2^height hashes from start on, in the
		// highest stored level that is not above it. They are in one tile,
		// since start is a multiple of their number.
		height := id.Level % tileHeight
		start := id.Index << height
		tile, ok := TileOf(int(id.Level/tileHeight), start/TileWidth, size)
		if !ok {
			return nil, fmt.Errorf("no tile has the node %d of level %d in a tree of size %d", id.Index, id.Level, size)
		}
		hashes, err := read(tile)
		if err != nil {
			return nil, err
		}
		start %= TileWidth
		nodes = append(nodes, perfectRoot(hashes[start:start+1<<height]))
	}
	return nodes, nil
}
