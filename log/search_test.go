package log_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
)

// mergedSize is how many events a merged segment covers.
const mergedSize = index.Width * index.Fanout

// searchSize is how many events the log has that searches are tried on: enough for a merged segment, some that aren't, and a
// tail.
const searchSize = mergedSize + 3*index.Width + 500

// names are some words in several scripts, two of them alike but for what is beyond the end of their keys.
var names = []string{
	"Zoë", "ZOË", "Świątek", "Straße", "STRAẞE", "Ὀδυσσεύς", "ΟΔΥΣΣΕΥΣ", "हिन्दी", "東京都", "KelvinK", "o'neil",
	strings.Repeat("x", index.MaxWord) + "yz", strings.Repeat("X", index.MaxWord) + "Yä",
}

// variedEvents makes n events of which some values are everywhere and some are rare.
func variedEvents(t testing.TB, seed uint64, n int) []*log.Event {
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([]*log.Event, n)
	now := time.Now()
	actions := []string{"user.login", "user.logout", "user", "user.login.failed", "invoice.paid", "invoice.sent"}
	for i := range out {
		var b strings.Builder
		action := actions[r.IntN(len(actions))]
		if r.IntN(50) == 0 {
			action = fmt.Sprint("rare.", r.IntN(40))
		}
		fmt.Fprintf(&b, `{"action":%q,"actor_id":"u%d"`, action, r.IntN(200))
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, `,"actor_email":"u%d@example.com"`, r.IntN(200))
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, `,"targets":[{"id":"t%d","type":"doc"},{"id":"t%d","type":"kind%d"}]`, r.IntN(5000), r.IntN(50), r.IntN(4))
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, `,"outcome":%q`, []string{"success", "failure", "denied"}[r.IntN(3)])
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, `,"ip":"10.0.0.%d"`, r.IntN(99))
		}
		if r.IntN(2) == 0 {
			ago := time.Duration(r.Int64N(int64(time.Hour)))
			if r.IntN(20) == 0 {
				ago *= 1000
			}
			fmt.Fprintf(&b, `,"occurred_at":%q`, now.Add(-ago).UTC().Format("2006-01-02T15:04:05.000000Z"))
		}
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, `,"actor_name":"%s %s"`, names[r.IntN(len(names))], names[r.IntN(len(names))])
		}
		if r.IntN(4) == 0 {
			fmt.Fprintf(&b, `,"context":{"request_id":"%x-%x"}`, r.Uint32(), r.Uint32())
		}
		fmt.Fprintf(&b, `,"metadata":{"n":%d,"plan":"p%d","deep":{"er":{"x":%t}},"a.b":"dot\"ted\n","a":{"b":"é%d"},"list":["in"]`,
			r.IntN(1000), r.IntN(3), r.IntN(2) == 0, r.IntN(9))
		if r.IntN(100) == 0 {
			fmt.Fprintf(&b, `,"big":%q`, strings.Repeat("x", log.MaxIndexedValue+r.IntN(2)))
		}
		b.WriteString("}}")
		e, err := log.ParseEvent([]byte(b.String()), harnessOptions())
		if err != nil {
			t.Fatal(err)
		}
		out[i] = e
	}
	return out
}

// stored is an event of a log as the naive search knows it.
type stored struct {
	record log.Record
	event  *log.Event
}

// readAll reads a log.
func readAll(t testing.TB, l *log.Log) []stored {
	t.Helper()
	size := l.Sizes().Size
	out := make([]stored, 0, size)
	for from := uint64(0); from < size; {
		run, err := l.Records(t.Context(), from, min(from+1000, size), 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range run {
			e, err := log.ParseStored(r.Event)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, stored{r, e})
		}
		from += uint64(len(run))
	}
	return out
}

// appendAll appends events to a log in batches between which time passes.
func (s *testService) appendAll(l *log.Log, events []*log.Event) {
	s.t.Helper()
	for batch := range slices.Chunk(events, 500) {
		s.clock.Add(1000)
		_, err := l.Append(context.Background(), batch)
		for errors.Is(err, log.ErrIndexLag) && !s.store.noIndex.Load() {
			time.Sleep(10 * time.Millisecond)
			_, err = l.Append(context.Background(), batch)
		}
		if err != nil {
			s.t.Error(err)
			return
		}
	}
}

// searched waits until the log's index is searched and at most lag events are not in it.
func (s *testService) searched(l *log.Log, lag uint64) {
	s.t.Helper()
	s.until("the index", func() bool {
		have, searchable := l.Unindexed()
		return searchable && have <= lag
	})
}

// drawFilter draws a filter that selects something like what is there.
func drawIndexFilter(t *rapid.T, all []stored) *log.Filter {
	var f log.Filter
	like := func(name string) *stored { return &all[rapid.IntRange(0, len(all)-1).Draw(t, name)] }
	for range rapid.IntRange(1, 3).Draw(t, "members") {
		e := like("like")
		value := func(pointer string) string {
			for _, c := range e.event.Claims() {
				if c.Pointer == pointer {
					return string(c.Value[1 : len(c.Value)-1])
				}
			}
			return "absent"
		}
		switch rapid.IntRange(0, 10).Draw(t, "field") {
		case 0:
			action := e.event.Action()
			if rapid.Bool().Draw(t, "prefix") {
				action = action[:rapid.IntRange(0, len(action)).Draw(t, "length")] + "*"
			}
			f.Actions = append(f.Actions, action)
		case 1:
			f.ActorIDs = append(f.ActorIDs, value("/actor/id"))
		case 2:
			f.ActorEmails = append(f.ActorEmails, value("/actor/email"))
		case 3:
			f.TargetIDs = append(f.TargetIDs, value("/targets/1/id"), value("/targets/0/id"))
		case 4:
			f.TargetTypes = append(f.TargetTypes, value("/targets/1/type"))
		case 5:
			f.Outcomes = append(f.Outcomes, value("/outcome"))
		case 6:
			f.IPs = append(f.IPs, value("/context/ip"))
		case 7:
			f.Metadata = append(f.Metadata, rapid.SampledFrom([]log.Metadata{
				{Path: "n", Values: []string{"7", "70", "700"}}, {Path: "plan", Values: []string{"p1"}},
				{Path: "deep.er.x", Values: []string{"true"}}, {Path: "a.b", Values: []string{"dot\"ted\n"}},
				{Path: "a.b", Values: []string{"é3", "é4"}}, {Path: "big", Values: []string{strings.Repeat("x", 512)}},
				{Path: "big", Values: []string{strings.Repeat("x", 513)}}, {Path: "list", Values: []string{"in"}},
				{Path: "plan", Values: nil},
			}).Draw(t, "metadata"))
		case 8:
			f.Received = drawSpan(t, e.record.ReceivedAt, like("other").record.ReceivedAt)
		case 9:
			f.Occurred = drawSpan(t, occurred(e), occurred(like("other")))
		case 10:
			f.Words = append(f.Words, words(t, drawWords(t, e.record.Event)))
		}
	}
	return &f
}

func occurred(s *stored) int64 {
	if at, ok := s.event.OccurredAt(); ok {
		return at
	}
	return s.record.ReceivedAt
}

func drawSpan(t *rapid.T, a, b int64) (s log.TimeSpan) {
	a, b = min(a, b), max(a, b)+rapid.Int64Range(0, 1).Draw(t, "end")
	if rapid.IntRange(0, 3).Draw(t, "from") > 0 {
		s.From = &a
	}
	if rapid.IntRange(0, 3).Draw(t, "to") > 0 {
		s.To = &b
	}
	return s
}

// checkSearch compares the pages of one search with what comparing every event finds.
func checkSearch(t rapid.TB, l *log.Log, all []stored, f *log.Filter, p log.Page) {
	t.Helper()
	checkPages(t, l, all, f, func(s *stored) bool { return f.Match(s.event, s.record.ReceivedAt) }, p)
}

// checkPages compares the pages of one search with the events that it selects, and what they tell of what was searched.
func checkPages(t rapid.TB, l *log.Log, all []stored, f *log.Filter, selects func(*stored) bool, p log.Page) {
	t.Helper()
	size := l.Sizes().Size
	var want []log.Record
	for i := range all {
		s := &all[i]
		if p.Oldest && s.record.Index < p.Position || !p.Oldest && s.record.Index >= p.Position {
			continue
		}
		if selects(s) {
			want = append(want, s.record)
		}
	}
	if !p.Oldest {
		slices.Reverse(want)
	}
	n, more := 0, true
	for pages := 0; more && pages < 12; pages++ {
		found, err := l.Search(context.Background(), f, p)
		if err != nil {
			t.Fatalf("search: %v", err)
		}
		bytes := 0
		for i, r := range found.Records {
			if i >= p.Limit || i > 0 && bytes >= p.MaxBytes {
				t.Fatalf("a page of %d records and more than %d bytes, want at most %d and %d", len(found.Records), bytes, p.Limit, p.MaxBytes)
			}
			if n == len(want) {
				t.Fatalf("found entry %d, which doesn't match", r.Index)
			}
			r.State, want[n].State = "", "" // it may have been signed since
			if !reflect.DeepEqual(r, want[n]) {
				t.Fatalf("record %d of the search: got entry %d, want %d:\n%+v\n%+v", n, r.Index, want[n].Index, r, want[n])
			}
			n++
			bytes += len(r.Event)
		}
		if more = found.More; more && found.Position == p.Position {
			t.Fatalf("the page at %d leads to itself", p.Position)
		}
		// Pages lie beside each other, and the last one ends where the log does.
		from, to := min(p.Position, size), size
		switch {
		case p.Oldest && more:
			to = found.Position
		case !p.Oldest:
			from, to = 0, from
			if more {
				from = found.Position
			}
		}
		if found.From != from || found.To != to {
			t.Fatalf("the page at %d searched [%d, %d), want [%d, %d)", p.Position, found.From, found.To, from, to)
		}
		p.Position = found.Position
	}
	if !more && n != len(want) {
		t.Fatalf("found %d, want %d: %+v", n, len(want), *f)
	}
}

// Whatever is indexed, however it is merged, and wherever a page begins: a search finds what comparing every event with the filter
// finds, in the same order.
func TestASearchFindsWhatANaiveOneFinds(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	small, err := s.CreateLog(t.Context(), log.ByServer(), "small", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]stored)
	for l, size := range map[*log.Log]int{s.log(): searchSize, small: 3500} {
		s.appendAll(l, variedEvents(t, 1, size/2))
		s.clock.Add(1_000_000)
		s.appendAll(l, variedEvents(t, 2, size-size/2))
		all[l.Name] = readAll(t, l)
	}
	s.close()
	s.noIndex = true
	for _, c := range []struct {
		log     string
		indexed uint64
	}{
		{"small", 0}, {"small", 2 * index.Width}, {"small", 3 * index.Width}, {"default", searchSize},
	} {
		t.Run(fmt.Sprintf("%s indexed to %d", c.log, c.indexed-c.indexed%index.Width), func(t *testing.T) {
			s.open()
			if err := log.IndexTo(t.Context(), s.store.Store, s.Log(c.log).ID, c.indexed); err != nil {
				t.Fatal(err)
			}
			s.close()
			s.open()
			defer s.close()
			l, all := s.Log(c.log), all[c.log]
			size := uint64(len(all))
			s.searched(l, size-c.indexed+index.Width)
			rapid.Check(t, func(t *rapid.T) {
				checkSearch(t, l, all, drawIndexFilter(t, all), log.Page{
					Oldest: rapid.Bool().Draw(t, "oldest"),
					Position: rapid.OneOf(rapid.SampledFrom([]uint64{0, size, size + 9}), rapid.Uint64Range(0, size)).
						Draw(t, "position"),
					Limit:    rapid.SampledFrom([]int{1, 3, 50, 1000}).Draw(t, "limit"),
					MaxBytes: rapid.SampledFrom([]int{1, 5000, 4 << 20, 4 << 20}).Draw(t, "bytes"),
				})
			})
		})
	}
}

func TestSearchingRealEvents(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	var events []*log.Event
	for i, line := range cloudTrail(t) {
		opt := harnessOptions()
		opt.NewID = func() string { return fmt.Sprint("real-", i) }
		e, err := log.ParseEvent(line, opt)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	s.appendAll(s.log(), events)
	s.searched(s.log(), 200)
	all := readAll(t, s.log())
	position := uint64(len(all))
	for _, f := range []log.Filter{
		{Actions: []string{all[0].event.Action()}}, {Actions: []string{"s3.*", "iam*"}}, {Outcomes: []string{"failure", "denied"}},
		{IPs: []string{"192.0.2.1"}}, {},
	} {
		for _, p := range []log.Page{{Oldest: true, Limit: 500, MaxBytes: 8 << 20}, {Position: position, Limit: 500, MaxBytes: 8 << 20}} {
			checkSearch(t, s.log(), all, &f, p)
		}
	}
	// Every value of every event leads to it.
	for i := range all {
		for _, c := range all[i].event.Claims() {
			var f log.Filter
			text := strings.Trim(string(c.Value), `"`)
			switch name, member := strings.CutPrefix(c.Pointer, "/metadata/"); {
			case strings.Contains(text, `\`) || i%31 != 0:
				continue
			case c.Pointer == "/actor/id":
				f.ActorIDs = []string{text}
			case strings.HasPrefix(c.Pointer, "/targets/") && strings.HasSuffix(c.Pointer, "/id"):
				f.TargetIDs = []string{text}
			case member && !strings.ContainsAny(text[:1], "[{") && len(text) <= log.MaxIndexedValue:
				f.Metadata = []log.Metadata{{Path: strings.NewReplacer("~1", "/", "~0", "~").Replace(name), Values: []string{text}}}
			default:
				continue
			}
			found, err := s.log().Search(t.Context(), &f, log.Page{Oldest: true, Position: uint64(i), Limit: 1, MaxBytes: 1})
			if err != nil || len(found.Records) != 1 || found.Records[0].Index != uint64(i) {
				t.Fatalf("%+v doesn't lead to entry %d: %+v, %v", f, i, found, err)
			}
		}
	}
}

// A search while the log grows and its segments are merged is exact at every moment: what was appended before it began is found.
func TestASearchIsExactWhileTheLogGrows(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	events := events(t, index.Width*(index.Fanout+2))
	for i := range events {
		if i%1000 == 0 {
			events[i] = event(t, fmt.Sprint("needle-", i), "needle")
		}
	}
	f := &log.Filter{Actions: []string{"test.done"}, Metadata: []log.Metadata{{Path: "text", Values: []string{"needle"}}}}
	var wg sync.WaitGroup
	wg.Go(func() { s.appendAll(s.log(), events) })
	for done := false; !done; {
		size := s.log().Sizes().Size
		done = size == uint64(len(events))
		var got []uint64
		for p := (log.Page{Position: size, Limit: 1000, MaxBytes: 1 << 20}); ; {
			found, err := s.log().Search(t.Context(), f, p)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range found.Records {
				got = append(got, r.Index)
			}
			if p.Position = found.Position; !found.More {
				break
			}
		}
		if want := int(size+999) / 1000; len(got) != want {
			t.Fatalf("at size %d: found %d, want %d: %v", size, len(got), want, got)
		}
	}
	wg.Wait()
	s.searched(s.log(), index.Width)
	if n, err := log.CheckIndex(t.Context(), s.store, s.log().Info, nil); err != nil || n == 0 {
		t.Errorf("the index: got %d, %v", n, err)
	}
}

// Two servers on one database build one index, and each finds the other's progress.
func TestTwoServersBuildOneIndex(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	l := s.log()
	s.store.noIndex.Store(true)
	s.appendAll(l, variedEvents(t, 4, index.Width*40))
	s.store.noIndex.Store(false)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := log.Reindex(context.Background(), s.store, l.Info, nil); err != nil && !errors.Is(err, log.ErrHeadMoved) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s.searched(l, index.Width)
	if n, err := log.CheckIndex(t.Context(), s.store, l.Info, nil); err != nil || n != index.Width*40 {
		t.Errorf("the index: got %d, %v, want %d", n, err, index.Width*40)
	}
}

// A store that is restored under an index of the history that is gone is searched as it is, and the index built anew.
func TestAnIndexOfAnotherHistoryIsNotBelieved(t *testing.T) {
	t.Parallel()
	for name, grown := range map[string]int{"the record is shorter": 0, "the record has grown past it": 4000} {
		t.Run(name, func(t *testing.T) {
			s := newTestService(t)
			s.appendAll(s.log(), variedEvents(t, 5, 1500))
			s.close()
			backup, search := filepath.Join(s.dir, "backup.db"), filepath.Join(s.dir, "treeline-search.db")
			copyFile(t, s.path(), backup)
			if err := os.CopyFS(filepath.Join(s.dir, "fence-backup"), os.DirFS(filepath.Join(s.dir, "fence"))); err != nil {
				t.Fatal(err)
			}
			s.open()
			s.appendAll(s.log(), variedEvents(t, 6, 3000))
			s.searched(s.log(), index.Width)
			s.close()
			newer := filepath.Join(s.dir, "newer.db")
			copyFile(t, search, newer)
			copyFile(t, backup, s.path())
			if err := os.RemoveAll(filepath.Join(s.dir, "fence")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(s.dir, "fence-backup"), filepath.Join(s.dir, "fence")); err != nil {
				t.Fatal(err)
			}
			s.open()
			if grown > 0 {
				s.appendAll(s.log(), variedEvents(t, 7, grown))
			}
			all := readAll(t, s.log())
			s.close()
			copyFile(t, newer, search)
			s.holding = &holding{release: make(chan struct{})}
			release := sync.OnceFunc(func() { close(s.holding.release) })
			s.open()
			t.Cleanup(release)     // before the service is closed
			for round := range 2 { // while it is being dropped, and when it is built anew
				if round == 0 {
					s.until("the index to be dropped", func() bool { return s.holding.held.Load() > 0 })
				}
				for _, f := range []log.Filter{{Actions: []string{"rare.*"}}, {ActorIDs: []string{"u7"}}, {Outcomes: []string{"denied"}}} {
					checkSearch(t, s.log(), all, &f, log.Page{Position: uint64(len(all)), Limit: 1000, MaxBytes: 1 << 20})
				}
				if round == 0 {
					release()
				}
				s.searched(s.log(), index.Width)
			}
			if n, err := log.CheckIndex(t.Context(), s.store, s.log().Info, nil); err != nil || n != uint64(len(all)/index.Width*index.Width) {
				t.Errorf("the index: got %d, %v", n, err)
			}
		})
	}
}

// forgeIndex changes the index's file.
func (s *testService) forgeIndex(query string, args ...any) {
	s.t.Helper()
	db := sqlx.MustOpen("sqlite", "file:"+filepath.Join(s.dir, "treeline-search.db")+"?_pragma=busy_timeout(10000)")
	defer db.Close()
	res, err := db.Exec(query, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		s.t.Fatalf("%s: changed %d rows, %v", query, n, err)
	}
}

func TestADamagedIndexIsAnErrorAndNoAnswer(t *testing.T) {
	t.Parallel()
	for name, forge := range map[string]string{
		"a block is changed":            `UPDATE index_blocks SET data = zeroblob(length(data)) WHERE segment = 1`,
		"a block is missing":            `DELETE FROM index_blocks WHERE segment = 1 AND key > x'01' OR segment = 2 AND key = x'01'`,
		"a segment's blocks are gone":   `DELETE FROM index_blocks WHERE segment = 1`,
		"a segment is gone":             `DELETE FROM index_segments WHERE segment = 1`,
		"a block is in another's place": `UPDATE index_blocks SET data = (SELECT data FROM index_blocks WHERE segment = 0 AND key = x'01') WHERE segment = 1`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestService(t)
			s.appendAll(s.log(), variedEvents(t, 8, 4*index.Width))
			s.searched(s.log(), 0)
			s.forgeIndex(forge)
			_, err := s.log().Search(t.Context(), &log.Filter{Actions: []string{"rare.*", "none"}, Metadata: []log.Metadata{{Path: "plan", Values: []string{"p1"}}}},
				log.Page{Position: 4 * index.Width, Limit: 1000, MaxBytes: 1 << 20})
			if !errors.Is(err, log.ErrDamaged) || !strings.Contains(err.Error(), "treeline reindex default") {
				t.Errorf("search: got %v, want ErrDamaged and what to run", err)
			}
			if _, err := log.CheckIndex(t.Context(), s.store, s.log().Info, nil); name != "a segment's blocks are gone" && !errors.Is(err, log.ErrDamaged) {
				t.Errorf("check: got %v, want ErrDamaged", err)
			}
			if err := log.Reindex(t.Context(), s.store, s.log().Info, nil); err != nil {
				t.Fatal(err)
			}
			all := readAll(t, s.log())
			checkSearch(t, s.log(), all, &log.Filter{Actions: []string{"rare.*"}}, log.Page{Oldest: true, Limit: 1000, MaxBytes: 1 << 20})
		})
	}
}

// Damage that the follower meets when it merges costs a rebuild, and no appends.
func TestTheFollowerDropsADamagedIndex(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	events := events(t, mergedSize+100)
	s.appendAll(s.log(), events[:10*index.Width])
	s.searched(s.log(), 0)
	s.forgeIndex(`UPDATE index_blocks SET data = zeroblob(length(data)) WHERE segment = 1`)
	s.appendAll(s.log(), events[10*index.Width:])
	s.until("the index to be dropped", func() bool { return strings.Contains(s.logs.String(), "is dropped and built anew") })
	s.searched(s.log(), 100)
	if n, err := log.CheckIndex(t.Context(), s.store, s.log().Info, nil); err != nil || n != mergedSize {
		t.Errorf("the index: got %d, %v, want %d", n, err, mergedSize)
	}
}

// A log that can't be indexed is tried ever more seldom, since each attempt costs a run, and its index is written when it can be.
func TestALogThatCantBeIndexedIsTriedEverMoreSeldom(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.store.noIndex.Store(true)
	s.appendAll(s.log(), events(t, index.Width+10))
	first := <-s.store.tries
	<-s.store.tries
	<-s.store.tries
	if took := (<-s.store.tries).Sub(first); took < 1400*time.Millisecond { // 200, 400 and 800 at least
		t.Errorf("four attempts took %v", took)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("not ready after a moment: %v", err)
	}
	s.clock.Add(31_000_000)
	s.store.noIndex.Store(false)
	s.searched(s.log(), 10)
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("not ready with the index written: %v", err)
	}
}

// Appends go on while the index can't be written, up to its lag limit; then they are refused until it has caught up.
func TestAppendsWaitForAnIndexThatIsFarBehind(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.store.noIndex.Store(true)
	events := events(t, log.MaxUnindexed+1)
	s.appendAll(s.log(), events[:2000])
	s.until("indexing to fail", func() bool { return strings.Contains(s.logs.String(), "indexing failed") })
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready at once: %v", err)
	}
	s.appendAll(s.log(), events[2000:])
	_, err := s.log().Append(t.Context(), []*log.Event{event(t, "late", "x")})
	if !errors.Is(err, log.ErrIndexLag) {
		t.Fatalf("append: got %v, want ErrIndexLag", err)
	}
	s.signed()
	s.clock.Add(31_000_000)
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "the search index couldn't be written") {
		t.Errorf("ready after 31 seconds: got %v, want a word about the index", err)
	}
	other, err := s.CreateLog(t.Context(), log.ByServer(), "other", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Append(t.Context(), []*log.Event{event(t, "other", "x")}); err != nil {
		t.Errorf("append to another log: %v", err)
	}
	s.store.noIndex.Store(false)
	s.searched(s.log(), index.Width)
	if _, err := s.log().Append(t.Context(), []*log.Event{event(t, "late", "x")}); err != nil {
		t.Errorf("append after the index has caught up: %v", err)
	}
	s.until("the service to be ready", func() bool { return s.Ready(t.Context()) == nil })
}

// A lag that was there before the server started is nobody's fault: the first append isn't refused for it.
func TestAStartWithoutAnIndexRefusesNothing(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.appendAll(s.log(), variedEvents(t, 10, 3000))
	s.searched(s.log(), index.Width)
	s.close()
	if err := os.Remove(filepath.Join(s.dir, "treeline-search.db")); err != nil {
		t.Fatal(err)
	}
	s.open()
	s.append("first")
	s.searched(s.log(), index.Width)
}

// An event that can't be read is found by no search, and keeps none of the others from being found.
func TestAnUnreadableEventIsReportedOnce(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.appendAll(s.log(), variedEvents(t, 11, 2*index.Width))
	all := readAll(t, s.log())
	s.close()
	s.forge(t, func(f *intruder) { f.exec(`UPDATE payloads SET payload = x'00' WHERE idx IN (7, 8, 1500)`) })
	if err := os.Remove(filepath.Join(s.dir, "treeline-search.db")); err != nil {
		t.Fatal(err)
	}
	s.open()
	s.searched(s.log(), 0)
	all = slices.DeleteFunc(all, func(e stored) bool { return slices.Contains([]uint64{7, 8, 1500}, e.record.Index) })
	for _, f := range []log.Filter{{Actions: []string{"user*"}}, {Metadata: []log.Metadata{{Path: "plan", Values: []string{"p1"}}}}} {
		checkSearch(t, s.log(), all, &f, log.Page{Position: 2 * index.Width, Limit: 1000, MaxBytes: 8 << 20})
	}
	if n := strings.Count(s.logs.String(), "so no search finds it"); n != 1 {
		t.Errorf("reported %d times, want once: %s", n, s.logs.String())
	}
}

// Contents that were removed are found by no filter, in the index and behind it.
func TestWhatIsGoneIsNotFound(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.appendAll(s.log(), variedEvents(t, 12, index.Width+100))
	s.searched(s.log(), 100)
	all := readAll(t, s.log())
	s.forge(t, func(f *intruder) { f.exec(`DELETE FROM payloads WHERE idx % 5 = 0`) })
	all = slices.DeleteFunc(all, func(e stored) bool { return e.record.Index%5 == 0 })
	f := &log.Filter{Actions: []string{"user*"}}
	for range 2 {
		checkSearch(t, s.log(), all, f, log.Page{Position: index.Width + 100, Limit: 1000, MaxBytes: 8 << 20})
		if err := log.Reindex(t.Context(), s.store, s.log().Info, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkIndexEvents(b *testing.B) {
	curl, err := log.ParseEvent([]byte(firstCall), harnessOptions())
	if err != nil {
		b.Fatal(err)
	}
	var varied, real []log.Payload
	for _, e := range variedEvents(b, 1, index.Width) {
		varied = append(varied, log.Payload{Data: log.EncodePayload(e.JSON())})
	}
	for _, line := range cloudTrail(b)[:index.Width] {
		e, err := log.ParseEvent(line, harnessOptions())
		if err != nil {
			b.Fatal(err)
		}
		real = append(real, log.Payload{Data: log.EncodePayload(e.JSON())})
	}
	for _, c := range []struct {
		name     string
		payloads []log.Payload
	}{
		{"curl", slices.Repeat([]log.Payload{{Data: log.EncodePayload(curl.JSON())}}, index.Width)},
		{"varied", varied}, {"cloudtrail", real},
	} {
		b.Run(c.name, func(b *testing.B) {
			var terms log.Terms
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				s, err := terms.Build(0, c.payloads)
				if err != nil {
					b.Fatal(err)
				}
				size = 0
				for _, block := range s.Blocks {
					size += len(block.Data)
				}
			}
			b.ReportMetric(float64(b.N)*index.Width/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(size)/index.Width, "index-B/event")
		})
	}
}

// BenchmarkSearch searches a log of 283,000 events for a page of 50.
func BenchmarkSearch(b *testing.B) {
	const size = 4*index.Width*index.Fanout + 20*index.Width + 500
	s := newTestService(b)
	some := variedEvents(b, 1, 20_000)
	for n := 0; n < size; n += len(some) {
		var events []*log.Event
		for _, e := range some[:min(len(some), size-n)] {
			// The same events under other ids.
			again, err := log.ParseEvent(without(e.JSON(), `"credential":"test",`, `"id":"`+e.ID()+`",`), harnessOptions())
			if err != nil {
				b.Fatal(err)
			}
			events = append(events, again)
		}
		s.appendAll(s.log(), events)
	}
	start := time.Now()
	s.searched(s.log(), index.Width)
	b.Logf("the index was ready %v after the last append", time.Since(start))
	start = time.Now()
	if err := log.Reindex(b.Context(), s.store, s.log().Info, nil); err != nil {
		b.Fatal(err)
	}
	b.Logf("rebuilt at %.0f events/s", size/time.Since(start).Seconds())
	s.close() // folds the WAL into the file
	fi, err := os.Stat(filepath.Join(s.dir, "treeline-search.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%.1f bytes of index an event, in its file", float64(fi.Size())/size)
	s.open()
	s.searched(s.log(), index.Width)
	for _, c := range []struct {
		name string
		f    log.Filter
	}{
		{"common", log.Filter{Actions: []string{"user.login"}}},
		{"prefix", log.Filter{Actions: []string{"user.*"}}},
		{"rare", log.Filter{Actions: []string{"rare.7"}, ActorIDs: []string{"u7"}}},
		{"nothing", log.Filter{ActorIDs: []string{"nobody"}}},
		{"nothing in common", log.Filter{Actions: []string{"rare.7"}, ActorIDs: []string{"u7"}, IPs: []string{"10.0.0.7"}}},
		{"time", log.Filter{Occurred: log.TimeSpan{To: new(time.Now().Add(-40 * time.Hour).UnixMicro())}}},
	} {
		for _, oldest := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s oldest=%t", c.name, oldest), func(b *testing.B) {
				p := log.Page{Oldest: oldest, Limit: 50, MaxBytes: 8 << 20}
				if !oldest {
					p.Position = size
				}
				n := 0
				for b.Loop() {
					found, err := s.log().Search(b.Context(), &c.f, p)
					if err != nil {
						b.Fatal(err)
					}
					n = len(found.Records)
				}
				b.ReportMetric(float64(n), "records")
			})
		}
	}
}

// without returns JSON without some of its members.
func without(json []byte, members ...string) []byte {
	text := string(json)
	for _, m := range members {
		text = strings.Replace(text, m, "", 1)
	}
	return []byte(text)
}
