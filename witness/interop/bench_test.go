package interop

import (
	"bufio"
	"crypto/ed25519"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh/agent"
)

// TestBenchWitness measures how many add-checkpoint requests a second each witness answers, in turn and on the same requests: one log,
// whose requests can only come one after the other, and a hundred logs at once. Every request grows a log by one entry, with the proof,
// and each program answers with its cosignature only once its database has synced it. `make bench-witness` runs it and prints what
// docs/performance.md says.
//
// Litewitness has its key in an ssh-agent: once in OpenSSH's, as people run it, and once in one of Go's in the test's process.
// Requests are made in advance, and sent over connections that are kept, by a client that does as little as it can: it shares the
// processors with the witness.
func TestBenchWitness(t *testing.T) {
	if os.Getenv("TREELINE_BENCH") == "" {
		t.Skip("a measurement, not a test: run it by make bench-witness")
	}
	starts := maps.Clone(witnesses)
	starts["litewitness+ssh-agent"] = func(t testing.TB, logs ...*aLog) *witness { return litewitness(t, sshAgent, logs) }
	all := slices.Sorted(maps.Keys(starts))
	for _, load := range []struct {
		what           string
		logs, requests int // requests a log
		names          []string
	}{
		{"one log", 1, 6000, all},
		// Omniwitness answers nearly all of a hundred requests at once with 429, which is no rate to compare with.
		{"a hundred logs", 100, 120, slices.DeleteFunc(slices.Clone(all), func(name string) bool { return name == "omniwitness" })},
	} {
		fmt.Printf("\n## %s, %d requests\n", load.what, load.logs*load.requests)
		rates := map[string][]float64{}
		for round := range 3 {
			clients := make([]*benchClient, load.logs)
			logs := make([]*aLog, load.logs)
			for i := range clients {
				logs[i] = newLog(t, fmt.Sprintf("bench.example/%d/%d", round, i))
				logs[i].grow(1000 + int64(load.requests))
				clients[i] = &benchClient{l: logs[i], requests: prepare(logs[i], 1000, load.requests)}
			}
			for _, name := range load.names {
				w := starts[name](t, logs...)
				for _, c := range clients {
					w.addCheckpoint(t, c.l.request(0, 1000))
				}
				b := &benchRun{t: t, w: w}
				rate := b.run(clients)
				w.kill()
				used := w.cmd.ProcessState.UserTime() + w.cmd.ProcessState.SystemTime()
				rates[name] = append(rates[name], rate)
				fmt.Printf("round %d: %-21s %6.0f requests/s, %5.0f µs of CPU a request, %d tried again\n", round+1, name, rate,
					float64(used.Microseconds())/float64(load.logs*load.requests), b.again)
			}
		}
		for _, name := range load.names {
			ours, theirs := median(rates["treeline"]), median(rates[name])
			fmt.Printf("median: %-21s %6.0f requests/s; ours is %.2f of it\n", name, theirs, ours/theirs)
		}
	}
}

// sshAgent runs OpenSSH's ssh-agent, which is given one key.
func sshAgent(t testing.TB, socket string, key ed25519.PrivateKey) {
	t.Helper()
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: the measurement wants OpenSSH", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(t, "ssh-agent has the key", func() bool {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		defer conn.Close()
		return agent.NewClient(conn).Add(agent.AddedKey{PrivateKey: key}) == nil
	})
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}

// prepare returns the bodies of n requests, from size on by one entry each.
func prepare(l *aLog, size int64, n int) []string {
	var out []string
	for i := range int64(n) {
		out = append(out, l.request(size+i, size+i+1))
	}
	return out
}

// benchClient sends the requests of one log, each when the one before is answered.
type benchClient struct {
	l        *aLog
	requests []string
}

// benchRun is the clients at one witness.
type benchRun struct {
	t     testing.TB
	w     *witness
	mu    sync.Mutex
	again int // requests that were answered 429, which omniwitness does when its database is busy
	err   error
}

// run sends all requests and returns how many were answered with a cosignature each second.
func (b *benchRun) run(clients []*benchClient) float64 {
	b.t.Helper()
	began := time.Now()
	var group sync.WaitGroup
	n := 0
	for _, c := range clients {
		n += len(c.requests)
		group.Go(func() {
			if err := b.send(c); err != nil {
				b.mu.Lock()
				b.err = err
				b.mu.Unlock()
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	if b.err != nil {
		b.t.Fatalf("%s: %v", b.w.name, b.err)
	}
	return float64(n) / took.Seconds()
}

func (b *benchRun) send(c *benchClient) error {
	host := strings.TrimPrefix(b.w.url, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		return err
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for i := 0; i < len(c.requests); {
		body := c.requests[i]
		if _, err := fmt.Fprintf(conn, "POST /add-checkpoint HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", host, len(body), body); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		cosignature, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		switch {
		case err != nil:
			return err
		case resp.StatusCode == http.StatusTooManyRequests:
			b.mu.Lock()
			b.again++
			b.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			continue
		case resp.StatusCode != http.StatusOK:
			return fmt.Errorf("request %d of %s: %s: %s", i, c.l.origin, resp.Status, cosignature)
		}
		if i++; i == len(c.requests) {
			_, signed, _ := strings.Cut(body, "\n\n")
			b.w.cosigned(b.t, signed, answer{resp.StatusCode, "", string(cosignature)})
		}
	}
	return nil
}
