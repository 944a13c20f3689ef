package merkle

import (
	"fmt"
	"math/bits"
	"slices"
)

// A Range is the compact range [0, size) of a tree: the roots of the largest
// perfect subtrees that cover its entries, one for each one-bit of the size. It
// is what a writer keeps in memory to append to a tree and to know its root.
//
// The range is that of github.com/transparency-dev/merkle/compact, over values
// rather than slices of bytes, so that appending makes no garbage.
//
// A Range is not safe for concurrent use.
type Range struct {
	size   uint64
	hashes []Hash // from left to right, so from the largest subtree to the smallest
}

// NewRange returns the range of the empty tree.
func NewRange() *Range {
	return new(Range)
}

// ResumeRange returns the range of a tree of the given size, with the hashes
// that [Range.Hashes] gave at that size. They are copied. It is an error
// wrapping [ErrOutOfRange] if size is above [MaxSize], and an error if there
// are more or fewer hashes than one for each one-bit of size. Whether they are
// the right ones only a comparison of [Range.Root] with a trusted root can tell.
func ResumeRange(size uint64, hashes []Hash) (*Range, error) {
	if size > MaxSize {
		return nil, fmt.Errorf("%w: size %d of a range, want <= %d", ErrOutOfRange, size, uint64(MaxSize))
	}
	if got, want := len(hashes), bits.OnesCount64(size); got != want {
		return nil, fmt.Errorf("range of size %d: got %d hashes, want %d", size, got, want)
	}
	return &Range{size: size, hashes: slices.Clone(hashes)}, nil
}

// Append adds the leaf with index [Range.Size] to the tree.
//
// If visit is not nil, it is called for every node that is now perfect and was
// not before: the leaf itself, then its new ancestors, upwards. Those are the
// nodes to store. Over the life of a tree each of its perfect nodes is visited
// exactly once, and the nodes of one level in the order of their indices.
//
// Append panics if the tree has [MaxSize] entries.
func (r *Range) Append(leaf Hash, visit func(level uint, index uint64, h Hash)) {
	if r.size >= MaxSize {
		panic("merkle: append to a range of the largest size")
	}
	if visit != nil {
		visit(0, r.size, leaf)
	}
	// Appending is adding one to a binary number whose one-bits are the
	// subtrees: each trailing one is a subtree that merges with the carry.
	node, index, kept := leaf, r.size, len(r.hashes)
	for level := uint(1); index&1 == 1; level++ {
		kept--
		node = NodeHash(r.hashes[kept], node)
		index >>= 1
		if visit != nil {
			visit(level, index, node)
		}
	}
	r.hashes = append(r.hashes[:kept], node)
	r.size++
}

// Size returns the number of entries in the tree.
func (r *Range) Size() uint64 {
	return r.size
}

// Root returns the root of the tree, [EmptyRoot] if it has no entries.
func (r *Range) Root() Hash {
	if r.size == 0 {
		return EmptyRoot()
	}
	last := len(r.hashes) - 1
	root := r.hashes[last]
	for i := last - 1; i >= 0; i-- {
		root = NodeHash(r.hashes[i], root)
	}
	return root
}

// Hashes returns a copy of the range's hashes, from the largest subtree to the
// smallest. There is one for each one-bit of the size.
func (r *Range) Hashes() []Hash {
	return slices.Clone(r.hashes)
}

// Clone returns a copy of the range that shares nothing with it.
func (r *Range) Clone() *Range {
	return &Range{size: r.size, hashes: slices.Clone(r.hashes)}
}
