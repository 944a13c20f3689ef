package postgres

import (
	"context"

	"github.com/jmoiron/sqlx"
)

const (
	sqlShredSome = `
		DELETE FROM payloads USING purged_spans
		WHERE payloads.log = purged_spans.log AND payloads.idx >= purged_spans.first AND payloads.idx < purged_spans.until`
	sqlShredSpans = `
		DELETE FROM purged_spans`
)

// Shred removes what was purged.
func (s *Store) Shred(ctx context.Context) (more bool, err error) {
	return false, s.inTx(ctx, func(_ *sqlx.Conn, t *sqlx.Tx) error {
		for _, statement := range []string{sqlShredSome, sqlShredSpans} {
			if _, err := t.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}
