package s3fence_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/checkpoint/fencetest"
	"github.com/treeline-log/treeline/checkpoint/s3fence"
	"github.com/treeline-log/treeline/checkpoint/s3fence/s3test"
)

func open(t *testing.T, url string) *s3fence.Fence {
	t.Helper()
	f, err := s3fence.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A place is a prefix of a bucket.
type place struct {
	*s3test.Server
	prefix string
}

func (p place) Open(t *testing.T) checkpoint.Fence { return open(t, p.URL(p.prefix)) }

func (p place) Put(t *testing.T, origin string, content []byte) {
	t.Helper()
	p.Server.Put(t, p.prefix+"/"+checkpoint.FenceName(origin), content)
}

func TestFence(t *testing.T) {
	s := s3test.Start(t)
	n := 0
	fencetest.Run(t, func(*testing.T) fencetest.Place {
		n++
		return place{s, fmt.Sprint("some/prefix-", n)}
	})
}

// A server is a server of the test's own.
type server struct{ *s3test.Server }

func (s server) Open(t *testing.T, addr string) checkpoint.Fence {
	return open(t, s3test.URL(addr, "remote"))
}

func (s server) Kill(*testing.T) { s.Server.Kill() }

func (s server) Start(t *testing.T) {
	t.Helper()
	s.Run(t)
}

func TestFenceBehindANetwork(t *testing.T) {
	fencetest.RunRemote(t, func(t *testing.T) fencetest.Server { return server{s3test.Start(t)} })
}

// Installations that share a bucket don't see each other's logs, and what else is in the bucket is nothing to a fence.
func TestPrefixesAreApart(t *testing.T) {
	s := s3test.Start(t)
	note := fencetest.Note(t, fencetest.Origin, 1, "honest")
	var fences []*s3fence.Fence
	for _, prefix := range []string{"", "a", "a/b", "ab"} {
		fences = append(fences, open(t, s.URL(prefix)))
	}
	s.Put(t, "a/note.txt", []byte("not a note"))
	s.Put(t, "a/"+strings.ToUpper(checkpoint.FenceName(fencetest.Origin)), []byte("not a note"))
	if err := fences[1].Swap(t.Context(), fencetest.Origin, nil, note); err != nil {
		t.Fatal(err)
	}
	for i, f := range fences {
		origins, err := f.Origins(t.Context())
		if want := i == 1; err != nil || (len(origins) == 1) != want {
			t.Errorf("%s: Origins = %q, %v", f, origins, err)
		}
		got, err := f.Load(t.Context(), fencetest.Origin)
		if want := i == 1; err != nil || (got != nil) != want {
			t.Errorf("%s: Load = %q, %v", f, got, err)
		}
	}
	// An object under another's name isn't overlooked.
	s.Put(t, "ab/"+checkpoint.FenceName("logs.example.com/logs/other"), note)
	if origins, err := fences[3].Origins(t.Context()); err == nil {
		t.Errorf("Origins = %q", origins)
	}
}

// More objects than the server lists at a time.
func TestManyLogs(t *testing.T) {
	s := s3test.Start(t)
	f := open(t, s.URL("many"))
	const n = 1100
	for i := range n {
		origin := fmt.Sprintf("logs.example.com/logs/tenant-%04d", i)
		s.Put(t, "many/"+checkpoint.FenceName(origin), fencetest.Note(t, origin, 1, "honest"))
	}
	origins, err := f.Origins(t.Context())
	if err != nil || len(origins) != n || origins[n-1] != "logs.example.com/logs/tenant-1099" {
		t.Errorf("Origins = %d, %v, want %d", len(origins), err, n)
	}
}

// A server that takes writes whose condition doesn't hold can't keep a fence, nor can one that refuses what does hold.
func TestAServerThatDoesNotMindConditionsIsRefused(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", s3test.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.SecretKey)
	for _, test := range []struct {
		name, want string
		minds      func(header http.Header, etag string) (refuse bool)
	}{
		{"nothing", "ignores If-None-Match", func(http.Header, string) bool { return false }},
		{"If-None-Match alone", "ignores If-Match", func(h http.Header, etag string) bool {
			return h.Get("If-None-Match") != "" && etag != ""
		}},
		{"If-Match alone", "ignores If-None-Match", func(h http.Header, etag string) bool {
			return h.Get("If-Match") != "" && h.Get("If-Match") != etag
		}},
		{"all but in doubt", "whose condition holds", func(http.Header, string) bool { return true }},
	} {
		const etag = `"0123456789abcdef0123456789abcdef"`
		stored := test.name == "all but in doubt"
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			now := ""
			if stored {
				now = etag
			}
			if r.Method == http.MethodPut && test.minds(r.Header, now) {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
			stored = true
			w.Header().Set("ETag", etag)
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		}))
		_, err := s3fence.Open(t.Context(), "s3://fences/x?endpoint="+s.URL)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("minds %s: Open = %v, want %q", test.name, err, test.want)
		}
		s.Close()
	}
}

// Servers that start at the same time all open the fence, also a new one.
func TestManyOpenAtOnce(t *testing.T) {
	s := s3test.Start(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f, err := s3fence.Open(t.Context(), s.URL("new"))
			if err != nil {
				t.Error(err)
				return
			}
			f.Close()
		})
	}
	wg.Wait()
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	s := s3test.Start(t)
	const secret = "hunter2"
	for _, test := range []struct{ url, want string }{
		{"s3://", "want a URL like s3://BUCKET"},
		{"https://" + secret + "/x", "want a URL like s3://BUCKET"},
		{"s3://bucket/%zz" + secret, "want a URL like s3://BUCKET"},
		{"s3://key:" + secret + "@bucket/x", "AWS_SECRET_ACCESS_KEY into the environment"},
		{"s3://bucket/x?secret_key=" + secret, `parameter "secret_key"`},
		{"s3://bucket/x?endpoint=key:" + secret + "@host", "the endpoint in the URL"},
		{"s3://bucket/x?endpoint=http://key:" + secret + "@host", "the endpoint in the URL"},
		{"s3://bucket/x?endpoint=%zz" + secret, "malformed"},
		{strings.Replace(s.URL("x"), s3test.Bucket, "no-such-bucket", 1), "bucket does not exist"},
		{s3test.URL("127.0.0.1:1", "x"), "connection refused"},
	} {
		f, err := s3fence.Open(t.Context(), test.url)
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: Open = %v, want %q", test.url, err, test.want)
		}
	}
}

func TestWrongCredentials(t *testing.T) {
	s := s3test.Start(t)
	url := s.URL("x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	_, err := s3fence.Open(t.Context(), url)
	if err == nil || !strings.Contains(err.Error(), "s3://fences/x: The request signature") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Open = %v", err)
	}

	// The shared credentials file is read where the environment has none.
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	file := filepath.Join(t.TempDir(), "credentials")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", s3test.AccessKey, s3test.SecretKey)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, url)

	// Where there are none at all, no request is made as nobody. The machine's role is asked for at an address that refuses.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/")
	if _, err := s3fence.Open(t.Context(), url); err == nil || !strings.Contains(err.Error(), "there are no credentials") {
		t.Errorf("Open = %v", err)
	}
}

// A page that says "not found" because somebody on the way can't find the server is no empty fence.
func TestNotFoundByOthersIsAnError(t *testing.T) {
	s := s3test.Start(t)
	lost := false
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: s.Addr()})
		r.Out.Host = r.In.Host // which is signed
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if lost {
			http.NotFound(w, r)
		} else {
			proxy.ServeHTTP(w, r)
		}
	}))
	defer front.Close()
	f := open(t, s3test.URL(front.Listener.Addr().String(), "lost"))
	lost = true
	if got, err := f.Load(t.Context(), fencetest.Origin); err == nil {
		t.Errorf("Load = %q", got)
	}
	if got, err := f.Origins(t.Context()); err == nil {
		t.Errorf("Origins = %q", got)
	}
	if err := f.Drop(t.Context(), fencetest.Origin); err == nil {
		t.Error("dropped by a server that isn't there")
	}
	note := fencetest.Note(t, fencetest.Origin, 1, "honest")
	if err := f.Swap(t.Context(), fencetest.Origin, nil, note); err == nil || errors.Is(err, checkpoint.ErrFenceMoved) {
		t.Errorf("Swap = %v", err)
	}
}

// A read is tried again, since it may be: a server that is busy for a moment isn't a fence that can't be read.
func TestReadsAreTriedAgain(t *testing.T) {
	s := s3test.Start(t)
	var mu sync.Mutex
	var methods []string
	busy := false
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: s.Addr()})
		r.Out.Host = r.In.Host
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		refuse := busy
		if busy {
			methods = append(methods, r.Method)
			busy = false
		}
		mu.Unlock()
		if refuse {
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer front.Close()
	f := open(t, s3test.URL(front.Listener.Addr().String(), "busy"))
	note := fencetest.Note(t, fencetest.Origin, 1, "honest")
	if err := f.Swap(context.Background(), fencetest.Origin, nil, note); err != nil {
		t.Fatal(err)
	}
	busy = true
	if got, err := f.Load(t.Context(), fencetest.Origin); err != nil || !bytes.Equal(got, note) || len(methods) != 1 {
		t.Errorf("Load = %q, %v after %q", got, err, methods)
	}
}
