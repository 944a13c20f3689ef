package monitor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// seal puts the first line before the JSON of a state.
func seal(text []byte) []byte {
	sum := sha256.Sum256(text)
	return append([]byte(statePrefix+hex.EncodeToString(sum[:])+"\n"), text...)
}

// sampleStates returns a state of each kind, with something in every member.
func sampleStates(t *testing.T) [][]byte {
	now := time.Date(2026, 11, 25, 3, 4, 5, 6, time.FixedZone("", 3600))
	h := newHistory(t, testOrigin).grow(11, "a")
	var states [][]byte
	for _, kind := range []Kind{Chained, Hub, Opaque} {
		s := newState(testOrigin, kind, now)
		for _, e := range h.entries[:11] {
			s.tree.Append(merkle.LeafHash(e), nil)
			if kind == Chained {
				if _, err := s.chain.Add(0, e); err != nil {
					t.Fatal(err)
				}
			}
		}
		s.cp, s.note = h.checkpoint(11), h.note(11)
		if kind == Hub {
			s.logs[merkle.Hash{9}] = hubEntry{3, 4, merkle.Hash{1}}
			s.logs[merkle.Hash{1}] = hubEntry{10, 1, merkle.Hash{2}}
		}
		s.ahead = append(s.ahead, ahead{h.grow(20, "a").checkpoint(20), h.note(20), "w+00000000", now.UTC().Truncate(time.Second)})
		states = append(states, s.encode())
	}
	return states
}

// A state is read as it was written, and what isn't one of ours isn't read at all, though its first line is right.
func TestStatesAreReadStrictly(t *testing.T) {
	for _, data := range sampleStates(t) {
		s, err := parseState(data)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.encode(); !bytes.Equal(got, data) {
			t.Errorf("got %s, want %s", got, data)
		}
		_, text, _ := bytes.Cut(data, []byte("\n"))
		for _, change := range [][2]string{
			{s.tree.Hashes()[2].String(), merkle.Hash{}.String()}, // not the tree of the checkpoint
			{`"kind": "`, `"kind": "x`},
			{`"origin": "`, `"origin": "x`},
			{`"first_seen": "2026`, `"first_seen": "26`},
			{`"first_seen"`, `"First_seen"`},
			{`"range": [`, `"range": [ `},
			{`"range"`, `"more": 1, "range"`},
			{`\n11\n`, `\n12\n`},
			{`\n20\n`, `\n020\n`},
			{`"since": "2026-11-25T`, `"since": "2026-11-25 `},
			{"\n}", ",\n}"},
			{"\n}\n", "\n}\n\n"},
		} {
			bad := bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1)
			if bytes.Equal(bad, text) {
				t.Fatalf("the state has no %q:\n%s", change[0], text)
			}
			if _, err := parseState(seal(bad)); err == nil {
				t.Errorf("%q for %q passes", change[1], change[0])
			}
		}
	}
}

func FuzzParseState(f *testing.F) {
	for _, data := range sampleStates(&testing.T{}) {
		_, text, _ := bytes.Cut(data, []byte("\n"))
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		data := seal(text)
		s, err := parseState(data)
		if err != nil {
			return
		}
		if !bytes.Equal(s.encode(), data) {
			t.Errorf("%s is read as another state", data)
		}
		if s.tree.Size() != s.cp.Size || s.tree.Root() != s.cp.Root {
			t.Errorf("a tree of another checkpoint: %s", data)
		}
	})
}

// A log that signs something else in every round doesn't fill the disk. What is no longer kept is still shown.
func TestEvidenceIsBounded(t *testing.T) {
	d, err := openDirectory(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	known := exhibit{cp: checkpoint.Checkpoint{Origin: testOrigin, Size: 5}, note: []byte("known\n")}
	kept := 0
	for size := range uint64(maxEvidence + 3) {
		p := d.diverge(testOrigin, contradiction{a: known, why: "the tree is another one", b: exhibit{
			cp: checkpoint.Checkpoint{Origin: testOrigin, Size: 6 + size}, note: []byte("other\n"),
		}})
		if p.Verdict != Diverged || p.Notice == "" {
			t.Fatalf("got %+v", p)
		}
		if p.Evidence != "" {
			kept++
		} else if !strings.Contains(p.Detail, "reports") {
			t.Errorf("it isn't said that nothing is kept: %s", p.Detail)
		}
	}
	if found, err := d.diverged(testOrigin); err != nil || len(found) != maxEvidence || kept != maxEvidence {
		t.Errorf("got %d reports, %v, and %d problems with one, want %d", len(found), err, kept, maxEvidence)
	}
	if p := d.accuse(problem(Invalid, KindChain, "it is no chain"), known, nil); p.Evidence == "" {
		t.Error("evidence of another kind isn't kept")
	}
}
