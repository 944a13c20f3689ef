package checkpoint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/checkpoint/fencetest"
)

func TestFileFence(t *testing.T) {
	fencetest.Run(t, func(t *testing.T) fencetest.Place { return directory(t.TempDir()) })
}

type directory string

func (d directory) Open(t *testing.T) checkpoint.Fence {
	t.Helper()
	f, err := checkpoint.OpenFileFence(string(d))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (d directory) Put(t *testing.T, origin string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(string(d), checkpoint.FenceName(origin)), content, 0o600); err != nil {
		t.Fatal(err)
	}
}
