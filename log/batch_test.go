package log_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/log"
)

// countingOptions are those of a server whose ids are s0, s1 and so on.
func countingOptions() log.ParseOptions {
	n := -1
	return log.ParseOptions{Now: serverTime, NewID: func() string { n++; return fmt.Sprintf("s%d", n) }}
}

func idsOf(events []*log.Event) (ids []string) {
	for _, e := range events {
		ids = append(ids, e.ID())
	}
	return ids
}

func TestBatches(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string // ids, or beginnings of the problems
	}{
		{` { "events" : [ {"action":"a","id":"x"} , {"action":"b"},{"action":"c"} ] } `, []string{"x", "s0", "s1"}},
		{`{"\u0065vents":[{"action":"a"}]}`, []string{"s0"}},
		{`{"events":[]}`, []string{"holds no events"}},
		{`{}`, []string{"/events: is required"}},
		{`{"event":[]}`, []string{"/event: is not a member that is known here", "/events: is required"}},
		{`[{"action":"a"}]`, []string{"line 1, byte 1: character '[' where a batch"}},
		{`{"events":{}}`, []string{"/events: must be an array of events"}},
		{`{"events":null}`, []string{"/events: must be an array of events"}},
		{`{"events":[{"action":"a"}],"events":[{"action":"a"}]}`, []string{"/events: is given more than once"}},
		{`{"events":[{"action":"a"}],"log":"x"}`, []string{"/log: is not a member that is known here"}},
		{`{"events":[{"action":"a"}]} x`, []string{"line 1, byte 29: "}},
		{`{"events":[{"action":"a"},]}`, []string{"event 1: line 1, byte 27: "}},
		{`{"events":[{"action":"a"},7]}`, []string{"event 1: line 1, byte 27: character '7' where an event"}},
		{"{\"events\":[\n{\"action\":\"a\"},\n{\"action\" \"a\"}]}", []string{"event 1: line 3, byte 11: "}},
		{`{"events":[{"action":"a"},{"actor_id":""},{"action":"c","metadata":{"a/b":1e999}}]}`, []string{"event 1: /actor_id: must not be empty", "event 1: /action: is required", "event 2: /metadata/a~1b: is a number"}},
		{`{"events":[{"action":"a","id":"x"},{"action":"b"},{"action":"a","id":"x"}]}`, []string{"event 2: /id: is also the id of event 0 of this batch"}},
		{`{"events":[{"action":"a"},{"action":"a"},{"action":"a"},{"action":"a"}]}`, []string{"/events: holds more than 3 events"}},
		{`{"events":[{"action":"a"},{"action":"b"}`, []string{"event 1: line 1, byte 41: unexpected end"}},
		{``, []string{"line 1, byte 1: unexpected end"}},
		{"\xef\xbb\xbf{}", []string{"line 1, byte 1: starts with a byte order mark"}},
	} {
		events, err := log.ParseBatch([]byte(c.in), countingOptions(), 3)
		got := idsOf(events)
		if err != nil {
			got = problems(err)
		}
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestLinesOfEvents(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string // ids, or beginnings of the problems
	}{
		{"{\"action\":\"a\",\"id\":\"x\"}\n{\"action\":\"b\"}\n", []string{"x", "s0"}},
		{"{\"action\":\"a\"}\r\n\r\n \t\n{\"action\":\"b\"}", []string{"s0", "s1"}},
		{"\n\n{\"action\":\"a\"}", []string{"s0"}},
		{"", []string{"holds no events"}},
		{"\n \r\n", []string{"holds no events"}},
		{"\xef\xbb\xbf{\"action\":\"a\"}\n", []string{"line 1, byte 1: starts with a byte order mark: send UTF-8 without one"}},
		{"\n\n{\"action\":\n\"b\"}\n{\"ip\":\"x\"}", []string{"event 0: line 3, byte 11: unexpected end", "event 1: line 4, byte 1: character '\"'", "event 2: /ip: must be", "event 2: /action: is required"}},
		{"{\"action\":\"a\"} {\"action\":\"b\"}", []string{"event 0: line 1, byte 16: "}},
		{"[{\"action\":\"a\"}]", []string{"event 0: line 1, byte 1: character '['"}},
		{"{\"action\":\"a\",\"id\":\"x\"}\n{\"action\":\"a\",\"id\":\"x\"}", []string{"event 1: /id: is also the id of event 0 of this batch"}},
		{strings.Repeat("{\"action\":\"a\"}\n", 4), []string{"holds more than 3 events"}},
		{"{\"action\":\"a\",\"metadata\":{\"a\":\"" + strings.Repeat("x", 30_000) + "\"}}\n{}", []string{"event 0: is larger than", "event 1: /action: is required"}},
	} {
		events, err := log.ParseNDJSON([]byte(c.in), countingOptions(), 3)
		got := idsOf(events)
		if err != nil {
			got = problems(err)
		}
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%.200q: got %q, want %q", c.in, got, c.want)
		}
	}
	for _, e := range problemsOf(t, strings.Repeat("x\n", 30)) {
		if !strings.Contains(e, "character 'x'") {
			t.Error(e)
		}
	}
}

// problemsOf returns the problems of lines that are refused: as many as are reported at most.
func problemsOf(t *testing.T, lines string) []string {
	_, err := log.ParseNDJSON([]byte(lines), countingOptions(), 100)
	all := problems(err)
	if len(all) != log.MaxProblems {
		t.Errorf("got %d problems", len(all))
	}
	return all
}

func TestMistakesInOptionsAreNotTheClients(t *testing.T) {
	opt := clientOptions()
	opt.NewID = func() string { return "" }
	if _, err := log.ParseBatch([]byte(`{"events":[{"action":"a"}]}`), opt, 3); err == nil || problems(err) != nil {
		t.Errorf("got %v", err)
	}
	if _, err := log.ParseNDJSON([]byte(`{"action":"a"}`), opt, 3); err == nil || problems(err) != nil {
		t.Errorf("got %v", err)
	}
	opt.Credential = " "
	if _, err := log.ParseBatch([]byte(`x`), opt, 3); err == nil || problems(err) != nil {
		t.Errorf("got %v", err)
	}
}
