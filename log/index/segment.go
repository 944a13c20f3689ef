package index

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Sizes of segments.
const (
	Width  = 1024 // events of a segment of level 0, and of a block of times
	Fanout = 64   // segments of level 0 in one of level 1
)

// Levels of segments.
const (
	Level0 = 0
	Level1 = 1
)

// Events returns how many events a segment of a level covers.
func Events(level int) uint64 {
	if level == Level0 {
		return Width
	}
	return Width * Fanout
}

// ErrDamaged means that blocks are missing, or are not what this package wrote.
var ErrDamaged = errors.New("the search index is damaged")

// Meta says what a segment covers.
type Meta struct {
	Level  int
	Number uint64 // it covers the events [Number, Number+1) × Events(Level)
	// Times are in µs since 1970 UTC, both ends included. Occurred is occurred_at, or received_at where an event doesn't say.
	MinOccurred, MaxOccurred    int64
	FirstReceived, LastReceived int64
	// Words names what the segment holds under Word, and is a part of what its blocks' checksums are over: two segments of the same
	// events with different ones can't be taken for each other. 0: it holds no words.
	Words uint32
}

// First returns the index of the segment's first event.
func (m Meta) First() uint64 { return m.Number * Events(m.Level) }

// End returns the index of the event after the segment's last.
func (m Meta) End() uint64 { return m.First() + Events(m.Level) }

// Segment is a segment with its content.
type Segment struct {
	Meta
	Blocks []Block // by key
}

// Block is a part of a segment as it is stored.
type Block struct {
	Key, Data []byte
}

// MaxWord is the size in bytes that the keys of words are cut to.
const MaxWord = 64

// Field is the part of an event that a key is about: the key's first byte.
type Field byte

// Fields that are indexed.
const (
	Action     Field = 'a' // as text; all others but Word as hashes
	ActorEmail Field = 'e'
	ActorID    Field = 'i'
	Metadata   Field = 'm' // of path, 0x00 and value
	Outcome    Field = 'o'
	IP         Field = 'p'
	TargetID   Field = 't'
	TargetType Field = 'y'
	Word       Field = 'z' // as text; after all that are hashes
)

// Keys that blocks are stored under and no field begins with.
const (
	timesKey = 0x00 // and the number of the block in two bytes
	firstKey = 0x01 // of the first block with postings
	endKey   = 0xff // above all
)

// Builder makes segments of level 0 from events. The zero value is ready for use.
type Builder struct {
	times   []int64
	meta    Meta
	hashes  []hashed
	actions texts
	words   texts
	value   []byte
}

// texts are keys that are texts, of all events.
type texts struct {
	numbers map[string]uint32
	all     []string // by number
	last    []uint32 // by number, the offset of the newest event that has it, and 1
	pairs   []pair
}

// pair says that an event has a text.
type pair struct{ number, offset uint32 }

// hashed is a key that is a hash, of one event.
type hashed struct {
	hash   uint64
	offset uint32
	field  Field
}

// Begin drops what was added and begins the segment of that number. Words says what Word will be called with, as Meta has it.
func (b *Builder) Begin(number uint64, words uint32) {
	b.times, b.hashes = b.times[:0], b.hashes[:0]
	b.meta = Meta{Number: number, MinOccurred: math.MaxInt64, MaxOccurred: math.MinInt64, Words: words}
	b.actions.begin()
	b.words.begin()
}

// Add begins the next event of the segment, whose terms follow. An event without content has none.
func (b *Builder) Add(received, occurred int64) {
	if len(b.times) == 0 {
		b.meta.FirstReceived = received
	}
	b.meta.LastReceived = received
	b.meta.MinOccurred, b.meta.MaxOccurred = min(b.meta.MinOccurred, occurred), max(b.meta.MaxOccurred, occurred)
	b.times = append(b.times, occurred)
}

// Action adds the action of the event that Add began.
func (b *Builder) Action(action []byte) {
	b.actions.add(action, b.offset())
}

// Word adds a word of the event that Add began, which may be one that it has already. Of a long one only the first MaxWord bytes
// count.
func (b *Builder) Word(word []byte) {
	b.words.add(word[:min(len(word), MaxWord)], b.offset())
}

// Term adds a value of a field other than Action, Metadata and Word to the event that Add began.
func (b *Builder) Term(f Field, value []byte) {
	b.hashes = append(b.hashes, hashed{xxhash.Sum64(value), b.offset(), f})
}

// Metadata adds a member of metadata to the event that Add began.
func (b *Builder) Metadata(path, value []byte) {
	b.value = appendMember(b.value[:0], path, value)
	b.Term(Metadata, b.value)
}

func appendMember[T string | []byte](dst []byte, path, value T) []byte {
	dst = append(dst, path...)
	dst = append(dst, 0)
	return append(dst, value...)
}

func (b *Builder) offset() uint32 { return uint32(len(b.times) - 1) }

// Segment returns the segment of the Width events that were added.
func (b *Builder) Segment() *Segment {
	if len(b.times) != Width {
		panic("index: a segment needs exactly Width events")
	}
	s := &Segment{Meta: b.meta}
	s.addTimes(b.times)
	e := encoder{segment: s}
	key := make([]byte, 0, 1+256)
	b.actions.encode(&e, Action)
	slices.SortFunc(b.hashes, func(x, y hashed) int {
		switch {
		case x.field != y.field:
			return cmp.Compare(x.field, y.field)
		case x.hash != y.hash:
			return cmp.Compare(x.hash, y.hash)
		}
		return cmp.Compare(x.offset, y.offset)
	})
	var offsets []uint32
	for i := 0; i < len(b.hashes); {
		h := b.hashes[i]
		for offsets = offsets[:0]; i < len(b.hashes) && b.hashes[i].field == h.field && b.hashes[i].hash == h.hash; i++ {
			if o := b.hashes[i].offset; len(offsets) == 0 || offsets[len(offsets)-1] != o {
				offsets = append(offsets, o)
			}
		}
		e.add(appendHash(key, h.field, h.hash), offsets)
	}
	b.words.encode(&e, Word)
	e.end()
	return s
}

func (t *texts) begin() {
	if t.numbers == nil {
		t.numbers = make(map[string]uint32)
	}
	clear(t.numbers)
	t.all, t.last, t.pairs = t.all[:0], t.last[:0], t.pairs[:0]
}

func (t *texts) add(text []byte, offset uint32) {
	n, ok := t.numbers[string(text)]
	if !ok {
		n = uint32(len(t.all))
		t.all, t.last = append(t.all, string(text)), append(t.last, 0)
		t.numbers[t.all[n]] = n
	}
	if t.last[n] != offset+1 {
		t.last[n] = offset + 1
		t.pairs = append(t.pairs, pair{n, offset})
	}
}

// encode adds all texts as keys of a field.
func (t *texts) encode(e *encoder, f Field) {
	// The pairs are in the order of the events: it is enough to deal them out.
	ends := make([]uint32, len(t.all)+1)
	for _, p := range t.pairs {
		ends[p.number+1]++
	}
	for n := range t.all {
		ends[n+1] += ends[n]
	}
	offsets, at := make([]uint32, len(t.pairs)), slices.Clone(ends)
	for _, p := range t.pairs {
		offsets[at[p.number]] = p.offset
		at[p.number]++
	}
	sorted := make([]uint32, len(t.all))
	for n := range sorted {
		sorted[n] = uint32(n)
	}
	slices.SortFunc(sorted, func(x, y uint32) int { return strings.Compare(t.all[x], t.all[y]) })
	key := make([]byte, 0, 1+256)
	for _, n := range sorted {
		e.add(append(append(key, byte(f)), t.all[n]...), offsets[ends[n]:ends[n+1]])
	}
}

func appendHash(dst []byte, f Field, hash uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, byte(f)), hash)
}
