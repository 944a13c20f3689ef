package log_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// The vectors in testdata/vectors are for implementations of docs/spec.md in other languages, so they are never changed, only
// added to: a proof that once was VALID stays so.
var update = flag.Bool("update", false, "write testdata/vectors anew")

// vectorFile is one file of vectors. All JSON texts in it are strings, so that not a byte of them depends on the reader.
type vectorFile struct {
	Description string             `json:"description"`
	Events      []eventVector      `json:"events,omitempty"`
	Refused     []refusedVector    `json:"refused,omitempty"`
	Disclosures []disclosureVector `json:"disclosures,omitempty"`
	Log         *logVector         `json:"log,omitempty"`
	Proofs      []proofVector      `json:"proofs,omitempty"`
	Hub         *hubVector         `json:"hub,omitempty"`
}

// eventVector is an event, cut into its claims.
type eventVector struct {
	Name       string        `json:"name"`
	Inputs     []string      `json:"inputs"`                // as clients send it: one or more spellings of the same
	ID         string        `json:"assigned_id,omitempty"` // made by the server
	Credential string        `json:"credential,omitempty"`  // set by the server
	Canonical  string        `json:"canonical"`             // stored form
	Seed       string        `json:"seed"`
	Claims     []claimVector `json:"claims"`
	Digest     string        `json:"event_digest"`
}

type claimVector struct {
	Pointer    string `json:"pointer"`
	Value      string `json:"value"`
	Salt       string `json:"salt"`
	Commitment string `json:"commitment"`
}

// refusedVector is an event as a client sends it that is refused.
type refusedVector struct {
	Name    string `json:"name"`
	Input   string `json:"input"`
	Pointer string `json:"pointer"` // to the first problem
}

// disclosureVector is a disclosure that is accepted or, without an entry, refused.
type disclosureVector struct {
	Name       string   `json:"name"`
	Disclosure string   `json:"disclosure"`
	Withheld   []string `json:"withheld,omitempty"`
	Entry      string   `json:"entry,omitempty"`
	LeafHash   string   `json:"leaf_hash,omitempty"`
}

// logVector is a log from its key to its proofs.
type logVector struct {
	MasterSeed  string              `json:"master_seed"`
	Origin      string              `json:"origin"`
	Generation  uint32              `json:"generation"`
	KeySeed     string              `json:"ed25519_seed"`
	PublicKey   string              `json:"ed25519_public_key"`
	VerifierKey string              `json:"verifier_key"`
	LogID       string              `json:"log_id"`
	Genesis     string              `json:"genesis"`
	Entries     []entryVector       `json:"entries"`
	Checkpoints []checkpointVector  `json:"checkpoints"`
	Inclusion   []inclusionVector   `json:"inclusion"`
	Consistency []consistencyVector `json:"consistency"`
}

type entryVector struct {
	Event      string `json:"event"`
	Seed       string `json:"seed"`
	ReceivedAt string `json:"received_at"`
	Micros     int64  `json:"received_at_us"`
	Digest     string `json:"event_digest"`
	Previous   string `json:"previous"`
	Entry      string `json:"entry"`
	LeafHash   string `json:"leaf_hash"`
}

type checkpointVector struct {
	Size uint64 `json:"size"`
	Root string `json:"root"`
	Text string `json:"text"`
	Note string `json:"note"`
}

type inclusionVector struct {
	Index  uint64   `json:"index"`
	Size   uint64   `json:"size"`
	Hashes []string `json:"hashes"`
}

type consistencyVector struct {
	From   uint64   `json:"from"`
	To     uint64   `json:"to"`
	Hashes []string `json:"hashes"`
}

// proofVector is a proof file and what verifying it comes to.
type proofVector struct {
	Name     string   `json:"name"`
	Keys     []string `json:"verifier_keys"`
	Proof    string   `json:"proof"`
	Result   string   `json:"result"`            // "VALID", "not verifiable" or "INVALID"
	Reasons  []string `json:"reasons,omitempty"` // of "not verifiable": "not pinned", "not shown", "unknown version"
	Withheld []string `json:"withheld,omitempty"`
	LeafHash string   `json:"leaf_hash,omitempty"`
}

func TestVectors(t *testing.T) {
	files := map[string]vectorFile{
		"minimal.json": {
			Description: "The smallest event that a client can send. Its id and credential come from the server.",
			Events:      []eventVector{vector(t, "minimal", credential, `{"action":"user.login"}`)},
		},
		"full.json": {
			Description: "An event with every member, in an order and with white space that its canonical form doesn't have.",
			Events:      []eventVector{vector(t, "full", credential, fullEvent)},
		},
		"flat-nested.json": {
			Description: "Spellings that clients may use, each list of them for one event.",
			Events: []eventVector{
				vector(t, "flat and nested", "", `{"id":"evt-1","action":"user.update","actor_id":"u1","actor_type":"user","actor_name":"Ann",
 "actor_email":"ann@example.com","target_id":"d1","target_type":"doc","target_name":"Plan","ip":"192.0.2.1","user_agent":"curl/8"}`,
					`{"id":"evt-1","action":"user.update","actor":{"id":"u1","type":"user","name":"Ann","email":"ann@example.com"},
 "targets":[{"id":"d1","type":"doc","name":"Plan"}],"context":{"ip":"192.0.2.1","user_agent":"curl/8"}}`),
				vector(t, "what is empty is left out", "", `{"id":"evt-2","action":"a"}`,
					`{"id":"evt-2","action":"a","actor":null,"targets":[],"context":{"ip":"","location":null},"outcome":"","changes":[],"metadata":{}}`,
					`{"id":"evt-2","action":"a","actor":{},"occurred_at":null,"actor_name":"","targets":null,"metadata":null}`),
				vector(t, "what is empty stays in metadata, before and after", "",
					`{"id":"evt-3","action":"a","changes":[{"field":"f","before":null,"after":""}],"metadata":{"a":null,"b":"","c":[],"d":{}}}`),
				vector(t, "times", "", `{"id":"evt-4","action":"a","occurred_at":"2026-01-01T01:30:00.9999999+02:00"}`,
					`{"id":"evt-4","action":"a","occurred_at":"2025-12-31t23:30:00.999999z"}`),
				vector(t, "IPv4", "", `{"id":"evt-5","action":"a","ip":"203.0.113.9"}`, `{"id":"evt-5","action":"a","ip":"::ffff:203.0.113.9"}`,
					`{"id":"evt-5","action":"a","ip":"::FFFF:cb00:7109"}`),
				vector(t, "IPv6", "", `{"id":"evt-6","action":"a","ip":"2001:DB8:0:0:1:0:0:1"}`, `{"id":"evt-6","action":"a","ip":"2001:db8::1:0:0:1"}`),
			},
		},
		"unicode.json": {
			Description: "Names outside ASCII: members are sorted by UTF-16 code units, pointers by bytes. No normalisation of Unicode.",
			Events: []eventVector{
				vector(t, "order", "", `{"id":"evt-1","action":"a","metadata":{"\u20ac":"Euro","\r":"CR","\ufb33":"dalet","1":"one","\ud83d\ude00":"smile",
 "\u0080":"control","\u00f6":"o umlaut"}}`,
					"{\"id\":\"evt-1\",\"action\":\"a\",\"metadata\":{\"€\":\"Euro\",\"\\r\":\"CR\",\"\ufb33\":\"dalet\",\"1\":\"one\",\"😀\":\"smile\",\"\u0080\":\"control\",\"ö\":\"o umlaut\"}}"),
				vector(t, "composed and decomposed differ", "", `{"id":"evt-2","action":"a","metadata":{"e\u0301":1,"\u00e9":2}}`),
				vector(t, "escapes in strings", "", `{"id":"evt-3","action":"a","metadata":{"s":"\u0001\u0008\u0009\u000a\u000b\u000c\u000d\u001f\u0020\u0022\u002f\u005c\u007f\u2028\ud834\udd1e\uffff<>&"}}`),
				vector(t, "astral characters inside values", "", `{"id":"evt-4","action":"a","actor":{"id":"\ud800\udc00"},"metadata":{"o":{"\uffff":1,"\ud800\udc00":2,"\udbff\udfff":[{"\u007f":3,"~":4}]}}}`),
			},
			Refused: refused(t,
				"lone high surrogate", `{"id":"e","action":"a","metadata":{"k":"\ud800"}}`,
				"lone low surrogate", `{"id":"e","action":"a","metadata":{"k":"\udc00"}}`,
				"surrogates exchanged", `{"id":"e","action":"a","metadata":{"k":"\udc00\ud800"}}`,
				"U+0000", `{"id":"e","action":"a","metadata":{"k":"\u0000"}}`,
				"U+0000 in a name", `{"id":"e","action":"a","metadata":{"\u0000":1}}`,
				"one name, spelled in two ways", `{"id":"e","action":"a","metadata":{"k":1,"\u006b":2}}`,
				"one name twice, deep inside", `{"id":"e","action":"a","metadata":{"k":[{"x":1,"x":1}]}}`,
			),
		},
		"pointer-escaping.json": {
			Description: "Names that need escaping in a JSON Pointer, or look as if they did.",
			Events: []eventVector{
				vector(t, "escapes", "", `{"id":"evt-1","action":"a","metadata":{"a/b":1,"m~n":2,"~1":3,"~0":4,"~":5,"/":6,"~01":7,"%2F":8,"~~//":9," ":10,"\"":11,"\\":12,"\n":13,"é/~":14,"0":15}}`),
				vector(t, "the longest name", "", `{"id":"evt-2","action":"a","metadata":{"`+strings.Repeat("~", 64)+`":1}}`),
				vector(t, "order of pointers", "", `{"id":"evt-3","action":"a","metadata":{"a":1,"a.b":2,"a/b":3,"a~b":4,"ab":5,"A":6},"targets":[`+
					strings.Repeat(`{"id":"t"},`, 11)+`{"id":"t","type":"u"}]}`),
			},
			Refused: refused(t,
				"empty name", `{"id":"e","action":"a","metadata":{"":1}}`,
				"name of 65 bytes", `{"id":"e","action":"a","metadata":{"`+strings.Repeat("n", 65)+`":1}}`,
				"name of 33 characters and 66 bytes", `{"id":"e","action":"a","metadata":{"`+strings.Repeat("é", 33)+`":1}}`,
			),
		},
		"numbers.json": {
			Description: "Numbers that are taken, in a spelling of the client's and in canonical form, and numbers that are refused.",
			Events:      []eventVector{vector(t, "accepted", "", metadata("evt-1", acceptedNumbers))},
			Refused:     refusedNumbers(t),
		},
		"limits.json":   limitVectors(t),
		"withheld.json": disclosureVectors(t),
		"log-3.json":    {Description: "A log of three entries: key, entries, roots, checkpoints of each size, and all proofs.", Log: vectorLog(t)},
		"hub.json": {Description: "A hub of six entries of two logs, what proves that one of them grew, and hub proofs with what verifying them comes to.",
			Hub: hubVectors(t)},
		"proof-files.json": {Description: "Proof files, the verifier keys that are pinned, and what verifying them comes to.", Proofs: proofVectors(t)},
	}
	dir := filepath.Join("testdata", "vectors")
	found, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if _, ok := files[filepath.Base(path)]; !ok && filepath.Base(path) != witnessedVectors {
			t.Errorf("%s is checked by no test", path)
		}
	}
	for name, file := range files {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(file); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s is not what the code makes; it has %d bytes, the code %d. Proofs already given out depend on these bytes",
				path, len(got), want.Len())
		}
	}
}

const credential = "k7Qm2XbT9rLa"

const fullEvent = `{
  "id": "order-4711:approved",
  "action": "order.approve",
  "occurred_at": "2026-03-04T05:06:07.891234567+01:00",
  "actor": {"id": "user_123", "type": "user", "name": "Zoë \"Z\" Ångström", "email": "zoe@example.com"},
  "targets": [
    {"id": "order_4711", "type": "order", "name": "4711"},
    {"id": "customer_9", "type": "customer"},
    {"id": "warehouse"}
  ],
  "context": {
    "ip": "2001:0db8::0001", "user_agent": "Mozilla/5.0 (X11; Linux x86_64)", "location": "Zürich, CH",
    "session_id": "s-1", "request_id": "r-1", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
  },
  "outcome": "success",
  "changes": [
    {"field": "state", "before": "open", "after": "approved"},
    {"field": "approvers", "before": null, "after": ["user_123", {"role": "lead", "level": 2}]},
    {"field": "note"}
  ],
  "metadata": {"amount": 1250.50, "currency": "CHF", "tags": ["a", "b", []], "nested": {"z": {}, "a": [1, -0.0, 1e2]}, "none": null, "flag": false}
}`

// vector parses all inputs, which must come to one event, and hashes it.
func vector(t *testing.T, name, credential string, inputs ...string) eventVector {
	t.Helper()
	opt := options
	opt.Credential = credential
	v := eventVector{Name: name, Inputs: inputs, Credential: credential}
	// The seed is random in real life. Here it is the hash of the name.
	seed := [32]byte(plainHash(name))
	v.Seed = hex.EncodeToString(seed[:])
	for _, input := range inputs {
		e, err := log.ParseEvent([]byte(input), opt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if v.Canonical != "" && v.Canonical != string(e.JSON()) {
			t.Fatalf("%s: got %s and %s for one event", name, v.Canonical, e.JSON())
		}
		if e.ServerID() {
			v.ID = e.ID()
		}
		v.Canonical = string(e.JSON())
	}
	e, err := log.ParseStored([]byte(v.Canonical))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, c := range e.Claims() {
		salt := log.Salt(&seed, c.Pointer)
		commitment := log.Commitment(&salt, c.Pointer, c.Value)
		v.Claims = append(v.Claims, claimVector{c.Pointer, string(c.Value), hex.EncodeToString(salt[:]), hex.EncodeToString(commitment[:])})
	}
	digest := e.Digest(&seed)
	v.Digest = hex.EncodeToString(digest[:])
	return v
}

// refused takes names and inputs by turns.
func refused(t *testing.T, cases ...string) []refusedVector {
	t.Helper()
	var out []refusedVector
	for i := 0; i < len(cases); i += 2 {
		_, err := log.ParseEvent([]byte(cases[i+1]), options)
		invalid, ok := errors.AsType[*log.InvalidError](err)
		if !ok {
			t.Fatalf("%s: got error %v, want an InvalidError", cases[i], err)
		}
		out = append(out, refusedVector{cases[i], cases[i+1], invalid.Problems[0].Pointer})
	}
	return out
}

var acceptedNumbers = []string{
	"0", "-0", "-0.0", "0e5", "0e999999", "1", "-1", "1.0", "1.50", "1e2", "1E+2", "-1.5E+3", "100e-2", "0.1", "0.30000000000000004",
	"4.35", "123456789012345680000", "100000000000000000000", "999999999999999900000", "1e20", "1e21", "1e22", "1.2e21", "1e23",
	"0.000001", "0.0000001", "1e-7", "0.00000123", "9007199254740991", "-9007199254740991", "9007199254740992", "9007199254740994",
	"5e-324", "1.7976931348623157e308", "2.2250738585072014e-308", "333333333.3333333", "1e-323",
}

var refusedNumberList = []string{
	"9007199254740993", "-9007199254740993", "12345678901234.5678", "1e400", "-1e400", "1e309", "1.7976931348623159e308", "1e-400",
	"4.9e-324", "0.1000000000000000055511151231257827", "123456789012345678", "3.14159265358979323846", "1e999999999999",
	"01", "+1", "1.", ".1", "1e", "0x10", "NaN", "Infinity", "-",
}

// metadata returns an event with the numbers as members of metadata.
func metadata(id string, numbers []string) string {
	var members []string
	for i, n := range numbers {
		members = append(members, fmt.Sprintf(`"n%02d":%s`, i, n))
	}
	return `{"id":"` + id + `","action":"a","metadata":{` + strings.Join(members, ",") + `}}`
}

func refusedNumbers(t *testing.T) []refusedVector {
	t.Helper()
	var cases []string
	for _, n := range refusedNumberList {
		cases = append(cases, n, metadata("e", []string{n}))
	}
	return refused(t, cases...)
}

// limitVectors are events at the limits, and just beyond.
func limitVectors(t *testing.T) vectorFile {
	t.Helper()
	n := strings.Repeat
	nested := func(depth int) string { return n("[", depth) + n("]", depth) }
	list := func(count int, element string) string {
		return "[" + strings.TrimSuffix(n(element+",", count), ",") + "]"
	}
	numbered := func(count int) string {
		var members []string
		for i := range count {
			members = append(members, fmt.Sprintf(`"m%d":%d`, i, i))
		}
		return strings.Join(members, ",")
	}
	event := func(members string) string { return `{"id":"e","action":"a",` + members + `}` }
	return vectorFile{
		Description: "Events at the limits of what is taken, and events that break one rule each.",
		Events: []eventVector{
			vector(t, "longest id and action", "", `{"id":"`+n("i", 128)+`","action":"`+n("a:/._-", 21)+`ab"}`),
			vector(t, "longest strings", "", event(`"actor":{"id":"`+n("é", 256)+`","type":"`+n("t", 128)+`","name":"`+n("n", 512)+`","email":"`+n("e", 320)+`"},
 "context":{"user_agent":"`+n("u", 2048)+`","location":"`+n("l", 256)+`","traceparent":"`+n("t", 64)+`"}`)),
			vector(t, "20 targets", "", event(`"targets":`+list(20, `{"id":"t","type":"","name":null}`))),
			vector(t, "50 changes", "", event(`"changes":`+list(50, `{"field":"f"}`))),
			vector(t, "64 members of metadata", "", event(`"metadata":{`+numbered(64)+`}`)),
			vector(t, "depth 16", "", event(`"metadata":{"k":`+nested(15)+`},"changes":[{"field":"f","before":`+nested(16)+`}]`)),
			vector(t, "times at the ends of the calendar", "", event(`"occurred_at":"0000-01-01T00:00:00Z"`), event(`"occurred_at":"0000-01-01T01:00:00+01:00"`)),
			vector(t, "a leap day", "", event(`"occurred_at":"2000-02-29T23:59:59.5-00:00"`)),
		},
		Refused: refused(t,
			"not an object", `[]`,
			"nothing", ``,
			"data behind it", `{"id":"e","action":"a"} {}`,
			"no action", `{"id":"e"}`,
			"action empty", `{"id":"e","action":""}`,
			"action of 129 bytes", `{"action":"`+n("a", 129)+`"}`,
			"action with a space", `{"action":"a b"}`,
			"action of the server", `{"action":"treeline.log.created"}`,
			"id empty", `{"id":"","action":"a"}`,
			"id that begins with a dot", `{"id":".e","action":"a"}`,
			"id of 129 bytes", `{"id":"`+n("i", 129)+`","action":"a"}`,
			"unknown member", event(`"extra":1`),
			"name in another case", event(`"Outcome":"success"`),
			"member twice", event(`"id":"e"`),
			"credential", event(`"credential":"k7Qm2XbT9rLa"`),
			"flat and nested actor", event(`"actor_id":"a","actor":{"id":"a"}`),
			"flat and nested target", event(`"target_id":"a","targets":[{"id":"a"}]`),
			"flat and nested ip", event(`"ip":"192.0.2.1","context":{"ip":"192.0.2.1"}`),
			"actor without id", event(`"actor":{"name":"n"}`),
			"flat actor without id", event(`"actor_name":"n"`),
			"target without id", event(`"targets":[{"name":"n"}]`),
			"empty target", event(`"targets":[{}]`),
			"change without field", event(`"changes":[{"before":1}]`),
			"unknown member of the actor", event(`"actor":{"id":"a","role":"r"}`),
			"number for a string", event(`"outcome":1`),
			"string for an object", event(`"actor":"a"`),
			"object for an array", event(`"targets":{"id":"t"}`),
			"unknown outcome", event(`"outcome":"Success"`),
			"actor id of 513 bytes", event(`"actor_id":"`+n("a", 513)+`"`),
			"type of 129 bytes", event(`"target_id":"t","target_type":"`+n("a", 129)+`"`),
			"email of 321 bytes", event(`"actor_id":"t","actor_email":"`+n("a", 321)+`"`),
			"field of 257 bytes", event(`"changes":[{"field":"`+n("f", 257)+`"}]`),
			"21 targets", event(`"targets":`+list(21, `{"id":"t"}`)),
			"51 changes", event(`"changes":`+list(51, `{"field":"f"}`)),
			"65 members of metadata", event(`"metadata":{`+numbered(65)+`}`),
			"metadata of depth 17", event(`"metadata":{"k":`+nested(16)+`}`),
			"before of depth 17", event(`"changes":[{"field":"f","before":`+nested(17)+`}]`),
			"IPv6 with a zone", event(`"ip":"fe80::1%eth0"`),
			"IPv4 with leading zeros", event(`"ip":"192.0.02.1"`),
			"IPv4 with a port", event(`"ip":"192.0.2.1:80"`),
			"time without offset", event(`"occurred_at":"2026-01-01T00:00:00"`),
			"time with a space", event(`"occurred_at":"2026-01-01 00:00:00Z"`),
			"leap second", event(`"occurred_at":"2016-12-31T23:59:60Z"`),
			"a day that isn't", event(`"occurred_at":"2026-02-29T00:00:00Z"`),
			"a time before the year 0", event(`"occurred_at":"0000-01-01T00:00:00+00:01"`),
			"over 24,576 bytes", event(`"metadata":{"k":"`+n("x", 24_600)+`"}`),
		),
	}
}

// disclosureVectors shows one event in all forms, and spoils them.
func disclosureVectors(t *testing.T) vectorFile {
	t.Helper()
	event := vector(t, "withheld", credential, curlEvent)
	seed, err := hex.DecodeString(event.Seed)
	if err != nil {
		t.Fatal(err)
	}
	e, err := log.ParseStored([]byte(event.Canonical))
	if err != nil {
		t.Fatal(err)
	}
	whole := disclose(e, [32]byte(seed))
	entry := whole.Entry()
	digest := &log.Disclosure{ReceivedAt: entry.ReceivedAt, Previous: entry.Previous, Digest: &entry.Digest}
	one := mustWithhold(t, whole, "/actor/email")
	var all []string
	for _, c := range e.Claims() {
		all = append(all, c.Pointer)
	}
	file := vectorFile{
		Description: "One event, disclosed in every form: all of these are of one entry. Those without an entry are refused.",
		Events:      []eventVector{event},
	}
	for _, d := range []struct {
		name string
		d    *log.Disclosure
	}{
		{"event form", whole},
		{"claims form, all opened", mustWithhold(t, whole)},
		{"claims form, one withheld", one},
		{"claims form, id and action withheld", mustWithhold(t, whole, "/id", "/action")},
		{"claims form, all withheld", mustWithhold(t, whole, all...)},
		{"digest form", digest},
	} {
		file.Disclosures = append(file.Disclosures, disclosureVector{d.name, mustMarshal(t, d.d), withheld(d.d),
			hex.EncodeToString(d.d.Entry().Append(nil)), d.d.Entry().LeafHash().String()})
	}
	text := mustMarshal(t, one)
	shown, hidden := mustMarshal(t, whole), fmt.Sprintf(`{"commitment":"%x","pointer":"/actor/email"}`, one.Claims[1].Commitment)
	if !strings.Contains(text, hidden) {
		t.Fatalf("%s is not in %s", hidden, text)
	}
	for _, c := range []struct{ name, in, old, new string }{
		{"a claim twice", text, hidden, hidden + "," + hidden},
		{"a bare pointer", text, `"/actor/email"`, `"/actor"`},
		{"an unsorted pointer", text, `"/actor/email"`, `"/targets/0/name"`},
		{"an index with a zero before it", text, `"/targets/0/type"`, `"/targets/00/type"`},
		{"a gap in the indices", text, `"/targets/0/type"`, `"/targets/2/id"`},
		{"a pointer escaped where it needn't be", text, `"/metadata/new_role"`, `"/metadata/new~role"`},
		{"no id", text, `"pointer":"/id"`, `"pointer":"/metadata/id"`},
		{"commitment and value", text, hidden, `{"commitment"` + hidden[len(`{"commitment"`):len(hidden)-1] + `,"value":"x"}`},
		{"a value that is not canonical", text, `"editor"`, `"edit\u006fr"`},
		{"a value that can't be there", text, `"user_456"`, `""`},
		{"an unknown member", text, `"received_at"`, `"reason":"x","received_at"`},
		{"upper-case hex", text, `"previous_hash":"07`, `"previous_hash":"0A`},
		{"a short salt", text, text[strings.Index(text, `"salt":"`):][:10], `"salt":"`},
		{"milliseconds", text, `.123456Z`, `.123Z`},
		{"an offset", text, `.123456Z`, `.123456+00:00`},
		{"two forms", shown, `{"event"`, `{"digest":"` + strings.Repeat("00", 32) + `","event"`},
		{"no seed", shown, `,"seed":"` + event.Seed + `"`, ``},
		{"a seed of 31 bytes", shown, `"seed":"` + event.Seed[:2], `"seed":"`},
		{"white space", shown, `{"event":`, `{"event": `},
		{"other order", shown, `{"event":` + event.Canonical + `,"previous_hash":"07` + zeros(31) + `"`,
			`{"previous_hash":"07` + zeros(31) + `","event":` + event.Canonical},
	} {
		changed := strings.Replace(c.in, c.old, c.new, 1)
		if changed == c.in {
			t.Fatalf("%s: %q is not in %s", c.name, c.old, c.in)
		}
		if _, err := log.ParseDisclosure([]byte(changed)); err == nil {
			t.Errorf("%s: accepted %s", c.name, changed)
		}
		file.Disclosures = append(file.Disclosures, disclosureVector{Name: c.name, Disclosure: changed})
	}
	return file
}

// vectorSeed is the master seed of the vectors' keys.
var vectorSeed = func() (s checkpoint.Seed) {
	for i := range s {
		s[i] = byte(i)
	}
	return s
}()

// threeEvents returns a log of three entries, and its signer.
func threeEvents(t *testing.T) (*plainLog, note.Signer, string) {
	t.Helper()
	signer, vkey, err := vectorSeed.Ed25519(testOrigin, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := &plainLog{origin: testOrigin}
	for i, input := range []string{
		`{"id":"evt-0","action":"user.login","actor_id":"user_1","outcome":"success"}`,
		`{"id":"evt-1","action":"user.permission.updated","actor_id":"user_1","actor_email":"admin@example.com",` +
			`"target_id":"user_2","target_type":"user","metadata":{"new_role":"editor","old_role":"viewer"}}`,
		`{"id":"evt-2","action":"user.logout","actor_id":"user_1"}`,
	} {
		seed := [32]byte(plainHash("seed of event ", fmt.Sprint(i)))
		l.append(&log.Disclosure{ReceivedAt: 1780315200_000000 + int64(i)*1_500_001, Event: mustParse(t, input), Seed: &seed})
	}
	return l, signer, vkey
}

func vectorLog(t *testing.T) *logVector {
	t.Helper()
	l, signer, vkey := threeEvents(t)
	keySeed := vectorSeed.Derive("treeline/key/ed25519/v1\n" + testOrigin + "\x00\x00\x00\x00")
	logID := checkpoint.LogID(vkey)
	v := &logVector{
		MasterSeed: hex.EncodeToString(vectorSeed[:]), Origin: testOrigin, VerifierKey: vkey,
		KeySeed: hex.EncodeToString(keySeed[:]), LogID: hex.EncodeToString(logID[:]), Genesis: log.Genesis(testOrigin).String(),
		PublicKey: hex.EncodeToString(publicKey(t, vkey)),
	}
	hexes := func(hashes []merkle.Hash) []string {
		out := []string{}
		for _, h := range hashes {
			out = append(out, h.String())
		}
		return out
	}
	for _, d := range l.disclosures {
		e := d.Entry()
		text := mustMarshal(t, d)
		at := text[strings.Index(text, `"received_at":"`)+len(`"received_at":"`):]
		v.Entries = append(v.Entries, entryVector{
			Event: string(d.Event.JSON()), Seed: hex.EncodeToString(d.Seed[:]), ReceivedAt: at[:strings.IndexByte(at, '"')],
			Micros: d.ReceivedAt, Digest: hex.EncodeToString(e.Digest[:]), Previous: e.Previous.String(),
			Entry: hex.EncodeToString(e.Append(nil)), LeafHash: e.LeafHash().String(),
		})
	}
	for size := range uint64(4) {
		c := checkpoint.Checkpoint{Origin: testOrigin, Size: size, Root: l.root(int(size))}
		msg, err := checkpoint.Sign(c, signer)
		if err != nil {
			t.Fatal(err)
		}
		v.Checkpoints = append(v.Checkpoints, checkpointVector{size, c.Root.String(), c.Text(), string(msg)})
		for i := range size {
			hashes, err := merkle.InclusionProof(context.Background(), i, size, l)
			if err != nil {
				t.Fatal(err)
			}
			v.Inclusion = append(v.Inclusion, inclusionVector{i, size, hexes(hashes)})
		}
		for from := range size + 1 {
			hashes, err := merkle.ConsistencyProof(context.Background(), from, size, l)
			if err != nil {
				t.Fatal(err)
			}
			v.Consistency = append(v.Consistency, consistencyVector{from, size, hexes(hashes)})
		}
	}
	return v
}

// publicKey returns the Ed25519 public key in a verifier key.
func publicKey(t *testing.T, vkey string) []byte {
	t.Helper()
	_, rest, _ := strings.Cut(vkey, "+")
	_, key, _ := strings.Cut(rest, "+")
	raw := decode64(t, key)
	return raw[1:]
}

// proofVectors are proofs in the log of threeEvents.
func proofVectors(t *testing.T) []proofVector {
	t.Helper()
	l, signer, vkey := threeEvents(t)
	next, nextKey, err := vectorSeed.Ed25519(testOrigin, 1)
	if err != nil {
		t.Fatal(err)
	}
	witness, witnessKey, err := vectorSeed.Ed25519("witness.example/logs/other", 0)
	if err != nil {
		t.Fatal(err)
	}
	whole := []byte(mustMarshal(t, l.disclosures[1]))
	partly := []byte(mustMarshal(t, mustWithhold(t, l.disclosures[1], "/actor/email", "/id")))
	entry := l.disclosures[1].Entry()
	digest := []byte(mustMarshal(t, &log.Disclosure{ReceivedAt: entry.ReceivedAt, Previous: entry.Previous, Digest: &entry.Digest}))
	valid := string(l.proof(t, 1, 3, whole, signer))
	signature := signatureOf(t, []byte(valid), 0)
	change := func(old, new string) string {
		t.Helper()
		changed := strings.Replace(valid, old, new, 1)
		if changed == valid {
			t.Fatalf("%q is not in %s", old, valid)
		}
		return changed
	}
	var out []proofVector
	for _, p := range []struct {
		name, proof string
		keys        []string
	}{
		{"index 1 of 3", valid, []string{vkey}},
		{"index 0 of 1", string(l.proof(t, 0, 1, []byte(mustMarshal(t, l.disclosures[0])), signer)), []string{vkey}},
		{"index 2 of 3", string(l.proof(t, 2, 3, []byte(mustMarshal(t, l.disclosures[2])), signer)), []string{vkey}},
		{"two claims withheld", string(l.proof(t, 1, 3, partly, signer)), []string{vkey}},
		{"two signatures, the first pinned", string(l.proof(t, 1, 3, whole, signer, next)), []string{vkey}},
		{"two signatures, the second pinned", string(l.proof(t, 1, 3, whole, signer, next)), []string{nextKey}},
		{"two signatures, both pinned", string(l.proof(t, 1, 3, whole, witness, signer)), []string{vkey, witnessKey}},
		{"no key pinned", valid, []string{}},
		{"another key pinned", valid, []string{nextKey}},
		{"only a key of another name pinned", string(l.proof(t, 1, 3, whole, witness, signer)), []string{witnessKey}},
		{"digest form", string(l.proof(t, 1, 3, digest, signer)), []string{vkey}},
		{"digest form, no key pinned", string(l.proof(t, 1, 3, digest, signer)), []string{}},
		{"no disclosure", string(l.proof(t, 1, 3, nil, signer)), []string{vkey}},
		{"entry of another version", string(l.proof(t, 1, 3, append([]byte{2}, make([]byte, 72)...), signer)), []string{vkey}},
		{"entry of this version without a disclosure", string(l.proof(t, 1, 3, entry.Append(nil), signer)), []string{vkey}},
		{"disclosure of another entry", string(l.proof(t, 0, 3, whole, signer)), []string{vkey}},
		{"disclosure of another entry, no key pinned", string(l.proof(t, 0, 3, whole, signer)), []string{}},
		{"another index", change("index 1\n", "index 0\n"), []string{vkey}},
		{"index beyond the size", change("index 1\n", "index 3\n"), []string{vkey}},
		{"index with a zero before it", change("index 1\n", "index 01\n"), []string{vkey}},
		{"another size", change("\n3\n", "\n4\n"), []string{vkey}},
		{"carriage returns", strings.ReplaceAll(valid, "\n", "\r\n"), []string{vkey}},
		{"no newline at the end", strings.TrimSuffix(valid, "\n"), []string{vkey}},
		{"a newline more at the end", valid + "\n", []string{vkey}},
		{"a signature line twice", valid + valid[strings.LastIndex(valid, "—"):], []string{vkey}},
		{"a signature that fails", change(signature, forgedSignature(signer)), []string{vkey}},
		{"a signature that fails, its key not pinned", change(signature, forgedSignature(signer)), []string{}},
		{"unused bits set in base64", change(signature, unusedBits(t, signature)), []string{vkey}},
		{"an extension line", change("\n\n— ", "\nextension\n\n— "), []string{vkey}},
	} {
		v := proofVector{Name: p.name, Keys: p.keys, Proof: p.proof}
		var verifiers []note.Verifier
		for _, k := range p.keys {
			verifier, err := note.NewVerifier(k)
			if err != nil {
				t.Fatal(err)
			}
			verifiers = append(verifiers, verifier)
		}
		got, err := log.VerifyProof([]byte(p.proof), log.Trust{Keys: verifiers})
		switch {
		case err == nil:
			v.Result = "VALID"
		case errors.Is(err, log.ErrNotVerifiable):
			v.Result = "not verifiable"
		default:
			v.Result = "INVALID"
		}
		if got != nil {
			v.Withheld = got.Withheld()
			if got.Disclosure != nil {
				v.LeafHash = got.Leaf.String()
			}
			for _, r := range []struct {
				err  error
				name string
			}{{log.ErrNotPinned, "not pinned"}, {log.ErrNotShown, "not shown"}, {log.ErrUnknownVersion, "unknown version"}} {
				if errors.Is(err, r.err) {
					v.Reasons = append(v.Reasons, r.name)
				}
			}
		}
		if slices.ContainsFunc(out, func(o proofVector) bool { return o.Name == v.Name }) {
			t.Fatalf("two vectors are named %q", v.Name)
		}
		out = append(out, v)
	}
	return out
}

// unusedBits returns a second base64 text for the same bytes.
func unusedBits(t *testing.T, s string) string {
	t.Helper()
	b := []byte(s)
	b[len(b)-2]++
	if !bytes.Equal(decode64(t, string(b)), decode64(t, s)) {
		t.Fatalf("%s and %s are not the same bytes", b, s)
	}
	return string(b)
}
