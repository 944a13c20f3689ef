package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
	"github.com/treeline-log/treeline/merkle"
)

// aWitness is a witness that believes any log's key, and does the rest as the protocol demands.
type aWitness struct {
	*httptest.Server
	key *checkpoint.Cosigner

	mu     sync.Mutex
	down   bool
	latest map[string]checkpoint.Checkpoint
	notes  map[string][]byte
	claims uint64 // the size that it says every log has; 0: the truth
}

func newWitness(t *testing.T, n int) *aWitness {
	t.Helper()
	key, err := checkpoint.Seed{byte(n)}.Ed25519Cosigner(fmt.Sprintf("witness-%d.example", n))
	if err != nil {
		t.Fatal(err)
	}
	w := &aWitness{key: key, latest: make(map[string]checkpoint.Checkpoint), notes: make(map[string][]byte)}
	w.Server = httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(w.Close)
	return w
}

func (w *aWitness) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

func (w *aWitness) serve(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down {
		http.Error(rw, "down", http.StatusBadGateway)
		return
	}
	if r.Method == http.MethodGet {
		msg := w.notes[strings.Split(r.URL.Path, "/")[1]]
		if msg == nil {
			http.NotFound(rw, r)
			return
		}
		rw.Write(msg)
		return
	}
	head, msg, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	old, err := strconv.ParseUint(strings.TrimPrefix(lines[0], "old "), 10, 64)
	c, _, noteErr := checkpoint.ParseForeignNote([]byte(msg))
	if err != nil || noteErr != nil {
		http.Error(rw, "malformed", http.StatusBadRequest)
		return
	}
	latest, ok := w.latest[c.Origin]
	if !ok {
		latest.Root = merkle.EmptyRoot()
	}
	if size := max(latest.Size, w.claims); old != size {
		rw.Header().Set("Content-Type", "text/x.tlog.size")
		rw.WriteHeader(http.StatusConflict)
		fmt.Fprintln(rw, size)
		return
	}
	proof, err := parseHashes(lines[1:])
	if err == nil {
		err = merkle.VerifyConsistency(old, c.Size, proof, latest.Root, c.Root)
	}
	if err != nil {
		http.Error(rw, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	sig, err := w.key.Cosign(c, time.Now())
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	hash := sha256.Sum256([]byte(c.Origin))
	w.latest[c.Origin] = c
	w.notes[hex.EncodeToString(hash[:])] = []byte(msg + checkpoint.SignatureLine(sig))
	io.WriteString(rw, checkpoint.SignatureLine(sig))
}

func parseHashes(lines []string) ([]merkle.Hash, error) {
	var hashes []merkle.Hash
	for _, line := range lines {
		raw, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(raw) != merkle.HashSize {
			return nil, fmt.Errorf("proof line %q", line)
		}
		hashes = append(hashes, merkle.Hash(raw))
	}
	return hashes, nil
}

// witnessed is three witnesses, and the file of a policy that asks for two of them.
func witnessed(t *testing.T) (witnesses []*aWitness, policy string) {
	t.Helper()
	text := ""
	for n := range 3 {
		w := newWitness(t, n+1)
		witnesses = append(witnesses, w)
		text += fmt.Sprintf("witness W%d %s %s\n", n+1, w.key.VKey(), w.URL)
	}
	policy = filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(policy, []byte(text+"group G 2 W1 W2 W3\nquorum G\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return witnesses, policy
}

// witnessedHead is the answer of /v1/checkpoint.
type witnessedHead struct {
	Checkpoint string            `json:"checkpoint"`
	Sizes      map[string]uint64 `json:"sizes"`
	Witnesses  []struct{ Name, Key, At string }
	Release    string
	Evidence   []struct{ Kind, Witness, Ours, Theirs string }
}

// awaitHead asks for the newest checkpoint until it is as wanted.
func (p *process) awaitHead(t *testing.T, what string, wanted func(witnessedHead) bool) (head witnessedHead) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		head = witnessedHead{}
		p.mustGetJSON(t, "/v1/checkpoint", &head)
		if wanted(head) {
			return head
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: got %+v; the server wrote:\n%s", what, head, p.stderr.String())
		}
	}
}

func signatures(note string) int { return strings.Count(note, "\n— ") }

const oneEvent = `{"action":"x"}`

func TestTheServerIsWitnessed(t *testing.T) {
	witnesses, policy := witnessed(t)
	for _, w := range witnesses {
		w.set(func() { w.down = true })
	}
	dir := t.TempDir()
	flags := []string{"--policy", policy, "--witness-interval", "50ms", "--checkpoint-interval", "50ms"}
	p := serving(t, dir, flags...)
	public := func() (status int, note string) {
		t.Helper()
		a, err := p.call(http.MethodGet, "/logs/default/checkpoint", nil)
		if err != nil {
			t.Fatal(err)
		}
		return a.status, string(a.body)
	}

	// All witnesses are down: events are taken, signed and proven, and nothing is released.
	var record struct {
		ID, State, Proof string
	}
	p.mustPost(t, "/v1/events?wait=signed", oneEvent, http.StatusCreated, &record)
	if record.State != "signed" || signatures(record.Proof) != 1 {
		t.Errorf("written while witnesses are down: got %+v, want it signed", record)
	}
	if status, note := public(); status != http.StatusNotFound {
		t.Errorf("public checkpoint that no witness has seen: got %d, %q, want 404", status, note)
	}
	if status, reasons := p.ready(t); status != http.StatusOK {
		t.Errorf("ready: got %d, %q, want 200: events are taken", status, reasons)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, reasons := p.ready(t)
		if strings.Contains(reasons, "warning: witness W1 couldn't be reached") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("readiness: got %q, want a warning", reasons)
		}
	}

	// Two are there: what they have cosigned is released.
	witnesses[0].set(func() { witnesses[0].down = false })
	witnesses[1].set(func() { witnesses[1].down = false })
	head := p.awaitHead(t, "two witnesses are there", func(h witnessedHead) bool { return h.Sizes["witnessed"] == h.Sizes["size"] })
	if head.Sizes["released"] != 1 || len(head.Witnesses) != 2 || signatures(head.Checkpoint) != 3 || head.Release != "witnessed" ||
		head.Witnesses[0].Name != "W1" || !strings.HasPrefix(head.Witnesses[0].Key, "witness-1.example+") {
		t.Errorf("checkpoint: got %+v, want it cosigned by two", head)
	}
	if _, note := public(); note != head.Checkpoint {
		t.Errorf("public checkpoint: got %q, want %q", note, head.Checkpoint)
	}
	p.mustPost(t, "/v1/events?wait=witnessed", oneEvent, http.StatusCreated, &record)
	if record.State != "witnessed" || signatures(record.Proof) != 3 {
		t.Errorf("written with wait=witnessed: got %+v, want it witnessed", record)
	}
	proof, err := p.get("/v1/events/" + record.ID + "/proof?wait=witnessed")
	if err != nil || signatures(string(proof)) != 3 {
		t.Errorf("proof: got %q, %v, want the cosignatures in it", proof, err)
	}
	var batch struct {
		Data       []struct{ State string }
		Checkpoint string
	}
	p.mustPost(t, "/v1/events/batch?wait=witnessed", `{"events":[`+oneEvent+`,`+oneEvent+`]}`, http.StatusCreated, &batch)
	if len(batch.Data) != 2 || batch.Data[1].State != "witnessed" || signatures(batch.Checkpoint) != 3 {
		t.Errorf("batch: got %+v, want it witnessed", batch)
	}

	// A bundle has the cosignatures, and names who made them: a policy that it meets, for whoever believes it.
	data, err := p.get("/v1/export?format=bundle")
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	named, err := fs.ReadFile(z, "policy")
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := checkpoint.ParsePolicy(named)
	if err != nil {
		t.Fatal(err)
	}
	v, err := bundle.Verify(bytes.NewReader(data), log.Trust{Policy: trusted})
	if err != nil || v.Checkpoint.State != log.StateWitnessed || v.Count != 4 || !v.Complete || len(v.Checkpoint.Witnesses) != 3 {
		t.Errorf("bundle: got %+v, %v, want it witnessed, with the policy\n%s", v, err, named)
	}
	if strings.Contains(string(named), "http") {
		t.Errorf("the policy in a bundle tells where the witnesses are:\n%s", named)
	}

	// The third one comes, and its cosignature is merged.
	witnesses[2].set(func() { witnesses[2].down = false })
	head = p.awaitHead(t, "the third witness is there", func(h witnessedHead) bool { return len(h.Witnesses) == 3 })
	if _, note := public(); note != head.Checkpoint {
		t.Errorf("public checkpoint: got %q, want the late cosignature in it", note)
	}
	metrics, err := http.Get(p.ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	text, err := io.ReadAll(metrics.Body)
	for _, want := range []string{
		`treeline_log_witnessed_size{log="default"} 4`, "treeline_unreleased_events 0", "treeline_witness_fail_open 0",
		`treeline_feed_claims{witness="W1"} 0`, `treeline_feed_attempts_total{result="cosigned",witness="W3"}`,
	} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("metrics: want %s in them (%v)", want, err)
		}
	}

	// After a restart without witnesses what was released is released still.
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	for _, w := range witnesses {
		w.set(func() { w.down = true })
	}
	mustFsck(t, dir, "--policy", policy)
	p = serving(t, dir, flags...)
	if status, note := public(); status != http.StatusOK || note != head.Checkpoint {
		t.Errorf("public checkpoint after a restart: got %d, %q, want %q", status, note, head.Checkpoint)
	}
}

// A server and a witness, both the real ones: what is written is witnessed, and proven so to whoever has the policy.
func TestOurServerHasOurWitness(t *testing.T) {
	dir, policy := t.TempDir(), filepath.Join(t.TempDir(), "policy")
	p := serving(t, dir)
	var head struct {
		VKeys []string `json:"vkeys"`
	}
	p.mustGetJSON(t, "/v1/checkpoint", &head)
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	w := witnessing(t, t.TempDir())
	if code, out, err := treeline("witness", "add-log", head.VKeys[0], "--data-dir", w.dir); code != exitOK {
		t.Fatalf("add-log: %d, %s, %v", code, out, err)
	}
	_, rest, _ := strings.Cut(w.stdout, "URL):\n  ")
	vkey, _, _ := strings.Cut(rest, "\n")
	text := fmt.Sprintf("log %s\nwitness W %s %s\nquorum W\n", head.VKeys[0], vkey, w.url)
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p = serving(t, dir, "--policy", policy, "--witness-interval", "50ms", "--checkpoint-interval", "50ms")
	p.awaitHead(t, "the witness knows the log", func(h witnessedHead) bool { return h.Sizes["released"] == h.Sizes["size"] && len(h.Witnesses) == 1 })
	for n := range 5 {
		var record struct{ ID, State, Proof string }
		p.mustPost(t, "/v1/events?wait=witnessed", oneEvent, http.StatusCreated, &record)
		if record.State != "witnessed" {
			t.Fatalf("event %d: got %s, want it witnessed", n, record.State)
		}
		file := filepath.Join(t.TempDir(), "event.tlog-proof")
		if err := os.WriteFile(file, []byte(record.Proof), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, err := treeline("verify", file, "--policy", policy); code != exitOK {
			t.Errorf("verify --policy: got %d, %s, %v, want 0", code, out, err)
		}
	}
}

func TestFailOpenIsVisible(t *testing.T) {
	witnesses, policy := witnessed(t)
	for _, w := range witnesses {
		w.set(func() { w.down = true })
	}
	dir := t.TempDir()
	p := serving(t, dir, "--policy", policy, "--witness-fail-open", "--checkpoint-interval", "50ms")
	if !strings.Contains(p.stderr.String(), "FAIL OPEN") {
		t.Error("the log doesn't say so")
	}
	p.mustPost(t, "/v1/events?wait=signed", oneEvent, http.StatusCreated, &struct{}{})
	head := p.awaitHead(t, "signed", func(h witnessedHead) bool { return h.Sizes["signed"] == 1 })
	if head.Release != "fail-open" || head.Sizes["released"] != 1 || head.Sizes["witnessed"] != 0 || len(head.Witnesses) != 0 {
		t.Errorf("checkpoint: got %+v, want it released and not witnessed", head)
	}
	code, out, err := treeline("log", "list", "--server", p.url, "--key-file", filepath.Join(dir, "admin.key"))
	header, lines, _ := strings.Cut(out, "\n")
	line := lines[strings.Index(lines, "\ndefault ")+1:] // after the system log
	if want := "SIZE SIGNED WITNESSED RELEASED"; code != exitOK || !strings.Contains(strings.Join(strings.Fields(header), " "), want) {
		t.Errorf("log list: got %d, %s, %v, want the columns %s", code, out, err, want)
	}
	if sizes := strings.Join(strings.Fields(line)[2:6], " "); sizes != "1 1 0 1" {
		t.Errorf("log list: got sizes %s, want 1 1 0 1", sizes)
	}
}

// A whole data directory, fence and all, is put back as it was. Only witnesses can tell.
func TestWitnessesNoticeWhatTheFenceCannot(t *testing.T) {
	witnesses, policy := witnessed(t)
	dir, old := t.TempDir(), filepath.Join(t.TempDir(), "old")
	flags := []string{"--policy", policy, "--witness-interval", "50ms", "--checkpoint-interval", "50ms"}
	p := serving(t, dir, flags...)
	p.mustPost(t, "/v1/events?wait=witnessed", oneEvent, http.StatusCreated, &struct{}{})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(old, "seed"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = serving(t, dir, flags...)
	p.mustPost(t, "/v1/events?wait=witnessed", oneEvent, http.StatusCreated, &struct{}{})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	stops := func(p *process) error { return p.wrote("DATA RACE", "panic") }
	p = servingWith(t, stops, old, flags...)
	// The log is stopped first, and then the evidence is kept.
	head := p.awaitHead(t, "stopped", func(h witnessedHead) bool { return len(h.Evidence) > 0 })
	reasons := p.awaitReady(t, http.StatusServiceUnavailable)
	if !strings.Contains(reasons, "another history") || !strings.Contains(reasons, "evidence against log default") {
		t.Errorf("readiness: got %q, want the evidence", reasons)
	}
	if e := head.Evidence[0]; e.Kind != "contradiction" || signatures(e.Ours) != 1 || signatures(e.Theirs) < 2 || head.Sizes["signed"] != 1 {
		t.Errorf("evidence: got %+v of %+v, want both notes", e, head.Sizes)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	code, out, err := treeline("log", "evidence", "--data-dir", old)
	if code != exitDiverged || !strings.Contains(out, "showed a checkpoint under the log's key") {
		t.Errorf("treeline log evidence: got %d, %q, %v, want 5 and both notes", code, out, err)
	}
	// It stays stopped, though the witnesses are away.
	for _, w := range witnesses {
		w.set(func() { w.down = true })
	}
	p = servingWith(t, stops, old, flags...)
	p.awaitReady(t, http.StatusServiceUnavailable)
}

func TestAClaimWaitsForTheOperator(t *testing.T) {
	witnesses, policy := witnessed(t)
	dir := t.TempDir()
	flags := []string{"--policy", policy, "--witness-interval", "50ms", "--checkpoint-interval", "50ms"}
	p := serving(t, dir, flags...)
	p.mustPost(t, "/v1/events?wait=witnessed", oneEvent, http.StatusCreated, &struct{}{})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	witnesses[0].set(func() { witnesses[0].claims = 9 })
	objects := func(p *process) error { return p.wrote("DATA RACE", "panic") }
	p = servingWith(t, objects, dir, flags...)
	if reasons := p.awaitReady(t, http.StatusServiceUnavailable); !strings.Contains(reasons, "W1 says that the log had 9 entries") {
		t.Errorf("readiness: got %q, want the claim", reasons)
	}
	p.mustPost(t, "/v1/events", oneEvent, http.StatusCreated, &struct{}{}) // is taken, and waits
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = servingWith(t, objects, dir, append(flags, "--accept-witness-claim", "default=9")...)
	head := p.awaitHead(t, "the claim is accepted", func(h witnessedHead) bool { return h.Sizes["witnessed"] == 2 })
	if len(head.Witnesses) < 2 {
		t.Errorf("witnesses: got %+v, want the two others", head.Witnesses)
	}
	if _, reasons := p.ready(t); !strings.Contains(reasons, "claims that the log had 9 entries") {
		t.Errorf("readiness: got %q, want a warning still", reasons)
	}
}

// The same with a hub. Witnesses have seen nothing of the logs in it, and their fences were set back with the store; but what set back the
// hub has set back them, so none of them is signed, from the start on.
func TestWitnessesOfTheHubHoldEveryLog(t *testing.T) {
	witnesses, policy := witnessed(t)
	dir, old := t.TempDir(), filepath.Join(t.TempDir(), "old")
	flags := []string{"--policy", policy, "--hub", "--witness-interval", "50ms", "--checkpoint-interval", "50ms"}
	p := serving(t, dir, flags...)
	p.mustPost(t, "/v1/events?wait=witnessed", oneEvent, http.StatusCreated, &struct{}{})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(old, "seed"), 0o600); err != nil {
		t.Fatal(err)
	}
	p = serving(t, dir, flags...)
	p.mustPost(t, "/v1/events?wait=witnessed", oneEvent, http.StatusCreated, &struct{}{})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	stops := func(p *process) error { return p.wrote("DATA RACE", "panic") }
	for range 2 {
		p = servingWith(t, stops, old, flags...)
		reasons := p.awaitReady(t, http.StatusServiceUnavailable)
		if !strings.Contains(reasons, "log hub is stopped") || !strings.Contains(reasons, "another history") || !strings.Contains(reasons, "no log is signed") {
			t.Errorf("readiness: got %q, want that the hub is stopped, and no log signed", reasons)
		}
		if r, err := p.call(http.MethodPost, "/v1/events", []byte(oneEvent), "Content-Type", "application/json"); err != nil || r.status != http.StatusServiceUnavailable {
			t.Errorf("an append to a store that is an old one: got %v, %v, want 503", r, err)
		}
		if head := p.awaitHead(t, "any", func(witnessedHead) bool { return true }); head.Sizes["signed"] != 1 || head.Sizes["size"] != 1 {
			t.Errorf("sizes: got %+v, want nothing appended or signed beyond 1", head.Sizes)
		}
		if !strings.Contains(p.stderr.String(), "SIGNING WAITS") || strings.Contains(p.stderr.String(), "LOG STOPPED: log=default") {
			t.Errorf("the server wrote:\n%s", p.stderr.String())
		}
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		for _, w := range witnesses { // it stays so, though they are away
			w.set(func() { w.down = true })
		}
	}
	if code, out, err := treeline("log", "evidence", "--data-dir", old); code != exitDiverged || !strings.Contains(out, "showed a checkpoint under the log's key") {
		t.Errorf("treeline log evidence: got %d, %q, %v, want 5 and both notes", code, out, err)
	}
}

// Witnesses enough for the quorum that only say so, and show nothing, can be let pass.
func TestAClaimAboutTheHubWaitsForTheOperator(t *testing.T) {
	witnesses, policy := witnessed(t)
	dir := t.TempDir()
	flags := []string{"--policy", policy, "--hub", "--witness-interval", "50ms", "--checkpoint-interval", "50ms"}
	p := serving(t, dir, flags...)
	p.mustPost(t, "/v1/events?wait=witnessed", oneEvent, http.StatusCreated, &struct{}{})
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	witnesses[0].set(func() { witnesses[0].claims = 9 })
	objects := func(p *process) error { return p.wrote("DATA RACE", "panic") }
	p = servingWith(t, objects, dir, flags...)
	reasons := p.awaitReady(t, http.StatusServiceUnavailable)
	if !strings.Contains(reasons, "W1 says that the log had 9 entries") || !strings.Contains(reasons, "no log is signed") {
		t.Errorf("readiness: got %q, want the claim", reasons)
	}
	p.mustPost(t, "/v1/events", oneEvent, http.StatusCreated, &struct{}{}) // is taken, and waits
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	p = servingWith(t, objects, dir, append(flags, "--accept-witness-claim", "hub=9")...)
	p.awaitHead(t, "the claim is accepted", func(h witnessedHead) bool { return h.Sizes["witnessed"] == 2 })
}

func TestWitnessFlags(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "policy")
	if err := os.WriteFile(bad, []byte("quorum nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, good := witnessed(t)
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--policy", filepath.Join(dir, "absent")}, "no such file"},
		{[]string{"--policy", bad}, "line 1: "},
		{[]string{"--witness-fail-open"}, "--policy"},
		{[]string{"--policy", good, "--accept-witness-claim", "default"}, "LOG=SIZE"},
		{[]string{"--policy", good, "--accept-witness-claim", "acme=9"}, `the store has no log of that name`},
		{[]string{"--policy", good, "--hub", "--accept-witness-claim", "default=9"}, `asked about the log "hub" only`},
		{[]string{"--policy", good, "--witness-refresh", "1ms"}, "--witness-refresh"},
	} {
		code, out, err := treeline(append([]string{"serve", "--data-dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--ops-listen", ""}, c.flags...)...)
		if code == 0 || !strings.Contains(fmt.Sprint(out, err), c.want) {
			t.Errorf("%q: got %d, %s, %v, want %q", c.flags, code, out, err, c.want)
		}
	}
}
