package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaries is the directory of the programs that the tests run.
var binaries string

// TestMain builds the programs: the tools of this module, and Treeline as its own module builds it.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	code := 1
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func build() error {
	for _, args := range [][]string{
		{"build", "-o", binaries + "/", "tool"},
		{"build", "-C", filepath.Join("..", ".."), "-o", binaries + "/", "./cmd/treeline"},
	} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("go %q: %v\n%s", args, err, out)
		}
	}
	return nil
}

// process is a program that runs.
type process struct {
	cmd    *exec.Cmd
	output output        // stdout and stderr
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

// start runs a program until the test's end. What it wrote is shown if the test fails.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(filepath.Join(binaries, name), args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.WaitDelay = 10 * time.Second
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s wrote:\n%.20000s", name, p.output.String())
		}
	})
	return p
}

// run runs a program to its end, and returns what it wrote to stdout and its exit code.
func run(t testing.TB, name string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(binaries, name), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Logf("%s %q: %v: %s", name, args, err, &stderr)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// kill ends the process as a crash would.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// stop asks the process to end and waits until it has.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.exited
}

// hasExited reports whether the process has ended.
func (p *process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// eventually waits until what holds, which the test can't go on without; a process that ends meanwhile ends the test.
// The bound is for a machine that is stuck, and no claim about speed.
func eventually(t testing.TB, what string, holds func() bool, processes ...*process) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
		for _, p := range processes {
			if p.hasExited() {
				t.Fatalf("waiting until %s: %s ended: %v", what, filepath.Base(p.cmd.Path), p.cmd.ProcessState)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func write(t testing.TB, path, data string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
