package log

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/treeline-log/treeline/log/index"
)

// followInterval is how often the follower looks for logs that have grown by a segment.
const followInterval = 100 * time.Millisecond

// How often a server looks how far another one has come with a log, and after how long without a move it takes over.
const (
	lookInterval = 250 * time.Millisecond
	lookPatience = 3 * time.Second
)

// maxUnindexed is how many events of a log may wait to be indexed before appends to it are refused: each search reads them all.
const maxUnindexed = 50_000

// ErrIndexLag means that the search index of a log is too far behind for the log to grow.
var ErrIndexLag = errors.New("the log's search index is too far behind")

// Pauses after a log couldn't be indexed, the first and the longest: each is twice as long as the one before.
const (
	firstIndexPause = 200 * time.Millisecond
	maxIndexPause   = 15 * time.Second
)

// indexPatience is for how long indexing may fail before the service isn't ready.
const indexPatience = 30 * time.Second

// follower writes the search index of all logs from their record, behind the appends: they neither wait for it nor know of it,
// but for maxUnindexed. One goroutine goes round the logs that have grown by at least a segment and indexes a run of each in
// turn, so that a flood in one of them keeps the others waiting for no more than a run.
//
// Several servers may follow the logs of one database: an index is moved WHERE it stands, and whoever is late goes on from
// there. To save the work that would be lost by that, a server leaves a log to the one that indexed it last, and looks only
// now and then whether that one is still at it.
type follower struct {
	service *Service
	indexer *indexer
	at      map[ID]Indexed // where each log's index stands, as far as this server knows
	left    map[ID]*left   // logs that are left to another server
	paused  map[ID]*paused // logs that couldn't be indexed
	noticed map[ID]bool    // logs of which an unreadable content was reported

	renewals renewals

	mu      sync.Mutex
	failure error // of indexing, the last one unless it succeeded since
	since   time.Time
}

// left is when a log's index was looked at, and when it was seen to have moved.
type left struct {
	looked, moved time.Time
}

// paused is a log that couldn't be indexed: what is wrong there may stay so, and looking for it costs up to a run.
type paused struct {
	err    error // nil: its index was dropped, and is built anew
	length time.Duration
	until  time.Time
	past   uint64 // the size past which the index has got over it
}

func newFollower(s *Service) *follower {
	f := &follower{
		service: s, at: make(map[ID]Indexed), left: make(map[ID]*left), paused: make(map[ID]*paused), noticed: make(map[ID]bool),
		renewals: renewals{done: make(map[ID]bool), begun: make(map[ID]bool), paused: make(map[ID]time.Time)},
	}
	f.indexer = newIndexer(s.store, f.unreadable, func(ctx context.Context, id ID) (*custody, error) {
		l := s.LogByID(id)
		if l == nil {
			return new(custody), nil
		}
		return l.inCustody(ctx)
	})
	return f
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		for f.round(ctx) || f.renew(ctx) {
		}
		f.clean(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// round indexes a run of each log that has grown, and reports whether there is more.
func (f *follower) round(ctx context.Context) (grown bool) {
	var failed error
	for _, l := range f.service.Logs() {
		if l.IsHub() {
			continue // nothing in it is searched for
		}
		if p := f.paused[l.ID]; p != nil && f.service.config.Now().Before(p.until) {
			if p.err != nil {
				failed = p.err
			}
			continue
		}
		at := f.at[l.ID].Size
		more, err := f.follow(ctx, l)
		if ctx.Err() != nil {
			return false
		}
		if err != nil {
			failed = fmt.Errorf("log %s: %w", l.Name, err)
			f.service.metrics.failures.WithLabelValues("index").Inc()
		}
		if p := f.paused[l.ID]; p != nil {
			p.err = nil
		}
		if err != nil && !errors.Is(err, ErrUnreachable) { // asking for a store that isn't there costs nothing
			f.pause(l.ID, at, failed)
		}
		grown = grown || more && err == nil
	}
	f.note(failed)
	return grown
}

// pause keeps a log, whose index stands at a size, from being indexed for a while, longer each time until the index is past the place
// where that failed.
func (f *follower) pause(id ID, size uint64, err error) {
	p := f.paused[id]
	if p == nil {
		p = &paused{length: firstIndexPause / 2}
		f.paused[id] = p
	}
	p.err, p.length = err, min(2*p.length, maxIndexPause)
	p.until = f.service.config.Now().Add(p.length)
	p.past = max(p.past, size-size%mergedEvents+mergedEvents) // no run goes further
}

// follow indexes the next run of a log, and reports whether there is more.
func (f *follower) follow(ctx context.Context, l *Log) (more bool, err error) {
	size := l.Sizes().Size
	if theirs, err := f.others(ctx, l); theirs || err != nil {
		return false, err
	}
	at, known := f.at[l.ID]
	if known && size < at.Size+index.Width {
		return false, nil
	}
	if !known {
		if at, err = f.resume(ctx, l); err != nil {
			return false, err
		}
		f.at[l.ID] = at
		l.progress.indexedTo(at.Size)
		if size < at.Size+index.Width {
			return false, nil
		}
	}
	l.removing.indexing.Lock()
	to, err := f.indexer.run(ctx, l.ID, at, size)
	l.removing.indexing.Unlock()
	switch {
	case errors.Is(err, ErrHeadMoved): // another server was faster
		f.moved(l.ID)
		return false, nil
	case errors.Is(err, index.ErrDamaged):
		f.pause(l.ID, at.Size, nil)
		return false, f.drop(ctx, l, err)
	case err != nil:
		delete(f.at, l.ID)
		return false, err
	}
	if p := f.paused[l.ID]; p != nil && to.Size >= p.past {
		delete(f.paused, l.ID)
	}
	f.at[l.ID] = to
	l.progress.indexedTo(to.Size)
	f.service.metrics.indexed.Add(float64(to.Size - at.Size))
	return size >= to.Size+index.Width, nil
}

// moved leaves a log to another server, which has just moved its index, and may be of an older version.
func (f *follower) moved(id ID) {
	delete(f.at, id)
	delete(f.renewals.done, id)
	f.left[id] = &left{moved: time.Now()}
}

// others reports whether the log is left to another server, which has moved its index not long ago.
func (f *follower) others(ctx context.Context, l *Log) (bool, error) {
	other := f.left[l.ID]
	if other == nil {
		return false, nil
	}
	now := time.Now()
	if now.Sub(other.looked) < lookInterval {
		return true, nil
	}
	at, err := f.indexer.where(ctx, l.ID)
	if err != nil && !errors.Is(err, errForeignIndex) {
		return false, err
	}
	other.looked = now
	last, known := f.at[l.ID]
	if err == nil && (!known || at != last) {
		f.at[l.ID], other.moved = at, now
		delete(f.renewals.done, l.ID)
		l.progress.indexedTo(at.Size)
	}
	if err == nil && now.Sub(other.moved) < lookPatience {
		return true, nil
	}
	delete(f.left, l.ID)
	delete(f.at, l.ID)
	return false, nil
}

// resume returns where the log's index stands. One that isn't of the log's record is dropped.
func (f *follower) resume(ctx context.Context, l *Log) (Indexed, error) {
	at, err := f.indexer.where(ctx, l.ID)
	if errors.Is(err, errForeignIndex) {
		return Indexed{}, f.drop(ctx, l, err)
	}
	if err == nil && at.Size == 0 && l.Sizes().Size > maxUnindexed {
		f.service.logger.Info("the log has no search index, it is built from the record", "log", l.Name)
	}
	return at, err
}

// drop drops an index that can't be gone on with, so that it is built anew.
func (f *follower) drop(ctx context.Context, l *Log, reason error) error {
	f.service.logger.Warn("the search index of a log is dropped and built anew", "log", l.Name, "reason", reason)
	delete(f.at, l.ID)
	l.progress.unsearchable() // until it is gone
	if err := f.indexer.store.DropIndex(ctx, l.ID); err != nil {
		return fmt.Errorf("dropping the index: %w", err)
	}
	l.progress.indexedTo(0)
	return nil
}

// unreadable counts a content that can't be read, and says so once for each log: the scrub reports each.
func (f *follower) unreadable(id ID, err error) {
	f.service.metrics.unreadable.Inc()
	if f.noticed[id] {
		return
	}
	f.noticed[id] = true
	name := "unknown"
	if l := f.service.LogByID(id); l != nil {
		name = l.Name
	}
	f.service.logger.Error("a stored event can't be read, so no search finds it; run `treeline fsck`", "log", name, "error", err)
}

// note notes how a round went.
func (f *follower) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && f.failure == nil {
		f.since = f.service.config.Now()
		f.service.logger.Warn("indexing failed, will be tried again", "error", err)
	}
	f.failure = err
}

// ready returns why indexing has been failing for too long, or nil.
func (f *follower) ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure == nil || f.service.config.Now().Sub(f.since) <= indexPatience {
		return nil
	}
	return fmt.Errorf("the search index couldn't be written since %v: %w", f.since.UTC().Format(time.RFC3339), f.failure)
}
