package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runCommand runs treeline with args and returns its exit code and what it wrote.
func runCommand(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// writeTemp writes content to a new file and returns its name.
func writeTemp(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

type codedError int

func (e codedError) Error() string { return "coded" }
func (e codedError) ExitCode() int { return int(e) }

func TestExitCode(t *testing.T) {
	for _, row := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("any"), exitFailure},
		{codedError(exitDiverged), exitDiverged},
		{withHint(fmt.Errorf("verify: %w", codedError(exitInvalid)), "look"), exitInvalid},
	} {
		if got := exitCode(row.err); got != row.want {
			t.Errorf("exit code of %v: got %d, want %d", row.err, got, row.want)
		}
	}
}

func TestErrorsAreOneLineThatSaysWhatToDo(t *testing.T) {
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"append"}, "treeline: append: nothing to append; give an event by --action and other flags, an NDJSON FILE, or - for standard input\n"},
		{[]string{"append", "--actor-id", "a"}, "treeline: append: the event has no action; say what happened by --action\n"},
		{[]string{"append", "--bogus"}, "treeline: unknown flag: --bogus; see treeline append --help\n"},
		{[]string{"append", "f", "--action", "a"}, "treeline: append: both a file and an event are given; give the FILE or the event's flags\n"},
		{[]string{"append", "f", "--batch", "10001"}, "treeline: --batch 10001: want 1 to 10000 events\n"},
		{[]string{"append", "f", "--id-prefix", ".x"}, "treeline: --id-prefix \".x\": want 1 to 95 of A-Za-z0-9._:- that begin with a letter or digit\n"},
		{[]string{"append", "--action", "a", "--wait=released"}, "treeline: --wait=released: want signed or witnessed\n"},
		{[]string{"append", "--action", "a", "--metadata", "k"}, "treeline: --metadata \"k\": want KEY=VALUE in UTF-8, each KEY once\n"},
		{[]string{"append", "--action", "a\xff"}, "treeline: --action \"a\\xff\": not valid UTF-8\n"},
		{[]string{"proof"}, "treeline: treeline proof: got 0 arguments, want one EVENT_ID; see treeline proof --help\n"},
		{[]string{"proof", "../x"}, "treeline: proof of \"../x\": that is no id of an event\n"},
		{[]string{"key", "lost"}, "treeline: unknown command \"lost\" for \"treeline key\"\n"},
		{[]string{"key", "create"}, "treeline: key create: no role is given; say what the key may do by --role: " +
			"writer, reader, exporter, auditor or manager of one log, or admin of the server\n"},
		{[]string{"log", "list", "--server", "ftp://x"}, "treeline: --server is not the base URL of a server; give it like http://localhost:8080\n"},
		{[]string{"log", "list", "--server", "http://u:secret@x"}, "treeline: --server is not the base URL of a server; give it like http://localhost:8080\n"},
		{[]string{"bench", "--mode", "double"}, "treeline: --mode \"double\": want single or batch\n"},
	} {
		code, stdout, stderr := runCommand(t, "", row.args...)
		if code != exitFailure || stdout != "" || stderr != row.want {
			t.Errorf("treeline %q: code %d, stdout %q, stderr\ngot  %q\nwant %q", row.args, code, stdout, stderr, row.want)
		}
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	gone := httptest.NewServer(nil)
	gone.Close()
	code, _, stderr := runCommand(t, "", "log", "list", "--server", gone.URL, "--retry-for", "0")
	if code != exitFailure || !strings.HasPrefix(stderr, "treeline: list logs: "+gone.URL+": dial tcp") ||
		!strings.HasSuffix(stderr, "; is the server running? start one with: treeline serve, or name it by --server\n") {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
}

func TestEnvironmentSetsFlags(t *testing.T) {
	t.Setenv("TREELINE_BATCH", "many")
	if code, _, stderr := runCommand(t, "", "append", "f"); code != exitFailure ||
		stderr != "treeline: environment variable TREELINE_BATCH: not a value of type int for --batch\n" {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
	if code, _, stderr := runCommand(t, "", "append", "no-such-file", "--batch", "5"); code != exitFailure || !strings.Contains(stderr, "no-such-file") {
		t.Errorf("the command line should win: code %d, stderr %q", code, stderr)
	}
	t.Setenv("TREELINE_JSON", "true")
	if code, stdout, _ := runCommand(t, "", "version"); code != exitOK || !strings.HasPrefix(stdout, "{") {
		t.Errorf("code %d, stdout %q, want JSON", code, stdout)
	}
}

func TestHelpNamesTheVariableOfEveryFlag(t *testing.T) {
	for _, args := range [][]string{{"append"}, {"bench"}, {"key", "create"}, {"log", "list"}, {"proof"}} {
		_, stdout, _ := runCommand(t, "", append(args, "--help")...)
		_, flags, _ := strings.Cut(stdout, "\nFlags:\n")
		for line := range strings.Lines(flags) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, "--") {
				want := "[$TREELINE_" + strings.ToUpper(strings.ReplaceAll(name[2:], "-", "_")) + "]"
				if strings.Count(line, want) != 1 {
					t.Errorf("%v: help of %s doesn't name %s once: %s", args, name, want, line)
				}
			}
		}
	}
}

func TestKeyCreatePrintsOnlyTheKey(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusCreated)
		w.Write([]byte(`{"id":"abc","key":"tl_abc_secret_sum","role":"writer","log":"default","created_at":"2026-01-01T00:00:00.000000Z"}`))
	}))
	defer server.Close()
	code, stdout, stderr := runCommand(t, "", "key", "create", "--role", "writer", "--log", "default", "--server", server.URL)
	if code != exitOK || stdout != "tl_abc_secret_sum\n" || strings.Contains(stderr, "secret") || !strings.Contains(stderr, "writer of log default") {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestListFollowsPagesAndAlignsColumns(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			w.Write([]byte(`{"data":[{"name":"a","title":"A, Inc.","origin":"h/logs/a","public":true,"stopped":"rollback","sizes":{"size":12,"signed":11,"witnessed":9,"released":11}}],"next_cursor":"c","has_more":true}`))
			return
		}
		w.Write([]byte(`{"data":[{"name":"longer\u001b","origin":"h/logs/b","created_at":"2026","frozen":true}],"next_cursor":null,"has_more":false}`))
	}))
	defer server.Close()
	_, stdout, _ := runCommand(t, "", "log", "list", "--server", server.URL)
	want := `NAME          ORIGIN    SIZE  SIGNED  WITNESSED  RELEASED  PUBLIC  CREATED  STATE    TITLE
a             h/logs/a  12    11      9          11        yes     -        stopped  A, Inc.
longer\u001b  h/logs/b  0     0       0          0         no      2026     frozen   -
`
	if stdout != want {
		t.Errorf("got\n%s\nwant\n%s", stdout, want)
	}
	if _, stdout, _ := runCommand(t, "", "log", "list", "--json", "--server", server.URL); strings.Count(stdout, `"origin"`) != 2 {
		t.Errorf("JSON of two logs: %s", stdout)
	}
}

func TestProofIsSavedWholeOrNotAtAll(t *testing.T) {
	const proof = proofHeader + "index 0\n\ncheckpoint\n"
	answer := proof
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/events/ev:1/proof" || r.URL.Query().Get("wait") != "signed" || r.URL.Query().Get("log") != "x" {
			t.Errorf("called %s", r.URL)
		}
		w.Write([]byte(answer))
	}))
	defer server.Close()
	t.Chdir(t.TempDir())
	t.Setenv("TREELINE_SERVER", server.URL)
	code, stdout, stderr := runCommand(t, "", "proof", "ev:1", "--log", "x")
	if got, err := os.ReadFile("ev:1.tlog-proof"); err != nil || string(got) != proof || code != exitOK {
		t.Fatalf("code %d, %s; saved %q, %v", code, stderr, got, err)
	}
	if !strings.Contains(stdout, "treeline verify ev:1.tlog-proof --vkey") {
		t.Errorf("stdout doesn't say what to do next: %q", stdout)
	}
	if _, stdout, _ := runCommand(t, "", "proof", "ev:1", "--log", "x", "-o", "-"); stdout != proof {
		t.Errorf("-o -: got %q, want the proof", stdout)
	}

	answer = "<html>login</html>"
	if code, _, _ := runCommand(t, "", "proof", "ev:1", "--log", "x"); code != exitFailure {
		t.Errorf("a web page instead of a proof: code %d", code)
	}
	files, _ := os.ReadDir(".")
	if got, _ := os.ReadFile("ev:1.tlog-proof"); string(got) != proof || len(files) != 1 {
		t.Errorf("a failure changed the saved proof to %q, or left one of %d files", got, len(files))
	}
}
