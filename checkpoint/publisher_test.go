package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

func TestPublishSignsWhatGrew(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	p := w.born(1, 2, 7, 255, 256, 257, 600)
	if got, want := len(w.signed), 8; got != want {
		t.Errorf("made %d signatures, want %d", got, want)
	}
	if !bytes.Equal(w.fenced, w.notes[len(w.notes)-1]) || w.released != 600 {
		t.Errorf("the fence is at %q, released is %d", w.fenced, w.released)
	}

	// Nothing new: the same checkpoint, and no signature.
	c, err := p.Publish(ctx)
	if err != nil || c != testCheckpoint(w.honest) || len(w.signed) != 8 {
		t.Errorf("idle Publish = %v, %v with %d signatures", c, err, len(w.signed))
	}

	// A restart goes on.
	p = w.start(nil)
	w.grow(1)
	if c, err := p.Publish(ctx); err != nil || c != testCheckpoint(w.honest) {
		t.Errorf("Publish after restart = %v, %v", c, err)
	}
	w.check()
}

// The order of the steps is what a crash between any two of them relies on.
func TestPublishOrder(t *testing.T) {
	w := newWorld(t)
	p := w.born(3)
	w.grow(5)
	w.trace = nil
	if _, err := p.Publish(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(w.trace, " ")
	if want := "latest head entries load latest record swap publish"; got != want {
		t.Errorf("a round's steps are %q, want %q", got, want)
	}
}

func TestBirthIsIdempotent(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	p := w.start(nil)
	if err := p.Resume(ctx); !errors.Is(err, ErrUnborn) {
		t.Errorf("Resume = %v, want ErrUnborn", err)
	}
	if _, err := p.Publish(ctx); !errors.Is(err, ErrUnborn) {
		t.Errorf("Publish = %v, want ErrUnborn", err)
	}
	for range 3 {
		if err := p.Birth(ctx); err != nil {
			t.Fatal(err)
		}
	}
	w.grow(3)
	if _, err := p.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.start(nil).Birth(ctx); err != nil {
		t.Fatal(err)
	}
	if len(w.signed) != 2 || len(w.notes) != 2 {
		t.Errorf("signed %q", w.signed)
	}
	w.check()
}

// Every step fails, or fails though it was made, or kills the process before or after
// it, twice in a row, and in the same process or after a restart. When the trouble is
// over, the log goes on.
func TestFaults(t *testing.T) {
	ctx := context.Background()
	for _, step := range []string{"head", "entries", "tile", "latest", "load", "record", "swap"} {
		for name, o := range map[string]outcome{"fails": fails, "applied": applied, "kills": kills, "dies": dies} {
			// nth is which occurrence of the step is the first to fail.
			for nth := range 4 {
				t.Run(fmt.Sprintf("%s/%s/%d", step, name, nth), func(t *testing.T) {
					w := newWorld(t)
					seen, faults := 0, 0
					plan := func(s string) outcome {
						if s != step || faults == 2 {
							return works
						}
						if seen++; seen <= nth {
							return works
						}
						faults++
						return o
					}
					p := w.start(plan)
					for born, rounds := false, 0; rounds < 12; rounds++ {
						var err error
						if !born {
							err = p.Birth(ctx)
							born = err == nil
						} else {
							w.grow(130)
							_, err = p.Publish(ctx)
						}
						w.check()
						if err != nil && !errors.Is(err, errFault) && !errors.Is(err, errKilled) {
							t.Fatalf("round %d: %v", rounds, err)
						}
						if errors.Is(err, errKilled) {
							p = w.start(plan)
						}
					}
					w.grow(1)
					if c, err := p.Publish(ctx); err != nil || c != testCheckpoint(w.honest) {
						t.Errorf("afterwards: %v, %v", c, err)
					}
					if w.released != uint64(len(w.honest)) {
						t.Errorf("released %d, want %d", w.released, len(w.honest))
					}
					if !bytes.Equal(w.fenced, w.notes[len(w.notes)-1]) {
						t.Error("the fence isn't at the store's newest checkpoint")
					}
					w.check()
				})
			}
		}
	}
}

// Several processes of one log, with random faults, sign one history and go on.
func TestManyPublishers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		w := newWorld(t)
		w.born()
		plan := func(step string) outcome {
			if rapid.IntRange(0, 9).Draw(rt, "luck") > 0 {
				return works
			}
			return outcome(rapid.IntRange(1, 4).Draw(rt, step))
		}
		publishers := make([]*Publisher, 3)
		for range rapid.IntRange(1, 40).Draw(rt, "rounds") {
			w.grow(rapid.IntRange(0, 3).Draw(rt, "grow"))
			i := rapid.IntRange(0, 2).Draw(rt, "publisher")
			if publishers[i] == nil {
				publishers[i] = w.start(plan)
			}
			_, err := publishers[i].Publish(ctx)
			if _, refused := errors.AsType[*Refusal](err); refused {
				rt.Fatal(err)
			}
			if errors.Is(err, errKilled) {
				publishers[i] = nil
			}
		}
		w.check()
		if c, err := w.start(nil).Publish(ctx); err != nil || c != testCheckpoint(w.honest) {
			rt.Fatalf("afterwards: %v, %v", c, err)
		}
		w.check()
	})
}

// Another process moves the fence between any two steps of ours.
func TestFenceMovesBeforeSwap(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	p := w.born(3)
	w.grow(2)
	w.onSwap = func() {
		// Another publisher finds what ours has recorded, and completes it.
		w.fenced = bytes.Clone(w.notes[len(w.notes)-1])
		w.onSwap = nil
	}
	if _, err := p.Publish(ctx); !errors.Is(err, ErrFenceMoved) {
		t.Errorf("Publish = %v, want ErrFenceMoved", err)
	}
	if c, err := p.Publish(ctx); err != nil || c.Size != 5 || w.released != 5 {
		t.Errorf("Publish = %v, %v", c, err)
	}
	w.check()
}

// Another process makes the log, and clients append to it, between any two steps of ours: that is no lost fence.
func TestBirthByAnother(t *testing.T) {
	ctx := context.Background()
	for _, step := range []string{"load", "latest", "head"} {
		w := newWorld(t)
		other := w.start(nil)
		born := false
		p := w.start(func(s string) outcome {
			if s == step && !born {
				born = true
				w.mu.Unlock() // which our step holds, and the other process needs
				defer w.mu.Lock()
				if err := other.Birth(ctx); err != nil {
					t.Fatal(err)
				}
				w.grow(2)
			}
			return works
		})
		err := p.Birth(ctx)
		if err != nil && !errors.Is(err, ErrFenceMoved) {
			t.Errorf("born before %s: %v", step, err)
		}
		if c, err := p.Publish(ctx); err != nil || c != testCheckpoint(w.honest) {
			t.Errorf("born before %s: then Publish = %v, %v", step, c, err)
		}
		w.check()
	}
}

// The store or the fence is changed, while the server is down or running. Nothing is
// signed, and the refusal says why and has the notes.
func TestRefusals(t *testing.T) {
	h := extend(nil, 300, "honest")
	forked := extend(h[:100], 200, "forked") // another history from entry 100 on

	// Entry 290 replaced, and the head computed again so that it suits.
	replaced := func(w *world, entry []byte) {
		w.entries[290] = entry
		w.set(w.entries)
	}
	previous := merkle.LeafHash(h[289])

	for _, tc := range []struct {
		name   string
		reason Reason
		detail string
		damage func(w *world)
	}{
		{"head behind", Rollback, "fewer entries", func(w *world) { w.set(h[:279]) }},
		{"all entries gone", Rollback, "fewer entries", func(w *world) { w.set(nil) }},
		{"other history of the same size", Diverged, "another tree", func(w *world) { w.set(forked[:280]) }},
		{"other root of the same size", Diverged, "another tree", func(w *world) { w.set(h[:280]); w.root[0] ^= 1 }},
		{"entry changed in place", Damaged, "don't give the tree", func(w *world) { w.entries[299][72] ^= 1 }},
		{"root of head wrong", Damaged, "don't give the tree", func(w *world) { w.root[31] ^= 1 }},
		{"head claims more", Damaged, "don't give the tree", func(w *world) { w.size++ }},
		{"chain broken", Damaged, "entry 290 doesn't continue the chain", func(w *world) { replaced(w, testEntry(merkle.Hash{1}, 1e15+96, "x")) }},
		{"chain skips one", Damaged, "entry 289 doesn't continue the chain", func(w *world) { w.set(slices.Delete(w.entries, 289, 290)) }},
		{"entries swapped", Damaged, "entry 289 doesn't continue the chain", func(w *world) {
			w.entries[289], w.entries[290] = w.entries[290], w.entries[289]
			w.set(w.entries)
		}},
		{"time goes back", Damaged, "entry 290 was received at", func(w *world) { replaced(w, testEntry(previous, 1e15+95, "x")) }},
		{"time beyond int64", Damaged, "entry 290: received at", func(w *world) { replaced(w, testEntry(previous, 1<<63, "x")) }},
		{"hub entry", Damaged, "entry 290: got version 0x02", func(w *world) { replaced(w, append([]byte{2}, h[290][1:]...)) }},
		{"short entry", Damaged, "entry 290: got 72 bytes", func(w *world) { replaced(w, h[290][:72]) }},
		{"empty entry", Damaged, "entry 290: got 0 bytes", func(w *world) { replaced(w, nil) }},
		{"fence newer than store", Rollback, "not the newest store", func(w *world) { w.fenced = w.sign(extend(h, 1, "honest")) }},
		{"fence of the same size and other root", Diverged, "different checkpoints", func(w *world) { w.fenced = w.sign(forked[:280]) }},
		{"fence older, of another history", Diverged, "doesn't extend", func(w *world) { w.fenced = w.sign(forked[:270]) }},
		{"fence gone", Unfenced, "treeline fence accept acme", func(w *world) { w.fenced = nil }},
		{"fence by another key", Unverified, "the fence's checkpoint", func(w *world) { w.fenced = signWith(w.t, testCheckpoint(h[:280]), 1) }},
		{"fence not a note", Unverified, "the fence's checkpoint", func(w *world) { w.fenced = []byte("x") }},
		{"store's checkpoints gone", Rollback, "the store has none", func(w *world) { w.notes = nil }},
		{"store's newest checkpoint gone", Rollback, "not the newest store", func(w *world) { w.notes = w.notes[:1] }},
		{"both checkpoints gone", Unfenced, "neither", func(w *world) { w.notes, w.fenced = nil, nil }},
		{"both as before birth", Unfenced, "fence accept", func(w *world) { w.notes, w.fenced = w.notes[:1], nil }},
		{"store's checkpoint edited", Unverified, "the store's newest checkpoint", func(w *world) {
			w.notes[1] = bytes.Replace(w.notes[1], []byte("\n280\n"), []byte("\n281\n"), 1)
		}},
		{"store's checkpoint of another history", Diverged, "different checkpoints", func(w *world) { w.notes[1] = w.sign(forked[:280]) }},
		{"store's checkpoint newer, of another history", Diverged, "not the one that was signed", func(w *world) {
			w.notes = append(w.notes, w.sign(forked[:290]))
		}},
		{"store's checkpoint newer than its entries", Rollback, "fewer entries", func(w *world) {
			w.notes = append(w.notes, w.sign(extend(h, 1, "honest")))
		}},
	} {
		for _, restarted := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/restarted=%v", tc.name, restarted), func(t *testing.T) {
				w := newWorld(t)
				p := w.born(280)
				w.grow(20)
				tc.damage(w)
				if restarted {
					p = w.start(nil)
				}
				refusal := w.refused(p)
				if refusal.Origin != testOrigin || refusal.Reason != tc.reason || !strings.Contains(refusal.Error(), tc.detail) {
					t.Errorf("got %v, want %s with %q", refusal, tc.reason, tc.detail)
				}
				var newest []byte
				if len(w.notes) > 0 {
					newest = w.notes[len(w.notes)-1]
				}
				if !bytes.Equal(refusal.Fenced, w.fenced) || !bytes.Equal(refusal.Recorded, newest) {
					t.Errorf("the evidence is %q and %q, want %q and %q", refusal.Fenced, refusal.Recorded, w.fenced, newest)
				}
				if (tc.reason == Rollback || tc.reason == Diverged) && refusal.Want == refusal.Got {
					t.Errorf("got %v, want two trees", refusal)
				}
			})
		}
	}
}

// refused makes rounds until the publisher refuses to go on, and checks that it hasn't
// signed, recorded or fenced anything, and that its refusal is final.
func (w *world) refused(p *Publisher) *Refusal {
	w.t.Helper()
	ctx := context.Background()
	signed, recorded, fenced, released := len(w.signed), len(w.notes), w.fenced, w.released

	_, err := p.Publish(ctx)
	// Another publisher might have moved them, which the next round finds out.
	if errors.Is(err, ErrFenceMoved) || errors.Is(err, ErrConflict) {
		_, err = p.Publish(ctx)
	}
	refusal, ok := errors.AsType[*Refusal](err)
	if !ok {
		w.t.Fatalf("Publish = %v, want a Refusal", err)
	}
	if len(w.signed) != signed || len(w.notes) != recorded || !bytes.Equal(w.fenced, fenced) || w.released != released {
		w.t.Errorf("signed, recorded, fenced or published something: %q", w.signed[signed:])
	}
	w.set(w.honest) // even if all is well again
	_, again := p.Publish(ctx)
	if again != error(refusal) || p.Resume(ctx) != error(refusal) || p.Birth(ctx) != error(refusal) {
		w.t.Errorf("afterwards: %v, want the same refusal", again)
	}
	return refusal
}

// A history that was rewritten from the middle on, with chain, tree and head all in
// agreement, is found at the latest by its root at the signed size.
func TestRewrittenHistory(t *testing.T) {
	for _, from := range []int{0, 1, 100, 255, 256, 279} {
		forked := extend(extend(nil, from, "honest"), 300-from, "forked")

		w := newWorld(t)
		w.born(280)
		w.set(forked)
		if r := w.refused(w.start(nil)); r.Reason != Diverged || r.Want.Size != 280 || r.Got.Root != naiveRoot(forked[:280]) {
			t.Errorf("from %d, restarted: %v", from, r)
		}

		// A running publisher goes on from the entry that it has signed.
		w = newWorld(t)
		p := w.born(280)
		w.set(forked)
		if r := w.refused(p); r.Reason != Damaged {
			t.Errorf("from %d, running: %v", from, r)
		}
	}
}

// The entries are right, but proofs are made from tiles.
func TestStoredTiles(t *testing.T) {
	h := extend(nil, 600, "honest")
	right := []merkle.Hash{naiveRoot(h[:256]), naiveRoot(h[256:512])}
	for name, tiles := range map[string]map[string][]merkle.Hash{
		"first wrong":  {"tile/1/000.p/2": {{1}, right[1]}},
		"second wrong": {"tile/1/000.p/2": {right[0], {1}}},
		"swapped":      {"tile/1/000.p/2": {right[1], right[0]}},
		"short":        {"tile/1/000.p/2": {right[0]}},
		"none":         {"tile/1/000.p/2": nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.born(200)
			w.grow(400)
			w.tiles = tiles
			if r := w.refused(p); r.Reason != Damaged || !strings.Contains(r.Detail, "tile/1/000.p/2") {
				t.Error(r)
			}
		})
	}

	t.Run("only what is new is compared", func(t *testing.T) {
		w := newWorld(t)
		p := w.born(300)
		w.grow(300)
		w.tiles["tile/1/000.p/2"] = []merkle.Hash{right[0], {1}}
		if r := w.refused(p); !strings.Contains(r.Detail, "hash 1 of tile/1/000.p/2") {
			t.Error(r)
		}
	})

	t.Run("level 2", func(t *testing.T) {
		w := newWorld(t)
		p := w.born(65_000)
		w.grow(700)
		w.tiles["tile/2/000.p/1"] = []merkle.Hash{{1}}
		if r := w.refused(p); r.Reason != Damaged || !strings.Contains(r.Detail, "tile/2/000.p/1") {
			t.Error(r)
		}
	})

	t.Run("last entry and its tree differ", func(t *testing.T) {
		w := newWorld(t)
		w.born(300)
		// The tile of the leaves, kept apart, is right, and the entry isn't.
		leaves := []merkle.Hash{}
		for _, e := range h[256:300] {
			leaves = append(leaves, merkle.LeafHash(e))
		}
		w.tiles["tile/0/001.p/44"] = leaves
		w.entries[299][40] ^= 1
		if r := w.refused(w.start(nil)); r.Reason != Damaged || !strings.Contains(r.Detail, "entry 299 is not the one that was signed") {
			t.Error(r)
		}
	})
}

// The next generation signs beside the last, and then alone.
func TestRotation(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	w.born(3)
	s0, v0 := testKey(t, 0)
	s1, v1 := testKey(t, 1)
	for _, gen := range []struct {
		signers   []note.Signer
		verifiers []note.Verifier
	}{
		{[]note.Signer{s0, s1}, []note.Verifier{v0, v1}},
		{[]note.Signer{s1}, []note.Verifier{v1}},
	} {
		w.grow(3)
		p := &process{world: w}
		c, err := NewPublisher(memSource{p}, memFence{p}, gen.signers, gen.verifiers...).Publish(ctx)
		if err != nil || c.Size != uint64(len(w.honest)) {
			t.Fatalf("Publish = %v, %v", c, err)
		}
		if _, n, err := Open(w.fenced, testOrigin, v0, v1); err != nil || len(n.Sigs) != len(gen.signers) {
			t.Errorf("fenced %q, %v, want %d signatures", w.fenced, err, len(gen.signers))
		}
	}
}

// A signature that the log's own verifiers don't accept isn't recorded.
func TestBadSignature(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	w.born(3)
	w.grow(3)
	s0, v0 := testKey(t, 0)
	p := &process{world: w}
	for name, signer := range map[string]note.Signer{"wrong": badSigner{s0}, "none": failingSigner{s0}} {
		if c, err := NewPublisher(memSource{p}, memFence{p}, []note.Signer{signer}, v0).Publish(ctx); err == nil || len(w.notes) != 2 {
			t.Errorf("%s: Publish = %v, %v", name, c, err)
		}
	}
}

type badSigner struct{ note.Signer }

func (s badSigner) Sign(msg []byte) ([]byte, error) {
	sig, err := s.Signer.Sign(msg)
	sig[0] ^= 1
	return sig, err
}

type failingSigner struct{ note.Signer }

func (failingSigner) Sign([]byte) ([]byte, error) { return nil, errFault }

func signWith(t testing.TB, c Checkpoint, generations ...uint32) []byte {
	t.Helper()
	var signers []note.Signer
	for _, g := range generations {
		signer, _ := testKey(t, g)
		signers = append(signers, signer)
	}
	msg, err := Sign(c, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}
