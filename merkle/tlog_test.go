package merkle_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/treeline-log/treeline/merkle"
)

// tlogTiles gives our tiles to golang.org/x/mod/sumdb/tlog, by way of their
// paths as over HTTP. tlog authenticates every tile against the tree's root
// before it uses it.
type tlogTiles struct {
	r merkle.TileReader
}

func (t tlogTiles) Height() int { return 8 }

func (t tlogTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var data [][]byte
	for _, tile := range tiles {
		ours, err := merkle.ParseTilePath(tlogPath(merkle.Tile{Level: tile.L, Index: uint64(tile.N), Width: tile.W}))
		if err != nil {
			return nil, err
		}
		hashes, err := t.r.ReadTile(context.Background(), ours)
		if err != nil {
			return nil, err
		}
		data = append(data, join(hashes...))
	}
	return data, nil
}

func (t tlogTiles) SaveTiles([]tlog.Tile, [][]byte) {}

func toTlog(proof []merkle.Hash) []tlog.Hash {
	list := make([]tlog.Hash, len(proof))
	for i, h := range proof {
		list[i] = tlog.Hash(h)
	}
	return list
}

func fromTlog(proof []tlog.Hash) []merkle.Hash {
	list := make([]merkle.Hash, len(proof))
	for i, h := range proof {
		list[i] = merkle.Hash(h)
	}
	return list
}

// tlogMaxSize is the largest size for which tlog terminates: it looks for the
// largest power of two below the size by shifting an int64.
const tlogMaxSize = 1 << 62

func tlogIncludes(index, size uint64, leaf merkle.Hash, proof []merkle.Hash, root merkle.Hash) bool {
	return tlog.CheckRecord(toTlog(proof), int64(size), tlog.Hash(root), int64(index), tlog.Hash(leaf)) == nil
}

// tlogExtends needs from > 0: tlog knows no proofs from the empty tree.
func tlogExtends(from, to uint64, proof []merkle.Hash, rootFrom, rootTo merkle.Hash) bool {
	return tlog.CheckTree(toTlog(proof), int64(to), tlog.Hash(rootTo), int64(from), tlog.Hash(rootFrom)) == nil
}

// tlog's own way of storing a tree gives the same nodes and roots.
func TestNodesEqualTlog(t *testing.T) {
	const size = 3000
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, i := range indexes {
			hashes = append(hashes, stored[i])
		}
		return hashes, nil
	})
	r := merkle.NewRange()
	for i := range int64(size) {
		entry := fmt.Appendf(nil, "leaf-%d", i)
		added, err := tlog.StoredHashes(i, entry, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, added...)
		r.Append(merkle.LeafHash(entry), func(level uint, index uint64, h merkle.Hash) {
			if want := stored[tlog.StoredHashIndex(int(level), int64(index))]; h != merkle.Hash(want) {
				t.Errorf("node %d of level %d = %v, want %v", index, level, h, want)
			}
		})
		want, err := tlog.TreeHash(i+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Root(); got != merkle.Hash(want) {
			t.Fatalf("root of size %d = %v, want %v", i+1, got, want)
		}
	}
}

// tlog reads our tiles, makes the same proofs from them, and accepts ours.
func TestProofsEqualTlog(t *testing.T) {
	s, rng := newStore(t, 70_000), newRand()
	check := func(index, size uint64) {
		t.Helper()
		r, err := merkle.RangeFromTiles(t.Context(), size, s)
		if err != nil {
			t.Fatal(err)
		}
		root, leaf := r.Root(), s.levels[0][index]
		reader := tlog.TileHashReader(tlog.Tree{N: int64(size), Hash: tlog.Hash(root)}, tlogTiles{s})

		want, err := tlog.ProveRecord(int64(size), int64(index), reader)
		if err != nil {
			t.Fatalf("tlog: inclusion of %d in %d: %v", index, size, err)
		}
		got, err := merkle.InclusionProof(t.Context(), index, size, s)
		if err != nil || !slices.Equal(got, fromTlog(want)) {
			t.Errorf("inclusion of %d in %d: got %v, %v, want %v", index, size, got, err, want)
		}
		if !tlogIncludes(index, size, leaf, got, root) {
			t.Errorf("tlog refuses the inclusion of %d in %d", index, size)
		}

		from := index + 1
		r, err = merkle.RangeFromTiles(t.Context(), from, s)
		if err != nil {
			t.Fatal(err)
		}
		wantTree, err := tlog.ProveTree(int64(size), int64(from), reader)
		if err != nil {
			t.Fatalf("tlog: consistency from %d to %d: %v", from, size, err)
		}
		got, err = merkle.ConsistencyProof(t.Context(), from, size, s)
		if err != nil || !slices.Equal(got, fromTlog(wantTree)) {
			t.Errorf("consistency from %d to %d: got %v, %v, want %v", from, size, got, err, wantTree)
		}
		if !tlogExtends(from, size, got, r.Root(), root) {
			t.Errorf("tlog refuses the consistency from %d to %d", from, size)
		}
	}
	for size := range uint64(smallSizes) {
		for index := range size {
			check(index, size)
		}
	}
	for _, size := range largeSizes(rng) {
		for _, index := range []uint64{0, size / 2, size - 1, rng.Uint64N(size)} {
			check(index, size)
		}
	}
}
