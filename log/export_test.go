package log

import "context"

// Scrub checks the log's first size events as the background scrub does, and returns the first thing that is wrong.
func Scrub(ctx context.Context, store Reader, log ID, size uint64) error {
	for from := uint64(0); from < size; from += scrubSize {
		if err := checkContents(ctx, store, log, from, min(from+scrubSize, size)); err != nil {
			return err
		}
	}
	return nil
}

// Queued returns how many events wait for a batch.
func (s *Service) Queued() int { return s.sequencer.waiting() }
