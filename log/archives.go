package log

import (
	"cmp"
	"context"
	"slices"
)

// Archives returns the archived bundles that have what was purged of the log, as its own events say, ascending by what they begin with, each
// once.
func (l *Log) Archives(ctx context.Context) ([]Archived, error) {
	c, err := l.inCustody(ctx)
	if err != nil {
		return nil, err
	}
	var all []Archived
	for i := range c.acts {
		if a := c.acts[i].archive; a != nil {
			all = append(all, *a)
		}
	}
	slices.SortFunc(all, func(a, b Archived) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Name, b.Name)) })
	return slices.Compact(all), nil
}

// Removals returns the events that tell that something of the entries [from, to) was purged or erased, in order: those whose proofs show it.
func (l *Log) Removals(ctx context.Context, from, to uint64) ([]Ref, error) {
	c, err := l.inCustody(ctx)
	if err != nil {
		return nil, err
	}
	var all []Ref
	for i := range c.acts {
		if a := &c.acts[i]; spansWithin(a.spans, []Span{{from, to}}) != nil {
			all = append(all, a.Ref)
		}
	}
	return all, nil
}
