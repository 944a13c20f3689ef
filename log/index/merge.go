package index

import (
	"bytes"
	"container/heap"
	"fmt"
	"math"
	"slices"
)

// Merge returns the segment of level 1 that Fanout segments of level 0 make up, given in order. It is what building it at
// once from their events would give.
func Merge(parts []*Segment) (*Segment, error) {
	if len(parts) != Fanout || parts[0].Number%Fanout != 0 {
		return nil, fmt.Errorf("%d segments don't make one of level 1: %w", len(parts), ErrDamaged)
	}
	s := &Segment{Meta: Meta{
		Level: Level1, Number: parts[0].Number / Fanout, MinOccurred: math.MaxInt64, MaxOccurred: math.MinInt64,
		FirstReceived: parts[0].FirstReceived, LastReceived: parts[Fanout-1].LastReceived, Words: parts[0].Words,
	}}
	sources := make(sources, 0, Fanout)
	for i, p := range parts {
		if p.Level != Level0 || p.Number != parts[0].Number+uint64(i) || len(p.Blocks) == 0 {
			return nil, fmt.Errorf("segment %d/%d has %d blocks where 0/%d is wanted: %w",
				p.Level, p.Number, len(p.Blocks), parts[0].Number+uint64(i), ErrDamaged)
		}
		if p.Words != s.Words {
			return nil, fmt.Errorf("segment 0/%d has words %x, the first of those to be merged has %x: %w", p.Number, p.Words, s.Words, ErrDamaged)
		}
		s.MinOccurred, s.MaxOccurred = min(s.MinOccurred, p.MinOccurred), max(s.MaxOccurred, p.MaxOccurred)
		times := p.Blocks[0]
		body, err := p.open(times.Key, times.Data)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(times.Key, timesKeyOf(0)) {
			return nil, fmt.Errorf("segment 0/%d begins with block %x: %w", p.Number, times.Key, ErrDamaged)
		}
		s.seal(timesKeyOf(i), append(make([]byte, checksumSize, checksumSize+len(body)), body...))
		source := &source{segment: p, at: 1, base: uint32(i) * Width, want: []byte{firstKey}}
		if err := source.advance(); err != nil {
			return nil, err
		}
		if !source.ended {
			sources = append(sources, source)
		}
	}
	return s, sources.merge(&encoder{segment: s})
}

// source is one of the segments that are merged.
type source struct {
	segment *Segment
	at      int    // the next block
	want    []byte // the key it has to have; empty: there is none
	base    uint32 // offset of the segment's events in the merged one
	cursor  cursor
	ended   bool
}

// advance goes to the next key.
func (s *source) advance() error {
	for {
		ok, err := s.cursor.advance()
		if ok || err != nil {
			return err
		}
		if len(s.want) == 0 {
			s.ended = true
			if s.at != len(s.segment.Blocks) {
				return fmt.Errorf("segment 0/%d has blocks after its last: %w", s.segment.Number, ErrDamaged)
			}
			return nil
		}
		if s.at == len(s.segment.Blocks) || !bytes.Equal(s.segment.Blocks[s.at].Key, s.want) {
			return fmt.Errorf("segment 0/%d has no block %x: %w", s.segment.Number, s.want, ErrDamaged)
		}
		b := s.segment.Blocks[s.at]
		body, err := s.segment.open(b.Key, b.Data)
		if err != nil {
			return err
		}
		if err := s.cursor.begin(s.segment.Level, body); err != nil {
			return err
		}
		s.at, s.want = s.at+1, s.cursor.next
	}
}

// sources is a heap of segments by the key they stand at, and of those with one key by place.
type sources []*source

func (s sources) Len() int      { return len(s) }
func (s sources) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s sources) Less(i, j int) bool {
	c := bytes.Compare(s[i].cursor.key, s[j].cursor.key)
	return c < 0 || c == 0 && s[i].base < s[j].base
}

// Push and Pop make it a heap.Interface; sources only ever leave, by merge.
func (s *sources) Push(x any) { *s = append(*s, x.(*source)) }

// Pop removes the last one.
func (s *sources) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// merge adds all keys to e, each with the postings of all segments that have it.
func (s sources) merge(e *encoder) error {
	heap.Init(&s)
	var key []byte
	var offsets []uint32
	for len(s) > 0 {
		key, offsets = append(key[:0], s[0].cursor.key...), offsets[:0]
		for len(s) > 0 && bytes.Equal(s[0].cursor.key, key) {
			first := s[0]
			var err error
			if offsets, err = first.cursor.offsets(offsets, first.base); err != nil {
				return err
			}
			if err := first.advance(); err != nil {
				return err
			}
			if first.ended {
				heap.Pop(&s)
			} else {
				heap.Fix(&s, 0)
			}
		}
		if len(offsets) == 0 || !slices.IsSorted(offsets) {
			return fmt.Errorf("postings of %x are out of order: %w", key, ErrDamaged)
		}
		e.add(key, offsets)
	}
	e.end()
	return nil
}
