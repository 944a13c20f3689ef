package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// The first call of the README, as it is written.
func TestTheFirstCall(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	body := `{"action":"user.permission.updated","actor_id":"user_123","actor_email":"admin@example.com","target_type":"user",
         "target_id":"user_456","metadata":{"old_role":"viewer","new_role":"editor","ip":"203.0.113.42"}}`
	var r record
	s.post("/v1/events?wait=signed", s.key(log.RoleWriter, "default"), body).into(t, http.StatusCreated, &r)
	if r.Log != "default" || r.Index != 0 || r.State != "signed" || len(r.Hash) != 64 || len(r.Seed) != 64 || r.Duplicate {
		t.Errorf("record: got %+v", r)
	}
	v, err := log.VerifyProof([]byte(r.Proof), log.Trust{Keys: verifiers(t, "test.example/logs/default")})
	if err != nil {
		t.Fatalf("the proof: %v\n%s", err, r.Proof)
	}
	if got := fmt.Sprintf("%+v", v); !strings.Contains(got, "test.example/logs/default") {
		t.Errorf("verification: got %s", got)
	}
	// What is read again is what was answered, and so is its proof's event.
	var again record
	s.get("/v1/events/"+r.ID, s.admin).into(t, http.StatusOK, &again)
	if again.Proof = r.Proof; fmt.Sprint(again) != fmt.Sprint(r) {
		t.Errorf("read: got %+v, want %+v", again, r)
	}
	got := s.get("/v1/events/"+r.ID+"/proof", s.admin)
	if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain") ||
		got.header.Get("Content-Disposition") != `attachment; filename="`+r.ID+`.tlog-proof"` {
		t.Errorf("proof: got %d %v", got.status, got.header)
	}
	if _, err := log.VerifyProof(got.body, log.Trust{Keys: verifiers(t, "test.example/logs/default")}); err != nil {
		t.Errorf("the proof that was fetched: %v", err)
	}
}

func TestRetriesOfOneEvent(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	var first, again record
	s.post("/v1/events", s.admin, `{"id":"e1","action":"a","metadata":{"n":1}}`).into(t, http.StatusCreated, &first)
	s.post("/v1/events", s.admin, `{"id":"e2","action":"a"}`).into(t, http.StatusCreated, new(record))
	// By another key, spelt differently, and waiting for a proof.
	s.post("/v1/events?wait=signed", s.key(log.RoleWriter, "default"), `{"metadata":{"n":1.0},"action":"a","id":"e1","outcome":null}`).
		into(t, http.StatusOK, &again)
	if !again.Duplicate || again.Index != first.Index || again.Hash != first.Hash || again.ReceivedAt != first.ReceivedAt ||
		again.Seed != first.Seed || string(again.Event) != string(first.Event) {
		t.Errorf("the retry: got %+v, want the first answer %+v", again, first)
	}
	if _, err := log.VerifyProof([]byte(again.Proof), log.Trust{Keys: verifiers(t, "test.example/logs/default")}); err != nil {
		t.Errorf("the retry's proof: %v", err)
	}
	p := s.post("/v1/events", s.admin, `{"id":"e1","action":"b"}`).problem(t, http.StatusConflict, "conflict")
	if !slices.Equal(p.IDs, []string{"e1"}) {
		t.Errorf("ids of the conflict: got %v", p.IDs)
	}
}

func TestWrongEvents(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	for body, pointer := range map[string]string{
		`{}`:                                 "/action",
		`{"action":"a","more":1}`:            "/more",
		`{"action":"a","actor_id":1}`:        "/actor_id",
		`{"action":"treeline.x"}`:            "/action",
		`{"action":"a","action":"b"}`:        "/action",
		`{"action":"a","credential":"mine"}`: "/credential",
		`{"action":"a","metadata":{"a/b":9007199254740993}}`: "/metadata/a~1b",
		`[]`: "", `nonsense`: "", `{"action":"a"} x`: "",
	} {
		p := s.post("/v1/events", s.admin, body).problem(t, http.StatusBadRequest, "invalid_event")
		if len(p.Errors) == 0 || p.Errors[0].Pointer != pointer || p.Errors[0].Detail == "" || p.Errors[0].Index != nil {
			t.Errorf("%s: got %+v, want a problem at %q", body, p.Errors, pointer)
		}
	}
	for _, query := range []string{"?wait=", "?wait=sequenced", "?wait=witnessed", "?wiat=signed", "?wait=signed&wait=signed", "?a=%zz"} {
		s.post("/v1/events"+query, s.admin, `{"action":"a"}`).problem(t, http.StatusBadRequest, "invalid_request")
	}
	for _, kind := range []string{"text/plain", "application/x-ndjson", "application/json; charset=latin1", "application/x-www-form-urlencoded", "/"} {
		s.do(request{method: "POST", path: "/v1/events", key: s.admin, body: `{"action":"a"}`, kind: kind}).
			problem(t, http.StatusUnsupportedMediaType, "unsupported_media_type")
	}
	if size := s.service.Log("default").Sizes().Size; size != 0 {
		t.Errorf("size: got %d, want 0", size)
	}
	s.do(request{method: "POST", path: "/v1/events", key: s.admin, body: `{"action":"a"}`, kind: "Application/JSON; charset=UTF-8"}).
		into(t, http.StatusCreated, new(record))
}

// batch is the answer to a batch.
type batch struct {
	Log        string
	Data       []record
	Checkpoint string
}

func TestBatches(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	array := `{"events":[{"id":"a","action":"x"},{"action":"y"},{"id":"c","action":"z"}]}`
	var got batch
	s.post("/v1/events/batch?wait=signed", s.admin, array).into(t, http.StatusCreated, &got)
	if got.Log != "default" || len(got.Data) != 3 || !strings.HasPrefix(got.Checkpoint, "test.example/logs/default\n") {
		t.Fatalf("answer: got %+v", got)
	}
	for i, r := range got.Data {
		if r.Index != uint64(i) || r.Duplicate || r.State != "signed" || i > 0 && r.PreviousHash != got.Data[i-1].Hash {
			t.Errorf("place %d: got %+v", i, r)
		}
	}
	if got.Data[0].ID != "a" || got.Data[2].ID != "c" || got.Data[1].ID == "" {
		t.Errorf("ids: got %+v", got.Data)
	}

	lines := "{\"id\":\"c\",\"action\":\"z\"}\r\n\n{\"id\":\"d\",\"action\":\"x\"}\n  \n{\"id\":\"a\",\"action\":\"x\"}"
	for _, zipped := range []bool{false, true} {
		var more batch
		status := http.StatusCreated
		if zipped {
			status = http.StatusOK // now all three are there
		}
		s.do(request{method: "POST", path: "/v1/events/batch", key: s.admin, body: lines, kind: "application/x-ndjson", gzip: zipped}).
			into(t, status, &more)
		for i, want := range []record{{ID: "c", Index: 2, Duplicate: true}, {ID: "d", Index: 3, Duplicate: zipped}, {ID: "a", Index: 0, Duplicate: true}} {
			r := more.Data[i]
			if r.ID != want.ID || r.Index != want.Index || r.Duplicate != want.Duplicate {
				t.Errorf("place %d: got %+v, want %+v", i, r, want)
			}
			if r.Duplicate && r.Index < 3 && (r.Hash != got.Data[r.Index].Hash || r.ReceivedAt != got.Data[r.Index].ReceivedAt ||
				r.PreviousHash != got.Data[r.Index].PreviousHash) {
				t.Errorf("duplicate %d: got %+v, want the first answer %+v", i, r, got.Data[r.Index])
			}
		}
	}
}

// However many of a batch were there already, their places are read at once, and are those of the first answer in any order.
func TestABatchOfDuplicatesIsOneRead(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	events := make([]string, 300)
	for i := range events {
		events[i] = fmt.Sprintf(`{"id":"e%d","action":"a"}`, i)
	}
	post := func(status int) (got batch) {
		s.post("/v1/events/batch", s.admin, `{"events":[`+strings.Join(events, ",")+`]}`).into(t, status, &got)
		return got
	}
	first := post(http.StatusCreated)
	slices.Reverse(events)
	slices.Reverse(first.Data)
	before := s.store.reads.Load()
	again := post(http.StatusOK)
	if n := s.store.reads.Load() - before; n > 100 { // some are the scrub's
		t.Errorf("%d reads of entries for %d duplicates", n, len(events))
	}
	for i, want := range first.Data {
		got := again.Data[i]
		if got.ID != want.ID || got.Index != want.Index || got.Hash != want.Hash || !got.Duplicate ||
			got.PreviousHash != want.PreviousHash || got.ReceivedAt != want.ReceivedAt {
			t.Fatalf("duplicate %d: got %+v, want %+v", i, got, want)
		}
	}
}

// A batch is stored as a whole or not at all.
func TestWrongBatches(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.post("/v1/events", s.admin, `{"id":"taken","action":"a"}`).into(t, http.StatusCreated, new(record))
	post := func(body, kind string) answer {
		return s.do(request{method: "POST", path: "/v1/events/batch", key: s.admin, body: body, kind: kind})
	}
	for _, x := range []struct {
		body, kind string
		index      int
		pointer    string
	}{
		{`{"events":[{"action":"a"},{"action":"a"},{"actor_id":"u"}]}`, "application/json", 2, "/action"},
		{"{\"action\":\"a\"}\n\n{\"action\":\"\"}\n", "application/x-ndjson", 1, "/action"},
		{"{\"action\":\"a\"}\n{\"action\":", "application/x-ndjson", 1, ""},
		{`{"events":[{"id":"b","action":"a"},{"id":"c","action":"a"},{"id":"b","action":"a"}]}`, "application/json", 2, "/id"},
	} {
		p := post(x.body, x.kind).problem(t, http.StatusBadRequest, "invalid_event")
		if len(p.Errors) == 0 || p.Errors[0].Index == nil || *p.Errors[0].Index != x.index || p.Errors[0].Pointer != x.pointer {
			t.Errorf("%s: got %+v, want index %d, pointer %q", x.body, p.Errors, x.index, x.pointer)
		}
	}
	p := post(`{"events":[{"id":"new","action":"a"},{"id":"taken","action":"b"}]}`, "application/json").
		problem(t, http.StatusConflict, "conflict")
	if !slices.Equal(p.IDs, []string{"taken"}) {
		t.Errorf("ids of the conflict: got %v, want taken", p.IDs)
	}
	for _, body := range []string{`{"events":[]}`, `{}`, `[]`, `{"events":{}}`, `{"events":[{"action":"a"}],"more":1}`} {
		if got := post(body, "application/json"); got.status != http.StatusBadRequest {
			t.Errorf("%s: got %d %s", body, got.status, got.body)
		}
	}
	post("\n\n", "application/x-ndjson").problem(t, http.StatusBadRequest, "invalid_event")
	post(`{"events":[{"action":"a"}]}`, "text/csv").problem(t, http.StatusUnsupportedMediaType, "unsupported_media_type")
	post(strings.Repeat("{\"action\":\"a\"}\n", log.MaxRequestEvents+1), "application/x-ndjson").problem(t, http.StatusBadRequest, "invalid_event")
	if size := s.service.Log("default").Sizes().Size; size != 1 {
		t.Errorf("size: got %d, want 1", size)
	}
}

// Before signing there is no proof, and waiting ends.
func TestNotSignedYet(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	var r record
	s.post("/v1/events", s.admin, `{"id":"e1","action":"a"}`).into(t, http.StatusCreated, &r)
	if r.State != "sequenced" || r.Proof != "" {
		t.Errorf("record: got %+v", r)
	}
	s.get("/v1/events/e1/proof", s.admin).problem(t, http.StatusConflict, "not_signed")
	s.get("/v1/proofs/inclusion?index=0&size=1", s.admin).problem(t, http.StatusConflict, "not_signed")
	s.get("/v1/proofs/consistency?from=0&to=1", s.admin).problem(t, http.StatusConflict, "not_signed")
	s.get("/logs/default/tile/0/000.p/1", s.admin).problem(t, http.StatusNotFound, "not_found")
	s.get("/v1/events/none/proof", s.admin).problem(t, http.StatusNotFound, "not_found")
	// A server that stops answers who waits with what there is.
	time.AfterFunc(50*time.Millisecond, s.api.Close)
	start := time.Now()
	s.post("/v1/events?wait=signed", s.admin, `{"id":"e2","action":"a"}`).into(t, http.StatusCreated, &r)
	if took := time.Since(start); took > 5*time.Second || r.State != "sequenced" {
		t.Errorf("waiting while the server stops: got %s after %v", r.State, took)
	}
}

var uuid7RE = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// When nobody knows what became of a commit, the client gets all ids to send again, also those that the server made.
func TestAnUnknownOutcomeNamesTheIDs(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.store.afterward.Store(true)
	one := s.post("/v1/events", s.admin, `{"action":"a"}`).problem(t, http.StatusServiceUnavailable, "outcome_unknown")
	many := s.post("/v1/events/batch", s.admin, `{"events":[{"id":"mine","action":"a"},{"action":"b"}]}`).
		problem(t, http.StatusServiceUnavailable, "outcome_unknown")
	if len(one.IDs) != 1 || !uuid7RE.MatchString(one.IDs[0]) || len(many.IDs) != 2 || many.IDs[0] != "mine" || !uuid7RE.MatchString(many.IDs[1]) {
		t.Fatalf("ids: got %q and %q", one.IDs, many.IDs)
	}
	s.store.afterward.Store(false)
	var r record
	s.post("/v1/events", s.admin, `{"id":"`+one.IDs[0]+`","action":"a"}`).into(t, http.StatusOK, &r)
	var b batch
	s.post("/v1/events/batch", s.admin, `{"events":[{"id":"mine","action":"a"},{"id":"`+many.IDs[1]+`","action":"b"}]}`).into(t, http.StatusOK, &b)
	if !r.Duplicate || !b.Data[0].Duplicate || !b.Data[1].Duplicate {
		t.Errorf("sent again: got %+v and %+v, want duplicates", r, b)
	}
	s.store.failure.Store(true)
	s.post("/v1/events", s.admin, `{"action":"a"}`).problem(t, http.StatusServiceUnavailable, "store_unavailable")
}

// Ids are in the answers as they were sent, and JSON stays JSON whatever is in an event.
func TestAnswersAreJSON(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	text := "</script>\u2028\"\\\t🙂\u007f"
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	var r record
	s.post("/v1/events", s.admin, `{"id":"a:b.c_d-e","action":"a","metadata":{"text":`+string(quoted)+`}}`).into(t, http.StatusCreated, &r)
	var event struct{ Metadata map[string]string }
	if err := json.Unmarshal(r.Event, &event); err != nil || event.Metadata["text"] != text || r.ID != "a:b.c_d-e" {
		t.Errorf("got %+v, %v", r, err)
	}
}
