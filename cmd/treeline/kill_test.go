package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"
)

// However often and whenever the server is killed: what was acknowledged is there and the same, what was not is wholly
// there or not at all, and every checkpoint ever seen belongs to one history.
func TestKilledAtRandom(t *testing.T) {
	rounds := 5
	if long() {
		rounds = 50
	}
	dir := t.TempDir()
	start := func() *process { return serving(t, dir, "--checkpoint-interval", "20ms") }
	p := start()
	c := newCrowd(t, p)
	for round := range rounds {
		if round > 0 {
			p = start()
		}
		c.check(t, p)
		f := &fleet{servers: []*process{p}}
		c.resend(f)
		wg := c.load(t.Context(), f)
		c.waitFor(t, rand.IntN(100))
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		f.kill(0)
		wg.Wait()
		httpClient.CloseIdleConnections()
		mustFsck(t, dir)
		c.checkFence(t, fileFence(t, dir))
		if round%2 == 1 {
			killStarting(t, dir)
			mustFsck(t, dir)
		}
	}
	p = start()
	c.check(t, p)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	mustFsck(t, dir)
	n, checkpoints := 0, 0
	for _, l := range c.logs {
		n, checkpoints = n+len(l.acked), checkpoints+len(l.seen)
	}
	t.Logf("%d rounds, %d events, %d checkpoints seen", rounds, n, checkpoints)
	if n < 20*rounds || checkpoints < rounds {
		t.Errorf("%d events and %d checkpoints in %d rounds: too little load to prove anything", n, checkpoints, rounds)
	}
}

// killStarting kills a server somewhere between its start and its readiness.
func killStarting(t *testing.T, dir string) {
	t.Helper()
	p := newProcess(dir)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// A graceful stop answers everybody whose request it has taken: afterwards the log holds what was acknowledged, all of it
// and nothing else, and all of it is signed. Those who wait for more, or for a signature, are answered at once.
func TestStoppedUnderLoad(t *testing.T) {
	dir := t.TempDir()
	p := serving(t, dir, "--checkpoint-interval", "1h")
	c := newCrowd(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg := c.load(ctx, &fleet{servers: []*process{p}})
	poll := make(chan error, 1)
	go func() {
		_, err := p.get("/v1/feed?from=1000000&timeout=30s")
		poll <- err
	}()
	c.waitFor(t, 100)
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	cancel()
	wg.Wait()
	httpClient.CloseIdleConnections()
	if err := <-poll; err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("a poll beyond the end ended with %v, want the answer that it is beyond the end", err)
	}
	mustFsck(t, dir)

	p = serving(t, dir, "--checkpoint-interval", "1h")
	for name, l := range c.logs {
		stored := map[string]bool{}
		for _, r := range feed(t, p, name) {
			if _, ok := l.acked[r.ID]; !ok {
				t.Errorf("log %s: %s is stored, and nobody was told", name, r.ID)
			}
			stored[r.ID] = true
		}
		for id := range l.acked {
			if !stored[id] {
				t.Errorf("log %s: %s was acknowledged and is gone", name, id)
			}
		}
		var head logPage
		p.mustGetJSON(t, "/v1/checkpoint?log="+name, &head)
		if len(stored) == 0 || head.Sizes.Signed != uint64(len(stored)) {
			t.Errorf("log %s: %d events, signed are %d", name, len(stored), head.Sizes.Signed)
		}
	}
	c.check(t, p)
}

// Ops answers operators: whether the server is fit to serve and why not, and what it has done.
func TestOpsListener(t *testing.T) {
	p := serving(t, t.TempDir(), "--checkpoint-interval", "20ms")
	grow(t, p, "default", 0, 600)
	text := func(path string) string {
		resp, err := http.Get(p.ops + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var out bytes.Buffer
		if _, err := out.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %s, %v", path, resp.Status, err)
		}
		return out.String()
	}
	if got := text("/readyz"); got != "ready\n" {
		t.Errorf("/readyz: %q", got)
	}
	if got := text("/healthz"); got != "ok\n" {
		t.Errorf("/healthz: %q", got)
	}
	metrics := text("/metrics")
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(metrics, "\ntreeline_unsigned_events 0\n") && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // for the system log, which nobody has waited for
		metrics = text("/metrics")
	}
	for _, want := range []string{
		`treeline_log_size{log="default"} 600`, `treeline_log_signed_size{log="default"} 600`,
		`treeline_log_released_size{log="default"} 600`, `treeline_log_size{log="system"} 2`, // the log and the admin's key are made
		`treeline_events_appended_total 602`, `treeline_events 602`,
		`treeline_logs 1`, `treeline_logs_stopped 0`, `treeline_unsigned_events 0`, `treeline_queue_events 0`,
	} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	for _, want := range []string{"process_resident_memory_bytes", "go_goroutines"} {
		if !strings.Contains(metrics, "\n"+want+" ") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}
