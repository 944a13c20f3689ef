package merkle_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/treeline-log/treeline/merkle"
)

// damaged returns the proof with each of its hashes changed, left out, given
// twice and exchanged with the next, and with one too many at either end.
func damaged(proof []merkle.Hash, other merkle.Hash) [][]merkle.Hash {
	all := [][]merkle.Hash{
		append(slices.Clone(proof), other),
		append([]merkle.Hash{other}, proof...),
	}
	if len(proof) > 0 {
		all = append(all, nil)
	}
	for i := range proof {
		changed := slices.Clone(proof)
		changed[i][i%merkle.HashSize] ^= 1 << (i % 8)
		all = append(all, changed, slices.Delete(slices.Clone(proof), i, i+1), slices.Insert(slices.Clone(proof), i, proof[i]))
		if i+1 < len(proof) && proof[i] != proof[i+1] {
			swapped := slices.Clone(proof)
			swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
			all = append(all, swapped)
		}
	}
	return all
}

func TestVerifyInclusionRefusesDamage(t *testing.T) {
	ref := newDense(smallSizes)
	refused := func(index, size uint64, leaf merkle.Hash, proof []merkle.Hash, root merkle.Hash, what string) {
		t.Helper()
		if err := merkle.VerifyInclusion(index, size, leaf, proof, root); !errors.Is(err, merkle.ErrProof) {
			t.Errorf("inclusion of %d in %d with %s: got error %v, want ErrProof", index, size, what, err)
		}
	}
	for size := uint64(1); size < smallSizes; size++ {
		root := ref.root(0, size)
		for i := range size {
			leaf, proof := ref.root(i, i+1), ref.inclusion(i, 0, size)
			for _, d := range damaged(proof, leaf) {
				refused(i, size, leaf, d, root, "a damaged proof")
			}
			if leaf != root {
				refused(i, size, root, proof, leaf, "leaf and root exchanged")
			}
			refused(i, size, merkle.Hash{}, proof, root, "no leaf")
			refused(i, size, leaf, proof, merkle.Hash{}, "no root")
			refused(i, size, leaf, proof, ref.root(0, size-1), "the root of the size before")
			if size > 1 {
				refused((i+1)%size, size, leaf, proof, root, "another index")
			}
		}
	}
}

func TestVerifyConsistencyRefusesDamage(t *testing.T) {
	ref := newDense(smallSizes)
	for to := range uint64(smallSizes) {
		for from := range to + 1 {
			rootFrom, rootTo, proof := ref.root(0, from), ref.root(0, to), ref.consistency(from, to)
			refused := func(proof []merkle.Hash, rootFrom, rootTo merkle.Hash, what string) {
				t.Helper()
				if err := merkle.VerifyConsistency(from, to, proof, rootFrom, rootTo); !errors.Is(err, merkle.ErrProof) {
					t.Errorf("consistency from %d to %d with %s: got error %v, want ErrProof", from, to, what, err)
				}
			}
			for _, d := range damaged(proof, rootFrom) {
				refused(d, rootFrom, rootTo, "a damaged proof")
			}
			refused(proof, merkle.Hash{}, rootTo, "no root of the first")
			if from > 0 {
				refused(proof, rootFrom, merkle.Hash{}, "no root of the second")
				refused(proof, ref.root(0, from-1), rootTo, "the root of the size before the first")
				refused(proof, rootFrom, ref.root(0, to-1), "the root of the size before the second")
			}
			if from > 0 && from < to {
				refused(proof, rootTo, rootFrom, "roots exchanged")
			}
		}
	}
}

func TestVerifyConsistencyOfSizeZero(t *testing.T) {
	empty, some := merkle.EmptyRoot(), merkle.LeafHash([]byte("some"))
	for _, tt := range []struct {
		to               uint64
		proof            []merkle.Hash
		rootFrom, rootTo merkle.Hash
		ok               bool
	}{
		{0, nil, empty, empty, true},
		{0, []merkle.Hash{}, empty, empty, true},
		{0, nil, some, some, false},
		{0, nil, empty, some, false},
		{0, nil, some, empty, false},
		{0, nil, merkle.Hash{}, merkle.Hash{}, false},
		{0, []merkle.Hash{some}, empty, empty, false},
		{5, nil, empty, some, true},
		{5, nil, some, some, false},
		{5, nil, merkle.Hash{}, some, false},
		{5, []merkle.Hash{some}, empty, some, false},
		{5, []merkle.Hash{empty}, empty, empty, false},
		{merkle.MaxSize, nil, empty, some, true},
	} {
		err := merkle.VerifyConsistency(0, tt.to, tt.proof, tt.rootFrom, tt.rootTo)
		if tt.ok && err != nil {
			t.Errorf("from 0 to %d: %v", tt.to, err)
		}
		if !tt.ok && !errors.Is(err, merkle.ErrProof) {
			t.Errorf("from 0 to %d, proof of %d hashes, roots %v and %v: got error %v, want ErrProof",
				tt.to, len(tt.proof), tt.rootFrom, tt.rootTo, err)
		}
	}
}

// Verifying leaves the caller's proof as it was.
func TestVerifyDoesNotChangeProofs(t *testing.T) {
	ref := newDense(smallSizes)
	inclusion, consistency := ref.inclusion(37, 0, 100), ref.consistency(37, 100)
	wantInclusion, wantConsistency := slices.Clone(inclusion), slices.Clone(consistency)
	if err := merkle.VerifyInclusion(37, 100, ref.root(37, 38), inclusion, ref.root(0, 100)); err != nil {
		t.Error(err)
	}
	if err := merkle.VerifyConsistency(37, 100, consistency, ref.root(0, 37), ref.root(0, 100)); err != nil {
		t.Error(err)
	}
	if !slices.Equal(inclusion, wantInclusion) || !slices.Equal(consistency, wantConsistency) {
		t.Error("verifying has changed the proof")
	}
}

// fuzzSizes is the size of the reference tree that fuzzed proofs are held
// against.
const fuzzSizes = 600

// hashes cuts data into hashes; the result is false if there is a rest.
func hashes(data []byte) ([]merkle.Hash, bool) {
	var list []merkle.Hash
	for ; len(data) >= merkle.HashSize; data = data[merkle.HashSize:] {
		list = append(list, merkle.Hash(data[:merkle.HashSize]))
	}
	return list, len(data) == 0
}

func join(list ...merkle.Hash) []byte {
	var data []byte
	for _, h := range list {
		data = append(data, h[:]...)
	}
	return data
}

// What is accepted is what the algorithm of RFC 9162 and tlog accept; and, under
// the root of a known tree, only the leaf and the proof that the tree has.
func FuzzVerifyInclusion(f *testing.F) {
	ref := newDense(fuzzSizes)
	for _, at := range []struct{ index, size uint64 }{{0, 1}, {0, 2}, {5, 7}, {255, 256}, {256, 257}, {300, 600}} {
		f.Add(at.index, at.size, join(ref.root(at.index, at.index+1)), join(ref.inclusion(at.index, 0, at.size)...), join(ref.root(0, at.size)))
	}
	f.Fuzz(func(t *testing.T, index, size uint64, leafData, proofData, rootData []byte) {
		proof, ok := hashes(proofData)
		if !ok || len(leafData) != merkle.HashSize || len(rootData) != merkle.HashSize {
			return
		}
		leaf, root := merkle.Hash(leafData), merkle.Hash(rootData)
		err := merkle.VerifyInclusion(index, size, leaf, proof, root)
		if want := size <= merkle.MaxSize && includes(index, size, leaf, proof, root); (err == nil) != want {
			t.Errorf("inclusion of %d in %d: got error %v, want accepted %t as by RFC 9162", index, size, err, want)
		}
		if size <= tlogMaxSize && index <= tlogMaxSize {
			if want := tlogIncludes(index, size, leaf, proof, root); (err == nil) != want {
				t.Errorf("inclusion of %d in %d: got error %v, want accepted %t as by tlog", index, size, err, want)
			}
		}
		if 0 < size && size <= fuzzSizes && index < size && root == ref.root(0, size) {
			want := leaf == ref.root(index, index+1) && slices.Equal(proof, ref.inclusion(index, 0, size))
			if (err == nil) != want {
				t.Errorf("inclusion of %d in %d: got error %v, want accepted %t as in the tree", index, size, err, want)
			}
		}
	})
}

func FuzzVerifyConsistency(f *testing.F) {
	ref := newDense(fuzzSizes)
	for _, at := range []struct{ from, to uint64 }{{0, 0}, {0, 3}, {1, 2}, {4, 4}, {6, 7}, {255, 256}, {256, 257}, {300, 600}} {
		f.Add(at.from, at.to, join(ref.consistency(at.from, at.to)...), join(ref.root(0, at.from)), join(ref.root(0, at.to)))
	}
	f.Fuzz(func(t *testing.T, from, to uint64, proofData, rootFromData, rootToData []byte) {
		proof, ok := hashes(proofData)
		if !ok || len(rootFromData) != merkle.HashSize || len(rootToData) != merkle.HashSize {
			return
		}
		rootFrom, rootTo := merkle.Hash(rootFromData), merkle.Hash(rootToData)
		err := merkle.VerifyConsistency(from, to, proof, rootFrom, rootTo)
		if want := to <= merkle.MaxSize && extends(from, to, proof, rootFrom, rootTo); (err == nil) != want {
			t.Errorf("consistency from %d to %d: got error %v, want accepted %t as by RFC 9162", from, to, err, want)
		}
		if from > 0 && from <= tlogMaxSize && to <= tlogMaxSize {
			if want := tlogExtends(from, to, proof, rootFrom, rootTo); (err == nil) != want {
				t.Errorf("consistency from %d to %d: got error %v, want accepted %t as by tlog", from, to, err, want)
			}
		}
		if 0 < from && from <= to && to <= fuzzSizes && rootTo == ref.root(0, to) {
			want := rootFrom == ref.root(0, from) && slices.Equal(proof, ref.consistency(from, to))
			if (err == nil) != want {
				t.Errorf("consistency from %d to %d: got error %v, want accepted %t as in the tree", from, to, err, want)
			}
		}
	})
}
