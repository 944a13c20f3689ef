package main

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// fetch sends a request without a key, and returns the status and the body of the answer; 0 if there is none.
func fetch(method, url string) (int, http.Header, string) {
	req, err := http.NewRequest(method, url, strings.NewReader("{}"))
	if err != nil {
		return 0, nil, err.Error()
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err.Error()
	}
	return resp.StatusCode, resp.Header, string(body)
}

// untilAnswered waits until a GET has an answer of that status, with the text in it.
func untilAnswered(t *testing.T, url string, status int, text string) string {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got, _, body := fetch(http.MethodGet, url)
		if got == status && strings.Contains(body, text) {
			return body
		}
		if time.Now().After(deadline) {
			t.Fatalf("GET %s: %d %s, want %d with %q", url, got, body, status, text)
		}
	}
}

// A server waits for a database that isn't there or doesn't let it in, and says so where operators look and nowhere else. It serves
// as soon as it can, and goes on after the database was away.
func TestAServerWaitsForItsDatabase(t *testing.T) {
	db := pgtest.Start(t)
	u, err := url.Parse(db.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	if code, out, err := treeline("migrate", "up", "--db", u.String()); err != nil || code != exitOK {
		t.Fatalf("migrate up: %d, %v\n%s", code, err, out)
	}
	db.Exec(t, "postgres", "CREATE ROLE app SUPERUSER LOGIN PASSWORD 'another one'")
	u.User = url.UserPassword("app", "battery staple")
	db.Stop()

	public, ops := freeAddress(t), freeAddress(t)
	type launched struct {
		p   *process
		err error
	}
	started := make(chan launched, 1)
	go func() {
		p, err := launch("", nil, t.TempDir(), "--db", u.String(), "--single-server", "--listen", public, "--ops-listen", ops)
		started <- launched{p, err}
	}()
	reason := untilAnswered(t, "http://"+ops+"/readyz", http.StatusServiceUnavailable, "can't be reached")
	if status, header, body := fetch(http.MethodGet, "http://"+public+"/readyz"); status != http.StatusServiceUnavailable ||
		header.Get("Retry-After") == "" || strings.Contains(body, "reached") || strings.Contains(body, "127.0.0.1") {
		t.Errorf("the public /readyz: %d %v %s, want 503 without a reason", status, header, body)
	}
	if status, header, body := fetch(http.MethodPost, "http://"+public+"/v1/events"); status != http.StatusServiceUnavailable ||
		header.Get("Retry-After") == "" || strings.Contains(body, "127.0.0.1") {
		t.Errorf("an append: %d %v %s, want 503", status, header, body)
	}
	untilAnswered(t, "http://"+public+"/healthz", http.StatusOK, "ok")
	db.Run(t)
	reason += untilAnswered(t, "http://"+ops+"/readyz", http.StatusServiceUnavailable, "password")
	db.Exec(t, "postgres", "ALTER ROLE app PASSWORD 'battery staple'")
	s := <-started
	if s.err != nil {
		t.Fatal(s.err)
	}
	p := s.p
	defer p.kill()
	grow(t, p, "default", 0, 10)

	db.Stop()
	a, err := p.call(http.MethodPost, "/v1/events", []byte(`{"id":"while-away","action":"a"}`), "Content-Type", "application/json")
	if err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || strings.Contains(string(a.body), "127.0.0.1") {
		t.Errorf("an append without a database: %d %v %s, want 503", a.status, a.header, a.body)
	}
	_, unknown := log.NewKey(log.RoleReader, 0, "of another installation", 1)
	for _, key := range []string{p.key, unknown} {
		a, err = p.call(http.MethodGet, "/v1/events", nil, "Authorization", "Bearer "+key)
		if err != nil {
			t.Fatal(err)
		}
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("a search without a database: %d %s, want 503", a.status, a.body)
		}
	}
	reason += untilAnswered(t, "http://"+ops+"/readyz", http.StatusServiceUnavailable, "can't be reached")
	if _, _, body := fetch(http.MethodGet, "http://"+public+"/readyz"); strings.Contains(body, "reached") {
		t.Errorf("the public /readyz tells why: %s", body)
	}
	db.Run(t)
	untilAnswered(t, "http://"+ops+"/readyz", http.StatusOK, "ready")
	grow(t, p, "default", 10, 10)
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if text := reason + p.stderr.String(); strings.Contains(text, "battery") {
		t.Errorf("the password is in what the server says:\n%s", text)
	}
}

// What can't pass by itself ends the server, with what to do about it.
func TestAServerDoesNotWaitForASchema(t *testing.T) {
	db := pgtest.Start(t)
	unmigrated, newer, unsafe := db.Database(t), db.Database(t), db.Database(t)
	for _, url := range []string{newer, unsafe} {
		if code, out, err := treeline("migrate", "up", "--db", url); err != nil || code != exitOK {
			t.Fatalf("migrate up: %d, %v\n%s", code, err, out)
		}
	}
	name := func(text string) string {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(u.Path, "/")
	}
	db.Exec(t, name(newer), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, TRUE)")
	db.Exec(t, "postgres", "ALTER DATABASE "+name(unsafe)+" SET synchronous_commit = off")
	for _, test := range []struct{ url, says string }{
		{unmigrated, "treeline migrate up"},
		{newer, "run a newer treeline"},
		{unsafe, "--allow-unsafe-db"},
	} {
		code, out, err := treeline("serve", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--ops-listen=", "--db", test.url, "--single-server")
		if err != nil || code != exitFailure || !strings.Contains(out, test.says) || strings.Contains(out, "correct") {
			t.Errorf("serve: exit code %d, %v\n%s\nwant %q", code, err, out, test.says)
		}
	}
	p, err := launch("", nil, t.TempDir(), "--db", unsafe, "--single-server", "--allow-unsafe-db")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(p.stderr.String(), "UNSAFE DATABASE") {
		t.Errorf("there is no warning:\n%s", p.stderr.String())
	}
}
