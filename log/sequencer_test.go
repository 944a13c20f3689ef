package log_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

func TestAnAcknowledgedEventIsThereAfterARestart(t *testing.T) {
	s := newTestService(t)
	for i := range 300 {
		if p := s.append(fmt.Sprint("e", i)); p.Index != uint64(i) || p.Duplicate {
			t.Fatalf("place %d: got %+v", i, p)
		}
	}
	s.signed()
	s.check()
	s.close()
	s.open()
	if p := s.append("e17"); p.Index != 17 || !p.Duplicate {
		t.Errorf("an old id after a restart: got %+v, want the duplicate of 17", p)
	}
	if p := s.append("new"); p.Index != 300 {
		t.Errorf("index after a restart: got %d, want 300", p.Index)
	}
	s.signed()
	if r := s.check(); r.Size != 301 || r.Signed != 301 || r.Contents != 301 {
		t.Errorf("fsck: got %+v", r)
	}
}

func TestRetriesGetTheFirstAnswer(t *testing.T) {
	s := newTestService(t)
	l := s.log()
	ctx := t.Context()
	first, err := l.Append(ctx, []*log.Event{event(t, "a", "1"), event(t, "b", "2")})
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.Append(ctx, []*log.Event{event(t, "b", "2"), event(t, "c", "3"), event(t, "a", "1")})
	if err != nil {
		t.Fatal(err)
	}
	if !again[0].Duplicate || again[0].Index != first[1].Index || again[1].Duplicate || again[1].Index != 2 ||
		!again[2].Duplicate || again[2].Index != first[0].Index {
		t.Errorf("retry with one new event: got %+v", again)
	}
	var conflict *log.ConflictError
	_, err = l.Append(ctx, []*log.Event{event(t, "d", "4"), event(t, "b", "other"), event(t, "a", "other")})
	if !errors.As(err, &conflict) || !slices.Equal(conflict.IDs, []string{"b", "a"}) {
		t.Errorf("other content: got %v, want a conflict about b and a", err)
	}
	if _, err := l.Find(ctx, "d"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("the conflicting request's other event: got %v, want ErrNotFound", err)
	}
	if size := l.Sizes().Size; size != 3 {
		t.Errorf("size: got %d, want 3", size)
	}
	s.check()
}

// Requests with the same id that meet in one batch are judged as if they had come one after the other.
func TestRetriesWithinOneBatch(t *testing.T) {
	s := newTestService(t)
	l := s.log()
	release := s.hold()
	type answer struct {
		places []log.Place
		err    error
	}
	answers := make([]answer, 4)
	var wg sync.WaitGroup
	send := func(i int, events ...*log.Event) {
		wg.Go(func() { answers[i].places, answers[i].err = l.Append(context.Background(), events) })
	}
	send(0, event(t, "first", ""))
	s.untilHeld() // the others queue behind it, in this order
	send(1, event(t, "same", "1"), event(t, "x", ""))
	s.untilQueued(2)
	send(2, event(t, "y", ""), event(t, "same", "2"))
	s.untilQueued(4)
	send(3, event(t, "same", "1"))
	s.untilQueued(5)
	release()
	wg.Wait()
	if answers[1].err != nil || answers[1].places[0].Index != 1 || answers[1].places[1].Index != 2 {
		t.Errorf("the first with the id: got %+v", answers[1])
	}
	var conflict *log.ConflictError
	if !errors.As(answers[2].err, &conflict) {
		t.Errorf("the second, with other content: got %+v, want a conflict", answers[2])
	}
	if third := answers[3]; third.err != nil || third.places[0].Index != 1 || !third.places[0].Duplicate {
		t.Errorf("the third, with the same content: got %+v, want the duplicate of 1", third)
	}
	s.signed()
	if r := s.check(); r.Size != 3 {
		t.Errorf("size: got %d, want 3: y belongs to a refused request", r.Size)
	}
}

// Whatever step fails, twice in a row, in fact applied or not: an error is an error, nothing is there twice, and the next
// append continues from what is stored.
func TestFailuresLeaveOneHistory(t *testing.T) {
	for _, step := range []string{"append", "before commit", "after commit"} {
		t.Run(step, func(t *testing.T) {
			s := newTestService(t)
			for i := range 5 {
				s.append(fmt.Sprint("before", i))
			}
			left := 2
			fault := func(at string) bool {
				if at == step && left > 0 {
					left--
					return true
				}
				return false
			}
			s.store.fault.Store(&fault)
			var size uint64 = 5
			for _, id := range []string{"a", "b"} {
				_, err := s.log().Append(t.Context(), []*log.Event{event(t, id, "x")})
				if unknown := errors.Is(err, log.ErrOutcomeUnknown); err == nil || unknown != (step != "append") {
					t.Errorf("append of %s: got %v; outcome unknown is for a failing commit alone", id, err)
				}
			}
			if step == "after commit" {
				size += 2
			}
			for _, id := range []string{"a", "b", "c"} {
				p := s.append(id)
				if step == "after commit" && id != "c" {
					if !p.Duplicate {
						t.Errorf("%s, which had been committed, sent again: got %+v, want a duplicate", id, p)
					}
					continue
				}
				if p.Duplicate || p.Index != size {
					t.Errorf("%s: got %+v, want index %d", id, p, size)
				}
				size++
			}
			s.signed()
			s.check()
			s.close()
			s.open()
			if got := s.log().Sizes().Size; got != size {
				t.Errorf("size after a restart: got %d, want %d", got, size)
			}
		})
	}
}

// A server that believes itself alone, but isn't, can't fork a log: the head it remembers is compared with the stored one,
// and moved only from where it stands.
func TestAnotherWriterIsNoticed(t *testing.T) {
	s := newTestService(t)
	s.append("mine")
	head, err := s.store.Head(t.Context(), s.log().ID)
	if err != nil {
		t.Fatal(err)
	}
	other := chained(t, s.log().ID, head, "theirs")
	tx, err := s.store.Store.Begin(t.Context(), []log.ID{s.log().ID})
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Append([]*log.Batch{other}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if p := s.append("mine-again"); p.Index != 2 || p.Previous != other.Head.Last {
		t.Errorf("after another's append: got %+v, want index 2, following the other's", p)
	}
	s.signed()
	s.check()
}

func TestManyClientsManyLogs(t *testing.T) {
	const clients, rounds = 64, 12
	s := newTestService(t)
	if onPostgres {
		s.close()
		s.lanes = 3
		s.open()
	}
	var logs []*log.Log
	for i := range 4 {
		l, err := s.CreateLog(t.Context(), log.ByServer(), fmt.Sprint("log-", i), log.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	var mu sync.Mutex
	seen := make(map[*log.Log]map[uint64]string)
	for _, l := range logs {
		seen[l] = make(map[uint64]string)
	}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			l := logs[c%len(logs)]
			last := int64(-1)
			for r := range rounds {
				n := 1 + rand.IntN(5)
				var events []*log.Event
				for i := range n {
					events = append(events, event(t, fmt.Sprintf("c%d-r%d-%d", c, r, i), "x"))
				}
				places, err := l.Append(context.Background(), events)
				if err != nil {
					t.Errorf("client %d: %v", c, err)
					return
				}
				mu.Lock()
				for i, p := range places {
					if int64(p.Index) <= last {
						t.Errorf("client %d: index %d after %d", c, p.Index, last)
					}
					last = int64(p.Index)
					if other, ok := seen[l][p.Index]; ok {
						t.Errorf("index %d given to %s and %s", p.Index, other, events[i].ID())
					}
					seen[l][p.Index] = events[i].ID()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, l := range logs {
		size := l.Sizes().Size
		if uint64(len(seen[l])) != size {
			t.Errorf("log %s: %d indices given, size %d", l.Name, len(seen[l]), size)
		}
		for index, id := range seen[l] {
			r, err := l.Record(t.Context(), index)
			if err != nil || r.ID != id {
				t.Fatalf("log %s, entry %d: got %q, %v, want %q", l.Name, index, r.ID, err, id)
			}
		}
	}
}

func TestAFullQueueRefuses(t *testing.T) {
	s := newTestService(t)
	l := s.log()
	other, err := s.CreateLog(t.Context(), log.ByServer(), "other", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	release := s.hold()
	var wg sync.WaitGroup
	send := func(l *log.Log, events []*log.Event) {
		wg.Go(func() {
			if _, err := l.Append(context.Background(), events); err != nil {
				t.Errorf("a queued request: %v", err)
			}
		})
	}
	send(l, events(t, 1))
	s.untilHeld()
	most := events(t, log.MaxRequestEvents)
	send(l, most)
	s.untilQueued(log.MaxRequestEvents)
	send(l, events(t, log.MaxRequestEvents))
	s.untilQueued(2 * log.MaxRequestEvents)
	if _, err := l.Append(t.Context(), events(t, 1)); !errors.Is(err, log.ErrLogOverloaded) {
		t.Errorf("beyond the log's share: got %v, want ErrLogOverloaded", err)
	}
	send(other, events(t, 1)) // another log has its own share
	s.untilQueued(2*log.MaxRequestEvents + 1)
	if _, err := other.Append(t.Context(), append(most, events(t, 1)...)); err == nil {
		t.Error("a request of more than the most events was taken")
	}
	release()
	wg.Wait()
	s.signed()
	s.check()
}

// events returns n events with ids that the server made.
func events(t *testing.T, n int) []*log.Event {
	out := make([]*log.Event, n)
	for i := range out {
		out[i] = event(t, "", "x")
	}
	return out
}

// A small request waits for the batch in flight and at most one more, whatever another log has queued.
func TestOneLogDoesNotStarveAnother(t *testing.T) {
	s := newTestService(t)
	busy := s.log()
	small, err := s.CreateLog(t.Context(), log.ByServer(), "small", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	release := s.hold()
	var wg sync.WaitGroup
	send := func(l *log.Log, n int) *time.Time {
		events, answered := events(t, n), new(time.Time)
		wg.Go(func() {
			if _, err := l.Append(context.Background(), events); err != nil {
				t.Error(err)
			}
			*answered = time.Now()
		})
		return answered
	}
	send(busy, 1)
	s.untilHeld()
	send(busy, 9_000)
	s.untilQueued(9_000)
	last := send(busy, 9_000)
	s.untilQueued(18_000)
	answered := send(small, 1)
	s.untilQueued(18_001)
	release()
	wg.Wait()
	if answered.After(*last) {
		t.Errorf("the small log's request was answered %v after all of the busy one's", answered.Sub(*last))
	}
}

func TestAWithdrawnRequestLeavesNothing(t *testing.T) {
	s := newTestService(t)
	release := s.hold()
	var wg sync.WaitGroup
	wg.Go(func() { s.append("in-flight") })
	s.untilHeld()
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		s.untilQueued(1)
		cancel()
	})
	if _, err := s.log().Append(ctx, []*log.Event{event(t, "withdrawn", "x")}); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that leaves while waiting: got %v, want context.Canceled", err)
	}
	release()
	wg.Wait()
	s.append("next")
	if _, err := s.log().Find(t.Context(), "withdrawn"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("the withdrawn event: got %v, want ErrNotFound", err)
	}
	s.signed()
	s.check()
}

func TestCloseAnswersEverybody(t *testing.T) {
	s := newTestService(t)
	release := s.hold()
	l := s.log()
	var wg sync.WaitGroup
	send := func(id string) {
		wg.Go(func() {
			if _, err := l.Append(context.Background(), []*log.Event{event(t, id, "x")}); err != nil {
				t.Errorf("append of %s, which was queued: %v", id, err)
			}
		})
	}
	send("in-flight")
	s.untilHeld()
	for i := range 19 {
		send(fmt.Sprint("e", i))
	}
	s.untilQueued(19)
	wg.Go(s.Close)
	s.until("appends to be refused", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, err := l.Append(ctx, events(t, 1))
		return errors.Is(err, log.ErrClosed)
	})
	release()
	wg.Wait()
	if sizes := l.Sizes(); sizes.Size != 20 || sizes.Signed != 20 {
		t.Errorf("sizes after close: got %+v, want 20 sequenced and signed", sizes)
	}
}

func TestReceivedAtNeverDecreases(t *testing.T) {
	s := newTestService(t)
	s.clock.Store(8_000_000)
	ahead := s.append("ahead").ReceivedAt
	s.clock.Store(0)
	if got := s.append("behind").ReceivedAt; got != ahead {
		t.Errorf("received_at with the clock 8 s behind: got %d, want the head's %d", got, ahead)
	}
	s.clock.Store(-4_000_000)
	if _, err := s.log().Append(t.Context(), []*log.Event{event(t, "far-behind", "x")}); !errors.Is(err, log.ErrClockBehind) {
		t.Errorf("append with the clock 12 s behind: got %v, want ErrClockBehind", err)
	}
	s.clock.Store(8_000_000)
	s.append("caught-up")
	s.signed()
	s.check()
}

// After a commit whose outcome is unknown nobody may append for hours: what it did is signed all the same.
func TestWhatWasCommittedUnknownIsSigned(t *testing.T) {
	s := newTestService(t)
	s.append("known")
	once := true
	fault := func(at string) bool {
		hit := at == "after commit" && once
		once = once && !hit
		return hit
	}
	s.store.fault.Store(&fault)
	if _, err := s.log().Append(t.Context(), []*log.Event{event(t, "unknown", "x")}); !errors.Is(err, log.ErrOutcomeUnknown) {
		t.Fatalf("got %v, want ErrOutcomeUnknown", err)
	}
	s.until("the event to be signed", func() bool { return s.log().Sizes().Signed == 2 })
	s.check()
}

// A log whose rows contradict each other is stopped; who shares its batches is not concerned.
func TestADamagedLogFailsNobodyElse(t *testing.T) {
	for name, damage := range map[string]string{
		"the head is gone":    `DELETE FROM heads WHERE log = 1`,
		"the head lies":       `UPDATE heads SET last = randomblob(32) WHERE log = 1`,
		"a content is stray":  `INSERT INTO payloads (log, idx, seed, payload) VALUES (1, 1, x'00', x'00')`,
		"an entry is missing": `DELETE FROM entries WHERE log = 1`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestService(t)
			s.append("first")
			s.signed()
			healthy, err := s.CreateLog(t.Context(), log.ByServer(), "healthy", log.Settings{})
			if err != nil {
				t.Fatal(err)
			}
			s.close()
			sqlx.MustOpen("sqlite", s.path()).MustExec(damage)
			s.open()
			healthy = s.Log("healthy")
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					l := healthy
					if i%2 == 0 {
						l = s.log()
					}
					_, err := l.Append(context.Background(), events(t, 1))
					if l == healthy && err != nil {
						t.Errorf("the healthy log: %v", err)
					}
					if l != healthy && !errors.Is(err, log.ErrStopped) {
						t.Errorf("the damaged log: got %v, want ErrStopped", err)
					}
				})
			}
			wg.Wait()
			if s.log().Stopped() == nil || s.Ready(t.Context()) == nil {
				t.Error("the damaged log isn't reported as stopped")
			}
			if healthy.Sizes().Size != 20 {
				t.Errorf("size of the healthy log: got %d, want 20", healthy.Sizes().Size)
			}
		})
	}
}

// A client that leaves while its log is made leaves no half a log behind.
func TestCreateLogIsFinishedWithoutItsClient(t *testing.T) {
	s := newTestService(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if l, err := s.CreateLog(ctx, log.ByServer(), "abandoned", log.Settings{}); err != nil || s.Log("abandoned") != l {
		t.Errorf("got %v, %v", l, err)
	}
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "abandoned", log.Settings{}); !errors.Is(err, log.ErrExists) {
		t.Errorf("again: got %v, want ErrExists", err)
	}
	// As if the process had died between the row and the checkpoint.
	orphan := log.Info{Name: "orphan", Origin: "test.example/logs/orphan", VKeys: []string{vkey(t, "test.example/logs/orphan")}}
	if err := s.store.CreateLog(t.Context(), &orphan); err != nil {
		t.Fatal(err)
	}
	l, err := s.CreateLog(t.Context(), log.ByServer(), "orphan", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if _, note := l.Signed(); note == nil {
		t.Error("the log has no checkpoint")
	}
}

// Of two servers that are started on an empty database with different seeds, one makes the logs, and the other says why it can't.
func TestALogOfAnotherSeedIsNotJustThere(t *testing.T) {
	if !onPostgres {
		t.Skip("one server has a SQLite store")
	}
	t.Parallel()
	s := &testService{t: t, dir: t.TempDir(), url: migrated(t), seed: testSeed}
	s.open()
	other := &testService{t: t, dir: s.dir, url: s.url, seed: checkpoint.Seed{8}, signing: time.Hour}
	other.open()
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	_, err := other.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{})
	if err == nil || errors.Is(err, log.ErrExists) || !strings.Contains(err.Error(), "not the seed") {
		t.Errorf("got %v, want an error that tells of the seed", err)
	}
}

func TestALogHasNoKeysButItsOwn(t *testing.T) {
	s := newTestService(t)
	s.close()
	planted := vkey(t, "elsewhere.example/logs/default")
	sqlx.MustOpen("sqlite", s.path()).MustExec(`INSERT INTO log_keys (log, seq, vkey) VALUES (1, -1, ?)`, planted)
	if err := s.tryOpen(); err == nil || !strings.Contains(err.Error(), planted) {
		t.Errorf("a planted verifier key: got %v, want an error that names it", err)
	}
	if r := s.fsck(); len(r.Problems) == 0 {
		t.Error("fsck found nothing")
	}
}

func vkey(t *testing.T, origin string) string {
	t.Helper()
	_, vkey, err := testSeed.Ed25519(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	return vkey
}
