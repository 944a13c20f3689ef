package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// blockSize is how many bytes of entries make a block full, oldBlockSize those of a segment without words, as it was written before
// there were any. A block may be larger by an entry, which is at most a bitmap and a key. Two that are usual fit into a page of
// PostgreSQL, one into a page of SQLite.
const (
	blockSize    = 3840
	oldBlockSize = 4 << 10
)

const checksumSize = 8

// checksum returns what a block begins with. It is over where the block belongs, too, so that one in another's place is noticed.
func checksum(m *Meta, key, body []byte) uint64 {
	var place [1 + 8 + 0xff + 1 + 4]byte
	place[0] = byte(m.Level)
	binary.BigEndian.PutUint64(place[1:], m.Number)
	n := 9 + copy(place[9:], key)
	if m.Words != 0 {
		binary.BigEndian.PutUint32(place[n+1:], m.Words) // after a zero
		n += 5
	}
	return xxhash.Sum64(place[:n]) ^ xxhash.Sum64(body)
}

// seal completes a block that begins with room for its checksum, and adds it to the segment.
func (s *Segment) seal(key, block []byte) {
	binary.BigEndian.PutUint64(block, checksum(&s.Meta, key, block[checksumSize:]))
	s.Blocks = append(s.Blocks, Block{Key: key, Data: block})
}

// open returns the body of a block.
func (m *Meta) open(key, block []byte) ([]byte, error) {
	if len(block) < checksumSize || len(key) > 0xff {
		return nil, fmt.Errorf("block %x of segment %d/%d has %d bytes: %w", key, m.Level, m.Number, len(block), ErrDamaged)
	}
	body := block[checksumSize:]
	if got, want := checksum(m, key, body), binary.BigEndian.Uint64(block); got != want {
		return nil, fmt.Errorf("block %x of segment %d/%d has checksum %016x, want %016x: %w", key, m.Level, m.Number, got, want, ErrDamaged)
	}
	return body, nil
}

// addTimes adds the block of times that follows those that are there.
func (s *Segment) addTimes(times []int64) {
	block := make([]byte, checksumSize, checksumSize+4*len(times))
	last := int64(0)
	for _, t := range times {
		block = binary.AppendVarint(block, t-last)
		last = t
	}
	s.seal(timesKeyOf(len(s.Blocks)), block)
}

func timesKeyOf(block int) []byte {
	return binary.BigEndian.AppendUint16([]byte{timesKey}, uint16(block))
}

// encoder adds the blocks with postings to a segment. Keys are added in ascending order, each once.
type encoder struct {
	segment *Segment
	key     []byte // that the block being filled is stored under
	entries []byte
	last    []byte // the newest key
	scratch []byte
}

func (e *encoder) full() int {
	if e.segment.Words == 0 {
		return oldBlockSize
	}
	return blockSize
}

// add adds a key with its postings, which are ascending and not empty.
func (e *encoder) add(key []byte, offsets []uint32) {
	switch {
	case e.key == nil:
		e.key = []byte{firstKey}
	case len(e.entries) >= e.full():
		e.flush(key)
		e.key, e.last = slices.Clone(key), e.last[:0]
	}
	shared := 0
	for shared < len(e.last) && shared < len(key) && e.last[shared] == key[shared] {
		shared++
	}
	e.entries = binary.AppendUvarint(e.entries, uint64(shared))
	e.entries = binary.AppendUvarint(e.entries, uint64(len(key)-shared))
	e.entries = append(e.entries, key[shared:]...)
	e.last = append(e.last[:shared], key[shared:]...)
	e.addList(offsets)
}

// Kinds of lists of postings.
const (
	listOne    = 0
	listSome   = 1
	listBitmap = 2
)

func (e *encoder) addList(offsets []uint32) {
	last := offsets[len(offsets)-1]
	if len(offsets) == 1 {
		e.entries = binary.AppendUvarint(e.entries, uint64(last)<<2|listOne)
		return
	}
	list, next := e.scratch[:0], uint32(0)
	for _, o := range offsets {
		list = binary.AppendUvarint(list, uint64(o-next))
		next = o + 1
	}
	e.scratch = list
	if bitmap := int(last/8) + 1; bitmap < len(list) {
		e.entries = binary.AppendUvarint(e.entries, uint64(bitmap)<<2|listBitmap)
		start := len(e.entries)
		e.entries = append(e.entries, make([]byte, bitmap)...)
		for _, o := range offsets {
			e.entries[start+int(o/8)] |= 1 << (o % 8)
		}
		return
	}
	e.entries = binary.AppendUvarint(e.entries, uint64(len(list))<<2|listSome)
	e.entries = append(e.entries, list...)
}

// flush adds the block that is being filled; next is the key of the one after it.
func (e *encoder) flush(next []byte) {
	block := make([]byte, checksumSize, checksumSize+2+len(next)+len(e.entries))
	block = binary.AppendUvarint(block, uint64(len(next)))
	block = append(block, next...)
	block = append(block, e.entries...)
	e.segment.seal(e.key, block)
	e.entries = e.entries[:0]
}

// end adds the last block. A segment without any keys has an empty one.
func (e *encoder) end() {
	if e.key == nil {
		e.key = []byte{firstKey}
	}
	e.flush(nil)
}

// cursor reads the entries of a block with postings.
type cursor struct {
	next  []byte // the key of the next block
	rest  []byte
	width uint64 // events of the segment

	key  []byte // of the entry that was read; valid until the next is
	kind uint64
	one  uint32 // of listOne
	list []byte // of the others
}

// begin begins to read a block's body.
func (c *cursor) begin(level int, body []byte) error {
	n, rest, ok := uvarint(body)
	if !ok || n > uint64(len(rest)) {
		return fmt.Errorf("a block doesn't say where the next one begins: %w", ErrDamaged)
	}
	*c = cursor{next: rest[:n], rest: rest[n:], width: Events(level), key: c.key[:0]}
	return nil
}

// advance reads the next entry, and returns false at the end.
func (c *cursor) advance() (bool, error) {
	if len(c.rest) == 0 {
		return false, nil
	}
	shared, rest, ok1 := uvarint(c.rest)
	n, rest, ok2 := uvarint(rest)
	if !ok1 || !ok2 || shared > uint64(len(c.key)) || n > uint64(len(rest)) {
		return false, fmt.Errorf("malformed key after %x: %w", c.key, ErrDamaged)
	}
	suffix := rest[:n]
	if bytes.Compare(suffix, c.key[shared:]) <= 0 {
		return false, fmt.Errorf("keys out of order after %x: %w", c.key, ErrDamaged)
	}
	c.key = append(c.key[:shared], suffix...)
	head, rest, ok := uvarint(rest[n:])
	if !ok {
		return false, fmt.Errorf("malformed postings of %x: %w", c.key, ErrDamaged)
	}
	c.kind, head = head&3, head>>2
	if c.kind == listOne {
		if head >= c.width {
			return false, fmt.Errorf("postings of %x beyond the segment: %w", c.key, ErrDamaged)
		}
		c.one, c.rest = uint32(head), rest
		return true, nil
	}
	if c.kind > listBitmap || head > uint64(len(rest)) || c.kind == listBitmap && head > c.width/8 {
		return false, fmt.Errorf("malformed postings of %x: %w", c.key, ErrDamaged)
	}
	c.list, c.rest = rest[:head], rest[head:]
	return true, nil
}

// offsets appends the entry's postings, base added to each.
func (c *cursor) offsets(dst []uint32, base uint32) ([]uint32, error) {
	switch c.kind {
	case listOne:
		return append(dst, base+c.one), nil
	case listBitmap:
		for i, b := range c.list {
			for ; b != 0; b &= b - 1 {
				dst = append(dst, base+uint32(i*8+bits.TrailingZeros8(b)))
			}
		}
		return dst, nil
	}
	next := uint64(0)
	for rest := c.list; len(rest) > 0; {
		gap, r, ok := uvarint(rest)
		if !ok || gap >= c.width || next+gap >= c.width {
			return dst, fmt.Errorf("malformed postings of %x: %w", c.key, ErrDamaged)
		}
		dst = append(dst, base+uint32(next+gap))
		next, rest = next+gap+1, r
	}
	return dst, nil
}

// into sets the bits of the entry's postings.
func (c *cursor) into(set Set) error {
	switch c.kind {
	case listOne:
		set[c.one/64] |= 1 << (c.one % 64)
		return nil
	case listBitmap:
		for i, b := range c.list {
			set[i/8] |= uint64(b) << (i % 8 * 8)
		}
		return nil
	}
	next := uint64(0)
	for rest := c.list; len(rest) > 0; {
		gap, r, ok := uvarint(rest)
		if !ok || gap >= c.width || next+gap >= c.width {
			return fmt.Errorf("malformed postings of %x: %w", c.key, ErrDamaged)
		}
		o := next + gap
		set[o/64] |= 1 << (o % 64)
		next, rest = o+1, r
	}
	return nil
}

// uvarint reads a number in the one form that binary.AppendUvarint writes.
func uvarint(b []byte) (v uint64, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], true
	}
	v, n := binary.Uvarint(b)
	if n <= 0 || b[n-1] == 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}
