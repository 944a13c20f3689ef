package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBenchWitnessed is a measurement of whole processes. `make bench-witnessed` runs it and prints what docs/performance.md says: what
// witnesses in any condition cost those who append, and what a hub of many logs costs. TREELINE_BENCH_LOGS is how many.
func TestBenchWitnessed(t *testing.T) {
	if os.Getenv("TREELINE_BENCH") == "" {
		t.Skip("a measurement, not a test: run it by make bench-witnessed")
	}
	fmt.Println("\n## Single events over 64 connections, beside witnesses in any condition")
	benchBesideWitnesses(t)
	logs := 10_000
	if n, err := strconv.Atoi(os.Getenv("TREELINE_BENCH_LOGS")); err == nil {
		logs = n
	}
	fmt.Printf("\n## %d logs in one hub with one witness; each second an event goes to one of a hundred\n", logs)
	benchManyLogs(t, logs)
}

// benchBesideWitnesses appends to servers that differ in their witnesses alone, in turn.
func benchBesideWitnesses(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for garbage := bytes.Repeat([]byte("— garbage\n"), 4096); ; {
			if _, err := w.Write(garbage); err != nil {
				return
			}
		}
	}))
	t.Cleanup(endless.Close)
	good := newWitness(t, 1)
	servers := []struct{ what, url string }{
		{"no witness", ""}, {"one that cosigns", good.URL}, {"one that is gone", "http://" + gone.Addr().String()},
		{"one that never answers", "http://" + silent.Addr().String()}, {"one that answers garbage without end", endless.URL},
	}
	for round := range 3 {
		for _, s := range servers {
			var flags []string
			if s.url != "" {
				policy := filepath.Join(t.TempDir(), "policy")
				text := fmt.Sprintf("witness W %s %s\nquorum W\n", good.key.VKey(), s.url)
				if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				flags = []string{"--policy", policy, "--witness-interval", "1s"}
			}
			p := servingWith(t, func(p *process) error { return p.wrote("DATA RACE", "panic") }, t.TempDir(), flags...)
			time.Sleep(6 * time.Second) // until the log is signed though its witness doesn't answer
			cmd := exec.Command("treeline", "bench", "--json", "--log", "default", "--mode", "single", "--concurrency", "64",
				"--warm-up", "1s", "--duration", "6s")
			cmd.Env = append(os.Environ(), "TREELINE_SERVER="+p.url, "TREELINE_KEY="+p.key)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var r benchReport
			if err := json.Unmarshal(out, &r); err != nil {
				t.Fatal(err)
			}
			var head witnessedHead
			p.mustGetJSON(t, "/v1/checkpoint", &head)
			fmt.Printf("round %d: %-37s %6.0f events/s, p50 %5.2f ms, p99 %5.2f ms; signed %d, released %d\n", round+1, s.what,
				r.EventsPerSec, r.Latency.P50, r.Latency.P99, head.Sizes["signed"], head.Sizes["released"])
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// benchManyLogs lets one in a hundred of many logs grow each second, and says what that costs the server and the witness.
func benchManyLogs(t *testing.T, logs int) {
	const d = 60 * time.Second
	dir := t.TempDir()
	w := witnessing(t, t.TempDir())
	_, rest, _ := strings.Cut(w.stdout, "URL):\n  ")
	vkey, _, _ := strings.Cut(rest, "\n")
	policy := filepath.Join(dir, "policy")
	if err := os.WriteFile(policy, fmt.Appendf(nil, "witness W %s %s\nquorum W\n", vkey, w.url), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serving(t, filepath.Join(dir, "data"), "--hub", "--hub-public")
	list, err := http.Get(p.url + "/witness/logs")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if _, err := text.ReadFrom(list.Body); err != nil {
		t.Fatal(err)
	}
	list.Body.Close()
	_, rest, _ = strings.Cut(text.String(), "vkey ")
	hub, _, _ := strings.Cut(rest, "\n")
	if code, out, err := treeline("witness", "add-log", hub, "--data-dir", w.dir); code != exitOK {
		t.Fatalf("add-log: %d, %s, %v", code, out, err)
	}
	began := time.Now()
	each(8, logs, func(i int) {
		if a, err := p.call(http.MethodPost, "/v1/logs", fmt.Appendf(nil, `{"name":"log-%d"}`, i), "Content-Type", "application/json"); err != nil ||
			a.status != http.StatusCreated {
			t.Errorf("making log %d: %v, %v", i, a, err)
		}
	})
	fmt.Printf("making %d logs: %.0f/s, each with a signed and fenced checkpoint\n", logs, float64(logs)/time.Since(began).Seconds())
	append1 := func(i int) {
		a, err := p.call(http.MethodPost, fmt.Sprintf("/v1/events?log=log-%d", i%logs), []byte(oneEvent), "Content-Type", "application/json")
		if err != nil || a.status != http.StatusCreated {
			t.Errorf("appending to log %d: %v, %v", i%logs, a, err)
		}
	}
	each(8, logs, append1)
	time.Sleep(5 * time.Second)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	p = serving(t, filepath.Join(dir, "data"), "--hub", "--hub-public", "--policy", policy, "--witness-interval", "1s")
	fmt.Printf("start with %d logs: %.1f s until it listens\n", logs, time.Since(began).Seconds())
	time.Sleep(10 * time.Second)

	before, beforeWitness := measure(t, p), measure(t, w)
	tick := time.NewTicker(time.Second / time.Duration(max(logs/100, 1)))
	defer tick.Stop()
	var late []time.Duration // from 201 to witnessed, of one event in each second
	var mu sync.Mutex
	var sampling sync.WaitGroup
	next, sampled := 0, time.Now()
	for began = time.Now(); time.Since(began) < d; next++ {
		<-tick.C
		i := next
		if time.Since(sampled) < time.Second {
			append1(i)
			continue
		}
		sampled = time.Now()
		sampling.Go(func() {
			var record struct{ State string }
			start := time.Now()
			a, err := p.call(http.MethodPost, fmt.Sprintf("/v1/events?wait=witnessed&log=log-%d", i%logs), []byte(oneEvent),
				"Content-Type", "application/json")
			if err != nil || json.Unmarshal(a.body, &record) != nil || record.State != "witnessed" {
				t.Errorf("waiting for log %d to be witnessed: %+v, %v", i%logs, a, err)
			}
			mu.Lock()
			late = append(late, time.Since(start))
			mu.Unlock()
		})
	}
	sampling.Wait()
	took := time.Since(began).Seconds()
	after, afterWitness := measure(t, p), measure(t, w)
	rate := func(name string) float64 { return (after.metrics[name] - before.metrics[name]) / took }
	fmt.Printf("%.0f events/s, %.0f checkpoints signed/s, %.2f hub checkpoints cosigned/s\n", float64(next)/took,
		rate("treeline_checkpoints_signed_total"), rate(`treeline_feed_attempts_total{result="cosigned",witness="W"}`))
	fmt.Printf("server: %.1f %% of a core, %.0f MB resident; witness: %.1f %%, %.0f MB\n", 100*(after.cpu-before.cpu).Seconds()/took, after.mb,
		100*(afterWitness.cpu-beforeWitness.cpu).Seconds()/took, afterWitness.mb)
	fmt.Printf("from sent to witnessed through the hub: median %v, slowest %v of %d\n", middle(late), slowest(late), len(late))
	code, out, err := treeline("audit", "--hub", p.url+"/logs/hub", "--vkey", hub, "--state", t.TempDir())
	if err != nil || code != exitOK {
		t.Errorf("audit --hub: %d, %v\n%s", code, err, out)
	}
}

// each calls fn with 0 to n-1, several at a time.
func each(workers, n int, fn func(i int)) {
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				fn(i)
			}
		})
	}
	wg.Wait()
}

// measured is what a process has used, and its metrics.
type measured struct {
	cpu     time.Duration
	mb      float64
	metrics map[string]float64
}

func measure(t *testing.T, p *process) measured {
	t.Helper()
	resp, err := http.Get(p.ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	m := measured{metrics: make(map[string]float64)}
	for line := range strings.Lines(out.String()) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			m.metrics[name] = v
		}
	}
	m.cpu = time.Duration(m.metrics["process_cpu_seconds_total"] * float64(time.Second))
	m.mb = m.metrics["process_resident_memory_bytes"] / 1e6
	return m
}

func middle(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2].Round(time.Millisecond)
}

func slowest(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	return slices.Max(all).Round(time.Millisecond)
}
