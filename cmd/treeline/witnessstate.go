package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/treeline-log/treeline/witness/sqlstate"
)

// witnessState are the flags that say where a witness's state and seed are.
type witnessState struct {
	dataDir  string
	db       string
	seedFile string
}

func (o *witnessState) register(f *pflag.FlagSet) {
	f.StringVar(&o.dataDir, "data-dir", "treeline-witness", "directory of the witness's state and seed")
	f.StringVar(&o.db, "db", "", "the state, sqlite:PATH or postgres://… (default sqlite:DATA-DIR/witness.db)")
}

func (o *witnessState) registerSeed(f *pflag.FlagSet) {
	f.StringVar(&o.seedFile, "seed-file", "", "file of the seed that the witness's keys are derived from (default DATA-DIR/seed)")
}

func (o witnessState) seedPath() string {
	if o.seedFile != "" {
		return o.seedFile
	}
	return filepath.Join(o.dataDir, "seed")
}

// open opens the state for the witness that runs on it.
func (o witnessState) open(ctx context.Context) (*sqlstate.DB, error) {
	if err := makeDataDir(o.dataDir); err != nil { // for the seed, also where the state is elsewhere
		return nil, err
	}
	path, url, err := o.place()
	if err != nil {
		return nil, err
	}
	if url != "" {
		return sqlstate.OpenPostgres(ctx, url)
	}
	state, err := sqlstate.OpenSQLite(ctx, path)
	if errors.Is(err, sqlstate.ErrLocked) {
		return nil, withHint(fmt.Errorf("%s is in use by another treeline witness", path),
			"stop that one, or give this one its own --data-dir")
	}
	return state, err
}

// openBeside opens the state for a command, whether or not a witness runs on it. A command that adds to it may be the first to do so.
func (o witnessState) openBeside(ctx context.Context, create bool) (*sqlstate.DB, error) {
	path, url, err := o.place()
	if err != nil {
		return nil, err
	}
	if url != "" {
		return sqlstate.OpenPostgres(ctx, url)
	}
	if !create {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil, withHint(fmt.Errorf("there is no state of a witness at %s", path), "name it with --data-dir or --db")
		}
	} else if err := makeDataDir(o.dataDir); err != nil {
		return nil, err
	}
	return sqlstate.OpenSQLiteBeside(ctx, path)
}

// place returns the file of the state, or the URL of its database.
func (o witnessState) place() (path, url string, err error) {
	switch {
	case o.db == "":
		return filepath.Join(o.dataDir, "witness.db"), "", nil
	case strings.HasPrefix(o.db, "postgres://") || strings.HasPrefix(o.db, "postgresql://"):
		return "", o.db, nil
	}
	path, ok := strings.CutPrefix(o.db, "sqlite:")
	if !ok || path == "" {
		return "", "", errors.New("--db: want sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE") // which may hold a password
	}
	return path, "", nil
}
