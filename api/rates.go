package api

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/treeline-log/treeline/log"
)

// Rates of a key and of a log are kept by token buckets in this server's memory: one holds what the rate gives in rateWindow, so that
// so much may come at once, and fills up with the rate. A batch that is larger than a full bucket is taken from a full one, which owes
// the rest.
const (
	rateWindow = 10 * time.Second
	maxBuckets = 10_000 // beyond which those are dropped that are full
	rounding   = 1e-6   // of a token
)

// limiter holds the buckets. Its zero value is a limiter with all of them full.
type limiter struct {
	mu      sync.Mutex
	buckets map[quota]*bucket
	many    int // buckets, at which the full ones are dropped again
}

// quota names a bucket: of a key by its public id, or of a log by its number.
type quota struct {
	policy string // as headers name it
	key    string
	log    log.ID
}

// bucket is how much there is to take.
type bucket struct {
	tokens float64 // negative: owed
	at     time.Time
	full   time.Time // when it will be, if nothing is taken
}

// limit is one quota with its rate, in units a second. 0 is none.
type limit struct {
	quota
	rate int
	unit string // "" for requests
}

// left is what a quota has left.
type left struct {
	limit
	tokens float64
	full   time.Duration // until there is all
	wait   time.Duration // until there was enough for what was asked; 0: there was
}

// take takes n of each of the limits, or, if one of them has too little, of none.
func (l *limiter) take(now time.Time, n int, limits ...limit) (all []left, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ok = true
	var buckets []*bucket
	for _, x := range limits {
		if x.rate == 0 {
			continue
		}
		b, rate := l.bucket(now, x), float64(x.rate)
		size := rate * rateWindow.Seconds()
		state := left{limit: x}
		if lack := min(float64(n), size) - b.tokens; lack > rounding {
			state.wait, ok = seconds(lack/rate), false
		}
		all, buckets = append(all, state), append(buckets, b)
	}
	for i, b := range buckets {
		rate := float64(all[i].rate)
		if ok {
			b.tokens -= float64(n)
		}
		all[i].tokens, all[i].full = b.tokens, seconds((rate*rateWindow.Seconds()-b.tokens)/rate)
		b.full = now.Add(all[i].full)
	}
	return all, ok
}

// bucket returns the bucket of a limit, with what has come into it until now.
func (l *limiter) bucket(now time.Time, x limit) *bucket {
	rate := float64(x.rate)
	size := rate * rateWindow.Seconds()
	b := l.buckets[x.quota]
	if b == nil {
		if len(l.buckets) >= max(l.many, maxBuckets) {
			for q, b := range l.buckets {
				if !now.Before(b.full) {
					delete(l.buckets, q)
				}
			}
			l.many = 2 * len(l.buckets) // so that a new bucket never costs more than a look at some others
		}
		if l.buckets == nil {
			l.buckets = make(map[quota]*bucket)
		}
		b = &bucket{tokens: size, at: now}
		l.buckets[x.quota] = b
	}
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens += passed.Seconds() * rate
		b.at = now
	}
	b.tokens = min(b.tokens, size) // also if the rate was lowered
	return b
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// chargeKey takes a request from what a key may do, and tells in the answer's header what is left.
func (s *Server) chargeKey(w http.ResponseWriter, key log.Key) error {
	return s.charge(w, 1, limit{quota: quota{policy: "key-requests", key: key.ID}, rate: key.Rates.Requests})
}

// chargeLog takes a request from what may be done with a log.
func (s *Server) chargeLog(w http.ResponseWriter, l *log.Log) error {
	return s.charge(w, 1, limit{quota: quota{policy: "log-requests", log: l.ID}, rate: s.ratesOf(l).Requests})
}

// chargeEvents takes n events from what a key may append, and from what may be appended to its log.
func (s *Server) chargeEvents(w http.ResponseWriter, l *log.Log, key log.Key, n int) error {
	return s.charge(w, n,
		limit{quota: quota{policy: "key-events", key: key.ID}, rate: key.Rates.Events, unit: "events"},
		limit{quota: quota{policy: "log-events", log: l.ID}, rate: s.ratesOf(l).Events, unit: "events"})
}

// ratesOf returns the rates of a log: its own, or the server's.
func (s *Server) ratesOf(l *log.Log) log.Rates {
	r := l.Settings().Rates
	if r.Events == 0 {
		r.Events = s.rates.Events
	}
	if r.Requests == 0 {
		r.Requests = s.rates.Requests
	}
	return r
}

func (s *Server) charge(w http.ResponseWriter, n int, limits ...limit) error {
	if !slices.ContainsFunc(limits, func(x limit) bool { return x.rate > 0 }) {
		return nil
	}
	all, ok := s.limiter.take(s.now(), n, limits...)
	tell(w.Header(), all)
	if ok {
		return nil
	}
	var slowest left
	for _, x := range all {
		if x.wait > slowest.wait {
			slowest = x
		}
	}
	unit := "requests"
	if slowest.unit != "" {
		unit = slowest.unit
	}
	p := newProblem(http.StatusTooManyRequests, "rate_limited", "%s: %d %s a second are allowed; nothing was done, send it again in %d s",
		slowest.policy, slowest.rate, unit, wholeSeconds(slowest.wait))
	p.retryAfter = wholeSeconds(slowest.wait)
	return p
}

// tell adds limits and what is left of them to a header (draft-ietf-httpapi-ratelimit-headers): q is what a full bucket holds, w how
// long it takes to fill up from nothing, r what it holds now, t when it will be full.
func tell(h http.Header, all []left) {
	for _, x := range all {
		unit := ""
		if x.unit != "" {
			unit = `;qu="` + x.unit + `"`
		}
		window := int(rateWindow.Seconds())
		addMember(h, "RateLimit-Policy", fmt.Sprintf(`"%s";q=%d;w=%d%s`, x.policy, x.rate*window, window, unit))
		addMember(h, "RateLimit", fmt.Sprintf(`"%s";r=%d;t=%d`, x.policy, int(max(0, x.tokens)), wholeSeconds(x.full)))
	}
}

// addMember adds a member to a header that is a list (RFC 9651).
func addMember(h http.Header, name, member string) {
	if before := h.Get(name); before != "" {
		member = before + ", " + member
	}
	h.Set(name, member)
}

func wholeSeconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
