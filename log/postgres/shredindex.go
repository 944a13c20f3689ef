package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// What isn't a part among the rewrites.
const (
	indexBlocks   = 0  // the table index_blocks
	allStatistics = -1 // PostgreSQL's table of statistics
)

// Statements of rewriting the index.
const (
	sqlDropIndexCopy = `
		DROP TABLE IF EXISTS index_blocks_new`
	sqlCreateIndexCopy = `
		CREATE TABLE index_blocks_new (LIKE index_blocks INCLUDING ALL)
		WITH (toast_tuple_target = 8160)`
	sqlIndexCopyNoStatistics = `
		ALTER TABLE index_blocks_new ALTER COLUMN key SET STATISTICS 0, ALTER COLUMN data SET STATISTICS 0`
	sqlIndexTables = `
		SELECT 'index_blocks'::regclass::oid::BIGINT, coalesce(to_regclass('index_blocks_new')::oid::BIGINT, 0)`
	sqlAllSegments = `
		SELECT log, level, segment, written FROM index_segments ORDER BY log, level, segment`
	sqlCopySegment = `
		INSERT INTO index_blocks_new SELECT * FROM index_blocks WHERE log = $1 AND level = $2 AND segment = $3 ORDER BY key`
	sqlDropCopiedSegment = `
		DELETE FROM index_blocks_new WHERE log = $1 AND level = $2 AND segment = $3`
	// Those that write it wait, those that search don't.
	sqlLockIndex = `
		LOCK TABLE index_blocks IN SHARE ROW EXCLUSIVE MODE`
	sqlTakeIndex = `
		LOCK TABLE index_blocks IN ACCESS EXCLUSIVE MODE`
	sqlDropIndex = `
		DROP TABLE index_blocks`
	sqlRenameIndex = `
		ALTER TABLE index_blocks_new RENAME TO index_blocks`
	sqlRenameIndexKey = `
		ALTER INDEX index_blocks_new_pkey RENAME TO index_blocks_pkey`
)

// storedSegment is a segment of a log's index, as it was written once.
type storedSegment struct {
	log            int64
	level, segment int64
	written        int64
}

// indexCopy is a copy of the index that is yet to take its place.
type indexCopy struct {
	of, to, version int64 // as in a partCopy
	segments        map[storedSegment]bool
}

// shredIndex has a copy of the index take its place: what was deleted from it may tell of contents that were removed. Searches and those
// that write it go on meanwhile; at the end those that write wait until the copy has what they have written. If something of it was removed
// meanwhile, it is rewritten once more.
func (s *Store) shredIndex(ctx context.Context) error {
	c := indexCopy{segments: make(map[storedSegment]bool)}
	err := s.shredTx(ctx, 0, func(t *sqlx.Tx) error {
		if err := t.GetContext(ctx, &c.version, sqlRewriteVersion, indexBlocks); err != nil {
			return err
		}
		for _, statement := range []string{sqlDropIndexCopy, sqlCreateIndexCopy, sqlIndexCopyNoStatistics} {
			if _, err := t.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return t.QueryRowxContext(ctx, sqlIndexTables).Scan(&c.of, &c.to)
	})
	if err != nil {
		return fmt.Errorf("rewriting the search index: %w", err)
	}
	all, err := storedSegments(ctx, s.read)
	if err != nil {
		return err
	}
	for _, seg := range all {
		if err := s.copySegment(ctx, seg); err != nil {
			return fmt.Errorf("rewriting the search index: %w", err)
		}
		c.segments[seg] = true
	}
	if err := s.fault("copied the index"); err != nil {
		return err
	}
	if err := s.shredTx(ctx, indexPatience, func(t *sqlx.Tx) error { return s.swapIndex(ctx, t, &c) }); err != nil {
		return fmt.Errorf("putting a copy in the place of the search index: %w", err)
	}
	return s.fault("swapped the index")
}

func storedSegments(ctx context.Context, db queryer) (all []storedSegment, err error) {
	err = each(ctx, db, sqlAllSegments, func(rows *sql.Rows) error {
		var seg storedSegment
		err := rows.Scan(&seg.log, &seg.level, &seg.segment, &seg.written)
		all = append(all, seg)
		return err
	})
	return all, err
}

func (s *Store) copySegment(ctx context.Context, seg storedSegment) error {
	began := time.Now()
	err := s.shredTx(ctx, 0, func(t *sqlx.Tx) error {
		if _, err := t.ExecContext(ctx, sqlNoHurry); err != nil {
			return err
		}
		_, err := t.ExecContext(ctx, sqlCopySegment, seg.log, seg.level, seg.segment)
		return err
	})
	if err != nil {
		return err
	}
	if err := pause(ctx, time.Since(began)); err != nil {
		return err
	}
	return s.keepLease(ctx)
}

// swapIndex brings the copy to what the index has now, and lets it take its place.
func (s *Store) swapIndex(ctx context.Context, t *sqlx.Tx, c *indexCopy) error {
	if _, err := t.ExecContext(ctx, sqlLockIndex); err != nil {
		return err
	}
	var of, to int64
	if err := t.QueryRowxContext(ctx, sqlIndexTables).Scan(&of, &to); err != nil {
		return err
	}
	if of != c.of || to != c.to {
		return errChanged
	}
	now, err := storedSegments(ctx, t)
	if err != nil {
		return err
	}
	gone := make(map[storedSegment]bool, len(c.segments))
	for seg := range c.segments {
		gone[seg] = true
	}
	for _, seg := range now {
		delete(gone, seg)
	}
	for seg := range gone {
		if _, err := t.ExecContext(ctx, sqlDropCopiedSegment, seg.log, seg.level, seg.segment); err != nil {
			return err
		}
	}
	for _, seg := range now {
		if c.segments[seg] {
			continue
		}
		if _, err := t.ExecContext(ctx, sqlCopySegment, seg.log, seg.level, seg.segment); err != nil {
			return err
		}
	}
	if _, err := t.ExecContext(ctx, fmt.Sprintf(sqlSetPatience, swapPatience.Milliseconds())); err != nil {
		return err
	}
	for _, statement := range []string{sqlTakeIndex, sqlDropIndex, sqlRenameIndex, sqlRenameIndexKey} {
		if _, err := t.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if _, err := t.ExecContext(ctx, sqlNoteRewritten, indexBlocks, c.version); err != nil {
		return err
	}
	return s.fault("swapping the index")
}
