package log

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// Hold keeps the events that a filter selects, also those that are still to come, from being purged or erased until it is released.
type Hold struct {
	ID         string
	Matter     string // what it is for: a lawsuit, an inquiry
	Reason     string
	Filter     string // the canonical query of an export; "" holds the whole log
	By         By
	PlacedAt   int64 // µs since 1970 UTC
	Event      Ref   // that says so
	ReleasedAt int64 // µs since 1970 UTC; 0: it is in force
	ReleasedBy By
	Release    string // the reason

	filter *Filter
}

// HeldError means that nothing was erased or purged, since holds keep events that would have been.
type HeldError struct {
	Holds []string // ids
}

func (e *HeldError) Error() string { return fmt.Sprintf("held by %s", strings.Join(e.Holds, ", ")) }

// Is makes a HeldError ErrHeld.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// Errors of holds, and of reasons, which releases need, too.
var (
	// ErrHeld is what every HeldError is.
	ErrHeld = errors.New("held")
	// ErrReleased means that the hold was released before.
	ErrReleased = errors.New("the hold was released before")
	// ErrReason means that a reason, or what something is for, is missing, or too long.
	ErrReason = errors.New("want a text of 1 to 1,024 bytes of UTF-8")
)

// checkReason returns ErrReason if a text isn't one.
func checkReason(what, text string) error {
	if strings.TrimSpace(text) == "" || len(text) > maxReason || !isText(text) {
		return fmt.Errorf("the %s: %w", what, ErrReason)
	}
	return nil
}

// What the metadata of events about holds says.
type (
	holdPlaced struct {
		Hold   string `json:"hold"`
		Matter string `json:"matter"`
		Reason string `json:"reason"`
		Filter string `json:"filter"`
	}
	holdReleased struct {
		Hold   string `json:"hold"`
		Reason string `json:"reason"`
	}
)

// applyHold takes up an event about a hold.
func (c *custody) applyHold(action string, r ownRecord) error {
	if action == ActionHoldReleased {
		var m holdReleased
		if err := json.Unmarshal(r.event.Metadata(), &m); err != nil {
			return err
		}
		i := slices.IndexFunc(c.holds, func(h *Hold) bool { return h.ID == m.Hold })
		if i < 0 {
			return fmt.Errorf("the hold %s, which it releases, was never placed", m.Hold)
		}
		h := *c.holds[i]
		h.ReleasedAt, h.ReleasedBy, h.Release = r.receivedAt, byOf(r.event), m.Reason
		c.holds = slices.Clone(c.holds)
		c.holds[i] = &h
		return nil
	}
	var m holdPlaced
	if err := json.Unmarshal(r.event.Metadata(), &m); err != nil {
		return err
	}
	h := &Hold{
		ID: m.Hold, Matter: m.Matter, Reason: m.Reason, Filter: m.Filter, By: byOf(r.event), PlacedAt: r.receivedAt,
		Event: Ref{r.event.ID(), r.index},
	}
	query, err := url.ParseQuery(m.Filter)
	if err == nil {
		h.filter, err = ParseFilter(query)
	}
	if err != nil {
		return fmt.Errorf("the filter of hold %s: %w", m.Hold, err)
	}
	c.holds = append(c.holds, h)
	return nil
}

// inForce returns the holds that aren't released.
func (c *custody) inForce() []*Hold {
	return slices.DeleteFunc(slices.Clone(c.holds), func(h *Hold) bool { return h.ReleasedAt != 0 })
}

// holdKey names the holds in force.
func (c *custody) holdKey() string {
	var key strings.Builder
	for _, h := range c.inForce() {
		key.WriteString(h.ID + " ")
	}
	return key.String()
}

// Holds returns all holds of the log in the order in which they were placed, those too that are released.
func (l *Log) Holds() []Hold {
	var all []Hold
	for _, h := range l.custody.Load().holds {
		all = append(all, *h)
	}
	return all
}

// PlaceHold places a hold on the events that a query selects, see ParseFilter; an empty one selects all. On return it is
// in force on all servers. Errors are ErrFilter, ErrReason if matter or reason is missing, ErrHub, ErrSystem, and those of appending.
func (l *Log) PlaceHold(ctx context.Context, by By, matter, reason string, filter url.Values) (h Hold, err error) {
	if err := errors.Join(checkReason("matter", matter), checkReason("reason", reason)); err != nil {
		return h, err
	}
	if _, err := ParseFilter(filter); err != nil {
		return h, err
	}
	m := holdPlaced{Hold: uuid.Must(uuid.NewV7()).String(), Matter: matter, Reason: reason, Filter: filter.Encode()}
	err = l.decide(ctx, by, func(context.Context, *custody) ([]*Event, error) {
		e, err := l.ownEventOf(by, ActionHoldPlaced, "hold", m)
		return []*Event{e}, err
	})
	if err != nil {
		return h, err
	}
	return l.hold(m.Hold)
}

// hold returns the hold with an id, or ErrNotFound.
func (l *Log) hold(id string) (Hold, error) {
	for _, h := range l.Holds() {
		if h.ID == id {
			return h, nil
		}
	}
	return Hold{}, fmt.Errorf("hold %q: %w", id, ErrNotFound)
}

// ReleaseHold ends a hold. Errors are ErrNotFound, ErrReleased, ErrReason, and those of appending.
func (l *Log) ReleaseHold(ctx context.Context, by By, id, reason string) (Hold, error) {
	if err := checkReason("reason", reason); err != nil {
		return Hold{}, err
	}
	err := l.decide(ctx, by, func(_ context.Context, c *custody) ([]*Event, error) {
		i := slices.IndexFunc(c.holds, func(h *Hold) bool { return h.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("hold %q: %w", id, ErrNotFound)
		}
		if c.holds[i].ReleasedAt != 0 {
			return nil, ErrReleased
		}
		e, err := l.ownEventOf(by, ActionHoldReleased, "released", holdReleased{id, reason})
		return []*Event{e}, err
	})
	if err != nil {
		return Hold{}, err
	}
	return l.hold(id)
}

// heldMemo remembers which entries are held, so that what holds keep for years isn't compared with them each time that something may be
// purged. What a hold selects of what is in a log never changes.
type heldMemo struct {
	mu      sync.Mutex
	key     string // of the holds that it is about
	checked []Span
	held    []Span
}

// heldRun is how many entries are compared with holds at a time.
const heldRun = 4096

// heldIn returns what of spans, which ascend, the holds in force keep.
func (l *Log) heldIn(ctx context.Context, c *custody, spans []Span) ([]Span, error) {
	holds := c.inForce()
	if len(holds) == 0 {
		return nil, nil
	}
	if slices.ContainsFunc(holds, func(h *Hold) bool { return h.filter.All() }) {
		return spans, nil
	}
	memo := &l.held
	memo.mu.Lock()
	defer memo.mu.Unlock()
	if key := c.holdKey(); memo.key != key {
		memo.key, memo.checked, memo.held = key, nil, nil
	}
	for _, s := range spansWithout(spans, memo.checked) {
		var held []uint64
		for from := s.From; from < s.To; from += heldRun {
			err := l.matching(ctx, c, from, min(from+heldRun, s.To), func(index uint64, e *Event, receivedAt int64) {
				if slices.ContainsFunc(holds, func(h *Hold) bool { return h.filter.Match(e, receivedAt) }) {
					held = append(held, index)
				}
			})
			if err != nil {
				return nil, err
			}
		}
		memo.checked = united(append(memo.checked, s))
		memo.held = united(append(memo.held, spansOf(held)...))
	}
	return spansWithin(spans, memo.held), nil
}

// matching calls fn with what is left of each event in [from, to) that wasn't purged, and when it was received.
func (l *Log) matching(ctx context.Context, c *custody, from, to uint64, fn func(index uint64, e *Event, receivedAt int64)) error {
	received := make([]int64, 0, to-from)
	err := l.service.store.Entries(ctx, l.ID, from, to, func(b []byte) error {
		e, err := storedEntry(from+uint64(len(received)), b)
		received = append(received, e.ReceivedAt)
		return err
	})
	if err != nil {
		return err
	}
	return c.contents(ctx, l.service.store, l.ID, from, to, func(index uint64, _ Payload, x content) error {
		if x.event != nil {
			fn(index, x.event, received[index-from])
		}
		return nil
	})
}

// Held returns those of the entries in spans, which ascend, that holds keep, and the ids of these holds.
func (l *Log) Held(ctx context.Context, spans []Span) (held []Span, ids []string, err error) {
	err = l.withCustody(ctx, func(c *custody) error {
		if held, err = l.heldIn(ctx, c, spans); err == nil {
			ids, err = l.heldBy(ctx, c, held)
		}
		return err
	})
	return held, ids, err
}

// heldBy returns the ids of those holds that keep one of spans or more.
func (l *Log) heldBy(ctx context.Context, c *custody, spans []Span) (ids []string, err error) {
	by := make(map[*Hold]bool)
	holds := c.inForce()
	for _, s := range spans {
		for from := s.From; from < s.To && len(by) < len(holds); from += heldRun {
			err := l.matching(ctx, c, from, min(from+heldRun, s.To), func(_ uint64, e *Event, receivedAt int64) {
				for _, h := range holds {
					if !by[h] && h.filter.Match(e, receivedAt) {
						by[h] = true
					}
				}
			})
			if err != nil {
				return nil, err
			}
		}
	}
	for _, h := range holds {
		if by[h] {
			ids = append(ids, h.ID)
		}
	}
	return ids, nil
}
