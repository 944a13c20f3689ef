package api

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/retention"
)

// DefaultLog is the log that a server-wide key means when it names none.
const DefaultLog = "default"

// Limits of a request.
const (
	maxEventBody = 256 << 10 // bytes of one event as sent; its canonical form is limited to 24 KiB
	maxBatchBody = 16 << 20  // bytes of a batch, decompressed
	maxBodies    = 96 << 20  // bytes of batches being read or waiting, over all requests
	maxLogBodies = 32 << 20  // the same for the requests of one log
	maxAdminBody = 16 << 10
	maxHeader    = 32 << 10

	maxPage      = 1000
	maxPageBytes = 4 << 20 // of content, after which a page ends
	defaultPage  = 50

	maxExports    = 12 // at a time; each takes some 10 MiB
	maxLogExports = 4  // of one log

	maxWait = 10 * time.Second // for ?wait=
	maxPoll = 30 * time.Second // for a feed
)

// Config is what a Server is made of.
type Config struct {
	Service  *log.Service    // keeps a system log
	Seed     checkpoint.Seed // the key of cursors is derived from it
	Logger   *slog.Logger
	Registry *prometheus.Registry
	// Warnings returns what is wrong that doesn't keep the server from serving, for the operator; nil: nothing ever is.
	Warnings func() []string
	List     WitnessList
	// Keeper keeps logs as their policies say; nil: this server doesn't.
	Keeper *retention.Keeper
	// Rates are those of logs that have none of their own.
	Rates log.Rates
	// Proxies are networks of proxies whose X-Forwarded-For is believed.
	Proxies []netip.Prefix
	Now     func() time.Time // what times before now are counted from; nil: time.Now
}

// Server answers the HTTP interface. Its zero value is not usable; New makes one, and Close ends what that began.
type Server struct {
	service  *log.Service
	logger   *slog.Logger
	keys     keyring
	uses     uses
	cursors  cursors
	sealed   sealedCursors
	plans    plans
	keeper   *retention.Keeper
	running  running
	bodies   budget
	exports  budget
	list     WitnessList
	proxies  []netip.Prefix
	rates    log.Rates
	limiter  limiter
	metrics  *metrics
	now      func() time.Time
	warnings func() []string
	mux      *http.ServeMux
	ops      *http.ServeMux
	patterns []string // of the routes

	closing context.Context // ends long polls when the server shuts down
	close   context.CancelFunc
}

// New returns a Server. It panics if the service keeps no system log: nothing would be recorded.
func New(c Config) *Server {
	if len(c.Service.Systems()) == 0 {
		panic("the service keeps no system log")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Warnings == nil {
		c.Warnings = func() []string { return nil }
	}
	s := &Server{
		service: c.Service, logger: c.Logger, now: c.Now, warnings: c.Warnings,
		keys:    keyring{lookup: c.Service.Key},
		cursors: cursors{c.Seed.Derive("treeline/cursor/v1\n")},
		bodies:  budget{perLog: maxLogBodies, inAll: maxBodies},
		exports: budget{perLog: maxLogExports, inAll: maxExports},
		sealed:  newSealedCursors(c.Seed.Derive("treeline/sealed-cursor/v1\n")),
		plans:   plans{newAEAD(c.Seed.Derive("treeline/erasure-plan/v1\n"))},
		keeper:  c.Keeper,
		metrics: newMetrics(c.Registry), list: c.List, proxies: c.Proxies, rates: c.Rates,
		mux: http.NewServeMux(), ops: http.NewServeMux(),
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.routes()
	go s.writeUses()
	s.ops.HandleFunc("GET /debug/pprof/", pprof.Index)
	s.ops.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	s.ops.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	s.ops.Handle("GET /metrics", promhttp.HandlerFor(c.Registry, promhttp.HandlerOpts{}))
	return s
}

// HTTPServer returns an http.Server for h with this package's limits on time and size.
func HTTPServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second,
		WriteTimeout:      90 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// Ops returns the handler of the operator's own listener: metrics, and health with its reasons.
func (s *Server) Ops() http.Handler { return s.ops }

// Close makes long polls answer at once, for a graceful stop, and ends what the server does by itself.
func (s *Server) Close() {
	s.close()
	s.running.all.Wait()
	s.writeDueUses()
}

// ServeHTTP gives the request an id, and answers it whatever happens.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id := requestID()
	w.Header()["X-Request-Id"] = []string{id}
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(v)
		}
		s.logger.Error("panic", "request_id", id, "value", fmt.Sprint(v), "stack", string(debug.Stack()))
		s.writeError(w, r, fmt.Errorf("panic: %v", v))
	}()
	s.mux.ServeHTTP(w, r)
}

// requestID returns a random id: a counter would tell each tenant how busy the others are.
func requestID() string {
	var b [12]byte
	binary.LittleEndian.PutUint64(b[:], rand.Uint64())
	binary.LittleEndian.PutUint32(b[8:], rand.Uint32())
	return hex.EncodeToString(b[:])
}
