package index

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"math"
	"slices"

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

// Field is the part of an event that a key is about: the key's first byte.
type Field byte

// Fields that are indexed.
const (
	Action     Field = 'a' // as text; all others as hashes
	ActorEmail Field = 'e'
	ActorID    Field = 'i'
	Metadata   Field = 'm' // of path, 0x00 and value
	Outcome    Field = 'o'
	IP         Field = 'p'
	TargetID   Field = 't'
	TargetType Field = 'y'
)

// Keys that blocks are stored under and no field begins with.
const (
	timesKey = 0x00 // and the number of the block in two bytes
	firstKey = 0x01 // of the first block with postings
	endKey   = 0xff // above all
)

// Builder makes segments of level 0 from events. The zero value is ready for use.
type Builder struct {
	times  []int64
	meta   Meta
	hashes []hashed
	texts  map[string][]uint32 // by action
	value  []byte
}

// hashed is a key that is a hash, of one event.
type hashed struct {
	hash   uint64
	offset uint32
	field  Field
}

// Begin drops what was added and begins the segment of that number.
func (b *Builder) Begin(number uint64) {
	b.times, b.hashes = b.times[:0], b.hashes[:0]
	b.meta = Meta{Number: number, MinOccurred: math.MaxInt64, MaxOccurred: math.MinInt64}
	if b.texts == nil {
		b.texts = make(map[string][]uint32)
	}
	clear(b.texts)
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
	offsets := append(b.texts[string(action)], b.offset())
	b.texts[string(action)] = offsets
}

// Term adds a value of a field other than Action and Metadata to the event that Add began.
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
	for _, action := range slices.Sorted(maps.Keys(b.texts)) {
		e.add(append(append(key, byte(Action)), action...), slices.Compact(b.texts[action]))
	}
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
	e.end()
	return s
}

func appendHash(dst []byte, f Field, hash uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, byte(f)), hash)
}
