package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint/s3fence/s3test"
	"github.com/treeline-log/treeline/log/archive"
)

func open(t *testing.T, url string) archive.Archive {
	t.Helper()
	a, err := archive.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func lockURL(s *s3test.Server, prefix, mode string) string {
	url := "s3://" + s3test.LockingBucket + "/" + prefix + "?endpoint=http://" + s.Addr()
	if mode != "" {
		url += "&lock=" + mode + "&lock_for=30d"
	}
	return url
}

func content(text string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, text); return err }
}

func read(t *testing.T, a archive.Archive, name string) string {
	t.Helper()
	r, err := a.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// An object is in an archive wholly or not at all, once, whatever the archive is.
func TestArchives(t *testing.T) {
	s := s3test.StartWithVersions(t)
	dir := t.TempDir()
	for name, url := range map[string]string{
		"directory": "dir:" + filepath.Join(dir, "a", "b"), "bucket": s.URL("some/prefix"), "bucket with versions": lockURL(s, "x", ""),
		"locking bucket": lockURL(s, "y", "governance"),
	} {
		t.Run(name, func(t *testing.T) { testArchive(t, open(t, url), strings.HasPrefix(name, "locking")) })
	}
}

func testArchive(t *testing.T, a archive.Archive, locks bool) {
	ctx := t.Context()
	const name = "test.example/logs/acme/000000000000-000000000100.zip"
	list := func(prefix, want string) {
		t.Helper()
		names, err := a.List(ctx, prefix)
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("the names that begin with %q: got %v, %v, want %s", prefix, names, err, want)
		}
	}
	list("", "")
	list("test.example/logs/acme/", "")
	if _, err := a.Open(ctx, name); !errors.Is(err, archive.ErrNotFound) {
		t.Errorf("what isn't there: got %v", err)
	}
	if err := a.Forget(ctx, name); err != nil {
		t.Errorf("what isn't there is forgotten: got %v", err)
	}
	broken := func(w io.Writer) error {
		_, err := io.WriteString(w, strings.Repeat("half of it ", 10000))
		return errors.Join(err, io.ErrClosedPipe)
	}
	if err := a.Put(ctx, name, broken); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write that fails: got %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	if err := a.Put(ended, name, func(w io.Writer) error { cancel(); return content("half")(w) }); !errors.Is(err, context.Canceled) {
		t.Errorf("a write that is given up: got %v", err)
	}
	list("", "")
	if err := a.Put(ctx, name, content("first")); err != nil {
		t.Fatal(err)
	}
	if err := a.Put(ctx, name, content("second")); !errors.Is(err, archive.ErrExists) {
		t.Errorf("a name that is taken: got %v", err)
	}
	if got := read(t, a, name); got != "first" {
		t.Errorf("got %q", got)
	}
	if err := a.Replace(ctx, name, broken); !errors.Is(err, io.ErrClosedPipe) || read(t, a, name) != "first" {
		t.Errorf("a replacement that fails: got %v", err)
	}
	if err := a.Replace(ctx, name, content("third")); locks != errors.Is(err, archive.ErrLocked) || !locks && err != nil {
		t.Errorf("a replacement: got %v", err)
	}
	if got := read(t, a, name); got != "third" {
		t.Errorf("replaced: got %q", got)
	}
	if err := a.Replace(ctx, "test.example/logs/acne/000000000000-000000000007.zip", content("other")); err != nil {
		t.Errorf("a replacement of nothing: got %v", err)
	}
	list("", name+" test.example/logs/acne/000000000000-000000000007.zip")
	list("test.example/logs/acme/", name)
	list("test.example/logs/acme/000000000000-", name)
	list("test.example/logs/acme/000000000100-", "")
	list("test.example/logs/ac", name+" test.example/logs/acne/000000000000-000000000007.zip")

	// Of many who write one name, one does.
	var wrote atomic.Int32
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			err := a.Put(ctx, "test.example/logs/acme/000000000100-000000000200.zip", content(strings.Repeat(fmt.Sprint(i), 1000)))
			if err == nil {
				wrote.Add(1)
			} else if !errors.Is(err, archive.ErrExists) {
				t.Error(err)
			}
		})
	}
	group.Wait()
	text := read(t, a, "test.example/logs/acme/000000000100-000000000200.zip")
	if wrote.Load() != 1 || text != strings.Repeat(text[:1], 1000) {
		t.Errorf("%d have written one name, which holds %.20q…", wrote.Load(), text)
	}
}

// Nothing that was in a directory is left of it after it was replaced, nor of a write that a crash interrupted.
func TestDirForgets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := open(t, "dir:"+dir)
	const name = "test.example/logs/acme/000000000000-000000000100.zip"
	if err := a.Put(t.Context(), name, content("a secret")); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "test.example/logs/acme/.000000000000-000000000100.zip.123")
	if err := os.WriteFile(left, []byte("a secret, half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := a.List(t.Context(), ""); err != nil || len(names) != 1 {
		t.Errorf("got %v, %v", names, err)
	}
	if err := a.Replace(t.Context(), name, content("nothing")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "secret") {
			t.Errorf("%s still has it", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	for _, name := range []string{"../x", "/x", "a/../../x", "a/.hidden", ""} {
		if err := a.Put(t.Context(), name, content("x")); err == nil {
			t.Errorf("%q was written", name)
		}
	}
}

// A Put that was interrupted, by the end of its process say, leaves nothing once there is another one of the same name.
func TestDirPutLeavesNothingOfEarlierOnes(t *testing.T) {
	dir := t.TempDir()
	a := open(t, "dir:"+dir)
	if err := os.MkdirAll(filepath.Join(dir, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	leave := func() string {
		path := filepath.Join(dir, "x", ".a.zip.12345")
		if err := os.WriteFile(path, []byte("half of it"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	left := leave()
	if err := a.Put(t.Context(), "x/a.zip", content("all of it")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left is there still: %v", err)
	}
	leave()
	if err := a.Put(t.Context(), "x/a.zip", content("something else")); !errors.Is(err, archive.ErrExists) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) || read(t, a, "x/a.zip") != "all of it" {
		t.Errorf("what was left is there still: %v", err)
	}
}

// In a bucket with versions nothing is left of what was replaced, but for what the lock keeps, of which it is told until when.
func TestS3Forgets(t *testing.T) {
	s := s3test.StartWithVersions(t)
	const name = "test.example/logs/acme/000000000000-000000000100.zip"
	versions := func(prefix string) []string {
		var all []string
		for _, v := range s.Versions(t, s3test.LockingBucket, prefix+"/"+name) {
			all = append(all, string(v))
		}
		slices.Sort(all)
		return all
	}
	free := open(t, lockURL(s, "free", ""))
	for _, text := range []string{"one", "two", "three"} {
		if err := free.Replace(t.Context(), name, content(text)); err != nil {
			t.Fatal(err)
		}
	}
	if got := versions("free"); fmt.Sprint(got) != "[three]" {
		t.Errorf("left are %v", got)
	}
	for _, mode := range []string{"compliance", "governance"} {
		locked := open(t, lockURL(s, mode, mode))
		if err := locked.Put(t.Context(), name, content("one")); err != nil {
			t.Fatal(err)
		}
		err := locked.Replace(t.Context(), name, content("two"))
		var lock *archive.LockedError
		if !errors.As(err, &lock) || !errors.Is(err, archive.ErrLocked) || lock.Name != name ||
			time.Until(lock.Until) < 29*24*time.Hour || time.Until(lock.Until) > 31*24*time.Hour {
			t.Errorf("%s: got %v", mode, err)
		}
		if got := versions(mode); fmt.Sprint(got) != "[one two]" || read(t, locked, name) != "two" {
			t.Errorf("%s: versions are %v, readers get %s", mode, got, read(t, locked, name))
		}
		if err := locked.Forget(t.Context(), name); !errors.Is(err, archive.ErrLocked) {
			t.Errorf("%s: once more: got %v", mode, err)
		}
	}
}

// However an upload is interrupted, the object is whole or isn't there, and can be written afterwards.
func TestS3ServerIsKilledInMidUpload(t *testing.T) {
	s := s3test.StartWithVersions(t)
	a := open(t, lockURL(s, "x", "governance"))
	text := bytes.Repeat([]byte("0123456789abcdef"), 2<<20) // 32 MiB
	interrupted := 0
	for i := range 8 {
		name := archive.Name("test.example/logs/acme", uint64(i), uint64(i+1))
		done := make(chan error)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		begun := make(chan struct{})
		go func() {
			done <- a.Put(ctx, name, func(w io.Writer) error {
				_, err := w.Write(text)
				close(begun)
				return err
			})
		}()
		<-begun
		time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
		s.Kill()
		time.Sleep(10 * time.Millisecond)
		s.Run(t)
		err := <-done
		cancel()
		if err != nil {
			interrupted++
		}
		r, openErr := a.Open(t.Context(), name)
		if openErr == nil {
			got, readErr := io.ReadAll(r)
			r.Close()
			if readErr != nil || !bytes.Equal(got, text) {
				t.Errorf("upload %d left %d bytes of %d, %v", i, len(got), len(text), readErr)
			}
		} else if !errors.Is(openErr, archive.ErrNotFound) || err == nil {
			t.Errorf("upload %d: got %v, then %v", i, err, openErr)
		}
		if err := a.Put(t.Context(), name, content("again")); (openErr == nil) != errors.Is(err, archive.ErrExists) || openErr != nil && err != nil {
			t.Errorf("upload %d again: got %v", i, err)
		}
	}
	t.Logf("%d of 8 uploads failed", interrupted)
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		origin   string
		from, to uint64
		name     string
	}{
		{"test.example/logs/acme", 0, 100, "test.example/logs/acme/000000000000-000000000100.zip"},
		{"test.example:8080/logs/a", 100_000, 1e12, "test.example:8080/logs/a/000000100000-1000000000000.zip"},
	} {
		if got := archive.Name(tt.origin, tt.from, tt.to); got != tt.name {
			t.Errorf("got %s, want %s", got, tt.name)
		}
		if origin, from, to, ok := archive.ParseName(tt.name); !ok || origin != tt.origin || from != tt.from || to != tt.to {
			t.Errorf("%s: got %s, %d, %d, %v", tt.name, origin, from, to, ok)
		}
	}
	for _, name := range []string{
		"", "x", "test.example/logs/acme", "test.example/logs/acme/0-100.zip", "test.example/logs/acme/000000000000-000000000100",
		"test.example/logs/acme/000000000100-000000000000.zip", "test.example/logs/acme/000000000000-000000000100.zip.zip",
		"test.example/logs/acme/000000000000-+00000000100.zip", "/000000000000-000000000100.zip",
		"test.example/logs/ACME/000000000000-000000000100.zip", "test.example/logs/acme/000000000000.zip",
	} {
		if origin, from, to, ok := archive.ParseName(name); ok {
			t.Errorf("%q: got %s, %d, %d", name, origin, from, to)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	s := s3test.StartWithVersions(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{
		"":                                    "dir:PATH",
		"dir:":                                "dir:PATH",
		"/var/archive":                        "dir:PATH",
		"dir:" + file:                         "not a directory",
		"s3://":                               "s3://BUCKET/PREFIX",
		"s3://b/x?lok=compliance":             `"lok"`,
		lockURL(s, "x", "forever"):            "compliance or governance",
		lockURL(s, "x", "") + "&lock_for=30d": "go together",
		s.URL("x") + "&lock=compliance&lock_for=30d":     "can't lock objects",
		s.URL("x") + "&lock=compliance&lock_for=forever": "lock_for",
		s.URL("x") + "&lock=compliance&lock_for=1h":      "lock_for",
		"s3://none/x?endpoint=http://" + s.Addr():        "no such bucket",
	} {
		a, err := archive.Open(t.Context(), url)
		if err == nil {
			a.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want something about %s", url, err, want)
		}
	}
}
