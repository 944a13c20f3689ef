package log

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Hold keeps the events that a filter selects, also those that are still to come, from being purged or erased until it is released.
type Hold struct {
	ID         string
	Matter     string // what it is for: a lawsuit, an inquiry
	Reason     string
	Filter     string // the canonical query of an export; "" holds the whole log
	By         By
	PlacedAt   int64 // µs since 1970 UTC
	Event      Ref
	ReleasedAt int64 // µs since 1970 UTC; 0: it is in force
	ReleasedBy By
	Release    string // the reason

	filter *Filter
}

// HeldError means that nothing was erased, since holds keep events that would have been.
type HeldError struct {
	Holds []string // ids
}

func (e *HeldError) Error() string { return fmt.Sprintf("held by %s", strings.Join(e.Holds, ", ")) }

// ErrHeld is what every HeldError is.
var ErrHeld = errors.New("held")

// Is makes a HeldError ErrHeld.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }

// ErrReleased means that the hold was released before.
var ErrReleased = errors.New("the hold was released before")

// Holds returns all holds of the log in the order in which they were placed, those too that are released.
func (l *Log) Holds() []Hold { return l.custody.Load().allHolds() }

// PlaceHold places a hold on the events that a query selects, see ParseFilter; an empty one selects all. On return it is
// in force on all servers. Errors are ErrFilter, ErrReason if matter or reason is missing, ErrHub, ErrSystem, and those of appending.
func (l *Log) PlaceHold(ctx context.Context, by By, matter, reason string, filter url.Values) (Hold, error) {
	return Hold{}, errors.ErrUnsupported
}

// ReleaseHold ends a hold. Errors are ErrNotFound, ErrReleased, ErrReason, and those of appending.
func (l *Log) ReleaseHold(ctx context.Context, by By, id, reason string) (Hold, error) {
	return Hold{}, errors.ErrUnsupported
}

// Held returns those of the entries in spans, which ascend, that holds keep, and the ids of these holds.
func (l *Log) Held(ctx context.Context, spans []Span) (held []Span, holds []string, err error) {
	return nil, nil, errors.ErrUnsupported
}
