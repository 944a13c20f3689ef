package api

import (
	"context"
	"sync"
	"time"
)

// When keys were used last is written behind the requests, for all keys together, and for each at most once in usePause.
const (
	usePause  = time.Minute
	usesPause = 10 * time.Second // between two writes
	usesTime  = 5 * time.Second  // for one
)

// uses remembers which keys were used. Its zero value remembers none.
type uses struct {
	mu    sync.Mutex
	noted map[string]time.Time // by public id, when the use was that was written last, or will be
	due   map[string]int64     // to be written, in µs since 1970 UTC
}

// note notes a use.
func (u *uses) note(id string, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last, ok := u.noted[id]; ok && now.Sub(last) < usePause {
		return
	}
	if u.noted == nil || len(u.noted) >= maxCachedKeys {
		u.noted = make(map[string]time.Time)
	}
	if u.due == nil {
		u.due = make(map[string]int64)
	}
	u.noted[id], u.due[id] = now, now.UnixMicro()
}

// take returns what is to be written.
func (u *uses) take() map[string]int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	due := u.due
	u.due = nil
	return due
}

// giveBack is for what couldn't be written.
func (u *uses) giveBack(due map[string]int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, at := range u.due {
		due[id] = at
	}
	u.due = due
}

// writeUses writes what is to be written, every few seconds, until the server closes.
func (s *Server) writeUses() {
	tick := time.NewTicker(usesPause)
	defer tick.Stop()
	for {
		select {
		case <-s.closing.Done():
			return
		case <-tick.C:
			s.writeDueUses()
		}
	}
}

func (s *Server) writeDueUses() {
	due := s.uses.take()
	if len(due) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), usesTime)
	defer cancel()
	if err := s.service.UseKeys(ctx, due); err != nil {
		s.logger.Warn("noting when API keys were used failed, will be tried again", "error", err)
		s.uses.giveBack(due)
	}
}
