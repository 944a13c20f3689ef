package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
)

// Import adds empty logs, keys and labels.
func (s *Store) Import(ctx context.Context, logs []log.Info, keys []log.Key, labels map[string]string) error {
	err := s.importAll(ctx, logs, keys, labels)
	if pq.As(err, pqerror.UniqueViolation) != nil {
		return fmt.Errorf("%w: %w", log.ErrExists, err)
	}
	return err
}

func (s *Store) importAll(ctx context.Context, logs []log.Info, keys []log.Key, labels map[string]string) error {
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	for i := range logs {
		l := &logs[i]
		if _, err := t.ExecContext(ctx, sqlImportLog, l.ID, l.Name, l.Origin, l.Public, l.CreatedAt); err != nil {
			return describe(err)
		}
		if err := insertEmpty(ctx, t, l.ID, l); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if _, err := t.ExecContext(ctx, sqlInsertKey, k.ID, k.Hash[:], string(k.Role), k.Log, k.Name, k.CreatedAt); err != nil {
			return describe(err)
		}
	}
	for name, value := range labels {
		if _, err := t.ExecContext(ctx, sqlImportLabel, name, value); err != nil {
			return describe(err)
		}
	}
	return describe(t.Commit())
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
	t, err := s.write.BeginTxx(ctx, nil)
	if err != nil {
		return describe(err)
	}
	defer t.Rollback()
	err = changeOne(t.ExecContext(ctx, sqlMoveSignedOver, id, sizes[0], sizes[len(sizes)-1]))
	if errors.Is(err, log.ErrNotFound) {
		return fmt.Errorf("checkpoints from size %d on can't be recorded: %w", sizes[0], log.ErrExists)
	}
	if err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, sqlInsertCheckpoints, id, sizes, notes); err != nil {
		return describe(err)
	}
	return describe(t.Commit())
}

// RenameLabel gives a text another name.
func (s *Store) RenameLabel(ctx context.Context, from, to string) error {
	return changeOne(s.write.ExecContext(ctx, sqlRenameLabel, from, to))
}
