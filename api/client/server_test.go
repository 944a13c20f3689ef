package client_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/api/client"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/sqlite"
)

// server is a whole Treeline server, and what may go wrong on the way to it.
type server struct {
	url     string
	key     string // an admin's
	log     *log.Log
	lose    atomic.Int64 // answers of so many of the next requests are lost: they are served all the same
	refuse  atomic.Bool  // all requests get 503, and nothing is done
	batches atomic.Int64 // that were served
}

func newServer(t testing.TB) *server {
	t.Helper()
	dir := t.TempDir()
	store, err := sqlite.Open(t.Context(), filepath.Join(dir, "treeline.db"))
	if err != nil {
		t.Fatal(err)
	}
	fence, err := checkpoint.OpenFileFence(filepath.Join(dir, "fence"))
	if err != nil {
		t.Fatal(err)
	}
	logger, registry := slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()
	seed := checkpoint.Seed{7}
	service, err := log.Open(context.Background(), log.Config{
		Store: store, Seed: seed, Fence: fence, Prefix: "test.example", Interval: 10 * time.Millisecond, Logger: logger, Metrics: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{}
	handler := api.New(api.Config{Service: service, Seed: seed, Logger: logger, Registry: registry})
	web := httptest.NewServer(s.faulty(handler))
	t.Cleanup(func() {
		handler.Close()
		web.Close()
		service.Close()
		store.Close()
	})
	s.url = web.URL
	if s.log, err = service.CreateLog(context.Background(), "default", false); err != nil {
		t.Fatal(err)
	}
	if _, s.key, err = service.CreateKey(context.Background(), log.RoleAdmin, 0, "test"); err != nil {
		t.Fatal(err)
	}
	return s
}

// faulty does to requests and answers what a bad network does.
func (s *server) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.refuse.Load() {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"type":"about:blank","title":"Service Unavailable","status":503,"code":"store_unavailable","detail":"the store failed"}`)
			return
		}
		if r.Method == http.MethodPost {
			s.batches.Add(1)
		}
		if s.lose.Add(-1) >= 0 {
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(w, r)
	})
}

// client returns a client of the server.
func (s *server) client(t testing.TB) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Server: s.url, Key: s.key})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// events returns all events of the log, in order.
func (s *server) events(t testing.TB) []client.Event {
	t.Helper()
	records, err := s.log.Records(t.Context(), 0, s.log.Sizes().Size, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	events := make([]client.Event, len(records))
	for i, r := range records {
		if err := json.Unmarshal(r.Event, &events[i]); err != nil {
			t.Fatal(err)
		}
	}
	return events
}

// actions returns the actions of all events, in order.
func (s *server) actions(t testing.TB) (actions []string) {
	t.Helper()
	for _, e := range s.events(t) {
		actions = append(actions, e.Action)
	}
	return actions
}

// until waits for something to become true.
func until(t testing.TB, what string, reached func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
