package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// server is a running treeline serve, with a public log, on a data directory that outlives it.
type server struct {
	*process
	dir string
	url string
	key string // admin key
}

// theLog is the public log of a server.
const theLog = "interop"

var listensOn = regexp.MustCompile(`treeline is listening on (\S+)`)

// serve starts treeline serve.
func serve(t testing.TB, dir string, flags ...string) *server {
	t.Helper()
	s := &server{dir: dir}
	s.process = start(t, "treeline", append([]string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--checkpoint-interval", "50ms",
	}, flags...)...)
	eventually(t, "treeline serve listens", func() bool {
		match := listensOn.FindStringSubmatch(s.output.String())
		if match != nil {
			s.url = match[1]
		}
		return match != nil
	}, s.process)
	s.key = strings.TrimSpace(contents(t, filepath.Join(dir, "admin.key")))
	return s
}

// call sends a request with the admin key, and decodes the answer, which must have the status, into v unless that is nil.
func (s *server) call(t testing.TB, method, path, body string, status int, v any) answer {
	t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	a := read(t, resp, err)
	if a.status != status {
		t.Fatalf("%s %s: got %v, want %d", method, path, a, status)
	}
	if v != nil {
		if err := json.Unmarshal([]byte(a.body), v); err != nil {
			t.Fatalf("%s %s: %v: %s", method, path, err, a)
		}
	}
	return a
}

// newServer makes a server's data directory with its logs, and returns them as witnesses have to know them.
func newServer(t testing.TB, flags ...string) (dir string, logs []*aLog) {
	t.Helper()
	dir = t.TempDir()
	s := serve(t, dir, flags...)
	s.call(t, http.MethodPost, "/v1/logs", `{"name":"`+theLog+`","public":true}`, http.StatusCreated, nil)
	for _, name := range []string{theLog, "default"} {
		var head struct {
			Origin string
			VKeys  []string
		}
		s.call(t, http.MethodGet, "/v1/checkpoint?log="+name, "", http.StatusOK, &head)
		logs = append(logs, &aLog{t: t, origin: head.Origin, vkey: head.VKeys[0]})
	}
	s.stop(t)
	return dir, logs
}

// sizes returns how far the log is.
func (s *server) sizes(t testing.TB) (sizes struct{ Size, Signed, Witnessed, Released int64 }) {
	t.Helper()
	var head struct{ Sizes any }
	head.Sizes = &sizes
	s.call(t, http.MethodGet, "/v1/checkpoint?log="+theLog, "", http.StatusOK, &head)
	return sizes
}

// append appends events until the log has size, the last with a wait for a state, and returns the ids.
func (s *server) append(t testing.TB, from, size int64, wait string) (ids []string) {
	t.Helper()
	for i := from; i < size; i++ {
		id := fmt.Sprintf("e%d", i)
		path := "/v1/events?log=" + theLog
		if i == size-1 {
			path += "&wait=" + wait
		}
		var record struct {
			Index int64
			State string
		}
		s.call(t, http.MethodPost, path, `{"id":"`+id+`","action":"interop.test"}`, http.StatusCreated, &record)
		if record.Index != i {
			t.Fatalf("event %s has index %d, want %d", id, record.Index, i)
		}
		ids = append(ids, id)
	}
	return ids
}

// released returns the public checkpoint.
func (s *server) released(t testing.TB) string {
	t.Helper()
	a := get(t, s.url+"/logs/"+theLog+"/checkpoint")
	if a.status != http.StatusOK {
		t.Fatalf("the public checkpoint: %v", a)
	}
	return a.body
}
