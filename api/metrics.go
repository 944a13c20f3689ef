package api

import (
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count requests by route, never by log, key or path.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "treeline_http_requests_total", Help: "Requests answered, by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "treeline_http_request_seconds", Help: "Time from a request's header to its answer, by route.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"route"}),
	}
	reg.MustRegister(m.requests, m.seconds)
	return m
}

// observe returns h, counted under the route, and logged at the level of debugging.
func (s *Server) observe(route string, h http.HandlerFunc) http.HandlerFunc {
	seconds := s.metrics.seconds.WithLabelValues(route)
	created := s.metrics.requests.WithLabelValues(route, "201") // the busiest, looked up once
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		sw := statusWriter{ResponseWriter: w}
		returned := false
		defer func() {
			took := time.Since(start)
			seconds.Observe(took.Seconds())
			status := max(sw.status, http.StatusOK)
			switch { // a panic, with which also an answer breaks off that has begun
			case returned:
			case r.Context().Err() != nil:
				status = statusClientClosed
			default:
				status = http.StatusInternalServerError
			}
			if status == http.StatusCreated {
				created.Inc()
			} else {
				s.metrics.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
			}
			if s.logger.Enabled(r.Context(), slog.LevelDebug) {
				s.logger.Debug("request", "request_id", w.Header().Get("X-Request-Id"), "method", r.Method, "route", route,
					"status", status, "took", took)
			}
		}()
		h(&sw, r)
		returned = true
	}
}

// statusWriter remembers the status that was written.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
