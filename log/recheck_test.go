package log_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// recheck checks the entries [from, to) of the log again.
func (s *testService) recheck(from, to uint64) (*log.Recheck, *log.FsckReport) {
	s.t.Helper()
	r, err := s.log().NewRecheck(s.t.Context(), from, to)
	if err != nil {
		s.t.Fatalf("checking [%d, %d): %v", from, to, err)
	}
	defer r.End()
	report, err := r.Run(s.t.Context(), func(int) {})
	if err != nil {
		s.t.Fatalf("checking [%d, %d): %v", from, to, err)
	}
	return r, report
}

// appendSigned grows the log to each of the sizes, and has that signed.
func (s *testService) appendSigned(sizes ...int) {
	s.t.Helper()
	for _, size := range sizes {
		var all []*log.Event
		for n := int(s.log().Sizes().Size); n < size; n++ {
			all = append(all, event(s.t, fmt.Sprint("e", n), fmt.Sprint("text ", n)))
		}
		if _, err := s.log().Append(s.t.Context(), all); err != nil {
			s.t.Fatal(err)
		}
		s.signed()
	}
}

// Whatever part of a whole log is checked is whole, and it is said how much was.
func TestARecheckOfAWholeLog(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.signed()
	s.appendSigned(tamperedSigned[1:]...)
	newest, note := s.log().Signed()
	for _, x := range []struct{ from, to uint64 }{
		{0, merkle.MaxSize}, {0, 600}, {0, 0}, {0, 1}, {1, 2}, {0, 256}, {255, 256}, {255, 257}, {256, 512}, {257, 600}, {300, 500},
		{299, 301}, {301, 302}, {511, 513}, {599, 600}, {600, 600}, {600, merkle.MaxSize}, {42, 42},
	} {
		r, report := s.recheck(x.from, x.to)
		to := min(x.to, 600)
		if r.From != x.from || r.To != to || r.Against.Size != newest.Size || string(r.Against.Note) != string(note) {
			t.Errorf("[%d, %d): got [%d, %d) against %+v", x.from, x.to, r.From, r.To, r.Against)
		}
		root, err := s.log().Root(t.Context(), to)
		if err != nil || report.Root != root.String() {
			t.Errorf("[%d, %d): got root %s, want %v, %v", x.from, x.to, report.Root, root, err)
		}
		checkpoints := 0
		for _, size := range tamperedSigned {
			if x.from <= uint64(size) && uint64(size) <= to {
				checkpoints++
			}
		}
		if to < newest.Size {
			checkpoints++ // that to which the entries lead
		}
		if n := to - x.from; report.Entries != n || report.Links != n || report.Contents != n || report.Nodes != to/256-x.from/256 ||
			report.Checkpoints != checkpoints || len(report.Problems) > 0 || report.Truncated {
			t.Errorf("[%d, %d): got %+v, want %d checkpoints", x.from, x.to, report, checkpoints)
		}
	}
}

func TestARecheckOfAnEmptyLog(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	r, report := s.recheck(0, merkle.MaxSize)
	if r.To != 0 || r.Against.Note == nil || report.Checkpoints != 1 || len(report.Problems) > 0 {
		t.Errorf("got %+v, %+v", r, report)
	}
}

// What isn't there, or isn't signed, can't be checked; nor can two checks of a log be made at a time.
func TestWhatCannotBeRechecked(t *testing.T) {
	t.Parallel()
	s := &testService{t: t, dir: t.TempDir(), seed: testSeed, hub: true, unasked: true}
	if onPostgres {
		s.url = migrated(t)
	}
	s.signing = time.Hour
	s.open()
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	s.append("e0")
	for _, x := range []struct {
		from, to uint64
		want     error
	}{
		{0, 1, log.ErrNotSigned}, {0, 2, merkle.ErrOutOfRange}, {0, merkle.MaxSize - 1, merkle.ErrOutOfRange}, {1, 0, merkle.ErrOutOfRange},
		{1, merkle.MaxSize, merkle.ErrOutOfRange}, {merkle.MaxSize, merkle.MaxSize, merkle.ErrOutOfRange},
	} {
		if _, err := s.log().NewRecheck(t.Context(), x.from, x.to); !errors.Is(err, x.want) {
			t.Errorf("[%d, %d): got %v, want %v", x.from, x.to, err, x.want)
		}
	}
	if _, err := s.Log(log.HubName).NewRecheck(t.Context(), 0, 0); !errors.Is(err, log.ErrHub) {
		t.Errorf("the hub: got %v, want ErrHub", err)
	}
	r, err := s.log().NewRecheck(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.log().NewRecheck(t.Context(), 0, 0); !errors.Is(err, log.ErrRechecking) {
		t.Errorf("a second one: got %v, want ErrRechecking", err)
	}
	r.End()
	s.recheck(0, 0)
}

// checkRecheck checks that a server which was started on the store says the same as fsck, but for what is no part of the entries.
func (x tampering) checkRecheck(t *testing.T, s *testService) {
	t.Helper()
	_, report := s.recheck(0, merkle.MaxSize)
	if strings.HasPrefix(x.what, "the store holds") || strings.HasPrefix(x.what, "the head of size") || x.name == "the head beyond the entries" {
		if len(report.Problems) > 0 {
			t.Errorf("recheck: got %+v, want nothing", report.Problems)
		}
		return
	}
	if len(report.Problems) == 0 {
		t.Fatal("the recheck found nothing")
	}
	if !strings.Contains(s.logs.String(), "a log that was to be verified has entries that can't be") {
		t.Errorf("the operator isn't told: %s", s.logs.String())
	}
	if p := report.Problems[0]; p.Index != x.index || p.Kind != x.kind || !strings.Contains(p.What, x.what) {
		t.Errorf("recheck's first problem: got %+v of %+v, want %s at %d: …%s…", p, report.Problems, x.kind, x.index, x.what)
	}
}

// A part of a log that was tampered with is whole or not by itself, and by whether it leads to what was signed.
func TestARecheckFindsTamperingInItsRange(t *testing.T) {
	t.Parallel()
	whole := newTampered(t)
	damages := map[string]func(f *intruder){
		"content":    func(f *intruder) { f.editByte("payloads", "payload", "idx = 123", -4) },
		"seed":       func(f *intruder) { f.editByte("payloads", "seed", "idx = 123", 3) },
		"entry":      func(f *intruder) { f.editEntry(123, func(e *log.Entry) { e.Digest[0] ^= 1 }) },
		"node":       func(f *intruder) { f.editByte("nodes", "hash", "level = 1 AND idx = 0", 7) },
		"gone":       func(f *intruder) { f.exec(`DELETE FROM entries WHERE first = 256`) },
		"checkpoint": func(f *intruder) { f.editByte("checkpoints", "note", "size = 300", 40) },
		"newest":     func(f *intruder) { f.editByte("checkpoints", "note", "size = 600", 40) },
		"history":    func(f *intruder) { f.rebuild(f.rewrite(350)) },
		"signed anew": func(f *intruder) {
			all := f.rewrite(350)
			f.rebuild(all)
			for _, size := range []int{500, 600} {
				f.exec(`UPDATE checkpoints SET note = ? WHERE size = ?`, f.note(testSeed, uint64(size), rootOf(all[:size])), size)
			}
		},
	}
	for _, x := range []struct {
		damage   string
		from, to uint64
		index    uint64
		kind     string
		what     string // "": nothing is found
	}{
		{"content", 100, 200, 123, log.KindInvalid, "entry 123: its content"},
		{"content", 123, 124, 123, log.KindInvalid, "entry 123: its content"},
		{"content", 0, 123, 0, "", ""},
		{"content", 124, 600, 0, "", ""},
		{"seed", 123, 600, 123, log.KindInvalid, "entry 123: its content or seed is not what its entry commits to"},
		{"entry", 100, 200, 123, log.KindInvalid, "entry 123 was changed"},
		{"entry", 124, 200, 123, log.KindInvalid, "entry 123 was changed"}, // which 124 doesn't follow
		{"entry", 123, 124, 123, log.KindInvalid, "entry 123: its content or seed is not what its entry commits to"},
		{"entry", 0, 123, 0, log.KindInvalid, "the entries [0, 123) and the stored tree beside them don't lead to the newest checkpoint of size 600"},
		{"entry", 300, 400, 0, "", ""},
		{"node", 0, 256, 0, log.KindInvalid, "tree node 0 of level 1 is"},
		{"node", 255, 256, 0, log.KindInvalid, "tree node 0 of level 1 is"},
		{"node", 256, 300, 0, log.KindDiverged, "entries of [0, 300) were changed after they were signed, or the stored tree before entry 256 was"},
		{"node", 301, 302, 0, log.KindInvalid, "the entries [301, 302) and the stored tree beside them don't lead to the newest checkpoint of size 600"},
		{"gone", 100, 300, 256, log.KindInvalid, "entry 256 is missing"},
		{"gone", 400, 500, 400, log.KindInvalid, "the tree before entry 400 can't be read"},
		{"gone", 100, 200, 0, "", ""},
		{"checkpoint", 200, 400, 300, log.KindInvalid, "the recorded checkpoint of size 300 doesn't verify"},
		{"checkpoint", 301, 600, 0, "", ""},
		{"newest", 0, 600, 600, log.KindInvalid, "the recorded checkpoint of size 600 doesn't verify"},
		{"history", 100, 200, 0, log.KindInvalid, "don't lead to the newest checkpoint of size 600"},
		{"history", 300, 400, 300, log.KindInvalid, "don't lead to the newest checkpoint of size 600"},
		{"signed anew", 0, 300, 300, log.KindInvalid, "the entries [0, 300) and the stored tree beside them don't lead to the fence's checkpoint of size 600"},
		{"history", 300, 500, 300, log.KindDiverged, "entries of [300, 500) were changed after they were signed"},
	} {
		t.Run(fmt.Sprintf("%s [%d, %d)", x.damage, x.from, x.to), func(t *testing.T) {
			t.Parallel()
			s := whole.copyTo(t)
			s.forge(t, damages[x.damage])
			s.open()
			_, report := s.recheck(x.from, x.to)
			if x.what == "" {
				if len(report.Problems) > 0 {
					t.Errorf("got %+v, want nothing", report.Problems)
				}
				return
			}
			if len(report.Problems) == 0 {
				t.Fatal("nothing was found")
			}
			if p := report.Problems[0]; p.Index != x.index || p.Kind != x.kind || !strings.Contains(p.What, x.what) {
				t.Errorf("got %+v, want %s at %d: …%s…", report.Problems, x.kind, x.index, x.what)
			}
		})
	}
}

// However many checkpoints there are, each is checked.
func TestManyCheckpointsAreAllChecked(t *testing.T) {
	t.Parallel()
	const size = 2100
	s := newTestService(t)
	s.appendSigned(size)
	s.close()
	s.forge(t, func(f *intruder) {
		tree := merkle.NewRange()
		for i, e := range f.entries() {
			tree.Append(e.LeafHash(), nil)
			if i+1 < size {
				f.exec(`INSERT INTO checkpoints (log, size, note) VALUES (?, ?, ?)`, f.log.ID, i+1, f.note(testSeed, uint64(i+1), tree.Root()))
			}
		}
	})
	if r := s.check(); r.Checkpoints != size+1 {
		t.Errorf("fsck: got %d checkpoints, want %d", r.Checkpoints, size+1)
	}
	s.open()
	if _, r := s.recheck(100, 2050); r.Checkpoints != 1952 || len(r.Problems) > 0 {
		t.Errorf("recheck: got %d checkpoints, want those of 1,951 sizes and the newest; problems %+v", r.Checkpoints, r.Problems)
	}
}

// What is appended and signed meanwhile is no damage, and isn't checked.
func TestARecheckBesideAppends(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.append("first")
	s.signed()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := s.log().Append(t.Context(), []*log.Event{event(t, fmt.Sprint("c", c, "-", i), "x")}); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(5 * time.Millisecond) // what is checked again and again mustn't grow without bound
			}
		})
	}
	for i := range uint64(20) {
		if r, report := s.recheck(i%2, merkle.MaxSize); len(report.Problems) > 0 || report.Contents != r.To-r.From {
			t.Errorf("got %+v of [%d, %d)", report, r.From, r.To)
		}
	}
	cancel()
	wg.Wait()
}

// Whoever leaves ends the check, and another one can be made.
func TestARecheckEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.appendSigned(6000)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.log().NewRecheck(ctx, 0, merkle.MaxSize)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Run(ctx, func(int) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	r.End()
	var progress atomic.Int64
	if r, err = s.log().NewRecheck(t.Context(), 0, merkle.MaxSize); err != nil {
		t.Fatal(err)
	}
	defer r.End()
	report, err := r.Run(t.Context(), func(n int) { progress.Add(int64(n)) })
	if err != nil || report.Contents != 6000 || progress.Load() != 12_000 {
		t.Errorf("got %+v, %v and progress %d, want 6,000 contents and 12,000", report, err, progress.Load())
	}
}

// However large a log is and however many are checked, few rows are read at a time, and for one check.
func TestRechecksReadLittleAtATime(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.appendSigned(6000)
	logs := []*log.Log{s.log()}
	for _, name := range []string{"second", "third"} {
		l, err := s.CreateLog(t.Context(), log.ByServer(), name, log.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(t.Context(), events(t, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := l.Wait(t.Context(), 1000, log.StateSigned); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	var now, most, rows atomic.Int64
	ctx := context.WithValue(t.Context(), readKey{}, func(n uint64) (done func()) {
		most.Store(max(most.Load(), now.Add(1)))
		rows.Store(max(rows.Load(), int64(n)))
		return func() { now.Add(-1) }
	})
	var wg sync.WaitGroup
	for _, l := range logs {
		r, err := l.NewRecheck(t.Context(), 0, merkle.MaxSize)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer r.End()
			if report, err := r.Run(ctx, func(int) {}); err != nil || len(report.Problems) > 0 {
				t.Errorf("log %s: got %+v, %v", l.Name, report, err)
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 || rows.Load() == 0 || rows.Load() > 4096 {
		t.Errorf("got %d reads at a time, of up to %d rows, want 1, of up to 4096", most.Load(), rows.Load())
	}
}

// Those who check take turns, and all together work for half of the time.
func TestChecksTakeTurnsAndRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := log.NewTurns()
		began := time.Now()
		var wg sync.WaitGroup
		var working atomic.Int64
		for range 3 {
			wg.Go(func() {
				for range 4 {
					done, err := turns.Take(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if n := working.Add(1); n != 1 {
						t.Errorf("%d work at a time, want 1", n)
					}
					time.Sleep(10 * time.Millisecond)
					working.Add(-1)
					done(t.Context())
				}
			})
		}
		wg.Wait()
		if got, want := time.Since(began), 240*time.Millisecond; got != want {
			t.Errorf("12 turns of 10 ms: took %v, want %v", got, want)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done, err := turns.Take(ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		cancel()
		done(ctx) // doesn't rest for an hour
		if _, err := turns.Take(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a turn of one who has left: got %v, want context.Canceled", err)
		}
	})
}
