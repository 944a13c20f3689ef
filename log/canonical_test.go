package log_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

func TestCanonicalForm(t *testing.T) {
	for _, c := range []struct{ about, in, want string }{
		{"white space goes", " {\t\"a\" : [ 1 , 2 ]\r\n} ", `{"a":[1,2]}`},
		{"members are sorted at every level", `{"b":{"d":1,"c":2},"a":3}`, `{"a":3,"b":{"c":2,"d":1}}`},
		{"a name sorts before those it begins", `{"aa":1,"a":2,"":3}`, `{"":3,"a":2,"aa":1}`},
		{"order is that of UTF-16: astral characters before U+E000", `{"\ue000":1,"😀":2,"\ufb33":3,"퟿":4}`, "{\"\ud7ff\":4,\"😀\":2,\"\ue000\":1,\"\ufb33\":3}"},
		{"order is that of characters, not of their escapes", `{"\\":1,"]":2,"[":3,"\"":4,"#":5,"!":6,"\n":7}`, `{"\n":7,"!":6,"\"":4,"#":5,"[":3,"\\":1,"]":2}`},
		{"RFC 8785 §3.2.3", `{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}`, "{\"\\r\":2,\"1\":4,\"\u0080\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\ufb33\":3}"},
		{"escapes that aren't needed go", `"\u0041\/\u00e9\u2028\ud83d\ude00\u007f"`, "\"A/é\u2028😀\u007f\""},
		{"control characters have their short escapes", `"\u0008\u0009\u000a\u000c\u000d\u0001\u001F\u0022\u005c"`, `"\b\t\n\f\r\u0001\u001f\"\\"`},
		{"scalars are values too", `true`, `true`},
		{"empty containers stay", `{"a":{},"b":[],"c":null}`, `{"a":{},"b":[],"c":null}`},
	} {
		got, err := log.AppendCanonical(nil, []byte(c.in))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s became %s, %v; want %s", c.about, c.in, got, err, c.want)
			continue
		}
		if err := log.IsCanonical(got); err != nil {
			t.Errorf("%s: %v", got, err)
		}
		if c.in != c.want && log.IsCanonical([]byte(c.in)) == nil {
			t.Errorf("%s is taken for canonical", c.in)
		}
	}
}

func TestCanonicalFormIsAppended(t *testing.T) {
	got, err := log.AppendCanonical([]byte("x"), []byte("[ ]"))
	if err != nil || string(got) != "x[]" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestNumbersKeepTheirValueOrAreRefused(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "0.0": "0", "-0.0e5": "0", "0e999999999999": "0", "0e-999999999999999999999": "0",
		"1.0": "1", "1e0": "1", "100": "100", "1e2": "100", "1E+2": "100", "0.1": "0.1", "-0.50": "-0.5", "1.10": "1.1",
		"4.35": "4.35", "123.456e-2": "1.23456", "0.000001": "0.000001", "0.0000001": "1e-7", "1e-7": "1e-7", "12e-8": "1.2e-7",
		"1e20": "100000000000000000000", "1e21": "1e+21", "1000000000000000000000": "1e+21", "1.5e300": "1.5e+300",
		"9007199254740991": "9007199254740991", "9007199254740992": "9007199254740992", "-9007199254740994": "-9007199254740994",
		"999999999999999": "999999999999999", "333333333.3333333": "333333333.3333333",
		"1.7976931348623157e308": "1.7976931348623157e+308", "5e-324": "5e-324", "2.2250738585072014e-308": "2.2250738585072014e-308",
		"0." + strings.Repeat("0", 400) + "1e401":   "1",
		"1" + strings.Repeat("0", 400) + "e-400":    "1",
		"0.5" + strings.Repeat("0", 100_000):        "0.5",
		strings.Repeat("9", 15) + "e-15":            "0.999999999999999",
		"295147905179352830000":                     "295147905179352830000",
		"0." + strings.Repeat("0", 6) + "123456789": "1.23456789e-7",
	} {
		got, err := log.AppendCanonical(nil, []byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%.40s became %.40s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"9007199254740993", "-9007199254740993", "12345678901234.5678", "1e400", "-1e400", "1e-400", "1e309", "1.7976931348623159e308",
		"4e-324", "1e999999999999", "1e-999999999999999999999999", "0.1000000000000000055511151231257827", "12345678901234567890",
		"0." + strings.Repeat("0", 400) + "1", "1" + strings.Repeat("0", 400), "5e-325", "295147905179352825856",
		"3.14159265358979323846", "0.30000000000000004441",
	} {
		got, err := log.AppendCanonical(nil, []byte(in))
		if err == nil || !strings.Contains(err.Error(), "send it as a string") {
			t.Errorf("%.40s became %.40s, %v", in, got, err)
		}
	}
}

// TestExactNumbersAgainstRationals compares the rule with one by arbitrary precision: a number is accepted if and only if the
// library's form of it denotes the same rational.
func TestExactNumbersAgainstRationals(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.StringMatching(`-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?`).Draw(t, "token")
		form, err := jcs.Transform([]byte("[" + token + "]"))
		exact := err == nil && sameRational(token, string(form[1:len(form)-1]))
		got, err := log.AppendCanonical(nil, []byte(token))
		if exact != (err == nil) {
			t.Fatalf("%s: form of the library %s, exact %t; got %s, %v", token, form, exact, got, err)
		}
		if exact && string(got) != string(form[1:len(form)-1]) {
			t.Fatalf("%s: got %s, the library has %s", token, got, form)
		}
	})
}

func TestRefusedJSON(t *testing.T) {
	for _, c := range []struct{ in, pointer, detail string }{
		{``, "", "line 1, byte 1: unexpected end"},
		{` `, "", "line 1, byte 2: unexpected end"},
		{"{\n \"a\":1,\n}", "", "line 3, byte 1: character '}' where a member's name"},
		{`[1,]`, "", "line 1, byte 4: "},
		{`[1 2]`, "", "line 1, byte 4: "},
		{`{"a" 1}`, "", "line 1, byte 6: "},
		{`{a:1}`, "", "line 1, byte 2: "},
		{`1 1`, "", "line 1, byte 3: "},
		{`[01]`, "", "line 1, byte 3: "},
		{`[1.]`, "", "a digit was expected"},
		{`[.5]`, "", "a JSON value"},
		{`[+1]`, "", "a JSON value"},
		{`[1e]`, "", "a digit"},
		{`[-]`, "", "a digit"},
		{`[NaN]`, "", "a JSON value"},
		{`[nul]`, "", "a JSON value"},
		{`["a`, "", "unexpected end"},
		{"[\"a\nb\"]", "", "control character"},
		{"[\"\\n\t\"]", "", "control character"},
		{`["\x"]`, "", "malformed escape"},
		{`["\u12"]`, "", "malformed escape"},
		{`["\u12g4"]`, "", "malformed escape"},
		{"\xef\xbb\xbf{}", "", "byte order mark"},
		{"[\xff]", "", "byte 0xff"},
		{`{"a":1,"b":2,"a":3}`, "/a", "more than once"},
		{`{"a":1,"\u0061":3}`, "/a", "more than once"},
		{`{"x":[{"a/~":1,"b":2,"a/~":3}]}`, "/x/0/a~1~0", "more than once"},
		{"{\"a\":\"\xff\"}", "/a", "UTF-8"},
		{"{\"a\":\"\\n\xc3\"}", "/a", "UTF-8"},
		{"{\"a\":{\"\xff\":1}}", "/a", "UTF-8"},
		{"{\"a\":\"\xed\xa0\x80\"}", "/a", "UTF-8"},
		{`{"a":"\ud800"}`, "/a", "surrogate"},
		{`{"a":"\udc00\ud800"}`, "/a", "surrogate"},
		{`{"a":"\ud800\u0041"}`, "/a", "surrogate"},
		{`{"a":{"\ud800":1}}`, "/a", "surrogate"},
		{`[0,"a\u0000"]`, "/1", "U+0000"},
		{`{"a":{"\u0000":1}}`, "/a", "U+0000"},
		{`{"a":[1e400]}`, "/a/0", "send it as a string"},
		{strings.Repeat("[", 65) + strings.Repeat("]", 65), "", "deeper than 64"},
		{strings.Repeat(`{"a":`, 1_000_000), "", "deeper than 64"},
	} {
		got, err := log.AppendCanonical(nil, []byte(c.in))
		var invalid *log.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%.60q became %s, %v", c.in, got, err)
			continue
		}
		if p := invalid.Problems[0]; len(invalid.Problems) != 1 || p.Pointer != c.pointer || !strings.Contains(p.Detail, c.detail) || p.Index != -1 {
			t.Errorf("%.60q: got %q, want %s at %q", c.in, invalid.Problems, c.detail, c.pointer)
		}
		if log.IsCanonical([]byte(c.in)) == nil {
			t.Errorf("%.60q is taken for canonical", c.in)
		}
	}
	if _, err := log.AppendCanonical(nil, []byte(strings.Repeat("[", 64)+strings.Repeat("]", 64))); err != nil {
		t.Error(err)
	}
}

func TestCanonicalFormIgnoresOrderSpaceAndEscapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawJSON(3).Draw(t, "value")
		first, second := render(t, v), render(t, v)
		a, err := log.AppendCanonical(nil, []byte(first))
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		b, err := log.AppendCanonical(nil, []byte(second))
		if err != nil {
			t.Fatalf("%s: %v", second, err)
		}
		if !bytes.Equal(a, b) {
			t.Fatalf("%s became %s, %s became %s", first, a, second, b)
		}
		if want, err := jcs.Transform([]byte(first)); err != nil || !bytes.Equal(a, want) {
			t.Fatalf("%s: got %s, the library has %s, %v", first, a, want, err)
		}
		if again, err := log.AppendCanonical(nil, a); err != nil || !bytes.Equal(again, a) {
			t.Fatalf("not idempotent: %s, then %s, %v", a, again, err)
		}
		if err := log.IsCanonical(a); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLargeInputsTakeLinearTime would take minutes if anything were quadratic.
func TestLargeInputsTakeLinearTime(t *testing.T) {
	const size = 1 << 20
	var members, same, names bytes.Buffer
	for i := 0; members.Len() < size; i++ {
		fmt.Fprintf(&members, `,"%d\n":0`, i^0x55555)
	}
	for same.Len() < size {
		same.WriteString(`,"a":0`)
	}
	for i := 0; names.Len() < size; i++ {
		fmt.Fprintf(&names, "\n,\"%s%d\":0", strings.Repeat("x", 1000), i^0x555)
	}
	begin := time.Now()
	for _, in := range []string{
		`{` + members.String()[1:] + `}`,
		`{` + same.String()[1:] + `}`,
		`{` + names.String()[2:] + `}`,
		`"` + strings.Repeat(`\ud83d\ude00`, size/12) + `"`,
		`1` + strings.Repeat(`0`, size) + `e-` + fmt.Sprint(size),
		strings.Repeat(" \n", size/2) + `x`,
	} {
		log.AppendCanonical(nil, []byte(in))
		log.ParseEvent([]byte(in), log.ParseOptions{})
		log.ParseBatch([]byte(in), log.ParseOptions{}, 10)
		log.ParseNDJSON([]byte(in), log.ParseOptions{}, 10)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}
