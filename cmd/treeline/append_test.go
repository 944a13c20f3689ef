package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeLog keeps what it is sent as a server would: each id once, in order, a batch wholly or not at all. Before a call
// is taken, intercept may answer it in place of the log, and after it was taken, lose may lose the answer.
type fakeLog struct {
	*httptest.Server
	mu        sync.Mutex
	index     map[string]int
	events    []map[string]any
	calls     []string // path and query of each
	intercept func(w http.ResponseWriter, call int) bool
	lose      func(call int) bool
}

func newFakeLog(t *testing.T) *fakeLog {
	l := &fakeLog{index: map[string]int{}}
	l.Server = httptest.NewServer(l)
	t.Cleanup(l.Close)
	t.Setenv("TREELINE_SERVER", l.URL)
	return l
}

func (l *fakeLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	l.calls = append(l.calls, r.URL.RequestURI())
	call := len(l.calls)
	if l.intercept != nil && l.intercept(w, call) {
		return
	}
	var events []map[string]any
	for line := range strings.Lines(string(body)) {
		var e map[string]any
		if json.Unmarshal([]byte(line), &e) != nil || e["action"] == nil {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"code":"invalid_event","errors":[{"index":%d,"pointer":"/action","detail":"required"}]}`, len(events))
			return
		}
		events = append(events, e)
	}
	var data []map[string]any
	for _, e := range events {
		id := e["id"].(string)
		index, duplicate := l.index[id]
		if !duplicate {
			index = len(l.events)
			l.index[id] = index
			l.events = append(l.events, e)
		}
		state := "sequenced"
		if wait := r.URL.Query().Get("wait"); wait != "" {
			state = wait
		}
		data = append(data, map[string]any{"id": id, "log": "default", "index": index, "hash": "h", "state": state, "duplicate": duplicate})
	}
	if l.lose != nil && l.lose(call) {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusCreated)
	if r.URL.Path == "/v1/events" {
		json.NewEncoder(w).Encode(data[0])
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"log": "default", "data": data})
}

// lines returns n events without ids, numbered from 1 by their action.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"action\":\"e%d\"}\n", i+1)
	}
	return b.String()
}

// checkStored checks that l holds exactly the events of lines(n), in order.
func (l *fakeLog) checkStored(t *testing.T, n int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) != n {
		t.Errorf("%d events are stored, want %d", len(l.events), n)
	}
	for i, e := range l.events {
		if want := fmt.Sprintf("e%d", i+1); e["action"] != want {
			t.Errorf("event %d is %v, want %s", i, e["action"], want)
		}
	}
}

// appendJSON runs append --json with args and returns its exit code, report and standard error.
func appendJSON(t *testing.T, stdin string, args ...string) (int, appendReport, string) {
	t.Helper()
	code, stdout, stderr := runCommand(t, stdin, append([]string{"append", "--json"}, args...)...)
	var r appendReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("report %q: %v; stderr %s", stdout, err, stderr)
	}
	return code, r, stderr
}

func TestAppendFile(t *testing.T) {
	l := newFakeLog(t)
	file := writeTemp(t, lines(25))
	code, r, stderr := appendJSON(t, "", file, "--batch", "10", "--log", "default")
	if code != exitOK || r.New != 25 || r.Duplicates != 0 || *r.FirstIndex != 0 || *r.LastIndex != 24 || r.Stopped != nil {
		t.Errorf("code %d, report %+v, stderr %s", code, r, stderr)
	}
	if want := slices.Repeat([]string{"/v1/events/batch?log=default"}, 3); !slices.Equal(l.calls, want) {
		t.Errorf("got calls %q, want %q", l.calls, want)
	}
	code, r, _ = appendJSON(t, "", file, "--batch", "7")
	if code != exitOK || r.New != 0 || r.Duplicates != 25 || r.FirstIndex != nil {
		t.Errorf("sent again: code %d, report %+v", code, r)
	}
	l.checkStored(t, 25)
	if _, stdout, _ := runCommand(t, "", "append", writeTemp(t, lines(30))); !strings.HasPrefix(stdout, "30 events stored in log default: 5 new (indexes 25 to 29), 25 duplicates, in ") {
		t.Errorf("grown file: got %q", stdout)
	}
}

func TestAppendWaitsForTheLastBatchOnly(t *testing.T) {
	l := newFakeLog(t)
	if code, _, stderr := appendJSON(t, "", writeTemp(t, lines(25)+"\n\n"), "--batch", "10", "--wait", "--concurrency", "3"); code != exitOK {
		t.Error(stderr)
	}
	slices.Sort(l.calls[:2])
	if want := []string{"/v1/events/batch", "/v1/events/batch", "/v1/events/batch?wait=signed"}; !slices.Equal(l.calls, want) {
		t.Errorf("got calls %q, want %q", l.calls, want)
	}
}

func TestAppendStopsAtABadEvent(t *testing.T) {
	l := newFakeLog(t)
	input := strings.Replace(lines(30), `"e16"`, `null`, 1)
	code, r, stderr := appendJSON(t, "", writeTemp(t, "\n"+input), "--batch", "10")
	// Batches are stored wholly or not at all, so it is line 12, the first of the second batch, from which on nothing is stored.
	if code != exitFailure || r.New != 10 || r.Stopped == nil || r.Stopped.Line != 12 {
		t.Errorf("code %d, report %+v", code, r)
	}
	if !strings.Contains(stderr, "stopped at line 12: server answered 400 invalid_event: line 17: /action: required; correct it and run the same command again") {
		t.Errorf("stderr %q", stderr)
	}
	l.checkStored(t, 10)

	if code, r, stderr := appendJSON(t, "", writeTemp(t, "\n"+lines(30)), "--batch", "10"); code != exitOK || r.New != 20 || r.Duplicates != 10 {
		t.Errorf("after the correction: code %d, report %+v, stderr %s", code, r, stderr)
	}
	l.checkStored(t, 30)
}

func TestAppendGoesOnAfterLostAnswers(t *testing.T) {
	l := newFakeLog(t)
	l.lose = func(call int) bool { return call%2 == 0 }
	code, r, stderr := appendJSON(t, "", writeTemp(t, lines(50)), "--batch", "10")
	if code != exitOK || r.New+r.Duplicates != 50 || r.Duplicates == 0 {
		t.Errorf("code %d, report %+v, stderr %s", code, r, stderr)
	}
	l.checkStored(t, 50)
}

func TestAppendResumesAfterAFailureMidFile(t *testing.T) {
	l := newFakeLog(t)
	l.lose = func(call int) bool { return call >= 3 }
	file := writeTemp(t, lines(50))
	code, r, stderr := appendJSON(t, "", file, "--batch", "10", "--retry-for", "1ns")
	if code != exitFailure || r.New != 20 || r.Stopped == nil || r.Stopped.Line != 21 ||
		!strings.HasSuffix(stderr, "; run the same command again: what is stored already counts as duplicates\n") {
		t.Errorf("code %d, report %+v, stderr %s", code, r, stderr)
	}
	l.mu.Lock()
	l.lose = nil
	l.mu.Unlock()
	code, r, stderr = appendJSON(t, "", file, "--batch", "10")
	if code != exitOK || r.New != 20 || r.Duplicates != 30 {
		t.Errorf("run again: code %d, report %+v, stderr %s", code, r, stderr)
	}
	l.checkStored(t, 50)
}

func TestAppendRetriesABusyServer(t *testing.T) {
	l := newFakeLog(t)
	l.intercept = func(w http.ResponseWriter, call int) bool {
		if call == 2 || call == 3 {
			w.WriteHeader([]int{429, 503}[call-2])
			return true
		}
		return false
	}
	if code, r, stderr := appendJSON(t, "", writeTemp(t, lines(30)), "--batch", "10"); code != exitOK || r.New != 30 || len(l.calls) != 5 {
		t.Errorf("code %d, report %+v, %d calls, stderr %s", code, r, len(l.calls), stderr)
	}
	l.checkStored(t, 30)
}

func TestAppendInParallelStoresEachOnce(t *testing.T) {
	l := newFakeLog(t)
	file := writeTemp(t, lines(500))
	if code, r, stderr := appendJSON(t, "", file, "--batch", "10", "--concurrency", "8"); code != exitOK || r.New != 500 {
		t.Errorf("code %d, report %+v, stderr %s", code, r, stderr)
	}
	if len(l.events) != 500 {
		t.Errorf("%d events are stored, want 500", len(l.events))
	}
	if code, r, _ := appendJSON(t, "", file, "--concurrency", "8"); code != exitOK || r.Duplicates != 500 {
		t.Errorf("run again: code %d, report %+v", code, r)
	}
}

func TestAppendStandardInput(t *testing.T) {
	l := newFakeLog(t)
	for range 2 {
		if code, r, stderr := appendJSON(t, lines(1), "-"); code != exitOK || r.New != 1 {
			t.Errorf("piped in: code %d, report %+v, stderr %s", code, r, stderr)
		}
	}
	for i := range 2 {
		if code, r, _ := appendJSON(t, lines(1), "-", "--id-prefix", "job-7"); code != exitOK || r.Duplicates != i {
			t.Errorf("piped in with a prefix: code %d, report %+v", code, r)
		}
	}
	if len(l.events) != 3 {
		t.Errorf("%d events are stored, want 3", len(l.events))
	}
	code, r, stderr := appendJSON(t, lines(10)+"{}\n", "-", "--batch", "5")
	if code != exitFailure || r.Stopped == nil || r.Stopped.Line != 11 ||
		!strings.HasSuffix(stderr, "; all before this line is stored, nothing after it: correct it and send the rest\n") {
		t.Errorf("code %d, report %+v, stderr %s", code, r, stderr)
	}
}

func TestAppendKeyIsWrong(t *testing.T) {
	l := newFakeLog(t)
	l.intercept = func(w http.ResponseWriter, _ int) bool { w.WriteHeader(http.StatusUnauthorized); return true }
	code, r, stderr := appendJSON(t, "", writeTemp(t, lines(3)))
	if code != exitFailure || r.Stopped.Line != 1 || !strings.Contains(stderr, "; give a valid key by --key-file FILE or TREELINE_KEY") || len(l.calls) != 1 {
		t.Errorf("code %d, report %+v, %d calls, stderr %s", code, r, len(l.calls), stderr)
	}
}

func TestAppendOneEvent(t *testing.T) {
	l := newFakeLog(t)
	l.lose = func(call int) bool { return call == 1 }
	code, stdout, stderr := runCommand(t, "", "append", "--action", "user.login", "--actor-id", "u1", "--user-agent", "curl", "--wait",
		"--metadata", "n=3", "--metadata", "method=sso", "--metadata", `tags=["a"]`)
	if code != exitOK || len(l.events) != 1 || len(l.calls) != 2 || l.calls[0] != "/v1/events?wait=signed" {
		t.Fatalf("code %d, %d events, calls %q, stderr %s", code, len(l.events), l.calls, stderr)
	}
	e := l.events[0]
	if want := fmt.Sprintf("found, already stored, %s at index 0 of log default (signed, leaf hash h)\n", e["id"]); stdout != want {
		t.Errorf("got %q, want %q", stdout, want)
	}
	delete(e, "id")
	got, _ := json.Marshal(e)
	if want := `{"action":"user.login","actor_id":"u1","metadata":{"method":"sso","n":3,"tags":["a"]},"user_agent":"curl"}`; string(got) != want {
		t.Errorf("sent %s\nwant %s", got, want)
	}
}

func TestAppendSaysWhenTheStateWasNotReached(t *testing.T) {
	l := newFakeLog(t)
	l.intercept = func(w http.ResponseWriter, _ int) bool {
		fmt.Fprint(w, `{"id":"x","log":"default","index":4,"state":"sequenced"}`)
		return true
	}
	code, _, stderr := runCommand(t, "", "append", "--action", "a", "--id", "x", "--wait")
	if code != exitFailure || stderr != "treeline: event x is stored for good but was not signed in time; get its proof later with: treeline proof x\n" {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
}

func TestMetadataValue(t *testing.T) {
	for text, want := range map[string]string{
		`viewer`:               `"viewer"`,
		``:                     `""`,
		`3`:                    `3`,
		`-0.5`:                 `-0.5`,
		`true`:                 `true`,
		`null`:                 `null`,
		`"3"`:                  `"3"`,
		`{"a": [1]}`:           `{"a":[1]}`,
		`{"a":`:                `"{\"a\":"`,
		`1.10`:                 `"1.10"`,
		`007`:                  `"007"`,
		`1e3`:                  `"1e3"`,
		`12345678901234567890`: `"12345678901234567890"`,
	} {
		if got, err := json.Marshal(metadataValue(text)); err != nil || string(got) != want {
			t.Errorf("metadata value %s: got %s, %v, want %s", text, got, err, want)
		}
	}
}
