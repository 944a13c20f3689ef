package log_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gowebpki/jcs"

	"github.com/treeline-log/treeline/log"
)

func FuzzAppendCanonical(f *testing.F) {
	for _, seed := range []string{
		`{"b":[1.0,-0,1e21,1e-7,true,null],"a":{"\u20ac":"\ud83d\ude00\n","\r":"/"}}`, `"\u0000"`, `9007199254740993`, `{"a":1,"a":2}`, firstCall,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := log.AppendCanonical(nil, data)
		want, jcsErr := jcs.Transform(data)
		if err != nil {
			if jcsErr == nil && !strings.ContainsAny(reasons(err), "#") {
				t.Fatalf("%q: refused for %v, the library has %s", data, err, want)
			}
			return
		}
		if jcsErr != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q: got %s, the library has %s, %v", data, got, want, jcsErr)
		}
		if !json.Valid(data) {
			t.Fatalf("%q isn't JSON", data)
		}
		if err := log.IsCanonical(got); err != nil {
			t.Fatal(err)
		}
		if (log.IsCanonical(data) == nil) != bytes.Equal(data, got) {
			t.Fatalf("%q is taken for canonical, its form is %s", data, got)
		}
	})
}

// reasons returns "#" for every problem of err that RFC 8785 itself doesn't know.
func reasons(err error) (own string) {
	for _, p := range problems(err) {
		for _, known := range []string{"send it as a string", "U+0000", "deeper than 64"} {
			if strings.Contains(p, known) {
				own += "#"
			}
		}
	}
	return own
}

func FuzzParseEvent(f *testing.F) {
	for _, seed := range []string{
		firstCall,
		`{"action":"a","actor":{"id":"u","name":null},"targets":[{"id":"1"}],"changes":[{"field":"f","before":[1]}],"context":{"ip":"::ffff:1.2.3.4"},"occurred_at":"2026-11-23t10:30:00.5+01:00","outcome":"denied","id":"x","metadata":{"a/b":{"c":""}}}`,
		`{"action":"a","actor_name":"x","target_type":"t","credential":1,"Actor":{},"id":""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := log.ParseEvent(data, clientOptions())
		if err != nil {
			checkProblems(t, err)
			return
		}
		checkEvent(t, e)
		again, err := log.ParseEvent(e.JSON(), clientOptions())
		if err != nil || !bytes.Equal(again.JSON(), e.JSON()) {
			t.Fatalf("%s, sent again, became %s, %v", e.JSON(), jsonOf(again), err)
		}
	})
}

// checkProblems checks that an error is one that a client can be shown.
func checkProblems(t *testing.T, err error) {
	t.Helper()
	all := problems(err)
	if len(all) == 0 || len(all) > log.MaxProblems {
		t.Fatalf("%d problems: %v", len(all), err)
	}
	for _, p := range all {
		if !utf8.ValidString(p) || strings.Contains(p, "\x00") {
			t.Fatalf("problem %q can't be shown", p)
		}
	}
}

func FuzzParseStored(f *testing.F) {
	for _, seed := range []string{
		`{"action":"a","id":"1"}`,
		`{"action":"a","actor":{"email":"e","id":"u","name":"n","type":"t"},"changes":[{"after":1,"before":null,"field":"f"}],"context":{"ip":"::1"},"credential":"k","id":"1","metadata":{"a":"b"},"occurred_at":"2026-11-23T09:30:00.000000Z","outcome":"success","targets":[{"id":"1"}]}`,
		firstCall,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := log.ParseStored(data)
		if err != nil {
			checkProblems(t, err)
			return
		}
		if !bytes.Equal(e.JSON(), data) {
			t.Fatalf("%s is read as %s", data, e.JSON())
		}
		checkEvent(t, e)
	})
}

func FuzzParseNDJSON(f *testing.F) {
	for _, seed := range []string{
		"{\"action\":\"a\"}\r\n\n{\"action\":\"b\",\"id\":\"x\"}", "{\"action\":\"a\",\"id\":\"x\"}\n{\"action\":\"a\",\"id\":\"x\"}\n", "\xef\xbb\xbf{}", "{\n}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 8
		events, err := log.ParseNDJSON(data, countingOptions(), limit)
		if err != nil {
			checkProblems(t, err)
			return
		}
		// A batch of the same events is the same.
		var lines [][]byte
		for _, line := range bytes.Split(data, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				lines = append(lines, line)
			}
		}
		array := append(append([]byte(`{"events":[`), bytes.Join(lines, []byte(","))...), "]}"...)
		batch, err := log.ParseBatch(array, countingOptions(), limit)
		if err != nil || len(batch) != len(events) || len(events) == 0 || len(events) > limit {
			t.Fatalf("%q: %d events on lines, %d in a batch, %v", data, len(events), len(batch), err)
		}
		ids := map[string]bool{}
		for i, e := range events {
			checkEvent(t, e)
			if !bytes.Equal(e.JSON(), batch[i].JSON()) {
				t.Fatalf("%s on a line is %s in a batch", e.JSON(), batch[i].JSON())
			}
			if ids[e.ID()] {
				t.Fatalf("id %q twice", e.ID())
			}
			ids[e.ID()] = true
		}
	})
}
