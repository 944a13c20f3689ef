package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// growTo appends growths to a hub, which stands at a head, and returns the batch. The entries are any bytes.
func growTo(t *testing.T, s log.Store, hub log.ID, head log.Head, growths ...log.Growth) (*log.Batch, error) {
	t.Helper()
	edge, err := merkle.ResumeRange(head.Size, head.Edge)
	if err != nil {
		t.Fatal(err)
	}
	b := &log.Batch{Log: hub, From: head.Size, Head: head, Growths: growths}
	for _, g := range growths {
		entry := fmt.Appendf(nil, "%073d", g.Index)
		b.Entries = append(b.Entries, entry...)
		b.Head.Last = merkle.LeafHash(entry)
		edge.Append(b.Head.Last, func(level uint, i uint64, h merkle.Hash) {
			if level > 0 && level%8 == 0 {
				b.Nodes = append(b.Nodes, log.Node{Level: int(level / 8), Index: i, Hash: h})
			}
		})
		b.Head.Size++
	}
	b.Head.Edge = edge.Hashes()
	tx, err := s.Begin(t.Context(), []log.ID{hub})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if err := tx.Append([]*log.Batch{b}); err != nil {
		return nil, err
	}
	return b, tx.Commit()
}

func testGrowths(t *testing.T, o Opener) {
	s := o.Open(t)
	a, b := CreateLog(t, s, "a"), CreateLog(t, s, "b")
	hub, other := CreateLog(t, s, "hub"), CreateLog(t, s, "other")
	head, err := s.Head(t.Context(), hub.ID)
	if err != nil {
		t.Fatal(err)
	}
	all := []log.Growth{{Log: a.ID, Size: 3, Index: 0}, {Log: b.ID, Size: 1, Index: 1}, {Log: a.ID, Size: 9, Index: 2}}
	first, err := growTo(t, s, hub.ID, head, all...)
	if err != nil {
		t.Fatal(err)
	}
	// Nothing of a batch that comes late is there.
	if _, err := growTo(t, s, hub.ID, head, log.Growth{Log: b.ID, Size: 7, Index: 3}); !errors.Is(err, log.ErrHeadMoved) {
		t.Errorf("a batch from a head that has moved: got %v, want ErrHeadMoved", err)
	}
	many := []log.Growth{}
	for i := range uint64(300) {
		many = append(many, log.Growth{Log: b.ID, Size: 10 + i, Index: 3 + i})
	}
	last, err := growTo(t, s, hub.ID, first.Head, many...)
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, many...)

	s = o.Reopen(t, s)
	if head, err := s.Head(t.Context(), hub.ID); err != nil || !sameHead(head, last.Head) {
		t.Errorf("head: got %+v, %v, want %+v", head, err, last.Head)
	}
	for _, r := range [][2]uint64{{0, 303}, {0, 0}, {1, 3}, {2, 300}, {302, 303}, {302, 400}} {
		var got []log.Growth
		err := s.Growths(t.Context(), hub.ID, r[0], r[1], func(g log.Growth) error {
			got = append(got, g)
			return nil
		})
		if want := all[r[0]:min(r[1], 303)]; err != nil || !slices.Equal(got, want) {
			t.Errorf("growths [%d, %d): got %v, %v, want %v", r[0], r[1], got, err, want)
		}
	}
	for size, want := range map[uint64][]log.Growth{
		0: nil, 1: {all[0]}, 2: {all[0], all[1]}, 3: {all[2], all[1]}, 203: {all[2], all[202]},
		303: {all[2], all[302]}, merkle.MaxSize: {all[2], all[302]},
	} {
		got, err := s.NewestGrowths(t.Context(), hub.ID, size)
		slices.SortFunc(got, func(x, y log.Growth) int { return int(x.Log - y.Log) })
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("newest growths of the first %d: got %v, %v, want %v", size, got, err, want)
		}
	}
	for _, c := range []struct {
		log  log.ID
		size uint64
		want int // of all; -1: none
	}{{a.ID, 3, -1}, {a.ID, 4, 0}, {a.ID, 9, 0}, {a.ID, merkle.MaxSize, 2}, {b.ID, 10, 1}, {b.ID, 11, 3}, {other.ID, 10, -1}} {
		got, err := s.GrowthBefore(t.Context(), hub.ID, c.log, c.size)
		switch {
		case c.want < 0 && !errors.Is(err, log.ErrNotFound):
			t.Errorf("growth of log %d before %d: got %v, %v, want ErrNotFound", c.log, c.size, got, err)
		case c.want >= 0 && (err != nil || got != all[c.want]):
			t.Errorf("growth of log %d before %d: got %v, %v, want %v", c.log, c.size, got, err, all[c.want])
		}
	}
	if c, err := s.Counts(t.Context(), hub.ID); err != nil || c != (log.Counts{Entries: 303, Growths: 303, Nodes: 1}) {
		t.Errorf("counts: got %+v, %v", c, err)
	}
	// Another hub, as it were, is not concerned.
	if got, err := s.NewestGrowths(t.Context(), other.ID, 1000); err != nil || got != nil {
		t.Errorf("newest growths of another log: got %v, %v", got, err)
	}
	if _, err := growTo(t, s, hub.ID, last.Head, all[0]); err == nil {
		t.Error("a growth that is there was added again")
	}
}

func testCheckpointsOf(t *testing.T, o Opener) {
	s := o.Open(t)
	a, b := CreateLog(t, s, "a"), CreateLog(t, s, "b")
	for _, c := range []struct {
		log  log.ID
		size uint64
	}{{a.ID, 0}, {a.ID, 3}, {a.ID, 9}, {b.ID, 0}, {b.ID, 3}} {
		if err := s.Record(t.Context(), c.log, log.Signed{Size: c.size, Note: fmt.Appendf(nil, "%d at %d", c.log, c.size)}); err != nil {
			t.Fatal(err)
		}
	}
	var asked []log.Growth
	for range 1000 { // more than a store may read at once
		asked = append(asked, log.Growth{Log: a.ID, Size: 9}, log.Growth{Log: b.ID, Size: 3}, log.Growth{Log: a.ID, Size: 4}, log.Growth{Log: 99, Size: 3})
	}
	got := make([]string, len(asked))
	err := s.CheckpointsOf(t.Context(), asked, func(i int, note []byte) error {
		got[i] += string(note)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, g := range asked {
		want := ""
		if i%4 < 2 {
			want = fmt.Sprintf("%d at %d", g.Log, g.Size)
		}
		if got[i] != want {
			t.Fatalf("checkpoint %d of log %d: got %q, want %q", g.Size, g.Log, got[i], want)
		}
	}
	failed := errors.New("enough")
	if err := s.CheckpointsOf(t.Context(), asked, func(int, []byte) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("the callback's error: got %v", err)
	}
}
