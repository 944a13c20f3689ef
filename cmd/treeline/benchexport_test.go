package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// TestBenchExport measures whole exports of a million events (TREELINE_BENCH_EVENTS) beside what the databases themselves write out,
// in the same run. `make bench-export` runs it and prints what docs/performance.md says.
func TestBenchExport(t *testing.T) {
	if os.Getenv("TREELINE_BENCH") == "" {
		t.Skip("a measurement, not a test: run it by make bench-export")
	}
	events := 1_000_000
	if n, err := strconv.Atoi(os.Getenv("TREELINE_BENCH_EVENTS")); err == nil {
		events = n
	}
	const query = "SELECT %s FROM payloads %s WHERE log = (SELECT id FROM logs WHERE name = 'default')"
	const ids = "JOIN ids USING (log, idx)"
	t.Run("sqlite", func(t *testing.T) {
		fmt.Println("\n## SQLite")
		dir := t.TempDir()
		csv := func(columns, join string) *exec.Cmd {
			return exec.Command("sqlite3", "-csv", filepath.Join(dir, "treeline.db"), fmt.Sprintf(query, columns, join))
		}
		measureExports(t, func() *process { return serving(t, dir) }, events, "sqlite3 .mode csv",
			csv("idx, id, hex(seed), CAST(substr(payload, 2) AS TEXT)", ids), csv("idx, hex(seed), CAST(substr(payload, 2) AS TEXT)", ""))
	})
	t.Run("postgres", func(t *testing.T) {
		fmt.Println("\n## PostgreSQL")
		url := pgtest.Start(t, "shared_buffers = 1GB", "max_wal_size = 8GB").Database(t)
		if _, err := postgres.Migrate(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		csv := func(columns, join string) *exec.Cmd {
			return exec.Command("psql", url, "-qc", "COPY ("+fmt.Sprintf(query, columns, join)+") TO STDOUT (FORMAT csv)")
		}
		measureExports(t, func() *process { return serving(t, dir, "--db", url, "--single-server") }, events, "COPY … TO STDOUT",
			csv("idx, id, seed, payload", ids), csv("idx, seed, payload", ""))
	})
}

// measureExports appends events to a server's log, and prints how long exports of all of them take from a server that was started
// afterwards, in turn with others' commands: with ids, and without.
func measureExports(t *testing.T, start func() *process, events int, other string, withIDs, bare *exec.Cmd) {
	t.Helper()
	p := start()
	load := exec.Command("treeline", "bench", "--json", "--mode", "batch", "--batch", "1000", "--concurrency", "4",
		"--duration", "4s", "--warm-up", "0s", "--log", "default")
	load.Env = append(os.Environ(), "TREELINE_SERVER="+p.url, "TREELINE_KEY="+p.key)
	size := func() uint64 {
		var head struct{ Sizes struct{ Size, Signed uint64 } }
		p.mustGetJSON(t, "/v1/checkpoint", &head)
		return head.Sizes.Signed
	}
	for int(size()) < events {
		again := *load
		if out, err := again.CombinedOutput(); err != nil && !strings.Contains(string(out), "index_lag") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	(&serverBench{t, p}).settled(1)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = start()
	fmt.Printf("%d events; the server, just started, has taken %s of memory at most\n", size(), p.memory(t, "VmHWM"))
	formats := []string{"ndjson", "csv"}
	for round := range 3 {
		if round == 2 { // the others, once
			formats = []string{"json", "ndjson&compression=zstd", "csv&compression=gzip", "csv&action=*&from=-30d", "bundle"}
		}
		for _, format := range formats {
			p.resetPeak(t)
			req, err := http.NewRequest(http.MethodGet, p.url+"/v1/export?format="+format, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+p.key)
			req.Header.Set("Accept-Encoding", "identity")
			began := time.Now()
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			count := countRE.FindStringSubmatch(resp.Trailer.Get("Export-End"))
			if err != nil || count == nil {
				t.Fatalf("export %s: %d, %v, trailer %v", format, resp.StatusCode, err, resp.Trailer)
			}
			took := time.Since(began).Seconds()
			exported, _ := strconv.ParseFloat(count[1], 64)
			fmt.Printf("round %d: %-36s %8.0f events/s, %6.1f MB/s, server's memory at most %s\n",
				round+1, format, exported/took, float64(n)/took/1e6, p.memory(t, "VmHWM"))
		}
		for name, c := range map[string]*exec.Cmd{other + ", with ids": withIDs, other + ", contents only": bare} {
			again := *c
			written := new(counter)
			again.Stdout = written
			began := time.Now()
			if err := again.Run(); err != nil {
				t.Fatalf("%v: %v", c.Args, err)
			}
			took := time.Since(began).Seconds()
			if uint64(written.lines) != size() {
				t.Fatalf("%v wrote %d lines of %d events", c.Args, written.lines, size())
			}
			fmt.Printf("round %d: %-36s %8.0f events/s, %6.1f MB/s\n",
				round+1, name, float64(written.lines)/took, float64(written.bytes)/took/1e6)
		}
	}
}

var countRE = regexp.MustCompile(`"count":([0-9]+)`)

// counter counts what is written.
type counter struct{ bytes, lines int }

func (c *counter) Write(b []byte) (int, error) {
	c.bytes += len(b)
	c.lines += bytes.Count(b, []byte{'\n'})
	return len(b), nil
}

// memory returns a line of what Linux says of the process's memory.
func (p *process) memory(t *testing.T, name string) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(value)
}

// resetPeak lets the largest memory be measured anew from here on.
func (p *process) resetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0o200); err != nil {
		t.Fatal(err)
	}
}
