package api_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/log"
)

// apiKey is a key as answers show it.
type apiKey struct {
	ID         string
	Key        string
	Role       string
	Log        *string
	State      string
	CreatedAt  string `json:"created_at"`
	ExpiresAt  string `json:"expires_at"`
	LastUsedAt string `json:"last_used_at"`
	RevokedAt  string `json:"revoked_at"`
	ReplacedBy string `json:"replaced_by"`
	Networks   []string
	Actions    []string
	Events     int `json:"events_per_second"`
}

func (s *testServer) makeKey(by, body string) (k apiKey) {
	s.t.Helper()
	s.post("/v1/keys", by, body).into(s.t, http.StatusCreated, &k)
	return k
}

func (s *testServer) showKey(id string) (k apiKey) {
	s.t.Helper()
	s.get("/v1/keys/"+id, s.admin).into(s.t, http.StatusOK, &k)
	return k
}

// A revoked key is refused from the answer on, also where it was believed a moment ago, and the refusal says why.
func TestARevokedKeyIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	k := s.makeKey(s.admin, `{"role":"reader"}`)
	s.get("/v1/events", k.Key).into(t, http.StatusOK, new(any))
	var revoked apiKey
	s.do(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: s.admin}).into(t, http.StatusOK, &revoked)
	if revoked.State != "revoked" || revoked.RevokedAt == "" || revoked.Key != "" {
		t.Errorf("got %+v, want a revoked key without its text", revoked)
	}
	for range 3 {
		p := s.get("/v1/events", k.Key).problem(t, http.StatusUnauthorized, "key_revoked")
		if !strings.Contains(p.Detail, revoked.RevokedAt) {
			t.Errorf("got %q, want the time %s", p.Detail, revoked.RevokedAt)
		}
	}
	// Who doesn't have the secret isn't told.
	s.get("/v1/events", forgeSecret(k.Key)).problem(t, http.StatusUnauthorized, "unauthorized")
	// Revoked again it stays what it was.
	var again apiKey
	s.do(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: s.admin}).into(t, http.StatusOK, &again)
	if again.RevokedAt != revoked.RevokedAt {
		t.Errorf("revoked again: got %s, want %s", again.RevokedAt, revoked.RevokedAt)
	}
	s.post("/v1/keys/"+k.ID+"/rotate", s.admin, `{}`).problem(t, http.StatusConflict, "key_ended")
}

// Another server believes a key that it has read for a few seconds more, and no longer.
func TestARevokedKeyIsRefusedByOtherServers(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	other := httptest.NewServer(api.New(api.Config{
		Service: s.service, Seed: testSeed, Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(),
	}))
	t.Cleanup(other.Close)
	k := s.makeKey(s.admin, `{"role":"reader"}`)
	ask := func() answer {
		req, err := http.NewRequest(http.MethodGet, other.URL+"/v1/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+k.Key)
		return s.send(req)
	}
	ask().into(t, http.StatusOK, new(any))
	s.do(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: s.admin}).into(t, http.StatusOK, new(any))
	s.until("the other server to read the key again", func() bool { return ask().status != http.StatusOK })
	ask().problem(t, http.StatusUnauthorized, "key_revoked")
}

// A key that was being read while it was revoked isn't remembered as it was.
func TestAKeyIsRevokedWhileItIsRead(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	k := s.makeKey(s.admin, `{"role":"reader"}`)
	gate := make(chan struct{})
	s.store.holdKey.Store(&gate)
	done := make(chan answer)
	go func() { done <- s.get("/v1/events", k.Key) }()
	s.until("the key to be read", func() bool { return s.store.held.Load() > 0 })
	s.store.holdKey.Store(nil)
	s.do(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: s.admin}).into(t, http.StatusOK, new(any))
	close(gate)
	<-done // this one came before
	s.get("/v1/events", k.Key).problem(t, http.StatusUnauthorized, "key_revoked")
}

func TestAnExpiredKeyIsRefused(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	at := time.Now().Add(2 * time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z")
	in, until := s.makeKey(s.admin, `{"role":"reader","expires_in":"2h"}`), s.makeKey(s.admin, `{"role":"reader","expires_at":"`+at+`"}`)
	if until.ExpiresAt != at || in.ExpiresAt < at {
		t.Errorf("expire at %s and %s, want about %s", in.ExpiresAt, until.ExpiresAt, at)
	}
	for _, k := range []apiKey{in, until} {
		s.get("/v1/events", k.Key).into(t, http.StatusOK, new(any))
	}
	s.clock.Add(int64(3 * time.Hour))
	for _, k := range []apiKey{in, until} {
		p := s.get("/v1/events", k.Key).problem(t, http.StatusUnauthorized, "key_expired")
		if !strings.Contains(p.Detail, k.ExpiresAt) || s.showKey(k.ID).State != "expired" {
			t.Errorf("got %q, %+v, want the time %s", p.Detail, s.showKey(k.ID), k.ExpiresAt)
		}
	}
	for _, body := range []string{
		`"expires_in":"2"`, `"expires_in":"-2h"`, `"expires_in":"0s"`, `"expires_in":"99999999d"`, `"expires_at":"tomorrow"`,
		`"expires_at":"2020-01-01T00:00:00Z"`, `"expires_in":"2h","expires_at":"2099-01-01T00:00:00Z"`,
	} {
		s.post("/v1/keys", s.admin, `{"role":"reader",`+body+`}`).problem(t, http.StatusBadRequest, "invalid_request")
	}
}

// A key that is rotated is good for the overlap, and the one that follows may do what it might, for as long.
func TestARotatedKeyIsGoodForTheOverlap(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("acme")
	k := s.makeKey(s.admin, `{"role":"writer","log":"acme","name":"ci","expires_in":"90d","actions":["user.*"],"networks":["127.0.0.0/8","::1"],"events_per_second":5000}`)
	var next apiKey
	s.post("/v1/keys/"+k.ID+"/rotate", s.admin, `{"overlap":"2h"}`).into(t, http.StatusCreated, &next)
	old := s.showKey(k.ID)
	if old.ReplacedBy != next.ID || old.State != "active" || next.Key == "" || next.Key == k.Key || next.ReplacedBy != "" {
		t.Errorf("got %+v after %+v", next, old)
	}
	if fmt.Sprintf("%s %s %s %s %d", next.Role, *next.Log, next.Actions, next.Networks, next.Events) != "writer acme [user.*] [127.0.0.0/8 ::1/128] 5000" {
		t.Errorf("the next key may do something else: %+v", next)
	}
	if between := parse(t, next.ExpiresAt).Sub(parse(t, next.CreatedAt)); between.Round(time.Hour) != 90*24*time.Hour {
		t.Errorf("the next key is good for %v, want 90 days", between)
	}
	event := `{"action":"user.login"}`
	s.clock.Add(int64(119 * time.Minute))
	for _, key := range []string{k.Key, next.Key} {
		s.post("/v1/events", key, event).into(t, http.StatusCreated, new(record))
	}
	// One follows it, and no more.
	if p := s.post("/v1/keys/"+k.ID+"/rotate", s.admin, ``).problem(t, http.StatusConflict, "key_replaced"); !strings.Contains(p.Detail, next.ID) {
		t.Errorf("got %q, want the key %s", p.Detail, next.ID)
	}
	s.clock.Add(int64(2 * time.Minute))
	s.post("/v1/events", k.Key, event).problem(t, http.StatusUnauthorized, "key_expired")
	s.post("/v1/events", next.Key, event).into(t, http.StatusCreated, new(record))

	s.clock.Store(0)
	// No overlap ends it at once; the default is a day; what would expire before doesn't live longer.
	for body, want := range map[string]time.Duration{`{"overlap":"0s"}`: 0, `{}`: 24 * time.Hour, `{"overlap":"30d"}`: 12 * time.Hour} {
		made := `{"role":"reader"}`
		if want == 12*time.Hour {
			made = `{"role":"reader","expires_in":"12h"}`
		}
		k := s.makeKey(s.admin, made)
		s.post("/v1/keys/"+k.ID+"/rotate", s.admin, body).into(t, http.StatusCreated, new(any))
		got := parse(t, s.showKey(k.ID).ExpiresAt).Sub(parse(t, k.CreatedAt))
		if got.Round(time.Hour) != want {
			t.Errorf("%s: the old key is good for %v more, want %v", body, got, want)
		}
	}
	// What is good to the end of time is followed by what is, too.
	last := s.makeKey(s.admin, `{"role":"reader","expires_at":"9999-12-31T23:59:59.999999Z"}`)
	s.post("/v1/keys/"+last.ID+"/rotate", s.admin, `{}`).into(t, http.StatusCreated, &next)
	if next.ExpiresAt != "9999-12-31T23:59:59.999999Z" {
		t.Errorf("the key after one that expires at the end of time expires at %s", next.ExpiresAt)
	}
	for _, body := range []string{`{"overlap":"31d"}`, `{"overlap":"24"}`, `{"overlap":24}`, `{"over":"24h"}`} {
		k := s.makeKey(s.admin, `{"role":"reader"}`)
		s.post("/v1/keys/"+k.ID+"/rotate", s.admin, body).problem(t, http.StatusBadRequest, "invalid_request")
	}
}

func parse(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// When a key was used last is written behind its requests: to a minute, and not for each.
func TestTheLastUseOfAKeyIsNoted(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	s.api.Close() // it writes nothing by itself any more
	k, unused := s.makeKey(s.admin, `{"role":"reader"}`), s.makeKey(s.admin, `{"role":"reader","networks":["192.0.2.0/24"]}`)
	s.get("/v1/events", unused.Key).problem(t, http.StatusForbidden, "address_not_allowed")
	began := time.Now()
	writes := func(want int64) {
		t.Helper()
		for range 10 {
			s.get("/v1/events", k.Key).into(t, http.StatusOK, new(any))
		}
		s.api.Close() // which writes what is to be written
		if got := s.store.uses.Load(); got != want {
			t.Errorf("writes: got %d, want %d", got, want)
		}
	}
	writes(1)
	writes(1)
	s.clock.Add(int64(time.Minute))
	writes(2)
	s.clock.Add(int64(time.Minute))
	s.store.noUses.Store(true)
	writes(2)
	s.store.noUses.Store(false)
	writes(3)
	if used := parse(t, s.showKey(k.ID).LastUsedAt).Sub(began); used < 2*time.Minute {
		t.Errorf("the key was used last after %v, want two minutes or more", used)
	}
	if used := s.showKey(unused.ID).LastUsedAt; used != "" {
		t.Errorf("a key that was refused was used at %s", used)
	}
}

// A manager makes and ends keys of its own log, but none that may do as much as itself, and sees no others.
func TestAManagerManagesTheKeysOfItsLog(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("acme")
	s.log("other")
	manager, peer := s.key(log.RoleManager, "acme"), s.key(log.RoleManager, "acme")
	theirs := s.makeKey(s.admin, `{"role":"reader","log":"other"}`)
	for _, role := range []string{"writer", "reader", "exporter", "auditor"} {
		k := s.makeKey(manager, `{"role":"`+role+`"}`) // its log, not default
		if k.Log == nil || *k.Log != "acme" {
			t.Errorf("%s: the key is for %v, want acme", role, k.Log)
		}
		s.post("/v1/keys/"+k.ID+"/rotate", manager, ``).into(t, http.StatusCreated, new(any))
		s.do(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: manager}).into(t, http.StatusOK, new(any))
	}
	for _, role := range []string{"manager", "admin"} {
		s.post("/v1/keys", manager, `{"role":"`+role+`"}`).problem(t, http.StatusForbidden, "forbidden")
	}
	s.post("/v1/keys", manager, `{"role":"reader","log":"other"}`).problem(t, http.StatusNotFound, "not_found")
	peerID, err := log.ParseKey(peer)
	if err != nil {
		t.Fatal(err)
	}
	s.do(request{method: "DELETE", path: "/v1/keys/" + peerID, key: manager}).problem(t, http.StatusForbidden, "forbidden")
	s.post("/v1/keys/"+peerID+"/rotate", manager, ``).problem(t, http.StatusForbidden, "forbidden")
	s.get("/v1/keys/"+peerID, manager).into(t, http.StatusOK, new(any))

	// A key of another log is none, to the byte and to the store's calls.
	never, _ := log.NewKey(log.RoleReader, 0, "", 0)
	for _, r := range []request{
		{method: "GET", path: "/v1/keys/%s"}, {method: "DELETE", path: "/v1/keys/%s"}, {method: "POST", path: "/v1/keys/%s/rotate"},
	} {
		var answers []string
		for _, id := range []string{theirs.ID, never.ID} {
			s.store.calls.take()
			got := s.do(request{method: r.method, path: fmt.Sprintf(r.path, id), key: manager})
			got.problem(t, http.StatusNotFound, "not_found")
			answers = append(answers, fmt.Sprint(s.store.asked(manager, id), " ", got.anonymous()))
		}
		if answers[0] != answers[1] {
			t.Errorf("%s %s: another's key got %s, none got %s", r.method, r.path, answers[0], answers[1])
		}
	}
	if s.showKey(theirs.ID).State != "active" {
		t.Error("a manager ended a key of another log")
	}
	for _, id := range []string{"%FF", "%00", "x", strings.Repeat("a", 12) + "%20"} {
		s.get("/v1/keys/"+id, s.admin).problem(t, http.StatusNotFound, "not_found")
	}
	var list struct{ Data []apiKey }
	s.get("/v1/keys", manager).into(t, http.StatusOK, &list)
	for _, k := range list.Data {
		if *k.Log != "acme" {
			t.Errorf("a manager of acme is shown a key of %s", *k.Log)
		}
	}
	if len(list.Data) != 2+2*4 {
		t.Errorf("keys of acme: got %d, want 10", len(list.Data))
	}
}

// A writer may be for some actions only. Nothing of a batch is stored if one event has another.
func TestAWriterMayBeForSomeActions(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	k := s.makeKey(s.admin, `{"role":"writer","actions":["user.*","invoice.paid"]}`)
	for action, allowed := range map[string]bool{
		"user.login": true, "user.": true, "invoice.paid": true, "user": false, "User.login": false, "invoice.paid.twice": false, "a": false,
	} {
		got := s.post("/v1/events", k.Key, `{"action":"`+action+`"}`)
		if allowed {
			got.into(t, http.StatusCreated, new(record))
			continue
		}
		p := got.problem(t, http.StatusForbidden, "action_not_allowed")
		if len(p.Errors) != 1 || p.Errors[0].Pointer != "/action" || p.Errors[0].Index != nil || !strings.Contains(p.Detail, "invoice.paid user.*") {
			t.Errorf("%s: got %+v", action, p)
		}
	}
	size := s.service.Log("default").Sizes().Size
	p := s.post("/v1/events/batch", k.Key, `{"events":[{"action":"user.a"},{"action":"b"},{"action":"user.c"},{"action":"d"}]}`).
		problem(t, http.StatusForbidden, "action_not_allowed")
	if len(p.Errors) != 2 || *p.Errors[0].Index != 1 || *p.Errors[1].Index != 3 {
		t.Errorf("got %+v, want events 1 and 3", p.Errors)
	}
	if got := s.service.Log("default").Sizes().Size; got != size {
		t.Errorf("the log has %d events, want %d", got, size)
	}
	for _, actions := range []string{`[""]`, `["*"]`, `["a b"]`, `["a*b"]`, `"user.*"`, `["` + strings.Repeat(`x","`, 20) + `y"]`} {
		s.post("/v1/keys", s.admin, `{"role":"writer","actions":`+actions+`}`).problem(t, http.StatusBadRequest, "invalid_request")
	}
	s.post("/v1/keys", s.admin, `{"role":"reader","actions":["user.*"]}`).problem(t, http.StatusBadRequest, "invalid_request")
}

// A key may be good from some networks only. What a client says of its own address counts for nothing, unless a proxy that is
// trusted has passed it on.
func TestAKeyMayBeForSomeNetworks(t *testing.T) {
	t.Parallel()
	proxies := func(c *api.Config) {
		c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}
	}
	direct, proxied := newTestServer(t, time.Hour), newTestServerWith(t, time.Hour, func(*log.Config) {}, proxies)
	for _, c := range []struct {
		s         *testServer
		networks  string
		forwarded string
		allowed   bool
	}{
		{direct, `["127.0.0.1"]`, "", true},
		{direct, `["127.0.0.0/8"]`, "203.0.113.9", true},
		{direct, `["203.0.113.0/24"]`, "203.0.113.9", false},
		{direct, `["0.0.0.0/0","::/0"]`, "", true},
		{direct, `["::/0"]`, "", false},
		{proxied, `["203.0.113.0/24"]`, "203.0.113.9", true},
		{proxied, `["203.0.113.0/24"]`, "203.0.113.9:4711", true},
		{proxied, `["2001:db8::/32"]`, "[2001:db8::7]:80", true},
		{proxied, `["203.0.113.0/24"]`, "::ffff:203.0.113.9", true},
		{proxied, `["203.0.113.0/24"]`, "203.0.113.9, 10.1.2.3", true},
		{proxied, `["203.0.113.0/24"]`, "203.0.113.9,, 10.1.2.3,", true},
		{proxied, `["203.0.113.0/24"]`, "203.0.113.9, 198.51.100.1", false}, // the left one anybody may have written
		{proxied, `["203.0.113.0/24"]`, "203.0.113.9, nonsense", false},
		{proxied, `["203.0.113.0/24"]`, "203.0.113.9, nonsense, 10.1.2.3", false},
		{proxied, `["127.0.0.0/8"]`, "203.0.113.9", false},
		{proxied, `["127.0.0.0/8"]`, "", true},
		{proxied, `["10.0.0.0/8"]`, "10.9.9.9", true},
	} {
		k := c.s.makeKey(c.s.admin, `{"role":"reader","networks":`+c.networks+`}`)
		r := request{method: "GET", path: "/v1/events", key: k.Key}
		if c.forwarded != "" {
			r.header = map[string]string{"X-Forwarded-For": c.forwarded}
		}
		got := c.s.do(r)
		if !c.allowed {
			got.problem(t, http.StatusForbidden, "address_not_allowed")
		} else if got.status != http.StatusOK {
			t.Errorf("%s from %q: got %d %s", c.networks, c.forwarded, got.status, got.body)
		}
		// The same on public paths, where it may as well have no key.
		r.path = "/logs/default/checkpoint"
		if got := c.s.do(r); (got.status == http.StatusOK) != c.allowed {
			t.Errorf("%s from %q: the checkpoint is answered by %d", c.networks, c.forwarded, got.status)
		}
	}
	for _, networks := range []string{`["127.0.0.1/7"]`, `["x"]`, `[""]`, `["::ffff:1.2.3.4"]`, `["fe80::1%eth0"]`, `["1.2.3.4/33"]`, `["` + strings.Repeat(`::1","`, 20) + `::2"]`} {
		direct.post("/v1/keys", direct.admin, `{"role":"writer","networks":`+networks+`}`).problem(t, http.StatusBadRequest, "invalid_request")
	}
}
