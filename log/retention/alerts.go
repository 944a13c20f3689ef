package retention

import (
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/log"
)

// Reasons why nothing is purged, besides those of package log.
const (
	BlockedNoArchive   = "no_archive"          // the policy asks for an archive, and there is none
	BlockedUnreachable = "archive_unreachable" // it can't be read or written
	BlockedMissing     = "archive_missing"     // it has lost what the log says was archived
	BlockedUnverified  = "archive_unverified"  // what is in it isn't what it should be
	BlockedChanged     = "changed"             // something was decided meanwhile; the next run goes on
	BlockedHeld        = "held"                // holds keep what has expired
	BlockedFailed      = "failed"              // anything else
)

// Blocked says why something that has expired isn't purged.
type Blocked struct {
	Reason string `json:"reason"` // one of the Blocked constants, here or in package log
	Why    string `json:"why"`
}

func (b *Blocked) Error() string { return b.Why }

var noArchive = &Blocked{BlockedNoArchive, "the log's policy asks for an archive, and the server has none: set --archive, or switch archiving off for the log"}

// alerts tell operators what isn't done, and why: in metrics all the time, in the server's log whenever that changes.
type alerts struct {
	logger *slog.Logger

	mu      sync.Mutex
	reasons map[log.ID]map[string]bool // why things of a log aren't done, as it is known

	blocked *prometheus.GaugeVec
	purged  prometheus.Counter
	lastRun prometheus.Gauge
}

func newAlerts(logger *slog.Logger, r prometheus.Registerer) *alerts {
	a := &alerts{
		logger: logger, reasons: make(map[log.ID]map[string]bool),
		blocked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "treeline_retention_blocked", Help: "Logs of which something has expired, or was erased, and isn't removed, by the reason.",
		}, []string{"reason"}),
		purged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "treeline_retention_purged_total", Help: "Events whose content this server has purged.",
		}),
		lastRun: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "treeline_retention_last_run", Help: "When all logs were looked at last, in seconds since 1970 UTC.",
		}),
	}
	r.MustRegister(a.blocked, a.purged, a.lastRun)
	for _, reason := range []string{
		log.BlockedStopped, log.BlockedDamaged, log.BlockedClock, log.BlockedUnsigned, log.BlockedUnwitnessed,
		BlockedNoArchive, BlockedUnreachable, BlockedMissing, BlockedUnverified, BlockedChanged, BlockedHeld, BlockedFailed,
	} {
		a.blocked.WithLabelValues(reason).Set(0)
	}
	return a
}

// tell takes up what came of a run over a log. Unless it was looked for what has expired nothing is known of that.
func (a *alerts) tell(l *log.Log, r *Report, looked bool, failure error) {
	a.purged.Add(float64(r.Purged))
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.reasons[l.ID]
	now := make(map[string]bool)
	if !looked {
		maps.Copy(now, before)
	}
	delete(now, BlockedFailed)
	why := ""
	if r.Blocked != nil {
		now[r.Blocked.Reason], why = true, r.Blocked.Why
	}
	if r.Held > 0 {
		now[BlockedHeld] = true
	}
	if failure != nil {
		now[BlockedFailed], why = true, failure.Error()
	}
	for reason := range now {
		if before[reason] {
			continue
		}
		a.blocked.WithLabelValues(reason).Inc()
		if reason == BlockedHeld {
			a.logger.Info("holds keep events that have expired", "log", l.Name, "events", r.Held)
		} else {
			a.logger.Warn("RETENTION BLOCKED: what has expired or was erased isn't removed", "log", l.Name, "reason", reason, "why", why)
		}
	}
	for reason := range before {
		if !now[reason] {
			a.blocked.WithLabelValues(reason).Dec()
			a.logger.Info("retention isn't blocked any more", "log", l.Name, "reason", reason)
		}
	}
	a.reasons[l.ID] = now
}

// ran notes that all logs were looked at.
func (a *alerts) ran(now time.Time) { a.lastRun.Set(float64(now.UnixMilli()) / 1e3) }
