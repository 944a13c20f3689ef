package log

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Reads are recorded too, but an event for each would make every reader a writer, and one that polls a busy one. So they are counted in
// memory, and each minute becomes one event for each key, log and address, treeline.log.read. What is counted and not yet recorded is
// lost in a crash: what was read in the last minute.

// Read is a kind of read, as the system log counts them.
type Read string

// Kinds of reads.
const (
	ReadList       Read = "list" // also searches
	ReadEvent      Read = "event"
	ReadFeed       Read = "feed"
	ReadProof      Read = "proof"
	ReadCheckpoint Read = "checkpoint"
	ReadTile       Read = "tile" // also checkpoints beside tiles, and growth proofs of a hub
	ReadAccess     Read = "access"
	ReadVerify     Read = "verify"
	ReadLogs       Read = "logs" // the settings of logs
	ReadKeys       Read = "keys"
	ReadRetention  Read = "retention"
	ReadHolds      Read = "holds"
	ReadErasures   Read = "erasures"
)

// Bounds of what is counted in memory; some are smaller in tests.
var (
	maxTallies = 10_000 // of the minute; past it they are told before the minute is over
	maxUntold  = 50_000 // tallies that wait to be told; past it they are lost, which is counted
)

const (
	maxAddresses = 8    // of a key in a log and minute; what comes from further ones is counted without any
	toldBatch    = 1000 // events appended at a time
)

// tally is what was read of a log with a key from an address in a minute.
type tally struct {
	seat
	by     By
	target *Target // nil: what was read is about no single log
	counts map[Read]uint64
}

// seat is what tallies are told apart by.
type seat struct {
	minute int64 // its beginning, µs since 1970 UTC
	key    string
	log    ID
	ip     string
}

// reads counts what is read.
type reads struct {
	service *Service

	mu        sync.Mutex
	tallies   map[seat]*tally
	addresses map[seat]int  // of seats without their addresses
	untold    []*tally      // counted to their end
	lost      atomic.Uint64 // reads

	telling sync.Mutex // guards told
	told    []*Event   // that tell of tallies, to be appended: again, with the same ids, after an error
}

// CountRead notes that the log, or what is about no single log, was read.
func (s *Service) CountRead(by By, l *Log, kind Read) {
	r := &s.reads
	by.UserAgent, by.RequestID = "", "" // they differ between reads, and may be long
	at := seat{minute: s.config.Now().Truncate(time.Minute).UnixMicro(), key: by.ID, ip: by.IP}
	if l != nil {
		at.log = l.ID
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tallies[at]
	if t == nil {
		t = r.add(at, by, l)
	}
	t.counts[kind]++
}

// add returns a new tally, or where a key comes from many addresses the one for all that are too many.
func (r *reads) add(at seat, by By, l *Log) *tally {
	if len(r.tallies) >= maxTallies {
		r.end()
	}
	key := at
	key.ip = ""
	if at.ip != "" && r.addresses[key] >= maxAddresses {
		at, by.IP = key, ""
		if t := r.tallies[at]; t != nil {
			return t
		}
	}
	if r.tallies == nil {
		r.tallies, r.addresses = make(map[seat]*tally), make(map[seat]int)
	}
	t := &tally{seat: at, by: by, counts: make(map[Read]uint64)}
	if l != nil {
		target := l.Target()
		t.target = &target
	}
	r.tallies[at] = t
	r.addresses[key]++
	return t
}

// end ends all tallies. r.mu is held.
func (r *reads) end() {
	for _, t := range r.tallies {
		if len(r.untold) < maxUntold {
			r.untold = append(r.untold, t)
			continue
		}
		for _, n := range t.counts {
			r.lost.Add(n)
		}
	}
	r.tallies, r.addresses = nil, nil
}

// event returns the event that tells of a tally. The clock may have been set back since, to before its minute.
func (t *tally) event(now time.Time) (*Event, error) {
	if minute := time.UnixMicro(t.minute); now.Before(minute) {
		now = minute
	}
	told := ownEvent{
		Action: "treeline.log.read", OccurredAt: string(AppendTime(nil, t.minute)), Actor: &ownActor{t.by.ID, t.by.Type, t.by.Name},
		Context: ownContext{IP: t.by.IP}, Metadata: map[string]any{"reads": t.counts},
	}
	if t.target == nil {
		told.Action = "treeline.server.read"
	} else {
		told.Targets = []Target{*t.target}
	}
	return told.event(now)
}

// RecordReads appends what was read until now to the system log, which otherwise is done each minute.
func (s *Service) RecordReads(ctx context.Context) error {
	r := &s.reads
	r.telling.Lock()
	defer r.telling.Unlock()
	if err := r.append(ctx); err != nil { // what is left of the last time
		return err
	}
	r.mu.Lock()
	r.end()
	untold := r.untold
	r.untold = nil
	r.mu.Unlock()
	slices.SortFunc(untold, func(a, b *tally) int { return cmp.Compare(a.minute, b.minute) })
	for _, t := range untold {
		event, err := t.event(s.config.Now())
		if err != nil {
			return err
		}
		r.told = append(r.told, event)
	}
	return r.append(ctx)
}

// append appends the events that tell of tallies. r.telling is held.
func (r *reads) append(ctx context.Context) error {
	for len(r.told) > 0 {
		n := min(toldBatch, len(r.told))
		if err := r.service.appendSystem(ctx, r.told[:n]...); err != nil {
			return err
		}
		r.told = slices.Delete(r.told, 0, n)
	}
	return nil
}

// recordReads appends what was read in each minute when it is over, until ctx ends.
func (s *Service) recordReads(ctx context.Context) {
	for {
		now := s.config.Now()
		select {
		case <-ctx.Done():
			return
		case <-time.After(now.Truncate(time.Minute).Add(time.Minute).Sub(now)):
		}
		s.tryRecordReads(ctx)
	}
}

// tryRecordReads records what was read, or leaves it for the next time.
func (s *Service) tryRecordReads(ctx context.Context) {
	if err := s.RecordReads(ctx); err != nil && ctx.Err() == nil {
		s.metrics.failures.WithLabelValues("record reads").Inc()
		s.logger.Error("what was read can't be recorded in the system log, will be tried again", "error", err)
	}
}
