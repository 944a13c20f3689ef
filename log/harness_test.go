package log_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/log/sqlite"
	"github.com/treeline-log/treeline/merkle"
)

// testSeed is the seed of all test services.
var testSeed = checkpoint.Seed{7}

// onPostgres is set while the tests run on PostgreSQL.
var onPostgres bool

// onlySQLite matches the tests that do something to a SQLite file, or are about a store that has one server.
const onlySQLite = "^(TestTamperingIsFound|TestALostStoreIsRefused|TestFenceAndSeedBelongToTheStore|TestTamperingWithTheUnsignedTail|" +
	"TestTamperingWithTheHubIsFound|TestALogSignsAgainWhatTheHubHas|TestALogThatIsNotWhatTheHubSaysIsNotSigned|TestAForkedTailIsNotExtended|TestADamagedContentFailsOnlyItsRetry|TestFsckOfRuins|TestTheScrubFindsDamageAtRest|" +
	"TestADamagedLogFailsNobodyElse|TestAnIndexOfAnotherHistoryIsNotBelieved|TestWhatIsGoneIsNotFound|" +
	"TestAnUnreadableEventIsReportedOnce|TestAStartWithoutAnIndexRefusesNothing|TestADamagedIndexIsAnErrorAndNoAnswer|TestTheFollowerDropsADamagedIndex|" +
	"TestWhatIsPutBackIsNotShown|TestWhatIsMissingWithoutAnEventIsDamage|TestCreateLogIsFinishedWithoutItsClient|TestALogHasNoKeysButItsOwn|TestFsckOfAWrongVerifierKey|TestARecheckFindsTamperingInItsRange|TestManyCheckpointsAreAllChecked|TestALogWhoseEndIsLostIsFollowed|TestCopy.*)$"

// TestMain runs all tests on the embedded store, or on PostgreSQL.
func TestMain(m *testing.M) { pgtest.Either(m, &onPostgres, onlySQLite) }

// testService is a service on a store of the test's own, with faults on demand.
type testService struct {
	*log.Service
	t        testing.TB
	dir      string
	url      string // of a PostgreSQL store
	lanes    int
	signing  time.Duration // how often; 0: very
	store    *faultStore
	seed     checkpoint.Seed
	pinned   note.Verifier        // for fsck; nil: the one that testSeed derives
	clock    atomic.Int64         // µs to add to the system's clock
	logs     lockedBuffer         // what the service logged
	registry *prometheus.Registry // of the service's metrics
	noIndex  bool                 // when opened
	holding  *holding             // of drops of the index, when opened; nil: none
	replica  *replica             // nil: none
	mldsa    bool                 // when opened
	noKeys   bool                 // when opened
	hub      bool                 // when opened: keep a hub, public
	hubID    log.ID               // for those who tamper
	system   bool                 // when opened: keep a system log
	unasked  bool                 // when opened: the hub's witnesses are not asked yet
	cooling  time.Duration        // when opened: how long changes of a policy wait
	approval bool                 // when opened: and whether they are to be approved

	policy   *checkpoint.Policy // nil: no witnesses
	failOpen bool
	accept   map[string]uint64
}

// holding keeps those who come from going on.
type holding struct {
	held    atomic.Int64
	release chan struct{}
}

func (h *holding) wait() {
	h.held.Add(1)
	<-h.release
}

// newTestService opens a service in an empty directory, with a log named "default".
func newTestService(t testing.TB) *testService {
	t.Helper()
	s := &testService{t: t, dir: t.TempDir(), seed: testSeed}
	if onPostgres {
		s.url = migrated(t)
	}
	s.open()
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *testService) path() string { return filepath.Join(s.dir, "treeline.db") }

func (s *testService) open() {
	s.t.Helper()
	if err := s.tryOpen(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *testService) tryOpen() error {
	store, err := s.openStore()
	if err != nil {
		return err
	}
	s.store = &faultStore{Store: store, holding: s.holding, tries: make(chan time.Time, 4)}
	s.store.noIndex.Store(s.noIndex)
	s.store.noKeys = s.noKeys
	var openReplica func(context.Context) (log.Reader, error)
	if s.replica != nil {
		s.replica.Reader = store
		openReplica = s.replica.open
	}
	s.registry = prometheus.NewRegistry()
	service, err := log.Open(context.Background(), log.Config{
		Replica: openReplica,
		Store:   s.store, Seed: s.seed, Fence: s.fence(), Prefix: "test.example", Interval: cmp.Or(s.signing, 10*time.Millisecond),
		Logger: slog.New(slog.NewTextHandler(&s.logs, nil)), Metrics: s.registry,
		Lanes: s.lanes, Shared: onPostgres, MLDSA: s.mldsa, Hub: s.hub, HubPublic: s.hub, System: s.system,
		RetentionCoolingOff: s.cooling, RetentionApproval: s.approval,
		Policy: s.policy, FailOpen: s.failOpen, AcceptClaims: s.accept, AcceptedBy: byOperator,
		Now: func() time.Time { return time.Now().Add(time.Duration(s.clock.Load()) * time.Microsecond) },
	})
	if err != nil {
		store.Close()
		return err
	}
	s.Service = service
	s.t.Cleanup(s.close)
	if hub := s.Log(log.HubName); hub != nil && !s.unasked {
		hub.Asked(nil) // by whoever plays the feeder
	}
	return nil
}

func (s *testService) openStore() (log.Store, error) {
	if onPostgres {
		return postgres.Open(context.Background(), postgres.Options{URL: s.url})
	}
	return sqlite.Open(context.Background(), s.path())
}

// openReader opens the store as a checker does.
func (s *testService) openReader() log.Store {
	s.t.Helper()
	var store log.Store
	var err error
	if onPostgres {
		store, err = postgres.OpenReadOnly(s.t.Context(), postgres.Options{URL: s.url, Unhurried: true})
	} else {
		store, err = sqlite.OpenReadOnly(s.t.Context(), s.path())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return store
}

// migrated returns the URL of a new PostgreSQL database with a schema.
func migrated(t testing.TB) string {
	t.Helper()
	url := pgtest.Database(t)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return url
}

func (s *testService) fence() checkpoint.Fence {
	s.t.Helper()
	fence, err := checkpoint.OpenFileFence(filepath.Join(s.dir, "fence"))
	if err != nil {
		s.t.Fatal(err)
	}
	return fence
}

func (s *testService) close() {
	if s.Service != nil {
		s.Service.Close()
		s.store.Close()
		s.Service = nil
	}
}

func (s *testService) log() *log.Log { return s.Log("default") }

// append appends one event with the id and fails the test if that fails.
func (s *testService) append(id string) log.Place {
	s.t.Helper()
	places, err := s.log().Append(s.t.Context(), []*log.Event{event(s.t, id, "x")})
	if err != nil {
		s.t.Fatalf("appending %s: %v", id, err)
	}
	return places[0]
}

// signed waits until everything is signed.
func (s *testService) signed() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	if err := s.log().Wait(ctx, s.log().Sizes().Size, log.StateSigned); err != nil {
		s.t.Fatalf("waiting for a checkpoint: %v (stopped: %v)", err, s.log().Stopped())
	}
}

// hold keeps every batch from its transaction until the returned function is called.
func (s *testService) hold() (release func()) {
	gate := make(chan struct{})
	s.store.hold.Store(&gate)
	return func() { close(gate) }
}

// holdPublisher keeps the publisher from its next round until the returned function is called.
func (s *testService) holdPublisher() (release func()) {
	gate := make(chan struct{})
	s.store.holdHead.Store(&gate)
	return func() { close(gate) }
}

// untilHeld waits until a batch is held.
func (s *testService) untilHeld() {
	s.t.Helper()
	s.until("a batch to be held", func() bool { return s.store.held.Load() > 0 })
}

// untilQueued waits until n events wait for a batch.
func (s *testService) untilQueued(n int) {
	s.t.Helper()
	s.until(fmt.Sprintf("%d events to be queued", n), func() bool { return s.Queued() == n })
}

func (s *testService) until(what string, reached func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !reached(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// check re-verifies everything in the store.
func (s *testService) check() *log.FsckReport {
	s.t.Helper()
	r := s.fsck()
	if len(r.Problems) > 0 {
		s.t.Fatalf("fsck: %+v", r.Problems)
	}
	return r
}

func (s *testService) fsck() *log.FsckReport {
	s.t.Helper()
	store := s.openReader()
	defer store.Close()
	infos, err := store.Logs(s.t.Context())
	if err != nil || len(infos) == 0 {
		s.t.Fatalf("logs: got %d, %v", len(infos), err)
	}
	pinned := s.pinned
	if pinned == nil {
		pinned = verifier(s.t, infos[0].Origin)
	}
	r, err := log.Fsck(s.t.Context(), store, infos[0], log.FsckOptions{Verifiers: []note.Verifier{pinned}, Fence: s.fence()})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func verifier(t testing.TB, origin string) note.Verifier {
	t.Helper()
	_, vkey, err := testSeed.Ed25519(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// event returns an event with the id, "" for one that the server makes, whose content varies with text.
func event(t testing.TB, id, text string) *log.Event {
	t.Helper()
	idMember := ""
	if id != "" {
		idMember = fmt.Sprintf(`"id":%q,`, id)
	}
	e, err := log.ParseEvent(fmt.Appendf(nil, `{%s"action":"test.done","metadata":{"text":%q}}`, idMember, text), harnessOptions())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var madeIDs atomic.Uint64

func harnessOptions() log.ParseOptions {
	return log.ParseOptions{
		Now: time.Now(), Credential: "test",
		NewID: func() string { return fmt.Sprint("made-", madeIDs.Add(1)) },
	}
}

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var errInjected = errors.New("injected fault")

// faultStore is a store whose write transactions can be made to fail.
type faultStore struct {
	log.Store
	// fault, if set, is asked once for each step of a transaction: "append", "before commit", "after commit".
	fault atomic.Pointer[func(step string) bool]
	// hold, if set, is waited for before each transaction begins; held counts those that wait or did.
	hold atomic.Pointer[chan struct{}]
	held atomic.Int64
	// noIndex makes writing the search index fail.
	noIndex atomic.Bool
	// listed changes what segments the search index is said to have.
	listed atomic.Pointer[func([]index.Meta)]
	tries  chan time.Time // when writing it was tried; full of the first ones
	// noKeys makes adding a verifier key fail.
	noKeys bool
	// holdHead, if set, is waited for before a head is read outside a transaction, as the publisher does.
	holdHead atomic.Pointer[chan struct{}]
	holding  *holding // of drops of the index; nil: none
}

func (s *faultStore) DropIndex(ctx context.Context, id log.ID) error {
	if s.holding != nil {
		s.holding.wait()
	}
	return s.Store.DropIndex(ctx, id)
}

func (s *faultStore) Head(ctx context.Context, id log.ID) (log.Head, error) {
	if h := s.holdHead.Load(); h != nil {
		<-*h
	}
	return s.Store.Head(ctx, id)
}

// readKey is the key of a context's value that is told of reads of entries and contents: how many rows, and when that is done.
type readKey struct{}

func reading(ctx context.Context, rows uint64) (done func()) {
	if fn, ok := ctx.Value(readKey{}).(func(uint64) func()); ok {
		return fn(rows)
	}
	return func() {}
}

func (s *faultStore) Entries(ctx context.Context, id log.ID, from, to uint64, fn func([]byte) error) error {
	defer reading(ctx, to-from)()
	return s.Store.Entries(ctx, id, from, to, fn)
}

func (s *faultStore) Payloads(ctx context.Context, id log.ID, from, to uint64, fn func(uint64, log.Payload) error) error {
	defer reading(ctx, to-from)()
	return s.Store.Payloads(ctx, id, from, to, fn)
}

func (s *faultStore) Purge(ctx context.Context, id log.ID, spans []log.Span) error {
	if s.fails("purge") {
		return errInjected
	}
	return s.Store.Purge(ctx, id, spans)
}

func (s *faultStore) Reduce(ctx context.Context, id log.ID, contents []log.Reduced) error {
	if s.fails("reduce") {
		return errInjected
	}
	return s.Store.Reduce(ctx, id, contents)
}

func (s *faultStore) AddVKey(ctx context.Context, id log.ID, vkey string) error {
	if s.noKeys {
		return errInjected
	}
	return s.Store.AddVKey(ctx, id, vkey)
}

func (s *faultStore) WriteIndex(ctx context.Context, id log.ID, from, to log.Indexed, drop []index.Meta, add []*index.Segment) error {
	select {
	case s.tries <- time.Now():
	default:
	}
	if s.noIndex.Load() {
		return errInjected
	}
	return s.Store.WriteIndex(ctx, id, from, to, drop, add)
}

func (s *faultStore) Segments(ctx context.Context, id log.ID) ([]index.Meta, error) {
	metas, err := s.Store.Segments(ctx, id)
	if change := s.listed.Load(); change != nil {
		(*change)(metas)
	}
	return metas, err
}

func (s *faultStore) fails(step string) bool {
	f := s.fault.Load()
	return f != nil && (*f)(step)
}

func (s *faultStore) Begin(ctx context.Context, logs []log.ID) (log.Tx, error) {
	if h := s.hold.Load(); h != nil {
		s.held.Add(1)
		<-*h
	}
	tx, err := s.Store.Begin(ctx, logs)
	return &faultTx{tx, s}, err
}

type faultTx struct {
	log.Tx
	s *faultStore
}

func (t *faultTx) Append(batches []*log.Batch) error {
	if t.s.fails("append") {
		return errInjected
	}
	return t.Tx.Append(batches)
}

func (t *faultTx) Commit() error {
	if t.s.fails("before commit") {
		t.Rollback()
		return errInjected
	}
	if err := t.Tx.Commit(); err != nil {
		return err
	}
	if t.s.fails("after commit") {
		return errInjected
	}
	return nil
}

// chained returns the batch that appends one event with the id after head, as another server would.
func chained(t *testing.T, l log.ID, head log.Head, id string) *log.Batch {
	t.Helper()
	e := event(t, id, "x")
	seed := [32]byte{1}
	entry := log.Entry{ReceivedAt: max(head.ReceivedAt, time.Now().UnixMicro()), Previous: head.Last, Digest: e.Digest(&seed)}
	edge, err := merkle.ResumeRange(head.Size, head.Edge)
	if err != nil {
		t.Fatal(err)
	}
	edge.Append(entry.LeafHash(), nil)
	return &log.Batch{
		Log: l, From: head.Size,
		Head:    log.Head{Size: head.Size + 1, ReceivedAt: entry.ReceivedAt, Last: entry.LeafHash(), Edge: edge.Hashes()},
		Entries: entry.Append(nil),
		Rows:    []log.Row{{ID: id, Payload: log.Payload{Seed: seed[:], Data: append([]byte{0}, e.JSON()...)}}},
	}
}
