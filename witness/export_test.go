package witness

import (
	"log/slog"
	"time"
)

// Outage is what an operator is told of batches that weren't committed.
type Outage struct{ outage }

// NewOutage returns one of which nothing was told yet.
func NewOutage(logger *slog.Logger) *Outage { return &Outage{outage{logger: logger}} }

// Failed takes note of a batch that wasn't committed.
func (o *Outage) Failed(now time.Time, requests int, err error) { o.failed(now, requests, err) }

// Committed takes note of one that was.
func (o *Outage) Committed(now time.Time) { o.committed(now) }

// Stall makes the server call fn when it has checked and cosigned a batch, before any of it is recorded; nil for nothing. It must be
// called before requests are sent.
func (s *Server) Stall(fn func()) { s.committer.testingOnlyStall = fn }

// Refresh takes up what others have made known, at once.
func (s *Server) Refresh() { s.refresh() }
