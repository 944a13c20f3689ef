// Package s3test starts private S3 servers for tests. The server is Versity's gateway over files, which is built from the module
// that .ci/servers.mod names; go keeps the program in its build cache. It needs a temporary directory whose file system has
// extended attributes: kept in files beside the objects (--sidecar), ETags change apart from them, and two writes can pass one
// condition.
package s3test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// AccessKey and SecretKey are those of the server's owner.
const (
	AccessKey = "treeline"
	SecretKey = "correct-horse-battery"
)

// Bucket is there when a server starts, and empty.
const Bucket = "fences"

// program returns the path of the server's program.
var program = sync.OnceValues(func() (string, error) {
	mod, err := output("go", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	return output("go", "tool", "-modfile="+filepath.Join(filepath.Dir(mod), ".ci", "servers.mod"), "-n", "versitygw")
})

func output(name string, args ...string) (string, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", cmd, err, &stderr)
	}
	return strings.TrimSpace(string(out)), nil
}

// LockingBucket is there, too, when a server with versions starts: it was made with object lock.
const LockingBucket = "locking"

// A Server is an S3 server on a port of 127.0.0.1.
type Server struct {
	dir     string
	args    []string
	addr    string
	process *os.Process
	ended   chan struct{} // closed when the process has ended
}

// Start starts a server, which ends with the test. Until then the environment has its credentials.
func Start(t *testing.T) *Server {
	t.Helper()
	return start(t)
}

// StartWithVersions starts one that keeps versions of objects in the LockingBucket.
func StartWithVersions(t *testing.T) *Server {
	t.Helper()
	s := start(t, "--versioning-dir", t.TempDir())
	err := s.client(t).MakeBucket(t.Context(), LockingBucket, minio.MakeBucketOptions{ObjectLocking: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func start(t *testing.T, args ...string) *Server {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", SecretKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := &Server{dir: t.TempDir(), args: args, addr: l.Addr().String()}
	s.Run(t)
	t.Cleanup(s.Kill)
	if err := s.client(t).MakeBucket(t.Context(), Bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

// Addr returns the server's address.
func (s *Server) Addr() string { return s.addr }

// URL returns the URL of a fence with that prefix.
func (s *Server) URL(prefix string) string { return URL(s.addr, prefix) }

// URL returns the URL of a fence behind an address, which may be a proxy's.
func URL(addr, prefix string) string {
	return "s3://" + Bucket + "/" + prefix + "?endpoint=http://" + addr
}

// Run starts a server that was killed, and waits until it listens.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, slices.Concat([]string{"--port", s.addr, "--quiet", "posix"}, s.args, []string{s.dir})...)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.ended = make(chan struct{})
	started := make(chan error)
	go func() {
		// The death signal comes when the thread ends that started the process, so this one stays until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // killed
		}
		close(s.ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	s.process = cmd.Process
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-s.ended:
			t.Fatalf("the S3 server ended: %s", &out)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("the S3 server doesn't answer")
}

// Kill ends the server at once.
func (s *Server) Kill() {
	_ = s.process.Kill() // it may have ended
	<-s.ended
}

// Put writes an object.
func (s *Server) Put(t testing.TB, key string, content []byte) {
	t.Helper()
	s.PutIn(t, Bucket, key, content)
}

// PutIn writes an object in a bucket.
func (s *Server) PutIn(t testing.TB, bucket, key string, content []byte) {
	t.Helper()
	_, err := s.client(t).PutObject(t.Context(), bucket, key, bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// Versions returns the contents of all versions of an object.
func (s *Server) Versions(t testing.TB, bucket, key string) (all [][]byte) {
	t.Helper()
	c := s.client(t)
	for o := range c.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Prefix: key, WithVersions: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		r, err := c.GetObject(t.Context(), bucket, key, minio.GetObjectOptions{VersionID: o.VersionID})
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, content)
	}
	return all
}

func (s *Server) client(t testing.TB) *minio.Client {
	t.Helper()
	c, err := minio.New(s.addr, &minio.Options{Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
