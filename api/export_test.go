package api

import (
	"time"

	"github.com/treeline-log/treeline/log"
)

// Patterns returns the patterns of all routes.
func (s *Server) Patterns() []string { return s.patterns }

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
