package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/treeline-log/treeline/api/client"
)

func TestStrictAppend(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.client(t)
	want := client.Event{
		ID: "order-1", Action: "user.permission.updated", OccurredAt: time.Date(2026, 11, 1, 12, 0, 0, 123_456_789, time.UTC),
		Actor:   client.Actor{ID: "user_123", Type: "user", Name: "Jo", Email: "jo@example.com"},
		Targets: []client.Target{{ID: "user_456", Type: "user", Name: "Al"}, {ID: "team_7"}},
		Context: client.Context{
			IP: "203.0.113.42", UserAgent: "<Mozilla>", Location: "Bern", SessionID: "s", RequestID: "r",
			Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		},
		Outcome:  client.Success,
		Changes:  []client.Change{{Field: "role", Before: "viewer", After: "editor"}, {Field: "seat", After: 3.5}},
		Metadata: map[string]any{"ticket": "SEC-1", "nested": map[string]any{"n": 1.0}},
	}
	first, err := c.Append(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Append(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if first.Duplicate || !again.Duplicate || again.Index != first.Index || again.Hash != first.Hash {
		t.Errorf("got %+v and then %+v, want the same place twice", first, again)
	}
	want.OccurredAt = want.OccurredAt.Truncate(time.Microsecond)
	want.Credential = first.Event.Credential
	if !reflect.DeepEqual(first.Event, want) {
		t.Errorf("got %+v, want %+v", first.Event, want)
	}
	want.Outcome = client.Failure
	if _, err := c.Append(t.Context(), want); !client.IsCode(err, "conflict") {
		t.Errorf("the same id with other content: got %v, want a conflict", err)
	}
	if got, err := c.Event(t.Context(), "order-1"); err != nil || got.Hash != first.Hash {
		t.Errorf("got %+v, %v, want %+v", got, err, first)
	}
	if got, err := c.Event(t.Context(), "order-2"); got != nil || !client.IsCode(err, "not_found") {
		t.Errorf("got %+v, %v, want not_found", got, err)
	}
}

// A client's own id is made once, before the first attempt.
func TestALostAnswerMakesNoSecondEvent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.client(t)
	s.lose.Store(2)
	r, err := c.Append(t.Context(), client.Event{Action: "a"})
	if err != nil || !r.Duplicate || r.Index != 0 {
		t.Errorf("got %+v, %v, want the event that was stored already", r, err)
	}
	s.lose.Store(1)
	places, err := c.AppendBatch(t.Context(), []client.Event{{Action: "b"}, {Action: "c"}})
	if err != nil || len(places) != 2 || !places[0].Duplicate || places[1].Index != 2 {
		t.Errorf("got %+v, %v, want the places of events that were stored already", places, err)
	}
	if got := s.actions(t); !reflect.DeepEqual(got, []string{"a", "b", "c"}) {
		t.Errorf("got %v", got)
	}
}

func TestTheTimeOfAnEvent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.client(t)
	began := time.Now().Truncate(time.Microsecond)
	auto, err := c.Append(t.Context(), client.Event{Action: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if at := auto.Event.OccurredAt; at.Before(began) || at.After(time.Now()) {
		t.Errorf("occurred at %v, want now", at)
	}
	for range 2 { // at two times, and it is the same event
		own, err := c.Append(t.Context(), client.Event{ID: "own", Action: "a"})
		if err != nil || !own.Event.OccurredAt.IsZero() {
			t.Errorf("an event with an id of its own: got %+v, %v, want no time", own, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.client(t)
	_, err := c.AppendBatch(t.Context(), []client.Event{{Action: "a"}, {Action: "not an action"}})
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Status != 400 || e.Code != "invalid_event" || len(e.Errors) != 1 || *e.Errors[0].Index != 1 || e.Errors[0].Pointer != "/action" || e.RequestID == "" {
		t.Errorf("got %v", err)
	}
	for name, event := range map[string]client.Event{
		"no action":    {},
		"no JSON form": {Action: "a", Metadata: map[string]any{"f": func() {}}},
		"too large":    {Action: "a", Metadata: map[string]any{"x": strings.Repeat("x", 256<<10)}},
	} {
		if err := c.Record(t.Context(), event); err == nil {
			t.Errorf("%s: recorded", name)
		}
	}
	if s.Log.Sizes().Size != 0 {
		t.Error("something was recorded")
	}
	if _, err := c.AppendBatch(t.Context(), nil); err != nil {
		t.Errorf("no events: %v", err)
	}
	for _, config := range []client.Config{
		{Server: "localhost:8080", Key: "k"}, {Server: "http://u:secret@localhost", Key: "k"}, {Server: "http://localhost?x", Key: "k"},
		{Server: "http://localhost"}, {Server: "http://localhost", Key: "two keys"}, {Server: "ftp://localhost", Key: "k"},
	} {
		if _, err := client.New(config); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: got %v, want an error without secrets", config, err)
		}
	}
}

func TestReading(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.client(t)
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	var events []client.Event
	for i := range 30 {
		e := client.Event{
			ID: "e-" + strconv.Itoa(i), Action: "team.joined", OccurredAt: at.Add(time.Duration(i) * time.Hour),
			Actor: client.Actor{ID: "u", Email: "u@example.com"}, Targets: []client.Target{{ID: "team", Type: "group"}},
			Context: client.Context{IP: "192.0.2.1"}, Outcome: client.Success, Metadata: map[string]any{"in": map[string]any{"n": strconv.Itoa(i % 3)}},
		}
		if i%2 == 1 {
			e.Action, e.Actor, e.Targets, e.Context, e.Outcome = "team.left", client.Actor{ID: "v"}, nil, client.Context{}, client.Denied
		}
		events = append(events, e)
	}
	if _, err := c.AppendBatch(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		query client.Query
		want  func(i int) bool
	}{
		"all":           {client.Query{}, func(int) bool { return true }},
		"oldest":        {client.Query{Oldest: true}, func(int) bool { return true }},
		"actions":       {client.Query{Actions: []string{"team.left"}}, func(i int) bool { return i%2 == 1 }},
		"prefix":        {client.Query{Actions: []string{"team.*"}}, func(int) bool { return true }},
		"actor":         {client.Query{ActorIDs: []string{"v", "w"}}, func(i int) bool { return i%2 == 1 }},
		"email":         {client.Query{ActorEmails: []string{"u@example.com"}}, func(i int) bool { return i%2 == 0 }},
		"target":        {client.Query{TargetIDs: []string{"team"}, TargetTypes: []string{"group"}}, func(i int) bool { return i%2 == 0 }},
		"outcome":       {client.Query{Outcomes: []client.Outcome{client.Denied}}, func(i int) bool { return i%2 == 1 }},
		"ip":            {client.Query{IPs: []string{"192.0.2.1"}}, func(i int) bool { return i%2 == 0 }},
		"metadata":      {client.Query{Metadata: map[string][]string{"in.n": {"1", "2"}}}, func(i int) bool { return i%3 != 0 }},
		"half-open":     {client.Query{From: at.Add(3 * time.Hour), To: at.Add(7 * time.Hour)}, func(i int) bool { return i >= 3 && i < 7 }},
		"received":      {client.Query{ReceivedFrom: time.Now().Add(-time.Hour), ReceivedTo: time.Now().Add(time.Hour)}, func(int) bool { return true }},
		"received past": {client.Query{ReceivedTo: at}, func(int) bool { return false }},
	} {
		x.query.Limit = 4
		var got, want []string
		for r, err := range c.All(t.Context(), x.query) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got = append(got, r.ID)
		}
		for i := range events {
			if n := len(events) - 1 - i; !x.query.Oldest && x.want(n) {
				want = append(want, events[n].ID)
			} else if x.query.Oldest && x.want(i) {
				want = append(want, events[i].ID)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	page, err := c.Events(t.Context(), client.Query{Limit: 4})
	if err != nil || len(page.Records) != 4 || !page.More || page.Next == "" || page.Size != 30 {
		t.Errorf("got %+v, %v", page, err)
	}
	if _, err := c.Events(t.Context(), client.Query{Cursor: "x"}); !client.IsCode(err, "invalid_request") {
		t.Errorf("a made-up cursor: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	next := uint64(28)
	for r, err := range c.Follow(ctx, next) {
		if err != nil || r.Index != next {
			t.Fatalf("got %+v, %v, want index %d", r, err, next)
		}
		if next++; next == 30 { // whoever follows is waiting now, or soon
			if err := c.Record(t.Context(), client.Event{Action: "new"}); err != nil {
				t.Fatal(err)
			}
		}
		if next == 31 {
			break
		}
	}

	proof, err := c.Proof(t.Context(), "e-7", client.Signed)
	if err != nil || !strings.HasPrefix(string(proof), "c2sp.org/tlog-proof@v1\n") {
		t.Errorf("proof: got %q, %v", proof, err)
	}
	r, err := c.AppendAndWait(t.Context(), client.Event{Action: "signed"}, client.Signed)
	if err != nil || r.State != client.Signed || !strings.HasPrefix(r.Proof, "c2sp.org/tlog-proof@v1\n") {
		t.Errorf("got %+v, %v, want a proof", r, err)
	}
	head, err := c.Checkpoint(t.Context())
	if err != nil || head.Log != "default" || head.Sizes.Signed != 32 || len(head.VKeys) != 1 || !strings.HasPrefix(head.Checkpoint, head.Origin+"\n32\n") {
		t.Errorf("got %+v, %v", head, err)
	}
	other, err := client.New(client.Config{Server: s.URL, Key: s.Key, Log: "other"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Checkpoint(t.Context()); !client.IsCode(err, "not_found") {
		t.Errorf("a log that isn't there: %v", err)
	}
}

func TestExports(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	c := s.client(t)
	var events []client.Event
	for i := range 100 {
		events = append(events, client.Event{Action: "a." + strconv.Itoa(i%2), Metadata: map[string]any{"x": strings.Repeat("x", 500)}})
	}
	if _, err := c.AppendBatch(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AppendAndWait(t.Context(), client.Event{Action: "a.0"}, client.Signed); err != nil {
		t.Fatal(err)
	}
	for format, begin := range map[string]string{client.NDJSON: `{"id":"`, client.JSON: `{"data":[`, client.CSV: `index,received_at,`, client.Bundle: "PK"} {
		var file bytes.Buffer
		end, err := c.Export(t.Context(), client.Query{Actions: []string{"a.1"}, Limit: 3}, format, &file)
		if err != nil || end.Count != 50 || *end.FirstIndex != 1 || *end.LastIndex != 99 || end.Size != 101 || end.Cursor == "" {
			t.Errorf("%s: got %+v, %v", format, end, err)
			continue
		}
		if !strings.HasPrefix(file.String(), begin) {
			t.Errorf("%s: got %.100q", format, file.String())
		}
		if (end.Manifest != "") != (format == client.Bundle) {
			t.Errorf("%s: got manifest %q", format, end.Manifest)
		}
		next, err := c.Export(t.Context(), client.Query{Actions: []string{"a.1"}, Cursor: end.Cursor}, format, io.Discard)
		if err != nil || next.Count != 0 || next.FirstIndex != nil {
			t.Errorf("%s: after the end got %+v, %v", format, next, err)
		}
	}
	if _, err := c.Export(t.Context(), client.Query{}, "xml", io.Discard); !client.IsCode(err, "invalid_request") {
		t.Errorf("got %v", err)
	}
}

// An export that lacks its end, or isn't what the end says, is not taken for one.
func TestExportsThatAreNotComplete(t *testing.T) {
	t.Parallel()
	const body = `{"id":"a"}` + "\n"
	sum := sha256.Sum256([]byte(body))
	end := `{"log":"default","from":0,"size":1,"count":1,"first_index":0,"last_index":0,"sha256":"` + hex.EncodeToString(sum[:]) + `","cursor":"c"}`
	for name, x := range map[string]struct {
		body, end string
		whole     bool
	}{
		"whole":            {body + `{"end":` + end + "}\n", end, true},
		"no trailer":       {body + `{"end":` + end + "}\n", "", false},
		"no last line":     {body, end, false},
		"a line too few":   {`{"end":` + end + "}\n", end, false},
		"a line too many":  {body + body + `{"end":` + end + "}\n", end, false},
		"not an end":       {body + `{"end":x}`, "x", false},
		"something after":  {body + `{"end":` + end + "}\n\n", end, false},
		"nothing whatever": {"", "", false},
	} {
		c, err := client.New(client.Config{Server: "http://treeline.example", Key: "k", HTTP: &http.Client{
			Transport: answers(func(*http.Request) (*http.Response, error) {
				res := answer(200, "application/x-ndjson", x.body)
				if x.end != "" {
					res.Trailer = http.Header{"Export-End": {x.end}}
				}
				return res, nil
			}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Export(t.Context(), client.Query{}, client.NDJSON, io.Discard)
		if (err == nil) != x.whole || err != nil && x.end != "x" && !errors.Is(err, client.ErrIncomplete) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// silent is the body of an answer that breaks off without an end of the connection.
type silent struct {
	ctx   context.Context
	begin io.Reader
}

func (s silent) Read(b []byte) (int, error) {
	if n, _ := s.begin.Read(b); n > 0 {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// An export for which nothing comes any more ends, also if nobody has set a time for it.
func TestAnExportOfAServerThatFallsSilent(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{"at once": "", "in the middle": `{"id":"a"}` + "\n"} {
		synctest.Test(t, func(t *testing.T) {
			c, err := client.New(client.Config{Server: "http://treeline.example", Key: "k", HTTP: &http.Client{
				Transport: answers(func(r *http.Request) (*http.Response, error) {
					if begin == "" {
						<-r.Context().Done()
						return nil, r.Context().Err()
					}
					res := answer(200, "application/x-ndjson", "")
					res.Body = io.NopCloser(silent{r.Context(), strings.NewReader(begin)})
					return res, nil
				}),
			}})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, err = c.Export(t.Context(), client.Query{}, client.NDJSON, io.Discard)
			if err == nil || !strings.Contains(err.Error(), "the server sent nothing for 1m0s") || time.Since(began) != time.Minute {
				t.Errorf("%s: after %v got %v", name, time.Since(began), err)
			}
		})
	}
}

// answers is a way to servers that are scripts.
type answers func(*http.Request) (*http.Response, error)

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) { return a(r) }

func answer(status int, kind, body string, header ...string) *http.Response {
	h := http.Header{"Content-Type": {kind}}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

const busy = `{"type":"about:blank","title":"Too Many Requests","status":429,"code":"log_overloaded","request_id":"r"}`

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		var script []any // answers and errors, one a request
		c, err := client.New(client.Config{Server: "http://treeline.example", Key: "tl_key", RetryFor: 10 * time.Minute, HTTP: &http.Client{
			Transport: answers(func(r *http.Request) (*http.Response, error) {
				body, err := io.ReadAll(r.Body)
				if err != nil || r.Header.Get("Authorization") != "Bearer tl_key" {
					t.Errorf("got %v, %v", r.Header, err)
				}
				_, id, _ := strings.Cut(string(body), `"id":"`)
				id, _, _ = strings.Cut(id, `"`)
				ids = append(ids, id)
				next := script[0]
				script = script[1:]
				if err, ok := next.(error); ok {
					return nil, err
				}
				return next.(*http.Response), nil
			}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		record := `{"id":"x","log":"default","index":4,"state":"sequenced","received_at":"2026-11-01T00:00:00.000000Z","event":{"id":"x","action":"a"}}`
		script = []any{
			errors.New("connection reset by peer"),
			answer(429, "application/problem+json", busy, "Retry-After", "100"),
			answer(503, "text/html", "<h1>a proxy says no</h1>", "Retry-After", time.Now().Add(200*time.Second).UTC().Format(http.TimeFormat)),
			answer(500, "application/problem+json", `{"status":500,"code":"internal"}`),
			answer(502, "text/plain", ""),
			answer(201, "application/json", record),
		}
		began := time.Now()
		r, err := c.Append(t.Context(), client.Event{Action: "a"})
		if err != nil || r.Index != 4 {
			t.Fatalf("got %+v, %v", r, err)
		}
		if took := time.Since(began); took < 199*time.Second || took > 220*time.Second {
			t.Errorf("took %v, want what Retry-After asked for and little more", took)
		}
		for _, id := range ids {
			if id != ids[0] || id == "" {
				t.Errorf("sent under the ids %q, want one", ids)
			}
		}

		for name, x := range map[string]struct {
			answer any
			want   string
		}{
			"refused for good": {answer(403, "application/problem+json", `{"status":403,"code":"forbidden","detail":"no"}`), "403 forbidden: no"},
			"redirected":       {answer(301, "text/html", "", "Location", "https://elsewhere.example/"), "redirects to https://elsewhere.example/"},
			"not a record":     {answer(200, "text/html", "<h1>hello</h1>"), "no record"},
			"not Treeline":     {answer(404, "text/plain", "nothing here"), "404: nothing here"},
		} {
			script = []any{x.answer}
			if _, err := c.Append(t.Context(), client.Event{Action: "a"}); err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%s: got %v, want %q", name, err, x.want)
			}
		}

		// Not for ever, and not when the caller has given up.
		for range 1000 {
			script = append(script, errors.New("no route to host"))
		}
		began = time.Now()
		if _, err := c.Append(t.Context(), client.Event{Action: "a"}); err == nil || time.Since(began) > 10*time.Minute {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began = time.Now()
		_, err = c.Append(ctx, client.Event{Action: "a"})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Errorf("got %v after %v, want the context's error after 5 s", err, time.Since(began))
		}
		if !strings.Contains(err.Error(), "no route to host") {
			t.Errorf("got %v, want why it took so long, too", err)
		}
	})
}

// Whoever uses the client gets no other module into their program.
func TestOnlyTheStandardLibraryIsImported(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			first, _, _ := strings.Cut(strings.Trim(i.Path.Value, `"`), "/")
			if strings.Contains(first, ".") && i.Path.Value != `"github.com/treeline-log/treeline/api/client"` {
				return fmt.Errorf("%s imports %s", path, i.Path.Value)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// What somebody on the way says of tomorrow doesn't keep events from being sent today.
func TestASpoolDoesNotWaitForTomorrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := []*http.Response{
			answer(503, "text/html", "<h1>back soon</h1>", "Retry-After", "86400"),
			answer(201, "application/json", `{"log":"default","data":[{"id":"x","index":0}]}`),
		}
		c, err := client.New(client.Config{Server: "http://treeline.example", Key: "tl_key", HTTP: &http.Client{
			Transport: answers(func(*http.Request) (*http.Response, error) {
				next := script[0]
				script = script[1:]
				return next, nil
			}),
		}})
		if err != nil {
			t.Fatal(err)
		}
		spool, err := client.OpenSpool(client.SpoolConfig{Client: c, Dir: t.TempDir(), OnError: func(error) {}})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := spool.Record(t.Context(), client.Event{Action: "a"}); err != nil {
			t.Fatal(err)
		}
		if err := spool.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 5*time.Minute {
			t.Errorf("sent after %v", took)
		}
	})
}
