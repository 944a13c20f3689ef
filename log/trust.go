package log

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
)

// Trust is what the verifier of a proof believes for other reasons than the proof.
type Trust struct {
	// Keys are pinned, got from elsewhere than the proof: of logs, named as their origins, and of witnesses.
	Keys []note.Verifier
	// Policy says which logs and witnesses are trusted, and how many of the witnesses must have cosigned; nil: none.
	Policy *checkpoint.Policy
	// Now is the time by which those of cosignatures are judged; zero: by the clock.
	Now time.Time
	// Removals are what is proven to have been removed from logs; nil: nothing is.
	Removals *Removals
}

// Check returns an error if the caller contradicts itself.
func (t Trust) Check() error {
	for i, a := range t.Keys {
		if slices.ContainsFunc(t.Keys[:i], func(b note.Verifier) bool { return sameKey(a, b) }) {
			return fmt.Errorf("verifier key %s is given twice", checkpoint.KeyID(a.Name(), a.KeyHash()))
		}
	}
	return nil
}

// sameKey reports whether signatures can't tell the two keys apart.
func sameKey(a, b note.Verifier) bool { return a.Name() == b.Name() && a.KeyHash() == b.KeyHash() }

// witnesses returns the policy's witnesses.
func (t Trust) witnesses() []note.Verifier {
	if t.Policy == nil {
		return nil
	}
	return t.Policy.WitnessVerifiers()
}

// logs returns the keys of the log with the given origin. A witness of the policy isn't one of them, whatever its key is called:
// what it says is counted as a witness's.
func (t Trust) logs(origin string) []note.Verifier {
	var keys []note.Verifier
	if t.Policy != nil {
		keys = t.Policy.LogVerifiers(origin)
	}
	others := slices.Concat(keys, t.witnesses())
	for _, v := range t.Keys {
		if v.Name() == origin && !slices.ContainsFunc(others, func(o note.Verifier) bool { return sameKey(o, v) }) {
			keys = append(keys, v)
		}
	}
	return keys
}

// verifiers returns all keys under which signatures on a checkpoint of the log are checked, each once.
func (t Trust) verifiers(origin string) []note.Verifier {
	keys := slices.Concat(t.logs(origin), t.witnesses())
	for _, v := range t.Keys {
		if !slices.ContainsFunc(keys, func(k note.Verifier) bool { return sameKey(k, v) }) {
			keys = append(keys, v)
		}
	}
	return keys
}
