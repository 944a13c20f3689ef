package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// TestBenchIngest sends NDJSON at a fixed rate for ten minutes (TREELINE_BENCH_DURATION) to a server on either store, and fails unless
// the server takes all of it with the search index keeping up. `make bench-ingest` runs it and prints what docs/performance.md says.
func TestBenchIngest(t *testing.T) {
	if os.Getenv("TREELINE_BENCH") == "" {
		t.Skip("a measurement, not a test: run it by make bench-ingest")
	}
	duration := 10 * time.Minute
	if d, err := time.ParseDuration(os.Getenv("TREELINE_BENCH_DURATION")); err == nil {
		duration = d
	}
	real := filepath.Join(t.TempDir(), "real.ndjson")
	if err := os.WriteFile(real, realTemplates(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, load := range []struct {
		name string
		rate int // events a second
		args []string
	}{
		{"the README's event", 16_000, nil},
		{"CloudTrail's events", 4_000, []string{"--event", real}},
	} {
		t.Run("sqlite/"+load.name, func(t *testing.T) {
			dir := t.TempDir()
			b := &serverBench{t, serving(t, dir)}
			b.ingest("SQLite, "+load.name, load.rate, duration, load.args)
			var size int64
			files, err := filepath.Glob(filepath.Join(dir, "*.db*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range files {
				fi, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				size += fi.Size()
			}
			b.disk(size)
		})
		t.Run("postgres/"+load.name, func(t *testing.T) {
			url := pgtest.Start(t, "shared_buffers = 1GB", "max_wal_size = 8GB", "min_wal_size = 4GB").Database(t)
			if _, err := postgres.Migrate(t.Context(), url); err != nil {
				t.Fatal(err)
			}
			b := &pgBench{serverBench: serverBench{t, serving(t, t.TempDir(), "--db", url, "--single-server")}, url: url}
			b.ingest("PostgreSQL, "+load.name, load.rate, duration, load.args)
			var size int64
			b.scan(b.open(url), "SELECT pg_database_size(current_database())", nil, &size)
			b.disk(size)
		})
	}
}

// ingest sends at a rate, and fails unless the server keeps up.
func (b *serverBench) ingest(what string, rate int, duration time.Duration, args []string) {
	b.t.Helper()
	fmt.Println("\n## " + what)
	r := b.load(append(args, "--log", "default", "--mode", "batch", "--batch", "1000", "--concurrency", "4",
		"--rate", fmt.Sprint(rate), "--duration", duration.String(), "--ops", b.server.ops)...)
	fmt.Printf("asked for %.0f events/s of %d bytes: %.0f/s acknowledged over %.0f s, p50 %.1f ms, p99 %.1f, p99.9 %.1f, max %.1f; errors %v\n",
		r.Rate, r.RequestBytes/r.Batch, r.EventsPerSec, r.Seconds, r.Latency.P50, r.Latency.P99, r.Latency.P999, r.Latency.Max, r.Errors)
	fmt.Printf("the index was behind by %.0f events at most, %.0f at the end; in each tenth of the time by %.0f\n",
		r.Watched.UnindexedMax, r.Watched.Unindexed, r.Watched.UnindexedTenths)
	fmt.Printf("server's memory at most %s, the load generator took %.2f of a core\n", b.server.memory(b.t, "VmHWM"), r.ClientCPUSeconds/r.Seconds)
	if r.EventsPerSec < 0.99*r.Rate || len(r.Errors) > 0 || r.Watched.UnindexedMax >= 50_000 {
		b.t.Errorf("%s: the server doesn't keep up", what)
	}
}

// disk prints what was written, once it is indexed.
func (b *serverBench) disk(size int64) {
	b.t.Helper()
	b.settled(1)
	fmt.Printf("%d events take %.2f GB on disk, %.0f bytes each\n", b.events(), float64(size)/1e9, float64(size)/float64(b.events()))
}

// realTemplates returns a thousand of the real events as templates for bench: each time with another id, wherever the event names its
// own, and of another actor.
func realTemplates(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	for i, line := range realEvents(t)[:2000] {
		if i%2 > 0 {
			continue
		}
		var event map[string]any
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatal(err)
		}
		event["actor_id"] = "user_{{user}}"
		line, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(bytes.ReplaceAll(line, []byte(event["id"].(string)), []byte("{{id}}")))
		out.WriteByte('\n')
	}
	return out.Bytes()
}
