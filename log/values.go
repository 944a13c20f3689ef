package log

import (
	"bytes"
	"net/netip"
)

// member reads the value of a member and appends its normalised canonical form to out. It reports as empty one that is
// to be left out: null, "", [] or {}, whatever the member's type.
func (p *parser) member(r *rule) (empty, ok bool) {
	c, mark := p.peek(), len(p.out)
	if r.kind == kindAny {
		p.nest = maxDepth
		ok = p.value(1)
		p.nest = maxNesting
		return false, ok
	}
	if r.kind == kindCredential && !p.event.stored {
		return true, p.problem("is set by the server and can't be sent") && p.skip()
	}
	if c != '"' {
		return p.notText(r, mark)
	}
	s, ok := p.str()
	if !ok {
		return false, false
	}
	if s.issue != "" {
		return false, p.problem("%s", s.issue)
	}
	if s.size == 0 {
		switch r.kind {
		case kindID, kindEventID, kindAction:
			return false, p.problem("must not be empty")
		}
		return true, true
	}
	if r.max > 0 && s.size > r.max {
		return false, p.problem("is %d bytes long, want at most %d", s.size, r.max)
	}
	body := p.out[mark+1 : len(p.out)-1]
	switch r.kind {
	case kindEventID, kindCredential:
		if !isEventID(body) {
			return false, p.problem("must be 1 to %d characters of A-Z, a-z, 0-9, '.', '_', ':' and '-', the first a letter or digit", maxID)
		}
	case kindAction:
		return false, p.action(body)
	case kindOutcome:
		switch string(body) {
		case "success", "failure", "denied", "unknown":
		default:
			return false, p.problem("must be success, failure, denied or unknown")
		}
	case kindTime:
		return false, p.time(mark, body)
	case kindIP:
		return false, p.ip(mark, body)
	}
	return false, true
}

// notText reads the value of a member that should have been a string.
func (p *parser) notText(r *rule, mark int) (empty, ok bool) {
	before := len(p.problems)
	if !p.value(1) {
		return false, false
	}
	if len(p.problems) > before {
		return false, true
	}
	form := p.out[mark:]
	switch string(form) {
	case "null":
		return true, true
	case "[]", "{}":
		if r.kind != kindID && r.kind != kindEventID {
			return true, true
		}
	}
	return false, p.problem("must be a string, got %s", typeOf(form))
}

// typeOf names the type of a canonical JSON value.
func typeOf(form []byte) string {
	switch form[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

func (p *parser) action(body []byte) bool {
	for _, c := range body {
		if !isLetterOrDigit(c) && bytes.IndexByte([]byte("_.:/-"), c) < 0 {
			return p.problem("must be 1 to %d characters of A-Z, a-z, 0-9, '_', '.', ':', '/' and '-'", maxID)
		}
	}
	if !p.event.system && bytes.HasPrefix(body, []byte("treeline.")) {
		return p.problem(`begins with "treeline.", which is reserved for the server's own events`)
	}
	return true
}

// time replaces the string at out[mark:] by its normalised form and keeps the time for Event.OccurredAt.
func (p *parser) time(mark int, body []byte) bool {
	t, err := parseTime(body)
	if err != nil {
		return p.problem("%s", err)
	}
	if t > p.event.latest {
		return p.problem("lies more than five minutes ahead of the server's clock")
	}
	p.event.occurredAt, p.event.hasTime = t, true
	p.out = append(AppendTime(append(p.out[:mark], '"'), t), '"')
	return true
}

// ip replaces the string at out[mark:] by its normalised form.
func (p *parser) ip(mark int, body []byte) bool {
	const longest = len("0000:0000:0000:0000:0000:ffff:255.255.255.255")
	if len(body) > longest {
		return p.problem("must be an IPv4 or IPv6 address without a zone")
	}
	addr, err := netip.ParseAddr(string(body))
	if err != nil || addr.Zone() != "" {
		return p.problem("must be an IPv4 or IPv6 address without a zone")
	}
	p.out = append(addr.Unmap().AppendTo(append(p.out[:mark], '"')), '"')
	return true
}

// isEventID reports whether s is an event's id: [A-Za-z0-9][A-Za-z0-9._:-]{0,127}.
func isEventID[T string | []byte](s T) bool {
	if len(s) == 0 || len(s) > maxID || !isLetterOrDigit(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isLetterOrDigit(c) && c != '.' && c != '_' && c != ':' && c != '-' {
			return false
		}
	}
	return true
}

func isLetterOrDigit(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
}
