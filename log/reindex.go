package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/treeline-log/treeline/log/index"
)

// Reindex drops the search index of a log and builds it anew from the record. Progress, if not nil, is told how many more events
// are indexed. It may run beside servers that follow the log: whoever is first writes a part, the other goes on from there.
func Reindex(ctx context.Context, store Store, info Info, progress func(n int)) error {
	if info.IsHub() {
		return nil // nothing in it is searched for
	}
	if err := store.DropIndex(ctx, info.ID); err != nil {
		return fmt.Errorf("dropping the search index of log %s: %w", info.Name, err)
	}
	x := newIndexer(store, func(ID, error) {}, storedCustody(store))
	at := Indexed{}
	for {
		head, err := store.Head(ctx, info.ID)
		if err != nil {
			return fmt.Errorf("reading the head of log %s: %w", info.Name, err)
		}
		to, err := x.run(ctx, info.ID, at, head.Size)
		if errors.Is(err, ErrHeadMoved) {
			to, err = x.where(ctx, info.ID)
		}
		if err != nil {
			return fmt.Errorf("indexing log %s: %w", info.Name, err)
		}
		if to == at {
			return nil
		}
		if progress != nil && to.Size > at.Size {
			progress(int(to.Size - at.Size))
		}
		at = to
	}
}

// CheckIndex builds the search index of a log in memory and compares it with the one that is stored, byte by byte. It returns how
// far that goes; the error is ErrDamaged if they differ. It may run beside a server: segments that are merged
// meanwhile are left out.
func CheckIndex(ctx context.Context, store Reader, info Info, progress func(n int)) (uint64, error) {
	at, err := whereIndexed(ctx, store, info.ID)
	if errors.Is(err, errForeignIndex) {
		return 0, fmt.Errorf("%w: %w", err, ErrDamaged)
	}
	if err != nil {
		return 0, err
	}
	metas, err := store.Segments(ctx, info.ID)
	if err != nil {
		return 0, err
	}
	b := segmentBuilder{store: store, unreadable: func(ID, error) {}, custody: storedCustody(store)}
	covered := uint64(0)
	for _, m := range metas {
		if m.Level > index.Level1 || m.First() != covered {
			return covered, fmt.Errorf("segment %d/%d follows on event %d: %w", m.Level, m.Number, covered, ErrDamaged)
		}
		if m.Words != 0 && m.Words != wordsVersion {
			return covered, fmt.Errorf("segment %d/%d holds words of version %x, this program's are %x: it can be compared once a server of "+
				"this version has rewritten it", m.Level, m.Number, m.Words, wordsVersion)
		}
		if err := b.compare(ctx, info.ID, m); err != nil {
			return covered, err
		}
		covered = m.End()
		if progress != nil {
			progress(int(index.Events(m.Level)))
		}
	}
	if covered < at.Size {
		return covered, fmt.Errorf("the segments end at event %d, the index is said to go to %d: %w", covered, at.Size, ErrDamaged)
	}
	return covered, nil
}

// compare compares a stored segment with the record.
func (b *segmentBuilder) compare(ctx context.Context, id ID, m index.Meta) error {
	b.words = m.Words
	want, err := b.rebuild(ctx, id, m)
	if err != nil {
		return err
	}
	if m != want.Meta {
		return fmt.Errorf("segment %d/%d is said to be %+v, it is %+v: %w", m.Level, m.Number, m, want.Meta, ErrDamaged)
	}
	n := 0
	err = b.store.Blocks(ctx, id, m.Level, []uint64{m.Number}, []index.Range{index.Whole}, func(_ uint64, key, data []byte) error {
		if n == len(want.Blocks) || !bytes.Equal(key, want.Blocks[n].Key) || !bytes.Equal(data, want.Blocks[n].Data) {
			return fmt.Errorf("block %x of segment %d/%d isn't what the record gives: %w", key, m.Level, m.Number, ErrDamaged)
		}
		n++
		return nil
	})
	if err == nil && n > 0 && n < len(want.Blocks) {
		err = fmt.Errorf("block %x of segment %d/%d is missing: %w", want.Blocks[n].Key, m.Level, m.Number, ErrDamaged)
	}
	return err
}
