package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// searchIndex is the search index in a SQLite file beside the store's: it has a writer and a WAL of its own. All of it can be
// rebuilt, so a commit isn't synced (synchronous=NORMAL), and a file that can't be used is put aside for a new one.
type searchIndex struct {
	write *sqlx.DB // one connection; nil when read-only
	read  *sqlx.DB // nil when read-only and there is no index, or broken is set
	// broken is why the index can't be read; it keeps nobody from reading the record.
	broken error

	blocks   *sqlx.Stmt
	scrubbed scrub
	aside    string // where an index that couldn't be used was put
}

// indexPath returns the path of the index of the store at path: treeline-search.db for treeline.db.
func indexPath(path string) string {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "-search" + ext
}

var indexWriterPragmas = []string{
	"auto_vacuum(INCREMENTAL)", // as in writerPragmas
	"secure_delete(ON)",        // keys tell something of the contents
	"journal_mode(WAL)",
	"synchronous(NORMAL)",
	"wal_autocheckpoint(4000)", // pages
}

// open opens the index for writing. One that is damaged, or of a schema that this program doesn't know, is put aside.
func (x *searchIndex) open(ctx context.Context, path string) error {
	err := x.tryOpen(ctx, path)
	if err == nil {
		return nil
	}
	if err := errors.Join(x.close(), ctx.Err()); err != nil {
		return err
	}
	if !errors.Is(err, log.ErrDamaged) && !errors.Is(err, errNewer) {
		return fmt.Errorf("opening the search index %s: %w", path, err)
	}
	x.aside = path + ".damaged"
	if err := os.Rename(path, x.aside); err != nil {
		return err
	}
	for _, companion := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + companion); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := x.tryOpen(ctx, path); err != nil {
		return fmt.Errorf("making the search index %s: %w", path, err)
	}
	return nil
}

func (x *searchIndex) tryOpen(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if x.write, err = connect(path, "rw", 1, append(indexWriterPragmas, pragmas...)); err != nil {
		return err
	}
	if err := migrate(ctx, x.write.DB, "searchmigrations"); err != nil {
		return describe(err)
	}
	return x.openReaders(ctx, path, "rw")
}

// openReadOnly opens the index for reading, if there is one.
func (x *searchIndex) openReadOnly(ctx context.Context, path string) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return
	}
	err := x.openReaders(ctx, path, "ro")
	if err == nil {
		err = checkVersion(ctx, x.read.DB, "searchmigrations", "index_logs")
	}
	if err != nil {
		err = fmt.Errorf("opening the search index %s: %w", path, err)
		x.broken = errors.Join(err, x.close())
	}
}

func (x *searchIndex) openReaders(ctx context.Context, path, mode string) (err error) {
	if x.read, err = connect(path, mode, max(4, runtime.NumCPU()), append([]string{"query_only(ON)"}, pragmas...)); err != nil {
		return err
	}
	x.blocks, err = x.read.PreparexContext(ctx, sqlBlocks)
	return describe(err)
}

func (x *searchIndex) close() error {
	var errs []error
	if x.blocks != nil {
		errs = append(errs, x.blocks.Close())
	}
	for _, db := range []*sqlx.DB{x.read, x.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	*x = searchIndex{aside: x.aside}
	return errors.Join(errs...)
}

// DamagedIndex returns where Open has put a search index that it couldn't use, "" if there was none.
func (s *Store) DamagedIndex() string { return s.index.aside }

// Statements of the search index.
const (
	sqlIndexed = `
		SELECT size, last FROM index_logs WHERE log = ?`
	sqlInsertIndexed = `
		INSERT INTO index_logs (log, size, last) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	sqlMoveIndexed = `
		UPDATE index_logs SET size = ?, last = ? WHERE log = ? AND size = ? AND last = ?`
	sqlSegments = `
		SELECT level, segment, min_occurred, max_occurred, first_received, last_received, words
		FROM index_segments WHERE log = ? ORDER BY level DESC, segment`
	sqlInsertSegment = `
		INSERT INTO index_segments (log, level, segment, min_occurred, max_occurred, first_received, last_received, words)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`
	sqlInsertBlock = `
		INSERT INTO index_blocks (log, level, segment, key, data) VALUES (?, ?, ?, ?, ?)`
	sqlDropSegment = `
		DELETE FROM index_segments WHERE log = ? AND level = ? AND segment = ?`
	sqlDropBlocks = `
		DELETE FROM index_blocks WHERE log = ? AND level = ? AND segment = ?`
	sqlDropAll = `
		DELETE FROM index_logs WHERE log = ?1;
		DELETE FROM index_segments WHERE log = ?1;
		DELETE FROM index_blocks WHERE log = ?1;
		UPDATE removals SET version = version + 1`

	// The block that a range begins in, and those that are stored under keys within it.
	sqlBlocks = `
		SELECT key, data FROM index_blocks
		WHERE log = ?1 AND level = ?2 AND segment = ?3 AND key < ?5
		  AND key >= coalesce((SELECT max(key) FROM index_blocks
		                       WHERE log = ?1 AND level = ?2 AND segment = ?3 AND key <= ?4), ?4)
		ORDER BY key`
)

// Indexed returns how far the log's index has come.
func (s *Store) Indexed(ctx context.Context, id log.ID) (at log.Indexed, err error) {
	if s.index.read == nil {
		return at, s.index.broken
	}
	var last []byte
	err = s.index.read.QueryRowxContext(ctx, sqlIndexed, id).Scan(&at.Size, &last)
	if errors.Is(err, sql.ErrNoRows) {
		return log.Indexed{}, nil
	}
	if err != nil {
		return at, describe(err)
	}
	if len(last) != merkle.HashSize {
		return at, damaged("the index's last leaf hash has %d bytes", len(last))
	}
	at.Last = merkle.Hash(last)
	return at, nil
}

// Segments returns the log's segments.
func (s *Store) Segments(ctx context.Context, id log.ID) (metas []index.Meta, err error) {
	if s.index.read == nil {
		return nil, s.index.broken
	}
	err = each(ctx, s.index.read, sqlSegments, func(rows *sqlx.Rows) error {
		var m index.Meta
		err := rows.Scan(&m.Level, &m.Number, &m.MinOccurred, &m.MaxOccurred, &m.FirstReceived, &m.LastReceived, &m.Words)
		metas = append(metas, m)
		return err
	}, id)
	return metas, err
}

// Blocks calls fn with the blocks of segments that may hold keys in the ranges.
func (s *Store) Blocks(ctx context.Context, id log.ID, level int, segments []uint64, ranges []index.Range,
	fn func(segment uint64, key, data []byte) error,
) error {
	if s.index.read == nil {
		return s.index.broken
	}
	tx, err := s.index.read.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return describe(err)
	}
	defer tx.Rollback()
	blocks := tx.StmtxContext(ctx, s.index.blocks)
	for _, segment := range segments {
		var last []byte // the key of the newest block that fn was given
		for _, r := range ranges {
			rows, err := blocks.QueryxContext(ctx, id, level, segment, r.From, r.To)
			if err != nil {
				return describe(err)
			}
			last, err = scanBlocks(rows, segment, last, fn)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// scanBlocks calls fn with the blocks after the key last, and returns the key of the newest.
func scanBlocks(rows *sqlx.Rows, segment uint64, last []byte, fn func(segment uint64, key, data []byte) error) ([]byte, error) {
	defer rows.Close()
	var key, data sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&key, &data); err != nil {
			return last, describe(err)
		}
		if last != nil && bytes.Compare(key, last) <= 0 {
			continue
		}
		last = slices.Clone(key)
		if err := fn(segment, key, data); err != nil {
			return last, err
		}
	}
	return last, describe(rows.Err())
}

// WriteIndex moves the log's index.
func (s *Store) WriteIndex(ctx context.Context, id log.ID, from, to log.Indexed, drop []index.Meta, add []*index.Segment) error {
	if s.index.write == nil {
		return errReadOnly
	}
	tx, err := s.index.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer tx.Rollback()
	if from == (log.Indexed{}) {
		if _, err := tx.ExecContext(ctx, sqlInsertIndexed, id, from.Size, from.Last[:]); err != nil {
			return describe(err)
		}
	}
	res, err := tx.ExecContext(ctx, sqlMoveIndexed, to.Size, to.Last[:], id, from.Size, from.Last[:])
	if err != nil {
		return describe(err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n != 1 {
		return log.ErrHeadMoved
	}
	for _, m := range drop {
		for _, query := range []string{sqlDropSegment, sqlDropBlocks} {
			if _, err := tx.ExecContext(ctx, query, id, m.Level, m.Number); err != nil {
				return describe(err)
			}
		}
	}
	if from == to { // in the place of what told of something that was removed
		if _, err := tx.ExecContext(ctx, sqlNoteRemoval); err != nil {
			return describe(err)
		}
	}
	insert, err := tx.PreparexContext(ctx, sqlInsertBlock)
	if err != nil {
		return describe(err)
	}
	defer insert.Close()
	for _, seg := range add {
		_, err := tx.ExecContext(ctx, sqlInsertSegment, id, seg.Level, seg.Number, seg.MinOccurred, seg.MaxOccurred,
			seg.FirstReceived, seg.LastReceived, seg.Words)
		if err != nil {
			return describe(err)
		}
		for _, b := range seg.Blocks {
			if _, err := insert.ExecContext(ctx, id, seg.Level, seg.Number, b.Key, b.Data); err != nil {
				return describe(err)
			}
		}
	}
	return describe(tx.Commit())
}

// DropIndex removes all of the log's index.
func (s *Store) DropIndex(ctx context.Context, id log.ID) error {
	if s.index.write == nil {
		return errReadOnly
	}
	tx, err := s.index.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, sqlDropAll, id); err != nil {
		return describe(err)
	}
	return describe(tx.Commit())
}
