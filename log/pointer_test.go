package log_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/log"
)

func TestPointersOfOneEvent(t *testing.T) {
	base := []string{"/action", "/id"}
	with := func(more ...string) []string {
		all := append(slices.Clone(base), more...)
		slices.Sort(all)
		return all
	}
	several := func(n int, format string) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf(format, i))
		}
		return all
	}
	for _, ok := range [][]string{
		base,
		with("/occurred_at", "/outcome", "/credential"),
		with("/actor/id", "/actor/email", "/actor/name", "/actor/type"),
		with("/context/ip", "/context/user_agent", "/context/location", "/context/session_id", "/context/request_id", "/context/traceparent"),
		with("/metadata/a~1b~0", "/metadata/~0", "/metadata/ ", "/metadata/é", "/metadata/"+strings.Repeat("~1", 64)),
		with(several(20, "/targets/%d/id")...),
		with(several(50, "/changes/%d")...),
		with(several(64, "/metadata/%d")...),
		with("/targets/0/id", "/targets/0/name", "/targets/0/type"),
	} {
		if err := log.CheckPointers(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range [][]string{
		nil, {"/action"}, {"/id"}, {"/id", "/action"}, {"/action", "/action", "/id"},
		with(""), with("/"), with("id"), with("/actor"), with("/actor/"), with("/actor/id/"), with("/id/"), with("/Action"), with("/x"), with("/targets"),
		with("/actor/name"), with("/actor/id", "/actor/role"), with("/context/host"), with("/metadata"), with("/metadata/"), with("/metadata/a/b"),
		with("/metadata/~"), with("/metadata/~2"), with("/metadata/a~"), with("/metadata/\x00"), with("/metadata/\xff"), with("/metadata/\xed\xa0\x80"),
		with("/metadata/" + strings.Repeat("x", 65)),
		with("/targets/0"), with("/targets/0/"), with("/targets/0/email"), with("/targets/0/name"), with("/targets/1/id"), with("/targets/0/id", "/targets/2/id"),
		with("/targets/00/id"), with("/targets/+0/id"), with("/targets/-1/id"), with("/targets/0/id", "/targets/1/name"), with("/targets/0/id/x"),
		with("/changes/"), with("/changes/1"), with("/changes/0/field"), with("/changes/00"), with("/changes/18446744073709551616"),
		with(several(21, "/targets/%d/id")...), with(several(51, "/changes/%d")...), with(several(65, "/metadata/%d")...),
	} {
		if err := log.CheckPointers(bad); err == nil {
			t.Errorf("%q is taken for the pointers of an event", bad)
		}
	}
}

func TestClaimValues(t *testing.T) {
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct{ pointer, value string }{
		{"/id", `"A"`}, {"/action", `"treeline.log.created"`}, {"/credential", `"k"`}, {"/outcome", `"unknown"`},
		{"/occurred_at", `"9999-12-31T23:59:59.999999Z"`}, {"/actor/id", long(512)}, {"/context/ip", `"::1"`}, {"/targets/19/type", `"\n"`},
		{"/changes/49", `{"field":"f"}`}, {"/changes/0", `{"after":{"a":1,"b":[]},"before":null,"field":"f"}`}, {"/changes/0", `{"before":` + nest(16) + `,"field":"f"}`},
		{"/metadata/a", `null`}, {"/metadata/a", `""`}, {"/metadata/a", `{"a":{},"b":1e-7}`}, {"/metadata/a", nest(15)},
	} {
		if err := log.CheckClaim(c.pointer, []byte(c.value)); err != nil {
			t.Errorf("%s = %s: %v", c.pointer, c.value, err)
		}
	}
	for _, c := range []struct{ pointer, value string }{
		{"", `1`}, {"/x", `1`}, {"/actor", `{"id":"u"}`}, {"/metadata/", `1`},
		{"/id", ``}, {"/id", `""`}, {"/id", `null`}, {"/id", `7`}, {"/id", `"A" `}, {"/id", ` "A"`}, {"/id", `"A""B"`}, {"/id", `"\u0041"`}, {"/id", `"-"`}, {"/id", long(129)},
		{"/action", `""`}, {"/action", `"é"`}, {"/credential", `"a b"`}, {"/credential", `""`}, {"/outcome", `"ok"`}, {"/outcome", `""`}, {"/outcome", `null`},
		{"/occurred_at", `"2026-11-23T09:30:00Z"`}, {"/occurred_at", `"2026-11-23T09:30:60.000000Z"`}, {"/context/ip", `"::ffff:1.2.3.4"`}, {"/context/ip", `"0::1"`},
		{"/actor/id", `""`}, {"/actor/id", long(513)}, {"/actor/name", `""`}, {"/actor/name", `null`}, {"/actor/name", `[]`}, {"/actor/name", `"a\u0000"`},
		{"/changes/0", `{}`}, {"/changes/0", `null`}, {"/changes/0", `{"before":1}`}, {"/changes/0", `{"field":"f","before":1}`}, {"/changes/0", `{"field":""}`},
		{"/changes/0", `{"before":1.0,"field":"f"}`}, {"/changes/0", `{"before":` + nest(17) + `,"field":"f"}`}, {"/changes/0", `{"field":"f","x":1}`}, {"/changes/0", `{"field":"f"} `},
		{"/metadata/a", ``}, {"/metadata/a", `1.0`}, {"/metadata/a", `{"b":1,"a":2}`}, {"/metadata/a", `{"a":1,"a":1}`}, {"/metadata/a", nest(16)}, {"/metadata/a", `1e400`},
		{"/metadata/a", long(24 << 10)},
	} {
		if err := log.CheckClaim(c.pointer, []byte(c.value)); err == nil {
			t.Errorf("%s = %.100s is taken for a claim", c.pointer, c.value)
		}
	}
	err := log.CheckClaim("/changes/3", []byte(`{"before":{"a":1e400},"field":"f"}`))
	if got := problems(err); len(got) != 1 || !strings.HasPrefix(got[0], "/changes/3/before/a: is a number") {
		t.Errorf("got %v", err)
	}
}

// TestClaimsAreOrderedByBytes: neither by UTF-16, nor by numbers, nor by names before they are escaped.
func TestClaimsAreOrderedByBytes(t *testing.T) {
	var targets, changes []string
	for i := range 12 {
		targets = append(targets, fmt.Sprintf(`{"id":"t%d","type":"x"}`, i))
		changes = append(changes, fmt.Sprintf(`{"field":"f%d"}`, i))
	}
	e, err := log.ParseEvent([]byte(`{"id":"1","action":"a","targets":[`+strings.Join(targets, ",")+`],"changes":[`+strings.Join(changes, ",")+
		`],"metadata":{"a0":1,"a/b":2,"a~":3,"a}":4,"😀":5,"\ufb33":6,"\n":7,"\\":8,"[":9}}`), clientOptions())
	if err != nil {
		t.Fatal(err)
	}
	checkEvent(t, e)
	var got []string
	for _, c := range e.Claims() {
		got = append(got, c.Pointer+" "+string(c.Value))
	}
	want := []string{
		`/action "a"`, `/changes/0 {"field":"f0"}`, `/changes/1 {"field":"f1"}`, `/changes/10 {"field":"f10"}`, `/changes/11 {"field":"f11"}`, `/changes/2 {"field":"f2"}`,
	}
	if !slices.Equal(got[:len(want)], want) {
		t.Errorf("got %q", got[:len(want)])
	}
	metadata := got[14:23]
	if want := []string{"/metadata/\n 7", "/metadata/[ 9", `/metadata/\ 8`, "/metadata/a0 1", "/metadata/a} 4", "/metadata/a~0 3", "/metadata/a~1b 2", "/metadata/\ufb33 6", "/metadata/😀 5"}; !slices.Equal(metadata, want) {
		t.Errorf("got %q", metadata)
	}
}
