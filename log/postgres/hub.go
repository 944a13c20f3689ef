package postgres

import (
	"context"
	"database/sql"

	"github.com/lib/pq"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// CheckpointsOf calls fn with the notes of the checkpoints that growths name, a page of them at a time.
func (s *Store) CheckpointsOf(ctx context.Context, growths []log.Growth, fn func(i int, note []byte) error) error {
	for from := 0; from < len(growths); from += pagePayloads {
		page := growths[from:min(from+pagePayloads, len(growths))]
		logs, sizes := make(pq.Int64Array, len(page)), make(pq.Int64Array, len(page))
		for i, g := range page {
			logs[i], sizes[i] = int64(g.Log), int64(g.Size)
		}
		err := each(ctx, s.read, sqlCheckpointsOf, func(rows *sql.Rows) error {
			var number int // from 1
			var note []byte
			if err := rows.Scan(&number, &note); err != nil {
				return err
			}
			return fn(from+number-1, note)
		}, logs, sizes)
		if err != nil {
			return err
		}
	}
	return nil
}

// Growths calls fn with the growths of a hub's entries [from, to).
func (s *Store) Growths(ctx context.Context, hub log.ID, from, to uint64, fn func(log.Growth) error) error {
	for from < to {
		end := min(to, from+pageEntries)
		err := each(ctx, s.read, sqlGrowths, func(rows *sql.Rows) error {
			var g log.Growth
			if err := rows.Scan(&g.Log, &g.Size, &g.Index); err != nil {
				return err
			}
			return fn(g)
		}, hub, from, end)
		if err != nil {
			return err
		}
		from = end
	}
	return nil
}

// NewestGrowths returns the newest growth of each log.
func (s *Store) NewestGrowths(ctx context.Context, hub log.ID, size uint64) (growths []log.Growth, err error) {
	err = each(ctx, s.read, sqlNewestGrowths, func(rows *sql.Rows) error {
		var g log.Growth
		err := rows.Scan(&g.Log, &g.Size, &g.Index)
		growths = append(growths, g)
		return err
	}, hub, int64(min(size, merkle.MaxSize)))
	return growths, err
}

// GrowthBefore returns the newest growth of a log to less than a size.
func (s *Store) GrowthBefore(ctx context.Context, hub, id log.ID, size uint64) (g log.Growth, err error) {
	err = scanRow(ctx, s.read, sqlGrowthBefore, []any{hub, id, int64(min(size, merkle.MaxSize))}, &g.Log, &g.Size, &g.Index)
	return g, orNotFound(err)
}
