package log

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// replicated is a store whose content is read from a replica of it, wherever that has come far enough. What changes (heads,
// checkpoints, keys) is read from the store itself, and nothing that is signed or appended is built on what a replica says.
type replicated struct {
	Reader  // the store
	replica Reader
	retry   atomic.Int64 // when to ask a replica again that didn't answer, in Unix nanoseconds
}

// replicaPause is for how long a replica that didn't answer is left alone.
const replicaPause = 5 * time.Second

// failed notes that the replica didn't answer, and reports whether that was so.
func (r *replicated) failed(ctx context.Context, err error) bool {
	if err == nil || errors.Is(err, ErrNotFound) {
		return false
	}
	if ctx.Err() == nil {
		r.retry.Store(time.Now().Add(replicaPause).UnixNano())
	}
	return true
}

func (r *replicated) down() bool { return time.Now().UnixNano() < r.retry.Load() }

// upTo returns where to read what is below a size of the log: the replica if it has come that far.
func (r *replicated) upTo(ctx context.Context, log ID, size uint64) Reader {
	if r.down() {
		return r.Reader
	}
	head, err := r.replica.Head(ctx, log)
	if r.failed(ctx, err) || err != nil || head.Size < size {
		return r.Reader
	}
	return r.replica
}

func (r *replicated) Entries(ctx context.Context, log ID, from, to uint64, fn func([]byte) error) error {
	return r.upTo(ctx, log, to).Entries(ctx, log, from, to, fn)
}

func (r *replicated) EntriesAt(ctx context.Context, log ID, indices []uint64, fn func(uint64, []byte) error) error {
	return r.upTo(ctx, log, after(indices)).EntriesAt(ctx, log, indices, fn)
}

// Nodes reads hashes of complete subtrees, which are there when their entries are.
func (r *replicated) Nodes(ctx context.Context, log ID, level int, from, to uint64) ([]merkle.Hash, error) {
	return r.upTo(ctx, log, to<<(8*level)).Nodes(ctx, log, level, from, to)
}

func (r *replicated) Find(ctx context.Context, log ID, id string) (uint64, error) {
	if !r.down() {
		index, err := r.replica.Find(ctx, log, id)
		if err == nil {
			return index, nil
		}
		r.failed(ctx, err)
	}
	return r.Reader.Find(ctx, log, id)
}

func (r *replicated) Payloads(ctx context.Context, log ID, from, to uint64, fn func(uint64, Payload) error) error {
	return r.upTo(ctx, log, to).Payloads(ctx, log, from, to, fn)
}

func (r *replicated) PayloadsAt(ctx context.Context, log ID, indices []uint64, fn func(uint64, Payload) error) error {
	return r.upTo(ctx, log, after(indices)).PayloadsAt(ctx, log, indices, fn)
}

// Segments reads the index as far as the replica has it: what that doesn't cover is searched in the record.
func (r *replicated) Segments(ctx context.Context, log ID) ([]index.Meta, error) {
	if !r.down() {
		metas, err := r.replica.Segments(ctx, log)
		if !r.failed(ctx, err) {
			return metas, nil
		}
	}
	return r.Reader.Segments(ctx, log)
}

// Blocks reads the blocks of segments, all from one place: a segment that the replica doesn't have is looked for in the store.
func (r *replicated) Blocks(ctx context.Context, log ID, level int, segments []uint64, ranges []index.Range,
	fn func(segment uint64, key, data []byte) error,
) error {
	if r.down() {
		return r.Reader.Blocks(ctx, log, level, segments, ranges, fn)
	}
	began := false
	err := r.replica.Blocks(ctx, log, level, segments, ranges, func(segment uint64, key, data []byte) error {
		began = true
		return fn(segment, key, data)
	})
	if began {
		return err
	}
	r.failed(ctx, err)
	return r.Reader.Blocks(ctx, log, level, segments, ranges, fn)
}

// after returns the size that a log has at least if it has entries at the indices.
func after(indices []uint64) uint64 {
	if len(indices) == 0 {
		return 0
	}
	return indices[len(indices)-1] + 1
}
