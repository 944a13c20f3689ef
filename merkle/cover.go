package merkle

import (
	"context"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
)

// The cover of the entries [from, to) are the perfect subtrees that hold them and
// nothing else, at each place the largest that begins there:
//
//	            o               of [0, 8) in a tree of eight, its cover
//	      o           o         is the root alone; of [1, 7) it is the
//	   o     *     *     o      leaf 1, the two nodes marked, and
//	 o  *  .  .  .  .  *  o     the leaf 6
//	 0  1  2  3  4  5  6  7
//
// Some entries of a tree are proven to be in it by their hashes and the covers of
// what lies before, between and behind them: [Range.Append] and
// [Range.AppendCover], in turn, lead to the root. For one entry the hashes are those
// of its inclusion proof, but for the order and the right edge.

// CoverSize returns how many hashes the cover of the entries [from, to) has, 0 if
// from is not below to.
func CoverSize(from, to uint64) int {
	if from >= to {
		return 0
	}
	return compact.RangeSize(from, to)
}

// CoverHashes returns the hashes of the cover of the entries [from, to) of a tree of
// the given size, from left to right. Only tiles of the tree of that size are read,
// each at most once. It trusts what it reads.
//
// It is an error wrapping [ErrOutOfRange] if from is greater than to, or to greater
// than size, or that above [MaxSize]; errors of r are wrapped.
func CoverHashes(ctx context.Context, from, to, size uint64, r TileReader) ([]Hash, error) {
	if size > MaxSize || from > to || to > size {
		return nil, fmt.Errorf("%w: entries from %d to %d in a tree of size %d, want from <= to <= size <= %d",
			ErrOutOfRange, from, to, size, uint64(MaxSize))
	}
	if from == to {
		return nil, nil
	}
	return readNodes(ctx, compact.RangeNodes(from, to, nil), size, r)
}

// AppendCover appends the entries [[Range.Size], to) to the tree, of which only the
// hashes of their cover are known. It is an error wrapping [ErrOutOfRange] if to is
// below the size or above [MaxSize], and an error if there are more or fewer hashes
// than the cover has. Then nothing is appended.
func (r *Range) AppendCover(to uint64, hashes []Hash) error {
	if to < r.size || to > MaxSize {
		return fmt.Errorf("%w: append to a range of size %d up to %d", ErrOutOfRange, r.size, to)
	}
	if got, want := len(hashes), CoverSize(r.size, to); got != want {
		return fmt.Errorf("cover of the entries from %d to %d: got %d hashes, want %d", r.size, to, got, want)
	}
	if to == r.size {
		return nil
	}
	for i, id := range compact.RangeNodes(r.size, to, nil) {
		// As in Append, but the lowest id.Level bits of the size are zero.
		node, kept := hashes[i], len(r.hashes)
		for index := id.Index; index&1 == 1; index >>= 1 {
			kept--
			node = NodeHash(r.hashes[kept], node)
		}
		r.hashes = append(r.hashes[:kept], node)
		r.size += 1 << id.Level
	}
	return nil
}
