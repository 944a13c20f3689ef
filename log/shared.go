package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
)

// Where several servers share a store, each learns from it what the others did: that logs have grown, were made, or were
// signed. It is learned when it matters (a request that is about it), and otherwise every interval. Nothing depends on
// learning it early: a head is read under its lock before anything is built on it, and a checkpoint before another is signed.

// followPause is how often sizes are read while somebody waits for a log to grow.
const followPause = 100 * time.Millisecond

// refreshPatience is for how long somebody who asks for a checkpoint waits for the publisher.
const refreshPatience = time.Second

// Refresh learns how far the log has grown by other servers' hands.
func (l *Log) Refresh(ctx context.Context) error {
	if !l.service.config.Shared {
		return nil
	}
	head, err := l.service.store.Head(ctx, l.ID)
	if err != nil {
		return fmt.Errorf("reading the head of log %s: %w", l.Name, err)
	}
	l.progress.grown(head.Size)
	if head.Frozen {
		l.progress.frozen.Store(true)
	}
	return nil
}

// refreshSigned learns of a checkpoint that another server has signed, for somebody who waits until enough is. While the
// publisher is at work it waits a moment for what comes of it.
func (l *Log) refreshSigned(ctx context.Context, enough func(Sizes) bool) {
	if !l.service.config.Shared || l.Stopped() != nil {
		return
	}
	if !l.signing.TryLock() {
		ctx, cancel := context.WithTimeout(ctx, refreshPatience)
		defer cancel()
		_ = l.progress.wait(ctx, enough)
		return
	}
	defer l.signing.Unlock()
	_, have := l.Signed()
	latest, err := source{tiles{l.service.store, l.ID}, l}.Latest(ctx)
	if err != nil || have == nil || bytes.Equal(latest, have) {
		return // what fails here fails for the publisher, too, who tells
	}
	if err := l.publisher.Resume(ctx); err != nil && ctx.Err() == nil {
		l.service.fail(l, err)
	}
}

// Learned returns all logs, also those that other servers have just made.
func (s *Service) Learned(ctx context.Context) []*Log {
	if s.config.Shared {
		s.learn(ctx)
	}
	return s.Logs()
}

// Names returns the names of all logs in the store, also of those that this server doesn't know yet, or can't open.
func (s *Service) Names(ctx context.Context) (map[ID]string, error) {
	infos, err := s.store.Logs(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[ID]string, len(infos))
	for _, info := range infos {
		names[info.ID] = info.Name
	}
	return names, nil
}

// refreshReleased learns of a checkpoint that another server has released, for somebody who waits until enough is.
func (l *Log) refreshReleased(ctx context.Context, enough func(Sizes) bool) {
	l.refreshSigned(ctx, func(s Sizes) bool { return enough(s) || s.Released < s.Signed })
	if l.service.config.Shared && !enough(l.Sizes()) {
		_ = l.learnWitnessed(ctx) // what fails here fails every interval, and is told then
	}
}

// Lookup returns the log of that name, also if another server has just made it, or nil.
func (s *Service) Lookup(ctx context.Context, name string) *Log {
	l := s.Log(name)
	if l == nil && s.config.Shared && nameRE.MatchString(name) {
		s.learn(ctx)
		l = s.Log(name)
	}
	return l
}

// LookupID returns the log with that number, also if another server has just made it, or nil.
func (s *Service) LookupID(ctx context.Context, id ID) *Log {
	l := s.LogByID(id)
	if l == nil && s.config.Shared {
		s.learn(ctx)
		l = s.LogByID(id)
	}
	return l
}

// learn reads all sizes, and opens the logs that other servers have made.
func (s *Service) learn(ctx context.Context) {
	err := s.learnSizes(ctx)
	if err != nil && ctx.Err() == nil {
		s.metrics.failures.WithLabelValues("read sizes").Inc()
		s.logger.Warn("reading the sizes of logs failed, will be tried again", "error", err)
	}
}

// learnSizes goes on with the other logs after one of them has failed.
func (s *Service) learnSizes(ctx context.Context) error {
	if err := s.learnIncarnation(ctx); err != nil {
		return err
	}
	known := make(map[*Log]uint64) // before the store's sizes, which may be ahead but never behind
	for _, l := range s.Logs() {
		known[l] = l.Sizes().Size
	}
	sizes, err := s.store.Sizes(ctx)
	if err != nil {
		return err
	}
	for l, size := range known {
		if now, there := sizes[l.ID]; !there || now < size {
			l.progress.doubt.Store(true) // the store was set back: the publisher will look
		}
	}
	errs := []error{s.learnStopped(ctx), s.learnAllWitnessed(ctx)}
	unknown := false
	for id, size := range sizes {
		if l := s.LogByID(id); l != nil {
			l.progress.grown(size)
		} else {
			unknown = true
		}
	}
	if unknown {
		errs = append(errs, s.learnLogs(ctx))
	}
	return errors.Join(errs...)
}

// learnLogs opens the logs that other servers have made.
func (s *Service) learnLogs(ctx context.Context) error {
	if err := checkServed(ctx, s.store); err != nil { // they came by a copy
		return err
	}
	s.creating.Lock()
	defer s.creating.Unlock()
	infos, err := s.store.Logs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, info := range infos {
		if s.LogByID(info.ID) != nil {
			continue
		}
		l, err := s.openLog(ctx, info)
		if ctx.Err() != nil { // a client that left half-way must not leave half a log behind
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("opening log %s: %w", info.Name, err))
			continue
		}
		s.add(l)
	}
	return errors.Join(errs...)
}

// learnIncarnation learns whether the store may have been set back. What of it is missing this server may not have known of, but
// the fence does, so all logs are compared with theirs.
func (s *Service) learnIncarnation(ctx context.Context) error {
	now, err := s.store.Incarnation(ctx)
	if err != nil {
		return err
	}
	if before := s.incarnation.Swap(&now); before == nil || *before == now {
		return nil
	}
	s.logger.Warn("the database was started again, or another one has taken its place: all logs are compared with the fence")
	for _, l := range s.Logs() {
		l.progress.doubt.Store(true)
	}
	return nil
}

// learnStopped learns which stopped logs were frozen, and so don't need an operator any more, and what is left of those whose
// store was set back. Of others it is learned by appending to them that they were frozen.
func (s *Service) learnStopped(ctx context.Context) error {
	var errs []error
	for _, l := range s.Logs() {
		if l.Stopped() == nil || l.Frozen() {
			continue
		}
		size := l.Sizes().Size
		head, err := s.store.Head(ctx, l.ID)
		if err == nil && head.Size < size {
			l.progress.setBack(head.Size)
		}
		if _, note := l.Signed(); note == nil {
			l.showFenced(ctx)
		}
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotFound) { // which may be why it is stopped
			errs = append(errs, fmt.Errorf("reading the head of log %s: %w", l.Name, err))
			continue
		}
		l.progress.frozen.Store(head.Frozen)
	}
	return errors.Join(errs...)
}

// learnAllWitnessed learns of the cosignatures that other servers have collected. What is wrong with one log holds up no other.
func (s *Service) learnAllWitnessed(ctx context.Context) error {
	var errs []error
	for _, l := range s.Logs() {
		if err := l.learnWitnessed(ctx); err != nil {
			errs = append(errs, fmt.Errorf("log %s: %w", l.Name, err))
		}
	}
	return errors.Join(errs...)
}

// follow reads the sizes of logs often while somebody waits for one of them.
func (s *Service) follow(ctx context.Context) {
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.waiting.Load() > 0 {
				s.learn(ctx)
			}
		}
	}
}

// lost reports whether an error of signing means that another server was faster, or is at it.
func lost(err error) bool {
	return errors.Is(err, checkpoint.ErrConflict) || errors.Is(err, checkpoint.ErrFenceMoved)
}
