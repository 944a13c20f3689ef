package log

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Span is the entries [From, To).
type Span struct{ From, To uint64 }

// Len returns how many entries are in the span.
func (s Span) Len() uint64 { return s.To - s.From }

// MarshalJSON returns the span as [from,to].
func (s Span) MarshalJSON() ([]byte, error) { return json.Marshal([2]uint64{s.From, s.To}) }

// UnmarshalJSON reads that.
func (s *Span) UnmarshalJSON(text []byte) error {
	var ends []uint64
	if err := json.Unmarshal(text, &ends); err != nil {
		return err
	}
	if len(ends) != 2 || ends[0] >= ends[1] {
		return fmt.Errorf("%s is no range of entries: want [from,to], from before to", text)
	}
	s.From, s.To = ends[0], ends[1]
	return nil
}

// covers reports whether one of spans, which ascend and don't overlap, holds an index.
func covers(spans []Span, index uint64) bool {
	_, found := slices.BinarySearchFunc(spans, index, func(s Span, at uint64) int {
		switch {
		case at < s.From:
			return 1
		case at >= s.To:
			return -1
		}
		return 0
	})
	return found
}

// contains reports whether sorted texts have one.
func contains(sorted []string, text string) bool {
	_, found := slices.BinarySearch(sorted, text)
	return found
}
