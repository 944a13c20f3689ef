package log_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/log"
)

// appendRemoval appends an event of the server's own to the log, with the metadata given as JSON.
func (l *plainLog) appendRemoval(t *testing.T, id, action, metadata string) int {
	t.Helper()
	opt := options
	opt.System = true
	e, err := log.ParseEvent(fmt.Appendf(nil, `{"id":%q,"action":%q,"actor_id":"treeline serve","metadata":%s}`, id, action, metadata), opt)
	if err != nil {
		t.Fatal(err)
	}
	last := l.disclosures[len(l.disclosures)-1]
	l.append(&log.Disclosure{ReceivedAt: last.ReceivedAt + 1e6, Event: e, Seed: &[32]byte{byte(len(l.leaves)), 9}})
	return len(l.leaves) - 1
}

// proven returns the proof of an entry in the whole log, with what change makes of its disclosure.
func (l *plainLog) proven(t *testing.T, signer note.Signer, index int, change func(*log.Disclosure) *log.Disclosure) []byte {
	t.Helper()
	d := l.disclosures[index]
	if change != nil {
		d = change(d)
	}
	return l.proof(t, index, len(l.leaves), []byte(mustMarshal(t, d)), signer)
}

func digestOnly(d *log.Disclosure) *log.Disclosure {
	digest := d.Entry().Digest
	return &log.Disclosure{ReceivedAt: d.ReceivedAt, Previous: d.Previous, Digest: &digest}
}

func withholding(t *testing.T, pointers ...string) func(*log.Disclosure) *log.Disclosure {
	return func(d *log.Disclosure) *log.Disclosure {
		out, err := d.Withhold(pointers...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// What is gone is called purged or erased only with the proof of the log's own event that says so, of this very index and pointer.
func TestRemovalsAreProven(t *testing.T) {
	t.Parallel()
	signer, verifier := testKey(t, testOrigin, 0)
	l := newLog(t, testOrigin, 20)
	purge := l.appendRemoval(t, "treeline:purged:1", log.ActionPurged, `{"ranges":[[2,5],[7,8]],"policy":{"max_age":"30d"},"part":1,"parts":1}`)
	erase := l.appendRemoval(t, "treeline:erased:1", log.ActionErased,
		`{"erased":[{"pointers":["/actor/email","/metadata/é~1~0"],"ranges":[[10,12]]},{"pointers":["/actor/email"],"ranges":[[15,16]]}],"erasure":"x"}`)
	trust := log.Trust{Keys: []note.Verifier{verifier}}
	removals := new(log.Removals)
	for _, index := range []int{purge, erase} {
		if v, err := removals.Add(l.proven(t, signer, index, nil), trust); err != nil || v.Index != uint64(index) {
			t.Fatalf("event %d: %v", index, err)
		}
	}
	trust.Removals = removals
	for i := range 20 {
		v, err := log.VerifyProof(l.proven(t, signer, i, digestOnly), trust)
		if purged := i >= 2 && i < 5 || i == 7; purged {
			if err != nil || v.PurgedBy == nil || *v.PurgedBy != (log.Ref{ID: "treeline:purged:1", Index: uint64(purge)}) {
				t.Errorf("event %d, which was purged: got %+v, %v", i, v, err)
			}
		} else if !errors.Is(err, log.ErrNotVerifiable) || !errors.Is(err, log.ErrNotShown) || v.PurgedBy != nil {
			t.Errorf("event %d, which wasn't purged: got %+v, %v", i, v, err)
		}
		v, err = log.VerifyProof(l.proven(t, signer, i, withholding(t, "/actor/email", "/metadata/é~1~0", "/metadata/n")), trust)
		if err != nil {
			t.Fatal(err)
		}
		want := "[/actor/email /metadata/n /metadata/é~1~0]"
		switch i {
		case 10, 11:
			want = "[/metadata/n]"
		case 15:
			want = "[/metadata/n /metadata/é~1~0]"
		}
		if got := v.Withheld(); fmt.Sprint(got) != want || len(v.ErasedBy) != 3-len(got) {
			t.Errorf("event %d: withheld are %v, want %v; erased %v", i, got, want, v.ErasedBy)
		}
		for _, by := range v.ErasedBy {
			if by != (log.Ref{ID: "treeline:erased:1", Index: uint64(erase)}) {
				t.Errorf("event %d: erased by %v", i, by)
			}
		}
	}
	// It says nothing of other logs.
	other := newLog(t, "audit.example.com/logs/other", 5)
	otherSigner, otherVerifier := testKey(t, other.origin, 0)
	trust.Keys = append(trust.Keys, otherVerifier)
	if v, err := log.VerifyProof(other.proven(t, otherSigner, 3, digestOnly), trust); !errors.Is(err, log.ErrNotShown) {
		t.Errorf("an event of another log: got %+v, %v", v, err)
	}
	if v, err := log.VerifyProof(other.proven(t, otherSigner, 3, withholding(t, "/actor/email")), trust); err != nil || len(v.ErasedBy) != 0 {
		t.Errorf("an event of another log: got %+v, %v", v, err)
	}
}

// Only the log's own events of these two actions count, in their one form, and only under pinned keys.
func TestWhatProvesNoRemoval(t *testing.T) {
	t.Parallel()
	signer, verifier := testKey(t, testOrigin, 0)
	trust := log.Trust{Keys: []note.Verifier{verifier}}
	many := func(n int) string {
		var ranges []string
		for i := range n {
			ranges = append(ranges, fmt.Sprintf("[%d,%d]", 2*i, 2*i+1))
		}
		return strings.Join(ranges, ",")
	}
	for name, tt := range map[string]struct{ action, metadata string }{
		"valid":                       {log.ActionPurged, `{"ranges":[[0,3],[4,5]]}`},
		"valid, erased":               {log.ActionErased, `{"erased":[{"pointers":["/actor/email","/targets/10/name"],"ranges":[[0,1]]}]}`},
		"valid, all before it":        {log.ActionPurged, `{"ranges":[[0,20]]}`},
		"valid, ranges that touch":    {log.ActionPurged, `{"ranges":[[1,2],[2,3]]}`},
		"valid, many":                 {log.ActionPurged, `{"ranges":[` + many(10) + `]}`},
		"another action":              {"treeline.retention.changed", `{"ranges":[[0,3]]}`},
		"an action that begins alike": {log.ActionPurged + "x", `{"ranges":[[0,3]]}`},
		"no ranges":                   {log.ActionPurged, `{"x":1}`},
		"an empty list":               {log.ActionPurged, `{"ranges":[]}`},
		"itself":                      {log.ActionPurged, `{"ranges":[[0,21]]}`},
		"an empty range":              {log.ActionPurged, `{"ranges":[[3,3]]}`},
		"a range backwards":           {log.ActionPurged, `{"ranges":[[3,2]]}`},
		"not ascending":               {log.ActionPurged, `{"ranges":[[4,5],[1,2]]}`},
		"overlapping":                 {log.ActionPurged, `{"ranges":[[1,3],[2,4]]}`},
		"three numbers":               {log.ActionPurged, `{"ranges":[[1,3,4]]}`},
		"one number":                  {log.ActionPurged, `{"ranges":[[1]]}`},
		"null":                        {log.ActionPurged, `{"ranges":[null]}`},
		"texts":                       {log.ActionPurged, `{"ranges":[["1","2"]]}`},
		"negative":                    {log.ActionPurged, `{"ranges":[[-1,2]]}`},
		"a fraction":                  {log.ActionPurged, `{"ranges":[[0.5,2]]}`},
		"claims of a purge":           {log.ActionPurged, `{"erased":[{"pointers":["/actor/email"],"ranges":[[0,1]]}]}`},
		"ranges of an erasure":        {log.ActionErased, `{"ranges":[[0,3]]}`},
		"no claims":                   {log.ActionErased, `{"erased":[]}`},
		"no pointers":                 {log.ActionErased, `{"erased":[{"pointers":[],"ranges":[[0,1]]}]}`},
		"no ranges of claims":         {log.ActionErased, `{"erased":[{"pointers":["/actor/email"],"ranges":[]}]}`},
		"a pattern":                   {log.ActionErased, `{"erased":[{"pointers":["/targets/*/name"],"ranges":[[0,1]]}]}`},
		"no pointer of a claim":       {log.ActionErased, `{"erased":[{"pointers":["/actor"],"ranges":[[0,1]]}]}`},
		"the id":                      {log.ActionErased, `{"erased":[{"pointers":["/id"],"ranges":[[0,1]]}]}`},
		"the action":                  {log.ActionErased, `{"erased":[{"pointers":["/action"],"ranges":[[0,1]]}]}`},
		"the credential":              {log.ActionErased, `{"erased":[{"pointers":["/credential"],"ranges":[[0,1]]}]}`},
		"pointers not ascending":      {log.ActionErased, `{"erased":[{"pointers":["/actor/name","/actor/email"],"ranges":[[0,1]]}]}`},
		"a pointer twice":             {log.ActionErased, `{"erased":[{"pointers":["/actor/name","/actor/name"],"ranges":[[0,1]]}]}`},
		"another member":              {log.ActionErased, `{"erased":[{"pointers":["/actor/name"],"ranges":[[0,1]],"x":1}]}`},
		"a member in capitals":        {log.ActionErased, `{"erased":[{"Pointers":["/actor/name"],"ranges":[[0,1]]}]}`},
		"beyond it":                   {log.ActionErased, `{"erased":[{"pointers":["/actor/name"],"ranges":[[0,21]]}]}`},
	} {
		l := newLog(t, testOrigin, 20)
		index := l.appendRemoval(t, "treeline:x:1", tt.action, tt.metadata)
		_, err := new(log.Removals).Add(l.proven(t, signer, index, nil), trust)
		if valid := strings.HasPrefix(name, "valid"); valid != (err == nil) || !valid && !errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("%s: got %v", name, err)
		}
	}

	l := newLog(t, testOrigin, 20)
	index := l.appendRemoval(t, "treeline:x:1", log.ActionPurged, `{"ranges":[[0,3]]}`)
	proof := l.proven(t, signer, index, nil)
	stranger, strangers := testKey(t, testOrigin, 1)
	for name, add := range map[string]func(r *log.Removals) error{
		"no key": func(r *log.Removals) error { _, err := r.Add(proof, log.Trust{}); return err },
		"another key": func(r *log.Removals) error {
			_, err := r.Add(proof, log.Trust{Keys: []note.Verifier{strangers}})
			return err
		},
		"a stranger's": func(r *log.Removals) error { _, err := r.Add(l.proven(t, stranger, index, nil), trust); return err },
		"digest only": func(r *log.Removals) error {
			_, err := r.Add(l.proven(t, signer, index, digestOnly), trust)
			return err
		},
		"hidden ranges": func(r *log.Removals) error {
			_, err := r.Add(l.proven(t, signer, index, withholding(t, "/metadata/ranges")), trust)
			return err
		},
		"hidden action": func(r *log.Removals) error {
			_, err := r.Add(l.proven(t, signer, index, withholding(t, "/action")), trust)
			return err
		},
		"hidden id": func(r *log.Removals) error {
			_, err := r.Add(l.proven(t, signer, index, withholding(t, "/id")), trust)
			return err
		},
		"a client's": func(r *log.Removals) error { _, err := r.Add(l.proven(t, signer, 3, nil), trust); return err },
		"changed":    func(r *log.Removals) error { _, err := r.Add(slices.Concat(proof, []byte("\n")), trust); return err },
	} {
		r := new(log.Removals)
		err := add(r)
		if !errors.Is(err, log.ErrInvalidProof) && !errors.Is(err, log.ErrNotVerifiable) {
			t.Errorf("%s: got %v", name, err)
		}
		if by, ok := r.Purged(testOrigin, 1); ok {
			t.Errorf("%s: it counts: %v", name, by)
		}
	}
	if _, err := new(log.Removals).Add(l.proven(t, signer, index, withholding(t, "/actor/id")), trust); err != nil {
		t.Errorf("with another claim withheld: %v", err)
	}
}
