package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An event that has come further than to the state which is waited for has reached that, too.
func TestAppendWaitsForAState(t *testing.T) {
	l := newFakeLog(t)
	state := ""
	l.intercept = func(w http.ResponseWriter, _ int) bool {
		fmt.Fprintf(w, `{"id":"x","log":"default","index":4,"state":%q}`, state)
		return true
	}
	for _, row := range []struct {
		wait, state string
		want        int
	}{
		{"--wait", "sequenced", exitFailure},
		{"--wait", "signed", exitOK},
		{"--wait", "witnessed", exitOK},
		{"--wait=witnessed", "signed", exitFailure},
		{"--wait=witnessed", "witnessed", exitOK},
	} {
		state = row.state
		if code, _, stderr := runCommand(t, "", "append", "--action", "a", row.wait); code != row.want {
			t.Errorf("%s of what is %s: exit code %d, want %d: %s", row.wait, row.state, code, row.want, stderr)
		}
	}
	if last := l.calls[len(l.calls)-1]; last != "/v1/events?wait=witnessed" {
		t.Errorf("got the call %s", last)
	}
	calls := len(l.calls)
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--wait=sequenced"}, "want signed or witnessed"},
		{[]string{"--wait", "witnessed"}, "write --wait=witnessed"},
	} {
		code, _, stderr := runCommand(t, "", append([]string{"append", "--action", "a"}, row.args...)...)
		if code != exitFailure || !strings.Contains(stderr, row.want) {
			t.Errorf("%q: exit code %d, stderr %q, want %q", row.args, code, stderr, row.want)
		}
	}
	if len(l.calls) != calls {
		t.Errorf("what was refused was sent: %q", l.calls[calls:])
	}
}

// Witnesses may take longer than a server waits, so a hub proof is asked for again.
func TestHubProofIsWaitedFor(t *testing.T) {
	l := newFakeLog(t)
	l.intercept = func(w http.ResponseWriter, call int) bool {
		if call < 3 {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"code":"not_witnessed"}`)
			return true
		}
		fmt.Fprint(w, "treeline/hub-proof@v1\n")
		return true
	}
	file := filepath.Join(t.TempDir(), "proof")
	if code, _, stderr := runCommand(t, "", "proof", "x", "--hub", "-o", file); code != exitOK || len(l.calls) != 3 {
		t.Errorf("exit code %d after %d calls: %s", code, len(l.calls), stderr)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	l.calls = nil
	code, _, stderr := runCommand(t, "", "proof", "x", "--hub", "-o", file, "--retry-for", "1ms")
	if code != exitFailure || !strings.Contains(stderr, "witnesses haven't cosigned") {
		t.Errorf("exit code %d, stderr %q, want that witnesses are waited for", code, stderr)
	}
}
