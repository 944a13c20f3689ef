package merkle_test

import (
	"testing"

	"github.com/treeline-log/treeline/merkle"
)

func BenchmarkLeafHash(b *testing.B) {
	entry := make([]byte, 73)
	b.ReportAllocs()
	for b.Loop() {
		sink = merkle.LeafHash(entry)
	}
}

func BenchmarkNodeHash(b *testing.B) {
	var left, right merkle.Hash
	b.ReportAllocs()
	for b.Loop() {
		sink = merkle.NodeHash(left, right)
	}
}

// BenchmarkRangeAppend is the cost of one leaf, its hash already computed, and
// of the interior nodes that it completes.
func BenchmarkRangeAppend(b *testing.B) {
	r := merkle.NewRange()
	leaf := merkle.LeafHash(nil)
	visit := func(_ uint, _ uint64, h merkle.Hash) { sink = h }
	b.ReportAllocs()
	for b.Loop() {
		r.Append(leaf, visit)
	}
}

func BenchmarkInclusionProof(b *testing.B) {
	const size = 70_000
	s := newStore(b, size)
	index := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := merkle.InclusionProof(b.Context(), index, size, s); err != nil {
			b.Fatal(err)
		}
		index = (index + 7919) % size
	}
}

func BenchmarkVerifyInclusion(b *testing.B) {
	const index, size = 12_345, 70_000
	s := newStore(b, size)
	proof, err := merkle.InclusionProof(b.Context(), index, size, s)
	if err != nil {
		b.Fatal(err)
	}
	leaf, root := s.levels[0][index], s.r.Root()
	b.ReportAllocs()
	for b.Loop() {
		if err := merkle.VerifyInclusion(index, size, leaf, proof, root); err != nil {
			b.Fatal(err)
		}
	}
}
