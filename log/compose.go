package log

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/treeline-log/treeline/merkle"
)

// compose writes the canonical form of the draft to text, the members in their canonical order, and moves the draft's
// spans there.
func (p *parser) compose() {
	d := &p.event
	b := append(p.text[:0], '{')
	b = p.composeOwn(b, eventAction)
	if !d.actor.empty() {
		b = p.composeObject(append(b, `"actor":`...), actorScope, &d.actor)
		b = append(b, ',')
	}
	b = p.composeList(b, changeScope, d.changes)
	if !d.context.empty() {
		b = p.composeObject(append(b, `"context":`...), contextScope, &d.context)
		b = append(b, ',')
	}
	start := len(b)
	if b = p.composeOwn(b, eventCredential); len(b) > start {
		d.credential = span{int32(start), int32(len(b))}
	}
	b = p.composeOwn(b, eventID)
	if d.metadataText != (span{}) {
		b = append(b, `"metadata":`...)
		moved := int32(len(b)) - d.metadataText.start
		b = append(b, d.metadataText.in(p.out)...)
		b = append(b, ',')
		for i := range d.metadata {
			m := &d.metadata[i]
			m.start, m.quote, m.end = m.start+moved, m.quote+moved, m.end+moved
		}
		d.metadataText.start, d.metadataText.end = d.metadataText.start+moved, d.metadataText.end+moved
	}
	b = p.composeOwn(b, eventOccurredAt)
	b = p.composeOwn(b, eventOutcome)
	b = p.composeList(b, targetScope, d.targets)
	b[len(b)-1] = '}' // for the last comma
	p.text = b
}

func (p *parser) composeOwn(b []byte, i int) []byte {
	o := &p.event.own
	if !o.has(i) {
		return b
	}
	b = composeMember(b, eventScope.rules[i].name, o.values[i].in(p.out), &o.values[i])
	return append(b, ',')
}

func (p *parser) composeList(b []byte, s *scope, list []object) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(b, '"')
	b = append(b, s.name...)
	b = append(b, `":[`...)
	for i := range list {
		b = p.composeObject(b, s, &list[i])
		b = append(b, ',')
	}
	b[len(b)-1] = ']'
	return append(b, ',')
}

// composeObject appends an object that isn't empty.
func (p *parser) composeObject(b []byte, s *scope, o *object) []byte {
	start := len(b)
	b = append(b, '{')
	for i := range s.rules {
		if o.has(i) {
			b = composeMember(b, s.rules[i].name, o.values[i].in(p.out), &o.values[i])
			b = append(b, ',')
		}
	}
	b[len(b)-1] = '}'
	o.text = span{int32(start), int32(len(b))}
	return b
}

// composeMember appends a member and moves the span of its value to where it stands now.
func composeMember(b []byte, name string, value []byte, moved *span) []byte {
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, `":`...)
	start := len(b)
	b = append(b, value...)
	*moved = span{int32(start), int32(len(b))}
	return b
}

// Pointers of the claims that aren't metadata, so that events share them.
var (
	eventPointers   = pointers("/", eventScope)
	actorPointers   = pointers("/actor/", actorScope)
	contextPointers = pointers("/context/", contextScope)
	targetPointers  = func() (all [MaxTargets][]string) {
		for i := range all {
			all[i] = pointers("/targets/"+strconv.Itoa(i)+"/", targetScope)
		}
		return all
	}()
	changePointers = func() (all [MaxChanges]string) {
		for i := range all {
			all[i] = "/changes/" + strconv.Itoa(i)
		}
		return all
	}()

	// byteOrder holds the indices of the longest array in the byte order of their decimals: 0, 1, 10, 11, …
	byteOrder = func() (order [MaxChanges]int) {
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order[:], func(a, b int) int { return cmp.Compare(strconv.Itoa(a), strconv.Itoa(b)) })
		return order
	}()
)

func pointers(prefix string, s *scope) []string {
	all := make([]string, len(s.rules))
	for i, r := range s.rules {
		all[i] = prefix + r.name
	}
	return all
}

// cut returns the claims of the composed draft, whose text is json, in the byte order of their pointers.
func (p *parser) cut(json []byte) []EventClaim {
	d := &p.event
	n := d.own.count() + d.actor.count() + len(d.changes) + d.context.count() + len(d.metadata)
	for i := range d.targets {
		n += d.targets[i].count()
	}
	claims := make([]EventClaim, 0, n)
	add := func(pointer string, value span) {
		claims = append(claims, EventClaim{pointer, json[value.start:value.end:value.end]})
	}
	addAll := func(pointers []string, o *object) {
		for i := range pointers {
			if o.has(i) {
				add(pointers[i], o.values[i])
			}
		}
	}

	add(eventPointers[eventAction], d.own.values[eventAction])
	addAll(actorPointers, &d.actor)
	for _, i := range byteOrder {
		if i < len(d.changes) {
			add(changePointers[i], d.changes[i].text)
		}
	}
	addAll(contextPointers, &d.context)
	if d.own.has(eventCredential) {
		add(eventPointers[eventCredential], d.own.values[eventCredential])
	}
	add(eventPointers[eventID], d.own.values[eventID])
	claims = p.cutMetadata(claims, json)
	for _, i := range [...]int{eventOccurredAt, eventOutcome} {
		if d.own.has(i) {
			add(eventPointers[i], d.own.values[i])
		}
	}
	for _, i := range byteOrder {
		if i < len(d.targets) {
			addAll(targetPointers[i], &d.targets[i])
		}
	}
	return claims
}

// cutMetadata appends the claims of metadata. Their pointers share one string.
func (p *parser) cutMetadata(claims []EventClaim, json []byte) []EventClaim {
	if len(p.event.metadata) == 0 {
		return claims
	}
	var ends [MaxMetadata]int
	p.names = p.names[:0]
	for i, m := range p.event.metadata {
		p.names = appendReference(append(p.names, "/metadata/"...), m.name(json))
		ends[i] = len(p.names)
	}
	names, from, first, sorted := string(p.names), 0, len(claims), true
	for i, m := range p.event.metadata {
		pointer := names[from:ends[i]]
		sorted = sorted && (i == 0 || claims[len(claims)-1].Pointer < pointer)
		claims = append(claims, EventClaim{pointer, m.value(json[:m.end:m.end])})
		from = ends[i]
	}
	if !sorted {
		// The canonical order is that of UTF-16 and of names before ~ and / are escaped.
		slices.SortFunc(claims[first:], func(a, b EventClaim) int { return cmp.Compare(a.Pointer, b.Pointer) })
	}
	return claims
}

// openedSize returns the size in bytes of the disclosure, in canonical form, that opens all the claims one by one.
func openedSize(claims []EventClaim) int {
	const (
		// The lengths of hashes, salts and times don't vary.
		around = len(`{"claims":[],"previous_hash":"","received_at":""}`) + 2*merkle.HashSize + timeSize
		each   = len(`{"pointer":"","salt":"","value":},`) + 2*merkle.HashSize
	)
	size := around - 1 // the last claim has no comma
	for _, c := range claims {
		size += each + stringSize(c.Pointer) + len(c.Value)
	}
	return size
}

// stringSize returns the length of the body of the canonical JSON string for s.
func stringSize(s string) int {
	size := len(s)
	for i := range len(s) {
		if byteClass[s[i]] > byteHigh {
			size += len(appendRune(nil, rune(s[i]))) - 1
		}
	}
	return size
}
