package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/api/apitest"
	"github.com/treeline-log/treeline/api/client"
)

// What is done in the application can be read from the log, by the application and by anyone with a key.
func TestTheApplication(t *testing.T) {
	dir := t.TempDir()
	s, err := apitest.Start(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, err := client.New(client.Config{Server: s.URL, Key: s.Key})
	if err != nil {
		t.Fatal(err)
	}
	spool, err := client.OpenSpool(client.SpoolConfig{Client: c, Dir: filepath.Join(dir, "spool")})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(newApp(c, spool))
	defer web.Close()
	do := func(who, method, path, body string) string {
		t.Helper()
		req, err := http.NewRequest(method, web.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(who, "")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		out, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.Status + " " + string(out)
	}
	for _, x := range []struct{ who, method, path, body, want string }{
		{"alice", "PUT", "/members/bob", "editor", "200 OK bob is editor\n"},
		{"bob", "PUT", "/members/bob", "owner", "403 Forbidden only owners may\n"},
		{"alice", "PUT", "/members/bob", "", "400 Bad Request which role?\n"},
	} {
		if got := do(x.who, x.method, x.path, x.body); got != x.want {
			t.Errorf("%v: got %q", x, got)
		}
	}
	if err := spool.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "200 OK 2 alice failure\n1 bob denied\n0 alice success role: \"\" to \"editor\"\n"
	if got := do("carol", "GET", "/history/bob", ""); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := spool.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	page, err := c.Events(t.Context(), client.Query{ActorIDs: []string{"carol"}})
	if err != nil || len(page.Records) != 1 || page.Records[0].Event.Action != "history.read" {
		t.Errorf("got %+v, %v, want that the history was read", page, err)
	}
}
