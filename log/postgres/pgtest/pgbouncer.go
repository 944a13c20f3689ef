package pgtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Pooler starts a PgBouncer in transaction mode before the server of a database, with further lines of its configuration, and
// returns the database's URL by way of it. Where there is none it installs it. It ends with the test.
func Pooler(t testing.TB, direct string, settings ...string) string {
	t.Helper()
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	path, err := pgbouncer()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "treeline-pgbouncer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	conf := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = scram-sha-256\nauth_file = %s/users\npool_mode = transaction\n", u.Port(), port, dir)
	for _, line := range settings {
		conf += line + "\n"
	}
	for name, content := range map[string]string{"pgbouncer.ini": conf, "users": fmt.Sprintf("%q %q\n", User, Password)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := own(dir); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, filepath.Join(dir, "pgbouncer.ini"))
	cmd.Dir = "/"
	if cmd.SysProcAttr, err = unprivileged(); err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	logfile, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer logfile.Close()
	cmd.Stdout, cmd.Stderr = logfile, logfile
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // see Server.run
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // unless it has ended by itself
		<-ended
	})
	u.Host = net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	u.RawQuery = "sslmode=disable"
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", u.Host)
		if err == nil {
			c.Close()
			return u.String()
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("PgBouncer doesn't answer: %v; %s", err, text)
		}
	}
}

// pgbouncer returns the path of the program.
func pgbouncer() (string, error) {
	for _, path := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if path, err := exec.LookPath(path); err == nil {
			return path, nil
		}
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("there is no PgBouncer on this machine; install it (Debian: apt-get install pgbouncer)")
	}
	if err := Install("pgbouncer"); err != nil {
		return "", err
	}
	return exec.LookPath("/usr/sbin/pgbouncer")
}
