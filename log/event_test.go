package log_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

// serverTime is the clock of the tests: 2026-11-23T09:30:00Z.
var serverTime = time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)

// clientOptions are those of a server whose ids are all "made".
func clientOptions() log.ParseOptions {
	return log.ParseOptions{Now: serverTime, NewID: func() string { return "made" }}
}

func TestNormalForm(t *testing.T) {
	for _, c := range []struct{ about, in, want string }{
		{"only action is required", `{"action":"a"}`, `{"action":"a","id":"made"}`},
		{"the client's id is kept", `{"id":"A.b_c:d-9","action":"a"}`, `{"action":"a","id":"A.b_c:d-9"}`},
		{"members' names may be spelt with escapes", `{"\u0061ction":"a\u002eb"}`, `{"action":"a.b","id":"made"}`},
		{
			"flat members move", `{"user_agent":"ua","target_name":"T","ip":"10.0.0.1","actor_type":"user","target_type":"t","actor_name":"N","actor_email":"e@x","target_id":"7","actor_id":"u","action":"a"}`,
			`{"action":"a","actor":{"email":"e@x","id":"u","name":"N","type":"user"},"context":{"ip":"10.0.0.1","user_agent":"ua"},"id":"made","targets":[{"id":"7","name":"T","type":"t"}]}`,
		},
		{
			"everything nested", `{"action":"A-z_0.9:/","outcome":"denied","occurred_at":"2026-11-23T09:30:00Z","changes":[{"field":"f","before":[1.0,null,{}],"after":null}],"context":{"traceparent":"00-1-1-00","session_id":"s","request_id":"r","location":"Wien"},"metadata":{"b":null,"a":""},"targets":[{"id":"1"},{"id":"2"}]}`,
			`{"action":"A-z_0.9:/","changes":[{"after":null,"before":[1,null,{}],"field":"f"}],"context":{"location":"Wien","request_id":"r","session_id":"s","traceparent":"00-1-1-00"},"id":"made","metadata":{"a":"","b":null},"occurred_at":"2026-11-23T09:30:00.000000Z","outcome":"denied","targets":[{"id":"1"},{"id":"2"}]}`,
		},
		{
			"empty members are left out, the innermost first", `{"action":"a","id":null,"actor":{"id":null,"name":"","email":[],"type":{}},"targets":[],"context":{"ip":null,"location":""},"outcome":null,"changes":[],"metadata":{},"occurred_at":"","ip":"","actor_id":null,"actor_name":""}`,
			`{"action":"a","id":"made"}`,
		},
		{"an empty member is left out whatever its type", `{"action":"a","actor":"","targets":{},"context":[],"changes":null,"metadata":"","outcome":{},"ip":[]}`, `{"action":"a","id":"made"}`},
		{"empty members go from targets and changes", `{"action":"a","targets":[{"id":"1","name":null,"type":""}],"changes":[{"field":"f"}]}`, `{"action":"a","changes":[{"field":"f"}],"id":"made","targets":[{"id":"1"}]}`},
		{"what is left out is not given twice", `{"action":"a","actor_id":"u","actor":{},"targets":[],"target_id":"7","ip":"::1","context":{"ip":"","location":"x"}}`, `{"action":"a","actor":{"id":"u"},"context":{"ip":"::1","location":"x"},"id":"made","targets":[{"id":"7"}]}`},
		{"nor are empty flat members", `{"action":"a","actor_id":null,"actor":{"id":"u"},"target_type":"","targets":[{"id":"7"}],"ip":null,"context":{"ip":"::1"}}`, `{"action":"a","actor":{"id":"u"},"context":{"ip":"::1"},"id":"made","targets":[{"id":"7"}]}`},
		{"flat and nested parts of the context may be mixed", `{"action":"a","ip":"::1","context":{"user_agent":"ua"}}`, `{"action":"a","context":{"ip":"::1","user_agent":"ua"},"id":"made"}`},
		{"metadata is the client's own", `{"action":"a","metadata":{"ip":"300.1","actor_id":1,"":""}}`, ``},
		{"metadata is the client's own", `{"action":"a","metadata":{"ip":"300.1","actor_id":1,"action":[]}}`, `{"action":"a","id":"made","metadata":{"action":[],"actor_id":1,"ip":"300.1"}}`},
	} {
		e, err := log.ParseEvent([]byte(c.in), clientOptions())
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: %s became %s", c.about, c.in, e.JSON())
			}
			continue
		}
		if err != nil || string(e.JSON()) != c.want {
			t.Errorf("%s: %s: %v\ngot  %s\nwant %s", c.about, c.in, err, jsonOf(e), c.want)
			continue
		}
		checkEvent(t, e)
	}
}

func jsonOf(e *log.Event) string {
	if e == nil {
		return ""
	}
	return string(e.JSON())
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"203.0.113.42": "203.0.113.42", "::ffff:203.0.113.42": "203.0.113.42", "::FFFF:cb00:712a": "203.0.113.42",
		"2001:DB8:0:0::1": "2001:db8::1", "::": "::", "0:0:0:0:0:0:1.2.3.4": "::102:304", "::1": "::1",
		"0000:0000:0000:0000:0000:ffff:255.255.255.255": "255.255.255.255",
	} {
		e, err := log.ParseEvent([]byte(`{"action":"a","context":{"ip":"`+in+`"}}`), clientOptions())
		if err != nil || string(e.Claims()[1].Value) != `"`+want+`"` {
			t.Errorf("%s: got %s, %v; want %s", in, jsonOf(e), err, want)
		}
	}
	for _, in := range []string{"fe80::1%eth0", "::ffff:1.2.3.4%1", "1.2.3", "01.2.3.4", "1.2.3.4:80", "[::1]", "host", " ::1", "1.2.3.4/32", strings.Repeat("1", 1000)} {
		e, err := log.ParseEvent([]byte(`{"action":"a","ip":"`+in+`"}`), clientOptions())
		if err == nil || !strings.Contains(err.Error(), "/ip: must be an IPv4 or IPv6 address") {
			t.Errorf("%s: got %s, %v", in, jsonOf(e), err)
		}
	}
}

func TestTimes(t *testing.T) {
	for in, want := range map[string]string{
		"2026-11-23T09:30:00Z":                                 "2026-11-23T09:30:00.000000Z",
		"2026-11-23t09:30:00z":                                 "2026-11-23T09:30:00.000000Z",
		"2026-11-23T09:35:00Z":                                 "2026-11-23T09:35:00.000000Z",
		"2026-11-23T15:04:59.9+05:30":                          "2026-11-23T09:34:59.900000Z",
		"2026-11-22T23:59:59.123456789-10:00":                  "2026-11-23T09:59:59.123456Z",
		"2023-07-10T11:42:18.9999999Z":                         "2023-07-10T11:42:18.999999Z",
		"2024-02-29T00:00:00-00:00":                            "2024-02-29T00:00:00.000000Z",
		"2000-02-29T00:00:00+00:00":                            "2000-02-29T00:00:00.000000Z",
		"0000-01-01T00:00:00Z":                                 "0000-01-01T00:00:00.000000Z",
		"0000-01-01T00:00:00-00:01":                            "0000-01-01T00:01:00.000000Z",
		"1969-12-31T23:59:59.999999Z":                          "1969-12-31T23:59:59.999999Z",
		"2020-01-01T00:00:00." + strings.Repeat("7", 99) + "Z": "2020-01-01T00:00:00.777777Z",
	} {
		opt := clientOptions()
		if strings.HasPrefix(in, "2026-11-22") {
			opt.Now = serverTime.Add(time.Hour)
		}
		e, err := log.ParseEvent([]byte(`{"action":"a","occurred_at":"`+in+`"}`), opt)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		at, ok := e.OccurredAt()
		parsed, perr := time.Parse("2006-01-02T15:04:05.000000Z", want)
		if got := e.Claims()[2]; got.Pointer != "/occurred_at" || string(got.Value) != `"`+want+`"` || !ok || perr != nil || at != parsed.UnixMicro() {
			t.Errorf("%s: got %s and %d µs, want %s", in, got.Value, at, want)
		}
	}
	for in, detail := range map[string]string{
		"2016-12-31T23:59:60Z": "leap second", "2026-11-23T09:35:00.000001Z": "five minutes ahead", "2026-11-23T10:00:00Z": "five minutes ahead",
		"2026-11-23T09:35:01+00:00": "five minutes ahead", "0000-01-01T00:00:00+00:01": "years 0000 to 9999", "9999-12-31T23:59:59-00:01": "years 0000 to 9999",
		"2026-11-23": "RFC 3339", "2026-11-23T09:30:00": "RFC 3339", "2026-11-23 09:30:00Z": "RFC 3339", "2026-11-23T09:30Z": "RFC 3339",
		"2026-02-29T00:00:00Z": "RFC 3339", "1900-02-29T00:00:00Z": "RFC 3339", "2026-04-31T00:00:00Z": "RFC 3339", "2026-13-01T00:00:00Z": "RFC 3339",
		"2026-00-01T00:00:00Z": "RFC 3339", "2026-01-00T00:00:00Z": "RFC 3339", "2026-01-01T24:00:00Z": "RFC 3339", "2026-01-01T00:60:00Z": "RFC 3339",
		"2026-01-01T00:00:61Z": "RFC 3339", "2026-01-01T00:00:00.Z": "RFC 3339", "2026-01-01T00:00:00,5Z": "RFC 3339", "2026-01-01T00:00:00+0000": "RFC 3339",
		"2026-01-01T00:00:00+24:00": "RFC 3339", "2026-01-01T00:00:00+00:60": "RFC 3339", "2026-01-01T00:00:00ZZ": "RFC 3339", "+2026-01-01T00:00:00Z": "RFC 3339",
		"-001-01-01T00:00:00Z": "RFC 3339", "2026-1-01T00:00:00ZZ": "RFC 3339", "20261123T093000Z": "RFC 3339", "1700000000": "RFC 3339",
		"2026-01-01T00:00:00.5": "RFC 3339", "２０26-01-01T00:00:00Z": "RFC 3339",
	} {
		e, err := log.ParseEvent([]byte(`{"action":"a","occurred_at":"`+in+`"}`), clientOptions())
		if err == nil || !strings.Contains(err.Error(), detail) || !strings.Contains(err.Error(), "/occurred_at") {
			t.Errorf("%s: got %s, %v; want %s", in, jsonOf(e), err, detail)
		}
	}
}

// TestTimesAgainstStandardLibrary: every time that package time reads, but for its looser spellings, is read as the same
// microsecond.
func TestTimesAgainstStandardLibrary(t *testing.T) {
	opt := clientOptions()
	opt.Now = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(-62167219200+86400, 253402300799-86400).Draw(t, "second"), rapid.Int64Range(0, 999999999).Draw(t, "nanosecond"))
		at = at.In(time.FixedZone("", 60*rapid.IntRange(-23*60-59, 23*60+59).Draw(t, "offset")))
		e, err := log.ParseEvent([]byte(`{"action":"a","occurred_at":"`+at.Format(time.RFC3339Nano)+`"}`), opt)
		if err != nil {
			t.Fatal(err)
		}
		want := at.UTC().Format("2006-01-02T15:04:05.000000Z")
		if micros, ok := e.OccurredAt(); !ok || micros != at.UnixMicro() || string(e.Claims()[2].Value) != `"`+want+`"` {
			t.Fatalf("%v became %s", at, e.JSON())
		}
	})
}

// problems describes the problems of an error as "pointer: detail" lines.
func problems(err error) []string {
	var invalid *log.InvalidError
	if !errors.As(err, &invalid) {
		return nil
	}
	var all []string
	for _, p := range invalid.Problems {
		all = append(all, p.String())
	}
	return all
}

func TestRefusedEvents(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	elements := func(n int, e string) string { return strings.TrimSuffix(strings.Repeat(e+",", n), ",") }
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		in   string   // members beside the action
		want []string // beginnings of the problems
	}{
		{`"id":""`, []string{"/id: must not be empty"}},
		{`"id":[]`, []string{"/id: must be a string, got an array"}},
		{`"id":"-a"`, []string{"/id: must be 1 to 128 characters"}},
		{`"id":"a b"`, []string{"/id: must be"}},
		{`"id":"é"`, []string{"/id: must be"}},
		{`"id":"` + long(129) + `"`, []string{"/id: is 129 bytes long, want at most 128"}},
		{`"credential":"k"`, []string{"/credential: is set by the server"}},
		{`"credential":null`, []string{"/credential: is set by the server"}},
		{`"outcome":"ok"`, []string{"/outcome: must be success, failure, denied or unknown"}},
		{`"outcome":"Success"`, []string{"/outcome: must be"}},
		{`"outcome":true`, []string{"/outcome: must be a string, got a boolean"}},
		{`"occurred_at":1700000000`, []string{"/occurred_at: must be a string, got a number"}},
		{`"actor":5`, []string{"/actor: must be an object, got a number"}},
		{`"actor":["x"]`, []string{"/actor: must be an object, got an array"}},
		{`"actor":{"id":""}`, []string{"/actor/id: must not be empty"}},
		{`"actor":{"id":7}`, []string{"/actor/id: must be a string, got a number"}},
		{`"actor":{"id":{}}`, []string{"/actor/id: must be a string, got an object"}},
		{`"actor":{"name":"x"}`, []string{"/actor/id: is required"}},
		{`"actor":{"id":null,"name":"x"}`, []string{"/actor/id: is required"}},
		{`"actor_name":"x"`, []string{"/actor_id: is required beside actor_name"}},
		{`"actor_id":""`, []string{"/actor_id: must not be empty"}},
		{`"target_type":"x"`, []string{"/target_id: is required beside target_type"}},
		{`"actor_name":"x","actor":{"id":"u"}`, []string{`/actor_name: "actor_name" and "actor" give the same thing`}},
		{`"actor":{"name":"u"},"actor_id":"x"`, []string{`/actor_id: "actor_id" and "actor" give the same thing`}},
		{`"target_id":"x","targets":[{"id":"u"}]`, []string{`/target_id: "target_id" and "targets" give the same thing`}},
		{`"context":{"ip":"::1"},"ip":"::1"`, []string{`/ip: "ip" and "context.ip" give`}},
		{`"context":{"user_agent":"x"},"user_agent":"x"`, []string{`/user_agent: "user_agent" and "context.user_agent" give`}},
		{`"actor_id":"` + long(513) + `"`, []string{"/actor_id: is 513 bytes long, want at most 512"}},
		{`"actor":{"id":"` + strings.Repeat("é", 257) + `"}`, []string{"/actor/id: is 514 bytes long"}},
		{`"actor":{"id":"` + strings.Repeat(`\u00e9`, 257) + `"}`, []string{"/actor/id: is 514 bytes long"}},
		{`"actor":{"id":"u","email":"` + long(321) + `","type":"` + long(129) + `","name":"` + long(513) + `"}`, []string{"/actor/email: is 321", "/actor/type: is 129", "/actor/name: is 513"}},
		{`"context":{"user_agent":"` + long(2049) + `","location":"` + long(257) + `","session_id":"` + long(257) + `","request_id":"` + long(257) + `","traceparent":"` + long(65) + `"}`,
			[]string{"/context/user_agent: is 2049", "/context/location: is 257", "/context/session_id: is 257", "/context/request_id: is 257", "/context/traceparent: is 65"}},
		{`"targets":[{}]`, []string{"/targets/0/id: is required"}},
		{`"targets":[{"id":"1"},{"id":null}]`, []string{"/targets/1/id: is required"}},
		{`"targets":[null,"x",[]]`, []string{"/targets/0: must be an object, got null", "/targets/1: must be an object, got a string", "/targets/2: must be"}},
		{`"targets":{"id":"1"}`, []string{"/targets: must be an array, got an object"}},
		{`"targets":[` + elements(21, `{"id":"1"}`) + `]`, []string{"/targets: has 21 elements, want at most 20"}},
		{`"changes":[{"before":1}]`, []string{"/changes/0/field: is required"}},
		{`"changes":[{"field":""}]`, []string{"/changes/0/field: must not be empty"}},
		{`"changes":[{"field":"` + long(257) + `"}]`, []string{"/changes/0/field: is 257"}},
		{`"changes":[` + elements(51, `{"field":"1"}`) + `]`, []string{"/changes: has 51 elements, want at most 50"}},
		{`"changes":[{"field":"f","before":` + nest(17) + `}]`, []string{"/changes/0/before/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0: is nested too deep"}},
		{`"metadata":{"a":` + nest(16) + `}`, []string{"/metadata/a/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0: is nested too deep"}},
		{`"metadata":[1]`, []string{"/metadata: must be an object, got an array"}},
		{`"metadata":{"":1}`, []string{"/metadata/: has an empty name"}},
		{`"metadata":{"` + long(65) + `":1}`, []string{"/metadata: has a member whose name is 65 bytes long"}},
		{`"metadata":{"` + strings.Repeat(`\n`, 65) + `":1}`, []string{"/metadata: has a member whose name is 65 bytes long"}},
		{`"metadata":{` + numbered(65) + `}`, []string{"/metadata: has 65 members, want at most 64"}},
		{`"metadata":{"n":9007199254740993,"a/b~":[1,1e400]}`, []string{"/metadata/n: is a number", "/metadata/a~1b~0/1: is a number"}},
		{`"metadata":{"a":{"b":1,"c":2,"b":3}}`, []string{"/metadata/a/b: is given more than once"}},
		{`"metadata":{"a":1},"metadata":{"a":1}`, []string{"/metadata: is given more than once"}},
		{`"action":"b"`, []string{"/action: is given more than once"}},
		{`"actor_id":"u","actor_id":"u"`, []string{"/actor_id: is given more than once"}},
		{`"actor":{"id":"u","id":"u"}`, []string{"/actor/id: is given more than once"}},
		{`"changes":[{"field":"f","before":1,"before":1}]`, []string{"/changes/0/before: is given more than once"}},
		{`"Actor":{"id":"u"}`, []string{`/Actor: is not a member that is known here; did you mean "actor"?`}},
		{`"ACTOR_ID":"u"`, []string{`/ACTOR_ID: is not a member that is known here; did you mean "actor_id"?`}},
		{`"actorId":"u","actor.name":"n"`, []string{`/actorId: is not a member that is known here; did you mean "actor_id"?`, `/actor.name: is not a member that is known here; did you mean "actor_name"?`}},
		{`"location":"x","timestamp":"x","target":{},"source_ip":"::1","colour":"red"`, []string{
			`/location: is not a member that is known here; "location" belongs into "context"`, `/timestamp: is not a member that is known here; did you mean "occurred_at"?`,
			`/target: is not a member that is known here; did you mean "targets"`, `/source_ip: is not a member that is known here; did you mean "ip"?`,
			`/colour: is not a member that is known here; members of your own belong into "metadata"`,
		}},
		{`"actor":{"id":"u","Name":"x","actor_type":"y","role":"z"}`, []string{`/actor/Name: is not a member that is known here; did you mean "name"?`, `/actor/actor_type: is not a member that is known here; did you mean "type"?`, "/actor/role: is not a member that is known here"}},
		{`"targets":[{"id":"1","email":"x","target_name":"n"}]`, []string{"/targets/0/email: is not a member that is known here", `/targets/0/target_name: is not a member that is known here; did you mean "name"?`}},
		{`"a/b~c":1`, []string{"/a~1b~0c: is not a member"}},
		{`"` + long(300) + `":1`, []string{"has an unknown member, whose name is 300 bytes long"}},
		{`"\u0000":1`, []string{"has a member whose name holds U+0000"}},
		{`"user_agent":"a\u0000b"`, []string{"/user_agent: holds U+0000"}},
		{`"metadata":{"a":"\ud83d"}`, []string{"/metadata/a: holds a lone surrogate"}},
		{"\"metadata\":{\"a\":\"\xc0\x80\"}", []string{"/metadata/a: is not valid UTF-8"}},
		{`"outcome":"x","ip":"y","id":" ","metadata":{"a":1e999}`, []string{"/outcome: ", "/ip: ", "/id: ", "/metadata/a: "}},
		{`"metadata":{"a":"` + long(25_000) + `"}`, []string{"is larger than 24576 bytes in canonical form"}},
		{`"occurred_at":"2026-11-23T09:30:00Z"}x`, []string{"line 1, byte 52: character 'x' where the end of the input"}},
	} {
		in := `{"action":"a",` + c.in
		if !strings.HasSuffix(in, "x") {
			in += "}"
		}
		e, err := log.ParseEvent([]byte(in), clientOptions())
		got := problems(err)
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%.200s: got %s, %q\nwant %q", in, jsonOf(e), got, c.want)
		}
	}
}

// numbered returns n members with the names a0, a1 and so on.
func numbered(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"a%d":%d`, i, i))
	}
	return strings.Join(all, ",")
}

func TestLimitsCanBeReached(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, in := range []string{
		`"id":"` + long(128) + `"`,
		`"actor":{"id":"` + long(512) + `","email":"` + long(320) + `","type":"` + long(128) + `","name":"` + strings.Repeat("é", 256) + `"}`,
		`"context":{"user_agent":"` + long(2048) + `","location":"` + long(256) + `","traceparent":"` + long(64) + `"}`,
		`"targets":[` + strings.Repeat(`{"id":"1"},`, 19) + `{"id":"2"}]`,
		`"changes":[` + strings.Repeat(`{"field":"1"},`, 49) + `{"field":"2","after":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}]`,
		`"metadata":{` + numbered(64) + `}`,
		`"metadata":{"` + long(64) + `":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`,
	} {
		e, err := log.ParseEvent([]byte(`{"action":"`+long(128)+`",`+in+`}`), clientOptions())
		if err != nil {
			t.Errorf("%.100s: %v", in, err)
			continue
		}
		checkEvent(t, e)
	}
}

func TestActions(t *testing.T) {
	for _, in := range []string{`{}`, `{"action":null}`, `{"action":[]}`} {
		if _, err := log.ParseEvent([]byte(in), clientOptions()); !slices.Equal(problems(err), []string{"/action: is required"}) {
			t.Errorf("%s: %v", in, err)
		}
	}
	for action, want := range map[string]string{
		"": "must not be empty", "a b": "must be 1 to 128", "é": "must be 1 to 128", "a,b": "must be", "treeline.x": "reserved", "treeline.": "reserved",
		strings.Repeat("x", 129): "is 129 bytes long",
	} {
		if _, err := log.ParseEvent([]byte(`{"action":"`+action+`"}`), clientOptions()); err == nil || !strings.Contains(err.Error(), "/action: "+want) && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", action, err, want)
		}
	}
	opt := clientOptions()
	opt.System = true
	if e, err := log.ParseEvent([]byte(`{"action":"treeline.log.created"}`), opt); err != nil || e.Action() != "treeline.log.created" {
		t.Errorf("the server's own action: %v", err)
	}
	if _, err := log.ParseEvent([]byte(`{"action":"treeline"}`), clientOptions()); err != nil {
		t.Error(err)
	}
}

func TestSizeLimits(t *testing.T) {
	// The frame is filled up by one metadata value to an exact canonical size.
	frame := `{"action":"a","id":"made","metadata":{"v":""}}`
	for size, ok := range map[int]bool{log.MaxEventSize: true, log.MaxEventSize + 1: false} {
		in := strings.Replace(frame, `""`, `"`+strings.Repeat("x", size-len(frame))+`"`, 1)
		e, err := log.ParseEvent([]byte(in), clientOptions())
		if (err == nil) != ok {
			t.Errorf("event of %d bytes: %v", size, err)
		}
		if err == nil && len(e.JSON()) != size {
			t.Errorf("got %d bytes, want %d", len(e.JSON()), size)
		}
	}
	// White space and empty members don't count.
	padded := strings.Replace(frame, "{", "{"+strings.Repeat(" ", 100_000)+`"outcome":"",`, 1)
	if _, err := log.ParseEvent([]byte(padded), clientOptions()); err != nil {
		t.Error(err)
	}
	// An event that is small enough, but not its disclosure.
	wide := func(filler int) string {
		var members []string
		for i := range 64 {
			members = append(members, fmt.Sprintf(`"%s%02d":""`, strings.Repeat("/", 62), i))
		}
		members[0] = strings.Replace(members[0], `""`, `"`+strings.Repeat("x", filler)+`"`, 1)
		changes := strings.Repeat(`{"field":"f"},`, 49) + `{"field":"f"}`
		targets := strings.Repeat(`{"id":"1","name":"n","type":"t"},`, 19) + `{"id":"1","name":"n","type":"t"}`
		return `{"action":"a","outcome":"denied","actor":{"id":"1","name":"n","type":"t","email":"e"},"context":{"ip":"::1","location":"l",` +
			`"request_id":"r","session_id":"s","traceparent":"t","user_agent":"u"},"occurred_at":"2026-11-23T09:30:00Z",` +
			`"metadata":{` + strings.Join(members, ",") + `},"changes":[` + changes + `],"targets":[` + targets + `]}`
	}
	e, err := log.ParseEvent([]byte(wide(1)), clientOptions())
	if err != nil {
		t.Fatal(err)
	}
	checkEvent(t, e)
	room := 48_000 - opened(t, e)
	e, err = log.ParseEvent([]byte(wide(1+room)), clientOptions())
	if err != nil || opened(t, e) != 48_000 {
		t.Errorf("%v", err)
	}
	if _, err = log.ParseEvent([]byte(wide(2+room)), clientOptions()); err == nil || !strings.Contains(err.Error(), "is 48001 bytes with all claims opened, want at most 48000") {
		t.Errorf("got %v", err)
	}
}

// opened returns the size of the disclosure that opens all claims, by making it.
func opened(t *testing.T, e *log.Event) int {
	hash := strings.Repeat("0", 64)
	var claims []any
	for _, c := range e.Claims() {
		claims = append(claims, map[string]any{"pointer": c.Pointer, "salt": hash, "value": json.RawMessage(c.Value)})
	}
	data, err := json.Marshal(map[string]any{"claims": claims, "previous_hash": hash, "received_at": "2026-11-23T00:00:00.000000Z"})
	if err != nil {
		t.Fatal(err)
	}
	form, err := jcs.Transform(data)
	if err != nil {
		t.Fatal(err)
	}
	return len(form)
}

func TestServerCompletesEvents(t *testing.T) {
	opt := clientOptions()
	opt.Credential = "abcDEF012345"
	e, err := log.ParseEvent([]byte(`{"action":"a"}`), opt)
	if err != nil || string(e.JSON()) != `{"action":"a","credential":"abcDEF012345","id":"made"}` || !e.ServerID() || e.ID() != "made" {
		t.Fatalf("got %s, %v", jsonOf(e), err)
	}
	checkEvent(t, e)
	mine, err := log.ParseEvent([]byte(`{"action":"a","id":"made"}`), clientOptions())
	if err != nil || mine.ServerID() {
		t.Fatalf("a client's id is taken for the server's: %v", err)
	}
	opt.Credential = "another"
	other, err := log.ParseEvent([]byte(`{"id":"made","action":"a"}`), opt)
	if err != nil {
		t.Fatal(err)
	}
	if !e.Same(mine) || !mine.Same(e) || !e.Same(other) || !e.Same(e) {
		t.Error("a retry by another key isn't recognised")
	}
	different, err := log.ParseEvent([]byte(`{"id":"made","action":"b"}`), opt)
	if err != nil || e.Same(different) || different.Same(mine) {
		t.Errorf("another content is taken for a retry: %v", err)
	}
	opt.NewID = nil
	if _, err := log.ParseEvent([]byte(`{"action":"a"}`), opt); !slices.Equal(problems(err), []string{"/id: is required"}) {
		t.Errorf("got %v", err)
	}
	var invalid *log.InvalidError
	opt.NewID = func() string { return "not an id" }
	if _, err := log.ParseEvent([]byte(`{"action":"a"}`), opt); err == nil || errors.As(err, &invalid) {
		t.Errorf("a bad id of the server is the client's fault: %v", err)
	}
	opt.Credential = `"`
	if _, err := log.ParseEvent([]byte(`{"action":"a"}`), opt); err == nil || errors.As(err, &invalid) {
		t.Errorf("a bad credential is the client's fault: %v", err)
	}
}

func TestAtMostTwentyProblems(t *testing.T) {
	in := `{"metadata":{"a":[` + strings.TrimSuffix(strings.Repeat("1e999,", 30), ",") + `]}}`
	if _, err := log.ParseEvent([]byte(in), clientOptions()); len(problems(err)) != log.MaxProblems {
		t.Errorf("got %d problems", len(problems(err)))
	}
}

func TestStoredFormIsTheOnlyForm(t *testing.T) {
	for _, in := range []string{
		`{"action":"a","id":"1"}`,
		`{"action":"treeline.x","credential":"k","id":"1","occurred_at":"9999-12-31T23:59:59.999999Z"}`,
		`{"action":"a","actor":{"id":"u"},"changes":[{"before":null,"field":"f"}],"context":{"ip":"::1"},"id":"1","metadata":{"a":null},"outcome":"unknown","targets":[{"id":"1"}]}`,
	} {
		e, err := log.ParseStored([]byte(in))
		if err != nil || string(e.JSON()) != in || e.ServerID() {
			t.Errorf("%s: %v", in, err)
		}
	}
	for _, in := range []string{
		``, `null`, `[]`, `{}`, `{"action":"a"}`, `{"id":"1"}`,
		`{"id":"1","action":"a"}`, `{"action":"a","id":"1"} `, ` {"action":"a","id":"1"}`, `{"action":"\u0061","id":"1"}`,
		`{"action":"a","actor_id":"u","id":"1"}`, `{"action":"a","id":"1","ip":"::1"}`,
		`{"action":"a","id":"1","metadata":{}}`, `{"action":"a","id":"1","outcome":null}`, `{"action":"a","actor":{},"id":"1"}`, `{"action":"a","actor":{"id":"u","name":""},"id":"1"}`,
		`{"action":"a","id":"1","occurred_at":"2026-11-23T09:30:00Z"}`, `{"action":"a","id":"1","occurred_at":"2026-11-23T09:30:00.0000000Z"}`, `{"action":"a","id":"1","occurred_at":"2026-11-23T09:30:00.000000z"}`,
		`{"action":"a","context":{"ip":"::ffff:1.2.3.4"},"id":"1"}`, `{"action":"a","context":{"ip":"0::1"},"id":"1"}`,
		`{"action":"a","credential":"","id":"1"}`, `{"action":"a","credential":"a b","id":"1"}`, `{"action":"a","credential":null,"id":"1"}`,
		`{"action":"a","id":"1","metadata":{"a":1.0}}`, `{"action":"a","id":"1","metadata":{"b":1,"a":1}}`, `{"action":"a","id":"1","x":1}`,
	} {
		e, err := log.ParseStored([]byte(in))
		var invalid *log.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%s was read as %s, %v", in, jsonOf(e), err)
		}
	}
}
