package log

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
	// error also wraps each reason: ErrNotPinned, ErrNotShown, ErrUnknownVersion.
	ErrNotVerifiable = errors.New("not verifiable")
)

// Reasons for ErrNotVerifiable.
var (
	// ErrNotPinned means that no key the caller trusts for the log has signed its checkpoint.
	ErrNotPinned = errors.New("no pinned key of the log signed the checkpoint")
	// ErrNotShown means that no part of the event's content is shown: it was withheld or is gone.
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

	Verified  []Signature // under the caller's keys, in the checkpoint's order
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

// Withheld returns the pointers of the claims that the proof names but doesn't open, in ascending order.
func (v *Verification) Withheld() []string {
	if v.Disclosure == nil {
		return nil
	}
	var pointers []string
	for i := range v.Disclosure.Claims {
		if c := &v.Disclosure.Claims[i]; c.Withheld() {
			pointers = append(pointers, c.Pointer)
		}
	}
	return pointers
}

// VerifyProof checks a proof file (C2SP tlog-proof whose extra data is a Disclosure) offline. The verifiers are the keys
// that the caller has pinned, got from elsewhere than the proof: of logs, named as their origins, and of witnesses.
//
// It returns nil for a VALID proof only: one in its one encoding, of an entry that is recomputed from the disclosure and
// proven to be in the tree of a checkpoint that a pinned key, named as the checkpoint's origin, has signed. Otherwise the
// error wraps either ErrInvalidProof, with no Verification, or ErrNotVerifiable, with a Verification of what was checked;
// or neither, if the same verifier is given twice. Without pinned keys everything else is still checked, and the answer is ErrNotPinned at best.
//
// A signature of a pinned key that fails makes the proof invalid, whatever others say. Signatures of other keys are
// not looked at (C2SP signed-note demands it) and listed as unchecked: they are the only part of a valid proof that could
// be different without anybody noticing.
//
// VALID says what the log's operator committed to, and when by the operator's clock. It says nothing of other entries: the
// previous hash in particular is only a part of this one.
func VerifyProof(proof []byte, verifiers []note.Verifier) (*Verification, error) {
	for i, a := range verifiers {
		for _, b := range verifiers[:i] {
			if a.Name() == b.Name() && a.KeyHash() == b.KeyHash() {
				return nil, fmt.Errorf("verifier key %s+%08x is given twice", a.Name(), a.KeyHash())
			}
		}
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
		if !v.Disclosure.shows() {
			missing = append(missing, ErrNotShown)
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
	if v.Disclosure != nil && strings.HasSuffix(c.Origin, hubSuffix) {
		return nil, invalid(fmt.Errorf("an event in the hub %q", c.Origin))
	}
	n, err := note.Open(p.Checkpoint, note.VerifierList(verifiers...))
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		n, err = unverified.Note, nil
	}
	if err != nil {
		return nil, invalid(fmt.Errorf("checkpoint of %s: %w", c.Origin, err))
	}
	v.Verified, v.Unchecked = signatures(n.Sigs), signatures(n.UnverifiedSigs)
	if !slices.ContainsFunc(v.Verified, func(s Signature) bool { return s.Name == c.Origin }) {
		missing = append(missing, ErrNotPinned)
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

// shows reports whether d opens any of the event's content.
func (d *Disclosure) shows() bool {
	for i := range d.Claims {
		if !d.Claims[i].Withheld() {
			return true
		}
	}
	return d.Event != nil
}
