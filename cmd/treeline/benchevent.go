package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
)

// defaultTemplate is the event that bench sends unless it is given another.
const defaultTemplate = `{"id":"{{id}}","action":"user.permission.updated","actor_id":"user_{{user}}",` +
	`"actor_email":"user_{{user}}@example.com","target_type":"user","target_id":"user_{{other}}",` +
	`"metadata":{"old_role":"viewer","new_role":"editor","ip":"203.0.113.42"}}`

// Every value that takes a placeholder's place is as long as all others, so that a body is written once and then
// only overwritten in place.
const (
	idPrefixLength = len("bench-01234567-") // the run's prefix
	idDigits       = 12
	userDigits     = 5
	users          = 10_000
)

// placeholders are what a template may hold, each with a value of the length that it stands for.
var placeholders = []struct{ name, value string }{
	{"{{id}}", string(bytes.Repeat([]byte{'0'}, idPrefixLength+idDigits))},
	{"{{user}}", "00000"},
	{"{{other}}", "00000"},
}

// sequence numbers the events of one run. It is safe for concurrent use.
type sequence struct {
	prefix string // of the ids, random for each run
	taken  atomic.Uint64
}

func newSequence() *sequence {
	var run [4]byte
	rand.Read(run[:])
	return &sequence{prefix: "bench-" + hex.EncodeToString(run[:]) + "-"}
}

// body is the body of a request, with the places where its events differ from others'.
type body struct {
	bytes  []byte
	events int
	places []place // in order
}

// place is where a value goes: one of placeholders, for one event of the body.
type place struct {
	offset int
	event  int
	kind   int // index in placeholders
}

// parseTemplate returns a body of the given number of events made of the templates, one JSON value after the other, in turn: an
// event itself for one, NDJSON for more.
func parseTemplate(templates []byte, events int) (*body, error) {
	var lines [][]byte
	for d := json.NewDecoder(bytes.NewReader(templates)); ; {
		var template json.RawMessage
		err := d.Decode(&template)
		if errors.Is(err, io.EOF) && len(lines) > 0 {
			break
		}
		var line bytes.Buffer
		if err == nil {
			err = json.Compact(&line, template)
		}
		if err != nil {
			return nil, fmt.Errorf("template %d is not a JSON value: %w", len(lines)+1, err)
		}
		lines = append(lines, append(line.Bytes(), '\n'))
	}
	b := &body{events: events}
	for event := range events {
		b.add(event, lines[event%len(lines)])
	}
	return b, nil
}

// add adds an event, as a line, with room for what its placeholders stand for.
func (b *body) add(event int, line []byte) {
scan:
	for len(line) > 0 {
		for kind, p := range placeholders {
			if bytes.HasPrefix(line, []byte(p.name)) {
				b.places = append(b.places, place{offset: len(b.bytes), event: event, kind: kind})
				b.bytes = append(b.bytes, p.value...)
				line = line[len(p.name):]
				continue scan
			}
		}
		b.bytes, line = append(b.bytes, line[0]), line[1:]
	}
}

// fill writes the next events of s into the body. It doesn't allocate.
func (b *body) fill(s *sequence) {
	first := s.taken.Add(uint64(b.events)) - uint64(b.events)
	for _, p := range b.places {
		number := first + uint64(p.event)
		// Fibonacci hashing spreads the users of neighbouring events.
		hash := number * 0x9e3779b97f4a7c15
		to := b.bytes[p.offset:]
		switch p.kind {
		case 0:
			copy(to, s.prefix)
			putDecimal(to[idPrefixLength:idPrefixLength+idDigits], number)
		case 1:
			putDecimal(to[:userDigits], hash>>40%users)
		case 2:
			putDecimal(to[:userDigits], hash>>16%users)
		}
	}
}

// putDecimal fills b with the last digits of n.
func putDecimal(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}
