package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// command runs a command of the program on the cluster's store, which must end with the exit code, and returns what it wrote.
func (c *cluster) command(t *testing.T, code int, args ...string) string {
	t.Helper()
	got, out, err := treeline(append(append(args, "--data-dir", c.dir), c.flags...)...)
	if err != nil || got != code {
		t.Fatalf("treeline %q: exit code %d, %v, want %d\n%s", args, got, err, code, out)
	}
	return out
}

// replace ends the database as a crash does, and lets another one take its place, at its address.
func (c *cluster) replace(t *testing.T, by *pgtest.Server) {
	t.Helper()
	c.db.Quit()
	by.Stop()
	by.Port = c.db.Port
	by.Run(t)
	c.db = by
}

// newestRecorded returns the newest checkpoint of the log default that the database has.
func (c *cluster) newestRecorded(t *testing.T) string {
	t.Helper()
	store, err := postgres.OpenReadOnly(t.Context(), postgres.Options{URL: c.db.URL("postgres")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	infos, err := store.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(infos, func(i log.Info) bool { return i.Name == "default" })
	signed, err := store.Checkpoint(t.Context(), infos[at].ID, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	return string(signed.Note)
}

// A database that comes back without what was signed is refused by servers that start on it and by servers that run on: nothing is
// signed or taken, what is left can be read and proven, and the operator's way out is the one in docs/operations.md.
func TestADatabaseThatWasSetBackIsRefused(t *testing.T) {
	fences := pgtest.Start(t)
	for _, row := range []struct {
		name   string
		copied func(t *testing.T, c *cluster) (lose func()) // takes a copy of the database, and lets it become the database
		runs   bool                                         // the servers meanwhile
	}{
		{"a backup under servers that start", fromBackup, false},
		{"a backup under servers that run", fromBackup, true},
		{"a standby that lagged under servers that run", fromStandby, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := newCluster(t, fences)
			stays := func(p *process) error { return p.wrote("DATA RACE", "panic") }
			f := c.servings(t, 2, stays)
			var head logPage
			var made struct{ VKeys []string }
			f.servers[0].mustPost(t, "/v1/logs", `{"name":"quiet"}`, http.StatusCreated, &made)
			grow(t, f.servers[0], "quiet", 0, 10)
			grow(t, f.servers[0], "default", 0, 300)
			kept := feed(t, f.servers[0], "default")
			lose := row.copied(t, c)
			grow(t, f.servers[1], "default", 300, 600)
			f.servers[1].mustGetJSON(t, "/v1/checkpoint", &head)
			origin := strings.SplitN(head.VKeys[0], "+", 2)[0]
			fenced, err := c.fence.Load(t.Context(), origin)
			if err != nil {
				t.Fatal(err)
			}
			if !row.runs {
				for i, p := range f.servers {
					if err := p.stop(); err != nil {
						t.Fatal(err)
					}
					f.set(i, nil)
				}
			}
			lose()
			recorded := c.newestRecorded(t)
			if !row.runs {
				for i := range f.servers {
					f.set(i, c.serving(t, stays))
				}
			}

			for _, p := range f.servers {
				p.refuses(t, "default", kept, head.VKeys[0])
				p.goesOn(t, "quiet")
			}
			if now, err := c.fence.Load(t.Context(), origin); err != nil || string(now) != string(fenced) {
				t.Errorf("the fence was moved to\n%s\n%v", now, err)
			}
			if now := c.newestRecorded(t); now != recorded {
				t.Errorf("a checkpoint was recorded:\n%s", now)
			}
			c.recover(t, f, head.VKeys[0], string(fenced))
			p := c.serving(t, (*process).healthy) // a server that starts now has nothing to complain about
			if status, reasons := p.ready(t); status != http.StatusOK {
				t.Errorf("/readyz of a new server: %d %s", status, reasons)
			}
		})
	}
}

func fromBackup(t *testing.T, c *cluster) func() {
	backup := c.db.Clone(t)
	return func() { c.replace(t, backup) }
}

func fromStandby(t *testing.T, c *cluster) func() {
	standby := c.db.Clone(t)
	standby.StandBy(t, c.db)
	standby.Run(t)
	standby.Exec(t, "postgres", "ALTER SYSTEM SET primary_conninfo = ''") // cut off, though it is up
	standby.Exec(t, "postgres", "SELECT pg_reload_conf()")
	return func() {
		c.replace(t, standby)
		standby.Promote(t)
	}
}

// refuses checks that a server refuses to go on with a log whose store was set back, and shows what is left of it.
func (p *process) refuses(t *testing.T, name string, kept []storedRecord, vkey string) {
	t.Helper()
	var reasons string
	stopped := "log " + name + " is stopped: "
	for end := time.Now().Add(20 * time.Second); !strings.Contains(reasons, stopped); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log isn't stopped: %s\nthe server wrote:\n%s", reasons, p.stderr.String())
		}
		reasons = p.awaitReady(t, http.StatusServiceUnavailable)
	}
	// A server that had learned of entries, and not yet of their signature, says that they are gone.
	rolledBack := strings.Contains(reasons, "rollback") || strings.Contains(reasons, "600 entries were acknowledged")
	if !rolledBack || strings.Contains(reasons, "log quiet") {
		t.Errorf("/readyz says %s", reasons)
	}
	a, err := p.call(http.MethodPost, "/v1/events?log="+name, []byte(`{"action":"late"}`), "Content-Type", "application/json")
	if err != nil || a.status != http.StatusServiceUnavailable || !strings.Contains(string(a.body), `"log_stopped"`) {
		t.Errorf("an append is answered with %d %s, %v", a.status, a.body, err)
	}

	// The sizes of what is left are learned a moment later.
	var page logPage
	learned := func() bool { return page.Checkpoint != "" && page.Sizes.Size == uint64(len(kept)) }
	for end := time.Now().Add(10 * time.Second); !learned(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log's sizes are %+v, want %d", page.Sizes, len(kept))
		}
		if err := p.getJSON("/v1/checkpoint?log="+name, &page); err != nil && !strings.Contains(err.Error(), "log_stopped") {
			t.Fatal(err)
		}
	}
	got := feed(t, p, name)
	listed := pages(t, p, "/v1/events?order=oldest&limit=200&log="+name)
	if len(got) != len(kept) || len(listed) != len(kept) {
		t.Fatalf("%d and %d records, want %d", len(got), len(listed), len(kept))
	}
	for i, r := range kept {
		if d := got[i].differs(r) + listed[i].differs(r); d != "" {
			t.Errorf("record %d: %s", i, d)
		}
	}
	roots, _ := rootsOf(t, kept)
	checkNote(t, vkey, page.Checkpoint, roots)
	proof, err := p.get("/v1/events/" + kept[7].ID + "/proof?log=" + name)
	if err != nil {
		t.Fatal(err)
	}
	if code, out, err := treeline("verify", writeTemp(t, string(proof)), "--vkey", vkey); err != nil || code != exitOK {
		t.Errorf("a proof of what is left: exit code %d, %v\n%s", code, err, out)
	}
}

// goesOn checks that a server goes on with a log that is intact. Connections from before fail first.
func (p *process) goesOn(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		path := "/v1/events?wait=signed&log=" + name
		a, err := p.call(http.MethodPost, path, []byte(`{"action":"b"}`), "Content-Type", "application/json")
		if err == nil && a.status == http.StatusCreated && strings.Contains(string(a.body), `"state":"signed"`) {
			return
		}
		if err != nil || a.status != http.StatusServiceUnavailable || time.Now().After(end) {
			t.Fatalf("appending to %s: %v, %v", name, a, err)
		}
	}
}

// recover does what docs/operations.md says under "PostgreSQL: failover and restore", and checks what comes of it.
func (c *cluster) recover(t *testing.T, f *fleet, vkey, fenced string) {
	t.Helper()
	last, err := openNote(vkey, fenced)
	if err != nil {
		t.Fatal(err)
	}
	if out := c.command(t, exitDiverged, "fsck"); !strings.Contains(out, "size 600") || !strings.Contains(out, "size 300") {
		t.Errorf("fsck says\n%s", out)
	}
	// The system log first: it was set back, too, if anything was told in it since.
	c.command(t, exitOK, "log", "succeed", "system", "--as", "system-2")
	out := c.command(t, exitOK, "log", "succeed", "default", "--as", "default-2", "--reason", "a restore of an old backup")
	if !strings.Contains(out, fmt.Sprintf("  size   %d\n  root   %v\n", last.Size, last.Root)) {
		t.Errorf("it follows another checkpoint than size %d, root %v:\n%s", last.Size, last.Root, out)
	}
	newKey := strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n"):])

	var n int
	for _, p := range f.servers {
		p.awaitReady(t, http.StatusOK)
		var r storedRecord
		p.mustPost(t, "/v1/events?wait=signed&log=default-2", `{"action":"goes.on"}`, http.StatusCreated, &r)
		if n++; r.Index != uint64(n) || r.State != "signed" {
			t.Errorf("the new log takes %+v, want it at %d, signed", r, n)
		}
		a, err := p.call(http.MethodPost, "/v1/events", []byte(`{"action":"late"}`), "Content-Type", "application/json")
		if err != nil || a.status != http.StatusConflict || !strings.Contains(string(a.body), `"frozen"`) {
			t.Errorf("an append to the frozen log is answered with %d %s, %v", a.status, a.body, err)
		}
		proof, err := p.get("/v1/events/treeline.log.started/proof?log=default-2")
		if err != nil {
			t.Fatal(err)
		}
		code, out, err := treeline("verify", writeTemp(t, string(proof)), "--vkey", newKey, "--json")
		if err != nil || code != exitOK {
			t.Fatalf("the proof of the first event: exit code %d, %v\n%s", code, err, out)
		}
		for _, want := range []any{last.Origin, last.Root.String(), "a restore of an old backup"} {
			text, _ := json.Marshal(want)
			if !strings.Contains(out, string(text)) {
				t.Errorf("the new log's first event doesn't name %s:\n%s", text, out)
			}
		}
	}
	c.command(t, exitOK, "fsck", "--log", "default-2")
	c.command(t, exitOK, "fsck", "--log", "quiet")
}
