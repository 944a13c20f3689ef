package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/pressly/goose/v3"
)

// WithGrace sets for how long longer than the longest statement a silent connection is kept.
func WithGrace(o Options, d time.Duration) Options {
	o.grace = d
	return o
}

// WithClock sets the clock by which parts grow old.
func WithClock(o Options, now func() time.Time) Options {
	o.now = now
	return o
}

// RotateFull opens the next part of those that are full or old, as happens every few seconds.
func RotateFull(s *Store) error { return s.rotateFull(context.Background()) }

// Setting returns a setting of the sessions that write.
func Setting(ctx context.Context, s *Store, name string) (value string, err error) {
	err = s.write.GetContext(ctx, &value, "SELECT current_setting($1)", name)
	return value, err
}

// OpenPart opens a part after the part last, if there is none.
func OpenPart(s *Store, last int) error { return s.openPart(context.Background(), class, last) }

// Statements are those that read and search.
var Statements = map[string]string{
	"sqlLockHeads": sqlLockHeads, "sqlHead": sqlHead, "sqlFindAll": sqlFindAll, "sqlFind": sqlFind, "sqlEntries": sqlEntries,
	"sqlEntriesAt": sqlEntriesAt, "sqlNodes": sqlNodes,
	"sqlPayloads": fmt.Sprintf(sqlPayloads, 1), "sqlPayloadsAt": fmt.Sprintf(sqlPayloadsAt, 1),
	"sqlCheckpoint": sqlCheckpoint, "sqlCheckpoints": sqlCheckpoints, "sqlIDs": sqlIDs, "sqlSegments": sqlSegments, "sqlBlocks": sqlBlocks,
	"sqlCheckpointsOf": sqlCheckpointsOf, "sqlGrowths": sqlGrowths, "sqlGrowthBefore": sqlGrowthBefore,
}

// SizesStatement reads a whole table: it is about all logs.
const SizesStatement = sqlSizes

// Planning is how the sessions that prepare statements let them be planned.
var Planning = planning

// MigrateTo brings the schema of an empty database to a version that another program worked with.
func MigrateTo(ctx context.Context, url string, version int64) error {
	return withMigrator(ctx, url, func(m *goose.Provider) error {
		_, err := m.UpTo(ctx, version)
		return err
	})
}

// WithFault lets steps of removing contents end with an error.
func WithFault(s *Store, fault func(step string) error) { s.testingOnlyFault = fault }
