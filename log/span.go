package log

import (
	"cmp"
	"slices"
)

// Span is the entries [From, To).
type Span struct{ From, To uint64 }

// Len returns how many entries are in the span.
func (s Span) Len() uint64 { return s.To - s.From }

// compare returns where the span is, seen from an index: 1 after it, -1 before it, 0 around it.
func (s Span) compare(index uint64) int {
	switch {
	case index < s.From:
		return 1
	case index >= s.To:
		return -1
	}
	return 0
}

// countOf returns how many entries are in spans that don't overlap.
func countOf(spans []Span) (n uint64) {
	for _, s := range spans {
		n += s.Len()
	}
	return n
}

// united returns all that is in any of spans, as the fewest that ascend.
func united(spans []Span) []Span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	out := spans[:0]
	for _, s := range spans {
		switch last := len(out) - 1; {
		case s.From >= s.To:
		case last >= 0 && s.From <= out[last].To:
			out[last].To = max(out[last].To, s.To)
		default:
			out = append(out, s)
		}
	}
	return out
}

// spansWithout returns what of spans isn't in others. Both ascend, and what it returns does.
func spansWithout(spans, others []Span) (out []Span) {
	for _, s := range spans {
		for len(others) > 0 && others[0].To <= s.From {
			others = others[1:]
		}
		for _, o := range others {
			if o.From >= s.To {
				break
			}
			if o.From > s.From {
				out = append(out, Span{s.From, o.From})
			}
			s.From = max(s.From, o.To)
			if s.From >= s.To {
				break
			}
		}
		if s.From < s.To {
			out = append(out, s)
		}
	}
	return out
}

// spansWithin returns what of spans is in others. Both ascend, and what it returns does.
func spansWithin(spans, others []Span) (out []Span) {
	for _, s := range spans {
		for len(others) > 0 && others[0].To <= s.From {
			others = others[1:]
		}
		for _, o := range others {
			if o.From >= s.To {
				break
			}
			out = append(out, Span{max(s.From, o.From), min(s.To, o.To)})
		}
	}
	return out
}

// overlaps reports whether one of spans, which ascend, has an entry of [from, to).
func overlaps(spans []Span, from, to uint64) bool {
	i, found := slices.BinarySearchFunc(spans, from, Span.compare)
	return found || i < len(spans) && spans[i].From < to
}

// spansOf returns ascending indices as spans.
func spansOf(indices []uint64) (out []Span) {
	for _, i := range indices {
		if last := len(out) - 1; last >= 0 && out[last].To == i {
			out[last].To++
			continue
		}
		out = append(out, Span{i, i + 1})
	}
	return out
}

// covers reports whether one of spans, which ascend, holds an index.
func covers(spans []Span, index uint64) bool { return overlaps(spans, index, index+1) }

// contains reports whether sorted texts have one.
func contains(sorted []string, text string) bool {
	_, found := slices.BinarySearch(sorted, text)
	return found
}
