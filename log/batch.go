package log

import (
	"bytes"
	"fmt"
)

// ParseBatch reads {"events":[…]} with between one and limit events, each as ParseEvent reads it. A batch is accepted or refused as
// a whole. Problem.Index says in which event a problem is, with a pointer within that event; an id that an earlier
// event of the batch has is a problem of the later one.
func ParseBatch(data []byte, opt ParseOptions, limit int) ([]*Event, error) {
	p := newParser(data)
	defer p.free()
	if err := p.options(opt); err != nil {
		return nil, err
	}
	b := batch{p: p, opt: opt, limit: limit}
	if len(p.problems) == 0 && b.envelope() {
		p.end()
	}
	return b.finish()
}

// ParseNDJSON reads one event a line, each as ParseEvent reads it, between one and limit of them. Lines end in LF or CRLF, the last
// perhaps in nothing; those with nothing but white space are skipped and not counted. Problems are as those of ParseBatch; a
// syntax error in one line doesn't keep the others from being checked.
func ParseNDJSON(data []byte, opt ParseOptions, limit int) ([]*Event, error) {
	p := newParser(data)
	defer p.free()
	if err := p.options(opt); err != nil {
		return nil, err
	}
	b := batch{p: p, opt: opt, limit: limit}
	if len(p.problems) > 0 {
		return b.finish()
	}
	for rest := data; len(rest) > 0 && len(p.problems) < MaxProblems; p.line++ {
		line := rest
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line, rest = rest[:i], rest[i+1:]
		} else {
			rest = nil
		}
		p.data, p.pos = line, 0
		if p.space(); p.pos == len(line) {
			continue
		}
		if p.index = b.read; !b.room("") {
			break
		}
		if p.read() {
			p.end()
		}
		if err := b.add(); err != nil {
			return nil, err
		}
	}
	return b.finish()
}

// batch collects events.
type batch struct {
	p      *parser
	opt    ParseOptions
	limit  int
	read   int // events read so far, valid or not
	events []*Event
	ids    map[string]int // index of the event with that id
	err    error          // a mistake in the options
}

// envelope reads the object around the events.
func (b *batch) envelope() bool {
	p := b.p
	if p.peek() != '{' {
		return p.unexpected(`a batch, {"events":[…]}`)
	}
	p.pos++
	given, more := false, p.peek() != '}'
	if !more {
		p.pos++
	}
	for more {
		p.out, p.depth = p.out[:0], 0
		_, valid, ok := p.name()
		if !ok {
			return false
		}
		switch name := p.out[1 : len(p.out)-1]; {
		case !valid:
			ok = p.skip()
		case string(name) != "events":
			ok = p.problem(`is not a member that is known here; a batch is {"events":[…]}`) && p.skip()
		case given:
			ok = p.problem("is given more than once") && p.skip()
		case p.peek() != '[':
			given, ok = true, p.problem("must be an array of events") && p.skip()
		default:
			given, ok = true, b.array()
		}
		if !ok {
			return false
		}
		p.depth = 0
		if more, ok = p.next('}'); !ok {
			return false
		}
	}
	return given || p.problemAt("events", "is required")
}

// array reads the array of events.
func (b *batch) array() bool {
	p := b.p
	p.pos++
	if p.peek() == ']' {
		p.pos++
		return true
	}
	for more := true; more; {
		p.index = b.read
		if !b.room("/events") || !p.read() {
			return false
		}
		if b.err = b.add(); b.err != nil {
			return false
		}
		var ok bool
		if more, ok = p.next(']'); !ok {
			return false
		}
	}
	p.index = -1
	return true
}

// room reports whether one more event may come.
func (b *batch) room(pointer string) bool {
	if b.read == b.limit {
		b.p.index = -1
		b.p.add(pointer, fmt.Sprintf("holds more than %d events", b.limit))
		return false
	}
	return true
}

// add adds the event that was just read, unless there are problems: then nothing will be returned.
func (b *batch) add() error {
	b.read++
	if len(b.p.problems) > 0 {
		return nil
	}
	e, err := b.p.build(b.opt)
	if err != nil {
		if len(b.p.problems) > 0 {
			return nil // reported at the end with the others
		}
		return err
	}
	if b.ids == nil {
		b.ids = make(map[string]int)
	}
	if first, ok := b.ids[e.id]; ok {
		b.p.depth = 0
		b.p.problemAt("id", "is also the id of event %d of this batch", first)
		return nil
	}
	b.ids[e.id] = b.read - 1
	b.events = append(b.events, e)
	return nil
}

// finish returns the events, if there is nothing wrong with any of them.
func (b *batch) finish() ([]*Event, error) {
	if b.err != nil {
		return nil, b.err
	}
	if len(b.p.problems) == 0 && len(b.events) == 0 {
		b.p.index = -1
		b.p.add("", "holds no events")
	}
	if err := b.p.err(); err != nil {
		return nil, err
	}
	return b.events, nil
}
