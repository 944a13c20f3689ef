package log_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
)

// cloudTrail returns the lines of 2,200 real events (testdata/LICENSE.cloudtrail-events).
func cloudTrail(t testing.TB) [][]byte {
	t.Helper()
	f, err := os.Open("testdata/cloudtrail-events.ndjson.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSpace(data), []byte("\n"))
}

// normalise is a second, slow implementation of an event's normal form, for events that need nothing left out: it moves the flat
// members, which must be valid, and canonicalises with a library.
func normalise(t testing.TB, line []byte) []byte {
	t.Helper()
	var in map[string]any
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&in); err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	actor, target, context := map[string]any{}, map[string]any{}, map[string]any{}
	for name, v := range in {
		switch {
		case v == "":
		case len(name) > 6 && name[:6] == "actor_":
			actor[name[6:]] = v
		case len(name) > 7 && name[:7] == "target_":
			target[name[7:]] = v
		case name == "ip" || name == "user_agent":
			context[name] = v
		case name == "occurred_at":
			at, err := time.Parse(time.RFC3339Nano, v.(string))
			if err != nil {
				t.Fatal(err)
			}
			out[name] = at.UTC().Format("2006-01-02T15:04:05.000000Z")
		default:
			out[name] = v
		}
	}
	if len(actor) > 0 {
		out["actor"] = actor
	}
	if len(target) > 0 {
		out["targets"] = []any{target}
	}
	if len(context) > 0 {
		out["context"] = context
	}
	data, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	form, err := jcs.Transform(data)
	if err != nil {
		t.Fatal(err)
	}
	return form
}

// checkEvent checks what holds for every event there is.
func checkEvent(t rapid.TB, e *log.Event) {
	t.Helper()
	form, err := jcs.Transform(e.JSON())
	if err != nil || !bytes.Equal(form, e.JSON()) {
		t.Fatalf("jcs makes of the canonical form\n%s\nthis (%v)\n%s", e.JSON(), err, form)
	}
	if len(e.JSON()) > log.MaxEventSize {
		t.Fatalf("event of %d bytes", len(e.JSON()))
	}
	var pointers []string
	for _, c := range e.Claims() {
		pointers = append(pointers, c.Pointer)
		if err := log.CheckClaim(c.Pointer, c.Value); err != nil {
			t.Fatalf("claim %s = %s: %v", c.Pointer, c.Value, err)
		}
		if got := resolve(t, e.JSON(), c.Pointer); !bytes.Equal(got, c.Value) {
			t.Fatalf("pointer %s leads to %s, the claim holds %s", c.Pointer, got, c.Value)
		}
	}
	if err := log.CheckPointers(pointers); err != nil {
		t.Fatalf("%q: %v", pointers, err)
	}
	stored, err := log.ParseStored(slices.Clone(e.JSON()))
	if err != nil {
		t.Fatalf("stored form %s: %v", e.JSON(), err)
	}
	if !bytes.Equal(stored.JSON(), e.JSON()) || stored.ID() != e.ID() || stored.Action() != e.Action() || !stored.Same(e) {
		t.Fatalf("stored form is read as another event:\n%s\n%s", e.JSON(), stored.JSON())
	}
	at, ok := e.OccurredAt()
	if storedAt, storedOK := stored.OccurredAt(); at != storedAt || ok != storedOK {
		t.Fatalf("occurred at %d %t, stored %d %t", at, ok, storedAt, storedOK)
	}
	if !slices.EqualFunc(e.Claims(), stored.Claims(), func(a, b log.EventClaim) bool {
		return a.Pointer == b.Pointer && bytes.Equal(a.Value, b.Value)
	}) {
		t.Fatalf("claims differ:\n%q\n%q", e.Claims(), stored.Claims())
	}
}

func TestRealEvents(t *testing.T) {
	lines := cloudTrail(t)
	if len(lines) != 2200 {
		t.Fatalf("got %d events, want 2200", len(lines))
	}
	for i, line := range lines {
		e, err := log.ParseEvent(line, log.ParseOptions{Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)})
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		if want := normalise(t, line); !bytes.Equal(e.JSON(), want) {
			t.Fatalf("event %d: got\n%s\nwant\n%s", i, e.JSON(), want)
		}
		checkEvent(t, e)
	}
}

func TestRealEventsAsOneBatch(t *testing.T) {
	lines := cloudTrail(t)
	opt := log.ParseOptions{Now: time.Now()}
	fromLines, err := log.ParseNDJSON(bytes.Join(lines, []byte("\r\n")), opt, len(lines))
	if err != nil {
		t.Fatal(err)
	}
	fromArray, err := log.ParseBatch(slices.Concat([]byte(`{"events":[`), bytes.Join(lines, []byte(",\n")), []byte("]}\n")), opt, len(lines))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range lines {
		e, err := log.ParseEvent(line, opt)
		if err != nil {
			t.Fatal(err)
		}
		if !e.Same(fromLines[i]) || !e.Same(fromArray[i]) {
			t.Fatalf("event %d differs by how it was sent", i)
		}
	}
}
