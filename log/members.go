package log

// Limits of an event: bytes of its canonical form, and numbers of targets, changes and metadata members.
const (
	MaxEventSize = 24 << 10
	MaxTargets   = 20
	MaxChanges   = 50
	MaxMetadata  = 64
)

// maxDepth is the deepest nesting in metadata, before and after, each of which is itself 1. maxName is the longest name of a
// member of metadata, in bytes; maxID that of an event's id and of an action.
const (
	maxDepth = 16
	maxName  = 64
	maxID    = 128
)

// kind says what a member's value must be.
type kind uint8

const (
	kindText       kind = iota // a string
	kindID                     // a string that is an error, not left out, when it is empty
	kindEventID                // [A-Za-z0-9][A-Za-z0-9._:-]{0,127}
	kindCredential             // the same grammar; only in the stored form
	kindAction                 // 1–128 of A-Za-z0-9_.:/-
	kindTime                   // RFC 3339, normalised
	kindOutcome                // success, failure, denied or unknown
	kindIP                     // an IPv4 or IPv6 address, normalised
	kindAny                    // any JSON, kept as sent
)

// rule is what an object's scope says of one member.
type rule struct {
	name string
	kind kind
	max  int // bytes
}

// scope lists the members that one of an event's objects may have, in canonical order, and the position of the one that
// is required as soon as the object is there, or -1.
type scope struct {
	name     string
	rules    []rule
	required int
}

var (
	eventScope = &scope{"", []rule{
		{"action", kindAction, maxID},
		{"credential", kindCredential, maxID},
		{"id", kindEventID, maxID},
		{"occurred_at", kindTime, 0},
		{"outcome", kindOutcome, 0},
	}, -1}
	actorScope = &scope{"actor", []rule{
		{"email", kindText, 320},
		{"id", kindID, 512},
		{"name", kindText, 512},
		{"type", kindText, 128},
	}, 1}
	targetScope = &scope{"targets", []rule{
		{"id", kindID, 512},
		{"name", kindText, 512},
		{"type", kindText, 128},
	}, 0}
	contextScope = &scope{"context", []rule{
		{"ip", kindIP, 0},
		{"location", kindText, 256},
		{"request_id", kindText, 256},
		{"session_id", kindText, 256},
		{"traceparent", kindText, 64},
		{"user_agent", kindText, 2048},
	}, -1}
	changeScope = &scope{"changes", []rule{
		{"after", kindAny, 0},
		{"before", kindAny, 0},
		{"field", kindID, 256},
	}, 2}
)

// Positions in the rules above.
const (
	eventAction = iota
	eventCredential
	eventID
	eventOccurredAt
	eventOutcome
)
const (
	actorEmail = iota
	actorID
	actorName
	actorType
)
const (
	targetID = iota
	targetName
	targetType
)
const (
	contextIP        = 0
	contextUserAgent = 5
)

// find returns the position of the member of that name, or -1.
func (s *scope) find(name []byte) int {
	for i := range s.rules {
		if s.rules[i].name == string(name) {
			return i
		}
	}
	return -1
}

// object is what was read of one of an event's objects: by the positions of its scope, the canonical values in out of the members
// that are there.
type object struct {
	values [6]span
	seen   uint8 // members given, empty ones too
	bad    uint8 // members whose value was refused
	text   span  // the whole object, once it is composed
}

func (o *object) has(i int) bool { return o.values[i] != span{} }

// given reports whether a member is there, valid or not.
func (o *object) given(i int) bool { return o.has(i) || o.bad>>i&1 != 0 }

// first returns the position of the first member that is there, valid or not, or -1.
func (o *object) first() int {
	for i := range o.values {
		if o.given(i) {
			return i
		}
	}
	return -1
}

// empty reports whether nothing is left of the object once its empty members are left out.
func (o *object) empty() bool { return o.first() < 0 }

// count returns the number of members that are there.
func (o *object) count() (n int) {
	for i := range o.values {
		if o.has(i) {
			n++
		}
	}
	return n
}

// known reads an object of the given scope into o.
func (p *parser) known(s *scope, o *object) bool {
	p.pos++ // the bracket that the caller has seen
	if p.peek() == '}' {
		p.pos++
		return true
	}
	for {
		mark := len(p.out)
		_, valid, ok := p.name()
		if !ok {
			return false
		}
		i := s.find(p.out[mark+1 : len(p.out)-1])
		p.out = p.out[:mark]
		switch {
		case !valid:
			ok = p.skip()
		case i < 0:
			ok = p.unknown(s) && p.skip()
		default:
			ok = p.assign(s, i, o)
		}
		if !ok {
			return false
		}
		if valid {
			p.leave()
		}
		more, ok := p.next('}')
		if !ok || !p.fits() {
			return false
		}
		if !more {
			return true
		}
	}
}

// assign reads the value of the i-th member of a scope into o. A second value of one member is refused and not kept.
func (p *parser) assign(s *scope, i int, o *object) bool {
	bit := uint8(1) << i
	if o.seen&bit != 0 {
		return p.problem("is given more than once") && p.skip()
	}
	o.seen |= bit
	before := len(p.problems)
	mark := len(p.out)
	empty, ok := p.member(&s.rules[i])
	switch {
	case !ok:
		return false
	case len(p.problems) > before:
		o.bad |= bit
		p.out = p.out[:mark]
	case empty:
		p.out = p.out[:mark]
	default:
		o.values[i] = span{int32(mark), int32(len(p.out))}
	}
	return true
}

// skip reads a value that isn't kept.
func (p *parser) skip() bool {
	mark := len(p.out)
	if !p.value(1) {
		return false
	}
	p.out = p.out[:mark]
	return true
}

// elements reads an array of at most limit objects of one scope, named by the last step of the path, into list.
func (p *parser) elements(s *scope, limit int, list []object) ([]object, bool) {
	mark, before := len(p.out), len(p.problems)
	if p.peek() != '[' {
		if !p.value(1) {
			return list, false
		}
		form := p.out[mark:]
		empty := string(form) == "null" || string(form) == `""` || string(form) == "{}"
		ok := empty || len(p.problems) > before || p.problem("must be an array, got %s", typeOf(form))
		p.out = p.out[:mark]
		return list, ok
	}
	p.pos++
	if p.peek() == ']' {
		p.pos++
		return list, true
	}
	for n := 1; ; n++ {
		p.enterIndex(n - 1)
		var ok bool
		if n > limit {
			ok = p.skip()
		} else {
			list = append(list, object{})
			ok = p.element(s, &list[n-1])
		}
		if !ok {
			return list, false
		}
		p.leave()
		more, ok := p.next(']')
		if !ok || !p.fits() {
			return list, false
		}
		if !more {
			return list, n <= limit || p.problem("has %d elements, want at most %d", n, limit)
		}
	}
}

// element reads one object of such an array. It is not a member, so it isn't left out, however empty.
func (p *parser) element(s *scope, o *object) bool {
	if p.peek() == '{' {
		return p.known(s, o) && p.complete(s, o)
	}
	mark, before := len(p.out), len(p.problems)
	if !p.value(1) {
		return false
	}
	form := p.out[mark:]
	p.out = p.out[:mark]
	return len(p.problems) > before || p.problem("must be an object, got %s", typeOf(form))
}

// complete checks that the required member of an object is there.
func (p *parser) complete(s *scope, o *object) bool {
	if o.given(s.required) {
		return true
	}
	return p.problemAt(s.rules[s.required].name, "is required")
}

// nested reads the object named by the last step of the path into o.
func (p *parser) nested(s *scope, o *object) bool {
	if p.peek() == '{' {
		return p.known(s, o)
	}
	mark, before := len(p.out), len(p.problems)
	if !p.value(1) {
		return false
	}
	form := p.out[mark:]
	p.out = p.out[:mark]
	switch string(form) {
	case "null", `""`, "[]":
		return true
	}
	return len(p.problems) > before || p.problem("must be an object, got %s", typeOf(form))
}
