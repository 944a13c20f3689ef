package sqlstate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/treeline-log/treeline/witness"
)

// Limits of what is waited for. They hold unless the URL sets the parameter of that name.
const (
	connectTimeout   = 10 * time.Second
	statementTimeout = 20 * time.Second
	idleTimeout      = 30 * time.Second // of an open transaction: a witness that vanished must not keep its locks

	// How often, and how many times, the lock on the schema is tried: for longer than the half minute for which one that vanished
	// keeps it.
	migrationPause, migrationAttempts = 100 * time.Millisecond, 600
)

const (
	selectHeadsOf = `
		SELECT origin, size, root, cosigned_at FROM witness_logs WHERE origin = ANY ($1)`
	// In the order of origins, so that two witnesses queue and never deadlock. The settings are the same in all rows.
	lockHeads = `
		SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
		       current_setting('synchronous_commit') AS synchronous_commit
		FROM witness_logs WHERE origin = ANY ($1) ORDER BY origin FOR NO KEY UPDATE`
	updateHeads = `
		UPDATE witness_logs l SET size = m.size, root = m.root, cosigned_at = m.at, note = m.note
		FROM unnest($1::TEXT[], $2::BIGINT[], $3::BYTEA[], $4::BIGINT[], $5::BIGINT[], $6::BYTEA[], $7::BIGINT[], $8::BYTEA[])
		     AS m (origin, old_size, old_root, old_at, size, root, at, note)
		WHERE l.origin = m.origin AND l.size = m.old_size AND l.root = m.old_root AND l.cosigned_at = m.old_at`
	lockKeyTable = `
		LOCK TABLE witness_keys IN SHARE ROW EXCLUSIVE MODE`
	selectSettings = `
		SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
		       current_setting('synchronous_commit') AS synchronous_commit, pg_is_in_recovery() AS standby`
)

// ErrUnreachable means that PostgreSQL doesn't answer, refuses, has no time or room, or is a standby. It may pass.
var ErrUnreachable = errors.New("PostgreSQL can't be reached")

// settings are those by which a server may lose what it has committed.
type settings struct {
	Fsync             string
	FullPageWrites    string `db:"full_page_writes"`
	SynchronousCommit string `db:"synchronous_commit"`
}

// check returns an error if the server may.
func (s settings) check() error {
	if s.Fsync == "off" || s.FullPageWrites == "off" || s.SynchronousCommit == "off" {
		return fmt.Errorf("the server may lose what it has committed: fsync is %s, full_page_writes is %s, synchronous_commit is %s; none "+
			"may be off", s.Fsync, s.FullPageWrites, s.SynchronousCommit)
	}
	return nil
}

// database is a dialect. It remembers nothing, since other witnesses may be at the same rows.
type database struct{}

// OpenPostgres opens the state in a PostgreSQL database, and makes or updates its tables.
func OpenPostgres(ctx context.Context, url string) (*DB, error) {
	c, err := pq.NewConfig(url)
	if err != nil { // which may quote the password
		return nil, errors.New("the database's URL can't be read: want postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full")
	}
	address := fmt.Sprintf("database %s at %s, user %s", c.Database, net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), c.User)
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.ApplicationName == "" {
		c.ApplicationName = "treeline witness"
	}
	if c.Runtime == nil {
		c.Runtime = make(map[string]string)
	}
	for name, value := range map[string]string{
		"statement_timeout":                   strconv.FormatInt(statementTimeout.Milliseconds(), 10),
		"idle_in_transaction_session_timeout": strconv.FormatInt(idleTimeout.Milliseconds(), 10),
		// At this level a statement that has waited for a row looks at it again. At others it fails.
		"default_transaction_isolation": "read committed",
	} {
		if _, set := c.Runtime[name]; !set {
			c.Runtime[name] = value
		}
	}
	connector, err := pq.NewConnectorConfig(c)
	if err != nil {
		return nil, fmt.Errorf("the database's URL: %w", err)
	}
	pool := sqlx.NewDb(sql.OpenDB(connector), "postgres")
	pool.SetMaxOpenConns(8)
	pool.SetMaxIdleConns(8)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	db := &DB{dialect: database{}, write: pool, read: pool}
	if err := db.openPostgres(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w", address, db.describe(err))
	}
	return db, nil
}

func (db *DB) openPostgres(ctx context.Context) error {
	var is struct {
		settings
		Standby bool
	}
	if err := db.write.GetContext(ctx, &is, selectSettings); err != nil {
		return err
	}
	if is.Standby {
		return fmt.Errorf("%w: the server is a standby, which can't be written to", ErrUnreachable)
	}
	if err := is.check(); err != nil {
		return err
	}
	locker, err := lock.NewPostgresTableLocker(lock.WithTableLockTimeout(migrationPause, migrationAttempts))
	if err != nil {
		return err
	}
	m, err := migrator(db.write.DB, goose.DialectPostgres, "postgres", goose.WithLocker(locker))
	if err != nil {
		return err
	}
	return migrate(ctx, m)
}

func (database) heads(ctx context.Context, db *DB, origins []string) (map[string]witness.Head, error) {
	var rows []headRow
	if err := db.read.SelectContext(ctx, &rows, selectHeadsOf, pq.Array(origins)); err != nil {
		return nil, err
	}
	heads := make(map[string]witness.Head, len(rows))
	for _, r := range rows {
		h, err := r.head()
		if err != nil {
			return nil, err
		}
		heads[h.Origin] = h
	}
	return heads, nil
}

func (database) move(ctx context.Context, tx *sqlx.Tx, before map[string]witness.Head, moves []witness.Move) (int64, error) {
	if len(moves) == 0 {
		return 0, nil
	}
	n := len(moves)
	origins, notes := make([]string, n), make([][]byte, n)
	oldSizes, oldRoots, oldTimes := make([]int64, n), make([][]byte, n), make([]int64, n)
	sizes, roots, times := make([]int64, n), make([][]byte, n), make([]int64, n)
	for i, m := range moves {
		old := before[m.Head.Origin]
		origins[i], notes[i] = m.Head.Origin, m.Note
		oldSizes[i], oldRoots[i], oldTimes[i] = int64(old.Size), old.Root[:], old.At
		sizes[i], roots[i], times[i] = int64(m.Head.Size), m.Head.Root[:], m.Head.At
	}
	// Here, since they may have changed since the state was opened: the server was started again, or another one has taken its place.
	var is []settings
	if err := tx.SelectContext(ctx, &is, lockHeads, pq.Array(origins)); err != nil {
		return 0, err
	}
	for _, s := range is {
		if err := s.check(); err != nil {
			return 0, err
		}
	}
	res, err := tx.ExecContext(ctx, updateHeads, pq.Array(origins), pq.Array(oldSizes), pq.Array(oldRoots), pq.Array(oldTimes),
		pq.Array(sizes), pq.Array(roots), pq.Array(times), pq.Array(notes))
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (database) done([]witness.Move, []string, error) {}

// lockKeys makes sure that a key which becomes visible later has a greater number.
func (database) lockKeys(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, lockKeyTable)
	return err
}

func (database) describe(err error) error {
	if e := pq.As(err); e != nil {
		switch e.Code.Class() {
		case "08", "28", "3D", "53", "57": // connection; user or password; no such database; no room; shutdown, start-up, a timeout
			return fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		if e.Code == pqerror.TRSerializationFailure || e.Code == pqerror.TRDeadlockDetected {
			return fmt.Errorf("%w: %w", witness.ErrMoved, err) // rolled back for the sake of another transaction
		}
		return err
	}
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return err
}

func (database) close() error { return nil }
