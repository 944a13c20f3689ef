package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Bounds of what a call of Shred does: so many pages are given back in one transaction, which those that append wait for, and so
// many transactions are made.
const (
	shredPages = 128
	shredSteps = 64
)

// Shred gives back free pages, and empties the WALs, which have copies of what was removed. In the files themselves it was
// overwritten when it was removed (secure_delete).
func (s *Store) Shred(ctx context.Context) (more bool, err error) {
	if s.write == nil {
		return false, errReadOnly
	}
	for _, db := range []*sqlx.DB{s.write, s.index.write} {
		left, err := s.giveBack(ctx, db)
		if err != nil {
			return false, err
		}
		if err := s.fault("gave back pages"); err != nil {
			return false, err
		}
		busy, err := emptyWAL(ctx, db)
		if err != nil {
			return false, err
		}
		more = more || left || busy
	}
	return more, nil
}

// giveBack gives back free pages, and reports whether there are more.
func (s *Store) giveBack(ctx context.Context, db *sqlx.DB) (more bool, err error) {
	for range shredSteps {
		var free int
		if err := db.GetContext(ctx, &free, `PRAGMA freelist_count`); err != nil {
			return false, describe(err)
		}
		if free == 0 {
			return false, nil
		}
		if _, err := db.ExecContext(ctx, fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, shredPages)); err != nil {
			return false, describe(err)
		}
		if err := s.fault("gave back some pages"); err != nil {
			return false, err
		}
	}
	return true, nil
}

// emptyWAL brings the WAL into the file and cuts it off, and reports whether somebody still reads from it. Appends aren't made to wait
// for readers.
func emptyWAL(ctx context.Context, db *sqlx.DB) (busy bool, err error) {
	conn, err := db.Connx(ctx)
	if err != nil {
		return false, describe(err)
	}
	defer func() {
		_, patient := conn.ExecContext(context.WithoutCancel(ctx), `PRAGMA busy_timeout = 10000`)
		err = errors.Join(err, describe(patient), conn.Close())
	}()
	if _, err := conn.ExecContext(ctx, `PRAGMA busy_timeout = 0`); err != nil {
		return false, describe(err)
	}
	var frames, done int
	if err := conn.QueryRowxContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &frames, &done); err != nil {
		return false, describe(err)
	}
	return busy, nil
}
