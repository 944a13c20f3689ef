package witness

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// serverMetrics are what a witness's operator watches. Nothing is labelled with a log: anybody can publish lists of them.
type serverMetrics struct {
	requests     *prometheus.CounterVec
	ok           prometheus.Counter // requests with 200, looked up once
	batchSize    prometheus.Histogram
	batchSeconds prometheus.Histogram
	failures     *prometheus.CounterVec
	evidence     *prometheus.CounterVec
}

func newServerMetrics(s *Server, reg prometheus.Registerer) *serverMetrics {
	m := &serverMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "treeline_witness_requests_total", Help: "add-checkpoint requests answered, by status. 200: cosigned.",
		}, []string{"status"}),
		batchSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "treeline_witness_batch_requests", Help: "Requests checked and recorded by one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		batchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "treeline_witness_batch_seconds", Help: "Time from taking a batch to its answer, commit included.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14),
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "treeline_witness_failures_total", Help: "Failures, by what was attempted: commit, clock (requests refused as the clock is behind a log's newest cosignature), " +
				"refresh (of the logs known), list (a list polled: not to be had, invalid, or with more logs than are taken).",
		}, []string{"attempted"}),
		evidence: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "treeline_witness_contradictions_total",
			Help: "Requests that a log's key has signed and that contradict what was cosigned. Alarm if fork grows: treeline witness evidence.",
		}, []string{"conflict"}),
	}
	for _, attempted := range []string{"commit", "clock", "refresh", "list"} {
		m.failures.WithLabelValues(attempted)
	}
	for _, c := range []Conflict{ConflictFork, ConflictEmpty, ConflictInconsistent} {
		m.evidence.WithLabelValues(string(c))
	}
	m.ok = m.requests.WithLabelValues("200")
	reg.MustRegister(m.requests, m.batchSize, m.batchSeconds, m.failures, m.evidence,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "treeline_witness_logs", Help: "Logs known."},
			func() float64 { return float64(s.logs.len()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "treeline_witness_queue_requests", Help: "Requests waiting for a batch."},
			func() float64 { return float64(s.committer.waiting()) }))
	return m
}

func (m *serverMetrics) request(status int) {
	if status == 200 {
		m.ok.Inc()
	} else {
		m.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	}
}

func (m *serverMetrics) batch(requests int, took time.Duration, err error) {
	if err != nil {
		m.failures.WithLabelValues("commit").Inc()
		return
	}
	m.batchSize.Observe(float64(requests))
	m.batchSeconds.Observe(took.Seconds())
}
