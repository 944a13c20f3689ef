package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint/pgfence"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// cluster is a database for several servers, and their fence in another one.
type cluster struct {
	db    *pgtest.Server
	fence *pgfence.Fence
	dir   string   // data directory of all servers: the seed and the admin key
	flags []string // of all commands
}

// newCluster makes a database, and the fence in a database of another cluster.
func newCluster(t *testing.T, fences *pgtest.Server) *cluster {
	t.Helper()
	db, fence := pgtest.Start(t), fences.Database(t)
	c := &cluster{db: db, dir: t.TempDir(), flags: []string{"--db", db.URL("postgres"), "--fence", fence}}
	if code, out, err := treeline("migrate", "up", "--db", db.URL("postgres")); err != nil || code != exitOK {
		t.Fatalf("migrate up: %d, %v\n%s", code, err, out)
	}
	var err error
	if c.fence, err = pgfence.Open(t.Context(), fence, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.fence.Close() })
	return c
}

// serving starts a server, which signs grown logs often.
func (c *cluster) serving(t *testing.T, judge func(*process) error) *process {
	t.Helper()
	return servingWith(t, judge, c.dir, append(c.flags, "--checkpoint-interval", "50ms")...)
}

// servings starts n servers, one after the other: the first one makes the seed and the admin key.
func (c *cluster) servings(t *testing.T, n int, judge func(*process) error) *fleet {
	t.Helper()
	f := &fleet{}
	for range n {
		f.servers = append(f.servers, c.serving(t, judge))
	}
	return f
}

// newWideCrowd is newCrowd for a fleet.
func newWideCrowd(t *testing.T, f *fleet) *crowd {
	t.Helper()
	c := newCrowd(t, f.servers[0])
	c.lag = 10 * time.Second
	return c
}

// check checks, without load, the store, the fence, and what some of the servers say of them.
func (c *cluster) check(t *testing.T, crowd *crowd, servers ...*process) {
	t.Helper()
	httpClient.CloseIdleConnections()
	mustFsck(t, c.dir, c.flags...)
	crowd.checkFence(t, c.fence)
	for _, p := range servers {
		crowd.check(t, p)
	}
}

// enough checks that there was load to prove anything.
func (c *crowd) enough(t *testing.T, events, checkpoints int) {
	t.Helper()
	n, seen := 0, 0
	for _, l := range c.logs {
		n, seen = n+len(l.acked), seen+len(l.seen)
	}
	t.Logf("%d events, %d checkpoints seen", n, seen)
	if n < events || seen < checkpoints {
		t.Errorf("%d events and %d checkpoints: too little load to prove anything", n, seen)
	}
}

// However often and whenever each of three servers is killed, there is one history: what any of them acknowledged is there and
// the same, in the order of the acknowledgements, every checkpoint that any of them has ever shown belongs to it, and the
// others go on meanwhile.
func TestThreeServersKilledInTurn(t *testing.T) {
	rounds := 3
	if long() {
		rounds = 20
	}
	c := newCluster(t, pgtest.Start(t))
	f := c.servings(t, 3, (*process).healthy)
	crowd := newWideCrowd(t, f)
	for round := range rounds {
		crowd.resend(f)
		ctx, cancel := context.WithCancel(t.Context())
		wg := crowd.load(ctx, f)
		for i := range f.servers {
			crowd.waitFor(t, rand.IntN(100))
			time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
			f.kill(i)
			crowd.waitFor(t, rand.IntN(50)) // of the others
			f.set(i, c.serving(t, (*process).healthy))
		}
		crowd.waitFor(t, 50)
		cancel()
		wg.Wait()
		c.check(t, crowd, f.servers[round%3])
	}
	c.check(t, crowd, f.servers...)
	crowd.enough(t, 100*rounds, 5*rounds)
}

// What one server does is there on all others at once.
func TestServersAreOne(t *testing.T) {
	c := newCluster(t, pgtest.Start(t))
	f := c.servings(t, 3, (*process).healthy)
	for i, p := range f.servers {
		other, third := f.servers[(i+1)%3], f.servers[(i+2)%3]
		name := fmt.Sprintf("log-%d", i)
		var made struct{ VKeys []string }
		p.mustPost(t, "/v1/logs", `{"name":"`+name+`"}`, http.StatusCreated, &made)

		if a, err := other.call(http.MethodGet, "/logs/"+name+"/checkpoint", nil); err != nil || a.status != http.StatusOK {
			t.Errorf("the checkpoint of a log that another server has just made: %d %s, %v", a.status, a.body, err)
		}
		polled := make(chan error, 1)
		var page struct {
			Data []storedRecord
			Next uint64
		}
		go func() { polled <- third.getJSON("/v1/feed?from=0&timeout=20s&log="+name, &page) }()

		var r, read storedRecord
		other.mustPost(t, "/v1/events?log="+name, `{"id":"first","action":"a"}`, http.StatusCreated, &r)
		p.mustGetJSON(t, "/v1/events/first?log="+name, &read)
		if d := read.differs(r); d != "" || r.Index != 0 {
			t.Errorf("read elsewhere: %s", d)
		}
		if err := <-polled; err != nil || len(page.Data) != 1 || page.Data[0].differs(r) != "" {
			t.Errorf("polled elsewhere: %+v, %v; want %+v", page, err, r)
		}
		p.mustPost(t, "/v1/events?log="+name, `{"id":"first","action":"a"}`, http.StatusOK, &read)
		if !read.Duplicate || read.Index != 0 {
			t.Errorf("sent again elsewhere: %+v", read)
		}

		for n, p := range []*process{p, other, third} {
			var signed storedRecord
			p.mustPost(t, "/v1/events?wait=signed&log="+name, `{"action":"b"}`, http.StatusCreated, &signed)
			if signed.State != "signed" || signed.Index != uint64(n+1) {
				t.Errorf("%+v: want it signed, at %d", signed, n+1)
			}
			for _, p := range f.servers { // whoever signed it
				a, err := p.call(http.MethodGet, fmt.Sprintf("/v1/checkpoint?log=%s&size=%d", name, n+2), nil)
				if err != nil || a.status != http.StatusOK {
					t.Errorf("the checkpoint that another server has just shown: %d %s, %v", a.status, a.body, err)
				}
				a, err = p.call(http.MethodGet, fmt.Sprintf("/logs/%s/tile/entries/000.p/%d", name, n+2), nil)
				if err != nil || a.status != http.StatusOK {
					t.Errorf("a bundle under the checkpoint that another server has just shown: %d %s, %v", a.status, a.body, err)
				}
				proof, err := p.get("/v1/events/" + signed.ID + "/proof?log=" + name)
				if err != nil {
					t.Fatal(err)
				}
				code, out, err := treeline("verify", writeTemp(t, string(proof)), "--vkey", made.VKeys[0])
				if err != nil || code != exitOK || !strings.Contains(out, "VALID") {
					t.Errorf("a proof from another server: exit code %d, %v\n%s", code, err, out)
				}
			}
		}
	}
	mustFsck(t, c.dir, c.flags...)
}

// ready returns the status of a server's /readyz, and its reasons.
func (p *process) ready(t *testing.T) (status int, reasons string) {
	t.Helper()
	ops := process{url: p.ops}
	a, err := ops.call(http.MethodGet, "/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	return a.status, string(a.body)
}

// awaitReady waits until a server's /readyz has the status, and returns its reasons.
func (p *process) awaitReady(t *testing.T, status int) (reasons string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got, reasons := p.ready(t)
		if got == status {
			return reasons
		}
		if time.Now().After(end) {
			t.Fatalf("/readyz is %d, want %d:\n%s\nthe server wrote:\n%s", got, status, reasons, p.stderr.String())
		}
	}
}

// A server starts without its standby, and takes it up when it comes. While it runs, a standby that goes fails nobody.
func TestAStandbyComesAndGoes(t *testing.T) {
	c := newCluster(t, pgtest.Start(t))
	standby := c.db.Clone(t)
	standby.StandBy(t, c.db)
	standby.Run(t) // which gives it a port
	standby.Quit()
	p := servingWith(t, (*process).healthy, c.dir, append(c.flags, "--db-read", standby.At(c.db.URL("postgres")))...)
	read := func() {
		t.Helper()
		var r storedRecord
		p.mustGetJSON(t, "/v1/events/first", &r)
	}
	p.mustPost(t, "/v1/events", `{"id":"first","action":"a"}`, http.StatusCreated, new(storedRecord))
	read()
	p.awaitReady(t, http.StatusOK)
	standby.Run(t)
	p.awaitLine(t, "the replica is there")
	read()
	standby.Quit()
	read()
	p.awaitReady(t, http.StatusOK)
}

// awaitLine waits until a server has logged something.
func (p *process) awaitLine(t *testing.T, line string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(p.stderr.String(), line); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %q; the server wrote:\n%s", line, p.stderr.String())
		}
	}
}

// A database that crashes again and again takes nothing along that was acknowledged. Its servers stay, say meanwhile that they
// aren't ready, and are again when it is back.
func TestDatabaseKilledUnderLoad(t *testing.T) {
	rounds := 3
	if long() {
		rounds = 15
	}
	c := newCluster(t, pgtest.Start(t))
	outlives := func(p *process) error { return p.wrote("DATA RACE", "panic", "LOG STOPPED", "scrub found") }
	f := c.servings(t, 2, outlives)
	crowd := newWideCrowd(t, f)
	crowd.outages = true
	for round := range rounds {
		crowd.resend(f)
		ctx, cancel := context.WithCancel(t.Context())
		wg := crowd.load(ctx, f)
		crowd.waitFor(t, 50+rand.IntN(100))
		c.db.Quit()
		for _, p := range f.servers {
			p.awaitReady(t, http.StatusServiceUnavailable)
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		c.db.Run(t)
		for _, p := range f.servers {
			p.awaitReady(t, http.StatusOK)
		}
		crowd.waitFor(t, 50)
		cancel()
		wg.Wait()
		c.check(t, crowd, f.servers[round%2])
	}
	c.check(t, crowd, f.servers...)
	crowd.enough(t, 100*rounds, 3*rounds)
}
