package merkle_test

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"testing"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

type node struct {
	level uint
	index uint64
	hash  merkle.Hash
}

func TestRangeRoots(t *testing.T) {
	// The leaves are "leaf-0", "leaf-1" and so on.
	roots := []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"305df59f9590c3c9ac63d2b2743c388e3792449078cebf7fb3dbe6471643b2b7",
		"60a53eed0de87a90c8e59427c59c46253c33a76a09502a51801300927b7e6bdc",
		"cf763a041c81ceef1578a6083f75c61bef2e0014f2a3e683a97fcfca5be7f19a",
		"bdd1c5ff55b19cb6b0e7c761bf9a6ccaa27fbbfc07b74f1fabb6e911a0bd2ab3",
		"00d21829a5503145348abcf712513eacf2a274211ad83e970202bb5b6d80b286",
		"160cf1a616e8792f9078a9665cb06520d95a33f467d0826f2310219d31383d73",
		"0b007fb915eb9b2a146f54b1c86ec53b664f8e455b7660b0b6ee13edc0d921c0",
		"ca6b7b3e674ac86c1027b59c87c064fc3bc27b313294c75f83bd05fdd13f0dcf",
	}
	r := merkle.NewRange()
	for size, want := range roots {
		if got := r.Size(); got != uint64(size) {
			t.Errorf("Size() = %d, want %d", got, size)
		}
		if got := r.Root().String(); got != want {
			t.Errorf("root of size %d = %s, want %s", size, got, want)
		}
		r.Append(merkle.LeafHash(fmt.Appendf(nil, "leaf-%d", size)), nil)
	}
}

func TestRangeEqualsCompactRange(t *testing.T) {
	const size = 66_000
	factory := compact.RangeFactory{Hash: rfc6962.DefaultHasher.HashChildren}
	want, got := factory.NewEmptyRange(0), merkle.NewRange()
	for i := range uint64(size) {
		leaf := merkle.LeafHash(fmt.Appendf(nil, "leaf-%d", i))
		var wantNodes, gotNodes []node
		if err := want.Append(leaf[:], func(id compact.NodeID, hash []byte) {
			wantNodes = append(wantNodes, node{id.Level, id.Index, merkle.Hash(hash)})
		}); err != nil {
			t.Fatal(err)
		}
		got.Append(leaf, func(level uint, index uint64, h merkle.Hash) {
			gotNodes = append(gotNodes, node{level, index, h})
		})
		if !slices.Equal(gotNodes, wantNodes) {
			t.Fatalf("index %d: visited %v, want %v", i, gotNodes, wantNodes)
		}
		// The whole state at the small sizes and around the boundaries.
		if i > 1000 && i%256 > 2 {
			continue
		}
		wantRoot, err := want.GetRootHash(nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := got.Root(), merkle.Hash(wantRoot); got != want {
			t.Fatalf("root of size %d = %v, want %v", i+1, got, want)
		}
		if got, want := got.Size(), want.End(); got != want {
			t.Fatalf("Size() = %d, want %d", got, want)
		}
		var wantHashes []merkle.Hash
		for _, h := range want.Hashes() {
			wantHashes = append(wantHashes, merkle.Hash(h))
		}
		if !slices.Equal(got.Hashes(), wantHashes) {
			t.Fatalf("hashes of size %d = %v, want %v", i+1, got.Hashes(), wantHashes)
		}
	}
}

func TestRangeEqualsReference(t *testing.T) {
	ref, r := newDense(smallSizes), merkle.NewRange()
	for i := range uint64(smallSizes) {
		if got, want := r.Root(), ref.root(0, i); got != want {
			t.Errorf("root of size %d = %v, want %v", i, got, want)
		}
		r.Append(ref.root(i, i+1), func(level uint, index uint64, h merkle.Hash) {
			if want := ref.root(index<<level, (index+1)<<level); h != want {
				t.Errorf("node %d of level %d = %v, want %v", index, level, h, want)
			}
		})
	}
}

// A range that is stored and resumed, or cloned, at any size goes on as the one
// that it comes from, and shares no memory with it.
func TestRangeResumes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.IntRange(0, 600).Draw(t, "before")
		after := rapid.IntRange(0, 600).Draw(t, "after")
		r := merkle.NewRange()
		for i := range before {
			r.Append(merkle.LeafHash(fmt.Appendf(nil, "leaf-%d", i)), nil)
		}
		hashes := r.Hashes()
		resumed, err := merkle.ResumeRange(r.Size(), hashes)
		if err != nil {
			t.Fatal(err)
		}
		clone, frozen := r.Clone(), r.Clone()
		root := r.Root()
		clear(hashes)
		clear(r.Hashes())

		for i := before; i < before+after; i++ {
			leaf := merkle.LeafHash(fmt.Appendf(nil, "leaf-%d", i))
			for _, r := range []*merkle.Range{r, resumed, clone} {
				r.Append(leaf, nil)
			}
		}
		for name, other := range map[string]*merkle.Range{"resumed": resumed, "cloned": clone} {
			if other.Size() != r.Size() || other.Root() != r.Root() || !slices.Equal(other.Hashes(), r.Hashes()) {
				t.Errorf("%s range: got size %d and root %v, want %d and %v",
					name, other.Size(), other.Root(), r.Size(), r.Root())
			}
		}
		if frozen.Size() != uint64(before) || frozen.Root() != root {
			t.Errorf("appending to a range changed its clone")
		}
	})
}

func TestResumeRangeErrors(t *testing.T) {
	for _, tt := range []struct {
		size   uint64
		hashes int
	}{
		{0, 1}, {1, 0}, {1, 2}, {2, 2}, {3, 1}, {3, 3}, {255, 7}, {256, 8}, {merkle.MaxSize, 62}, {merkle.MaxSize, 64},
	} {
		if r, err := merkle.ResumeRange(tt.size, make([]merkle.Hash, tt.hashes)); err == nil || r != nil {
			t.Errorf("ResumeRange(%d, %d hashes) = %v, %v, want an error", tt.size, tt.hashes, r, err)
		}
	}
	for _, size := range []uint64{merkle.MaxSize + 1, 1<<64 - 1} {
		_, err := merkle.ResumeRange(size, make([]merkle.Hash, bits.OnesCount64(size)))
		if !errors.Is(err, merkle.ErrOutOfRange) {
			t.Errorf("ResumeRange(%d) = %v, want ErrOutOfRange", size, err)
		}
	}
}

func TestRangeAtLargestSize(t *testing.T) {
	const size = merkle.MaxSize - 1
	ref := newReference([]uint64{3, 1 << 40, size})
	r, err := merkle.RangeFromTiles(context.Background(), size, newThrifty(t, size, ref))
	if err != nil {
		t.Fatal(err)
	}
	r.Append(ref.root(size, size+1), func(level uint, index uint64, h merkle.Hash) {
		if level != 0 || index != size {
			t.Errorf("visited node %d of level %d, want only %d of level 0", index, level, uint64(size))
		}
	})
	if got, want := r.Root(), ref.root(0, merkle.MaxSize); got != want {
		t.Errorf("root of the largest tree = %v, want %v", got, want)
	}
	defer func() {
		if recover() == nil {
			t.Error("appending to the largest tree didn't panic")
		}
		if got := r.Size(); got != merkle.MaxSize {
			t.Errorf("Size() = %d after a refused Append, want %d", got, uint64(merkle.MaxSize))
		}
	}()
	r.Append(merkle.Hash{}, nil)
}

func TestRangeAppendDoesNotAllocate(t *testing.T) {
	r := merkle.NewRange()
	var visited int
	visit := func(uint, uint64, merkle.Hash) { visited++ }
	for range 1 << 10 {
		r.Append(merkle.Hash{}, visit)
	}
	if got := testing.AllocsPerRun(1000, func() { r.Append(merkle.Hash{}, visit) }); got != 0 {
		t.Errorf("Append: got %v allocations, want 0", got)
	}
}
