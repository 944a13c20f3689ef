package log

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// What is decided about the contents of a log, for how long they are kept, what is held, what was purged and erased, are events of the
// server's own in that same log. They are the only truth about it: a server folds them into a custody when it opens the log and after each
// of them, and no table says the same in another way.
//
// What is to be done is recorded before it is done, and counts from then on: whoever reads is shown what the events say, also while
// bytes of what is gone are still there. Doing it can be repeated, and is taken up after a crash (Resume).

// OwnPrefix begins the ids of a log's own events, so that they are found without reading all others. Clients may have such ids, too: an
// event is the log's own by its action, which begins with "treeline.".
const OwnPrefix = "treeline:"

// ownIDs begins these ids, and that of the event that begins a log which follows another one.
const ownIDs = "treeline"

// ownActions begins the actions of the server's own events.
const ownActions = "treeline."

// Actions of the events that decide about a log's contents.
const (
	ActionPurged             = "treeline.retention.purged"
	ActionErased             = "treeline.subject.erased"
	ActionRetentionRequested = "treeline.retention.requested"
	ActionRetentionApproved  = "treeline.retention.approved"
	ActionRetentionCancelled = "treeline.retention.cancelled"
	ActionRetentionChanged   = "treeline.retention.changed"
	ActionHoldPlaced         = "treeline.hold.placed"
	ActionHoldReleased       = "treeline.hold.released"
)

// Ref names an event of a log.
type Ref struct {
	ID    string `json:"id"`
	Index uint64 `json:"index"`
}

// ErrChanged means that something became of what was to be decided about since it was looked at.
var ErrChanged = errors.New("changed meanwhile")

// custody is what a log's own events say of its contents. It doesn't change; a Log has a new one after each such event.
type custody struct {
	size      uint64   // the log's, up to which own events are in it
	own       []uint64 // the indices of all own events, ascending
	retention RetentionState
	holds     []*Hold // as they were placed
	acts      []act   // the purges and erasures, as they were recorded

	purged []PurgedSpan // ascending, disjoint
	erased []erasedSpan // ascending, disjoint
	unread error        // an own event can't be read, so that nobody knows what was decided
}

// act is one event that tells of a purge or an erasure, or of a part of it.
type act struct {
	Ref
	at      int64 // when it was recorded, µs since 1970 UTC
	erasure string
	spans   []Span    // all that it concerns, ascending
	archive *Archived // that has what was purged; nil: none
	erased  []ErasedGroup
	details erasedDetails
	by      By
}

// PurgedSpan is a range of purged entries.
type PurgedSpan struct {
	Span
	By Ref // the event that says so
}

// erasedSpan is a range of entries of which the same events erased the same claims.
type erasedSpan struct {
	Span
	by []erasedBy
}

// erasedBy is what an event says to have been erased.
type erasedBy struct {
	Ref
	pointers []string // ascending
}

// purgedBy returns the event by which the content of an entry was purged, or nil.
func (c *custody) purgedBy(index uint64) *Ref {
	if len(c.purged) == 0 {
		return nil
	}
	i, ok := slices.BinarySearchFunc(c.purged, index, func(s PurgedSpan, at uint64) int { return s.compare(at) })
	if !ok {
		return nil
	}
	return &c.purged[i].By
}

// erasedOf returns what was erased of an entry's content.
func (c *custody) erasedOf(index uint64) []erasedBy {
	if len(c.erased) == 0 {
		return nil
	}
	i, ok := slices.BinarySearchFunc(c.erased, index, func(s erasedSpan, at uint64) int { return s.compare(at) })
	if !ok {
		return nil
	}
	return c.erased[i].by
}

// purgedSpans returns all that was purged.
func (c *custody) purgedSpans() []Span {
	out := make([]Span, len(c.purged))
	for i, s := range c.purged {
		out[i] = s.Span
	}
	return united(out)
}

// foldRun is how many own events are read at a time.
const foldRun = 256

// ownRecord is an event that may be the log's own.
type ownRecord struct {
	index      uint64
	receivedAt int64
	event      *Event // nil: its content isn't there
}

// foldCustody reads the log's own events that came after before, and returns what all of them say. The error is that of reading; an
// event that is damaged is in unread.
func foldCustody(ctx context.Context, store Reader, id ID, before *custody) (*custody, error) {
	head, err := store.Head(ctx, id) // before the ids: all below its size are among them, however they are read
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
		return before, nil // the log is stopped by that, or found to be damaged
	}
	if err != nil {
		return nil, err
	}
	from := before.size
	if before.unread != nil {
		before, from = new(custody), 0
	}
	var indices []uint64
	err = store.IDsWithPrefix(ctx, id, ownIDs, func(event string, index uint64) error {
		if !strings.HasPrefix(event, OwnPrefix) && event != startedID {
			return nil
		}
		if index >= from && index < head.Size {
			indices = append(indices, index)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for the log's own events: %w", err)
	}
	if len(indices) == 0 {
		if head.Size <= before.size {
			return before, nil
		}
		c := *before
		c.size = head.Size
		return &c, nil
	}
	slices.Sort(indices)
	var records []ownRecord
	var unread []error
	var unreadAt []uint64
	for run := range slices.Chunk(indices, foldRun) {
		all, errs, at, err := readOwn(ctx, store, id, run)
		if err != nil {
			return nil, fmt.Errorf("reading the log's own events: %w", err)
		}
		records, unread, unreadAt = append(records, all...), append(unread, errs...), append(unreadAt, at...)
	}
	c := before.with(records)
	c.size = head.Size
	for i, at := range unreadAt {
		if c.purgedBy(at) == nil { // a client's event, with such an id
			c.unread = errors.Join(c.unread, unread[i])
		}
	}
	return c, nil
}

// readOwn reads events that may be the log's own, each checked against its entry, and returns those that are, with what is wrong with
// others.
func readOwn(ctx context.Context, store Reader, id ID, indices []uint64) (records []ownRecord, unread []error, unreadAt []uint64, err error) {
	entries := make(map[uint64]Entry, len(indices))
	err = store.EntriesAt(ctx, id, indices, func(index uint64, b []byte) error {
		e, err := storedEntry(index, b)
		entries[index] = e
		return err
	})
	if errors.Is(err, ErrDamaged) {
		return nil, []error{err}, indices[:1], nil
	}
	if err != nil {
		return nil, nil, nil, err
	}
	bad := func(index uint64, err error) {
		unread, unreadAt = append(unread, fmt.Errorf("entry %d: %w", index, err)), append(unreadAt, index)
	}
	there := make(map[uint64]bool, len(indices))
	err = store.PayloadsAt(ctx, id, indices, func(index uint64, p Payload) error {
		if p.Data == nil {
			return nil
		}
		there[index] = true
		if p.Data[0] == payloadReduced { // nothing of an own event is erased
			claims, err := decodeReduced(p.Data)
			if err == nil && strings.HasPrefix(shownEvent(claims).Action(), ownActions) {
				err = fmt.Errorf("claims of an event of the server's own are missing: %w", ErrDamaged)
			}
			if err != nil {
				bad(index, err)
			}
			return nil
		}
		e, err := checkContent(p, entries[index].Digest)
		if err != nil {
			bad(index, err)
		} else if strings.HasPrefix(e.Action(), ownActions) {
			records = append(records, ownRecord{index, entries[index].ReceivedAt, e})
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, nil, nil, err
	}
	for _, index := range indices {
		if !there[index] {
			bad(index, fmt.Errorf("its content is missing: %w", ErrDamaged))
		}
	}
	return records, unread, unreadAt, nil
}

// with returns what the log's own events say after further ones, which ascend.
func (c *custody) with(records []ownRecord) *custody {
	next := *c
	next.own, next.acts, next.holds = slices.Clip(c.own), slices.Clip(c.acts), slices.Clip(c.holds)
	grown := len(c.acts)
	for _, r := range records {
		next.own = append(next.own, r.index)
		next.size = max(next.size, r.index+1)
		if err := next.apply(r); err != nil {
			next.unread = errors.Join(next.unread, fmt.Errorf("entry %d: %w: %w", r.index, err, ErrDamaged))
		}
	}
	if len(next.acts) > grown {
		next.flatten()
	}
	return &next
}

// apply takes up one event.
func (c *custody) apply(r ownRecord) error {
	switch action := r.event.Action(); action {
	case ActionRetentionRequested, ActionRetentionApproved, ActionRetentionCancelled, ActionRetentionChanged:
		return c.applyRetention(action, r)
	case ActionHoldPlaced, ActionHoldReleased:
		return c.applyHold(action, r)
	case ActionPurged, ActionErased:
		return c.applyRemoval(r)
	}
	return nil // of a newer version, say
}

// applyRemoval takes up an event that tells of a purge or an erasure.
func (c *custody) applyRemoval(r ownRecord) error {
	m, err := removalOf(r.index, func(pointer string) []byte {
		if i, ok := r.event.findClaim(pointer); ok {
			return r.event.claims[i].Value
		}
		return nil
	})
	if err != nil {
		return err
	}
	a := act{Ref: m.Ref, at: r.receivedAt, spans: m.purged, erased: m.erased, by: byOf(r.event)}
	if m.purged != nil {
		var told struct {
			Archive *Archived `json:"archive"`
		}
		if err := json.Unmarshal(r.event.Metadata(), &told); err != nil {
			return err
		}
		a.archive = told.Archive
	}
	if m.erased != nil {
		if err := json.Unmarshal(r.event.Metadata(), &a.details); err != nil {
			return err
		}
		a.erasure = a.details.Erasure
		for _, e := range m.erased {
			a.spans = append(a.spans, e.Ranges...)
		}
		a.spans = united(a.spans)
	}
	c.acts = append(c.acts, a)
	return nil
}

// flatten computes from all acts what was purged and erased.
func (c *custody) flatten() {
	c.purged, c.erased = nil, nil
	var covered []Span
	type edge struct {
		at    uint64
		begin bool
		by    *erasedBy
	}
	var edges []edge
	for i := range c.acts {
		a := &c.acts[i]
		if a.erased == nil { // the first to purge an entry is who did
			for _, s := range spansWithout(a.spans, covered) {
				c.purged = append(c.purged, PurgedSpan{s, a.Ref})
			}
			covered = united(append(covered, a.spans...))
			continue
		}
		for _, e := range a.erased {
			by := &erasedBy{a.Ref, e.Pointers}
			for _, s := range e.Ranges {
				edges = append(edges, edge{s.From, true, by}, edge{s.To, false, by})
			}
		}
	}
	slices.SortFunc(c.purged, func(a, b PurgedSpan) int { return cmp.Compare(a.From, b.From) })
	slices.SortStableFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	var open []*erasedBy
	from := uint64(0)
	for _, e := range edges {
		if e.at > from && len(open) > 0 {
			s := erasedSpan{Span: Span{from, e.at}}
			for _, by := range open {
				s.by = append(s.by, *by)
			}
			slices.SortStableFunc(s.by, func(a, b erasedBy) int { return cmp.Compare(a.Index, b.Index) })
			c.erased = append(c.erased, s)
		}
		from = e.at
		if e.begin {
			open = append(open, e.by)
		} else {
			i := slices.Index(open, e.by)
			open = slices.Delete(open, i, i+1)
		}
	}
}

// byOf returns who made an event of the server's own.
func byOf(e *Event) By {
	text := func(pointer string) (s string) {
		if i, ok := e.findClaim(pointer); ok {
			_ = json.Unmarshal(e.claims[i].Value, &s) // it is a string
		}
		return s
	}
	return By{ID: text("/actor/id"), Type: text("/actor/type"), Name: text("/actor/name")}
}

// ownEventOf returns an event of the log's own. kind begins its id, after OwnPrefix.
func (l *Log) ownEventOf(by By, action, kind string, metadata any) (*Event, error) {
	return ownEvent{
		ID:     OwnPrefix + kind + ":" + uuid.Must(uuid.NewV7()).String(),
		Action: action, Actor: &ownActor{by.ID, by.Type, by.Name}, Targets: []Target{l.Target()},
		Context: ownContext{by.IP, by.UserAgent, by.RequestID}, Metadata: metadata,
	}.event(l.service.config.Now())
}

// learnOwn reads the log's own events that are new, and returns what all of them say.
func (l *Log) learnOwn(ctx context.Context) (*custody, error) {
	l.folding.Lock()
	defer l.folding.Unlock()
	before := l.custody.Load()
	c, err := foldCustody(ctx, l.service.store, l.ID, before)
	if err != nil {
		return nil, err
	}
	l.unsure.Store(false)
	if c.unread != nil && before.unread == nil {
		l.service.metrics.failures.WithLabelValues("custody").Inc()
		l.service.logger.Error("an event that tells what was decided about a log's contents can't be read, so nothing is purged or erased; "+
			"run `treeline fsck`", "log", l.Name, "error", c.unread)
	}
	l.custody.Store(c)
	return c, nil
}

// inCustody returns what the log's own events say of its contents.
func (l *Log) inCustody(ctx context.Context) (*custody, error) {
	if l.unsure.Load() { // after an append with an unknown outcome
		return l.learnOwn(ctx)
	}
	return l.custody.Load(), nil
}

// withCustody calls read with what the log's own events say. What read finds to be missing may have been removed since they were read, on
// this server or on another one: then it is called again.
func (l *Log) withCustody(ctx context.Context, read func(*custody) error) error {
	c, err := l.inCustody(ctx)
	if err != nil {
		return err
	}
	for {
		err := read(c)
		if !errors.Is(err, ErrDamaged) {
			return err
		}
		newer := l.custody.Load()
		if newer == c && l.service.config.Shared {
			if newer, _ = l.learnOwn(ctx); newer == nil { // what is wrong is more than that
				return err
			}
		}
		if len(newer.own) == len(c.own) {
			return err
		}
		c = newer
	}
}

// decide lets one at a time, over all servers, decide about the log's contents. fn is given what the log's own events say at that
// moment, and returns the events that record what it decides; on return they are durable, and heeded by this server. The system log
// tells before that somebody decides it.
func (l *Log) decide(ctx context.Context, by By, fn func(ctx context.Context, c *custody) ([]*Event, error)) error {
	if err := l.checkTenant(); err != nil {
		return err
	}
	release, err := l.service.store.Guard(ctx, l.ID)
	if err != nil {
		return fmt.Errorf("waiting to decide about log %s: %w", l.Name, err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actPatience)
	defer cancel()
	c, err := l.learnOwn(ctx)
	if err != nil {
		return err
	}
	if c.unread != nil {
		return fmt.Errorf("nothing can be decided about log %s: %w", l.Name, c.unread)
	}
	events, err := fn(ctx, c)
	if err != nil || len(events) == 0 {
		return err
	}
	act := Act{Action: strings.TrimPrefix(events[0].Action(), ownActions), Targets: []Target{l.Target()}, Metadata: map[string]any{"event": events[0].ID()}}
	told, err := l.service.record(ctx, by, act)
	if err != nil {
		return err
	}
	places, err := l.appendOwn(ctx, events...)
	if err != nil {
		l.unsure.Store(errors.Is(err, ErrOutcomeUnknown))
		l.service.recordFailure(by, act, told, err)
		return err
	}
	if places[0].Duplicate { // sent again after the first answer was lost: these have no times
		if _, err := l.learnOwn(ctx); err != nil {
			l.unsure.Store(true)
		}
		return nil
	}
	records := make([]ownRecord, len(events))
	for i, e := range events {
		records[i] = ownRecord{places[i].Index, places[i].ReceivedAt, e}
	}
	l.folding.Lock()
	defer l.folding.Unlock()
	l.custody.Store(c.with(records))
	return nil
}

// custodyPause is how often what other servers have decided is looked for.
const custodyPause = 2 * time.Second

// custodyRounds is after how many of these rounds all logs that have grown are looked at, whether or not a server has announced anything.
const custodyRounds = 30

// learnCustody learns what other servers have decided: of logs of which they say so, and of all that have grown if asked to. A server
// that was killed between deciding something and announcing it will never say so.
func (s *Service) learnCustody(ctx context.Context, all bool) error {
	numbers, err := s.store.Custody(ctx)
	if err != nil {
		return fmt.Errorf("looking for what was decided about logs: %w", err)
	}
	for _, l := range s.Tenants() {
		number := numbers[l.ID]
		if number != l.decided.Load() || all && l.Sizes().Size > l.custody.Load().size {
			if _, err := l.learnOwn(ctx); err != nil {
				return fmt.Errorf("log %s: %w", l.Name, err)
			}
			l.decided.Store(number)
		}
	}
	return nil
}

// followCustody does that every few seconds.
func (s *Service) followCustody(ctx context.Context) {
	tick := time.NewTicker(custodyPause)
	defer tick.Stop()
	for round := 1; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.learnCustody(ctx, round%custodyRounds == 0); err != nil && ctx.Err() == nil {
				s.metrics.failures.WithLabelValues("custody").Inc()
				s.logger.Warn("what other servers decided can't be read, will be tried again", "error", err)
			}
		}
	}
}
