package log_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

// replica is a store's double that opens and breaks on demand.
type replica struct {
	log.Reader
	refusal atomic.Pointer[error] // why it doesn't open
	rows    atomic.Int64          // that it still gives before it breaks; negative: it doesn't break
	given   atomic.Int64
	broke   atomic.Int64
}

func (r *replica) open(context.Context) (log.Reader, error) {
	if err := r.refusal.Load(); err != nil {
		return nil, *err
	}
	return r, nil
}

// row gives a row, or breaks.
func (r *replica) row() error {
	switch left := r.rows.Load(); {
	case left == 0:
		r.broke.Add(1)
		return errInjected
	case left > 0:
		r.rows.Add(-1)
	}
	r.given.Add(1)
	return nil
}

// broken returns what a read ends with: an error of the double, also where the last row was given already.
func (r *replica) broken(err error) error {
	if err == nil && r.rows.Load() == 0 {
		r.broke.Add(1)
		return errInjected
	}
	return err
}

func (r *replica) Entries(ctx context.Context, id log.ID, from, to uint64, fn func([]byte) error) error {
	return r.broken(r.Reader.Entries(ctx, id, from, to, func(entry []byte) error {
		if err := r.row(); err != nil {
			return err
		}
		return fn(entry)
	}))
}

func (r *replica) EntriesAt(ctx context.Context, id log.ID, indices []uint64, fn func(uint64, []byte) error) error {
	return r.broken(r.Reader.EntriesAt(ctx, id, indices, func(i uint64, entry []byte) error {
		if err := r.row(); err != nil {
			return err
		}
		return fn(i, entry)
	}))
}

func (r *replica) Payloads(ctx context.Context, id log.ID, from, to uint64, fn func(uint64, log.Payload) error) error {
	return r.broken(r.Reader.Payloads(ctx, id, from, to, func(i uint64, p log.Payload) error {
		if err := r.row(); err != nil {
			return err
		}
		return fn(i, p)
	}))
}

func (r *replica) PayloadsAt(ctx context.Context, id log.ID, indices []uint64, fn func(uint64, log.Payload) error) error {
	return r.broken(r.Reader.PayloadsAt(ctx, id, indices, func(i uint64, p log.Payload) error {
		if err := r.row(); err != nil {
			return err
		}
		return fn(i, p)
	}))
}

func (r *replica) Nodes(ctx context.Context, id log.ID, level int, from, to uint64) ([]merkle.Hash, error) {
	hashes, err := r.Reader.Nodes(ctx, id, level, from, to)
	return hashes, errors.Join(err, r.row())
}

func (r *replica) Find(ctx context.Context, id log.ID, event string) (uint64, error) {
	at, err := r.Reader.Find(ctx, id, event)
	return at, errors.Join(err, r.row())
}

func (r *replica) Segments(ctx context.Context, id log.ID) ([]index.Meta, error) {
	metas, err := r.Reader.Segments(ctx, id)
	return metas, errors.Join(err, r.row())
}

func (r *replica) Blocks(ctx context.Context, id log.ID, level int, segments []uint64, ranges []index.Range,
	fn func(segment uint64, key, data []byte) error,
) error {
	return r.broken(r.Reader.Blocks(ctx, id, level, segments, ranges, func(segment uint64, key, data []byte) error {
		if err := r.row(); err != nil {
			return err
		}
		return fn(segment, key, data)
	}))
}

// Wherever in an answer a replica breaks, the whole answer is given, and is the same.
func TestAReplicaThatBreaksFailsNobody(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.close()
	s.replica = &replica{}
	s.replica.rows.Store(-1)
	s.open()
	l := s.log()
	s.appendAll(l, variedEvents(t, 8, 2*index.Width+100))
	s.append("last")
	s.searched(l, 200)
	s.signed()
	size := l.Sizes().Size
	reads := map[string]func() (any, error){
		"records": func() (any, error) { return l.Records(t.Context(), 1000, 1300, 1<<30) },
		"a search": func() (any, error) {
			return l.Search(t.Context(), &log.Filter{ActorIDs: []string{"u7"}}, log.Page{Position: size, Limit: 100, MaxBytes: 1 << 20})
		},
		"a search in a span": func() (any, error) {
			from := int64(1)
			f := log.Filter{ActorIDs: []string{"u7"}, Received: log.TimeSpan{From: &from}}
			return l.Search(t.Context(), &f, log.Page{Oldest: true, Limit: 10, MaxBytes: 1 << 20})
		},
		"an id":   func() (any, error) { return l.RecordByID(t.Context(), "last") },
		"a proof": func() (any, error) { return l.Proof(t.Context(), 5) },
		"places": func() (any, error) {
			places := []log.Place{{Index: 3, Duplicate: true}, {Index: 2000, Duplicate: true}, {Index: 700, Duplicate: true}}
			return places, l.Locate(t.Context(), places)
		},
	}
	for name, read := range reads {
		want, err := read()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, rows := range []int64{0, 1, 2, 3, 7, 20, 100, 299, 300, 301, 450} {
			s.ForgetReplicaFailure()
			s.replica.rows.Store(rows)
			got, err := read()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, of a replica that breaks after %d rows: got %v, %v, want %v", name, rows, got, err, want)
			}
		}
		if s.replica.broke.Swap(0) == 0 || s.replica.given.Swap(0) == 0 {
			t.Errorf("%s: the replica never broke, or never gave anything", name)
		}
		s.replica.rows.Store(-1)
		s.ForgetReplicaFailure()
	}
	if !strings.Contains(s.logs.String(), "the replica failed") {
		t.Error("nothing is logged of it")
	}
}

// A server starts without its replica, serves from its store, and takes the replica up when that comes. What isn't a replica is
// refused.
func TestAReplicaMayComeLater(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.append("e")
	s.close()
	s.replica = &replica{}
	s.replica.rows.Store(-1)
	foreign := errors.New("it isn't a copy")
	s.replica.refusal.Store(&foreign)
	if err := s.tryOpen(); !errors.Is(err, foreign) {
		t.Fatalf("opening with what isn't a replica: %v", err)
	}
	away := fmt.Errorf("down: %w", log.ErrUnreachable)
	s.replica.refusal.Store(&away)
	s.open()
	read := func() {
		t.Helper()
		if _, err := s.log().RecordByID(t.Context(), "e"); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if n := s.replica.given.Load(); n > 0 {
		t.Errorf("%d rows came from a replica that isn't there", n)
	}
	s.replica.refusal.Store(nil)
	s.until("the replica to be read", func() bool {
		read()
		return s.replica.given.Load() > 0
	})
}
