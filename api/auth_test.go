package api_test

import (
	"hash/crc32"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// Without the store nobody knows whether a key is good: the sender is told to come back, as nothing has begun.
func TestAKeyThatCannotBeReadIsNoReasonToGiveUp(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	_, key := log.NewKey(log.RoleAdmin, 0, "", 0)
	s.store.failure.Store(true)
	got := s.post("/v1/events", key, `{"action":"a"}`)
	got.problem(t, http.StatusServiceUnavailable, "store_unavailable")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// Whatever is wrong with a key, the answer is the same, so that nobody learns which ids exist.
func TestEveryWrongKeyGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	_, unknown := log.NewKey(log.RoleAdmin, 0, "", 0)
	// A known id with another secret, and a checksum that is right for it: only the hash tells.
	wrongSecret := forgeSecret(s.admin)
	if _, err := log.ParseKey(wrongSecret); err != nil {
		t.Fatal(err)
	}
	var want string
	for name, header := range map[string]string{
		"missing":            "",
		"no scheme":          s.admin,
		"another scheme":     "Basic " + s.admin,
		"lower-case scheme":  "bearer " + s.admin,
		"empty":              "Bearer ",
		"malformed":          "Bearer tl_x",
		"cut off":            "Bearer " + s.admin[:len(s.admin)-1],
		"something appended": "Bearer " + s.admin + "x",
		"two spaces":         "Bearer  " + s.admin,
		"wrong checksum":     "Bearer " + s.admin[:len(s.admin)-1] + string(s.admin[len(s.admin)-1]^1),
		"wrong secret":       "Bearer " + wrongSecret,
		"unknown id":         "Bearer " + unknown,
	} {
		for _, path := range []string{"/v1/events", "/v1/logs", "/v1/events/none?log=none", "/v1/checkpoint?nonsense=1"} {
			req, err := http.NewRequest(http.MethodGet, s.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if header != "" {
				req.Header.Set("Authorization", header)
			}
			got := s.send(req)
			got.problem(t, http.StatusUnauthorized, "unauthorized")
			if got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s: no WWW-Authenticate", name)
			}
			if want == "" {
				want = got.anonymous()
			}
			if got.anonymous() != want {
				t.Errorf("%s: got %s, want %s", name, got.anonymous(), want)
			}
		}
	}
	// A key that was read a moment ago is remembered; that is no way round its secret.
	s.get("/v1/events", s.admin).into(t, http.StatusOK, new(any))
	if got := s.get("/v1/events", wrongSecret).anonymous(); got != want {
		t.Errorf("wrong secret of a remembered key: got %s", got)
	}
}

// forgeSecret returns a key with the same public id that is well formed.
func forgeSecret(key string) string {
	_, other := log.NewKey(log.RoleAdmin, 0, "", 0)
	const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	body := key[:15] + other[15:48]
	var sum [6]byte
	for i, n := len(sum)-1, crc32.ChecksumIEEE([]byte(body)); i >= 0; i, n = i-1, n/62 {
		sum[i] = base62[n%62]
	}
	return body + "_" + string(sum[:])
}

// A log's key means that log. What it may not know of is answered like what doesn't exist, to the byte.
func TestAnotherTenantsLogIsNoLog(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("mine")
	s.log("theirs")
	reader, writer := s.key(log.RoleReader, "mine"), s.key(log.RoleWriter, "mine")
	s.post("/v1/events?log=theirs&wait=signed", s.admin, `{"id":"e1","action":"a"}`).into(t, http.StatusCreated, new(record))

	for _, r := range []request{
		{method: "GET", path: "/v1/events?log=%s"},
		{method: "GET", path: "/v1/events/e1?log=%s"},
		{method: "GET", path: "/v1/events/e1/proof?log=%s"},
		{method: "GET", path: "/v1/feed?from=0&log=%s"},
		{method: "GET", path: "/v1/proofs/inclusion?index=0&log=%s"},
		{method: "GET", path: "/v1/proofs/consistency?from=0&log=%s"},
		{method: "GET", path: "/v1/verify?log=%s"},
		{method: "GET", path: "/v1/checkpoint?log=%s"},
		{method: "POST", path: "/v1/events?log=%s", body: `{"action":"a"}`},
		{method: "POST", path: "/v1/events/batch?log=%s", body: `{"events":[{"action":"a"}]}`},
		{method: "GET", path: "/logs/%s/checkpoint"},
		{method: "GET", path: "/logs/%s/tile/0/000.p/1"},
		{method: "GET", path: "/logs/%s/tile/entries/000.p/1"},
		{method: "GET", path: "/logs/%s/tile/nonsense"},
	} {
		for _, key := range []string{reader, writer, ""} {
			if key == "" && strings.HasPrefix(r.path, "/v1") {
				continue
			}
			path := r.path
			r.key = key
			r.path = strings.ReplaceAll(path, "%s", "theirs")
			theirs := s.do(r)
			r.path = strings.ReplaceAll(path, "%s", "never-made")
			none := s.do(r)
			r.path = path
			theirs.problem(t, http.StatusNotFound, "not_found")
			if theirs.anonymous() != none.anonymous() {
				t.Errorf("%s %s: another's log got\n%s\nnone got\n%s", r.method, path, theirs.anonymous(), none.anonymous())
			}
		}
	}
	// Its own log it may name; an id of another's log is none.
	s.get("/v1/events?log=mine", reader).into(t, http.StatusOK, new(any))
	theirs, none := s.get("/v1/events/e1", reader), s.get("/v1/events/e2", reader)
	theirs.problem(t, http.StatusNotFound, "not_found")
	if theirs.anonymous() != none.anonymous() {
		t.Errorf("an id of another's log: got %s, none got %s", theirs.anonymous(), none.anonymous())
	}
}

// A server-wide key names the log, and means default when it doesn't.
func TestAServerWideKeyNamesTheLog(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.log("other")
	for path, want := range map[string]string{"/v1/events": "default", "/v1/events?log=default": "default", "/v1/events?log=other": "other"} {
		var r record
		s.post(path, s.admin, `{"action":"a"}`).into(t, http.StatusCreated, &r)
		if r.Log != want {
			t.Errorf("%s: appended to %s, want %s", path, r.Log, want)
		}
	}
	s.get("/v1/events?log=none", s.admin).problem(t, http.StatusNotFound, "not_found")
	s.get("/v1/events?log=", s.admin).into(t, http.StatusOK, new(any))
}

func TestLogsAndKeys(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	var made struct {
		Name, Origin string
		LogID        string `json:"log_id"`
		VKeys        []string
		Public       bool
		Sizes        map[string]int
	}
	s.post("/v1/logs", s.admin, `{"name":"new","public":true}`).into(t, http.StatusCreated, &made)
	if made.Name != "new" || made.Origin != "test.example/logs/new" || len(made.LogID) != 64 || len(made.VKeys) != 1 || !made.Public {
		t.Errorf("log: got %+v", made)
	}
	s.post("/v1/logs", s.admin, `{"name":"new"}`).problem(t, http.StatusConflict, "exists")
	for _, body := range []string{
		`{"name":"hub"}`, `{"name":"system"}`, `{"name":"A"}`, `{"name":""}`, `{"name":"-x"}`, `{"name":"x","Public":true}`,
		`{"name":"x","name":"y"}`, `{"name":"x","more":1}`, `[]`, `{`, `{"name":"x"} {}`, `{"name":1}`,
	} {
		s.post("/v1/logs", s.admin, body).problem(t, http.StatusBadRequest, "invalid_request")
	}
	var key struct{ ID, Key, Role, Log, Name string }
	s.post("/v1/keys", s.admin, `{"role":"writer","log":"new","name":"ci"}`).into(t, http.StatusCreated, &key)
	if id, err := log.ParseKey(key.Key); err != nil || id != key.ID || key.Role != "writer" || key.Log != "new" || key.Name != "ci" {
		t.Errorf("key: got %+v, %v", key, err)
	}
	s.post("/v1/events", key.Key, `{"action":"a"}`).into(t, http.StatusCreated, new(record))
	for _, body := range []string{
		`{"role":"root"}`, `{}`, `{"role":"admin","log":"new"}`, `{"role":"writer","name":"` + strings.Repeat("x", 129) + `"}`,
	} {
		s.post("/v1/keys", s.admin, body).problem(t, http.StatusBadRequest, "invalid_request")
	}
	s.post("/v1/keys", s.admin, `{"role":"writer","log":"none"}`).problem(t, http.StatusNotFound, "not_found")
	// A key's text, and what its secret hashes to, are shown once and never again.
	for _, path := range []string{"/v1/keys", "/v1/logs"} {
		got := s.get(path, s.admin)
		for _, secret := range []string{key.Key, key.Key[16:48], s.admin[16:48], `"key"`, "hash"} {
			if strings.Contains(string(got.body), secret) {
				t.Errorf("%s shows %q: %s", path, secret, got.body)
			}
		}
		var list struct {
			Data       []any
			NextCursor *string `json:"next_cursor"`
			HasMore    bool    `json:"has_more"`
		}
		got.into(t, http.StatusOK, &list)
		want := map[string]int{"/v1/logs": 3, "/v1/keys": 2}[path] // the system log is one
		if len(list.Data) != want || list.NextCursor != nil || list.HasMore {
			t.Errorf("%s: got %s", path, got.body)
		}
	}
}

// A key of a log that another server has just made is shown as that, and not as one that is server-wide; so is the log.
func TestAKeyOfALogThatAnotherServerMade(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Hour)
	info := log.Info{Name: "new", Origin: "test.example/logs/new", CreatedAt: 1}
	_, vkey, err := testSeed.Ed25519(info.Origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	info.VKeys = []string{vkey}
	if err := s.store.CreateLog(t.Context(), &info); err != nil {
		t.Fatal(err)
	}
	k, _ := log.NewKey(log.RoleReader, info.ID, "theirs", 1)
	if err := s.store.CreateKey(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	var keys struct{ Data []struct{ Log, Name *string } }
	s.get("/v1/keys", s.admin).into(t, http.StatusOK, &keys)
	found := false
	for _, k := range keys.Data {
		if *k.Name == "theirs" {
			found = k.Log != nil && *k.Log == "new"
		} else if k.Log != nil {
			t.Errorf("a server-wide key is shown as one of log %q", *k.Log)
		}
	}
	if !found {
		t.Errorf("the key isn't shown as one of log new: %+v", keys)
	}
	if !onPostgres {
		return // no other server can make logs
	}
	var logs struct{ Data []struct{ Name string } }
	s.get("/v1/logs", s.admin).into(t, http.StatusOK, &logs)
	if len(logs.Data) != 3 || logs.Data[2].Name != "new" {
		t.Errorf("logs: got %+v, want system, default and new", logs)
	}
}
