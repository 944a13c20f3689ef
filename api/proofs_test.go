package api_test

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// Proofs between any two signed sizes hold, and end at a checkpoint that is signed.
func TestProofs(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	const origin = "test.example/logs/default"
	s.append("default", 0, 300)
	s.append("default", 300, 307)
	for _, x := range [][2]uint64{{0, 1}, {0, 307}, {255, 256}, {255, 300}, {256, 301}, {306, 307}} {
		var p struct {
			Log, Hash, Root, Checkpoint string
			Hashes                      []string
		}
		s.get(fmt.Sprintf("/v1/proofs/inclusion?index=%d&size=%d", x[0], x[1]), s.admin).into(t, http.StatusOK, &p)
		if err := merkle.VerifyInclusion(x[0], x[1], hash(t, p.Hash), hashes(t, p.Hashes), hash(t, p.Root)); err != nil {
			t.Errorf("inclusion of %d in %d: %v", x[0], x[1], err)
		}
		c, _, err := checkpoint.Open([]byte(p.Checkpoint), origin, verifiers(t, origin)...)
		if err != nil || p.Log != "default" || c.Size < x[1] {
			t.Errorf("the checkpoint beside size %d: got %v, %v", x[1], c, err)
		}
	}
	for _, x := range [][2]uint64{{0, 307}, {1, 300}, {300, 307}, {256, 257}, {307, 307}, {0, 0}} {
		var p struct {
			Hashes     []string
			RootFrom   string `json:"root_from"`
			RootTo     string `json:"root_to"`
			Checkpoint string
		}
		s.get(fmt.Sprintf("/v1/proofs/consistency?from=%d&to=%d", x[0], x[1]), s.admin).into(t, http.StatusOK, &p)
		if err := merkle.VerifyConsistency(x[0], x[1], hashes(t, p.Hashes), hash(t, p.RootFrom), hash(t, p.RootTo)); err != nil {
			t.Errorf("consistency of %d and %d: %v", x[0], x[1], err)
		}
		c, _, err := checkpoint.Open([]byte(p.Checkpoint), origin, verifiers(t, origin)...)
		if err != nil || c.Size == x[1] && c.Root != hash(t, p.RootTo) {
			t.Errorf("the checkpoint beside size %d: got %v, %v", x[1], c, err)
		}
	}
	var head struct {
		Log, Origin, Checkpoint string
		VKeys                   []string
		Sizes                   map[string]uint64
		Witnesses               []string
	}
	s.get("/v1/checkpoint", s.admin).into(t, http.StatusOK, &head)
	if head.Origin != origin || head.Sizes["size"] != 307 || head.Sizes["signed"] != 307 || head.Sizes["released"] != 307 ||
		head.Sizes["witnessed"] != 0 || head.Witnesses == nil || len(head.VKeys) != 1 {
		t.Errorf("checkpoint: got %+v", head)
	}
	s.get("/v1/checkpoint?size=300", s.admin).into(t, http.StatusOK, &head)
	if !strings.HasPrefix(head.Checkpoint, origin+"\n300\n") {
		t.Errorf("checkpoint of size 300: got %q", head.Checkpoint)
	}
}

func hash(t *testing.T, text string) merkle.Hash {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != merkle.HashSize || strings.ToLower(text) != text {
		t.Fatalf("not a hash: %q", text)
	}
	return merkle.Hash(b)
}

func hashes(t *testing.T, texts []string) []merkle.Hash {
	t.Helper()
	if texts == nil {
		t.Fatal("hashes: got null, want a list")
	}
	out := make([]merkle.Hash, len(texts))
	for i, text := range texts {
		out[i] = hash(t, text)
	}
	return out
}

// Tiles are for the keys of their log, and for anyone if it is public.
func TestTiles(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	if _, err := s.service.CreateLog(t.Context(), log.ByServer(), "open", log.Settings{Public: true}); err != nil {
		t.Fatal(err)
	}
	s.log("closed")
	for _, name := range []string{"open", "closed"} {
		s.append(name, 0, 257)
	}
	reader := s.key(log.RoleReader, "closed")
	for _, x := range []struct {
		path string
		size int
	}{
		{"tile/0/000", 256 * 32}, {"tile/0/001.p/1", 32}, {"tile/1/000.p/1", 32}, {"tile/entries/000", 256 * 75}, {"tile/entries/001.p/1", 75},
	} {
		private := s.get("/logs/closed/"+x.path, reader)
		public := s.get("/logs/open/"+x.path, "")
		for scope, got := range map[string]answer{"private": private, "public": public} {
			if got.status != http.StatusOK || len(got.body) != x.size || got.header.Get("Content-Type") != "application/octet-stream" ||
				got.header.Get("Cache-Control") != scope+", max-age=31536000, immutable" {
				t.Errorf("%s %s: got %d, %d bytes, %v", scope, x.path, got.status, len(got.body), got.header)
			}
		}
		s.get("/logs/closed/"+x.path, "").problem(t, http.StatusNotFound, "not_found")
		s.get("/logs/closed/"+x.path, s.key(log.RoleReader, "open")).problem(t, http.StatusNotFound, "not_found")
		if got := s.get("/logs/closed/"+x.path, s.admin); got.status != http.StatusOK {
			t.Errorf("an administrator: got %d", got.status)
		}
	}
	note := s.get("/logs/open/checkpoint", "")
	if note.status != http.StatusOK || !strings.HasPrefix(string(note.body), "test.example/logs/open\n257\n") ||
		note.header.Get("Cache-Control") != "no-cache" {
		t.Errorf("checkpoint: got %d %s %v", note.status, note.body, note.header)
	}
	for _, path := range []string{
		"tile/0/001", "tile/0/001.p/2", "tile/0/002.p/1", "tile/2/000.p/1", "tile/0/0", "tile/0/000.p/0", "tile/0/000.p/256", "tile/00/000",
		"tile/-1/000", "tile/64/000", "tile/entries/000.p/257", "tile/0/x000/000", "tile/0/000.p/01", "tile/", "tile/0/999999",
	} {
		s.get("/logs/open/"+path, "").problem(t, http.StatusNotFound, "not_found")
	}
}

func TestMethodsAndRoutes(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 1)
	for path, allow := range map[string]string{
		"/v1/events": "GET, POST", "/v1/events/batch": "GET, POST", "/v1/events/e0": "GET", "/v1/feed": "GET", "/v1/logs": "GET, POST",
		"/healthz": "GET", "/logs/default/checkpoint": "GET",
	} {
		for _, method := range []string{"PUT", "DELETE", "PATCH"} { // there is no way to change or remove an event
			got := s.do(request{method: method, path: path, key: s.admin})
			got.problem(t, http.StatusMethodNotAllowed, "method_not_allowed")
			if got.header.Get("Allow") != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got.header.Get("Allow"), allow)
			}
		}
	}
	for _, path := range []string{"/", "/v1", "/v1/", "/v1/none", "/v2/events", "/v1/events/e0/none", "/logs/default", "/metrics", "/debug/pprof/"} {
		s.get(path, s.admin).problem(t, http.StatusNotFound, "not_found")
		s.do(request{method: "DELETE", path: path, key: s.admin}).problem(t, http.StatusNotFound, "not_found")
	}
	for _, path := range []string{"/healthz", "/v1/events", "/v1/events/e0", "/logs/default/checkpoint", "/v1/none"} {
		got, head := s.get(path, s.admin), s.do(request{method: "HEAD", path: path, key: s.admin})
		if head.status != got.status || len(head.body) != 0 || head.header.Get("Content-Length") != got.header.Get("Content-Length") {
			t.Errorf("HEAD %s: got %d, %d bytes, %v; GET got %d, %v", path, head.status, len(head.body), head.header, got.status, got.header)
		}
	}
	ids := make(map[string]bool)
	for range 50 {
		id := s.get("/healthz", "").header.Get("X-Request-Id")
		if len(id) < 16 || ids[id] {
			t.Fatalf("request id %q: short, or given before", id)
		}
		ids[id] = true
	}
	for path, want := range map[string]string{"/healthz": `{"status":"ok"}`, "/readyz": `{"status":"ready"}`} {
		if got := s.get(path, ""); got.status != http.StatusOK || strings.TrimSpace(string(got.body)) != want {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
}
