package log

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// All reports whether the filter is empty, so that it selects every event.
func (f *Filter) All() bool {
	return len(f.Actions)+len(f.ActorIDs)+len(f.ActorEmails)+len(f.TargetIDs)+len(f.TargetTypes)+len(f.Outcomes)+len(f.IPs)+len(f.Metadata)+len(f.Words) == 0 &&
		f.Occurred == TimeSpan{} && f.Received == TimeSpan{}
}

// Match reports whether the filter selects the event, received at the given time in µs since 1970 UTC. It decides by the
// event itself, so it is the last word on what an index has found. It allocates nothing.
func (f *Filter) Match(e *Event, receivedAt int64) bool {
	occurredAt, ok := e.OccurredAt()
	if !ok {
		occurredAt = receivedAt
	}
	return f.Received.Contains(receivedAt) && f.Occurred.Contains(occurredAt) && f.matchContent(e)
}

// matchContent reports whether the filter may select the event, received at some time: all but the times is compared.
func (f *Filter) matchContent(e *Event) bool {
	return f.matchAction(e) &&
		e.hasText("/actor/id", f.ActorIDs) &&
		e.hasText("/actor/email", f.ActorEmails) &&
		e.hasTarget("/id", f.TargetIDs) &&
		e.hasTarget("/type", f.TargetTypes) &&
		e.hasText("/outcome", f.Outcomes) &&
		e.hasText("/context/ip", f.IPs) &&
		f.matchMetadata(e) &&
		e.hasWords(f.Words)
}

// needles are what the JSON of any event that a filter selects holds, so that most of the others needn't be parsed: one of each list of
// texts, and the words of one of some.
type needles struct {
	texts [][][]byte
	words []Words
}

// needles returns the filter's. A text that JSON has to escape is none, nor is anything that it is an alternative to.
func (f *Filter) needles() (out needles) {
	add := func(texts []string) {
		var list [][]byte
		for _, t := range texts {
			if strings.ContainsFunc(t, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' }) {
				return
			}
			list = append(list, []byte(t))
		}
		if list != nil {
			out.texts = append(out.texts, list)
		}
	}
	var actions []string
	for _, a := range f.Actions {
		actions = append(actions, strings.TrimSuffix(a, "*"))
	}
	for _, texts := range [][]string{actions, f.ActorIDs, f.ActorEmails, f.TargetIDs, f.TargetTypes, f.Outcomes, f.IPs} {
		add(texts)
	}
	for i := range f.Metadata {
		add(f.Metadata[i].Values)
	}
	out.words = f.Words
	return out
}

// in reports whether the JSON of an event holds all that.
func (n needles) in(json []byte) bool {
	for _, list := range n.texts {
		if !slices.ContainsFunc(list, func(text []byte) bool { return bytes.Contains(json, text) }) {
			return false
		}
	}
	return n.words == nil || slices.ContainsFunc(n.words, func(w Words) bool { return w.in(json, 0) == w.all() })
}

func (f *Filter) matchAction(e *Event) bool {
	if len(f.Actions) == 0 {
		return true
	}
	if len(e.claims) == 0 || e.claims[0].Pointer != "/action" {
		return false // it isn't shown
	}
	action := e.claims[0].Value
	action = action[1 : len(action)-1] // as in Event.Action
	for _, a := range f.Actions {
		if prefix, ok := strings.CutSuffix(a, "*"); ok {
			if len(action) >= len(prefix) && string(action[:len(prefix)]) == prefix {
				return true
			}
		} else if string(action) == a {
			return true
		}
	}
	return false
}

func (f *Filter) matchMetadata(e *Event) bool {
	for i := range f.Metadata {
		m := &f.Metadata[i]
		if len(m.Values) > 0 && (e.metadata == span{} || !hasScalar(e.metadata.in(e.json), m.Path, m.Values)) {
			return false
		}
	}
	return true
}

// hasText reports whether the claim is one of texts, or there are none to compare with.
func (e *Event) hasText(pointer string, texts []string) bool {
	if len(texts) == 0 {
		return true
	}
	i, ok := e.findClaim(pointer)
	return ok && isOneOf(e.claims[i].Value, texts)
}

// hasTarget reports whether a member of any target is one of texts, or there are none to compare with.
func (e *Event) hasTarget(member string, texts []string) bool {
	if len(texts) == 0 {
		return true
	}
	first, _ := e.findClaim("/targets/")
	for _, c := range e.claims[first:] { // no pointers come after those of targets
		if strings.HasSuffix(c.Pointer, member) && isOneOf(c.Value, texts) {
			return true
		}
	}
	return false
}

// findClaim returns where the claim is, or would be, in the event's claims.
func (e *Event) findClaim(pointer string) (int, bool) {
	return slices.BinarySearchFunc(e.claims, pointer, func(c EventClaim, p string) int { return strings.Compare(c.Pointer, p) })
}

// isOneOf reports whether a canonical JSON string denotes one of texts.
func isOneOf(value []byte, texts []string) bool {
	for _, t := range texts {
		if rest, ok := cutText(t, value[1:len(value)-1]); ok && rest == "" {
			return true
		}
	}
	return false
}

// hasScalar reports whether one of values is a scalar in the canonical JSON object, under names that joined by dots give path.
// A path is followed into each member whose name it begins with, since names may hold dots.
func hasScalar(object []byte, path string, values []string) bool {
	for i := 1; object[i] != '}'; {
		if object[i] == ',' {
			i++
		}
		colon := i + endOfValue(object[i:])
		end := colon + 1 + endOfValue(object[colon+1:])
		name, value := object[i+1:colon-1], object[colon+1:end]
		i = end
		rest, ok := cutText(path, name)
		switch {
		case !ok:
		case rest == "" && isScalar(value, values):
			return true
		case rest != "" && rest[0] == '.' && value[0] == '{' && hasScalar(value, rest[1:], values):
			return true
		}
	}
	return false
}

// isScalar reports whether a canonical JSON value is a scalar that is one of values: a string by what it denotes, others by
// their JSON form.
func isScalar(value []byte, values []string) bool {
	switch value[0] {
	case '{', '[':
		return false
	case '"':
		return slices.ContainsFunc(values, func(v string) bool {
			rest, ok := cutText(v, value[1:len(value)-1])
			return ok && rest == "" && len(v) <= MaxIndexedValue
		})
	}
	return slices.Contains(values, string(value))
}

// cutText returns text without what the body of a canonical JSON string denotes, if it begins with that.
func cutText(text string, body []byte) (rest string, ok bool) {
	for len(body) > 0 {
		if body[0] != '\\' {
			if text == "" || text[0] != body[0] {
				return "", false
			}
			text, body = text[1:], body[1:]
			continue
		}
		r, n := nextRune(body)
		var buf [utf8.UTFMax]byte
		size := utf8.EncodeRune(buf[:], r)
		if len(text) < size || text[:size] != string(buf[:size]) {
			return "", false
		}
		text, body = text[size:], body[n:]
	}
	return text, true
}

// endOfValue returns the length of the canonical JSON value that b begins with.
func endOfValue(b []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch b[i] {
		case '"':
			for i++; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth > 0 {
				continue
			}
			for i+1 < len(b) && b[i+1] != ',' && b[i+1] != '}' && b[i+1] != ']' { // the rest of a number or a word
				i++
			}
		}
		if depth == 0 {
			return i + 1
		}
	}
}
