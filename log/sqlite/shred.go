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

// Shred gives back free pages, looks for copies of what was removed, see scrub, and empties the WALs, which have such.
func (s *Store) Shred(ctx context.Context) (more bool, err error) {
	if s.write == nil {
		return false, errReadOnly
	}
	s.shredding.Lock()
	defer s.shredding.Unlock()
	for _, f := range []struct {
		write, read *sqlx.DB
		at          *scrub
	}{{s.write, s.read, &s.scrubbed}, {s.index.write, s.index.read, &s.index.scrubbed}} {
		left, err := s.shredFile(ctx, f.write, f.read, f.at)
		if err != nil {
			return false, err
		}
		more = more || left
	}
	return more, nil
}

func (s *Store) shredFile(ctx context.Context, write, read *sqlx.DB, at *scrub) (more bool, err error) {
	if more, err = s.giveBack(ctx, write, at); err != nil || more {
		return more, err
	}
	if err := s.fault("gave back pages"); err != nil {
		return false, err
	}
	if more, err = s.scrub(ctx, write, read, at); err != nil || more {
		return more, err
	}
	if err := s.fault("scrubbed pages"); err != nil {
		return false, err
	}
	return emptyWAL(ctx, write)
}

// giveBack gives back free pages, and reports whether there are more.
func (s *Store) giveBack(ctx context.Context, db *sqlx.DB, at *scrub) (more bool, err error) {
	if err := letShrink(ctx, db); err != nil {
		return false, err
	}
	for range shredSteps {
		var free int
		if err := db.GetContext(ctx, &free, `PRAGMA freelist_count`); err != nil {
			return false, describe(err)
		}
		if free == 0 {
			return false, nil
		}
		*at = scrub{} // pages are moved
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

// letShrink lets a file give back pages, which one that an older version has made (a search index) can't until it was written anew.
func letShrink(ctx context.Context, db *sqlx.DB) error {
	var mode int
	if err := db.GetContext(ctx, &mode, `PRAGMA auto_vacuum`); err != nil || mode != 0 {
		return describe(err)
	}
	_, err := db.ExecContext(ctx, `PRAGMA auto_vacuum = INCREMENTAL; VACUUM`)
	return describe(err)
}
