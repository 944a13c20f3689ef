package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/sqlite"
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
	f.StringVar(&o.db, "db", "", "the store, sqlite:PATH or postgres://… (default sqlite:DATA-DIR/treeline.db)")
	f.StringVar(&o.seedFile, "seed-file", "", "file of the seed that all keys are derived from (default DATA-DIR/seed)")
	f.StringVar(&o.fence, "fence", "", "directory of the fence, best on another disk (default DATA-DIR/fence)")
}

// postgres reports whether the store is a PostgreSQL database; db is its URL then.
func (o storeOptions) postgres() bool {
	return strings.HasPrefix(o.db, "postgres://") || strings.HasPrefix(o.db, "postgresql://")
}

// dbPath returns the file of a SQLite store.
func (o storeOptions) dbPath() (string, error) {
	if o.db == "" {
		return filepath.Join(o.dataDir, "treeline.db"), nil
	}
	path, ok := strings.CutPrefix(o.db, "sqlite:")
	if !ok || path == "" {
		return "", errors.New("--db: want sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE") // which may hold a password
	}
	return path, nil
}

// openWriter opens the store for the only server, or one of the servers, that write to it. The options are for PostgreSQL, but for
// the logger.
func (o storeOptions) openWriter(ctx context.Context, pg postgres.Options) (log.Store, error) {
	if o.postgres() {
		pg.URL = o.db
		return opened(postgres.Open(ctx, pg))
	}
	path, err := o.dbPath()
	if err != nil {
		return nil, err
	}
	store, err := sqlite.Open(ctx, path)
	if errors.Is(err, sqlite.ErrLocked) {
		return nil, fmt.Errorf("%s is in use by another treeline serve; one server writes to a store at a time: stop that one, or "+
			"give this one its own --data-dir", path)
	}
	if err == nil && store.DamagedIndex() != "" {
		pg.Logger.Warn("the search index couldn't be used; it was put aside and is built anew", "aside", store.DamagedIndex())
	}
	return opened(store, err)
}

// opened returns a store, or nil and not a pointer that is.
func opened[S log.Store](store S, err error) (log.Store, error) {
	if err != nil {
		return nil, err
	}
	return store, nil
}

// openReader opens the store for reading, next to servers that may write to it.
func (o storeOptions) openReader(ctx context.Context) (log.Store, error) {
	if o.postgres() {
		return opened(postgres.OpenReadOnly(ctx, postgres.Options{URL: o.db, Unhurried: true}))
	}
	path, err := o.dbPath()
	if err != nil {
		return nil, err
	}
	store, err := sqlite.OpenReadOnly(ctx, path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, withHint(fmt.Errorf("there is no store at %s", path), "name it with --data-dir or --db")
	}
	return opened(store, err)
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
