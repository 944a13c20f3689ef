package main

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// hubbed is a real server whose hub a real witness cosigns, with a public log.
type hubbed struct {
	*process
	t       *testing.T
	flags   []string
	witness *process
	acme    string // the log's key
	policy  string // the hub's
}

const hubbedURL = "https://audit.example.com"

func newHubbed(t *testing.T) *hubbed {
	t.Helper()
	h := &hubbed{t: t, flags: []string{"--hub", "--hub-public", "--url", hubbedURL, "--checkpoint-interval", "20ms", "--witness-interval", "20ms"}}
	dir := t.TempDir()
	h.process = serving(t, dir, h.flags...)
	var made, hub struct{ VKeys []string }
	h.mustPost(t, "/v1/logs", `{"name":"acme","public":true}`, http.StatusCreated, &made)
	h.mustGetJSON(t, "/v1/checkpoint?log=hub", &hub)
	h.acme = made.VKeys[0]
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(t.TempDir(), "logs")
	if err := os.WriteFile(known, []byte("log "+hub.VKeys[0]+"\nquorum none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.witness = witnessing(t, t.TempDir(), "--logs", known)
	_, rest, _ := strings.Cut(h.witness.stdout, "URL):\n  ")
	vkey, _, _ := strings.Cut(rest, "\n")
	h.policy = fmt.Sprintf("log %s\nwitness W %s %s\nquorum W\n", hub.VKeys[0], vkey, h.witness.url)
	file := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(file, []byte(h.policy), 0o600); err != nil {
		t.Fatal(err)
	}
	h.flags = append(h.flags, "--policy", file)
	h.process = serving(t, dir, h.flags...)
	return h
}

// third is somebody who follows the log and the hub under the hub's policy.
func (h *hubbed) third() *third {
	h.t.Helper()
	return newThird(h.t, h.policy, "--vkey", h.acme)
}

// witnessed appends an event to the log, and waits until the hub's witness stands behind it.
func (h *hubbed) witnessed(id string) {
	h.t.Helper()
	var record struct{ State string }
	h.mustPost(h.t, "/v1/events?log=acme&wait=witnessed", `{"id":"`+id+`","action":"x"}`, http.StatusCreated, &record)
	if record.State != "witnessed" {
		h.t.Fatalf("event %s: got %s, want it witnessed; the server wrote:\n%s", id, record.State, h.stderr.String())
	}
}

// hubProof saves the hub proof of an event.
func (h *hubbed) hubProof(id string) string {
	h.t.Helper()
	file := filepath.Join(h.t.TempDir(), id+".hub-proof")
	code, out, err := treeline("proof", "--hub", id, "--log", "acme", "--server", h.url, "--key", h.key, "-o", file)
	if err != nil || code != exitOK {
		h.t.Fatalf("treeline proof --hub: exit code %d, %v\n%s", code, err, out)
	}
	return file
}

// A server with a hub, a witness, an application, somebody with a proof, and a third party, all the real ones. Then the log is
// rewritten in the database.
func TestEventsAreWitnessedThroughTheHub(t *testing.T) {
	h := newHubbed(t)
	h.witnessed("e0")
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	fork := copied(t, h.dir)
	h.process = serving(t, h.dir, h.flags...)
	for n := 1; n <= 3; n++ {
		h.witnessed(fmt.Sprint("e", n))
	}
	hubPolicy := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(hubPolicy, []byte(h.policy), 0o600); err != nil {
		t.Fatal(err)
	}
	file := h.hubProof("e3")
	verified := func() {
		t.Helper()
		code, out, err := treeline("verify", file, "--vkey", h.acme, "--policy", hubPolicy)
		if err != nil || code != exitOK || !strings.Contains(out, "hub-witnessed") {
			t.Errorf("treeline verify: exit code %d, %v, want it hub-witnessed\n%s", code, err, out)
		}
	}
	verified()
	a := h.third()
	out := a.exits(exitOK, "--strict", "--hub", h.url+"/logs/hub", h.url+"/logs/acme")
	if !strings.Contains(out, "by hub") || strings.Contains(out, "unmet") {
		t.Errorf("treeline audit --hub:\n%s", out)
	}
	watcher := h.third()
	watcher.exits(exitOK, "--hub", h.url+"/logs/hub")
	// Who doesn't follow the hub can't say that anybody stands behind the log.
	if out := h.third().exits(exitUnverified, h.url+"/logs/acme"); !strings.Contains(out, "the quorum is unmet") {
		t.Errorf("treeline audit without --hub:\n%s", out)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	mustFsck(t, h.dir, "--policy", hubPolicy)

	// The operator replaces what the log has since e0, with its checkpoints and its fence. All of it is valid in itself.
	p := serving(t, fork, "--url", hubbedURL, "--checkpoint-interval", "20ms")
	for n := 1; n <= 4; n++ {
		p.mustPost(t, "/v1/events?log=acme&wait=signed", fmt.Sprintf(`{"id":"e%d","action":"rewritten"}`, n), http.StatusCreated, &struct{}{})
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	graft(t, h.dir, fork, "acme")
	if code, out, err := treeline("fsck", "--data-dir", h.dir); err != nil || code != exitDiverged || !strings.Contains(out, "two histories were signed") {
		t.Errorf("treeline fsck of the fork: exit code %d, %v, want %d\n%s", code, err, exitDiverged, out)
	}
	// The server itself: it doesn't go on with the log, nor show it.
	notices := func(p *process) error { return p.wrote("DATA RACE", "panic") }
	h.process = servingWith(t, notices, h.dir, h.flags...)
	if reasons := h.awaitReady(t, http.StatusServiceUnavailable); !strings.Contains(reasons, "the store has another tree of that size") {
		t.Errorf("readiness: got %q, want what the hub says", reasons)
	}
	if r, err := h.call(http.MethodPost, "/v1/events?log=acme", []byte(oneEvent), "Content-Type", "application/json"); err != nil ||
		r.status != http.StatusServiceUnavailable {
		t.Errorf("appending to the fork: got %v, %v, want 503", r, err)
	}
	if r, err := h.call(http.MethodGet, "/logs/acme/checkpoint", nil); err != nil || r.status != http.StatusNotFound {
		t.Errorf("what is shown of the fork: got %v, %v, want nothing", r, err)
	}
	h.mustPost(t, "/v1/events?log=default&wait=witnessed", oneEvent, http.StatusCreated, &struct{}{}) // others go on
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	// An operator who wants to show it leaves the hub alone. Whoever has followed the log notices, and so does whoever has followed the hub
	// and never saw the log. Who comes new is shown no proof that the log in the hub only grew. The event's proof is as good as it was.
	h.process = servingWith(t, notices, h.dir, "--url", hubbedURL, "--checkpoint-interval", "20ms")
	a.exits(exitDiverged, h.url+"/logs/acme")
	both := []string{"--key", h.key, "--hub", h.url + "/logs/hub", h.url + "/logs/acme"} // without --hub the hub isn't public
	if out := watcher.exits(exitDiverged, both...); !strings.Contains(out, "of the hub audit.example.com/logs/hub") {
		t.Errorf("treeline audit of the fork, by who has followed the hub:\n%s", out)
	}
	if out := h.third().exits(exitInvalid, both...); !strings.Contains(out, "/logs/hub/growth/") {
		t.Errorf("treeline audit of the fork, by who comes new:\n%s", out)
	}
	verified()
}

// execute runs statements on the SQLite store in a data directory, as its administrator can.
func execute(t *testing.T, dir string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "treeline.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // on which a database stays attached
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// graft replaces a log of a store, which nobody serves, by what another one has of it, and what the fence has.
func graft(t *testing.T, dir, from, name string) {
	t.Helper()
	id := `(SELECT id FROM main.logs WHERE name = '` + name + `')`
	statements := []string{
		`ATTACH '` + filepath.Join(from, "treeline.db") + `' AS fork`,
		`UPDATE heads AS h SET (size, received_at, last, edge) = (SELECT size, received_at, last, edge FROM fork.heads WHERE log = h.log)
			WHERE log = ` + id,
	}
	for _, table := range []string{"entries", "nodes", "ids", "payloads", "checkpoints"} {
		statements = append(statements, `DELETE FROM main.`+table+` WHERE log = `+id,
			`INSERT INTO main.`+table+` SELECT * FROM fork.`+table+` WHERE log = `+id)
	}
	execute(t, dir, statements...)
	file := filepath.Join("fence", checkpoint.FenceName("audit.example.com/logs/"+name))
	data, err := os.ReadFile(filepath.Join(from, file))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// hubEntries returns all entries that the hub has signed, as a monitor reads them.
func (h *hubbed) hubEntries() (all []checkpoint.HubEntry) {
	h.t.Helper()
	var head logPage
	h.mustGetJSON(h.t, "/v1/checkpoint?log=hub", &head)
	for n := uint64(0); n*merkle.TileWidth < head.Sizes.Released; n++ {
		bundle, _ := merkle.TileOf(merkle.EntriesLevel, n, head.Sizes.Released)
		data, err := h.get("/logs/hub/" + bundle.Path())
		if err != nil {
			h.t.Fatal(err)
		}
		entries, err := merkle.ParseBundle(data, bundle.Width)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, b := range entries {
			e, err := checkpoint.ParseHubEntry(b)
			if err != nil {
				h.t.Fatal(err)
			}
			all = append(all, e)
		}
	}
	return all
}

// Killed when entries are in the hub and nothing is signed over them, or the other way round anywhere before, the hub has each
// checkpoint once, in order, and goes on.
func TestTheHubGoesOnAfterAKill(t *testing.T) {
	for _, test := range []struct {
		name, held string // what the database refuses from some moment on
		appended   bool   // whether the hub then has entries beyond those that it has signed
	}{
		{"before the entries are in the hub", "hub_entries", false},
		{"before the hub is signed", "checkpoints", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHubbed(t)
			for n := range 3 {
				h.witnessed(fmt.Sprint("e", n))
			}
			before := h.hubEntries()
			if err := h.stop(); err != nil {
				t.Fatal(err)
			}
			stops := func(p *process) error { return p.wrote("DATA RACE", "panic") } // since no healthy database refuses
			h.process = servingWith(t, stops, h.dir, h.flags...)
			const hub = `(SELECT id FROM logs WHERE name = 'hub')`
			execute(t, h.dir, `CREATE TRIGGER held BEFORE INSERT ON `+test.held+` WHEN NEW.log = `+hub+` BEGIN SELECT RAISE(ABORT, 'held'); END`)
			h.mustPost(t, "/v1/events?log=acme&wait=signed", `{"id":"killed","action":"x"}`, http.StatusCreated, &struct{}{})
			for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				var head logPage
				h.mustGetJSON(t, "/v1/checkpoint?log=hub", &head)
				if strings.Contains(h.stderr.String(), "held") && (head.Sizes.Size > head.Sizes.Signed) == test.appended {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the hub: got %+v, want entries beyond: %t; the server wrote:\n%s", head.Sizes, test.appended, h.stderr.String())
				}
			}
			h.kill()
			mustFsck(t, h.dir)
			execute(t, h.dir, `DROP TRIGGER held`)

			h.process = serving(t, h.dir, h.flags...)
			h.hubProof("killed") // though nothing grows
			all := h.hubEntries()
			newest := map[[32]byte]uint64{}
			for i, e := range all {
				if e.Size <= newest[e.LogID] {
					t.Errorf("entry %d: got size %d of a log that had %d", i, e.Size, newest[e.LogID])
				}
				newest[e.LogID] = e.Size
			}
			if !slices.Equal(all[:len(before)], before) || newest[checkpoint.LogID(h.acme)] != 4 {
				t.Errorf("the hub: got %+v after %+v, want it to go on to size 4", all, before)
			}
			h.third().exits(exitOK, "--strict", "--hub", h.url+"/logs/hub", h.url+"/logs/acme")
			if err := h.stop(); err != nil {
				t.Fatal(err)
			}
			mustFsck(t, h.dir)
		})
	}
}

// Killed at any moment while logs grow, too.
func TestTheHubIsKilledAtRandom(t *testing.T) {
	rounds := 3
	if long() {
		rounds = 30
	}
	h := newHubbed(t)
	for round := range rounds {
		events := make(chan int)
		go func() {
			defer close(events)
			for n := 0; ; n++ { // until the server is gone
				body := fmt.Sprintf(`{"id":"r%dn%d","action":"x"}`, round, n)
				log := []string{"acme", "default"}[n%2]
				if _, err := h.call(http.MethodPost, "/v1/events?log="+log, []byte(body), "Content-Type", "application/json"); err != nil {
					return
				}
				events <- n
			}
		}()
		for n := range events {
			if n == 10 {
				killed := h.process
				go func() {
					time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
					killed.kill()
				}()
			}
		}
		<-h.exited
		httpClient.CloseIdleConnections()
		mustFsck(t, h.dir)
		h.process = serving(t, h.dir, h.flags...)
		h.witnessed(fmt.Sprint("after", round))
	}
	h.third().exits(exitOK, "--strict", "--hub", h.url+"/logs/hub", h.url+"/logs/acme")
}
