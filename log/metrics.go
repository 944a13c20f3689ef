package log

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an operator watches of appending and signing.
type metrics struct {
	service *Service

	batchEvents  prometheus.Histogram
	batchSeconds prometheus.Histogram
	appended     prometheus.Counter
	failures     *prometheus.CounterVec
	signatures   prometheus.Counter
	scrubbed     prometheus.Counter
	indexed      prometheus.Counter
	unreadable   prometheus.Counter

	queueEvents, total, signedLag, witnessLag, releaseLag, indexLag *prometheus.Desc
	stopped, held, failOpen, logs                                   *prometheus.Desc
	size, signed, released, witnessed                               *prometheus.Desc
}

// maxLogSeries bounds the series that carry a log's name: with more logs than that only the totals are exported.
const maxLogSeries = 200

func newMetrics(s *Service, reg prometheus.Registerer) *metrics {
	m := &metrics{
		service: s,
		batchEvents: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "treeline_batch_events", Help: "Events appended by one transaction.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		batchSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "treeline_batch_seconds", Help: "Time from taking a batch to its answer, commit included.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14),
		}),
		appended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "treeline_events_appended_total", Help: "Events appended.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "treeline_failures_total",
			Help: "Failures of the store or the fence, by what was attempted: append, commit (outcome unknown), sign, " +
				"scrub, verify, index, hub, read sizes, read settings, read replica, note use of keys, record reads, " +
				"custody (what was decided about contents), remove (what was purged or erased).",
		}, []string{"attempted"}),
		signatures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "treeline_checkpoints_signed_total", Help: "Checkpoints that this server has signed, those of size 0 of new logs included.",
		}),
		scrubbed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "treeline_events_scrubbed_total", Help: "Stored events re-read and re-hashed in the background.",
		}),
		indexed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "treeline_events_indexed_total", Help: "Events that this server has added to the search index.",
		}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "treeline_events_unreadable_total", Help: "Stored events that couldn't be read to be indexed. Alarm if it grows.",
		}),
		queueEvents: prometheus.NewDesc("treeline_queue_events", "Events waiting for a batch.", nil, nil),
		logs:        prometheus.NewDesc("treeline_logs", "Logs of tenants.", nil, nil),
		stopped:     prometheus.NewDesc("treeline_logs_stopped", "Logs whose signing is stopped. Alarm if not 0.", nil, nil),
		signedLag:   prometheus.NewDesc("treeline_unsigned_events", "Sequenced events not signed yet, over all logs.", nil, nil),
		witnessLag: prometheus.NewDesc("treeline_unwitnessed_events",
			"Signed events for which the witness policy isn't met yet, over all logs; 0 where there is none.", nil, nil),
		releaseLag: prometheus.NewDesc("treeline_unreleased_events", "Signed events not released yet, over all logs.", nil, nil),
		held: prometheus.NewDesc("treeline_logs_held",
			"Logs that aren't signed, as their witnesses, or the hub's, are asked since this server started, or object. Alarm if it stays above 0.",
			nil, nil),
		failOpen: prometheus.NewDesc("treeline_witness_fail_open",
			"1 if checkpoints are released though the witness policy isn't met (--witness-fail-open).", nil, nil),
		indexLag:  prometheus.NewDesc("treeline_unindexed_events", "Sequenced events not in the search index yet, over all logs.", nil, nil),
		total:     prometheus.NewDesc("treeline_events", "Sequenced events, over all logs.", nil, nil),
		size:      prometheus.NewDesc("treeline_log_size", "Sequenced events of a log.", []string{"log"}, nil),
		signed:    prometheus.NewDesc("treeline_log_signed_size", "Signed size of a log.", []string{"log"}, nil),
		released:  prometheus.NewDesc("treeline_log_released_size", "Released size of a log.", []string{"log"}, nil),
		witnessed: prometheus.NewDesc("treeline_log_witnessed_size", "Witnessed size of a log.", []string{"log"}, nil),
	}
	for _, attempted := range []string{
		"append", "commit", "sign", "scrub", "verify", "index", "hub", "read sizes", "read settings", "read replica", "note use of keys", "record reads",
		"custody", "remove",
	} {
		m.failures.WithLabelValues(attempted)
	}
	reg.MustRegister(m.batchEvents, m.batchSeconds, m.appended, m.failures, m.signatures, m.scrubbed, m.indexed, m.unreadable, m)
	reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "treeline_reads_lost_total",
		Help: "Reads that the system log doesn't tell of, as it couldn't be appended to for too long. Alarm if it grows.",
	}, func() float64 { return float64(s.reads.lost.Load()) }))
	return m
}

func (m *metrics) batch(events int, took time.Duration, err error) {
	switch {
	case errors.Is(err, ErrOutcomeUnknown):
		m.failures.WithLabelValues("commit").Inc()
	case err != nil:
		m.failures.WithLabelValues("append").Inc()
	default:
		m.appended.Add(float64(events))
		m.batchEvents.Observe(float64(events))
		m.batchSeconds.Observe(took.Seconds())
	}
}

// Describe is for the gauges that are read when they are asked for.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.queueEvents, m.logs, m.stopped, m.held, m.failOpen, m.signedLag, m.witnessLag, m.releaseLag, m.indexLag, m.total,
		m.size, m.signed, m.released, m.witnessed,
	} {
		ch <- d
	}
}

// Collect reads the gauges.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	logs := m.service.Logs()
	var events, unsigned, unwitnessed, unreleased, unindexed uint64
	tenants, stopped, held := 0, 0, 0
	for _, l := range logs {
		s := l.Sizes()
		if l.holding() != nil && l.Stopped() == nil {
			held++
		}
		if l.Stopped() != nil && !l.Frozen() {
			stopped++
		}
		if len(logs) <= maxLogSeries || l.IsHub() || l.IsSystem() {
			gauge(m.size, float64(s.Size), l.Name)
			gauge(m.signed, float64(s.Signed), l.Name)
			gauge(m.released, float64(s.Released), l.Name)
			gauge(m.witnessed, float64(s.Witnessed), l.Name)
		}
		if l.IsHub() {
			continue
		}
		if !l.IsSystem() {
			tenants++
		}
		events += s.Size
		unsigned += s.Size - s.Signed
		unreleased += s.Signed - min(s.Signed, s.Released)
		if m.service.Witnessed() {
			unwitnessed += s.Signed - min(s.Signed, s.Witnessed)
		}
		lag, _ := l.progress.unindexed()
		unindexed += lag
	}
	gauge(m.logs, float64(tenants))
	gauge(m.stopped, float64(stopped))
	gauge(m.held, float64(held))
	failOpen := 0.0
	if m.service.config.Policy != nil && m.service.config.FailOpen {
		failOpen = 1
	}
	gauge(m.failOpen, failOpen)
	gauge(m.witnessLag, float64(unwitnessed))
	gauge(m.releaseLag, float64(unreleased))
	gauge(m.total, float64(events))
	gauge(m.signedLag, float64(unsigned))
	gauge(m.queueEvents, float64(m.service.sequencer.waiting()))
	gauge(m.indexLag, float64(unindexed))
}
