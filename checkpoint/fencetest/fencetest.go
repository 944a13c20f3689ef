// Package fencetest is the suite that every checkpoint.Fence passes: what its contract promises, as tests. [Run] is for all
// fences, [RunRemote] for those that are behind a network, where answers get lost.
package fencetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// A Place is where a fence keeps its notes. It is the test's own, and empty at first.
type Place interface {
	// Open opens the fence, each time as another process would.
	Open(t *testing.T) checkpoint.Fence

	// Put puts content where the note of the origin belongs, behind the fence's back.
	Put(t *testing.T, origin string, content []byte)
}

// Run runs the suite. Each of its tests has a new place.
func Run(t *testing.T, newPlace func(t *testing.T) Place) {
	for _, test := range []struct {
		name string
		fn   func(t *testing.T, p Place)
	}{
		{"a note replaces the one that the caller knows, and no other", testSwap},
		{"a note of another log is refused", testForeign},
		{"logs are apart, and listed in order", testOrigins},
		{"what is dropped is gone, and can be made anew", testDrop},
		{"any origin that a log can have is kept", testLongOrigins},
		{"an origin that no log can have finds nothing", testNoOrigins},
		{"what isn't a note of the log is an error, and stays", testGarbage},
		{"of all that swap one note, one wins", testConcurrently},
		{"nothing is changed for a caller who is gone", testCanceled},
		{"a publisher goes on after restarts", testPublisher},
		{"a publisher catches up a fence that was set back", testSetBack},
	} {
		t.Run(test.name, func(t *testing.T) { test.fn(t, newPlace(t)) })
	}
}

// Origin is the log of most tests.
const Origin = "logs.example.com/logs/acme"

// Note returns a signed note of the log, of that size. Another history gives another tree, but for size 0.
func Note(t testing.TB, origin string, size uint64, history string) []byte {
	t.Helper()
	signer, _ := keys(t, origin)
	c := checkpoint.Checkpoint{Origin: origin, Size: size, Root: merkle.EmptyRoot()}
	if size > 0 {
		c.Root = merkle.LeafHash(fmt.Append(nil, history, size))
	}
	msg, err := checkpoint.Sign(c, signer)
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

func keys(t testing.TB, origin string) (note.Signer, note.Verifier) {
	t.Helper()
	signer, vkey, err := checkpoint.Seed(bytes.Repeat([]byte{7}, 32)).Ed25519(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

// notes returns notes of the log Origin of sizes 0 to n-1.
func notes(t testing.TB, n uint64) (msgs [][]byte) {
	t.Helper()
	for size := range n {
		msgs = append(msgs, Note(t, Origin, size, "honest"))
	}
	return msgs
}

// mustHold checks that the fence holds the note, or none if it is nil.
func mustHold(t testing.TB, f checkpoint.Fence, origin string, msg []byte) {
	t.Helper()
	if got, err := f.Load(context.Background(), origin); err != nil || !bytes.Equal(got, msg) || (got == nil) != (msg == nil) {
		t.Errorf("Load = %q, %v, want %q", got, err, msg)
	}
}

func mustSwap(t testing.TB, f checkpoint.Fence, origin string, old, new []byte) {
	t.Helper()
	if err := f.Swap(context.Background(), origin, old, new); err != nil {
		t.Fatalf("Swap = %v", err)
	}
}

func mustList(t testing.TB, f checkpoint.Fence, want ...string) {
	t.Helper()
	if got, err := f.Origins(context.Background()); err != nil || !slices.Equal(got, want) {
		t.Errorf("Origins = %q, %v, want %q", got, err, want)
	}
}

func testSwap(t *testing.T, p Place) {
	f, other := p.Open(t), p.Open(t)
	notes := notes(t, 4)
	holds := func(msg []byte) {
		t.Helper()
		mustHold(t, f, Origin, msg)
		mustHold(t, other, Origin, msg)
	}
	refuses := func(old, new []byte) {
		t.Helper()
		if err := f.Swap(t.Context(), Origin, old, new); !errors.Is(err, checkpoint.ErrFenceMoved) {
			t.Errorf("Swap = %v, want %v", err, checkpoint.ErrFenceMoved)
		}
	}

	holds(nil)
	mustList(t, f)
	refuses(notes[0], notes[1])
	refuses([]byte{}, notes[1]) // an empty note isn't none
	holds(nil)
	mustSwap(t, f, Origin, nil, notes[0])
	holds(notes[0])
	refuses(nil, notes[1])
	refuses(nil, notes[0])
	refuses([]byte{}, notes[1])
	refuses(notes[1], notes[2])
	refuses(notes[0][:len(notes[0])-1], notes[1])
	holds(notes[0])
	mustSwap(t, other, Origin, notes[0], notes[1])
	holds(notes[1])
	refuses(notes[0], notes[2])
	mustSwap(t, f, Origin, notes[1], notes[1]) // by itself
	mustSwap(t, f, Origin, notes[1], notes[2])
	holds(notes[2])
	holds(notes[2])
}

func testForeign(t *testing.T, p Place) {
	f := p.Open(t)
	note := Note(t, Origin, 1, "honest")
	for name, new := range map[string][]byte{
		"none": nil, "empty": {}, "of another log": Note(t, "logs.example.com/logs/other", 1, "honest"),
		"without a signature": note[:bytes.Index(note, []byte("\n\n"))+1],
	} {
		if err := f.Swap(t.Context(), Origin, nil, new); err == nil || errors.Is(err, checkpoint.ErrFenceMoved) {
			t.Errorf("%s: Swap = %v", name, err)
		}
	}
	mustHold(t, f, Origin, nil)
	mustSwap(t, f, Origin, nil, note)
	if err := f.Swap(t.Context(), Origin, note, nil); err == nil {
		t.Error("put nothing in place of a note")
	}
	mustHold(t, f, Origin, note)
}

func testOrigins(t *testing.T, p Place) {
	f := p.Open(t)
	var want []string
	notes := make(map[string][]byte)
	for _, i := range []uint64{3, 1, 20, 0, 7} {
		origin := fmt.Sprintf("logs.example.com/logs/tenant-%d", i)
		notes[origin] = Note(t, origin, i, "honest")
		mustSwap(t, f, origin, nil, notes[origin])
		want = append(want, origin)
	}
	slices.Sort(want)
	mustList(t, f, want...)
	mustList(t, p.Open(t), want...)
	for _, origin := range want {
		mustHold(t, f, origin, notes[origin])
	}
	mustHold(t, f, "logs.example.com/logs/tenant-2", nil)
}

func testDrop(t *testing.T, p Place) {
	f := p.Open(t)
	const other = "logs.example.com/logs/other"
	notes, kept := notes(t, 3), Note(t, other, 5, "honest")
	mustSwap(t, f, other, nil, kept)
	mustSwap(t, f, Origin, nil, notes[1])
	for range 2 { // again is no error
		if err := f.Drop(t.Context(), Origin); err != nil {
			t.Error(err)
		}
		mustHold(t, f, Origin, nil)
		mustHold(t, f, other, kept)
		mustList(t, f, other)
	}
	if err := f.Swap(t.Context(), Origin, notes[1], notes[2]); !errors.Is(err, checkpoint.ErrFenceMoved) {
		t.Errorf("Swap = %v, want %v", err, checkpoint.ErrFenceMoved)
	}
	mustSwap(t, f, Origin, nil, notes[0])
	mustHold(t, f, Origin, notes[0])
}

func testLongOrigins(t *testing.T, p Place) {
	f := p.Open(t)
	label := strings.Repeat("x", 63)
	longest := label + "." + label + "." + label + "/logs/" + strings.Repeat("n", 255-3*64-5)
	origins := []string{
		"127.0.0.1:8080/logs/a", "a/logs/a", "a/logs/a-", "a/logs/aa", "a:1/logs/a", "a.b/logs/a", "a0/logs/a", "a-b.example/logs/a",
		"ab.example/logs/a", "probe/logs/probe", longest[:254], longest,
	}
	for _, origin := range origins {
		mustSwap(t, f, origin, nil, Note(t, origin, 1, origin))
	}
	for _, origin := range origins {
		mustHold(t, f, origin, Note(t, origin, 1, origin))
	}
	slices.Sort(origins)
	mustList(t, f, origins...)
}

func testNoOrigins(t *testing.T, p Place) {
	f := p.Open(t)
	msg := Note(t, Origin, 1, "honest")
	mustSwap(t, f, Origin, nil, msg)
	for _, origin := range []string{
		"", "/", ".", "..", "../" + Origin, Origin + "/", Origin + " ", Origin + "\x00", strings.ToUpper(Origin), "%", "_", "*",
		"x' OR '1'='1", "日本/logs/x", "\xff", checkpoint.FenceName(Origin), strings.Repeat("x", 3000),
	} {
		if got, _ := f.Load(t.Context(), origin); got != nil {
			t.Errorf("%q: Load = %q", origin, got)
		}
		if err := f.Swap(t.Context(), origin, nil, msg); err == nil {
			t.Errorf("%q: took the note of %s", origin, Origin)
		}
		_ = f.Drop(t.Context(), origin) // an error, or nothing to drop
	}
	mustHold(t, f, Origin, msg)
	mustList(t, f, Origin)
}

// What isn't the note of the log is never taken for none.
func testGarbage(t *testing.T, p Place) {
	f := p.Open(t)
	note := Note(t, Origin, 1, "honest")
	for name, content := range map[string]string{
		"empty":              "",
		"cut off":            string(note[:len(note)-10]),
		"twice":              string(note) + string(note),
		"that of another":    string(Note(t, "logs.example.com/logs/other", 1, "honest")),
		"a size edited away": strings.Replace(string(note), "\n1\n", "\n\n", 1),
		"not text":           "\x00\xff",
	} {
		p.Put(t, Origin, []byte(content))
		if got, err := f.Load(t.Context(), Origin); err == nil {
			t.Errorf("%s: Load = %q", name, got)
		}
		for _, old := range [][]byte{nil, note} {
			if err := f.Swap(t.Context(), Origin, old, Note(t, Origin, 2, "honest")); err == nil {
				t.Errorf("%s: replaced", name)
			}
		}
		if got, err := f.Origins(t.Context()); err == nil {
			t.Errorf("%s: Origins = %q", name, got)
		}
	}
	// What somebody puts back is as good as before, and what nobody can read can be dropped.
	p.Put(t, Origin, note)
	mustHold(t, f, Origin, note)
	p.Put(t, Origin, []byte{})
	if err := f.Drop(t.Context(), Origin); err != nil {
		t.Error(err)
	}
	mustHold(t, f, Origin, nil)
}

func testConcurrently(t *testing.T, p Place) {
	const rounds, workers = 8, 16
	fences := []checkpoint.Fence{p.Open(t), p.Open(t), p.Open(t)}
	var old []byte
	for round := range rounds {
		var wins atomic.Int64
		var won atomic.Pointer[[]byte]
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				// Every worker has a note of its own.
				msg := Note(t, Origin, uint64(round)+1, fmt.Sprint("worker ", w))
				err := fences[w%len(fences)].Swap(t.Context(), Origin, old, msg)
				if err == nil {
					wins.Add(1)
					won.Store(&msg)
				} else if !errors.Is(err, checkpoint.ErrFenceMoved) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 {
			t.Fatalf("%d swaps of one note, want 1", wins.Load())
		}
		old = *won.Load()
		for _, f := range fences {
			mustHold(t, f, Origin, old)
		}
	}
}

func testCanceled(t *testing.T, p Place) {
	f := p.Open(t)
	note := Note(t, Origin, 1, "honest")
	mustSwap(t, f, Origin, nil, note)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Swap(ctx, Origin, note, Note(t, Origin, 2, "honest")); err != nil && errors.Is(err, checkpoint.ErrFenceMoved) {
		t.Errorf("Swap = %v", err)
	} else if err != nil {
		mustHold(t, f, Origin, note)
	}
}

func testPublisher(t *testing.T, p Place) {
	src := newSource(t, p.Open(t))
	for range 3 {
		publisher := src.publisher(p.Open(t))
		if err := publisher.Birth(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			src.grow(2)
			if c, err := publisher.Publish(t.Context()); err != nil || c.Size != uint64(len(src.entries)) {
				t.Fatalf("Publish = %v, %v", c, err)
			}
		}
	}
	if src.released != 18 || src.records != 10 {
		t.Errorf("released %d with %d checkpoints, want 18 with 10", src.released, src.records)
	}
}

func testSetBack(t *testing.T, p Place) {
	src := newSource(t, p.Open(t))
	publisher := src.publisher(p.Open(t))
	if err := publisher.Birth(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := src.note
	for range 2 {
		src.grow(2)
		if _, err := publisher.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	p.Put(t, Origin, first)
	src.grow(2)
	if _, err := publisher.Publish(t.Context()); !errors.Is(err, checkpoint.ErrFenceMoved) {
		t.Errorf("Publish = %v, want %v", err, checkpoint.ErrFenceMoved)
	}
	if c, err := publisher.Publish(t.Context()); err != nil || c.Size != 6 || src.released != 6 {
		t.Errorf("Publish = %v, %v, released %d, want 6", c, err, src.released)
	}
	mustHold(t, p.Open(t), Origin, src.note)
}
