package log

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Words selects events that have all of these words in their texts. The texts of an event are its action and id, the id, name and
// email of its actor, the ids and names of its targets, session_id and request_id of its context, and all strings in its metadata
// up to MaxIndexedValue bytes, nested ones and those in arrays, too, but no names of members. A word is what lies between
// characters that are neither letters, marks nor numbers, and words are compared by Unicode's simple case folding: so
// "user_42@Example.com" has the words user, 42, example and com. Which text a word is in doesn't matter, nor does their order.
//
// ParseWords makes it.
type Words []Word

// Word is one of Words.
type Word struct {
	Text   string // folded
	Begins bool   // every word is meant that begins like this
}

// MaxWords is how many words can be looked for at once.
const MaxWords = 20

// wordsVersion names what a word is, as Words of index.Meta does: one byte that is counted up when this file changes that, and
// three of the version of Unicode, whose letters are what this program's Go knows.
var wordsVersion = func() uint32 {
	v := uint32(1)
	for _, number := range strings.SplitN(unicode.Version, ".", 3) {
		n, err := strconv.ParseUint(number, 10, 8)
		if err != nil {
			panic(fmt.Sprintf("log: the version of Unicode is %q", unicode.Version))
		}
		v = v<<8 | uint32(n)
	}
	return v
}()

// ParseWords returns the words of a text that is looked for. A * at the end of a word means all that begin with what is before it.
// What would ask for something else than that is an error: a * elsewhere, a ", and a text without any words.
func ParseWords(text string) (Words, error) {
	if strings.Contains(text, `"`) {
		return nil, errors.New(`can't be asked for texts in quotation marks: all words must be there, in any order`)
	}
	body := appendString(nil, text)
	body = body[1 : len(body)-1]
	var words Words
	stars := strings.Count(text, "*")
	for start, end := nextWord(body, 0); start < len(body); start, end = nextWord(body, end) {
		w := Word{Text: string(appendFolded(nil, body[start:end], len(body)))}
		if end < len(body) && body[end] == '*' {
			w.Begins = true
			stars--
			if next, _ := nextWord(body, end); next == end+1 && next < len(body) {
				stars++
			}
		}
		words = append(words, w)
	}
	switch {
	case stars != 0:
		return nil, errors.New("can have a * only at the end of a word")
	case words == nil:
		return nil, errors.New("has no word: a letter or digit at least")
	}
	if words = words.needed(); len(words) > MaxWords {
		return nil, fmt.Errorf("has %d words, want at most %d", len(words), MaxWords)
	}
	return words, nil
}

// needed returns the words without those that another one of them implies, in order. No two of those left can be met by one word.
func (w Words) needed() Words {
	slices.SortFunc(w, func(a, b Word) int {
		if c := strings.Compare(a.Text, b.Text); c != 0 || a.Begins == b.Begins {
			return c
		} else if a.Begins {
			return -1
		}
		return 1
	})
	var out Words
	for i, word := range w {
		if i+1 < len(w) {
			// All that begin with a text follow on it.
			if next := w[i+1]; next == word || word.Begins && strings.HasPrefix(next.Text, word.Text) {
				continue
			}
		}
		out = append(out, word)
	}
	return out
}

// longest returns the word that likely selects least.
func (w Words) longest() Word {
	return slices.MaxFunc(w, func(a, b Word) int { return len(a.Text) - len(b.Text) })
}

// in adds to found, a set of places in w, those of the words that the body of a canonical JSON string has. What it finds in any
// canonical JSON is all that the strings in it have, and more.
func (w Words) in(body []byte, found uint32) uint32 {
	for start, end := nextWord(body, 0); start < len(body) && found != w.all(); start, end = nextWord(body, end) {
		for i := range w {
			if found>>i&1 == 0 && w[i].is(body[start:end]) {
				found |= 1 << i
			}
		}
	}
	return found
}

// all returns the set of all places.
func (w Words) all() uint32 { return 1<<len(w) - 1 }

// is reports whether a word, not folded, is what w means.
func (w *Word) is(word []byte) bool {
	text := w.Text
	for len(word) > 0 && text != "" {
		if c := word[0]; c < utf8.RuneSelf {
			if foldASCII(c) != text[0] {
				return false
			}
			word, text = word[1:], text[1:]
			continue
		}
		r, n := utf8.DecodeRune(word)
		want, size := utf8.DecodeRuneInString(text)
		if fold(r) != want {
			return false
		}
		word, text = word[n:], text[size:]
	}
	return text == "" && (len(word) == 0 || w.Begins)
}

// hasWords reports whether the event has all of one of the lists of words, or there are none to compare with.
func (e *Event) hasWords(lists []Words) bool {
	if len(lists) == 0 {
		return true
	}
	for _, w := range lists {
		found := uint32(0)
		for i := 0; i < len(e.claims) && found != w.all(); i++ {
			c := &e.claims[i]
			if !hasTexts(c.Pointer) {
				continue
			}
			for text, rest := nextText(c.Value); text != nil; text, rest = nextText(rest) {
				found = w.in(text, found)
			}
		}
		if found == w.all() {
			return true
		}
	}
	return false
}

// hasTexts reports whether the strings in a claim are texts whose words are looked for.
func hasTexts(pointer string) bool {
	switch pointer {
	case "/action", "/id", "/actor/id", "/actor/name", "/actor/email", "/context/session_id", "/context/request_id":
		return true
	}
	return strings.HasPrefix(pointer, "/metadata/") ||
		strings.HasPrefix(pointer, "/targets/") && (strings.HasSuffix(pointer, "/id") || strings.HasSuffix(pointer, "/name"))
}

// nextText returns the body of the first string in some canonical JSON whose words are looked for: no name of a member, and not
// longer than MaxIndexedValue. After it comes rest. It is nil if there is none.
func nextText(json []byte) (body, rest []byte) {
	for i := 0; i < len(json); i++ {
		if json[i] != '"' {
			continue
		}
		start := i + 1
		for i = start; json[i] != '"'; i++ {
			if json[i] == '\\' {
				i++
			}
		}
		if i+1 < len(json) && json[i+1] == ':' || i == start {
			continue
		}
		if body = json[start:i]; len(body) <= MaxIndexedValue || decodedSize(body) <= MaxIndexedValue {
			return body, json[i+1:]
		}
	}
	return nil, nil
}

// nextWord returns where the first word is that begins at or after i in the body of a canonical JSON string, at its end if there
// is none. In such a body all that is written as an escape is between words.
func nextWord(body []byte, i int) (start, end int) {
	start = len(body)
	for i < len(body) {
		c, n, letter := body[i], 1, false
		switch {
		case c == '\\' && body[i+1] == 'u':
			n = len(`\u0000`)
		case c == '\\':
			n = len(`\n`)
		case c < utf8.RuneSelf:
			letter = isLetterOrDigit(c)
		default:
			var r rune
			r, n = utf8.DecodeRune(body[i:])
			letter = unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsNumber(r)
		}
		switch {
		case letter:
			start = min(start, i)
		case start < len(body):
			return start, i
		}
		i += n
	}
	return start, len(body)
}

// appendFolded appends at least the first size bytes of a word, folded, to dst.
func appendFolded(dst, word []byte, size int) []byte {
	for len(word) > 0 && len(dst) < size {
		if word[0] < utf8.RuneSelf {
			dst, word = append(dst, foldASCII(word[0])), word[1:]
			continue
		}
		r, n := utf8.DecodeRune(word)
		dst, word = utf8.AppendRune(dst, fold(r)), word[n:]
	}
	return dst
}

// fold returns the one character that stands for all that differ in case only.
func fold(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	if least < utf8.RuneSelf {
		return rune(foldASCII(byte(least)))
	}
	return least
}

func foldASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c |= 0x20
	}
	return c
}
