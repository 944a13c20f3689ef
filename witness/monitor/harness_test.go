package monitor

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

var testSeed = checkpoint.Seed{7}

const testOrigin = "audit.example.com/logs/acme"

// history is what a log has written, and what it is able to sign: tests let one log have several.
type history struct {
	t       *testing.T
	origin  string
	entries [][]byte
	chain   merkle.Hash
}

func newHistory(t *testing.T, origin string) *history {
	leaf, _ := checkpoint.NewChain(origin).Last()
	return &history{t: t, origin: origin, chain: leaf}
}

// grow appends entries up to size, in a chain. Their content is that of the branch, so that branches differ.
func (h *history) grow(size int, branch string) *history {
	for i := len(h.entries); i < size; i++ {
		entry := binary.BigEndian.AppendUint64([]byte{0x01}, uint64(1_000_000+i))
		entry = append(entry, h.chain[:]...)
		digest := merkle.LeafHash(fmt.Appendf(nil, "%s %d", branch, i))
		h.add(append(entry, digest[:]...))
	}
	return h
}

func (h *history) add(entry []byte) {
	h.entries = append(h.entries, entry)
	h.chain = merkle.LeafHash(entry)
}

// fork returns another history that begins with the first size entries.
func (h *history) fork(size int) *history {
	f := newHistory(h.t, h.origin)
	for _, e := range h.entries[:size] {
		f.add(e)
	}
	return f
}

func (h *history) root(size int) merkle.Hash {
	tree := merkle.NewRange()
	for _, e := range h.entries[:size] {
		tree.Append(merkle.LeafHash(e), nil)
	}
	return tree.Root()
}

func (h *history) checkpoint(size int) checkpoint.Checkpoint {
	return checkpoint.Checkpoint{Origin: h.origin, Size: uint64(size), Root: h.root(size)}
}

// note signs the first size entries, and has witnesses cosign.
func (h *history) note(size int, witnesses ...*checkpoint.Cosigner) []byte {
	return signed(h.t, h.checkpoint(size), witnesses...)
}

// signed returns the note of any checkpoint, signed by the log's key.
func signed(t *testing.T, cp checkpoint.Checkpoint, witnesses ...*checkpoint.Cosigner) []byte {
	t.Helper()
	signer, _, err := testSeed.Ed25519(cp.Origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := checkpoint.Sign(cp, signer)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range witnesses {
		sig, err := w.Cosign(cp, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		msg = append(msg, checkpoint.SignatureLine(sig)...)
	}
	return msg
}

func vkey(t *testing.T, origin string) string {
	t.Helper()
	_, vkey, err := testSeed.Ed25519(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}

// ReadTile lets a history prove what it likes about itself.
func (h *history) ReadTile(_ context.Context, tile merkle.Tile) ([]merkle.Hash, error) {
	return h.tile(tile), nil
}

func (h *history) tile(tile merkle.Tile) []merkle.Hash {
	span := 1 << (8 * tile.Level)
	var hashes []merkle.Hash
	for i := range tile.Width {
		from := (int(tile.Index)*merkle.TileWidth + i) * span
		tree := merkle.NewRange()
		for _, e := range h.entries[from : from+span] {
			tree.Append(merkle.LeafHash(e), nil)
		}
		hashes = append(hashes, tree.Root())
	}
	return hashes
}

// fakeLog serves a log as C2SP tlog-tiles has it: the tiles of a history up to the size of the checkpoint that it serves.
type fakeLog struct {
	*httptest.Server
	mu       sync.Mutex
	history  *history
	size     int
	note     []byte
	growth   map[int]string                        // of a hub: answers by index
	tamper   func(path string, data []byte) []byte // nil: the answer is 404
	fails    func(path string) bool                // whether the answer is 503
	requests []*http.Request
}

func newFakeLog(t *testing.T) *fakeLog {
	f := &fakeLog{growth: map[int]string{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// serve makes the first size entries of a history what is served from now on, under a note of its own unless one is given.
func (f *fakeLog) serve(h *history, size int, note ...byte) {
	if note == nil {
		note = h.note(size)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history, f.size, f.note = h, size, note
}

// spoil has answers changed from now on; nil for no longer.
func (f *fakeLog) spoil(tamper func(path string, data []byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tamper = tamper
}

// fail has what is asked at some paths answered 503 from now on; nil for no longer.
func (f *fakeLog) fail(fails func(path string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = fails
}

// proves sets what is answered about the growth to an entry; "" for nothing.
func (f *fakeLog) proves(index int, answer string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.growth[index] = answer
}

func (f *fakeLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	path := strings.TrimPrefix(r.URL.Path, "/logs/acme/")
	if f.fails != nil && f.fails(path) {
		http.Error(w, "store_unavailable", http.StatusServiceUnavailable)
		return
	}
	data := f.answer(path)
	if data != nil && f.tamper != nil {
		data = f.tamper(path, data)
	}
	if data == nil {
		http.NotFound(w, r)
		return
	}
	w.Write(data)
}

func (f *fakeLog) answer(path string) []byte {
	if path == "checkpoint" {
		return f.note
	}
	if index, ok := strings.CutPrefix(path, "growth/"); ok {
		i, _ := strconv.Atoi(index)
		if answer := f.growth[i]; answer != "" {
			return []byte(answer)
		}
		return nil
	}
	tile, err := merkle.ParseTilePath(path)
	if err != nil || !tile.In(uint64(f.size)) {
		return nil
	}
	var data []byte
	if tile.Level == merkle.EntriesLevel {
		first := int(tile.Index) * merkle.TileWidth
		for _, e := range f.history.entries[first : first+tile.Width] {
			data, _ = merkle.AppendBundle(data, e)
		}
		return data
	}
	for _, hash := range f.history.tile(tile) {
		data = append(data, hash[:]...)
	}
	return data
}

// url is the log's public prefix.
func (f *fakeLog) url() string { return f.URL + "/logs/acme" }

// fakeWitness serves what it has cosigned of a log.
type fakeWitness struct {
	*httptest.Server
	*checkpoint.Cosigner
	mu     sync.Mutex
	origin string // of that log
	note   []byte
}

func newFakeWitness(t *testing.T, name string) *fakeWitness {
	t.Helper()
	cosigner, err := testSeed.Ed25519Cosigner(name)
	if err != nil {
		t.Fatal(err)
	}
	w := &fakeWitness{Cosigner: cosigner, origin: testOrigin}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if r.Header.Get("Authorization") != "" {
			t.Error("a log's key is sent to a witness")
		}
		if w.note == nil || r.URL.Path != "/"+checkpoint.OriginHash(w.origin)+"/checkpoint" {
			http.NotFound(rw, r)
			return
		}
		rw.Write(w.note)
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *fakeWitness) show(note []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note = note
}

// policy returns a policy with the log's key and the witnesses, all of which must have cosigned if quorum says so.
func policy(t *testing.T, quorum bool, witnesses ...*fakeWitness) *checkpoint.Policy {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "log %s\n", vkey(t, testOrigin))
	names := []string{}
	for i, w := range witnesses {
		names = append(names, fmt.Sprintf("W%d", i))
		fmt.Fprintf(&b, "witness %s %s %s\n", names[i], w.VKey(), w.URL)
	}
	if quorum {
		fmt.Fprintf(&b, "group all all %s\nquorum all\n", strings.Join(names, " "))
	} else {
		b.WriteString("quorum none\n")
	}
	p, err := checkpoint.ParsePolicy([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// third is a third party: a monitor's configuration and its state directory, which outlive each process.
type third struct {
	t *testing.T
	c Config
}

// auditor returns a third party that follows the log at the URLs.
func auditor(t *testing.T, p *checkpoint.Policy, urls ...string) *third {
	t.Helper()
	a := &third{t, Config{Policy: p, StateDir: filepath.Join(t.TempDir(), "audit")}}
	for _, url := range urls {
		a.c.Targets = append(a.c.Targets, Target{URL: url, Origin: testOrigin})
	}
	return a
}

// look is one run of a process: one round over all logs.
func (a *third) look() *Report {
	a.t.Helper()
	m, err := Open(a.c)
	if err != nil {
		a.t.Fatal(err)
	}
	defer m.Close()
	r := m.Round(a.t.Context())
	for _, l := range r.Logs {
		a.t.Logf("%s: %v, served %d, known %d, read %d", l.URL, l.Verdict, l.Served, l.Size, l.Read)
		for _, p := range l.Problems {
			a.t.Logf("  %v %s: %s (%s)", p.Verdict, p.Kind, p.Detail, p.Evidence)
		}
		for _, w := range l.Witnesses {
			a.t.Logf("  %s: %s %d %s", w.Witness, w.Result, w.Size, w.Detail)
		}
	}
	return r
}

// finds looks once, at one log at one URL, and wants the verdict and, unless that is Verified, a problem of the kind.
func (a *third) finds(verdict Verdict, kind string) *LogReport {
	a.t.Helper()
	r := a.look()
	if got := r.Verdict; got != verdict {
		a.t.Fatalf("verdict %v, want %v", got, verdict)
	}
	l := r.Logs[len(r.Logs)-1]
	if verdict != Verified && !slices.ContainsFunc(l.Problems, func(p *Problem) bool { return p.Verdict == verdict && p.Kind == kind }) {
		a.t.Fatalf("no problem of kind %q among %v", kind, l.Problems)
	}
	return l
}

// evidence returns what is in the evidence directory, by the names' ends.
func (a *third) evidence() map[string]string {
	a.t.Helper()
	dir := filepath.Join(a.c.StateDir, "evidence")
	files, err := os.ReadDir(dir)
	if err != nil {
		a.t.Fatal(err)
	}
	found := map[string]string{}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			a.t.Fatal(err)
		}
		_, suffix, _ := strings.Cut(f.Name(), ".")
		found[suffix] = string(data)
	}
	return found
}

// convicts checks that the evidence convicts the log, with nothing but its key: both notes are signed, and either they have one size
// and two roots, or the proofs show that the first entries of their trees differ.
func (a *third) convicts() {
	a.t.Helper()
	files := a.evidence()
	v, err := note.NewVerifier(vkey(a.t, testOrigin))
	if err != nil {
		a.t.Fatal(err)
	}
	var trees []checkpoint.Checkpoint
	for _, name := range []string{"older.note", "newer.note"} {
		cp, _, err := checkpoint.Open([]byte(files[name]), testOrigin, v)
		if err != nil {
			a.t.Fatalf("%s: %v; evidence: %v", name, err, slices.Collect(maps.Keys(files)))
		}
		if !strings.Contains(files["report.txt"], strings.ReplaceAll(strings.TrimSpace(files[name]), "\n", "\n\t")) {
			a.t.Errorf("the report doesn't show %s:\n%s", name, files["report.txt"])
		}
		trees = append(trees, cp)
	}
	older, newer := trees[0], trees[1]
	if older.Size == newer.Size && older.Root != newer.Root {
		return
	}
	roots := map[merkle.Hash]bool{}
	var size uint64
	for _, claim := range parseClaims(a.t, files["proof.txt"]) {
		size = claim.size
		if err := merkle.VerifyConsistency(claim.size, newer.Size, claim.proof, claim.root, newer.Root); err != nil {
			if err := merkle.VerifyConsistency(claim.size, older.Size, claim.proof, claim.root, older.Root); err != nil {
				a.t.Fatalf("the proof proves nothing: %v", err)
			}
		}
		roots[claim.root] = true
	}
	if size == older.Size {
		roots[older.Root] = true
	}
	if len(roots) != 2 {
		a.t.Fatalf("the evidence shows %d roots of the first %d entries, want 2:\n%s", len(roots), size, files["report.txt"])
	}
}

// parseClaims reads a proof file of the evidence as a person would.
func parseClaims(t *testing.T, text string) (claims []prefixClaim) {
	t.Helper()
	hash := func(line string) merkle.Hash {
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil {
			t.Fatal(err)
		}
		return merkle.Hash(h)
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := 0; i < len(lines); i++ {
		if !strings.HasPrefix(lines[i], "the first ") {
			claims[len(claims)-1].proof = append(claims[len(claims)-1].proof, hash(lines[i]))
			continue
		}
		var c prefixClaim
		if _, err := fmt.Sscanf(lines[i], "the first %d entries of the tree of size %d", &c.size, &c.tree.Size); err != nil {
			t.Fatal(err)
		}
		c.root = hash(lines[i+1])
		claims = append(claims, c)
		i += 2
	}
	return claims
}
