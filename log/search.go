package log

import (
	"context"
	"fmt"
	"slices"
)

// Page says which part of a search's results is wanted.
type Page struct {
	Oldest bool // first, instead of newest first

	// Position is where to go on: newest first the size of what is still to be searched, oldest first the index to begin at.
	Position uint64

	Limit    int // most records
	MaxBytes int // of content, after which the page ends
}

// Found is a page of results.
type Found struct {
	Records  []Record
	Position uint64 // for the next page
	More     bool   // whether there is anything left to search, not whether anything will be found
}

// maxScan is the largest number of events that one page looks at.
const maxScan = 10_000

// Search returns the events that the filter selects, in the order of their indices or against it. A page ends at its limits, or
// when enough work was done for it: it may be short or empty with More true.
func (l *Log) Search(ctx context.Context, f *Filter, p Page) (Found, error) {
	const step = 64
	size := l.Sizes().Size
	found := Found{Position: p.Position}
	for bytes, scanned := 0, 0; ; {
		from, to := found.Position, min(found.Position+step, size)
		if !p.Oldest {
			from, to = found.Position-min(found.Position, step), found.Position
		}
		found.More = from < to
		if !found.More || len(found.Records) >= p.Limit || bytes >= p.MaxBytes || scanned >= maxScan {
			return found, nil
		}
		run, err := l.Records(ctx, from, to, step*MaxEventSize)
		if err != nil {
			return Found{}, err
		}
		if !p.Oldest {
			slices.Reverse(run)
		}
		for _, r := range run {
			if len(found.Records) >= p.Limit || bytes >= p.MaxBytes {
				break
			}
			found.Position = r.Index
			if p.Oldest {
				found.Position++
			}
			scanned++
			e, err := ParseStored(r.Event)
			if err != nil {
				return Found{}, fmt.Errorf("entry %d: its content isn't a canonical event: %v: %w", r.Index, err, ErrDamaged)
			}
			if f.Match(e, r.ReceivedAt) {
				found.Records = append(found.Records, r)
				bytes += len(r.Event)
			}
		}
	}
}
