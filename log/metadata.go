package log

import "bytes"

// metadata reads the object of the client's own members, of which it keeps the places in the draft.
func (p *parser) metadata() bool {
	mark, d, before := len(p.out), &p.event, len(p.problems)
	if p.peek() != '{' {
		if !p.value(1) {
			return false
		}
		form := p.out[mark:]
		empty := string(form) == "null" || string(form) == `""` || string(form) == "[]"
		ok := empty || len(p.problems) > before || p.problem("must be an object, got %s", typeOf(form))
		p.out = p.out[:mark]
		return ok
	}
	base := len(p.members)
	p.nest = maxDepth
	if !p.object(1) {
		return false
	}
	p.nest = maxNesting
	members := p.members[base:]
	p.members = p.members[:base]
	if len(members) > MaxMetadata && !p.problem("has %d members, want at most %d", len(members), MaxMetadata) {
		return false
	}
	for _, m := range members {
		if !p.metadataName(m.name(p.out)) {
			return false
		}
	}
	if len(p.problems) > before || len(members) == 0 {
		p.out = p.out[:mark]
		return true
	}
	d.metadata = append(d.metadata[:0], members...)
	d.metadataText = span{int32(mark), int32(len(p.out))}
	return true
}

// metadataName checks the length of a name, given as the body of a canonical JSON string.
func (p *parser) metadataName(body []byte) bool {
	switch size := decodedSize(body); {
	case size == 0:
		return p.problemAt("", "has an empty name, want 1 to %d bytes", maxName)
	case size > maxName:
		return p.problem("has a member whose name is %d bytes long, want 1 to %d", size, maxName)
	}
	return true
}

// decodedSize returns the size in bytes of the string that the body of a JSON string denotes.
func decodedSize(body []byte) int {
	if bytes.IndexByte(body, '\\') < 0 {
		return len(body)
	}
	size := 0
	for len(body) > 0 {
		r, n := nextRune(body)
		size += len(string(r))
		body = body[n:]
	}
	return size
}
