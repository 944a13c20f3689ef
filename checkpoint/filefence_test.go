package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
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

// Who looks into the directory finds the notes as they are, and nobody else can.
func TestFileFenceFiles(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "fence")
	f := openFence(t, dir)
	note := testNotes(t, 1)[0]
	if err := f.Swap(ctx, testOrigin, nil, note); err != nil {
		t.Fatal(err)
	}
	// SHA-256 of the origin.
	const name = "8f0d302bcdc467d3232b7366b73d21b3c0717df9c84f2f72b2f06634acf3eab8"
	if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(data, note) {
		t.Errorf("the file has %q, %v", data, err)
	}
	for path, mode := range map[string]fs.FileMode{dir: fs.ModeDir | 0o700, f.path(testOrigin): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, mode)
		}
	}
}

// A fence that is not there is not an empty one.
func TestFileFenceIsGone(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "fence")
	f := openFence(t, dir)
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

// Waiting for the lock ends with the context.
func TestFileFenceIsLocked(t *testing.T) {
	dir := t.TempDir()
	note := testNotes(t, 1)[0]
	unlock, err := openFence(t, dir).acquire(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := openFence(t, dir).Swap(ctx, testOrigin, nil, note); !errors.Is(err, context.Canceled) {
		t.Errorf("Swap = %v, want %v", err, context.Canceled)
	}
}
