package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/log"
)

// newStillServer starts a server for whose interface time passes only by its clock.
func newStillServer(t *testing.T, rates log.Rates) *testServer {
	t.Helper()
	var s *testServer
	start := time.Now()
	s = newTestServerWith(t, 10*time.Millisecond, func(*log.Config) {}, func(c *api.Config) {
		c.Rates = rates
		c.Now = func() time.Time { return start.Add(time.Duration(s.clock.Load())) }
	})
	return s
}

// limited checks that an answer is a 429 that says to come back after so many seconds.
func (a answer) limited(t *testing.T, policy string, after int) {
	t.Helper()
	p := a.problem(t, http.StatusTooManyRequests, "rate_limited")
	if got := a.header.Get("Retry-After"); got != fmt.Sprint(after) || !strings.Contains(p.Detail, policy) {
		t.Errorf("Retry-After: got %s (%s), want %d because of %s", got, p.Detail, after, policy)
	}
}

func (a answer) headers(t *testing.T, policy, rest string) {
	t.Helper()
	if got := a.header.Get("RateLimit-Policy"); got != policy {
		t.Errorf("RateLimit-Policy: got %s, want %s", got, policy)
	}
	if got := a.header.Get("RateLimit"); got != rest {
		t.Errorf("RateLimit: got %s, want %s", got, rest)
	}
}

func TestRequestsOfAKeyAreLimited(t *testing.T) {
	t.Parallel()
	s := newStillServer(t, log.Rates{})
	k := s.makeKey(s.admin, `{"role":"reader","requests_per_second":2}`)
	free := s.makeKey(s.admin, `{"role":"reader"}`)
	for i := range 20 {
		got := s.get("/v1/events", k.Key)
		got.into(t, http.StatusOK, new(any))
		got.headers(t, `"key-requests";q=20;w=10`, fmt.Sprintf(`"key-requests";r=%d;t=%d`, 19-i, (i+2)/2))
	}
	for _, path := range []string{"/v1/events", "/v1/events/none", "/v1/keys", "/v1/events?log=none", "/logs/default/checkpoint"} {
		s.get(path, k.Key).limited(t, "key-requests", 1)
	}
	got := s.get("/v1/events", free.Key)
	got.into(t, http.StatusOK, new(any))
	got.headers(t, "", "")
	s.clock.Add(int64(500 * time.Millisecond))
	s.get("/v1/events", k.Key).into(t, http.StatusOK, new(any))
	s.get("/v1/events", k.Key).limited(t, "key-requests", 1)
	s.clock.Add(int64(time.Hour))
	s.get("/v1/events", k.Key).headers(t, `"key-requests";q=20;w=10`, `"key-requests";r=19;t=1`)
}

func TestEventsOfALogAreLimited(t *testing.T) {
	t.Parallel()
	s := newStillServer(t, log.Rates{})
	s.log("acme")
	s.patch("/v1/logs/acme", s.admin, `{"events_per_second":2}`).into(t, http.StatusOK, new(any))
	send := func(n int) answer {
		return s.do(request{
			method: "POST", path: "/v1/events/batch?log=acme", key: s.admin, kind: "application/x-ndjson", body: strings.Repeat("{\"action\":\"a\"}\n", n),
		})
	}
	got := send(15)
	got.into(t, http.StatusCreated, new(any))
	got.headers(t, `"log-events";q=20;w=10;qu="events"`, `"log-events";r=5;t=8`)
	send(6).limited(t, "log-events", 1)
	send(5).into(t, http.StatusCreated, new(any))
	s.post("/v1/events?log=acme", s.admin, `{"action":"a"}`).limited(t, "log-events", 1)
	s.post("/v1/events", s.admin, `{"action":"a"}`).into(t, http.StatusCreated, new(record)) // another log
	if size := s.service.Log("acme").Sizes().Size; size != 20 {
		t.Errorf("the log has %d events, want 20", size)
	}
	// A batch that is larger than the bucket is taken from a full one, which owes the rest.
	s.clock.Add(int64(9 * time.Second))
	send(100).limited(t, "log-events", 1)
	s.clock.Add(int64(time.Second))
	got = send(100)
	got.into(t, http.StatusCreated, new(any))
	got.headers(t, `"log-events";q=20;w=10;qu="events"`, `"log-events";r=0;t=50`)
	s.post("/v1/events?log=acme", s.admin, `{"action":"a"}`).limited(t, "log-events", 41)
	s.clock.Add(int64(41 * time.Second))
	s.post("/v1/events?log=acme", s.admin, `{"action":"a"}`).into(t, http.StatusCreated, new(record))
	// What is refused for another reason costs nothing.
	s.post("/v1/events?log=acme", s.admin, `{"action":""}`).problem(t, http.StatusBadRequest, "invalid_event")
	s.post("/v1/events?log=acme", s.admin, `{"action":"a"}`).into(t, http.StatusCreated, new(record))
}

// Of two limits the one that is short counts, and the other isn't used up by what it refuses.
func TestLimitsOfAKeyAndItsLog(t *testing.T) {
	t.Parallel()
	s := newStillServer(t, log.Rates{Events: 1, Requests: 1})
	k := s.makeKey(s.admin, `{"role":"writer","events_per_second":2}`)
	event := `{"action":"a"}`
	for range 10 {
		s.post("/v1/events", k.Key, event).into(t, http.StatusCreated, new(record))
	}
	got := s.post("/v1/events", k.Key, event)
	got.limited(t, "log-requests", 1)
	s.patch("/v1/logs/default", s.admin, `{"requests_per_second":1000}`).into(t, http.StatusOK, new(any)) // which the limit doesn't hinder
	s.clock.Add(int64(10 * time.Millisecond))
	got = s.post("/v1/events", k.Key, event)
	got.limited(t, "log-events", 1)
	got.headers(t, `"log-requests";q=10000;w=10, "key-events";q=20;w=10;qu="events", "log-events";q=10;w=10;qu="events"`,
		`"log-requests";r=9;t=10, "key-events";r=10;t=5, "log-events";r=0;t=10`)
}

// Whatever is taken and when: never more than a bucket and what has come into it, but for one batch that is larger than that.
func TestNoMoreIsTakenThanTheRateGives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.IntRange(1, 1000).Draw(t, "rate")
		take := api.NewTaker(rate)
		start := time.Now()
		now, taken, largest := start, 0, 0
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3_000_000).Draw(t, "µs")) * time.Microsecond)
			n := rapid.IntRange(1, 20*rate).Draw(t, "n")
			full := now.Sub(start) == 0 && taken == 0
			if take(now, n) {
				taken, largest = taken+n, max(largest, n)
			} else if full {
				t.Fatal("nothing can be taken from a full bucket")
			}
			most := float64(10*rate) + float64(rate)*now.Sub(start).Seconds() + float64(max(0, largest-10*rate)) + 0.001
			if float64(taken) > most {
				t.Fatalf("%d were taken in %v with a rate of %d", taken, now.Sub(start), rate)
			}
		}
	})
}

// Buckets that nobody takes from are forgotten; those that aren't full never are.
func TestFullBucketsAreDropped(t *testing.T) {
	t.Parallel()
	take := api.Buckets()
	now := time.Now()
	for id := range log.ID(api.MaxBuckets) {
		take(now, id, 1)
	}
	if n := take(now, api.MaxBuckets, 1); n != api.MaxBuckets+1 {
		t.Errorf("%d buckets, want all %d, as none is full", n, api.MaxBuckets+1)
	}
	for id := range log.ID(api.MaxBuckets) { // until it is looked again
		if n := take(now.Add(time.Second), api.MaxBuckets+1+id, 1); n == api.MaxBuckets {
			return // those that were taken from a second ago are gone
		}
	}
	t.Error("full buckets are never dropped")
}
