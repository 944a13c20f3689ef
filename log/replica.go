package log

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// replicated is a store whose content is read from a replica of it, wherever that has come far enough. What changes (heads,
// checkpoints, keys) is read from the store itself, and nothing that is signed or appended is built on what a replica says.
//
// A replica that fails, or isn't there yet, fails nobody: what it doesn't answer is read from the store, from where the answer
// broke off. Then it is left alone for a while.
type replicated struct {
	Reader   // the store
	open     func(ctx context.Context) (Reader, error)
	replica  atomic.Pointer[Reader] // nil: not open yet
	retry    atomic.Int64           // when to ask a replica again that failed, in Unix nanoseconds
	logger   *slog.Logger
	failures prometheus.Counter
}

const (
	replicaPause    = 5 * time.Second // for which a replica that failed is left alone
	replicaPatience = 2 * time.Second // for which it is waited for where nothing has to be read from its disk
)

// start opens the replica. One that can't be reached may come later; any other error is returned.
func (r *replicated) start(ctx context.Context) error {
	attempt, cancel := context.WithTimeout(ctx, replicaPause)
	defer cancel()
	replica, err := r.open(attempt)
	if errors.Is(err, ErrUnreachable) || attempt.Err() != nil && ctx.Err() == nil {
		r.failed(ctx, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the replica: %w", err)
	}
	r.replica.Store(&replica)
	return nil
}

// takeUp opens the replica as soon as that can be done, if it isn't open.
func (r *replicated) takeUp(ctx context.Context) {
	for pause := 100 * time.Millisecond; r.replica.Load() == nil; pause = min(2*pause, replicaPause) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		replica, err := r.open(ctx)
		if err != nil {
			r.failed(ctx, err)
			continue
		}
		r.replica.Store(&replica)
		r.retry.Store(0)
		r.logger.Info("the replica is there, content is read from it")
	}
}

// failed reports whether the replica failed, and notes it.
func (r *replicated) failed(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil {
		return false
	}
	r.failures.Inc()
	now := time.Now()
	if r.retry.Swap(now.Add(replicaPause).UnixNano()) <= now.UnixNano() {
		r.logger.Warn("the replica failed, content is read from the store itself", "again_in", replicaPause, "error", err)
	}
	return true
}

// up returns the replica, or nil while it isn't to be asked.
func (r *replicated) up() Reader {
	replica := r.replica.Load()
	if replica == nil || time.Now().UnixNano() < r.retry.Load() {
		return nil
	}
	return *replica
}

// upTo returns the replica if it has come to a size of the log, or nil.
func (r *replicated) upTo(ctx context.Context, log ID, size uint64) Reader {
	replica := r.up()
	if replica == nil {
		return nil
	}
	patient, cancel := context.WithTimeout(ctx, replicaPatience)
	defer cancel()
	answered := make(chan error, 1)
	there := false
	go func() { // a driver may not give up a silent connection when ctx ends
		head, err := replica.Head(patient, log)
		there = err == nil && head.Size >= size
		answered <- err
	}()
	select {
	case err := <-answered:
		if !errors.Is(err, ErrNotFound) {
			r.failed(ctx, err)
		}
		if there {
			return replica
		}
	case <-patient.Done():
		r.failed(ctx, fmt.Errorf("it doesn't answer: %w", patient.Err()))
	}
	return nil
}

// Entries goes on in the store where the replica broke off, as the others do.
func (r *replicated) Entries(ctx context.Context, log ID, from, to uint64, fn func([]byte) error) error {
	if replica := r.upTo(ctx, log, to); replica != nil {
		var refused error // by fn, which isn't the replica's failure
		err := replica.Entries(ctx, log, from, to, func(entry []byte) error {
			from++
			refused = fn(entry)
			return refused
		})
		if refused != nil || !r.failed(ctx, err) {
			return err
		}
	}
	return r.Reader.Entries(ctx, log, from, to, fn)
}

func (r *replicated) EntriesAt(ctx context.Context, log ID, indices []uint64, fn func(uint64, []byte) error) error {
	if replica := r.upTo(ctx, log, after(indices)); replica != nil {
		var refused error
		err := replica.EntriesAt(ctx, log, indices, func(index uint64, entry []byte) error {
			indices = beyond(indices, index)
			refused = fn(index, entry)
			return refused
		})
		if refused != nil || !r.failed(ctx, err) {
			return err
		}
	}
	return r.Reader.EntriesAt(ctx, log, indices, fn)
}

// Nodes reads hashes of complete subtrees, which are there when their entries are.
func (r *replicated) Nodes(ctx context.Context, log ID, level int, from, to uint64) ([]merkle.Hash, error) {
	if replica := r.upTo(ctx, log, to<<(8*level)); replica != nil {
		hashes, err := replica.Nodes(ctx, log, level, from, to)
		if !r.failed(ctx, err) {
			return hashes, err
		}
	}
	return r.Reader.Nodes(ctx, log, level, from, to)
}

// Find looks in the store for what the replica doesn't have, which may not have come so far.
func (r *replicated) Find(ctx context.Context, log ID, id string) (uint64, error) {
	if replica := r.up(); replica != nil {
		index, err := replica.Find(ctx, log, id)
		if !errors.Is(err, ErrNotFound) && !r.failed(ctx, err) {
			return index, err
		}
	}
	return r.Reader.Find(ctx, log, id)
}

func (r *replicated) Payloads(ctx context.Context, log ID, from, to uint64, fn func(uint64, Payload) error) error {
	if replica := r.upTo(ctx, log, to); replica != nil {
		var refused error
		err := replica.Payloads(ctx, log, from, to, func(index uint64, p Payload) error {
			from = index + 1
			refused = fn(index, p)
			return refused
		})
		if refused != nil || !r.failed(ctx, err) {
			return err
		}
	}
	return r.Reader.Payloads(ctx, log, from, to, fn)
}

func (r *replicated) PayloadsAt(ctx context.Context, log ID, indices []uint64, fn func(uint64, Payload) error) error {
	if replica := r.upTo(ctx, log, after(indices)); replica != nil {
		var refused error
		err := replica.PayloadsAt(ctx, log, indices, func(index uint64, p Payload) error {
			indices = beyond(indices, index)
			refused = fn(index, p)
			return refused
		})
		if refused != nil || !r.failed(ctx, err) {
			return err
		}
	}
	return r.Reader.PayloadsAt(ctx, log, indices, fn)
}

// Segments reads the index as far as the replica has it: what that doesn't cover is searched in the record.
func (r *replicated) Segments(ctx context.Context, log ID) ([]index.Meta, error) {
	if replica := r.up(); replica != nil {
		metas, err := replica.Segments(ctx, log)
		if !r.failed(ctx, err) {
			return metas, err
		}
	}
	return r.Reader.Segments(ctx, log)
}

// Blocks reads the blocks of segments, all from one place, since the segments in the other may be merged ones. So they are given
// to fn when the replica has answered whole. A segment that it doesn't have is looked for in the store.
func (r *replicated) Blocks(ctx context.Context, log ID, level int, segments []uint64, ranges []index.Range,
	fn func(segment uint64, key, data []byte) error,
) error {
	replica := r.up()
	if replica == nil {
		return r.Reader.Blocks(ctx, log, level, segments, ranges, fn)
	}
	type block struct {
		segment uint64
		index.Block
	}
	var blocks []block
	err := replica.Blocks(ctx, log, level, segments, ranges, func(segment uint64, key, data []byte) error {
		blocks = append(blocks, block{segment, index.Block{Key: slices.Clone(key), Data: slices.Clone(data)}})
		return nil
	})
	if r.failed(ctx, err) || err == nil && blocks == nil {
		return r.Reader.Blocks(ctx, log, level, segments, ranges, fn)
	}
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if err := fn(b.segment, b.Key, b.Data); err != nil {
			return err
		}
	}
	return nil
}

// after returns the size that a log has at least if it has entries at the indices.
func after(indices []uint64) uint64 {
	if len(indices) == 0 {
		return 0
	}
	return indices[len(indices)-1] + 1
}

// beyond returns those of the indices, which ascend, that are beyond one.
func beyond(indices []uint64, index uint64) []uint64 {
	n, _ := slices.BinarySearch(indices, index+1)
	return indices[n:]
}
