package checkpoint

import (
	"fmt"
	"strings"
)

// A Reason says why a publisher refuses to sign.
type Reason string

const (
	// Rollback means that the store is behind what was signed: entries or
	// checkpoints were lost, most likely by restoring a backup or by failing over to
	// a database that lagged.
	Rollback Reason = "rollback"

	// Diverged means that the store has another tree than the one that was signed.
	// Signing it would give the log two histories.
	Diverged Reason = "diverged"

	// Unfenced means that the store has signed history but the fence knows nothing
	// of the log, so that nobody can tell whether the history is all of it.
	Unfenced Reason = "unfenced"

	// Unverified means that a checkpoint in the store or in the fence is malformed,
	// of another log, or not signed with the log's keys.
	Unverified Reason = "unverified"

	// Damaged means that the stored entries are malformed, don't form a chain, go
	// back in time, or don't give the tree that is stored beside them.
	Damaged Reason = "damaged"
)

// A Refusal is the error of a [Publisher] that will not sign for its log again: the
// store contradicts what was signed before, or itself. Trying again can't help, so
// the publisher answers all further calls with the same Refusal. After somebody has
// found the cause, a new Publisher, such as that of a restarted server, looks again.
//
// [Rollback] and [Diverged] are what verifiers call DIVERGED.
type Refusal struct {
	Origin string
	Reason Reason
	Detail string // what is wrong and what can be done, for people

	// Fenced and Recorded are the signed notes in question, the evidence: the one
	// that the fence had, and the newest one that the store had. Either is nil if
	// there was none.
	Fenced, Recorded []byte

	// Want is what was expected of the stored tree and Got what it is, where the
	// refusal is about that; otherwise both are zero. Where only the sizes differ,
	// the root of one of them may be zero.
	Want, Got Checkpoint
}

// Error says in one line what is wrong. The notes are not in it.
func (r *Refusal) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "refusing to sign for %s: %s: %s", r.Origin, r.Reason, r.Detail)
	if r.Want != r.Got {
		fmt.Fprintf(&b, " (got size %d root %v, want size %d root %v)", r.Got.Size, r.Got.Root, r.Want.Size, r.Want.Root)
	}
	return b.String()
}
