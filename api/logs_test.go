package api_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// apiLog is a log as answers show it.
type apiLog struct {
	Name     string
	Title    string
	Origin   string
	Public   bool
	Events   int `json:"events_per_second"`
	Requests int `json:"requests_per_second"`
	Required []string
	Frozen   bool
	Sizes    struct{ Size, Signed uint64 }
}

func (s *testServer) showLog(name, key string) (l apiLog) {
	s.t.Helper()
	s.get("/v1/logs/"+name, key).into(s.t, http.StatusOK, &l)
	return l
}

func (s *testServer) patch(path, key, body string) answer {
	s.t.Helper()
	return s.do(request{method: "PATCH", path: path, key: key, body: body})
}

// A log without a name gets one that tells nobody whose it is; its title is for those who set it up.
func TestALogWithoutANameGetsARandomOne(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	var a, b apiLog
	s.post("/v1/logs", s.admin, `{"title":"Acme, Inc."}`).into(t, http.StatusCreated, &a)
	s.post("/v1/logs", s.admin, `{"title":"Acme, Inc.","public":true}`).into(t, http.StatusCreated, &b)
	form := regexp.MustCompile(`^l-[a-z2-7]{12}$`)
	if !form.MatchString(a.Name) || !form.MatchString(b.Name) || a.Name == b.Name || a.Title != "Acme, Inc." {
		t.Errorf("got %+v and %+v", a, b)
	}
	for _, path := range []string{
		"/v1/checkpoint?log=" + b.Name, "/logs/" + b.Name + "/checkpoint", "/witness/logs", "/v1/events?log=" + b.Name,
	} {
		if got := s.get(path, s.admin); got.status != http.StatusOK || strings.Contains(string(got.body), "Acme") {
			t.Errorf("%s: got %d %s, want no title", path, got.status, got.body)
		}
	}
}

func TestSettingsOfALog(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("acme")
	s.log("other")
	manager := s.key(log.RoleManager, "acme")
	var got apiLog
	s.patch("/v1/logs/acme", manager, `{"title":"Acmé","required":["/actor/id","/targets/0/id"]}`).into(t, http.StatusOK, &got)
	s.patch("/v1/logs/acme", s.admin, `{"events_per_second":100,"requests_per_second":20}`).into(t, http.StatusOK, &got)
	s.patch("/v1/logs/acme", manager, `{"public":true}`).into(t, http.StatusOK, &got)
	if got.Title != "Acmé" || !got.Public || got.Events != 100 || got.Requests != 20 || !slices.Equal(got.Required, []string{"/actor/id", "/targets/0/id"}) {
		t.Errorf("after three changes: got %+v", got)
	}
	if fmt.Sprint(s.showLog("acme", manager)) != fmt.Sprint(got) {
		t.Errorf("asked again: got %+v, want %+v", s.showLog("acme", manager), got)
	}
	// What is public may be read by anybody, from now on, and until now.
	if got := s.get("/logs/acme/checkpoint", ""); got.status != http.StatusOK {
		t.Errorf("the checkpoint of a public log: got %d %s", got.status, got.body)
	}
	s.patch("/v1/logs/acme", manager, `{"public":false,"title":"","required":[]}`).into(t, http.StatusOK, &got)
	s.get("/logs/acme/checkpoint", "").problem(t, http.StatusNotFound, "not_found")
	if got.Title != "" || len(got.Required) != 0 || got.Events != 100 {
		t.Errorf("taken back: got %+v", got)
	}
	// The limits of a log protect the others from it.
	for _, body := range []string{`{"events_per_second":0}`, `{"requests_per_second":1000,"title":"x"}`} {
		s.patch("/v1/logs/acme", manager, body).problem(t, http.StatusForbidden, "forbidden")
	}
	for _, body := range []string{
		`{"title":"` + strings.Repeat("x", 257) + `"}`, `{"title":"a\nb"}`, `{"name":"x"}`, `{"public":"yes"}`, `{"events_per_second":-1}`,
		`{"events_per_second":1000001}`, `{"events_per_second":1.5}`, `{"required":["actor"]}`, `{"required":["/actor"]}`,
		`{"required":["/actor/id","/actor/id"]}`, `{"required":["/metadata/a/b"]}`, `{"required":[""]}`, `{"Title":"x"}`, `[]`, ``,
	} {
		if got := s.patch("/v1/logs/acme", s.admin, body); got.status != http.StatusBadRequest && (body != "" || got.status != http.StatusUnsupportedMediaType) {
			t.Errorf("%s: got %d %s, want it refused", body, got.status, got.body)
		}
	}
	if after := s.showLog("acme", s.admin); fmt.Sprint(after) != fmt.Sprint(got) {
		t.Errorf("what was refused changed %+v to %+v", got, after)
	}
	// A manager's list has its own log; of another it isn't told that there is one.
	var list struct{ Data []apiLog }
	s.get("/v1/logs", manager).into(t, http.StatusOK, &list)
	if len(list.Data) != 1 || list.Data[0].Name != "acme" {
		t.Errorf("a manager is shown %+v", list.Data)
	}
	for _, r := range []request{
		{method: "GET", path: "/v1/logs/%s"}, {method: "PATCH", path: "/v1/logs/%s", body: `{"title":"mine"}`}, {method: "POST", path: "/v1/logs/%s/freeze"},
	} {
		r.key = manager
		theirs, none := r, r
		theirs.path, none.path = fmt.Sprintf(r.path, "other"), fmt.Sprintf(r.path, "never")
		a, b := s.do(theirs), s.do(none)
		a.problem(t, http.StatusNotFound, "not_found")
		if a.anonymous() != b.anonymous() {
			t.Errorf("%s: another's log got %s, none got %s", r.path, a.anonymous(), b.anonymous())
		}
	}
	if l := s.showLog("other", s.admin); l.Title != "" || l.Frozen {
		t.Errorf("a manager changed another's log: %+v", l)
	}
}

// What a log requires, an event must have; what is there already stays, and a retry of it is an append like others.
func TestALogRequiresMembers(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("acme")
	send := func(body string) answer { return s.post("/v1/events?log=acme", s.admin, body) }
	send(`{"action":"a"}`).into(t, http.StatusCreated, new(record))
	s.patch("/v1/logs/acme", s.admin, `{"required":["/actor/id","/targets/0/id","/metadata/a~1b","/outcome"]}`).into(t, http.StatusOK, new(any))
	whole := `{"action":"a","actor_id":"x","target_id":"y","outcome":"success","metadata":{"a/b":null}}`
	send(whole).into(t, http.StatusCreated, new(record))
	p := send(`{"action":"a","actor":{"id":"x"},"metadata":{"a":1},"outcome":null}`).problem(t, http.StatusBadRequest, "invalid_event")
	var lacking []string
	for _, e := range p.Errors {
		if e.Index != nil || !strings.Contains(e.Detail, "required") {
			t.Errorf("got %+v", e)
		}
		lacking = append(lacking, e.Pointer)
	}
	if want := []string{"/targets/0/id", "/metadata/a~1b", "/outcome"}; !slices.Equal(lacking, want) {
		t.Errorf("lacking: got %q, want %q", lacking, want)
	}
	for kind, body := range map[string]string{
		"application/json":     `{"events":[` + whole + `,{"action":"b","outcome":"denied"}]}`,
		"application/x-ndjson": whole + "\n" + `{"action":"b","outcome":"denied"}`,
	} {
		p := s.do(request{method: "POST", path: "/v1/events/batch?log=acme", key: s.admin, kind: kind, body: body}).problem(t, http.StatusBadRequest, "invalid_event")
		if len(p.Errors) != 3 || p.Errors[0].Index == nil || *p.Errors[0].Index != 1 || p.Errors[0].Pointer != "/actor/id" {
			t.Errorf("%s: got %+v", kind, p.Errors)
		}
	}
	if size := s.service.Log("acme").Sizes().Size; size != 2 {
		t.Errorf("the log has %d events, want 2", size)
	}
}

// A frozen log takes nothing more, and serves what it has, signed to its end.
func TestAFrozenLogServesReads(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("acme")
	manager := s.key(log.RoleManager, "acme")
	var r record
	s.post("/v1/events?log=acme", s.admin, `{"id":"e1","action":"a"}`).into(t, http.StatusCreated, &r)
	for range 2 {
		var l apiLog
		s.do(request{method: "POST", path: "/v1/logs/acme/freeze", key: manager}).into(t, http.StatusOK, &l)
		if !l.Frozen {
			t.Errorf("got %+v, want it frozen", l)
		}
	}
	s.post("/v1/events?log=acme", s.admin, `{"action":"a"}`).problem(t, http.StatusConflict, "frozen")
	s.post("/v1/events/batch?log=acme", s.admin, `{"events":[{"action":"a"}]}`).problem(t, http.StatusConflict, "frozen")
	s.until("the last event to be signed", func() bool { return s.service.Log("acme").Sizes().Signed == 1 })
	for _, path := range []string{"/v1/events", "/v1/events/e1", "/v1/events/e1/proof", "/v1/feed?timeout=0s", "/v1/checkpoint"} {
		path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "log=acme"
		if got := s.get(path, s.admin); got.status != http.StatusOK {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
	// Its name is never free again, its settings may still change.
	s.post("/v1/logs", s.admin, `{"name":"acme"}`).problem(t, http.StatusConflict, "exists")
	s.patch("/v1/logs/acme", manager, `{"title":"gone"}`).into(t, http.StatusOK, new(any))
	if l := s.showLog("acme", s.admin); !l.Frozen || l.Title != "gone" {
		t.Errorf("got %+v", l)
	}
}

// The hub is set up by the server's flags.
func TestTheHubHasNoSettings(t *testing.T) {
	t.Parallel()
	s := newTestServerWith(t, 10*time.Millisecond, func(c *log.Config) { c.Hub = true })
	s.patch("/v1/logs/hub", s.admin, `{"public":true}`).problem(t, http.StatusBadRequest, "hub_log")
	s.post("/v1/logs/hub/freeze", s.admin, ``).problem(t, http.StatusBadRequest, "hub_log")
	for _, role := range []string{"writer", "manager"} {
		s.post("/v1/keys", s.admin, `{"role":"`+role+`","log":"hub"}`).problem(t, http.StatusBadRequest, "invalid_request")
	}
	if l := s.showLog("hub", s.admin); l.Public || l.Frozen {
		t.Errorf("got %+v", l)
	}
}

// What another server has changed is seen by whoever asks for the log, and by all others within seconds.
func TestSettingsThatAnotherServerHasChanged(t *testing.T) {
	t.Parallel()
	s := newTestServerWith(t, time.Hour, func(c *log.Config) { c.Shared = true })
	s.log("acme")
	id := s.service.Log("acme").ID
	_, err := s.store.Configure(t.Context(), id, func(c *log.Settings) error {
		c.Title = "changed"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Freeze(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if l := s.showLog("acme", s.admin); l.Title != "changed" || !l.Frozen {
		t.Errorf("got %+v, want what is in the store", l)
	}
	other := s.log("other")
	if _, err := s.store.Configure(t.Context(), other.ID, func(c *log.Settings) error { c.Public = true; return nil }); err != nil {
		t.Fatal(err)
	}
	s.until("the other log to be public", func() bool { return s.get("/logs/other/checkpoint", "").status == http.StatusOK })
}
