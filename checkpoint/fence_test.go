package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func openFence(t testing.TB, dir string) *FileFence {
	t.Helper()
	f, err := OpenFileFence(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// testNotes returns notes of the log of sizes 0 to n-1.
func testNotes(t testing.TB, n int) [][]byte {
	t.Helper()
	h := extend(nil, n, "honest")
	var notes [][]byte
	for i := range n {
		notes = append(notes, signWith(t, testCheckpoint(h[:i]), 0))
	}
	return notes
}

func TestFileFence(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "fence")
	f := openFence(t, dir)
	notes := testNotes(t, 3)

	want := func(note []byte) {
		t.Helper()
		// Also as another process finds it.
		for _, f := range []*FileFence{f, openFence(t, dir)} {
			if got, err := f.Load(ctx, testOrigin); err != nil || !bytes.Equal(got, note) || (got == nil) != (note == nil) {
				t.Errorf("Load = %q, %v, want %q", got, err, note)
			}
		}
	}
	swap := func(old, new []byte, wantErr error) {
		t.Helper()
		if err := f.Swap(ctx, testOrigin, old, new); !errors.Is(err, wantErr) {
			t.Errorf("Swap = %v, want %v", err, wantErr)
		}
	}

	want(nil)
	swap(notes[0], notes[1], ErrFenceMoved)
	swap([]byte{}, notes[1], ErrFenceMoved) // an empty note isn't none
	want(nil)
	swap(nil, notes[0], nil)
	want(notes[0])
	swap(nil, notes[1], ErrFenceMoved)
	swap(notes[1], notes[2], ErrFenceMoved)
	want(notes[0])
	swap(notes[0], notes[1], nil)
	swap(notes[1], notes[2], nil)
	want(notes[2])

	const other = "logs.example.com/logs/other"
	if got, err := f.Load(ctx, other); got != nil || err != nil {
		t.Errorf("Load of another log = %q, %v", got, err)
	}
	if err := f.Swap(ctx, other, nil, notes[0]); err == nil {
		t.Error("put a note where that of another log belongs")
	}
	if err := f.Swap(ctx, testOrigin, notes[2], nil); err == nil {
		t.Error("put nothing in place of a note")
	}
	if got, err := f.Origins(ctx); err != nil || !slices.Equal(got, []string{testOrigin}) {
		t.Errorf("Origins = %q, %v", got, err)
	}

	// SHA-256 of the origin.
	if data, err := os.ReadFile(filepath.Join(dir, "8f0d302bcdc467d3232b7366b73d21b3c0717df9c84f2f72b2f06634acf3eab8")); err != nil || !bytes.Equal(data, notes[2]) {
		t.Errorf("the file has %q, %v", data, err)
	}
	for path, mode := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, f.path(testOrigin): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, mode)
		}
	}

	for range 2 {
		if err := f.Drop(ctx, testOrigin); err != nil {
			t.Error(err)
		}
		want(nil)
	}
	if got, err := f.Origins(ctx); err != nil || len(got) != 0 {
		t.Errorf("Origins = %q, %v", got, err)
	}
}

// What isn't the note of the log is never taken for none.
func TestDamagedFileFence(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "fence")
	f := openFence(t, dir)
	notes := testNotes(t, 2)
	signer, _, err := testSeed.Ed25519("logs.example.com/logs/other", 0)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := Sign(Checkpoint{"logs.example.com/logs/other", 0, naiveRoot(nil)}, signer)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"empty":              "",
		"cut off":            string(notes[1][:len(notes[1])-10]),
		"twice":              string(notes[1]) + string(notes[1]),
		"that of another":    string(foreign),
		"a size edited away": strings.Replace(string(notes[1]), "\n1\n", "\n\n", 1),
	} {
		if err := os.WriteFile(f.path(testOrigin), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Load(ctx, testOrigin); err == nil {
			t.Errorf("%s: Load = %q", name, got)
		}
		if err := f.Swap(ctx, testOrigin, nil, notes[0]); err == nil {
			t.Errorf("%s: replaced", name)
		}
		if got, err := f.Origins(ctx); err == nil {
			t.Errorf("%s: Origins = %q", name, got)
		}
	}

	// A fence that is not there is not an empty one.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(ctx, testOrigin); err == nil {
		t.Errorf("Load without the directory = %q", got)
	}
	if got, err := f.Origins(ctx); err == nil {
		t.Errorf("Origins without the directory = %q", got)
	}
	if _, err := OpenFileFence(filepath.Join(dir, "below")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened below a directory that isn't there: %v", err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFileFence(dir); err == nil {
		t.Error("opened a file")
	}
}

// The process dies before each step of a Swap, or the step fails. What it leaves is the
// old note or the new one, and the next Swap works.
func TestFileFenceSteps(t *testing.T) {
	ctx := context.Background()
	notes := testNotes(t, 3)
	steps := []string{"write", "rename", "sync directory"}
	for i, fail := range steps {
		t.Run(fail, func(t *testing.T) {
			dir := t.TempDir()
			f := openFence(t, dir)
			if err := f.Swap(ctx, testOrigin, nil, notes[0]); err != nil {
				t.Fatal(err)
			}
			var got []string
			f.testingOnlyStep = func(step string) error {
				got = append(got, step)
				// Before it has its name, the new note is there as a whole, and
				// the old one is still in place.
				if step == "rename" {
					tmp, err := os.ReadFile(f.path(testOrigin) + ".tmp")
					if err != nil || !bytes.Equal(tmp, notes[1]) {
						t.Errorf("about to rename %q, %v", tmp, err)
					}
					if now, err := f.Load(ctx, testOrigin); err != nil || !bytes.Equal(now, notes[0]) {
						t.Errorf("about to replace %q, %v", now, err)
					}
				}
				if step == fail {
					return errFault
				}
				return nil
			}
			if err := f.Swap(ctx, testOrigin, notes[0], notes[1]); !errors.Is(err, errFault) {
				t.Errorf("Swap = %v, want the fault", err)
			}
			if !slices.Equal(got, steps[:i+1]) {
				t.Errorf("made steps %q, want %q", got, steps[:i+1])
			}

			after := openFence(t, dir)
			now, err := after.Load(ctx, testOrigin)
			if err != nil || !bytes.Equal(now, notes[0]) && !bytes.Equal(now, notes[1]) {
				t.Errorf("left %q, %v", now, err)
			}
			if origins, err := after.Origins(ctx); err != nil || len(origins) != 1 {
				t.Errorf("left the origins %q, %v", origins, err)
			}
			if err := after.Swap(ctx, testOrigin, now, notes[2]); err != nil {
				t.Errorf("Swap afterwards: %v", err)
			}
			if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
				t.Errorf("left %v, %v, want the lock and the note", files, err)
			}
		})
	}
}

// Of all that swap the same note, by one fence or several in one directory, one wins.
func TestFileFenceConcurrently(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	const rounds, workers = 10, 8
	h := extend(nil, rounds, "honest")
	fences := []*FileFence{openFence(t, dir), openFence(t, dir), openFence(t, dir)}
	var old []byte
	for round := range rounds {
		var wins atomic.Int64
		var won atomic.Pointer[[]byte]
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				// Every worker has a note of its own.
				msg := signWith(t, testCheckpoint(extend(h[:round], 1, fmt.Sprint(w))), 0)
				err := fences[w%len(fences)].Swap(ctx, testOrigin, old, msg)
				if err == nil {
					wins.Add(1)
					won.Store(&msg)
				} else if !errors.Is(err, ErrFenceMoved) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if wins.Load() != 1 {
			t.Fatalf("%d swaps of one note, want 1", wins.Load())
		}
		old = *won.Load()
		if got, err := fences[0].Load(ctx, testOrigin); err != nil || !bytes.Equal(got, old) {
			t.Fatalf("Load = %q, %v, want %q", got, err, old)
		}
	}

	// Waiting for the lock ends with the context.
	unlock, err := fences[0].acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if err := fences[1].Swap(ctx, testOrigin, old, old); !errors.Is(err, context.Canceled) {
		t.Errorf("Swap = %v, want %v", err, context.Canceled)
	}
}

// A publisher over a real fence, across restarts.
func TestPublisherWithFileFence(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	w := newWorld(t)
	signer, verifier := testKey(t, 0)
	for range 3 {
		src := memSource{&process{world: w}}
		p := NewPublisher(fileFenced{src, openFence(t, dir)}, openFence(t, dir), []note.Signer{signer}, verifier)
		if err := p.Birth(ctx); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			w.grow(2)
			if c, err := p.Publish(ctx); err != nil || c != testCheckpoint(w.honest) {
				t.Fatalf("Publish = %v, %v", c, err)
			}
		}
	}
	if w.released != 18 || len(w.notes) != 10 {
		t.Errorf("released %d with %d checkpoints", w.released, len(w.notes))
	}
}

// fileFenced lets the world see what is in the files, to judge publications by it.
type fileFenced struct {
	memSource
	files *FileFence
}

func (s fileFenced) Publish(c Checkpoint, msg []byte) {
	fenced, err := s.files.Load(context.Background(), testOrigin)
	if err != nil {
		s.t.Error(err)
	}
	s.fenced = fenced
	s.memSource.Publish(c, msg)
}
