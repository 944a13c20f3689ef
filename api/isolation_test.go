package api_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
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
	exports        []string // the same of exports: to resume one, and to go on after it
	hold, erasure  string   // their ids
	plan           string   // of an erasure
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
		body := filterRE.ReplaceAllString(string(got.body), "") // a bundle repeats what it was asked for
		for _, marker := range other.markers {
			if strings.Contains(body, marker) || strings.Contains(fmt.Sprint(got.header), marker) {
				rt.Fatalf("%s %s: %s's answer holds %q of %s: %v %s", r.method, r.path, me.name, marker, other.name, got.header, got.body)
			}
		}
		if got.status >= http.StatusInternalServerError {
			rt.Fatalf("%s %s: got %d %s", r.method, r.path, got.status, got.body)
		}
		theirs := strings.Contains(r.path, other.name) || strings.Contains(r.path, other.hold) || strings.Contains(r.path, other.erasure) || strings.Contains(r.path, "/v1/keys/") || strings.Contains(r.path, "cursor=")
		if theirs && got.status < http.StatusBadRequest {
			rt.Fatalf("%s %s: got %d %s", r.method, r.path, got.status, got.body)
		}
	})
	// Each route that there is, is among what was drawn.
	asked := make(map[string]bool)
	for i := range otherRequests {
		r := rapid.Custom(func(rt *rapid.T) request { return tenants[0].askFor(rt, tenants[1], i) }).Example()
		asked[s.pattern(r)] = true
	}
	for _, pattern := range s.api.Patterns() {
		if pattern != "/" && !asked[pattern] {
			t.Errorf("%s isn't asked for another tenant's: see askFor", pattern)
		}
	}
	// Each finds its own, and as much of it as it appended.
	for _, x := range tenants {
		var p page
		s.get("/v1/events?limit=1000", x.reader).into(t, http.StatusOK, &p)
		if len(p.Data) < x.size || !strings.Contains(fmt.Sprint(p), x.ids[0]) {
			t.Errorf("%s finds %d of its %d events", x.name, len(p.Data), x.size)
		}
	}
}

var filterRE = regexp.MustCompile(`"filter":"[^"]*"`)

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
	cursor, export := other.cursors[0], other.exports
	never := &tenant{name: "never-made", ids: []string{"never"}, cursors: []string{"none"}}
	_, neverKey := log.NewKey(log.RoleReader, 0, "", 0)
	asked := make(map[string]bool)
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
		{"POST", "/v1/logs/%s/close", other.name, never.name, `{"reason":"r"}`},
		{"GET", "/v1/logs/%s/retention", other.name, never.name, ""},
		{"PUT", "/v1/logs/%s/retention", other.name, never.name, `{"max":"90d","reason":"r"}`},
		{"POST", "/v1/logs/%s/retention/approve", other.name, never.name, `{"request":"x"}`},
		{"POST", "/v1/logs/%s/retention/cancel", other.name, never.name, `{"request":"x","reason":"r"}`},
		{"POST", "/v1/logs/%s/retention/run", other.name, never.name, ""},
		{"GET", "/v1/holds?log=%s", other.name, never.name, ""},
		{"POST", "/v1/holds?log=%s", other.name, never.name, `{"matter":"m","reason":"r"}`},
		{"GET", "/v1/holds/%s", other.hold, "018f0a5c", ""},
		{"POST", "/v1/holds/%s/release", other.hold, "018f0a5c", `{"reason":"r"}`},
		{"GET", "/v1/erasures?log=%s", other.name, never.name, ""},
		{"POST", "/v1/erasures?log=%s", other.name, never.name, erasing("x", "")},
		{"POST", "/v1/erasures", other.plan, strings.Repeat("A", len(other.plan)), erasing("person of "+other.name, "%s")},
		{"GET", "/v1/erasures/%s", other.erasure, "018f0a5c", ""},
		{"GET", "/v1/events/%s", other.ids[0], "id-0000", ""},
		{"GET", "/v1/events/%s/proof", other.ids[0], "id-0000", ""},
		{"GET", "/v1/events?cursor=%s", cursor, "AQAAAAAAAAAHAAZg8sPSjfILecp0XvUPMorq1EpG0jQD", ""},
		{"GET", "/v1/export?cursor=%s", cursor, "AQAAAAAAAAAHAAZg8sPSjfILecp0XvUPMorq1EpG0jQD", ""},
		{"GET", "/v1/export?cursor=%s", export[0], "AQAAAAAAAAAHAAZg8sPSjfILecp0XvUPMorq1EpG0jQD", ""},
		{"GET", "/v1/export?cursor=%s", export[1], "AQAAAAAAAAAHAAZg8sPSjfILecp0XvUPMorq1EpG0jQD", ""},
		{"GET", "/v1/export?format=bundle&cursor=%s", export[1], "AQAAAAAAAAAHAAZg8sPSjfILecp0XvUPMorq1EpG0jQD", ""},
		{"GET", "/v1/access?cursor=%s", other.accesses[0], strings.Repeat("A", len(other.accesses[0])), ""},
		{"GET", "/v1/keys/%s", other.reader[3:15], neverKey[3:15], ""},
		{"DELETE", "/v1/keys/%s", other.reader[3:15], neverKey[3:15], ""},
		{"POST", "/v1/keys/%s/rotate", other.reader[3:15], neverKey[3:15], ""},
		{"POST", "/v1/keys", other.name, never.name, `{"role":"reader","log":"%s"}`},
	} {
		asked[s.pattern(request{method: r.method, path: strings.ReplaceAll(r.path, "%s", "x")})] = true
		for _, key := range me.keys {
			var answers []string
			for _, what := range []string{r.theirs, r.none} {
				s.store.calls.take()
				got := s.do(request{
					method: r.method, path: strings.ReplaceAll(r.path, "%s", what), key: key, body: strings.ReplaceAll(r.body, "%s", what),
				})
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
	for _, pattern := range s.api.Patterns() {
		method, path, _ := strings.Cut(pattern, " ")
		if pattern != "/" && pattern != "POST /v1/logs" && (method != "GET" || !slices.Contains(nameless, path)) && !asked[pattern] {
			t.Errorf("%s isn't asked for another tenant's", pattern)
		}
	}
}

// nameless are the paths that name no log, nor anything of one: lists, and what is for anyone.
var nameless = []string{"/v1/logs", "/v1/keys", "/witness/logs", "/healthz", "/readyz", "/openapi.yaml"}

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
	manager := x.keys[slices.Index(log.Roles, log.RoleManager)]
	s.appendPerson(x.name, "erased of "+x.name)
	s.appendPerson(x.name, "person of "+x.name)
	hold, erased := s.hold(x.name, manager, `{"actor_id":"nobody of `+x.name+`"}`), s.erase(x.name, manager, "erased of "+x.name)
	x.hold, x.erasure, x.plan = hold.ID, erased.ID, s.plan(x.name, manager, "person of "+x.name).Plan
	x.markers = append(x.markers, x.hold, x.erasure)
	x.named += 2
	var export struct {
		End struct{ Cursor string }
	}
	auditor := x.keys[slices.Index(log.Roles, log.RoleAuditor)]
	got := s.get("/v1/export?format=json", auditor)
	got.into(s.t, http.StatusOK, &export)
	x.exports = append(x.exports, got.header.Get("Export-Cursor"), export.End.Cursor)
	x.accesses = append(x.accesses, *s.access("?limit=2", auditor).NextCursor)
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

// pattern returns the route that answers a request.
func (s *testServer) pattern(r request) string {
	s.t.Helper()
	mux := http.NewServeMux()
	for _, pattern := range s.api.Patterns() {
		mux.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
	}
	req, err := http.NewRequest(r.method, s.url+r.path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	_, pattern := mux.Handler(req)
	return pattern
}

// otherRequests is how many kinds of requests askFor knows.
var otherRequests = 45 + len(nameless)

// ask returns a request of x for something of another tenant's.
func (x *tenant) ask(t *rapid.T, other *tenant) request {
	return x.askFor(t, other, rapid.IntRange(0, otherRequests-1).Draw(t, "request"))
}

// askFor returns a request of a kind.
func (x *tenant) askFor(t *rapid.T, other *tenant, kind int) request {
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
	cursor := rapid.SampledFrom(other.cursors).Draw(t, "cursor")
	format := rapid.SampledFrom([]string{"ndjson", "json", "csv", "bundle"}).Draw(t, "format")
	switch kind {
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
		level := rapid.SampledFrom([]string{"0", "entries", "1"}).Draw(t, "tile")
		return request{method: "GET", path: fmt.Sprintf("/logs/%s/tile/%s/000.p/%d", other.name, level, n), key: key}
	case 10:
		return request{method: "GET", path: "/logs/" + other.name + "/checkpoint", key: rapid.SampledFrom([]string{key, ""}).Draw(t, "public")}
	case 11:
		// An id that is taken in another log is free in this one. It is x's own then, but what it says is not the other's.
		return request{method: "POST", path: "/v1/events?log=" + other.name, key: x.writer, body: fmt.Sprintf(`{"id":%q,"action":"probe"}`, id)}
	case 12:
		return get("/v1/events?" + other.filter(t))
	case 13:
		return get("/v1/export?format=" + format + "&cursor=" + rapid.SampledFrom(other.exports).Draw(t, "export cursor"))
	case 14:
		return request{method: "GET", path: "/v1/keys/" + theirKey, key: key}
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
		return get("/v1/export?format=" + format)
	case 25:
		return get("/v1/export?cursor=" + cursor)
	case 26:
		return get(fmt.Sprintf("/v1/verify?from=0&to=%d", n))
	case 27:
		return get("/v1/export?format=" + format + "&" + other.filter(t))
	case 28:
		return request{method: "DELETE", path: "/v1/keys/" + theirKey, key: key}
	case 29:
		return request{method: "GET", path: fmt.Sprintf("/logs/%s/growth/%d", other.name, n), key: key}
	case 30:
		return request{
			method: "POST", path: "/v1/events/batch?log=" + other.name, key: x.writer, body: fmt.Sprintf(`{"events":[{"id":%q,"action":"probe"}]}`, id),
		}
	case 31:
		return request{
			method: "POST", path: "/v1/keys", key: key, body: fmt.Sprintf(`{"role":"reader","log":%q}`, other.name),
		}
	case 32:
		return request{method: "POST", path: "/v1/logs/" + other.name + "/close", key: key, body: `{"reason":"r"}`}
	case 33:
		return request{method: "GET", path: "/v1/logs/" + other.name + "/retention", key: key}
	case 34:
		return request{method: "PUT", path: "/v1/logs/" + other.name + "/retention", key: key, body: `{"max":"90d","reason":"r"}`}
	case 35:
		return request{method: "POST", path: "/v1/logs/" + other.name + "/retention/approve", key: key, body: `{"request":"x"}`}
	case 36:
		return request{method: "POST", path: "/v1/logs/" + other.name + "/retention/cancel", key: key, body: `{"request":"x","reason":"r"}`}
	case 37:
		return request{method: "POST", path: "/v1/logs/" + other.name + "/retention/run", key: key, body: `{"dry_run":true}`}
	case 38:
		return request{method: "POST", path: "/v1/holds?log=" + other.name, key: key, body: `{"matter":"m","reason":"r"}`}
	case 39:
		return get("/v1/holds")
	case 40:
		return get("/v1/holds/" + other.hold)
	case 41:
		return request{method: "POST", path: "/v1/holds/" + other.hold + "/release", key: key, body: `{"reason":"r"}`}
	case 42: // the plan is of the other's log
		return request{method: "POST", path: "/v1/erasures", key: key, body: erasing("person of "+other.name, other.plan)}
	case 43:
		return get("/v1/erasures")
	case 44:
		return get("/v1/erasures/" + other.erasure)
	default:
		return request{method: "GET", path: nameless[kind-45], key: key}
	}
}

// filter returns parameters by which something of the tenant's is found.
func (x *tenant) filter(t *rapid.T) string {
	id := rapid.SampledFrom(x.ids).Draw(t, "id to find")
	text := rapid.SampledFrom(x.markers[x.named:]).Draw(t, "text to find")
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"action", "actor_id", "q", "from", "metadata.x"}), 1, 3, rapid.ID[string]).Draw(t, "filters")
	filter := url.Values{}
	for _, name := range names {
		filter.Set(name, map[string]string{"action": "a.*", "actor_id": text, "q": id, "from": "-1h", "metadata.x": id}[name])
	}
	return filter.Encode()
}

var (
	lastUseRE = regexp.MustCompile(`,"last_used_at":"[^"]*"`)
	cursorRE  = regexp.MustCompile(`"(next_)?cursor":"[^"]*"`) // of which no two are alike
)

// alone is an answer without what differs between two of the same request on a server that nobody else uses.
func (a answer) alone() string {
	a.header = a.header.Clone()
	a.header.Del("Export-Cursor")
	if lines := bytes.SplitAfter(a.body, []byte("\n")); bytes.HasPrefix(a.body, []byte(`{"checked":`)) {
		a.body = lines[len(lines)-2] // the result: how much was checked before depends on the time
	}
	if rest := lastUseRE.ReplaceAll(a.body, nil); len(rest) < len(a.body) { // which is noted from time to time
		a.body = rest
		a.header.Set("Content-Length", strconv.Itoa(len(rest)))
	}
	return cursorRE.ReplaceAllString(a.anonymous(), "")
}

// Nothing that others do, however much, shows in what a tenant is answered about its own: no number counts them.
func TestNoAnswerCountsWhatOthersDo(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 5*time.Millisecond)
	me, other := s.newTenant(), s.newTenant()
	paths := []string{
		"/v1/events", "/v1/events?limit=2&order=oldest", "/v1/events?action=a.*", "/v1/events?from=-1h&q=id", "/v1/events/" + me.ids[0],
		"/v1/events/" + me.ids[1] + "/proof", "/v1/export", "/v1/export?format=json&action=a.*", "/v1/export?format=csv", "/v1/export?format=bundle",
		"/v1/feed?timeout=0s", "/v1/feed?timeout=0s&from=1&limit=1", "/v1/checkpoint", "/v1/checkpoint?size=1", "/v1/proofs/inclusion?index=1",
		"/v1/proofs/consistency?from=1", "/v1/access?action=treeline.key.*", "/v1/access?action=treeline.log.updated&from=-1h&limit=1", "/v1/verify",
		"/v1/logs", "/v1/logs/" + me.name, "/v1/keys", "/v1/keys/" + me.reader[3:15], "/logs/" + me.name + "/checkpoint",
		"/logs/" + me.name + "/tile/0/000.p/3", "/logs/" + me.name + "/tile/entries/000.p/3", "/logs/" + me.name + "/growth/0",
		"/witness/logs", "/healthz", "/readyz", "/openapi.yaml", "/v1/logs/" + me.name + "/retention", "/v1/holds", "/v1/holds/" + me.hold,
		"/v1/erasures", "/v1/erasures/" + me.erasure,
	}
	asked := make(map[string]bool)
	for _, path := range paths {
		asked[s.pattern(request{method: "GET", path: path})] = true
	}
	for _, pattern := range s.api.Patterns() {
		if strings.HasPrefix(pattern, "GET ") && !asked[pattern] {
			t.Errorf("%s isn't asked for", pattern)
		}
	}
	acts := []func(){
		func() { s.appendMarked(other, 3) },
		func() { s.post("/v1/events", other.writer, `{"id":"`+me.ids[0]+`","action":"a.same"}`) },
		func() { s.post("/v1/keys", s.admin, `{"role":"reader","log":"`+other.name+`"}`) },
		func() { s.post("/v1/keys/"+s.key(log.RoleReader, other.name)[3:15]+"/rotate", s.admin, "") },
		func() {
			s.do(request{method: "DELETE", path: "/v1/keys/" + s.key(log.RoleReader, other.name)[3:15], key: s.admin})
		},
		func() { s.patch("/v1/logs/"+other.name, s.admin, `{"title":"`+hex.EncodeToString(random(6))+`"}`) },
		func() { s.post("/v1/logs", s.admin, `{}`) },
		func() { s.put("/v1/logs/"+other.name+"/retention", s.admin, `{"max":"90d","reason":"r"}`) },
		func() { s.hold(other.name, s.admin, `{"actor_id":"another"}`) },
		func() { s.erase(other.name, s.admin, "person of "+other.name) },
		func() {
			for _, path := range []string{"/v1/events", "/v1/export", "/v1/access", "/v1/verify"} {
				s.get(path, other.keys[slices.Index(log.Roles, log.RoleAuditor)])
			}
			s.recordReads()
		},
	}
	ask := func() (answers []string) {
		for _, path := range paths {
			for _, key := range me.keys {
				answers = append(answers, path+" with "+key[3:15]+":\n"+s.get(path, key).alone())
			}
		}
		return answers
	}
	before := ask()
	for _, act := range acts {
		act()
	}
	for i, after := range ask() {
		if after != before[i] {
			t.Errorf("got\n%s\nand after the other did something\n%s", before[i], after)
		}
		for _, marker := range other.markers {
			if strings.Contains(after, marker) {
				t.Errorf("%s: got %q, which is the other's: %s", paths[i/len(me.keys)], marker, after)
			}
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
