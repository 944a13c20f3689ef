package log_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/sqlite"
)

// A database that fails over to a standby that lagged is the same store, to a server that runs on, with less in it. The tests here
// set back an embedded store in the same way, under services that believe that it is shared.

// address is what a store's name leads to: another store from one moment to the next.
type address struct {
	store   atomic.Pointer[log.Store]
	away    atomic.Bool            // nothing is learned
	started atomic.Int64           // how often the store was started
	foreign atomic.Pointer[string] // name of a log whose keys are of another seed
}

func (a *address) lead(to log.Store) { a.store.Store(&to) }
func (a *address) now() log.Store    { return *a.store.Load() }

// addressed is a store behind an address.
type addressed struct {
	log.Store // what isn't about a log's record
	*address
}

func (s addressed) Incarnation(context.Context) (string, error) {
	if s.away.Load() {
		return "", log.ErrUnreachable
	}
	return fmt.Sprint(s.started.Load()), nil
}

func (s addressed) Logs(ctx context.Context) ([]log.Info, error) {
	infos, err := s.now().Logs(ctx)
	for i := range infos {
		if name := s.foreign.Load(); name != nil && infos[i].Name == *name {
			infos[i].VKeys = []string{"foreign"}
		}
	}
	return infos, err
}

func (s addressed) Head(ctx context.Context, id log.ID) (log.Head, error) {
	return s.now().Head(ctx, id)
}

func (s addressed) Sizes(ctx context.Context) (map[log.ID]uint64, error) { return s.now().Sizes(ctx) }

func (s addressed) Begin(ctx context.Context, ids []log.ID) (log.Tx, error) {
	return s.now().Begin(ctx, ids)
}

func (s addressed) Entries(ctx context.Context, id log.ID, from, to uint64, fn func([]byte) error) error {
	return s.now().Entries(ctx, id, from, to, fn)
}

func (s addressed) Payloads(ctx context.Context, id log.ID, from, to uint64, fn func(uint64, log.Payload) error) error {
	return s.now().Payloads(ctx, id, from, to, fn)
}

func (s addressed) Find(ctx context.Context, id log.ID, event string) (uint64, error) {
	return s.now().Find(ctx, id, event)
}

func (s addressed) Checkpoint(ctx context.Context, id log.ID, size uint64) (log.Signed, error) {
	return s.now().Checkpoint(ctx, id, size)
}

func (s addressed) Record(ctx context.Context, id log.ID, c log.Signed) error {
	return s.now().Record(ctx, id, c)
}

// heldFence is a fence that can be away.
type heldFence struct {
	checkpoint.Fence
	away atomic.Bool
}

func (f *heldFence) Load(ctx context.Context, origin string) ([]byte, error) {
	if f.away.Load() {
		return nil, errInjected
	}
	return f.Fence.Load(ctx, origin)
}

// installation is a store and a fence for several servers.
type installation struct {
	t     *testing.T
	dir   string
	first log.Store
	fence checkpoint.Fence
}

// member is one of the servers, with its own way to the store and to the fence.
type member struct {
	*log.Service
	t     *testing.T
	at    *address
	fence *heldFence
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	i := &installation{t: t, dir: t.TempDir()}
	fence, err := checkpoint.OpenFileFence(filepath.Join(i.dir, "fence"))
	if err != nil {
		t.Fatal(err)
	}
	i.fence, i.first = fence, i.openStore("store.db")
	return i
}

func (i *installation) openStore(name string) log.Store {
	i.t.Helper()
	store, err := sqlite.Open(context.Background(), filepath.Join(i.dir, name))
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { store.Close() })
	return store
}

// backup opens a copy of the store as it is now.
func (i *installation) backup() log.Store {
	i.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(i.dir, "store.db"))
	if err == nil {
		defer db.Close()
		_, err = db.Exec(`VACUUM INTO ?`, filepath.Join(i.dir, "backup.db"))
	}
	if err != nil {
		i.t.Fatal(err)
	}
	return i.openStore("backup.db")
}

// serve opens a server on a store.
func (i *installation) serve(store log.Store) *member {
	i.t.Helper()
	m := &member{t: i.t, at: &address{}, fence: &heldFence{Fence: i.fence}}
	m.at.lead(store)
	var err error
	m.Service, err = log.Open(context.Background(), log.Config{
		Store: addressed{store, m.at}, Seed: testSeed, Fence: m.fence, Prefix: "test.example", Interval: 10 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Shared: true,
	})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(m.Close)
	return m
}

// log returns the log that all tests have.
func (m *member) log() *log.Log { return m.Log("default") }

func (m *member) tryAppend(id string) error {
	_, err := m.log().Append(m.t.Context(), []*log.Event{event(m.t, id, "x")})
	return err
}

func (m *member) append(id string) {
	m.t.Helper()
	if err := m.tryAppend(id); err != nil {
		m.t.Fatalf("appending %s: %v", id, err)
	}
}

func (m *member) until(what string, reached func() bool) {
	m.t.Helper()
	(&testService{t: m.t}).until(what, reached)
}

// knows waits until the server knows a size.
func (m *member) knows(size uint64) {
	m.t.Helper()
	m.until("a size to be known", func() bool { return m.log().Sizes().Size >= size })
}

// signed waits until the server knows that a size is signed.
func (m *member) signed(size uint64) {
	m.t.Helper()
	m.until("a size to be signed", func() bool { return m.log().Sizes().Signed >= size })
}

// stops waits until the server has stopped the log, and checks what it still does: it takes nothing, and shows what is left, with
// proofs as far as that was signed.
func (m *member) stops(why string, left, signed uint64) {
	m.t.Helper()
	l := m.log()
	m.until("the log to be stopped: "+why, func() bool { return l.Stopped() != nil })
	if !regexp.MustCompile(why).MatchString(l.Stopped().Error()) {
		m.t.Errorf("stopped for %v, want %q", l.Stopped(), why)
	}
	if err := m.Ready(m.t.Context()); err == nil {
		m.t.Error("ready with a log that is stopped")
	}
	if err := m.tryAppend("late"); !errors.Is(err, log.ErrStopped) {
		m.t.Errorf("appending: %v, want ErrStopped", err)
	}
	m.until("the sizes of what is left", func() bool { return l.Sizes() == log.Sizes{Size: left, Signed: signed, Released: signed} })
	if records, err := l.Records(m.t.Context(), 0, left, 1<<20); err != nil || uint64(len(records)) != left {
		m.t.Errorf("reading: %d records, %v; want %d", len(records), err, left)
	}
	if _, err := l.Proof(m.t.Context(), 0); err != nil {
		m.t.Errorf("a proof of what is left: %v", err)
	}
}

func TestAStoreThatIsSetBackUnderItsServersIsNoticed(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, a, b *member, setBack func()){
		"signed entries are gone": func(t *testing.T, a, b *member, setBack func()) {
			a.append("lost")
			a.signed(2)
			b.signed(2)
			newest, _ := a.fence.Load(t.Context(), a.log().Origin)
			setBack()
			a.stops("rollback", 1, 1) // though nobody appends
			b.stops("rollback", 1, 1)
			if got, _ := a.fence.Load(t.Context(), a.log().Origin); string(got) != string(newest) {
				t.Errorf("the fence was moved to\n%s", got)
			}
			if c, err := a.at.now().Checkpoint(t.Context(), a.log().ID, 9); err != nil || c.Size != 1 {
				t.Errorf("the store's checkpoint: %+v, %v", c, err)
			}
		},
		"what another server has signed is gone": func(t *testing.T, a, b *member, setBack func()) {
			b.at.away.Store(true)
			time.Sleep(50 * time.Millisecond) // what it was about to learn
			a.append("lost")
			a.signed(2)
			if size := b.log().Sizes().Size; size != 1 {
				t.Fatalf("it has learned of size %d", size)
			}
			setBack()
			b.at.started.Add(1)
			b.at.away.Store(false)
			b.stops("rollback", 1, 1)
		},
		"acknowledged entries are gone": func(t *testing.T, a, b *member, setBack func()) {
			a.fence.away.Store(true) // nothing is signed
			b.fence.away.Store(true)
			a.append("lost")
			b.knows(2)
			setBack()
			a.fence.away.Store(false)
			b.fence.away.Store(false)
			// By its head, or by whoever reads the entries first.
			a.stops("the store('s head is at 1| is damaged)", 1, 1)
			b.stops("the store('s head is at 1| is damaged)", 1, 1) // though another one has acknowledged them
		},
		"an append doesn't take the place of what is gone": func(t *testing.T, a, b *member, setBack func()) {
			a.fence.away.Store(true)
			b.fence.away.Store(true)
			a.append("lost")
			b.knows(2)
			setBack()
			if err := b.tryAppend("usurper"); !errors.Is(err, log.ErrStopped) {
				t.Errorf("appending: %v, want ErrStopped", err)
			}
		},
		"a log is gone": func(t *testing.T, a, b *member, setBack func()) {
			if _, err := a.CreateLog(t.Context(), log.ByServer(), "lost", log.Settings{}); err != nil {
				t.Fatal(err)
			}
			b.until("the log to be known", func() bool { return b.Log("lost") != nil })
			setBack()
			for _, m := range []*member{a, b} {
				m.until("the log to be stopped", func() bool { return m.Log("lost").Stopped() != nil })
				if m.log().Stopped() != nil {
					t.Errorf("the log that is intact is stopped: %v", m.log().Stopped())
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := newInstallation(t)
			a := i.serve(i.first)
			if _, err := a.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
				t.Fatal(err)
			}
			b := i.serve(i.first)
			a.append("kept")
			a.signed(1)
			b.signed(1)
			copied := i.backup()
			test(t, a, b, func() {
				a.at.lead(copied)
				b.at.lead(copied)
			})
		})
	}
}

// A log that a server can't open doesn't keep it from those that were made later, nor from what else it has to learn.
func TestALogThatCantBeOpenedHidesNoOther(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	a, b := i.serve(i.first), i.serve(i.first)
	foreign := "foreign"
	b.at.foreign.Store(&foreign)
	for _, name := range []string{foreign, "later"} {
		if _, err := a.CreateLog(t.Context(), log.ByServer(), name, log.Settings{}); err != nil {
			t.Fatal(err)
		}
	}
	if l := b.Lookup(t.Context(), "later"); l == nil {
		t.Error("the later log isn't there")
	}
	if l := b.Lookup(t.Context(), foreign); l != nil {
		t.Error("a log is there whose keys are of another seed")
	}
	b.at.foreign.Store(nil)
	if l := b.Lookup(t.Context(), foreign); l == nil {
		t.Error("the log isn't there though it can be opened now")
	}
}

// A server finds that what it acknowledged isn't there though another one, which knew nothing of it, has filled the place, gone on
// and signed.
func TestAServerRemembersWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	i := newInstallation(t)
	a := i.serve(i.first)
	if _, err := a.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	a.append("kept")
	a.signed(1)
	copied := i.backup()
	a.fence.away.Store(true)
	a.append("lost")

	b := i.serve(copied)
	b.append("usurper")
	b.append("next")
	b.signed(3)
	a.at.lead(copied)
	a.fence.away.Store(false)
	a.until("the log to be stopped", func() bool { return a.log().Stopped() != nil })
	if err := a.log().Stopped(); !strings.Contains(err.Error(), "it was acknowledged with") {
		t.Errorf("stopped for %v", err)
	}
}

// lonely is a store on which half of the transactions see a log's head where this server left it, whoever has appended since: as if
// heads were cached by a server that believes itself alone.
type lonely struct {
	log.Store
	mu    sync.Mutex
	heads map[log.ID]log.Head
	stale int // heads that were shown and weren't true
}

func (s *lonely) Begin(ctx context.Context, ids []log.ID) (log.Tx, error) {
	tx, err := s.Store.Begin(ctx, ids)
	return &lonelyTx{Tx: tx, s: s, believe: rand.IntN(2) == 0}, err
}

type lonelyTx struct {
	log.Tx
	s       *lonely
	believe bool
	moved   []*log.Batch
}

func (t *lonelyTx) Head(id log.ID) (log.Head, error) {
	head, err := t.Tx.Head(id)
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	if old, ok := t.s.heads[id]; ok && t.believe && err == nil {
		if old.Size != head.Size {
			t.s.stale++
		}
		return old, nil
	}
	return head, err
}

func (t *lonelyTx) Append(batches []*log.Batch) error {
	t.moved = batches
	return t.Tx.Append(batches)
}

func (t *lonelyTx) Commit() error {
	err := t.Tx.Commit()
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	for _, b := range t.moved {
		if err == nil {
			t.s.heads[b.Log] = b.Head
		}
	}
	return err
}

// Nothing but the condition on the head keeps a log from forking, and that is enough: servers that believe themselves alone, on a
// database that shows them stale heads, append to one log without losing, changing or exchanging what they acknowledge.
func TestAServerThatBelievesItselfAloneCantFork(t *testing.T) {
	if !onPostgres {
		t.Skip("a SQLite store has one server, whatever that believes")
	}
	s := newTestService(t) // for what it makes, and for fsck
	var services []*log.Service
	var stores []*lonely
	fence := &heldFence{Fence: s.fence()}
	for range 2 {
		store, err := postgres.Open(t.Context(), postgres.Options{URL: s.url})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		stores = append(stores, &lonely{Store: store, heads: make(map[log.ID]log.Head)})
		service, err := log.Open(t.Context(), log.Config{
			Store: stores[len(stores)-1], Seed: testSeed, Fence: fence, Prefix: "test.example", Interval: 10 * time.Millisecond,
			Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(service.Close)
		services = append(services, service)
	}
	fence.away.Store(true) // from a checkpoint of another server they would learn that their head is stale, and stop
	var mu sync.Mutex
	places := make(map[string]log.Place)
	refused := 0
	var wg sync.WaitGroup
	for n, service := range services {
		for w := range 3 {
			wg.Go(func() {
				for k := range 40 {
					var events []*log.Event
					for e := range 1 + k%3 {
						events = append(events, event(t, fmt.Sprintf("e-%d-%d-%d-%d", n, w, k, e), "x"))
					}
					got, err := service.Log("default").Append(context.Background(), events)
					mu.Lock()
					if errors.Is(err, log.ErrUnavailable) && errors.Is(err, log.ErrHeadMoved) {
						refused++
					} else if err != nil {
						t.Error(err)
					}
					for i := range got {
						places[events[i].ID()] = got[i]
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	fence.away.Store(false)
	stale := stores[0].stale + stores[1].stale
	t.Logf("%d events, %d stale heads, %d requests refused", len(places), stale, refused)
	if stale < 5 || len(places) < 50 {
		t.Errorf("%d stale heads and %d events prove nothing", stale, len(places))
	}
	l := s.log()
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	records, err := l.Records(t.Context(), 0, l.Sizes().Size, 1<<30)
	if err != nil || len(records) != len(places) {
		t.Errorf("%d records, %v; %d were acknowledged", len(records), err, len(places))
	}
	for _, r := range records {
		if p := places[r.ID]; p.Index != r.Index || p.Hash != r.Hash {
			t.Errorf("%s stands at %d with %v, it was acknowledged at %d with %v", r.ID, r.Index, r.Hash, p.Index, p.Hash)
		}
	}
	s.signed()
	if r := s.check(); r.Signed != uint64(len(places)) {
		t.Errorf("%d of %d events are signed", r.Signed, len(places))
	}
}
