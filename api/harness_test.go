package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/log/retention"
	"github.com/treeline-log/treeline/log/sqlite"
)

var testSeed = checkpoint.Seed{5}

// onPostgres is set while the tests run on PostgreSQL.
var onPostgres bool

// TestMain runs all tests on the embedded store, or on PostgreSQL.
func TestMain(m *testing.M) { pgtest.Either(m, &onPostgres, "^$") }

// openStore opens a store of the test's own.
func openStore(t testing.TB, dir string) log.Store {
	t.Helper()
	var store log.Store
	var err error
	if onPostgres {
		url := pgtest.Database(t)
		if _, err := postgres.Migrate(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		store, err = postgres.Open(t.Context(), postgres.Options{URL: url})
	} else {
		store, err = sqlite.Open(t.Context(), filepath.Join(dir, "treeline.db"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// testServer is a whole server on a store of the test's own.
type testServer struct {
	t       testing.TB
	api     *api.Server
	service *log.Service
	store   *faultStore
	url     string
	admin   string       // a key that may do everything
	clock   atomic.Int64 // added to the time that the interface goes by
}

// newTestServer starts a server with a log "default" that is signed every interval.
func newTestServer(t testing.TB, interval time.Duration) *testServer {
	t.Helper()
	return newTestServerWith(t, interval, func(*log.Config) {})
}

// newTestServerWith does the same with a service, and perhaps an interface, that is made differently.
func newTestServerWith(t testing.TB, interval time.Duration, change func(*log.Config), changeAPI ...func(*api.Config)) *testServer {
	t.Helper()
	dir := t.TempDir()
	store := openStore(t, dir)
	fence, err := checkpoint.OpenFileFence(filepath.Join(dir, "fence"))
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{t: t, store: &faultStore{Store: store}}
	logger, registry := slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()
	config := log.Config{
		Store: s.store, Seed: testSeed, Fence: fence, Prefix: "test.example", Interval: interval, Logger: logger, Metrics: registry,
		Shared: onPostgres, System: true,
	}
	change(&config)
	s.service, err = log.Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	apiConfig := api.Config{
		Service: s.service, Seed: testSeed, Logger: logger, Registry: registry,
		Keeper: retention.New(retention.Config{Service: s.service, Store: s.store, Logger: logger, Metrics: registry}),
		Now:    func() time.Time { return time.Now().Add(time.Duration(s.clock.Load())) },
	}
	for _, change := range changeAPI {
		change(&apiConfig)
	}
	s.api = api.New(apiConfig)
	web := httptest.NewUnstartedServer(s.api)
	web.Config = api.HTTPServer(s.api, logger)
	web.Start()
	s.url = web.URL
	t.Cleanup(func() {
		s.api.Close()
		web.Close()
		s.service.Close()
		store.Close()
	})
	s.log("default")
	s.admin = s.key(log.RoleAdmin, "")
	return s
}

// log makes a log.
func (s *testServer) log(name string) *log.Log {
	s.t.Helper()
	l, err := s.service.CreateLog(context.Background(), log.ByServer(), name, log.Settings{})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// key makes a key for a log, or a server-wide one.
func (s *testServer) key(role log.Role, name string) string {
	s.t.Helper()
	var id log.ID
	if name != "" {
		id = s.service.Log(name).ID
	}
	_, text, err := s.service.CreateKey(context.Background(), log.ByServer(), log.Key{Role: role, Log: id, Name: "test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// request is one to send: method and path, with what differs from the usual.
type request struct {
	method, path string
	key          string
	body         string
	kind         string // Content-Type; "": application/json if there is a body
	gzip         bool
	header       map[string]string
}

func (s *testServer) do(r request) answer {
	s.t.Helper()
	body := []byte(r.body)
	if r.gzip {
		body = zip(s.t, body)
	}
	req, err := http.NewRequest(r.method, s.url+r.path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if r.key != "" {
		req.Header.Set("Authorization", "Bearer "+r.key)
	}
	if r.kind == "" && r.body != "" {
		r.kind = "application/json"
	}
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	if r.gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	return s.send(req)
}

func zip(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (s *testServer) get(path, key string) answer {
	s.t.Helper()
	return s.do(request{method: "GET", path: path, key: key})
}

func (s *testServer) post(path, key, body string) answer {
	s.t.Helper()
	return s.do(request{method: "POST", path: path, key: key, body: body})
}

// into decodes the body of an answer with the given status.
func (a answer) into(t testing.TB, status int, v any) {
	t.Helper()
	if a.status != status {
		t.Fatalf("status: got %d %s, want %d", a.status, a.body, status)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
}

// problem is the body of an answer that is an error.
type problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Code      string `json:"code"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Index     *int   `json:"index"`
		Pointer   string `json:"pointer"`
		Parameter string `json:"parameter"`
		Detail    string `json:"detail"`
	} `json:"errors"`
	IDs    []string        `json:"ids"`
	Holds  []string        `json:"holds"`
	Record json.RawMessage `json:"record"`
	Proof  string          `json:"proof"`
	Purge  json.RawMessage `json:"purge"`
}

var codeRE = regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)

// problem checks that the answer is an error of the one shape, with the status and code.
func (a answer) problem(t testing.TB, status int, code string) (p problem) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("status %d, body %s: %v", a.status, a.body, err)
	}
	if a.status != status || p.Status != status || p.Code != code {
		t.Errorf("got %d %s, want %d %s", a.status, a.body, status, code)
	}
	if a.header.Get("Content-Type") != "application/problem+json" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("header: got %v", a.header)
	}
	if p.Type != "about:blank" || p.Title == "" || p.Detail == "" || !codeRE.MatchString(p.Code) {
		t.Errorf("not a whole problem: %s", a.body)
	}
	if p.RequestID == "" || p.RequestID != a.header.Get("X-Request-Id") {
		t.Errorf("request id: got %q in the body, %q in the header", p.RequestID, a.header.Get("X-Request-Id"))
	}
	if again := status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable; again != (a.header.Get("Retry-After") != "") {
		t.Errorf("status %d with Retry-After %q", status, a.header.Get("Retry-After"))
	}
	return p
}

var requestIDRE = regexp.MustCompile(`"request_id":"[^"]*"`)

// anonymous is the answer without what differs between two requests: a text to compare.
func (a answer) anonymous() string {
	h := a.header.Clone()
	for _, name := range []string{"X-Request-Id", "Date"} {
		h.Del(name)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range h {
			if !yield(name) {
				return
			}
		}
	}) {
		b.WriteString(name + ": " + strings.Join(h[name], ", ") + "\n")
	}
	return b.String() + requestIDRE.ReplaceAllString(string(a.body), `"request_id":""`)
}

// record is an event's place as answers show it.
type record struct {
	ID           string          `json:"id"`
	Log          string          `json:"log"`
	Index        uint64          `json:"index"`
	Hash         string          `json:"hash"`
	State        string          `json:"state"`
	ReceivedAt   string          `json:"received_at"`
	PreviousHash string          `json:"previous_hash"`
	Event        json.RawMessage `json:"event"`
	Seed         string          `json:"seed"`
	Duplicate    bool            `json:"duplicate"`
	Proof        string          `json:"proof"`
}

func verifiers(t testing.TB, origin string) []note.Verifier {
	t.Helper()
	_, vkey, err := testSeed.Ed25519(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return []note.Verifier{v}
}

var errInjected = errors.New("injected fault")

// faultStore is a store whose write transactions wait, fail or panic on demand. What requests ask of it is noted (calls_test.go).
type faultStore struct {
	log.Store
	hold         atomic.Pointer[chan struct{}] // waited for before a transaction begins
	held         atomic.Int64
	holdKey      atomic.Pointer[chan struct{}] // waited for after a key was read
	afterward    atomic.Bool                   // commits are made, and reported as failed
	failure      atomic.Bool                   // appends fail, nothing is stored, and keys can't be read
	failAppends  atomic.Bool                   // appends fail, nothing is stored
	panics       atomic.Bool                   // looking up an id panics
	reads        atomic.Int64                  // of entries
	calls        callLog
	noUses       atomic.Bool                   // the use of keys can't be noted
	uses         atomic.Int64                  // how often it was
	readsLeft    atomic.Int64                  // before requests fail to read entries; 0: they never do
	holdReads    atomic.Pointer[chan struct{}] // waited for before entries are read, those from holdFrom on
	holdFrom     atomic.Uint64
	holdContents atomic.Pointer[chan struct{}]                            // waited for before requests read contents
	spoil        atomic.Pointer[func(index uint64, p *log.Payload) error] // what requests read as contents, or why they can't
}

func (s *faultStore) UseKeys(ctx context.Context, at map[string]int64) error {
	if s.noUses.Load() {
		return errInjected
	}
	s.uses.Add(1)
	return s.Store.UseKeys(ctx, at)
}

// read is what comes before entries are read.
func (s *faultStore) read(ctx context.Context, from uint64) error {
	s.reads.Add(1)
	if h := s.holdReads.Load(); h != nil && from >= s.holdFrom.Load() {
		<-*h
	}
	if ctx.Value(http.ServerContextKey) != nil && s.readsLeft.Load() > 0 && s.readsLeft.Add(-1) == 0 {
		s.readsLeft.Store(1)
		return errInjected
	}
	return nil
}

// reading holds reads of entries from an index on, until release is called or the test ends.
func (s *testServer) reading(from uint64) (release func()) {
	held := make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	s.t.Cleanup(release)
	s.store.holdFrom.Store(from)
	s.store.holdReads.Store(&held)
	return release
}

func (s *faultStore) Entries(ctx context.Context, id log.ID, from, to uint64, fn func([]byte) error) error {
	if err := s.read(ctx, from); err != nil {
		return err
	}
	s.calls.add(ctx, fmt.Sprint("entries of ", id))
	return s.Store.Entries(ctx, id, from, to, fn)
}

func (s *faultStore) Payloads(ctx context.Context, id log.ID, from, to uint64, fn func(uint64, log.Payload) error) error {
	s.calls.add(ctx, fmt.Sprint("contents of ", id))
	if h := s.holdContents.Load(); h != nil && ctx.Value(http.ServerContextKey) != nil {
		select {
		case <-*h:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	spoil := s.spoil.Load()
	if spoil == nil || ctx.Value(http.ServerContextKey) == nil {
		return s.Store.Payloads(ctx, id, from, to, fn)
	}
	return s.Store.Payloads(ctx, id, from, to, func(index uint64, p log.Payload) error {
		if err := (*spoil)(index, &p); err != nil {
			return err
		}
		return fn(index, p)
	})
}

func (s *faultStore) EntriesAt(ctx context.Context, id log.ID, indices []uint64, fn func(uint64, []byte) error) error {
	first := uint64(0)
	if len(indices) > 0 {
		first = indices[0]
	}
	if err := s.read(ctx, first); err != nil {
		return err
	}
	s.calls.add(ctx, fmt.Sprint("entries of ", id))
	return s.Store.EntriesAt(ctx, id, indices, fn)
}

func (s *faultStore) Find(ctx context.Context, id log.ID, event string) (uint64, error) {
	s.calls.add(ctx, fmt.Sprint("id in ", id))
	if s.panics.Load() {
		panic("injected panic about secret-of-another-tenant")
	}
	return s.Store.Find(ctx, id, event)
}

func (s *faultStore) Key(ctx context.Context, id string) (log.Key, error) {
	s.calls.add(ctx, "key "+id)
	if s.failure.Load() {
		return log.Key{}, errInjected
	}
	key, err := s.Store.Key(ctx, id)
	if h := s.holdKey.Load(); h != nil {
		s.held.Add(1)
		<-*h
	}
	return key, err
}

func (s *faultStore) Begin(ctx context.Context, logs []log.ID) (log.Tx, error) {
	s.calls.add(ctx, fmt.Sprint("append to ", logs))
	if h := s.hold.Load(); h != nil {
		s.held.Add(1)
		<-*h
	}
	if s.failure.Load() || s.failAppends.Load() {
		return nil, errInjected
	}
	tx, err := s.Store.Begin(ctx, logs)
	return &faultTx{tx, s}, err
}

type faultTx struct {
	log.Tx
	s *faultStore
}

func (t *faultTx) Commit() error {
	err := t.Tx.Commit()
	if err == nil && t.s.afterward.Load() {
		return errInjected
	}
	return err
}

// until waits for something to become true.
func (s *testServer) until(what string, reached func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// send sends a request and reads its answer, and holds both against the description of the interface.
func (s *testServer) send(req *http.Request) answer {
	s.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	got := answer{resp.StatusCode, resp.Header, body}
	s.describe(req, got)
	return got
}

// metric returns the value of a metric, named with its labels, as the operator's listener shows it.
func (s *testServer) metric(name string) string {
	s.t.Helper()
	value, ok := s.findMetric(name)
	if !ok {
		s.t.Fatalf("there is no metric %s", name)
	}
	return value
}

// findMetric does the same with one that may not be there yet.
func (s *testServer) findMetric(name string) (value string, ok bool) {
	w := httptest.NewRecorder()
	s.api.Ops().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}
