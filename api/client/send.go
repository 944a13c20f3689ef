package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	sendEvents = 1000    // of a batch, at most
	sendBytes  = 1 << 20 // of a batch, after which it ends

	// maxRetryAfter is how long a batch waits at most because somebody on the way says so: a page that says "back tomorrow" must not
	// keep events here until then.
	maxRetryAfter = 2 * time.Minute
)

// send sends batch after batch, one at a time, until the context ends. What arrives while one is on its way is the next.
func (s *Spool) send(ctx context.Context) {
	for {
		seg, size, err := s.waitForEvents(ctx)
		if err != nil {
			return
		}
		events, end, err := seg.read(size, sendEvents, sendBytes)
		if err == nil {
			if err = s.deliver(ctx, events); err == nil {
				s.settle(seg, end, uint64(len(events)))
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		// What was written can't be read any more, or what is refused can't be put aside: the disk may come back.
		s.failed(err)
		if sleep(ctx, maxPause) != nil {
			return
		}
	}
}

// waitForEvents waits until there is something to send. It is in the segment, up to the size.
func (s *Spool) waitForEvents(ctx context.Context) (*segment, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for _, seg := range s.segments {
			if seg.settled < seg.size {
				return seg, seg.size, nil
			}
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
	}
}

// settle notes that events, up to a place in the segment, need not be sent any more.
func (s *Spool) settle(seg *segment, end int64, events uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seg.settled = end
	s.settled += events
	// Where this fails events are sent again after a restart, which does no harm.
	_ = writePosition(s.dir, seg.number, seg.settled)
	s.reap()
	s.notify()
}

// failed counts a failure to send, and reports the first of several.
func (s *Spool) failed(err error) {
	s.mu.Lock()
	first := s.stats.LastError == ""
	s.stats.Retries++
	s.stats.LastError = err.Error()
	s.mu.Unlock()
	if first {
		s.onError(fmt.Errorf("spool: events can't be sent, trying on: %w", err))
	}
}

// deliver sends events until each of them is stored or put aside as rejected. An error is of the context, or of putting aside.
func (s *Spool) deliver(ctx context.Context, events []spooled) error {
	for attempt := 1; len(events) > 0; {
		body, err := s.client.once(ctx, batchOf(joinLines(events)))
		var stored []Place
		if err == nil {
			stored, err = places(body, len(events))
		}
		if err == nil {
			s.delivered(stored)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		refused, split := refusedBy(err, events)
		switch {
		case split:
			half := len(events) / 2
			if err := s.deliver(ctx, events[:half]); err != nil {
				return err
			}
			events = events[half:]
			continue
		case len(refused) > 0:
			if err := s.reject(events, refused); err != nil {
				return err
			}
			events = slices.DeleteFunc(slices.Clone(events), func(e spooled) bool { return refused[e.id] != nil })
			continue
		}
		s.failed(err)
		pause := backoff(attempt)
		if e, ok := errors.AsType[*Error](err); ok {
			pause = max(pause, min(e.retryAfter, maxRetryAfter))
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		attempt++
	}
	return nil
}

func joinLines(events []spooled) []byte {
	var lines bytes.Buffer
	for _, e := range events {
		lines.Write(e.data)
		lines.WriteByte('\n')
	}
	return lines.Bytes()
}

// delivered counts what the server has stored.
func (s *Spool) delivered(places []Place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Sent += uint64(len(places))
	for _, p := range places {
		if p.Duplicate {
			s.stats.Duplicates++
		}
	}
	s.stats.LastError = ""
}

// refusedBy returns the events that an answer refuses for good, by their ids, and why. Of a batch that is refused without saying which,
// split is true: its halves are to be sent. Everything else may be answered otherwise later.
func refusedBy(err error, events []spooled) (refused map[string]error, split bool) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return nil, false
	}
	refused = make(map[string]error)
	switch {
	case e.Code == "invalid_event" || e.Code == "action_not_allowed":
		for _, item := range e.Errors {
			if item.Index != nil && *item.Index >= 0 && *item.Index < len(events) {
				id := events[*item.Index].id
				refused[id] = errors.Join(refused[id], fmt.Errorf("%s: %s", item.Pointer, item.Detail))
			}
		}
		for id, why := range refused {
			refused[id] = fmt.Errorf("%d %s: %w", e.Status, e.Code, why)
		}
	case e.Code == "conflict":
		for _, id := range e.IDs {
			if slices.ContainsFunc(events, func(e spooled) bool { return e.id == id }) {
				refused[id] = err
			}
		}
	case e.Status == http.StatusRequestEntityTooLarge:
	default:
		return nil, false
	}
	if len(refused) > 0 {
		return refused, false
	}
	if len(events) > 1 {
		return nil, true
	}
	return map[string]error{events[0].id: err}, false
}

// rejection is a line of the file of rejected events.
type rejection struct {
	At    time.Time       `json:"at"`
	Error string          `json:"error"`
	Event json.RawMessage `json:"event"`
}

// reject puts events aside that the server has refused for good.
func (s *Spool) reject(events []spooled, refused map[string]error) error {
	var lines bytes.Buffer
	enc := json.NewEncoder(&lines)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		if why := refused[e.id]; why != nil {
			if err := enc.Encode(rejection{time.Now().UTC(), why.Error(), e.data}); err != nil {
				return err
			}
		}
	}
	path := filepath.Join(s.dir, rejectedFile)
	if err := appendWhole(path, lines.Bytes()); err != nil {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.mu.Lock()
	s.stats.Rejected += uint64(len(refused))
	s.bytes += int64(lines.Len())
	s.mu.Unlock()
	for _, e := range events {
		if why := refused[e.id]; why != nil {
			s.onError(fmt.Errorf("spool: event %s is rejected, and kept in %s: %w", e.id, path, why))
		}
	}
	return nil
}

// appendWhole appends data to a file, all of it or none, and forces it to the disk.
func appendWhole(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		if _, err = f.Write(data); err == nil {
			err = f.Sync()
		}
		if err != nil { // it is written again later, and then shall not follow on a part of itself
			err = errors.Join(err, f.Truncate(info.Size()))
		}
	}
	return errors.Join(err, f.Close())
}
