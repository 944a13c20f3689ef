package monitor

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

const hubOrigin = "audit.example.com/logs/hub"

// fakeHub is a hub with what its server answers about growth.
type fakeHub struct {
	*history
	log    *fakeLog
	newest map[merkle.Hash]hubEntry
}

func newFakeHub(t *testing.T) *fakeHub {
	return &fakeHub{newHistory(t, hubOrigin), newFakeLog(t), map[merkle.Hash]hubEntry{}}
}

// take adds an entry for the first size entries of a log, and the proof that the log itself has from its entry before.
func (h *fakeHub) take(log *history, size int) {
	h.t.Helper()
	id := merkle.Hash(checkpoint.LogID(vkey(h.t, log.origin)))
	e := hubEntry{uint64(len(h.entries)), uint64(size), log.root(size)}
	answer := growthProof{first: true}
	if previous, ok := h.newest[id]; ok {
		proof, err := merkle.ConsistencyProof(h.t.Context(), previous.size, e.size, log)
		if err != nil {
			h.t.Fatal(err)
		}
		answer = growthProof{previous: previous.index, hashes: proof}
	}
	h.log.proves(len(h.entries), string(answer.encode()))
	h.newest[id] = e
	h.add(e.encode(id))
}

// serve signs all that the hub has.
func (h *fakeHub) serve() { h.log.serve(h.history, len(h.entries)) }

// auditor returns a third party that follows the hub.
func (h *fakeHub) auditor() *third {
	return &third{h.t, Config{
		Targets: []Target{{URL: h.log.url(), Origin: hubOrigin}}, VKeys: []string{vkey(h.t, hubOrigin)},
		StateDir: filepath.Join(h.t.TempDir(), "audit"),
	}}
}

// A hub whose logs only grow is followed, over as many rounds and bundles as there are.
func TestAnHonestHubIsFollowed(t *testing.T) {
	hub := newFakeHub(t)
	var logs []*history
	for i := range 7 {
		logs = append(logs, newHistory(t, fmt.Sprintf("audit.example.com/logs/t%d", i)))
	}
	a := hub.auditor()
	for round := range 5 {
		for step := range 20 {
			for i, log := range logs {
				if (round+step)%(i+1) == 0 {
					hub.take(log.grow(len(log.entries)+i*step%4+1, "a"), len(log.entries))
				}
			}
		}
		hub.serve()
		l := a.finds(Verified, "")
		if l.Kind != Hub || l.Size != uint64(len(hub.entries)) {
			t.Errorf("%+v, want a hub of size %d", l, len(hub.entries))
		}
		if len(a.evidence()) > 0 {
			t.Errorf("evidence against an honest hub: %v", a.evidence())
		}
	}
}

// What a hub commits to must be shown to have grown. Where it isn't, the alarm names the entries, and the evidence has the proofs that
// the hub has committed to both.
func TestAHubMustShowThatLogsGrew(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	fork := log.fork(30).grow(120, "b")
	for _, test := range []struct {
		name    string
		break_  func(hub *fakeHub)
		verdict Verdict
		kind    string
	}{
		{"another history", func(hub *fakeHub) { hub.take(fork, 110) }, Diverged, KindDiverged},
		{"two histories that take turns", func(hub *fakeHub) {
			hub.take(log, 80)
			hub.take(fork, 90)
			hub.take(log, 95)
		}, Diverged, KindDiverged},
		{"another root of the same size", func(hub *fakeHub) { hub.take(fork, 64) }, Diverged, KindDiverged},
		{"the same size again", func(hub *fakeHub) {
			hub.take(log, 64)
		}, Invalid, KindGrowth},
		{"a shorter tree", func(hub *fakeHub) {
			delete(hub.newest, merkle.Hash(checkpoint.LogID(vkey(hub.t, testOrigin))))
			hub.take(log, 50)
		}, Invalid, KindGrowth},
		{"no proof", func(hub *fakeHub) {
			hub.take(log, 90)
			hub.log.proves(3, "")
		}, Invalid, KindGrowth},
		{"a web page for a proof", func(hub *fakeHub) {
			hub.take(log, 90)
			hub.log.proves(3, "<html>")
		}, Invalid, KindGrowth},
		{"a huge proof", func(hub *fakeHub) {
			hub.take(log, 90)
			hub.log.proves(3, strings.Repeat("x", maxGrowth+1))
		}, Invalid, KindGrowth},
		{"a log that begins twice", func(hub *fakeHub) {
			delete(hub.newest, merkle.Hash(checkpoint.LogID(vkey(hub.t, testOrigin))))
			hub.take(log, 90)
		}, Invalid, KindGrowth},
		{"a proof from an older entry", func(hub *fakeHub) {
			hub.newest[merkle.Hash(checkpoint.LogID(vkey(hub.t, testOrigin)))] = hubEntry{0, 10, log.root(10)}
			hub.take(log, 90)
		}, Invalid, KindGrowth},
		{"a proof of something else", func(hub *fakeHub) {
			hub.take(log, 90)
			hub.log.proves(3, string(growthProof{previous: 2, hashes: make([]merkle.Hash, 7)}.encode()))
		}, Diverged, KindDiverged},
		{"an entry of a log", func(hub *fakeHub) { hub.add(log.entries[0]) }, Invalid, KindChain},
		{"an entry of an empty log", func(hub *fakeHub) {
			hub.log.proves(len(hub.entries), "first\n")
			hub.add(hubEntry{root: merkle.EmptyRoot()}.encode(merkle.Hash{1}))
		}, Invalid, KindChain},
		{"an entry that is cut off", func(hub *fakeHub) { hub.add(hub.entries[0][:72]) }, Invalid, KindChain},
	} {
		for _, first := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, first contact %t", test.name, first), func(t *testing.T) {
				hub := newFakeHub(t)
				hub.take(log, 10)
				hub.take(newHistory(t, "audit.example.com/logs/beta").grow(5, "a"), 5)
				hub.take(log, 64)
				a := hub.auditor()
				hub.serve()
				if !first {
					a.finds(Verified, "")
				}
				test.break_(hub)
				hub.serve()
				a.finds(test.verdict, test.kind)
				files := a.evidence()
				if files["note"] != string(hub.log.note) || !strings.Contains(files["report.txt"], "entry ") {
					t.Errorf("evidence: %v", files)
				}
				if test.kind == KindChain {
					return
				}
				v, err := note.NewVerifier(vkey(t, hubOrigin))
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"previous.tlog-proof", "entry.tlog-proof"} {
					p, err := checkpoint.ParseProof([]byte(files[name]))
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					cp, _, err := checkpoint.Open(p.Checkpoint, hubOrigin, v)
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					if err := merkle.VerifyInclusion(p.Index, cp.Size, merkle.LeafHash(p.Extra), p.Hashes, cp.Root); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				// It is found again, as long as it isn't dealt with.
				a.finds(test.verdict, test.kind)
			})
		}
	}
}

// A hub that has two histories itself is noticed as any log is, and entries that it hasn't signed accuse nobody.
func TestAHubIsALog(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	hub := newFakeHub(t)
	hub.take(log, 10)
	hub.serve()
	a := hub.auditor()
	a.finds(Verified, "")
	hub.take(log, 20)
	hub.serve()
	hub.log.spoil(func(path string, data []byte) []byte {
		if strings.HasPrefix(path, "tile/entries") {
			data[len(data)-1] ^= 1
		}
		return data
	})
	if l := a.finds(Invalid, KindEntries); slices.ContainsFunc(l.Problems, func(p *Problem) bool { return p.Verdict == Diverged }) {
		t.Error("entries that nobody has signed are taken for a log's two histories")
	}
	hub.log.spoil(nil)
	a.finds(Verified, "")
	fork := hub.fork(1)
	fork.add(hubEntry{1, 30, log.root(30)}.encode(merkle.Hash{1}))
	hub.log.serve(fork, 2)
	a.finds(Diverged, KindDiverged)
}

// Two histories that are each consistent in themselves, one in the log that its customers see and one in the hub that the witnesses see:
// only who follows both can tell, and does, by what the hub has committed to.
func TestALogIsComparedWithTheHub(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	fork := log.fork(30).grow(120, "b")
	for _, test := range []struct {
		shown  *history // under the log's URL
		size   int
		result string
	}{
		{log, 64, WitnessSame}, {log, 70, WitnessSame}, {log, 100, WitnessSame}, {log, 63, WitnessAhead},
		{fork, 64, WitnessDiverged}, {fork, 65, WitnessDiverged}, {fork, 120, WitnessDiverged}, {fork, 40, WitnessAhead},
	} {
		t.Run(fmt.Sprintf("%s at size %d", test.result, test.size), func(t *testing.T) {
			hub, server := newFakeHub(t), newFakeLog(t)
			hub.take(log, 10)
			hub.take(log, 64)
			hub.serve()
			server.serve(test.shown, test.size)
			a := hub.auditor()
			a.c.Targets = append(a.c.Targets, Target{URL: server.url(), Origin: testOrigin})
			a.c.VKeys = append(a.c.VKeys, vkey(t, testOrigin))
			r := a.look()
			l := r.Logs[len(r.Logs)-1]
			if len(l.Witnesses) != 1 || l.Witnesses[0].Result != test.result || l.Witnesses[0].Size != 64 {
				t.Fatalf("%+v, want %s at size 64", l.Witnesses, test.result)
			}
			if diverged := test.result == WitnessDiverged; (r.Verdict == Diverged) != diverged || (l.Verdict == Diverged) != diverged {
				t.Fatalf("verdict %v", r.Verdict)
			} else if !diverged {
				return
			}
			files := a.evidence()
			p, err := checkpoint.ParseProof([]byte(files["older.tlog-proof"]))
			if err != nil {
				t.Fatalf("%v; evidence: %v", err, files)
			}
			if _, e, err := parseHubEntry(p.Index, p.Extra); err != nil || e.root != log.root(64) || files["newer.note"] != string(server.note) {
				t.Errorf("the evidence has entry %+v, %v", e, err)
			}
		})
	}
}

func FuzzParseGrowth(f *testing.F) {
	f.Add([]byte("first\n"))
	f.Add([]byte("previous 0\n"))
	f.Add(growthProof{previous: 12, hashes: []merkle.Hash{{1}, {2}}}.encode())
	f.Add([]byte("previous 012\n"))
	f.Add([]byte("first\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseGrowth(data)
		if err != nil {
			return
		}
		if got := p.encode(); string(got) != string(data) {
			t.Errorf("got %q, want %q", got, data)
		}
		if p.first && len(p.hashes) > 0 {
			t.Errorf("a first entry with a proof: %q", data)
		}
	})
}

func FuzzParseHubEntry(f *testing.F) {
	f.Add(hubEntry{3, 9, merkle.Hash{1}}.encode(merkle.Hash{2}))
	f.Add(make([]byte, hubEntrySize))
	f.Fuzz(func(t *testing.T, data []byte) {
		id, e, err := parseHubEntry(3, data)
		if err == nil && string(e.encode(id)) != string(data) {
			t.Errorf("%x is read as %+v of %v", data, e, id)
		}
	})
}
