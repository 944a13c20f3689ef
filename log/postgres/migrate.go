package postgres

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

// errCancelled means that a step of the schema was begun and undone.
var errCancelled = errors.New("PostgreSQL cancelled a step and undid it: it took longer than statement_timeout, which is an hour unless the " +
	"database's URL sets it, or somebody cancelled it; run the same again, with more time: &statement_timeout=4h")

// Migration is a step of the schema.
type Migration struct {
	Version int64
	Name    string
	Applied bool
}

// Migrate brings the schema of a database to the version that this program works with, and returns the steps that it took. Two
// at a time wait for each other.
func Migrate(ctx context.Context, url string) ([]Migration, error) {
	var done []Migration
	err := withMigrator(ctx, url, func(m *goose.Provider) error {
		if err := refuseNewer(ctx, m); err != nil {
			return err
		}
		results, err := m.Up(ctx)
		for _, r := range results {
			done = append(done, Migration{r.Source.Version, r.Source.Path, true})
		}
		return err
	})
	return done, err
}

// MigrationStatus returns all steps of the schema, and which of them the database has taken.
func MigrationStatus(ctx context.Context, url string) ([]Migration, error) {
	var all []Migration
	err := withMigrator(ctx, url, func(m *goose.Provider) error {
		status, err := m.Status(ctx)
		for _, s := range status {
			all = append(all, Migration{s.Source.Version, s.Source.Path, s.State == goose.StateApplied})
		}
		return err
	})
	return all, err
}

func withMigrator(ctx context.Context, url string, fn func(*goose.Provider) error) error {
	connector, address, err := connect(url, checkTimeout, grace, false, func() {})
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	locker, err := lock.NewPostgresTableLocker()
	if err != nil {
		return err
	}
	m, err := migrator(db, goose.WithLocker(locker))
	if err == nil {
		err = checkEncoding(ctx, db)
	}
	if err == nil {
		err = fn(m)
	}
	if e := pq.As(err); e != nil && e.Code == pqerror.QueryCanceled {
		return fmt.Errorf("%s: %w: %w", address, errCancelled, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", address, describe(err))
	}
	return nil
}

func migrator(db *sql.DB, options ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, files, options...)
}

// checkVersion refuses a schema that isn't the one that this program works with, without changing it.
func checkVersion(ctx context.Context, db *sqlx.DB) error {
	if err := checkEncoding(ctx, db.DB); err != nil {
		return describe(err)
	}
	var there bool
	err := db.GetContext(ctx, &there, `SELECT to_regclass('goose_db_version') IS NOT NULL`)
	if err != nil {
		return describe(err)
	}
	if !there {
		return fmt.Errorf("%w: it has no schema yet; run: treeline migrate up", ErrSchema)
	}
	m, err := migrator(db.DB)
	if err != nil {
		return err
	}
	if err := refuseNewer(ctx, m); err != nil {
		return err
	}
	have, err := m.GetDBVersion(ctx)
	if err != nil {
		return describe(err)
	}
	if want := newest(m); have < want {
		return fmt.Errorf("%w: its schema is version %d, this program needs %d; run: treeline migrate up", ErrSchema, have, want)
	}
	return nil
}

// checkEncoding refuses a database that can't hold every text.
func checkEncoding(ctx context.Context, db *sql.DB) error {
	var encoding string
	err := db.QueryRowContext(ctx, `SHOW server_encoding`).Scan(&encoding)
	if err == nil && encoding != "UTF8" {
		err = fmt.Errorf("%w: its encoding is %s, want UTF8; make one with createdb --template=template0 --encoding=UTF8", ErrSchema, encoding)
	}
	return err
}

func refuseNewer(ctx context.Context, m *goose.Provider) error {
	have, err := m.GetDBVersion(ctx)
	if err != nil {
		return describe(err)
	}
	if known := newest(m); have > known {
		return fmt.Errorf("%w: its schema is version %d, this program knows up to %d: run a newer treeline", ErrSchema, have, known)
	}
	return nil
}

func newest(m *goose.Provider) int64 {
	sources := m.ListSources()
	return sources[len(sources)-1].Version
}
