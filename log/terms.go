package log

import (
	"strings"
	"unicode/utf8"

	"github.com/treeline-log/treeline/log/index"
)

// termer adds the terms by which events are found to the segment of an index that is being built. What it indexes is what
// Filter.Match compares: an event that matches a filter has a key in the ranges of each of the filter's members.
type termer struct {
	builder index.Builder
	words   bool // whether words are terms, too
	path    []byte
	text    []byte
}

// add adds an event received at the given time.
func (t *termer) add(e *Event, receivedAt int64) {
	occurredAt, ok := e.OccurredAt()
	if !ok {
		occurredAt = receivedAt
	}
	b := &t.builder
	b.Add(receivedAt, occurredAt)
	for _, c := range e.Claims() {
		switch c.Pointer {
		case "/action":
			b.Action(t.unquote(c.Value))
		case "/actor/email":
			b.Term(index.ActorEmail, t.unquote(c.Value))
		case "/actor/id":
			b.Term(index.ActorID, t.unquote(c.Value))
		case "/context/ip":
			b.Term(index.IP, t.unquote(c.Value))
		case "/outcome":
			b.Term(index.Outcome, t.unquote(c.Value))
		default:
			if !strings.HasPrefix(c.Pointer, "/targets/") {
				continue
			}
			if strings.HasSuffix(c.Pointer, "/id") {
				b.Term(index.TargetID, t.unquote(c.Value))
			} else if strings.HasSuffix(c.Pointer, "/type") {
				b.Term(index.TargetType, t.unquote(c.Value))
			}
		}
	}
	if e.metadata != (span{}) {
		t.path = t.path[:0]
		t.addMembers(e.metadata.in(e.json))
	}
	if t.words {
		t.addWords(e)
	}
}

// addWords adds the words in an event's texts.
func (t *termer) addWords(e *Event) {
	for _, c := range e.Claims() {
		if !hasTexts(c.Pointer) {
			continue
		}
		for text, rest := nextText(c.Value); text != nil; text, rest = nextText(rest) {
			for start, end := nextWord(text, 0); start < len(text); start, end = nextWord(text, end) {
				t.text = appendFolded(t.text[:0], text[start:end], index.MaxWord)
				t.builder.Word(t.text)
			}
		}
	}
}

// addMembers adds the scalars in a canonical JSON object below t.path. Those in arrays have no path.
func (t *termer) addMembers(object []byte) {
	mark := len(t.path)
	for i := 1; object[i] != '}'; {
		if object[i] == ',' {
			i++
		}
		colon := i + endOfValue(object[i:])
		end := colon + 1 + endOfValue(object[colon+1:])
		t.path = append(t.path[:mark], t.unquote(object[i:colon])...)
		switch value := object[colon+1 : end]; value[0] {
		case '{':
			t.path = append(t.path, '.')
			t.addMembers(value)
		case '[':
		case '"':
			if text := t.unquote(value); len(text) <= MaxIndexedValue {
				t.builder.Metadata(t.path, text)
			}
		default:
			t.builder.Metadata(t.path, value)
		}
		i = end
	}
}

// unquote returns what a canonical JSON string denotes. It is valid until the next call.
func (t *termer) unquote(value []byte) []byte {
	body := value[1 : len(value)-1]
	t.text = t.text[:0]
	for i := 0; i < len(body); {
		if body[i] != '\\' {
			i++
			continue
		}
		t.text = append(t.text, body[:i]...)
		r, n := nextRune(body[i:])
		t.text = utf8.AppendRune(t.text, r)
		body, i = body[i+n:], 0
	}
	if len(t.text) == 0 {
		return body
	}
	t.text = append(t.text, body...)
	return t.text
}

// query returns what to look up in an index, with words or without; nil if only the record can tell, as of a filter by times alone.
func (f *Filter) query(words bool) *index.Query {
	var members [][]index.Range
	if ranges := actionRanges(f.Actions); ranges != nil {
		members = append(members, ranges)
	}
	for _, m := range []struct {
		field  index.Field
		values []string
	}{
		{index.ActorID, f.ActorIDs}, {index.ActorEmail, f.ActorEmails}, {index.TargetID, f.TargetIDs},
		{index.TargetType, f.TargetTypes}, {index.Outcome, f.Outcomes}, {index.IP, f.IPs},
	} {
		var ranges []index.Range
		for _, v := range m.values {
			ranges = append(ranges, index.Is(m.field, v))
		}
		if ranges != nil {
			members = append(members, ranges)
		}
	}
	for _, m := range f.Metadata {
		var ranges []index.Range
		for _, v := range m.Values {
			ranges = append(ranges, index.MemberIs(m.Path, v))
		}
		if ranges != nil {
			members = append(members, ranges)
		}
	}
	if words {
		members = append(members, wordRanges(f.Words)...)
	}
	if members == nil {
		return nil
	}
	return index.NewQuery(members)
}

// wordRanges returns the keys of words, a member each. Of several lists an event has all of one, so one word of each list is in one
// member.
func wordRanges(lists []Words) (members [][]index.Range) {
	keys := func(w Word) index.Range {
		if w.Begins {
			return index.WordBegins(w.Text)
		}
		return index.WordIs(w.Text)
	}
	if len(lists) == 1 {
		for _, w := range lists[0] {
			members = append(members, []index.Range{keys(w)})
		}
		return members
	}
	var any []index.Range
	for _, list := range lists {
		any = append(any, keys(list.longest()))
	}
	if any != nil {
		members = append(members, any)
	}
	return members
}

// actionRanges returns the keys of actions, nil if all actions are meant.
func actionRanges(actions []string) (ranges []index.Range) {
	for _, a := range actions {
		switch prefix, begins := strings.CutSuffix(a, "*"); {
		case !begins:
			ranges = append(ranges, index.ActionIs(a))
		case prefix == "":
			return nil
		default:
			ranges = append(ranges, index.ActionBegins(prefix))
		}
	}
	return ranges
}
