package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
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

// parseTemplate returns a body of the given number of events made of the template: the event itself for one, NDJSON
// for more.
func parseTemplate(template []byte, events int) (*body, error) {
	var line bytes.Buffer
	if err := json.Compact(&line, template); err != nil {
		return nil, fmt.Errorf("not a JSON value: %w", err)
	}
	line.WriteByte('\n')

	var one []byte
	var places []place
	rest := line.Bytes()
scan:
	for len(rest) > 0 {
		for kind, p := range placeholders {
			if bytes.HasPrefix(rest, []byte(p.name)) {
				places = append(places, place{offset: len(one), kind: kind})
				one = append(one, p.value...)
				rest = rest[len(p.name):]
				continue scan
			}
		}
		one, rest = append(one, rest[0]), rest[1:]
	}

	b := &body{bytes: bytes.Repeat(one, events), events: events}
	for event := range events {
		for _, p := range places {
			b.places = append(b.places, place{offset: event*len(one) + p.offset, event: event, kind: p.kind})
		}
	}
	return b, nil
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
