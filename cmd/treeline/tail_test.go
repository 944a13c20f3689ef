package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// Who follows a log sees each event once, in order, from the newest few on, and may stop when they have seen enough.
func TestFollowingALog(t *testing.T) {
	p := serving(t, t.TempDir())
	add := func(from, to int) {
		t.Helper()
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, `{"id":"e%d","action":"a.b","actor":{"id":"u","name":"A\u001b[2J\nB"}}`+"\n", i)
		}
		p.mustPost(t, "/v1/events/batch", `{"events":[`+strings.TrimSuffix(strings.ReplaceAll(b.String(), "\n{", ",\n{"), "\n")+"]}", http.StatusCreated, new(any))
	}
	add(0, 5)
	cmd := exec.Command("treeline", "tail", "-f", "-n", "3", "--server", p.url)
	cmd.Env = append(cmd.Environ(), "TREELINE_KEY="+p.key)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for i := 2; i < 30; i++ {
		if i == 5 { // it follows by now, and is told of more while it does
			add(5, 8)
		}
		if i == 8 {
			add(8, 30)
		}
		if !lines.Scan() {
			t.Fatalf("it ended after %d: %s", i, stderr.String())
		}
		if line := lines.Text(); !strings.HasSuffix(line, fmt.Sprint("  e", i)) || !strings.Contains(line, `u (A\u001b[2J\u000aB)`) {
			t.Errorf("line %d: got %q", i, line)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("stopping it: got %v, %s", err, stderr.String())
	}
}
