package api_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// newHubServer starts a server with a hub that waits for no witnesses, and events in the log "default".
func newHubServer(t *testing.T, public bool) *testServer {
	t.Helper()
	s := newTestServerWith(t, 5*time.Millisecond, func(c *log.Config) { c.Hub, c.HubPublic = true, public })
	for i := range 3 {
		s.post("/v1/events?wait=signed", s.admin, fmt.Sprintf(`{"id":"e%d","action":"a"}`, i)).into(t, http.StatusCreated, new(any))
	}
	s.get("/v1/events/e2/proof?hub=true&wait=signed", s.admin).ok(t)
	return s
}

// ok returns the body of an answer with status 200.
func (a answer) ok(t testing.TB) []byte {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	return a.body
}

func TestHubProof(t *testing.T) {
	t.Parallel()
	s := newHubServer(t, true)
	got := s.get("/v1/events/e1/proof?hub=true", s.key(log.RoleReader, "default"))
	if _, err := checkpoint.ParseHubProof(got.ok(t)); err != nil {
		t.Error(err)
	}
	if got.header.Get("Content-Type") != "application/octet-stream" || got.header.Get("Content-Disposition") != `attachment; filename="e1.hub-proof"` {
		t.Errorf("header: got %v", got.header)
	}
	hub, l := s.service.Log("hub"), s.service.Log("default")
	policy, err := checkpoint.ParsePolicy([]byte("log " + hub.VKeys[0] + "\nquorum none\n"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := log.VerifyHubProof(got.body, log.HubTrust{Keys: l.VKeys, Policy: policy})
	if err != nil || v.Index != 1 || v.Origin != l.Origin {
		t.Errorf("got %+v, %v", v, err)
	}
	if _, err := checkpoint.ParseProof(s.get("/v1/events/e1/proof?hub=false", s.admin).ok(t)); err != nil {
		t.Error(err)
	}
	s.get("/v1/events/e1/proof?hub=yes", s.admin).problem(t, http.StatusBadRequest, "invalid_request")
	s.get("/v1/events/e9/proof?hub=true", s.admin).problem(t, http.StatusNotFound, "not_found")
	none := newTestServer(t, time.Millisecond)
	none.post("/v1/events?wait=signed", none.admin, `{"id":"e0","action":"a"}`).into(t, http.StatusCreated, new(any))
	none.get("/v1/events/e0/proof?hub=true", none.admin).problem(t, http.StatusBadRequest, "invalid_request")
}

func TestHubProofBeforeTheHubCoversIt(t *testing.T) {
	t.Parallel()
	s := newTestServerWith(t, time.Hour, func(c *log.Config) { c.Hub = true })
	s.post("/v1/events", s.admin, `{"id":"e0","action":"a"}`).into(t, http.StatusCreated, new(any))
	s.get("/v1/events/e0/proof?hub=true", s.admin).problem(t, http.StatusConflict, "not_witnessed")
}

// The hub is read with its own key, an administrator's, or none if it is public.
func TestWhoReadsTheHub(t *testing.T) {
	t.Parallel()
	for _, public := range []bool{false, true} {
		s := newHubServer(t, public)
		s.log("other")
		hubKey := s.key(log.RoleReader, "hub")
		for _, path := range []string{"/logs/hub/checkpoint", "/logs/hub/growth/0", "/logs/hub/tile/entries/000.p/1"} {
			for _, key := range []string{s.admin, hubKey} {
				s.get(path, key).ok(t)
			}
			for _, key := range []string{"", s.key(log.RoleReader, "default"), s.key(log.RoleWriter, "other")} {
				got := s.get(path, key)
				if public {
					got.ok(t)
				} else if want := s.get(strings.Replace(path, "/hub/", "/nothing/", 1), key); got.anonymous() != want.anonymous() {
					t.Errorf("%s: got %s, want what a log that isn't there gets: %s", path, got.anonymous(), want.anonymous())
				}
			}
		}
		// Its key reads no other log.
		s.get("/logs/default/checkpoint", hubKey).problem(t, http.StatusNotFound, "not_found")
		s.get("/v1/events?log=default", hubKey).problem(t, http.StatusNotFound, "not_found")
		var c struct {
			Log   string
			VKeys []string
		}
		s.get("/v1/checkpoint", hubKey).into(t, http.StatusOK, &c)
		if c.Log != "hub" || len(c.VKeys) != 1 {
			t.Errorf("the hub's checkpoint: got %+v", c)
		}
		s.get("/v1/proofs/consistency?from=0", hubKey).ok(t)
		s.get("/v1/proofs/inclusion?index=0", hubKey).ok(t)
	}
}

// What is asked of events is refused of the hub, and nobody can append to it.
func TestTheHubIsNoLogOfEvents(t *testing.T) {
	t.Parallel()
	s := newHubServer(t, false)
	for _, path := range []string{"/v1/events", "/v1/events?action=x", "/v1/events/e1", "/v1/events/e1/proof", "/v1/events/e1/proof?hub=true", "/v1/feed?from=0"} {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		s.get(path+sep+"log=hub", s.admin).problem(t, http.StatusBadRequest, "hub_log")
		s.get(path, s.key(log.RoleReader, "hub")).problem(t, http.StatusBadRequest, "hub_log")
	}
	s.post("/v1/events?log=hub", s.admin, `{"action":"a"}`).problem(t, http.StatusBadRequest, "hub_log")
	s.post("/v1/events/batch?log=hub", s.admin, `{"events":[{"action":"a"}]}`).problem(t, http.StatusBadRequest, "hub_log")
	s.post("/v1/logs", s.admin, `{"name":"hub"}`).problem(t, http.StatusBadRequest, "invalid_request")
	s.post("/v1/keys", s.admin, `{"role":"writer","log":"hub"}`).problem(t, http.StatusBadRequest, "invalid_request")
	s.post("/v1/keys", s.admin, `{"role":"reader","log":"hub"}`).into(t, http.StatusCreated, new(any))
	var logs struct {
		Data []struct {
			Name string
			Hub  bool
		}
	}
	s.get("/v1/logs", s.admin).into(t, http.StatusOK, &logs)
	for _, l := range logs.Data {
		if l.Hub != (l.Name == "hub") {
			t.Errorf("log %s: hub is %v", l.Name, l.Hub)
		}
	}
}

// A monitor can check the hub from what it is served, and every answer stays the same.
func TestGrowth(t *testing.T) {
	t.Parallel()
	s := newHubServer(t, true)
	hub, size := s.service.Log("hub"), s.service.Log("hub").Sizes().Released
	type place struct {
		index uint64
		entry checkpoint.HubEntry
	}
	newest := make(map[[32]byte]place) // by log: the system log grows, too
	for i := range size {
		var raw []byte
		err := s.store.Entries(t.Context(), hub.ID, i, i+1, func(b []byte) error {
			raw = append(raw, b...)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		e, err := checkpoint.ParseHubEntry(raw)
		if err != nil {
			t.Fatalf("entry %d: got %+v, %v", i, e, err)
		}
		got := s.get(fmt.Sprintf("/logs/hub/growth/%d", i), "")
		lines := strings.Split(strings.TrimSuffix(string(got.ok(t)), "\n"), "\n")
		if !strings.Contains(got.header.Get("Cache-Control"), "public, max-age=31536000, immutable") || got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("header: got %v", got.header)
		}
		before, ok := newest[e.LogID]
		if !ok {
			if len(lines) != 1 || lines[0] != "first" {
				t.Errorf("the first entry: got %q", lines)
			}
		} else {
			if lines[0] != fmt.Sprintf("previous %d", before.index) {
				t.Errorf("entry %d: got %q", i, lines)
			}
			var hashes []merkle.Hash
			for _, line := range lines[1:] {
				hashes = append(hashes, hashOf(t, line))
			}
			if err := merkle.VerifyConsistency(before.entry.Size, e.Size, hashes, before.entry.Root, e.Root); err != nil {
				t.Errorf("entry %d: %v", i, err)
			}
		}
		newest[e.LogID] = place{i, e}
	}
	if len(newest) != 2 || newest[checkpoint.LogID(s.service.Log("default").VKeys[0])].index == 0 {
		t.Errorf("got entries of %d logs, want some of default and of the system log", len(newest))
	}
	for _, index := range []string{fmt.Sprint(size), "01", "-1", "x", "9223372036854775807", "18446744073709551616"} {
		s.get("/logs/hub/growth/"+index, s.admin).problem(t, http.StatusNotFound, "not_found")
	}
	s.get("/logs/default/growth/0", s.admin).problem(t, http.StatusNotFound, "not_found")
}

// The list for witnesses has the hub and what is public, never anything of a private log.
func TestWitnessLogs(t *testing.T) {
	t.Parallel()
	s := newHubServer(t, false)
	if _, err := s.service.CreateLog(t.Context(), log.ByServer(), "open", log.Settings{Public: true}); err != nil {
		t.Fatal(err)
	}
	secret := s.log("secret")
	got := s.get("/witness/logs", "")
	want := "logs/v0\n"
	for _, name := range []string{"hub", "open"} {
		want += fmt.Sprintf("\nvkey %s\nqpd 86400\ncontact the operator of test.example\n", s.service.Log(name).VKeys[0])
	}
	if string(got.ok(t)) != want || got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("got %s, want %s", got.body, want)
	}
	id := checkpoint.LogID(secret.VKeys[0])
	if strings.Contains(string(got.body), "secret") || strings.Contains(string(got.body), hex.EncodeToString(id[:])) {
		t.Errorf("a private log is in it: %s", got.body)
	}
	if body := newTestServer(t, time.Hour).get("/witness/logs", "").ok(t); string(body) != "logs/v0\n" {
		t.Errorf("without a hub: got %q", body)
	}
	// What witnesses' readers of lists refuse, ours among them, isn't served to them.
	long := strings.Repeat("x", 1025)
	for _, l := range []api.WitnessList{{QPD: 1 << 31}, {Contact: "a\nvkey x"}, {Contact: "a\x00"}, {Contact: "a\u0085"}, {Contact: "\xff"}, {Contact: long}} {
		if l.Check() == nil {
			t.Errorf("%+v is accepted", l)
		}
	}
	if err := (api.WitnessList{QPD: 1<<31 - 1, Contact: long[1:]}).Check(); err != nil {
		t.Errorf("a contact of 1024 bytes: got %v", err)
	}
}

// hashOf returns the hash that a line has in base64.
func hashOf(t testing.TB, line string) merkle.Hash {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(line)
	if err != nil || len(b) != merkle.HashSize {
		t.Fatalf("%q is no hash: %v", line, err)
	}
	return merkle.Hash(b)
}
