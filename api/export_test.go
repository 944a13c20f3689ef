package api

import (
	"net/http"
	"time"

	"github.com/treeline-log/treeline/log"
)

// Patterns returns the patterns of all routes.
func (s *Server) Patterns() []string { return s.patterns }

// AdmitAppend does what a request to append one event to the log default costs before its body is read, and before its event is
// taken.
func (s *Server) AdmitAppend(w http.ResponseWriter, r *http.Request) error {
	key, err := s.admit(w, r)
	if err != nil {
		return err
	}
	l, err := s.logOf(r.Context(), key, "")
	if err != nil {
		return err
	}
	if err := s.chargeLog(w, l); err != nil {
		return err
	}
	return s.chargeEvents(w, l, key, 1)
}

// NewTaker returns a function that takes n of a limit at a time, and reports whether it could.
func NewTaker(rate int) func(now time.Time, n int) bool {
	var l limiter
	return func(now time.Time, n int) bool {
		_, ok := l.take(now, n, limit{quota: quota{policy: "test"}, rate: rate})
		return ok
	}
}

// Buckets returns a function that takes one of a rate from the bucket of a log, and how many buckets there are then.
func Buckets() func(now time.Time, id log.ID, rate int) int {
	var l limiter
	return func(now time.Time, id log.ID, rate int) int {
		l.take(now, 1, limit{quota: quota{log: id}, rate: rate})
		return len(l.buckets)
	}
}

// MaxBuckets is when full buckets are dropped.
const MaxBuckets = maxBuckets
