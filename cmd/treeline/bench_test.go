package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

func TestBench(t *testing.T) {
	for _, mode := range []string{"single", "batch"} {
		var mu sync.Mutex
		ids := map[string]bool{}
		calls := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(string(body)) {
				var e struct {
					ID     string
					Action string
				}
				if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action != "user.permission.updated" || ids[e.ID] {
					t.Errorf("event %s: %v, or an id sent twice", line, err)
				}
				ids[e.ID] = true
			}
			want := map[string]string{"single": "/v1/events?log=x", "batch": "/v1/events/batch?log=x"}[mode]
			if r.URL.RequestURI() != want || r.Header.Get("Authorization") != "Bearer k" {
				t.Errorf("called %s with Authorization %s", r.URL, r.Header.Get("Authorization"))
			}
			if calls++; calls%10 == 0 {
				http.Error(w, "busy", http.StatusTooManyRequests)
				return
			}
			w.WriteHeader(http.StatusCreated)
			// More than net/http puts into one piece, so that it is sent in chunks.
			w.Write(make([]byte, 5000))
		}))
		code, stdout, stderr := runCommand(t, "", "bench", "--server", server.URL, "--key", "k", "--log", "x", "--mode", mode, "--batch", "20",
			"--concurrency", "4", "--duration", "300ms", "--warm-up", "50ms", "--json")
		server.Close()
		var r benchReport
		if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != exitOK {
			t.Fatalf("%s: code %d, %v: %s%s", mode, code, err, stdout, stderr)
		}
		if r.Requests == 0 || r.Events != r.Requests*uint64(r.Batch) || r.Errors["429"] == 0 || len(r.Errors) != 1 {
			t.Errorf("%s: %d requests, %d events, errors %v", mode, r.Requests, r.Events, r.Errors)
		}
		if l := r.Latency; l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max {
			t.Errorf("%s: latencies %+v", mode, r.Latency)
		}
	}
}

func TestBenchExplainsARefusal(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer server.Close()
	code, _, stderr := runCommand(t, "", "bench", "--server", server.URL)
	if code != exitFailure || !strings.HasPrefix(stderr, "treeline: bench: server answered 403 forbidden; use a key whose role allows this") {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
}

func TestBenchOutlivesBrokenConnections(t *testing.T) {
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch n := calls.Add(1); {
		case n%5 == 0:
			panic(http.ErrAbortHandler)
		case n%7 == 0:
			w.Header().Set("Connection", "close")
		}
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	_, stdout, stderr := runCommand(t, "", "bench", "--server", server.URL, "--duration", "500ms", "--warm-up", "0s", "--concurrency", "2", "--json")
	var r benchReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || r.Requests == 0 || r.Errors["connection"] == 0 {
		t.Errorf("%v: %s%s", err, stdout, stderr)
	}
}

func TestTemplate(t *testing.T) {
	b, err := parseTemplate([]byte("{\n \"id\": \"{{id}}\", \"actor_id\":\"u{{user}}\", \"target_id\": \"{{other}}\" }"), 3)
	if err != nil {
		t.Fatal(err)
	}
	s := &sequence{prefix: "bench-01234567-"}
	b.fill(s)
	b.fill(s)
	want := `{"id":"bench-01234567-000000000003","actor_id":"u09453","target_id":"08655"}
{"id":"bench-01234567-000000000004","actor_id":"u01126","target_id":"07769"}
{"id":"bench-01234567-000000000005","actor_id":"u02800","target_id":"06884"}
`
	if string(b.bytes) != want {
		t.Errorf("got\n%s\nwant\n%s", b.bytes, want)
	}
	if n := testing.AllocsPerRun(100, func() { b.fill(s) }); n != 0 {
		t.Errorf("filling a body allocates %v times", n)
	}
	for _, bad := range []string{`{"n": {{id}}}`, "", "{}\n{"} {
		if _, err := parseTemplate([]byte(bad), 1); err == nil {
			t.Errorf("the template %q, which isn't JSON, is taken", bad)
		}
	}
}

func TestTemplatesInTurn(t *testing.T) {
	b, err := parseTemplate([]byte("{ \"a\": \"{{user}}\" }\n{\"b\":1}\n"), 3)
	if err != nil {
		t.Fatal(err)
	}
	b.fill(&sequence{prefix: "bench-01234567-"})
	if want := "{\"a\":\"00000\"}\n{\"b\":1}\n{\"a\":\"00563\"}\n"; string(b.bytes) != want {
		t.Errorf("got\n%swant\n%s", b.bytes, want)
	}
}

// TestBenchKeepsARate has a server that is slow at first: what was due meanwhile waits, which its latency tells, and is made up for.
func TestBenchKeepsARate(t *testing.T) {
	const stall = 200 * time.Millisecond
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) == 2 { // the first that is measured
			time.Sleep(stall)
		}
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	unindexed := 100
	ops := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			t.Errorf("asked for %s", r.URL)
		}
		fmt.Fprintf(w, "# HELP x\ntreeline_unindexed_events %d\nprocess_resident_memory_bytes 5e+07\n", unindexed)
		unindexed-- // one at a time asks
	}))
	defer ops.Close()
	_, stdout, stderr := runCommand(t, "", "bench", "--server", server.URL, "--mode", "batch", "--batch", "10", "--rate", "1000",
		"--duration", "1s", "--warm-up", "0s", "--concurrency", "1", "--ops", ops.URL, "--json")
	var r benchReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v: %s%s", err, stdout, stderr)
	}
	if r.Requests < 50 || r.Requests > 100 || r.Rate != 1000 || len(r.Errors) > 0 {
		t.Errorf("got %d requests in a second at a rate of 100, errors %v", r.Requests, r.Errors)
	}
	if r.Latency.P50 > 100 || r.Latency.P90 < 50 || r.Latency.Max < 200 {
		t.Errorf("got latencies %+v, of which a fifth should tell that they waited for one of %v", r.Latency, stall)
	}
	if w := r.Watched; w == nil || w.UnindexedMax != 99 || w.Unindexed > 82 || w.UnindexedTenths[9] >= w.UnindexedTenths[0] || w.ResidentMax != 5e7 {
		t.Errorf("watched %+v", r.Watched)
	}
}

func TestBenchExplainsWhatItCantWatch(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	defer server.Close()
	code, _, stderr := runCommand(t, "", "bench", "--server", server.URL, "--ops", server.URL)
	if code != exitFailure || !strings.Contains(stderr, "/metrics answered 201") || !strings.Contains(stderr, "--ops-listen") {
		t.Errorf("code %d, stderr %q", code, stderr)
	}
}

func TestResponseReader(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, row := range []struct {
		name, in string
		status   int
		keep     bool
	}{
		{"length", "HTTP/1.1 201 Created\r\ncontent-length:  5 \r\nX: y\r\n\r\nhello", 201, true},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n", 200, true},
		{"interim", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", 429, true},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", 204, true},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, true},
		{"closing", "HTTP/1.1 503 Service Unavailable\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", 503, false},
		{"old version", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, false},
		{"until the end", "HTTP/1.1 200 OK\r\n\r\nall of it", 200, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			in := row.in
			if row.keep {
				in += ok // what follows must be found where it begins
			}
			p := newResponseReader(iotest.OneByteReader(strings.NewReader(in)))
			status, keep, err := p.read()
			if err != nil || status != row.status || keep != row.keep {
				t.Errorf("got status %d, keep %v, error %v, want %d, %v", status, keep, err, row.status, row.keep)
			}
			if row.keep {
				if status, _, err := p.read(); status != 200 || err != nil {
					t.Errorf("the response after it: got status %d, error %v", status, err)
				}
			}
		})
	}
	for _, in := range []string{
		"", "HTTP", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 5000) + "\r\n\r\n",
	} {
		if status, _, err := newResponseReader(strings.NewReader(in)).read(); err == nil {
			t.Errorf("%.60q: got status %d, want an error", in, status)
		}
	}
}

// FuzzResponseReader compares with net/http: what that takes and we take too is the same response.
func FuzzResponseReader(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nrest"))
	f.Add([]byte("HTTP/1.1 503 x\r\nConnection: close\r\n\r\nok"))
	f.Fuzz(func(t *testing.T, in []byte) {
		status, _, err := newResponseReader(strings.NewReader(string(in))).readOne()
		if err != nil {
			return
		}
		theirs, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(in))), &http.Request{Method: http.MethodPost})
		if err != nil {
			return
		}
		if theirs.StatusCode != status {
			t.Errorf("got status %s, want %d", strconv.Itoa(status), theirs.StatusCode)
		}
	})
}
