package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/merkle"
)

// witnessGreeting is how the greeting of treeline witness ends.
const witnessGreeting = "treeline witness add-log VKEY\n\n"

// newWitnessProcess returns a treeline witness that isn't started yet, on free ports.
func newWitnessProcess(dataDir string, flags ...string) *process {
	p := &process{dir: dataDir, exited: make(chan struct{})}
	p.cmd = exec.Command("treeline", append([]string{
		"witness", "--data-dir", dataDir, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0",
	}, flags...)...)
	p.cmd.Stderr = &p.stderr
	return p
}

// witnessing starts a witness for a test, and ends it with the test if it still runs.
func witnessing(t *testing.T, dir string, flags ...string) *process {
	t.Helper()
	p := newWitnessProcess(dir, flags...)
	if err := p.start(witnessGreeting); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-p.exited:
		default:
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		}
		if err := p.healthy(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// feeder is a log that grows and has a witness cosign it.
type feeder struct {
	origin string
	signer note.Signer
	vkey   string

	acked  uint64 // the largest size for which the witness has answered with a cosignature
	claims uint64 // the largest size that was ever sent
}

func newFeeder(t *testing.T, origin string) *feeder {
	t.Helper()
	signer, vkey, err := checkpoint.Seed{7}.Ed25519(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &feeder{origin: origin, signer: signer, vkey: vkey}
}

// request returns the add-checkpoint request from one size to another.
func (f *feeder) request(from, to uint64) (string, error) {
	tree, nodes := merkle.NewRange(), make(tiles)
	for i := range to {
		tree.Append(merkle.LeafHash(fmt.Appendf(nil, "%s %d", f.origin, i)), func(level uint, _ uint64, h merkle.Hash) {
			nodes[int(level)] = append(nodes[int(level)], h)
		})
	}
	proof, err := merkle.ConsistencyProof(context.Background(), from, to, nodes)
	if err != nil {
		return "", err
	}
	msg, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: f.origin, Size: to, Root: tree.Root()}, f.signer)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", from)
	for _, h := range proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	return b.String() + "\n" + string(msg), nil
}

// tiles are the complete subtrees of a tree, by level.
type tiles map[int][]merkle.Hash

func (t tiles) ReadTile(_ context.Context, tile merkle.Tile) ([]merkle.Hash, error) {
	first := tile.Index * merkle.TileWidth
	return t[8*tile.Level][first : first+uint64(tile.Width)], nil
}

// post sends a body, and returns the status and the body of the answer; 0 if there is none.
func post(url, body string) (int, string) {
	resp, err := httpClient.Post(url, "", strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(answer)
}

// feed sends one request after another until the witness is gone, and counts the answers. One that a witness must not give is an error.
func (f *feeder) feed(p *process, verifier note.Verifier, answers *atomic.Int64) error {
	for from := f.acked; ; answers.Add(1) {
		to := from + uint64(rand.IntN(3))
		f.claims = max(f.claims, to)
		sent, err := f.request(from, to)
		if err != nil {
			return err
		}
		status, answer := post(p.url+"/add-checkpoint", sent)
		switch status {
		case 0:
			return nil // it was killed
		case http.StatusOK:
			_, msg, _ := strings.Cut(sent, "\n\n")
			if n, err := note.Open([]byte(msg+answer), note.VerifierList(verifier)); err != nil || len(n.Sigs) != 1 {
				return fmt.Errorf("%s: %q isn't cosigned: %v", f.origin, answer, err)
			}
			f.acked, from = max(f.acked, to), to
		case http.StatusConflict:
			size, err := strconv.ParseUint(strings.TrimSuffix(answer, "\n"), 10, 64)
			if err != nil || size < f.acked || size > f.claims {
				return fmt.Errorf("%s: the witness says %q, it had cosigned size %d and was sent %d", f.origin, answer, f.acked, f.claims)
			}
			from = size
		default:
			return fmt.Errorf("%s: status %d %s", f.origin, status, answer)
		}
	}
}

// However often and whenever a witness is killed: what it cosigned, it knows, and it cosigns nothing that doesn't extend it.
func TestWitnessKilledAtRandom(t *testing.T) {
	rounds := 6
	if long() {
		rounds = 60
	}
	t.Run("sqlite", func(t *testing.T) { killWitness(t, rounds) })
	t.Run("postgres", func(t *testing.T) { killWitness(t, rounds, "--db", pgtest.Start(t).Database(t)) })
}

func killWitness(t *testing.T, rounds int, flags ...string) {
	dir := t.TempDir()
	var feeders []*feeder
	for i := range 4 {
		f := newFeeder(t, fmt.Sprintf("logs.example/logs/%d", i))
		feeders = append(feeders, f)
		args := append([]string{"witness", "add-log", f.vkey, "--data-dir", dir}, flags...)
		if code, out, err := treeline(args...); err != nil || code != exitOK {
			t.Fatalf("add-log: %d, %v\n%s", code, err, out)
		}
	}
	var verifier note.Verifier
	for range rounds {
		p := witnessing(t, dir, flags...)
		if verifier == nil {
			_, rest, _ := strings.Cut(p.stdout, "URL):\n  ")
			vkey, _, _ := strings.Cut(rest, "\n")
			var err error
			if verifier, err = checkpoint.NewVerifier(vkey); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		var answers atomic.Int64
		errs := make([]error, len(feeders))
		for i, f := range feeders {
			wg.Go(func() { errs[i] = f.feed(p, verifier, &answers) })
		}
		gone := make(chan struct{})
		go func() {
			wg.Wait()
			close(gone)
		}()
		for enough := 20 + rand.Int64N(60); answers.Load() < enough; {
			select {
			case <-gone:
				t.Fatal(errors.Join(errs...))
			case <-time.After(time.Millisecond):
			}
		}
		p.kill()
		wg.Wait()
		httpClient.CloseIdleConnections()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	p := witnessing(t, dir, flags...)
	for _, f := range feeders {
		// A fork from below what was cosigned.
		sent, err := f.request(0, f.acked+1)
		if err != nil {
			t.Fatal(err)
		}
		status, body := post(p.url+"/add-checkpoint", sent)
		if status != http.StatusConflict {
			t.Fatalf("from size 0: %d %q, want 409", status, body)
		}
		size, err := strconv.ParseUint(strings.TrimSuffix(body, "\n"), 10, 64)
		if err != nil || size < f.acked || size > f.claims {
			t.Errorf("%s: it says %q, acknowledged was %d of %d", f.origin, body, f.acked, f.claims)
		}
	}
}

// A witness waits for its database, as a server does.
func TestAWitnessWaitsForItsDatabase(t *testing.T) {
	db := pgtest.Start(t)
	url := db.Database(t)
	db.Stop()
	ops := freeAddress(t)
	p := newWitnessProcess(t.TempDir(), "--db", url, "--ops-listen", ops)
	started := make(chan error, 1)
	go func() { started <- p.start(witnessGreeting) }()
	untilAnswered(t, "http://"+ops+"/readyz", http.StatusServiceUnavailable, "connect")
	db.Run(t)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	untilAnswered(t, "http://"+ops+"/readyz", http.StatusOK, "ready")
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(p.stderr.String(), "horse") {
		t.Errorf("the password is in what it says:\n%s", p.stderr.String())
	}
}
