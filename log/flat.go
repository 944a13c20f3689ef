package log

import (
	"bytes"
	"fmt"
)

// Members of the event as clients send it.
const (
	topActor = iota
	topChanges
	topContext
	topMetadata
	topTargets
	topOwn // one of eventScope
	topFlatActor
	topFlatContext
	topFlatTarget
)

// top says what a member of the event is by its name: for topOwn and the flat spellings, also which one of the scope's.
type top struct {
	name  string
	kind  int
	index int
}

// tops are the members of the event as clients send it. Their positions are the bits of eventDraft.seen.
var tops = [...]top{
	{"action", topOwn, eventAction},
	{"actor", topActor, 0},
	{"actor_email", topFlatActor, actorEmail},
	{"actor_id", topFlatActor, actorID},
	{"actor_name", topFlatActor, actorName},
	{"actor_type", topFlatActor, actorType},
	{"changes", topChanges, 0},
	{"context", topContext, 0},
	{"credential", topOwn, eventCredential},
	{"id", topOwn, eventID},
	{"ip", topFlatContext, contextIP},
	{"metadata", topMetadata, 0},
	{"occurred_at", topOwn, eventOccurredAt},
	{"outcome", topOwn, eventOutcome},
	{"target_id", topFlatTarget, targetID},
	{"target_name", topFlatTarget, targetName},
	{"target_type", topFlatTarget, targetType},
	{"targets", topTargets, 0},
	{"user_agent", topFlatContext, contextUserAgent},
}

// findTop returns the position in tops of the member of that name, or -1.
func findTop(name []byte) int {
	for i := range tops {
		if tops[i].name == string(name) {
			return i
		}
	}
	return -1
}

// flatten makes one object of each thing that may be given flat or nested, once all members have been read. A thing given
// both ways is a problem, at the flat member. What is left out as empty hasn't been given: actor_name beside "actor":{} is
// fine. What makes up one thing:
//
//   - any actor_ member and the actor object;
//   - any target_ member and the targets array;
//   - ip and context.ip, and likewise user_agent: context may well hold other members beside them.
func (p *parser) flatten() bool {
	d := &p.event
	if i := d.flatActor.first(); i >= 0 {
		if !d.actor.empty() {
			if !p.both("actor_"+actorScope.rules[i].name, "actor") {
				return false
			}
		} else if !d.flatActor.given(actorID) {
			if !p.problemAt("actor_id", "is required beside actor_%s", actorScope.rules[i].name) {
				return false
			}
		}
		d.actor = d.flatActor
	} else if !d.actor.empty() && !d.actor.given(actorID) {
		if !p.problemAt("actor/id", "is required") {
			return false
		}
	}
	if i := d.flatTarget.first(); i >= 0 {
		if len(d.targets) > 0 {
			if !p.both("target_"+targetScope.rules[i].name, "targets") {
				return false
			}
		} else if !d.flatTarget.given(targetID) {
			if !p.problemAt("target_id", "is required beside target_%s", targetScope.rules[i].name) {
				return false
			}
		}
		d.targets = append(d.targets[:0], d.flatTarget)
	}
	for _, i := range [...]int{contextIP, contextUserAgent} {
		if !d.flatContext.given(i) {
			continue
		}
		if name := contextScope.rules[i].name; d.context.given(i) && !p.both(name, "context."+name) {
			return false
		}
		d.context.values[i] = d.flatContext.values[i]
	}
	return true
}

func (p *parser) both(flat, nested string) bool {
	return p.problemAt(flat, "%q and %q give the same thing flat and nested: send one of them", flat, nested)
}

// unknown notes that the member which the path leads to isn't one of the scope's, with a hint where its name is near to
// one that is known.
func (p *parser) unknown(s *scope) bool {
	last := p.path[p.depth-1]
	name := plainName(appendReference(nil, p.data[last.start:min(last.end, last.start+64)]))
	hint := ""
	if s == eventScope {
		hint = topHint(name)
	} else {
		for _, r := range s.rules {
			if plain := plainName([]byte(r.name)); bytes.Equal(name, plain) || bytes.Equal(name, plainName([]byte(singular(s.name)+r.name))) {
				hint = fmt.Sprintf("; did you mean %q?", r.name)
			}
		}
	}
	if last.end-last.start > 256 {
		return p.problem("has an unknown member, whose name is %d bytes long", last.end-last.start)
	}
	return p.problem("is not a member that is known here%s", hint)
}

// topHint returns a hint for an unknown member of the event whose name is as plainName writes it.
func topHint(name []byte) string {
	for _, t := range tops {
		if t.kind != topOwn || t.index != eventCredential {
			if bytes.Equal(name, plainName([]byte(t.name))) {
				return fmt.Sprintf("; did you mean %q?", t.name)
			}
		}
	}
	for _, r := range contextScope.rules {
		if plain := plainName([]byte(r.name)); bytes.Equal(name, plain) || bytes.Equal(name, append([]byte("context"), plain...)) {
			return fmt.Sprintf("; %q belongs into \"context\"", r.name)
		}
	}
	switch string(name) {
	case "target":
		return `; did you mean "targets", an array, or the flat target_id, target_type and target_name?`
	case "timestamp", "time", "occurred", "createdat":
		return `; did you mean "occurred_at"?`
	case "ipaddress", "sourceip", "clientip":
		return `; did you mean "ip"?`
	case "eventid":
		return `; did you mean "id"?`
	case "field", "before", "after", "change":
		return `; did you mean "changes", an array of objects with field, before and after?`
	}
	return `; members of your own belong into "metadata"`
}

// singular returns the name of one element of the array, or of the object, with that name.
func singular(name string) string {
	switch name {
	case "targets":
		return "target"
	case "changes":
		return "change"
	}
	return name
}

// plainName returns the letters and digits of a name, in lower case.
func plainName(name []byte) []byte {
	var plain []byte
	for _, c := range name {
		if isLetterOrDigit(c) {
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			plain = append(plain, c)
		}
	}
	return plain
}
