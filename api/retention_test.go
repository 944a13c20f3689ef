package api_test

import (
	stdzip "archive/zip"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/treeline-log/treeline/api/client"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

// retentionInfo is what is told of a log's retention.
type retentionInfo struct {
	Policy struct {
		Min, Max string
		Archive  bool
		Preset   string
		Closing  bool
	}
	Approvers []string
	Pending   *struct {
		ID            string
		TakesEffectAt string `json:"takes_effect_at"`
		NeedsApproval bool   `json:"needs_approval"`
		ApprovedBy    *struct{ ID string }
	}
}

type holdInfo struct {
	ID, State string
	Filter    map[string]any
	Release   string `json:"release_reason"`
}

type planInfo struct {
	Size, Matching, Events, Early uint64
	Indices                       []uint64
	Claims                        map[string]uint64
	HeldBy                        []string `json:"held_by"`
	Plan                          string
}

type erasureInfo struct {
	ID      string
	Subject string
	Entries uint64
	Claims  []string
	Events  []client.Ref
	Done    bool
	Removed map[string]bool
}

func (s *testServer) put(path, key, body string) answer {
	s.t.Helper()
	return s.do(request{method: "PUT", path: path, key: key, body: body})
}

// hold places a hold.
func (s *testServer) hold(name, key, filter string) (h holdInfo) {
	s.t.Helper()
	s.post("/v1/holds?log="+name, key, `{"matter":"m","reason":"r","filter":`+filter+`}`).into(s.t, http.StatusCreated, &h)
	return h
}

// appendPerson appends an event of an actor whose email is personal.
func (s *testServer) appendPerson(name, actor string) (r record) {
	s.t.Helper()
	body := fmt.Sprintf(`{"action":"a.b","actor":{"id":%q,"email":"jane.private@example.com","name":"Jane"},"metadata":{"k":"v"}}`, actor)
	s.post("/v1/events?wait=signed&log="+name, s.admin, body).into(s.t, http.StatusCreated, &r)
	return r
}

// erasing is the body of a request to erase an actor's email: with a plan, or without one of a dry run.
func erasing(actor, plan string) string {
	what := `"dry_run":true`
	if plan != "" {
		what = fmt.Sprintf(`"plan":%q`, plan)
	}
	return fmt.Sprintf(`{"subject":{"actor_id":%q},"claims":["/actor/email"],"legal_basis":"GDPR 17(1)(b)","reference":"DSR-1",%s}`, actor, what)
}

// plan makes a dry run.
func (s *testServer) plan(name, key, actor string) (p planInfo) {
	s.t.Helper()
	s.post("/v1/erasures?log="+name, key, erasing(actor, "")).into(s.t, http.StatusOK, &p)
	return p
}

// erase erases an actor's email.
func (s *testServer) erase(name, key, actor string) (e erasureInfo) {
	s.t.Helper()
	s.post("/v1/erasures?log="+name, key, erasing(actor, s.plan(name, key, actor).Plan)).into(s.t, http.StatusCreated, &e)
	return e
}

// A policy that loses something takes time and a second person, who is none if the first one made the key.
func TestRetentionTakesTwo(t *testing.T) {
	t.Parallel()
	s := newTestServerWith(t, 10*time.Millisecond, func(c *log.Config) { c.RetentionApproval, c.RetentionCoolingOff = true, time.Hour })
	const path = "/v1/logs/default/retention"
	first, second, auditor := s.key(log.RoleManager, "default"), s.key(log.RoleManager, "default"), s.key(log.RoleAuditor, "default")
	var r retentionInfo
	s.get(path, auditor).into(t, http.StatusOK, &r)
	if r.Policy.Max != "forever" || !r.Policy.Archive || r.Pending != nil || len(r.Approvers) != 0 {
		t.Errorf("of a new log: got %+v", r)
	}
	s.put(path, first, `{"min":"30d","max":"forever","reason":"more"}`).into(t, http.StatusOK, &r)
	if r.Policy.Min != "30d" || r.Pending != nil {
		t.Errorf("what loses nothing: got %+v", r)
	}
	s.put(path, first, `{"preset":"pci","reason":"PCI DSS 10.5"}`).into(t, http.StatusAccepted, &r)
	if r.Policy.Min != "30d" || r.Pending == nil || !r.Pending.NeedsApproval {
		t.Fatalf("what loses something: got %+v", r)
	}
	approve := fmt.Sprintf(`{"request":%q}`, r.Pending.ID)
	s.put(path, first, `{"max":"60d","reason":"again"}`).problem(t, http.StatusConflict, "approval_needed")
	s.post(path+"/approve", first, approve).problem(t, http.StatusConflict, "own_approval")
	var made struct{ Key string }
	s.post("/v1/keys", s.admin, `{"role":"admin"}`).into(t, http.StatusCreated, &made)
	s.post(path+"/approve", second, `{"request":"x"}`).problem(t, http.StatusNotFound, "not_found")
	s.post(path+"/approve", second, `{}`).problem(t, http.StatusBadRequest, "invalid_request")
	s.post(path+"/approve", second, approve).into(t, http.StatusAccepted, &r)
	if r.Pending.ApprovedBy == nil && r.Policy.Preset != "" {
		t.Errorf("approved, and its time hasn't come: got %+v", r)
	}
	s.post(path+"/cancel", second, fmt.Sprintf(`{"request":%q,"reason":"a mistake"}`, r.Pending.ID)).into(t, http.StatusOK, &r)
	if r.Pending != nil || r.Policy.Min != "30d" {
		t.Errorf("cancelled: got %+v", r)
	}
	// An admin's key that another admin's key made doesn't approve what that asked for.
	s.put(path, s.admin, `{"max":"1y","min":"30d","reason":"r"}`).into(t, http.StatusAccepted, &r)
	s.post(path+"/approve", made.Key, fmt.Sprintf(`{"request":%q}`, r.Pending.ID)).problem(t, http.StatusConflict, "own_approval")
	for _, body := range []string{
		`{"reason":"r"}`, `{"max":"29d","reason":"r"}`, `{"max":"11y","reason":"r"}`, `{"max":"1y"}`, `{"max":"1y","reason":" "}`, `{"preset":"x","reason":"r"}`,
		`{"preset":"pci","max":"1y","reason":"r"}`, `{"max":"1y","min":"2y","reason":"r"}`, `{"max":1,"reason":"r"}`, `{"max":"1y","reason":"r","closing":true}`,
	} {
		s.put(path, first, body).problem(t, http.StatusBadRequest, "invalid_request")
	}
	s.put("/v1/logs/system/retention", s.admin, `{"max":"1y","reason":"r"}`).problem(t, http.StatusForbidden, "system_log")
}

// A log that is closed takes nothing more, but what is decided about its contents.
func TestClosingALog(t *testing.T) {
	t.Parallel()
	s := newTestServerWith(t, 10*time.Millisecond, func(c *log.Config) { c.RetentionApproval = true })
	manager := s.key(log.RoleManager, "default")
	var r retentionInfo
	s.post("/v1/logs/default/close", manager, `{"reason":"the contract has ended"}`).into(t, http.StatusAccepted, &r)
	s.post("/v1/events", s.admin, `{"action":"a"}`).problem(t, http.StatusConflict, "frozen")
	s.post("/v1/logs/default/retention/approve", s.admin, fmt.Sprintf(`{"request":%q}`, r.Pending.ID)).into(t, http.StatusOK, &r)
	if !r.Policy.Closing || r.Pending != nil || len(r.Approvers) != 2 {
		t.Errorf("got %+v", r)
	}
}

// What a hold keeps can't be erased until it is released, with a reason.
func TestHoldsForbidErasure(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	manager, auditor := s.key(log.RoleManager, "default"), s.key(log.RoleAuditor, "default")
	s.appendPerson("default", "jane")
	h := s.hold("default", manager, `{"actor_id":["jane","joe"],"received_from":"2020-01-01T00:00:00Z"}`)
	var got holdInfo
	s.get("/v1/holds/"+h.ID, auditor).into(t, http.StatusOK, &got)
	if fmt.Sprint(got.Filter) != "map[actor_id:[jane joe] received_from:2020-01-01T00:00:00Z]" || got.State != "placed" {
		t.Errorf("got %+v", got)
	}
	p := s.plan("default", manager, "jane")
	if !slices.Equal(p.HeldBy, []string{h.ID}) || p.Events != 1 {
		t.Errorf("the plan: got %+v", p)
	}
	if held := s.post("/v1/erasures", manager, erasing("jane", p.Plan)).problem(t, http.StatusConflict, "held"); !slices.Equal(held.Holds, []string{h.ID}) {
		t.Errorf("got holds %q", held.Holds)
	}
	s.post("/v1/holds/"+h.ID+"/release", manager, `{}`).problem(t, http.StatusBadRequest, "invalid_request")
	s.post("/v1/holds/"+h.ID+"/release", manager, `{"reason":"settled"}`).into(t, http.StatusOK, &got)
	if got.State != "released" || got.Release != "settled" {
		t.Errorf("got %+v", got)
	}
	s.post("/v1/holds/"+h.ID+"/release", manager, `{"reason":"again"}`).problem(t, http.StatusConflict, "released")
	s.post("/v1/holds/none/release", manager, `{"reason":"r"}`).problem(t, http.StatusNotFound, "not_found")
	for _, body := range []string{
		`{"matter":"m"}`, `{"matter":"m","reason":"r","filter":{"x":"y"}}`, `{"matter":"m","reason":"r","filter":{"from":"-90d"}}`,
		`{"matter":"m","reason":"r","filter":{"actor_id":1}}`, `{"matter":"m","reason":"r","filter":[]}`,
	} {
		s.post("/v1/holds", manager, body).problem(t, http.StatusBadRequest, "invalid_request")
	}
	if e := s.erase("default", manager, "jane"); e.Entries != 1 || e.Subject != "actor_id" {
		t.Errorf("got %+v", e)
	}
}

// Nothing is erased but what a dry run has listed: a plan is for its log and its request only, and what came since isn't in it.
func TestAnErasureIsWhatItsPlanSays(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("other")
	manager, theirs := s.key(log.RoleManager, "default"), s.key(log.RoleManager, "other")
	first := s.appendPerson("default", "jane")
	s.appendPerson("default", "joe")
	s.appendPerson("other", "jane")
	p := s.plan("default", manager, "jane")
	if p.Matching != 1 || p.Events != 1 || !slices.Equal(p.Indices, []uint64{first.Index}) || p.Claims["/actor/email"] != 1 {
		t.Errorf("got %+v", p)
	}
	for _, r := range []struct{ key, body string }{
		{theirs, erasing("jane", p.Plan)}, {manager, erasing("joe", p.Plan)}, {manager, erasing("jane", p.Plan+"A")}, {manager, erasing("jane", "x")},
		{manager, strings.Replace(erasing("jane", p.Plan), "/actor/email", "/actor/name", 1)},
		{manager, strings.Replace(erasing("jane", p.Plan), "DSR-1", "DSR-2", 1)},
		{manager, strings.Replace(erasing("jane", p.Plan), `"plan"`, `"dry_run":true,"plan"`, 1)},
		{manager, strings.Replace(erasing("jane", ""), `,"dry_run":true`, "", 1)},
	} {
		s.post("/v1/erasures", r.key, r.body).problem(t, http.StatusBadRequest, "invalid_request")
	}
	s.clock.Store(int64(25 * time.Hour))
	s.post("/v1/erasures", manager, erasing("jane", p.Plan)).problem(t, http.StatusBadRequest, "invalid_request")
	s.clock.Store(0)
	later := s.appendPerson("default", "jane")
	var e erasureInfo
	s.post("/v1/erasures", manager, erasing("jane", p.Plan)).into(t, http.StatusCreated, &e)
	s.post("/v1/erasures", manager, erasing("jane", p.Plan)).problem(t, http.StatusConflict, "plan_changed")
	var r struct {
		record
		Claims []client.Claim
		By     []client.Ref `json:"erased_by"`
	}
	got := s.get("/v1/events/"+first.ID, manager)
	got.into(t, http.StatusOK, &r)
	if strings.Contains(string(got.body), "jane.private") || r.Event != nil || r.Seed != "" || len(r.By) != 1 || r.By[0] != e.Events[0] {
		t.Errorf("the erased event: got %s", got.body)
	}
	if got := s.get("/v1/events/"+later.ID, manager); !strings.Contains(string(got.body), "jane.private") {
		t.Errorf("what came after the plan: got %s", got.body)
	}
	for _, path := range []string{"/v1/events?limit=100", "/v1/feed?timeout=0s", "/v1/export?format=ndjson", "/v1/export?format=json", "/v1/export?format=csv"} {
		body := string(s.get(path, manager).body)
		if n := strings.Count(body, "jane.private"); n != 2 || !strings.Contains(body, e.Events[0].ID) {
			t.Errorf("%s: got the value %d times, want 2, and by what it was erased: %s", path, n, body)
		}
	}
	s.post("/v1/erasures", manager, erasing("jane", s.plan("default", manager, "jane").Plan)).into(t, http.StatusCreated, &e)
	s.post("/v1/erasures", manager, erasing("nobody", s.plan("default", manager, "nobody").Plan)).problem(t, http.StatusConflict, "nothing_to_erase")
	s.post("/v1/logs/default/retention/run", manager, "").into(t, http.StatusOK, new(any))
	s.until("the erasure to be done", func() bool {
		s.post("/v1/logs/default/retention/run", manager, "")
		s.get("/v1/erasures/"+e.ID, manager).into(t, http.StatusOK, &e)
		return e.Done
	})
	if fmt.Sprint(e.Removed) != "map[archive:true files:true index:true store:true]" {
		t.Errorf("got %+v", e)
	}
}

// Before the minimum age nothing is erased.
func TestErasureWaitsForTheMinimumAge(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendPerson("default", "jane")
	s.put("/v1/logs/default/retention", s.admin, `{"min":"30d","max":"forever","reason":"r"}`).into(t, http.StatusOK, new(any))
	p := s.plan("default", s.admin, "jane")
	if p.Early != 1 {
		t.Errorf("got %+v", p)
	}
	s.post("/v1/erasures", s.admin, erasing("jane", p.Plan)).problem(t, http.StatusConflict, "min_age")
}

// What was purged is answered with what is left of it: its entry, its proof, and the event by which it was.
func TestAPurgedEventIsGone(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	s := newTestServerWith(t, 10*time.Millisecond, func(c *log.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	manager := s.key(log.RoleManager, "default")
	first := s.appendPerson("default", "jane")
	s.put("/v1/logs/default/retention", manager, `{"max":"30d","archive":false,"reason":"r"}`).into(t, http.StatusOK, new(any))
	ahead.Store(int64(31 * 24 * time.Hour))
	last := s.appendPerson("default", "joe")
	var report struct {
		Purged  uint64
		Blocked *struct{ Reason string }
	}
	s.post("/v1/logs/default/retention/run", manager, `{"dry_run":true}`).into(t, http.StatusOK, &report)
	if report.Purged != 1 || report.Blocked != nil {
		t.Fatalf("a dry run: got %+v", report)
	}
	s.get("/v1/events/"+first.ID, manager).into(t, http.StatusOK, new(any))
	s.post("/v1/logs/default/retention/run", manager, "").into(t, http.StatusOK, &report)
	p := s.get("/v1/events/"+first.ID, manager).problem(t, http.StatusGone, "purged")
	var left, purge struct {
		record
		PurgedBy *client.Ref `json:"purged_by"`
		Digest   string
	}
	for _, x := range []struct {
		text json.RawMessage
		into any
	}{{p.Record, &left}, {p.Purge, &purge}} {
		if err := json.Unmarshal(x.text, x.into); err != nil {
			t.Fatalf("%s: %v", x.text, err)
		}
	}
	if left.ID != first.ID || left.Hash != first.Hash || left.PurgedBy == nil || left.PurgedBy.ID != purge.ID || left.Event != nil || left.Digest == "" ||
		!strings.Contains(string(purge.Event), `"treeline.retention.purged"`) {
		t.Errorf("got %s\nand %s", p.Record, p.Purge)
	}
	trust := log.Trust{Removals: new(log.Removals)}
	trust.Keys = append(trust.Keys, verifiers(t, "test.example/logs/default")...)
	s.until("the purge's event to be signed", func() bool { return s.get("/v1/events/"+purge.ID+"/proof", manager).status == http.StatusOK })
	if _, err := trust.Removals.Add(s.get("/v1/events/"+purge.ID+"/proof", manager).body, trust); err != nil {
		t.Error(err)
	}
	for _, proof := range [][]byte{[]byte(p.Proof), s.get("/v1/events/"+first.ID+"/proof", manager).body} {
		v, err := log.VerifyProof(proof, trust)
		if err != nil || v.PurgedBy == nil || v.PurgedBy.ID != purge.ID || v.Leaf.String() != first.Hash {
			t.Errorf("got %+v, %v", v, err)
		}
	}
	for _, path := range []string{"/v1/events?limit=100&order=oldest", "/v1/feed?timeout=0s", "/v1/export?format=ndjson", "/v1/export?format=csv"} {
		got := string(s.get(path, manager).body)
		if !strings.Contains(got, first.Hash) || !strings.Contains(got, purge.ID) || strings.Contains(got, `"jane"`) || !strings.Contains(got, last.ID) {
			t.Errorf("%s: got %s", path, got)
		}
	}
	// The id stays taken, and decides alone.
	var again struct {
		record
		Unchecked bool
	}
	s.post("/v1/events", s.admin, fmt.Sprintf(`{"id":%q,"action":"other"}`, first.ID)).into(t, http.StatusOK, &again)
	if again.ID != first.ID || !again.Duplicate || !again.Unchecked {
		t.Errorf("got %+v", again)
	}
	v := s.bundle(t, manager, "", trust)
	if v.Purged != 1 || !v.Complete || v.NotShown != 0 {
		t.Errorf("the bundle: got %+v", v)
	}
	c, err := client.New(client.Config{Server: s.url, Key: manager})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Event(t.Context(), first.ID); !client.IsCode(err, "purged") {
		t.Errorf("the client: got %v", err)
	}
}

// bundle exports a bundle and verifies it.
func (s *testServer) bundle(t *testing.T, key, params string, trust log.Trust) *bundle.Verification {
	t.Helper()
	got := s.get("/v1/export?format=bundle"+params, key)
	if got.status != http.StatusOK {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	v, err := bundle.Verify(bytes.NewReader(got.body), trust)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What is withheld isn't in a proof, nor in a bundle, and all the rest still verifies. What was erased is told from it.
func TestWithheldClaims(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	r := s.appendPerson("default", "jane")
	var trust log.Trust
	trust.Keys = append(trust.Keys, verifiers(t, "test.example/logs/default")...)
	withheld := func(d *log.Disclosure) (pointers []string) {
		for i := range d.Claims {
			if d.Claims[i].Withheld() {
				pointers = append(pointers, d.Claims[i].Pointer)
			}
		}
		return pointers
	}
	for params, want := range map[string][]string{
		"?withhold=/actor/email":                        {"/actor/email"},
		"?withhold=/actor/email&withhold=/metadata/*":   {"/actor/email", "/metadata/k"},
		"?withhold=/actor/*":                            {"/actor/email", "/actor/id", "/actor/name"},
		"?withhold=/targets/*/name&withhold=/changes/*": nil,
	} {
		got := s.get("/v1/events/"+r.ID+"/proof"+params, s.admin)
		v, err := log.VerifyProof(got.body, trust)
		if err != nil || v.Leaf.String() != r.Hash || !slices.Equal(withheld(v.Disclosure), want) {
			t.Errorf("%s: got %d %s: %+v, %v", params, got.status, got.body, v, err)
		}
		if p, err := checkpoint.ParseProof(got.body); err != nil || slices.Contains(want, "/actor/email") == bytes.Contains(p.Extra, []byte("jane.private")) {
			t.Errorf("%s: got %s, %v", params, got.body, err)
		}
	}
	for _, params := range []string{"withhold=/actor/emial", "withhold=", "withhold=/nothing/*", "withhold=/actor"} {
		s.get("/v1/events/"+r.ID+"/proof?"+params, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
		s.get("/v1/export?format=bundle&"+params, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
	}
	s.get("/v1/export?withhold=/actor/email", s.admin).problem(t, http.StatusBadRequest, "invalid_request")
	v := s.bundle(t, s.admin, "&withhold=/actor/email&withhold=/metadata/*", trust)
	if v.Partial != 1 || !slices.Equal(v.Withheld, []string{"/actor/email", "/metadata/k"}) || !v.Complete {
		t.Errorf("got %+v", v)
	}
	got := s.get("/v1/export?format=bundle&withhold=/actor/email", s.admin)
	files, err := stdzip.NewReader(bytes.NewReader(got.body), int64(len(got.body)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files.File {
		if content, err := readZipped(f); err != nil || bytes.Contains(content, []byte("jane.private")) {
			t.Errorf("%s shows what is withheld: %s, %v", f.Name, content, err)
		}
	}
	e := s.erase("default", s.admin, "jane")
	s.until("the erasure's event to be signed", func() bool { return s.get("/v1/events/"+e.Events[0].ID+"/proof", s.admin).status == http.StatusOK })
	v = s.bundle(t, s.admin, "&withhold=/actor/name", trust)
	if v.Erased != 1 || !slices.Equal(v.ErasedClaims, []string{"/actor/email"}) || !slices.Equal(v.Withheld, []string{"/actor/name"}) {
		t.Errorf("after an erasure: got %+v", v)
	}
}

func readZipped(f *stdzip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}
