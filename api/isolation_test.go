package api_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

// tenant is a log with its keys, and everything that nobody else may see a byte of.
type tenant struct {
	name           string
	reader, writer string
	keys           []string // of all roles, these two among them
	ids            []string
	markers        []string // in content, and hashes, salts and secrets in the forms in which answers show them
	cursors        []string
	accesses       []string // cursors, too: of what was done to the log
	size           int
	named          int // how many of the markers aren't of events
}

// No answer to one tenant holds anything of another: whatever it asks for, by guesses or with what it found in another's
// answers.
func TestTenantsSeeNothingOfEachOther(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 5*time.Millisecond)
	var tenants []*tenant
	for range 3 {
		tenants = append(tenants, s.newTenant())
	}
	rapid.Check(t, func(rt *rapid.T) {
		me := rapid.SampledFrom(tenants).Draw(rt, "me")
		other := rapid.SampledFrom(tenants).Draw(rt, "other")
		if me == other {
			s.appendMarked(me, rapid.IntRange(1, 5).Draw(rt, "events"))
			s.recordReads()
			return
		}
		r := me.ask(rt, other)
		got := s.do(r)
		for _, marker := range other.markers {
			if strings.Contains(string(got.body), marker) || strings.Contains(fmt.Sprint(got.header), marker) {
				rt.Fatalf("%s %s: %s's answer holds %q of %s: %v %s", r.method, r.path, me.name, marker, other.name, got.header, got.body)
			}
		}
		if got.status >= http.StatusInternalServerError {
			rt.Fatalf("%s %s: got %d %s", r.method, r.path, got.status, got.body)
		}
		if (strings.Contains(r.path, other.name) || strings.Contains(r.path, "/v1/keys/")) && got.status < http.StatusBadRequest {
			rt.Fatalf("%s %s: got %d %s", r.method, r.path, got.status, got.body)
		}
	})
	// Each finds its own, and as much of it as it appended.
	for _, x := range tenants {
		var p page
		s.get("/v1/events?limit=1000", x.reader).into(t, http.StatusOK, &p)
		if len(p.Data) < x.size || !strings.Contains(fmt.Sprint(p), x.ids[0]) {
			t.Errorf("%s finds %d of its %d events", x.name, len(p.Data), x.size)
		}
	}
}

// asked returns what the store was asked since the last time, but for the key itself, which is remembered for a while. What was asked for is
// left out of it.
func (s *faultStore) asked(key, what string) (calls []string) {
	for _, call := range s.calls.take() {
		if id, err := log.ParseKey(key); err == nil && call == "key "+id {
			continue
		}
		calls = append(calls, strings.ReplaceAll(call, what, "…"))
	}
	return calls
}

// Whatever a key of any role asks for of another's log, id or key is answered as if there were none, after the same calls of the store.
func TestNothingOfAnotherTenantCostsAnything(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 5*time.Millisecond)
	me, other := s.newTenant(), s.newTenant()
	cursor := "none"
	if len(other.cursors) > 0 {
		cursor = other.cursors[0]
	}
	never := &tenant{name: "never-made", ids: []string{"never"}, cursors: []string{"none"}}
	_, neverKey := log.NewKey(log.RoleReader, 0, "", 0)
	for _, r := range []struct{ method, path, theirs, none, body string }{
		{"GET", "/v1/events?log=%s", other.name, never.name, ""},
		{"POST", "/v1/events?log=%s", other.name, never.name, `{"action":"a"}`},
		{"POST", "/v1/events/batch?log=%s", other.name, never.name, `{"events":[{"action":"a"}]}`},
		{"GET", "/v1/events/x?log=%s", other.name, never.name, ""},
		{"GET", "/v1/events/x/proof?log=%s", other.name, never.name, ""},
		{"GET", "/v1/feed?timeout=0s&log=%s", other.name, never.name, ""},
		{"GET", "/v1/export?log=%s", other.name, never.name, ""},
		{"GET", "/v1/export?format=bundle&log=%s", other.name, never.name, ""},
		{"GET", "/v1/checkpoint?log=%s", other.name, never.name, ""},
		{"GET", "/v1/access?log=%s", other.name, never.name, ""},
		{"GET", "/v1/proofs/inclusion?index=0&log=%s", other.name, never.name, ""},
		{"GET", "/v1/proofs/consistency?from=0&log=%s", other.name, never.name, ""},
		{"GET", "/v1/verify?from=0&log=%s", other.name, never.name, ""},
		{"GET", "/logs/%s/checkpoint", other.name, never.name, ""},
		{"GET", "/logs/%s/tile/0/000.p/1", other.name, never.name, ""},
		{"GET", "/logs/%s/growth/0", other.name, never.name, ""},
		{"GET", "/v1/logs/%s", other.name, never.name, ""},
		{"PATCH", "/v1/logs/%s", other.name, never.name, `{"title":"x"}`},
		{"POST", "/v1/logs/%s/freeze", other.name, never.name, ""},
		{"GET", "/v1/events/%s", other.ids[0], "id-0000", ""},
		{"GET", "/v1/events/%s/proof", other.ids[0], "id-0000", ""},
		{"GET", "/v1/events?cursor=%s", cursor, "AQAAAAAAAAAHAAZg8sPSjfILecp0XvUPMorq1EpG0jQD", ""},
		{"GET", "/v1/export?cursor=%s", cursor, "AQAAAAAAAAAHAAZg8sPSjfILecp0XvUPMorq1EpG0jQD", ""},
		{"GET", "/v1/access?cursor=%s", other.accesses[0], strings.Repeat("A", len(other.accesses[0])), ""},
		{"GET", "/v1/keys/%s", other.reader[3:15], neverKey[3:15], ""},
		{"DELETE", "/v1/keys/%s", other.reader[3:15], neverKey[3:15], ""},
		{"POST", "/v1/keys/%s/rotate", other.reader[3:15], neverKey[3:15], ""},
	} {
		for _, key := range me.keys {
			var answers []string
			for _, what := range []string{r.theirs, r.none} {
				s.store.calls.take()
				got := s.do(request{method: r.method, path: fmt.Sprintf(r.path, what), key: key, body: r.body})
				if got.status < http.StatusBadRequest || got.status >= http.StatusInternalServerError {
					t.Errorf("%s %s: got %d %s", r.method, r.path, got.status, got.body)
				}
				answers = append(answers, fmt.Sprintf("%q %s", s.store.asked(key, what), got.anonymous()))
			}
			if answers[0] != answers[1] {
				t.Errorf("%s %s: another's got\n%s\nnone got\n%s", r.method, r.path, answers[0], answers[1])
			}
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func (s *testServer) newTenant() *tenant {
	s.t.Helper()
	x := &tenant{name: "tenant-" + hex.EncodeToString(random(6))}
	s.log(x.name)
	for _, role := range log.Roles {
		if role != log.RoleAdmin {
			x.keys = append(x.keys, s.key(role, x.name))
		}
	}
	x.writer, x.reader = x.keys[0], x.keys[1]
	title := "title of " + hex.EncodeToString(random(6))
	s.patch("/v1/logs/"+x.name, s.admin, `{"title":"`+title+`"}`).into(s.t, http.StatusOK, new(any))
	x.markers = append(x.markers, x.name, title)
	for _, key := range x.keys {
		x.markers = append(x.markers, key[3:15])
	}
	x.named = len(x.markers)
	s.appendMarked(x, 3)
	x.accesses = append(x.accesses, *s.access("?limit=2", x.keys[slices.Index(log.Roles, log.RoleAuditor)]).NextCursor)
	return x
}

// appendMarked appends n events full of markers, and notes everything that their answers show.
func (s *testServer) appendMarked(x *tenant, n int) {
	s.t.Helper()
	for range n {
		id, text := "id-"+hex.EncodeToString(random(8)), hex.EncodeToString(random(16))
		body := fmt.Sprintf(`{"id":%q,"action":"a.%s","actor_id":%q,"metadata":{%q:%q}}`, id, text[:12], text, "m"+text[:20], text)
		var r record
		s.post("/v1/events?wait=signed", x.writer, body).into(s.t, http.StatusCreated, &r)
		x.ids = append(x.ids, id)
		x.markers = append(x.markers, id, text, r.Hash, r.Seed, r.PreviousHash)
		for _, h := range []string{r.Hash, r.Seed, r.PreviousHash} { // as tiles and notes hold them
			raw, err := hex.DecodeString(h)
			if err != nil {
				s.t.Fatal(err)
			}
			x.markers = append(x.markers, string(raw), base64.StdEncoding.EncodeToString(raw))
		}
		x.size++
	}
	var p page
	s.get("/v1/events?limit=1", x.reader).into(s.t, http.StatusOK, &p)
	if p.NextCursor != nil {
		x.cursors = append(x.cursors, *p.NextCursor)
	}
}

// ask returns a request of x for something of another tenant's.
func (x *tenant) ask(t *rapid.T, other *tenant) request {
	key := rapid.SampledFrom(x.keys).Draw(t, "key")
	theirKey := rapid.SampledFrom(other.keys).Draw(t, "their key")[3:15]
	id := rapid.SampledFrom(other.ids).Draw(t, "id")
	n := rapid.IntRange(0, other.size+2).Draw(t, "number")
	logs := rapid.SampledFrom([]string{"", "log=" + other.name, "log=" + x.name}).Draw(t, "log")
	get := func(path string) request {
		if logs != "" {
			path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + logs
		}
		return request{method: "GET", path: path, key: key}
	}
	cursor := ""
	if len(other.cursors) > 0 {
		cursor = rapid.SampledFrom(other.cursors).Draw(t, "cursor")
	}
	switch rapid.IntRange(0, 27).Draw(t, "request") {
	case 0:
		return get("/v1/events/" + id)
	case 1:
		return get("/v1/events/" + id + "/proof")
	case 2:
		return get(fmt.Sprint("/v1/events?limit=", n+1))
	case 3:
		return get("/v1/events?cursor=" + cursor)
	case 4:
		return get("/v1/events?order=oldest&cursor=" + cursor)
	case 5:
		return get(fmt.Sprintf("/v1/feed?timeout=0s&from=%d", n))
	case 6:
		return get(fmt.Sprintf("/v1/proofs/inclusion?index=%d&size=%d", n, other.size))
	case 7:
		return get(fmt.Sprintf("/v1/proofs/consistency?from=%d&to=%d", n, other.size))
	case 8:
		return get(fmt.Sprintf("/v1/checkpoint?size=%d", n))
	case 9:
		kind := rapid.SampledFrom([]string{"0", "entries", "1"}).Draw(t, "tile")
		return request{method: "GET", path: fmt.Sprintf("/logs/%s/tile/%s/000.p/%d", other.name, kind, n), key: key}
	case 10:
		return request{method: "GET", path: "/logs/" + other.name + "/checkpoint", key: rapid.SampledFrom([]string{key, ""}).Draw(t, "public")}
	case 11:
		// An id that is taken in another log is free in this one. It is x's own then, but what it says is not the other's.
		return request{method: "POST", path: "/v1/events?log=" + other.name, key: x.writer, body: fmt.Sprintf(`{"id":%q,"action":"probe"}`, id)}
	case 12:
		return get("/v1/events?actor_id=" + url.QueryEscape(rapid.SampledFrom(other.markers[other.named:]).Draw(t, "marker")))
	case 13:
		return request{method: "GET", path: rapid.SampledFrom([]string{"/v1/logs", "/v1/keys"}).Draw(t, "list"), key: key}
	case 14:
		return request{method: rapid.SampledFrom([]string{"GET", "DELETE"}).Draw(t, "method"), path: "/v1/keys/" + theirKey, key: key}
	case 15:
		return request{method: "POST", path: "/v1/keys/" + theirKey + "/rotate", key: key}
	case 16:
		return request{method: "GET", path: "/v1/logs/" + other.name, key: key}
	case 17:
		return request{method: "PATCH", path: "/v1/logs/" + other.name, key: key, body: `{"title":"mine","public":true}`}
	case 18:
		return request{method: "POST", path: "/v1/logs/" + other.name + "/freeze", key: key}
	case 19:
		return get(fmt.Sprint("/v1/access?limit=", n+1))
	case 20:
		return get("/v1/access?cursor=" + rapid.SampledFrom(append(other.accesses, other.cursors...)).Draw(t, "access cursor"))
	case 21:
		return get("/v1/events?cursor=" + rapid.SampledFrom(other.accesses).Draw(t, "access cursor"))
	case 22:
		return get("/v1/access?actor_id=" + theirKey)
	case 23:
		return request{method: "POST", path: "/v1/logs", key: key, body: fmt.Sprintf(`{"name":%q}`, other.name)}
	case 24:
		format := rapid.SampledFrom([]string{"ndjson", "json", "csv", "bundle"}).Draw(t, "format")
		return get("/v1/export?format=" + format)
	case 25:
		return get("/v1/export?cursor=" + cursor)
	case 26:
		return get(fmt.Sprintf("/v1/verify?from=0&to=%d", n))
	default:
		return request{
			method: "POST", path: "/v1/keys", key: key, body: fmt.Sprintf(`{"role":"reader","log":%q}`, other.name),
		}
	}
}

// One id in two logs is two events, and neither conflicts with the other.
func TestIDsAreEachLogsOwn(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	for i, name := range []string{"a", "b"} {
		s.log(name)
		var r record
		s.post("/v1/events", s.key(log.RoleWriter, name), fmt.Sprintf(`{"id":"same","action":"a","metadata":{"n":%d}}`, i)).
			into(t, http.StatusCreated, &r)
		if r.Log != name || r.Index != 0 || r.Duplicate {
			t.Errorf("log %s: got %+v", name, r)
		}
	}
}
