package log

import (
	"unicode/utf16"
	"unicode/utf8"
)

// text says what str has read.
type text struct {
	size    int    // bytes of the string that the JSON text denotes, in UTF-8
	escaped bool   // whether its canonical form holds a backslash
	issue   string // what is wrong with it ("holds U+0000"), or ""; the canonical form is that of "" then
}

// Issues of strings.
const (
	issueUTF8      = "is not valid UTF-8"
	issueNUL       = "holds U+0000, which is refused"
	issueSurrogate = "holds a lone surrogate, which is not a character"
)

// Classes of the bytes in a JSON string.
const (
	bytePlain = iota
	byteHigh
	byteQuote
	byteBackslash
	byteControl
)

var byteClass = func() (c [256]uint8) {
	for i := range 0x20 {
		c[i] = byteControl
	}
	for i := 0x80; i < 0x100; i++ {
		c[i] = byteHigh
	}
	c['"'], c['\\'] = byteQuote, byteBackslash
	return c
}()

// str reads the string that begins at the current position and appends its canonical form, quotes included, to out.
func (p *parser) str() (s text, ok bool) {
	d, start := p.data, p.pos+1
	high := false
	for i := start; i < len(d); i++ {
		switch byteClass[d[i]] {
		case bytePlain:
		case byteHigh:
			high = true
		case byteQuote:
			p.pos = i + 1
			if high && !utf8.Valid(d[start:i]) {
				p.out = append(p.out, `""`...)
				return text{issue: issueUTF8}, true
			}
			p.out = append(p.out, d[start-1:i+1]...)
			return text{size: i - start}, true
		case byteBackslash:
			return p.escapedStr(start, i)
		default:
			return s, p.fail(i, "a control character stands in a string: write it as an escape")
		}
	}
	p.pos = len(d)
	return s, p.unexpected("the end of a string")
}

// escapedStr is str for a string whose body begins at start and whose first escape is at i.
func (p *parser) escapedStr(start, i int) (s text, ok bool) {
	d, mark := p.data, len(p.out)
	p.out = append(p.out, d[start-1:i]...)
	s.size = i - start
	for i < len(d) {
		switch byteClass[d[i]] {
		case byteQuote:
			p.pos = i + 1
			if !utf8.Valid(d[start:i]) {
				s.issue = issueUTF8
			}
			if s.issue != "" {
				p.out = append(p.out[:mark], `""`...)
				return s, true
			}
			p.out = append(p.out, '"')
			s.escaped = len(p.out)-mark-2 != s.size
			return s, true
		case byteBackslash:
			r, n := nextRune(d[i:])
			switch {
			case n == 0:
				return s, p.fail(i, "malformed escape in a string")
			case r == 0:
				s.issue = issueNUL
			case r == utf8.RuneError && utf16.IsSurrogate(unit(d[i+1:])):
				s.issue = issueSurrogate
			}
			p.out = appendRune(p.out, r)
			s.size += utf8.RuneLen(r)
			i += n
		case byteControl:
			return s, p.fail(i, "a control character stands in a string: write it as an escape")
		default:
			p.out = append(p.out, d[i])
			s.size++
			i++
		}
	}
	p.pos = len(d)
	return s, p.unexpected("the end of a string")
}

// nextRune returns the first character of a JSON string's body and the number of bytes that stand for it: a character of
// UTF-8, an escape, or a surrogate pair of escapes. A lone surrogate is U+FFFD. For a malformed escape the number is 0.
func nextRune(b []byte) (rune, int) {
	if b[0] < utf8.RuneSelf && b[0] != '\\' {
		return rune(b[0]), 1
	}
	if b[0] != '\\' {
		return utf8.DecodeRune(b)
	}
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		r := unit(b[1:])
		if r < 0 {
			return 0, 0
		}
		if !utf16.IsSurrogate(r) {
			return r, 6
		}
		if len(b) > 6 && b[6] == '\\' {
			if pair := utf16.DecodeRune(r, unit(b[7:])); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	}
	return 0, 0
}

// unit returns the UTF-16 code unit of uXXXX at the start of b, or -1.
func unit(b []byte) rune {
	if len(b) < 5 || b[0] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[1:5] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return -1
		}
	}
	return r
}

// appendRune appends a character to the body of a canonical JSON string (RFC 8785 §3.2.2.2).
func appendRune(dst []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= 0x20:
		return utf8.AppendRune(dst, r)
	}
	switch r {
	case '\b':
		return append(dst, `\b`...)
	case '\t':
		return append(dst, `\t`...)
	case '\n':
		return append(dst, `\n`...)
	case '\f':
		return append(dst, `\f`...)
	case '\r':
		return append(dst, `\r`...)
	}
	return append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
}

// appendString appends a string, which is valid UTF-8, as a canonical JSON string.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		if c := s[i]; byteClass[c] <= byteHigh {
			dst = append(dst, c)
		} else {
			dst = appendRune(dst, rune(c))
		}
	}
	return append(dst, '"')
}
