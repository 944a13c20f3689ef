package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/treeline-log/treeline/log/index"
)

// removing is how far what was recorded as purged or erased is removed: from the contents, and from the search index. Readers don't depend on
// it. It isn't kept: after a start all is looked at again.
type removing struct {
	mu       sync.Mutex // contents are removed by one at a time
	stored   atomic.Int64
	retained string // the retention class that the store was told

	indexing sync.Mutex // the log's index is written by one at a time
	indexed  atomic.Int64
	finished indexState         // when all of the index was found to be clean
	clean    map[segmentKey]int // of segments: how many of the acts are heeded there
	looked   time.Time
}

// indexState is what makes an index worth looking at again.
type indexState struct {
	acts int
	size uint64
}

type segmentKey struct {
	level  int
	number uint64
}

// done returns how many of the log's acts are carried out in the contents, and in the index.
func (r *removing) done() (stored, indexed int) { return int(r.stored.Load()), int(r.indexed.Load()) }

// Resume removes from the store what was recorded as purged or erased and is still there, from the contents and from the index, and
// reports whether more can be done now. It is called again and again until then; each call does a bounded part. On a shared store an
// index takes a while after an act to be known as done, since other servers may be writing to it.
func (l *Log) Resume(ctx context.Context) (more bool, err error) {
	if l.IsHub() || l.IsSystem() {
		return false, nil
	}
	if more, err = l.removeStored(ctx); more || err != nil {
		return more, err
	}
	if err := l.retain(ctx); err != nil {
		return false, err
	}
	return l.cleanIndex(ctx)
}

// carryOut removes from the store's contents what was just recorded. If that fails, or takes too long, it is done again by Resume.
func (l *Log) carryOut(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actPatience)
	defer cancel()
	for more := true; more; {
		var err error
		if more, err = l.removeStored(ctx); err != nil {
			l.service.metrics.failures.WithLabelValues("remove").Inc()
			l.service.logger.Warn("what was purged or erased can't be removed from the store, will be tried again", "log", l.Name, "error", err)
			return
		}
	}
}

// removeStored carries out the next act, and reports whether there are more. Content that is damaged keeps neither the rest of its act nor
// those that follow from being carried out, but the act isn't done until it is mended.
func (l *Log) removeStored(ctx context.Context) (more bool, err error) {
	r := &l.removing
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := l.inCustody(ctx)
	if err != nil {
		return false, err
	}
	n := int(r.stored.Load())
	if n >= len(c.acts) {
		return false, nil
	}
	err = l.removeAct(ctx, c, &c.acts[n])
	if errors.Is(err, ErrDamaged) {
		for i := n + 1; i < len(c.acts); i++ {
			if rest := l.removeAct(ctx, c, &c.acts[i]); rest != nil && !errors.Is(rest, ErrDamaged) {
				err = errors.Join(err, rest)
			}
		}
	}
	if err != nil {
		return false, err
	}
	r.stored.Store(int64(n + 1))
	return n+1 < len(c.acts), nil
}

// removeAct carries out one act.
func (l *Log) removeAct(ctx context.Context, c *custody, a *act) error {
	if a.erased == nil {
		return l.service.store.Purge(ctx, l.ID, a.spans)
	}
	return l.reduce(ctx, c, a.spans)
}

// replay carries out all acts, when the log is opened: a store that was put back from a backup has what was removed since.
func (l *Log) replay(ctx context.Context) error {
	l.removing.mu.Lock()
	defer l.removing.mu.Unlock()
	c := l.custody.Load()
	if purged := c.purgedSpans(); purged != nil {
		if err := l.service.store.Purge(ctx, l.ID, purged); err != nil {
			return err
		}
	}
	var erased []Span
	for _, s := range c.erased {
		erased = append(erased, s.Span)
	}
	if err := l.reduce(ctx, c, united(erased)); err != nil {
		return err
	}
	l.removing.stored.Store(int64(len(c.acts)))
	return nil
}

// reduceRun is how many contents are reduced at a time.
const reduceRun = 256

// reduce leaves of the contents in spans what erasures leave of them. What a store has is replaced while nobody else can decide anything, so
// that no other server puts back what this one has just removed. Contents that are damaged stay as they are, and are its error, an
// ErrDamaged, after all others are reduced.
func (l *Log) reduce(ctx context.Context, c *custody, spans []Span) error {
	var damaged error
	for _, s := range spans {
		for from := s.From; from < s.To; from += reduceRun {
			to := min(from+reduceRun, s.To)
			todo, bad, err := l.reducible(ctx, c, from, to)
			if err != nil {
				return err
			}
			if damaged == nil {
				damaged = bad
			}
			if len(todo) == 0 {
				continue
			}
			if err := l.reduceRun(ctx, from, to); err != nil {
				return err
			}
		}
	}
	return damaged
}

// reduceRun does that with the entries [from, to).
func (l *Log) reduceRun(ctx context.Context, from, to uint64) error {
	release, err := l.service.store.Guard(ctx, l.ID)
	if err != nil {
		return err
	}
	defer release()
	c, err := l.learnOwn(ctx)
	if err != nil {
		return err
	}
	for range maxAttempts {
		var todo []Reduced
		if todo, _, err = l.reducible(ctx, c, from, to); err != nil || len(todo) == 0 {
			return err
		}
		// A purge that was decided before may remove one of them at this moment.
		if err = l.service.store.Reduce(ctx, l.ID, todo); !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrRolledBack) {
			return err
		}
	}
	return err
}

// reducible returns what is to replace contents in [from, to), and what is wrong with the first of them that can't be read.
func (l *Log) reducible(ctx context.Context, c *custody, from, to uint64) (todo []Reduced, damaged, err error) {
	err = l.service.store.Payloads(ctx, l.ID, from, to, func(at uint64, p Payload) error {
		if p.Data == nil || c.purgedBy(at) != nil || c.erasedOf(at) == nil {
			return nil
		}
		x, err := c.content(at, p, nil)
		if errors.Is(err, ErrDamaged) {
			if damaged == nil {
				damaged = fmt.Errorf("entry %d: %w", at, err)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", at, err)
		}
		if data := x.reduced(); !bytes.Equal(data, p.Data) {
			todo = append(todo, Reduced{at, data})
		}
		return nil
	})
	return todo, damaged, err
}

// retain tells the store when what the log keeps expires, so that what expires together lies together.
func (l *Log) retain(ctx context.Context) error {
	r := &l.removing
	r.mu.Lock()
	defer r.mu.Unlock()
	c := l.custody.Load()
	class := c.policy().purgeAge().String()
	if c.retention.Since == 0 || class == r.retained {
		return nil
	}
	if err := l.service.store.Retain(ctx, l.ID, class); err != nil {
		return fmt.Errorf("setting the retention class of log %s: %w", l.Name, err)
	}
	r.retained = class
	return nil
}

// settledAfter is how long after an act other servers of a store may still write segments that don't heed it: they learn of it within
// custodyPause, and a run takes a second or two.
const settledAfter = 15 * time.Second

// cleanIndex rewrites a segment of the search index that still has something of what was purged or erased, and reports whether there may be
// more. A segment is a pure function of what is left of its events, so it is compared with what that gives.
func (l *Log) cleanIndex(ctx context.Context) (more bool, err error) {
	r := &l.removing
	r.indexing.Lock()
	defer r.indexing.Unlock()
	c, err := l.inCustody(ctx)
	if err != nil {
		return false, err
	}
	store := l.service.store
	at, err := whereIndexed(ctx, store, l.ID)
	if errors.Is(err, errForeignIndex) { // the follower drops it
		return false, nil
	}
	if err != nil {
		return false, err
	}
	metas, err := store.Segments(ctx, l.ID)
	if err != nil {
		return false, err
	}
	clean := make(map[segmentKey]int, len(metas))
	for i, m := range metas {
		key := segmentKey{m.Level, m.Number}
		if heeded := r.clean[key]; concerns(c.acts[min(heeded, len(c.acts)):], m) {
			if err := l.cleanSegment(ctx, c, at, m); err != nil {
				if errors.Is(err, ErrHeadMoved) {
					return true, nil
				}
				return false, fmt.Errorf("rewriting segment %d/%d of the search index: %w", m.Level, m.Number, err)
			}
			clean[key] = len(c.acts)
			for _, rest := range metas[i+1:] {
				key := segmentKey{rest.Level, rest.Number}
				clean[key] = r.clean[key]
			}
			r.clean = clean
			return true, nil
		}
		clean[key] = len(c.acts)
	}
	r.clean = clean
	r.finished = indexState{len(c.acts), at.Size}
	if n := len(c.acts); n > 0 && l.service.config.Shared {
		if age := l.service.config.Now().UnixMicro() - c.acts[n-1].at; age < settledAfter.Microseconds() {
			r.finished = indexState{}
			r.clean = nil // what others write meanwhile is looked at again
			return false, nil
		}
	}
	r.indexed.Store(int64(len(c.acts)))
	return false, nil
}

// concerns reports whether one of acts is about an event that a segment covers.
func concerns(acts []act, m index.Meta) bool {
	return slices.ContainsFunc(acts, func(a act) bool { return overlaps(a.spans, m.First(), m.End()) })
}

// cleanSegment writes a segment anew, unless it is what is left of its events.
func (l *Log) cleanSegment(ctx context.Context, c *custody, at Indexed, m index.Meta) error {
	b := segmentBuilder{
		store: l.service.store, unreadable: func(ID, error) {}, words: m.Words,
		custody: func(context.Context, ID) (*custody, error) { return c, nil },
	}
	if m.Words == 0 || m.Words == wordsVersion {
		if err := b.compare(ctx, l.ID, m); !errors.Is(err, ErrDamaged) {
			return err
		}
	}
	b.words = wordsVersion
	s, err := b.rebuild(ctx, l.ID, m)
	if err != nil {
		return err
	}
	return l.service.store.WriteIndex(ctx, l.ID, at, at, []index.Meta{m}, []*index.Segment{s})
}

// cleanPause is how often a log is looked at whose index isn't known to be clean.
const cleanPause = time.Second

// unclean reports whether the index may have something of what was removed, and it is time to look.
func (l *Log) unclean() bool {
	acts := len(l.custody.Load().acts)
	if acts == 0 {
		return false
	}
	r := &l.removing
	r.indexing.Lock()
	defer r.indexing.Unlock()
	if r.finished == (indexState{acts, l.progress.indexedSize()}) || time.Since(r.looked) < cleanPause {
		return false
	}
	r.looked = time.Now()
	return true
}

// clean has no segment of any log's index keep what was purged or erased.
func (f *follower) clean(ctx context.Context) {
	for _, l := range f.service.Tenants() {
		if _, known := f.at[l.ID]; !known || f.left[l.ID] != nil || !l.unclean() {
			continue
		}
		for more := true; more && ctx.Err() == nil; {
			var err error
			if more, err = l.cleanIndex(ctx); err != nil && ctx.Err() == nil {
				f.service.metrics.failures.WithLabelValues("index").Inc()
				f.service.logger.Warn("the search index can't be rid of what was removed, will be tried again", "log", l.Name, "error", err)
			}
			more = more && err == nil
		}
	}
}
