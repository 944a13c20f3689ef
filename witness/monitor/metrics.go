package monitor

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what a monitor exports. All of them are there from the start, so that an alarm can't miss the first failure.
type metrics struct {
	rounds                                          prometheus.Counter
	size, served, behind, verified, quorum, verdict *prometheus.GaugeVec
	entries, failures, comparisons                  *prometheus.CounterVec
	witnessSize                                     *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, logs []*followed) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "treeline_audit_" + name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "treeline_audit_" + name, Help: help}, labels)
	}
	m := &metrics{
		rounds:      prometheus.NewCounter(prometheus.CounterOpts{Name: "treeline_audit_rounds_total", Help: "Rounds over all logs."}),
		size:        gauge("log_size", "Size of the largest checkpoint of the log that was verified.", "log"),
		served:      gauge("served_size", "Size of the checkpoint that the log serves.", "log"),
		behind:      gauge("behind_entries", "Entries that the log has signed, as a witness shows or as was seen before, and doesn't serve.", "log"),
		verified:    gauge("verified_timestamp_seconds", "When all of a log was last found to be in order. Alarm if it is old.", "log"),
		quorum:      gauge("quorum_met", "Whether the served checkpoint meets the policy.", "log"),
		verdict:     gauge("verdict", "The exit code: 0 OK, 1 failed, 3 not verifiable, 4 invalid, 5 diverged. Alarm from 3 on.", "log"),
		entries:     counter("entries_total", "Entries read and hashed.", "log"),
		failures:    counter("failures_total", "Problems by kind, each counted in every round that finds it.", "log", "kind"),
		comparisons: counter("witness_comparisons_total", "Comparisons with what a witness serves, by result.", "log", "witness", "result"),
		witnessSize: gauge("witness_size", "Size of the log's checkpoint that a witness serves.", "log", "witness"),
	}
	for _, l := range logs {
		m.entries.WithLabelValues(l.origin)
		m.verdict.WithLabelValues(l.origin)
		m.size.WithLabelValues(l.origin).Set(float64(l.state.cp.Size))
		for _, kind := range kinds {
			m.failures.WithLabelValues(l.origin, kind)
		}
	}
	if reg != nil {
		reg.MustRegister(m.rounds, m.size, m.served, m.behind, m.verified, m.quorum, m.verdict, m.entries, m.failures, m.comparisons, m.witnessSize)
	}
	return m
}

// observe takes up what a round found out about a log, at each of its URLs. Where these differ a gauge has the worst.
func (m *metrics) observe(reports []*LogReport, f *follower) {
	verdict, quorum := Verified, math.Inf(1)
	served, fetched := uint64(math.MaxUint64), false
	for _, r := range reports {
		m.entries.WithLabelValues(f.origin).Add(float64(r.Read))
		for _, p := range r.Problems {
			m.failures.WithLabelValues(f.origin, p.Kind).Inc()
		}
		for _, w := range r.Witnesses {
			for _, result := range witnessResults {
				c := m.comparisons.WithLabelValues(f.origin, w.Witness, result)
				if w.Result == result {
					c.Inc()
				}
			}
			m.witnessSize.WithLabelValues(f.origin, w.Witness).Set(float64(w.Size))
		}
		verdict = max(verdict, r.Verdict)
		if r.Quorum != nil {
			met := 0.0
			if *r.Quorum {
				met = 1
			}
			quorum = min(quorum, met)
		}
		if r.fetched {
			served, fetched = min(served, r.Served), true
		}
	}
	m.verdict.WithLabelValues(f.origin).Set(float64(verdict))
	if verdict == Verified {
		m.verified.WithLabelValues(f.origin).Set(float64(time.Now().Unix()))
	}
	if !math.IsInf(quorum, 1) {
		m.quorum.WithLabelValues(f.origin).Set(quorum)
	}
	m.size.WithLabelValues(f.origin).Set(float64(f.state.cp.Size))
	if !fetched {
		return
	}
	largest := f.state.cp.Size
	for _, a := range f.state.ahead {
		largest = max(largest, a.cp.Size)
	}
	m.served.WithLabelValues(f.origin).Set(float64(served))
	m.behind.WithLabelValues(f.origin).Set(float64(largest - min(largest, served)))
}
