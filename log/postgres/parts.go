package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
)

// A part is closed after partAge or so many rows, whichever comes first; that is looked at every partCheck.
const (
	partAge   = 30 * 24 * time.Hour
	partCheck = 5 * time.Second
)

// parts is what a server knows of the parts that contents are in.
//
// A log's contents are in one part from some index on, up to where the log went on to the next one, which is decided in the
// transaction that appends the first of them. So a server that doesn't know yet that a part was closed may add to it for a
// moment, and nobody reads in the wrong place.
type parts struct {
	rows uint64 // after which a part is closed
	now  func() time.Time

	// stale means that a part that this server believed to be open takes nothing any more, so that parts are to be read again.
	stale atomic.Bool

	mu    sync.Mutex
	open  map[string]part // the newest of each class
	class map[int]string  // of parts, as far as that was read: it never changes
	of    map[log.ID]logParts
}

type part struct {
	number   int
	openedAt int64 // µs since 1970 UTC
}

// logParts is where a log's contents were when it had a size. What is below never changes its part, unless that is dropped.
type logParts struct {
	size   uint64
	ranges []partRange // in order of first
}

type partRange struct {
	first uint64
	part  int // 0: it was dropped
}

// at returns the part that holds the content at an index, and the index from which on it is another one; 0 if there is none.
func (p logParts) at(index uint64) (part int, end uint64) {
	end = math.MaxUint64
	for i := len(p.ranges) - 1; i >= 0; i-- {
		if r := p.ranges[i]; r.first <= index {
			return r.part, end
		}
		end = p.ranges[i].first
	}
	return 0, end
}

// loadParts reads which parts are open, and makes ready to append to them.
func (s *Store) loadParts(ctx context.Context) error {
	s.parts.stale.Store(false)
	open, err := s.readParts(ctx, s.read)
	if err != nil {
		s.parts.stale.Store(true)
		return err
	}
	for _, p := range open {
		if _, err := s.write.stmt(ctx, appendSmall(p.number)); err != nil && pq.As(err, pqerror.UndefinedTable) == nil { // dropped already
			return describe(err)
		}
	}
	return nil
}

// readParts reads which parts are open, and notes it.
func (s *Store) readParts(ctx context.Context, db queryer) (map[string]part, error) {
	open := make(map[string]part)
	err := each(ctx, db, sqlParts, func(rows *sql.Rows) error {
		var class string
		var p part
		err := rows.Scan(&p.number, &class, &p.openedAt)
		open[class] = p
		return err
	})
	if err != nil {
		return nil, err
	}
	s.parts.mu.Lock()
	defer s.parts.mu.Unlock()
	s.parts.open = open
	for class, p := range open {
		s.parts.noteClass(p.number, class)
	}
	return open, nil
}

// noteClass notes the class of a part, with the lock held.
func (p *parts) noteClass(number int, class string) {
	if p.class == nil {
		p.class = make(map[int]string)
	}
	p.class[number] = class
}

// partFor returns the part for new contents of a class, of a log whose newest content is in the part last. What it doesn't know of
// that part it reads from db.
func (s *Store) partFor(ctx context.Context, db queryer, class string, last int) (int, error) {
	s.parts.mu.Lock()
	p, ok := s.parts.open[class]
	classOfLast, known := s.parts.class[last]
	s.parts.mu.Unlock()
	if !ok { // another server has just made the class
		open, err := s.readParts(ctx, db)
		if err != nil {
			return 0, err
		}
		if p, ok = open[class]; !ok {
			return 0, damaged("there is no part for contents of class %s", class)
		}
	}
	if last <= p.number {
		return p.number, nil
	}
	if !known {
		err := scanRow(ctx, db, sqlPartClass, []any{last}, &classOfLast)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, damaged("part %d isn't there", last)
		}
		if err != nil {
			return 0, describe(err)
		}
		s.parts.mu.Lock()
		s.parts.noteClass(last, classOfLast)
		s.parts.mu.Unlock()
	}
	if classOfLast != class { // the log's class was changed
		return p.number, nil
	}
	return last, nil // another server has gone on to a part that this one hasn't heard of
}

// openPart makes the next part of a class, unless another server has done so after the part last, and makes it known.
func (s *Store) openPart(ctx context.Context, class string, last int) error {
	if err := s.loadParts(ctx); err != nil {
		return err
	}
	s.parts.mu.Lock()
	p, ok := s.parts.open[class]
	s.parts.mu.Unlock()
	if ok && p.number > last {
		return nil
	}
	err := s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error { return createPart(ctx, t, class, last, s.parts.now()) })
	if err != nil && pq.As(err, pqerror.UniqueViolation, pqerror.DuplicateTable) == nil {
		return fmt.Errorf("opening a part for contents of class %s: %w", class, err)
	}
	return s.loadParts(ctx) // made here, or at the same time by another server
}

func createPart(ctx context.Context, t *sqlx.Tx, class string, last int, now time.Time) error {
	var number int
	err := t.GetContext(ctx, &number, sqlInsertPart, class, now.UnixMicro(), last)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // another server has opened it meanwhile
	}
	if err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, sqlCloseParts, class, now.UnixMicro(), number); err != nil {
		return err
	}
	for _, statement := range []string{sqlCreatePart, sqlNoStatistics, sqlAttachPart} {
		if _, err := t.ExecContext(ctx, fmt.Sprintf(statement, number)); err != nil {
			return err
		}
	}
	return nil
}

// rotate opens the next part of a class when the newest one is full or old, until ctx ends.
func (s *Store) rotate(ctx context.Context) {
	tick := time.NewTicker(partCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.rotateFull(ctx); err != nil && ctx.Err() == nil {
			s.logger.Warn("parts of contents couldn't be looked after, will be tried again", "error", err)
		}
	}
}

func (s *Store) rotateFull(ctx context.Context) error {
	if err := s.loadParts(ctx); err != nil {
		return err
	}
	s.parts.mu.Lock()
	open := make(map[string]part, len(s.parts.open))
	for class, p := range s.parts.open {
		open[class] = p
	}
	s.parts.mu.Unlock()
	var errs []error
	for class, p := range open {
		var rows uint64
		if err := s.read.GetContext(ctx, &rows, sqlPartRows, p.number); err != nil {
			errs = append(errs, describe(err))
			continue
		}
		if rows >= s.parts.rows || rows > 0 && s.parts.now().Sub(time.UnixMicro(p.openedAt)) > partAge {
			errs = append(errs, s.openPart(ctx, class, p.number))
		}
	}
	return errors.Join(errs...)
}

// partsOf returns where a log's contents are, up to a size.
func (s *Store) partsOf(ctx context.Context, db queryer, id log.ID, size uint64) (logParts, error) {
	s.parts.mu.Lock()
	known, ok := s.parts.of[id]
	s.parts.mu.Unlock()
	if ok && size <= known.size {
		return known, nil
	}
	known = logParts{}
	rows, err := db.QueryContext(ctx, sqlPartsOf, id)
	if err != nil {
		return known, describe(err)
	}
	defer rows.Close()
	for rows.Next() {
		var r partRange
		if err := rows.Scan(&known.size, &r.part, &r.first); err != nil {
			return known, describe(err)
		}
		known.ranges = append(known.ranges, r) // an empty log has one without a part
	}
	if err := rows.Err(); err != nil {
		return known, describe(err)
	}
	s.parts.mu.Lock()
	defer s.parts.mu.Unlock()
	if s.parts.of == nil {
		s.parts.of = make(map[log.ID]logParts)
	}
	s.parts.of[id] = known
	return known, nil
}

// partGone returns what an error means that a statement on a part of a log's contents has ended with: if there is no such table, the part
// was dropped meanwhile, and what is known of parts is to be read again.
func (s *Store) partGone(err error, id log.ID) error {
	if pq.As(err, pqerror.UndefinedTable) == nil {
		return describe(err)
	}
	s.parts.mu.Lock()
	delete(s.parts.of, id)
	s.parts.mu.Unlock()
	return fmt.Errorf("%w: a part was dropped meanwhile: %w", log.ErrRolledBack, err)
}

// partEnded returns what an error means that adding to a part has ended with: if the part was sealed or dropped, the batch is to be added to
// the one after it.
func (s *Store) partEnded(err error) error {
	if e := pq.As(err, pqerror.UndefinedTable); e == nil {
		if e = pq.As(err); e == nil || e.Code != sealedPart {
			return err
		}
	}
	s.parts.stale.Store(true)
	return fmt.Errorf("%w: a part takes no more contents: %w", log.ErrRolledBack, err)
}

// sealedPart is the SQLSTATE of refuse_contents.
const sealedPart = "TL001"

// payloadsAt calls fn with the contents at the indices, which ascend.
func (s *Store) payloadsAt(ctx context.Context, db queryer, id log.ID, indices []uint64, fn func(uint64, log.Payload) error) error {
	if len(indices) == 0 {
		return nil
	}
	where, err := s.partsOf(ctx, db, id, indices[len(indices)-1]+1)
	if err != nil {
		return err
	}
	for len(indices) > 0 {
		part, end := where.at(indices[0])
		n, _ := slices.BinarySearch(indices, end)
		err := s.payloadsIn(ctx, db, part, sqlPayloadsAt, fn, id, intArray(indices[:n]))
		if err != nil {
			return s.partGone(err, id)
		}
		indices = indices[n:]
	}
	return nil
}

// payloadsIn calls fn with the contents that a statement finds in a part. Nothing is in none.
func (s *Store) payloadsIn(ctx context.Context, db queryer, part int, statement string, fn func(uint64, log.Payload) error, args ...any) error {
	if part == 0 {
		return nil
	}
	rows, err := db.QueryContext(ctx, fmt.Sprintf(statement, part), args...)
	if err != nil {
		return err
	}
	return eachPayload(rows, fn)
}

func distinct(parts []int) []int {
	return slices.Compact(slices.Sorted(slices.Values(parts)))
}
