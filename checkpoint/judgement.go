package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// MaxClockSkew is how far in the future the time of a cosignature may be, by the clock of
// whoever judges it.
const MaxClockSkew = 5 * time.Minute

// A Judgement says what a [Policy] makes of a checkpoint.
type Judgement struct {
	Checkpoint Checkpoint
	Signed     []note.Signature // by the log's keys, one at least, and checked
	Witnesses  []Testimony      // of all witnesses of the policy, in its order
	Unchecked  []note.Signature // by keys that are neither the policy's nor the caller's
	Met        bool             // whether the quorum is met
	Lacks      []Witness        // as few witnesses as would meet it, see [Policy.Lacks]
}

// A Testimony says what a witness says about a checkpoint.
type Testimony struct {
	Witness Witness
	State   TestimonyState
	At      time.Time // when it cosigned, zero if it didn't or gave no time
}

// A TestimonyState says what a witness's testimony is worth.
type TestimonyState string

const (
	// Cosigned is a valid cosignature. Only this counts for the quorum.
	Cosigned TestimonyState = "cosigned"

	// Missing is no cosignature at all.
	Missing TestimonyState = "missing"

	// FromFuture is a valid cosignature with a time that is more than [MaxClockSkew]
	// ahead.
	FromFuture TestimonyState = "from the future"

	// Untimed is a valid cosignature without a time, which no witness gives.
	Untimed TestimonyState = "without a time"
)

// Judge parses the signed note of a checkpoint, checks the signatures of all keys of the
// policy, and says whether the quorum is met at the time now. One of the policy's logs
// that has the checkpoint's origin must have signed it, or one of the given verifiers that
// has: those are for logs which the caller knows from elsewhere. If none has, and nothing
// else is wrong, the error wraps [ErrNotSigned].
//
// Signatures by other keys are ignored, as C2SP signed-note demands, but one that fails
// under a known key, a witness's too, makes the note invalid. That the quorum isn't met is
// no error.
//
// The message must be in the form that [ParseForeignNote] demands.
func (p *Policy) Judge(msg []byte, now time.Time, logs ...note.Verifier) (*Judgement, error) {
	c, _, err := ParseForeignNote(msg)
	if err != nil {
		return nil, err
	}
	if err := c.checkEmpty(); err != nil {
		return nil, err
	}
	logKeys := p.LogVerifiers(c.Origin)
	for _, v := range logs {
		known := slices.ContainsFunc(logKeys, func(w note.Verifier) bool { return w.Name() == v.Name() && w.KeyHash() == v.KeyHash() })
		if v.Name() == c.Origin && !known {
			logKeys = append(logKeys, v)
		}
	}
	n, err := note.Open(msg, note.VerifierList(slices.Concat(logKeys, p.WitnessVerifiers())...))
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		return nil, fmt.Errorf("checkpoint of %s: %w: %w", c.Origin, ErrNotSigned, unverified)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint of %s: %w", c.Origin, err)
	}
	by := func(v note.Verifier) (note.Signature, bool) {
		i := slices.IndexFunc(n.Sigs, func(s note.Signature) bool { return s.Name == v.Name() && s.Hash == v.KeyHash() })
		if i < 0 {
			return note.Signature{}, false
		}
		return n.Sigs[i], true
	}

	j := &Judgement{Checkpoint: c, Unchecked: n.UnverifiedSigs}
	for _, v := range logKeys {
		if sig, ok := by(v); ok {
			j.Signed = append(j.Signed, sig)
		}
	}
	if len(j.Signed) == 0 {
		return nil, fmt.Errorf("checkpoint of %s: %w", c.Origin, ErrNotSigned)
	}
	for _, w := range p.Witnesses {
		t := Testimony{Witness: w, State: Missing}
		if sig, ok := by(w.Verifier); ok {
			at, err := CosignatureTime(sig)
			switch {
			case err != nil:
				t.State = Untimed
			case at.After(now.Add(MaxClockSkew)):
				t.State, t.At = FromFuture, at
			default:
				t.State, t.At = Cosigned, at
			}
		}
		j.Witnesses = append(j.Witnesses, t)
	}
	j.Met, j.Lacks = p.Met(j.Cosigned), p.Lacks(j.Cosigned)
	return j, nil
}

// Cosigned reports whether the testimony of the witness counts.
func (j *Judgement) Cosigned(w Witness) bool {
	return slices.ContainsFunc(j.Witnesses, func(t Testimony) bool { return t.Witness.Name == w.Name && t.State == Cosigned })
}
