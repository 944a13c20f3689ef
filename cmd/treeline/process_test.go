package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// raceEnv keeps the race detector from letting every process sleep for a second at its end.
const raceEnv = "atexit_sleep_ms=0"

// TestMain lets the test binary be treeline itself, found in PATH under that name: what scripts and process tests run is
// the program from main on, in a process of its own, under the race detector if the tests are.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", raceEnv)
	}
	testscript.Main(m, map[string]func(){"treeline": main, "curl": curl})
}

// process is a running treeline serve.
type process struct {
	cmd    *exec.Cmd
	dir    string // --data-dir
	url    string // of the public listener
	ops    string // of the operator's listener
	key    string // the admin key
	stdout string // what it printed until it was ready
	stderr output
	exited chan struct{} // closed when it has ended
}

// output collects what a process writes while others read it.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// newProcess returns a treeline serve that isn't started yet, on free ports.
func newProcess(dataDir string, flags ...string) *process {
	p := &process{dir: dataDir, exited: make(chan struct{})}
	p.cmd = exec.Command("treeline", append([]string{
		"serve", "--data-dir", dataDir, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0",
	}, flags...)...)
	p.cmd.Stderr = &p.stderr
	return p
}

// launch starts treeline serve in the working directory cwd, and returns when it has said where it
// listens, or, with the error, when it has ended instead. Without an env it has that of the tests.
func launch(cwd string, env []string, dataDir string, flags ...string) (*process, error) {
	p := newProcess(dataDir, flags...)
	p.cmd.Dir, p.cmd.Env = cwd, env
	if err := p.start("}}'\n"); err != nil { // the end of the call to paste
		return p, err
	}
	key, err := os.ReadFile(filepath.Join(cwd, dataDir, "admin.key"))
	if filepath.IsAbs(dataDir) {
		key, err = os.ReadFile(filepath.Join(dataDir, "admin.key"))
	}
	p.key = strings.TrimSpace(string(key))
	return p, err
}

// start starts the process, and returns when its greeting has come to an end, or, with the error, when it has ended instead.
func (p *process) start(end string) error {
	stdout, out, err := os.Pipe()
	if err != nil {
		return err
	}
	p.cmd.Stdout = out
	err = p.cmd.Start()
	out.Close()
	if err != nil {
		stdout.Close()
		return err
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	lines := bufio.NewReader(stdout)
	for {
		line, err := lines.ReadString('\n')
		p.stdout += line
		if err != nil {
			stdout.Close()
			<-p.exited
			return fmt.Errorf("treeline: %v; it wrote:\n%s", p.cmd.ProcessState, p.stderr.String())
		}
		if _, url, ok := strings.Cut(line, " is listening on "); ok {
			p.url = strings.TrimSpace(url)
		}
		if url, ok := strings.CutPrefix(line, "Metrics and health for the operator: "); ok {
			p.ops = strings.TrimSuffix(strings.TrimSpace(url), "/metrics")
		}
		if strings.HasSuffix(p.stdout, end) {
			break
		}
	}
	go func() {
		io.Copy(io.Discard, lines)
		stdout.Close()
	}()
	return nil
}

// kill ends the process as a crash would, and waits until it is gone.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// stop asks the process to end, waits until it has, and returns how that went wrong.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-time.After(40 * time.Second):
		p.cmd.Process.Signal(syscall.SIGQUIT) // where does it hang?
		<-p.exited
		return fmt.Errorf("treeline serve didn't stop:\n%s", p.stderr.String())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("treeline serve ended with %v:\n%s", p.cmd.ProcessState, p.stderr.String())
	}
	return nil
}

// healthy returns an error if the process wrote what no healthy one writes.
func (p *process) healthy() error { return p.wrote("DATA RACE", "panic", "level=ERROR") }

// wrote returns an error if the process wrote one of the texts.
func (p *process) wrote(texts ...string) error {
	for _, bad := range texts {
		if text := p.stderr.String(); strings.Contains(text, bad) {
			return fmt.Errorf("treeline serve wrote:\n%s", text)
		}
	}
	return nil
}

// serving launches a server for a test, and stops it at the test's end if it still runs.
func serving(t *testing.T, dir string, flags ...string) *process {
	t.Helper()
	return servingWith(t, (*process).healthy, dir, flags...)
}

// servingWith is serving with another judge of what the server wrote.
func servingWith(t *testing.T, judge func(*process) error, dir string, flags ...string) *process {
	t.Helper()
	p, err := launch("", nil, dir, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-p.exited:
		default:
			if err := p.stop(); err != nil {
				t.Error(err)
			}
		}
		if err := judge(p); err != nil {
			t.Error(err)
		}
	})
	return p
}

// httpClient keeps connections for as many clients as a test runs at once.
var httpClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 60 * time.Second}

// answer is an HTTP answer that was read to its end.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// call sends a request with the admin key. The header is pairs of names and values.
func (p *process) call(method, path string, body []byte, header ...string) (*answer, error) {
	req, err := http.NewRequest(method, p.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &answer{resp.StatusCode, resp.Header, data}, nil
}

// get returns the body at path, which must be there.
func (p *process) get(path string) ([]byte, error) {
	a, err := p.call(http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %d %s", path, a.status, a.body)
	}
	return a.body, nil
}

// getJSON decodes the body at path.
func (p *process) getJSON(path string, v any) error {
	data, err := p.get(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// mustGetJSON is getJSON in the test's own goroutine.
func (p *process) mustGetJSON(t *testing.T, path string, v any) {
	t.Helper()
	if err := p.getJSON(path, v); err != nil {
		t.Fatal(err)
	}
}

// mustPost sends JSON that must be answered with status, and decodes the answer.
func (p *process) mustPost(t *testing.T, path, body string, status int, v any) {
	t.Helper()
	a, err := p.call(http.MethodPost, path, []byte(body), "Content-Type", "application/json")
	if err != nil {
		t.Fatal(err)
	}
	if a.status != status {
		t.Fatalf("POST %s: %d %s, want %d", path, a.status, a.body, status)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatal(err)
	}
}

// storedRecord is a record as a client reads it, the event in its very bytes.
type storedRecord struct {
	ID         string          `json:"id"`
	Log        string          `json:"log"`
	Index      uint64          `json:"index"`
	Hash       string          `json:"hash"`
	State      string          `json:"state"`
	ReceivedAt string          `json:"received_at"`
	Previous   string          `json:"previous_hash"`
	Event      json.RawMessage `json:"event"`
	Seed       string          `json:"seed"`
	Duplicate  bool            `json:"duplicate"`
	Proof      string          `json:"proof"`
}

// differs says in what two records of one event differ, beyond what may: how far it has come, and what belongs to one
// answer only.
func (r storedRecord) differs(o storedRecord) string {
	r.State, r.Duplicate, r.Proof, o.State, o.Duplicate, o.Proof = "", false, "", "", false, ""
	a, errA := json.Marshal(r)
	b, errB := json.Marshal(o)
	if err := errors.Join(errA, errB); err != nil {
		return err.Error()
	}
	if !bytes.Equal(r.Event, o.Event) || !bytes.Equal(a, b) {
		return fmt.Sprintf("\n%s\n%s", a, b)
	}
	return ""
}

// logPage is an answer of /v1/checkpoint.
type logPage struct {
	Origin     string   `json:"origin"`
	VKeys      []string `json:"vkeys"`
	Checkpoint string   `json:"checkpoint"`
	Sizes      struct {
		Size, Signed, Released uint64
	} `json:"sizes"`
}

// openNote checks a checkpoint with nothing but the log's verifier key.
func openNote(vkey, msg string) (checkpoint.Checkpoint, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return checkpoint.Checkpoint{}, err
	}
	c, _, err := checkpoint.Open([]byte(msg), v.Name(), v)
	return c, err
}

// proofAnswer is an answer of /v1/proofs/inclusion or /v1/proofs/consistency.
type proofAnswer struct {
	Index, Size, From, To uint64
	Hash                  string   `json:"hash"`
	Hashes                []string `json:"hashes"`
	Root                  string   `json:"root"`
	RootFrom              string   `json:"root_from"`
	RootTo                string   `json:"root_to"`
	Checkpoint            string   `json:"checkpoint"`
}

// proof returns the proof's hashes.
func (p *proofAnswer) proof() ([]merkle.Hash, error) {
	out := make([]merkle.Hash, len(p.Hashes))
	for i, text := range p.Hashes {
		var err error
		if out[i], err = parseHash(text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// parseHash reads a hash in the one form that the interface shows it in.
func parseHash(text string) (h merkle.Hash, err error) {
	data, err := hex.DecodeString(text)
	if err == nil && (len(data) != merkle.HashSize || hex.EncodeToString(data) != text) {
		err = fmt.Errorf("%q is not a hash in lower-case hex", text)
	}
	copy(h[:], data)
	return h, err
}

// treeline runs a command of the program to its end.
func treeline(args ...string) (code int, out string, err error) {
	var stderr bytes.Buffer
	cmd := exec.Command("treeline", args...)
	cmd.Stderr = &stderr
	data, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return 0, "", err
	}
	return cmd.ProcessState.ExitCode(), string(data) + stderr.String(), nil
}

// mustFsck runs treeline fsck, which must find nothing wrong.
func mustFsck(t *testing.T, dir string, flags ...string) {
	t.Helper()
	code, out, err := treeline(append([]string{"fsck", "--data-dir", dir}, flags...)...)
	if err != nil || code != exitOK {
		t.Fatalf("treeline fsck: exit code %d, %v\n%s", code, err, out)
	}
}

// long reports whether the campaigns that take minutes are to be run.
func long() bool { return os.Getenv("TREELINE_TEST_LONG") != "" }
