package log_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// hubWitness is a witness, and the policy that asks for it.
type hubWitness struct {
	t        testing.TB
	cosigner *checkpoint.Cosigner
	policy   *checkpoint.Policy
}

func newHubWitness(t testing.TB) hubWitness {
	t.Helper()
	cosigner, err := checkpoint.Seed{9}.Ed25519Cosigner("witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := checkpoint.ParsePolicy([]byte("witness W1 " + cosigner.VKey() + "\nquorum W1\n"))
	if err != nil {
		t.Fatal(err)
	}
	return hubWitness{t, cosigner, policy}
}

// cosign signs the checkpoint of a size of the hub, as it comes to the service from a feeder.
func (w hubWitness) cosign(hub *log.Log, size uint64) {
	w.t.Helper()
	signed, err := hub.CheckpointAt(w.t.Context(), size)
	if err != nil {
		w.t.Fatal(err)
	}
	c, _, err := checkpoint.ParseNote(signed.Note)
	if err != nil {
		w.t.Fatal(err)
	}
	sig, err := w.cosigner.Cosign(c, time.Unix(1_700_000_000, 0))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := hub.Cosign(w.t.Context(), c.Size, []note.Signature{sig}); err != nil {
		w.t.Fatal(err)
	}
}

// newHubService opens a service with a hub that waits for a witness, with a log named "default".
func newHubService(t testing.TB) (*testService, hubWitness) {
	t.Helper()
	w := newHubWitness(t)
	s := &testService{t: t, dir: t.TempDir(), seed: testSeed, hub: true, policy: w.policy}
	if onPostgres {
		s.url = migrated(t)
	}
	s.open()
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	return s, w
}

// grow appends n events to a log.
func (s *testService) grow(name string, n int) {
	s.t.Helper()
	var events []*log.Event
	for range n {
		events = append(events, event(s.t, "", "x"))
	}
	if _, err := s.Log(name).Append(s.t.Context(), events); err != nil {
		s.t.Fatal(err)
	}
}

func (s *testService) create(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if _, err := s.CreateLog(s.t.Context(), log.ByServer(), name, log.Settings{}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// untilInHub waits until the hub's signed entries have all that the logs have.
func (s *testService) untilInHub() {
	s.t.Helper()
	s.until("the hub to have all", func() bool {
		newest := make(map[[32]byte]uint64)
		for _, e := range s.hubEntries(s.Log(log.HubName).Sizes().Signed) {
			newest[e.LogID] = e.Size
		}
		for _, l := range s.Logs() {
			if !l.IsHub() && newest[checkpoint.LogID(l.VKeys[0])] != l.Sizes().Size {
				return false
			}
		}
		return true
	})
}

// hubEntries returns the first size entries of the hub.
func (s *testService) hubEntries(size uint64) (all []checkpoint.HubEntry) {
	s.t.Helper()
	err := s.store.Entries(s.t.Context(), s.Log(log.HubName).ID, 0, size, func(b []byte) error {
		e, err := checkpoint.ParseHubEntry(b)
		all = append(all, e)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// witnessHub lets the witness cosign the hub as far as it is signed, and waits until the logs know.
func (s *testService) witnessHub(w hubWitness) {
	s.t.Helper()
	s.untilInHub()
	hub := s.Log(log.HubName)
	w.cosign(hub, hub.Sizes().Signed)
	s.until("all logs to be witnessed", func() bool {
		return !slices.ContainsFunc(s.Logs(), func(l *log.Log) bool { return l.Sizes().Witnessed != l.Sizes().Size })
	})
}

// checkHub checks everything about the hub from outside: fsck, and that each entry is a signed checkpoint of its log, with sizes that
// grow and a consistency proof that leads to it from the one before.
func (s *testService) checkHub() {
	s.t.Helper()
	hub := s.Log(log.HubName)
	for _, l := range s.Logs() {
		r, err := log.Fsck(s.t.Context(), s.store, l.Info, log.FsckOptions{
			Verifiers: []note.Verifier{verifier(s.t, l.Origin)}, Fence: s.fence(),
		})
		if err != nil || len(r.Problems) > 0 {
			s.t.Errorf("fsck of log %s: %+v, %v", l.Name, r, err)
		}
	}
	names := make(map[[32]byte]*log.Log)
	for _, l := range s.Logs() {
		names[checkpoint.LogID(l.VKeys[0])] = l
	}
	type seen struct {
		index uint64
		checkpoint.HubEntry
	}
	before := make(map[[32]byte]seen)
	for i, e := range s.hubEntries(hub.Sizes().Signed) {
		l := names[e.LogID]
		if l == nil || l.IsHub() {
			s.t.Fatalf("entry %d is about log %x", i, e.LogID)
		}
		signed, err := s.store.Checkpoint(s.t.Context(), l.ID, e.Size)
		if err != nil {
			s.t.Fatal(err)
		}
		c, _, err := checkpoint.Open(signed.Note, l.Origin, verifier(s.t, l.Origin))
		if err != nil || c.Size != e.Size || c.Root != e.Root {
			s.t.Errorf("entry %d: got %+v, the log signed %+v, %v", i, e, c, err)
		}
		if uint64(i) >= hub.Sizes().Released {
			continue
		}
		x, err := hub.Extension(s.t.Context(), uint64(i))
		if err != nil {
			s.t.Fatal(err)
		}
		b, ok := before[e.LogID]
		if x.First == ok || ok && (x.Previous != b.index || e.Size <= b.Size) {
			s.t.Errorf("entry %d of log %s: got %+v, the one before is %+v", i, l.Name, x, b)
		}
		if err := merkle.VerifyConsistency(b.Size, e.Size, x.Hashes, b.Root, e.Root); err != nil && ok {
			s.t.Errorf("entry %d of log %s: %v", i, l.Name, err)
		}
		before[e.LogID] = seen{uint64(i), e}
	}
}

func TestTheHubHasWhatLogsHaveSigned(t *testing.T) {
	s, w := newHubService(t)
	s.create("a", "b", "idle")
	hub := s.Log(log.HubName)
	if hub == nil || !hub.IsHub() || !hub.Public() || hub.Sizes() != (log.Sizes{}) {
		t.Fatalf("the hub: got %+v", hub)
	}
	for i := range 5 {
		s.grow("a", 1+100*i)
		if i%2 == 0 {
			s.grow("b", 1)
		}
		s.untilInHub()
	}
	// Nothing is witnessed, so nothing is released, not even of the hub.
	for _, l := range s.Logs() {
		if sizes := l.Sizes(); sizes.Witnessed != 0 || sizes.Released != 0 || sizes.Signed != sizes.Size {
			t.Errorf("log %s without witnesses: got %+v", l.Name, sizes)
		}
	}
	s.witnessHub(w)
	for _, l := range s.Logs() {
		if sizes := l.Sizes(); sizes.Witnessed != sizes.Size || sizes.Released != sizes.Size {
			t.Errorf("log %s: got %+v", l.Name, sizes)
		}
		if c, note := l.Released(); l.Sizes().Size > 0 && (c.Size != l.Sizes().Size || note == nil) {
			t.Errorf("log %s releases %+v, %q", l.Name, c, note)
		}
	}
	s.checkHub()
	// Idle logs have no entries, and what hasn't grown gets no more.
	size := hub.Sizes().Size
	time.Sleep(50 * time.Millisecond)
	if hub.Sizes().Size != size {
		t.Errorf("the hub grew from %d to %d, and no log did", size, hub.Sizes().Size)
	}

	// After a restart it goes on, and what was witnessed follows from the store alone.
	s.close()
	s.open()
	hub = s.Log(log.HubName)
	if hub.Sizes().Size != size {
		t.Errorf("the hub's size after a restart: got %d, want %d", hub.Sizes().Size, size)
	}
	s.grow("b", 3)
	s.untilInHub()
	if got, want := hub.Sizes().Size, size+1; got != want {
		t.Errorf("the hub's size: got %d, want %d", got, want)
	}
	w.cosign(hub, size)
	s.until("the old size to be witnessed", func() bool { return s.Log("b").Sizes().Witnessed == 3 && s.Log("a").Sizes().Witnessed == 1005 })
	if sizes := s.Log("b").Sizes(); sizes.Released != 3 || sizes.Signed != 6 {
		t.Errorf("log b, of which the hub has more than is witnessed: got %+v", sizes)
	}
	s.witnessHub(w)
	s.checkHub()
}

// What is frozen is in the hub as well, and a hub can be switched off and on.
func TestAHubIsSwitchedOffAndOn(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 3)
	s.witnessHub(w)
	s.close()
	s.hub, s.policy = false, nil
	s.open()
	s.grow("default", 2)
	s.signed()
	if sizes := s.log().Sizes(); sizes.Released != 5 || sizes.Witnessed != 0 {
		t.Errorf("without a hub: got %+v", sizes)
	}
	hub := s.Log(log.HubName)
	if hub.Sizes().Size != 1 {
		t.Errorf("the hub, switched off: got %+v", hub.Sizes())
	}
	if x, err := hub.Extension(t.Context(), 0); err != nil || !x.First {
		t.Errorf("its first entry: got %+v, %v", x, err)
	}
	if _, err := s.log().HubProof(t.Context(), 0, nil); !errors.Is(err, log.ErrNoHub) {
		t.Errorf("a hub proof: got %v, want ErrNoHub", err)
	}
	if _, _, err := s.Succeed(t.Context(), log.ByServer(), "default", "next", ""); err != nil {
		t.Fatal(err)
	}
	s.close()
	s.hub = true // without witnesses: what is signed is released
	s.open()
	s.untilInHub()
	if sizes := s.log().Sizes(); sizes.Released != 5 || !s.log().Frozen() {
		t.Errorf("a frozen log: got %+v", sizes)
	}
	s.until("a hub proof", func() bool {
		_, err := s.log().HubProof(t.Context(), 4, nil)
		return err == nil
	})
	s.checkHub()
}

// What was public stays so, whether witnesses had cosigned the log or the hub above it, when a server that has witnesses is started with
// a hub, and without.
func TestSwitchingTheHubTakesNoCheckpointBack(t *testing.T) {
	s, w := newHubService(t)
	public := func(size uint64, signatures int) {
		t.Helper()
		c, msg := s.log().Released()
		_, sigs, err := checkpoint.ParseNote(msg)
		if sizes := s.log().Sizes(); err != nil || c.Size != size || sizes.Released != size || sizes.Witnessed != size || len(sigs) != signatures {
			t.Errorf("public: got size %d with %d signatures of %+v, %v, want %d with %d", c.Size, len(sigs), sizes, err, size, signatures)
		}
	}
	s.grow("default", 2)
	s.witnessHub(w)
	s.grow("default", 1) // which is in the hub, and no witness has seen it
	s.untilInHub()
	public(2, 1)

	s.close()
	s.hub = false
	s.open()
	public(2, 1)
	s.log().Asked(nil)
	s.grow("default", 2)
	s.signed()
	w.cosign(s.log(), 5)
	public(5, 2)

	s.close()
	s.hub, s.unasked = true, true
	s.open()
	public(5, 2)
	s.Log(log.HubName).Asked(nil)
	s.witnessHub(w) // at the same size
	public(5, 2)
	s.grow("default", 1)
	s.witnessHub(w)
	public(6, 1)
	s.checkHub()
}

// The hub is no log of events, whatever it is asked for as one.
func TestTheHubHoldsNoEvents(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 3)
	s.witnessHub(w)
	hub := s.Log(log.HubName)
	ctx := t.Context()
	if _, err := s.CreateLog(ctx, log.ByServer(), log.HubName, log.Settings{}); !errors.Is(err, log.ErrName) {
		t.Errorf("making a log named hub: got %v, want ErrName", err)
	}
	for what, err := range map[string]error{
		"appending": func() error { _, err := hub.Append(ctx, []*log.Event{event(t, "", "x")}); return err }(),
		"reading":   func() error { _, err := hub.Records(ctx, 0, 1, 0); return err }(),
		"searching": func() error { _, err := hub.Search(ctx, nil, log.Page{Limit: 1}); return err }(),
		"proving":   func() error { _, err := hub.HubProof(ctx, 0, nil); return err }(),
		"ending":    func() error { _, _, err := s.Succeed(ctx, log.ByServer(), log.HubName, "next", ""); return err }(),
	} {
		if !errors.Is(err, log.ErrHub) {
			t.Errorf("%s: got %v, want ErrHub", what, err)
		}
	}
	if err := log.Reindex(ctx, s.store, hub.Info, nil); err != nil {
		t.Error(err)
	}
	if err := log.ScrubHub(ctx, s.store, hub.ID, hub.Sizes().Size); err != nil {
		t.Error(err)
	}
	for _, index := range []uint64{1, 100, merkle.MaxSize} {
		if _, err := hub.Extension(ctx, index); !errors.Is(err, log.ErrNotFound) {
			t.Errorf("the extension at %d: got %v, want ErrNotFound", index, err)
		}
	}
	if _, err := s.log().Extension(ctx, 0); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("the extension in a log of events: got %v, want ErrNotFound", err)
	}
}

func TestHubProofWaitsForWitnesses(t *testing.T) {
	s, w := newHubService(t)
	s.grow("default", 3)
	s.untilInHub()
	if _, err := s.log().HubProof(t.Context(), 0, nil); !errors.Is(err, log.ErrNotInHub) {
		t.Errorf("got %v, want ErrNotInHub", err)
	}
	s.witnessHub(w)
	s.grow("default", 1)
	s.untilInHub()
	if _, err := s.log().HubProof(t.Context(), 3, nil); !errors.Is(err, log.ErrNotInHub) {
		t.Errorf("the event that is not witnessed: got %v, want ErrNotInHub", err)
	}
	data, err := s.log().HubProof(t.Context(), 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := checkpoint.ParseHubProof(data)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := checkpoint.ParseProof(p.Entry)
	if err != nil || !strings.Contains(string(entry.Checkpoint), "witness.example/w1") {
		t.Errorf("the hub's checkpoint: got %q, %v, want the cosignature", entry.Checkpoint, err)
	}
}

// Many more logs than a batch has room for, and all of them grow at once.
func TestManyLogsAreInTheHub(t *testing.T) {
	t.Cleanup(log.SetMaxGrowths(7)) // when the service is closed
	s, w := newHubService(t)
	for i := range 50 {
		s.create(fmt.Sprint("log-", i))
		s.grow(fmt.Sprint("log-", i), 1+i%3)
	}
	s.witnessHub(w)
	for i := range 50 {
		if i%5 == 0 {
			s.grow(fmt.Sprint("log-", i), 1)
		}
	}
	s.witnessHub(w)
	s.checkHub()
	s.close()
	s.open()
	s.until("all to be witnessed again", func() bool {
		return !slices.ContainsFunc(s.Logs(), func(l *log.Log) bool { return l.Sizes().Witnessed != l.Sizes().Size })
	})
}

// Several servers put logs into one hub, and none does so twice.
func TestServersShareAHub(t *testing.T) {
	if !onPostgres {
		t.Skip("the embedded store has one server")
	}
	a, w := newHubService(t)
	a.create("a", "b", "c")
	b := &testService{t: t, dir: a.dir, url: a.url, seed: testSeed, hub: true, policy: w.policy}
	b.open()
	var wg sync.WaitGroup
	for _, s := range []*testService{a, b} {
		for _, name := range []string{"a", "b", "c"} {
			wg.Go(func() {
				for range 20 {
					if _, err := s.Log(name).Append(context.Background(), []*log.Event{event(t, "", "x")}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	ready := func(s *testService) func() bool {
		return func() bool {
			return !slices.ContainsFunc(s.Logs(), func(l *log.Log) bool { return l.Name < "d" && l.Sizes().Size != 40 || l.Stopped() != nil })
		}
	}
	a.until("all to be known", ready(a))
	b.until("all to be known", ready(b))
	a.untilInHub()
	for _, s := range []*testService{a, b} {
		s.until("the hub to be signed", func() bool { l := s.Log(log.HubName); return l.Sizes().Signed == a.Log(log.HubName).Sizes().Signed })
		s.witnessHub(w)
	}
	a.checkHub()
	for _, s := range []*testService{a, b} {
		if text := s.logs.String(); strings.Contains(text, "ERROR") || strings.Contains(text, "the hub failed") {
			t.Errorf("a server complains:\n%s", text)
		}
	}
}

// After each fault of a batch's transaction the hub goes on, and has nothing twice.
func TestTheHubGoesOnAfterFaults(t *testing.T) {
	for _, step := range []string{"append", "before commit", "after commit"} {
		t.Run(step, func(t *testing.T) {
			s, w := newHubService(t)
			s.grow("default", 1)
			s.untilInHub()
			faults := 0
			fault := func(at string) bool {
				if at != step || faults == 2 {
					return false
				}
				faults++
				return true
			}
			release := s.holdPublisher()
			s.grow("default", 1)
			f := fault
			s.store.fault.Store(&f)
			release()
			s.witnessHub(w)
			if faults == 0 {
				t.Error("no fault was injected")
			}
			s.checkHub()
			if got := s.Log(log.HubName).Sizes().Size; got != 2 {
				t.Errorf("the hub's size: got %d, want 2", got)
			}
		})
	}
}

// A hub is moved with its logs, and goes on in the other store.
func TestCopyTakesTheHub(t *testing.T) {
	w := newHubWitness(t)
	s := &testService{t: t, dir: t.TempDir(), seed: testSeed, hub: true, policy: w.policy}
	s.open()
	s.create("a", "b", "empty")
	for i := range 20 { // more than a batch of the copy
		s.grow("a", 1)
		s.grow("b", 1+i%2)
		s.untilInHub()
	}
	size := s.Log(log.HubName).Sizes().Size
	s.close()
	defer log.SetCopyEvents(7)()
	m := &move{t: t, dir: s.dir, path: s.path(), url: migrated(t)}
	r, err := m.copy(nil)
	if err != nil || r != (log.CopyReport{Logs: 3, Hub: true, Events: 50, Copied: 50}) {
		t.Fatalf("copy: %+v, %v", r, err)
	}
	if source, target := m.dumps(); !slices.Equal(source, target) {
		t.Errorf("the target holds %q, the source %q", target, source)
	}
	onPostgres = true
	defer func() { onPostgres = false }()
	moved := &testService{t: t, dir: s.dir, url: m.url, seed: testSeed, hub: true, policy: w.policy}
	moved.open()
	defer moved.close()
	moved.grow("a", 1)
	moved.witnessHub(w)
	moved.checkHub()
	if got := moved.Log(log.HubName).Sizes().Size; got != size+1 {
		t.Errorf("the hub's size: got %d, want %d", got, size+1)
	}
}

// Whatever somebody changes of a hub in the database, fsck names it. What was signed before is not signed again in another way.
func TestTamperingWithTheHubIsFound(t *testing.T) {
	entry := func(f *intruder, index int, edit func(b []byte)) {
		var runs [][]byte
		hub := f.s.hubID
		if err := f.db.Select(&runs, `SELECT entries FROM entries WHERE log = ? ORDER BY first`, hub); err != nil {
			f.t.Fatal(err)
		}
		all := bytes.Join(runs, nil)
		edit(all[index*log.EntrySize:][:log.EntrySize])
		f.exec(`DELETE FROM entries WHERE log = ?`, hub)
		f.exec(`INSERT INTO entries (log, first, entries) VALUES (?, 0, ?)`, hub, all)
	}
	for _, c := range []struct {
		name, want string
		stops      bool // the hub isn't signed any more
		forge      func(f *intruder)
	}{
		{"a row is removed", "the row that says where entry 1 is", false, func(f *intruder) {
			f.exec(`DELETE FROM hub_entries WHERE idx = 1`)
		}},
		{"a row is of another size", "the row of entry 2 says", false, func(f *intruder) {
			f.exec(`UPDATE hub_entries SET size = size + 7 WHERE idx = 2`)
		}},
		{"a row is of another log", "the row of entry 0 says", false, func(f *intruder) {
			f.exec(`UPDATE hub_entries SET subject = 77 WHERE idx = 0`)
		}},
		{"a row too many", "4 rows of a hub's entries, want 3", false, func(f *intruder) {
			f.exec(`INSERT INTO hub_entries (log, subject, size, idx) VALUES (?, 77, 1, 99)`, f.s.hubID)
		}},
		{"the root in the newest entry", "two histories were signed", true, func(f *intruder) {
			entry(f, 2, func(b []byte) { b[50] ^= 1 })
		}},
		{"the log in the newest entry", "which the store doesn't have", true, func(f *intruder) {
			entry(f, 2, func(b []byte) { b[5] ^= 1 })
		}},
		{"the size in the newest entry", "it had 6 before", true, func(f *intruder) {
			entry(f, 2, func(b []byte) { b[40] = 1 })
		}},
		{"the version of the newest entry", "got version 0x01", true, func(f *intruder) {
			entry(f, 2, func(b []byte) { b[0] = 1 })
		}},
		{"a checkpoint of the log is removed", "of which it has no checkpoint", false, func(f *intruder) {
			f.exec(`DELETE FROM checkpoints WHERE log = ? AND size = 3`, f.log.ID)
		}},
		{"the hub's head", "the head of size 3 says root", true, func(f *intruder) {
			f.exec(`UPDATE heads SET edge = zeroblob(length(edge)) WHERE log = ?`, f.s.hubID)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newHubService(t)
			for range 3 {
				s.grow("default", 3)
				s.untilInHub()
			}
			s.hubID = s.Log(log.HubName).ID
			s.close()
			s.forge(t, c.forge)
			if r := s.fsckHub(); !strings.Contains(fmt.Sprint(r.Problems), c.want) {
				t.Errorf("fsck: got %+v, want %q", r, c.want)
			}
			s.open()
			hub := s.Log(log.HubName)
			if (hub.Stopped() != nil) != c.stops {
				t.Errorf("the hub: stopped is %v", hub.Stopped())
			}
			if !c.stops {
				return
			}
			size := hub.Sizes().Signed
			s.grow("default", 1)
			s.signed()
			s.close() // which puts into the hub what can be
			s.open()
			if got := s.Log(log.HubName).Sizes().Signed; got != size {
				t.Errorf("it was signed again: size %d after %d", got, size)
			}
			if s.log().Stopped() != nil {
				t.Errorf("the log is stopped for its hub: %v", s.log().Stopped())
			}
		})
	}
}

// fsckHub checks the hub in the store.
func (s *testService) fsckHub() *log.FsckReport {
	s.t.Helper()
	store := s.openReader()
	defer store.Close()
	infos, err := store.Logs(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	info := infos[slices.IndexFunc(infos, log.Info.IsHub)]
	r, err := log.Fsck(s.t.Context(), store, info, log.FsckOptions{
		Verifiers: []note.Verifier{verifier(s.t, info.Origin)}, Fence: s.fence(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}
