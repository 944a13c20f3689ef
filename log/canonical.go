package log

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"unicode/utf8"
)

// AppendCanonical appends the canonical form (RFC 8785, JCS) of the one JSON value in data to dst and returns the extended
// buffer. It refuses, with an *InvalidError, what RFC 8785 refuses and what would let two readers of one text disagree:
// malformed JSON, duplicate members, invalid UTF-8, lone surrogates, U+0000 in a string or name, numbers that their
// canonical form wouldn't denote exactly (see appendNumber), and nesting deeper than 64. It takes time linear in len(data), but
// for the sorting of members.
func AppendCanonical(dst, data []byte) ([]byte, error) {
	p := newParser(data)
	defer p.free()
	if len(p.problems) == 0 && p.value(1) {
		p.end()
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return append(dst, p.out...), nil
}

// IsCanonical returns nil if data is exactly the canonical form of the value in it, as AppendCanonical writes it, and
// otherwise says why it isn't.
func IsCanonical(data []byte) error {
	p := newParser(data)
	defer p.free()
	if len(p.problems) == 0 && p.value(1) {
		p.end()
	}
	if err := p.err(); err != nil {
		return err
	}
	return differs(data, p.out)
}

// differs returns an error that says where data departs from its one form, or nil where it doesn't.
func differs(data, form []byte) error {
	if bytes.Equal(data, form) {
		return nil
	}
	i := 0
	for i < len(data) && i < len(form) && data[i] == form[i] {
		i++
	}
	return &InvalidError{[]Problem{{-1, "", fmt.Sprintf("is not in canonical form from byte %d on", i+1)}}}
}

// value reads any JSON value; an array or object is the depth-th in nesting, counted from 1.
func (p *parser) value(depth int) bool {
	switch c := p.peek(); c {
	case '"':
		s, ok := p.str()
		if !ok || s.issue != "" && !p.problem("%s", s.issue) {
			return false
		}
		return p.fits()
	case '{':
		base := len(p.members)
		ok := p.object(depth)
		p.members = p.members[:base]
		return ok
	case '[':
		return p.array(depth)
	case 't':
		return p.literal("true")
	case 'f':
		return p.literal("false")
	case 'n':
		return p.literal("null")
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return p.number()
	}
	return p.unexpected("a JSON value")
}

// fits reports whether out is within its limit.
func (p *parser) fits() bool {
	if len(p.out) > p.limit {
		p.add("", fmt.Sprintf("is larger than %d bytes in canonical form", p.limit))
		return false
	}
	return true
}

func (p *parser) literal(word string) bool {
	if !bytes.HasPrefix(p.data[p.pos:], []byte(word)) {
		return p.unexpected("a JSON value")
	}
	p.pos += len(word)
	p.out = append(p.out, word...)
	return true
}

func (p *parser) number() bool {
	d, start := p.data, p.pos
	i, whole := start, true
	if d[i] == '-' {
		i++
	}
	digits := i
	if i < len(d) && d[i] == '0' {
		i++
	} else if i = skipDigits(d, i); i == digits {
		p.pos = i
		return p.unexpected("a digit")
	}
	if i < len(d) && d[i] == '.' {
		whole = false
		from := i + 1
		if i = skipDigits(d, from); i == from {
			p.pos = i
			return p.unexpected("a digit")
		}
	}
	if i < len(d) && d[i]|0x20 == 'e' {
		whole = false
		from := i + 1
		if from < len(d) && (d[from] == '+' || d[from] == '-') {
			from++
		}
		if i = skipDigits(d, from); i == from {
			p.pos = i
			return p.unexpected("a digit")
		}
	}
	p.pos = i
	if whole && i-digits <= safeDigits && d[start] != '-' {
		p.out = append(p.out, d[start:i]...)
		return true
	}
	var exact bool
	if p.out, exact = appendNumber(p.out, d[start:i]); !exact {
		p.out = append(p.out, '0')
		return p.problem("is a number that JSON readers would not keep exactly (IEEE 754 double precision): send it as a string")
	}
	return p.fits()
}

func skipDigits(d []byte, i int) int {
	for i < len(d) && '0' <= d[i] && d[i] <= '9' {
		i++
	}
	return i
}

func (p *parser) array(depth int) bool {
	if !p.enter(depth) {
		return false
	}
	p.out = append(p.out, '[')
	if p.peek() == ']' {
		p.pos++
		p.out = append(p.out, ']')
		return true
	}
	for i := 0; ; i++ {
		p.enterIndex(i)
		if !p.value(depth + 1) {
			return false
		}
		p.leave()
		more, ok := p.next(']')
		if !ok || !p.fits() {
			return false
		}
		if !more {
			p.out = append(p.out, ']')
			return true
		}
		p.out = append(p.out, ',')
	}
}

// member is one member of an object in out: "name":value at out[start:end], the closing quote of the name at out[quote].
type member struct {
	start, quote, end int32
	escaped           bool // whether the name's canonical form holds a backslash
}

func (m member) name(out []byte) []byte  { return out[m.start+1 : m.quote] }
func (m member) value(out []byte) []byte { return out[m.quote+2 : m.end] }

// object reads an object and leaves its members, in canonical order, on top of p.members for the caller to take off.
func (p *parser) object(depth int) bool {
	if !p.enter(depth) {
		return false
	}
	base, mark := len(p.members), len(p.out)
	p.out = append(p.out, '{')
	if p.peek() == '}' {
		p.pos++
		p.out = append(p.out, '}')
		return true
	}
	ordered := true
	for {
		before := len(p.out)
		if len(p.members) > base {
			p.out = append(p.out, ',')
		}
		start := len(p.out)
		name, valid, ok := p.name()
		if !ok {
			return false
		}
		m := member{start: int32(start), quote: int32(len(p.out) - 1), escaped: name.escaped}
		p.out = append(p.out, ':')
		if !p.value(depth + 1) {
			return false
		}
		if valid {
			p.leave()
			m.end = int32(len(p.out))
			if ordered && len(p.members) > base {
				ordered = p.compareNames(p.members[len(p.members)-1], m) < 0
			}
			p.members = append(p.members, m)
		} else {
			p.out = p.out[:before]
		}
		more, ok := p.next('}')
		if !ok || !p.fits() {
			return false
		}
		if !more {
			break
		}
	}
	if !ordered && !p.sort(mark, p.members[base:]) {
		return false
	}
	p.out = append(p.out, '}')
	return true
}

// sort brings the members of the object that begins at out[mark] in order, and notes duplicates.
func (p *parser) sort(mark int, members []member) bool {
	slices.SortFunc(members, p.compareNames)
	p.tmp = append(p.tmp[:0], p.out[mark:]...)
	p.out = p.out[:mark+1]
	for i := range members {
		if i > 0 {
			p.out = append(p.out, ',')
		}
		m := &members[i]
		start := len(p.out)
		p.out = append(p.out, p.tmp[int(m.start)-mark:int(m.end)-mark]...)
		moved := int32(start) - m.start
		m.start, m.quote, m.end = m.start+moved, m.quote+moved, m.end+moved
	}
	for i := 1; i < len(members); i++ {
		name := members[i].name(p.out)
		if !bytes.Equal(members[i-1].name(p.out), name) || i > 1 && bytes.Equal(members[i-2].name(p.out), name) {
			continue
		}
		if len(name) > 256 {
			if !p.problem("has two members of one name, which is %d bytes long", len(name)) {
				return false
			}
		} else if !p.problemAt(string(appendReference(nil, name)), "is given more than once") {
			return false
		}
	}
	return true
}

// compareNames compares the names of two members in out by their UTF-16 code units (RFC 8785 §3.2.3).
func (p *parser) compareNames(a, b member) int {
	x, y := a.name(p.out), b.name(p.out)
	if a.escaped || b.escaped {
		return compareEscaped(x, y)
	}
	n := min(len(x), len(y))
	for i := range n {
		if x[i] != y[i] {
			return compareUnits(x[i], y[i])
		}
	}
	return cmp.Compare(len(x), len(y))
}

// compareUnits compares the UTF-16 code units of two characters by the first bytes in which their UTF-8 differs. The orders
// are the same, but that a surrogate (UTF-8 from 0xf0 on) is less than the characters from U+E000 on (0xee and 0xef).
func compareUnits(x, y byte) int {
	switch {
	case x >= 0xf0 && (y == 0xee || y == 0xef):
		return -1
	case y >= 0xf0 && (x == 0xee || x == 0xef):
		return 1
	}
	return cmp.Compare(x, y)
}

// compareEscaped compares two bodies of canonical JSON strings by the UTF-16 code units that they denote.
func compareEscaped(x, y []byte) int {
	for len(x) > 0 && len(y) > 0 {
		r, n := nextRune(x)
		s, m := nextRune(y)
		if r != s {
			var a, b [utf8.UTFMax]byte
			utf8.EncodeRune(a[:], r)
			utf8.EncodeRune(b[:], s)
			for i := range a {
				if a[i] != b[i] {
					return compareUnits(a[i], b[i])
				}
			}
		}
		x, y = x[n:], y[m:]
	}
	return cmp.Compare(len(x), len(y))
}
