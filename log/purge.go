package log

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Archived says where purged contents are: in a bundle of all events [From, To) that was read back and verified.
type Archived struct {
	Name     string `json:"name"`
	Manifest string `json:"manifest_sha256"` // of its manifest, in lower-case hex
	From     uint64 `json:"from"`
	To       uint64 `json:"to"`
	Size     uint64 `json:"size"` // of the checkpoint in it
}

// purgedEvent is what the metadata of an event ActionPurged says.
type purgedEvent struct {
	Ranges     json.RawMessage `json:"ranges"`
	Policy     Retention       `json:"policy"`
	Archive    *Archived       `json:"archive,omitempty"`
	ArchiveOff bool            `json:"archive_off,omitempty"`
	Approvers  []string        `json:"approvers,omitempty"`
	Part       int             `json:"part"`
	Parts      int             `json:"parts"`
}

// Reasons why nothing of a log is purged, although something has expired.
const (
	BlockedStopped     = "stopped"     // the log contradicts what was signed
	BlockedDamaged     = "damaged"     // an event that tells what was decided can't be read
	BlockedClock       = "clock"       // the server's clock is behind the log's newest entry
	BlockedUnsigned    = "unsigned"    // it isn't signed yet
	BlockedUnwitnessed = "unwitnessed" // a policy asks for witnesses, who haven't cosigned it yet
)

// BlockedError means that nothing may be purged now.
type BlockedError struct {
	Reason string // one of the Blocked constants
	Why    string
}

func (e *BlockedError) Error() string { return "nothing may be purged: " + e.Why }

// Is makes a BlockedError ErrBlocked.
func (e *BlockedError) Is(target error) bool { return target == ErrBlocked }

// Errors of a purge.
var (
	// ErrBlocked is what every BlockedError is.
	ErrBlocked = errors.New("nothing may be purged")
	// ErrUnarchived means that no archive has what was to be purged, while the log's policy asks for one.
	ErrUnarchived = errors.New("no archive has it")
)

// Expired is what may be purged of a log.
type Expired struct {
	// Spans are the entries of [From, To) to purge, ascending: all but those that are held, are the log's own events, or were purged.
	Spans    []Span
	From, To uint64 // what was looked at: all of it has expired
	End      uint64 // how far the log has expired: what is before it has come to the age
	Held     uint64 // how many of [From, To) only holds keep
	Policy   Retention
	// Blocked is why nothing may be purged now, or nil. Then no spans are found.
	Blocked *BlockedError
}

// Expired returns what of the entries from an index on, at most limit of them, may be purged now. It begins with the first that may be:
// those before From are purged, or are the log's own events. What follows To is looked at by the next call, until that is End.
func (l *Log) Expired(ctx context.Context, from, limit uint64) (out Expired, err error) {
	if err := l.checkTenant(); err != nil {
		return out, err
	}
	err = l.withCustody(ctx, func(c *custody) error {
		out, err = l.expired(ctx, c, from, limit)
		return err
	})
	return out, err
}

func (l *Log) expired(ctx context.Context, c *custody, from, limit uint64) (Expired, error) {
	x := Expired{Policy: c.policy(), From: from, To: from}
	end, err := l.expiredEnd(ctx, c)
	if err != nil {
		return x, err
	}
	x.End = end
	left := spansWithout(spansWithout([]Span{{min(from, end), end}}, c.purgedSpans()), spansOf(c.own))
	if len(left) == 0 || limit == 0 {
		x.From, x.To = end, end
		return x, nil
	}
	x.From = left[0].From
	x.To = min(end, x.From+limit)
	if x.Blocked, err = l.blocked(ctx, c, x.To); x.Blocked != nil || err != nil {
		return x, err
	}
	left = spansWithin(left, []Span{{x.From, x.To}})
	held, err := l.heldIn(ctx, c, left)
	if err != nil {
		return x, err
	}
	x.Held = countOf(held)
	x.Spans = spansWithout(left, held)
	return x, nil
}

// expiredEnd returns how far the log has expired.
func (l *Log) expiredEnd(ctx context.Context, c *custody) (uint64, error) {
	age := c.policy().purgeAge()
	if age.Forever {
		return 0, nil
	}
	now := l.service.config.Now().UnixMicro()
	return l.firstReceived(ctx, l.service.store, 0, l.Sizes().Size, func(receivedAt int64) bool { return !age.Reached(receivedAt, now) })
}

// blocked returns why nothing before an index may be purged now, or nil.
func (l *Log) blocked(ctx context.Context, c *custody, to uint64) (*BlockedError, error) {
	head, err := l.service.store.Head(ctx, l.ID)
	if err != nil {
		return nil, fmt.Errorf("reading the head of log %s: %w", l.Name, err)
	}
	sizes, _, _, stopped := l.progress.get()
	ahead := time.Duration(head.ReceivedAt-l.service.config.Now().UnixMicro()) * time.Microsecond
	switch {
	case stopped != nil:
		return &BlockedError{BlockedStopped, fmt.Sprintf("the log is stopped: %v", stopped)}, nil
	case c.unread != nil:
		return &BlockedError{BlockedDamaged, fmt.Sprintf("what was decided can't be read: %v", c.unread)}, nil
	case ahead > maxClockLag:
		return &BlockedError{BlockedClock, fmt.Sprintf("the server's clock is %v behind the log's newest entry", ahead)}, nil
	case to > sizes.Signed:
		return &BlockedError{BlockedUnsigned, fmt.Sprintf("entries up to %d have expired, only those up to %d are signed", to, sizes.Signed)}, nil
	case to > sizes.Witnessed && l.service.asksWitnesses():
		return &BlockedError{BlockedUnwitnessed, fmt.Sprintf("entries up to %d have expired, only those up to %d are witnessed", to, sizes.Witnessed)}, nil
	}
	return nil, nil
}

// Purge records that the contents in spans, as Expired returned them, are purged, and removes them. archived says which archive
// has them; without one it is ErrUnarchived, unless the policy has archiving off. All is decided again, so that a hold, a clock that was
// put back, or another server that came between are heeded: then it is ErrBlocked, ErrHeld, or ErrChanged, and nothing was done.
//
// Once it is recorded the contents are gone for readers. If removing them fails that is done again by Resume, and is no error.
func (l *Log) Purge(ctx context.Context, by By, spans []Span, archived *Archived) error {
	if err := checkSpans(spans, l.Sizes().Size); err != nil {
		return err
	}
	last := spans[len(spans)-1].To
	err := l.decide(ctx, by, func(ctx context.Context, c *custody) ([]*Event, error) {
		blocked, err := l.blocked(ctx, c, last)
		if err != nil {
			return nil, err
		}
		if blocked != nil {
			return nil, blocked
		}
		end, err := l.expiredEnd(ctx, c)
		switch {
		case err != nil:
			return nil, err
		case last > end:
			return nil, fmt.Errorf("%w: entries up to %d have expired, not up to %d", ErrChanged, end, last)
		case spansWithin(spans, c.purgedSpans()) != nil:
			return nil, fmt.Errorf("%w: some of it was purged", ErrChanged)
		case spansWithin(spans, spansOf(c.own)) != nil:
			return nil, fmt.Errorf("%w: the log's own events are never purged", ErrChanged)
		}
		if err := archived.check(c.policy(), spans[0].From, last); err != nil {
			return nil, err
		}
		held, err := l.heldIn(ctx, c, spans)
		if err == nil && held != nil {
			var ids []string
			if ids, err = l.heldBy(ctx, c, held); err == nil {
				err = &HeldError{ids}
			}
		}
		if err != nil {
			return nil, err
		}
		return l.purgedEvents(by, c, spans, archived)
	})
	if err != nil {
		return err
	}
	l.carryOut(ctx)
	return nil
}

// check returns ErrUnarchived unless the archive has what is between two indices, or needs not.
func (a *Archived) check(policy Retention, from, to uint64) error {
	switch {
	case a == nil && policy.Archive:
		return ErrUnarchived
	case a == nil:
		return nil
	case a.From > from || a.To < to || a.Size < a.To:
		return fmt.Errorf("%w: %s has the events %d to %d under a checkpoint of size %d, to be purged are some from %d to %d", ErrUnarchived,
			a.Name, a.From, a.To, a.Size, from, to)
	}
	if b, err := hex.DecodeString(a.Manifest); a.Name == "" || err != nil || len(b) != 32 || a.Manifest != strings.ToLower(a.Manifest) {
		return fmt.Errorf("%w: %q with manifest %q isn't one", ErrUnarchived, a.Name, a.Manifest)
	}
	return nil
}

// maxTold is how many bytes of ranges and pointers one event tells.
const maxTold = 16 << 10

// purgedEvents returns the events that record a purge.
func (l *Log) purgedEvents(by By, c *custody, spans []Span, archived *Archived) ([]*Event, error) {
	var parts [][]Span
	for len(spans) > 0 {
		var n int
		n, _ = tellable(spans, maxTold)
		parts, spans = append(parts, spans[:n]), spans[n:]
	}
	var events []*Event
	for i, part := range parts {
		e, err := l.ownEventOf(by, ActionPurged, "purged", purgedEvent{
			Ranges: appendSpans(nil, part), Policy: c.policy(), Archive: archived, ArchiveOff: archived == nil, Approvers: c.retention.Approvers,
			Part: i + 1, Parts: len(parts),
		})
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

// tellable returns how many of spans, one at least, are told in so many bytes, and how many bytes that takes.
func tellable(spans []Span, most int) (n, size int) {
	for n < len(spans) {
		grown := size + len(appendSpans(nil, spans[n:n+1]))
		if n > 0 && grown > most {
			break
		}
		n, size = n+1, grown
	}
	return n, size
}

// Purges returns all ranges of the log that were purged, ascending, and by which event each was.
func (l *Log) Purges() []PurgedSpan { return slices.Clone(l.custody.Load().purged) }
