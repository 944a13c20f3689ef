package log

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// What verifying a proof can come to, besides nil for VALID. Every error of VerifyProof about the proof wraps exactly one of
// these two.
var (
	// ErrInvalidProof means that the proof is wrong: malformed, not in its one encoding, or with a signature, a hash or an
	// inclusion proof that fails.
	ErrInvalidProof = errors.New("invalid proof")
	// ErrNotVerifiable means that nothing wrong was found, but not all that a VALID proof needs could be checked. The
	// error also wraps each reason: ErrNotPinned, ErrNotWitnessed, ErrNotShown, ErrUnknownVersion.
	ErrNotVerifiable = errors.New("not verifiable")
)

// Reasons for ErrNotVerifiable.
var (
	// ErrNotPinned means that no key the caller trusts for the log has signed its checkpoint.
	ErrNotPinned = errors.New("no pinned key of the log signed the checkpoint")
	// ErrNotWitnessed means that the quorum of the caller's policy isn't met.
	ErrNotWitnessed = errors.New("the policy's quorum isn't met")
	// ErrNotShown means that no part of the event's content is shown, and nothing proves that it was purged: it was withheld, or is
	// gone.
	ErrNotShown = errors.New("the proof shows nothing of the event's content")
)

// hubSuffix ends the origin of a hub, the log of other logs' checkpoints. Its name is reserved: no event is ever in it.
const hubSuffix = "/logs/hub"

// Verification is what a proof file was found to say.
type Verification struct {
	Origin string      // of the log, from the checkpoint
	Index  uint64      // of the entry in the log, below Size
	Size   uint64      // of the tree that the checkpoint signs, in entries
	Root   merkle.Hash // of that tree

	// Disclosure is what the proof shows of the event, nil if there is none. What it says is in the log: Entry has been
	// computed from it, and Leaf from Entry.
	Disclosure *Disclosure
	Entry      Entry
	Leaf       merkle.Hash

	// PurgedBy is the event that is proven to tell that the event's content was purged, if no part of it is shown; nil if none is.
	PurgedBy *Ref
	// ErasedBy are the events that are proven to tell that claims were erased, by the pointers of those that aren't opened.
	ErasedBy map[string]Ref

	// State is StateWitnessed if the caller gave a policy that asks for witnesses, and it is met; else StateSigned if a key that the
	// caller trusts has signed for the log; else "".
	State State
	// Witnesses are those of the policy, in its order, each with what it says of the checkpoint; nil if there is no policy, or the
	// checkpoint isn't signed.
	Witnesses []checkpoint.Testimony

	// Hub is what was found of the hub's part of a hub proof, nil for any other: of its checkpoint and signatures, with the leaf hash of
	// the hub's entry.
	Hub *Verification

	Verified  []Signature // under the caller's keys and the policy's, in the checkpoint's order
	Unchecked []Signature // of keys that the caller didn't give: no statement is made about them
}

// Signature names the key of a signature on a checkpoint.
type Signature struct {
	Name string
	ID   uint32 // of the key, C2SP signed-note
}

// Event returns the canonical form of the event, nil if not all of it is shown in one piece.
func (v *Verification) Event() []byte {
	if v.Disclosure == nil || v.Disclosure.Event == nil {
		return nil
	}
	return v.Disclosure.Event.JSON()
}

// Withheld returns the pointers of the claims that the proof names but doesn't open, in ascending order, without those in ErasedBy.
func (v *Verification) Withheld() []string {
	if v.Disclosure == nil {
		return nil
	}
	var pointers []string
	for i := range v.Disclosure.Claims {
		c := &v.Disclosure.Claims[i]
		if _, erased := v.ErasedBy[c.Pointer]; c.Withheld() && !erased {
			pointers = append(pointers, c.Pointer)
		}
	}
	return pointers
}

// explain looks up by what the content that the disclosure doesn't show was removed. It returns ErrNotShown where nothing of the event
// is shown, and nothing says that it was purged.
func (v *Verification) explain(r *Removals) error {
	d := v.Disclosure
	for i := range d.Claims {
		if c := &d.Claims[i]; c.Withheld() {
			if by, ok := r.Erased(v.Origin, v.Index, c.Pointer); ok {
				if v.ErasedBy == nil {
					v.ErasedBy = make(map[string]Ref)
				}
				v.ErasedBy[c.Pointer] = by
			}
		}
	}
	if d.Shows() {
		return nil
	}
	by, ok := r.Purged(v.Origin, v.Index)
	if !ok {
		return ErrNotShown
	}
	v.PurgedBy = &by
	return nil
}

// VerifyProof checks a proof file (C2SP tlog-proof whose extra data is a Disclosure) offline, against the keys and the policy
// that the caller trusts.
//
// It returns nil for a VALID proof only: one in its one encoding, of an entry that is recomputed from the disclosure and
// proven to be in the tree of a checkpoint that a pinned key, named as the checkpoint's origin, or a log of the policy has signed,
// and that meets the policy's quorum, if there is a policy. Otherwise the
// error wraps either ErrInvalidProof, with no Verification, or ErrNotVerifiable, with a Verification of what was checked;
// or neither, if the same key is given twice. Without keys everything else is still checked, and the answer is ErrNotPinned at best.
//
// A signature of a known key that fails makes the proof invalid, whatever others say. Signatures of other keys are
// not looked at (C2SP signed-note demands it) and listed as unchecked: they are the only part of a valid proof that could
// be different without anybody noticing.
//
// VALID says what the log's operator committed to, and when by the operator's clock. It says nothing of other entries: the
// previous hash in particular is only a part of this one. Of an event of which nothing is shown it says so only if the caller's
// Removals prove that it was purged.
func VerifyProof(proof []byte, trust Trust) (*Verification, error) {
	if err := trust.Check(); err != nil {
		return nil, err
	}
	p, err := checkpoint.ParseProof(proof)
	if err != nil {
		return nil, invalid(err)
	}
	v := &Verification{Index: p.Index}
	var missing []error // what keeps a flawless proof from being VALID

	// (1) The leaf, from the disclosure. Nothing in it is believed before its hash is found in the tree.
	switch {
	case len(p.Extra) == 0:
		missing = append(missing, ErrNotShown)
	case p.Extra[0] < 0x20 && p.Extra[0] != entryVersion:
		// Not JSON, so not a disclosure: an entry of another version, of which only the first byte is known.
		missing = append(missing, fmt.Errorf("entry begins with byte 0x%02x: %w", p.Extra[0], ErrUnknownVersion))
	default:
		if v.Disclosure, err = ParseDisclosure(p.Extra); err != nil {
			return nil, invalid(err)
		}
		v.Entry = v.Disclosure.Entry()
		v.Leaf = v.Entry.LeafHash()
	}

	// (2) Origin and signatures.
	c, _, err := checkpoint.ParseNote(p.Checkpoint)
	if err != nil {
		return nil, invalid(err)
	}
	v.Origin, v.Size, v.Root = c.Origin, c.Size, c.Root
	if v.Disclosure != nil {
		if isHub(c.Origin) {
			return nil, invalid(fmt.Errorf("an event in the hub %q", c.Origin))
		}
		if err := v.explain(trust.Removals); err != nil {
			missing = append(missing, err)
		}
	}
	unmet, err := v.checkSignatures(p.Checkpoint, trust)
	if err != nil {
		return nil, invalid(fmt.Errorf("checkpoint of %s: %w", c.Origin, err))
	}
	if unmet != nil {
		missing = append(missing, unmet)
	}

	// (3) Inclusion.
	if v.Disclosure != nil {
		if err := merkle.VerifyInclusion(p.Index, c.Size, v.Leaf, p.Hashes, c.Root); err != nil {
			return nil, invalid(err)
		}
	}
	if len(missing) > 0 {
		return v, fmt.Errorf("%w: %w", ErrNotVerifiable, errors.Join(missing...))
	}
	return v, nil
}

// VerifyCheckpoint checks who has signed a checkpoint of a log of events, as VerifyProof does. The Verification has no entry, and no
// index. The reason says why a proof under this checkpoint is not verifiable, nil if it is; the error wraps ErrInvalidProof.
func VerifyCheckpoint(msg []byte, trust Trust) (v *Verification, reason, err error) {
	c, _, err := checkpoint.ParseNote(msg)
	if err != nil {
		return nil, nil, invalid(err)
	}
	if isHub(c.Origin) {
		return nil, nil, invalid(fmt.Errorf("events in the hub %q", c.Origin))
	}
	v = &Verification{Origin: c.Origin, Size: c.Size, Root: c.Root}
	if reason, err = v.checkSignatures(msg, trust); err != nil {
		return nil, nil, invalid(fmt.Errorf("checkpoint of %s: %w", c.Origin, err))
	}
	return v, reason, nil
}

// checkSignatures checks who has signed the checkpoint of v. The first result says what the caller's trust demands beyond that, the
// second what is wrong.
func (v *Verification) checkSignatures(msg []byte, trust Trust) (unmet, err error) {
	n, err := note.Open(msg, note.VerifierList(trust.verifiers(v.Origin)...))
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		n, err = unverified.Note, nil
	}
	if err != nil {
		return nil, err
	}
	v.Verified, v.Unchecked = signatures(n.Sigs), signatures(n.UnverifiedSigs)
	logs := trust.logs(v.Origin)
	if !slices.ContainsFunc(v.Verified, func(s Signature) bool {
		return slices.ContainsFunc(logs, func(l note.Verifier) bool { return l.Name() == s.Name && l.KeyHash() == s.ID })
	}) {
		return ErrNotPinned, nil
	}
	v.State = StateSigned
	if trust.Policy == nil {
		return nil, nil
	}
	if trust.Now.IsZero() {
		trust.Now = time.Now()
	}
	j, err := trust.Policy.Judge(msg, trust.Now, logs...)
	if err != nil {
		return nil, err
	}
	v.Witnesses = j.Witnesses
	switch {
	case !j.Met:
		var names []string
		for _, w := range j.Lacks {
			names = append(names, w.Name)
		}
		return fmt.Errorf("%w: it would be with %s", ErrNotWitnessed, strings.Join(names, ", ")), nil
	case trust.Policy.AsksForWitnesses():
		v.State = StateWitnessed
	}
	return nil, nil
}

func signatures(sigs []note.Signature) []Signature {
	var out []Signature
	for _, s := range sigs {
		out = append(out, Signature{Name: s.Name, ID: s.Hash})
	}
	return out
}

func invalid(err error) error {
	return fmt.Errorf("%w: %w", ErrInvalidProof, err)
}

// Shows reports whether d shows any of the event's content.
func (d *Disclosure) Shows() bool {
	for i := range d.Claims {
		if !d.Claims[i].Withheld() {
			return true
		}
	}
	return d.Event != nil
}
