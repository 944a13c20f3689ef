package log

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// StateHubWitnessed is the state of an event under a hub proof whose hub's checkpoint witnesses have cosigned. If the log forked,
// witnesses would not refuse that, as they do for StateWitnessed, but the hub's monitor would find it.
const StateHubWitnessed State = "hub-witnessed"

// ErrNotFirstKey is a reason for ErrNotVerifiable: what the hub says is about a log whose first verifier key is none of those that the
// caller pinned.
var ErrNotFirstKey = errors.New("the hub's entry is about a log whose first verifier key is not among those pinned")

// HubTrust is what the verifier of a hub proof believes for other reasons than the proof. Nothing that is trusted of the log is
// trusted of the hub, nor the other way round.
type HubTrust struct {
	// Keys are verifier keys of the log. One of them has to be its first Ed25519 key, by which the hub calls it: after a rotation that
	// one is given beside the key that signs now.
	Keys []string
	// Policy says which key the hub has, which witnesses are trusted, and how many of them must have cosigned; nil: nothing is known
	// of the hub, and no proof is VALID.
	Policy *checkpoint.Policy
	// Now is the time by which those of cosignatures are judged; zero: by the clock.
	Now time.Time
	// Removals are what is proven to have been removed from logs; nil: nothing is.
	Removals *Removals
}

// VerifyHubProof checks a hub proof offline. It returns nil for a VALID one only: VerifyProof finds the event's proof VALID under the
// log's keys; the hub entry is in the tree of a checkpoint that a log of the policy, whose origin is a hub's, has signed and that meets
// the policy's quorum; and the entry is about this log, and the very size and root of the checkpoint in the event's proof.
//
// Errors and the Verification are as VerifyProof's; the Verification's Hub says the same of the hub's part. Its State is
// StateHubWitnessed if the policy asks for witnesses, and all else is VALID.
func VerifyHubProof(proof []byte, trust HubTrust) (*Verification, error) {
	keys := Trust{Now: trust.Now, Removals: trust.Removals}
	var ids []logKey
	for _, vkey := range trust.Keys {
		v, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			return nil, err
		}
		keys.Keys = append(keys.Keys, v)
		ids = append(ids, logKey{v.Name(), checkpoint.LogID(vkey)})
	}
	if err := keys.Check(); err != nil {
		return nil, err
	}
	p, err := checkpoint.ParseHubProof(proof)
	if err != nil {
		return nil, invalid(err)
	}
	v, missing := VerifyProof(p.Event, keys)
	if v == nil {
		return nil, fmt.Errorf("the event's proof: %w", missing)
	}
	if isHub(v.Origin) {
		return nil, invalid(fmt.Errorf("the event's proof is of the hub %q", v.Origin))
	}
	entry, err := v.verifyHubEntry(p.Entry, Trust{Policy: trust.Policy, Now: trust.Now})
	if errors.Is(err, ErrInvalidProof) {
		return nil, fmt.Errorf("the hub entry's proof: %w", err)
	}
	if err != nil {
		missing = errors.Join(missing, err)
	}
	if entry != nil {
		if entry.Size != v.Size || entry.Root != v.Root {
			return nil, invalid(fmt.Errorf("the hub's entry is of size %d and root %v, the log's checkpoint of size %d and root %v",
				entry.Size, entry.Root, v.Size, v.Root))
		}
		if !slices.Contains(ids, logKey{v.Origin, entry.LogID}) {
			missing = errors.Join(missing, fmt.Errorf("%w: it calls the log %x", ErrNotFirstKey, entry.LogID))
		}
	}
	if missing != nil && !errors.Is(missing, ErrNotVerifiable) {
		missing = fmt.Errorf("%w: %w", ErrNotVerifiable, missing)
	}
	if missing != nil {
		return v, missing
	}
	if v.Hub.State == StateWitnessed {
		v.State = StateHubWitnessed
	}
	return v, nil
}

// logKey is what a pinned key would make of a log: its origin, and the id that it has if the key is its first.
type logKey struct {
	origin string
	id     [32]byte
}

func isHub(origin string) bool { return strings.HasSuffix(origin, hubSuffix) }

// verifyHubEntry checks the proof of the hub's entry, sets v.Hub to what it says, and returns the entry, nil if it is of an unknown
// version. The error wraps ErrInvalidProof, or else is what keeps a flawless proof from being VALID.
func (v *Verification) verifyHubEntry(proof []byte, trust Trust) (*checkpoint.HubEntry, error) {
	p, err := checkpoint.ParseProof(proof)
	if err != nil {
		return nil, invalid(err)
	}
	h := &Verification{Index: p.Index}
	entry, err := checkpoint.ParseHubEntry(p.Extra)
	unknown := errors.Is(err, checkpoint.ErrNotHubEntry) && p.Extra[0] < 0x20 && p.Extra[0] != entryVersion
	if err != nil && !unknown {
		return nil, invalid(err)
	}
	c, _, err := checkpoint.ParseNote(p.Checkpoint)
	if err != nil {
		return nil, invalid(err)
	}
	h.Origin, h.Size, h.Root = c.Origin, c.Size, c.Root
	if !isHub(c.Origin) {
		return nil, invalid(fmt.Errorf("a hub's entry in the log %q", c.Origin))
	}
	missing, err := h.checkSignatures(p.Checkpoint, trust)
	if err != nil {
		return nil, invalid(fmt.Errorf("checkpoint of %s: %w", c.Origin, err))
	}
	if missing != nil {
		missing = fmt.Errorf("the hub's checkpoint: %w", missing)
	}
	v.Hub = h
	if unknown {
		return nil, errors.Join(missing, fmt.Errorf("the hub's entry begins with byte 0x%02x: %w", p.Extra[0], ErrUnknownVersion))
	}
	h.Leaf = merkle.LeafHash(p.Extra)
	if err := merkle.VerifyInclusion(p.Index, c.Size, h.Leaf, p.Hashes, c.Root); err != nil {
		return nil, invalid(err)
	}
	return &entry, missing
}
