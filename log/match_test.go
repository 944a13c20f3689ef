package log_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

// parsed parses what a client sends.
func parsed(t testing.TB, text string) *log.Event {
	t.Helper()
	e, err := log.ParseEvent([]byte(text), clientOptions())
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return e
}

// span returns the span of time between two numbers of µs.
func span(from, to int64) log.TimeSpan { return log.TimeSpan{From: &from, To: &to} }

func byMetadata(path string, values ...string) log.Filter {
	return log.Filter{Metadata: []log.Metadata{{Path: path, Values: values}}}
}

func TestMatch(t *testing.T) {
	long := strings.Repeat("x", log.MaxIndexedValue)
	e := parsed(t, `{"action":"user.role.updated","actor_id":"u\"1","actor_email":"a@example.com","outcome":"success",
		"targets":[{"id":"t1","type":"user"},{"id":"t2","type":"team","name":"t3"}],"ip":"::ffff:203.0.113.9","occurred_at":"1970-01-01T00:00:00.000100Z",
		"metadata":{"plan":"pro","seats":10,"rate":1e2,"trial":false,"owner":null,"empty":"","a.b":"dotted","a":{"b":"nested","c":{"d":1},"":"x","b.c":2},
			"list":["in a list"],"é/~\"":"\u0001","long":"`+long+`","longer":"`+long+`x"}}`)
	bare := parsed(t, `{"action":"x"}`)
	for _, c := range []struct {
		name   string
		filter log.Filter
		want   bool
		bare   bool // whether it selects the event without any members
	}{
		{"nothing", log.Filter{}, true, true},
		{"action", log.Filter{Actions: []string{"user.role.updated"}}, true, false},
		{"action begun", log.Filter{Actions: []string{"user.role"}}, false, false},
		{"action's prefix", log.Filter{Actions: []string{"user.*"}}, true, false},
		{"whole action as prefix", log.Filter{Actions: []string{"user.role.updated*"}}, true, false},
		{"action beyond", log.Filter{Actions: []string{"user.role.updated.*"}}, false, false},
		{"all actions", log.Filter{Actions: []string{"*"}}, true, true},
		{"either action", log.Filter{Actions: []string{"x", "user.*"}}, true, true},
		{"actor", log.Filter{ActorIDs: []string{`u"1`}}, true, false},
		{"actor as JSON", log.Filter{ActorIDs: []string{`u\"1`}}, false, false},
		{"actor begun", log.Filter{ActorIDs: []string{`u"`}}, false, false},
		{"actor continued", log.Filter{ActorIDs: []string{`u"12`}}, false, false},
		{"other actor's case", log.Filter{ActorEmails: []string{"A@example.com"}}, false, false},
		{"email", log.Filter{ActorEmails: []string{"b@example.com", "a@example.com"}}, true, false},
		{"first target", log.Filter{TargetIDs: []string{"t1"}}, true, false},
		{"second target", log.Filter{TargetIDs: []string{"t2"}}, true, false},
		{"a target's name", log.Filter{TargetIDs: []string{"t3"}}, false, false},
		{"id and type of different targets", log.Filter{TargetIDs: []string{"t1"}, TargetTypes: []string{"team"}}, true, false},
		{"target and other type", log.Filter{TargetIDs: []string{"t1"}, TargetTypes: []string{"role"}}, false, false},
		{"outcome", log.Filter{Outcomes: []string{"denied", "success"}}, true, false},
		{"other outcome", log.Filter{Outcomes: []string{"denied"}}, false, false},
		{"address", log.Filter{IPs: []string{"203.0.113.9"}}, true, false},
		{"other address", log.Filter{IPs: []string{"203.0.113.90"}}, false, false},
		{"occurred from", log.Filter{Occurred: span(100, 101)}, true, false},
		{"occurred before", log.Filter{Occurred: span(0, 100)}, false, false},
		{"occurred after", log.Filter{Occurred: span(101, 200)}, false, false},
		{"received, as nothing says when it occurred", log.Filter{Occurred: span(500, 501)}, false, true},
		{"received", log.Filter{Received: span(500, 501)}, true, true},
		{"received before", log.Filter{Received: span(0, 500)}, false, false},
		{"text", byMetadata("plan", "pro"), true, false},
		{"either text", byMetadata("plan", "free", "pro"), true, false},
		{"text continued", byMetadata("plan", "prox"), false, false},
		{"text begun", byMetadata("plan", "pr"), false, false},
		{"text as JSON", byMetadata("plan", `"pro"`), false, false},
		{"empty text", byMetadata("empty", ""), true, false},
		{"number", byMetadata("seats", "10"), true, false},
		{"number in its form", byMetadata("rate", "100"), true, false},
		{"number in another form", byMetadata("rate", "1e2"), false, false},
		{"number begun", byMetadata("seats", "1"), false, false},
		{"false", byMetadata("trial", "false"), true, false},
		{"null", byMetadata("owner", "null"), true, false},
		{"no such member", byMetadata("none", ""), false, false},
		{"name with a dot", byMetadata("a.b", "dotted"), true, false},
		{"nested", byMetadata("a.b", "nested"), true, false},
		{"nested after something else than a dot", byMetadata("a:b", "nested"), false, false},
		{"below a text", byMetadata("plan.x", "pro"), false, false},
		{"a longer name", byMetadata("plans", "pro"), false, false},
		{"a shorter name", byMetadata("pla", "pro"), false, false},
		{"nested deeper", byMetadata("a.c.d", "1"), true, false},
		{"nested with an empty name", byMetadata("a.", "x"), true, false},
		{"nested with a dot", byMetadata("a.b.c", "2"), true, false},
		{"an object", byMetadata("a.c", `{"d":1}`), false, false},
		{"an array", byMetadata("list", "in a list"), false, false},
		{"an index", byMetadata("list.0", "in a list"), false, false},
		{"what pointers escape", byMetadata(`é/~"`, "\x01"), true, false},
		{"longest value", byMetadata("long", long), true, false},
		{"too long a value", byMetadata("longer", long+"x"), false, false},
		{"both members", log.Filter{Metadata: []log.Metadata{{"plan", []string{"pro"}}, {"seats", []string{"10"}}}}, true, false},
		{"one of two members", log.Filter{Metadata: []log.Metadata{{"plan", []string{"pro"}}, {"seats", []string{"11"}}}}, false, false},
		{"a member without values", byMetadata("none"), true, true},
		{"outside metadata", byMetadata("action", "x"), false, false},
	} {
		if got := c.filter.Match(e, 500); got != c.want {
			t.Errorf("%s: got %t, want %t", c.name, got, c.want)
		}
		if got := c.filter.Match(bare, 500); got != c.bare {
			t.Errorf("%s, of an event without members: got %t, want %t", c.name, got, c.bare)
		}
		// What is selected isn't passed over unparsed either.
		if c.want && !log.Holds(&c.filter, e.JSON()) || c.bare && !log.Holds(&c.filter, bare.JSON()) {
			t.Errorf("%s: the filter selects an event that holds none of what it looks for", c.name)
		}
		if got := c.filter.All(); got != (c.name == "nothing") {
			t.Errorf("%s: all is %t", c.name, got)
		}
	}
}

// matches is a second, slow implementation of what filters mean.
func matches(t rapid.TB, f *log.Filter, e *log.Event, receivedAt int64) bool {
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(e.JSON()))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatal(err)
	}
	at := func(names ...string) (out []string) {
		v := any(m)
		for _, name := range names {
			o, _ := v.(map[string]any)
			v = o[name]
		}
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
		return out
	}
	targets := func(name string) (out []string) {
		list, _ := m["targets"].([]any)
		for _, v := range list {
			if s, ok := v.(map[string]any)[name].(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	either := func(wanted, have []string) bool {
		return len(wanted) == 0 || slices.ContainsFunc(have, func(s string) bool { return slices.Contains(wanted, s) })
	}
	if len(f.Actions) > 0 && !slices.ContainsFunc(f.Actions, func(a string) bool {
		if strings.HasSuffix(a, "*") {
			return strings.HasPrefix(m["action"].(string), a[:len(a)-1])
		}
		return m["action"] == a
	}) {
		return false
	}
	occurred := receivedAt
	if s := at("occurred_at"); s != nil {
		v, err := time.Parse(time.RFC3339Nano, s[0])
		if err != nil {
			t.Fatal(err)
		}
		occurred = v.UnixMicro()
	}
	within := func(s log.TimeSpan, v int64) bool {
		return (s.From == nil || *s.From <= v) && (s.To == nil || v < *s.To)
	}
	for _, x := range f.Metadata {
		var have []string
		for _, s := range scalars("", m["metadata"]) {
			if s[0] == x.Path && len(s[1]) <= 512 {
				have = append(have, s[1])
			}
		}
		if !either(x.Values, have) {
			return false
		}
	}
	return either(f.ActorIDs, at("actor", "id")) && either(f.ActorEmails, at("actor", "email")) && either(f.Outcomes, at("outcome")) &&
		either(f.IPs, at("context", "ip")) && either(f.TargetIDs, targets("id")) && either(f.TargetTypes, targets("type")) &&
		within(f.Occurred, occurred) && within(f.Received, receivedAt)
}

// scalars returns the paths and values of all scalars that names lead to.
func scalars(path string, v any) (out [][2]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, v := range v {
			out = append(out, scalars(path+"."+name, v)...)
		}
	case []any:
	case string:
		out = append(out, [2]string{strings.TrimPrefix(path, "."), v})
	case nil:
		out = append(out, [2]string{strings.TrimPrefix(path, "."), "null"})
	default:
		out = append(out, [2]string{strings.TrimPrefix(path, "."), fmt.Sprint(v)})
	}
	return out
}

// drawMetadata draws objects whose paths are ambiguous and whose values are often alike.
func drawMetadata(depth int) *rapid.Generator[any] {
	name := rapid.SampledFrom([]string{"a", "b", "a.b", "b.a", ".", "a.", "..a", `"`, `\`, "é", "\n", "~1"})
	value := rapid.OneOf(rapid.SampledFrom([]any{"", "1", 1, -0.5, true, "true", nil, "null", "}", `\"`, "\x1f]", "😀"}), drawJSON(1))
	if depth > 0 {
		value = rapid.OneOf(value, drawMetadata(depth-1))
	}
	return rapid.Map(rapid.MapOfN(name, value, 0, 4), func(m map[string]any) any { return m })
}

// drawFilter draws a filter of which each member may well select the event.
func drawFilter(t *rapid.T, e *log.Event, receivedAt int64) *log.Filter {
	some := func(what string, have ...string) []string {
		if rapid.IntRange(0, 2).Draw(t, "with "+what) > 0 {
			return nil
		}
		own := rapid.SampledFrom(append(have, "x"))
		continued := rapid.Map(own, func(s string) string { return s + "x" })
		return rapid.SliceOfN(rapid.OneOf(own, own, continued, drawText()), 1, 3).Draw(t, what)
	}
	have := map[string][]string{}
	var paths [][2]string
	for _, c := range e.Claims() {
		if name, ok := strings.CutPrefix(c.Pointer, "/metadata/"); ok {
			var v any
			d := json.NewDecoder(bytes.NewReader(c.Value))
			d.UseNumber()
			if err := d.Decode(&v); err != nil {
				t.Fatal(err)
			}
			paths = append(paths, scalars(strings.NewReplacer("~1", "/", "~0", "~").Replace(name), v)...)
			continue
		}
		kind := c.Pointer
		if strings.HasPrefix(kind, "/targets/") {
			kind = "/target" + kind[strings.LastIndexByte(kind, '/'):]
		}
		var s string
		if json.Unmarshal(c.Value, &s) == nil {
			have[kind] = append(have[kind], s)
		}
	}
	action := e.Action()
	f := &log.Filter{
		Actions:     some("actions", action, action[:rapid.IntRange(0, len(action)).Draw(t, "cut")]+"*", "y*"),
		ActorIDs:    some("actor ids", have["/actor/id"]...),
		ActorEmails: some("actor emails", have["/actor/email"]...),
		TargetIDs:   some("target ids", have["/target/id"]...),
		TargetTypes: some("target types", have["/target/type"]...),
		Outcomes:    some("outcomes", append(have["/outcome"], "success")...),
		IPs:         some("addresses", append(have["/context/ip"], "::1")...),
	}
	occurredAt, ok := e.OccurredAt()
	if !ok {
		occurredAt = receivedAt
	}
	for _, s := range []struct {
		span *log.TimeSpan
		at   int64
	}{{&f.Occurred, occurredAt}, {&f.Received, receivedAt}} {
		if rapid.IntRange(0, 4).Draw(t, "from") == 0 {
			from := s.at + rapid.Int64Range(-1, 1).Draw(t, "from")
			s.span.From = &from
		}
		if rapid.IntRange(0, 4).Draw(t, "to") == 0 {
			to := s.at + rapid.Int64Range(-1, 1).Draw(t, "to")
			s.span.To = &to
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "metadata filters") {
		p := [2]string{"a.b", "1"}
		if len(paths) > 0 && rapid.IntRange(0, 9).Draw(t, "of its own") > 0 {
			p = rapid.SampledFrom(paths).Draw(t, "path")
		}
		switch rapid.IntRange(0, 9).Draw(t, "changed") {
		case 0:
			p[0] = strings.Replace(p[0], ".", "x", 1)
		case 1:
			p[0] += "x"
		case 2:
			p[0] = p[0][:rapid.IntRange(0, len(p[0])).Draw(t, "cut")]
		}
		f.Metadata = append(f.Metadata, log.Metadata{Path: p[0], Values: some("values", p[1], "1", "true", "null")})
	}
	return f
}

func TestMatchIsWhatFiltersMean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := drawNested(t)
		if own := drawMetadata(3).Draw(t, "ambiguous metadata").(map[string]any); len(own) > 0 {
			model["metadata"] = own
		}
		data, err := json.Marshal(model)
		if err != nil {
			t.Fatal(err)
		}
		e, err := log.ParseEvent(data, clientOptions())
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		receivedAt := rapid.Int64Range(0, 10).Draw(t, "received at")
		f := drawFilter(t, e, receivedAt)
		got, want := f.Match(e, receivedAt), matches(t, f, e, receivedAt)
		if got != want {
			t.Fatalf("filter %+v on %s: got %t, want %t", f, e.JSON(), got, want)
		}
	})
}

// Filters mean the same on events as they are.
func TestMatchOnRealEvents(t *testing.T) {
	filters := map[string]log.Filter{
		"actor":    {ActorIDs: []string{"arn:aws:iam::123837392027:user/benjamin"}},
		"prefix":   {Actions: []string{"iam.*", "sts.*"}},
		"target":   {TargetTypes: []string{"roleName", "policyName"}},
		"address":  {IPs: []string{"192.168.10.20"}},
		"time":     {Occurred: span(1688990400_000000, 1688990700_000000)},
		"scalar":   byMetadata("readOnly", "false"),
		"nested":   byMetadata("tlsDetails.tlsVersion", "TLSv1.2"),
		"two":      {Actions: []string{"ec2.*"}, Metadata: []log.Metadata{{Path: "readOnly", Values: []string{"false"}}}},
		"nothing":  {Actions: []string{"none.*"}},
		"anything": {Actions: []string{"*"}},
	}
	var events []*log.Event
	for _, line := range cloudTrail(t) {
		events = append(events, parsed(t, string(line)))
	}
	for name, f := range filters {
		found := 0
		for i, e := range events {
			got, want := f.Match(e, int64(i)), matches(t, &f, e, int64(i))
			if got != want {
				t.Errorf("%s: event %d: got %t, want %t: %s", name, i, got, want, e.JSON())
			}
			if got {
				found++
			}
		}
		if (found == 0) != (name == "nothing") || (found == len(events)) != (name == "anything") {
			t.Errorf("%s: found %d", name, found)
		}
	}
}

func TestMatchAllocatesNothing(t *testing.T) {
	e := parsed(t, string(cloudTrail(t)[199]))
	f := everything()
	if got := testing.AllocsPerRun(100, func() { f.Match(e, 0) }); got != 0 {
		t.Errorf("got %v allocations", got)
	}
}

// everything returns a filter with several values for each member, of which the last selects the 200th real event.
func everything() *log.Filter {
	return &log.Filter{
		Actions:  []string{"iam.*", "ec2.Describe*"},
		ActorIDs: []string{"x", "arn:aws:sts::123837392027:assumed-role/AWSServiceRoleForAmazonInspector2/MandoService2842426183934887787"},
		Occurred: span(0, 1<<62),
		Words:    []log.Words{{{Text: "nothing"}, {Text: "iam"}}, {{Text: "iam"}, {Text: "inspec", Begins: true}}},
		Metadata: []log.Metadata{{Path: "readOnly", Values: []string{"false", "true"}}, {Path: "sessionContext.attributes.mfaAuthenticated", Values: []string{"x", "false"}}},
	}
}

func BenchmarkMatch(b *testing.B) {
	e, f := parsed(b, string(cloudTrail(b)[199])), everything()
	b.ReportAllocs()
	for b.Loop() {
		if !f.Match(e, 0) {
			b.Fatal("it doesn't match")
		}
	}
}

func TestNormalText(t *testing.T) {
	for _, c := range []struct{ pointer, text, want string }{
		{"/action", "treeline.x", "treeline.x"},
		{"/actor/id", "a\"\\\n é", "a\"\\\n é"},
		{"/context/ip", "::FFFF:203.0.113.9", "203.0.113.9"},
		{"/context/ip", "2001:DB8:0::1", "2001:db8::1"},
		{"/occurred_at", "2026-01-01T01:00:00.1234567+01:00", "2026-01-01T00:00:00.123456Z"},
		{"/outcome", "denied", "denied"},
		{"/metadata/x", "", ""},
	} {
		if got, err := log.NormalText(c.pointer, c.text); err != nil || got != c.want {
			t.Errorf("%s %q: got %q, %v, want %q", c.pointer, c.text, got, err, c.want)
		}
	}
	for _, c := range []struct{ pointer, text string }{
		{"/action", "a b"}, {"/action", ""}, {"/action", "a*"}, {"/action", strings.Repeat("a", 129)}, {"/actor/id", "\xff"}, {"/actor/id", "a\x00"},
		{"/actor/email", strings.Repeat("a", 321)}, {"/actor/name", ""}, {"/outcome", "Success"}, {"/context/ip", "203.0.113.9/32"},
		{"/context/ip", "fe80::1%eth0"}, {"/occurred_at", "yesterday"}, {"/actor", "x"}, {"/changes/0", "x"},
	} {
		if got, err := log.NormalText(c.pointer, c.text); err == nil {
			t.Errorf("%s %q: got %q", c.pointer, c.text, got)
		}
	}
}
