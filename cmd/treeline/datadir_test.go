package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A data directory is made with those that it is in, and one that is there is left as it is.
func TestMakeDataDir(t *testing.T) {
	parent := t.TempDir()
	for _, dir := range []string{"a", "b/c/d", "b/c/d/", "b/e"} {
		dir = filepath.Join(parent, dir)
		for range 2 {
			if err := makeDataDir(dir); err != nil {
				t.Fatal(err)
			}
		}
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: got %v, %v, want 0700", dir, fi, err)
		}
	}
	t.Chdir(parent)
	if err := makeDataDir("here"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := makeDataDir("file/in"); err == nil {
		t.Error("a directory was made in a file")
	}
}
