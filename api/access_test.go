package api_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// accessed is what GET /v1/access shows, and all that it shows.
type accessed struct {
	ID       string
	At       string
	Action   string
	Actor    struct{ ID, Type, Name string }
	IP       string
	Outcome  string
	Keys     []struct{ ID, Name string }
	Changes  []log.Change
	Metadata map[string]any
}

type accessPage struct {
	Data       []accessed
	NextCursor *string `json:"next_cursor"`
	HasMore    bool    `json:"has_more"`
}

// access returns a page, which holds no members but those that are known.
func (s *testServer) access(query, key string) (p accessPage) {
	s.t.Helper()
	got := s.get("/v1/access"+query, key)
	d := json.NewDecoder(bytes.NewReader(got.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil || got.status != http.StatusOK || p.HasMore != (p.NextCursor != nil) {
		s.t.Fatalf("/v1/access%s: got %d %s, %v", query, got.status, got.body, err)
	}
	return p
}

// allAccess returns all pages of the size.
func (s *testServer) allAccess(query string, limit int, key string) (all []accessed) {
	s.t.Helper()
	query += fmt.Sprintf("%slimit=%d", map[bool]string{true: "&", false: "?"}[strings.Contains(query, "?")], limit)
	p := s.access(query, key)
	for {
		if all = append(all, p.Data...); !p.HasMore {
			return all
		}
		if len(p.Data) != limit {
			s.t.Errorf("%s: a page of %d with more to come, want %d", query, len(p.Data), limit)
		}
		p = s.access(query+"&cursor="+*p.NextCursor, key)
	}
}

// merged is the list with the reads of each key as one, since a minute may end between them.
func merged(all []accessed) (out []accessed) {
	at := make(map[string]int)
	for _, a := range all {
		reads, _ := a.Metadata["reads"].(map[string]any)
		i, there := at[a.Actor.ID]
		switch {
		case reads == nil:
		case !there:
			at[a.Actor.ID] = len(out)
		default:
			sum := out[i].Metadata["reads"].(map[string]any)
			for kind, n := range reads {
				before, _ := sum[kind].(float64)
				sum[kind] = before + n.(float64)
			}
			continue
		}
		out = append(out, a)
	}
	return out
}

func actions(all []accessed) (out []string) {
	for _, a := range all {
		out = append(out, strings.TrimPrefix(a.Action, "treeline."))
	}
	return out
}

// recordReads has what was read recorded now, and not when the minute is over.
func (s *testServer) recordReads() {
	s.t.Helper()
	if err := s.service.RecordReads(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

// An auditor sees who did what to its log and who read it, newest first.
func TestAccess(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("acme")
	auditor := s.key(log.RoleAuditor, "acme")
	var made struct{ ID, Key string }
	s.post("/v1/keys", s.admin, `{"role":"reader","log":"acme","name":"siem"}`).into(t, http.StatusCreated, &made)
	s.patch("/v1/logs/acme", s.admin, `{"title":"Acme"}`).into(t, http.StatusOK, new(any))
	for range 3 {
		s.get("/v1/events", made.Key).into(t, http.StatusOK, new(any))
	}
	s.get("/v1/feed?timeout=0s", made.Key).into(t, http.StatusOK, new(any))
	s.get("/v1/events/none", made.Key).problem(t, http.StatusNotFound, "not_found") // nothing was read
	s.get("/v1/events?log=acme", s.admin).into(t, http.StatusOK, new(any))
	s.get("/v1/events", s.admin).into(t, http.StatusOK, new(any)) // of another log
	s.recordReads()
	s.post("/v1/logs/acme/freeze", s.admin, "").into(t, http.StatusOK, new(any))

	all := merged(s.allAccess("", 2, auditor))
	want := []string{"log.frozen", "log.read", "log.read", "log.updated", "key.created", "key.created", "log.created"}
	if got := actions(all); !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	adminID, err := log.ParseKey(s.admin)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range all {
		by := adminID
		if a.Action == "treeline.log.read" && a.Actor.ID == made.ID {
			by = made.ID
			if fmt.Sprint(a.Metadata) != "map[reads:map[feed:1 list:3]]" || a.Actor.Name != "siem" {
				t.Errorf("the reads: got %+v", a)
			}
		}
		if i >= len(all)-2 { // made by the test's harness
			continue
		}
		if a.Actor.ID != by || a.Actor.Type != "api_key" || a.IP != "127.0.0.1" {
			t.Errorf("%s: by whom: got %+v, want %s", a.Action, a, by)
		}
		if at, err := time.Parse(time.RFC3339, a.At); err != nil || time.Since(at) < 0 || time.Since(at) > time.Hour {
			t.Errorf("%s: at: got %q, %v", a.Action, a.At, err)
		}
	}
	if k := all[4].Keys; len(k) != 1 || k[0].ID != made.ID || k[0].Name != "siem" {
		t.Errorf("the key that was made: got %+v", k)
	}
	if c := all[3].Changes; len(c) != 1 || c[0] != (log.Change{Field: "title", Before: "", After: "Acme"}) {
		t.Errorf("the settings that were changed: got %+v", c)
	}
	for query, want := range map[string][]string{
		"?actor_id=" + made.ID:                            {"log.read"},
		"?action=treeline.key.*":                          {"key.created", "key.created"},
		"?action=treeline.key.*&actor_id=" + adminID:      {"key.created"},
		"?from=-1h&action=treeline.log.updated":           {"log.updated"},
		"?to=-1h":                                         nil,
		"?action=*&action=treeline.log.frozen&actor_id=x": nil,
	} {
		if got := actions(merged(s.allAccess(query, 50, auditor))); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
	s.get("/v1/access?q=x", auditor).problem(t, http.StatusBadRequest, "invalid_request")
	// To have looked is a read as well.
	s.recordReads()
	if first := s.access("?limit=1", auditor).Data[0]; first.Action != "treeline.log.read" || first.Metadata["reads"].(map[string]any)["access"] == nil {
		t.Errorf("after looking: got %+v", first)
	}
}

// What one tenant does changes nothing of what another sees, not even how much there is or how pages are cut.
func TestAccessTellsNothingOfOthers(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	for _, name := range []string{"mine", "theirs"} {
		s.log(name)
	}
	mine, theirs := s.key(log.RoleAuditor, "mine"), s.key(log.RoleAuditor, "theirs")
	for i := range 5 {
		s.patch("/v1/logs/mine", s.admin, fmt.Sprintf(`{"title":"%d"}`, i)).into(t, http.StatusOK, new(any))
		for j := range 7 * i {
			s.patch("/v1/logs/theirs", s.admin, fmt.Sprintf(`{"title":"%d"}`, j)).into(t, http.StatusOK, new(any))
		}
	}
	before := s.allAccess("", 3, mine)
	if len(before) != 7 {
		t.Errorf("got %d events, want 7: %+v", len(before), before)
	}
	first := s.access("?limit=3", mine)
	for i := range 20 {
		s.patch("/v1/logs/theirs", s.admin, fmt.Sprintf(`{"title":"x%d"}`, i)).into(t, http.StatusOK, new(any))
	}
	if after := s.allAccess("", 3, mine); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("after others did something: got %+v, want %+v", after, before)
	}
	if again := s.access("?limit=3", mine); len(*again.NextCursor) != len(*first.NextCursor) {
		t.Errorf("cursors: got %q and %q, want one length", *again.NextCursor, *first.NextCursor)
	}
	// The last of a tenant's events has nothing behind it, however much of others' is.
	if last := s.access("?limit=7", mine); last.HasMore || len(last.Data) != 7 {
		t.Errorf("a page of all: got %d, more %t", len(last.Data), last.HasMore)
	}
	// No place can be read in a cursor, and none works elsewhere.
	raw, err := base64.RawURLEncoding.DecodeString(*first.NextCursor)
	if err != nil {
		t.Fatal(err)
	}
	same := s.access("?limit=3", mine)
	rawSame, err := base64.RawURLEncoding.DecodeString(*same.NextCursor)
	if err != nil || bytes.Equal(raw[12:], rawSame[12:]) {
		t.Errorf("two cursors of one place are alike: %x and %x, %v", raw, rawSame, err)
	}
	raw[20] ^= 1
	for what, answer := range map[string]answer{
		"another log's":        s.get("/v1/access?cursor="+*first.NextCursor, theirs),
		"with another filter":  s.get("/v1/access?action=a&cursor="+*first.NextCursor, mine),
		"of events":            s.get("/v1/access?cursor=AQAAAAAAAAAHAAZg8sPSjfILecp0XvUPMorq1EpG0jQD", mine),
		"changed":              s.get("/v1/access?cursor="+base64.RawURLEncoding.EncodeToString(raw), mine),
		"used to list events":  s.get("/v1/events?cursor="+*first.NextCursor, mine),
		"cut off":              s.get("/v1/access?cursor="+(*first.NextCursor)[:20], mine),
		"with something added": s.get("/v1/access?cursor="+*first.NextCursor+"AAAA", mine),
	} {
		if p := answer.problem(t, http.StatusBadRequest, "invalid_request"); len(p.Errors) != 1 || p.Errors[0].Parameter != "cursor" {
			t.Errorf("a cursor %s: got %+v", what, p)
		}
	}
}

// Only the server appends to the system log; its keys may read it, with proofs, and no other tenant sees that it is there.
func TestTheSystemLog(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	for _, path := range []string{"/v1/events", "/v1/events/batch"} {
		for _, body := range []string{`{"action":"a"}`, `{"action":"treeline.log.created"}`, `{"events":[{"action":"a"}]}`} {
			s.post(path+"?log=system", s.admin, body).problem(t, http.StatusForbidden, "system_log")
		}
	}
	s.patch("/v1/logs/system", s.admin, `{"public":true}`).problem(t, http.StatusForbidden, "system_log")
	s.post("/v1/logs/system/freeze", s.admin, "").problem(t, http.StatusForbidden, "system_log")
	for _, role := range []string{"writer", "manager"} {
		s.post("/v1/keys", s.admin, fmt.Sprintf(`{"role":%q,"log":"system"}`, role)).problem(t, http.StatusBadRequest, "invalid_request")
	}
	var made struct{ Key string }
	s.post("/v1/keys", s.admin, `{"role":"auditor","log":"system"}`).into(t, http.StatusCreated, &made)
	var p page
	s.get("/v1/events?action=treeline.key.created&limit=1", made.Key).into(t, http.StatusOK, &p)
	if len(p.Data) != 1 {
		t.Fatalf("got %+v, want that the key was made", p)
	}
	if proof := s.get("/v1/events/"+p.Data[0].ID+"/proof?wait=signed", made.Key); proof.status != http.StatusOK {
		t.Errorf("its proof: got %d %s", proof.status, proof.body)
	}
	var l struct {
		System, Public bool
	}
	s.get("/v1/logs/system", s.admin).into(t, http.StatusOK, &l)
	if !l.System || l.Public {
		t.Errorf("the log: got %+v", l)
	}
	tenant := s.key(log.RoleAuditor, "default")
	for _, path := range []string{"/v1/events?log=", "/v1/access?log=", "/v1/checkpoint?log="} {
		s.get(path+"system", tenant).problem(t, http.StatusNotFound, "not_found")
	}
}

// toldOf is the table in docs/api.md of how the system log tells of each route.
func toldOf(t *testing.T) map[string]string {
	t.Helper()
	doc, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n### What it tells of each route\n")
	if !ok {
		t.Fatal("docs/api.md has no section on what the system log tells of each route")
	}
	section, _, _ = strings.Cut(section, "\n#")
	told := make(map[string]string)
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || strings.HasPrefix(line, "|---") || strings.Contains(line, "| route ") {
			continue
		}
		for route := range strings.SplitSeq(cells[1], ",") {
			told[strings.Trim(route, " `")] = strings.Trim(cells[2], " `")
		}
	}
	return told
}

// toldRequests are requests that are answered, by their routes.
func (s *testServer) toldRequests(name string) map[string]request {
	s.post("/v1/events?wait=signed&log="+name, s.admin, `{"id":"e","action":"a"}`).into(s.t, http.StatusCreated, new(any))
	var made struct{ ID string }
	newKey := func() string {
		s.post("/v1/keys", s.admin, fmt.Sprintf(`{"role":"reader","log":%q}`, name)).into(s.t, http.StatusCreated, &made)
		return made.ID
	}
	for _, other := range []string{"to-close", "to-approve", "to-cancel"} {
		s.log(other)
	}
	pending := func(name string) string { // the body of a request about what another key has asked for
		var r retentionInfo
		s.put("/v1/logs/"+name+"/retention", s.key(log.RoleManager, name), `{"max":"90d","reason":"r"}`).into(s.t, http.StatusAccepted, &r)
		if name == "to-cancel" {
			return fmt.Sprintf(`{"request":%q,"reason":"r"}`, r.Pending.ID)
		}
		return fmt.Sprintf(`{"request":%q}`, r.Pending.ID)
	}
	hold := s.hold(name, s.admin, `{"actor_id":"somebody"}`)
	s.appendPerson(name, "erased")
	erased := s.erase(name, s.admin, "erased")
	s.appendPerson(name, "told")
	return map[string]request{
		"POST /v1/events":                        {path: "/v1/events?log=" + name, body: `{"action":"a"}`},
		"POST /v1/events/batch":                  {path: "/v1/events/batch?log=" + name, body: `{"events":[{"action":"a"}]}`},
		"GET /v1/events":                         {path: "/v1/events?log=" + name},
		"GET /v1/events/{id}":                    {path: "/v1/events/e?log=" + name},
		"GET /v1/events/{id}/proof":              {path: "/v1/events/e/proof?log=" + name},
		"GET /v1/feed":                           {path: "/v1/feed?timeout=0s&log=" + name},
		"GET /v1/export":                         {path: "/v1/export?log=" + name},
		"GET /v1/checkpoint":                     {path: "/v1/checkpoint?log=" + name},
		"GET /v1/proofs/inclusion":               {path: "/v1/proofs/inclusion?index=0&size=1&log=" + name},
		"GET /v1/proofs/consistency":             {path: "/v1/proofs/consistency?from=0&to=1&log=" + name},
		"GET /v1/access":                         {path: "/v1/access?log=" + name},
		"GET /v1/verify":                         {path: "/v1/verify?log=" + name},
		"POST /v1/logs":                          {path: "/v1/logs", body: `{}`},
		"GET /v1/logs":                           {path: "/v1/logs"},
		"GET /v1/logs/{name}":                    {path: "/v1/logs/" + name},
		"PATCH /v1/logs/{name}":                  {path: "/v1/logs/" + name, body: `{"title":"T"}`},
		"POST /v1/logs/{name}/freeze":            {path: "/v1/logs/" + name + "/freeze"},
		"POST /v1/logs/{name}/close":             {path: "/v1/logs/to-close/close", body: `{"reason":"r"}`},
		"GET /v1/logs/{name}/retention":          {path: "/v1/logs/" + name + "/retention"},
		"PUT /v1/logs/{name}/retention":          {path: "/v1/logs/" + name + "/retention", body: `{"max":"90d","reason":"r"}`},
		"POST /v1/logs/{name}/retention/approve": {path: "/v1/logs/to-approve/retention/approve", body: pending("to-approve")},
		"POST /v1/logs/{name}/retention/cancel":  {path: "/v1/logs/to-cancel/retention/cancel", body: pending("to-cancel")},
		"POST /v1/logs/{name}/retention/run":     {path: "/v1/logs/" + name + "/retention/run"},
		"POST /v1/holds":                         {path: "/v1/holds?log=" + name, body: `{"matter":"m","reason":"r","filter":{"actor_id":"nobody"}}`},
		"GET /v1/holds":                          {path: "/v1/holds?log=" + name},
		"GET /v1/holds/{id}":                     {path: "/v1/holds/" + hold.ID + "?log=" + name},
		"POST /v1/holds/{id}/release":            {path: "/v1/holds/" + hold.ID + "/release?log=" + name, body: `{"reason":"r"}`},
		"POST /v1/erasures":                      {path: "/v1/erasures?log=" + name, body: erasing("told", s.plan(name, s.admin, "told").Plan)},
		"GET /v1/erasures":                       {path: "/v1/erasures?log=" + name},
		"GET /v1/erasures/{id}":                  {path: "/v1/erasures/" + erased.ID + "?log=" + name},
		"POST /v1/keys":                          {path: "/v1/keys", body: `{"role":"admin"}`},
		"GET /v1/keys":                           {path: "/v1/keys"},
		"GET /v1/keys/{id}":                      {path: "/v1/keys/" + newKey()},
		"DELETE /v1/keys/{id}":                   {path: "/v1/keys/" + newKey()},
		"POST /v1/keys/{id}/rotate":              {path: "/v1/keys/" + newKey() + "/rotate"},
		"GET /logs/{name}/checkpoint":            {path: "/logs/" + name + "/checkpoint"},
		"GET /logs/{name}/tile/{path...}":        {path: "/logs/" + name + "/tile/0/000.p/1"},
		"GET /logs/{name}/growth/{index}":        {path: "/logs/hub/growth/0"},
		"GET /witness/logs":                      {path: "/witness/logs"},
		"GET /openapi.yaml":                      {path: "/openapi.yaml"},
		"GET /healthz":                           {path: "/healthz"},
		"GET /readyz":                            {path: "/readyz"},
	}
}

// Each route that there is, is told of as the documentation says: an act or a read by one event, and nothing else.
func TestEachRouteIsTold(t *testing.T) {
	t.Parallel()
	s := newTestServerWith(t, 10*time.Millisecond, func(c *log.Config) {
		c.Hub, c.RetentionApproval, c.RetentionCoolingOff = true, true, time.Hour
	})
	s.log("acme")
	requests := s.toldRequests("acme")
	s.until("the hub to have entries", func() bool { return s.service.Log("hub").Sizes().Released > 0 })
	documented := toldOf(t)
	system := s.service.Log(log.SystemName)
	for _, pattern := range slices.Sorted(slices.Values(s.api.Patterns())) {
		if pattern == "/" || pattern == "POST /v1/logs/{name}/freeze" {
			continue
		}
		s.routeIsTold(pattern, requests, documented, system)
	}
	s.routeIsTold("POST /v1/logs/{name}/freeze", requests, documented, system) // it ends the log
}

func (s *testServer) routeIsTold(pattern string, requests map[string]request, documented map[string]string, system *log.Log) {
	s.t.Helper()
	want, ok := documented[pattern]
	r, asked := requests[pattern]
	if !ok || !asked {
		s.t.Errorf("%s: say in docs/api.md what the system log tells of it, and how the test can ask for it", pattern)
		return
	}
	s.recordReads()
	before := system.Sizes().Size
	r.method, _, _ = strings.Cut(pattern, " ")
	r.key = s.admin
	if got := s.do(r); got.status >= http.StatusBadRequest {
		s.t.Errorf("%s: got %d %s", pattern, got.status, got.body)
		return
	}
	s.recordReads()
	records, err := system.Records(s.t.Context(), before, system.Sizes().Size, 1<<20)
	if err != nil {
		s.t.Fatal(err)
	}
	var got []string
	for _, record := range records {
		var e struct {
			Action   string
			Metadata struct{ Reads map[string]int }
		}
		if err := json.Unmarshal(record.Event, &e); err != nil {
			s.t.Fatal(err)
		}
		for kind := range e.Metadata.Reads {
			e.Action += " " + kind
		}
		got = append(got, e.Action)
	}
	if want == "–" {
		want = ""
	}
	if strings.Join(got, ", ") != want {
		s.t.Errorf("%s: told: got %q, the documentation says %q", pattern, got, want)
	}
}

// What a manager reads of the server is its log's own, and told of as that, whichever server made the log.
func TestWhatAManagerReadsIsToldOfItsLog(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	managers := []string{s.key(log.RoleManager, "default")}
	if onPostgres { // else no other server can make logs
		info := log.Info{Name: "new", Origin: "test.example/logs/new", CreatedAt: 1}
		_, vkey, err := testSeed.Ed25519(info.Origin, 0)
		if err != nil {
			t.Fatal(err)
		}
		info.VKeys = []string{vkey}
		if err := s.store.CreateLog(t.Context(), &info); err != nil {
			t.Fatal(err)
		}
		k, text := log.NewKey(log.RoleManager, info.ID, "theirs", 1)
		if err := s.store.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
		managers = append(managers, text)
	}
	for _, manager := range managers {
		s.get("/v1/keys", manager).into(t, http.StatusOK, new(any))
		s.get("/v1/logs", manager).into(t, http.StatusOK, new(any))
		s.recordReads()
		reads := merged(s.access("?action=treeline.log.read", manager).Data)
		if len(reads) != 1 || reads[0].Actor.ID != manager[3:15] || fmt.Sprint(reads[0].Metadata) != "map[reads:map[keys:1 logs:1]]" {
			t.Errorf("got %+v", reads)
		}
	}
}

// Whoever reads a public log with another log's key, or with none, is nobody there: what would be told of the key is its own log's.
func TestReadersOfAPublicLogAreNotTold(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	open := s.log("open")
	s.patch("/v1/logs/open", s.admin, `{"public":true}`).into(t, http.StatusOK, new(any))
	auditor, stranger := s.key(log.RoleAuditor, "open"), s.key(log.RoleReader, "default")
	for _, key := range []string{"", stranger, auditor} {
		if got := s.get("/logs/open/checkpoint", key); got.status != http.StatusOK {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	s.recordReads()
	reads := s.access("?action=treeline.log.read", auditor).Data
	if len(reads) != 1 || reads[0].Actor.ID != auditor[3:15] || !strings.Contains(fmt.Sprint(reads), "tile:1") {
		t.Errorf("log %s: got %+v, want its own key's", open.Name, reads)
	}
}
