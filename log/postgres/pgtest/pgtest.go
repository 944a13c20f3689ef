// Package pgtest starts private PostgreSQL servers for tests, from the machine's own binaries. Where there are none it installs
// them (apt, as root). A server lives in a temporary directory with its durable settings on, listens on a free port of
// 127.0.0.1, and ends with the process that started it. A test never uses a server that it finds running.
package pgtest

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq" // the driver
)

// User and Password are those of the server's superuser.
const (
	User     = "treeline"
	Password = "correct horse"
)

// Server is a private PostgreSQL server.
type Server struct {
	Dir  string // its data directory
	Port int

	settings []string
	ended    chan struct{} // closed when the process has ended
	process  *os.Process
}

// Start makes a server and starts it. The settings are lines of postgresql.conf, such as "max_wal_size = 4GB". It is stopped
// and removed when the test ends.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s, err := start(settings)
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	t.Cleanup(s.remove)
	return s
}

// shared is the server of a test binary, for tests that only want a database.
var shared struct {
	once   sync.Once
	server *Server
	err    error
	next   atomic.Int64
}

// Main runs the tests of a package and then stops the server that Database may have started. It is for TestMain.
func Main(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.server.remove()
	}
	os.Exit(code)
}

// Either runs the tests of a package as they are, on the embedded store, or, if TREELINE_TEST_STORE is postgres, with postgres set
// and without those whose names match skip. It is for TestMain, instead of Main.
func Either(m *testing.M, postgres *bool, skip string) {
	flag.Parse()
	if *postgres = os.Getenv("TREELINE_TEST_STORE") == "postgres"; *postgres {
		if given := flag.Lookup("test.skip").Value.String(); given != "" {
			skip += "|" + given
		}
		set("test.skip", skip)
		if flag.Lookup("rapid.checks") != nil {
			set("rapid.checks", "15") // of laws that hold on the embedded store, by round trips
		}
	}
	Main(m)
}

func set(name, value string) {
	if err := flag.Set(name, value); err != nil {
		panic(err) // the flags are the testing package's
	}
}

// Database returns the URL of a new, empty database, on a server that all tests of the binary share. The package's TestMain
// must be Main.
func Database(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = start(nil) })
	if shared.err != nil {
		t.Fatalf("starting PostgreSQL: %v", shared.err)
	}
	return shared.server.Database(t)
}

// Copy returns the URL of a new database that is a copy of another one of Database, to which nobody is connected.
func Copy(t testing.TB, of string) string {
	t.Helper()
	u, err := url.Parse(of)
	if err != nil {
		t.Fatal(err)
	}
	return shared.server.database(t, " TEMPLATE "+strings.TrimPrefix(u.Path, "/"))
}

// Database makes an empty database, and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	return s.database(t, "")
}

func (s *Server) database(t testing.TB, options string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", shared.next.Add(1))
	s.Exec(t, "postgres", "CREATE DATABASE "+name+options)
	return s.URL(name)
}

// URL returns the URL of a database.
func (s *Server) URL(database string) string {
	return URL(s.Port, database)
}

// At returns the URL of the database on this server that has the same name as the one that another URL leads to.
func (s *Server) At(other string) string {
	u, err := url.Parse(other)
	if err != nil {
		panic(err) // URLs are made here
	}
	return s.URL(strings.TrimPrefix(u.Path, "/"))
}

// URL returns the URL of a database behind a port of 127.0.0.1, which may be a proxy's.
func URL(port int, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(User, Password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/" + database,
		RawQuery: "sslmode=disable&connect_timeout=5",
	}
	return u.String()
}

// Exec runs a statement in a database.
func (s *Server) Exec(t testing.TB, database, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("postgres", s.URL(database))
	if err == nil {
		defer db.Close()
		_, err = db.Exec(statement, args...)
	}
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func start(settings []string) (*Server, error) {
	dir, err := os.MkdirTemp("", "treeline-pg")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: filepath.Join(dir, "data"), settings: settings}
	if err := s.init(dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := s.run(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// init makes the data directory.
func (s *Server) init(dir string) error {
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(Password), 0o600); err != nil {
		return err
	}
	if err := own(dir); err != nil {
		return err
	}
	_, err := Run("initdb", "-D", s.Dir, "-U", User, "--pwfile", password, "--auth", "scram-sha-256",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, line := range append([]string{"max_connections = 200", "shared_buffers = 256MB", "wal_level = replica"}, s.settings...) {
		if _, err := fmt.Fprintln(f, line); err != nil {
			return err
		}
	}
	return nil
}

// Clone returns a server, not started, whose data directory is a base backup of s.
func (s *Server) Clone(t testing.TB, settings ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "treeline-pg")
	if err != nil {
		t.Fatal(err)
	}
	c := &Server{Dir: filepath.Join(dir, "data")}
	t.Cleanup(c.remove)
	if err := own(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Run("pg_basebackup", "-d", s.URL("postgres"), "-D", c.Dir, "-X", "stream", "-c", "fast"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(c.Dir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, line := range settings {
		fmt.Fprintln(f, line)
	}
	return c
}

// StandBy makes a server that was cloned from the primary, and isn't started yet, a streaming standby of it.
func (s *Server) StandBy(t testing.TB, primary *Server) {
	t.Helper()
	conf := fmt.Sprintf("primary_conninfo = '%s'\n", strings.ReplaceAll(primary.URL("postgres"), "'", "''"))
	for name, content := range map[string]string{"postgresql.auto.conf": conf, "standby.signal": ""} {
		path := filepath.Join(s.Dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := own(s.Dir); err != nil {
		t.Fatal(err)
	}
}

// Run starts a server that is stopped, on the port that it had, and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) run() error {
	if s.Port == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.Port = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	path, err := program("postgres")
	if err != nil {
		return err
	}
	logfile, err := os.OpenFile(s.Dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logfile.Close()
	cmd := exec.Command(path, "-D", s.Dir, "-p", strconv.Itoa(s.Port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=")
	cmd.Stdout, cmd.Stderr = logfile, logfile
	cmd.Dir = "/"
	if cmd.SysProcAttr, err = unprivileged(); err != nil {
		return err
	}
	cmd.SysProcAttr.Setpgid = true // an interrupt of the tests is not one of the server
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	s.ended = make(chan struct{})
	started := make(chan error)
	go func() {
		// The death signal comes when the thread ends that started the process, so this one stays until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it was told to end
		}
		close(s.ended)
	}()
	if err := <-started; err != nil {
		return err
	}
	s.process = cmd.Process
	return s.await()
}

// await waits until the server answers.
func (s *Server) await() error {
	db, err := sql.Open("postgres", s.URL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for deadline := time.Now().Add(60 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := db.PingContext(ctx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			text, _ := os.ReadFile(s.Dir + ".log")
			return fmt.Errorf("PostgreSQL ended: %s", text)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("PostgreSQL doesn't answer: %w", err)
		}
	}
}

// Stop ends the server in order, as a shutdown of the machine does.
func (s *Server) Stop() { s.signal(syscall.SIGINT) }

// Quit ends the server at once, without a checkpoint (an "immediate" shutdown): what a crash does to it.
func (s *Server) Quit() { s.signal(syscall.SIGQUIT) }

func (s *Server) signal(sig syscall.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Signal(sig) // it may have ended
	<-s.ended
	s.process = nil
}

// Promote makes a standby a primary.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.Exec(t, "postgres", "SELECT pg_promote(true, 60)")
}

func (s *Server) remove() {
	s.Quit()
	os.RemoveAll(filepath.Dir(s.Dir))
}

// Run runs one of PostgreSQL's programs, as the user who runs servers, and returns its output.
func Run(name string, args ...string) (string, error) {
	path, err := program(name)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = "/"
	if cmd.SysProcAttr, err = unprivileged(); err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return string(out), nil
}

// installed has the directory of the server's programs.
var installed = sync.OnceValues(func() (string, error) {
	if dir := programs(); dir != "" {
		return dir, nil
	}
	if os.Geteuid() != 0 {
		return "", fmt.Errorf("there is no PostgreSQL server on this machine; install it (Debian: apt-get install postgresql)")
	}
	if err := Install("postgresql"); err != nil {
		return "", err
	}
	if dir := programs(); dir != "" {
		return dir, nil
	}
	return "", fmt.Errorf("the package postgresql has no server in /usr/lib/postgresql")
})

// Install installs a Debian package. It needs root.
func Install(name string) error {
	for _, args := range [][]string{{"update"}, {"install", "-y", "--no-install-recommends", name}} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// programs returns the directory of the newest server's programs, or "".
func programs() string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, path)
	}
	best, version := "", 0
	for _, path := range dirs {
		dir := filepath.Dir(path)
		if _, err := os.Stat(filepath.Join(dir, "postgres")); err != nil {
			continue
		}
		v, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if best == "" || v > version {
			best, version = dir, v
		}
	}
	return best
}

func program(name string) (string, error) {
	dir, err := installed()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// unprivileged makes a process run as the user postgres if this one runs as root, which PostgreSQL refuses.
func unprivileged() (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	uid, gid, err := account()
	if err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}, nil
}

func account() (uid, gid uint32, err error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return 0, 0, err
		}
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	group, err := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(id), uint32(group), err
}

// own gives a directory and all in it to the user who runs servers.
func own(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if _, err := installed(); err != nil { // which may make the user
		return err
	}
	uid, gid, err := account()
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(uid), int(gid))
	})
}
