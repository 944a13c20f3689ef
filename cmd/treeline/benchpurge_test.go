package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/log/retention"
)

// TestBenchPurge measures what appends at a fixed rate are told while a fifth of five million events (TREELINE_BENCH_EVENTS) is archived,
// verified, purged and shredded, and what that gives back. `make bench-purge` runs it and prints what docs/performance.md says.
//
// Half of what expires is in a log that had its policy from the start, so that its contents lie in parts of their own, which are dropped.
// The other half is in a log that got it later, and lies among contents that are kept, so that those are copied.
func TestBenchPurge(t *testing.T) {
	if os.Getenv("TREELINE_BENCH") == "" {
		t.Skip("a measurement, not a test: run it by make bench-purge")
	}
	events := 5_000_000
	if n, err := strconv.Atoi(os.Getenv("TREELINE_BENCH_EVENTS")); err == nil {
		events = n
	}
	pg := pgtest.Start(t, "shared_buffers = 2GB", "max_wal_size = 8GB", "min_wal_size = 8GB", "checkpoint_timeout = 15min")
	b := &purgeBench{pgBench: pgBench{serverBench: serverBench{t: t}, pg: pg, url: pg.Database(t)}, registry: prometheus.NewRegistry()}
	b.settle()
	b.open(-40*24*time.Hour, uint64(events/5))
	month := log.Retention{Min: log.Age{Days: 30}, Max: log.Age{Days: 30}, Archive: true}

	// 40 days ago, by the service's clock.
	early, late, kept := b.create("early"), b.create("late"), b.create("kept")
	b.policy(early, month)
	b.keeper.Pass(t.Context()) // which has what expires together lie together
	tenth := events / 10
	b.fill([]*log.Log{early}, tenth)
	b.fill([]*log.Log{late, kept}, tenth)
	b.fill([]*log.Log{kept}, events-3*tenth)
	fmt.Printf("%s: filled\n", time.Now().Format(time.TimeOnly))
	b.indexed()
	b.policy(late, month)

	b.clock.Store(0)
	live := b.create("live")
	b.checkpoint()
	fmt.Printf("\n## %d events, of which %d have expired\n", events, 2*tenth)
	time.Sleep(5 * time.Second) // for what PostgreSQL and the runtime still have to do

	load := b.append(live)
	time.Sleep(10 * time.Second)
	load.phase()
	time.Sleep(30 * time.Second)
	fmt.Printf("before:                           %s\n", load.phase())
	before := b.disk()
	began, appended := time.Now(), live.Sizes().Size
	for _, l := range []*log.Log{early, late} {
		r, err := b.keeper.RunOnce(t.Context(), l, false)
		if err != nil {
			t.Fatal(err)
		}
		if r.Blocked != nil || r.Purged != uint64(tenth) {
			t.Fatalf("log %s: purged %d of %d, blocked: %+v", l.Name, r.Purged, tenth, r.Blocked)
		}
		fmt.Printf("log %s: %d purged, %d bundles, done after %.0f s\n", l.Name, r.Purged, len(r.Bundles), time.Since(began).Seconds())
		fmt.Printf("while it was archived and purged: %s\n", load.phase())
	}
	b.indexed()
	for more := true; more; {
		var err error
		if more, err = b.store.Shred(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	fmt.Printf("while the rest was shredded:      %s\n", load.phase())
	after, meanwhile := b.disk(), live.Sizes().Size-appended
	time.Sleep(30 * time.Second)
	fmt.Printf("after:                            %s\n", load.phase())
	load.stop()
	fmt.Printf("all of it took %.0f s, while %d events were appended\n", took.Seconds(), meanwhile)
	fmt.Printf("bytes before %v\nbytes after  %v\n", before, after)
	share := float64(2*tenth) / float64(events)
	fmt.Printf("contents with their indexes fell by %.1f MB and grew by what was appended; a %.2fth of them was %.1f MB\n",
		float64(before.contents-after.contents)/1e6, share, float64(before.contents)*share/1e6)
	b.sound(early, late, tenth)
}

// purgeBench is a server in the test's own process, whose clock the test sets.
type purgeBench struct {
	pgBench
	registry *prometheus.Registry
	service  *log.Service
	store    *postgres.Store
	keeper   *retention.Keeper
	web      *httptest.Server
	key      string
	clock    atomic.Int64 // how far it is from the system's
}

func (b *purgeBench) now() time.Time { return time.Now().Add(time.Duration(b.clock.Load())) }

// open starts the server with a clock so far from the system's, on a store whose parts are of so many contents.
func (b *purgeBench) open(clock time.Duration, partRows uint64) {
	t := b.t
	t.Helper()
	b.clock.Store(int64(clock))
	if _, err := postgres.Migrate(t.Context(), b.url); err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var err error
	if b.store, err = postgres.Open(t.Context(), postgres.Options{URL: b.url, PartRows: partRows, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	fence, err := checkpoint.OpenFileFence(filepath.Join(t.TempDir(), "fence"))
	if err != nil {
		t.Fatal(err)
	}
	seed := checkpoint.Seed{7}
	b.service, err = log.Open(context.Background(), log.Config{
		Store: b.store, Seed: seed, Fence: fence, Prefix: "bench.example", Interval: time.Second, Logger: logger, Metrics: b.registry,
		Lanes: postgres.DefaultLanes, System: true, Now: b.now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.service.Close()
		if err := b.store.Close(); err != nil {
			t.Error(err)
		}
	})
	bundles, err := archive.Open(t.Context(), "dir:"+filepath.Join(t.TempDir(), "archive"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bundles.Close() })
	b.keeper = retention.New(retention.Config{
		Service: b.service, Store: b.store, Archive: bundles, Logger: logger, Metrics: b.registry, Now: b.now,
	})
	server := api.New(api.Config{Service: b.service, Seed: seed, Logger: logger, Registry: b.registry, Keeper: b.keeper, Now: b.now})
	key, text := log.NewKey(log.RoleAdmin, 0, "of the measurement", b.now().UnixMicro())
	if err := b.service.AddKey(t.Context(), log.ByServer(), key); err != nil {
		t.Fatal(err)
	}
	b.key = text
	b.web = httptest.NewServer(server)
	t.Cleanup(func() {
		b.web.Close()
		server.Close()
	})
}

func (b *purgeBench) create(name string) *log.Log {
	b.t.Helper()
	l, err := b.service.CreateLog(b.t.Context(), log.ByServer(), name, log.Settings{})
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

func (b *purgeBench) policy(l *log.Log, policy log.Retention) {
	b.t.Helper()
	if _, err := l.SetRetention(b.t.Context(), log.ByServer(), policy, "the measurement asks for it"); err != nil {
		b.t.Fatal(err)
	}
}

// fill appends n events to each of logs side by side, in batches of 1,000.
func (b *purgeBench) fill(logs []*log.Log, n int) {
	b.t.Helper()
	var group sync.WaitGroup
	for _, l := range logs {
		var left atomic.Int64
		left.Store(int64(n))
		for range 4 {
			group.Go(func() {
				for from := left.Add(-1000); from > -1000; from = left.Add(-1000) {
					if err := b.fillBatch(l, int(from), min(1000, int(from)+1000)); err != nil {
						b.t.Errorf("filling log %s: %v", l.Name, err)
						return
					}
				}
			})
		}
	}
	group.Wait()
	if b.t.Failed() {
		b.t.FailNow()
	}
}

func (b *purgeBench) fillBatch(l *log.Log, from, n int) error {
	events := make([]*log.Event, n)
	for i := range events {
		var err error
		if events[i], err = log.ParseEvent(benchEvent(l.Name, from+i), log.ParseOptions{Now: b.now()}); err != nil {
			return err
		}
	}
	for {
		_, err := l.Append(b.t.Context(), events)
		if !errors.Is(err, log.ErrIndexLag) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// benchEvent returns one of the events that treeline bench sends.
func benchEvent(run string, i int) []byte {
	user, other := i*7919%users, i*104729%users
	return fmt.Appendf(nil, `{"id":"bench-%s-%012d","action":"user.permission.updated","actor_id":"user_%05d","actor_email":"user_%05d@example.com",`+
		`"target_type":"user","target_id":"user_%05d","metadata":{"old_role":"viewer","new_role":"editor","ip":"203.0.113.42"}}`, run, i, user, user, other)
}

// indexed waits until the search index has all of the logs.
func (b *purgeBench) indexed() {
	b.t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); b.gauge("treeline_unindexed_events") > 8*1024; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatal("the index doesn't catch up")
		}
	}
}

func (b *purgeBench) gauge(name string) (sum float64) {
	b.t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// fixedLoad appends 5,000 events a second over HTTP, a batch of 50 every 10 ms, whether or not those before it were answered.
type fixedLoad struct {
	stop func()

	mu       sync.Mutex
	latency  *hdrhistogram.Histogram // µs, from when the batch was due
	began    time.Time
	appended int
	failed   map[string]int
}

func (b *purgeBench) append(l *log.Log) *fixedLoad {
	f := &fixedLoad{}
	f.reset()
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	f.stop = func() {
		cancel()
		group.Wait()
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	const each, every = 50, 10 * time.Millisecond
	group.Go(func() {
		began := time.Now()
		for i := 0; ctx.Err() == nil; i++ {
			due := began.Add(time.Duration(i) * every)
			time.Sleep(time.Until(due))
			var body bytes.Buffer
			for n := range each {
				body.Write(benchEvent(l.Name, i*each+n))
				body.WriteByte('\n')
			}
			group.Go(func() { f.note(due, each, b.send(client, l.Name, &body)) })
		}
	})
	b.t.Cleanup(f.stop)
	return f
}

func (b *purgeBench) send(client *http.Client, name string, body io.Reader) error {
	req, err := http.NewRequest(http.MethodPost, b.web.URL+"/v1/events/batch?log="+name, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+b.key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("status %d: %.200s", resp.StatusCode, text)
	}
	return err
}

func (f *fixedLoad) note(due time.Time, n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failed[err.Error()]++
		return
	}
	f.appended += n
	_ = f.latency.RecordValue(min(time.Since(due).Microseconds(), f.latency.HighestTrackableValue()))
}

func (f *fixedLoad) reset() {
	f.latency, f.began, f.appended, f.failed = hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3), time.Now(), 0, map[string]int{}
}

// phase returns what was measured since the last one.
func (f *fixedLoad) phase() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := func(q float64) float64 { return float64(f.latency.ValueAtQuantile(q)) / 1000 }
	s := time.Since(f.began).Seconds()
	text := fmt.Sprintf("%.0f events/s for %.0f s, p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, longest %.0f ms, refused %v",
		float64(f.appended)/s, s, at(50), at(99), at(99.9), float64(f.latency.Max())/1000, f.failed)
	f.reset()
	return text
}

// disk is how many bytes there are.
type disk struct{ database, contents, files int64 }

func (d disk) String() string {
	return fmt.Sprintf("pg_database_size %.1f MB, of it contents %.1f MB; files of the data directory but WAL %.1f MB",
		float64(d.database)/1e6, float64(d.contents)/1e6, float64(d.files)/1e6)
}

// disk measures what the database takes after a checkpoint, before which files of dropped tables may still be there.
func (b *purgeBench) disk() (d disk) {
	b.t.Helper()
	b.checkpoint()
	db := b.pgBench.open(b.url)
	b.scan(db, `SELECT pg_database_size(current_database()), (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
		WHERE relkind = 'r' AND relname LIKE 'payloads_%')::BIGINT`, nil, &d.database, &d.contents)
	err := filepath.WalkDir(b.pg.Dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case e.IsDir() && e.Name() == "pg_wal":
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		if info, err := e.Info(); err == nil { // it may be gone
			d.files += info.Size()
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// sound checks that all that has expired is gone by a purge, and nothing else.
func (b *purgeBench) sound(early, late *log.Log, each int) {
	b.t.Helper()
	for _, l := range []*log.Log{early, late} {
		n := 0
		for _, s := range l.Purges() {
			n += int(s.To - s.From)
		}
		if n != each {
			b.t.Errorf("log %s: the log tells that %d were purged, want %d", l.Name, n, each)
		}
	}
	var left int
	b.scan(b.pgBench.open(b.url), `SELECT count(*) FROM payloads WHERE log IN ($1, $2)`, []any{early.ID, late.ID}, &left)
	if left > 10 { // the logs' own events
		b.t.Errorf("%d contents of the logs are left", left)
	}
}
