package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/checkpoint/s3fence/s3test"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// A fence of each kind is what it is there for: a store that is set back isn't signed for, whatever was restored with it, and
// the fence's own commands know all kinds.
func TestFenceOfEachKindKeepsAStoreFromBeingSetBack(t *testing.T) {
	for _, kind := range []struct {
		name string
		flag func(t *testing.T) string
	}{
		{"directory", func(t *testing.T) string { return filepath.Join(t.TempDir(), "fence") }},
		{"bucket", func(t *testing.T) string { return s3test.Start(t).URL("installations/a") }},
		{"database", func(t *testing.T) string { return pgtest.Start(t).URL("postgres") }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			fence := kind.flag(t)
			dir := t.TempDir()
			db := filepath.Join(dir, "treeline.db")
			var r storedRecord

			p := serving(t, dir, "--fence", fence, "--checkpoint-interval", "20ms")
			p.mustPost(t, "/v1/events?wait=signed", `{"action":"a"}`, http.StatusCreated, &r)
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			backup, err := os.ReadFile(db)
			if err != nil {
				t.Fatal(err)
			}

			p = serving(t, dir, "--fence", fence, "--checkpoint-interval", "20ms")
			p.mustPost(t, "/v1/events?wait=signed", `{"action":"b"}`, http.StatusCreated, &r)
			if r.State != "signed" {
				t.Errorf("got state %q, want signed", r.State)
			}
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}
			var page logPage
			want := func(code int, text string, args ...string) {
				t.Helper()
				got, out, err := treeline(append(args, "--data-dir", dir, "--fence", fence)...)
				if err != nil || got != code || !strings.Contains(out, text) {
					t.Errorf("treeline %q: exit code %d, %v, want %d and %q in:\n%s", args, got, err, code, text, out)
				}
				if strings.Contains(out, "horse") { // which is in both servers' passwords
					t.Errorf("treeline %q shows a password:\n%s", args, out)
				}
			}
			want(exitOK, "all checked", "fsck")
			want(exitOK, ".localhost/logs/default\n2\n", "fence", "show")
			want(exitOK, "records the checkpoint of size 2", "fence", "accept", "default")
			p = serving(t, dir, "--fence", fence)
			if last := feed(t, p, "system"); !strings.Contains(string(last[len(last)-1].Event), `"action":"treeline.fence.accepted"`) {
				t.Errorf("the system log ends with %s, want what was accepted", last[len(last)-1].Event)
			}
			if err := p.stop(); err != nil {
				t.Fatal(err)
			}

			if err := os.WriteFile(db, backup, 0o600); err != nil {
				t.Fatal(err)
			}
			want(exitDiverged, "DIVERGED", "fsck")
			want(exitDiverged, "the fence was not changed", "fence", "accept", "default")
			stopped, err := launch("", nil, dir, "--fence", fence)
			if err != nil {
				t.Fatal(err)
			}
			stopped.mustGetJSON(t, "/v1/checkpoint", &page)
			a, err := stopped.call(http.MethodPost, "/v1/events", []byte(`{"action":"c"}`), "Content-Type", "application/json")
			if err != nil || a.status != http.StatusServiceUnavailable {
				t.Errorf("an append to a store that is behind its fence: %v, %v", a, err)
			}
			if err := stopped.stop(); err != nil {
				t.Error(err)
			}
			if !strings.Contains(stopped.stderr.String(), "rollback") {
				t.Errorf("the server said:\n%s", stopped.stderr.String())
			}

			want(exitFailure, "can't be dropped while it is there", "fence", "drop", page.Origin)
			if err := os.Remove(db); err != nil {
				t.Fatal(err)
			}
			want(exitOK, "no longer knows "+page.Origin, "fence", "drop", page.Origin)
			want(exitOK, "", "fence", "show")
		})
	}
}

// Servers that share a database must share a fence, so a directory isn't one unless the operator says that there is one server.
func TestAFenceOfADatabase(t *testing.T) {
	open := func(o storeOptions) error {
		f, err := o.openFence(t.Context())
		if err == nil {
			f.Close()
		}
		return err
	}
	refused := func(o storeOptions, want string) {
		t.Helper()
		var text strings.Builder
		err := open(o)
		if err != nil {
			printError(&text, err)
		}
		got := text.String()
		if !strings.Contains(got, want) || strings.Contains(got, "hunter2") || strings.Contains(got, "horse") {
			t.Errorf("%+v: got %s, want %q", o, got, want)
		}
		if _, err := o.readFence(t.Context()); err == nil {
			t.Errorf("%+v: opened for reading", o)
		}
	}
	store, other := pgtest.Start(t), pgtest.Start(t)
	db, dir := store.URL("postgres"), t.TempDir()
	refused(storeOptions{dataDir: dir, db: db}, "give --fence s3://BUCKET/PREFIX, or --fence postgres://")
	refused(storeOptions{dataDir: dir, db: db, fence: filepath.Join(dir, "f")}, "--single-server")
	refused(storeOptions{dataDir: dir, db: db, fence: store.Database(t)}, "it is in the cluster of the store")
	refused(storeOptions{dataDir: dir, db: "postgres://u:hunter2@127.0.0.1:1/x", fence: other.URL("postgres")}, "connection refused")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("made %v, %v", entries, err)
	}

	for _, o := range []storeOptions{
		{dataDir: dir, db: db, singleServer: true},
		{dataDir: dir, db: db, fence: filepath.Join(dir, "g"), singleServer: true},
		{dataDir: dir, db: db, fence: other.URL("postgres")},
		{dataDir: dir, fence: store.URL("postgres")}, // of a store in a file
	} {
		if err := open(o); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestAFenceThatCantBeOpenedIsOneLineWithoutItsPassword(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	for _, row := range []struct{ fence, want string }{
		{"file:///hunter2", "--fence file://…: want a directory, s3://BUCKET/PREFIX or postgres://USER@HOST/DATABASE"},
		{"s3://u:hunter2@bucket/x", "opening fence: credentials don't belong in the URL"},
		{"s3://bucket/x?endpoint=http://127.0.0.1:1", "opening fence at s3://bucket/x: "},
		{"postgres://u:hunter2@127.0.0.1:1/x", "opening fence at postgres://127.0.0.1:1/x: dial tcp 127.0.0.1:1: connect: "},
		{"postgres://u:12/hunter2@127.0.0.1/x", "opening fence: want a URL like postgres://"},
		{"postgres://u:hunter2%zz@h/x", "opening fence: want a URL like postgres://"},
	} {
		for _, args := range [][]string{{"serve", "--listen", "127.0.0.1:0", "--ops-listen="}, {"fsck"}, {"fence", "show"}} {
			code, _, stderr := runCommand(t, "", append(args, "--data-dir", t.TempDir(), "--fence", row.fence)...)
			if code != exitFailure || !strings.HasPrefix(stderr, "treeline: "+row.want) || strings.Count(stderr, "\n") != 1 ||
				strings.Contains(stderr, "hunter2") {
				t.Errorf("treeline %q --fence %s: code %d, got %swant %s", args, row.fence, code, stderr, row.want)
			}
		}
	}
}
