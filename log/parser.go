package log

import (
	"bytes"
	"fmt"
	"math"
	"sync"
	"unicode/utf8"
)

// maxNesting is the deepest nesting of arrays and objects that is parsed at all. It is well above what an event or a
// disclosure may have (16 within metadata, before and after) and bounds the recursion.
const maxNesting = 64

// parser reads JSON text once, checks it, and writes the canonical form (RFC 8785) of what it reads to out. Its methods
// return false when it can't go on: after a syntax error, or with MaxProblems problems. Anything else that is wrong is
// noted in problems and parsing continues, so that a client is told everything at once.
//
// Parsers are kept for reuse. Nothing that they return shares memory with them.
type parser struct {
	data []byte // the input
	pos  int    // next byte of data
	line int    // lines of the input before data (NDJSON), for positions in errors

	out     []byte // canonical text so far
	limit   int    // most bytes that out may hold
	members []member
	tmp     []byte

	// path holds the names and indices that lead from the event to the current value.
	path  [maxNesting + 8]step
	depth int

	// nest is the deepest nesting that value refuses, with a problem, to go beyond.
	nest int

	index    int // of the event in its batch, or -1
	problems []Problem

	event eventDraft
	text  []byte // the event's canonical form
	names []byte // pointers of its metadata claims
}

// span is a part of a buffer: from start (inclusive) to end (exclusive). The zero span stands for an absent value.
type span struct{ start, end int32 }

func (s span) in(b []byte) []byte { return b[s.start:s.end] }

// step is one reference token of a path: a member's name, as the body of a JSON string at data[start:end], or, where start is
// negative, an index.
type step struct {
	start, end int32
	index      int32
}

var parsers = sync.Pool{New: func() any { return new(parser) }}

// newParser returns a parser for data. The caller gives it back with free.
func newParser(data []byte) *parser {
	p := parsers.Get().(*parser)
	p.data, p.pos, p.line = data, 0, 0
	p.out, p.limit = p.out[:0], math.MaxInt32
	p.depth, p.nest, p.index = 0, maxNesting, -1
	p.members = p.members[:0]
	p.problems = nil
	if len(data) > math.MaxInt32/2 {
		p.data = nil
		p.fail(0, "is larger than 1 GiB")
	} else if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		p.fail(0, "starts with a byte order mark: send UTF-8 without one")
	}
	return p
}

// free gives the parser back, unless a large input has left it with more memory than is worth keeping.
func (p *parser) free() {
	const keep = 256 << 10
	p.data, p.problems = nil, nil
	if cap(p.out)+cap(p.tmp)+cap(p.members)*16 <= keep {
		parsers.Put(p)
	}
}

// err returns the problems found as an *InvalidError, or nil.
func (p *parser) err() error {
	if len(p.problems) == 0 {
		return nil
	}
	return &InvalidError{p.problems}
}

// fail notes an error of syntax at an offset of data, and returns false.
func (p *parser) fail(pos int, format string, args ...any) bool {
	before := p.data[:min(pos, len(p.data))]
	line := p.line + 1 + bytes.Count(before, []byte{'\n'})
	at := len(before) - bytes.LastIndexByte(before, '\n')
	p.add("", fmt.Sprintf("line %d, byte %d: ", line, at)+fmt.Sprintf(format, args...))
	return false
}

// unexpected notes that something else than what is wanted stands at the current position, and returns false.
func (p *parser) unexpected(want string) bool {
	if p.pos >= len(p.data) {
		return p.fail(p.pos, "unexpected end of the input, want %s", want)
	}
	r, size := utf8.DecodeRune(p.data[p.pos:])
	if r == utf8.RuneError && size == 1 {
		return p.fail(p.pos, "byte 0x%02x where %s was expected", p.data[p.pos], want)
	}
	return p.fail(p.pos, "character %q where %s was expected", r, want)
}

// problem notes a problem with the value at the current path, and reports whether parsing may go on.
func (p *parser) problem(format string, args ...any) bool {
	return p.add(p.pointer(), fmt.Sprintf(format, args...))
}

// problemAt is problem for the member of that name within the value at the current path.
func (p *parser) problemAt(name, format string, args ...any) bool {
	return p.add(p.pointer()+"/"+name, fmt.Sprintf(format, args...))
}

func (p *parser) add(pointer, detail string) bool {
	p.problems = append(p.problems, Problem{p.index, pointer, detail})
	return len(p.problems) < MaxProblems
}

// pointer returns the JSON Pointer (RFC 6901) of the current path, up to the first name that is too long to be repeated.
func (p *parser) pointer() string {
	const longest = 256
	var b []byte
	for _, s := range p.path[:p.depth] {
		if s.start < 0 {
			b = fmt.Appendf(b, "/%d", s.index)
			continue
		}
		if s.end-s.start > longest {
			break
		}
		b = appendReference(append(b, '/'), p.data[s.start:s.end])
	}
	return string(b)
}

// space skips white space.
func (p *parser) space() {
	for p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// peek skips white space and returns the next byte, or 0 at the end.
func (p *parser) peek() byte {
	if p.pos < len(p.data) && p.data[p.pos] > ' ' {
		return p.data[p.pos]
	}
	p.space()
	if p.pos < len(p.data) {
		return p.data[p.pos]
	}
	return 0
}

// end checks that nothing but white space is left.
func (p *parser) end() {
	p.space()
	if p.pos < len(p.data) {
		p.unexpected("the end of the input")
	}
}

// enter steps over the bracket that opens an array or object, the depth-th in nesting from 1, unless that is too deep.
func (p *parser) enter(depth int) bool {
	switch {
	case depth > maxNesting || p.depth >= len(p.path)-1:
		return p.fail(p.pos, "arrays and objects are nested deeper than %d", maxNesting)
	case depth == p.nest+1:
		// Noted once, where the limit is passed, and not again for what is inside.
		if !p.problem("is nested too deep: arrays and objects go at most %d deep here", p.nest) {
			return false
		}
	}
	p.pos++
	return true
}

// next steps over the comma between two elements or members, or the bracket that closes them: more says which.
func (p *parser) next(closing byte) (more, ok bool) {
	switch c := p.peek(); c {
	case ',':
		p.pos++
		return true, true
	case closing:
		p.pos++
		return false, true
	}
	return false, p.unexpected(`"," or "` + string(closing) + `"`)
}

// name reads a member's name and the colon behind it. It appends the name's canonical form to out and makes it the last step
// of the path, unless it has an issue: such a name can't stand in a pointer, and valid is false. The caller ends the step with leave.
func (p *parser) name() (s text, valid, ok bool) {
	if p.peek() != '"' {
		return s, false, p.unexpected("a member's name")
	}
	start := p.pos + 1
	s, ok = p.str()
	if !ok {
		return s, false, false
	}
	end := p.pos - 1
	if p.peek() != ':' {
		return s, false, p.unexpected(`":"`)
	}
	p.pos++
	valid = s.issue == ""
	if !valid && !p.problem("has a member whose name %s", s.issue) {
		return s, false, false
	}
	if valid {
		p.path[p.depth] = step{int32(start), int32(end), 0}
		p.depth++
	}
	return s, valid, true
}

func (p *parser) enterIndex(i int) {
	p.path[p.depth] = step{start: -1, index: int32(i)}
	p.depth++
}

func (p *parser) leave() { p.depth-- }
