package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
)

// crowd is what many clients together know of a server's logs: all that was acknowledged, all whose outcome they don't
// know, and every checkpoint that any of them has ever seen.
type crowd struct {
	logs map[string]*crowdLog
	// outages tells that servers may lose their database, and then refuse what they can't do.
	outages bool
	// lag is how far a server's newest checkpoint may be behind the one that another server has shown.
	lag time.Duration

	mu   sync.Mutex
	errs []error
	sent int // how many events were tried, for their ids
	time int // counts sendings and answers
}

// crowdLog is what is known of one log. It is guarded by crowd.mu.
type crowdLog struct {
	vkey    string
	acked   map[string]storedRecord // by id; without event and seed if the answer was a batch's
	unknown []attempt
	seen    map[uint64]string // checkpoints by size
	sent    map[string]int    // when an event was sent first, by mark
	known   map[string]int    // when it was acknowledged first, by mark
}

// fleet is the servers on one store, each in its place.
type fleet struct {
	mu      sync.Mutex
	servers []*process // nil where one is down
}

// set puts a server into its place.
func (f *fleet) set(i int, p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.servers[i] = p
}

// kill kills a server, which clients find out by themselves.
func (f *fleet) kill(i int) {
	f.servers[i].kill()
	f.set(i, nil)
}

// up returns the servers that are up.
func (f *fleet) up() (up []*process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.servers {
		if p != nil {
			up = append(up, p)
		}
	}
	return up
}

// any returns a server that is up, another one than not if there is one, or nil.
func (f *fleet) any(not *process) *process {
	up := f.up()
	if others := slices.DeleteFunc(slices.Clone(up), func(p *process) bool { return p == not }); len(others) > 0 {
		up = others
	}
	if len(up) == 0 {
		return nil
	}
	return up[rand.IntN(len(up))]
}

// attempt is a request to append: of one event, or of several to be stored together or not at all. It can be sent again
// if its events have ids.
type attempt struct {
	log    string
	marks  []string // metadata.mark of each event, unique for ever
	ids    []string // nil if the server is to make them
	single bool
}

// body is the same whenever the attempt is sent.
func (a attempt) body() []byte {
	var out []byte
	for i, mark := range a.marks {
		out = append(out, '{')
		if a.ids != nil {
			out = fmt.Appendf(out, `"id":%q,`, a.ids[i])
		}
		out = fmt.Appendf(out, `"action":"kill.test","actor_id":"user_%d","metadata":{"mark":%q}}`+"\n", len(mark), mark)
	}
	return out
}

// newAttempt makes up a request.
func (c *crowd) newAttempt(name string) attempt {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, n := attempt{log: name, single: true}, 1
	kind := rand.IntN(10)
	if kind < 3 {
		a.single, n = false, 1+rand.IntN(40)
	}
	for range n {
		c.sent++
		a.marks = append(a.marks, fmt.Sprintf("m%d", c.sent))
		if kind < 8 {
			a.ids = append(a.ids, fmt.Sprintf("id-%d", c.sent))
		}
	}
	return a
}

// fail notes what a client found wrong.
func (c *crowd) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// send makes an attempt and notes what came of it: the events are acknowledged, or their outcome isn't known, or they were
// refused and must not be there.
func (c *crowd) send(p *process, a attempt) (answered bool) {
	path, header := "/v1/events?log="+a.log, "application/json"
	if !a.single {
		path, header = "/v1/events/batch?log="+a.log, "application/x-ndjson"
	} else if rand.IntN(8) == 0 {
		path += "&wait=signed"
	}
	c.sending(a)
	got, err := p.call(http.MethodPost, path, a.body(), "Content-Type", header)
	if err != nil {
		c.unanswered(a)
		return false
	}
	if got.status != http.StatusCreated && got.status != http.StatusOK {
		return c.refused(a, got)
	}
	var answer struct{ Data []storedRecord }
	if a.single {
		answer.Data = make([]storedRecord, 1)
		err = json.Unmarshal(got.body, &answer.Data[0])
	} else {
		err = json.Unmarshal(got.body, &answer)
	}
	if err != nil || len(answer.Data) != len(a.marks) {
		c.fail("appending %d events to %s: %s: %v", len(a.marks), a.log, got.body, err)
		return true
	}
	for i, r := range answer.Data {
		c.acknowledged(a, i, r)
	}
	return true
}

// sending notes when the events of an attempt were sent first.
func (c *crowd) sending(a attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time++
	for _, mark := range a.marks {
		if _, again := c.logs[a.log].sent[mark]; !again {
			c.logs[a.log].sent[mark] = c.time
		}
	}
}

// unanswered notes an attempt whose outcome isn't known.
func (c *crowd) unanswered(a attempt) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logs[a.log].unknown = append(c.logs[a.log].unknown, a)
}

// refused notes that an attempt was refused: nothing of it must be there, unless the server says that it doesn't know. It
// reports whether it is known.
func (c *crowd) refused(a attempt, got *answer) bool {
	var problem struct {
		Code string
		IDs  []string
	}
	if err := json.Unmarshal(got.body, &problem); err != nil {
		c.fail("appending to %s: %d %s", a.log, got.status, got.body)
	}
	switch {
	case problem.Code == "shutting_down":
	case c.outages && problem.Code == "outcome_unknown":
		if len(problem.IDs) != len(a.marks) || a.ids != nil && !slices.Equal(problem.IDs, a.ids) {
			c.fail("the outcome of %v is unknown, the ids to send again are %v", a.ids, problem.IDs)
			return true
		}
		a.ids = problem.IDs
		c.unanswered(a)
		return false
	case c.outages && got.status == http.StatusServiceUnavailable:
	default:
		c.fail("appending to %s: %d %s", a.log, got.status, got.body)
	}
	return true
}

// acknowledged notes the answer to the i-th event of an attempt, which must agree with every earlier answer to it.
func (c *crowd) acknowledged(a attempt, i int, r storedRecord) {
	if a.ids != nil && a.ids[i] != r.ID {
		c.fail("event %s is answered as %s", a.ids[i], r.ID)
	}
	if a.single && !bytes.Contains(r.Event, []byte(`"mark":"`+a.marks[i]+`"`)) {
		c.fail("event %s is acknowledged as %s", r.ID, r.Event)
	}
	if r.Proof != "" {
		proof, err := checkpoint.ParseProof([]byte(r.Proof))
		if err != nil {
			c.fail("proof of %s: %v", r.ID, err)
		}
		c.saw(a.log, string(proof.Checkpoint))
	}
	r.Log = a.log
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.logs[a.log]
	c.time++
	if _, again := l.known[a.marks[i]]; !again {
		l.known[a.marks[i]] = c.time
	}
	old, again := l.acked[r.ID]
	if again && (!r.Duplicate || old.Index != r.Index || old.Hash != r.Hash || old.ReceivedAt != r.ReceivedAt) {
		c.errs = append(c.errs, fmt.Errorf("event %s was acknowledged as\n%+v\nand again as\n%+v", r.ID, old, r))
	}
	if old.Event == nil { // the answer to a single event says more than one to a batch
		l.acked[r.ID] = r
	}
}

// saw notes a checkpoint, of which there is one of each size for ever.
func (c *crowd) saw(name, msg string) {
	l := c.logs[name]
	checked, err := openNote(l.vkey, msg)
	if err != nil {
		c.fail("checkpoint of %s: %v", name, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := l.seen[checked.Size]; ok && old != msg {
		c.errs = append(c.errs, fmt.Errorf("two checkpoints of one size:\n%s\n%s", old, msg))
	}
	l.seen[checked.Size] = msg
}

// load keeps servers busy until ctx ends, or no server is left: writers that now and then send again what was answered
// before, and turn to another server when one doesn't answer; and a reader that collects every server's checkpoints.
func (c *crowd) load(ctx context.Context, f *fleet) *sync.WaitGroup {
	names := c.names()
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			var last *attempt
			for ctx.Err() == nil {
				a := c.newAttempt(names[rand.IntN(len(names))])
				if last != nil && rand.IntN(6) == 0 {
					a = *last
				}
				p := f.any(nil)
				if p == nil {
					return
				}
				if !c.send(p, a) {
					time.Sleep(time.Millisecond)
					if p = f.any(p); p != nil && a.ids != nil {
						c.send(p, a)
					}
				}
				if last = nil; a.ids != nil {
					last = &a
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil && len(f.up()) > 0 {
			for _, p := range f.up() {
				for _, name := range names {
					a, err := p.call(http.MethodGet, "/logs/"+name+"/checkpoint", nil)
					if err != nil || c.outages && a.status == http.StatusServiceUnavailable {
						time.Sleep(time.Millisecond)
						continue
					}
					if a.status != http.StatusOK {
						c.fail("checkpoint of %s: %d %s", name, a.status, a.body)
						continue
					}
					c.saw(name, string(a.body))
				}
			}
		}
	})
	return &wg
}

// waitFor waits until n more events are acknowledged than now, but not for ever: a slow machine is not an error.
func (c *crowd) waitFor(t *testing.T, n int) {
	t.Helper()
	count := func() (n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, l := range c.logs {
			n += len(l.acked)
		}
		return n
	}
	for from, deadline := count(), time.Now().Add(20*time.Second); count() < from+n && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// names returns the logs' names.
func (c *crowd) names() (names []string) {
	for name := range c.logs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// newCrowd makes the logs on a new server.
func newCrowd(t *testing.T, p *process) *crowd {
	t.Helper()
	c := &crowd{logs: map[string]*crowdLog{}}
	add := func(name, vkey string) {
		c.logs[name] = &crowdLog{
			vkey: vkey, acked: map[string]storedRecord{}, seen: map[uint64]string{}, sent: map[string]int{}, known: map[string]int{},
		}
	}
	var head logPage
	p.mustGetJSON(t, "/v1/checkpoint", &head)
	add("default", head.VKeys[0])
	for _, name := range []string{"acme", "globex"} {
		var made struct{ VKeys []string }
		p.mustPost(t, "/v1/logs", `{"name":"`+name+`"}`, http.StatusCreated, &made)
		add(name, made.VKeys[0])
	}
	return c
}

// checkFence checks that the fence knows every checkpoint that anybody has seen, or a newer one.
func (c *crowd) checkFence(t *testing.T, fence checkpoint.Fence) {
	t.Helper()
	for name, l := range c.logs {
		msg, err := fence.Load(t.Context(), strings.SplitN(l.vkey, "+", 2)[0])
		if err != nil {
			t.Fatal(err)
		}
		fenced, err := openNote(l.vkey, string(msg))
		if err != nil {
			t.Fatal(err)
		}
		for size, seen := range l.seen {
			if size > fenced.Size || size == fenced.Size && seen != string(msg) {
				t.Errorf("log %s: a checkpoint of size %d was seen, the fence is at %d", name, size, fenced.Size)
			}
		}
	}
}

// fileFence opens the fence in a data directory.
func fileFence(t *testing.T, dir string) checkpoint.Fence {
	t.Helper()
	fence, err := checkpoint.OpenFileFence(filepath.Join(dir, "fence"))
	if err != nil {
		t.Fatal(err)
	}
	return fence
}

// check compares a server with all that is known. What was unknown is known afterwards.
func (c *crowd) check(t *testing.T, p *process) {
	t.Helper()
	for _, err := range c.errs {
		t.Error(err)
	}
	for _, name := range c.names() {
		c.checkLog(t, p, name, c.logs[name])
	}
	if t.Failed() {
		t.FailNow()
	}
}

func (c *crowd) checkLog(t *testing.T, p *process, name string, l *crowdLog) {
	t.Helper()
	records := feed(t, p, name)
	byID, byMark := map[string]storedRecord{}, map[string]storedRecord{}
	var marks []string
	for i, r := range records {
		var event struct{ Metadata struct{ Mark string } }
		if err := json.Unmarshal(r.Event, &event); err != nil {
			t.Fatal(err)
		}
		mark := event.Metadata.Mark
		if r.Index != uint64(i) {
			t.Errorf("log %s: record %d has index %d", name, i, r.Index)
		}
		if old, twice := byMark[mark]; twice {
			t.Errorf("log %s: event %s stands at %d and at %d", name, mark, old.Index, i)
		}
		if err := checkRecord(r); err != nil {
			t.Errorf("log %s: record %d: %v", name, i, err)
		}
		byID[r.ID], byMark[mark] = r, r
		marks = append(marks, mark)
	}
	if len(byID) != len(records) {
		t.Errorf("log %s: %d records have %d ids", name, len(records), len(byID))
	}
	for id, want := range l.acked {
		got, ok := byID[id]
		if !ok {
			t.Errorf("log %s: %s was acknowledged at %d and is gone", name, id, want.Index)
			continue
		}
		if want.Event == nil { // acknowledged in a batch
			want.Event, want.Seed = got.Event, got.Seed
		}
		if d := got.differs(want); d != "" {
			t.Errorf("log %s: %s is not what was acknowledged: %s", name, id, d)
		}
		l.acked[id] = want // from now on not a byte of it may change
	}
	explained := len(l.acked)
	for _, a := range l.unknown {
		there := 0
		for i, mark := range a.marks {
			r, ok := byMark[mark]
			if !ok {
				continue
			}
			there++
			if first, ok := byMark[a.marks[0]]; ok && r.Index != first.Index+uint64(i) {
				t.Errorf("log %s: %s of a batch that begins at %d stands at %d", name, mark, first.Index, r.Index)
			}
			if _, known := l.acked[r.ID]; !known {
				l.acked[r.ID] = r
				explained++
			}
		}
		if there != 0 && there != len(a.marks) {
			t.Errorf("log %s: of a batch of %d events %d are there", name, len(a.marks), there)
		}
	}
	if explained != len(records) {
		t.Errorf("log %s: %d records, of which %d were acknowledged or may be there", name, len(records), explained)
	}
	// An event that was acknowledged before another was sent has the smaller index.
	first, later := 0, "" // of all behind, the one that was acknowledged first
	for i, r := range slices.Backward(records) {
		mark := marks[i]
		if first != 0 && l.sent[mark] > first {
			t.Errorf("log %s: %s was sent after %s was acknowledged, and stands before it, at %d", name, mark, later, r.Index)
		}
		if at, ok := l.known[mark]; ok && (first == 0 || at < first) {
			first, later = at, mark
		}
	}
	c.checkTrees(t, p, name, l, records)
}

// checkTrees checks every checkpoint ever seen against the entries, and, as somebody would who has only checkpoints, that
// each is consistent with the next.
func (c *crowd) checkTrees(t *testing.T, p *process, name string, l *crowdLog, records []storedRecord) {
	t.Helper()
	var newest uint64
	for size := range l.seen {
		newest = max(newest, size)
	}
	var head logPage
	p.mustGetJSON(t, "/v1/checkpoint?log="+name, &head)
	for end := time.Now().Add(c.lag); head.Sizes.Signed < newest && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		p.mustGetJSON(t, "/v1/checkpoint?log="+name, &head)
	}
	if newest > head.Sizes.Signed {
		t.Errorf("log %s: a checkpoint of size %d was seen, now %d is the newest", name, newest, head.Sizes.Signed)
		return
	}
	c.saw(name, head.Checkpoint)
	roots, _ := rootsOf(t, records)
	var sizes []uint64
	for size, msg := range l.seen {
		checkNote(t, l.vkey, msg, roots)
		sizes = append(sizes, size)
	}
	slices.Sort(sizes)
	for i := max(1, len(sizes)-8); i < len(sizes); i++ {
		checkConsistency(t, p, name, l.vkey, sizes[i-1], sizes[i], roots)
	}
	for range 3 {
		at := sizes[rand.IntN(len(sizes))]
		checkConsistency(t, p, name, l.vkey, at, head.Sizes.Signed, roots)
		var old logPage
		p.mustGetJSON(t, fmt.Sprintf("/v1/checkpoint?log=%s&size=%d", name, at), &old)
		if old.Checkpoint != l.seen[at] {
			t.Errorf("log %s: the checkpoint of size %d was\n%s\nand is\n%s", name, at, l.seen[at], old.Checkpoint)
		}
	}
	var r storedRecord
	for _, want := range l.acked {
		p.mustGetJSON(t, "/v1/events/"+want.ID+"?log="+name, &r)
		if d := r.differs(want); d != "" {
			t.Errorf("log %s: %s by its id is not what was acknowledged: %s", name, want.ID, d)
		}
		break // all were compared with the feed; which one this is changes from round to round
	}
}

// resend sends again what had no answer, and some of what had one.
func (c *crowd) resend(f *fleet) {
	for _, name := range c.names() {
		l := c.logs[name]
		unknown := l.unknown
		l.unknown = nil
		for _, a := range unknown {
			if a.ids != nil {
				c.send(f.any(nil), a)
			}
		}
		n := 0
		for id, r := range l.acked {
			var event struct{ Metadata struct{ Mark string } }
			if err := json.Unmarshal(r.Event, &event); err != nil || !strings.HasPrefix(id, "id-") {
				continue
			}
			c.send(f.any(nil), attempt{log: name, marks: []string{event.Metadata.Mark}, ids: []string{id}, single: n%2 == 0})
			if n++; n == 5 {
				break
			}
		}
	}
}
