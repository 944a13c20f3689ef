// Package merkle is the Merkle tree of a log: RFC 6962 hashing, the compact
// range that a growing tree is kept in, the tiles it is served in, and the
// proofs about it. It is pure: it reads through [TileReader] and keeps nothing.
//
// # The tree
//
// A log of n entries has a binary tree over the hashes of its entries. A node
// is named by its level, counted from the leaves, and by its index within that
// level; node (level, index) covers the entries
// [index<<level, (index+1)<<level):
//
//	level 3                 0
//	                ┌───────┴───────┐
//	level 2         0               1
//	            ┌───┴───┐       ┌───┴───┐
//	level 1     0       1       2       *
//	          ┌─┴─┐   ┌─┴─┐   ┌─┴─┐   ┌─┘
//	level 0   0   1   2   3   4   5   6
//
// A node whose entries are all there is perfect. It never changes again, and
// only perfect nodes are ever stored. The others, such as * above, lie on the
// tree's right edge, are made anew for each size, and only occur in roots and
// proofs.
//
// A tree of seven entries is kept as the roots of its largest perfect
// subtrees, (2,0), (1,2) and (0,6). That is the compact range [0, 7), a
// [Range]: one hash for each one-bit of the size. It is all it takes to append
// and to compute the root.
//
// # Tiles
//
// Every eighth level is stored, cut into tiles of [TileWidth] hashes. What lies
// between is recomputed. The tile (L, N) has the nodes of level 8·L with
// indices from 256·N on. [Tile] names one, in the coordinates and the paths of
// C2SP tlog-tiles (https://c2sp.org/tlog-tiles). Entry bundles, which hold the
// entries themselves, are named in the same way.
//
// # Proofs
//
// [InclusionProof] and [ConsistencyProof] build the proofs of RFC 6962,
// sections 2.1.1 and 2.1.2, from tiles; [VerifyInclusion] and
// [VerifyConsistency] check them. The node arithmetic and the checking are
// github.com/transparency-dev/merkle's. This package settles what that library
// leaves open or changes between versions: the tree of size zero, the lengths
// of hashes, sizes that overflow, and who owns a slice.
//
// All sizes and indices count entries, from 0 to [MaxSize].
package merkle
