package log_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/log"
)

// An operator who wants to tell two stories of one event isn't bound to this package: it can hash whatever it likes into an
// entry, as long as two disclosures that are accepted lead there. A forger is such an operator's tool. It follows the
// hashes of the specification and none of its rules.
type forger struct {
	claims []forgedClaim
}

type forgedClaim struct {
	pointer string // as it is hashed
	salt    string
	value   string // as it is hashed

	json  string // the pointer's JSON, if not the canonical one
	shown string // the value's JSON, if not what is hashed
}

func claim(pointer, value string) forgedClaim {
	return forgedClaim{pointer: pointer, value: value, salt: string(bytes.Repeat([]byte{byte(len(pointer))}, 32))}
}

// base are the claims that every event has.
func base(more ...forgedClaim) []forgedClaim {
	return append([]forgedClaim{claim("/action", `"a"`), claim("/id", `"i"`)}, more...)
}

func (c forgedClaim) commitment() string {
	return string(plainCommitment([]byte(c.salt), c.pointer, c.value))
}

func digestOf(claims []forgedClaim) string {
	var committed []string
	for _, c := range claims {
		committed = append(committed, c.pointer, c.commitment())
	}
	return hex.EncodeToString(plainDigest(committed...))
}

// opened and withheld return a claim's JSON.
func (c forgedClaim) opened() string {
	return fmt.Sprintf(`{"pointer":%s,"salt":"%x","value":%s}`, c.pointerJSON(), c.salt, c.valueJSON())
}

func (c forgedClaim) withheld() string {
	return fmt.Sprintf(`{"commitment":"%x","pointer":%s}`, c.commitment(), c.pointerJSON())
}

func (c forgedClaim) pointerJSON() string {
	if c.json != "" {
		return c.json
	}
	return quote(c.pointer)
}

func (c forgedClaim) valueJSON() string {
	if c.shown != "" {
		return c.shown
	}
	return c.value
}

const forgedPlace = `"previous_hash":"` +
	`0000000000000000000000000000000000000000000000000000000000000000","received_at":"2026-06-01T12:00:00.000000Z"}`

func claimsForm(claims ...string) string {
	return `{"claims":[` + strings.Join(claims, ",") + `],` + forgedPlace
}

// opening returns a disclosure of the claims in which all are opened but those at the positions given.
func opening(claims []forgedClaim, hidden ...int) string {
	var out []string
	for i, c := range claims {
		if slices.Contains(hidden, i) {
			out = append(out, c.withheld())
		} else {
			out = append(out, c.opened())
		}
	}
	return claimsForm(out...)
}

func TestTwoStoriesOfOneEvent(t *testing.T) {
	type pair struct {
		name string
		// a and b are the two disclosures. They tell different things, and the forger would like both to be accepted.
		a, b string
		// digest is that of the entry in the forger's log, as far as its hashing goes.
		digest string
	}
	var pairs []pair
	try := func(name string, digest string, a, b string) { pairs = append(pairs, pair{name, a, b, digest}) }

	// two tells of one role by two claims, and opens either.
	two := func(name string, first, second forgedClaim) {
		c := base(first, second)
		try(name, digestOf(c), opening(c, 3), opening(c, 2))
		// And the other way round, should the order be what gives it away.
		c = base(second, first)
		try(name+", exchanged", digestOf(c), opening(c, 3), opening(c, 2))
		c = append([]forgedClaim{first, second}, base()...)
		try(name+", at the front", digestOf(c), opening(c, 1), opening(c, 0))
	}
	viewer, admin := claim("/metadata/role", `"viewer"`), claim("/metadata/role", `"admin"`)
	two("one pointer twice", viewer, admin)
	bare := claim("/metadata", `{"role":"admin"}`)
	two("a member and the whole object", viewer, bare)
	two("an actor's member and the whole actor", claim("/actor/id", `"alice"`), claim("/actor", `{"id":"mallory"}`))
	two("a target's member and the whole target", claim("/targets/0/id", `"t1"`), claim("/targets/0", `{"id":"t2"}`))
	two("a target's member and all targets", claim("/targets/0/id", `"t1"`), claim("/targets", `[{"id":"t2"}]`))
	two("a change and its part", claim("/changes/0", `{"field":"f","after":1}`), claim("/changes/0/after", `2`))
	two("the whole event", viewer, claim("", `{"action":"a","id":"i","metadata":{"role":"admin"}}`))
	two("a part of a metadata value", claim("/metadata/role", `{"of":"viewer"}`), claim("/metadata/role/of", `"admin"`))
	two("index 01", claim("/targets/0/id", `"t1"`), claim("/targets/00/id", `"t2"`))
	two("index +0", claim("/changes/+0", `{"field":"x"}`), claim("/changes/0", `{"field":"f"}`))
	two("index -", claim("/changes/-", `{"field":"x"}`), claim("/changes/0", `{"field":"f"}`))
	two("index with a space", claim("/changes/ 0", `{"field":"x"}`), claim("/changes/0", `{"field":"f"}`))
	two("index in other digits", claim("/changes/0", `{"field":"f"}`), claim("/changes/٠", `{"field":"x"}`))
	two("index beyond 64 bits", claim("/changes/0", `{"field":"f"}`), claim("/changes/18446744073709551616", `{"field":"x"}`))
	two("upper case", claim("/Outcome", `"failure"`), claim("/outcome", `"success"`))
	two("upper case of an object", claim("/Metadata/role", `"admin"`), viewer)
	two("no slash", claim("metadata/role", `"admin"`), viewer)
	two("two slashes", claim("//metadata/role", `"admin"`), viewer)
	two("a slash at the end", viewer, claim("/metadata/role/", `"admin"`))
	two("a fragment", claim("#/metadata/role", `"admin"`), viewer)
	two("percent-encoded", claim("/metadata%2Frole", `"admin"`), viewer)
	two("unknown member of the actor", claim("/actor/id", `"alice"`), claim("/actor/role", `"admin"`))
	two("flat spelling", claim("/actor/id", `"alice"`), claim("/actor_id", `"mallory"`))
	two("escape of nothing", viewer, claim("/metadata/role~", `"admin"`))
	two("escape of a letter", viewer, claim("/metadata/~role", `"admin"`))
	two("escape ~2", viewer, claim("/metadata/role~2", `"admin"`))
	two("NUL in a name", viewer, claim("/metadata/role\x00", `"admin"`))
	two("empty name", claim("/metadata/", `"admin"`), viewer)

	// One claim under two spellings of its pointer in JSON.
	for _, spelling := range []string{`"/metadata/r\u006fle"`, `"\/metadata\/role"`, `"/metadata/role\u0000"`, `"/metadata/role\ud800"`} {
		other := viewer
		other.json = spelling
		other.shown = `"admin"`
		c := base(viewer)
		try("pointer spelled "+spelling, digestOf(c), opening(c), opening(base(other)))
	}

	// One pointer for names that differ: sorting by something else than bytes.
	two("unsorted", claim("/metadata/b", `1`), claim("/metadata/a", `2`))
	two("sorted by UTF-16", claim("/metadata/\U0001f600", `1`), claim("/metadata/\ufb33", `2`))
	two("sorted by number", claim("/changes/2", `{"field":"f"}`), claim("/changes/10", `{"field":"x"}`))

	// Indices with gaps leave room for targets that only some are told of.
	two("target 1 without 0", claim("/targets/1/id", `"t1"`), claim("/targets/2/id", `"t2"`))
	two("target without id", claim("/targets/0/name", `"n"`), claim("/targets/0/type", `"t"`))
	two("actor without id", claim("/actor/email", `"a@b"`), claim("/actor/name", `"n"`))
	two("change 1 without 0", claim("/changes/1", `{"field":"f"}`), claim("/changes/2", `{"field":"x"}`))

	// Nothing that an event can't have: whoever sees the empty claim sees no claim.
	for _, value := range []string{`""`, `null`, `[]`, `{}`} {
		c := base(claim("/outcome", value))
		try("outcome "+value, digestOf(c), opening(c), opening(base()))
		c = base(claim("/targets/0/id", value))
		try("target id "+value, digestOf(c), opening(c), opening(base()))
		c = append([]forgedClaim{claim("/action", `"a"`), claim("/actor/id", `"i"`), claim("/actor/name", value)}, claim("/id", `"i"`))
		try("actor name "+value, digestOf(c), opening(c), opening(base()))
		c = base(claim("/metadata", value))
		try("metadata "+value, digestOf(c), opening(c), opening(base()))
		c = base(claim("/targets", value))
		try("targets "+value, digestOf(c), opening(c), opening(base()))
	}

	// Without a required claim.
	c := []forgedClaim{claim("/action", `"a"`), viewer}
	try("no id", digestOf(c), opening(c), opening([]forgedClaim{claim("/action", `"a"`), admin}))
	c = []forgedClaim{claim("/id", `"a"`), viewer}
	try("no action", digestOf(c), opening(c), opening([]forgedClaim{claim("/id", `"a"`), admin}))
	try("no claims at all", hex.EncodeToString(plainDigest()), claimsForm(), claimsForm())

	// One commitment, two values: a hash of a spelling that reads as something else, or as the same.
	for _, spelling := range []string{`"ad\u006din"`, ` "admin"`, `"admin" `, `1.0`, `1e0`, `{"b":1,"a":2}`, `{"a":1,"a":2}`, `{"a":2,"a":1}`,
		`9007199254740993`, `1e400`, `"\ud800"`, `"\u0000"`, "\"\xff\"", `"admin",`, `tru`, ``, `NaN`, `01`} {
		c := base(claim("/metadata/role", spelling))
		try("value "+spelling, digestOf(c), opening(c), opening(c, 2))
		other := c[2]
		other.shown = `"admin"`
		try("value "+spelling+" shown as another", digestOf(c), opening(c), opening(base(other)))
	}
	other := viewer
	other.shown = admin.value
	c = base(viewer)
	try("another value for the commitment", digestOf(c), opening(c), opening(base(other)))

	// A claim that is opened and withheld at once, and commits to another value than it opens.
	mixed := fmt.Sprintf(`{"commitment":"%x","pointer":"/metadata/role","salt":"%x","value":"admin"}`, viewer.commitment(), viewer.salt)
	head := []string{base()[0].opened(), base()[1].opened()}
	try("opened and withheld at once", digestOf(c), opening(c), claimsForm(append(head, mixed)...))
	try("withheld with a value", digestOf(c), opening(c), claimsForm(append(head, fmt.Sprintf(
		`{"commitment":"%x","pointer":"/metadata/role","value":"admin"}`, viewer.commitment()))...))
	try("withheld with a salt", digestOf(c), opening(c), claimsForm(append(head, fmt.Sprintf(
		`{"commitment":"%x","pointer":"/metadata/role","salt":"%x"}`, viewer.commitment(), viewer.salt))...))
	try("value twice", digestOf(c), opening(c), claimsForm(append(head, fmt.Sprintf(
		`{"pointer":"/metadata/role","salt":"%x","value":"admin","value":"viewer"}`, viewer.salt))...))
	try("value in two cases", digestOf(c), opening(c), claimsForm(append(head, fmt.Sprintf(
		`{"Value":"admin","pointer":"/metadata/role","salt":"%x","value":"viewer"}`, viewer.salt))...))
	try("claims twice", digestOf(c), opening(c), strings.Replace(opening(c), `{"claims"`,
		`{"claims":[`+admin.opened()+`],"claims"`, 1))

	// The bytes between salt, length, pointer and value, moved: the same hash input, read in two ways.
	long := viewer
	long.salt += "\x00"
	short := viewer
	short.salt = short.salt[1:]
	none := viewer
	none.salt = ""
	for name, odd := range map[string]forgedClaim{"long": long, "short": short, "no": none} {
		c := base(odd)
		try(name+" salt", digestOf(c), opening(c), opening(c, 2))
	}
	// salt' = salt + length and the pointer's first bytes, so that pointer and value could begin later.
	input := viewer.salt + u32(len(viewer.pointer)) + viewer.pointer + viewer.value
	moved := forgedClaim{pointer: viewer.pointer, salt: input[:len(input)-len(viewer.value)-4-len(viewer.pointer)], value: viewer.value}
	c = base(moved)
	try("salt that holds a length", digestOf(c), opening(c), opening(base(viewer, admin), 3))
	// A pointer that swallows the value: /metadata/role"viewer" with an empty value, or with the rest of it.
	for cut := 1; cut <= len(viewer.value); cut++ {
		swallowed := forgedClaim{pointer: viewer.pointer + viewer.value[:cut], salt: viewer.salt, value: viewer.value[cut:]}
		c = base(swallowed)
		try(fmt.Sprintf("pointer that swallows %d bytes of the value", cut), digestOf(base(viewer)),
			opening(base(viewer)), strings.Replace(opening(c), `"value":}`, `"value":null}`, 1))
	}
	// A pointer that swallows the next claim: what is hashed into the digest between the two, as part of a name.
	x, y := claim("/metadata/x", `1`), claim("/metadata/y", `2`)
	swallow := x
	swallow.pointer += x.commitment() + u32(len(y.pointer)) + y.pointer
	swallow.json = quote(strings.ToValidUTF8(swallow.pointer, "\ufffd"))
	c = base(x, y)
	try("pointer that swallows the next claim", digestOf(c), opening(c), opening(base(swallow), 2))

	// A claim that one disclosure names and the other doesn't.
	c = base(viewer)
	try("a claim left out", digestOf(c), opening(c), opening(base()))
	try("a withheld claim left out", digestOf(c), opening(c, 2), opening(base()))
	try("a claim added", digestOf(base()), opening(base()), opening(c))
	try("a withheld claim added", digestOf(base()), opening(base()), opening(c, 2))

	// The event form beside others: the seed decides all salts, so another seed is another event.
	event := func(event, seed string) string {
		return `{"event":` + event + `,` + strings.TrimSuffix(forgedPlace, "}") + `,"seed":"` + seed + `"}`
	}
	seed, seed2 := strings.Repeat("11", 32), strings.Repeat("22", 32)
	const shown = `{"action":"a","id":"i","metadata":{"role":"viewer"}}`
	salted := func(seed, value string) []forgedClaim {
		c := base(claim("/metadata/role", value))
		raw, _ := hex.DecodeString(seed)
		for i := range c {
			c[i].salt = string(plainSalt(raw, c[i].pointer))
		}
		return c
	}
	viewerClaims := salted(seed, `"viewer"`)
	try("another seed", digestOf(viewerClaims), event(shown, seed), event(shown, seed2))
	try("another event", digestOf(viewerClaims), event(shown, seed), event(strings.Replace(shown, "viewer", "admin", 1), seed))
	try("claims of another value", digestOf(viewerClaims), event(shown, seed), opening(salted(seed, `"admin"`)))
	try("claims of another seed", digestOf(viewerClaims), event(shown, seed), opening(salted(seed2, `"admin"`)))
	for name, other := range map[string]string{
		"empty actor":         `{"action":"a","actor":{},"id":"i","metadata":{"role":"viewer"}}`,
		"empty targets":       `{"action":"a","id":"i","metadata":{"role":"viewer"},"targets":[]}`,
		"null outcome":        `{"action":"a","id":"i","metadata":{"role":"viewer"},"outcome":null}`,
		"member twice":        `{"action":"a","id":"i","metadata":{"role":"admin","role":"viewer"}}`,
		"metadata twice":      `{"action":"a","id":"i","metadata":{"role":"admin"},"metadata":{"role":"viewer"}}`,
		"unknown member":      `{"action":"a","id":"i","metadata":{"role":"viewer"},"role":"admin"}`,
		"case of a member":    `{"Action":"b","action":"a","id":"i","metadata":{"role":"viewer"}}`,
		"flat member":         `{"action":"a","actor_id":"mallory","id":"i","metadata":{"role":"viewer"}}`,
		"name with an escape": `{"action":"a","id":"i","metadata":{"r\u006fle":"viewer"}}`,
		"white space":         `{"action":"a","id":"i","metadata":{"role":"viewer"} }`,
		"array index":         `{"action":"a","changes":{"0":{"field":"f"}},"id":"i","metadata":{"role":"viewer"}}`,
	} {
		try("event with "+name, digestOf(viewerClaims), event(shown, seed), event(other, seed))
	}
	// A name with a slash in it, and an object: the same pointer, if slashes weren't escaped.
	try("slash in a name", digestOf(viewerClaims),
		event(`{"action":"a","id":"i","metadata":{"a/b":1}}`, seed), event(`{"action":"a","id":"i","metadata":{"a":{"b":1}}}`, seed))
	try("escape in a name", digestOf(viewerClaims),
		event(`{"action":"a","id":"i","metadata":{"a/b":1}}`, seed), event(`{"action":"a","id":"i","metadata":{"a~1b":1}}`, seed))
	try("digest beside the event", digestOf(viewerClaims), event(shown, seed),
		strings.Replace(event(strings.Replace(shown, "viewer", "admin", 1), seed), `{"event"`, `{"digest":"`+digestOf(viewerClaims)+`","event"`, 1))
	try("digest beside claims", digestOf(viewerClaims), event(shown, seed), strings.Replace(opening(salted(seed, `"admin"`)),
		`,"previous_hash"`, `,"digest":"`+digestOf(viewerClaims)+`","previous_hash"`, 1))
	try("claims beside the event", digestOf(viewerClaims), event(shown, seed), strings.Replace(event(shown, seed), `{"event"`,
		`{"claims":[`+salted(seed, `"admin"`)[2].opened()+`],"event"`, 1))
	try("seed beside claims", digestOf(viewerClaims), event(shown, seed),
		strings.TrimSuffix(opening(salted(seed2, `"admin"`)), "}")+`,"seed":"`+seed+`"}`)
	try("short seed", digestOf(viewerClaims), event(shown, seed), event(shown, seed[2:]))
	try("long seed, which HMAC pads with zeros as well", digestOf(viewerClaims), event(shown, seed), event(shown, seed+"00"))

	for _, p := range pairs {
		if p.a == p.b && p.name != "no claims at all" {
			t.Errorf("%s: the pair is one disclosure: %s", p.name, p.a)
		}
		a, errA := log.ParseDisclosure([]byte(p.a))
		b, errB := log.ParseDisclosure([]byte(p.b))
		if errA != nil || errB != nil {
			continue
		}
		da, db := a.Entry().Digest, b.Entry().Digest
		if da != db {
			continue
		}
		if got := hex.EncodeToString(da[:]); got != p.digest {
			t.Errorf("%s: got digest %s, the forger's is %s", p.name, got, p.digest)
		}
		if diff := tell(t, a).contradicts(tell(t, b)); diff != "" {
			t.Errorf("%s: both are accepted for one entry, and contradict each other in %s:\n%s\n%s", p.name, diff, p.a, p.b)
		}
	}

	// The forger's tools are good: what is honest is accepted, with the digest that they compute.
	for _, honest := range []pair{
		{"claims", opening(viewerClaims), opening(viewerClaims, 0, 2), digestOf(viewerClaims)},
		{"event", event(shown, seed), opening(viewerClaims, 1), digestOf(viewerClaims)},
	} {
		for _, data := range []string{honest.a, honest.b} {
			d, err := log.ParseDisclosure([]byte(data))
			if err != nil {
				t.Fatalf("%s: %v: %s", honest.name, err, data)
			}
			if got := d.Entry().Digest; hex.EncodeToString(got[:]) != honest.digest {
				t.Errorf("%s: got digest %x, want %s", honest.name, got, honest.digest)
			}
		}
	}
}
