package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// storeOptions are the flags that say where a store, its seed and its fence are.
type storeOptions struct {
	dataDir  string
	db       string
	seedFile string
	fence    string
}

func (o *storeOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.dataDir, "data-dir", "treeline-data", "directory of the store, the seed and the fence")
	f.StringVar(&o.db, "db", "", "the store, sqlite:PATH (default sqlite:DATA-DIR/treeline.db)")
	f.StringVar(&o.seedFile, "seed-file", "", "file of the seed that all keys are derived from (default DATA-DIR/seed)")
	f.StringVar(&o.fence, "fence", "", "directory of the fence, best on another disk (default DATA-DIR/fence)")
}

func (o storeOptions) dbPath() (string, error) {
	if o.db == "" {
		return filepath.Join(o.dataDir, "treeline.db"), nil
	}
	path, ok := strings.CutPrefix(o.db, "sqlite:")
	if !ok || path == "" {
		return "", fmt.Errorf("--db %q: want sqlite:PATH", o.db)
	}
	return path, nil
}

func (o storeOptions) seedPath() string {
	if o.seedFile != "" {
		return o.seedFile
	}
	return filepath.Join(o.dataDir, "seed")
}

func (o storeOptions) fencePath() string {
	if o.fence != "" {
		return o.fence
	}
	return filepath.Join(o.dataDir, "fence")
}
