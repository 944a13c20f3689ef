package merkle_test

import (
	"errors"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

// coverOf is the cover as its definition has it.
func coverOf(ref *reference, from, to uint64) (hashes []merkle.Hash) {
	for from < to {
		n := uint64(1) << (bits.Len64(to-from) - 1)
		if from > 0 {
			n = min(n, from&-from)
		}
		hashes = append(hashes, ref.root(from, from+n))
		from += n
	}
	return hashes
}

// compose returns the root that some of a tree's leaves and the covers of all else give.
func compose(t testing.TB, size uint64, indices []uint64, leaf func(uint64) merkle.Hash, cover func(from, to uint64) []merkle.Hash) merkle.Hash {
	t.Helper()
	r := merkle.NewRange()
	for _, i := range append(slices.Clone(indices), size) {
		if err := r.AppendCover(i, cover(r.Size(), i)); err != nil {
			t.Fatalf("cover of the entries from %d to %d: %v", r.Size(), i, err)
		}
		if i < size {
			r.Append(leaf(i), nil)
		}
	}
	if r.Size() != size {
		t.Errorf("composed size: got %d, want %d", r.Size(), size)
	}
	return r.Root()
}

// Any entries of a tree lead to its root with the covers of the others.
func TestCovers(t *testing.T) {
	const most = 70_000
	s, ref := newStore(t, most), newDense(most)
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.OneOf(rapid.Uint64Range(0, 40), rapid.Uint64Range(0, most)).Draw(rt, "size")
		var indices []uint64
		if size > 0 {
			indices = rapid.SliceOfN(rapid.Uint64Range(0, size-1), 0, 20).Draw(rt, "indices")
			slices.Sort(indices)
			indices = slices.Compact(indices)
		}
		leaf := func(i uint64) merkle.Hash { return ref.root(i, i+1) }
		got := compose(t, size, indices, leaf, func(from, to uint64) []merkle.Hash {
			hashes, err := merkle.CoverHashes(t.Context(), from, to, size, newThrifty(t, size, s))
			if err != nil {
				t.Fatal(err)
			}
			if want := coverOf(ref, from, to); !slices.Equal(hashes, want) {
				t.Fatalf("cover of the entries from %d to %d: got %v, want %v", from, to, hashes, want)
			}
			return hashes
		})
		if want := ref.root(0, size); got != want {
			t.Errorf("size %d with entries %v: got root %v, want %v", size, indices, got, want)
		}
	})
}

func TestCoversOfHugeTrees(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Uint64Range(1, merkle.MaxSize).Draw(rt, "size")
		indices := rapid.SliceOfN(rapid.Uint64Range(0, size-1), 1, 5).Draw(rt, "indices")
		slices.Sort(indices)
		indices = slices.Compact(indices)
		ref := newReference(indices)
		leaf := func(i uint64) merkle.Hash { return ref.root(i, i+1) }
		got := compose(t, size, indices, leaf, func(from, to uint64) []merkle.Hash { return coverOf(ref, from, to) })
		if want := ref.root(0, size); got != want {
			t.Errorf("size %d with entries %v: got root %v, want %v", size, indices, got, want)
		}
	})
}

func TestCoversThatAreNone(t *testing.T) {
	s := newStore(t, 10)
	for _, c := range [][3]uint64{{3, 2, 10}, {0, 11, 10}, {0, 1, merkle.MaxSize + 1}} {
		if _, err := merkle.CoverHashes(t.Context(), c[0], c[1], c[2], s); !errors.Is(err, merkle.ErrOutOfRange) {
			t.Errorf("cover of the entries from %d to %d of %d: got error %v", c[0], c[1], c[2], err)
		}
	}
	r := merkle.NewRange()
	r.Append(merkle.Hash{1}, nil)
	for _, err := range []error{r.AppendCover(0, nil), r.AppendCover(merkle.MaxSize+1, nil)} {
		if !errors.Is(err, merkle.ErrOutOfRange) {
			t.Errorf("got error %v", err)
		}
	}
	for _, n := range []int{0, 1, 3} { // the entries from 1 to 4 have two hashes
		if err := r.AppendCover(4, make([]merkle.Hash, n)); err == nil || r.Size() != 1 {
			t.Errorf("%d hashes: got error %v and size %d", n, err, r.Size())
		}
	}
	if err := r.AppendCover(1, nil); err != nil {
		t.Error(err)
	}
	if got := merkle.CoverSize(5, 4); got != 0 {
		t.Errorf("CoverSize(5, 4) = %d, want 0", got)
	}
}
