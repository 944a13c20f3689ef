package witness

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
)

// DefaultMaxListed is what lists can add logs up to: more than twice as many as the largest list of the witness network is for.
const DefaultMaxListed = 100_000

// maxAdd is about how many keys of a list are added by one transaction.
const maxAdd = 500

// refreshInterval is how soon a log that somebody else has made known, a command or another server, is known here.
const refreshInterval = time.Second

// Why a request is refused. What it means in HTTP is decided in writeError alone.
var (
	errMalformed    = errors.New("malformed request")
	errTooLarge     = fmt.Errorf("request of more than %d bytes", maxBody)
	errUnknown      = errors.New("unknown log")
	errForbidden    = errors.New("not signed by the log")
	errInconsistent = errors.New("inconsistent with what was cosigned")
	errUnavailable  = errors.New("the witness can't do it now; nothing was cosigned")
)

// conflictError means that the request's old size isn't that of the latest cosigned checkpoint.
type conflictError struct{ size uint64 }

func (e *conflictError) Error() string { return fmt.Sprintf("the latest cosigned size is %d", e.size) }

// limitError means that there were too many requests.
type limitError struct{ wait time.Duration }

func (e *limitError) Error() string { return "too many requests" }

// ServerConfig is what a Server is made of.
type ServerConfig struct {
	State     State
	Cosigners []*checkpoint.Cosigner // one for each kind of key, all of one name
	Logger    *slog.Logger
	Registry  *prometheus.Registry
	// Rate bounds the add-checkpoint requests a second, over all logs; 0: no bound. Each log has its own bound beside it, the
	// requests a day of its key.
	Rate float64
	// MaxListed is how many logs the witness may know before lists can't add any more: whoever keeps a list must not fill its memory
	// and its disk. 0: DefaultMaxListed.
	MaxListed int
	Now       func() time.Time // nil: time.Now
}

// Server is a witness. Its zero value is not usable; NewServer makes one.
type Server struct {
	state     State
	logs      *registry
	committer *committer
	cosigners []*checkpoint.Cosigner
	limit     *limiter
	maxListed int
	logger    *slog.Logger
	metrics   *serverMetrics
	now       func() time.Time
	mux, ops  *http.ServeMux

	background context.Context // ends when the server is closed
	end        context.CancelFunc
	ended      sync.WaitGroup
}

// NewServer returns a witness that knows the logs of its state.
func NewServer(ctx context.Context, c ServerConfig) (*Server, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{
		state: c.State, logs: newRegistry(c.State, c.Now), cosigners: c.Cosigners, logger: c.Logger, now: c.Now,
		mux: http.NewServeMux(), ops: http.NewServeMux(),
	}
	if s.maxListed = c.MaxListed; s.maxListed == 0 {
		s.maxListed = DefaultMaxListed
	}
	s.metrics = newServerMetrics(s, c.Registry)
	if c.Rate > 0 {
		s.limit = newLimiter(c.Rate, max(1, c.Rate), c.Now())
	}
	if err := s.logs.refresh(ctx); err != nil {
		return nil, err
	}
	s.committer = newCommitter(c, s.metrics)
	s.background, s.end = context.WithCancel(context.Background())
	s.ended.Go(func() { s.every(refreshInterval, s.refresh) })

	s.mux.HandleFunc("POST /add-checkpoint", s.addCheckpoint)
	s.mux.HandleFunc("GET /{hash}/checkpoint", s.getCheckpoint)
	s.mux.HandleFunc("GET /{$}", s.getPage)
	s.mux.HandleFunc("GET /healthz", getHealth)
	s.ops.HandleFunc("GET /healthz", getHealth)
	s.ops.HandleFunc("GET /readyz", s.getReady)
	s.ops.Handle("GET /metrics", promhttp.HandlerFor(c.Registry, promhttp.HandlerOpts{}))
	return s, nil
}

// ServeHTTP answers the protocol and the page for people.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Ops returns the handler of the operator's own listener: metrics and health.
func (s *Server) Ops() http.Handler { return s.ops }

// Close answers what is queued, and ends. It is to be called when no more requests come.
func (s *Server) Close() {
	s.committer.close()
	s.end()
	s.ended.Wait()
}

// VKeys returns the witness's verifier keys.
func (s *Server) VKeys() []string {
	var keys []string
	for _, c := range s.cosigners {
		keys = append(keys, c.VKey())
	}
	return keys
}

// refresh takes up the logs that others have made known.
func (s *Server) refresh() {
	if err := s.logs.refresh(s.background); err != nil && s.background.Err() == nil {
		s.metrics.failures.WithLabelValues("refresh").Inc()
		s.logger.Warn("the list of logs can't be read", "error", err)
	}
}

// every calls fn again and again until the server is closed.
func (s *Server) every(interval time.Duration, fn func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-s.background.Done():
			return
		case <-t.C:
			fn()
		}
	}
}

// PollLists takes up the logs of the lists at the given URLs, now and then once an interval, until the server is closed. A list
// makes logs known and does nothing else: it adds no key to a log that is known, changes nothing and removes nothing. A list that
// can't be had, or is invalid, changes nothing. Of one with more logs than may still be added the first are, in the order of origins.
func (s *Server) PollLists(urls []string, interval time.Duration) {
	if len(urls) == 0 {
		return
	}
	poll := func() {
		for _, url := range urls {
			if err := s.pollList(s.background, url); err != nil && s.background.Err() == nil {
				s.metrics.failures.WithLabelValues("list").Inc()
				s.logger.Warn("a list of logs was not taken", "list", url, "error", err)
			}
		}
	}
	s.ended.Go(func() {
		poll()
		s.every(interval, poll)
	})
}

func (s *Server) pollList(ctx context.Context, url string) error {
	keys, err := fetchList(ctx, url)
	if err != nil {
		return err
	}
	// Of what is known already nothing is written: a transaction keeps cosignatures waiting.
	keys = slices.DeleteFunc(keys, func(k LogKey) bool { return s.logs.log(k.Origin) != nil })
	slices.SortStableFunc(keys, func(a, b LogKey) int { return strings.Compare(a.Origin, b.Origin) })
	keys, left := firstLogs(keys, s.maxListed-s.logs.len())
	total := 0
	for len(keys) > 0 {
		n := min(len(keys), maxAdd)
		for n < len(keys) && keys[n].Origin == keys[n-1].Origin { // all keys of a log, or it would be known without the others
			n++
		}
		added, err := s.state.AddKeys(ctx, keys[:n], false)
		if err != nil {
			return err
		}
		total, keys = total+added, keys[n:]
	}
	if total > 0 {
		s.logger.Info("logs were added from a list", "list", url, "keys", total)
		if err := s.logs.refresh(ctx); err != nil {
			return err
		}
	}
	if left > 0 {
		return fmt.Errorf("list %s: %d of its logs were not added, since lists add none to a witness that knows %d: see that the list is "+
			"what it should be, then allow for more (--list-max-logs), or add those that you want by hand", url, left, s.maxListed)
	}
	return nil
}

// firstLogs returns the keys, which are in the order of origins, of the first logs up to a limit, and how many more there are.
func firstLogs(keys []LogKey, limit int) (first []LogKey, left int) {
	end := len(keys)
	for i, n := 0, 0; i < len(keys); i++ {
		if i > 0 && keys[i].Origin == keys[i-1].Origin {
			continue
		}
		if n++; n > limit {
			end, left = min(end, i), left+1
		}
	}
	return keys[:end], left
}

// addCheckpoint answers POST /add-checkpoint.
func (s *Server) addCheckpoint(w http.ResponseWriter, r *http.Request) {
	lines, origin, err := s.cosign(w, r)
	status := http.StatusOK
	if err != nil {
		status = s.writeError(w, err)
	} else {
		// "The response body MUST be a sequence of one or more note signature lines".
		header := w.Header()
		header["Content-Type"] = []string{"text/plain; charset=utf-8"}
		header["Content-Length"] = []string{strconv.Itoa(len(lines))}
		w.Write(lines)
	}
	s.metrics.request(status)
	if s.logger.Enabled(r.Context(), slog.LevelDebug) {
		s.logger.Debug("add-checkpoint", "origin", origin, "status", status, "error", err)
	}
}

// cosign is an add-checkpoint request from its body to the cosignatures.
func (s *Server) cosign(w http.ResponseWriter, r *http.Request) (lines []byte, origin string, err error) {
	if wait, ok := s.limit.take(s.now()); !ok {
		return nil, "", &limitError{wait}
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, "", err
	}
	req, err := parseRequest(body)
	if err != nil {
		return nil, "", err
	}
	origin = req.checkpoint.Origin
	// "If the checkpoint origin is unknown, the witness MUST respond with a 404".
	l := s.logs.log(origin)
	if l == nil {
		return nil, origin, errUnknown
	}
	signed, err := l.verify(req)
	if err != nil {
		return nil, origin, err
	}
	// After the signature, so that nobody can use up the requests of somebody else's log.
	if wait, ok := l.limit.take(s.now()); !ok {
		return nil, origin, &limitError{wait}
	}
	lines, err = s.committer.submit(&submission{request: req, signed: signed})
	return lines, origin, err
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errTooLarge
	case err != nil:
		return nil, fmt.Errorf("%w: reading it: %w", errMalformed, err)
	}
	return body, nil
}

// writeError answers a request that was refused, and returns the status.
func (s *Server) writeError(w http.ResponseWriter, err error) int {
	var conflict *conflictError
	var limited *limitError
	var status int
	switch {
	case errors.As(err, &conflict):
		// "The response body MUST consist of the tree size of the latest cosigned checkpoint in decimal, followed by a newline
		// (U+000A). The response MUST have a Content-Type of text/x.tlog.size."
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%d\n", conflict.size)
		return http.StatusConflict
	case errors.As(err, &limited):
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(max(1, limited.wait.Seconds())))))
		status = http.StatusTooManyRequests
	case errors.Is(err, errMalformed):
		status = http.StatusBadRequest
	case errors.Is(err, errTooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, errUnknown), errors.Is(err, ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, errForbidden):
		status = http.StatusForbidden
	case errors.Is(err, errInconsistent):
		status = http.StatusUnprocessableEntity
	default: // errUnavailable, and whatever else the state says, which is for the operator's ears
		s.logger.Debug("unavailable", "error", err)
		w.Header().Set("Retry-After", "1")
		http.Error(w, errUnavailable.Error(), http.StatusServiceUnavailable)
		return http.StatusServiceUnavailable
	}
	http.Error(w, err.Error(), status)
	return status
}

// getCheckpoint answers GET /<hex sha256 of the origin>/checkpoint: "the response body MUST be a checkpoint for the log identified by
// the origin, and it MUST include the cosignature(s) from the witness's key(s) that were returned from add-checkpoint and the
// cosignature from the log key(s) that the witness verified. If the witness has never cosigned a checkpoint for that log, it MUST
// respond with a 404".
func (s *Server) getCheckpoint(w http.ResponseWriter, r *http.Request) {
	origin := s.logs.origin(r.PathValue("hash"))
	if origin == "" {
		s.writeError(w, errUnknown)
		return
	}
	msg, err := s.state.Cosigned(r.Context(), origin)
	if err != nil {
		s.writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Write(msg)
}

func getHealth(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// getReady says whether the state answers, and takes what is written.
func (s *Server) getReady(w http.ResponseWriter, r *http.Request) {
	_, err := s.state.Heads(r.Context(), "", 1)
	if err == nil {
		err = s.committer.failing()
	}
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, "not ready: %v\n", err)
		return
	}
	fmt.Fprintln(w, "ready")
}

// signatureBytes returns a signature without the key's hash that is before it.
func signatureBytes(sig note.Signature) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(sig.Base64)
	if err != nil || len(raw) < 5 {
		return nil, errors.New("malformed signature")
	}
	return raw[4:], nil
}
