package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestSeedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed")
	if _, err := LoadSeed(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadSeed without a file: %v", err)
	}
	seed, err := CreateSeed(path)
	if err != nil {
		t.Fatal(err)
	}
	if seed == (Seed{}) {
		t.Error("the seed is zero")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}
	data, err := os.ReadFile(path)
	if want := fmt.Sprintf("treeline-seed-v1 %x\n", seed[:]); err != nil || string(data) != want || len(data) != 82 {
		t.Errorf("the file is %q, %v", data, err)
	}
	got, err := LoadSeed(path)
	if err != nil || got != seed {
		t.Errorf("LoadSeed = %v, want what was created", err)
	}

	// It is never replaced, and nothing else is left behind.
	if other, err := CreateSeed(path); !errors.Is(err, fs.ErrExist) || other != (Seed{}) {
		t.Errorf("CreateSeed again: %v", err)
	}
	if got, err := LoadSeed(path); err != nil || got != seed {
		t.Errorf("LoadSeed afterwards: %v", err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("the directory has %v, %v", files, err)
	}
	if _, err := CreateSeed(filepath.Join(path, "seed")); err == nil {
		t.Error("created a seed below a file")
	}
}

func TestSeedFileIsForItsOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed")
	seed, err := CreateSeed(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSeed(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: got %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadSeed(path); err != nil || got != seed {
		t.Errorf("mode 0400: %v", err)
	}
	if _, err := LoadSeed(filepath.Dir(path)); err == nil {
		t.Error("loaded a directory")
	}
}

func TestMalformedSeedFiles(t *testing.T) {
	digits := strings.Repeat("0a", 32)
	for _, text := range []string{
		"", "\n", "treeline-seed-v1 \n", digits + "\n",
		"treeline-seed-v1 " + digits,
		"treeline-seed-v1 " + digits + "\n\n",
		"treeline-seed-v1 " + digits + "\r\n",
		"treeline-seed-v1  " + digits + "\n",
		"treeline-seed-v1 " + strings.ToUpper(digits) + "\n",
		"treeline-seed-v1 " + digits[:62] + "\n",
		"treeline-seed-v1 " + digits + "0a\n",
		"treeline-seed-v1 " + digits[:63] + "g\n",
		"treeline-seed-v2 " + digits + "\n",
		"treeline-seed-v1 treeline-seed-v1 " + digits + "\n",
	} {
		path := filepath.Join(t.TempDir(), "seed")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadSeed(path)
		if err == nil {
			t.Errorf("%q: accepted", text)
		} else if strings.Contains(strings.ToLower(err.Error()), digits[:8]) {
			t.Errorf("%q: the error shows it: %v", text, err)
		}
	}
}

// Of several processes that start at once, one makes the seed and it stays that one's.
func TestCreateSeedConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed")
	seeds := make([]Seed, 8)
	var wg sync.WaitGroup
	for i := range seeds {
		wg.Go(func() {
			seed, err := CreateSeed(path)
			if err != nil && !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
			seeds[i] = seed
		})
	}
	wg.Wait()
	got, err := LoadSeed(path)
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, seed := range seeds {
		if seed != (Seed{}) {
			made++
			if seed != got {
				t.Error("CreateSeed returned a seed that isn't in the file")
			}
		}
	}
	if made != 1 {
		t.Errorf("%d seeds were made, want 1", made)
	}
}
