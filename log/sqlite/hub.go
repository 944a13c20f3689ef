package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
)

// CheckpointsOf calls fn with the notes of the checkpoints that growths name.
func (s *Store) CheckpointsOf(ctx context.Context, growths []log.Growth, fn func(i int, note []byte) error) error {
	for i, g := range growths {
		var note []byte
		err := s.stmts.rCheckpointOf.QueryRowxContext(ctx, g.Log, g.Size).Scan(&note)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return describe(err)
		}
		if err := fn(i, note); err != nil {
			return err
		}
	}
	return nil
}

// Growths calls fn with the growths of a hub's entries [from, to).
func (s *Store) Growths(ctx context.Context, hub log.ID, from, to uint64, fn func(log.Growth) error) error {
	return each(ctx, s.read, sqlGrowths, func(rows *sqlx.Rows) error {
		var g log.Growth
		if err := rows.Scan(&g.Log, &g.Size, &g.Index); err != nil {
			return err
		}
		return fn(g)
	}, hub, from, to)
}

// NewestGrowths returns the newest growth of each log.
func (s *Store) NewestGrowths(ctx context.Context, hub log.ID, size uint64) (growths []log.Growth, err error) {
	err = each(ctx, s.read, sqlNewestGrowths, func(rows *sqlx.Rows) error {
		var g log.Growth
		err := rows.Scan(&g.Log, &g.Size, &g.Index)
		growths = append(growths, g)
		return err
	}, hub, size)
	return growths, err
}

// GrowthBefore returns the newest growth of a log to less than a size.
func (s *Store) GrowthBefore(ctx context.Context, hub, id log.ID, size uint64) (g log.Growth, err error) {
	err = s.read.QueryRowxContext(ctx, sqlGrowthBefore, hub, id, size).Scan(&g.Log, &g.Size, &g.Index)
	return g, orNotFound(err)
}
