package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/merkle"
)

func testAt(t *testing.T, o Opener) {
	s := o.Open(t)
	info, other := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	appendTo(t, s, other.ID, 900)
	var all []byte
	for _, n := range []int{3, 1, 300, 256, 2} {
		all = append(all, appendTo(t, s, info.ID, n).Entries...)
	}
	for _, indices := range [][]uint64{nil, {0}, {561}, {0, 1, 2, 3, 4}, {2, 3, 255, 256, 257, 303, 304, 511, 512, 559, 560, 561}} {
		var got []uint64
		err := s.EntriesAt(t.Context(), info.ID, indices, func(i uint64, entry []byte) error {
			if !bytes.Equal(entry, all[i*log.EntrySize:(i+1)*log.EntrySize]) {
				t.Errorf("entry %d differs from what was appended", i)
			}
			got = append(got, i)
			return nil
		})
		if err != nil || !slices.Equal(got, indices) {
			t.Errorf("entries at %v: got %v, %v", indices, got, err)
		}
		got = nil
		err = s.PayloadsAt(t.Context(), info.ID, indices, func(i uint64, p log.Payload) error {
			if want := payload(i); !bytes.Equal(p.Seed, want.Seed) || !bytes.Equal(p.Data, want.Data) {
				t.Errorf("content %d: got %q, want %q", i, p.Data, want.Data)
			}
			got = append(got, i)
			return nil
		})
		if err != nil || !slices.Equal(got, indices) {
			t.Errorf("contents at %v: got %v, %v", indices, got, err)
		}
	}
	n := 0
	err := s.EntriesAt(t.Context(), info.ID, []uint64{561, 562}, func(uint64, []byte) error { n++; return nil })
	if !errors.Is(err, log.ErrDamaged) || n > 1 {
		t.Errorf("an entry beyond the end: got %d and %v, want ErrDamaged", n, err)
	}
	if err := s.EntriesAt(t.Context(), info.ID+99, []uint64{0}, nil); !errors.Is(err, log.ErrDamaged) {
		t.Errorf("an entry of no log: got %v, want ErrDamaged", err)
	}
	n = 0
	if err := s.PayloadsAt(t.Context(), info.ID, []uint64{561, 562}, func(uint64, log.Payload) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("a content beyond the end: got %d and %v, want 1", n, err)
	}
	stop := errors.New("enough")
	if err := s.EntriesAt(t.Context(), info.ID, []uint64{1, 2}, func(uint64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a callback's error: got %v, want it back", err)
	}
	if err := s.PayloadsAt(t.Context(), info.ID, []uint64{1, 2}, func(uint64, log.Payload) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a callback's error: got %v, want it back", err)
	}
}

// segment makes a segment whose blocks are stored under keys, which are what it holds, too.
func segment(level int, number uint64, keys ...string) *index.Segment {
	s := &index.Segment{Meta: index.Meta{
		Level: level, Number: number,
		MinOccurred: -5, MaxOccurred: 1 << 50, FirstReceived: int64(number), LastReceived: int64(number) + 1, Words: uint32(number) << 31,
	}}
	for _, k := range keys {
		s.Blocks = append(s.Blocks, index.Block{Key: []byte(k), Data: fmt.Appendf(nil, "%d/%d %s", level, number, k)})
	}
	return s
}

func at(size uint64) log.Indexed {
	if size == 0 {
		return log.Indexed{}
	}
	return log.Indexed{Size: size, Last: merkle.Hash{byte(size >> 10)}}
}

var everything = []index.Range{index.Whole}

// blocks returns what Blocks gives as segment:key texts, and checks the data.
func blocks(t *testing.T, s log.Store, id log.ID, level int, segments []uint64, ranges []index.Range) (out []string) {
	t.Helper()
	err := s.Blocks(t.Context(), id, level, segments, ranges, func(segment uint64, key, data []byte) error {
		if want := fmt.Sprintf("%d/%d %s", level, segment, key); string(data) != want {
			t.Errorf("block: got %q, want %q", data, want)
		}
		out = append(out, fmt.Sprintf("%d:%s", segment, key))
		return nil
	})
	if err != nil {
		t.Fatalf("blocks: %v", err)
	}
	return out
}

func checkIndex(t *testing.T, s log.Store, id log.ID, want log.Indexed, metas ...index.Meta) {
	t.Helper()
	if got, err := s.Indexed(t.Context(), id); err != nil || got != want {
		t.Errorf("indexed: got %+v, %v, want %+v", got, err, want)
	}
	got, err := s.Segments(t.Context(), id)
	if err != nil || len(got)+len(metas) > 0 && !reflect.DeepEqual(got, metas) {
		t.Errorf("segments: got %+v, %v, want %+v", got, err, metas)
	}
}

func testWriteIndex(t *testing.T, o Opener) {
	s := o.Open(t)
	info, other := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	checkIndex(t, s, info.ID, at(0))
	write := func(from, to log.Indexed, drop []index.Meta, add ...*index.Segment) error {
		return s.WriteIndex(t.Context(), info.ID, from, to, drop, add)
	}
	one, two, three := segment(0, 0, "a", "b"), segment(0, 1, "a"), segment(0, 2, "a")
	if err := write(at(0), at(2048), nil, one, two); err != nil {
		t.Fatal(err)
	}
	// Whoever believes it elsewhere changes nothing, be it the size or the history that is another.
	for _, from := range []log.Indexed{at(0), at(1024), at(3072), {Size: 2048, Last: merkle.Hash{99}}, {Size: 2048}} {
		if err := write(from, at(3072), []index.Meta{one.Meta}, three); !errors.Is(err, log.ErrHeadMoved) {
			t.Errorf("from %d: got %v, want ErrHeadMoved", from.Size, err)
		}
	}
	checkIndex(t, s, info.ID, at(2048), one.Meta, two.Meta)
	// What fails half-way leaves nothing.
	if err := write(at(2048), at(3072), []index.Meta{one.Meta}, three, two); err == nil {
		t.Error("a segment could be added twice")
	}
	checkIndex(t, s, info.ID, at(2048), one.Meta, two.Meta)
	// A segment can be replaced where the index stands.
	again := segment(0, 1, "a")
	again.Words = 1<<32 - 1
	if err := write(at(2048), at(2048), []index.Meta{two.Meta}, again); err != nil {
		t.Fatal(err)
	}
	checkIndex(t, s, info.ID, at(2048), one.Meta, again.Meta)
	if got := blocks(t, s, info.ID, 0, []uint64{1}, everything); !slices.Equal(got, []string{"1:a"}) {
		t.Errorf("blocks of the replaced segment: got %v", got)
	}
	two = again
	merged := segment(1, 0, "x")
	if err := write(at(2048), at(3072), []index.Meta{one.Meta, two.Meta}, merged, three); err != nil {
		t.Fatal(err)
	}
	s = o.Reopen(t, s)
	checkIndex(t, s, info.ID, at(3072), merged.Meta, three.Meta)
	checkIndex(t, s, other.ID, at(0))
	if got := blocks(t, s, info.ID, 0, []uint64{0, 1, 2}, everything); !slices.Equal(got, []string{"2:a"}) {
		t.Errorf("blocks of level 0: got %v", got)
	}
	if got := blocks(t, s, info.ID, 1, []uint64{0, 1}, everything); !slices.Equal(got, []string{"0:x"}) {
		t.Errorf("blocks of level 1: got %v", got)
	}
}

func testBlocks(t *testing.T, o Opener) {
	s := o.Open(t)
	info, other := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	for _, w := range []struct {
		id  log.ID
		seg *index.Segment
	}{
		{info.ID, segment(0, 0, "b", "d", "f", "h")}, {info.ID, segment(0, 1, "c", "g")}, {info.ID, segment(0, 2, "z")},
		{other.ID, segment(0, 0, "a", "e")},
	} {
		from, err := s.Indexed(t.Context(), w.id)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.WriteIndex(t.Context(), w.id, from, at(from.Size+1024), nil, []*index.Segment{w.seg}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name     string
		segments []uint64
		ranges   []string // from and to, each one letter
		want     []string
	}{
		{"all of one", []uint64{0}, []string{"az"}, []string{"0:b", "0:d", "0:f", "0:h"}},
		{"a range begins inside a block", []uint64{0}, []string{"ef"}, []string{"0:d"}},
		{"a range begins with a block", []uint64{0}, []string{"de"}, []string{"0:d"}},
		{"a range ends where a block begins", []uint64{0}, []string{"cd"}, []string{"0:b"}},
		{"a range over several blocks", []uint64{0}, []string{"cg"}, []string{"0:b", "0:d", "0:f"}},
		{"a range after all", []uint64{0}, []string{"yz"}, []string{"0:h"}},
		{"a range before all", []uint64{0}, []string{"ab"}, nil},
		{"two ranges in one block", []uint64{0}, []string{"dd", "ef"}, []string{"0:d"}},
		{"two ranges over one block", []uint64{0}, []string{"ce", "eg"}, []string{"0:b", "0:d", "0:f"}},
		{"two ranges with a gap", []uint64{0}, []string{"bc", "hi"}, []string{"0:b", "0:h"}},
		{"several segments", []uint64{0, 1, 2}, []string{"de"}, []string{"0:d", "1:c"}},
		{"a segment that isn't there", []uint64{1, 7}, []string{"az"}, []string{"1:c", "1:g"}},
		{"no ranges", []uint64{0}, nil, nil},
		{"no segments", nil, []string{"az"}, nil},
	} {
		var ranges []index.Range
		for _, r := range c.ranges {
			ranges = append(ranges, index.Range{From: []byte(r[:1]), To: []byte(r[1:])})
		}
		if got := blocks(t, s, info.ID, 0, c.segments, ranges); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	stop := errors.New("enough")
	err := s.Blocks(t.Context(), info.ID, 0, []uint64{0}, everything, func(uint64, []byte, []byte) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("a callback's error: got %v, want it back", err)
	}
}

func testDropIndex(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	for _, info := range []log.Info{one, two} {
		if err := s.WriteIndex(t.Context(), info.ID, at(0), at(1024), nil, []*index.Segment{segment(0, 0, "a", "b")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DropIndex(t.Context(), one.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.DropIndex(t.Context(), one.ID); err != nil { // twice is as good as once
		t.Fatal(err)
	}
	s = o.Reopen(t, s)
	checkIndex(t, s, one.ID, at(0))
	if got := blocks(t, s, one.ID, 0, []uint64{0}, everything); got != nil {
		t.Errorf("blocks after the drop: got %v", got)
	}
	checkIndex(t, s, two.ID, at(1024), segment(0, 0).Meta)
	if got := blocks(t, s, two.ID, 0, []uint64{0}, everything); len(got) != 2 {
		t.Errorf("blocks of the other log: got %v", got)
	}
	if err := s.WriteIndex(t.Context(), one.ID, at(0), at(1024), nil, []*index.Segment{segment(0, 0, "a")}); err != nil {
		t.Errorf("a new index after the drop: %v", err)
	}
}
