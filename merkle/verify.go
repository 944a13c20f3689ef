package merkle

import (
	"errors"
	"fmt"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// ErrProof is wrapped by errors about proofs that don't prove what they should:
// too few or too many hashes, or hashes that lead to another root.
var ErrProof = errors.New("proof doesn't verify")

// VerifyInclusion checks the proof that the leaf with the given index and hash
// is in the tree with the given size and root. It returns nil if that is proven.
// Otherwise the error wraps [ErrOutOfRange] if index is not below size or size
// is above [MaxSize], and [ErrProof] in all other cases.
//
// The leaf hash must come from data that the caller holds, by [LeafHash], and
// the root from a checkpoint that the caller has verified.
func VerifyInclusion(index, size uint64, leaf Hash, hashes []Hash, root Hash) error {
	if err := checkInclusion(index, size); err != nil {
		return err
	}
	err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf[:], byteSlices(hashes), root[:])
	if err != nil {
		return fmt.Errorf("inclusion of index %d in a tree of size %d: %w", index, size, proofError(err))
	}
	return nil
}

// VerifyConsistency checks the proof that the tree with size to and root
// rootTo extends the one with size from and root rootFrom. It returns nil if
// that is proven. Otherwise the error wraps [ErrOutOfRange] if from is greater
// than to or to above [MaxSize], and [ErrProof] in all other cases.
//
// Every tree extends the tree of size zero, whose root must be [EmptyRoot], and
// every tree extends itself; both with the empty proof only. In the first case
// nothing is said about rootTo.
func VerifyConsistency(from, to uint64, hashes []Hash, rootFrom, rootTo Hash) error {
	if err := checkConsistency(from, to); err != nil {
		return err
	}
	// The library takes any root for that of the empty tree.
	if from == 0 && rootFrom != EmptyRoot() {
		return fmt.Errorf("consistency from size 0 to %d: %w: got root %v of size 0, want %v",
			to, ErrProof, rootFrom, EmptyRoot())
	}
	// The library's next version refuses all proofs from size zero, ours
	// doesn't change with it.
	if from == 0 && to > 0 {
		if len(hashes) > 0 {
			return fmt.Errorf("consistency from size 0 to %d: %w: got %d hashes, want 0", to, ErrProof, len(hashes))
		}
		return nil
	}
	err := proof.VerifyConsistency(rfc6962.DefaultHasher, from, to, byteSlices(hashes), rootFrom[:], rootTo[:])
	if err != nil {
		return fmt.Errorf("consistency from size %d to %d: %w", from, to, proofError(err))
	}
	return nil
}

// proofError returns the library's error about a proof as one that wraps
// ErrProof, with roots in hexadecimal.
func proofError(err error) error {
	var mismatch proof.RootMismatchError
	if errors.As(err, &mismatch) {
		return fmt.Errorf("%w: got root %x, want %x", ErrProof, mismatch.CalculatedRoot, mismatch.ExpectedRoot)
	}
	return fmt.Errorf("%w: %v", ErrProof, err)
}

// byteSlices returns the hashes in the form that the library takes. The result
// shares their memory; verifying only reads it.
func byteSlices(hashes []Hash) [][]byte {
	slices := make([][]byte, len(hashes))
	for i := range hashes {
		slices[i] = hashes[i][:]
	}
	return slices
}
