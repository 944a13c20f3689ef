package log

import (
	"context"

	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// Indexed is how far the index of a log has come: it covers the entries [0, Size). Last is the leaf hash of the newest of them,
// which ties the index to one history; for size 0 it is zero.
type Indexed struct {
	Size uint64
	Last merkle.Hash
}

// IndexReader reads the search index, whose blocks are opaque to a store: package index makes and reads them. What it reads may
// be behind the record or gone, and is then searched for in the record itself. Its methods may be called concurrently; a
// callback must not keep the slices it is given.
type IndexReader interface {
	// Indexed returns how far the log's index has come, the zero value if it has none.
	Indexed(ctx context.Context, log ID) (Indexed, error)
	// Segments returns the log's segments in the order of the events that they cover.
	Segments(ctx context.Context, log ID) ([]index.Meta, error)
	// Blocks calls fn with the blocks of some segments of one level that may hold keys in the ranges, in order of segment and key,
	// each once: for each range the last block that is stored under a key at or before From, and all whose key is in the
	// range. Segments and ranges are ascending, ranges disjoint. All that fn is given is of one state of the index; a segment
	// that isn't there, since it was merged meanwhile, has no blocks.
	Blocks(ctx context.Context, log ID, level int, segments []uint64, ranges []index.Range,
		fn func(segment uint64, key, data []byte) error) error
}

// Index keeps the search index of each log. It can be rebuilt from the record at any time, so a crash of the machine may lose
// what was written last, but never leave a part of one write.
type Index interface {
	IndexReader
	// WriteIndex moves a log's index from one place to another, in one transaction: it drops segments and adds others. It is
	// ErrHeadMoved, and nothing is written, if the index doesn't stand at from: so servers that share a database may all
	// build the index, and one of them succeeds. A write that doesn't move the index says that segments told of something that was
	// removed from the record: Shred makes what they were unreadable.
	WriteIndex(ctx context.Context, log ID, from, to Indexed, drop []index.Meta, add []*index.Segment) error
	// DropIndex removes all of the log's index.
	DropIndex(ctx context.Context, log ID) error
}
