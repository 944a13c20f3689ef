package log

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"
)

// Settings are what may be changed about a log. None of it is in what is signed.
type Settings struct {
	Title  string // what people call the log: its name is in its origin, and so in public; at most MaxTitle bytes
	Public bool   // whether anyone may read its tiles
	Rates  Rates  // of all keys together
	// Required are pointers of claims that an event must have to be appended, besides what every event must have.
	Required []string
}

// Limits of settings.
const (
	MaxTitle    = 256       // bytes
	MaxRequired = 20        // pointers
	MaxRate     = 1_000_000 // events or requests a second
)

// ErrSettings means that a log can't have the settings.
var ErrSettings = errors.New("not a log's settings")

// Check returns ErrSettings if a log can't have the settings.
func (s Settings) Check() error {
	if len(s.Title) > MaxTitle || !utf8.ValidString(s.Title) || !isLine(s.Title) {
		return fmt.Errorf("%w: title: want one line of at most %d bytes of UTF-8", ErrSettings, MaxTitle)
	}
	if err := s.Rates.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrSettings, err)
	}
	if len(s.Required) > MaxRequired {
		return fmt.Errorf("%w: required: %d pointers, want at most %d", ErrSettings, len(s.Required), MaxRequired)
	}
	for i, pointer := range s.Required {
		if _, err := parsePointer(pointer); err != nil {
			return fmt.Errorf("%w: required: %q names no claim, such as /actor/id, /targets/0/id, /outcome or /metadata/plan", ErrSettings, pointer)
		}
		if slices.Contains(s.Required[:i], pointer) {
			return fmt.Errorf("%w: required: %q is there twice", ErrSettings, pointer)
		}
	}
	return nil
}

// isLine reports whether a text has no control characters.
func isLine(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}

// Check returns an error if nothing can have such rates.
func (r Rates) Check() error {
	for _, rate := range []struct {
		name string
		n    int
	}{{"events_per_second", r.Events}, {"requests_per_second", r.Requests}} {
		if rate.n < 0 || rate.n > MaxRate {
			return fmt.Errorf("%s: %d is not from 0 (no limit of its own) to %d", rate.name, rate.n, MaxRate)
		}
	}
	return nil
}

func (s Settings) equal(o Settings) bool {
	return s.Title == o.Title && s.Public == o.Public && s.Rates == o.Rates && slices.Equal(s.Required, o.Required)
}

// Settings returns the log's settings. On a server that shares its store they are a few seconds old at most.
func (l *Log) Settings() Settings { return *l.settings.Load() }

// Public reports whether anyone may read the log's tiles.
func (l *Log) Public() bool { return l.settings.Load().Public }

// adopt takes up settings that were read from the store.
func (l *Log) adopt(s Settings) {
	if l.IsHub() && l.service.config.Hub {
		s.Public = l.service.config.HubPublic
	}
	l.settings.Store(&s)
}

// Configure lets change alter the log's settings, and returns them as they are then. They are durable on return. The error is ErrSettings,
// ErrHub, ErrSystem, ErrUnrecorded, ErrRolledBack if another server changed them at the same time, or change's own.
func (l *Log) Configure(ctx context.Context, by By, change func(*Settings) error) (Settings, error) {
	if err := l.checkTenant(); err != nil {
		return Settings{}, err
	}
	if err := l.service.LearnSettings(ctx); err != nil {
		return Settings{}, err
	}
	l.service.settling.Lock() // what is read meanwhile may be older
	defer l.service.settling.Unlock()
	before := l.Settings()
	after := before
	err := change(&after)
	if err == nil {
		err = after.Check()
	}
	if err != nil || after.equal(before) {
		return before, err
	}
	act := Act{Action: "log.updated", Targets: []Target{l.Target()}, Changes: before.changes(after)}
	err = l.service.do(ctx, by, act, func(ctx context.Context) error {
		_, err := l.service.store.Configure(ctx, l.ID, func(s *Settings) error {
			if !s.equal(before) { // or what is recorded wouldn't be what was done
				return fmt.Errorf("%w: another server has changed the settings", ErrRolledBack)
			}
			*s = after
			return nil
		})
		return err
	})
	if err != nil {
		return Settings{}, fmt.Errorf("changing the settings of log %s: %w", l.Name, err)
	}
	l.adopt(after)
	return after, nil
}

// checkTenant returns an error if the log is the server's own, which nobody sets up or ends.
func (l *Log) checkTenant() error {
	switch {
	case l.IsHub():
		return ErrHub
	case l.IsSystem():
		return ErrSystem
	}
	return nil
}

// changes returns what becomes of settings.
func (s Settings) changes(o Settings) (changes []Change) {
	add := func(field string, before, after any, same bool) {
		if !same {
			changes = append(changes, Change{field, before, after})
		}
	}
	add("title", s.Title, o.Title, s.Title == o.Title)
	add("public", s.Public, o.Public, s.Public == o.Public)
	add("events_per_second", s.Rates.Events, o.Rates.Events, s.Rates.Events == o.Rates.Events)
	add("requests_per_second", s.Rates.Requests, o.Rates.Requests, s.Rates.Requests == o.Rates.Requests)
	add("required", s.Required, o.Required, slices.Equal(s.Required, o.Required))
	return changes
}

// Freeze ends the log: from its return on nothing is appended to it on any server, and what was appended is signed to its end. It
// can't be undone. The error may be ErrHub, ErrSystem or ErrUnrecorded.
func (l *Log) Freeze(ctx context.Context, by By) error {
	if err := l.checkTenant(); err != nil || l.Frozen() {
		return err
	}
	return l.service.do(ctx, by, Act{Action: "log.frozen", Targets: []Target{l.Target()}}, l.freeze)
}

func (l *Log) freeze(ctx context.Context) error {
	if err := l.service.store.Freeze(ctx, l.ID); err != nil {
		return fmt.Errorf("freezing log %s: %w", l.Name, err)
	}
	l.progress.frozen.Store(true)
	return nil
}

// settingsPause is how often the settings that other servers have changed are read.
const settingsPause = 5 * time.Second

// LearnSettings learns what other servers have changed about logs, where there are others.
func (s *Service) LearnSettings(ctx context.Context) error {
	if !s.config.Shared {
		return nil
	}
	s.settling.Lock()
	defer s.settling.Unlock()
	infos, err := s.store.Logs(ctx)
	if err != nil {
		return fmt.Errorf("reading the settings of logs: %w", err)
	}
	for _, info := range infos {
		if l := s.LogByID(info.ID); l != nil {
			l.adopt(info.Settings)
			if info.Frozen {
				l.progress.frozen.Store(true)
			}
		}
	}
	return nil
}

// learnSettings does that every few seconds.
func (s *Service) learnSettings(ctx context.Context) {
	tick := time.NewTicker(settingsPause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.LearnSettings(ctx); err != nil && ctx.Err() == nil {
				s.metrics.failures.WithLabelValues("read settings").Inc()
				s.logger.Warn("reading the settings of logs failed, will be tried again", "error", err)
			}
		}
	}
}
