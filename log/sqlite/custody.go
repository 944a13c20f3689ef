package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
)

// Statements of what becomes of contents.
const (
	sqlHasPayload = `
		SELECT EXISTS (SELECT 1 FROM payloads WHERE log = ? AND idx = ?)`
	sqlReduce = `
		UPDATE payloads SET seed = NULL, payload = ?3 WHERE log = ?1 AND idx = ?2 AND (seed IS NOT NULL OR payload IS NOT ?3)`
	sqlNextPayload = `
		SELECT idx FROM payloads WHERE log = ? AND idx >= ? AND idx < ? ORDER BY idx LIMIT 1`
	sqlDropPayloads = `
		DELETE FROM payloads WHERE log = ? AND idx >= ? AND idx < ?`
	sqlHasLog = `
		SELECT EXISTS (SELECT 1 FROM logs WHERE id = ?)`
)

// purgeBatch is how many contents one transaction removes, which those that append wait for.
const purgeBatch = 512

// guards let one at a time decide what becomes of a log's contents. There is one server, so they are kept in memory.
type guards struct {
	mu       sync.Mutex
	held     map[log.ID]chan struct{} // of a log: it takes one
	released map[log.ID]uint64        // how often
}

func (g *guards) of(id log.ID) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		g.held, g.released = make(map[log.ID]chan struct{}), make(map[log.ID]uint64)
	}
	if g.held[id] == nil {
		g.held[id] = make(chan struct{}, 1)
	}
	return g.held[id]
}

// Guard lets one at a time decide what becomes of a log's contents.
func (s *Store) Guard(ctx context.Context, id log.ID) (release func(), err error) {
	if s.write == nil {
		return nil, errReadOnly
	}
	if err := s.hasLog(ctx, id); err != nil {
		return nil, err
	}
	held := s.guards.of(id)
	select {
	case held <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return sync.OnceFunc(func() {
		s.guards.mu.Lock()
		s.guards.released[id]++
		s.guards.mu.Unlock()
		<-held
	}), nil
}

// Custody returns how often the Guard of each log was released since the store was opened.
func (s *Store) Custody(context.Context) (map[log.ID]uint64, error) {
	s.guards.mu.Lock()
	defer s.guards.mu.Unlock()
	return maps.Clone(s.guards.released), nil
}

func (s *Store) hasLog(ctx context.Context, id log.ID) error {
	var there bool
	if err := s.read.GetContext(ctx, &there, sqlHasLog, id); err != nil {
		return describe(err)
	}
	if !there {
		return log.ErrNotFound
	}
	return nil
}

// Retain does nothing but look for the log: one file holds all contents, and gives back their space wherever they lie.
func (s *Store) Retain(ctx context.Context, id log.ID, _ string) error {
	if s.write == nil {
		return errReadOnly
	}
	return s.hasLog(ctx, id)
}

// Reduce replaces contents.
func (s *Store) Reduce(ctx context.Context, id log.ID, contents []log.Reduced) error {
	return s.inTx(ctx, func(t *sqlx.Tx) error {
		changed := int64(0)
		for _, c := range contents {
			var there bool
			if err := t.GetContext(ctx, &there, sqlHasPayload, id, c.Index); err != nil {
				return describe(err)
			}
			if !there {
				return fmt.Errorf("content %d: %w", c.Index, log.ErrNotFound)
			}
			res, err := t.ExecContext(ctx, sqlReduce, id, c.Index, c.Data)
			if err != nil {
				return describe(err)
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			changed += n
		}
		if changed == 0 {
			return nil
		}
		_, err := t.ExecContext(ctx, sqlNoteRemoval)
		return describe(err)
	})
}

// Purge removes the contents in spans, some at a time.
func (s *Store) Purge(ctx context.Context, id log.ID, spans []log.Span) error {
	for len(spans) > 0 {
		err := s.inTx(ctx, func(t *sqlx.Tx) (err error) {
			var n uint64
			if spans, n, err = purgeSome(ctx, t, id, spans); err != nil || n == 0 {
				return err
			}
			_, err = t.ExecContext(ctx, sqlNoteRemoval)
			return describe(err)
		})
		if err != nil {
			return err
		}
		if err := s.fault("purged a batch"); err != nil {
			return err
		}
	}
	return nil
}

// purgeSome removes up to purgeBatch contents, and returns the spans that are left, and of how many indices it removed what was there.
func purgeSome(ctx context.Context, t *sqlx.Tx, id log.ID, spans []log.Span) (left []log.Span, n uint64, err error) {
	for len(spans) > 0 {
		span := spans[0]
		err := t.GetContext(ctx, &span.From, sqlNextPayload, id, span.From, span.To)
		if errors.Is(err, sql.ErrNoRows) {
			spans = spans[1:]
			continue
		}
		if err != nil {
			return nil, 0, describe(err)
		}
		if n >= purgeBatch {
			break
		}
		end := min(span.To, span.From+purgeBatch-n)
		if _, err := t.ExecContext(ctx, sqlDropPayloads, id, span.From, end); err != nil {
			return nil, 0, describe(err)
		}
		n += end - span.From
		spans = append([]log.Span{{From: end, To: span.To}}, spans[1:]...)
	}
	return spans, n, nil
}

func (s *Store) inTx(ctx context.Context, fn func(*sqlx.Tx) error) error {
	if s.write == nil {
		return errReadOnly
	}
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	if err := fn(t); err != nil {
		return err
	}
	return describe(t.Commit())
}
