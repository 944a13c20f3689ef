package merkle_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/treeline-log/treeline/merkle"
)

// A reference is a tree written down as RFC 6962 and RFC 9162 define it, by
// recursion over ranges of leaves and with nothing of this package. Its leaves
// are all alike but for those in distinct, so that it can be as large as trees
// get.
type reference struct {
	distinct []uint64 // ascending
	perfect  [64]merkle.Hash
	memo     map[[2]uint64]merkle.Hash // roots of perfect subtrees
}

// newReference returns the tree whose leaf i holds "leaf-<i>" if i is in
// distinct, and "filler" otherwise.
func newReference(distinct []uint64) *reference {
	r := &reference{distinct: distinct, memo: make(map[[2]uint64]merkle.Hash)}
	r.perfect[0] = leafOf("filler")
	for i := 1; i < len(r.perfect); i++ {
		r.perfect[i] = nodeOf(r.perfect[i-1], r.perfect[i-1])
	}
	return r
}

// newDense returns the tree whose leaf i holds "leaf-<i>" for all i < n.
func newDense(n uint64) *reference {
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i)
	}
	return newReference(all)
}

func leafOf(data string) merkle.Hash {
	return merkle.Hash(rfc6962.DefaultHasher.HashLeaf([]byte(data)))
}

func nodeOf(left, right merkle.Hash) merkle.Hash {
	return merkle.Hash(rfc6962.DefaultHasher.HashChildren(left[:], right[:]))
}

// split returns the largest power of two smaller than n > 1.
func split(n uint64) uint64 {
	return 1 << (bits.Len64(n-1) - 1)
}

// root is MTH(D[lo:hi]) of RFC 9162, section 2.1.1.
func (r *reference) root(lo, hi uint64) merkle.Hash {
	n := hi - lo
	if n == 0 {
		return merkle.Hash(rfc6962.DefaultHasher.EmptyRoot())
	}
	next, found := slices.BinarySearch(r.distinct, lo)
	if n == 1 {
		if found {
			return leafOf(fmt.Sprintf("leaf-%d", lo))
		}
		return r.perfect[0]
	}
	perfect := n&(n-1) == 0 && lo%n == 0
	if perfect {
		if next == len(r.distinct) || r.distinct[next] >= hi {
			return r.perfect[bits.TrailingZeros64(n)]
		}
		if h, ok := r.memo[[2]uint64{lo, hi}]; ok {
			return h
		}
	}
	k := split(n)
	h := nodeOf(r.root(lo, lo+k), r.root(lo+k, hi))
	if perfect {
		r.memo[[2]uint64{lo, hi}] = h
	}
	return h
}

// inclusion is PATH(m, D[lo:hi]) of RFC 9162, section 2.1.3.1, where m counts
// from lo.
func (r *reference) inclusion(m, lo, hi uint64) []merkle.Hash {
	n := hi - lo
	if n == 1 {
		return nil
	}
	k := split(n)
	if m < k {
		return append(r.inclusion(m, lo, lo+k), r.root(lo+k, hi))
	}
	return append(r.inclusion(m-k, lo+k, hi), r.root(lo, lo+k))
}

// consistency is PROOF(m, D[0:n]) of RFC 9162, section 2.1.4.1, extended to
// m = 0 and m = n.
func (r *reference) consistency(m, n uint64) []merkle.Hash {
	if m == 0 || m == n {
		return nil
	}
	return r.subproof(m, 0, n, true)
}

// subproof is SUBPROOF(m, D[lo:hi], whole) of RFC 9162, section 2.1.4.1.
func (r *reference) subproof(m, lo, hi uint64, whole bool) []merkle.Hash {
	n := hi - lo
	if m == n {
		if whole {
			return nil
		}
		return []merkle.Hash{r.root(lo, hi)}
	}
	k := split(n)
	if m <= k {
		return append(r.subproof(m, lo, lo+k, whole), r.root(lo+k, hi))
	}
	return append(r.subproof(m-k, lo+k, hi, false), r.root(lo, lo+k))
}

// ReadTile makes the reference a merkle.TileReader.
func (r *reference) ReadTile(_ context.Context, t merkle.Tile) ([]merkle.Hash, error) {
	hashes := make([]merkle.Hash, t.Width)
	for i := range hashes {
		n := t.Index*merkle.TileWidth + uint64(i)
		hashes[i] = r.root(n<<(8*t.Level), (n+1)<<(8*t.Level))
	}
	return hashes, nil
}

// includes is the verification of RFC 9162, section 2.1.3.2.
func includes(index, size uint64, leaf merkle.Hash, path []merkle.Hash, root merkle.Hash) bool {
	if index >= size {
		return false
	}
	fn, sn, r := index, size-1, leaf
	for _, p := range path {
		if sn == 0 {
			return false
		}
		if fn&1 == 1 || fn == sn {
			r = nodeOf(p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = nodeOf(r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	return sn == 0 && r == root
}

// extends is the verification of RFC 9162, section 2.1.4.2, extended to the
// cases from = 0 and from = to as VerifyConsistency documents them.
func extends(from, to uint64, path []merkle.Hash, rootFrom, rootTo merkle.Hash) bool {
	switch {
	case from > to:
		return false
	case from == 0:
		empty := merkle.Hash(rfc6962.DefaultHasher.EmptyRoot())
		return len(path) == 0 && rootFrom == empty && (to > 0 || rootTo == empty)
	case from == to:
		return len(path) == 0 && rootFrom == rootTo
	case len(path) == 0:
		return false
	}
	if from&(from-1) == 0 {
		path = append([]merkle.Hash{rootFrom}, path...)
	}
	fn, sn := from-1, to-1
	for fn&1 == 1 {
		fn, sn = fn>>1, sn>>1
	}
	fr, sr := path[0], path[0]
	for _, c := range path[1:] {
		if sn == 0 {
			return false
		}
		if fn&1 == 1 || fn == sn {
			fr, sr = nodeOf(c, fr), nodeOf(c, sr)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			sr = nodeOf(sr, c)
		}
		fn, sn = fn>>1, sn>>1
	}
	return sn == 0 && fr == rootFrom && sr == rootTo
}

// A store is a tree as a log stores it: of the nodes that Range.Append visits,
// those on the levels that tiles are made of.
type store struct {
	r      *merkle.Range
	levels [][]merkle.Hash
}

// newStore returns the store of a dense reference tree of n leaves.
func newStore(tb testing.TB, n uint64) *store {
	tb.Helper()
	s := &store{r: merkle.NewRange()}
	for i := range n {
		s.r.Append(merkle.LeafHash(fmt.Appendf(nil, "leaf-%d", i)), func(level uint, index uint64, h merkle.Hash) {
			if level%8 != 0 {
				return
			}
			if level/8 == uint(len(s.levels)) {
				s.levels = append(s.levels, nil)
			}
			row := &s.levels[level/8]
			if got, want := index, uint64(len(*row)); got != want {
				tb.Fatalf("visited index %d of level %d, want %d", got, level, want)
			}
			*row = append(*row, h)
		})
	}
	return s
}

func (s *store) ReadTile(_ context.Context, t merkle.Tile) ([]merkle.Hash, error) {
	if !t.In(s.r.Size()) {
		return nil, fmt.Errorf("%s is not stored", t.Path())
	}
	start := t.Index * merkle.TileWidth
	return s.levels[t.Level][start : start+uint64(t.Width)], nil
}

// thrifty passes on reads of tiles, and fails the test at one that is not of
// the tree of the given size or that is made twice.
type thrifty struct {
	t    testing.TB
	size uint64
	r    merkle.TileReader
	seen map[merkle.Tile]bool
}

func newThrifty(t testing.TB, size uint64, r merkle.TileReader) *thrifty {
	return &thrifty{t, size, r, make(map[merkle.Tile]bool)}
}

func (r *thrifty) ReadTile(ctx context.Context, t merkle.Tile) ([]merkle.Hash, error) {
	if want, ok := merkle.TileOf(t.Level, t.Index, r.size); !ok || t != want || t.Level < 0 {
		r.t.Errorf("size %d: read of %s, want only tiles of that size", r.size, t.Path())
	}
	if r.seen[t] {
		r.t.Errorf("size %d: second read of %s", r.size, t.Path())
	}
	r.seen[t] = true
	return r.r.ReadTile(ctx, t)
}

// smallSizes is the number of sizes, from zero, that tests go through wholly.
const smallSizes = 131

// largeSizes returns sizes around the boundaries of one tile and of one tile of
// tiles, and some between.
func largeSizes(rng *rand.Rand) []uint64 {
	sizes := []uint64{254, 255, 256, 257, 258, 511, 512, 513, 65279, 65280, 65281, 65535, 65536, 65537, 65792, 65793, 70000}
	for range 20 {
		sizes = append(sizes, 1+rng.Uint64N(70000))
	}
	return sizes
}

func newRand() *rand.Rand {
	return rand.New(rand.NewPCG(6962, 9162))
}

func mustHash(tb testing.TB, s string) merkle.Hash {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != merkle.HashSize {
		tb.Fatalf("bad hash %q in a test", s)
	}
	return merkle.Hash(b)
}
