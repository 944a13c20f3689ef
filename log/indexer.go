package log

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// maxRunSegments is how many segments are indexed in one go, before it is another log's turn.
const maxRunSegments = 32

// giveWayEvents is after how many events the builder lets others run: an append that is ready shall not wait for a time slice.
const giveWayEvents = 16

// mergedEvents is how many events a segment of the highest level covers.
const mergedEvents = index.Width * index.Fanout

// segmentBuilder builds segments from the record.
type segmentBuilder struct {
	store  Reader
	termer termer
	words  uint32 // wordsVersion, or 0 for segments without words
	// unreadable is told of contents that can't be read; they are indexed as nothing, so that no search finds them.
	unreadable func(log ID, err error)
	// custody returns what a log's own events say of its contents.
	custody func(ctx context.Context, log ID) (*custody, error)

	received []int64
}

// build builds a segment of level 0, and returns the leaf hash of its last entry, too.
func (b *segmentBuilder) build(ctx context.Context, id ID, number uint64) (*index.Segment, merkle.Hash, error) {
	c, err := b.custody(ctx, id)
	for {
		if err != nil {
			return nil, merkle.Hash{}, err
		}
		s, last, unreadable, err := b.buildWith(ctx, c, id, number)
		if err != nil || unreadable == nil {
			return s, last, err
		}
		newer, err := b.custody(ctx, id)
		if err != nil {
			return nil, last, err
		}
		if newer == c {
			for _, err := range unreadable {
				b.unreadable(id, err)
			}
			return s, last, nil
		}
		c = newer // it may have been erased meanwhile
	}
}

// buildWith does that with what a log's own events say, and returns what can't be read.
func (b *segmentBuilder) buildWith(ctx context.Context, c *custody, id ID, number uint64) (_ *index.Segment, last merkle.Hash, unreadable []error, _ error) {
	first := number * index.Width
	b.received = b.received[:0]
	err := b.store.Entries(ctx, id, first, first+index.Width, func(entry []byte) error {
		e, err := storedEntry(first+uint64(len(b.received)), entry)
		if err != nil {
			return err
		}
		if b.received = append(b.received, e.ReceivedAt); len(b.received) == index.Width {
			last = merkle.LeafHash(entry)
		}
		return nil
	})
	if err != nil {
		return nil, last, nil, fmt.Errorf("reading entries to index: %w", err)
	}
	b.termer.builder.Begin(number, b.words)
	b.termer.words = b.words != 0
	next := 0
	without := func(to int) { // events that have no content
		for ; next < to; next++ {
			b.termer.builder.Add(b.received[next], b.received[next])
		}
	}
	err = b.store.Payloads(ctx, id, first, first+index.Width, func(at uint64, p Payload) error {
		if next%giveWayEvents == 0 {
			runtime.Gosched()
		}
		i := int(at - first)
		without(i)
		if p.Data == nil {
			return nil
		}
		x, err := c.content(at, p, nil)
		if err != nil {
			unreadable = append(unreadable, fmt.Errorf("entry %d: %w", at, err))
			return nil
		}
		if x.event != nil {
			b.termer.add(x.event, b.received[i])
			next++
		}
		return nil
	})
	if err != nil {
		return nil, last, nil, fmt.Errorf("reading contents to index: %w", err)
	}
	without(index.Width)
	return b.termer.builder.Segment(), last, unreadable, nil
}

// rebuild builds the segment that takes the place of another one.
func (b *segmentBuilder) rebuild(ctx context.Context, id ID, m index.Meta) (*index.Segment, error) {
	var parts []*index.Segment
	for i := range index.Events(m.Level) / index.Width {
		s, _, err := b.build(ctx, id, m.First()/index.Width+i)
		if err != nil {
			return nil, err
		}
		parts = append(parts, s)
	}
	if m.Level == index.Level1 {
		return index.Merge(parts)
	}
	return parts[0], nil
}

// storedCustody returns what reads from a store, once for each log, what the log's own events say.
func storedCustody(store Reader) func(context.Context, ID) (*custody, error) {
	known := make(map[ID]*custody)
	return func(ctx context.Context, id ID) (*custody, error) {
		before := known[id]
		if before == nil {
			before = new(custody)
		}
		c, err := foldCustody(ctx, store, id, before)
		if err == nil {
			if len(c.own) == len(before.own) && known[id] != nil {
				return before, nil
			}
			known[id] = c
		}
		return c, err
	}
}

// indexer writes the index of logs.
type indexer struct {
	segmentBuilder
	store Store
}

func newIndexer(store Store, unreadable func(log ID, err error), custodyOf func(context.Context, ID) (*custody, error)) *indexer {
	return &indexer{segmentBuilder{store: store, words: wordsVersion, unreadable: unreadable, custody: custodyOf}, store}
}

// errForeignIndex means that the index is of another history than the record: one of them was replaced.
var errForeignIndex = errors.New("the search index is not of this record")

// where returns how far the log's index has come, errForeignIndex if it is not the record's.
func (x *indexer) where(ctx context.Context, id ID) (Indexed, error) {
	return whereIndexed(ctx, x.store, id)
}

func whereIndexed(ctx context.Context, store Reader, id ID) (Indexed, error) {
	at, err := store.Indexed(ctx, id)
	if err != nil || at.Size == 0 {
		return Indexed{}, err
	}
	head, err := store.Head(ctx, id)
	if err != nil {
		return at, err
	}
	if at.Size > head.Size || at.Size%index.Width != 0 {
		return at, errForeignIndex
	}
	err = store.Entries(ctx, id, at.Size-1, at.Size, func(entry []byte) error {
		if merkle.LeafHash(entry) != at.Last {
			return errForeignIndex
		}
		return nil
	})
	return at, err
}

// run indexes the next segments of a log whose index stands at from, as far as whole ones are below size, and returns where it
// stands then. It is ErrHeadMoved if somebody else has moved it.
//
// A run ends where a segment of the next level does, so that merging is always a part of the write that makes it possible.
func (x *indexer) run(ctx context.Context, id ID, from Indexed, size uint64) (Indexed, error) {
	to := min(from.Size+maxRunSegments*index.Width, from.Size-from.Size%mergedEvents+mergedEvents, size-size%index.Width)
	at, add := from, []*index.Segment(nil)
	for at.Size < to {
		s, last, err := x.build(ctx, id, at.Size/index.Width)
		if err != nil {
			return from, err
		}
		add = append(add, s)
		at = Indexed{Size: at.Size + index.Width, Last: last}
	}
	if len(add) == 0 {
		return from, nil
	}
	var drop []index.Meta
	if at.Size%mergedEvents == 0 {
		merged, dropped, err := x.merge(ctx, id, from, at, add)
		if err != nil {
			// Segments that somebody else has merged meanwhile are missing, too.
			if now, _ := x.store.Indexed(ctx, id); errors.Is(err, index.ErrDamaged) && now != from {
				err = ErrHeadMoved
			}
			return from, err
		}
		drop = dropped
		add = []*index.Segment{merged}
	}
	return at, x.store.WriteIndex(ctx, id, from, at, drop, add)
}

// merge merges the segments that were just made with those that are stored before them, and returns which those are. Stored ones with
// other words are built again.
func (x *indexer) merge(ctx context.Context, id ID, from, at Indexed, add []*index.Segment) (*index.Segment, []index.Meta, error) {
	stored, err := x.load(ctx, id, (at.Size-mergedEvents)/index.Width, from.Size/index.Width)
	if err != nil {
		return nil, nil, err
	}
	var drop []index.Meta
	for i, s := range stored {
		drop = append(drop, s.Meta)
		if s.Words == x.words {
			continue
		}
		if stored[i], _, err = x.build(ctx, id, s.Number); err != nil {
			return nil, nil, err
		}
	}
	merged, err := index.Merge(append(stored, add...))
	return merged, drop, err
}

// load returns the stored segments [from, to) of level 0. Those with other words have no blocks.
func (x *indexer) load(ctx context.Context, id ID, from, to uint64) ([]*index.Segment, error) {
	if from >= to {
		return nil, nil
	}
	metas, err := x.store.Segments(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make([]*index.Segment, 0, index.Fanout)
	var numbers []uint64
	for _, m := range metas {
		if m.Level == index.Level0 && m.Number >= from && m.Number < to {
			out = append(out, &index.Segment{Meta: m})
			if m.Words == x.words {
				numbers = append(numbers, m.Number)
			}
		}
	}
	i := 0
	err = x.store.Blocks(ctx, id, index.Level0, numbers, []index.Range{index.Whole}, func(number uint64, key, data []byte) error {
		for i < len(out) && out[i].Number < number {
			i++
		}
		if i == len(out) {
			return fmt.Errorf("a block of segment 0/%d is not wanted: %w", number, index.ErrDamaged)
		}
		out[i].Blocks = append(out[i].Blocks, index.Block{Key: append([]byte(nil), key...), Data: append([]byte(nil), data...)})
		return nil
	})
	return out, err
}
