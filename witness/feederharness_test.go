package witness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// fedLog is a log in memory.
type fedLog struct {
	t      testing.TB
	origin string
	key    checkpoint.Seed

	mu        sync.Mutex
	leaves    []merkle.Hash
	signed    checkpoint.Checkpoint
	note      []byte
	others    bool                            // another server signs it
	recorded  uint64                          // by another server, if that is more than is signed here
	cosigned  map[uint64]map[string]time.Time // by size and key
	confirmed map[string]fedConfirmation      // by key
	shown     [][]byte                        // what contradicted it
	outvoted  map[string]uint64
	accepted  uint64
	asked     bool
	objection error
}

type fedConfirmation struct {
	size uint64
	at   time.Time
}

func newFedLog(t testing.TB, name string) *fedLog {
	l := &fedLog{
		t: t, origin: "log.example/logs/" + name, key: checkpoint.Seed{1},
		cosigned: make(map[uint64]map[string]time.Time), confirmed: make(map[string]fedConfirmation),
	}
	l.grow(0)
	return l
}

// grow appends n entries, and signs.
func (l *fedLog) grow(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for range n {
		l.leaves = append(l.leaves, merkle.LeafHash(fmt.Append(nil, l.origin, len(l.leaves))))
	}
	l.signed = checkpoint.Checkpoint{Origin: l.origin, Size: uint64(len(l.leaves)), Root: l.root(uint64(len(l.leaves)))}
	l.note = l.sign(l.signed)
}

func (l *fedLog) root(size uint64) merkle.Hash {
	r := merkle.NewRange()
	for _, leaf := range l.leaves[:size] {
		r.Append(leaf, nil)
	}
	return r.Root()
}

// sign signs whatever it is given with the log's key, as its operator could.
func (l *fedLog) sign(c checkpoint.Checkpoint) []byte {
	signer, _, err := l.key.Ed25519(l.origin, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	msg, err := checkpoint.Sign(c, signer)
	if err != nil {
		l.t.Fatal(err)
	}
	return msg
}

func (l *fedLog) verifier() note.Verifier {
	_, vkey, err := l.key.Ed25519(l.origin, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		l.t.Fatal(err)
	}
	return v
}

func (l *fedLog) ReadTile(_ context.Context, tile merkle.Tile) ([]merkle.Hash, error) {
	if tile.Level != 0 {
		return nil, errors.New("the test's logs are small")
	}
	first := tile.Index * merkle.TileWidth
	return slices.Clone(l.leaves[first : first+uint64(tile.Width)]), nil
}

func (l *fedLog) Signed() (checkpoint.Checkpoint, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.signed, l.note
}

func (l *fedLog) Signs() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.others
}

func (l *fedLog) Confirmed(_ context.Context, keys []string) (size uint64, at time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		c := l.confirmed[key]
		size = max(size, c.size)
		if c.at.After(at) {
			at = c.at
		}
	}
	return size, at, nil
}

func (l *fedLog) Consistency(ctx context.Context, from, to uint64) ([]merkle.Hash, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return merkle.ConsistencyProof(ctx, from, to, l)
}

func (l *fedLog) Cosign(_ context.Context, size uint64, sigs []note.Signature) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sig := range sigs {
		at, err := checkpoint.CosignatureTime(sig)
		if err != nil {
			return err
		}
		key := checkpoint.KeyID(sig.Name, sig.Hash)
		if l.cosigned[size] == nil {
			l.cosigned[size] = make(map[string]time.Time)
		}
		l.cosigned[size][key] = at
		l.confirmed[key] = fedConfirmation{max(size, l.confirmed[key].size), at}
	}
	return nil
}

func (l *fedLog) Recorded(context.Context) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.signed.Size, l.recorded), nil
}

func (l *fedLog) Examine(_ context.Context, _ string, shown []byte) (bool, error) {
	theirs, _, err := checkpoint.Open(shown, l.origin, l.verifier())
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if theirs.Size <= l.signed.Size && l.root(theirs.Size) == theirs.Root {
		return false, nil
	}
	l.shown = append(l.shown, shown)
	return true, nil
}

func (l *fedLog) Accepted() uint64 { return l.accepted }

func (l *fedLog) Outvoted(_ context.Context, claims map[string]uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.outvoted = maps.Clone(claims)
	return nil
}

func (l *fedLog) Asked(objection error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked, l.objection = objection == nil, objection
}

// state returns what the feeder made of the log.
func (l *fedLog) state() (asked bool, shown, outvoted int, objection error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked, len(l.shown), len(l.outvoted), l.objection
}

// at returns when a key has cosigned a size.
func (l *fedLog) at(size uint64, key string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cosigned[size][key]
}

// by returns who cosigned a size.
func (l *fedLog) by(size uint64) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.cosigned[size]))
}

// fedWitness is a witness in memory, as the protocol has it but for what deviates.
type fedWitness struct {
	t    testing.TB
	host string
	keys []*checkpoint.Cosigner
	logs map[string]*fedLog

	mu       sync.Mutex
	latest   map[string]uint64
	notes    map[string][]byte // as its monitoring endpoint serves them
	requests []string          // bodies
	busy     map[string]int    // requests under way, by log
	most     int               // of one log, at a time

	// deviates answers in place of the witness, if it returns true.
	deviates func(w http.ResponseWriter, r *http.Request, body []byte) bool
	ahead    time.Duration // of its clock
}

func (f *fedWitness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	origin := ""
	if r.Method == http.MethodPost {
		_, msg, _ := strings.Cut(string(body), "\n\n")
		origin, _, _ = strings.Cut(msg, "\n")
		f.mu.Lock()
		f.requests = append(f.requests, string(body))
		f.busy[origin]++
		f.most = max(f.most, f.busy[origin])
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			f.busy[origin]--
			f.mu.Unlock()
		}()
	}
	f.mu.Lock()
	deviates := f.deviates
	f.mu.Unlock()
	if deviates != nil && deviates(w, r, body) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodGet {
		for origin, msg := range f.notes {
			hash := sha256.Sum256([]byte(origin))
			if r.URL.Path == "/"+hex.EncodeToString(hash[:])+"/checkpoint" {
				w.Write(msg)
				return
			}
		}
		http.NotFound(w, r)
		return
	}
	f.addCheckpoint(w, string(body))
}

func (f *fedWitness) addCheckpoint(w http.ResponseWriter, body string) {
	head, msg, _ := strings.Cut(body, "\n\n")
	lines := strings.Split(head, "\n")
	old, err := strconv.ParseUint(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if err != nil {
		http.Error(w, "old", http.StatusBadRequest)
		return
	}
	c, sigs, err := checkpoint.ParseForeignNote([]byte(msg))
	if err != nil || len(sigs) != 1 {
		http.Error(w, "a note with the log's own signature only, please", http.StatusBadRequest)
		return
	}
	l := f.logs[c.Origin]
	if l == nil {
		http.Error(w, "unknown", http.StatusNotFound)
		return
	}
	if _, _, err := checkpoint.Open([]byte(msg), c.Origin, l.verifier()); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if latest := f.latest[c.Origin]; old != latest {
		conflict(w, latest)
		return
	}
	var proof []merkle.Hash
	for _, line := range lines[1:] {
		proof = append(proof, parseHash(f.t, line))
	}
	l.mu.Lock()
	root := l.root(old)
	l.mu.Unlock()
	if err := merkle.VerifyConsistency(old, c.Size, proof, root, c.Root); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	f.latest[c.Origin] = c.Size
	var answer []byte
	for _, key := range f.keys {
		answer = append(answer, f.line(key, c)...)
	}
	f.notes[c.Origin] = append([]byte(msg), answer...)
	w.Write(answer)
}

func (f *fedWitness) line(key *checkpoint.Cosigner, c checkpoint.Checkpoint) string {
	sig, err := key.Cosign(c, time.Now().Add(f.ahead))
	if err != nil {
		f.t.Error(err)
	}
	return checkpoint.SignatureLine(sig)
}

func conflict(w http.ResponseWriter, size uint64) {
	w.Header().Set("Content-Type", "text/x.tlog.size")
	w.WriteHeader(http.StatusConflict)
	fmt.Fprintln(w, size)
}

// set changes how the witness deviates.
func (f *fedWitness) set(deviates func(w http.ResponseWriter, r *http.Request, body []byte) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deviates = deviates
}

// asked returns the requests so far.
func (f *fedWitness) asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests)
}

// network carries requests to witnesses by their hosts, in memory, so that time can be made up.
type network map[string]http.Handler

func (n network) RoundTrip(r *http.Request) (*http.Response, error) {
	h := n[r.URL.Host]
	if h == nil {
		return nil, errors.New("connection refused")
	}
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.ServeHTTP(w, r)
	}()
	select {
	case <-done:
	case <-r.Context().Done():
	}
	if err := r.Context().Err(); err != nil { // also if the handler has ended for that
		return nil, err
	}
	return w.Result(), nil
}

// feeding is a feeder at work, with its logs and witnesses.
type feeding struct {
	*Feeder
	t         *testing.T
	logs      []*fedLog
	witnesses []*fedWitness
	registry  *prometheus.Registry
	out       bytes.Buffer
}

// feedTo makes a feeder for logs of the given names, with n witnesses, of which the quorum asks for k. Only for
// use in a bubble of synctest.
func feedTo(t *testing.T, k, n int, change func(*FeederConfig), names ...string) *feeding {
	t.Helper()
	f := &feeding{t: t, registry: prometheus.NewRegistry()}
	known := make(map[string]*fedLog)
	for _, name := range names {
		l := newFedLog(t, name)
		f.logs = append(f.logs, l)
		known[l.origin] = l
	}
	net := network{}
	var policy strings.Builder
	group := fmt.Sprintf("group quorum-of-them %d", k)
	for i := range n {
		host := fmt.Sprintf("w%d.example", i+1)
		w := &fedWitness{
			t: t, host: host, logs: known, latest: make(map[string]uint64), notes: make(map[string][]byte), busy: make(map[string]int),
		}
		key, err := checkpoint.Seed{byte(10 + i)}.Ed25519Cosigner(host)
		if err != nil {
			t.Fatal(err)
		}
		w.keys = []*checkpoint.Cosigner{key}
		f.witnesses = append(f.witnesses, w)
		net[host] = w
		fmt.Fprintf(&policy, "witness W%d %s https://%s\n", i+1, key.VKey(), host)
		group += fmt.Sprintf(" W%d", i+1)
	}
	fmt.Fprintf(&policy, "%s\nquorum quorum-of-them\n", group)
	parsed, err := checkpoint.ParsePolicy([]byte(policy.String()))
	if err != nil {
		t.Fatal(err)
	}
	c := FeederConfig{
		Policy: parsed, Logger: slog.New(slog.NewTextHandler(&f.out, nil)), Metrics: f.registry, Transport: net, Interval: time.Second,
		Logs: func() (logs []Log) {
			for _, l := range f.logs {
				logs = append(logs, l)
			}
			return logs
		},
	}
	if change != nil {
		change(&c)
	}
	if f.Feeder, err = NewFeeder(c); err != nil {
		t.Fatal(err)
	}
	return f
}

// start runs the feeder until the test ends.
func (f *feeding) start() *feeding {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	f.t.Cleanup(func() {
		cancel()
		<-done
		time.Sleep(time.Minute) // for handlers whose client has gone
	})
	return f
}

// attempts returns how many attempts at the witness came to a result.
func (f *feeding) attempts(witness, result string) int {
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "treeline_feed_attempts_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == result && m.GetLabel()[1].GetValue() == witness {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// gauge returns what a gauge says of a witness.
func (f *feeding) gauge(name, witness string) float64 {
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == witness {
				return m.GetGauge().GetValue()
			}
		}
	}
	f.t.Fatalf("there is no gauge %s of witness %s", name, witness)
	return 0
}

func (f *feeding) problem(t *testing.T, want string) {
	t.Helper()
	if got := strings.Join(f.Problems(), "\n"); !strings.Contains(got, want) || want == "" && got != "" {
		t.Errorf("problems: got %q, want %q", got, want)
	}
}
