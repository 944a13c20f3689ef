package client_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/treeline-log/treeline/api/apitest"
	"github.com/treeline-log/treeline/api/client"
)

// server is a whole Treeline server, and what may go wrong on the way to it.
type server struct {
	*apitest.Server
	lose   atomic.Int64 // answers of so many of the next requests are lost: they are served all the same
	refuse atomic.Bool  // all requests get 503, and nothing is done
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{}
	var err error
	if s.Server, err = apitest.Start(t.TempDir(), s.faulty); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
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
	c, err := client.New(client.Config{Server: s.URL, Key: s.Key})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// events returns all events of the log, in order.
func (s *server) events(t testing.TB) []client.Event {
	t.Helper()
	records, err := s.Log.Records(t.Context(), 0, s.Log.Sizes().Size, 1<<30)
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
