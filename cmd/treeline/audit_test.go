package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/witness/monitor"
)

// third runs treeline audit with a policy of the keys, on a state directory that stays.
type third struct {
	t     *testing.T
	dir   string
	flags []string
}

func newThird(t *testing.T, policy string, flags ...string) *third {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "policy"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return &third{t, dir, append([]string{"audit", "--policy", filepath.Join(dir, "policy"), "--state", filepath.Join(dir, "state")}, flags...)}
}

// exits runs the command, which must end with the code, and returns what it wrote.
func (a *third) exits(want int, flags ...string) string {
	a.t.Helper()
	code, out, err := treeline(append(a.flags, flags...)...)
	if err != nil || code != want {
		a.t.Fatalf("treeline audit %q: exit code %d, %v, want %d\n%s", flags, code, err, want, out)
	}
	return out
}

// A third party follows a real server's logs as they grow: public and private, in runs of their own and in a process that stays.
func TestAuditFollowsARealServer(t *testing.T) {
	p := serving(t, t.TempDir(), "--checkpoint-interval", "20ms", "--url", "https://audit.example.com")
	var open struct{ VKeys []string }
	p.mustPost(t, "/v1/logs", `{"name":"open","public":true}`, http.StatusCreated, &open)
	var private logPage
	p.mustGetJSON(t, "/v1/checkpoint", &private)
	a := newThird(t, "log "+open.VKeys[0]+"\nlog "+private.VKeys[0]+"\nquorum none\n")

	grow(t, p, "open", 0, 700)
	out := a.exits(exitOK, p.url+"/logs/open")
	if !strings.Contains(out, "nothing was known of it before") || !strings.Contains(out, "audit.example.com/logs/open") {
		t.Errorf("first contact:\n%s", out)
	}
	grow(t, p, "open", 700, 1000)
	var report struct {
		Verdict string
		Logs    []struct {
			Kind         string
			Size, Read   uint64
			FirstContact bool `json:"first_contact"`
		}
	}
	if err := json.Unmarshal([]byte(a.exits(exitOK, "--json", p.url+"/logs/open")), &report); err != nil {
		t.Fatal(err)
	}
	if l := report.Logs[0]; report.Verdict != "OK" || l.Size != 1000 || l.Read != 300 || l.FirstContact || l.Kind != "chained" {
		t.Errorf("%+v, want the 300 new entries of 1000 read", report)
	}

	// The log that isn't public needs a key, which is in no output.
	if out := a.exits(exitFailure, p.url+"/logs/default"); !strings.Contains(out, "private") {
		t.Errorf("without a key:\n%s", out)
	}
	if out := a.exits(exitOK, "--key", p.key, p.url+"/logs/default", p.url+"/logs/open"); strings.Contains(out, p.key) {
		t.Errorf("the key is shown:\n%s", out)
	}
	file := filepath.Join(p.dir, "admin.key")
	if out := a.exits(exitOK, "--key-file", file, p.url+"/logs/default"); strings.Contains(out, p.key) {
		t.Errorf("the key is shown:\n%s", out)
	}
	a.exits(exitOK, "--key-file", strings.TrimPrefix(p.url, "http://")+"="+file, p.url+"/logs/default")
	a.exits(exitFailure, "--key-file", file+".none", p.url+"/logs/default")
	t.Setenv("TREELINE_KEY_FILE", file) // is for the commands that are this server's clients
	if out := a.exits(exitFailure, p.url+"/logs/default"); !strings.Contains(out, "private") {
		t.Errorf("with the key file of another command:\n%s", out)
	}
	if out := a.exits(exitFailure, "--key", p.key, p.url+"/logs/default", "https://elsewhere.example/logs/open"); !strings.Contains(out, "HOST=KEY") {
		t.Errorf("one key for two hosts:\n%s", out)
	}

	// A quorum that nobody gave is reported apart.
	cosigner, err := checkpoint.Seed{1}.Ed25519Cosigner("witness.example/w")
	if err != nil {
		t.Fatal(err)
	}
	strict := newThird(t, "log "+open.VKeys[0]+" "+p.url+"/logs/open\nwitness W "+cosigner.VKey()+"\nquorum W\n")
	if out := strict.exits(exitUnverified); !strings.Contains(out, "unmet") || !strings.Contains(out, "1000") {
		t.Errorf("the quorum:\n%s", out)
	}

	stayingAudit(t, a, p)
	if err := os.WriteFile(filepath.Join(a.dir, "state", checkpoint.OriginHash("audit.example.com/logs/open")+".state"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := a.exits(exitFailure, p.url+"/logs/open"); !strings.Contains(out, "damaged") {
		t.Errorf("a damaged state:\n%s", out)
	}
}

// What was stopped before it had checked anything doesn't say that all was checked.
func TestAuditStoppedBeforeARoundEnds(t *testing.T) {
	_, vkey, err := checkpoint.Seed{1}.Ed25519("audit.example.com/logs/acme", 0)
	if err != nil {
		t.Fatal(err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	o := auditOptions{vkeys: []string{vkey}, state: filepath.Join(t.TempDir(), "state"), interval: time.Hour,
		maxCheck: monitor.DefaultMaxCheck}
	err = audit(stopped, o, []string{"https://audit.example.com/logs/acme"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "before") {
		t.Errorf("got %v, want that nothing was checked", err)
	}
}

// Evidence that can't be written is shown, each time anew.
func TestEvidenceThatIsNotWrittenIsShown(t *testing.T) {
	var stderr strings.Builder
	a := auditor{stdout: io.Discard, stderr: &stderr}
	for _, notice := range []string{"first fork", "second fork"} {
		problem := &monitor.Problem{Verdict: monitor.Diverged, Kind: monitor.KindDiverged, Notice: notice}
		report := &monitor.Report{Verdict: monitor.Diverged, Logs: []*monitor.LogReport{{Problems: []*monitor.Problem{problem}}}}
		if err := a.print(report, false); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(stderr.String(), notice) {
			t.Errorf("got %q, want the %s in it", stderr.String(), notice)
		}
	}
}

// stayingAudit runs audit as a process that stays, while the log grows and another process wants its state.
func stayingAudit(t *testing.T, a *third, p *process) {
	cmd := exec.Command("treeline", append(a.flags, "--interval", "20ms", "--metrics-listen", "127.0.0.1:0", "--json", p.url+"/logs/open")...)
	var stderr output
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	rounds := bufio.NewScanner(stdout)
	rounds.Buffer(nil, 1<<20)
	for _, size := range []int{1000, 1100} {
		if size > 1000 {
			grow(t, p, "open", 1000, size)
		}
		text := `"size":` + map[int]string{1000: "1000,", 1100: "1100,"}[size]
		for !strings.Contains(rounds.Text(), text) {
			if !rounds.Scan() {
				t.Fatalf("audit ended: %s", stderr.String())
			}
		}
	}
	if out := a.exits(exitFailure, p.url+"/logs/open"); !strings.Contains(out, "another process") {
		t.Errorf("two processes share a state:\n%s", out)
	}
	_, address, _ := strings.Cut(stderr.String(), "metrics: ")
	resp, err := http.Get(strings.TrimSpace(address))
	if err != nil {
		t.Fatalf("%v; it wrote: %s", err, stderr.String())
	}
	metrics, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	for _, want := range []string{
		`treeline_audit_log_size{log="audit.example.com/logs/open"} 1100`,
		`treeline_audit_behind_entries{log="audit.example.com/logs/open"} 0`,
		`treeline_audit_failures_total{kind="diverged",log="audit.example.com/logs/open"} 0`,
		`treeline_audit_verdict{log="audit.example.com/logs/open"} 0`,
		`treeline_audit_verified_timestamp_seconds{log="audit.example.com/logs/open"} 1`,
	} {
		if !strings.Contains(string(metrics), want) {
			t.Errorf("metrics lack %s:\n%s", want, metrics)
		}
	}
	cmd.Process.Signal(syscall.SIGTERM)
	go io.Copy(io.Discard, stdout)
	done := time.AfterFunc(40*time.Second, func() { cmd.Process.Signal(syscall.SIGQUIT) })
	defer done.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("audit, asked to stop: %v\n%s", err, stderr.String())
	}
}

// An operator runs two servers with one seed: each shows its customers a history that is consistent in itself. Whoever sees both
// convicts it, with exit code 5 and the two notes.
func TestAuditNoticesTwoServersOfOneLog(t *testing.T) {
	one := serving(t, t.TempDir(), "--checkpoint-interval", "20ms", "--url", "https://audit.example.com")
	dir := t.TempDir()
	seed, err := os.ReadFile(filepath.Join(one.dir, "seed"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "seed"), seed, 0o600); err != nil {
		t.Fatal(err)
	}
	two := serving(t, dir, "--checkpoint-interval", "20ms", "--url", "https://audit.example.com")
	var made struct{ VKeys []string }
	for _, p := range []*process{one, two} {
		p.mustPost(t, "/v1/logs", `{"name":"acme","public":true}`, http.StatusCreated, &made)
	}
	grow(t, one, "acme", 0, 300)
	grow(t, two, "acme", 0, 400)
	policy := "log " + made.VKeys[0] + "\nquorum none\n"

	newThird(t, policy).exits(exitOK, two.url+"/logs/acme")
	a := newThird(t, policy)
	a.exits(exitOK, one.url+"/logs/acme")
	out := a.exits(exitDiverged, two.url+"/logs/acme")
	released := func(p *process) string {
		note, err := p.get("/logs/acme/checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(string(note)), "\n", "\n\t")
	}
	for _, want := range []string{"SECURITY ERROR", released(one), released(two), "proof of misbehavior:\n\tthe first 300 entries"} {
		if !strings.Contains(out, want) {
			t.Errorf("audit doesn't print %q:\n%s", want, out)
		}
	}
	files, err := os.ReadDir(filepath.Join(a.dir, "state", "evidence"))
	if err != nil || len(files) != 4 || !slices.IsSortedFunc(files, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) }) {
		t.Errorf("evidence: %v, %v, want two notes, the proof and the report", files, err)
	}
	// What was seen isn't forgotten, though both servers now show one history.
	a.exits(exitDiverged, one.url+"/logs/acme")
}
