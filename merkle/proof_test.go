package merkle_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

// checkInclusion checks that the proof read from tiles is the reference's, and
// that it verifies.
func checkInclusion(t *testing.T, index, size uint64, r merkle.TileReader, ref *reference) {
	t.Helper()
	got, err := merkle.InclusionProof(t.Context(), index, size, newThrifty(t, size, r))
	if err != nil {
		t.Fatalf("inclusion of %d in %d: %v", index, size, err)
	}
	if want := ref.inclusion(index, 0, size); !slices.Equal(got, want) {
		t.Errorf("inclusion of %d in %d: got %v, want %v", index, size, got, want)
	}
	if err := merkle.VerifyInclusion(index, size, ref.root(index, index+1), got, ref.root(0, size)); err != nil {
		t.Errorf("verify inclusion of %d in %d: %v", index, size, err)
	}
}

// checkConsistency does the same for a consistency proof.
func checkConsistency(t *testing.T, from, to uint64, r merkle.TileReader, ref *reference) {
	t.Helper()
	got, err := merkle.ConsistencyProof(t.Context(), from, to, newThrifty(t, to, r))
	if err != nil {
		t.Fatalf("consistency of %d and %d: %v", from, to, err)
	}
	if want := ref.consistency(from, to); !slices.Equal(got, want) {
		t.Errorf("consistency of %d and %d: got %v, want %v", from, to, got, want)
	}
	if err := merkle.VerifyConsistency(from, to, got, ref.root(0, from), ref.root(0, to)); err != nil {
		t.Errorf("verify consistency of %d and %d: %v", from, to, err)
	}
}

// checkRange checks the range read from tiles by its root.
func checkRange(t *testing.T, size uint64, r merkle.TileReader, ref *reference) {
	t.Helper()
	got, err := merkle.RangeFromTiles(t.Context(), size, newThrifty(t, size, r))
	if err != nil {
		t.Fatalf("range of size %d: %v", size, err)
	}
	if got.Size() != size || got.Root() != ref.root(0, size) {
		t.Errorf("range of size %d: got size %d, root %v, want root %v", size, got.Size(), got.Root(), ref.root(0, size))
	}
}

func TestProofsOfSmallTrees(t *testing.T) {
	s, ref := newStore(t, smallSizes), newDense(smallSizes)
	for size := range uint64(smallSizes) {
		checkRange(t, size, s, ref)
		for i := range size {
			checkInclusion(t, i, size, s, ref)
		}
		for from := range size + 1 {
			checkConsistency(t, from, size, s, ref)
		}
	}
}

func TestProofsAroundTileBoundaries(t *testing.T) {
	s, ref, rng := newStore(t, 70_000), newDense(70_000), newRand()
	for _, size := range largeSizes(rng) {
		checkRange(t, size, s, ref)
		for _, near := range []uint64{0, 1, 255, 256, 257, 65279, 65280, 65535, 65536, 65537, size / 2, size - 2, size - 1, rng.Uint64N(size)} {
			if near < size {
				checkInclusion(t, near, size, s, ref)
				checkConsistency(t, near, size, s, ref)
			}
		}
	}
}

// Trees of up to the largest size, whose leaves are alike but for a few.
func TestProofsOfHugeTrees(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bits := rapid.IntRange(10, 63).Draw(rt, "bits of size")
		size := rapid.Uint64Range(1<<(bits-1), 1<<bits-1).Draw(rt, "size")
		index := rapid.Uint64Range(0, size-1).Draw(rt, "index")
		from := rapid.Uint64Range(0, size).Draw(rt, "from")
		distinct := []uint64{index, index / 2, from, size - 1}
		slices.Sort(distinct)
		ref := newReference(slices.Compact(distinct))
		checkRange(t, size, ref, ref)
		checkInclusion(t, index, size, ref, ref)
		checkConsistency(t, from, size, ref, ref)
	})
}

func TestProofRefusesPositionsOutOfRange(t *testing.T) {
	var none unreadable
	for _, tt := range []struct{ index, size uint64 }{
		{0, 0}, {1, 0}, {1, 1}, {2, 1}, {256, 256}, {1<<64 - 1, 5}, {merkle.MaxSize, merkle.MaxSize},
		{0, merkle.MaxSize + 1}, {0, 1<<64 - 1}, {1<<64 - 1, 1<<64 - 1},
	} {
		if got, err := merkle.InclusionProof(t.Context(), tt.index, tt.size, none); !errors.Is(err, merkle.ErrOutOfRange) || got != nil {
			t.Errorf("InclusionProof(%d, %d) = %v, %v, want ErrOutOfRange", tt.index, tt.size, got, err)
		}
		if err := merkle.VerifyInclusion(tt.index, tt.size, merkle.Hash{}, nil, merkle.Hash{}); !errors.Is(err, merkle.ErrOutOfRange) {
			t.Errorf("VerifyInclusion(%d, %d) = %v, want ErrOutOfRange", tt.index, tt.size, err)
		}
	}
	for _, tt := range []struct{ from, to uint64 }{
		{1, 0}, {5, 4}, {257, 256}, {1<<64 - 1, 0}, {0, merkle.MaxSize + 1}, {1, 1<<64 - 1}, {1<<64 - 1, 1<<64 - 1},
	} {
		if got, err := merkle.ConsistencyProof(t.Context(), tt.from, tt.to, none); !errors.Is(err, merkle.ErrOutOfRange) || got != nil {
			t.Errorf("ConsistencyProof(%d, %d) = %v, %v, want ErrOutOfRange", tt.from, tt.to, got, err)
		}
		if err := merkle.VerifyConsistency(tt.from, tt.to, nil, merkle.EmptyRoot(), merkle.EmptyRoot()); !errors.Is(err, merkle.ErrOutOfRange) {
			t.Errorf("VerifyConsistency(%d, %d) = %v, want ErrOutOfRange", tt.from, tt.to, err)
		}
	}
	for _, size := range []uint64{merkle.MaxSize + 1, 1<<64 - 1} {
		if got, err := merkle.RangeFromTiles(t.Context(), size, none); !errors.Is(err, merkle.ErrOutOfRange) || got != nil {
			t.Errorf("RangeFromTiles(%d) = %v, %v, want ErrOutOfRange", size, got, err)
		}
	}
}

// unreadable is the TileReader of which nothing can be read.
type unreadable struct{}

var errUnreadable = errors.New("unreadable")

func (unreadable) ReadTile(context.Context, merkle.Tile) ([]merkle.Hash, error) {
	return nil, errUnreadable
}

func TestEmptyProofsReadNothing(t *testing.T) {
	var none unreadable
	if r, err := merkle.RangeFromTiles(t.Context(), 0, none); err != nil || r.Root() != merkle.EmptyRoot() {
		t.Errorf("range of size 0: got %v, want the empty one", err)
	}
	if proof, err := merkle.InclusionProof(t.Context(), 0, 1, none); err != nil || len(proof) != 0 {
		t.Errorf("inclusion in a tree of one entry: got %v, %v, want an empty proof", proof, err)
	}
	for _, tt := range []struct{ from, to uint64 }{{0, 0}, {0, 1}, {0, 70_000}, {1, 1}, {70_000, 70_000}} {
		if proof, err := merkle.ConsistencyProof(t.Context(), tt.from, tt.to, none); err != nil || len(proof) != 0 {
			t.Errorf("consistency from %d to %d: got %v, %v, want an empty proof", tt.from, tt.to, proof, err)
		}
	}
}

func TestProofPassesOnReadErrors(t *testing.T) {
	var none unreadable
	if proof, err := merkle.InclusionProof(t.Context(), 3, 7, none); !errors.Is(err, errUnreadable) || proof != nil {
		t.Errorf("InclusionProof = %v, %v, want the reader's error", proof, err)
	}
	if proof, err := merkle.ConsistencyProof(t.Context(), 3, 7, none); !errors.Is(err, errUnreadable) || proof != nil {
		t.Errorf("ConsistencyProof = %v, %v, want the reader's error", proof, err)
	}
	if r, err := merkle.RangeFromTiles(t.Context(), 7, none); !errors.Is(err, errUnreadable) || r != nil {
		t.Errorf("RangeFromTiles = %v, %v, want the reader's error", r, err)
	}
}

// misshapen reads tiles that are wider or narrower by some hashes than asked.
type misshapen struct {
	merkle.TileReader
	by int
}

func (m misshapen) ReadTile(ctx context.Context, t merkle.Tile) ([]merkle.Hash, error) {
	t.Width += m.by
	return m.TileReader.ReadTile(ctx, t)
}

func TestProofRefusesTilesOfAnotherWidth(t *testing.T) {
	s := newStore(t, 300)
	for _, by := range []int{-1, 1} {
		if proof, err := merkle.InclusionProof(t.Context(), 3, 100, misshapen{s, by}); err == nil {
			t.Errorf("tiles wider by %d: got %v, want an error", by, proof)
		}
	}
}

// Building a proof leaves the tiles that it read from as they were, though it
// hashes some of their hashes together.
func TestProofsDoNotChangeTiles(t *testing.T) {
	const size = 1000
	s := newStore(t, size)
	var before [][]merkle.Hash
	for _, level := range s.levels {
		before = append(before, slices.Clone(level))
	}
	for i := range uint64(size) {
		if _, err := merkle.InclusionProof(t.Context(), i, size, s); err != nil {
			t.Fatal(err)
		}
		proof, err := merkle.ConsistencyProof(t.Context(), i, size, s)
		if err != nil {
			t.Fatal(err)
		}
		clear(proof) // The caller's own.
	}
	for level, want := range before {
		if !slices.Equal(s.levels[level], want) {
			t.Errorf("level %d of the stored tree has changed", level)
		}
	}
}
