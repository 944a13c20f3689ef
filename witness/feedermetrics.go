package witness

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// feederMetrics are what an operator watches of the witnesses.
type feederMetrics struct {
	feeder   *Feeder
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	problems, claims, newest *prometheus.Desc
}

func newFeederMetrics(f *Feeder, reg prometheus.Registerer) *feederMetrics {
	m := &feederMetrics{
		feeder: f,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "treeline_feed_attempts_total",
			Help: "Checkpoints brought to a witness, by what came of it: cosigned, left (to another server), busy, unreachable, " +
				"refused, wrong (its answer), claim (a size that the log never signed), contradiction, failed.",
		}, []string{"witness", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "treeline_feed_attempt_seconds", Help: "Time that a witness took to cosign a checkpoint.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15),
		}, []string{"witness"}),
		problems: prometheus.NewDesc("treeline_feed_problems",
			"Logs that a witness doesn't cosign, all of them while it can't be reached. Alarm if it stays above 0.", []string{"witness"}, nil),
		claims: prometheus.NewDesc("treeline_feed_claims",
			"Logs of which a witness claims a size that was never signed, and that no operator has accepted. Alarm if not 0.", []string{"witness"}, nil),
		newest: prometheus.NewDesc("treeline_feed_newest_cosignature_seconds",
			"Time of a witness's newest cosignature on any log, in seconds since 1970.", []string{"witness"}, nil),
	}
	for _, e := range f.endpoints {
		m.requests.WithLabelValues(e.name, "cosigned")
	}
	reg.MustRegister(m.requests, m.seconds, m)
	return m
}

// request counts an attempt.
func (m *feederMetrics) request(witness string, err error, took time.Duration) {
	m.requests.WithLabelValues(witness, result(err)).Inc()
	if err == nil {
		m.seconds.WithLabelValues(witness).Observe(took.Seconds())
	}
}

// result names what came of an attempt.
func result(err error) string {
	var busy *busyError
	var claim *claimError
	switch {
	case err == nil:
		return "cosigned"
	case errors.Is(err, errLeft):
		return "left"
	case errors.As(err, &busy):
		return "busy"
	case errors.Is(err, errUnreachable):
		return "unreachable"
	case errors.Is(err, errContradicted):
		return "contradiction"
	case errors.As(err, &claim):
		return "claim"
	case errors.Is(err, errAnswer):
		return "wrong"
	case errors.Is(err, errRefused):
		return "refused"
	}
	return "failed"
}

// Describe is for the gauges that are read when they are asked for.
func (m *feederMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.problems, m.claims, m.newest} {
		ch <- d
	}
}

// Collect reads the gauges.
func (m *feederMetrics) Collect(ch chan<- prometheus.Metric) {
	f := m.feeder
	f.mu.Lock()
	defer f.mu.Unlock()
	problems, claims := make(map[*endpoint]int), make(map[*endpoint]int)
	for _, d := range f.feeds {
		for _, l := range d.links {
			if l.problem != "" || l.endpoint.failures > 1 {
				problems[l.endpoint]++
			}
		}
		for _, l := range d.claims() {
			claims[l.endpoint]++
		}
	}
	for _, e := range f.endpoints {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, e.name)
		}
		gauge(m.problems, float64(problems[e]))
		gauge(m.claims, float64(claims[e]))
		if !e.newest.IsZero() {
			gauge(m.newest, float64(e.newest.Unix()))
		}
	}
}
