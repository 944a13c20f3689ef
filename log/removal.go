package log

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Members of the metadata of these events, by their pointers.
const (
	pointerRanges = "/metadata/ranges" // of a purge
	pointerErased = "/metadata/erased" // of an erasure
)

// maxNamed bounds the indices that such an event names: JSON numbers are exact up to there.
const maxNamed = 1<<53 - 1

// appendSpans appends the JSON of spans: [[from,to],…].
func appendSpans(dst []byte, spans []Span) []byte {
	dst = append(dst, '[')
	for i, s := range spans {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(append(dst, '['), s.From, 10)
		dst = append(strconv.AppendUint(append(dst, ','), s.To, 10), ']')
	}
	return append(dst, ']')
}

// appendErased appends the canonical JSON of erased claims: [{"pointers":[…],"ranges":[[from,to],…]},…].
func appendErased(dst []byte, all []ErasedGroup) []byte {
	dst = append(dst, '[')
	for i, e := range all {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"pointers":[`...)
		for i, p := range e.Pointers {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, p)
		}
		dst = append(appendSpans(append(dst, `],"ranges":`...), e.Ranges), '}')
	}
	return append(dst, ']')
}

// parseSpans reads what appendSpans writes: at least one span, none empty, ascending, not overlapping, and all of entries below end.
func parseSpans(data []byte, end uint64) ([]Span, error) {
	var pairs [][]uint64
	if err := json.Unmarshal(data, &pairs); err != nil {
		return nil, err
	}
	spans := make([]Span, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return nil, fmt.Errorf("a range of %d numbers, want 2", len(p))
		}
		spans[i] = Span{p[0], p[1]}
	}
	if err := checkSpans(spans, end); err != nil {
		return nil, err
	}
	if !bytes.Equal(appendSpans(nil, spans), data) {
		return nil, fmt.Errorf("ranges that aren't in canonical form")
	}
	return spans, nil
}

func checkSpans(spans []Span, end uint64) error {
	if len(spans) == 0 {
		return fmt.Errorf("no ranges")
	}
	for i, s := range spans {
		switch {
		case s.From >= s.To:
			return fmt.Errorf("the range from %d to %d is empty", s.From, s.To)
		case s.To > end || s.To > maxNamed:
			return fmt.Errorf("the range from %d to %d is beyond entry %d", s.From, s.To, end)
		case i > 0 && s.From < spans[i-1].To:
			return fmt.Errorf("the range from %d to %d begins before the end of the one before, %d", s.From, s.To, spans[i-1].To)
		}
	}
	return nil
}

// parseErased reads what appendErased writes: claims that can be erased, of entries below end.
func parseErased(data []byte, end uint64) ([]ErasedGroup, error) {
	var in []struct {
		Pointers []string        `json:"pointers"`
		Ranges   json.RawMessage `json:"ranges"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, err
	}
	if len(in) == 0 {
		return nil, fmt.Errorf("no claims")
	}
	out := make([]ErasedGroup, len(in))
	for i, e := range in {
		spans, err := parseSpans(e.Ranges, end)
		if err != nil {
			return nil, err
		}
		if len(e.Pointers) == 0 {
			return nil, fmt.Errorf("no pointers")
		}
		for i, p := range e.Pointers {
			if i > 0 && p <= e.Pointers[i-1] {
				return nil, fmt.Errorf("pointer %q does not ascend from %q", p, e.Pointers[i-1])
			}
			if err := checkErasable(p); err != nil {
				return nil, err
			}
		}
		out[i] = ErasedGroup{e.Pointers, spans}
	}
	if !bytes.Equal(appendErased(nil, out), data) {
		return nil, fmt.Errorf("claims that aren't in canonical form, or with members that don't belong there")
	}
	return out, nil
}

// checkErasable returns nil if a claim of that pointer can be erased. Those that can't are what an entry keeps for ever, and who
// wrote it.
func checkErasable(pointer string) error {
	switch pointer {
	case "/id", "/action", "/credential":
		return fmt.Errorf("the claim %s can't be erased", pointer)
	}
	_, err := parsePointer(pointer)
	return err
}

// removal is what one event says was removed: spans of contents, or claims.
type removal struct {
	Ref
	purged []Span
	erased []ErasedGroup
}

// removalOf reads the removal in an event of the given index, of which the value of each claim is asked for by its pointer; nil where
// it isn't shown. It is nil for an event of another action.
func removalOf(index uint64, claim func(pointer string) []byte) (*removal, error) {
	r := &removal{Ref: Ref{Index: index}}
	text := func(pointer string) (string, error) {
		value := claim(pointer)
		if value == nil {
			return "", fmt.Errorf("%s isn't shown", pointer)
		}
		var s string
		err := json.Unmarshal(value, &s)
		return s, err
	}
	action, err := text("/action")
	if err != nil {
		return nil, err
	}
	var pointer string
	switch action {
	case ActionPurged:
		pointer = pointerRanges
	case ActionErased:
		pointer = pointerErased
	default:
		return nil, nil
	}
	if r.ID, err = text("/id"); err != nil {
		return nil, err
	}
	value := claim(pointer)
	if value == nil {
		return nil, fmt.Errorf("%s isn't shown", pointer)
	}
	if action == ActionPurged {
		r.purged, err = parseSpans(value, index)
	} else {
		r.erased, err = parseErased(value, index)
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", pointer, action, err)
	}
	return r, nil
}

// claim returns the value of a claim that is shown, in canonical form; otherwise nil.
func (d *Disclosure) claim(pointer string) []byte {
	if d.Event != nil {
		if i, ok := d.Event.findClaim(pointer); ok {
			return d.Event.claims[i].Value
		}
		return nil
	}
	i, ok := slices.BinarySearchFunc(d.Claims, pointer, func(c Claim, p string) int { return strings.Compare(c.Pointer, p) })
	if !ok {
		return nil
	}
	return d.Claims[i].Value
}

// Removals are what proven events of logs say was removed from them. The zero value, and nil, know of none.
type Removals struct {
	byOrigin map[string][]removal // ascending by index
}

// Purged returns the event that tells that the content of an entry was purged.
func (r *Removals) Purged(origin string, index uint64) (Ref, bool) {
	if r == nil {
		return Ref{}, false
	}
	for _, m := range r.byOrigin[origin] {
		if covers(m.purged, index) {
			return m.Ref, true
		}
	}
	return Ref{}, false
}

// Erased returns the event that tells that a claim of an entry was erased.
func (r *Removals) Erased(origin string, index uint64, pointer string) (Ref, bool) {
	if r == nil {
		return Ref{}, false
	}
	for _, m := range r.byOrigin[origin] {
		for _, e := range m.erased {
			if contains(e.Pointers, pointer) && covers(e.Ranges, index) {
				return m.Ref, true
			}
		}
	}
	return Ref{}, false
}

// Add adds what the event says that a proof file is of. It counts only if the proof is VALID under what the caller trusts, so
// otherwise the error is that of VerifyProof. A proof of an event that removes nothing, or that doesn't show what it removes, wraps
// ErrInvalidProof, too.
func (r *Removals) Add(proof []byte, trust Trust) (*Verification, error) {
	v, unmet := VerifyProof(proof, trust)
	if v == nil {
		return nil, unmet
	}
	m := new(removal)
	if v.Disclosure != nil {
		var err error
		if m, err = removalOf(v.Index, v.Disclosure.claim); err != nil {
			return nil, invalid(fmt.Errorf("event %d of %s: %w", v.Index, v.Origin, err))
		}
	}
	if m == nil || v.Disclosure == nil {
		return nil, invalid(fmt.Errorf("event %d of %s is neither %s nor %s", v.Index, v.Origin, ActionPurged, ActionErased))
	}
	if unmet != nil {
		return v, unmet
	}
	if r.byOrigin == nil {
		r.byOrigin = make(map[string][]removal)
	}
	all := r.byOrigin[v.Origin]
	i, ok := slices.BinarySearchFunc(all, m.Index, func(m removal, index uint64) int { return cmp.Compare(m.Index, index) })
	if !ok {
		r.byOrigin[v.Origin] = slices.Insert(all, i, *m)
	}
	return v, nil
}

// Clone returns a copy, to which more can be added.
func (r *Removals) Clone() *Removals {
	out := &Removals{byOrigin: make(map[string][]removal)}
	if r != nil {
		for origin, all := range r.byOrigin {
			out.byOrigin[origin] = slices.Clone(all)
		}
	}
	return out
}
