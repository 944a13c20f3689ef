package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

// verification is the answer of /v1/verify: how far it had come, line by line, and its last line.
type verification struct {
	progress [][2]uint64
	result   *verifyResult
	err      *problem
}

type verifyResult struct {
	Log, Origin, Verdict, Root, Checkpoint string
	From, To, Size                         uint64
	Checked                                struct {
		Entries, Contents, Chain, Checkpoints, Purged, Erased uint64
		TreeNodes                                             uint64 `json:"tree_nodes"`
	}
	Problems  []log.FsckProblem
	Truncated bool
	VKeys     []string
	Witnesses []struct{ Name string }
	Repeat    struct {
		Checkpoint, Tiles, Entries, Records string
		Commands                            []string
	}
}

// startVerify asks for a verification, whose answer is read line by line.
func (s *testServer) startVerify(ctx context.Context, base, query, key string) (*http.Response, *bufio.Scanner) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/verify"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/x-ndjson" || res.Header.Get("Cache-Control") != "no-store" {
		body, _ := io.ReadAll(res.Body)
		s.t.Fatalf("got %d %v %s", res.StatusCode, res.Header, body)
	}
	return res, bufio.NewScanner(res.Body)
}

// readVerify reads the lines to their end. The last one, and no other, must say how it ended.
func readVerify(t testing.TB, lines *bufio.Scanner) (v verification) {
	t.Helper()
	for lines.Scan() {
		if v.result != nil || v.err != nil {
			t.Fatalf("a line after the last one: %s", lines.Text())
		}
		var line struct {
			Checked, Of *uint64
			Result      *verifyResult
			Error       *problem
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if v.result, v.err = line.Result, line.Error; v.result == nil && v.err == nil {
			v.progress = append(v.progress, [2]uint64{*line.Checked, *line.Of})
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if v.result == nil && v.err == nil {
		t.Fatal("the answer broke off")
	}
	return v
}

func (s *testServer) verify(query, key string) verification {
	s.t.Helper()
	res, _ := s.startVerify(s.t.Context(), s.url, query, key)
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	s.describe(res.Request, answer{res.StatusCode, res.Header, body})
	return readVerify(s.t, bufio.NewScanner(bytes.NewReader(body)))
}

// appendSigned appends n events to a log, and waits until all are signed.
func (s *testServer) appendSigned(name string, n int) {
	s.t.Helper()
	events := strings.Repeat(`{"action":"a"},`, n)
	s.post("/v1/events/batch?wait=signed&log="+name, s.admin, `{"events":[`+strings.TrimSuffix(events, ",")+`]}`).into(s.t, http.StatusCreated, new(any))
}

// A verification says what was checked, up to which checkpoint, and what it takes to check the same without the server.
func TestVerify(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	l := s.log("acme")
	s.appendSigned("acme", 700)
	key := s.key(log.RoleAuditor, "acme")
	for _, x := range []struct {
		query    string
		from, to uint64
	}{{"", 0, 700}, {"?log=acme&from=0&to=700", 0, 700}, {"?from=255&to=513", 255, 513}, {"?to=1", 0, 1}, {"?from=700", 700, 700}} {
		v := s.verify(x.query, key)
		r, n := v.result, x.to-x.from
		if r == nil || r.Log != "acme" || r.Origin != l.Origin || r.From != x.from || r.To != x.to || r.Size != 700 || r.Verdict != "ok" ||
			r.Problems == nil || len(r.Problems) > 0 || r.Truncated || r.Witnesses == nil {
			t.Fatalf("%s: got %+v, %+v", x.query, r, v.err)
		}
		if c := r.Checked; c.Entries != n || c.Contents != n || c.Chain != n || c.TreeNodes != x.to/256-x.from/256 || c.Checkpoints == 0 {
			t.Errorf("%s: checked %+v", x.query, c)
		}
		c, _, err := checkpoint.Open([]byte(r.Checkpoint), l.Origin, verifiers(t, l.Origin)...)
		if err != nil || c.Size != 700 || len(r.VKeys) != 1 || r.VKeys[0] != l.VKeys[0] {
			t.Errorf("%s: checkpoint %+v, %v, keys %q", x.query, c, err, r.VKeys)
		}
		if root, err := l.Root(t.Context(), x.to); err != nil || r.Root != root.String() {
			t.Errorf("%s: got root %s, want %v, %v", x.query, r.Root, root, err)
		}
		if p := v.progress; len(p) < 2 || p[0][1] != 2*n || p[len(p)-1] != [2]uint64{2 * n, 2 * n} {
			t.Errorf("%s: progress: got %v, want it to end at %d", x.query, p, 2*n)
		}
	}
	r := s.verify("", key).result
	for _, path := range []string{r.Repeat.Checkpoint, r.Repeat.Tiles + "0/000", r.Repeat.Entries + "000", r.Repeat.Records} {
		if got := s.get(path, key); got.status != http.StatusOK {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
	if len(r.Repeat.Commands) == 0 || !strings.Contains(r.Repeat.Commands[0], l.VKeys[0]) {
		t.Errorf("commands: got %q", r.Repeat.Commands)
	}
}

// What was erased and purged, as the log's own events say, is counted, and nothing is wrong.
func TestVerifyCountsWhatWasRemoved(t *testing.T) {
	t.Parallel()
	var later atomic.Int64
	s := newTestServerWith(t, 10*time.Millisecond, func(c *log.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	l := s.log("acme")
	s.post("/v1/events/batch?wait=signed&log=acme", s.admin, `{"events":[{"action":"a","actor_id":"u","actor_email":"u@example.com"},{"action":"a","actor_id":"u"},{"action":"a"}]}`).
		into(t, http.StatusCreated, new(any))
	plan, err := l.PlanErasure(t.Context(), log.ErasureRequest{Subject: url.Values{"actor_id": {"u"}}, Claims: []string{"/actor/email"}, LegalBasis: "17(1)(b)"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Erase(t.Context(), log.ByServer(), plan); err != nil {
		t.Fatal(err)
	}
	s.appendSigned("acme", 1)
	if c := s.verify("?log=acme", s.admin).result; c == nil || c.Verdict != "ok" || c.Checked.Erased != 1 || c.Checked.Purged != 0 || c.Checked.Contents != 5 {
		t.Errorf("after an erasure: got %+v", c)
	}
	if _, err := l.SetRetention(t.Context(), log.ByServer(), log.Retention{Max: log.Age{Days: 30}}, "policy 12"); err != nil {
		t.Fatal(err)
	}
	s.appendSigned("acme", 1)
	later.Store(int64(31 * 24 * time.Hour))
	x, err := l.Expired(t.Context(), 0, 3)
	if err == nil {
		err = l.Purge(t.Context(), log.ByServer(), x.Spans, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.appendSigned("acme", 1)
	if c := s.verify("?log=acme", s.admin).result; c == nil || c.Verdict != "ok" || c.Checked.Erased != 0 || c.Checked.Purged != 3 || c.Checked.Contents != 6 {
		t.Errorf("after a purge: got %+v", c)
	}
}

// What can't be verified is answered like any other bad request, before anything is read.
func TestVerifyOfWhatIsNotThere(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendSigned("default", 3)
	for _, query := range []string{"from=2&to=1", "to=4", "from=4", "from=-1", "to=x", "to=9223372036854775807", "size=1", "from=1&from=1"} {
		s.get("/v1/verify?"+query, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
	}
	s.verify("?from=3", s.admin)

	slow := newTestServer(t, time.Hour)
	slow.post("/v1/events", slow.admin, `{"action":"a"}`).into(t, http.StatusCreated, new(any))
	slow.get("/v1/verify?to=1", slow.admin).problem(t, http.StatusConflict, "not_signed")
	if r := slow.verify("", slow.admin).result; r == nil || r.To != 0 || r.Verdict != "ok" {
		t.Errorf("all that is signed: got %+v, want [0, 0)", r)
	}
}

// HEAD tells that there is a log to verify, and verifies nothing.
func TestVerifyOfAHeadOnly(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendSigned("default", 3)
	s.store.calls.take()
	got := s.do(request{method: http.MethodHead, path: "/v1/verify", key: s.admin})
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/x-ndjson" || len(got.body) > 0 {
		t.Errorf("got %d %v %s", got.status, got.header, got.body)
	}
	for _, call := range s.store.calls.take() {
		if strings.HasPrefix(call, "entries") {
			t.Errorf("the store was asked for %s", call)
		}
	}
	s.verify("", s.admin)
}

// What the store has instead of what was signed is said, with its place. The database administrator has no key.
func TestVerifyFindsTampering(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendSigned("default", 20)
	spoil := func(index uint64, p *log.Payload) error {
		if index == 7 {
			p.Data = []byte(`{"action":"forged","id":"e7"}`)
		}
		return nil
	}
	s.store.spoil.Store(&spoil)
	v := s.verify("", s.admin)
	if r := v.result; r == nil || r.Verdict != log.KindInvalid || len(r.Problems) != 1 || r.Problems[0].Index != 7 ||
		r.Problems[0].Kind != log.KindInvalid || !strings.Contains(r.Problems[0].What, "entry 7: ") {
		t.Errorf("got %+v, %+v", r, v.err)
	}
	if r := s.verify("?from=8", s.admin).result; r == nil || r.Verdict != "ok" {
		t.Errorf("after it: got %+v", r)
	}
}

// A verification that can't go on says so where its result would be.
func TestAVerificationThatFails(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendSigned("default", 20)
	fail := func(uint64, *log.Payload) error { return errInjected }
	s.store.spoil.Store(&fail)
	if v := s.verify("", s.admin); v.err == nil || v.err.Code != "internal" || v.err.Status != 500 || v.err.RequestID == "" ||
		strings.Contains(v.err.Detail, errInjected.Error()) {
		t.Errorf("got %+v, %+v", v.result, v.err)
	}
	s.store.spoil.Store(nil)
	s.verify("", s.admin)
}

// holdContents keeps requests from reading contents until the returned function is called, or they end.
func (s *testServer) holdContents() (release func()) {
	gate := make(chan struct{})
	s.store.holdContents.Store(&gate)
	return func() {
		s.store.holdContents.Store(nil)
		close(gate)
	}
}

// A log is verified once at a time. That of others waits for its turn, but is taken.
func TestOneVerificationALog(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("other")
	s.appendSigned("default", 20)
	s.appendSigned("other", 20)
	release := s.holdContents()
	_, first := s.startVerify(t.Context(), s.url, "", s.admin)
	s.get("/v1/verify", s.admin).problem(t, http.StatusTooManyRequests, "verifying")
	_, other := s.startVerify(t.Context(), s.url, "?log=other", s.admin)
	release()
	for _, lines := range []*bufio.Scanner{first, other} {
		if v := readVerify(t, lines); v.result == nil || v.result.Verdict != "ok" {
			t.Errorf("got %+v, %+v", v.result, v.err)
		}
	}
	s.verify("", s.admin)
}

// A client that leaves ends its verification.
func TestAVerificationEndsWithItsClient(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendSigned("default", 20)
	release := s.holdContents()
	defer release()
	ctx, leave := context.WithCancel(t.Context())
	_, lines := s.startVerify(ctx, s.url, "", s.admin)
	if !lines.Scan() {
		t.Fatal("no line")
	}
	leave()
	s.until("the verification to end", func() bool {
		check, err := s.service.Log("default").NewRecheck(t.Context(), 0, 0)
		if err == nil {
			check.End()
		}
		return err == nil
	})
}

// A server that stops tells those for whom it verifies.
func TestAVerificationEndsWithItsServer(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendSigned("default", 20)
	release := s.holdContents()
	defer release()
	_, lines := s.startVerify(t.Context(), s.url, "", s.admin)
	s.api.Close()
	if v := readVerify(t, lines); v.err == nil || v.err.Code != "shutting_down" || v.err.Status != http.StatusServiceUnavailable {
		t.Errorf("got %+v, %+v", v.result, v.err)
	}
}

// The time that a request and its answer may take is for those that don't take longer on purpose.
func TestAVerificationOutlivesTheServersTimeouts(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendSigned("default", 20)
	web := httptest.NewUnstartedServer(s.api)
	web.Config = api.HTTPServer(s.api, slog.New(slog.DiscardHandler))
	if web.Config.ReadTimeout == 0 || web.Config.WriteTimeout == 0 {
		t.Fatal("there are no timeouts to outlive")
	}
	web.Config.ReadTimeout, web.Config.WriteTimeout = 2*time.Second, 2*time.Second
	web.Start()
	defer web.Close()
	release := s.holdContents()
	_, lines := s.startVerify(t.Context(), web.URL, "", s.admin)
	time.Sleep(2 * web.Config.ReadTimeout)
	release()
	if v := readVerify(t, lines); v.result == nil || v.result.Verdict != "ok" || len(v.progress) < 3 {
		t.Errorf("got %+v, %+v after %v", v.result, v.err, fmt.Sprint(v.progress))
	}
}
