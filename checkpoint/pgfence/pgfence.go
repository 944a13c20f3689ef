// Package pgfence keeps a fence in a PostgreSQL database, for several Treeline servers that use another one as their store.
//
// It has to be another cluster than the store's: what sets the one back, a restore or a failover, must not take the other along.
// There is one row for each log, and each change is one statement with a condition on what the row holds. PostgreSQL serialises
// them by the row's lock, and a commit is on disk when it returns.
//
// A statement that changes something is never tried again by itself. If its answer was lost, the second try would meet the note
// that the first has put there, and look like somebody else's move. Whoever gets the error reads again.
package pgfence

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/treeline-log/treeline/checkpoint"
)

// patience is how long one call may take. It is about a row of a few hundred bytes: a server that needs longer is as good as none.
const patience = 5 * time.Second

const (
	selectFacts = `
		SELECT
			system_identifier::TEXT AS system,
			current_setting('fsync') AS fsync,
			current_setting('full_page_writes') AS full_page_writes,
			current_setting('synchronous_commit') AS synchronous_commit,
			pg_is_in_recovery() AS standby
		FROM pg_control_system()`

	// lockTable lets one server at a time make the table. The number is an arbitrary one, the same for all.
	lockTable   = `SELECT pg_advisory_xact_lock(8389187293518362211)`
	selectTable = `SELECT to_regclass('fences') IS NOT NULL`
	// The order of origins is that of their bytes, and not of any language.
	createTable = `CREATE TABLE IF NOT EXISTS fences (origin TEXT COLLATE "C" PRIMARY KEY, note BYTEA NOT NULL)`

	selectNote  = `SELECT note FROM fences WHERE origin = $1`
	selectNotes = `SELECT origin, note FROM fences ORDER BY origin`
	insertNote  = `INSERT INTO fences (origin, note) VALUES ($1, $2) ON CONFLICT (origin) DO NOTHING`
	updateNote  = `UPDATE fences SET note = $3 WHERE origin = $1 AND note = $2`
	deleteNote  = `DELETE FROM fences WHERE origin = $1`
)

// A Fence is a [checkpoint.Fence] in a table of a database.
type Fence struct {
	db    *sqlx.DB
	place string
}

var _ checkpoint.Fence = (*Fence)(nil)

// facts are what a server must be asked before it is trusted with a fence.
type facts struct {
	System            string `db:"system"`
	Fsync             string `db:"fsync"`
	FullPageWrites    string `db:"full_page_writes"`
	SynchronousCommit string `db:"synchronous_commit"`
	Standby           bool   `db:"standby"`
}

// Open opens the fence in the database at a URL, postgres://USER@HOST/DATABASE, which is the fence's own: it has a table
// "fences", which is made if it isn't there. The password may be in the URL, in $PGPASSWORD or in the file of $PGPASSFILE.
//
// Refused are the cluster that has the given system identifier, which is that of the store (see [SystemIdentifier]; empty if the
// store isn't in PostgreSQL), a standby, and a server that doesn't keep what it has committed.
func Open(ctx context.Context, rawURL, storeSystem string) (*Fence, error) {
	db, place, err := connect(rawURL)
	if err != nil {
		return nil, fmt.Errorf("opening fence: %w", err)
	}
	f := &Fence{db, place}
	if err := f.open(ctx, storeSystem); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening fence at %s: %w", place, err)
	}
	return f, nil
}

func (f *Fence) open(ctx context.Context, storeSystem string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var is facts
	if err := f.db.GetContext(ctx, &is, selectFacts); err != nil {
		return err
	}
	switch {
	case is.System == storeSystem:
		return fmt.Errorf("it is in the cluster of the store, or in a copy of it (system identifier %s): what sets the store back would "+
			"take the fence along; give it a cluster of its own", is.System)
	case is.Standby:
		return errors.New("the server is a standby, which can't be written to")
	case is.Fsync != "on" || is.FullPageWrites != "on" || is.SynchronousCommit == "off":
		return fmt.Errorf("the server may lose what it has committed: fsync is %s, full_page_writes is %s, synchronous_commit is %s; "+
			"none may be off", is.Fsync, is.FullPageWrites, is.SynchronousCommit)
	}
	return f.makeTable(ctx)
}

// makeTable makes the table if it isn't there. That is looked at first, since a server that finds it needs no right to make one.
func (f *Fence) makeTable(ctx context.Context) error {
	var there bool
	if err := f.db.GetContext(ctx, &there, selectTable); err != nil || there {
		return err
	}
	tx, err := f.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, lockTable); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, createTable); err != nil {
		return fmt.Errorf("making the table: %w", err)
	}
	return tx.Commit()
}

// SystemIdentifier returns what tells the cluster of a database from all others, but for its standbys and copies.
func SystemIdentifier(ctx context.Context, rawURL string) (string, error) {
	db, place, err := connect(rawURL)
	if err != nil {
		return "", err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var is facts
	if err := db.GetContext(ctx, &is, selectFacts); err != nil {
		return "", fmt.Errorf("asking %s for its system identifier: %w", place, err)
	}
	return is.System, nil
}

// connect returns a pool of connections, none of which is made yet, and the URL without what is secret.
func connect(rawURL string) (db *sqlx.DB, place string, err error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Fragment != "" || strings.Contains(u.Path, "@") {
		// The reason may hold a part of the password.
		return nil, "", errors.New("want a URL like postgres://USER:PASSWORD@HOST/DATABASE, with special characters of the password " +
			"percent-encoded")
	}
	place = u.Scheme + "://" + u.Host + u.Path
	cfg, err := pq.NewConfig(rawURL)
	if err != nil {
		return nil, "", fmt.Errorf("the URL of %s: %w", place, err)
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > patience {
		cfg.ConnectTimeout = patience
	}
	if cfg.ApplicationName == "" {
		cfg.ApplicationName = "treeline fence"
	}
	if cfg.Runtime == nil {
		cfg.Runtime = make(map[string]string)
	}
	cfg.Runtime["statement_timeout"] = fmt.Sprint(patience.Milliseconds())
	// At this level a statement that has waited for a row looks at it again. At others it fails.
	cfg.Runtime["default_transaction_isolation"] = "read committed"
	connector, err := pq.NewConnectorConfig(cfg)
	if err != nil {
		return nil, "", fmt.Errorf("the URL of %s: %w", place, err)
	}
	connector.Dialer(dialer{})
	pool := sql.OpenDB(connector)
	pool.SetMaxOpenConns(8)
	pool.SetMaxIdleConns(2)
	return sqlx.NewDb(pool, "postgres"), place, nil
}

// String returns the fence's place, without what is secret.
func (f *Fence) String() string { return f.place }

// Close closes the connections.
func (f *Fence) Close() error { return f.db.Close() }

// Load is [checkpoint.Fence.Load].
func (f *Fence) Load(ctx context.Context, origin string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var msg []byte
	err := f.db.GetContext(ctx, &msg, selectNote, origin)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		err = checkpoint.CheckFenced(origin, msg)
	}
	if err != nil {
		return nil, fmt.Errorf("reading fence of %s in %s: %w", origin, f.place, err)
	}
	return msg, nil
}

// Swap is [checkpoint.Fence.Swap].
func (f *Fence) Swap(ctx context.Context, origin string, old, new []byte) error {
	if err := checkpoint.CheckFenced(origin, new); err != nil {
		return fmt.Errorf("moving fence: %w", err)
	}
	var rows int64
	var err error
	if old == nil {
		rows, err = f.exec(ctx, insertNote, origin, new)
	} else {
		rows, err = f.exec(ctx, updateNote, origin, old, new)
	}
	if err == nil && rows == 0 {
		err = checkpoint.ErrFenceMoved
	}
	if err != nil {
		return fmt.Errorf("moving fence of %s in %s: %w", origin, f.place, err)
	}
	return nil
}

// Origins is [checkpoint.Fence.Origins].
func (f *Fence) Origins(ctx context.Context) (origins []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var rows []struct {
		Origin string
		Note   []byte
	}
	if err := f.db.SelectContext(ctx, &rows, selectNotes); err != nil {
		return nil, fmt.Errorf("reading fence %s: %w", f.place, err)
	}
	for _, r := range rows {
		if err := checkpoint.CheckFenced(r.Origin, r.Note); err != nil {
			return nil, fmt.Errorf("reading fence of %s in %s: %w", r.Origin, f.place, err)
		}
		origins = append(origins, r.Origin)
	}
	return origins, nil
}

// Drop is [checkpoint.Fence.Drop].
func (f *Fence) Drop(ctx context.Context, origin string) error {
	if _, err := f.exec(ctx, deleteNote, origin); err != nil {
		return fmt.Errorf("dropping fence of %s in %s: %w", origin, f.place, err)
	}
	return nil
}

// exec executes a statement once, on a connection of its own: a pool would do it again when the connection breaks.
func (f *Fence) exec(ctx context.Context, statement string, args ...any) (rows int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := f.db.Conn(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	result, err := conn.ExecContext(ctx, statement, args...)
	if errors.Is(err, driver.ErrBadConn) {
		return 0, fmt.Errorf("the connection was lost, so the outcome is unknown: %w", err)
	}
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// A dialer makes connections on which nothing waits for ever. The driver gives up waiting only when the connection does.
type dialer struct{ net.Dialer }

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	d.Timeout = timeout
	return d.Dial(network, address)
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn{c}, nil
}

// A conn is a connection whose peer must answer what is written within the time of a call.
type conn struct{ net.Conn }

func (c conn) Write(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(patience + time.Second)); err != nil { // the server's own timeout comes first
		return 0, err
	}
	return c.Conn.Write(b)
}
