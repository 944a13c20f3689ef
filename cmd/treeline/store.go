package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/checkpoint/pgfence"
	"github.com/treeline-log/treeline/checkpoint/s3fence"
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

	// singleServer says that no other server uses the database, so that a directory of this one will do as the fence.
	singleServer bool
}

func (o *storeOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.dataDir, "data-dir", "treeline-data", "directory of the store, the seed and the fence")
	f.StringVar(&o.db, "db", "", "the store, sqlite:PATH or postgres://… (default sqlite:DATA-DIR/treeline.db)")
	f.StringVar(&o.seedFile, "seed-file", "", "file of the seed that all keys are derived from (default DATA-DIR/seed)")
	f.StringVar(&o.fence, "fence", "",
		"the fence: a directory, best on another disk, s3://BUCKET/PREFIX, or postgres://… of another cluster (default DATA-DIR/fence)")
	f.BoolVar(&o.singleServer, "single-server", false, "only this one server uses the database, so the fence may be a directory")
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
	if o.onPostgres() {
		pg.URL = o.db
		return opened(postgres.Open(ctx, pg))
	}
	path, err := o.dbPath()
	if err != nil {
		return nil, err
	}
	store, err := sqlite.Open(ctx, path)
	if errors.Is(err, sqlite.ErrLocked) {
		return nil, &inUseError{path}
	}
	if err == nil && store.DamagedIndex() != "" {
		pg.Logger.Warn("the search index couldn't be used; it was put aside and is built anew", "aside", store.DamagedIndex())
	}
	return opened(store, err)
}

// inUseError is sqlite.ErrLocked for people.
type inUseError struct{ path string }

func (e *inUseError) Error() string {
	return e.path + " is in use by another treeline serve; one server writes to a store at a time: stop that one, or give this one " +
		"its own --data-dir"
}

func (e *inUseError) Unwrap() error { return sqlite.ErrLocked }

// opened returns a store, or nil and not a pointer that is.
func opened[S log.Store](store S, err error) (log.Store, error) {
	if err != nil {
		return nil, err
	}
	return store, nil
}

// openReader opens the store for reading, next to servers that may write to it.
func (o storeOptions) openReader(ctx context.Context) (log.Store, error) {
	if o.onPostgres() {
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

// A fence is a checkpoint.Fence of any kind, opened.
type fence interface {
	checkpoint.Fence
	io.Closer
}

// openFence opens the fence that --fence names. A directory, an object and a table are made if they aren't there; a bucket and a
// database are not.
func (o storeOptions) openFence(ctx context.Context) (fence, error) {
	kind, _, isURL := strings.Cut(o.fence, "://")
	switch {
	case !isURL:
		if err := o.mayKeepDirectory(); err != nil {
			return nil, err
		}
		return openedFence(checkpoint.OpenFileFence(o.fencePath()))
	case kind == "s3":
		return openedFence(s3fence.Open(ctx, o.fence))
	case kind == "postgres" || kind == "postgresql":
		var system string
		if o.onPostgres() {
			var err error
			if system, err = pgfence.SystemIdentifier(ctx, o.db); err != nil {
				return nil, fmt.Errorf("--db: %w", err)
			}
		}
		return openedFence(pgfence.Open(ctx, o.fence, system))
	}
	return nil, fmt.Errorf("--fence %s://…: want a directory, s3://BUCKET/PREFIX or postgres://USER@HOST/DATABASE", kind)
}

// openedFence returns a fence, or nil and not a pointer that is.
func openedFence[F fence](f F, err error) (fence, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// readFence opens the fence that is there already. It returns nil if there is none in the directory that is the default.
func (o storeOptions) readFence(ctx context.Context) (fence, error) {
	if !strings.Contains(o.fence, "://") {
		if err := o.mayKeepDirectory(); err != nil {
			return nil, err
		}
		if _, err := os.Stat(o.fencePath()); errors.Is(err, os.ErrNotExist) {
			if o.fence != "" {
				return nil, fmt.Errorf("there is no fence at %s", o.fence)
			}
			return nil, nil
		}
	}
	return o.openFence(ctx)
}

// mayKeepDirectory refuses a directory as the fence of a database that other servers may use: each would have a fence of its own,
// and none would know what the others have signed.
func (o storeOptions) mayKeepDirectory() error {
	if !o.onPostgres() || o.singleServer {
		return nil
	}
	return withHint(errors.New("the store is in PostgreSQL, which several servers may use, so they must share a fence outside of it"),
		"give --fence s3://BUCKET/PREFIX, or --fence postgres://USER@HOST/DATABASE in another cluster, or, if this is the only server "+
			"there will be, --single-server")
}

// onPostgres reports whether the store is in a PostgreSQL database.
func (o storeOptions) onPostgres() bool {
	return strings.HasPrefix(o.db, "postgres://") || strings.HasPrefix(o.db, "postgresql://")
}

// fencePath returns the path of a fence that is a directory.
func (o storeOptions) fencePath() string {
	if o.fence != "" {
		return o.fence
	}
	return filepath.Join(o.dataDir, "fence")
}
