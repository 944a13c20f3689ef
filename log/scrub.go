package log

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

const (
	scrubSize  = merkle.TileWidth       // events read at a time
	scrubPause = 500 * time.Millisecond // between two runs
)

// scrub re-reads all logs' content, slowly and for ever, so that damage at rest is found while a backup still has what was
// damaged, and not when an auditor asks. It checks each content against its entry, and the entries against the stored tree;
// that those are what was signed, and the whole chain, is for fsck.
func (s *Service) scrub(ctx context.Context) {
	pause := time.NewTicker(scrubPause)
	defer pause.Stop()
	next := make(map[ID]uint64)
	turn := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		logs := s.Logs()
		for range logs { // the next log that has a run to check; an empty one costs no turn
			l := logs[turn%len(logs)]
			turn++
			from, size := next[l.ID], l.Sizes().Size
			if from >= size {
				next[l.ID] = 0
				continue
			}
			to := min(from-from%scrubSize+scrubSize, size) // whole tiles, wherever the log ended the last time
			next[l.ID] = to
			s.scrubRun(ctx, l, from, to)
			break
		}
	}
}

// scrubRun checks the events [from, to) of a log, and reports what is wrong.
func (s *Service) scrubRun(ctx context.Context, l *Log, from, to uint64) {
	var err error
	if l.IsHub() {
		err = checkHub(ctx, s.store, l.ID, from, to)
	} else {
		err = l.withCustody(ctx, func(c *custody) error { return checkContents(ctx, s.store, c, l.ID, from, to) })
	}
	if ctx.Err() != nil || errors.Is(err, ErrUnreachable) { // which isn't about the event
		return
	}
	if err != nil {
		s.metrics.failures.WithLabelValues("scrub").Inc()
		s.logger.Error("the background scrub found a stored event that can't be verified; run `treeline fsck`",
			"log", l.Name, "error", err)
	}
	if !l.IsHub() {
		s.metrics.scrubbed.Add(float64(to - from))
	}
}

// checkHub checks the entries [from, to) of a hub, if they are a whole tile, against the tree.
func checkHub(ctx context.Context, store Reader, log ID, from, to uint64) error {
	return checkTile(ctx, store, log, from, to, func(index uint64, b []byte) error {
		if _, err := checkpoint.ParseHubEntry(b); err != nil {
			return fmt.Errorf("entry %d: %w: %w", index, err, ErrDamaged)
		}
		return nil
	})
}

// checkTile calls fn with the entries [from, to), and checks them against the tree if they are a whole tile.
func checkTile(ctx context.Context, store Reader, log ID, from, to uint64, fn func(index uint64, b []byte) error) error {
	tree := merkle.NewRange()
	err := store.Entries(ctx, log, from, to, func(b []byte) error {
		if err := fn(from+tree.Size(), b); err != nil {
			return err
		}
		tree.Append(merkle.LeafHash(b), nil)
		return nil
	})
	if err != nil || from%merkle.TileWidth != 0 || to-from != merkle.TileWidth {
		return err
	}
	stored, err := store.Nodes(ctx, log, 1, from/merkle.TileWidth, to/merkle.TileWidth)
	if err != nil {
		return err
	}
	if got := tree.Root(); got != stored[0] {
		return fmt.Errorf("the entries [%d, %d) give tree node %v, %v is stored: %w", from, to, got, stored[0], ErrDamaged)
	}
	return nil
}

// checkContents checks the contents of [from, to) against their entries, and these, if they are a whole tile, against the
// tree. It returns the first thing that is wrong. What was purged or erased by the log's own events is not.
func checkContents(ctx context.Context, store Reader, c *custody, log ID, from, to uint64) error {
	digests := make([][32]byte, 0, to-from)
	err := checkTile(ctx, store, log, from, to, func(index uint64, b []byte) error {
		e, err := storedEntry(index, b)
		digests = append(digests, e.Digest)
		return err
	})
	if err != nil {
		return err
	}
	return c.contents(ctx, store, log, from, to, func(index uint64, _ Payload, x content) error {
		if err := x.check(digests[index-from]); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		return nil
	})
}

// checkContent checks the whole content of an event against the digest in its entry, and returns the event.
func checkContent(p Payload, digest [32]byte) (*Event, error) {
	x, err := new(custody).content(0, p, nil)
	if err == nil {
		err = x.check(digest)
	}
	return x.event, err
}

var errContent = fmt.Errorf("its content or seed is not what its entry commits to: %w", ErrDamaged)
