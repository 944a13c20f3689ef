package sqlite

import "context"

// Pragma returns what a setting is on the writing connection.
func (s *Store) Pragma(ctx context.Context, name string) (value string, err error) {
	err = s.write.GetContext(ctx, &value, "PRAGMA "+name)
	return value, err
}

// NewestGrowths is the statement that finds the newest growth of each log.
const NewestGrowths = sqlNewestGrowths

// WithFault lets steps of removing contents end with an error.
func WithFault(s *Store, fault func(step string) error) { s.testingOnlyFault = fault }
