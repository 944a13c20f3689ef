package api_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
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
	ids            []string
	markers        []string // in content, and hashes, salts and secrets in the forms in which answers show them
	cursors        []string
	size           int
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
		if strings.Contains(r.path, other.name) && got.status < http.StatusBadRequest {
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

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func (s *testServer) newTenant() *tenant {
	s.t.Helper()
	x := &tenant{name: "tenant-" + hex.EncodeToString(random(6))}
	s.log(x.name)
	x.reader, x.writer = s.key(log.RoleReader, x.name), s.key(log.RoleWriter, x.name)
	x.markers = append(x.markers, x.name, x.reader[3:15], x.writer[3:15])
	s.appendMarked(x, 3)
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
	key := rapid.SampledFrom([]string{x.reader, x.writer}).Draw(t, "key")
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
	switch rapid.IntRange(0, 14).Draw(t, "request") {
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
		return get("/v1/events?actor_id=" + url.QueryEscape(rapid.SampledFrom(other.markers[3:]).Draw(t, "marker")))
	case 13:
		return request{method: "GET", path: rapid.SampledFrom([]string{"/v1/logs", "/v1/keys"}).Draw(t, "list"), key: key}
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
