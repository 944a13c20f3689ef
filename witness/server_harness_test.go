package witness_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/merkle"
	"github.com/treeline-log/treeline/witness"
	"github.com/treeline-log/treeline/witness/sqlstate"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// testTree is the tree of a log, with all its nodes.
type testTree struct {
	tree  *merkle.Range
	roots []merkle.Hash     // by size
	nodes [64][]merkle.Hash // complete subtrees by level
}

// newTree returns a tree of size entries. Trees with another secret have other entries.
func newTree(secret string, size int) *testTree {
	t := &testTree{tree: merkle.NewRange(), roots: []merkle.Hash{merkle.EmptyRoot()}}
	for range size {
		t.grow(secret)
	}
	return t
}

// grow adds an entry.
func (t *testTree) grow(secret string) {
	leaf := merkle.LeafHash(fmt.Appendf(nil, "%s %d", secret, t.tree.Size()))
	t.tree.Append(leaf, func(level uint, _ uint64, h merkle.Hash) { t.nodes[level] = append(t.nodes[level], h) })
	t.roots = append(t.roots, t.tree.Root())
}

// ReadTile is for merkle.ConsistencyProof.
func (t *testTree) ReadTile(_ context.Context, tile merkle.Tile) ([]merkle.Hash, error) {
	first := tile.Index * merkle.TileWidth
	return t.nodes[8*tile.Level][first : first+uint64(tile.Width)], nil
}

// proof returns the proof that the tree of size to extends the one of size from.
func (t *testTree) proof(tb testing.TB, from, to uint64) []merkle.Hash {
	tb.Helper()
	proof, err := merkle.ConsistencyProof(context.Background(), from, to, t)
	if err != nil {
		tb.Fatal(err)
	}
	return proof
}

// testLog is a log that wants cosignatures: an origin, signers, and a tree.
type testLog struct {
	*testTree
	origin  string
	signers []note.Signer
	vkeys   []string
}

// newLog returns a log with an Ed25519 key and a tree of size entries.
func newLog(tb testing.TB, origin string, size int) *testLog {
	tb.Helper()
	l := &testLog{testTree: newTree(origin, size), origin: origin}
	l.addKey(tb, origin)
	return l
}

// addKey gives the log a further Ed25519 key with the given name.
func (l *testLog) addKey(tb testing.TB, name string) {
	tb.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		tb.Fatal(err)
	}
	l.signers, l.vkeys = append(l.signers, signer), append(l.vkeys, vkey)
}

// forked returns a log with the same keys and another history.
func (l *testLog) forked(size int) *testLog {
	fork := *l
	fork.testTree = newTree("a fork of "+l.origin, size)
	return &fork
}

// keys returns what makes the log known to a witness.
func (l *testLog) keys() []witness.LogKey {
	var keys []witness.LogKey
	for _, vkey := range l.vkeys {
		keys = append(keys, witness.LogKey{Origin: l.origin, VKey: vkey})
	}
	return keys
}

// text returns the text of the checkpoint of a size.
func (l *testLog) text(size uint64) string {
	return checkpoint.Checkpoint{Origin: l.origin, Size: size, Root: l.roots[size]}.Text()
}

// note returns the text, signed by the log.
func (l *testLog) note(tb testing.TB, text string) string {
	tb.Helper()
	msg, err := note.Sign(&note.Note{Text: text}, l.signers...)
	if err != nil {
		tb.Fatal(err)
	}
	return string(msg)
}

// request returns the body of an honest add-checkpoint request.
func (l *testLog) request(tb testing.TB, from, to uint64) string {
	tb.Helper()
	return body(from, l.proof(tb, from, to), l.note(tb, l.text(to)))
}

// body returns the body of an add-checkpoint request.
func body(old uint64, proof []merkle.Hash, msg string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	return b.String() + "\n" + msg
}

// hash returns the hash under which the log's checkpoint is served.
func (l *testLog) hash() string {
	sum := sha256.Sum256([]byte(l.origin))
	return hex.EncodeToString(sum[:])
}

// testWitness is a witness on a real state, behind a real listener.
type testWitness struct {
	*witness.Server
	state     witness.State
	url       string
	verifiers []note.Verifier
	clock     *clock
	logs      *bytes.Buffer // what it logged, to be read when it is closed
	ops       *httptest.Server
	client    *http.Client
}

// clock is a time that tests set.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// options are what the witnesses of some tests have that others don't.
type options struct {
	state witness.State // nil: a new one in SQLite
	rate  float64
	most  int // logs that lists add
	mldsa bool
	seed  byte
}

const witnessName = "witness.example/w1"

func newSQLite(tb testing.TB) *sqlstate.DB {
	tb.Helper()
	db, err := sqlstate.OpenSQLite(context.Background(), filepath.Join(tb.TempDir(), "witness.db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return db
}

// newWitness starts a witness that knows the logs.
func newWitness(tb testing.TB, o options, logs ...*testLog) *testWitness {
	tb.Helper()
	if o.state == nil {
		o.state = newSQLite(tb)
	}
	for _, l := range logs {
		if _, err := o.state.AddKeys(context.Background(), l.keys(), true); err != nil {
			tb.Fatal(err)
		}
	}
	w := &testWitness{state: o.state, clock: &clock{time.Unix(1_800_000_000, 0)}, logs: &bytes.Buffer{}, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 200},
	}}
	seed := checkpoint.Seed{1, o.seed}
	ed25519, err := seed.Ed25519Cosigner(witnessName)
	if err != nil {
		tb.Fatal(err)
	}
	cosigners := []*checkpoint.Cosigner{ed25519}
	if o.mldsa {
		mldsa, err := seed.MLDSA44Cosigner(witnessName)
		if err != nil {
			tb.Fatal(err)
		}
		cosigners = append(cosigners, mldsa)
	}
	w.Server, err = witness.NewServer(context.Background(), witness.ServerConfig{
		State: o.state, Cosigners: cosigners, Logger: slog.New(slog.NewTextHandler(w.logs, nil)), Registry: prometheus.NewRegistry(),
		Rate: o.rate, MaxListed: o.most, Now: w.clock.Now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	for _, vkey := range w.VKeys() {
		v, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			tb.Fatal(err)
		}
		w.verifiers = append(w.verifiers, v)
	}
	front := httptest.NewServer(w.Server)
	w.url, w.ops = front.URL, httptest.NewServer(w.Ops())
	tb.Cleanup(func() {
		front.Close()
		w.ops.Close()
		w.client.CloseIdleConnections()
		w.Server.Close()
	})
	return w
}

// stallOnce makes the next batch stay, when it is checked and cosigned and nothing of it is recorded, until goOn is called. That it has
// come so far is told by checked.
func (w *testWitness) stallOnce() (checked <-chan struct{}, goOn func()) {
	at, on := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.Stall(func() {
		once.Do(func() {
			close(at)
			<-on
		})
	})
	return at, func() { close(on) }
}

// answer is an HTTP answer that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

func (w *testWitness) do(tb testing.TB, method, url, body string) answer {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		tb.Error(err)
		return answer{}
	}
	resp, err := w.client.Do(req)
	if err != nil {
		tb.Error(err)
		return answer{}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Error(err)
	}
	return answer{resp.StatusCode, resp.Header, string(data)}
}

// add sends an add-checkpoint request.
func (w *testWitness) add(tb testing.TB, body string) answer {
	return w.do(tb, http.MethodPost, w.url+"/add-checkpoint", body)
}

// get gets a page.
func (w *testWitness) get(tb testing.TB, path string) answer {
	return w.do(tb, http.MethodGet, w.url+path, "")
}

// mustAdd sends a request that must be cosigned, and checks the cosignatures as a log does.
func (w *testWitness) mustAdd(tb testing.TB, l *testLog, from, to uint64) {
	tb.Helper()
	body := l.request(tb, from, to)
	w.check(tb, body, w.add(tb, body))
}

// check checks an answer that must be cosignatures of what was sent, by every key of the witness, not before the clock's time.
func (w *testWitness) check(tb testing.TB, sent string, a answer) {
	tb.Helper()
	_, msg, _ := strings.Cut(sent, "\n\n")
	if a.status != http.StatusOK {
		tb.Errorf("got status %d %q, want 200", a.status, a.body)
		return
	}
	w.checkNote(tb, msg+a.body, len(w.verifiers))
}

// checkNote checks that a note has valid cosignatures by so many keys of the witness.
func (w *testWitness) checkNote(tb testing.TB, msg string, want int) {
	tb.Helper()
	n, err := note.Open([]byte(msg), note.VerifierList(w.verifiers...))
	if err != nil || len(n.Sigs) != want {
		tb.Errorf("got %+v, %v, want %d cosignatures", n, err, want)
		return
	}
	for _, sig := range n.Sigs {
		if at, err := checkpoint.CosignatureTime(sig); err != nil || at.Unix() <= 0 {
			tb.Errorf("got a cosignature at %v, %v", at, err)
		}
	}
}

// size returns the size that the witness says it has cosigned last.
func (w *testWitness) size(tb testing.TB, l *testLog) uint64 {
	tb.Helper()
	a := w.get(tb, "/"+l.hash()+"/checkpoint")
	if a.status == http.StatusNotFound {
		return 0
	}
	c, _, err := checkpoint.ParseForeignNote([]byte(a.body))
	if err != nil || c.Origin != l.origin {
		tb.Errorf("got %d %q, %v", a.status, a.body, err)
	}
	return c.Size
}

// metric returns the value of a line of /metrics.
func (w *testWitness) metric(tb testing.TB, name string) float64 {
	tb.Helper()
	for line := range strings.Lines(w.do(tb, http.MethodGet, w.ops.URL+"/metrics", "").body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				tb.Error(err)
			}
			return f
		}
	}
	tb.Errorf("there is no metric %s", name)
	return 0
}
