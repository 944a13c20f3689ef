package log

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/treeline-log/treeline/checkpoint"
)

// A log that can't go on, since its store lost what was signed, is followed by another one. Its first event is the server's own
// and names the last checkpoint of the log before it that anybody outside can hold: that of the fence. So whoever holds a
// proof under the old log's key can see that the new one knows of it, and up to where the old history is acknowledged.

// startedID is the id of a following log's first event, and its action.
const startedID = "treeline.log.started"

// maxReason bounds the reason that is given for a succession.
const maxReason = 1024

// started is the metadata of a following log's first event.
type started struct {
	PredecessorOrigin string `json:"predecessor_origin"`
	PredecessorSize   uint64 `json:"predecessor_size"`
	PredecessorRoot   string `json:"predecessor_root"` // hex
	Reason            string `json:"reason,omitempty"`
}

// Succeed freezes a log and makes the one that follows it, which is signed on return. A log whose store is intact is signed to
// its end before; of any other nothing is read but the fence. It returns the checkpoint that the new log begins from. If it
// fails, it can be called again with the same arguments. The error is ErrExists if the new log's name was ever used for
// something else, or another log follows the old one; or ErrUnrecorded, after which the system log has to be followed first, by one
// of the next name that is reserved for it.
func (s *Service) Succeed(ctx context.Context, by By, name, as, reason string) (next *Log, last checkpoint.Checkpoint, err error) {
	if len(reason) > maxReason || !utf8.ValidString(reason) {
		return nil, last, fmt.Errorf("the reason: at most %d bytes of UTF-8", maxReason)
	}
	old := s.Lookup(ctx, name)
	if old == nil {
		if err := CheckName(as); err != nil {
			return nil, last, err
		}
		return nil, last, fmt.Errorf("log %q: %w", name, ErrNotFound)
	}
	if err := old.checkFollowing(as); err != nil {
		return nil, last, err
	}
	if err := s.checkFollower(ctx, s.Lookup(ctx, as), old, as); err != nil {
		return nil, last, err
	}
	// Before anything is changed: without a fence there is nothing to begin from.
	if _, err := old.fenced(ctx); err != nil {
		return nil, last, err
	}
	target, err := s.logTarget(as)
	if err != nil {
		return nil, last, err
	}
	act := Act{Action: "log.succeeded", Targets: []Target{old.Target(), target}, Metadata: map[string]any{"reason": reason}}
	succeed := func(ctx context.Context) error {
		next, last, err = s.succeed(ctx, old, as, reason)
		return err
	}
	if !old.IsSystem() {
		err = s.do(ctx, by, act, succeed)
		return next, last, err
	}
	// Nothing can be recorded before there is another system log. That it was made its first event tells.
	if err := succeed(ctx); err != nil {
		return nil, last, err
	}
	_, err = s.record(ctx, by, act)
	return next, last, err
}

// checkFollowing returns an error if no log of that name can follow the log.
func (l *Log) checkFollowing(name string) error {
	switch {
	case l.IsHub():
		return ErrHub
	case !l.IsSystem():
		return CheckName(name)
	case name != nextSystemName(l.Name):
		return fmt.Errorf("%w: the one that follows %s is named %s", ErrSystem, l.Name, nextSystemName(l.Name))
	}
	return nil
}

// succeed freezes a log and makes the one that follows it.
func (s *Service) succeed(ctx context.Context, old *Log, as, reason string) (next *Log, last checkpoint.Checkpoint, err error) {
	if err := old.freeze(ctx); err != nil {
		return nil, last, err
	}
	if err := old.signToEnd(ctx); err != nil {
		return nil, last, fmt.Errorf("signing the end of log %s: %w", old.Name, err)
	}
	if last, err = old.fenced(ctx); err != nil {
		return nil, last, err
	}
	if next = s.Lookup(ctx, as); next == nil {
		if next, err = s.createLog(ctx, as, old.Settings()); err != nil {
			return nil, last, fmt.Errorf("making log %s: %w", as, err)
		}
	}
	return next, last, next.start(ctx, started{last.Origin, last.Size, last.Root.String(), reason})
}

// checkFollower returns ErrExists if the log can't be the one that follows old: it has other events, or another log does.
func (s *Service) checkFollower(ctx context.Context, next, old *Log, as string) error {
	if next != nil {
		if err := next.Refresh(ctx); err != nil {
			return err
		}
		if follows, err := next.follows(ctx, old); err != nil {
			return err
		} else if !follows && (next == old || next.Sizes().Size > 0) {
			return fmt.Errorf("log %q: %w, and doesn't follow log %q", as, ErrExists, old.Name)
		}
	}
	if !old.Frozen() {
		return nil
	}
	for _, l := range s.Logs() {
		if follows, err := l.follows(ctx, old); err != nil {
			return err
		} else if follows && l != next {
			return fmt.Errorf("log %q follows log %q: %w", l.Name, old.Name, ErrExists)
		}
	}
	return nil
}

// follows reports whether the log's first event names old as the one before it.
func (l *Log) follows(ctx context.Context, old *Log) (bool, error) {
	index, err := l.Find(ctx, startedID)
	if errors.Is(err, ErrNotFound) || err == nil && index != 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	r, err := l.Record(ctx, 0)
	if err != nil {
		return false, err
	}
	var event struct {
		Action   string
		Metadata started
	}
	if err := json.Unmarshal(r.Event, &event); err != nil {
		return false, err
	}
	return event.Action == startedID && event.Metadata.PredecessorOrigin == old.Origin, nil
}

// fenced returns the newest checkpoint of the log that its fence has.
func (l *Log) fenced(ctx context.Context) (c checkpoint.Checkpoint, err error) {
	msg, err := l.service.config.Fence.Load(ctx, l.Origin)
	if err != nil {
		return c, err
	}
	if msg == nil {
		return c, fmt.Errorf("the fence has no checkpoint of log %s: bring back the fence, which knows where the log ended", l.Name)
	}
	verifiers, err := l.verifiers()
	if err != nil {
		return c, err
	}
	if c, _, err = checkpoint.Open(msg, l.Origin, verifiers...); err != nil {
		return c, fmt.Errorf("the fence's checkpoint of log %s: %w", l.Name, err)
	}
	return c, nil
}

// signToEnd signs what a frozen log holds, if its store is what was signed before.
func (l *Log) signToEnd(ctx context.Context) error {
	head, err := l.service.store.Head(ctx, l.ID)
	if err != nil {
		return err
	}
	ended := func() bool { return l.Stopped() != nil || l.Sizes().Signed >= head.Size }
	for attempt := 0; !ended() && attempt < 5; attempt++ { // other servers may sign at the same time
		if err = l.publish(ctx, false); err != nil {
			l.service.fail(l, err) // which stops a log that isn't intact
		}
	}
	if !ended() {
		return errors.Join(ErrNotSigned, err)
	}
	return nil
}

// start appends the first event, and waits until it is signed.
func (l *Log) start(ctx context.Context, from started) error {
	event, err := ownEvent{ID: startedID, Action: startedID, Metadata: from}.event(l.service.config.Now())
	if err != nil {
		return fmt.Errorf("the first event of log %s: %w", l.Name, err)
	}
	places, err := l.appendOwn(ctx, event)
	if err != nil {
		return fmt.Errorf("appending the first event of log %s: %w", l.Name, err)
	}
	if index := places[0].Index; index != 0 {
		return fmt.Errorf("log %s was written to while it was made: the event that names its predecessor is at index %d", l.Name, index)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := l.Wait(ctx, 1, StateSigned); err != nil {
		return fmt.Errorf("waiting for the first signature of log %s: %w", l.Name, err)
	}
	return nil
}
