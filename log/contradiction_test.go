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
// entry, as long as two disclosures that are accepted lead there. A forged claim is such an operator's tool: it
// follows the hashes of the specification and none of its rules.
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

// refuse is for a disclosure that must not be accepted, whatever else is shown of the same entry.
func refuse(t *testing.T, name, disclosure string) {
	t.Helper()
	if _, err := log.ParseDisclosure([]byte(disclosure)); err == nil {
		t.Errorf("%s: accepted %s", name, disclosure)
	}
}

// tryBoth is for two disclosures that tell different things. The forger would like both to be accepted for its entry with the given
// digest; it fails if one is refused, or is of another entry.
func tryBoth(t *testing.T, name, digest, a, b string) {
	t.Helper()
	if a == b {
		t.Fatalf("%s: the pair is one disclosure: %s", name, a)
	}
	da, errA := log.ParseDisclosure([]byte(a))
	db, errB := log.ParseDisclosure([]byte(b))
	if errA != nil || errB != nil || da.Entry().Digest != db.Entry().Digest {
		return
	}
	got := da.Entry().Digest
	if hex.EncodeToString(got[:]) != digest {
		t.Errorf("%s: got digest %x, the forger's is %s", name, got, digest)
	}
	if diff := tell(t, da).contradicts(tell(t, db)); diff != "" {
		t.Errorf("%s: both are accepted for one entry, and contradict each other in %s:\n%s\n%s", name, diff, a, b)
	}
}

var viewer, admin = claim("/metadata/role", `"viewer"`), claim("/metadata/role", `"admin"`)

// TestForgerIsRight shows that the forger's hashes are the right ones: what is honest is accepted, with the digest it computes.
func TestForgerIsRight(t *testing.T) {
	for _, data := range []string{eventForm(roleEvent, seed1), opening(salted(seed1, `"viewer"`)), opening(salted(seed1, `"viewer"`), 0, 2)} {
		d, err := log.ParseDisclosure([]byte(data))
		if err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		if got, want := d.Entry().Digest, digestOf(salted(seed1, `"viewer"`)); hex.EncodeToString(got[:]) != want {
			t.Errorf("got digest %x, want %s", got, want)
		}
	}
}

func TestOneThingByTwoNames(t *testing.T) {
	// two makes both claims, in every order, and opens each in turn. No event has both of these names.
	two := func(name string, first, second forgedClaim) {
		t.Helper()
		sorted := base(first, second)
		slices.SortStableFunc(sorted, func(a, b forgedClaim) int { return strings.Compare(a.pointer, b.pointer) })
		for _, c := range [][]forgedClaim{base(first, second), base(second, first), append([]forgedClaim{first, second}, base()...), sorted} {
			for i := range c {
				refuse(t, name, opening(c, i))
			}
			refuse(t, name, opening(c))
		}
	}
	two("one pointer twice", viewer, admin)
	two("a member and the whole object", viewer, claim("/metadata", `{"role":"admin"}`))
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

	// Indices with gaps leave room for targets that only some are told of; members without an id, for an actor.
	two("sorted by number", claim("/changes/2", `{"field":"f"}`), claim("/changes/10", `{"field":"x"}`))
	two("target 1 without 0", claim("/targets/1/id", `"t1"`), claim("/targets/2/id", `"t2"`))
	two("target without id", claim("/targets/0/name", `"n"`), claim("/targets/0/type", `"t"`))
	two("actor without id", claim("/actor/email", `"a@b"`), claim("/actor/name", `"n"`))
	two("change 1 without 0", claim("/changes/1", `{"field":"f"}`), claim("/changes/2", `{"field":"x"}`))
}

func TestPointersInOneOrderOnly(t *testing.T) {
	for name, c := range map[string][]forgedClaim{
		"unsorted":              base(claim("/metadata/b", `1`), claim("/metadata/a", `2`)),
		"sorted by UTF-16":      base(claim("/metadata/\U0001f600", `1`), claim("/metadata/\ufb33", `2`)),
		"sorted by escapes":     base(claim("/metadata/a~1", `1`), claim("/metadata/a}", `1`), claim("/metadata/a0", `2`)),
		"required claims first": {claim("/id", `"i"`), claim("/action", `"a"`), viewer},
		"sorted by number": base(claim("/targets/0/id", `"t"`), claim("/targets/1/id", `"t"`), claim("/targets/2/id", `"t"`), claim("/targets/3/id", `"t"`),
			claim("/targets/4/id", `"t"`), claim("/targets/5/id", `"t"`), claim("/targets/6/id", `"t"`), claim("/targets/7/id", `"t"`),
			claim("/targets/8/id", `"t"`), claim("/targets/9/id", `"t"`), claim("/targets/10/id", `"t"`)),
	} {
		refuse(t, name, opening(c))
		refuse(t, name, opening(c, 0))
		sorted := slices.SortedFunc(slices.Values(c), func(a, b forgedClaim) int { return strings.Compare(a.pointer, b.pointer) })
		if _, err := log.ParseDisclosure([]byte(opening(sorted))); err != nil {
			t.Errorf("%s: sorted as it should be: %v", name, err)
		}
	}
}

func TestClaimsThatNoEventHas(t *testing.T) {
	// Whoever is shown an empty claim is told what the absence of the claim tells, for another digest.
	for _, value := range []string{`""`, `null`, `[]`, `{}`} {
		refuse(t, "outcome "+value, opening(base(claim("/outcome", value))))
		refuse(t, "target id "+value, opening(base(claim("/targets/0/id", value))))
		refuse(t, "change "+value, opening([]forgedClaim{claim("/action", `"a"`), claim("/changes/0", value), claim("/id", `"i"`)}))
		refuse(t, "actor name "+value, opening([]forgedClaim{
			claim("/action", `"a"`), claim("/actor/id", `"i"`), claim("/actor/name", value), claim("/id", `"i"`)}))
		refuse(t, "metadata "+value, opening(base(claim("/metadata", value))))
		refuse(t, "targets "+value, opening(base(claim("/targets", value))))
	}
	refuse(t, "no id", opening([]forgedClaim{claim("/action", `"a"`), viewer}))
	refuse(t, "no action", opening([]forgedClaim{claim("/id", `"i"`), viewer}))
	refuse(t, "no claims at all", claimsForm())
	for _, value := range []string{`"ad\u006din"`, ` "admin"`, `"admin" `, `1.0`, `1e0`, `{"b":1,"a":2}`, `{"a":1,"a":2}`, `{"a":2,"a":1}`,
		`9007199254740993`, `1e400`, `"\ud800"`, `"\u0000"`, "\"\xff\"", `"admin",`, `tru`, ``, `NaN`, `01`} {
		refuse(t, "value "+value, opening(base(claim("/metadata/role", value))))
	}
}

// TestOneCommitmentTwoValues shows another value than the one that was hashed.
func TestOneCommitmentTwoValues(t *testing.T) {
	shown := func(c forgedClaim, value string) forgedClaim { c.shown = value; return c }
	c := base(viewer)
	tryBoth(t, "another value for the commitment", digestOf(c), opening(c), opening(base(shown(viewer, admin.value))))
	for _, value := range []string{`"ad\u006din"`, `"admin" `, `1.0`, `{"b":1,"a":2}`, `{"a":1,"a":2}`} {
		c := base(claim("/metadata/role", value))
		tryBoth(t, "value "+value, digestOf(c), opening(c), opening(base(shown(c[2], `"admin"`))))
	}
	for _, spelling := range []string{`"/metadata/r\u006fle"`, `"\/metadata\/role"`, `"/metadata/role\u0000"`, `"/metadata/role\ud800"`} {
		other := shown(viewer, admin.value)
		other.json = spelling
		refuse(t, "pointer spelled "+spelling, opening(base(other)))
		refuse(t, "pointer spelled "+spelling, opening(base(other), 2))
	}

	// A claim that is opened and withheld at once, and so commits to another value than it opens.
	head := []string{base()[0].opened(), base()[1].opened()}
	for name, mixed := range map[string]string{
		"opened and withheld": fmt.Sprintf(`{"commitment":"%x","pointer":"/metadata/role","salt":"%x","value":"admin"}`, viewer.commitment(), viewer.salt),
		"withheld with value": fmt.Sprintf(`{"commitment":"%x","pointer":"/metadata/role","value":"admin"}`, viewer.commitment()),
		"withheld with salt":  fmt.Sprintf(`{"commitment":"%x","pointer":"/metadata/role","salt":"%x"}`, viewer.commitment(), viewer.salt),
		"value without salt":  `{"pointer":"/metadata/role","value":"admin"}`,
		"salt without value":  fmt.Sprintf(`{"pointer":"/metadata/role","salt":"%x"}`, viewer.salt),
		"neither":             `{"pointer":"/metadata/role"}`,
		"value twice":         fmt.Sprintf(`{"pointer":"/metadata/role","salt":"%x","value":"admin","value":"viewer"}`, viewer.salt),
		"value in two cases":  fmt.Sprintf(`{"Value":"admin","pointer":"/metadata/role","salt":"%x","value":"viewer"}`, viewer.salt),
	} {
		refuse(t, name, claimsForm(append(head, mixed)...))
	}
	refuse(t, "claims twice", strings.Replace(opening(c), `{"claims"`, `{"claims":[`+admin.opened()+`],"claims"`, 1))
}

// TestHashInputsReadInTwoWays moves the borders between salt, length, pointer and value.
func TestHashInputsReadInTwoWays(t *testing.T) {
	for _, salt := range []string{"", viewer.salt[1:], viewer.salt + "\x00", viewer.salt + u32(len(viewer.pointer))} {
		c := base(forgedClaim{pointer: viewer.pointer, salt: salt, value: viewer.value})
		refuse(t, fmt.Sprintf("salt of %d bytes", len(salt)), opening(c))
	}
	// A pointer that swallows the beginning of the value, or all of it.
	for cut := 1; cut <= len(viewer.value); cut++ {
		swallowed := forgedClaim{pointer: viewer.pointer + viewer.value[:cut], salt: viewer.salt, value: viewer.value[cut:], shown: "null"}
		tryBoth(t, fmt.Sprintf("pointer that swallows %d bytes of the value", cut), digestOf(base(viewer)),
			opening(base(viewer)), opening(base(swallowed)))
		tryBoth(t, fmt.Sprintf("withheld pointer that swallows %d bytes of the value", cut), digestOf(base(viewer)),
			opening(base(viewer)), opening(base(swallowed), 2))
	}
	// A pointer that swallows the next claim: all that is hashed into the digest between the two, as part of a name. The
	// commitments are ground until they are text, which costs a real forger some patience; here JSON just replaces the rest.
	x, y := claim("/metadata/x", `1`), claim("/metadata/y", `2`)
	swallow := x
	swallow.pointer += x.commitment() + u32(len(y.pointer)) + y.pointer
	swallow.json = quote(strings.ToValidUTF8(swallow.pointer, "\ufffd"))
	tryBoth(t, "pointer that swallows the next claim", digestOf(base(x, y)), opening(base(x, y)), opening(base(swallow), 2))
}

func TestClaimNamedToSomeOnly(t *testing.T) {
	with, without := base(viewer), base()
	tryBoth(t, "a claim left out", digestOf(with), opening(with), opening(without))
	tryBoth(t, "a withheld claim left out", digestOf(with), opening(with, 2), opening(without))
	tryBoth(t, "a claim added", digestOf(without), opening(without), opening(with))
	tryBoth(t, "a withheld claim added", digestOf(without), opening(without), opening(with, 2))
}

const roleEvent = `{"action":"a","id":"i","metadata":{"role":"viewer"}}`

var seed1, seed2 = strings.Repeat("11", 32), strings.Repeat("22", 32)

func eventForm(event, seed string) string {
	return `{"event":` + event + `,` + strings.TrimSuffix(forgedPlace, "}") + `,"seed":"` + seed + `"}`
}

// salted returns the claims of roleEvent with a value for the role, under the salts of a seed.
func salted(seed, value string) []forgedClaim {
	raw, err := hex.DecodeString(seed)
	if err != nil {
		panic(err)
	}
	c := base(claim("/metadata/role", value))
	for i := range c {
		c[i].salt = string(plainSalt(raw, c[i].pointer))
	}
	return c
}

func TestEventFormBesideOthers(t *testing.T) {
	honest := eventForm(roleEvent, seed1)
	digest := digestOf(salted(seed1, `"viewer"`))
	try := func(name, other string) {
		t.Helper()
		tryBoth(t, name, digest, honest, other)
	}
	try("another seed", eventForm(strings.Replace(roleEvent, "viewer", "admin", 1), seed2))
	try("another event", eventForm(strings.Replace(roleEvent, "viewer", "admin", 1), seed1))
	try("claims of another value", opening(salted(seed1, `"admin"`)))
	try("claims of another seed", opening(salted(seed2, `"admin"`)))

	for name, event := range map[string]string{
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
		refuse(t, "event with "+name, eventForm(event, seed1))
	}
	// Names that would have the same pointer as other events, if slashes and tildes weren't escaped.
	tryBoth(t, "slash in a name", digest, eventForm(`{"action":"a","id":"i","metadata":{"a/b":1}}`, seed1),
		eventForm(`{"action":"a","id":"i","metadata":{"a":{"b":1}}}`, seed1))
	tryBoth(t, "escape in a name", digest, eventForm(`{"action":"a","id":"i","metadata":{"a/b":1}}`, seed1),
		eventForm(`{"action":"a","id":"i","metadata":{"a~1b":1}}`, seed1))

	// Two forms at once: one for the hash, one for the reader.
	adminEvent, adminClaims := strings.Replace(honest, "viewer", "admin", 1), opening(salted(seed1, `"admin"`))
	refuse(t, "digest beside the event", strings.Replace(adminEvent, `{"event"`, `{"digest":"`+digest+`","event"`, 1))
	refuse(t, "digest beside claims", strings.Replace(adminClaims, `,"previous_hash"`, `,"digest":"`+digest+`","previous_hash"`, 1))
	refuse(t, "claims beside the event", strings.Replace(honest, `{"event"`, `{"claims":[`+admin.opened()+`],"event"`, 1))
	refuse(t, "seed beside claims", strings.TrimSuffix(adminClaims, "}")+`,"seed":"`+seed1+`"}`)
	refuse(t, "short seed", eventForm(roleEvent, seed1[2:]))
	refuse(t, "long seed", eventForm(roleEvent, seed1+"00")) // HMAC pads a short key with zeros
}
