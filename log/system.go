package log

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/treeline-log/treeline/checkpoint"
)

// The system log is the record of the record: what is done to logs and keys, what is exported, and who reads what are events in it,
// with the same chain, tree, checkpoints and proofs as those of any log. Only the server appends to it.
//
// An act is recorded before it is done (Service.do), so there is none that isn't recorded. An act that fails afterwards has a second
// event that says so; one that a crash came before has only the first.

// SystemName is the name of the system log. It is reserved, and so are those of the logs that follow it, system-2, system-3 and so on.
const SystemName = "system"

// Errors of what the system log is asked for.
var (
	// ErrSystem means that a log is the system log, which only the server appends to and nobody sets up.
	ErrSystem = errors.New("the system log is the server's own")
	// ErrUnrecorded means that something wasn't done, since the system log couldn't be appended to.
	ErrUnrecorded = errors.New("it can't be recorded in the system log, so it wasn't done")
)

// IsSystem reports whether the log is the system log, or was until another followed it.
func (i Info) IsSystem() bool { return isSystemName(i.Name) }

func isSystemName(name string) bool {
	if name == SystemName {
		return true
	}
	number, ok := strings.CutPrefix(name, SystemName+"-")
	n, err := strconv.Atoi(number)
	return ok && err == nil && n >= 2 && strconv.Itoa(n) == number
}

// nextSystemName returns the name of the log that follows a system log.
func nextSystemName(name string) string {
	number := 1
	if text, ok := strings.CutPrefix(name, SystemName+"-"); ok {
		number, _ = strconv.Atoi(text) // it is one
	}
	return SystemName + "-" + strconv.Itoa(number+1)
}

// Systems returns the system logs, the one that is appended to first and each followed by the one that it follows. There is one, but
// where one was followed by another.
func (s *Service) Systems() []*Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*Log
	for name := SystemName; s.byName[name] != nil; name = nextSystemName(name) {
		all = append([]*Log{s.byName[name]}, all...)
	}
	return all
}

// openOwn returns the log of a reserved name, which it makes if there is none.
func (s *Service) openOwn(ctx context.Context, name string, settings Settings) (*Log, error) {
	l := s.Log(name)
	if l != nil {
		return l, nil
	}
	_, err := s.createLog(ctx, name, settings)
	if errors.Is(err, ErrExists) && s.config.Shared { // another server makes it at this moment
		err = s.learnSizes(ctx)
	}
	if l = s.Log(name); l == nil {
		return nil, fmt.Errorf("making the log %s: %w", name, err)
	}
	return l, nil
}

// By is who does what the system log tells of.
type By struct {
	ID        string // an API key's public id, or what does it if it isn't done with a key
	Type      string
	Name      string
	IP        string // the address that the request came from
	UserAgent string
	RequestID string
}

// Types of those who do something.
const (
	byKey     = "api_key"
	byCommand = "command"
	byServer  = "server"
)

// ByKey returns who does something with an API key.
func ByKey(k Key) By { return By{ID: k.ID, Type: byKey, Name: k.Name} }

// ByCommand returns who does something with a command on the store itself: the command, and the user of the system who runs it.
func ByCommand(command, user string) By { return By{ID: command, Type: byCommand, Name: user} }

// ByServer is the server, doing something of its own accord.
func ByServer() By { return By{ID: "treeline serve", Type: byServer} }

// Act is what is done, as the system log tells of it. It holds no secrets and nothing of what is in logs.
type Act struct {
	Action   string // of the system's events, without the leading "treeline."
	Targets  []Target
	Changes  []Change
	Metadata map[string]any
}

// Types of targets.
const (
	LogTarget = "log"
	KeyTarget = "key"
)

// Target is what something is done to: a log or an API key.
type Target struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

// Change is what becomes of a setting.
type Change struct {
	Field  string `json:"field"`
	Before any    `json:"before"`
	After  any    `json:"after"`
}

// Target returns the log as a target: by its id, which nothing else ever has.
func (l *Log) Target() Target {
	return Target{Type: LogTarget, ID: hex.EncodeToString(l.logID[:]), Name: l.Name}
}

// Target returns the key as a target.
func (k Key) Target() Target { return Target{Type: KeyTarget, ID: k.ID, Name: k.Name} }

// told is what is told of a key that is made: what it may do, and until when.
func (k Key) told() map[string]any {
	told := map[string]any{"role": k.Role}
	if k.ExpiresAt != 0 {
		told["expires_at"] = string(AppendTime(nil, k.ExpiresAt))
	}
	if k.Networks != "" {
		told["networks"] = strings.Fields(k.Networks)
	}
	if k.Actions != "" {
		told["actions"] = strings.Fields(k.Actions)
	}
	if k.Rates != (Rates{}) {
		told["events_per_second"], told["requests_per_second"] = k.Rates.Events, k.Rates.Requests
	}
	return told
}

// targets returns a key and the log that it is for.
func (s *Service) targets(ctx context.Context, k Key) []Target {
	all := []Target{k.Target()}
	if l := s.LookupID(ctx, k.Log); l != nil {
		all = append(all, l.Target())
	}
	return all
}

// ownEvent is an event of the server's own.
type ownEvent struct {
	ID         string     `json:"id,omitempty"`
	Action     string     `json:"action"` // begins with "treeline."
	OccurredAt string     `json:"occurred_at,omitempty"`
	Actor      *ownActor  `json:"actor,omitempty"`
	Targets    []Target   `json:"targets,omitempty"`
	Context    ownContext `json:"context"`
	Outcome    string     `json:"outcome,omitempty"`
	Changes    []Change   `json:"changes,omitempty"`
	Metadata   any        `json:"metadata,omitempty"`
}

type ownActor struct {
	ID   string `json:"id"`
	Type string `json:"type,omitempty"`
	Name string `json:"name,omitempty"`
}

type ownContext struct {
	IP        string `json:"ip,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// event returns the event in its only form.
func (e ownEvent) event(now time.Time) (*Event, error) {
	opt := ParseOptions{Now: now, System: true}
	if e.ID == "" { // not by NewID, since an event may be sent again
		e.ID = uuid.Must(uuid.NewV7()).String()
	}
	if e.Actor != nil {
		e.Actor.Name = cleaned(e.Actor.Name, 512)
		if e.Actor.Type == byKey {
			opt.Credential = e.Actor.ID
		}
	}
	for i := range e.Targets {
		e.Targets[i].Name = cleaned(e.Targets[i].Name, 512)
	}
	e.Context.UserAgent = cleaned(e.Context.UserAgent, 2048)
	text, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	event, err := ParseEvent(text, opt)
	if err != nil {
		return nil, fmt.Errorf("the server's own event %s: %w", e.Action, err)
	}
	return event, nil
}

// cleaned returns the beginning of a text, of at most that many bytes, without what no event may hold.
func cleaned(text string, most int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
	if len(text) <= most {
		return text
	}
	for !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// appendOwn appends events of the server's own, all or none, to any log that isn't the system log also after its end. Where it is unknown whether they are there they are sent again, which is
// safe, once.
func (l *Log) appendOwn(ctx context.Context, events ...*Event) ([]Place, error) {
	places, err := l.append(ctx, events, !l.IsSystem())
	if errors.Is(err, ErrOutcomeUnknown) {
		places, err = l.append(ctx, events, !l.IsSystem())
	}
	return places, err
}

// appendSystem appends events to the system log, if the service keeps one.
func (s *Service) appendSystem(ctx context.Context, events ...*Event) error {
	if !s.config.System {
		return nil
	}
	err := s.tryAppendSystem(ctx, events)
	if errors.Is(err, ErrFrozen) && s.config.Shared { // another one follows it, made on another server
		s.learn(ctx)
		err = s.tryAppendSystem(ctx, events)
	}
	return err
}

func (s *Service) tryAppendSystem(ctx context.Context, events []*Event) error {
	l := s.Systems()[0]
	if l.Name != SystemName && l.Sizes().Size == 0 { // its first event is the one that names its predecessor
		if err := l.Refresh(ctx); err != nil {
			return err
		}
		if l.Sizes().Size == 0 {
			return ErrNotReady
		}
	}
	_, err := l.appendOwn(ctx, events...)
	return err
}

// told returns the event that tells of an act.
func (a Act) told(by By) ownEvent {
	return ownEvent{
		Action: "treeline." + a.Action, Actor: &ownActor{by.ID, by.Type, by.Name}, Targets: a.Targets,
		Context: ownContext{by.IP, by.UserAgent, by.RequestID}, Changes: a.Changes, Metadata: a.Metadata,
	}
}

// record appends the event that tells of an act, and returns its id. Unless the error is nil the act must not be done.
func (s *Service) record(ctx context.Context, by By, a Act) (id string, err error) {
	event, err := a.told(by).event(s.config.Now())
	if err != nil {
		return "", err
	}
	if err := s.appendSystem(ctx, event); err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnrecorded, err)
	}
	return event.ID(), nil
}

// actPatience is how long an act may take once it is recorded.
const actPatience = time.Minute

// do does an act, after it is recorded. Whoever asked for it may leave meanwhile: an act that is recorded is done.
func (s *Service) do(ctx context.Context, by By, a Act, fn func(context.Context) error) error {
	id, err := s.record(ctx, by, a)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actPatience)
	defer cancel()
	if err = fn(ctx); err != nil && !errors.Is(err, ErrNotReady) { // which is a log that is made
		s.recordFailure(by, a, id, err)
	}
	return err
}

// recordFailure appends the event that tells that an act, of which the event with the id tells, failed.
func (s *Service) recordFailure(by By, a Act, id string, failure error) {
	a.Changes, a.Metadata = nil, map[string]any{"act": id}
	outcome := "unknown"
	if isRefusal(failure) {
		outcome = "failure"
	}
	s.recordEnd(by, a, outcome)
}

// recordEnd appends an event that tells how something ended that was recorded when it began.
func (s *Service) recordEnd(by By, a Act, outcome string) {
	ctx, cancel := context.WithTimeout(context.Background(), actPatience) // whoever asked for it may be gone
	defer cancel()
	told := a.told(by)
	told.Outcome = outcome
	event, err := told.event(s.config.Now())
	if err == nil {
		err = s.appendSystem(ctx, event)
	}
	if err != nil {
		s.logger.Error("how something ended that was recorded can't be recorded", "action", told.Action, "metadata", a.Metadata,
			"outcome", outcome, "error", err)
	}
}

// isRefusal reports whether an error of an act means that nothing was done; after any other it may have been.
func isRefusal(err error) bool {
	for _, refusal := range []error{
		ErrExists, ErrNotFound, ErrRolledBack, ErrKeyRevoked, ErrKeyExpired, ErrReplaced,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// logTarget returns a log that is still to be made as a target.
func (s *Service) logTarget(name string) (Target, error) {
	_, vkeys, err := s.derive(s.config.Prefix+"/logs/"+name, false)
	if err != nil {
		return Target{}, err
	}
	id := checkpoint.LogID(vkeys[0])
	return Target{Type: LogTarget, ID: hex.EncodeToString(id[:]), Name: name}, nil
}
