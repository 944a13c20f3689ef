package monitor

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/checkpoint"
)

// covered is a log in a hub whose checkpoints a witness cosigns, and a third party that follows both under the hub's policy.
type covered struct {
	*third
	witness  *fakeWitness
	hub      *fakeHub
	log      *fakeLog
	unsigned bool // the hub's next checkpoints are not cosigned
}

func newCovered(t *testing.T) *covered {
	t.Helper()
	c := &covered{witness: newFakeWitness(t, "witness.example/w"), hub: newFakeHub(t), log: newFakeLog(t)}
	c.witness.origin = hubOrigin
	text := fmt.Sprintf("log %s\nwitness W %s %s\nquorum W\n", vkey(t, hubOrigin), c.witness.VKey(), c.witness.URL)
	policy, err := checkpoint.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c.third = &third{t, Config{
		Policy: policy, VKeys: []string{vkey(t, testOrigin)}, StateDir: filepath.Join(t.TempDir(), "audit"), Strict: true,
		Targets: []Target{{URL: c.log.url(), Origin: testOrigin}, {URL: c.hub.log.url(), Origin: hubOrigin}},
	}}
	return c
}

// shows has the hub serve all that it has, cosigned, and the log what is given.
func (c *covered) shows(log *history, shown int) {
	size := len(c.hub.entries)
	if c.unsigned {
		c.hub.serve()
	} else {
		c.hub.log.serve(c.hub.history, size, c.hub.note(size, c.witness.Cosigner)...)
		c.witness.show(c.hub.log.note)
	}
	c.log.serve(log, shown)
}

// says looks once and wants the verdict on the log, which is witnessed through the hub if that is Verified.
func (c *covered) says(want Verdict) {
	c.t.Helper()
	r := c.look()
	l := r.Logs[0]
	if l.Verdict != want || l.Quorum == nil || *l.Quorum != (want == Verified) || l.ByHub != (want == Verified) {
		c.t.Errorf("the log: got %v, quorum %v, by hub %t, want %v", l.Verdict, l.Quorum, l.ByHub, want)
	}
	if c.unsigned {
		return
	}
	if hub := r.Logs[1]; hub.Verdict != Verified || hub.ByHub || !*hub.Quorum {
		c.t.Errorf("the hub: got %v, by hub %t, want it witnessed itself", hub.Verdict, hub.ByHub)
	}
}

// The witnesses know only the hub, so what a log shows is witnessed as far as the hub has it.
func TestALogIsWitnessedThroughItsHub(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	for _, test := range []struct {
		name string
		size int // that the log shows
		want Verdict
	}{
		{"the newest entry", 64, Verified},
		{"an older entry, as for a moment after a newer one came", 10, Verified},
		{"more than the hub has", 65, Unverified},
		{"what the hub never had", 63, Unverified},
		{"nothing", 0, Verified},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCovered(t)
			c.hub.take(log, 10)
			other := newHistory(t, "audit.example.com/logs/other")
			for size := 1; size <= 300; size++ { // more than a bundle
				c.hub.take(other.grow(size, "a"), size)
			}
			c.hub.take(log, 64)
			c.shows(log, test.size)
			c.says(test.want)
			c.says(test.want) // by what it kept
		})
	}
}

// What a log shows may be older than what the hub has of it by now, in a process that stays as in one for each round.
func TestALogMayLagBehindItsHub(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	c := newCovered(t)
	c.hub.take(log, 10)
	c.shows(log, 10)
	c.says(Verified)
	c.hub.take(log, 20)
	c.shows(log, 10)
	c.says(Verified)
	m, err := Open(c.c)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for range 2 {
		c.hub.take(log, len(log.entries))
		c.shows(log, 20)
		if r := m.Round(t.Context()); r.Verdict != Verified || !r.Logs[0].ByHub {
			t.Fatalf("got %v: %+v", r.Verdict, r.Logs[0].Problems)
		}
		log.grow(len(log.entries)+10, "a")
	}
}

// A hub may get what the log shows after it was read and before the log is.
func TestAHubIsReadAgainForWhatALogShows(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	c := newCovered(t)
	c.hub.take(log, 10)
	c.shows(log, 10)
	c.says(Verified)
	once := false
	c.hub.log.spoil(func(path string, data []byte) []byte {
		if path != "checkpoint" || once {
			return data
		}
		once = true
		return c.hub.note(1, c.witness.Cosigner)
	})
	c.hub.take(log, 64)
	c.hub.take(log, 80) // and goes on meanwhile
	c.shows(log, 64)
	c.says(Verified)
	if !once {
		t.Error("the hub wasn't read")
	}
}

// What a hub was seen to do stays in the report of the round in which it is read again, and is better then.
func TestAHubThatIsReadAgainIsNotForgiven(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	for name, c := range map[string]struct {
		first   func(note []byte) []byte // what the hub shows first
		verdict Verdict
		kind    string
	}{
		"a signature that fails": {func(note []byte) []byte { return bytes.Replace(note, []byte("\n3\n"), []byte("\n2\n"), 1) }, Invalid, KindSignature},
		"nothing":                {func([]byte) []byte { return nil }, Verified, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newCovered(t)
			h.hub.take(log, 10)
			h.shows(log, 10)
			h.says(Verified)
			once := false
			h.hub.log.spoil(func(path string, data []byte) []byte {
				if path != "checkpoint" || once {
					return data
				}
				once = true
				return c.first(data)
			})
			h.hub.take(log, 64)
			h.hub.take(log, 80)
			h.shows(log, 64)
			r := h.look()
			has := func(p *Problem) bool { return p.Kind == c.kind && p.Verdict == c.verdict }
			if hub := r.Logs[1]; r.Verdict != c.verdict || hub.Verdict != c.verdict || hub.Served != 3 || c.kind != "" && !slices.ContainsFunc(hub.Problems, has) {
				t.Errorf("got %v and of the hub %+v, want %v", r.Verdict, hub, c.verdict)
			}
			if r.Logs[0].Verdict != Verified || !once {
				t.Errorf("the log: got %+v, want it covered by the hub that was read again", r.Logs[0])
			}
			h.says(Verified)
		})
	}
}

// A hub for which the policy isn't met vouches for nothing.
func TestAHubThatIsNotWitnessedCoversNothing(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	c := newCovered(t)
	c.hub.take(log, 10)
	c.shows(log, 10)
	c.says(Verified)
	c.unsigned = true
	c.shows(log, 10)
	c.says(Verified) // which it was before, and the hub's note is kept
	c.hub.take(log, 64)
	c.shows(log, 64)
	c.says(Unverified)
	r := c.look()
	for _, l := range r.Logs {
		if len(l.Problems) != 1 || l.Problems[0].Kind != KindQuorum || !strings.Contains(l.Problems[0].Detail, "the quorum is unmet") {
			t.Errorf("%s: got %+v, want the quorum unmet", l.Origin, l.Problems)
		}
	}
	c.unsigned = false
	c.shows(log, 64)
	c.says(Verified)
}

// While a hub can't be read nobody can say whether the policy is met, which is something else than that it isn't.
func TestALogCannotBeJudgedWhileItsHubIsAway(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	for _, away := range []string{"checkpoint", "growth/", "tile/entries/"} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, known %t", away, known), func(t *testing.T) {
				c := newCovered(t)
				c.hub.take(log, 10)
				c.shows(log, 10)
				if known {
					c.says(Verified)
				}
				c.hub.take(log, 64)
				c.shows(log, 64)
				c.hub.log.fail(func(path string) bool { return strings.HasPrefix(path, away) })
				r := c.look()
				l := r.Logs[0]
				if l.Verdict != Failed || l.Quorum != nil || len(l.Problems) != 1 || l.Problems[0].Kind != KindUnreachable ||
					!strings.Contains(l.Problems[0].Detail, "503") || r.Verdict != Failed {
					t.Errorf("the log: got %v, quorum %v, %+v, want it FAILED, by the hub's answer", l.Verdict, l.Quorum, l.Problems)
				}
				c.hub.log.fail(nil)
				c.says(Verified)
			})
		}
	}
}

// The same holds for what has to be read of a hub that was read, to see if it once had what a log shows. But a hub that is there at one
// of its URLs is there.
func TestALogIsJudgedByAHubThatIsThere(t *testing.T) {
	log := newHistory(t, testOrigin).grow(100, "a")
	c := newCovered(t)
	c.hub.take(log, 10)
	c.hub.take(log, 64)
	c.shows(log, 10)
	c.says(Verified)
	c.hub.log.fail(func(path string) bool { return strings.HasPrefix(path, "tile/") })
	if l := c.look().Logs[0]; l.Verdict != Failed || l.Quorum != nil {
		t.Errorf("an older entry that can't be read: got %v, quorum %v, want FAILED and unknown", l.Verdict, l.Quorum)
	}
	c.hub.log.fail(nil)

	away := newFakeLog(t)
	away.fail(func(string) bool { return true })
	c.c.Targets = append(c.c.Targets, Target{URL: away.url(), Origin: hubOrigin})
	c.shows(log, 65)
	if l := c.look().Logs[0]; l.Verdict != Unverified || l.Quorum == nil || *l.Quorum {
		t.Errorf("what the hub never had: got %v, quorum %v, want NOT_VERIFIABLE and unmet", l.Verdict, l.Quorum)
	}
}
