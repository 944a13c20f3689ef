package log_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// quote returns s as a JSON string in canonical form.
func quote(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err)
	}
	// encoding/json escapes two characters that RFC 8785 doesn't.
	return strings.NewReplacer(`\u2028`, "\u2028", `\u2029`, "\u2029").Replace(strings.TrimSuffix(b.String(), "\n"))
}

// disclose returns the event form for e.
func disclose(e *log.Event, seed [32]byte) *log.Disclosure {
	return &log.Disclosure{ReceivedAt: 1780315200_123456, Previous: merkle.Hash{7}, Event: e, Seed: &seed}
}

func mustMarshal(t rapid.TB, d *log.Disclosure) string {
	t.Helper()
	data, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustWithhold(t rapid.TB, d *log.Disclosure, pointers ...string) *log.Disclosure {
	t.Helper()
	out, err := d.Withhold(pointers...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDisclosureForms(t *testing.T) {
	seed := [32]byte{1}
	whole := disclose(mustParse(t, `{"action":"a","id":"i","metadata":{"k":null}}`), seed)
	entry := whole.Entry()
	salt := func(pointer string) string { return hex.EncodeToString(plainSalt(seed[:], pointer)) }
	place := `"previous_hash":"07` + zeros(31) + `","received_at":"2026-06-01T12:00:00.123456Z"`
	for _, tt := range []struct {
		name string
		d    *log.Disclosure
		want string
	}{
		{"event", whole,
			`{"event":{"action":"a","credential":"0123456789ab","id":"i","metadata":{"k":null}},` + place +
				`,"seed":"01` + zeros(31) + `"}`},
		{"claims", mustWithhold(t, whole, "/credential", "/id"),
			`{"claims":[{"pointer":"/action","salt":"` + salt("/action") + `","value":"a"},` +
				`{"commitment":"` + hex.EncodeToString(plainCommitment(plainSalt(seed[:], "/credential"), "/credential", `"0123456789ab"`)) +
				`","pointer":"/credential"},` +
				`{"commitment":"` + hex.EncodeToString(plainCommitment(plainSalt(seed[:], "/id"), "/id", `"i"`)) + `","pointer":"/id"},` +
				`{"pointer":"/metadata/k","salt":"` + salt("/metadata/k") + `","value":null}],` + place + `}`},
		{"digest", &log.Disclosure{ReceivedAt: whole.ReceivedAt, Previous: whole.Previous, Digest: &entry.Digest},
			`{"digest":"` + hex.EncodeToString(entry.Digest[:]) + `",` + place + `}`},
	} {
		if got := mustMarshal(t, tt.d); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
		got, err := log.ParseDisclosure([]byte(tt.want))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		} else if got.Entry() != entry {
			t.Errorf("%s: got entry %+v, want %+v", tt.name, got.Entry(), entry)
		}
	}
}

func TestWithhold(t *testing.T) {
	d := disclose(mustParse(t, curlEvent), [32]byte{1})
	first := mustWithhold(t, d, "/actor/email", "/actor/email")
	second := mustWithhold(t, first, "/id", "/actor/email")
	if got := first.Entry(); got != d.Entry() {
		t.Errorf("withholding changed the entry to %+v", got)
	}
	if got := second.Entry(); got != d.Entry() {
		t.Errorf("withholding more changed the entry to %+v", got)
	}
	if strings.Contains(mustMarshal(t, first), "admin@example.com") {
		t.Error("the value withheld is still shown")
	}
	if !strings.Contains(mustMarshal(t, first), "user_123") {
		t.Error("more is withheld than asked for")
	}
	if got := withheld(second); !slices.Equal(got, []string{"/actor/email", "/id"}) {
		t.Errorf("got %v withheld", got)
	}
	if got := withheld(first); !slices.Equal(got, []string{"/actor/email"}) {
		t.Errorf("withholding more changed the first disclosure: got %v withheld", got)
	}
	for _, pointer := range []string{"/actor", "/actor/name", "/metadata", "", "id"} {
		if _, err := d.Withhold(pointer); err == nil {
			t.Errorf("withheld %q, which the event doesn't have", pointer)
		}
	}
	if _, err := (&log.Disclosure{Digest: new([32]byte)}).Withhold(); err == nil {
		t.Error("withheld claims of a disclosure that has none")
	}
}

func withheld(d *log.Disclosure) []string {
	return (&log.Verification{Disclosure: d}).Withheld()
}

func TestMarshalRefuses(t *testing.T) {
	e, hash := mustParse(t, curlEvent), [32]byte{1}
	claims := mustWithhold(t, disclose(e, hash)).Claims
	for name, d := range map[string]*log.Disclosure{
		"no form":              {},
		"no claims":            {Claims: []log.Claim{}},
		"event without seed":   {Event: e},
		"seed without event":   {Seed: &hash},
		"seed beside claims":   {Seed: &hash, Claims: claims},
		"event and digest":     {Event: e, Seed: &hash, Digest: &hash},
		"event and claims":     {Event: e, Seed: &hash, Claims: claims},
		"time before 1970":     {ReceivedAt: -1, Digest: &hash},
		"time after 9999":      {ReceivedAt: log.MaxReceivedAt + 1, Digest: &hash},
		"claims without an id": {Claims: claims[:1]},
		"empty value":          {Claims: append(slices.Clone(claims[:len(claims)-1]), log.Claim{Pointer: "/targets/0/type", Value: []byte{}})},
	} {
		if data, err := d.Marshal(); !errors.Is(err, log.ErrDisclosure) {
			t.Errorf("%s: got %s, %v, want ErrDisclosure", name, data, err)
		}
	}
}

// TestLargestEventCanBeDisclosed makes events of many claims and of long text until they are refused, and sees that
// whatever is accepted has a disclosure with all claims opened.
func TestLargestEventCanBeDisclosed(t *testing.T) {
	accepted, refused := 0, 0
	for _, size := range []int{0, 1, 100, 200, 230, 240, 250, 260, 300, 400, 500} {
		for _, text := range []string{"x", "\"", "\u0001", "é"} {
			var members []string
			for i := range 64 {
				members = append(members, fmt.Sprintf(`"%s%02d":%s`, strings.Repeat("n", 62), i, quote(strings.Repeat(text, size))))
			}
			var targets []string
			for range 20 {
				targets = append(targets, `{"id":"x","name":"y","type":"z"}`)
			}
			var changes []string
			for range 50 {
				changes = append(changes, `{"field":"f"}`)
			}
			data := `{"action":"a","metadata":{` + strings.Join(members, ",") + `},"targets":[` + strings.Join(targets, ",") +
				`],"changes":[` + strings.Join(changes, ",") + `]}`
			e, err := log.ParseEvent([]byte(data), options)
			if err != nil {
				refused++
				continue
			}
			accepted++
			mustMarshal(t, disclose(e, [32]byte{1}))
			mustMarshal(t, mustWithhold(t, disclose(e, [32]byte{1})))
		}
	}
	if accepted == 0 || refused == 0 {
		t.Errorf("got %d events accepted and %d refused, want some of both", accepted, refused)
	}
}

// TestParseDisclosureRefusesOtherSpellings takes valid disclosures and writes the same in every other way.
func TestParseDisclosureRefusesOtherSpellings(t *testing.T) {
	whole := disclose(mustParse(t, `{"action":"a","id":"i","metadata":{"é":1,"f":[]}}`), [32]byte{0xab})
	event := mustMarshal(t, whole)
	claims := mustMarshal(t, mustWithhold(t, whole, "/action"))
	for _, tt := range []struct{ name, in, old, new string }{
		{"space before", event, `{"event"`, ` {"event"`},
		{"newline after", event, `ab` + zeros(31) + `"}`, `ab` + zeros(31) + "\"}\n"},
		{"space inside", event, `"event":{`, `"event": {`},
		{"space inside the event", event, `"id":"i"`, `"id": "i"`},
		{"other order of members", event, `"action":"a","credential":"0123456789ab"`, `"credential":"0123456789ab","action":"a"`},
		{"letter case of a member", event, `"seed"`, `"Seed"`},
		{"letter case of a claim's member", claims, `"commitment"`, `"Commitment"`},
		{"letter case inside the event", event, `"action"`, `"Action"`},
		{"a member twice", event, `"seed":`, `"seed":"` + zeros(32) + `","seed":`},
		{"a claim's member twice", claims, `"value":1`, `"value":2,"value":1`},
		{"an unknown member", event, `"seed":`, `"note":"","seed":`},
		{"an unknown member that is null", event, `,"seed":`, `,"seal":null,"seed":`},
		{"an unknown member of a claim", claims, `"pointer":"/action"`, `"pointer":"/action","reason":""`},
		{"another form that is null", event, `{"event"`, `{"claims":null,"event"`},
		{"digest that is null", event, `{"event"`, `{"digest":null,"event"`},
		{"commitment that is null", claims, `"pointer":"/id"`, `"commitment":null,"pointer":"/id"`},
		{"salt that is empty", claims, `"pointer":"/action"`, `"pointer":"/action","salt":""`},
		{"value null of a withheld claim", claims, `"pointer":"/action"`, `"pointer":"/action","value":null`},
		{"upper-case hex", event, `"seed":"ab`, `"seed":"AB`},
		{"short hex", event, `"seed":"ab00`, `"seed":"ab`},
		{"odd hex", event, `"seed":"ab0`, `"seed":"ab`},
		{"long hex", event, `"seed":"ab`, `"seed":"abab`},
		{"hex with 0x", event, `"seed":"ab`, `"seed":"0xab`},
		{"escaped letter", event, `"a"`, `"\u0061"`},
		{"escaped letter of a pointer", claims, `/metadata/é`, `/metadata/\u00e9`},
		{"escaped slash", claims, `"/id"`, `"\/id"`},
		{"escaped hex digit", event, `"seed":"a`, `"seed":"\u0061`},
		{"number", claims, `"value":1`, `"value":1.0`},
		{"number with exponent", claims, `"value":1`, `"value":1e0`},
		{"time with offset", event, `.123456Z`, `.123456+00:00`},
		{"time with a space", event, `2026-06-01T`, `2026-06-01 `},
		{"time in lower case", event, `.123456Z`, `.123456z`},
		{"time with seven digits", event, `.123456Z`, `.1234560Z`},
		{"time with five digits", event, `.123456Z`, `.12345Z`},
		{"time with a comma", event, `00.123456Z`, `00,123456Z`},
		{"time before 1970", event, `2026-06-01T12`, `1969-12-31T12`},
		{"time of a day that isn't", event, `2026-06-01`, `2026-02-29`},
		{"leap second", event, `12:00:00.`, `12:00:60.`},
		{"hour 24", event, `12:00:00.`, `24:00:00.`},
		{"time with one-digit hour", event, `T12:00`, `T2:00`},
		{"byte order mark", event, `{"event"`, "\ufeff{\"event\""},
		{"invalid UTF-8", claims, `é`, "\xe9"},
		{"replacement for invalid UTF-8", claims, `é`, "\xef\xbf"},
		{"two disclosures", event, `{"event"`, event + `{"event"`},
		{"an array", event, `{"event"`, `[{"event"`},
	} {
		in := strings.Replace(tt.in, tt.old, tt.new, 1)
		if in == tt.in {
			t.Errorf("%s: %q is not in %s", tt.name, tt.old, tt.in)
		}
		if _, err := log.ParseDisclosure([]byte(in)); !errors.Is(err, log.ErrDisclosure) {
			t.Errorf("%s: got error %v, want ErrDisclosure, for %s", tt.name, err, in)
		}
	}
	for _, in := range []string{"", "null", "{}", "[]", `""`, `{"claims":[]}`, "\x01", strings.Repeat("[", 40_000),
		strings.Repeat(" ", log.MaxDisclosure) + event} {
		if _, err := log.ParseDisclosure([]byte(in)); !errors.Is(err, log.ErrDisclosure) {
			t.Errorf("got error %v, want ErrDisclosure, for %.60q", err, in)
		}
	}
}

// story is what a disclosure tells: all pointers, and the values of those claims that are opened.
type story struct {
	pointers []string
	values   map[string]string
}

// tell returns the story of an accepted disclosure.
func tell(t rapid.TB, d *log.Disclosure) story {
	t.Helper()
	s := story{values: map[string]string{}}
	all := d
	if d.Event != nil {
		all = mustWithhold(t, d)
	}
	for _, c := range all.Claims {
		s.pointers = append(s.pointers, c.Pointer)
		if !c.Withheld() {
			s.values[c.Pointer] = string(c.Value)
		}
	}
	return s
}

// contradicts says where two stories of one event differ, "" if they don't.
func (s story) contradicts(o story) string {
	if len(s.pointers) == 0 || len(o.pointers) == 0 { // the digest alone: no story
		return ""
	}
	if !slices.Equal(s.pointers, o.pointers) {
		return fmt.Sprintf("pointers %q and %q", s.pointers, o.pointers)
	}
	for p, v := range s.values {
		if w, ok := o.values[p]; ok && v != w {
			return fmt.Sprintf("%s is %s and %s", p, v, w)
		}
	}
	return ""
}

func TestDisclosuresOfOneEventAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, seed := drawEvent(t), drawHash(t, "seed")
		whole := &log.Disclosure{ReceivedAt: rapid.Int64Range(0, log.MaxReceivedAt).Draw(t, "received_at"), Event: e, Seed: &seed}
		var pointers []string
		for _, c := range e.Claims() {
			pointers = append(pointers, c.Pointer)
		}
		cut := func(label string) []byte {
			d, err := whole.Withhold(rapid.SliceOfDistinct(rapid.SampledFrom(pointers), rapid.ID).Draw(t, label)...)
			if err != nil {
				t.Fatal(err)
			}
			data, err := d.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		one, other := cut("withheld"), cut("withheld from the other")
		if rapid.Bool().Draw(t, "event form") {
			data, err := whole.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			one = data
		}
		tamper(t, &other)
		a, err := log.ParseDisclosure(one)
		if err != nil {
			t.Fatalf("%v: %s", err, one)
		}
		b, err := log.ParseDisclosure(other)
		if err != nil || a.Entry().Digest != b.Entry().Digest {
			return
		}
		if diff := tell(t, a).contradicts(tell(t, b)); diff != "" {
			t.Fatalf("two disclosures of one event contradict each other in %s:\n%s\n%s", diff, one, other)
		}
	})
}

// tamper changes a disclosure in claims form as somebody would who wants it to say something else: claims are dropped,
// repeated, exchanged, renamed, opened to other values, or bytes changed anywhere.
func tamper(t *rapid.T, data *[]byte) {
	var d struct {
		Claims     []map[string]any `json:"claims"`
		Previous   string           `json:"previous_hash"`
		ReceivedAt string           `json:"received_at"`
	}
	if err := json.Unmarshal(*data, &d); err != nil {
		t.Fatal(err)
	}
	claim := func(label string) int { return rapid.IntRange(0, len(d.Claims)-1).Draw(t, label) }
	switch rapid.SampledFrom([]string{"nothing", "drop", "repeat", "swap", "rename", "revalue", "mix", "byte"}).Draw(t, "tamper") {
	case "nothing":
		return
	case "drop":
		i := claim("claim")
		d.Claims = slices.Delete(d.Claims, i, i+1)
	case "repeat":
		i := claim("claim")
		d.Claims = slices.Insert(d.Claims, i, d.Claims[i])
	case "swap":
		i, j := claim("claim"), claim("other claim")
		d.Claims[i], d.Claims[j] = d.Claims[j], d.Claims[i]
	case "rename":
		d.Claims[claim("claim")]["pointer"] = rapid.SampledFrom([]string{"/actor", "/actor/name", "/metadata/x", "/targets/0/name"}).Draw(t, "pointer")
	case "revalue":
		d.Claims[claim("claim")]["value"] = rapid.SampledFrom([]any{nil, "x", 1, []any{}}).Draw(t, "value")
	case "mix":
		i, j := claim("claim"), claim("other claim")
		for k, v := range d.Claims[j] {
			d.Claims[i][k] = v
		}
	case "byte":
		b := bytes.Clone(*data)
		b[rapid.IntRange(0, len(b)-1).Draw(t, "position")] = rapid.Byte().Draw(t, "byte")
		*data = b
		return
	}
	out, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if out, err = log.AppendCanonical(nil, out); err == nil {
		*data = out
	}
}

func FuzzParseDisclosure(f *testing.F) {
	whole := disclose(mustParse(f, curlEvent), [32]byte{1})
	entry := whole.Entry()
	f.Add([]byte(mustMarshal(f, whole)))
	f.Add([]byte(mustMarshal(f, mustWithhold(f, whole, "/actor/email", "/id"))))
	f.Add([]byte(mustMarshal(f, &log.Disclosure{Digest: &entry.Digest})))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := log.ParseDisclosure(data)
		if err != nil {
			if !errors.Is(err, log.ErrDisclosure) {
				t.Errorf("got error %v, want ErrDisclosure", err)
			}
			return
		}
		out, err := d.Marshal()
		if err != nil || !bytes.Equal(out, data) {
			t.Errorf("accepted %s, but writes %s, %v", data, out, err)
		}
		if d.Digest != nil {
			return
		}
		// Whatever form it has, it is cut and withheld to the same entry.
		pointers := tell(t, d).pointers
		for _, p := range [][]string{nil, pointers[:1], pointers} {
			cut := mustWithhold(t, d, p...)
			if cut.Entry() != d.Entry() {
				t.Errorf("withholding %q changed the entry", p)
			}
			if data, err := cut.Marshal(); err == nil {
				if _, err := log.ParseDisclosure(data); err != nil {
					t.Errorf("withholding %q: %v", p, err)
				}
			}
		}
	})
}
