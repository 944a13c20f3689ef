package postgres

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
)

// What PostgreSQL deletes stays readable in its files until something else is written over it, which may be never. So what is to go
// goes with the file it is in: a part of which nothing is left is dropped, and any other is copied without what is to go, and the copy
// takes its place.
//
//  1. A part that is open is closed: the next one of its class is opened.
//  2. It is sealed: a server that hasn't heard of that can't add to it. From here on its rows are only ever reduced.
//  3. What survives is copied to a table beside it, some rows at a time.
//  4. In one short transaction the copy takes the part's name, and what was left out is noted as gone. If contents were reduced
//     meanwhile, the copy may have them as they were, and is thrown away.
//
// After a crash it begins again. Two servers may be at it, though the lease keeps them from that: the fourth step succeeds with the copy
// that the third has made, or not at all.
//
// Appends are to another part since the first step, but for those of late servers. What would have to wait for somebody for longer than
// swapPatience is given up and tried again, so that nobody else waits behind it for longer.

// What is worth rewriting a part for: anything that was erased; and if so much of it was purged, or so little is left, or so much time
// has passed.
const (
	worthShare = 4 // purged rows times this are more than all rows
	worthRows  = 20_000
	worthAfter = 7 * 24 * time.Hour
)

const (
	shredRows     = 2000                   // contents that are copied by one statement
	swapPatience  = 100 * time.Millisecond // for which a lock on a table is waited for, and others wait behind that
	swapAttempts  = 60
	shredLease    = time.Minute // for which a server has the work to itself since it last said so
	shredAway     = 200 * time.Millisecond
	indexPatience = 5 * time.Second // for which those that write the index may be waited for, and made to wait
)

// Statements of Shred.
const (
	sqlTakeLease = `
		UPDATE shredder SET holder = $1, until = clock_timestamp() + make_interval(secs => $2)
		WHERE holder = $1 OR until < clock_timestamp()`
	sqlEndLease = `
		UPDATE shredder SET until = '-infinity' WHERE holder = $1`
	// Where what was purged may still be: each span by the part that it is in. Part 0 is gone.
	sqlRemovals = `
		SELECT r.part, r.log, greatest(r.first, s.first), least(r.until, s.until), s.noted_at
		FROM (SELECT p.log, p.part, p.first,
		             coalesce(lead(p.first) OVER (PARTITION BY p.log ORDER BY p.first), heads.size) AS until
		      FROM log_parts AS p JOIN heads USING (log)
		      WHERE p.log IN (SELECT log FROM purged_spans)) AS r
		     JOIN purged_spans AS s ON s.log = r.log AND s.first < r.until AND s.until > r.first
		ORDER BY 1, 2, 3`
	sqlRewrites = `
		SELECT part, version FROM rewrites WHERE version > done ORDER BY part`
	sqlRewriteVersion = `
		SELECT coalesce((SELECT version FROM rewrites WHERE part = $1), 0)`
	sqlPartState = `
		SELECT class, closed_at IS NOT NULL, sealed_at IS NOT NULL, dropped_at IS NOT NULL FROM parts WHERE part = $1`
	sqlCountPart = `
		SELECT count(*) FROM payloads_%d`
	sqlCountSpans = `
		SELECT coalesce(sum((SELECT count(*) FROM payloads_%d AS c WHERE c.log = s.log AND c.idx >= s.first AND c.idx < s.until)), 0)::BIGINT
		FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[]) AS s (log, first, until)`
	// Conflicts with inserts, and not with reads.
	sqlSeal = `
		CREATE OR REPLACE TRIGGER sealed BEFORE INSERT ON payloads_%d FOR EACH ROW EXECUTE FUNCTION refuse_contents()`
	sqlNoteSealed = `
		UPDATE parts SET sealed_at = $2 WHERE part = $1 AND sealed_at IS NULL`
	// Where the contents of a part are, by log.
	sqlPartRanges = `
		SELECT log, first, until
		FROM (SELECT p.log, p.part, p.first,
		             coalesce(lead(p.first) OVER (PARTITION BY p.log ORDER BY p.first), heads.size) AS until
		      FROM log_parts AS p JOIN heads USING (log)
		      WHERE p.log IN (SELECT log FROM log_parts WHERE part = $1)) AS r
		WHERE part = $1 ORDER BY log, first`
	sqlDropCopy = `
		DROP TABLE IF EXISTS payloads_%[1]d_new`
	sqlCopyNoStatistics = `
		ALTER TABLE payloads_%d_new ALTER COLUMN seed SET STATISTICS 0, ALTER COLUMN payload SET STATISTICS 0`
	// The constraint spares PostgreSQL the reading of all rows when the copy takes the part's place.
	sqlCreateCopy = `
		CREATE TABLE payloads_%[1]d_new (LIKE payloads INCLUDING ALL, PRIMARY KEY (log, idx), CONSTRAINT copied CHECK (part = %[1]d))`
	sqlCopyTables = `
		SELECT 'payloads_%[1]d'::regclass::oid::BIGINT, coalesce(to_regclass('payloads_%[1]d_new')::oid::BIGINT, 0)`
	sqlSetPatience = `
		SET LOCAL lock_timeout = %d`
	sqlNoHurry = `
		SET LOCAL synchronous_commit = off`
	sqlCopyRanges = `
		INSERT INTO payloads_%[1]d_new (log, idx, part, seed, payload)
		SELECT c.*
		FROM unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[]) AS r (log, first, until),
		     LATERAL (SELECT log, idx, part, seed, payload FROM payloads_%[1]d AS p
		              WHERE p.log = r.log AND p.idx >= r.first AND p.idx < r.until ORDER BY p.idx OFFSET 0) AS c`
	sqlSealCopy = `
		CREATE TRIGGER sealed BEFORE INSERT ON payloads_%d_new FOR EACH ROW EXECUTE FUNCTION refuse_contents()`
	sqlLockPart = `
		LOCK TABLE payloads_%d IN ACCESS EXCLUSIVE MODE`
	sqlDetachPart = `
		ALTER TABLE payloads DETACH PARTITION payloads_%d`
	sqlDropPart = `
		DROP TABLE payloads_%d`
	sqlNoteDropped = `
		UPDATE parts SET dropped_at = $2, closed_at = coalesce(closed_at, $2) WHERE part = $1`
	sqlLeavePart = `
		UPDATE log_parts SET part = 0 WHERE part = $1`
	sqlEndRewrites = `
		DELETE FROM rewrites WHERE part = $1`
	sqlNoteRewritten = `
		UPDATE rewrites SET done = $2 WHERE part = $1`
	sqlStatisticsFile = `
		SELECT pg_relation_filenode('pg_statistic')`
	sqlRewriteStatistics = `
		VACUUM (FULL) pg_statistic`
	sqlSpansOf = `
		SELECT first, until, noted_at FROM purged_spans WHERE log = $1 AND first < $3 AND until > $2 ORDER BY first FOR UPDATE`
	sqlKeepSpan = `
		INSERT INTO purged_spans (log, first, until, noted_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (log, first) DO UPDATE SET until = greatest(purged_spans.until, excluded.until)`
	sqlForgetSpan = `
		DELETE FROM purged_spans WHERE log = $1 AND first = $2`
)

// sqlRename gives the copy of a part its name.
var sqlRename = []string{
	`ALTER TABLE payloads_%[1]d_new RENAME TO payloads_%[1]d`,
	`ALTER INDEX payloads_%[1]d_new_pkey RENAME TO payloads_%[1]d_pkey`,
	sqlAttachPart,
	`ALTER TABLE payloads_%[1]d DROP CONSTRAINT copied`,
}

// removal is contents of a log to remove from a part.
type removal struct {
	log log.ID
	log.Span
	notedAt int64
}

// errChanged means that a copy isn't of what is there now.
var errChanged = errors.New("something was removed from the table while it was copied")

// Shred drops or rewrites one part, or the search index.
func (s *Store) Shred(ctx context.Context) (more bool, err error) {
	if s.custody == nil {
		return false, errReadOnly
	}
	mine, err := s.lease(ctx)
	if err != nil {
		return false, err
	}
	if !mine {
		return true, pause(ctx, shredAway)
	}
	defer s.endLease()
	more, err = s.shredOne(ctx)
	if errors.Is(err, errChanged) {
		return true, nil
	}
	return more, err
}

func (s *Store) shredOne(ctx context.Context) (more bool, err error) {
	removals, err := s.removals(ctx)
	if err != nil {
		return false, err
	}
	if gone := removals[0]; gone != nil { // with the parts that it was in
		if err := s.shredTx(ctx, 0, func(t *sqlx.Tx) error { return forget(ctx, t, gone) }); err != nil {
			return false, err
		}
		delete(removals, 0)
	}
	parts, index, statistics := []int{}, false, false
	err = each(ctx, s.read, sqlRewrites, func(rows *sql.Rows) error {
		var part int
		var version int64
		err := rows.Scan(&part, &version)
		switch part {
		case indexBlocks:
			index = true
		case allStatistics:
			statistics = true
		default:
			parts = append(parts, part)
		}
		return err
	})
	if err != nil {
		return false, err
	}
	erased := slices.Clone(parts)
	for part := range removals {
		parts = append(parts, part)
	}
	for _, part := range distinct(parts) {
		worked, err := s.shredPart(ctx, part, removals[part], slices.Contains(erased, part))
		if worked || err != nil {
			return worked, err
		}
	}
	switch {
	case index:
		return true, s.shredIndex(ctx)
	case statistics:
		return true, s.shredStatistics(ctx)
	}
	return false, nil
}

// shredStatistics rewrites the table of PostgreSQL's statistics, which has samples that older versions let it take of contents. It is small.
func (s *Store) shredStatistics(ctx context.Context) error {
	var before, after int64
	for _, statement := range []func() error{
		func() error { return s.custody.GetContext(ctx, &before, sqlStatisticsFile) },
		func() error { _, err := s.custody.ExecContext(ctx, sqlRewriteStatistics); return err },
		func() error { return s.custody.GetContext(ctx, &after, sqlStatisticsFile) },
	} {
		if err := statement(); err != nil {
			return fmt.Errorf("rewriting PostgreSQL's statistics: %w", describe(err))
		}
	}
	if before == after {
		s.logger.Warn("PostgreSQL's statistics may still have samples of contents that were taken by an older version, since only the database's " +
			"owner can remove them: let the owner run VACUUM FULL pg_statistic")
	}
	return s.shredTx(ctx, 0, func(t *sqlx.Tx) error {
		_, err := t.ExecContext(ctx, sqlNoteRewritten, allStatistics, 1)
		return err
	})
}

// removals returns what is to be removed from each part.
func (s *Store) removals(ctx context.Context) (map[int][]removal, error) {
	all := make(map[int][]removal)
	err := each(ctx, s.read, sqlRemovals, func(rows *sql.Rows) error {
		var part int
		var r removal
		if err := rows.Scan(&part, &r.log, &r.From, &r.To, &r.notedAt); err != nil {
			return err
		}
		in := all[part]
		if n := len(in); n > 0 && in[n-1].log == r.log && r.From <= in[n-1].To { // spans may overlap
			in[n-1].To, in[n-1].notedAt = max(in[n-1].To, r.To), min(in[n-1].notedAt, r.notedAt)
			return nil
		}
		all[part] = append(in, r)
		return nil
	})
	return all, err
}

// shredPart removes from a part what is to go, and reports whether it did, which it doesn't if it isn't worth it.
func (s *Store) shredPart(ctx context.Context, part int, going []removal, erased bool) (bool, error) {
	var class string
	var closed, sealed, dropped bool
	if err := scanRow(ctx, s.read, sqlPartState, []any{part}, &class, &closed, &sealed, &dropped); err != nil {
		return false, describe(err)
	}
	if dropped {
		return false, damaged("part %d was dropped, and something is to be removed from it", part)
	}
	rows, gone, err := s.countPart(ctx, part, going)
	if err != nil {
		return false, err
	}
	if gone == 0 && !erased {
		return false, s.shredTx(ctx, 0, func(t *sqlx.Tx) error { return forget(ctx, t, going) })
	}
	if !erased && !s.worth(rows, gone, going) {
		return false, nil
	}
	if !closed {
		if err := s.openPart(ctx, class, part); err != nil {
			return false, err
		}
		if err := s.fault("closed the part"); err != nil {
			return false, err
		}
	}
	if !sealed {
		if err := s.seal(ctx, part); err != nil {
			return false, err
		}
	}
	// What was added since, by late servers.
	if rows, gone, err = s.countPart(ctx, part, going); err != nil {
		return false, err
	}
	if rows == gone {
		return true, s.dropPart(ctx, part)
	}
	return true, s.rewritePart(ctx, part, going, rows-gone)
}

func (s *Store) countPart(ctx context.Context, part int, going []removal) (rows, gone uint64, err error) {
	if err := s.custody.GetContext(ctx, &rows, fmt.Sprintf(sqlCountPart, part)); err != nil {
		return 0, 0, describe(err)
	}
	logs, firsts, ends := removalArrays(going)
	err = s.custody.GetContext(ctx, &gone, fmt.Sprintf(sqlCountSpans, part), logs, firsts, ends)
	return rows, gone, describe(err)
}

func (s *Store) worth(rows, gone uint64, going []removal) bool {
	first := slices.MinFunc(going, func(a, b removal) int { return cmp.Compare(a.notedAt, b.notedAt) }).notedAt
	return gone*worthShare >= rows || rows-gone <= worthRows || s.parts.now().Sub(time.UnixMicro(first)) > worthAfter
}

func removalArrays(all []removal) (logs, firsts, ends pq.Int64Array) {
	for _, r := range all {
		logs, firsts, ends = append(logs, int64(r.log)), append(firsts, int64(r.From)), append(ends, int64(r.To))
	}
	return logs, firsts, ends
}

// seal lets nobody add to a part.
func (s *Store) seal(ctx context.Context, part int) error {
	err := s.shredTx(ctx, swapPatience, func(t *sqlx.Tx) error {
		if _, err := t.ExecContext(ctx, fmt.Sprintf(sqlSeal, part)); err != nil {
			return err
		}
		_, err := t.ExecContext(ctx, sqlNoteSealed, part, s.parts.now().UnixMicro())
		return err
	})
	if err != nil {
		return fmt.Errorf("sealing part %d of contents: %w", part, err)
	}
	return s.fault("sealed the part")
}

// dropPart drops a part all of whose contents are to go. That they are gone is seen by that.
func (s *Store) dropPart(ctx context.Context, part int) error {
	err := s.shredTx(ctx, swapPatience, func(t *sqlx.Tx) error {
		for _, statement := range []string{sqlLockPart, sqlDetachPart, sqlDropPart} {
			if _, err := t.ExecContext(ctx, fmt.Sprintf(statement, part)); err != nil {
				return err
			}
		}
		if _, err := t.ExecContext(ctx, sqlNoteDropped, part, s.parts.now().UnixMicro()); err != nil {
			return err
		}
		for _, statement := range []string{sqlLeavePart, sqlEndRewrites} {
			if _, err := t.ExecContext(ctx, statement, part); err != nil {
				return err
			}
		}
		return s.fault("dropping the part")
	})
	if err != nil {
		return fmt.Errorf("dropping part %d of contents: %w", part, err)
	}
	return s.fault("dropped the part")
}

// partCopy is a copy of a part that is yet to take its place.
type partCopy struct {
	part         int
	of, to       int64 // oids of the tables
	version      int64 // of the part, see rewrites
	leftOut      []removal
	rows, copied uint64
}

// rewritePart has a copy without what is to go take the place of a part. A copy that couldn't yet, since somebody reads the part, is
// kept for the next attempt.
func (s *Store) rewritePart(ctx context.Context, part int, going []removal, survivors uint64) error {
	c := s.copied
	s.copied = nil
	if c == nil || c.part != part || !slices.Equal(c.leftOut, going) {
		var err error
		if c, err = s.copyPart(ctx, part, going, survivors); err != nil {
			return fmt.Errorf("rewriting part %d of contents: %w", part, err)
		}
	}
	err := s.shredTx(ctx, swapPatience, func(t *sqlx.Tx) error { return s.swapPart(ctx, t, c) })
	if pq.As(err, pqerror.LockNotAvailable) != nil {
		s.copied = c
	}
	if err != nil {
		return fmt.Errorf("putting a copy in the place of part %d of contents: %w", part, err)
	}
	return s.fault("swapped the part")
}

// copyPart copies what survives of a sealed part.
func (s *Store) copyPart(ctx context.Context, part int, going []removal, survivors uint64) (*partCopy, error) {
	c := &partCopy{part: part, leftOut: going, rows: survivors}
	err := s.shredTx(ctx, 0, func(t *sqlx.Tx) error {
		if err := t.GetContext(ctx, &c.version, sqlRewriteVersion, part); err != nil {
			return err
		}
		for _, statement := range []string{sqlDropCopy, sqlCreateCopy, sqlCopyNoStatistics} {
			if _, err := t.ExecContext(ctx, fmt.Sprintf(statement, part)); err != nil {
				return err
			}
		}
		return t.QueryRowxContext(ctx, fmt.Sprintf(sqlCopyTables, part)).Scan(&c.of, &c.to)
	})
	if err != nil {
		return nil, err
	}
	var ranges []removal
	err = each(ctx, s.read, sqlPartRanges, func(rows *sql.Rows) error {
		var r removal
		if err := rows.Scan(&r.log, &r.From, &r.To); err != nil {
			return err
		}
		ranges = append(ranges, r)
		return nil
	}, part)
	if err != nil {
		return nil, err
	}
	for page := range pages(without(ranges, going), shredRows) {
		began := time.Now()
		if err := s.copyPage(ctx, c, page); err != nil {
			return nil, err
		}
		// Others have the disk for as long.
		if err := pause(ctx, time.Since(began)); err != nil {
			return nil, err
		}
		if err := s.keepLease(ctx); err != nil {
			return nil, err
		}
	}
	if c.copied != c.rows {
		return nil, damaged("part %d has %d contents that stay, %d of them are where their logs' are", part, c.rows, c.copied)
	}
	err = s.shredTx(ctx, 0, func(t *sqlx.Tx) error {
		_, err := t.ExecContext(ctx, fmt.Sprintf(sqlSealCopy, part))
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, s.fault("copied the part")
}

func (s *Store) copyPage(ctx context.Context, c *partCopy, page []removal) error {
	logs, firsts, ends := removalArrays(page)
	var n int64
	err := s.shredTx(ctx, 0, func(t *sqlx.Tx) error {
		if _, err := t.ExecContext(ctx, sqlNoHurry); err != nil { // what the swap commits makes all of it durable
			return err
		}
		res, err := t.ExecContext(ctx, fmt.Sprintf(sqlCopyRanges, c.part), logs, firsts, ends)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	c.copied += uint64(n)
	if err != nil {
		return err
	}
	return s.fault("copied some of the part")
}

// swapPart lets a copy take the place of its part.
func (s *Store) swapPart(ctx context.Context, t *sqlx.Tx, c *partCopy) error {
	if _, err := t.ExecContext(ctx, fmt.Sprintf(sqlLockPart, c.part)); err != nil {
		return err
	}
	var version, of, to int64
	if err := t.GetContext(ctx, &version, sqlRewriteVersion, c.part); err != nil {
		return err
	}
	if err := t.QueryRowxContext(ctx, fmt.Sprintf(sqlCopyTables, c.part)).Scan(&of, &to); err != nil {
		return err
	}
	if version != c.version || of != c.of || to != c.to {
		return errChanged
	}
	for _, statement := range slices.Concat([]string{sqlDetachPart, sqlDropPart}, sqlRename) {
		if _, err := t.ExecContext(ctx, fmt.Sprintf(statement, c.part)); err != nil {
			return err
		}
	}
	if _, err := t.ExecContext(ctx, sqlNoteRewritten, c.part, c.version); err != nil {
		return err
	}
	if err := forget(ctx, t, c.leftOut); err != nil {
		return err
	}
	return s.fault("swapping the part")
}

// forget takes what is gone from the spans that are noted as purged.
func forget(ctx context.Context, t *sqlx.Tx, gone []removal) error {
	for len(gone) > 0 {
		id, n := gone[0].log, 1
		for n < len(gone) && gone[n].log == id {
			n++
		}
		if err := forgetOf(ctx, t, id, gone[:n]); err != nil {
			return err
		}
		gone = gone[n:]
	}
	return nil
}

// forgetOf does so for one log, whose ranges ascend.
func forgetOf(ctx context.Context, t *sqlx.Tx, id log.ID, gone []removal) error {
	var noted []removal
	rows, err := t.QueryContext(ctx, sqlSpansOf, id, gone[0].From, gone[len(gone)-1].To)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r := removal{log: id}
		if err := rows.Scan(&r.From, &r.To, &r.notedAt); err != nil {
			return err
		}
		noted = append(noted, r)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, r := range noted {
		if _, err := t.ExecContext(ctx, sqlForgetSpan, id, r.From); err != nil {
			return err
		}
	}
	for _, r := range noted {
		for _, left := range without([]removal{r}, gone) {
			_, err := t.ExecContext(ctx, sqlKeepSpan, id, left.From, left.To, r.notedAt)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// without returns what is left of ranges without those that go; both ascend by log and index.
func without(ranges, going []removal) (left []removal) {
	for _, r := range ranges {
		i, _ := slices.BinarySearchFunc(going, r, func(g, r removal) int { // the first that ends after r begins
			return cmp.Or(cmp.Compare(g.log, r.log), cmp.Compare(g.To, r.From+1))
		})
		for ; i < len(going) && going[i].log == r.log && going[i].From < r.To; i++ {
			if g := going[i]; g.From > r.From {
				left = append(left, removal{log: r.log, Span: log.Span{From: r.From, To: g.From}})
			}
			r.From = min(going[i].To, r.To)
		}
		if r.From < r.To {
			left = append(left, removal{log: r.log, Span: r.Span})
		}
	}
	return left
}

// pages cuts ranges into lists of about n indices each.
func pages(ranges []removal, n uint64) func(yield func([]removal) bool) {
	return func(yield func([]removal) bool) {
		var page []removal
		room := n
		for _, r := range ranges {
			for r.From < r.To {
				end := min(r.To, r.From+room)
				page = append(page, removal{log: r.log, Span: log.Span{From: r.From, To: end}})
				if room -= end - r.From; room == 0 {
					if !yield(page) {
						return
					}
					page, room = nil, n
				}
				r.From = end
			}
		}
		if page != nil {
			yield(page)
		}
	}
}

// shredTx commits what fn does, on a connection that no append waits for. If it waits for a lock for longer than patience, it is done
// again a little later; 0 is as long as any statement.
func (s *Store) shredTx(ctx context.Context, patience time.Duration, fn func(*sqlx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := s.inTxOn(ctx, s.custody, func(_ *sqlx.Conn, t *sqlx.Tx) error {
			if patience > 0 {
				if _, err := t.ExecContext(ctx, fmt.Sprintf(sqlSetPatience, patience.Milliseconds())); err != nil {
					return err
				}
			}
			return fn(t)
		})
		if pq.As(err, pqerror.LockNotAvailable) == nil || attempt == swapAttempts {
			return err
		}
		if err := pause(ctx, patience*time.Duration(min(attempt, 10))/2); err != nil {
			return err
		}
	}
}

// pause waits, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// shredder is this server, in so far as it shreds.
type shredder struct {
	sync.Mutex
	busy  bool
	name  string    // by which the lease is known
	since time.Time // when it was taken last
}

// lease takes the work of Shred, and reports whether nobody else has it.
func (s *Store) lease(ctx context.Context) (bool, error) {
	s.shredder.Lock()
	if s.shredder.busy {
		s.shredder.Unlock()
		return false, nil
	}
	s.shredder.busy = true
	s.shredder.Unlock()
	mine, err := s.takeLease(ctx)
	if !mine {
		s.shredder.Lock()
		s.shredder.busy = false
		s.shredder.Unlock()
	}
	return mine, err
}

func (s *Store) takeLease(ctx context.Context) (bool, error) {
	if s.shredder.name == "" {
		s.shredder.name = rand.Text()
	}
	err := s.inTxOn(ctx, s.custody, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		return changeOne(t.ExecContext(ctx, sqlTakeLease, s.shredder.name, shredLease.Seconds()))
	})
	if errors.Is(err, log.ErrNotFound) {
		return false, nil
	}
	s.shredder.since = time.Now()
	return err == nil, err
}

// keepLease says again that this server has the work.
func (s *Store) keepLease(ctx context.Context) error {
	if time.Since(s.shredder.since) < shredLease/4 {
		return nil
	}
	mine, err := s.takeLease(ctx)
	if err == nil && !mine {
		err = errors.New("another server has taken over")
	}
	return err
}

func (s *Store) endLease() {
	ctx, cancel := context.WithTimeout(context.Background(), pingTimeout)
	defer cancel()
	err := s.inTxOn(ctx, s.custody, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		_, err := t.ExecContext(ctx, sqlEndLease, s.shredder.name)
		return err
	})
	if err != nil {
		s.logger.Info("other servers will wait until they remove what was purged and erased", "for", shredLease, "error", err)
	}
	s.shredder.Lock()
	s.shredder.busy = false
	s.shredder.Unlock()
}
