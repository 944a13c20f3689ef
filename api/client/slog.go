package client

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"
)

// HandlerOptions says which log records a handler takes, and whom it tells what fails.
type HandlerOptions struct {
	// Level is the least that is recorded; nil: slog.LevelInfo.
	Level slog.Leveler
	// OnError is told of an event that couldn't be recorded, since a logger has nobody to tell. nil: it is written to the standard error.
	OnError func(error)
}

// NewHandler returns a handler that makes each log record an event: for a logger of the application's own for what is to be audited,
// beside the one for what is to be debugged.
//
//	audit := slog.New(client.NewHandler(spool, nil))
//	audit.InfoContext(ctx, "user.permission.updated", "actor_id", "user_123", "target_id", "user_456", "role", "editor")
//
// The message is the action. The attributes id, actor_id, actor_type, actor_name, actor_email, target_id, target_type, target_name, ip,
// user_agent, location, session_id, request_id, traceparent and outcome become the members of these names, where they aren't in a group;
// all others become metadata, and groups objects in it. The time is the record's, unless the event has an id of its own, under which it
// may be logged again: then it is what the attribute occurred_at, a time, says. The level isn't recorded.
func NewHandler(r Recorder, o *HandlerOptions) slog.Handler {
	h := &handler{to: r}
	if o != nil {
		h.options = *o
	}
	if h.options.Level == nil {
		h.options.Level = slog.LevelInfo
	}
	if h.options.OnError == nil {
		h.options.OnError = func(err error) { fmt.Fprintln(os.Stderr, "treeline:", err) }
	}
	return h
}

type handler struct {
	to      Recorder
	options HandlerOptions
	attrs   []placedAttr
	groups  []string // that are open
}

// placedAttr is an attribute and the groups it is in.
type placedAttr struct {
	groups []string
	slog.Attr
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.options.Level.Level()
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = slices.Clip(h.attrs)
	for _, a := range attrs {
		with.attrs = append(with.attrs, placedAttr{h.groups, a})
	}
	return &with
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.groups = append(slices.Clip(h.groups), name)
	return &with
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	e := Event{Action: r.Message}
	for _, a := range h.attrs {
		addAttr(&e, a.groups, a.Attr)
	}
	r.Attrs(func(a slog.Attr) bool {
		addAttr(&e, h.groups, a)
		return true
	})
	if e.OccurredAt.IsZero() && e.ID == "" {
		e.OccurredAt = r.Time // zero where the logger gave none
	}
	err := h.to.Record(ctx, e)
	if err != nil {
		h.options.OnError(fmt.Errorf("log record %q: %w", r.Message, err))
	}
	return err
}

// addAttr puts an attribute where it belongs in the event.
func addAttr(e *Event, groups []string, a slog.Attr) {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return // to be ignored, says slog.Handler
	}
	if a.Value.Kind() == slog.KindGroup {
		if a.Key != "" { // else inlined
			groups = append(slices.Clip(groups), a.Key)
		}
		for _, inner := range a.Value.Group() {
			addAttr(e, groups, inner)
		}
		return
	}
	if len(groups) == 0 && addMember(e, a) {
		return
	}
	if e.Metadata == nil {
		e.Metadata = make(map[string]any)
	}
	in := e.Metadata
	for _, name := range groups {
		inner, ok := in[name].(map[string]any)
		if !ok {
			inner = make(map[string]any)
			in[name] = inner
		}
		in = inner
	}
	in[a.Key] = metadataValue(a.Value)
}

// addMember sets the member of the event that the attribute is named for, if there is one.
func addMember(e *Event, a slog.Attr) bool {
	if a.Key == "occurred_at" && a.Value.Kind() == slog.KindTime {
		e.OccurredAt = a.Value.Time()
		return true
	}
	text := a.Value.String()
	member := map[string]*string{
		"id": &e.ID, "actor_id": &e.Actor.ID, "actor_type": &e.Actor.Type, "actor_name": &e.Actor.Name, "actor_email": &e.Actor.Email,
		"ip": &e.Context.IP, "user_agent": &e.Context.UserAgent, "location": &e.Context.Location, "session_id": &e.Context.SessionID,
		"request_id": &e.Context.RequestID, "traceparent": &e.Context.Traceparent, "outcome": (*string)(&e.Outcome),
	}[a.Key]
	if member != nil {
		*member = text
		return true
	}
	if !slices.Contains([]string{"target_id", "target_type", "target_name"}, a.Key) {
		return false
	}
	if e.Targets == nil {
		e.Targets = make([]Target, 1)
	}
	switch a.Key {
	case "target_id":
		e.Targets[0].ID = text
	case "target_type":
		e.Targets[0].Type = text
	default:
		e.Targets[0].Name = text
	}
	return true
}

// maxExact is where float64 ceases to hold every integer. The server refuses those that it doesn't hold.
const maxExact = 1 << 53

// metadataValue returns a value that has the JSON form that a reader expects: times, durations and errors as text, and so integers that
// JSON's readers would round.
func metadataValue(v slog.Value) any {
	switch v.Kind() {
	case slog.KindInt64:
		if n := v.Int64(); n < -maxExact || n > maxExact {
			return v.String()
		}
	case slog.KindUint64:
		if v.Uint64() > maxExact {
			return v.String()
		}
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	case slog.KindDuration:
		return v.String()
	case slog.KindAny:
		switch x := v.Any().(type) {
		case json.Marshaler:
		case error:
			return x.Error()
		case fmt.Stringer:
			return x.String()
		}
	}
	return v.Any()
}
