// Package sqlite keeps logs in one SQLite file: the embedded store, for one server.
//
// There are two pools of connections: one connection that writes, so that transactions queue in this process and never
// meet SQLITE_BUSY, and several that read, which in WAL mode wait for nobody. Every commit is synced to disk before it
// returns (synchronous=FULL). The file is locked for one process; a second one that would write is refused, while readers
// such as fsck may look on. The search index is in a file of its own (see searchIndex), so that appends neither wait for it nor
// pay for it.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/gofrs/flock"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/treeline-log/treeline/log"
)

//go:embed migrations/*.sql searchmigrations/*.sql
var migrations embed.FS

var errReadOnly = errors.New("the store was opened for reading")

// ErrLocked means that another process has the store open for writing.
var ErrLocked = errors.New("another process has it open")

// Store is a log.Store in a SQLite file.
type Store struct {
	path  string
	lock  *flock.Flock // nil when read-only
	write *sqlx.DB     // one connection; nil when read-only
	read  *sqlx.DB
	stmts statements
	index searchIndex

	guards    guards
	shredding sync.Mutex
	scrubbed  scrub

	testingOnlyFault func(step string) error // that a step of removing contents ends with, as if the process ended there
}

var _ log.Store = (*Store)(nil)

// Open opens the store at path for writing, and makes it if there is none.
func Open(ctx context.Context, path string) (*Store, error) {
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	s := &Store{path: path, lock: lock}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	// Made here, so that nobody else can read it in between; SQLite gives its companions (-wal, -shm) the same mode.
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if s.write, err = connect(s.path, "rw", 1, append(writerPragmas, pragmas...)); err != nil {
		return err
	}
	if err := migrate(ctx, s.write.DB, "migrations"); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(s.path)); err != nil { // the file's name must survive a crash as its content does
		return err
	}
	if err := s.openReaders("rw"); err != nil { // the writer's companions: the last to close folds the WAL in
		return err
	}
	if err := s.stmts.prepare(ctx, s.write, s.read); err != nil {
		return err
	}
	return s.index.open(ctx, indexPath(s.path))
}

// OpenReadOnly opens the store at path for reading, next to a server that may be writing to it. What would write fails.
func OpenReadOnly(ctx context.Context, path string) (*Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	s := &Store{path: path}
	err := s.openReaders("ro")
	if err == nil {
		err = checkVersion(ctx, s.read.DB, "migrations", "heads")
	}
	if err == nil {
		err = s.stmts.prepare(ctx, nil, s.read)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	s.index.openReadOnly(ctx, indexPath(path))
	return s, nil
}

func (s *Store) openReaders(mode string) (err error) {
	s.read, err = connect(s.path, mode, max(4, runtime.NumCPU()), append([]string{"query_only(ON)"}, pragmas...))
	return err
}

var (
	pragmas = []string{
		"busy_timeout(10000)",
		"cache_size(-16384)", // KiB, a connection
	}
	// In this order: the first two count only before the file has a page, and later would cost a full VACUUM.
	writerPragmas = []string{
		"auto_vacuum(INCREMENTAL)", // purged space can be given back
		"secure_delete(ON)",        // what is deleted is overwritten
		"journal_mode(WAL)",
		"synchronous(FULL)", // a commit is on disk when it returns
		"foreign_keys(ON)",
		"wal_autocheckpoint(4000)", // pages
	}
)

func connect(path, mode string, conns int, pragmas []string) (*sqlx.DB, error) {
	q := url.Values{"mode": {mode}, "_pragma": pragmas, "_txlock": {"immediate"}}
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sqlx.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if err := db.Ping(); err != nil {
		db.Close()
		return nil, describe(err)
	}
	return db, nil
}

func migrator(db *sql.DB, dir string) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, dir)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, db, files)
}

// migrate brings a file to the newest schema of a directory of migrations.
func migrate(ctx context.Context, db *sql.DB, dir string) error {
	m, err := migrator(db, dir)
	if err != nil {
		return err
	}
	if err := refuseNewer(ctx, m); err != nil {
		return err
	}
	_, err = m.Up(ctx)
	return err
}

// checkVersion refuses a schema that isn't the one that this program works with, without changing it. Whatever the version, it
// has the table.
func checkVersion(ctx context.Context, db *sql.DB, dir, table string) error {
	var there bool
	err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?)`, table).Scan(&there)
	if err != nil {
		return describe(err)
	}
	if !there {
		return errors.New("it isn't a treeline store, or no server has opened it yet")
	}
	m, err := migrator(db, dir)
	if err != nil {
		return err
	}
	if err := refuseNewer(ctx, m); err != nil {
		return err
	}
	if older, err := m.HasPending(ctx); err != nil {
		return describe(err)
	} else if older {
		return errors.New("its schema is an older version: start a server on it, or on a copy, which brings it up")
	}
	return nil
}

var errNewer = errors.New("run a newer treeline")

func refuseNewer(ctx context.Context, m *goose.Provider) error {
	have, err := m.GetDBVersion(ctx)
	if err != nil {
		return describe(err)
	}
	sources := m.ListSources()
	if known := sources[len(sources)-1].Version; have > known {
		return fmt.Errorf("its schema is version %d, this program knows up to %d: %w", have, known, errNewer)
	}
	return nil
}

// describe names the errors of SQLite that an operator can do something about.
func describe(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("%w: %w", err, log.ErrDamaged)
		case sqlite3.SQLITE_CONSTRAINT:
			return fmt.Errorf("a row is there that shouldn't be: %w: %w", err, log.ErrDamaged)
		case sqlite3.SQLITE_FULL:
			return fmt.Errorf("the disk is full: %w", err)
		}
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// fault ends a step of removing contents, for tests.
func (s *Store) fault(step string) error {
	if s.testingOnlyFault == nil {
		return nil
	}
	return s.testingOnlyFault(step)
}

// Ping reports whether the store answers.
func (s *Store) Ping(ctx context.Context) error {
	return s.read.GetContext(ctx, new(int), `SELECT 1`)
}

// Incarnation is always the same: nothing takes the place of a file that is open.
func (s *Store) Incarnation(context.Context) (string, error) { return "", nil }

// Close closes the file and lets go of its lock.
func (s *Store) Close() error {
	var errs []error
	s.stmts.close()
	errs = append(errs, s.index.close())
	for _, db := range []*sqlx.DB{s.read, s.write} { // the writer last: it truncates the WAL
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	return errors.Join(errs...)
}
