package postgres_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/log/storetest"
)

// service is a log.Service on a store, which may be behind something, with a log named "default".
type service struct {
	*log.Service
	t      *testing.T
	store  *postgres.Store
	fence  checkpoint.Fence
	direct string // URL of the database, without what is between
}

var serviceSeed = checkpoint.Seed{7}

// serve opens a service on the store that o says. Its database is also at the URL direct.
func serve(t *testing.T, direct string, o postgres.Options) *service {
	t.Helper()
	fence, err := checkpoint.OpenFileFence(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, fence: fence, direct: direct}
	s.open(o)
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *service) open(o postgres.Options) {
	s.t.Helper()
	store, err := postgres.Open(s.t.Context(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.Service, err = log.Open(s.t.Context(), log.Config{
		Store: store, Seed: serviceSeed, Fence: s.fence, Prefix: "test.example", Interval: 10 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Lanes: 2, Shared: true,
	})
	if err != nil {
		store.Close()
		s.t.Fatal(err)
	}
	s.store = store
	opened := s.Service
	s.t.Cleanup(func() {
		opened.Close()
		store.Close()
	})
}

// append appends an event with each id.
func (s *service) append(ids ...string) ([]log.Place, error) {
	s.t.Helper()
	var events []*log.Event
	for _, id := range ids {
		e, err := log.ParseEvent(fmt.Appendf(nil, `{"id":%q,"action":"test.done"}`, id), log.ParseOptions{Now: time.Now()})
		if err != nil {
			s.t.Fatal(err)
		}
		events = append(events, e)
	}
	return s.Log("default").Append(s.t.Context(), events)
}

// signed waits until everything is signed.
func (s *service) signed() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	l := s.Log("default")
	if err := l.Refresh(ctx); err != nil {
		s.t.Fatal(err)
	}
	if err := l.Wait(ctx, l.Sizes().Size, log.StateSigned); err != nil {
		s.t.Fatalf("waiting for a checkpoint: %v (stopped: %v)", err, l.Stopped())
	}
}

// holds checks that the log has these events, each once and in this order, and that everything in the store is as it should be.
func (s *service) holds(ids ...string) {
	s.t.Helper()
	s.signed()
	store, err := postgres.OpenReadOnly(s.t.Context(), postgres.Options{URL: s.direct})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	info := s.Log("default").Info
	for i, id := range ids {
		if index, err := store.Find(s.t.Context(), info.ID, id); err != nil || index != uint64(i) {
			s.t.Errorf("event %s is at %d, %v; want %d", id, index, err, i)
		}
	}
	verifier, err := note.NewVerifier(info.VKeys[0])
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := log.Fsck(s.t.Context(), store, info, log.FsckOptions{Verifiers: []note.Verifier{verifier}, Fence: s.fence})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(r.Problems) > 0 || r.Size != uint64(len(ids)) {
		s.t.Fatalf("fsck: %d events, want %d; %+v", r.Size, len(ids), r.Problems)
	}
}

// What can be cut of a transaction that appends, step by step.
var (
	atBegin     = pgtest.Step{Kind: 'Q', Text: "BEGIN"}
	atLock      = pgtest.Step{Kind: 'P', Text: "FOR UPDATE"}
	atFind      = pgtest.Step{Kind: 'P', Text: "FROM ids"}
	atMoveHeads = pgtest.Step{Kind: 'P', Text: "UPDATE heads SET size"}
	atCopyIDs   = pgtest.Step{Kind: 'Q', Text: "COPY ids"}
	atContents  = pgtest.Step{Kind: 'Q', Text: "COPY payloads"}
	atData      = pgtest.Step{Kind: 'd', After: "COPY ids"}
	atMoreData  = pgtest.Step{Kind: 'd', After: "COPY payloads"}
	atCopyDone  = pgtest.Step{Kind: 'c', After: "COPY ids"}
	atLastDone  = pgtest.Step{Kind: 'c', After: "COPY payloads"}
	atNodes     = pgtest.Step{Kind: 'P', Text: "INSERT INTO nodes"}
	atCommit    = pgtest.Step{Kind: 'Q', Text: "COMMIT", After: "FOR UPDATE"}
)

func TestAnAppendThatIsCutAnywhereIsThereOnceAfterARetry(t *testing.T) {
	t.Parallel()
	direct := migrated(t)
	proxy, url := behind(t, direct)
	svc := serve(t, direct, postgres.Options{URL: url, Pooler: true}) // the proxy knows steps by the text of statements
	var all []string
	for _, step := range []struct {
		name string
		at   pgtest.Step
		n    int   // events
		want error // of the append; nil: it succeeds, since nothing was lost yet
	}{
		{"begin", atBegin, 3, nil},
		{"lock", atLock, 3, log.ErrUnavailable},
		{"find", atFind, 3, log.ErrUnavailable},
		{"move heads", atMoveHeads, 3, log.ErrUnavailable},
		{"copy ids", atCopyIDs, 300, log.ErrUnavailable},
		{"copy contents", atContents, 300, log.ErrUnavailable},
		{"data", atData, 300, log.ErrUnavailable},
		{"more data", atMoreData, 300, log.ErrUnavailable},
		{"copy done", atCopyDone, 300, log.ErrUnavailable},
		{"last copy done", atLastDone, 300, log.ErrUnavailable},
		{"nodes", atNodes, 256, log.ErrUnavailable},
		{"commit", atCommit, 3, log.ErrOutcomeUnknown},
	} {
		times := [][]pgtest.Fault{{pgtest.LoseRequest}, {pgtest.LoseAnswer}, {pgtest.HalveAnswer}}
		if step.at == atCommit { // which may have been applied the first time or the second
			times = append(times, []pgtest.Fault{pgtest.LoseRequest, pgtest.LoseAnswer}, []pgtest.Fault{pgtest.LoseAnswer, pgtest.LoseRequest},
				[]pgtest.Fault{pgtest.LoseAnswer, pgtest.LoseAnswer}, []pgtest.Fault{pgtest.LoseRequest, pgtest.LoseRequest})
		}
		for _, faults := range times {
			svc.signed() // so that the publisher doesn't come to the step
			var batch []string
			for range step.n {
				batch = append(batch, fmt.Sprint("event-", len(all)))
				all = append(all, batch[len(batch)-1])
			}
			proxy.Cut(step.at, faults...)
			applied := false
			for proxy.Pending() > 0 {
				lost := faults[len(faults)-proxy.Pending()] == pgtest.LoseRequest
				_, err := svc.append(batch...)
				if !errors.Is(err, step.want) || step.want != log.ErrOutcomeUnknown && errors.Is(err, log.ErrOutcomeUnknown) {
					t.Fatalf("%s, %v: got %v, want %v", step.name, faults, err, step.want)
				}
				applied = applied || err == nil || step.at == atCommit && !lost
			}
			places, err := svc.append(batch...)
			if err != nil {
				t.Fatalf("%s, %v: sending it again: %v", step.name, faults, err)
			}
			for i, p := range places {
				if want := uint64(len(all) - len(batch) + i); p.Index != want || p.Duplicate != applied {
					t.Fatalf("%s, %v: event %d is at %d, duplicate %t; want %d, %t", step.name, faults, i, p.Index, p.Duplicate, want, applied)
				}
			}
		}
	}
	svc.holds(all...)
}

// at parses a URL.
func at(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// behind starts a proxy for the server of a database, and returns the database's URL by way of it.
func behind(t *testing.T, direct string) (*pgtest.Proxy, string) {
	t.Helper()
	u := at(t, direct)
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	proxy := pgtest.NewProxy(t, port)
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(proxy.Port))
	return proxy, u.String()
}

// impatient are parameters of a URL that let the server and the client give up a silent connection soon.
const impatient = "&statement_timeout=500&idle_in_transaction_session_timeout=500"

// A connection that falls silent while it stays open is given up in a while, by the server as well, and the lane goes on.
func TestALaneRecoversFromSilence(t *testing.T) {
	for _, step := range []struct {
		name  string
		at    pgtest.Step
		fault pgtest.Fault
		want  error
	}{
		{"lock, not asked for", atLock, pgtest.HoldRequest, log.ErrUnavailable},
		{"heads moved, not told", atMoveHeads, pgtest.HoldAnswer, log.ErrUnavailable},
		{"copied, not told", atLastDone, pgtest.HoldAnswer, log.ErrUnavailable},
		{"commit, not asked for", atCommit, pgtest.HoldRequest, log.ErrOutcomeUnknown},
		{"committed, not told", atCommit, pgtest.HoldAnswer, log.ErrOutcomeUnknown},
	} {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			direct := migrated(t)
			proxy, url := behind(t, direct)
			svc := serve(t, direct, postgres.WithGrace(postgres.Options{URL: url + impatient, Pooler: true}, 500*time.Millisecond))
			if _, err := svc.append("a"); err != nil {
				t.Fatal(err)
			}
			svc.signed()
			var batch []string // so many that they are copied
			for i := range 300 {
				batch = append(batch, fmt.Sprint("b", i))
			}
			proxy.Cut(step.at, step.fault)
			began := time.Now()
			if _, err := svc.append(batch...); !errors.Is(err, step.want) {
				t.Fatalf("got %v, want %v", err, step.want)
			}
			if took := time.Since(began); took < 900*time.Millisecond || took > 10*time.Second {
				t.Errorf("the connection was given up after %v, want 1s", took)
			}
			var err error
			for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
				if _, err = svc.append(append(batch, "c")...); err == nil { // once the server has given up the old transaction
					break
				}
			}
			if err != nil {
				t.Fatalf("the lane doesn't recover: %v", err)
			}
			svc.holds(append(append([]string{"a"}, batch...), "c")...)
		})
	}
}

// All connections of a pool fall silent when the network is cut. It isn't paid for one after the other.
func TestSilenceIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	proxy, url := behind(t, migrated(t))
	s, err := postgres.Open(t.Context(), postgres.WithGrace(postgres.Options{URL: url + impatient, Lanes: 16}, 500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info := storetest.CreateLog(t, s, "default")
	var open []log.Tx
	for range 18 {
		tx, err := s.Begin(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, tx)
	}
	for _, tx := range open {
		tx.Rollback()
	}
	proxy.Silence()
	began := time.Now()
	for attempt := 0; ; attempt++ {
		tx, err := s.Begin(t.Context(), []log.ID{info.ID})
		if err == nil {
			tx.Rollback()
			break
		}
		if attempt == 18 {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("it took %v until a transaction began again, want one second", took)
	}
}

// A server that waits for the data of a COPY minds no timeout of its own. It holds the heads until it finds that nobody is there.
func TestTheServerLooksWhetherItsClientIsThere(t *testing.T) {
	s := open(t, migrated(t))
	for name, want := range map[string]string{"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "4"} {
		if got, err := postgres.Setting(t.Context(), s, name); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %s", name, got, err, want)
		}
	}
}

// A client that can't write is as stuck as one that can't read: large batches don't fit into what the kernel buffers.
func TestACopyThatNobodyTakesIsGivenUp(t *testing.T) {
	t.Parallel()
	direct := migrated(t)
	proxy, url := behind(t, direct)
	svc := serve(t, direct, postgres.WithGrace(postgres.Options{URL: url + impatient, Pooler: true}, 500*time.Millisecond))
	text := make([]byte, 20_000)
	rand.Read(text)
	var events []*log.Event
	for i := range 600 {
		e, err := log.ParseEvent(fmt.Appendf(nil, `{"id":"event-%d","action":"x","metadata":{"text":"%d%x"}}`, i, i, text[:10_000]),
			log.ParseOptions{Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	proxy.Cut(atMoreData, pgtest.HoldRequest)
	if _, err := svc.Log("default").Append(t.Context(), events); !errors.Is(err, log.ErrUnavailable) {
		t.Fatalf("got %v, want %v", err, log.ErrUnavailable)
	}
}

// An answer about health comes soon, also if the database's doesn't.
func TestPingEndsThoughNobodyAnswers(t *testing.T) {
	t.Parallel()
	proxy, url := behind(t, migrated(t))
	s := open(t, url)
	proxy.Silence()
	began := time.Now()
	if err := s.Ping(t.Context()); !errors.Is(err, postgres.ErrUnreachable) {
		t.Errorf("got %v, want %v", err, postgres.ErrUnreachable)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A server that takes connections and says nothing holds up nobody for longer than connect_timeout.
func TestConnectingToSilenceEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	_, err = postgres.Open(t.Context(), postgres.Options{URL: "postgres://u:secret@" + l.Addr().String() + "/d?sslmode=disable&connect_timeout=1"})
	if !errors.Is(err, postgres.ErrUnreachable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v, want %v", err, postgres.ErrUnreachable)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A write whose answer is lost fails, whole, and can be done again; it is never done twice behind the caller's back.
func TestWritesAreNotRepeatedByThemselves(t *testing.T) {
	t.Parallel()
	direct := migrated(t)
	proxy, url := behind(t, direct)
	s := open(t, url)
	ctx := t.Context()
	info := storetest.CreateLog(t, s, "default")
	if err := s.Import(ctx, nil, nil, map[string]string{"from": "text"}); err != nil {
		t.Fatal(err)
	}
	key := log.Key{ID: "k", Role: log.RoleAdmin, Name: "n", CreatedAt: 1}
	for _, write := range []struct {
		name, statement string
		do              func() error
	}{
		{"key", "INSERT INTO api_keys", func() error { return s.CreateKey(ctx, key) }},
		{"changed key", "UPDATE api_keys SET expires_at", func() error {
			return s.ChangeKey(ctx, key.ID, func(k *log.Key) (*log.Key, error) { k.RevokedAt = 1; return nil, nil })
		}},
		{"used key", "UPDATE api_keys SET last_used_at", func() error { return s.UseKeys(ctx, map[string]int64{key.ID: 1}) }},
		{"settings", "UPDATE logs", func() error {
			_, err := s.Configure(ctx, info.ID, func(c *log.Settings) error { c.Title = "t"; return nil })
			return err
		}},
		{"renamed label", "UPDATE labels", func() error { return s.RenameLabel(ctx, "from", "to") }},
		{"label", "INSERT INTO labels", func() error { _, err := s.Label(ctx, "name", "value"); return err }},
		{"freeze", "UPDATE heads", func() error { return s.Freeze(ctx, info.ID) }},
		{"checkpoint", "UPDATE signed", func() error { return s.Record(ctx, info.ID, log.Signed{Size: 0, Note: []byte("note")}) }},
		{"log", "INSERT INTO logs", func() error { return s.CreateLog(ctx, &log.Info{Name: "other", Origin: "o"}) }},
		{"drop", "DELETE FROM index_logs", func() error { return s.DropIndex(ctx, info.ID) }},
	} {
		proxy.Cut(pgtest.Step{Kind: 'P', Text: write.statement}, pgtest.LoseAnswer)
		if err := write.do(); !errors.Is(err, postgres.ErrUnreachable) || proxy.Pending() != 0 {
			t.Errorf("%s: got %v, want %v", write.name, err, postgres.ErrUnreachable)
		}
		if err := write.do(); err != nil {
			t.Errorf("%s, again: %v", write.name, err)
		}
	}
}
