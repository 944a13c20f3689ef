package log_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/sqlite"
	"github.com/treeline-log/treeline/merkle"
)

// move is a stopped SQLite store, and the database that it is to be moved to.
type move struct {
	t    *testing.T
	dir  string // of the source and the fence
	path string // of the source
	url  string // of the target
}

// newMove returns a move of logs of many sizes, with keys, and with a log that is frozen.
func newMove(t *testing.T, sizes map[string]int) *move {
	t.Helper()
	dir := t.TempDir()
	m := &move{t: t, dir: dir, path: filepath.Join(dir, "treeline.db"), url: migrated(t)}
	store := m.source()
	if _, err := store.Label(t.Context(), "installation", "test.example"); err != nil {
		t.Fatal(err)
	}
	s, err := m.serve(store)
	if err != nil {
		t.Fatal(err)
	}
	lines := cloudTrail(t)
	for _, name := range []string{"default", "small", "empty", "frozen"} {
		l, err := s.CreateLog(t.Context(), log.ByServer(), name, log.Settings{Public: name == "small"})
		if err != nil {
			t.Fatal(err)
		}
		for batch := range slices.Chunk(lines[:sizes[name]], 300) {
			m.append(l, batch)
		}
		if name == "small" {
			m.witness(store, l)
		}
		if name == "frozen" {
			if err := store.Freeze(t.Context(), l.ID); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := s.CreateKey(t.Context(), log.ByServer(), log.Key{Role: log.RoleReader, Log: l.ID, Name: "of " + name}); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	m.close(store)
	return m
}

// witness has the store hold what witnesses have said of a log.
func (m *move) witness(store log.Store, l *log.Log) {
	m.t.Helper()
	var all []log.Cosignature
	for _, size := range []uint64{0, l.Sizes().Signed} {
		for _, key := range []string{"a.example+00000001", "b.example+00000002"} {
			all = append(all, log.Cosignature{Size: size, Key: key, At: int64(size) + 7, Line: "— " + key + "\n"})
		}
	}
	if err := store.Cosign(m.t.Context(), l.ID, all); err != nil {
		m.t.Fatal(err)
	}
	e := log.Evidence{Kind: log.EvidenceAccepted, Size: 9, At: 5, Ours: []byte("note")}
	if err := store.AddEvidence(m.t.Context(), l.ID, e); err != nil {
		m.t.Fatal(err)
	}
}

// append appends events, and waits until they are signed.
func (m *move) append(l *log.Log, lines [][]byte) {
	m.t.Helper()
	events, err := log.ParseNDJSON(bytes.Join(lines, []byte("\n")), harnessOptions(), len(lines))
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := l.Append(m.t.Context(), events); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	if err := l.Wait(ctx, l.Sizes().Size, log.StateSigned); err != nil {
		m.t.Fatalf("waiting for a signature: %v (stopped: %v)", err, l.Stopped())
	}
}

func (m *move) source() *sqlite.Store {
	m.t.Helper()
	s, err := sqlite.Open(context.Background(), m.path)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *move) target() *postgres.Store {
	m.t.Helper()
	s, err := postgres.Open(context.Background(), postgres.Options{URL: m.url, PartRows: 500})
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *move) close(s log.Store) {
	m.t.Helper()
	if err := s.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// serve opens a service on a store, with the one fence.
func (m *move) serve(store log.Store) (*log.Service, error) {
	m.t.Helper()
	fence, err := checkpoint.OpenFileFence(filepath.Join(m.dir, "fence"))
	if err != nil {
		m.t.Fatal(err)
	}
	_, shared := store.(*postgres.Store)
	return log.Open(context.Background(), log.Config{
		Store: store, Seed: testSeed, Fence: fence, Prefix: "test.example", Interval: 10 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Shared: shared,
	})
}

// refusal returns why a store isn't served.
func (m *move) refusal(store log.Store) error {
	m.t.Helper()
	s, err := m.serve(store)
	if err == nil {
		s.Close()
	}
	return err
}

// copy does the move.
func (m *move) copy(wrap func(log.Store, log.Importer) (log.Store, log.Importer)) (log.CopyReport, error) {
	m.t.Helper()
	source, target := m.source(), m.target()
	defer m.close(source)
	defer m.close(target)
	var from log.Store = source
	var to log.Importer = target
	if wrap != nil {
		from, to = wrap(from, to)
	}
	return log.Copy(m.t.Context(), from, to, log.CopyOptions{Source: "the file", Target: "the database"})
}

// dump returns all that a store holds, a line each, but for the marks of a copy.
func dump(t *testing.T, s log.Reader) []string {
	t.Helper()
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	labels, err := s.Labels(t.Context(), "")
	check(err)
	for _, mark := range []string{"moved", "copied", "copying"} {
		delete(labels, mark)
	}
	add("labels %v", labels)
	keys, err := s.Keys(t.Context())
	check(err)
	add("keys %v", keys)
	logs, err := s.Logs(t.Context())
	check(err)
	for _, l := range logs {
		add("log %+v", l)
		head, err := s.Head(t.Context(), l.ID)
		check(err)
		add("head %+v", head)
		confirmed, err := s.Confirmations(t.Context(), l.ID)
		check(err)
		add("confirmed %v", confirmed)
		evidence, err := s.Evidence(t.Context(), l.ID)
		check(err)
		add("evidence %v", evidence)
		check(s.CosignaturesDown(t.Context(), l.ID, merkle.MaxSize, func(c log.Cosignature) error { add("cosignature %v", c); return nil }))
		check(s.Entries(t.Context(), l.ID, 0, head.Size, func(b []byte) error { add("entry %x", b); return nil }))
		check(s.Payloads(t.Context(), l.ID, 0, head.Size, func(index uint64, p log.Payload) error {
			add("content %d %x %x", index, p.Seed, p.Data)
			return nil
		}))
		check(s.IDs(t.Context(), l.ID, func(id string, index uint64) error { add("id %s %d", id, index); return nil }))
		nodes, err := s.Nodes(t.Context(), l.ID, 1, 0, head.Size/merkle.TileWidth)
		check(err)
		add("nodes %v", nodes)
		check(s.Growths(t.Context(), l.ID, 0, head.Size, func(g log.Growth) error { add("growth %+v", g); return nil }))
		check(s.Checkpoints(t.Context(), l.ID, 0, func(c log.Signed) error { add("checkpoint %d %s", c.Size, c.Note); return nil }))
		counts, err := s.Counts(t.Context(), l.ID)
		check(err)
		add("counts %+v", counts)
	}
	return out
}

// dumps returns what source and target hold.
func (m *move) dumps() (source, target []string) {
	m.t.Helper()
	from, to := m.source(), m.target()
	defer m.close(from)
	defer m.close(to)
	return dump(m.t, from), dump(m.t, to)
}

var allSizes = map[string]int{"default": 2200, "small": 3, "frozen": 300}

// A move keeps everything, and the history goes on where it was: what was proven before is proven still, and what is signed
// later extends what was signed before.
func TestCopyKeepsEverything(t *testing.T) {
	m := newMove(t, allSizes)
	before := m.source()
	want := dump(t, before)
	s, err := m.serve(before)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := s.Log("default").Proof(t.Context(), 1234)
	if err != nil {
		t.Fatal(err)
	}
	signed, _ := s.Log("default").Signed()
	s.Close()
	m.close(before)

	r, err := m.copy(nil)
	if err != nil || r != (log.CopyReport{Logs: 4, Events: 2503, Copied: 2503}) {
		t.Fatalf("copy: %+v, %v", r, err)
	}
	source, target := m.dumps()
	if !slices.Equal(source, want) {
		t.Error("the source was changed")
	}
	for i, line := range target {
		if i >= len(want) || line != want[i] {
			t.Fatalf("line %d of the target: %.200s", i, line)
		}
	}
	if len(target) != len(want) {
		t.Fatalf("the target has %d lines, want %d", len(target), len(want))
	}

	store := m.source()
	err = m.refusal(store)
	if !errors.Is(err, log.ErrMoved) || !strings.Contains(err.Error(), "to the database on 20") {
		t.Errorf("serving the source: %v", err)
	}
	m.close(store)
	reader, err := sqlite.OpenReadOnly(t.Context(), m.path)
	if err != nil {
		t.Fatalf("reading the source: %v", err)
	}
	defer reader.Close()

	moved := m.target()
	defer m.close(moved)
	if s, err = m.serve(moved); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := s.Log("default")
	if c, _ := l.Signed(); c != signed {
		t.Errorf("signed is %+v, want %+v", c, signed)
	}
	m.append(l, [][]byte{[]byte(`{"id":"after","action":"moved.on"}`)})
	c, _ := l.Signed()
	hashes, err := l.Consistency(t.Context(), signed.Size, c.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := merkle.VerifyConsistency(signed.Size, c.Size, hashes, signed.Root, c.Root); err != nil || c.Size != 2201 {
		t.Errorf("the checkpoint of size %d doesn't extend that of size %d: %v", c.Size, signed.Size, err)
	}
	pinned := []note.Verifier{verifier(t, l.Origin)}
	if v, err := log.VerifyProof(proof, log.Trust{Keys: pinned}); err != nil || v.Index != 1234 {
		t.Errorf("a proof from before: %+v, %v", v, err)
	}
	if again, err := l.Proof(t.Context(), 1234); err != nil {
		t.Error(err)
	} else if _, err := log.VerifyProof(again, log.Trust{Keys: pinned}); err != nil {
		t.Errorf("a proof of an old event from the new store: %v", err)
	}
	if _, err := s.Log("frozen").Append(t.Context(), []*log.Event{event(t, "x", "x")}); !errors.Is(err, log.ErrFrozen) {
		t.Errorf("appending to the frozen log: %v, want ErrFrozen", err)
	}
	for _, l := range s.Logs() {
		r, err := log.Fsck(t.Context(), moved, l.Info, log.FsckOptions{Verifiers: []note.Verifier{verifier(t, l.Origin)}})
		if err != nil || len(r.Problems) > 0 {
			t.Errorf("fsck of log %s: %+v, %v", l.Name, r, err)
		}
	}
}

func TestCopyAgainSaysThatItIsDone(t *testing.T) {
	m := newMove(t, map[string]int{"default": 10})
	empty := m.target()
	act := log.Act{Action: "fence.dropped"} // of a log that was given up, which makes the target no other's
	if err := log.DoBeside(t.Context(), empty, byOperator, act, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	m.close(empty)
	if _, err := m.copy(nil); err != nil {
		t.Fatal(err)
	}
	if r, err := m.copy(nil); err != nil || r != (log.CopyReport{Logs: 4, Events: 10, Before: true}) {
		t.Errorf("the same again: %+v, %v", r, err)
	}
	first := m.url
	m.url = migrated(t)
	if _, err := m.copy(nil); !errors.Is(err, log.ErrMoved) {
		t.Errorf("to a second target: %v, want ErrMoved", err)
	}
	store := m.target()
	defer m.close(store)
	if labels, err := store.Labels(t.Context(), ""); err != nil || len(labels) != 0 {
		t.Errorf("the second target has labels %v, %v", labels, err)
	}

	// The store's old copy, which nobody has marked, and another store.
	m.url = first
	old := filepath.Join(t.TempDir(), "old.db")
	exec(t, m.path, "DELETE FROM labels WHERE name = 'moved'")
	copyFile(t, m.path, old)
	m.path = old
	if _, err := m.copy(nil); err == nil || !strings.Contains(err.Error(), "in use already") {
		t.Errorf("an old copy of the source to the target: %v", err)
	}
}

// exec changes a SQLite file behind everybody's back.
func exec(t *testing.T, path, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// killer ends a copy before its n-th step, which is the same as after the one before it.
type killer struct {
	steps int
	at    string // the step where it ended
}

var errKilled = errors.New("killed")

func (k *killer) step(name string, fn func() error) error {
	if k.steps--; k.steps > 0 {
		return fn()
	}
	k.at = name
	return errKilled
}

type killedSource struct {
	log.Store
	k *killer
}

func (s killedSource) Label(ctx context.Context, name, value string) (kept string, err error) {
	err = s.k.step("mark the source", func() (err error) {
		kept, err = s.Store.Label(ctx, name, value)
		return err
	})
	return kept, err
}

type killedTarget struct {
	log.Importer
	k *killer
}

func (s killedTarget) Import(ctx context.Context, logs []log.Info, keys []log.Key, labels map[string]string) error {
	return s.k.step("import", func() error { return s.Importer.Import(ctx, logs, keys, labels) })
}

func (s killedTarget) RecordAll(ctx context.Context, id log.ID, all []log.Signed) error {
	return s.k.step("record", func() error { return s.Importer.RecordAll(ctx, id, all) })
}

func (s killedTarget) Freeze(ctx context.Context, id log.ID) error {
	return s.k.step("freeze", func() error { return s.Importer.Freeze(ctx, id) })
}

func (s killedTarget) RenameLabel(ctx context.Context, from, to string) error {
	return s.k.step("mark the target", func() error { return s.Importer.RenameLabel(ctx, from, to) })
}

func (s killedTarget) Begin(ctx context.Context, logs []log.ID) (log.Tx, error) {
	tx, err := s.Importer.Begin(ctx, logs)
	return killedTx{tx, s.k}, err
}

type killedTx struct {
	log.Tx
	k *killer
}

func (t killedTx) Commit() error { return t.k.step("commit", t.Tx.Commit) }

// Wherever a copy ends, source and target can't both be served, the source can be as long as it isn't marked, and the same
// command completes the copy.
func TestCopyKilledAnywhereIsResumed(t *testing.T) {
	defer log.SetCopyEvents(300)()
	m := newMove(t, map[string]int{"default": 400, "frozen": 5})
	pristine := filepath.Join(t.TempDir(), "pristine.db")
	copyFile(t, m.path, pristine)
	want, _ := m.dumps()
	seen := make(map[string]bool)
	for n := 1; ; n++ {
		copyFile(t, pristine, m.path)
		m.url = migrated(t)
		k := &killer{steps: n}
		_, err := m.copy(func(from log.Store, to log.Importer) (log.Store, log.Importer) {
			return killedSource{from, k}, killedTarget{to, k}
		})
		if err == nil { // there are no more steps
			break
		}
		if !errors.Is(err, errKilled) {
			t.Fatalf("step %d: %v", n, err)
		}
		seen[k.at] = true
		m.checkNotBothServe(t, k.at)
		if _, err := m.copy(nil); err != nil {
			t.Fatalf("resumed before step %d (%s): %v", n, k.at, err)
		}
		source, target := m.dumps()
		if !slices.Equal(source, want) || !slices.Equal(target, want) {
			t.Fatalf("resumed before step %d (%s), target or source isn't what the source was", n, k.at)
		}
	}
	for _, step := range []string{"import", "commit", "record", "freeze", "mark the source", "mark the target"} {
		if !seen[step] {
			t.Errorf("no copy was ended before %q", step)
		}
	}
}

// checkNotBothServe checks what can be served after a copy was ended before a step.
func (m *move) checkNotBothServe(t *testing.T, step string) {
	t.Helper()
	source, target := m.source(), m.target()
	defer m.close(source)
	defer m.close(target)
	if err := m.refusal(source); (err == nil) != (step != "mark the target") || err != nil && !errors.Is(err, log.ErrMoved) {
		t.Errorf("before %q: serving the source: %v", step, err)
	}
	// An empty target is like any database that is new: what its fence knows is missing.
	if err := m.refusal(target); err == nil || step != "import" && !errors.Is(err, log.ErrCopying) {
		t.Errorf("before %q: serving the target: %v", step, err)
	}
}

// A source that grew between two attempts, with logs and keys that are new, is taken up as it is then.
func TestCopyResumesFromASourceThatWasServedMeanwhile(t *testing.T) {
	defer log.SetCopyEvents(100)()
	m := newMove(t, map[string]int{"default": 500})
	k := &killer{steps: 4}
	if _, err := m.copy(func(from log.Store, to log.Importer) (log.Store, log.Importer) { return from, killedTarget{to, k} }); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	store := m.source()
	s, err := m.serve(store)
	if err != nil {
		t.Fatal(err)
	}
	m.append(s.Log("default"), [][]byte{[]byte(`{"id":"later","action":"x"}`)})
	l, err := s.CreateLog(t.Context(), log.ByServer(), "new", log.Settings{Public: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.CreateKey(t.Context(), log.ByServer(), log.Key{Role: log.RoleWriter, Log: l.ID, Name: "new"}); err != nil {
		t.Fatal(err)
	}
	// A key that was revoked must not be good again on the other side.
	keys, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RevokeKey(t.Context(), log.ByServer(), keys[0].ID); err != nil {
		t.Fatal(err)
	}
	_, err = s.Log("default").Configure(t.Context(), log.ByServer(), func(c *log.Settings) error {
		c.Title, c.Required = "Acme", []string{"/outcome"}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	m.close(store)
	if r, err := m.copy(nil); err != nil || r.Events != 501 || r.Copied >= 501 {
		t.Fatalf("resumed: %+v, %v", r, err)
	}
	if source, target := m.dumps(); !slices.Equal(source, target) {
		t.Error("the target isn't what the source is")
	}
}

// Whatever is wrong with the source, the copy is refused: the source isn't marked, and the target can't be served.
func TestCopyRefusesADamagedSource(t *testing.T) {
	m := newMove(t, map[string]int{"default": 600, "small": 3})
	pristine := filepath.Join(t.TempDir(), "pristine.db")
	copyFile(t, m.path, pristine)
	// A byte in the middle of a blob.
	flip := func(column string) string {
		return fmt.Sprintf("CAST(substr(%[1]s, 1, 40) || CASE hex(substr(%[1]s, 41, 1)) WHEN '00' THEN x'01' ELSE x'00' END || "+
			"substr(%[1]s, 42) AS BLOB)", column)
	}
	for name, x := range map[string]struct{ statement, want string }{
		"a byte of an entry":     {"UPDATE entries SET entries = " + flip("entries") + " WHERE log = 1 AND first = 256", "entry 256 was changed"},
		"a byte of a content":    {"UPDATE payloads SET payload = " + flip("payload") + " WHERE log = 1 AND idx = 77", "entry 77: its content isn't a"},
		"a missing content":      {"DELETE FROM payloads WHERE log = 1 AND idx = 599", "entry 599: its content is missing"},
		"a seed":                 {"UPDATE payloads SET seed = zeroblob(32) WHERE log = 2 AND idx = 1", "entry 1: its content or seed is not"},
		"an id":                  {"UPDATE ids SET id = 'other' WHERE log = 1 AND idx = 5", "the target's ids aren't the source's"},
		"an id that is too much": {"INSERT INTO ids (log, id, idx) VALUES (1, 'more', 7)", "601 ids, want 600"},
		"a tree node":            {"UPDATE nodes SET hash = zeroblob(32) WHERE log = 1 AND idx = 1", "tree node 1 of level 1"},
		"a checkpoint": {"UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE log = 1 AND size = 0) WHERE log = 1 AND size = 300",
			"the checkpoint recorded for size 300 is of size 0"},
		"a missing checkpoint": {"DELETE FROM checkpoints WHERE log = 1 AND size = 0", "older ones were removed"},
		"a head":               {"UPDATE heads SET size = 599 WHERE log = 1", "the head of size 599 isn't one"},
		"a missing head":       {"DELETE FROM heads WHERE log = 3", "the log's head is missing"},
		"a verifier key":       {"UPDATE log_keys SET vkey = (SELECT vkey FROM log_keys WHERE log = 2) WHERE log = 1", "which isn't one of the log's"},
	} {
		t.Run(name, func(t *testing.T) {
			copyFile(t, pristine, m.path)
			m.url = migrated(t)
			exec(t, m.path, x.statement)
			if _, err := m.copy(nil); err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("copy: got %v, want %q", err, x.want)
			}
			source, target := m.source(), m.target()
			defer m.close(source)
			defer m.close(target)
			if labels, err := source.Labels(t.Context(), ""); err != nil || labels["moved"] != "" {
				t.Errorf("the source's labels: %v, %v", labels, err)
			}
			if err := m.refusal(target); !errors.Is(err, log.ErrCopying) {
				t.Errorf("serving the target: %v, want ErrCopying", err)
			}
		})
	}
}

func TestCopyRefusesATargetThatIsInUse(t *testing.T) {
	m := newMove(t, map[string]int{"default": 200})
	refused := func(name, want string) {
		t.Helper()
		_, err := m.copy(nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
		source := m.source()
		defer m.close(source)
		if labels, _ := source.Labels(t.Context(), ""); labels["moved"] != "" {
			t.Errorf("%s: the source was marked", name)
		}
	}
	fill := func(fn func(*postgres.Store) error) {
		t.Helper()
		m.url = migrated(t)
		target := m.target()
		defer m.close(target)
		if err := fn(target); err != nil {
			t.Fatal(err)
		}
	}
	info := log.Info{Name: "foreign", Origin: "other.example/logs/foreign"}
	fill(func(s *postgres.Store) error { return s.CreateLog(t.Context(), &info) })
	refused("a foreign log", "in use already")
	fill(func(s *postgres.Store) error {
		_, err := s.Label(t.Context(), "installation", "other")
		return err
	})
	refused("a label", "in use already")
	fill(func(s *postgres.Store) error {
		k, _ := log.NewKey(log.RoleAdmin, 0, "", 1)
		return s.CreateKey(t.Context(), k)
	})
	refused("a key", "in use already")

	// Of a copy that was begun: what isn't the source's.
	begin := func(fn func(*postgres.Store) error) {
		t.Helper()
		m.url = migrated(t)
		k := &killer{steps: 2}
		_, err := m.copy(func(from log.Store, to log.Importer) (log.Store, log.Importer) { return from, killedTarget{to, k} })
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		target := m.target()
		defer m.close(target)
		if err := fn(target); err != nil {
			t.Fatal(err)
		}
	}
	begin(func(s *postgres.Store) error { return s.CreateLog(t.Context(), &info) })
	refused("a foreign log that came later", "a log foreign, which isn't the source's")
	begin(func(s *postgres.Store) error {
		tx, err := s.Begin(t.Context(), []log.ID{1})
		if err != nil {
			return err
		}
		defer tx.Rollback()
		head, err := tx.Head(1)
		if err != nil {
			return err
		}
		if err := tx.Append([]*log.Batch{chained(t, 1, head, "foreign")}); err != nil {
			return err
		}
		return tx.Commit()
	})
	refused("a foreign entry", "1 entries that aren't the first of the source's 200")
	for statement, want := range map[string]string{
		"UPDATE payloads SET payload = seed WHERE log = 1 AND idx = 3":  "the target's contents aren't the source's",
		"UPDATE ids SET id = 'other' WHERE log = 1 AND idx = 3":         "the target's ids aren't the source's",
		"DELETE FROM checkpoints WHERE log = 1 AND size = 0":            "the target",
		"INSERT INTO nodes VALUES (1, 1, 7, '')":                        "the target at entry 200: the store holds 1 tree nodes, want 0",
		"UPDATE api_keys SET role = 'admin'":                            "which isn't the source's",
		"UPDATE labels SET value = 'other' WHERE name = 'installation'": "a label installation, which isn't the source's",
		"UPDATE heads SET frozen = TRUE WHERE log = 1":                  "the target's entries aren't the source's",
		"UPDATE entries SET entries = set_byte(entries, 40, 7)":         "the target at entry",
		"UPDATE log_keys SET vkey = 'other' WHERE log = 1":              "isn't the source's log default",
	} {
		m.url = migrated(t)
		k := &killer{steps: 7} // before the source is marked
		_, err := m.copy(func(from log.Store, to log.Importer) (log.Store, log.Importer) {
			return killedSource{from, k}, killedTarget{to, k}
		})
		if !errors.Is(err, errKilled) || k.at != "freeze" && k.at != "record" && k.at != "mark the source" {
			t.Fatal(k.at, err)
		}
		db, err := sql.Open("postgres", m.url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		db.Close()
		refused(statement, want)
	}
}

// A source that is served again after a copy was interrupted, and told to sign with ML-DSA-44, has got a verifier key since.
func TestCopyTakesKeysThatCameMeanwhile(t *testing.T) {
	m := newMove(t, map[string]int{"default": 10})
	k := &killer{steps: 3}
	if _, err := m.copy(func(from log.Store, to log.Importer) (log.Store, log.Importer) { return from, killedTarget{to, k} }); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	source := m.source()
	infos, err := source.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, vkey, err := testSeed.MLDSA44(infos[0].Origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := source.AddVKey(t.Context(), infos[0].ID, vkey); err != nil {
		t.Fatal(err)
	}
	m.close(source)
	if _, err := m.copy(nil); err != nil {
		t.Fatal(err)
	}
	target := m.target()
	defer m.close(target)
	copied, err := target.Logs(t.Context())
	if err != nil || !slices.Equal(copied[0].VKeys, []string{infos[0].VKeys[0], vkey}) {
		t.Errorf("the copy of the log has keys %.80q, %v, want both", copied[0].VKeys, err)
	}
	if err := m.refusal(target); err != nil {
		t.Errorf("the copy isn't served: %v", err)
	}
}

// A server that was running on the target before the copy began doesn't take up what is copied.
func TestCopyIsNotServedByAServerThatWasThereBefore(t *testing.T) {
	m := newMove(t, map[string]int{"default": 10})
	target := m.target()
	defer m.close(target)
	fence, err := checkpoint.OpenFileFence(filepath.Join(t.TempDir(), "fence"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := log.Open(t.Context(), log.Config{
		Store: target, Seed: testSeed, Fence: fence, Prefix: "test.example", Interval: 10 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Shared: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k := &killer{steps: 3}
	if _, err := m.copy(func(from log.Store, to log.Importer) (log.Store, log.Importer) { return from, killedTarget{to, k} }); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	if l := s.Lookup(t.Context(), "default"); l != nil {
		t.Errorf("it serves log %s of size %d", l.Name, l.Sizes().Size)
	}
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); !errors.Is(err, log.ErrCopying) {
		t.Errorf("making the log that was copied: %v, want ErrCopying", err)
	}
}
