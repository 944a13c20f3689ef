package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/treeline-log/treeline/log"
)

// shred shreds until nothing is left to do.
func shred(t testing.TB, s log.Store) {
	t.Helper()
	for range 1000 {
		more, err := s.Shred(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
	t.Fatal("Shred never comes to an end")
}

// Append appends events with these contents, as a sequencer does: what the store undid is done again. It returns the index of the first.
func Append(ctx context.Context, s log.Store, id log.ID, contents []log.Payload) (from uint64, err error) {
	for range 20 {
		if from, err = tryAppend(ctx, s, id, contents); !errors.Is(err, log.ErrRolledBack) && !errors.Is(err, log.ErrHeadMoved) {
			break
		}
	}
	return from, err
}

func tryAppend(ctx context.Context, s log.Store, id log.ID, contents []log.Payload) (uint64, error) {
	tx, err := s.Begin(ctx, []log.ID{id})
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	head, err := tx.Head(id)
	if err != nil {
		return 0, err
	}
	b := batch(id, head, len(contents), number)
	for i := range b.Rows {
		b.Rows[i].Payload = contents[i]
	}
	if err := tx.Append([]*log.Batch{b}); err != nil {
		return 0, err
	}
	return head.Size, tx.Commit()
}

// spans returns the spans that pairs of numbers stand for.
func spans(pairs ...uint64) (all []log.Span) {
	for ; len(pairs) > 0; pairs = pairs[2:] {
		all = append(all, log.Span{From: pairs[0], To: pairs[1]})
	}
	return all
}

// contents returns all contents of a log, by both ways of reading them, which must agree.
func contents(t testing.TB, s log.Store, id log.ID) map[uint64]log.Payload {
	t.Helper()
	head, err := s.Head(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[uint64]log.Payload)
	last := -1
	note := func(into map[uint64]log.Payload) func(uint64, log.Payload) error {
		return func(index uint64, p log.Payload) error {
			if int(index) <= last {
				t.Errorf("content %d comes after %d", index, last)
			}
			last = int(index)
			into[index] = log.Payload{Seed: bytes.Clone(p.Seed), Data: bytes.Clone(p.Data)}
			return nil
		}
	}
	if err := s.Payloads(t.Context(), id, 0, head.Size, note(all)); err != nil {
		t.Fatal(err)
	}
	var indices []uint64
	for i := range head.Size {
		indices = append(indices, i)
	}
	one := make(map[uint64]log.Payload)
	last = -1
	if err := s.PayloadsAt(t.Context(), id, indices, note(one)); err != nil {
		t.Fatal(err)
	}
	for i := range head.Size {
		a, inAll := all[i]
		b, inOne := one[i]
		if inAll != inOne || !bytes.Equal(a.Seed, b.Seed) || !bytes.Equal(a.Data, b.Data) {
			t.Errorf("content %d: %t %q in its range, %t %q at its index", i, inAll, a.Data, inOne, b.Data)
		}
	}
	return all
}

// custody is what is expected of a log's contents: all are there as payload makes them, but for these.
type custody struct {
	purged  []log.Span
	reduced map[uint64]string
}

// check compares a log's contents with what is expected.
func (c custody) check(t testing.TB, s log.Store, id log.ID) {
	t.Helper()
	head, err := s.Head(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	all, gone := contents(t, s, id), uint64(0)
	for i := range head.Size {
		p, ok := all[i]
		want := payload(i)
		if data, reduced := c.reduced[i]; reduced {
			want = log.Payload{Data: []byte(data)}
		}
		switch {
		case slices.ContainsFunc(c.purged, func(s log.Span) bool { return s.From <= i && i < s.To }):
			gone++
			if ok {
				t.Errorf("content %d of log %d is there, want it purged", i, id)
			}
		case !ok:
			t.Errorf("content %d of log %d is missing", i, id)
		case !bytes.Equal(p.Seed, want.Seed) || (p.Seed == nil) != (want.Seed == nil) || !bytes.Equal(p.Data, want.Data):
			t.Errorf("content %d of log %d: got %x %q, want %x %q", i, id, p.Seed, p.Data, want.Seed, want.Data)
		}
	}
	counts, err := s.Counts(t.Context(), id)
	if err != nil || counts.Payloads != head.Size-gone || counts.Entries != head.Size || counts.IDs != head.Size {
		t.Errorf("counts: got %+v, %v, want %d contents of %d entries and ids", counts, err, head.Size-gone, head.Size)
	}
}

func testPurge(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	for _, n := range []int{700, 1, 300, 500} {
		appendTo(t, s, one.ID, n)
		appendTo(t, s, two.ID, n)
	}
	whole := custody{}
	for _, purged := range [][]log.Span{
		nil, spans(0, 0), spans(0, 3), spans(0, 3), spans(2, 5, 7, 8, 9, 9), spans(600, 1301), spans(1499, 1501),
	} {
		if err := s.Purge(t.Context(), one.ID, purged); err != nil {
			t.Fatal(err)
		}
		whole.purged = append(whole.purged, purged...)
		shred(t, s)
		whole.check(t, s, one.ID)
		custody{}.check(t, s, two.ID)
	}
	// What comes later at indices that were purged before they were there stays.
	if err := s.Purge(t.Context(), one.ID, spans(1490, 1600, 5000, 9000)); err != nil {
		t.Fatal(err)
	}
	whole.purged = append(whole.purged, spans(1490, 1501)...)
	appendTo(t, s, one.ID, 3)
	shred(t, s)
	s = o.Reopen(t, s)
	whole.check(t, s, one.ID)
	custody{}.check(t, s, two.ID)
	// Everything.
	if err := s.Purge(t.Context(), one.ID, spans(0, 1504)); err != nil {
		t.Fatal(err)
	}
	shred(t, s)
	appendTo(t, s, one.ID, 3)
	whole.purged = spans(0, 1504)
	whole.check(t, s, one.ID)
	custody{}.check(t, s, two.ID)
}

func testReduce(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	appendTo(t, s, one.ID, 400)
	appendTo(t, s, two.ID, 400)
	want := custody{reduced: make(map[uint64]string)}
	reduce := func(indices ...uint64) error {
		var all []log.Reduced
		for _, i := range indices {
			all = append(all, log.Reduced{Index: i, Data: fmt.Appendf(nil, "\x03left of %d", i)})
		}
		return s.Reduce(t.Context(), one.ID, all)
	}
	for _, indices := range [][]uint64{nil, {0}, {0, 1, 399}, {99, 100, 101, 299}} {
		for range 2 { // it may be done again
			if err := reduce(indices...); err != nil {
				t.Fatal(err)
			}
		}
		for _, i := range indices {
			want.reduced[i] = fmt.Sprintf("\x03left of %d", i)
		}
		want.check(t, s, one.ID)
		shred(t, s)
		want.check(t, s, one.ID)
	}
	if err := s.Purge(t.Context(), one.ID, spans(10, 20)); err != nil {
		t.Fatal(err)
	}
	shred(t, s)
	want.purged = spans(10, 20)
	for what, indices := range map[string][]uint64{"beyond the end": {5, 400}, "purged": {5, 15, 200}} {
		if err := reduce(indices...); !errors.Is(err, log.ErrNotFound) {
			t.Errorf("reducing what is %s: got %v, want ErrNotFound", what, err)
		}
	}
	if err := s.Reduce(t.Context(), two.ID+99, []log.Reduced{{Index: 0, Data: []byte{3}}}); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("reducing in no log: got %v, want ErrNotFound", err)
	}
	s = o.Reopen(t, s)
	want.check(t, s, one.ID)
	custody{}.check(t, s, two.ID)
}

// Rows whose content is gone, or reduced, are appended by a copy.
func testAppendGone(t *testing.T, o Opener) {
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	for _, n := range []int{5, 300, 5} {
		tx, err := s.Begin(t.Context(), []log.ID{info.ID})
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		head, err := tx.Head(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		b := batch(info.ID, head, n, number)
		b.Rows[1].Seed, b.Rows[1].Data = nil, nil
		b.Rows[3].Seed, b.Rows[3].Data = nil, []byte("\x03left")
		if err := tx.Append([]*log.Batch{b}); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	custody{
		purged:  spans(1, 2, 6, 7, 306, 307),
		reduced: map[uint64]string{3: "\x03left", 8: "\x03left", 308: "\x03left"},
	}.check(t, s, info.ID)
}

func testIDsWithPrefix(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	ids := []string{"treeline", "treeline9z", "treeline:", "treeline:a", "treeline:a:b", "treeline:zzz", "treelineA", "a", "z", "Treeline:a"}
	for _, id := range []log.ID{one.ID, two.ID} {
		tx, err := s.Begin(t.Context(), []log.ID{id})
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		b := batch(id, head(t, tx, id), len(ids), func(index uint64) string { return ids[index] })
		if err := tx.Append([]*log.Batch{b}); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string][]string{
		"treeline:": ids[2:6], "treeline:a": ids[3:5], "treeline:zzzz": nil, "": slices.Sorted(slices.Values(ids)), "z": {"z"}, "Z": nil,
	} {
		var got []string
		err := s.IDsWithPrefix(t.Context(), one.ID, prefix, func(id string, index uint64) error {
			if ids[index] != id {
				t.Errorf("id %s has the index %d", id, index)
			}
			got = append(got, id)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ids that begin with %q: got %q, %v, want %q", prefix, got, err, want)
		}
	}
	stop := errors.New("enough")
	if err := s.IDsWithPrefix(t.Context(), one.ID, "tree", func(string, uint64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a callback's error: got %v, want it back", err)
	}
}

func head(t *testing.T, tx log.Tx, id log.ID) log.Head {
	t.Helper()
	h, err := tx.Head(id)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func testGuard(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	if got, err := s.Custody(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("custody of logs that nobody guarded: got %v, %v", got, err)
	}
	if _, err := s.Guard(t.Context(), two.ID+99); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("guarding no log: got %v, want ErrNotFound", err)
	}
	var inside atomic.Int64
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			release, err := s.Guard(context.Background(), one.ID)
			if err != nil {
				t.Error(err)
				return
			}
			if inside.Add(1) != 1 {
				t.Error("two guard a log at a time")
			}
			// Who guards a log appends to it and purges.
			if err := s.Purge(context.Background(), one.ID, spans(0, 1)); err != nil {
				t.Error(err)
			}
			inside.Add(-1)
			release()
			release() // twice is as good as once
		})
	}
	wg.Wait()
	before, err := s.Custody(t.Context())
	if err != nil || before[one.ID] == 0 || len(before) != 1 {
		t.Errorf("custody: got %v, %v, want a number for log %d only", before, err, one.ID)
	}
	release, err := s.Guard(t.Context(), one.ID)
	if err != nil {
		t.Fatal(err)
	}
	if during, err := s.Custody(t.Context()); err != nil || during[one.ID] != before[one.ID] {
		t.Errorf("custody while a log is guarded: got %v, %v, want %v", during, err, before)
	}
	hurried, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Guard(hurried, one.ID); err == nil {
		t.Error("a second guard didn't wait")
	}
	other, err := s.Guard(t.Context(), two.ID) // of another log
	if err != nil {
		t.Fatal(err)
	}
	appendTo(t, s, one.ID, 1)
	other()
	release()
	if after, err := s.Custody(t.Context()); err != nil || after[one.ID] <= before[one.ID] || after[two.ID] == 0 {
		t.Errorf("custody: got %v, %v, want more than %v", after, err, before)
	}
}

func testRetain(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	if err := s.Retain(t.Context(), two.ID+99, "short"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("the class of no log: got %v, want ErrNotFound", err)
	}
	for _, class := range []string{"short", "standard", "short", "2555d", "standard"} {
		if err := s.Retain(t.Context(), one.ID, class); err != nil {
			t.Fatal(err)
		}
		appendTo(t, s, one.ID, 3)
		appendTo(t, s, two.ID, 300)
		custody{}.check(t, s, one.ID)
	}
	if err := s.Purge(t.Context(), one.ID, spans(1, 8)); err != nil {
		t.Fatal(err)
	}
	shred(t, s)
	s = o.Reopen(t, s)
	appendTo(t, s, one.ID, 3)
	custody{purged: spans(1, 8)}.check(t, s, one.ID)
	custody{}.check(t, s, two.ID)
}
