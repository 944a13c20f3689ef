package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/api/client"
)

func TestMiddleware(t *testing.T) {
	t.Parallel()
	describe := func(r *http.Request, e *client.Event) { e.Actor.ID = r.Header.Get("X-User") }
	for name, x := range map[string]struct {
		serve http.HandlerFunc
		want  client.Event // "": none
	}{
		"no action": {func(http.ResponseWriter, *http.Request) {}, client.Event{}},
		"success": {func(_ http.ResponseWriter, r *http.Request) {
			e := client.EventOf(r.Context())
			e.Action, e.Targets = "team.joined", []client.Target{{ID: "team_7"}}
		}, client.Event{Action: "team.joined", Targets: []client.Target{{ID: "team_7"}}, Outcome: client.Success}},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			client.EventOf(r.Context()).Action = "a"
			http.Redirect(w, r, "/", http.StatusSeeOther)
		}, client.Event{Action: "a", Outcome: client.Success}},
		"denied": {func(w http.ResponseWriter, r *http.Request) {
			client.EventOf(r.Context()).Action = "a"
			w.WriteHeader(http.StatusForbidden)
			w.WriteHeader(http.StatusOK) // too late
		}, client.Event{Action: "a", Outcome: client.Denied}},
		"failure": {func(w http.ResponseWriter, r *http.Request) {
			client.EventOf(r.Context()).Action = "a"
			w.WriteHeader(http.StatusEarlyHints)
			http.Error(w, "no", http.StatusInternalServerError)
		}, client.Event{Action: "a", Outcome: client.Failure}},
		"panic": {func(_ http.ResponseWriter, r *http.Request) {
			client.EventOf(r.Context()).Action = "a"
			panic(http.ErrAbortHandler)
		}, client.Event{Action: "a", Outcome: client.Failure}},
		"the application's own outcome": {func(w http.ResponseWriter, r *http.Request) {
			e := client.EventOf(r.Context())
			e.Action, e.Outcome = "a", client.Unknown
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
		}, client.Event{Action: "a", Outcome: client.Unknown}},
	} {
		var m memory
		gone, leave := context.WithCancel(t.Context())
		h := client.Middleware(&m, client.MiddlewareOptions{Describe: describe})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			leave() // whoever sent the request doesn't wait for the answer
			x.serve(w, r)
		}))
		r := httptest.NewRequestWithContext(gone, http.MethodPost, "/", nil)
		r.RemoteAddr = "[2001:db8::1%eth0]:4711"
		r.Header.Set("X-User", "user_123")
		r.Header.Set("User-Agent", strings.Repeat("ü", 2000)+"\xff")
		func() {
			defer func() { _ = recover() }()
			h.ServeHTTP(httptest.NewRecorder(), r)
		}()
		if x.want.Action == "" {
			if len(m.events) > 0 {
				t.Errorf("%s: got %+v", name, m.events)
			}
			continue
		}
		x.want.Actor.ID = "user_123"
		x.want.Context = client.Context{IP: "2001:db8::1", UserAgent: strings.Repeat("ü", 1024)}
		if len(m.events) != 1 || !reflect.DeepEqual(m.events[0], x.want) {
			t.Errorf("%s: got %+v, want %+v", name, m.events, x.want)
		}
	}
}

func TestMiddlewareThatCannotRecordSaysSo(t *testing.T) {
	t.Parallel()
	m := memory{err: client.ErrFull}
	var told error
	h := client.Middleware(&m, client.MiddlewareOptions{
		Describe: func(_ *http.Request, e *client.Event) { e.Action = "request" },
		OnError: func(r *http.Request, e client.Event, err error) {
			told = errors.Join(errors.New(r.Method+" "+e.Action), err)
		},
	})(http.NotFoundHandler())
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if !errors.Is(told, client.ErrFull) || !strings.Contains(told.Error(), "GET request") || w.Code != http.StatusNotFound {
		t.Errorf("got %v, %d", told, w.Code)
	}
	if e := client.EventOf(t.Context()); e == nil {
		t.Error("without the middleware there is no event to fill in")
	}
}
