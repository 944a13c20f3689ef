package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// Statements of what becomes of contents.
const (
	sqlEnsureCustody = `
		INSERT INTO custody (log, version) SELECT id, 0 FROM logs WHERE id = $1 ON CONFLICT DO NOTHING`
	// A guard may be idle for longer than other transactions. Its server's end is noticed by TCP.
	sqlGuardPatience = `
		SET LOCAL idle_in_transaction_session_timeout = '10min'`
	sqlLockCustody = `
		SELECT version FROM custody WHERE log = $1 FOR UPDATE`
	sqlMoveCustody = `
		UPDATE custody SET version = version + 1 WHERE log = $1`
	sqlCustody = `
		SELECT log, version FROM custody WHERE version > 0`
	sqlRetain = `
		UPDATE heads SET class = $2 WHERE log = $1`
	// Purged again, a span is as long as the longer one. None goes beyond the head, where contents are yet to come.
	sqlNotePurged = `
		INSERT INTO purged_spans (log, first, until, noted_at)
		SELECT log, s.first, least(s.until, size), $4
		FROM heads JOIN unnest($2::BIGINT[], $3::BIGINT[]) AS s (first, until) ON s.first < least(s.until, size)
		WHERE log = $1 ORDER BY s.first
		ON CONFLICT (log, first) DO UPDATE SET until = excluded.until WHERE excluded.until > purged_spans.until`
	sqlThere = `
		SELECT count(*) FROM payloads_%d WHERE log = $1 AND idx = ANY($2)`
	// What stays as it is isn't written again. In order of index, as all that changes rows is.
	sqlReduce = `
		WITH changed AS (
		    SELECT r.idx, r.payload
		    FROM unnest($2::BIGINT[], $3::BYTEA[]) AS r (idx, payload),
		         LATERAL (SELECT seed, payload FROM payloads_%[1]d AS c WHERE c.log = $1 AND c.idx = r.idx OFFSET 0) AS p
		    WHERE p.seed IS NOT NULL OR p.payload IS DISTINCT FROM r.payload
		), reduced AS (
		    UPDATE payloads_%[1]d AS p SET seed = NULL, payload = c.payload FROM changed AS c WHERE p.log = $1 AND p.idx = c.idx
		    RETURNING 1
		)
		SELECT count(*) FROM reduced`
	sqlNoteRewrite = `
		INSERT INTO rewrites (part, version, done) VALUES ($1, 1, 0) ON CONFLICT (part) DO UPDATE SET version = rewrites.version + 1`
)

// custodyConns is how many connections there are for guards and for Shred, so that these never wait for appends, nor appends for them.
const custodyConns = 4

// Guard lets one at a time, over all servers, decide what becomes of a log's contents: its transaction holds a row.
func (s *Store) Guard(ctx context.Context, id log.ID) (release func(), err error) {
	if s.write == nil {
		return nil, errReadOnly
	}
	err = s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		_, err := t.ExecContext(ctx, sqlEnsureCustody, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	for {
		release, err = s.guard(ctx, id)
		if pq.As(err, pqerror.QueryCanceled) == nil || ctx.Err() != nil { // by statement_timeout, while it waited
			return release, err
		}
	}
}

func (s *Store) guard(ctx context.Context, id log.ID) (release func(), err error) {
	conn, t, err := s.beginOn(ctx, s.custody, context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	end := func() {
		t.Rollback()
		conn.Close()
	}
	var version int64
	if _, err = t.ExecContext(ctx, sqlGuardPatience); err == nil {
		err = t.GetContext(ctx, &version, sqlLockCustody, id)
	}
	if err != nil {
		end()
		return nil, orNotFound(err)
	}
	return sync.OnceFunc(func() {
		defer end()
		_, err := t.Exec(sqlMoveCustody, id)
		if err == nil {
			err = t.Commit()
		}
		if err != nil { // the others are still to be told
			err = s.inTx(context.WithoutCancel(ctx), func(_ *sqlx.Conn, t *sqlx.Tx) error {
				_, err := t.Exec(sqlMoveCustody, id)
				return err
			})
		}
		if err != nil {
			s.logger.Warn("what was decided of a log's contents couldn't be announced to other servers", "log", id, "error", describe(err))
		}
	}), nil
}

// Custody returns how often the Guard of each log was released.
func (s *Store) Custody(ctx context.Context) (map[log.ID]uint64, error) {
	versions := make(map[log.ID]uint64)
	err := each(ctx, s.read, sqlCustody, func(rows *sql.Rows) error {
		var id log.ID
		var version uint64
		err := rows.Scan(&id, &version)
		versions[id] = version
		return err
	})
	return versions, err
}

// Retain sets the retention class of a log's new contents.
func (s *Store) Retain(ctx context.Context, id log.ID, class string) error {
	if s.write == nil {
		return errReadOnly
	}
	if _, err := s.Head(ctx, id); err != nil {
		return err
	}
	if err := s.openPart(ctx, class, 0); err != nil { // before anybody looks for it
		return err
	}
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error { return changeOne(t.ExecContext(ctx, sqlRetain, id, class)) })
}

// Purge notes spans, whose contents Shred removes.
func (s *Store) Purge(ctx context.Context, id log.ID, spans []log.Span) error {
	for page := range slices.Chunk(spans, pagePayloads) {
		firsts, ends := make(pq.Int64Array, len(page)), make(pq.Int64Array, len(page))
		for i, span := range page {
			firsts[i], ends[i] = int64(min(span.From, merkle.MaxSize)), int64(min(span.To, merkle.MaxSize))
		}
		err := s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
			_, err := t.ExecContext(ctx, sqlNotePurged, id, firsts, ends, s.parts.now().UnixMicro())
			return err
		})
		if err != nil {
			return err
		}
		if err := s.fault("noted spans"); err != nil {
			return err
		}
	}
	return nil
}

// Reduce replaces contents, and notes that their parts are to be rewritten.
func (s *Store) Reduce(ctx context.Context, id log.ID, contents []log.Reduced) error {
	if len(contents) == 0 {
		return nil
	}
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		where, err := s.partsOf(ctx, t, id, contents[len(contents)-1].Index+1)
		if err != nil {
			return err
		}
		for rest := contents; len(rest) > 0; {
			part, end := where.at(rest[0].Index)
			n := 0
			for n < len(rest) && rest[n].Index < end {
				n++
			}
			if part == 0 {
				return fmt.Errorf("content %d: %w", rest[0].Index, log.ErrNotFound)
			}
			if err := reduceIn(ctx, t, part, id, rest[:n]); err != nil {
				return s.partGone(err, id)
			}
			rest = rest[n:]
		}
		return s.fault("reduced")
	})
}

func reduceIn(ctx context.Context, t *sqlx.Tx, part int, id log.ID, contents []log.Reduced) error {
	indices, data := make(pq.Int64Array, len(contents)), make(pq.ByteaArray, len(contents))
	for i, c := range contents {
		indices[i], data[i] = int64(c.Index), c.Data
	}
	var there, reduced int
	if err := t.GetContext(ctx, &there, fmt.Sprintf(sqlThere, part), id, indices); err != nil {
		return err
	}
	if there != len(contents) {
		return fmt.Errorf("%d of %d contents from %d on: %w", len(contents)-there, len(contents), contents[0].Index, log.ErrNotFound)
	}
	if err := t.GetContext(ctx, &reduced, fmt.Sprintf(sqlReduce, part), id, indices, data); err != nil {
		return err
	}
	if reduced == 0 {
		return nil
	}
	_, err := t.ExecContext(ctx, sqlNoteRewrite, part)
	return err
}
