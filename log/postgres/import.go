package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
)

// Import adds empty logs, keys and labels.
func (s *Store) Import(ctx context.Context, logs []log.Info, keys []log.Key, labels map[string]string) error {
	err := s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error { return importAll(ctx, t, logs, keys, labels) })
	if pq.As(err, pqerror.UniqueViolation) != nil {
		return fmt.Errorf("%w: %w", log.ErrExists, err)
	}
	return err
}

func importAll(ctx context.Context, t *sqlx.Tx, logs []log.Info, keys []log.Key, labels map[string]string) error {
	for i := range logs {
		l := &logs[i]
		c := l.Settings
		_, err := t.ExecContext(ctx, sqlImportLog, l.ID, l.Name, l.Origin, l.CreatedAt, c.Title, c.Public, c.Rates.Events, c.Rates.Requests,
			packTexts(c.Required))
		if err != nil {
			return err
		}
		if err := insertEmpty(ctx, t, l.ID, l); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if err := insertKey(ctx, t, k); err != nil {
			return err
		}
	}
	for name, value := range labels {
		if _, err := t.ExecContext(ctx, sqlImportLabel, name, value); err != nil {
			return err
		}
	}
	return nil
}

// RecordAll adds checkpoints.
func (s *Store) RecordAll(ctx context.Context, id log.ID, all []log.Signed) error {
	if len(all) == 0 {
		return nil
	}
	sizes, notes := make(pq.Int64Array, len(all)), make(pq.ByteaArray, len(all))
	for i, c := range all {
		sizes[i], notes[i] = int64(c.Size), c.Note
	}
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		err := changeOne(t.ExecContext(ctx, sqlMoveSignedOver, id, sizes[0], sizes[len(sizes)-1]))
		if errors.Is(err, log.ErrNotFound) {
			return fmt.Errorf("checkpoints from size %d on can't be recorded: %w", sizes[0], log.ErrExists)
		}
		if err != nil {
			return err
		}
		_, err = t.ExecContext(ctx, sqlInsertCheckpoints, id, sizes, notes)
		return err
	})
}

// RenameLabel gives a text another name.
func (s *Store) RenameLabel(ctx context.Context, from, to string) error {
	return s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error { return changeOne(t.ExecContext(ctx, sqlRenameLabel, from, to)) })
}
