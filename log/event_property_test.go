package log_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

// drawText draws a text that isn't empty and within every limit of bytes.
func drawText() *rapid.Generator[string] {
	return drawString(1, 16).Filter(func(s string) bool { return len(s) <= 64 })
}

// drawObject draws an object of texts, the required ones always there.
func drawObject(t *rapid.T, required []string, optional []string) map[string]any {
	o := map[string]any{}
	for _, name := range required {
		o[name] = drawText().Draw(t, name)
	}
	for _, name := range optional {
		if rapid.Bool().Draw(t, "with "+name) {
			o[name] = drawText().Draw(t, name)
		}
	}
	return o
}

// drawNested draws an event in its nested, normal form.
func drawNested(t *rapid.T) map[string]any {
	some := func(what string) bool { return rapid.Bool().Draw(t, "with "+what) }
	e := map[string]any{
		"id":     rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._:-]{0,20}`).Draw(t, "id"),
		"action": rapid.StringMatching(`[A-Z-a-z0-9_.:/]{1,20}`).Draw(t, "action"),
	}
	if some("occurred_at") {
		at := time.UnixMicro(rapid.Int64Range(-62167219200_000000, serverTime.UnixMicro()).Draw(t, "occurred_at")).UTC()
		e["occurred_at"] = at.Format("2006-01-02T15:04:05.000000Z")
	}
	if some("outcome") {
		e["outcome"] = rapid.SampledFrom([]string{"success", "failure", "denied", "unknown"}).Draw(t, "outcome")
	}
	if some("actor") {
		e["actor"] = drawObject(t, []string{"id"}, []string{"type", "name", "email"})
	}
	if n := rapid.IntRange(0, 12).Draw(t, "targets"); n > 0 {
		var targets []any
		for range n {
			targets = append(targets, drawObject(t, []string{"id"}, []string{"type", "name"}))
		}
		e["targets"] = targets
	}
	if context := drawObject(t, nil, []string{"user_agent", "location", "session_id", "request_id", "traceparent"}); len(context) > 0 {
		e["context"] = context
		if some("ip") {
			context["ip"] = rapid.SampledFrom([]string{"::1", "203.0.113.42", "2001:db8::1"}).Draw(t, "ip")
		}
	}
	if n := rapid.IntRange(0, 12).Draw(t, "changes"); n > 0 {
		var changes []any
		for range n {
			c := drawObject(t, []string{"field"}, nil)
			if some("before") {
				c["before"] = drawJSON(2).Draw(t, "before")
			}
			if some("after") {
				c["after"] = drawJSON(2).Draw(t, "after")
			}
			changes = append(changes, c)
		}
		e["changes"] = changes
	}
	if metadata := rapid.MapOfN(drawText(), drawJSON(3), 0, 6).Draw(t, "metadata"); len(metadata) > 0 {
		m := map[string]any{}
		for name, v := range metadata {
			m[name] = v
		}
		e["metadata"] = m
	}
	return e
}

// spell returns the same event in another spelling: flat where that is possible, and with empty members added.
func spell(t *rapid.T, e map[string]any) map[string]any {
	e = maps.Clone(e)
	some := func(what string) bool { return rapid.Bool().Draw(t, what) }
	empty := rapid.SampledFrom([]any{nil, "", []any{}, map[string]any{}})
	if actor, ok := e["actor"].(map[string]any); ok && some("flat actor") {
		delete(e, "actor")
		for name, v := range actor {
			e["actor_"+name] = v
		}
	}
	if targets, ok := e["targets"].([]any); ok && len(targets) == 1 && some("flat target") {
		delete(e, "targets")
		for name, v := range targets[0].(map[string]any) {
			e["target_"+name] = v
		}
	}
	if context, ok := e["context"].(map[string]any); ok {
		context = maps.Clone(context)
		e["context"] = context
		for _, name := range []string{"ip", "user_agent"} {
			if v, ok := context[name]; ok && some("flat "+name) {
				delete(context, name)
				e[name] = v
			}
		}
	}
	for _, name := range []string{"occurred_at", "outcome", "actor", "targets", "context", "changes", "metadata", "actor_name", "target_name", "ip", "user_agent"} {
		if _, ok := e[name]; !ok && some("empty "+name) {
			e[name] = empty.Draw(t, name)
		}
	}
	if actor, ok := e["actor"].(map[string]any); ok && actor["id"] != nil && actor["name"] == nil {
		actor = maps.Clone(actor)
		actor["name"] = empty.Draw(t, "actor's name")
		e["actor"] = actor
	}
	return e
}

func TestOneFormOfEverySpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		model := drawNested(t)
		data, err := json.Marshal(model)
		if err != nil {
			t.Fatal(err)
		}
		want, err := jcs.Transform(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range []string{render(t, model), render(t, spell(t, model))} {
			e, err := log.ParseEvent([]byte(in), log.ParseOptions{Now: serverTime})
			if err != nil {
				t.Fatalf("%s: %v", in, err)
			}
			if !bytes.Equal(e.JSON(), want) {
				t.Fatalf("%s became\n%s, want\n%s", in, e.JSON(), want)
			}
			checkEvent(t, e)
		}
	})
}

func TestEventsKeepNothingOfTheInput(t *testing.T) {
	in := []byte(firstCall)
	e, err := log.ParseEvent(in, clientOptions())
	if err != nil {
		t.Fatal(err)
	}
	form := bytes.Clone(e.JSON())
	clear(in)
	for range 100 {
		if _, err := log.ParseEvent([]byte(`{"action":"another","metadata":{"zzz":"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"}}`), clientOptions()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(e.JSON(), form) {
		t.Error("an event changes with later input")
	}
	checkEvent(t, e)
}
