package monitor

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// A log that only grows is followed from its first entry on, each entry read once, whatever the sizes are.
func TestAnHonestLogIsFollowed(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin)
	a := auditor(t, policy(t, false), log.url())
	known := 0
	for _, size := range []int{0, 1, 2, 255, 256, 257, 700, 700, 2304, 2500} {
		log.serve(h.grow(size, "a"), size)
		l := a.finds(Verified, "")
		if l.Size != uint64(size) || l.Served != uint64(size) || l.Root != h.root(size).String() || l.Read != uint64(size-known) {
			t.Fatalf("at size %d, with %d known: %+v", size, known, l)
		}
		if l.FirstContact != (size == 0) {
			t.Errorf("at size %d: first contact is %t", size, l.FirstContact)
		}
		known = size
	}
	if files := a.evidence(); len(files) > 0 {
		t.Errorf("evidence against an honest log: %v", files)
	}
}

// A log may delete a partial bundle or tile once it has the full one.
func TestDeletedPartialTilesAreReadFromFullOnes(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin).grow(300, "a")
	log.serve(h, 300, h.note(100)...)
	log.spoil(func(path string, data []byte) []byte {
		if strings.Contains(path, ".p/") {
			return nil
		}
		return data
	})
	a := auditor(t, policy(t, false), log.url())
	if l := a.finds(Verified, ""); l.Size != 100 {
		t.Errorf("size %d, want 100", l.Size)
	}
}

// The hostile operator, against a monitor that has seen 300 entries. Whatever is signed and served, two histories are noticed, and
// where the log serves what it has signed, the evidence convicts it with nothing but its key.
func TestForksAreNoticed(t *testing.T) {
	for _, test := range []struct {
		name   string
		common int // entries that both histories have
		size   int // of the other one
	}{
		{"another root at the same size", 200, 300},
		{"a rewritten chain with valid signatures", 100, 500},
		{"a chain rewritten from the first entry on", 0, 1000},
		{"the last entry changed, and one more", 299, 301},
		{"a shorter tree that is no prefix, from a server that has no more", 100, 290},
		{"a much shorter tree that is no prefix", 10, 256},
	} {
		t.Run(test.name, func(t *testing.T) {
			log, h := newFakeLog(t), newHistory(t, testOrigin).grow(300, "a")
			a := auditor(t, policy(t, false), log.url())
			log.serve(h, 300)
			a.finds(Verified, "")

			other := h.fork(test.common).grow(test.size, "b")
			log.serve(other, test.size)
			l := a.finds(Diverged, KindDiverged)
			if l.Size != 300 || l.Root != h.root(300).String() {
				t.Errorf("the state moved to size %d", l.Size)
			}
			a.convicts()

			// The log goes back to the history that the monitor knows. What it has signed it can't take back.
			before := a.evidence()
			log.serve(h.grow(320, "a"), 320)
			if l := a.finds(Diverged, KindDiverged); l.Size != 320 {
				t.Errorf("size %d, want the log to be followed further", l.Size)
			}
			log.serve(other, test.size)
			a.finds(Diverged, KindDiverged)
			if len(a.evidence()) < len(before) {
				t.Error("evidence is gone")
			}
			// Until a person has dealt with it.
			if err := os.Rename(filepath.Join(a.c.StateDir, "evidence"), filepath.Join(t.TempDir(), "dealt-with")); err != nil {
				t.Fatal(err)
			}
			log.serve(h, 320)
			a.finds(Verified, "")
		})
	}
}

// A server that had every tile of the known tree and shows a smaller checkpoint that isn't a prefix of it convicts itself.
func TestASmallerForkBesideTheFullTree(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin).grow(300, "a")
	a := auditor(t, policy(t, false), log.url())
	log.serve(h, 300)
	a.finds(Verified, "")
	log.serve(h, 300, h.fork(150).grow(200, "b").note(200)...)
	a.finds(Diverged, KindDiverged)
	a.convicts()
}

// A smaller checkpoint that is a prefix is a stale cache: nothing is forgotten, nothing is wrong.
func TestAStaleCheckpointIsNoFork(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin).grow(300, "a")
	a := auditor(t, policy(t, false), log.url())
	log.serve(h, 300)
	a.finds(Verified, "")
	for _, size := range []int{0, 1, 256, 299} {
		log.serve(h, 300, h.note(size)...)
		if l := a.finds(Verified, ""); l.Size != 300 || l.Served != uint64(size) {
			t.Errorf("served %d: %+v", size, l)
		}
	}
	// A log that was set back has nothing beyond its new end: it may be a replica that lags, so this is no fork, but neither
	// can it be checked. Growing again it meets what was remembered.
	for _, size := range []int{100, 270} {
		log.serve(h, size)
		a.finds(Unverified, KindBehind)
	}
	log.serve(h.fork(270).grow(301, "b"), 301)
	a.finds(Diverged, KindDiverged)
	a.convicts()
}

// A fork that is shorter and differs only where the state has no root to compare is seen as what it may be, a log that was set back, until
// it grows past what is known.
func TestAShortForkIsNoticedWhenItGrows(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin).grow(300, "a")
	a := auditor(t, policy(t, false), log.url())
	log.serve(h, 300)
	a.finds(Verified, "")
	fork := h.fork(297).grow(301, "b")
	log.serve(fork, 298)
	a.finds(Unverified, KindBehind)
	log.serve(fork, 300)
	a.finds(Diverged, KindDiverged)
	a.convicts()
}

// Two clients are shown two histories. Each is consistent in itself, so neither notices anything: they do when they compare notes.
func TestSplitViewIsNoticedByComparingNotes(t *testing.T) {
	h := newHistory(t, testOrigin).grow(50, "a")
	fork := h.fork(40).grow(60, "b")
	one, two := newFakeLog(t), newFakeLog(t)
	one.serve(h, 50)
	two.serve(fork, 60)

	p := policy(t, false)
	first, second := auditor(t, p, one.url()), auditor(t, p, two.url())
	first.finds(Verified, "")
	second.finds(Verified, "")

	both := auditor(t, p, one.url(), two.url())
	both.finds(Diverged, KindDiverged)
	both.convicts()
	first.c.Targets = append(first.c.Targets, second.c.Targets...)
	first.finds(Diverged, KindDiverged)
	first.convicts()
}

// What is wrong at one of a log's URLs isn't hidden by another one where all is well.
func TestMetricsShowTheWorstOfALogsURLs(t *testing.T) {
	h := newHistory(t, testOrigin).grow(50, "a")
	w := newFakeWitness(t, "w.example")
	good, stale := newFakeLog(t), newFakeLog(t)
	good.serve(h, 50, h.note(50, w.Cosigner)...)
	stale.serve(h, 40) // and no witness has cosigned it
	for _, urls := range [][]string{{good.url(), stale.url()}, {stale.url(), good.url()}} {
		registry := prometheus.NewRegistry()
		a := auditor(t, policy(t, true, w), urls...)
		a.c.Metrics = registry
		if got := a.look().Verdict; got != Unverified {
			t.Fatalf("got %v, want %v", got, Unverified)
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]float64)
		for _, f := range families {
			if g := f.GetMetric()[0].GetGauge(); g != nil {
				got[strings.TrimPrefix(f.GetName(), "treeline_audit_")] = g.GetValue()
			}
		}
		for name, want := range map[string]float64{
			"verdict": 3, "quorum_met": 0, "served_size": 40, "behind_entries": 10, "log_size": 50,
		} {
			if value, ok := got[name]; !ok || value != want {
				t.Errorf("%s of %v: got %v, want %v", name, urls, value, want)
			}
		}
		if _, ok := got["verified_timestamp_seconds"]; ok {
			t.Errorf("%v: it is said to be verified", urls)
		}
	}
}

// What the witnesses of the policy serve is compared with what the log serves.
func TestWitnessesAreCompared(t *testing.T) {
	h := newHistory(t, testOrigin).grow(100, "a")
	fork := h.fork(40).grow(130, "b")
	setup := func(t *testing.T) (*third, *fakeLog, *fakeWitness) {
		log, w := newFakeLog(t), newFakeWitness(t, "witness.example/w")
		log.serve(h, 100)
		return auditor(t, policy(t, false, w), log.url()), log, w
	}
	wants := func(t *testing.T, l *LogReport, result string, size uint64) {
		t.Helper()
		if len(l.Witnesses) != 1 || l.Witnesses[0].Result != result || l.Witnesses[0].Size != size {
			t.Errorf("got %+v, want %s at size %d", l.Witnesses, result, size)
		}
	}
	for _, size := range []int{0, 1, 64, 99, 100} {
		t.Run(fmt.Sprintf("the same history at size %d", size), func(t *testing.T) {
			a, _, w := setup(t)
			w.show(h.note(size, w.Cosigner))
			wants(t, a.finds(Verified, ""), WitnessSame, uint64(size))
		})
	}
	for _, size := range []int{41, 64, 99, 100} {
		t.Run(fmt.Sprintf("another history at size %d", size), func(t *testing.T) {
			a, _, w := setup(t)
			w.show(fork.note(size, w.Cosigner))
			wants(t, a.finds(Diverged, KindDiverged), WitnessDiverged, uint64(size))
			a.convicts()
		})
	}
	t.Run("another history, and a log whose tiles are of neither", func(t *testing.T) {
		a, log, w := setup(t)
		a.finds(Verified, "")
		w.show(fork.note(64, w.Cosigner))
		log.spoil(func(path string, data []byte) []byte {
			if strings.HasPrefix(path, "tile/") {
				data[len(data)-1] ^= 1
			}
			return data
		})
		wants(t, a.finds(Diverged, KindDiverged), WitnessDiverged, 64)
		if report := a.evidence()["report.txt"]; !strings.Contains(report, "no proof of misbehavior") {
			t.Errorf("the report claims a proof that there isn't:\n%s", report)
		}
	})
	t.Run("a larger checkpoint is remembered and met again", func(t *testing.T) {
		a, log, w := setup(t)
		longer := h.fork(100).grow(200, "a")
		w.show(longer.note(130, w.Cosigner))
		wants(t, a.finds(Verified, ""), WitnessAhead, 130)
		log.serve(longer, 120)
		a.finds(Verified, "")
		log.serve(longer, 200)
		wants(t, a.finds(Verified, ""), WitnessSame, 130)
	})
	t.Run("a larger checkpoint of another history is remembered, though the witness is gone", func(t *testing.T) {
		a, log, w := setup(t)
		w.show(fork.note(130, w.Cosigner))
		wants(t, a.finds(Verified, ""), WitnessAhead, 130)
		w.Close()
		log.serve(h.fork(100).grow(129, "a"), 129)
		wants(t, a.finds(Verified, ""), WitnessUnreachable, 0)
		log.serve(h.fork(100).grow(200, "a"), 200)
		a.finds(Diverged, KindDiverged)
		a.convicts()
	})
	t.Run("two larger checkpoints of one size", func(t *testing.T) {
		a, _, w := setup(t)
		w.show(fork.note(130, w.Cosigner))
		a.finds(Verified, "")
		w.show(h.fork(100).grow(130, "a").note(130, w.Cosigner))
		wants(t, a.finds(Diverged, KindDiverged), WitnessDiverged, 130)
		a.convicts()
	})
	t.Run("a log that holds back what it has signed", func(t *testing.T) {
		a, _, w := setup(t)
		w.show(fork.note(130, w.Cosigner))
		a.finds(Verified, "")
		a.c.MaxLag = time.Nanosecond
		a.finds(Unverified, KindWithheld)
	})
	t.Run("a witness that is of no use", func(t *testing.T) {
		a, _, w := setup(t)
		other := newFakeWitness(t, "witness.example/other")
		for _, test := range []struct {
			note   []byte
			result string
		}{
			{nil, WitnessUnknown},
			{[]byte("<html>"), WitnessGarbage},
			{bytes.Repeat([]byte("x"), maxNote+1), WitnessGarbage},
			{h.note(100), WitnessGarbage}, // not cosigned
			{h.note(100, other.Cosigner), WitnessGarbage},
			{newHistory(t, "audit.example.com/logs/other").grow(1, "a").note(1, w.Cosigner), WitnessGarbage},
			{bytes.Replace(h.note(100, w.Cosigner), []byte("\n100\n"), []byte("\n101\n"), 1), WitnessGarbage},
		} {
			w.show(test.note)
			a.c.Strict = false
			l := a.finds(Verified, "")
			if got := l.Witnesses[0].Result; got != test.result {
				t.Errorf("%.40q: %s, want %s", test.note, got, test.result)
			}
			a.c.Strict = true
			a.finds(Unverified, KindWitness)
		}
	})
	t.Run("a note that the log has signed binds it, whoever serves it", func(t *testing.T) {
		a, _, w := setup(t)
		w.show(fork.note(64)) // not cosigned
		a.finds(Diverged, KindDiverged)
		a.convicts()
	})
}

// The quorum is reported apart: the log is followed all the same.
func TestQuorum(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin).grow(10, "a")
	w1, w2 := newFakeWitness(t, "witness.example/w1"), newFakeWitness(t, "witness.example/w2")
	a := auditor(t, policy(t, true, w1, w2), log.url())
	log.serve(h, 10, h.note(10, w1.Cosigner)...)
	l := a.finds(Unverified, KindQuorum)
	if l.Size != 10 || *l.Quorum || !slices.Equal(l.Missing, []string{checkpoint.KeyID("witness.example/w2", w2.KeyHash())}) {
		t.Errorf("%+v", l)
	}
	log.serve(h, 10, h.note(10, w1.Cosigner, w2.Cosigner)...)
	if l := a.finds(Verified, ""); !*l.Quorum || len(l.Missing) > 0 {
		t.Errorf("%+v", l)
	}
}

// What the server hands out instead of what was signed is found, told from a fork, and doesn't get into the state.
func TestTampering(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(data []byte) []byte {
			data = bytes.Clone(data)
			data[(len(data)+at)%len(data)] ^= 1
			return data
		}
	}
	for _, test := range []struct {
		name    string
		path    string // that begins so
		change  func([]byte) []byte
		verdict Verdict
		kind    string
	}{
		{"a digest in a bundle", "tile/entries", flip(-1), Invalid, KindEntries},
		{"the length of an entry", "tile/entries", flip(1), Invalid, KindEntries},
		{"a bundle that is cut off", "tile/entries", func(b []byte) []byte { return b[:len(b)-1] }, Invalid, KindEntries},
		{"a bundle that isn't there", "tile/entries", func([]byte) []byte { return nil }, Invalid, KindMissing},
		{"bundles and tiles", "tile/", flip(-1), Diverged, KindDiverged}, // nothing shows that the signed tree extends the other
		{"bundles, and the tiles are gone", "tile/", func(b []byte) []byte {
			if len(b)%75 != 0 {
				return nil
			}
			return flip(-1)(b)
		}, Diverged, KindDiverged},
		{"a signature", "checkpoint", flip(-4), Invalid, KindSignature},
		{"the size", "checkpoint", func(b []byte) []byte { return bytes.Replace(b, []byte("\n280\n"), []byte("\n281\n"), 1) }, Invalid, KindSignature},
		{"the origin", "checkpoint", func(b []byte) []byte { return bytes.Replace(b, []byte("acme\n"), []byte("acmf\n"), 1) }, Invalid, KindSignature},
		{"the signer", "checkpoint", func(b []byte) []byte { return bytes.Replace(b, []byte("— audit"), []byte("— adits"), 1) }, Unverified, KindUnsigned},
		{"a web page", "checkpoint", func([]byte) []byte { return []byte("<html>login</html>") }, Invalid, KindSignature},
		{"a huge answer", "checkpoint", func([]byte) []byte { return bytes.Repeat([]byte("x"), maxNote+1) }, Invalid, KindEntries},
		{"no checkpoint", "checkpoint", func([]byte) []byte { return nil }, Failed, KindUnreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			log, h := newFakeLog(t), newHistory(t, testOrigin).grow(280, "a")
			a := auditor(t, policy(t, false), log.url())
			log.serve(h, 20)
			a.finds(Verified, "")
			log.serve(h, 280)
			log.spoil(func(path string, data []byte) []byte {
				if strings.HasPrefix(path, test.path) {
					return test.change(data)
				}
				return data
			})
			if l := a.finds(test.verdict, test.kind); l.Size != 20 {
				t.Errorf("the state moved to size %d", l.Size)
			}
			log.spoil(nil)
			if test.verdict == Diverged {
				a.finds(Diverged, KindDiverged)
				return
			}
			if l := a.finds(Verified, ""); l.Size != 280 {
				t.Errorf("size %d after the server was repaired, want 280", l.Size)
			}
		})
	}
}

// A log that signs what isn't a chain is caught though its tree is right: by the chain, by time, by the version.
func TestSignedEntriesMustFormAChain(t *testing.T) {
	for name, change := range map[string]func(entry []byte) []byte{
		"a previous hash":  func(e []byte) []byte { e[9] ^= 1; return e },
		"an earlier time":  func(e []byte) []byte { e[8] = 0; e[7] = 0; return e },
		"an unknown entry": func(e []byte) []byte { e[0] = 2; return e },
		"a long entry":     func(e []byte) []byte { return append(e, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			log, h := newFakeLog(t), newHistory(t, testOrigin).grow(20, "a")
			bad := h.fork(15)
			bad.add(change(bytes.Clone(h.entries[15])))
			bad.grow(20, "a")
			log.serve(bad, 20)
			a := auditor(t, policy(t, false), log.url())
			if l := a.finds(Invalid, KindChain); l.Size != 0 {
				t.Errorf("the state moved to size %d", l.Size)
			}
			if files := a.evidence(); !strings.Contains(files["report.txt"], "entry 15") || files["note"] != string(log.note) {
				t.Errorf("evidence: %v", files)
			}
			// Followed as a log of unknown entries it is in order.
			opaque := auditor(t, policy(t, false), log.url())
			opaque.c.Targets[0].Kind = Opaque
			opaque.finds(Verified, "")
		})
	}
}

// The state is written when entries were processed, and only then: it can be set back, not corrupted.
func TestState(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin).grow(600, "a")
	a := auditor(t, policy(t, false), log.url())
	file := filepath.Join(a.c.StateDir, checkpoint.OriginHash(testOrigin)+".state")
	log.serve(h, 300)
	a.finds(Verified, "")
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	log.serve(h, 600)
	a.finds(Verified, "")
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("restored from a backup", func(t *testing.T) {
		if err := os.WriteFile(file, old, 0o600); err != nil {
			t.Fatal(err)
		}
		if l := a.finds(Verified, ""); l.Read != 300 || l.FirstContact {
			t.Errorf("%+v, want the 300 entries since the backup read again", l)
		}
	})
	t.Run("locked", func(t *testing.T) {
		m, err := Open(a.c)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if _, err := Open(a.c); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("a second monitor on the same state: %v", err)
		}
	})
	t.Run("followed as something else", func(t *testing.T) {
		c := a.c
		c.Targets = []Target{{URL: log.url(), Origin: testOrigin, Kind: Opaque}}
		if _, err := Open(c); err == nil {
			t.Error("the chain is dropped without a word")
		}
	})
	t.Run("damaged", func(t *testing.T) {
		for i := range kept {
			bad := bytes.Clone(kept)
			bad[i] ^= 1
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := Open(a.c)
			if err == nil {
				m.Close()
				t.Fatalf("byte %d of the state can be changed unnoticed", i)
			}
		}
		for _, n := range []int{0, 1, len(kept) / 2, len(kept) - 1} {
			if _, err := parseState(kept[:n]); err == nil {
				t.Errorf("the first %d bytes of a state pass for one", n)
			}
		}
	})
	t.Run("of another log", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(a.c.StateDir, checkpoint.OriginHash("b.example/logs/b")+".state"), kept, 0o600); err != nil {
			t.Fatal(err)
		}
		d := &directory{path: a.c.StateDir}
		if _, err := d.load("b.example/logs/b"); err == nil {
			t.Error("a state passes for that of another log")
		}
	})
}

// A round that ends half-way leaves the state as it was.
func TestAnInterruptedRoundKeepsTheState(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin).grow(3000, "a")
	a := auditor(t, policy(t, false), log.url())
	log.serve(h, 10)
	a.finds(Verified, "")
	log.serve(h, 3000)
	log.spoil(func(path string, data []byte) []byte {
		if path == "tile/entries/010" {
			return nil
		}
		return data
	})
	if l := a.finds(Invalid, KindMissing); l.Size != 10 {
		t.Errorf("size %d, want 10", l.Size)
	}
	log.spoil(nil)
	if l := a.finds(Verified, ""); l.Read != 2990 {
		t.Errorf("read %d entries, want 2990", l.Read)
	}
}

// A log that isn't Treeline's is followed by its tree alone.
func TestForeignLogs(t *testing.T) {
	const origin = "go.example/tree" // as no log of Treeline's
	log, h := newFakeLog(t), newHistory(t, origin)
	for i := range 300 {
		h.add(bytes.Repeat([]byte{byte(i)}, i*7%900))
	}
	skey, vkey, err := note.GenerateKey(nil, origin)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(h *history, size int) []byte {
		msg, err := note.Sign(&note.Note{Text: h.checkpoint(size).Text()}, signer)
		if err != nil {
			t.Fatal(err)
		}
		return msg
	}
	a := &third{t, Config{
		Targets: []Target{{URL: log.url(), Origin: origin}}, VKeys: []string{vkey},
		StateDir: filepath.Join(t.TempDir(), "audit"),
	}}
	log.serve(h, 100, sign(h, 100)...)
	if l := a.finds(Verified, ""); l.Kind != Opaque || l.Size != 100 {
		t.Errorf("%+v", l)
	}
	log.serve(h, 300, sign(h, 300)...)
	a.finds(Verified, "")
	fork := h.fork(200)
	for range 101 {
		fork.add([]byte("other"))
	}
	log.serve(fork, 301, sign(fork, 301)...)
	a.finds(Diverged, KindDiverged)
}

// A key is sent to the URL that it is for, and nowhere else; what passes is tried again.
func TestRequests(t *testing.T) {
	log, h := newFakeLog(t), newHistory(t, testOrigin).grow(10, "a")
	log.serve(h, 10)
	w := newFakeWitness(t, "witness.example/w") // which fails the test if it gets a key
	w.show(h.note(10, w.Cosigner))
	a := auditor(t, policy(t, false, w), log.url())
	a.c.Targets[0].Key = "tl_secret"
	a.finds(Verified, "")
	for _, r := range log.requests {
		if r.Header.Get("Authorization") != "Bearer tl_secret" {
			t.Errorf("%s without the key", r.URL)
		}
	}

	synctest.Test(t, func(t *testing.T) {
		failures := []int{http.StatusTooManyRequests, http.StatusBadGateway}
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if len(failures) > 0 {
				status := failures[0]
				failures = failures[1:]
				return &http.Response{StatusCode: status, Body: http.NoBody, Request: r}, nil
			}
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
		})}
		s := &server{base: "http://log.example", client: client}
		if _, err := s.get(t.Context(), "checkpoint", 10); err != nil {
			t.Errorf("429 and 502 weren't tried again: %v", err)
		}
		failures = []int{http.StatusForbidden}
		if _, err := s.get(t.Context(), "checkpoint", 10); err == nil || len(failures) > 0 {
			t.Errorf("403 was tried again: %v", err)
		}
	})
}

// Logs that hardly answer are given up in their turn, so that a round ends and others are followed, and what was known of them stays.
func TestSlowLogsHoldUpNoOthers(t *testing.T) {
	c := Config{StateDir: filepath.Join(t.TempDir(), "audit"), Policy: policy(t, false, newFakeWitness(t, "w.example"))}
	var logs []*fakeLog
	for i := range 2*logsAtOnce + 1 {
		origin := fmt.Sprint("audit.example.com/logs/acme", i)
		log, h := newFakeLog(t), newHistory(t, origin).grow(20, "a")
		log.serve(h, 10)
		logs = append(logs, log)
		c.Targets, c.VKeys = append(c.Targets, Target{URL: log.url(), Origin: origin}), append(c.VKeys, vkey(t, origin))
	}
	fast := logs[len(logs)-1]
	a := &third{t, c}
	if got := a.look().Verdict; got != Verified {
		t.Fatalf("got %v, want %v", got, Verified)
	}
	for _, log := range logs {
		log.serve(log.history, 20)
	}
	a.c.MaxCheck = 200 * time.Millisecond
	a.c.Client = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if strings.Contains(r.URL.Path, "/tile/") && r.URL.Host != strings.TrimPrefix(fast.URL, "http://") {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return http.DefaultTransport.RoundTrip(r)
	})}
	began := time.Now()
	r := a.look()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the round took %v", took)
	}
	for i, l := range r.Logs {
		want, size := Failed, uint64(10)
		if i == len(logs)-1 {
			want, size = Verified, 20
		}
		if l.Verdict != want || l.Size != size || len(l.Witnesses) != 1 || l.Witnesses[0].Result != WitnessUnknown {
			t.Errorf("%s: got %v at size %d, %+v; want %v at %d, and the witness asked", l.Origin, l.Verdict, l.Size, l.Witnesses, want, size)
		}
		given := func(p *Problem) bool { return strings.Contains(p.Detail, "it was read for 200ms") }
		if want == Failed && !slices.ContainsFunc(l.Problems, given) {
			t.Errorf("%s: got %+v, want a word about the time", l.Origin, l.Problems)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Which log is at a URL is decided by what was pinned, not by what is served there.
func TestOrigin(t *testing.T) {
	parse := func(text string) *checkpoint.Policy {
		p, err := checkpoint.ParsePolicy([]byte(text + "quorum none\n"))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	acme, beta := vkey(t, testOrigin), vkey(t, "audit.example.com/logs/beta")
	both := parse("log " + acme + " https://mirror.example/a/\nlog " + beta + "\n")
	twins := parse("log " + acme + "\nlog " + vkey(t, "other.example/logs/acme") + "\n")
	for _, test := range []struct {
		policy *checkpoint.Policy
		url    string
		want   string
	}{
		{both, "https://mirror.example/a", testOrigin},
		{both, "https://audit.example.com/logs/beta", "audit.example.com/logs/beta"},
		{both, "http://127.0.0.1:8080/logs/acme", testOrigin},
		{both, "https://elsewhere.example/x", ""},
		{twins, "http://127.0.0.1:8080/logs/acme", ""},
		{twins, "https://other.example/logs/acme", "other.example/logs/acme"},
		{parse("log " + acme + "\n"), "https://elsewhere.example/x", testOrigin},
	} {
		if got, err := Origin(test.url, test.policy, nil); got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("Origin(%q): %q, %v, want %q", test.url, got, err, test.want)
		}
	}
}

// rangeProof makes of a compact range the proof that its first subtrees are a prefix.
func TestRangeProof(t *testing.T) {
	h := newHistory(t, testOrigin).grow(128, "a")
	tree := merkle.NewRange()
	for size := 1; size <= 128; size++ {
		tree.Append(merkle.LeafHash(h.entries[size-1]), nil)
		hashes := tree.Hashes()
		prefix, bit := uint64(0), uint64(128)
		for n := 1; n < len(hashes); n++ {
			for uint64(size)&bit == 0 {
				bit >>= 1
			}
			prefix, bit = prefix+bit, bit>>1
			c := prefixClaim{prefix, h.root(int(prefix)), h.checkpoint(size), rangeProof(hashes, n)}
			if !c.holds() {
				t.Errorf("from %d to %d doesn't hold", prefix, size)
			}
		}
	}
}
