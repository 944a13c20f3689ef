package sqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/witness"
)

// ErrLocked means that another witness has the file open.
var ErrLocked = errors.New("another witness has it open")

const updateHead = `
	UPDATE witness_logs SET size = ?, root = ?, cosigned_at = ?, note = ? WHERE origin = ? AND size = ? AND root = ? AND cosigned_at = ?`

// sqliteFile is a dialect. It remembers heads where it is the only one that moves any, which its lock makes sure of; a command
// beside it adds keys only. What is remembered saves reading, and no more: a head is moved on the condition that its row says the
// same.
type sqliteFile struct {
	lock *flock.Flock // nil beside a server: nothing is remembered then
	stmt *sqlx.Stmt   // updateHead, on the writing connection

	mu    sync.Mutex
	known map[string]witness.Head
}

// OpenSQLite opens the state in the file at path for the witness, and makes it if there is none. The error wraps ErrLocked if
// another one runs on it.
func OpenSQLite(ctx context.Context, path string) (*DB, error) {
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	return openSQLite(ctx, path, lock)
}

// OpenSQLiteBeside opens the state for a command that looks at it or adds keys, whether or not a witness runs on it.
func OpenSQLiteBeside(ctx context.Context, path string) (*DB, error) {
	return openSQLite(ctx, path, nil)
}

func openSQLite(ctx context.Context, path string, lock *flock.Flock) (*DB, error) {
	file := &sqliteFile{lock: lock, known: make(map[string]witness.Head)}
	db := &DB{dialect: file, embedded: true}
	if err := file.open(ctx, db, path); err != nil {
		db.Close()
		return nil, fmt.Errorf("opening %s: %w", path, file.describe(err))
	}
	return db, nil
}

func (f *sqliteFile) open(ctx context.Context, db *DB, path string) error {
	// Made here, so that nobody else can read it in between; SQLite gives its companions (-wal, -shm) the same mode.
	created, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := created.Close(); err != nil {
		return err
	}
	// One connection writes, so that transactions queue here.
	if db.write, err = connectSQLite(path, 1, "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(ON)"); err != nil {
		return err
	}
	m, err := migrator(db.write.DB, goose.DialectSQLite3, "sqlite", goose.WithLocker(newMigrationLock(path)))
	if err != nil {
		return err
	}
	if err := migrate(ctx, m); err != nil {
		return err
	}
	if err := checkpoint.SyncDir(filepath.Dir(path)); err != nil { // the file's name must survive a crash as its content does
		return err
	}
	if db.read, err = connectSQLite(path, 4, "query_only(ON)"); err != nil {
		return err
	}
	f.stmt, err = db.write.PreparexContext(ctx, updateHead)
	return err
}

// migrationLock is a goose lock.Locker: one process at a time looks at the schema of a file, and changes it. Commands may be run
// while the witness starts for the first time, or before it.
type migrationLock struct{ file *flock.Flock }

func newMigrationLock(path string) migrationLock {
	return migrationLock{flock.New(path+".migrating", flock.SetPermissions(0o600))}
}

func (l migrationLock) Lock(ctx context.Context, _ *sql.DB) error {
	if _, err := l.file.TryLockContext(ctx, 10*time.Millisecond); err != nil {
		return fmt.Errorf("locking %s: %w", l.file.Path(), err)
	}
	return nil
}

func (l migrationLock) Unlock(context.Context, *sql.DB) error { return l.file.Unlock() }

func connectSQLite(path string, conns int, pragmas ...string) (*sqlx.DB, error) {
	q := url.Values{"mode": {"rw"}, "_pragma": append(pragmas, "busy_timeout(10000)"), "_txlock": {"immediate"}}
	dsn := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sqlx.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	if err := db.Ping(); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}

func (f *sqliteFile) heads(ctx context.Context, db *DB, origins []string) (map[string]witness.Head, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	heads := make(map[string]witness.Head, len(origins))
	for _, origin := range origins {
		h, ok := f.known[origin]
		if !ok {
			var row headRow
			err := db.read.GetContext(ctx, &row, selectHead, origin)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if h, err = row.head(); err != nil {
				return nil, err
			}
			if f.lock != nil {
				f.known[origin] = h
			}
		}
		heads[origin] = h
	}
	return heads, nil
}

func (f *sqliteFile) move(ctx context.Context, tx *sqlx.Tx, before map[string]witness.Head, moves []witness.Move) (moved int64, err error) {
	stmt := f.stmt
	if tx != nil {
		stmt = tx.StmtxContext(ctx, f.stmt)
	}
	for _, m := range moves {
		old := before[m.Head.Origin]
		res, err := stmt.ExecContext(ctx, int64(m.Head.Size), m.Head.Root[:], m.Head.At, m.Note, m.Head.Origin, int64(old.Size), old.Root[:], old.At)
		if err != nil {
			return 0, err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return 0, err
		}
		moved += n
	}
	return moved, nil
}

// done remembers heads that are durable, and forgets what is in doubt.
func (f *sqliteFile) done(moves []witness.Move, origins []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		for _, origin := range origins {
			delete(f.known, origin)
		}
		return
	}
	for _, m := range moves {
		if f.lock != nil {
			f.known[m.Head.Origin] = m.Head
		}
	}
}

func (f *sqliteFile) lockKeys(context.Context, *sqlx.Tx) error { return nil } // a transaction has the whole file

func (f *sqliteFile) describe(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("the file is damaged, or no state of a witness: %w", err)
		case sqlite3.SQLITE_FULL:
			return fmt.Errorf("the disk is full: %w", err)
		}
	}
	return err
}

func (f *sqliteFile) close() error {
	if f.lock == nil {
		return nil
	}
	return f.lock.Unlock()
}
