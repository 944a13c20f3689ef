package log

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/treeline-log/treeline/log/index"
)

// renewal is a segment in the making that takes the place of one that an older version has written. The index as a whole stays
// where it is, so that no search has to read the record instead, but for the words, and no append is refused meanwhile.
type renewal struct {
	meta  index.Meta       // of the old one
	parts []*index.Segment // of level 0, as far as they are built
	acts  int              // how many purges and erasures they heed
}

// renewed returns whether nothing of the log's index, which stands at a place, is of an older version; and otherwise goes on with
// the renewal of a segment, by no more than a run. Several servers may do so at once: each takes one of the newest few, so that they
// seldom take the same, and if they do, they write the same.
func (x *indexer) renewed(ctx context.Context, id ID, at Indexed, r *renewal) (bool, error) {
	metas, err := x.store.Segments(ctx, id)
	if err != nil {
		return false, err
	}
	old := slices.DeleteFunc(metas, func(m index.Meta) bool { return m.Words >= x.words })
	if len(old) == 0 {
		return true, nil
	}
	c, err := x.custody(ctx, id)
	if err != nil {
		return false, err
	}
	if !slices.Contains(old, r.meta) { // there is none yet, or somebody else has renewed or merged it
		*r = renewal{meta: old[len(old)-1-rand.IntN(min(len(old), 4))], acts: len(c.acts)}
	}
	if r.acts != len(c.acts) { // something of what it is built from is gone
		r.parts, r.acts = nil, len(c.acts)
	}
	first, n := r.meta.First()/index.Width, index.Events(r.meta.Level)/index.Width
	for built := 0; built < maxRunSegments && uint64(len(r.parts)) < n; built++ {
		s, _, err := x.build(ctx, id, first+uint64(len(r.parts)))
		if err != nil {
			return false, err
		}
		r.parts = append(r.parts, s)
	}
	if uint64(len(r.parts)) < n {
		return false, nil
	}
	s := r.parts[0]
	if r.meta.Level == index.Level1 {
		if s, err = index.Merge(r.parts); err != nil {
			return false, err
		}
	}
	err = x.store.WriteIndex(ctx, id, at, at, []index.Meta{r.meta}, []*index.Segment{s})
	*r = renewal{}
	return false, err
}

// renewPause is for how long a log isn't renewed after that failed. Nobody needs it, but for speed.
const renewPause = time.Minute

// renewals is what the follower knows of renewals.
type renewals struct {
	log     ID // whose segment is in the making
	current renewal
	done    map[ID]bool // logs of which nothing is of an older version
	begun   map[ID]bool // logs of which something is
	paused  map[ID]time.Time
}

// renew goes on with the renewal of a log's index, and reports whether there may be more to renew. It is called when all else is
// done.
func (f *follower) renew(ctx context.Context) (more bool) {
	r := &f.renewals
	for _, l := range f.service.Logs() {
		at, known := f.at[l.ID]
		if !known || r.done[l.ID] || f.left[l.ID] != nil || f.service.config.Now().Before(r.paused[l.ID]) {
			continue
		}
		if r.log != l.ID {
			r.log, r.current = l.ID, renewal{}
		}
		l.removing.indexing.Lock()
		done, err := f.indexer.renewed(ctx, l.ID, at, &r.current)
		l.removing.indexing.Unlock()
		switch {
		case ctx.Err() != nil:
			return false
		case errors.Is(err, ErrHeadMoved):
			f.moved(l.ID)
		case err != nil:
			r.paused[l.ID] = f.service.config.Now().Add(renewPause)
			f.service.metrics.failures.WithLabelValues("index").Inc()
			f.service.logger.Warn("rewriting a search index of an older version failed, will be tried again", "log", l.Name, "error", err)
		case done:
			r.done[l.ID] = true
			if r.begun[l.ID] {
				f.service.logger.Info("the search index of a log is of this version now", "log", l.Name)
			}
			continue
		case !r.begun[l.ID]:
			r.begun[l.ID] = true
			f.service.logger.Info("the search index of a log is of an older version and is being rewritten; until then searches for words read "+
				"the events themselves", "log", l.Name)
		}
		return true
	}
	return false
}
