package log

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"time"
)

// maxOpened is the largest size in bytes of an event's disclosure with all claims opened.
const maxOpened = 48_000

// maxAhead is how far occurred_at may lie ahead of the server's clock.
const maxAhead = 5 * time.Minute

// Event is one event in its only form: normalised (one spelling, no empty members) and canonical (RFC 8785), cut into its
// claims. It is immutable; the slices that its methods return are not to be modified.
type Event struct {
	json       []byte
	claims     []EventClaim
	id         string
	credential span // in json, of the member with the comma behind it
	metadata   span // in json, of the object
	occurredAt int64
	hasTime    bool
	serverID   bool
}

// EventClaim is one committed part of an event.
type EventClaim struct {
	Pointer string // of the grammar that CheckPointers describes
	Value   []byte // canonical JSON, a part of Event.JSON
}

// JSON returns the event's canonical bytes, which are what is stored, hashed claim by claim, and shown.
func (e *Event) JSON() []byte { return e.json }

// Claims returns the event's claims in the byte order of their pointers.
func (e *Event) Claims() []EventClaim { return e.claims }

// ID returns the event's id.
func (e *Event) ID() string { return e.id }

// Metadata returns the event's metadata, a canonical JSON object; nil if it has none.
func (e *Event) Metadata() []byte {
	if e.metadata == (span{}) {
		return nil
	}
	return e.metadata.in(e.json)
}

// Action returns the event's action.
func (e *Event) Action() string {
	v := e.claims[0].Value // "/action" is the least of all pointers, and its grammar needs no escapes
	return string(v[1 : len(v)-1])
}

// ServerID reports whether the id was made by ParseOptions.NewID and not chosen by the client. It isn't part of the stored
// form: ParseStored can't tell.
func (e *Event) ServerID() bool { return e.serverID }

// OccurredAt returns occurred_at in microseconds since 1970 UTC, negative before that; ok is false where the event has none.
func (e *Event) OccurredAt() (micros int64, ok bool) { return e.occurredAt, e.hasTime }

// Same reports whether both events have the same content, the credential aside: whether one is a retry of the other.
func (e *Event) Same(o *Event) bool {
	a, b := e.json, o.json
	ea, eb := e.credential, o.credential
	if ea == (span{}) || eb == (span{}) {
		return bytes.Equal(without(a, ea), without(b, eb))
	}
	return bytes.Equal(a[:ea.start], b[:eb.start]) && bytes.Equal(a[ea.end:], b[eb.end:])
}

// without returns b without a part of it.
func without(b []byte, s span) []byte {
	if s == (span{}) {
		return b
	}
	return slices.Concat(b[:s.start], b[s.end:])
}

// ParseOptions says what the server knows about an event that a client sends.
type ParseOptions struct {
	// Now is the server's time; occurred_at may be at most five minutes ahead of it.
	Now time.Time

	// NewID makes the id of an event that has none, in the grammar of ids. Without it the id is required.
	NewID func() string

	// Credential, unless it is empty, is the public id of the API key that wrote the event, in the grammar of ids.
	Credential string

	// System allows actions that begin with "treeline.": the event is the server's own.
	System bool

	// Required are pointers of claims that the event must have, see Settings.
	Required []string
}

// ParseEvent reads an event as clients send it, flat or nested, and completes it by options. What it refuses is an
// *InvalidError; any other error is a mistake in the options.
//
// Members that are null, "", [] or {} are left out, whatever their type, the innermost first, except in metadata, before
// and after, whose content is kept as it was sent (metadata itself is left out when it is empty or null). An id,
// the event's or one within actor, targets or changes (field), is different: null stands for absent, and everything else that
// is empty is an error. So "actor":{} and "actor":{"id":null,"name":""} are left out; "actor":{"name":"x"} lacks its
// required id; and the elements of targets and changes are not members, hence never left out: "targets":[{}] lacks an id. A
// credential is refused even when it is empty.
//
// Of the flat spellings, those of the actor exclude the actor object, those of the target exclude targets, and ip and
// user_agent exclude just the same member of context. Something that is left out as empty excludes nothing.
func ParseEvent(data []byte, opt ParseOptions) (*Event, error) {
	p := newParser(data)
	defer p.free()
	if err := p.options(opt); err != nil {
		return nil, err
	}
	if len(p.problems) == 0 && p.read() {
		p.end()
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return p.build(opt)
}

// ParseStored reads the form in which events are stored and disclosed: exactly the bytes that ParseEvent or ParseBatch made,
// complete with id and perhaps credential. It parses, encodes again and compares, so a form with other spellings, order,
// empty members or white space is an *InvalidError. Actions of the server are accepted, and no clock is looked at.
func ParseStored(data []byte) (*Event, error) {
	p := newParser(data)
	defer p.free()
	p.event.stored, p.event.system, p.event.latest, p.limit = true, true, math.MaxInt64, MaxEventSize
	if len(p.problems) == 0 && p.read() {
		p.end()
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	e, err := p.build(ParseOptions{})
	if err != nil {
		return nil, err
	}
	if err := differs(data, e.json); err != nil {
		return nil, err
	}
	return e, nil
}

// options prepares the parser for events of clients.
func (p *parser) options(opt ParseOptions) error {
	if opt.Credential != "" && !isEventID(opt.Credential) {
		return fmt.Errorf("credential %q is not 1 to %d characters of the grammar of ids", opt.Credential, maxID)
	}
	p.event.stored, p.event.system = false, opt.System
	p.event.latest = opt.Now.Add(maxAhead).UnixMicro()
	p.limit = MaxEventSize
	return nil
}

// eventDraft is what was read of an event. Spans are in parser.out until compose moves them to parser.text.
type eventDraft struct {
	stored bool  // the stored form is read: credential is a member like others
	system bool  // actions of the server are allowed
	latest int64 // the latest occurred_at to accept

	seen                             uint32 // members of tops that were given, empty ones too
	own, actor, flatActor            object
	context, flatContext, flatTarget object
	targets, changes                 []object
	metadata                         []member
	metadataText                     span
	credential                       span // in parser.text, with the comma behind it
	occurredAt                       int64
	hasTime                          bool
}

// reset forgets the last event but keeps what applies to all.
func (d *eventDraft) reset() {
	*d = eventDraft{stored: d.stored, system: d.system, latest: d.latest,
		targets: d.targets[:0], changes: d.changes[:0], metadata: d.metadata[:0]}
}

// read reads one event into the draft and checks it. It returns false when the parser can't go on; problems there may be
// in either case.
func (p *parser) read() bool {
	p.event.reset()
	p.out, p.members, p.depth, p.nest = p.out[:0], p.members[:0], 0, maxNesting
	if p.peek() != '{' {
		return p.unexpected("an event (a JSON object)")
	}
	p.pos++
	if p.peek() == '}' {
		p.pos++
	} else if !p.readMembers() {
		return false
	}
	if !p.flatten() {
		return false
	}
	if !p.event.own.given(eventAction) && !p.problemAt("action", "is required") {
		return false
	}
	return true
}

func (p *parser) readMembers() bool {
	for {
		mark := len(p.out)
		_, valid, ok := p.name()
		if !ok {
			return false
		}
		i := findTop(p.out[mark+1 : len(p.out)-1])
		p.out = p.out[:mark]
		switch {
		case !valid:
			ok = p.skip()
		case i < 0:
			ok = p.unknown(eventScope) && p.skip()
		default:
			ok = p.readMember(i)
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

// readMember reads the value of a member of the event, by its position in tops.
func (p *parser) readMember(i int) (ok bool) {
	d := &p.event
	if d.seen>>i&1 != 0 {
		return p.problem("is given more than once") && p.skip()
	}
	d.seen |= 1 << i
	switch t := &tops[i]; t.kind {
	case topOwn:
		return p.assign(eventScope, t.index, &d.own)
	case topActor:
		return p.nested(actorScope, &d.actor)
	case topContext:
		return p.nested(contextScope, &d.context)
	case topFlatActor:
		return p.assign(actorScope, t.index, &d.flatActor)
	case topFlatContext:
		return p.assign(contextScope, t.index, &d.flatContext)
	case topFlatTarget:
		return p.assign(targetScope, t.index, &d.flatTarget)
	case topTargets:
		d.targets, ok = p.elements(targetScope, MaxTargets, d.targets)
		return ok
	case topChanges:
		d.changes, ok = p.elements(changeScope, MaxChanges, d.changes)
		return ok
	}
	return p.metadata()
}

// build makes the event that was read without problems: it adds what the server sets, writes the canonical form and cuts
// it into claims.
func (p *parser) build(opt ParseOptions) (*Event, error) {
	d := &p.event
	e := &Event{occurredAt: d.occurredAt, hasTime: d.hasTime}
	if opt.Credential != "" {
		d.own.values[eventCredential] = p.literalString(opt.Credential)
	}
	if d.own.has(eventID) {
		v := d.own.values[eventID].in(p.out)
		e.id = string(v[1 : len(v)-1])
	} else {
		if opt.NewID == nil {
			p.problemAt("id", "is required")
			return nil, p.err()
		}
		e.id, e.serverID = opt.NewID(), true
		if !isEventID(e.id) {
			return nil, fmt.Errorf("the id made by the server, %q, is not in the grammar of ids", e.id)
		}
		d.own.values[eventID] = p.literalString(e.id)
	}
	p.compose()
	if len(p.text) > MaxEventSize {
		p.add("", fmt.Sprintf("is %d bytes in canonical form, want at most %d", len(p.text), MaxEventSize))
		return nil, p.err()
	}
	e.json, e.credential, e.metadata = bytes.Clone(p.text), d.credential, d.metadataText
	e.claims = p.cut(e.json)
	if size := openedSize(e.claims); size > maxOpened {
		p.add("", fmt.Sprintf("is %d bytes with all claims opened, want at most %d", size, maxOpened))
		return nil, p.err()
	}
	for _, pointer := range opt.Required {
		if _, ok := e.findClaim(pointer); !ok {
			p.add(pointer, "is required in this log")
		}
	}
	if len(p.problems) > 0 {
		return nil, p.err()
	}
	return e, nil
}

// literalString appends a string that needs no escapes to out, as JSON.
func (p *parser) literalString(s string) span {
	start := len(p.out)
	p.out = append(p.out, '"')
	p.out = append(p.out, s...)
	p.out = append(p.out, '"')
	return span{int32(start), int32(len(p.out))}
}
