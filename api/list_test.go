package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// page is the answer of a list.
type page struct {
	Data       []record
	NextCursor *string `json:"next_cursor"`
	HasMore    bool    `json:"has_more"`
	Size       uint64
	Searched   struct{ From, To uint64 }
}

func (s *testServer) append(name string, from, to int) {
	s.t.Helper()
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "{\"id\":\"e%d\",\"action\":\"a\"}\n", i)
	}
	got := s.do(request{method: "POST", path: "/v1/events/batch?wait=signed&log=" + name, key: s.admin, body: b.String(), kind: "application/x-ndjson"})
	if got.status != http.StatusCreated {
		s.t.Fatalf("appending: got %d %s", got.status, got.body)
	}
}

// Pages tile the log as it stood at the first one, whatever arrives meanwhile.
func TestListing(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	for _, order := range []string{"", "newest", "oldest"} {
		name := "log-" + order + "x"
		s.log(name)
		s.append(name, 0, 23)
		var listed []uint64
		path := "/v1/events?limit=5&log=" + name
		if order != "" {
			path += "&order=" + order
		}
		cursor, arrived := "", 23
		from, to := uint64(23), uint64(23) // of what was searched, as the pages said
		if order == "oldest" {
			from, to = 0, 0
		}
		for {
			var p page
			s.get(path+cursor, s.admin).into(t, http.StatusOK, &p)
			for _, r := range p.Data {
				listed = append(listed, r.Index)
				if r.ID != fmt.Sprint("e", r.Index) || r.Log != name || r.State != "signed" {
					t.Errorf("record: got %+v", r)
				}
			}
			if (p.NextCursor != nil) != p.HasMore || len(p.Data) > 5 {
				t.Fatalf("page: got %+v", p)
			}
			switch {
			case p.Size != uint64(arrived):
				t.Errorf("order %q: the size is said to be %d, want %d", order, p.Size, arrived)
			case order == "oldest" && p.Searched.From == to:
				to = p.Searched.To
			case order != "oldest" && p.Searched.To == from:
				from = p.Searched.From
			default:
				t.Errorf("order %q: a page has searched %+v after [%d, %d)", order, p.Searched, from, to)
			}
			if !p.HasMore {
				break
			}
			cursor = "&cursor=" + *p.NextCursor
			if arrived < 30 {
				s.append(name, arrived, arrived+2)
				arrived += 2
			}
		}
		want := 23 // newest first: what stood there at the first page
		if order == "oldest" {
			want = arrived // oldest first: up to the end, wherever it is by then
		}
		if from != 0 || to != uint64(want) {
			t.Errorf("order %q: [%d, %d) was searched, want [0, %d)", order, from, to, want)
		}
		if len(listed) != want {
			t.Fatalf("order %q: listed %d, want %d: %v", order, len(listed), want, listed)
		}
		for i, index := range listed {
			if order != "oldest" && index != uint64(22-i) || order == "oldest" && index != uint64(i) {
				t.Fatalf("order %q: got %v", order, listed)
			}
		}
	}
	var empty page
	s.get("/v1/events", s.admin).into(t, http.StatusOK, &empty)
	if empty.Searched.From != 0 || empty.Searched.To != 0 {
		t.Errorf("empty log: %+v was searched", empty.Searched)
	}
	if empty.Data == nil || len(empty.Data) != 0 || empty.HasMore || empty.NextCursor != nil {
		t.Errorf("empty log: got %+v", empty)
	}
}

// A cursor is good for its log and order, as it is.
func TestCursorsOfOthers(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("mine")
	s.log("other")
	s.append("mine", 0, 5)
	s.append("other", 0, 5)
	reader := s.key(log.RoleReader, "mine")
	var p page
	s.get("/v1/events?limit=2", reader).into(t, http.StatusOK, &p)
	cursor := *p.NextCursor
	s.get("/v1/events?limit=3&cursor="+cursor, reader).into(t, http.StatusOK, &p)
	for name, path := range map[string]string{
		"another log":   "/v1/events?log=other&cursor=" + cursor,
		"another order": "/v1/events?log=mine&order=oldest&cursor=" + cursor,
		"none":          "/v1/events?log=mine&cursor=",
		"padded":        "/v1/events?log=mine&cursor=" + cursor + "=",
		"cut off":       "/v1/events?log=mine&cursor=" + cursor[1:],
		"a number":      "/v1/events?log=mine&cursor=2",
	} {
		got := s.get(path, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
		if !strings.HasPrefix(got.Detail, "cursor: ") {
			t.Errorf("%s: got %s", name, got.Detail)
		}
	}
	for i := range cursor {
		c := byte('A')
		if cursor[i] == c {
			c = 'B'
		}
		s.get("/v1/events?cursor="+cursor[:i]+string(c)+cursor[i+1:], reader).problem(t, http.StatusBadRequest, "invalid_request")
	}
}

func TestWrongParameters(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 3)
	for _, path := range []string{
		"/v1/events?limit=0", "/v1/events?limit=1001", "/v1/events?limit=-1", "/v1/events?limit=1e2", "/v1/events?limit=", "/v1/events?limit=01",
		"/v1/events?order=up", "/v1/events?actor=u", "/v1/events?Limit=5", "/v1/events?limit=5&limit=5", "/v1/events?%zz",
		"/v1/feed?from=x", "/v1/feed?from=-1", "/v1/feed?from=9223372036854775808", "/v1/feed?timeout=31s", "/v1/feed?timeout=-1s", "/v1/feed?timeout=5",
		"/v1/feed?from=4&timeout=0s", "/v1/feed?cursor=x",
		"/v1/proofs/inclusion", "/v1/proofs/inclusion?index=3", "/v1/proofs/inclusion?index=2&size=2", "/v1/proofs/inclusion?index=+1",
		"/v1/proofs/consistency", "/v1/proofs/consistency?from=3&to=2", "/v1/proofs/consistency?from=4",
		"/v1/checkpoint?size=x", "/v1/events/e1?limit=1", "/v1/events/e1/proof?wait=1", "/v1/logs?limit=5", "/v1/keys?log=default",
	} {
		s.get(path, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
	}
	s.get("/v1/checkpoint?size=2", s.admin).problem(t, http.StatusNotFound, "not_found")
	for _, id := range []string{"none", "%00", "%2F", strings.Repeat("x", 1000), "'; --", "%C3%28"} {
		if strings.ContainsAny(id, " ") {
			id = strings.ReplaceAll(id, " ", "%20")
		}
		s.get("/v1/events/"+id, s.admin).problem(t, http.StatusNotFound, "not_found")
	}
}

// feed is the answer of a feed.
type feed struct {
	Data       []record
	Next, Size uint64
}

func TestTheFeed(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 7)
	var listed []uint64
	var f feed
	for next := uint64(0); next < 7; next = f.Next {
		s.get(fmt.Sprintf("/v1/feed?from=%d&limit=3", next), s.admin).into(t, http.StatusOK, &f)
		for _, r := range f.Data {
			listed = append(listed, r.Index)
		}
	}
	if fmt.Sprint(listed) != "[0 1 2 3 4 5 6]" {
		t.Errorf("the feed: got %v", listed)
	}
	s.get("/v1/feed?from=7&timeout=0s", s.admin).into(t, http.StatusOK, &f)
	if f.Data == nil || len(f.Data) != 0 || f.Next != 7 || f.Size != 7 {
		t.Errorf("at the end: got %+v", f)
	}

	// Who waits is woken.
	time.AfterFunc(50*time.Millisecond, func() { s.post("/v1/events", s.admin, `{"id":"woke","action":"a"}`) })
	start := time.Now()
	s.get("/v1/feed?from=7&timeout=20s", s.admin).into(t, http.StatusOK, &f)
	if took := time.Since(start); took > 10*time.Second || len(f.Data) != 1 || f.Data[0].ID != "woke" || f.Next != 8 {
		t.Errorf("after %v: got %+v", took, f)
	}
	// Also by a stop.
	time.AfterFunc(50*time.Millisecond, s.api.Close)
	start = time.Now()
	s.get("/v1/feed?from=8&timeout=20s", s.admin).into(t, http.StatusOK, &f)
	if took := time.Since(start); took > 10*time.Second || len(f.Data) != 0 {
		t.Errorf("stopping: got %+v after %v", f, took)
	}
}
