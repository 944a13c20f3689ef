package postgres_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// countingReader counts the contents that are read from it.
type countingReader struct {
	log.Reader
	payloads atomic.Int64
}

func (r *countingReader) Payloads(ctx context.Context, id log.ID, from, to uint64, fn func(uint64, log.Payload) error) error {
	return r.Reader.Payloads(ctx, id, from, to, func(index uint64, p log.Payload) error {
		r.payloads.Add(1)
		return fn(index, p)
	})
}

// A standby is read where it has come far enough, and the database itself where it hasn't, or when the standby is gone: the
// answers are the same.
func TestAStandbyIsReadWhereItHasComeFarEnough(t *testing.T) {
	t.Parallel()
	primary := pgtest.Start(t)
	url := migratedAt(t, primary)
	standby := primary.Clone(t)
	standby.StandBy(t, primary)
	standby.Run(t)
	replica, err := postgres.OpenReadOnly(t.Context(), postgres.Options{URL: standby.At(url)})
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	if err := open(t, url).CheckCopy(t.Context(), replica); err != nil {
		t.Errorf("a standby: %v", err)
	}
	if err := open(t, migratedAt(t, primary)).CheckCopy(t.Context(), replica); err == nil {
		t.Error("another database of the same cluster is taken for a standby")
	}
	if err := open(t, migrated(t)).CheckCopy(t.Context(), replica); err == nil {
		t.Error("a database of another cluster is taken for a standby")
	}
	fence, err := checkpoint.OpenFileFence(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	counting := &countingReader{Reader: replica}
	service, err := log.Open(t.Context(), log.Config{
		Store: open(t, url), Replica: func(context.Context) (log.Reader, error) { return counting, nil }, Shared: true, Seed: checkpoint.Seed{9}, Fence: fence, Prefix: "test.example",
		Interval: time.Hour, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	l, err := service.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	read := func(n uint64) {
		t.Helper()
		records, err := l.Records(t.Context(), 0, n, 1<<20)
		if err != nil || uint64(len(records)) != n {
			t.Fatalf("got %d records, %v, want %d", len(records), err, n)
		}
		if _, err := l.RecordByID(t.Context(), fmt.Sprint("e", n-1)); err != nil {
			t.Fatal(err)
		}
	}
	add := func(i int) {
		t.Helper()
		e, err := log.ParseEvent(fmt.Appendf(nil, `{"id":"e%d","action":"a"}`, i), log.ParseOptions{Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), []*log.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	add(0)
	caughtUp := func(n uint64) bool {
		head, err := replica.Head(t.Context(), l.ID)
		return err == nil && head.Size == n
	}
	for end := time.Now().Add(20 * time.Second); !caughtUp(1); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the standby doesn't catch up")
		}
	}
	read(1)
	if counting.payloads.Load() == 0 {
		t.Error("the standby had all, and wasn't read")
	}

	standby.Exec(t, "postgres", "SELECT pg_wal_replay_pause()")
	add(1)
	before := counting.payloads.Load()
	read(2)
	if caughtUp(2) || counting.payloads.Load() != before {
		t.Errorf("the standby lags, and %d contents were read from it", counting.payloads.Load()-before)
	}
	standby.Quit()
	add(2)
	read(3)
}
