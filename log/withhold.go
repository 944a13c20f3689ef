package log

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// MaxWithheld is how many patterns of claims can be withheld at once.
const MaxWithheld = 100

// Withheld are patterns of pointers, in which * stands for a whole segment: /actor/email, /targets/*/name, /metadata/*. The claims that
// they mean are not shown.
type Withheld []string

// ParseWithheld returns the patterns. The error names one that no claim can have.
func ParseWithheld(patterns []string) (Withheld, error) {
	if len(patterns) > MaxWithheld {
		return nil, fmt.Errorf("%d claims to withhold, want at most %d", len(patterns), MaxWithheld)
	}
	for _, p := range patterns {
		if !isPattern(p) {
			return nil, fmt.Errorf("%q names no claim, such as /actor/email, /targets/*/name or /metadata/*", p)
		}
	}
	return patterns, nil
}

// isPattern reports whether a pattern can match a claim.
func isPattern(pattern string) bool {
	if name, ok := strings.CutPrefix(pattern, "/metadata/"); ok && name == "*" {
		return true
	}
	if _, err := parsePointer(pattern); err == nil {
		return true
	}
	matches := func(pointer string) bool { return matchesPointer(pattern, pointer) }
	return slices.ContainsFunc(slices.Concat(eventPointers, actorPointers, contextPointers, changePointers[:]), matches) ||
		slices.ContainsFunc(slices.Concat(targetPointers[:]...), matches)
}

// From returns what is left of a disclosure: of one that has none of the claims that is all of it.
func (w Withheld) From(d *Disclosure) (*Disclosure, error) {
	if d.Digest != nil || len(w) == 0 {
		return d, nil
	}
	var pointers []string
	for _, p := range d.pointers() {
		if slices.ContainsFunc(w, func(pattern string) bool { return matchesPointer(pattern, p) }) {
			pointers = append(pointers, p)
		}
	}
	if pointers == nil {
		return d, nil
	}
	return d.Withhold(pointers...)
}

// pointers returns the pointers of all claims, shown or not.
func (d *Disclosure) pointers() (all []string) {
	if d.Event != nil {
		for _, c := range d.Event.claims {
			all = append(all, c.Pointer)
		}
	}
	for i := range d.Claims {
		all = append(all, d.Claims[i].Pointer)
	}
	return all
}

// ProofWithout is Proof with claims withheld.
func (l *Log) ProofWithout(ctx context.Context, index uint64, without Withheld) ([]byte, error) {
	c, note := l.covering(index)
	if note == nil {
		l.refreshSigned(ctx, func(s Sizes) bool { return index < s.Signed })
		if c, note = l.covering(index); note == nil {
			return nil, ErrNotSigned
		}
	}
	return l.proofUnder(ctx, index, c, note, without)
}
