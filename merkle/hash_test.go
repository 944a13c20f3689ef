package merkle_test

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/transparency-dev/merkle/rfc6962"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

func TestEmptyRoot(t *testing.T) {
	root := merkle.EmptyRoot()
	if got, want := root.String(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"; got != want {
		t.Errorf("EmptyRoot() = %s, want %s", got, want)
	}
	if got, want := base64.StdEncoding.EncodeToString(root[:]), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="; got != want {
		t.Errorf("EmptyRoot() = %s in base64, want %s", got, want)
	}
}

func TestLeafHash(t *testing.T) {
	want := mustHash(t, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")
	if got := merkle.LeafHash(nil); got != want {
		t.Errorf("LeafHash(nil) = %v, want %v", got, want)
	}
	if got := merkle.LeafHash([]byte{}); got != want {
		t.Errorf("LeafHash of an empty entry = %v, want %v", got, want)
	}
	// All lengths across the limit of the buffer on the stack, then some.
	for _, n := range append(upTo(300), 65535, 1<<20) {
		entry := bytes.Repeat([]byte{0xa5}, n)
		if got, want := merkle.LeafHash(entry), merkle.Hash(rfc6962.DefaultHasher.HashLeaf(entry)); got != want {
			t.Errorf("LeafHash of %d bytes = %v, want %v", n, got, want)
		}
	}
}

func upTo(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func TestHashesEqualRFC6962(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entry := rapid.SliceOf(rapid.Byte()).Draw(t, "entry")
		if got, want := merkle.LeafHash(entry), merkle.Hash(rfc6962.DefaultHasher.HashLeaf(entry)); got != want {
			t.Errorf("LeafHash = %v, want %v", got, want)
		}
		left, right := drawHash(t, "left"), drawHash(t, "right")
		if got, want := merkle.NodeHash(left, right), nodeOf(left, right); got != want {
			t.Errorf("NodeHash = %v, want %v", got, want)
		}
	})
}

func drawHash(t *rapid.T, label string) merkle.Hash {
	return merkle.Hash(rapid.SliceOfN(rapid.Byte(), merkle.HashSize, merkle.HashSize).Draw(t, label))
}

// The sink keeps the compiler from leaving out what a test measures.
var sink merkle.Hash

func TestHashingDoesNotAllocate(t *testing.T) {
	for _, n := range []int{0, 73, 127} {
		entry := make([]byte, n)
		if got := testing.AllocsPerRun(100, func() { sink = merkle.LeafHash(entry) }); got != 0 {
			t.Errorf("LeafHash of %d bytes: got %v allocations, want 0", n, got)
		}
	}
	var left, right merkle.Hash
	if got := testing.AllocsPerRun(100, func() { sink = merkle.NodeHash(left, right) }); got != 0 {
		t.Errorf("NodeHash: got %v allocations, want 0", got)
	}
}
