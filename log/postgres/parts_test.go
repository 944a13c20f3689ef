package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// partition is where a content is, as the database has it.
type partition struct{ index, part int }

// partitions returns which part each content of the first log is in, in order of index.
func partitions(t *testing.T, url string) (all []partition) {
	t.Helper()
	rows, err := direct(t, url).Query("SELECT idx, part FROM payloads WHERE log = 1 ORDER BY idx")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var p partition
		if err := rows.Scan(&p.index, &p.part); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// countParts returns how many parts there are, and how many of them are open.
func countParts(t *testing.T, url string) (all, open int) {
	t.Helper()
	err := direct(t, url).QueryRow("SELECT count(*), count(*) FILTER (WHERE closed_at IS NULL) FROM parts").Scan(&all, &open)
	if err != nil {
		t.Fatal(err)
	}
	return all, open
}

func rotate(t *testing.T, stores ...*postgres.Store) {
	t.Helper()
	for _, s := range stores {
		if err := postgres.RotateFull(s); err != nil {
			t.Fatal(err)
		}
	}
}

// Contents go to the next part when one is full, or a month old if there is anything in it.
func TestPartsFollowEachOther(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	var clock atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	svc := serve(t, url, postgres.WithClock(postgres.Options{URL: url, PartRows: 10}, now))
	var ids []string
	fill := func(n, part int) {
		t.Helper()
		for range n {
			ids = append(ids, fmt.Sprint("event-", len(ids)))
			if _, err := svc.append(ids[len(ids)-1]); err != nil {
				t.Fatal(err)
			}
		}
		if all := partitions(t, url); all[len(all)-1] != (partition{len(ids) - 1, part}) {
			t.Errorf("the newest content is %v; want it in part %d", all[len(all)-1], part)
		}
	}
	fill(9, 1)
	rotate(t, svc.store)
	fill(1, 1)
	rotate(t, svc.store)
	fill(10, 2) // full by rows
	rotate(t, svc.store)
	clock.Store(int64(31 * 24 * time.Hour))
	rotate(t, svc.store) // is old, and empty
	fill(1, 3)
	rotate(t, svc.store)
	fill(1, 4)
	if all, open := countParts(t, url); all != 4 || open != 1 {
		t.Errorf("%d parts, %d of them open; want 4, 1", all, open)
	}
	svc.holds(ids...)
}

// A log whose retention class was changed leaves the part that its contents were in, also if that is a newer one, which a server may
// not have heard of: contents of two classes don't expire together.
func TestALogLeavesThePartOfItsFormerClass(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	svc := serve(t, url, postgres.Options{URL: url})
	db := direct(t, url)
	exec := func(statement string) {
		t.Helper()
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO parts (part, class, opened_at) VALUES (2, 'short', 0)`)
	exec(`CREATE TABLE payloads_2 (LIKE payloads INCLUDING ALL)`)
	exec(`ALTER TABLE payloads ATTACH PARTITION payloads_2 FOR VALUES IN (2)`)
	other := &service{t: t, fence: svc.fence, direct: url}
	other.open(postgres.Options{URL: url}) // which knows of part 2
	exec(`UPDATE heads SET class = 'short'`)
	if _, err := other.append("short"); err != nil {
		t.Fatal(err)
	}
	exec(`UPDATE heads SET class = 'standard'`)
	if _, err := svc.append("standard"); err != nil {
		t.Fatal(err)
	}
	if got, want := partitions(t, url), []partition{{0, 2}, {1, 1}}; !slices.Equal(got, want) {
		t.Errorf("contents are in %v, want %v", got, want)
	}
	svc.holds("short", "standard")
}

// Servers that find a part full at the same time open one part after it, and all of them go on to it.
func TestServersOpenOnePart(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	first := serve(t, url, postgres.Options{URL: url, PartRows: 5})
	stores := []*postgres.Store{first.store, open(t, url+"&application_name=b"), open(t, url), open(t, url)}
	for round := range 5 {
		for i := range 5 {
			if _, err := first.append(fmt.Sprintf("%d-%d", round, i)); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for range 3 {
			for _, s := range stores {
				wg.Go(func() {
					if err := postgres.OpenPart(s, round+1); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
		if all, open := countParts(t, url); all != round+2 || open != 1 {
			t.Fatalf("%d parts, %d of them open; want %d, 1", all, open, round+2)
		}
	}
}

// A server that hasn't heard of the next part writes to the closed one, and others read its contents where they are.
func TestAStaleServerWritesToAClosedPart(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	stale := serve(t, url, postgres.Options{URL: url, PartRows: 1000})
	fresh := &service{t: t, fence: stale.fence, direct: url}
	fresh.open(postgres.Options{URL: url, PartRows: 4})
	if _, err := fresh.CreateLog(t.Context(), log.ByServer(), "other", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	var ids []string
	add := func(svc *service, n, part int) {
		t.Helper()
		for range n {
			ids = append(ids, fmt.Sprint("event-", len(ids)))
			if _, err := svc.append(ids[len(ids)-1]); err != nil {
				t.Fatal(err)
			}
		}
		if all := partitions(t, url); all[len(all)-1] != (partition{len(ids) - 1, part}) {
			t.Errorf("the newest content is %v; want it in part %d", all[len(all)-1], part)
		}
	}
	add(fresh, 4, 1)
	rotate(t, fresh.store)
	add(stale, 3, 1) // which doesn't know
	add(fresh, 2, 2)
	add(stale, 2, 2) // the head tells it
	add(fresh, 2, 2)
	rotate(t, stale.store)
	rotate(t, fresh.store)
	add(fresh, 3, 3)
	add(stale, 3, 3)
	for _, svc := range []*service{stale, fresh} {
		readsExactly(t, svc.store, svc.Log("default"), ids)
	}
	stale.holds(ids...)
}

// readsExactly compares what each way of reading returns of all ranges with the events that are there.
func readsExactly(t *testing.T, s *postgres.Store, l *log.Log, ids []string) {
	t.Helper()
	n := uint64(len(ids))
	if err := l.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for from := range n {
		for to := from + 1; to <= n; to++ {
			next := from
			see := func(index uint64, p log.Payload) error {
				if index != next || len(p.Seed) != 32 {
					t.Errorf("[%d, %d): got %d, want %d", from, to, index, next)
				}
				next++
				return nil
			}
			if err := s.Payloads(t.Context(), l.ID, from, to, see); err != nil || next != to {
				t.Errorf("contents [%d, %d): got up to %d, %v", from, to, next, err)
			}
			records, err := l.Records(t.Context(), from, to, 1<<20)
			if err != nil || len(records) != int(to-from) {
				t.Fatalf("records [%d, %d): got %d, %v", from, to, len(records), err)
			}
			for i, r := range records {
				if r.Index != from+uint64(i) || r.ID != ids[r.Index] {
					t.Errorf("records [%d, %d): %d is %s at %d, want %s", from, to, i, r.ID, r.Index, ids[from+uint64(i)])
				}
			}
		}
	}
	for range 200 {
		var want []uint64
		for i := range n {
			if rand.N(3) == 0 {
				want = append(want, i)
			}
		}
		var got []uint64
		err := s.PayloadsAt(t.Context(), l.ID, want, func(index uint64, _ log.Payload) error {
			got = append(got, index)
			return nil
		})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("contents at %v: got %v, %v", want, got, err)
		}
	}
}

// Neither somebody who reads for long nor one who has appended and not committed yet holds up the next part, and it doesn't hold up them.
func TestLongReadersDoNotHoldUpAPart(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	svc := serve(t, url, postgres.Options{URL: url, PartRows: 1})
	if _, err := svc.append("a"); err != nil {
		t.Fatal(err)
	}
	reader, err := direct(t, url).Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback()
	for _, statement := range []string{"SELECT count(*) FROM payloads", "LOCK TABLE payloads IN ROW EXCLUSIVE MODE"} {
		if _, err := reader.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	rotate(t, svc.store)
	if _, err := svc.append("b"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the next part took %v", took)
	}
	var n int
	if err := reader.QueryRow("SELECT count(*) FROM payloads WHERE part = 2").Scan(&n); err != nil || n != 1 {
		t.Errorf("the reader finds %d contents in the new part, %v; want 1", n, err)
	}
	svc.holds("a", "b")
}

// While servers append without a pause and parts are as small as can be, nothing is lost or read from the wrong place.
func TestPartsUnderLoad(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	first := serve(t, url, postgres.Options{URL: url, PartRows: 20})
	second := &service{t: t, fence: first.fence, direct: url}
	second.open(postgres.Options{URL: url, PartRows: 20})
	var wg sync.WaitGroup
	var appended atomic.Int64
	var enough atomic.Bool
	ended := make(chan struct{})
	for i, svc := range []*service{first, second} {
		wg.Go(func() {
			for n := 0; n < 60 || !enough.Load(); n++ {
				if _, err := svc.append(fmt.Sprintf("%d-%d-a", i, n), fmt.Sprintf("%d-%d-b", i, n)); err != nil {
					t.Errorf("append: %v", err)
					return
				}
				appended.Add(2)
			}
		})
	}
	go func() {
		wg.Wait()
		close(ended)
	}()
	for running := true; running; {
		select {
		case <-ended:
			running = false
		default:
			rotate(t, first.store, second.store)
			all, _ := countParts(t, url)
			enough.Store(all >= 4)
		}
	}
	var ids []string
	rows, err := direct(t, url).Query("SELECT id FROM ids WHERE log = 1 ORDER BY idx")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil || int64(len(ids)) != appended.Load() {
		t.Errorf("%d events, %v; want %d", len(ids), err, appended.Load())
	}
	if _, open := countParts(t, url); open != 1 {
		t.Errorf("%d parts are open, want 1", open)
	}
	first.holds(ids...)
}

// Parts that an older program has made, with the part's number in their key, have the key that new ones have.
func TestOlderPartsGetKeysOfTheirOwn(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	if err := postgres.MigrateTo(t.Context(), url, 3); err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		"INSERT INTO parts (part, class, opened_at) VALUES (1, 'standard', 0)",
		"CREATE TABLE payloads_1 (LIKE payloads INCLUDING ALL)",
		"ALTER TABLE payloads ATTACH PARTITION payloads_1 FOR VALUES IN (1)",
		"INSERT INTO payloads (log, idx, part, seed, payload) SELECT 2, i, 1, 'seed', 'content' FROM generate_series(1, 100) AS i",
	} {
		if _, err := direct(t, url).Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	svc := serve(t, url, postgres.Options{URL: url, PartRows: 1})
	for _, id := range []string{"a", "b"} {
		if _, err := svc.append(id); err != nil {
			t.Fatal(err)
		}
		rotate(t, svc.store)
	}
	svc.holds("a", "b")
	var old, keys int
	err := direct(t, url).QueryRow(`
		SELECT (SELECT count(*) FROM payloads_1 WHERE log = 2 AND payload = 'content'),
		       (SELECT count(*) FROM pg_indexes WHERE tablename IN ('payloads_1', 'payloads_2') AND indexdef LIKE 'CREATE UNIQUE INDEX%(log, idx)')`).
		Scan(&old, &keys)
	if err != nil || old != 100 || keys != 2 {
		t.Errorf("%d contents and %d keys of log and index, %v; want 100 and 2", old, keys, err)
	}
	if _, err := direct(t, url).Exec("INSERT INTO payloads_1 SELECT * FROM payloads_1 LIMIT 1"); pq.As(err, pqerror.UniqueViolation) == nil {
		t.Errorf("a second content at the same index: got %v, want it refused", err)
	}
}
