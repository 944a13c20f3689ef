// Package sqlstate keeps the state of a witness in a SQLite file or in a PostgreSQL database.
//
// Both are one schema and mostly the same statements. What differs is how heads are moved, in sqlite.go and postgres.go. In either
// the record of a cosignature is one UPDATE on the condition that the row is what the cosignature was decided on, and one changed
// row; and the commit is on disk when it returns.
package sqlstate

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
	"github.com/treeline-log/treeline/witness"
)

//go:embed migrations/*/*.sql
var migrations embed.FS

// versionTable is apart from that of a store, so that both may be in one database.
const versionTable = "witness_version"

const (
	selectHead = `
		SELECT origin, size, root, cosigned_at FROM witness_logs WHERE origin = ?`
	selectHeads = `
		SELECT origin, size, root, cosigned_at FROM witness_logs WHERE origin > ? ORDER BY origin LIMIT ?`
	selectNote = `
		SELECT note FROM witness_logs WHERE origin = ? AND note IS NOT NULL`
	selectKeys = `
		SELECT seq, origin, vkey, qpd, contact FROM witness_keys WHERE seq > ? ORDER BY seq`
	selectEvidence = `
		SELECT origin, conflict, size, root, note, proof, seen_at, cosigned_size, cosigned_root, cosigned_at, cosigned_note
		FROM witness_evidence ORDER BY seq`
	selectLabel = `
		SELECT value FROM witness_labels WHERE name = ?`

	selectKnown = `
		SELECT EXISTS (SELECT 1 FROM witness_logs WHERE origin = ?)`
	selectHasKey = `
		SELECT EXISTS (SELECT 1 FROM witness_keys WHERE origin = ? AND vkey = ?)`
	insertLog = `
		INSERT INTO witness_logs (origin, size, root, cosigned_at) VALUES (?, 0, ?, 0)`
	insertKey = `
		INSERT INTO witness_keys (seq, origin, vkey, qpd, contact)
		SELECT coalesce(max(seq), 0) + 1, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS TEXT) FROM witness_keys`
	insertLabel = `
		INSERT INTO witness_labels (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING`

	// In the transaction, before the head is moved: the row's note is the one that was contradicted.
	selectCosigned = `
		SELECT note FROM witness_logs WHERE origin = ? AND size = ? AND root = ?`
	countEvidence = `
		SELECT count(*) FROM witness_evidence WHERE origin = ? AND conflict = ?`
	insertEvidence = `
		INSERT INTO witness_evidence (origin, conflict, size, root, note, proof, seen_at,
		                              cosigned_size, cosigned_root, cosigned_at, cosigned_note)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
)

// DB is a witness.State.
type DB struct {
	dialect
	write *sqlx.DB
	read  *sqlx.DB

	// embedded says that the database is a file in this process. A transaction isn't watched for its time there: that would cost a
	// goroutine a statement, and nothing can be waited for but the disk.
	embedded bool
}

var _ witness.State = (*DB)(nil)

// dialect is what SQLite and PostgreSQL do each in their way.
type dialect interface {
	// heads returns the present heads of those of the origins that are known.
	heads(ctx context.Context, db *DB, origins []string) (map[string]witness.Head, error)
	// move makes the moves whose heads were as given, and returns how many those are. Where the database is embedded and there is
	// one move, tx may be nil: the statement is a transaction then.
	move(ctx context.Context, tx *sqlx.Tx, before map[string]witness.Head, moves []witness.Move) (int64, error)
	// lockKeys keeps others from adding keys until the transaction ends.
	lockKeys(ctx context.Context, tx *sqlx.Tx) error
	// done is told how Update ended.
	done(moves []witness.Move, origins []string, err error)
	// describe names the errors that an operator can do something about.
	describe(err error) error
	close() error
}

func migrator(db *sql.DB, kind goose.Dialect, dir string, options ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations/"+dir)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(kind, db, files, append(options, goose.WithTableName(versionTable))...)
}

// migrate brings the schema to the version that this program works with, and refuses a newer one.
func migrate(ctx context.Context, m *goose.Provider) error {
	have, err := m.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	sources := m.ListSources()
	if known := sources[len(sources)-1].Version; have > known {
		return fmt.Errorf("its schema is version %d, this program knows up to %d: run a newer treeline", have, known)
	}
	_, err = m.Up(ctx)
	return err
}

// in runs fn in a transaction.
func (db *DB) in(ctx context.Context, fn func(*sqlx.Tx) error) error {
	tx, err := db.write.BeginTxx(ctx, nil)
	if err != nil {
		return db.describe(err)
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return db.describe(err)
	}
	return db.describe(tx.Commit())
}

// AddKeys is witness.State.AddKeys.
func (db *DB) AddKeys(ctx context.Context, keys []witness.LogKey, extend bool) (added int, err error) {
	err = db.in(ctx, func(tx *sqlx.Tx) error {
		added = 0
		if err := db.lockKeys(ctx, tx); err != nil {
			return err
		}
		known := make(map[string]bool) // before this call
		for _, k := range keys {
			before, seen := known[k.Origin]
			if !seen {
				if err := get(ctx, tx, &before, selectKnown, k.Origin); err != nil {
					return err
				}
				known[k.Origin] = before
			}
			if before && !extend {
				continue
			}
			if !before && !seen {
				root := merkle.EmptyRoot()
				if _, err := tx.ExecContext(ctx, tx.Rebind(insertLog), k.Origin, root[:]); err != nil {
					return err
				}
			}
			var has bool
			if err := get(ctx, tx, &has, selectHasKey, k.Origin, k.VKey); err != nil {
				return err
			}
			if has {
				continue
			}
			if _, err := tx.ExecContext(ctx, tx.Rebind(insertKey), k.Origin, k.VKey, int64(k.QPD), k.Contact); err != nil {
				return err
			}
			added++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("adding keys: %w", err)
	}
	return added, nil
}

func get(ctx context.Context, tx *sqlx.Tx, into any, query string, args ...any) error {
	return tx.GetContext(ctx, into, tx.Rebind(query), args...)
}

// Keys is witness.State.Keys.
func (db *DB) Keys(ctx context.Context, after int64) ([]witness.LogKey, error) {
	var keys []witness.LogKey
	if err := db.read.SelectContext(ctx, &keys, db.read.Rebind(selectKeys), after); err != nil {
		return nil, fmt.Errorf("reading keys: %w", db.describe(err))
	}
	return keys, nil
}

// Update is witness.State.Update.
func (db *DB) Update(ctx context.Context, origins []string, decide func(map[string]witness.Head) witness.Changes) error {
	if db.embedded {
		ctx = context.WithoutCancel(ctx)
	}
	heads, err := db.heads(ctx, db, origins)
	if err != nil {
		return fmt.Errorf("reading heads: %w", db.describe(err))
	}
	before := make(map[string]witness.Head, len(heads)) // what decide is given is its own
	for origin, head := range heads {
		before[origin] = head
	}
	changes := decide(heads)
	if len(changes.Moves) == 0 && len(changes.Evidence) == 0 {
		return nil
	}
	record := func(tx *sqlx.Tx) error {
		for _, e := range changes.Evidence {
			if err := keep(ctx, tx, e); err != nil {
				return err
			}
		}
		n, err := db.move(ctx, tx, before, changes.Moves)
		if err != nil {
			return err
		}
		if n != int64(len(changes.Moves)) {
			return witness.ErrMoved
		}
		return nil
	}
	if db.embedded && len(changes.Moves) == 1 && len(changes.Evidence) == 0 { // a log alone, which waits for every statement
		err = db.describe(record(nil))
	} else {
		err = db.in(ctx, record)
	}
	db.done(changes.Moves, origins, err)
	if err != nil {
		return fmt.Errorf("recording cosignatures: %w", err)
	}
	return nil
}

// keep keeps evidence, unless there is enough of its kind. The log's own writers wait for each other at its row in heads, so a
// few pieces more than MaxEvidence are all that several servers can make of it.
func keep(ctx context.Context, tx *sqlx.Tx, e witness.Evidence) error {
	var n int
	if err := get(ctx, tx, &n, countEvidence, e.Refused.Origin, string(e.Conflict)); err != nil || n >= witness.MaxEvidence {
		return err
	}
	cosigned := e.Cosigned
	if cosigned == nil {
		err := get(ctx, tx, &cosigned, selectCosigned, e.Head.Origin, int64(e.Head.Size), e.Head.Root[:])
		if errors.Is(err, sql.ErrNoRows) {
			return witness.ErrMoved
		}
		if err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, tx.Rebind(insertEvidence), e.Refused.Origin, string(e.Conflict), int64(e.Refused.Size), e.Refused.Root[:],
		e.Note, e.Proof, e.Seen, int64(e.Head.Size), e.Head.Root[:], e.Head.At, cosigned)
	return err
}

// Cosigned is witness.State.Cosigned.
func (db *DB) Cosigned(ctx context.Context, origin string) (note []byte, err error) {
	err = db.read.GetContext(ctx, &note, db.read.Rebind(selectNote), origin)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, witness.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("reading a checkpoint: %w", db.describe(err))
	}
	return note, nil
}

// headRow is a row of witness_logs without its note.
type headRow struct {
	Origin string
	Size   int64
	Root   []byte
	At     int64 `db:"cosigned_at"`
}

func (r headRow) head() (witness.Head, error) {
	if len(r.Root) != merkle.HashSize || r.Size < 0 {
		return witness.Head{}, fmt.Errorf("the row of %s is damaged: size %d, a root of %d bytes", r.Origin, r.Size, len(r.Root))
	}
	return witness.Head{Origin: r.Origin, Size: uint64(r.Size), Root: merkle.Hash(r.Root), At: r.At}, nil
}

// Heads is witness.State.Heads.
func (db *DB) Heads(ctx context.Context, after string, limit int) ([]witness.Head, error) {
	var rows []headRow
	if err := db.read.SelectContext(ctx, &rows, db.read.Rebind(selectHeads), after, limit); err != nil {
		return nil, fmt.Errorf("reading heads: %w", db.describe(err))
	}
	heads := make([]witness.Head, 0, len(rows))
	for _, r := range rows {
		h, err := r.head()
		if err != nil {
			return nil, err
		}
		heads = append(heads, h)
	}
	return heads, nil
}

// Evidence is witness.State.Evidence.
func (db *DB) Evidence(ctx context.Context) ([]witness.Evidence, error) {
	var rows []struct {
		headRow
		Conflict     string
		Note, Proof  []byte
		SeenAt       int64  `db:"seen_at"`
		CosignedSize int64  `db:"cosigned_size"`
		CosignedRoot []byte `db:"cosigned_root"`
		CosignedNote []byte `db:"cosigned_note"`
	}
	if err := db.read.SelectContext(ctx, &rows, selectEvidence); err != nil {
		return nil, fmt.Errorf("reading evidence: %w", db.describe(err))
	}
	var all []witness.Evidence
	for _, r := range rows {
		refused, err := headRow{r.Origin, r.Size, r.Root, 0}.head()
		if err != nil {
			return nil, err
		}
		head, err := headRow{r.Origin, r.CosignedSize, r.CosignedRoot, r.At}.head()
		if err != nil {
			return nil, err
		}
		all = append(all, witness.Evidence{
			Conflict: witness.Conflict(r.Conflict), Seen: r.SeenAt, Head: head,
			Refused: checkpoint.Checkpoint{Origin: r.Origin, Size: refused.Size, Root: refused.Root},
			Note:    r.Note, Proof: r.Proof, Cosigned: r.CosignedNote,
		})
	}
	return all, nil
}

// identity is the label that says whose state this is.
const identity = "identity"

// Identity returns the verifier key of the witness whose state this is, "" if none has been recorded.
func (db *DB) Identity(ctx context.Context) (vkey string, err error) {
	err = db.read.GetContext(ctx, &vkey, db.read.Rebind(selectLabel), identity)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return vkey, db.describe(err)
}

// Claim records whose state this is, if that isn't recorded yet, and returns what is.
func (db *DB) Claim(ctx context.Context, vkey string) (string, error) {
	err := db.in(ctx, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, tx.Rebind(insertLabel), identity, vkey); err != nil {
			return err
		}
		return get(ctx, tx, &vkey, selectLabel, identity)
	})
	return vkey, err
}

// Close closes the connections.
func (db *DB) Close() error {
	var errs []error
	for _, pool := range []*sqlx.DB{db.read, db.write} { // the writer last: it folds SQLite's WAL in
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(append(errs, db.close())...)
}
