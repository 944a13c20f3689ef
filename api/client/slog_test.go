package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"testing"
	"testing/slogtest"
	"time"

	"github.com/treeline-log/treeline/api/client"
)

// memory is a Recorder that keeps what it is given.
type memory struct {
	events []client.Event
	err    error
}

func (m *memory) Record(ctx context.Context, e client.Event) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m.events = append(m.events, e)
	return m.err
}

func TestALogRecordIsAnEvent(t *testing.T) {
	t.Parallel()
	var m memory
	audit := slog.New(client.NewHandler(&m, nil)).With("actor_id", "user_123", "region", "eu")
	audit.Debug("not.recorded")
	audit.WithGroup("order").Info("order.refunded",
		"target_id", "in a group, so it is metadata", slog.Group("sum", "amount", 12, "currency", "CHF"))
	audit.Warn("user.permission.updated", "id", "own", "actor_email", "a@example.com", "target_id", "user_456", "target_type", "user",
		"outcome", "denied", "ip", "192.0.2.7", "request_id", "r", "err", errors.New("no"), "took", 90*time.Second,
		"at", time.Date(2026, 11, 1, 2, 0, 0, 0, time.FixedZone("", 7200)), "big", int64(1)<<60, "huge", uint64(1)<<63, "n", 7,
		"raw", json.RawMessage(`{"a":1}`), "occurred_at", time.Unix(1, 0))
	if len(m.events) != 2 {
		t.Fatalf("got %d events: %+v", len(m.events), m.events)
	}
	first := m.events[0]
	if time.Since(first.OccurredAt) > time.Hour || first.ID != "" {
		t.Errorf("got %+v, want the record's time", first)
	}
	first.OccurredAt = time.Time{}
	want := client.Event{
		Action: "order.refunded", Actor: client.Actor{ID: "user_123"},
		Metadata: map[string]any{"region": "eu", "order": map[string]any{
			"target_id": "in a group, so it is metadata", "sum": map[string]any{"amount": int64(12), "currency": "CHF"},
		}},
	}
	if !reflect.DeepEqual(first, want) {
		t.Errorf("got %+v, want %+v", first, want)
	}
	want = client.Event{
		ID: "own", Action: "user.permission.updated", OccurredAt: time.Unix(1, 0), Actor: client.Actor{ID: "user_123", Email: "a@example.com"},
		Targets: []client.Target{{ID: "user_456", Type: "user"}}, Outcome: client.Denied, Context: client.Context{IP: "192.0.2.7", RequestID: "r"},
		Metadata: map[string]any{
			"region": "eu", "err": "no", "took": "1m30s", "at": "2026-11-01T00:00:00Z", "big": "1152921504606846976",
			"huge": "9223372036854775808", "n": int64(7), "raw": json.RawMessage(`{"a":1}`),
		},
	}
	if !reflect.DeepEqual(m.events[1], want) {
		t.Errorf("got %+v, want %+v", m.events[1], want)
	}
}

func TestALoggerThatCannotRecordSaysSo(t *testing.T) {
	t.Parallel()
	m := memory{err: client.ErrFull}
	var told error
	audit := slog.New(client.NewHandler(&m, &client.HandlerOptions{Level: slog.LevelError, OnError: func(err error) { told = err }}))
	audit.Warn("a")
	if told != nil || len(m.events) > 0 {
		t.Errorf("below the level: got %v, %v", told, m.events)
	}
	audit.Error("a")
	if !errors.Is(told, client.ErrFull) {
		t.Errorf("got %v, want %v", told, client.ErrFull)
	}
}

// What package slog demands of every handler; the level isn't recorded.
func TestTheHandlerIsOne(t *testing.T) {
	t.Parallel()
	var m *memory
	slogtest.Run(t, func(*testing.T) slog.Handler {
		m = &memory{}
		return client.NewHandler(m, nil)
	}, func(*testing.T) map[string]any {
		e := m.events[0]
		out := map[string]any{slog.LevelKey: slog.LevelInfo, slog.MessageKey: e.Action}
		if !e.OccurredAt.IsZero() {
			out[slog.TimeKey] = e.OccurredAt
		}
		for name, v := range e.Metadata {
			out[name] = v
		}
		return out
	})
}
