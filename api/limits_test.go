package api_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

const batchLimit = 16 << 20

func TestBodyLimits(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	event := `{"action":"a","metadata":{}}`
	pad := func(n int) string { return event + strings.Repeat(" ", n-len(event)) }
	s.post("/v1/events", s.admin, pad(256<<10)).into(t, http.StatusCreated, new(record))
	s.post("/v1/events", s.admin, pad(256<<10+1)).problem(t, http.StatusRequestEntityTooLarge, "too_large")

	whole := `{"events":[` + event + `]}`
	for _, zipped := range []bool{false, true} {
		r := request{method: "POST", path: "/v1/events/batch", key: s.admin, gzip: zipped}
		r.body = whole + strings.Repeat(" ", batchLimit-len(whole))
		s.do(r).into(t, http.StatusCreated, new(batch))
		r.body += " " // zipped it is some kilobytes: a bomb
		s.do(r).problem(t, http.StatusRequestEntityTooLarge, "too_large")
	}
	s.post("/v1/logs", s.admin, `{"name":"x"}`+strings.Repeat(" ", 16<<10)).problem(t, http.StatusRequestEntityTooLarge, "too_large")
	if size := s.service.Log("default").Sizes().Size; size != 3 {
		t.Errorf("size: got %d, want 3", size)
	}
}

func TestEncodings(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	send := func(encoding, body string) answer {
		req, err := http.NewRequest(http.MethodPost, s.url+"/v1/events", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.admin)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Content-Encoding", encoding)
		return s.send(req)
	}
	whole := string(zip(t, []byte(`{"action":"a"}`)))
	send("gzip", whole).into(t, http.StatusCreated, new(record))
	send("identity", `{"action":"a"}`).into(t, http.StatusCreated, new(record))
	for _, encoding := range []string{"br", "deflate", "gzip, gzip"} {
		send(encoding, whole).problem(t, http.StatusUnsupportedMediaType, "unsupported_encoding")
	}
	for _, body := range []string{"", "not gzip", whole[:len(whole)-1], whole[:len(whole)-8] + "xxxxxxxx", whole + "x"} {
		send("gzip", body).problem(t, http.StatusBadRequest, "invalid_request")
	}
}

// What arrives in part is stored in no part.
func TestAbortedBodies(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	address := strings.TrimPrefix(s.url, "http://")
	for path, kind := range map[string]string{"/v1/events": "application/json", "/v1/events/batch": "application/x-ndjson"} {
		for _, head := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked"} {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			body := "{\"action\":\"a\"}\n" // whole in itself
			if strings.HasPrefix(head, "Transfer") {
				body = fmt.Sprintf("%x\r\n%s\r\n", len(body), body)
			}
			fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\n%s\r\n\r\n%s", path, s.admin, kind, head, body)
			time.Sleep(20 * time.Millisecond) // slowly
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err == nil && resp.StatusCode != http.StatusBadRequest {
				t.Errorf("%s with %s, cut off: got %d", path, head, resp.StatusCode)
			}
			c.Close()
		}
	}
	// Both would have been there by the time that this one is.
	var r record
	s.post("/v1/events", s.admin, `{"action":"b"}`).into(t, http.StatusCreated, &r)
	if r.Index != 0 {
		t.Errorf("index of the first whole event: got %d, want 0", r.Index)
	}
}

// A full queue is the server's or the log's trouble, and the answer says whose.
func TestFullQueues(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	for i := range 3 {
		s.log(fmt.Sprint("log-", i))
	}
	gate := make(chan struct{})
	s.store.hold.Store(&gate)
	lines := strings.Repeat("{\"action\":\"a\"}\n", log.MaxRequestEvents)
	var wg sync.WaitGroup
	queued := 0
	send := func(name, body string) {
		wg.Go(func() {
			got := s.do(request{method: "POST", path: "/v1/events/batch?log=" + name, key: s.admin, body: body, kind: "application/x-ndjson"})
			if got.status != http.StatusCreated {
				t.Errorf("a queued batch: got %d %s", got.status, got.body)
			}
		})
		queued += strings.Count(body, "\n")
	}
	waiting := func() {
		s.until("the batches to be queued", func() bool { return s.metric("treeline_queue_events") == fmt.Sprint(queued) })
	}
	send("default", "{\"action\":\"a\"}\n")
	s.until("a batch to be held", func() bool { return s.store.held.Load() > 0 })
	queued = 0
	send("log-0", lines)
	send("log-0", lines)
	waiting()
	s.post("/v1/events?log=log-0", s.admin, `{"action":"a"}`).problem(t, http.StatusTooManyRequests, "log_overloaded")
	send("log-1", lines)
	send("log-1", lines)
	send("log-2", lines)
	waiting()
	s.post("/v1/events?log=log-2", s.admin, `{"action":"a"}`).problem(t, http.StatusServiceUnavailable, "overloaded")
	s.get("/v1/events?log=log-2", s.admin).into(t, http.StatusOK, new(any)) // reads go on
	close(gate)
	wg.Wait()
	s.post("/v1/events?log=log-2", s.admin, `{"action":"a"}`).into(t, http.StatusCreated, new(record))
}

// A stopping service answers appends so that they are sent again elsewhere or later.
func TestAppendsWhileStopping(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.service.Close()
	s.post("/v1/events", s.admin, `{"action":"a"}`).problem(t, http.StatusServiceUnavailable, "shutting_down")
	s.get("/v1/events", s.admin).into(t, http.StatusOK, new(any))
}

// A panic is one request's trouble; what it says is not the client's business.
func TestPanicsAreAnswered(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.store.panics.Store(true)
	got := s.get("/v1/events/any", s.admin)
	got.problem(t, http.StatusInternalServerError, "internal")
	if strings.Contains(string(got.body), "secret") || strings.Contains(string(got.body), "panic") {
		t.Errorf("the answer tells of the inside: %s", got.body)
	}
	s.store.panics.Store(false)
	s.get("/v1/events/any", s.admin).problem(t, http.StatusNotFound, "not_found")
}
