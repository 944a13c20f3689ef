package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// Statements of the search index.
const (
	sqlIndexed = `
		SELECT size, last FROM index_logs WHERE log = $1`
	sqlInsertIndexed = `
		INSERT INTO index_logs (log, size, last) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	sqlMoveIndexed = `
		UPDATE index_logs SET size = $1, last = $2 WHERE log = $3 AND size = $4 AND last = $5`
	sqlSegments = `
		SELECT level, segment, min_occurred, max_occurred, first_received, last_received, words
		FROM index_segments WHERE log = $1 ORDER BY level DESC, segment`
	sqlCopySegments = `
		COPY index_segments (log, level, segment, min_occurred, max_occurred, first_received, last_received, words) FROM STDIN`
	sqlCopyBlocks = `
		COPY index_blocks (log, level, segment, key, data) FROM STDIN`
	sqlDropSegments = `
		DELETE FROM index_segments WHERE log = $1 AND level = $2 AND segment = ANY($3)`
	sqlDropBlocks = `
		DELETE FROM index_blocks WHERE log = $1 AND level = $2 AND segment = ANY($3)`
	sqlDropIndexed = `
		DELETE FROM index_logs WHERE log = $1`
	sqlDropAllSegments = `
		DELETE FROM index_segments WHERE log = $1`
	sqlDropAllBlocks = `
		DELETE FROM index_blocks WHERE log = $1`
	// For each segment and range the block that the range begins in, and those that are stored under keys within it: each a
	// look into the primary key. A block in which two ranges begin comes once. Only keys are sorted, and then each block is looked
	// up: sorted with them, the blocks would go through a temporary file.
	sqlBlocks = `
		SELECT k.segment, k.key, b.data
		FROM (SELECT DISTINCT s.segment, b.key
		      FROM unnest($3::BIGINT[]) AS s (segment)
		           CROSS JOIN unnest($4::BYTEA[], $5::BYTEA[]) AS r (key_from, key_to)
		           CROSS JOIN LATERAL (
		               (SELECT key FROM index_blocks AS i
		                WHERE i.log = $1 AND i.level = $2 AND i.segment = s.segment AND i.key <= r.key_from
		                ORDER BY i.log DESC, i.level DESC, i.segment DESC, i.key DESC LIMIT 1)
		               UNION ALL
		               (SELECT key FROM index_blocks AS i
		                WHERE i.log = $1 AND i.level = $2 AND i.segment = s.segment AND i.key > r.key_from AND i.key < r.key_to)
		           ) AS b
		      ORDER BY s.segment, b.key) AS k,
		     LATERAL (SELECT data FROM index_blocks AS i
		              WHERE i.log = $1 AND i.level = $2 AND i.segment = k.segment AND i.key = k.key OFFSET 0) AS b
		ORDER BY k.segment, k.key`
)

// Indexed returns how far the log's index has come.
func (s *Store) Indexed(ctx context.Context, id log.ID) (at log.Indexed, err error) {
	var last []byte
	err = scanRow(ctx, s.read, sqlIndexed, []any{id}, &at.Size, &last)
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
	err = each(ctx, s.read, sqlSegments, func(rows *sql.Rows) error {
		var m index.Meta
		err := rows.Scan(&m.Level, &m.Number, &m.MinOccurred, &m.MaxOccurred, &m.FirstReceived, &m.LastReceived, &m.Words)
		metas = append(metas, m)
		return err
	}, id)
	return metas, err
}

// Blocks calls fn with the blocks of segments that may hold keys in the ranges, by one statement.
func (s *Store) Blocks(ctx context.Context, id log.ID, level int, segments []uint64, ranges []index.Range,
	fn func(segment uint64, key, data []byte) error,
) error {
	from, to := make(pq.ByteaArray, len(ranges)), make(pq.ByteaArray, len(ranges))
	for i, r := range ranges {
		from[i], to[i] = r.From, r.To
	}
	rows, err := s.read.QueryContext(ctx, sqlBlocks, id, level, intArray(segments), from, to)
	if err != nil {
		return describe(err)
	}
	defer rows.Close()
	var key, data sql.RawBytes
	for rows.Next() {
		var segment uint64
		if err := rows.Scan(&segment, &key, &data); err != nil {
			return describe(err)
		}
		if err := fn(segment, key, data); err != nil {
			return err
		}
	}
	return describe(rows.Err())
}

// WriteIndex moves the log's index.
func (s *Store) WriteIndex(ctx context.Context, id log.ID, from, to log.Indexed, drop []index.Meta, add []*index.Segment) error {
	return s.inTx(ctx, func(conn *sqlx.Conn, t *sqlx.Tx) error {
		if from == (log.Indexed{}) {
			if _, err := t.ExecContext(ctx, sqlInsertIndexed, id, from.Size, from.Last[:]); err != nil {
				return err
			}
		}
		err := changeOne(t.ExecContext(ctx, sqlMoveIndexed, to.Size, to.Last[:], id, from.Size, from.Last[:]))
		if errors.Is(err, log.ErrNotFound) {
			return log.ErrHeadMoved
		}
		if err != nil {
			return err
		}
		if err := dropSegments(ctx, t, id, drop); err != nil {
			return err
		}
		if from == to { // in the place of what told of something that was removed
			if _, err := t.ExecContext(ctx, sqlNoteRewrite, indexBlocks); err != nil {
				return err
			}
		}
		buf, err := copyRows(ctx, conn, nil, sqlCopySegments, func(w *copier) error { return writeSegments(w, id, add) })
		if err != nil {
			return err
		}
		_, err = copyRows(ctx, conn, buf, sqlCopyBlocks, func(w *copier) error { return writeBlocks(w, id, add) })
		return err
	})
}

func dropSegments(ctx context.Context, t *sqlx.Tx, id log.ID, drop []index.Meta) error {
	dropped := make(map[int]pq.Int64Array)
	for _, m := range drop {
		dropped[m.Level] = append(dropped[m.Level], int64(m.Number))
	}
	for level, segments := range dropped {
		for _, query := range []string{sqlDropSegments, sqlDropBlocks} {
			if _, err := t.ExecContext(ctx, query, id, level, segments); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeSegments(w *copier, id log.ID, segments []*index.Segment) error {
	for _, seg := range segments {
		w.int(uint64(id))
		w.int(uint64(seg.Level))
		w.int(seg.Number)
		for _, n := range []int64{seg.MinOccurred, seg.MaxOccurred, seg.FirstReceived, seg.LastReceived, int64(seg.Words)} {
			w.text(fmt.Sprint(n))
		}
		if err := w.end(); err != nil {
			return err
		}
	}
	return nil
}

func writeBlocks(w *copier, id log.ID, segments []*index.Segment) error {
	for _, seg := range segments {
		for _, b := range seg.Blocks {
			w.int(uint64(id))
			w.int(uint64(seg.Level))
			w.int(seg.Number)
			w.bytes(b.Key)
			w.bytes(b.Data)
			if err := w.end(); err != nil {
				return err
			}
		}
	}
	return nil
}

// DropIndex removes all of the log's index.
func (s *Store) DropIndex(ctx context.Context, id log.ID) error {
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		// The row that writers move first, so that none of them adds to what is dropped.
		for _, query := range []string{sqlDropIndexed, sqlDropAllSegments, sqlDropAllBlocks} {
			if _, err := t.ExecContext(ctx, query, id); err != nil {
				return err
			}
		}
		_, err := t.ExecContext(ctx, sqlNoteRewrite, indexBlocks)
		return err
	})
}
