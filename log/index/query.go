package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Range is a half-open range of keys.
type Range struct {
	From, To []byte
}

// Whole is the range of all blocks of a segment, Times that of its times.
var (
	Whole = Range{[]byte{timesKey}, []byte{endKey}}
	Times = Range{[]byte{timesKey}, []byte{firstKey}}
)

// exactly returns the range of one key.
func exactly(key []byte) Range {
	key = slices.Clip(key)
	return Range{key, append(key, 0)}
}

// ActionIs returns the keys of one action.
func ActionIs(action string) Range { return exactly(append([]byte{byte(Action)}, action...)) }

// ActionBegins returns the keys of all actions with a prefix.
func ActionBegins(prefix string) Range { return begins(append([]byte{byte(Action)}, prefix...)) }

// WordIs returns the keys of a word.
func WordIs(word string) Range {
	return exactly(append([]byte{byte(Word)}, word[:min(len(word), MaxWord)]...))
}

// WordBegins returns the keys of all words with a prefix.
func WordBegins(prefix string) Range {
	if len(prefix) >= MaxWord {
		return WordIs(prefix) // whatever comes after it isn't in the keys
	}
	return begins(append([]byte{byte(Word)}, prefix...))
}

// begins returns the range of all keys that begin like this one.
func begins(from []byte) Range {
	to := slices.Clone(from)
	for to[len(to)-1] == 0xff { // ends at the field's own byte, which is less
		to = to[:len(to)-1]
	}
	to[len(to)-1]++
	return Range{from, to}
}

// Is returns the keys of a value of a field other than Action, Metadata and Word.
func Is(f Field, value string) Range { return exactly(appendHash(nil, f, xxhash.Sum64String(value))) }

// MemberIs returns the keys of a member of metadata.
func MemberIs(path, value string) Range {
	return exactly(appendHash(nil, Metadata, xxhash.Sum64(appendMember(nil, path, value))))
}

// Set is a set of offsets in a segment.
type Set []uint64

// NewSet returns an empty set for a segment of a level.
func NewSet(level int) Set { return make(Set, Events(level)/64) }

// Has reports whether the set holds an offset.
func (s Set) Has(offset int) bool { return s[offset/64]>>(offset%64)&1 != 0 }

// Remove removes an offset.
func (s Set) Remove(offset int) { s[offset/64] &^= 1 << (offset % 64) }

// Count returns how many offsets the set holds.
func (s Set) Count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Keep removes all offsets that are not in [from, to).
func (s Set) Keep(from, to int) {
	for i := range s {
		low, high := max(from-i*64, 0), min(to-i*64, 64)
		if low >= high {
			s[i] = 0
			continue
		}
		s[i] &= ^uint64(0) << low & (^uint64(0) >> (64 - high))
	}
}

// Append appends the offsets to dst in ascending order, base added to each.
func (s Set) Append(dst []uint64, base uint64) []uint64 {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			dst = append(dst, base+uint64(i*64+bits.TrailingZeros64(w)))
		}
	}
	return dst
}

// Query is what is looked up in segments: the events that have, for each member, a key in one of its ranges.
type Query struct {
	members int
	ranges  []Range // ascending and disjoint
	of      [][]int // the members that each of them is for
}

// NewQuery returns the query for members, each a list of ranges. Where ranges of different members overlap, but aren't equal, each
// of the members gets the other's candidates, too.
func NewQuery(members [][]Range) *Query {
	q := &Query{members: len(members)}
	type row struct {
		Range
		member int
	}
	var rows []row
	for i, ranges := range members {
		for _, r := range ranges {
			rows = append(rows, row{r, i})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return bytes.Compare(a.From, b.From) })
	for _, r := range rows {
		last := len(q.ranges) - 1
		if last < 0 || bytes.Compare(r.From, q.ranges[last].To) >= 0 {
			q.ranges, q.of = append(q.ranges, r.Range), append(q.of, []int{r.member})
			continue
		}
		if bytes.Compare(r.To, q.ranges[last].To) > 0 {
			q.ranges[last].To = r.To
		}
		if !slices.Contains(q.of[last], r.member) {
			q.of[last] = append(q.of[last], r.member)
		}
	}
	return q
}

// Members returns the number of members.
func (q *Query) Members() int { return q.members }

// Ranges returns the ranges of keys whose blocks a Lookup needs, ascending and disjoint.
func (q *Query) Ranges() []Range { return q.ranges }

// Lookup looks a query up in the blocks of one segment.
type Lookup struct {
	query  *Query
	meta   Meta
	sets   []Set  // by member
	at     int    // the first range that isn't looked up to its end
	want   []byte // the key of the block that has to be next, since that range goes on there; empty: the one that the range begins in
	blocks int
	cursor cursor
}

// NewLookup begins to look a query up in a segment.
func (q *Query) NewLookup(m Meta) *Lookup {
	return &Lookup{query: q, meta: m, sets: make([]Set, q.members)}
}

// Add reads a block. Those that may hold keys of the query's ranges have to come in order, each once: for each range the last
// one that is stored under a key at or before its beginning, and those that are stored under keys within it.
func (l *Lookup) Add(key, data []byte) error {
	l.blocks++
	body, err := l.meta.open(key, data)
	if err != nil {
		return err
	}
	c := &l.cursor
	if err := c.begin(l.meta.Level, body); err != nil {
		return err
	}
	ranges := l.query.ranges
	if l.at == len(ranges) {
		return l.damaged("an unwanted block")
	}
	begins := bytes.Compare(key, ranges[l.at].From) <= 0 && (len(c.next) == 0 || bytes.Compare(ranges[l.at].From, c.next) < 0)
	if len(l.want) == 0 && !begins || len(l.want) > 0 && !bytes.Equal(key, l.want) {
		return l.damaged(fmt.Sprintf("block %x", key))
	}
	for i := l.at; ; {
		more, err := c.advance()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		for i < len(ranges) && bytes.Compare(ranges[i].To, c.key) <= 0 {
			i++
		}
		if i == len(ranges) {
			break
		}
		if bytes.Compare(c.key, ranges[i].From) < 0 {
			continue
		}
		for _, m := range l.query.of[i] {
			if l.sets[m] == nil {
				l.sets[m] = NewSet(l.meta.Level)
			}
			if err := c.into(l.sets[m]); err != nil {
				return err
			}
		}
	}
	for l.at < len(ranges) && (len(c.next) == 0 || bytes.Compare(ranges[l.at].To, c.next) <= 0) {
		l.at++
	}
	l.want = l.want[:0]
	if l.at < len(ranges) && bytes.Compare(ranges[l.at].From, c.next) < 0 {
		l.want = append(l.want, c.next...)
	}
	return nil
}

func (l *Lookup) damaged(have string) error {
	if l.at == len(l.query.ranges) {
		return fmt.Errorf("segment %d/%d: %s: %w", l.meta.Level, l.meta.Number, have, ErrDamaged)
	}
	return fmt.Errorf("segment %d/%d: %s where the block with key %x should be: %w", l.meta.Level, l.meta.Number, have,
		l.query.ranges[l.at].From, ErrDamaged)
}

// Blocks returns how many blocks were read. With none, the segment isn't there at all.
func (l *Lookup) Blocks() int { return l.blocks }

// Result returns the candidates, once all blocks were added; ErrDamaged if some are missing.
func (l *Lookup) Result() (Set, error) {
	if l.at < len(l.query.ranges) {
		return nil, l.damaged("nothing")
	}
	for i := 1; i < len(l.sets) && l.sets[0] != nil; i++ {
		if l.sets[i] == nil {
			l.sets[0] = nil
			break
		}
		for j := range l.sets[0] {
			l.sets[0][j] &= l.sets[i][j]
		}
	}
	if len(l.sets) == 0 || l.sets[0] == nil {
		return NewSet(l.meta.Level), nil
	}
	return l.sets[0], nil
}

// Column reads the times of one segment.
type Column struct {
	meta Meta
	next int // block
}

// NewColumn begins to read the times of a segment.
func NewColumn(m Meta) *Column { return &Column{meta: m} }

// Add reads the next block of the range Times, and calls fn with each event's offset and time.
func (c *Column) Add(key, data []byte, fn func(offset int, occurred int64)) error {
	body, err := c.meta.open(key, data)
	if err != nil {
		return err
	}
	if !bytes.Equal(key, timesKeyOf(c.next)) || uint64(c.next+1)*Width > Events(c.meta.Level) {
		return fmt.Errorf("segment %d/%d has block %x where times %d should be: %w", c.meta.Level, c.meta.Number, key, c.next, ErrDamaged)
	}
	t := int64(0)
	for i := range Width {
		delta, n := binary.Varint(body)
		if n <= 0 {
			return fmt.Errorf("segment %d/%d has malformed times: %w", c.meta.Level, c.meta.Number, ErrDamaged)
		}
		t, body = t+delta, body[n:]
		fn(c.next*Width+i, t)
	}
	if len(body) > 0 {
		return fmt.Errorf("segment %d/%d has more times than events: %w", c.meta.Level, c.meta.Number, ErrDamaged)
	}
	c.next++
	return nil
}

// Close returns ErrDamaged if blocks are missing.
func (c *Column) Close() error {
	if uint64(c.next)*Width != Events(c.meta.Level) {
		return fmt.Errorf("segment %d/%d has %d blocks of times: %w", c.meta.Level, c.meta.Number, c.next, ErrDamaged)
	}
	return nil
}
