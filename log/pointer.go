package log

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendReference appends the reference token (RFC 6901) of the name that is denoted by the body of a JSON string.
func appendReference(dst, body []byte) []byte {
	if bytes.IndexByte(body, '\\') < 0 && bytes.IndexByte(body, '~') < 0 && bytes.IndexByte(body, '/') < 0 {
		return append(dst, body...)
	}
	for len(body) > 0 {
		r, n := nextRune(body)
		if n == 0 {
			break
		}
		switch r {
		case '~':
			dst = append(dst, "~0"...)
		case '/':
			dst = append(dst, "~1"...)
		default:
			dst = utf8.AppendRune(dst, r)
		}
		body = body[n:]
	}
	return dst
}

// place is what a claim's pointer names: a member of a scope, one of changes, or (neither) a member of metadata.
type place struct {
	scope *scope
	rule  int // of the scope; not for changes
	index int // of targets and changes
}

// parsePointer parses a claim's pointer.
func parsePointer(pointer string) (place, error) {
	bad := func() (place, error) { return place{}, fmt.Errorf("%q is not the pointer of a claim", pointer) }
	rest, ok := strings.CutPrefix(pointer, "/")
	if !ok {
		return bad()
	}
	head, rest, deeper := strings.Cut(rest, "/")
	if !deeper {
		i := eventScope.find([]byte(head))
		if i < 0 {
			return bad()
		}
		return place{scope: eventScope, rule: i}, nil
	}
	switch head {
	case "actor", "context":
		s := actorScope
		if head == "context" {
			s = contextScope
		}
		if i := s.find([]byte(rest)); i >= 0 {
			return place{scope: s, rule: i}, nil
		}
	case "metadata":
		if size, ok := referenceSize(rest); ok && size >= 1 && size <= maxName {
			return place{}, nil
		}
	case "changes":
		if i, ok := parseIndex(rest, MaxChanges); ok {
			return place{scope: changeScope, index: i}, nil
		}
	case "targets":
		number, name, _ := strings.Cut(rest, "/")
		i, ok := parseIndex(number, MaxTargets)
		if m := targetScope.find([]byte(name)); ok && m >= 0 {
			return place{scope: targetScope, rule: m, index: i}, nil
		}
	}
	return bad()
}

// referenceSize returns the size in bytes of the name that a reference token stands for: ~0 and ~1 are the only escapes, and a
// name is valid UTF-8 without U+0000.
func referenceSize(token string) (int, bool) {
	size := len(token)
	for i := 0; i < len(token); i++ {
		switch token[i] {
		case 0, '/':
			return 0, false
		case '~':
			if i++; i == len(token) || token[i] != '0' && token[i] != '1' {
				return 0, false
			}
			size--
		}
	}
	return size, utf8.ValidString(token)
}

// parseIndex parses a canonical decimal below limit.
func parseIndex(s string, limit int) (int, bool) {
	i, err := strconv.Atoi(s)
	return i, err == nil && 0 <= i && i < limit && strconv.Itoa(i) == s
}

// CheckPointers returns nil if the pointers can be those of one event's claims, opened or not: each is one of
//
//	/id  /action  /occurred_at  /outcome  /credential
//	/actor/<member>  /context/<member>  /metadata/<name>  /targets/<i>/<member>  /changes/<i>
//
// they ascend strictly as bytes; /id and /action are there, /actor/id if any /actor/…, and /targets/<i>/id for each i; the
// indices count from 0 without gaps, below MaxTargets and MaxChanges; and there are at most MaxMetadata of /metadata/<name>.
func CheckPointers(pointers []string) error {
	var own, actor uint8
	var targets, targetIDs, changes uint64 // bits by index
	metadata := 0
	for i, pointer := range pointers {
		if i > 0 && pointers[i-1] >= pointer {
			return fmt.Errorf("pointer %q does not ascend from %q", pointer, pointers[i-1])
		}
		at, err := parsePointer(pointer)
		if err != nil {
			return err
		}
		switch at.scope {
		case eventScope:
			own |= 1 << at.rule
		case actorScope:
			actor |= 1 << at.rule
		case targetScope:
			targets |= 1 << at.index
			if at.rule == targetID {
				targetIDs |= 1 << at.index
			}
		case changeScope:
			changes |= 1 << at.index
		case nil:
			metadata++
		}
	}
	switch {
	case own>>eventID&1 == 0:
		return errors.New("pointer /id is missing")
	case own>>eventAction&1 == 0:
		return errors.New("pointer /action is missing")
	case actor != 0 && actor>>actorID&1 == 0:
		return errors.New("pointer /actor/id is missing beside others of /actor")
	case targets&(targets+1) != 0:
		return errors.New("the indices of /targets have a gap")
	case targets != targetIDs:
		return errors.New("a target has no /id")
	case changes&(changes+1) != 0:
		return errors.New("the indices of /changes have a gap")
	case metadata > MaxMetadata:
		return fmt.Errorf("got %d pointers of /metadata, want at most %d", metadata, MaxMetadata)
	}
	return nil
}

// CheckClaim returns nil if the pointer is in the grammar of CheckPointers and value is, byte for byte, what an event's
// claim of that pointer can be: the canonical form of a normalised value that isn't left out. Problems with the value are
// an *InvalidError.
func CheckClaim(pointer string, value []byte) error {
	at, err := parsePointer(pointer)
	if err != nil {
		return err
	}
	p := newParser(value)
	defer p.free()
	err = p.readClaim(at)
	if err == nil {
		err = differs(value, p.out)
	}
	var invalid *InvalidError
	if errors.As(err, &invalid) {
		for i := range invalid.Problems {
			invalid.Problems[i].Pointer = pointer + invalid.Problems[i].Pointer
		}
	}
	return err
}

// NormalText returns the form in which events hold a text as the claim of the given pointer, so that it can be compared with
// what is stored: of an address or a time its canonical text, of any other the text itself. A text that the claim can't have
// is an *InvalidError.
func NormalText(pointer, text string) (string, error) {
	at, err := parsePointer(pointer)
	if err != nil {
		return "", err
	}
	value := appendString(nil, text)
	p := newParser(value)
	defer p.free()
	if err := p.readClaim(at); err != nil {
		return "", err
	}
	if bytes.Equal(p.out, value) {
		return text, nil
	}
	return string(p.out[1 : len(p.out)-1]), nil // addresses and times need no escapes
}

// readClaim reads the parser's data as the value of a claim of the stored form, and leaves its one form in out.
func (p *parser) readClaim(at place) error {
	p.event.reset()
	p.event.stored, p.event.system, p.event.latest, p.limit = true, true, math.MaxInt64, MaxEventSize
	if len(p.problems) == 0 && p.claim(at) {
		p.end()
	}
	return p.err()
}

// claim reads the value of a claim and leaves its one form in out.
func (p *parser) claim(at place) bool {
	switch at.scope {
	case nil:
		p.nest = maxDepth
		return p.value(2) // metadata itself is 1
	case changeScope:
		if p.peek() != '{' {
			return p.unexpected("an object")
		}
		var change object
		if !p.known(changeScope, &change) || !p.complete(changeScope, &change) || len(p.problems) > 0 {
			return false
		}
		p.out = append(p.out[:0], p.composeObject(p.text[:0], changeScope, &change)...)
		return true
	}
	empty, ok := p.member(&at.scope.rules[at.rule])
	return ok && (!empty || p.problem("is empty, so it should have been left out"))
}
