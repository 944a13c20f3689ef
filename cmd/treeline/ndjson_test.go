package main

import (
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// readBatches returns all batches of input.
func readBatches(t *testing.T, input string, most int, ids *lineIDs) (batches []*batch) {
	t.Helper()
	r := newBatchReader(strings.NewReader(input), most, ids)
	for {
		b, err := r.next()
		if err == io.EOF {
			return batches
		}
		if err != nil {
			t.Fatalf("line %d: %v", r.line, err)
		}
		batches = append(batches, b)
	}
}

// idsOf returns the ids of all events of input, as they will be sent.
func idsOf(t *testing.T, input string, ids *lineIDs) (out []string) {
	t.Helper()
	for _, b := range readBatches(t, input, 100, ids) {
		for line := range strings.Lines(string(b.body)) {
			var e struct{ ID string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			out = append(out, e.ID)
		}
	}
	return out
}

func TestBatches(t *testing.T) {
	const input = "\n{\"id\":\"1\"}\r\n\n  {\"id\":\"2\"}\n{\"id\":\"3\"}\n\n{\"id\":\"4\"}\n{\"id\":\"5\"}\n\n"
	batches := readBatches(t, input, 2, newLineIDs(""))
	var got []batch
	read := int64(0)
	for _, b := range batches {
		read += b.read
		b.read = 0
		got = append(got, *b)
	}
	want := []batch{
		{body: []byte("{\"id\":\"1\"}\n{\"id\":\"2\"}\n"), lines: []int{2, 4}},
		{body: []byte("{\"id\":\"3\"}\n{\"id\":\"4\"}\n"), lines: []int{5, 7}},
		{body: []byte("{\"id\":\"5\"}\n"), lines: []int{8}, last: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if want := int64(strings.LastIndex(input, "\n\n") + 1); read != want {
		t.Errorf("batches took %d bytes, want %d", read, want)
	}
	for _, empty := range []string{"", "\n", " \r\n\n"} {
		if b := readBatches(t, empty, 2, newLineIDs("")); len(b) != 0 {
			t.Errorf("%q: got %d batches, want none", empty, len(b))
		}
	}
	if b := readBatches(t, `{"id":"1"}`, 2, newLineIDs("")); len(b) != 1 || string(b[0].body) != "{\"id\":\"1\"}\n" || !b[0].last {
		t.Errorf("a line without an end: got %+v", b)
	}
}

func TestBatchesStayUnderTheServersLimit(t *testing.T) {
	line := `{"id":"x","metadata":{"a":"` + strings.Repeat("a", 6<<20) + `"}}` + "\n"
	batches := readBatches(t, strings.Repeat(line, 5), 1000, newLineIDs(""))
	if len(batches) != 3 {
		t.Errorf("five lines of 6 MiB: got %d batches, want 3", len(batches))
	}
	for _, b := range batches {
		if len(b.body) > maxBatchBytes {
			t.Errorf("a batch has %d bytes, want at most %d", len(b.body), maxBatchBytes)
		}
	}
	r := newBatchReader(strings.NewReader("{}\n"+strings.Repeat("a", maxBatchBytes+1)+"\n{}\n"), 10, newLineIDs(""))
	if b, err := r.next(); err != nil || len(b.lines) != 1 || b.last {
		t.Errorf("before a line that is too long: got %+v, %v, want one event", b, err)
	}
	if _, err := r.next(); err == nil || err == io.EOF || r.line != 2 {
		t.Errorf("a line that is too long: got error %v at line %d, want one at line 2", err, r.line)
	}
}

func TestDerivedIDs(t *testing.T) {
	const input = "{\"action\":\"a\"}\n{\"action\":\"a\"}\n\n{\"action\":\"b\"}\n"
	first := idsOf(t, input, newLineIDs("line"))
	if again := idsOf(t, input, newLineIDs("line")); !slices.Equal(first, again) {
		t.Errorf("the same input has ids %q, then %q", first, again)
	}
	if first[0] == first[1] {
		t.Errorf("equal lines have the same id %s", first[0])
	}
	if windows := idsOf(t, strings.ReplaceAll(input, "\n", "\r\n"), newLineIDs("line")); !slices.Equal(first, windows) {
		t.Errorf("with CRLF, ids are %q, want %q", windows, first)
	}
	if grown := idsOf(t, input+`{"action":"c"}`, newLineIDs("line")); !slices.Equal(first, grown[:3]) {
		t.Errorf("old lines of a grown file have ids %q, want %q", grown[:3], first)
	}
	if other := idsOf(t, "{\"action\":\"z\"}\n{\"action\":\"a\"}\n{\"action\":\"b\"}\n", newLineIDs("line")); slices.ContainsFunc(other, func(id string) bool {
		return slices.Contains(first, id)
	}) {
		t.Errorf("equal lines of another file share an id: %q, %q", first, other)
	}
	if named := idsOf(t, input, newLineIDs("archive-7")); !strings.HasPrefix(named[0], "archive-7-") {
		t.Errorf("id %s doesn't begin with its prefix", named[0])
	}
	// Fixed for ever, or a new version would double what an old one sent.
	if want := "line-56f446df4a82978fd5ef98a8af00f40b"; first[0] != want {
		t.Errorf("id of the line {\"action\":\"a\"}: got %s, want %s", first[0], want)
	}

	random := newLineIDs("")
	if a, b := idsOf(t, input, random), idsOf(t, input, newLineIDs("")); a[0] == b[0] || !random.random {
		t.Errorf("random ids: got %s twice", a[0])
	}
}

func TestIdentify(t *testing.T) {
	l := newLineIDs("line")
	for _, row := range []struct{ line, want string }{
		{`{}`, `{"id":"ID"}`},
		{`{ }`, `{"id":"ID" }`},
		{`{"action":"a"}`, `{"id":"ID","action":"a"}`},
		{`{ "action" : "a" }`, `{"id":"ID", "action" : "a" }`},
		{`{"action":"a","id":null,"x":1}`, `{"action":"a","id":"ID","x":1}`},
		{`{"metadata":{"id":"x"},"ID":1}`, `{"id":"ID","metadata":{"id":"x"},"ID":1}`},
		// Left alone: they have an id, or the server shall say what is wrong with them.
		{`{"action":"a","id":"x"}`, `{"action":"a","id":"x"}`},
		{`{"\u0069d":"x"}`, `{"\u0069d":"x"}`},
		{`{"id":""}`, `{"id":""}`},
		{`{"id":null,"id":null}`, `{"id":null,"id":null}`},
		{`{"action":`, `{"action":`},
		{`[1]`, `[1]`},
		{`null`, `null`},
		{`oops`, `oops`},
	} {
		got, err := l.identify([]byte(row.line))
		id := "line-" + hexOf(l)
		if err != nil || strings.ReplaceAll(string(got), id, "ID") != row.want {
			t.Errorf("identify %s: got %s, %v, want %s", row.line, got, err, row.want)
		}
	}
}

func hexOf(l *lineIDs) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range l.chain[:16] {
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}

// FuzzIdentify checks that giving an object an id changes nothing else about it.
func FuzzIdentify(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"id":null}`, `{"a":{"id":1},"id":null,"b":[]}`, `{"id":"x"}`, ` {"a":1} `, `{"a":1}x`, `x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var before map[string]json.RawMessage
		valid := json.Unmarshal(line, &before) == nil && before != nil
		out, err := newLineIDs("line").identify(line)
		if err != nil {
			t.Fatal(err)
		}
		if !valid {
			return // passed on or not, the server refuses it
		}
		var after map[string]json.RawMessage
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("%s became %s: %v", line, out, err)
		}
		if id, ok := before["id"]; !ok || string(id) == "null" && string(out) != string(line) {
			if !strings.HasPrefix(string(after["id"]), `"line-`) {
				t.Fatalf("%s became %s, which has no new id", line, out)
			}
			delete(before, "id")
			delete(after, "id")
		}
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%s became %s", line, out)
		}
	})
}
