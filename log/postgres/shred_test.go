package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/log/storetest"
)

// secret is a content that can be found again in files, and its seed, which can too. Every third is too large for a page of its own.
func secret(what string, i int) log.Payload {
	seed := fmt.Sprintf("seed %s %d ", what, i)
	text := fmt.Sprintf("content %s %d;", what, i)
	n := 1
	if i%3 == 0 {
		n = 200
	}
	return log.Payload{Seed: []byte(seed + strings.Repeat(".", 32-len(seed))), Data: []byte("\x00" + strings.Repeat(text, n))}
}

func secrets(what string, n int) (all []log.Payload) {
	for i := range n {
		all = append(all, secret(what, i))
	}
	return all
}

func add(t testing.TB, s log.Store, id log.ID, contents []log.Payload) {
	t.Helper()
	if _, err := storetest.Append(context.Background(), s, id, contents); err != nil {
		t.Fatal(err)
	}
}

func shred(t testing.TB, s log.Store) {
	t.Helper()
	for range 1000 {
		more, err := s.Shred(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
	t.Fatal("Shred never comes to an end")
}

func span(from, to uint64) []log.Span { return []log.Span{{From: from, To: to}} }

// inFiles returns which of the texts are in any file of a server's databases.
func inFiles(t *testing.T, server *pgtest.Server, texts ...string) (found []string) {
	t.Helper()
	for range 2 { // the first drops what was dropped, the second what that left behind
		server.Exec(t, "postgres", "CHECKPOINT")
	}
	for _, dir := range []string{"base", "global", "pg_stat", "pg_xact", "pg_logical"} {
		err := filepath.WalkDir(filepath.Join(server.Dir, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			for _, text := range texts {
				if bytes.Contains(content, []byte(text)) {
					found = append(found, text+" in "+strings.TrimPrefix(path, server.Dir))
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// After Shred nothing of what was purged or erased is in any file: neither in the tables nor in their statistics, nor in the index.
func TestNothingRemovedIsInTheFiles(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	url := migratedAt(t, server)
	s := open(t, url)
	one, two := storetest.CreateLog(t, s, "one"), storetest.CreateLog(t, s, "two")
	for _, what := range []string{"early", "erased", "kept", "purged"} {
		add(t, s, one.ID, secrets(what, 300))
		add(t, s, two.ID, secrets("other", 300))
	}
	segment := func(words string) *index.Segment {
		return &index.Segment{Blocks: []index.Block{{Key: []byte("key of " + words), Data: []byte("block of " + words)}}}
	}
	for i := range uint64(2) { // a segment that is merged before anything is removed
		seg := segment("erased person")
		seg.Number = i
		from, to := log.Indexed{Size: 1024 * i}, log.Indexed{Size: 1024 * (i + 1)}
		if err := s.WriteIndex(t.Context(), one.ID, from, to, nil, []*index.Segment{seg}); err != nil {
			t.Fatal(err)
		}
	}
	at, next := log.Indexed{Size: 2048}, log.Indexed{Size: 3072}
	if err := s.WriteIndex(t.Context(), one.ID, at, next, []index.Meta{{Number: 1}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := direct(t, url).Exec("ANALYZE"); err != nil {
		t.Fatal(err)
	}
	var samples int
	err := direct(t, url).QueryRow(`SELECT count(*) FROM pg_stats WHERE attname IN ('seed', 'payload', 'key', 'data') AND schemaname = 'public'`).Scan(&samples)
	if err != nil || samples != 0 {
		t.Errorf("PostgreSQL has statistics of %d columns with contents, %v", samples, err)
	}
	going := []string{"content early 0;", "content early 1;", "seed early 2", "content purged 299;", "seed purged 7 ", "content erased 0;", "content erased 299;", "seed erased 5 ", "key of erased person", "block of erased person"}
	staying := []string{"content kept 0;", "seed kept 299", "content other 1;", "left of 300", "key of someone"}
	if found := inFiles(t, server, going...); len(found) < len(going) {
		t.Fatalf("only %q are in the files before they are removed", found)
	}

	var reduced []log.Reduced
	for i := uint64(300); i < 600; i++ {
		reduced = append(reduced, log.Reduced{Index: i, Data: fmt.Appendf(nil, "\x03left of %d", i)})
	}
	if err := s.Purge(t.Context(), one.ID, []log.Span{{From: 0, To: 300}, {From: 900, To: 1200}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Reduce(t.Context(), one.ID, reduced); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteIndex(t.Context(), one.ID, next, next, []index.Meta{{}}, []*index.Segment{segment("someone")}); err != nil {
		t.Fatal(err)
	}
	shred(t, s)
	if found := inFiles(t, server, going...); len(found) > 0 {
		t.Errorf("still in the files: %q", found)
	}
	for _, text := range staying {
		if found := inFiles(t, server, text); len(found) == 0 {
			t.Errorf("no longer in the files: %q", text)
		}
	}
	var n int
	err = s.Payloads(t.Context(), one.ID, 0, 1200, func(i uint64, p log.Payload) error {
		n++
		want := secret("kept", int(i-600))
		if i < 600 {
			want = log.Payload{Data: fmt.Appendf(nil, "\x03left of %d", i)}
		}
		if !bytes.Equal(p.Data, want.Data) || !bytes.Equal(p.Seed, want.Seed) {
			t.Errorf("content %d: got %q", i, p.Data)
		}
		return nil
	})
	if err != nil || n != 600 {
		t.Errorf("%d contents, %v, want 600", n, err)
	}
}

// A part all of which was purged goes, with its table; the disk has its space again.
func TestAPurgedPartIsDropped(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	s := open(t, url)
	one := storetest.CreateLog(t, s, "one")
	for range 3 {
		add(t, s, one.ID, secrets("a", 100))
		rotate(t, s)
	}
	reader := open(t, url) // which knows the parts
	see := func(s log.Store) (indices []uint64) {
		t.Helper()
		note := func(i uint64, _ log.Payload) error { indices = append(indices, i); return nil }
		if err := s.Payloads(t.Context(), one.ID, 0, 300, note); err != nil {
			t.Fatal(err)
		}
		if err := s.PayloadsAt(t.Context(), one.ID, []uint64{50, 150, 199, 200, 299}, note); err != nil {
			t.Fatal(err)
		}
		return indices
	}
	if n := len(see(reader)); n != 305 {
		t.Fatalf("%d contents", n)
	}
	if err := s.Purge(t.Context(), one.ID, span(0, 200)); err != nil {
		t.Fatal(err)
	}
	shred(t, s)
	var tables int
	err := direct(t, url).QueryRow(`SELECT count(*) FROM pg_class WHERE relname IN ('payloads_1', 'payloads_2')`).Scan(&tables)
	if err != nil || tables != 0 {
		t.Errorf("%d tables of purged parts, %v", tables, err)
	}
	for _, s := range []*postgres.Store{s, reader} {
		if got := see(s); len(got) != 102 || got[0] != 200 {
			t.Errorf("%d contents from %d on, want 102 from 200", len(got), got[0])
		}
		if c, err := s.Counts(t.Context(), one.ID); err != nil || c.Payloads != 100 {
			t.Errorf("counts: %+v, %v", c, err)
		}
	}
	var left int
	if err := direct(t, url).QueryRow(`SELECT (SELECT count(*) FROM purged_spans) + (SELECT count(*) FROM rewrites WHERE version > done)`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d notes are left, %v", left, err)
	}
}

// A server that believes that a part is open, while another one seals, rewrites or drops it, appends to the next one.
func TestALateServerAppendsToTheNextPart(t *testing.T) {
	t.Parallel()
	for name, purged := range map[string]uint64{"rewritten": 50, "dropped": 100} {
		for _, n := range []int{10, 1000} { // by one statement, and by COPY
			t.Run(fmt.Sprintf("%s, %d", name, n), func(t *testing.T) {
				url := migrated(t)
				late, s := open(t, url), open(t, url)
				one, two := storetest.CreateLog(t, s, "one"), storetest.CreateLog(t, s, "two")
				add(t, late, one.ID, secrets("a", 100))
				if err := s.Purge(t.Context(), one.ID, span(0, purged)); err != nil {
					t.Fatal(err)
				}
				shred(t, s)
				add(t, late, two.ID, secrets("b", n)) // whose head doesn't tell of the next part
				add(t, late, one.ID, secrets("c", n))
				rows := direct(t, url).QueryRow(`SELECT min(part), max(part), count(*) FROM payloads WHERE log = $1 OR log = $2 AND idx >= 100`, two.ID, one.ID)
				var least, most, count int
				if err := rows.Scan(&least, &most, &count); err != nil || least != 2 || most != 2 || count != 2*n {
					t.Errorf("%d contents are in parts from %d to %d, %v; want %d in 2", count, least, most, err, 2*n)
				}
			})
		}
	}
}

// A part of which little was purged is left alone until that has lain for a week, or is more.
func TestAPartIsRewrittenWhenItIsWorthIt(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	var clock atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	s := openWith(t, postgres.WithClock(postgres.Options{URL: url}, now))
	one := storetest.CreateLog(t, s, "one")
	var many []log.Payload
	for i := range 26_000 {
		many = append(many, log.Payload{Seed: make([]byte, 32), Data: fmt.Appendf(nil, "\x00%d", i)})
	}
	add(t, s, one.ID, many)
	left := func() (n uint64) {
		t.Helper()
		shred(t, s)
		c, err := s.Counts(t.Context(), one.ID)
		if err != nil {
			t.Fatal(err)
		}
		return c.Payloads
	}
	purge := func(from, to uint64) {
		t.Helper()
		if err := s.Purge(t.Context(), one.ID, span(from, to)); err != nil {
			t.Fatal(err)
		}
	}
	purge(0, 1000)
	if n := left(); n != 26_000 {
		t.Errorf("%d contents, want all left alone", n)
	}
	clock.Store(int64(8 * 24 * time.Hour))
	if n := left(); n != 25_000 {
		t.Errorf("%d contents after a week, want 25,000", n)
	}
	purge(1000, 2000)
	if err := s.Reduce(t.Context(), one.ID, []log.Reduced{{Index: 25_000, Data: []byte{3}}}); err != nil {
		t.Fatal(err)
	}
	if n := left(); n != 24_000 {
		t.Errorf("%d contents when one was erased, want 24,000", n)
	}
}

// What is erased goes though nothing was purged.
func TestErasureAloneRewritesAPart(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	s := open(t, migratedAt(t, server))
	one := storetest.CreateLog(t, s, "one")
	add(t, s, one.ID, secrets("a", 300))
	if err := s.Reduce(t.Context(), one.ID, []log.Reduced{{Index: 3, Data: []byte("\x03left")}, {Index: 4, Data: []byte("\x03left")}}); err != nil {
		t.Fatal(err)
	}
	shred(t, s)
	if found := inFiles(t, server, "content a 3;", "content a 4;", "seed a 3 ", "seed a 4 "); len(found) > 0 {
		t.Errorf("still in the files: %q", found)
	}
}

// What is erased while a part is copied isn't in the copy that takes its place.
func TestErasureWhileAPartIsCopied(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	url := migratedAt(t, server)
	s, other := open(t, url), open(t, url)
	one := storetest.CreateLog(t, s, "one")
	add(t, s, one.ID, secrets("a", 300))
	if err := s.Purge(t.Context(), one.ID, span(0, 100)); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	postgres.WithFault(s, func(step string) (err error) {
		if step == "copied the part" {
			once.Do(func() {
				err = other.Reduce(t.Context(), one.ID, []log.Reduced{{Index: 200, Data: []byte("\x03left")}})
			})
		}
		return err
	})
	shred(t, s)
	var got string
	err := s.PayloadsAt(t.Context(), one.ID, []uint64{200}, func(_ uint64, p log.Payload) error { got = string(p.Data); return nil })
	if err != nil || got != "\x03left" {
		t.Errorf("got %q, %v, want what is left", got, err)
	}
	if found := inFiles(t, server, "content a 200;", "seed a 200 "); len(found) > 0 {
		t.Errorf("still in the files: %q", found)
	}
}

func TestACrashWhileRemoving(t *testing.T) {
	steps := storetest.Crash(t, &opener{}, func(s log.Store, at func(string) error) { postgres.WithFault(s.(*postgres.Store), at) })
	for _, step := range []string{
		"reduced", "noted spans", "closed the part", "sealed the part", "copied some of the part", "copied the part", "swapping the part",
		"swapped the part", "dropping the part", "dropped the part", "copied the index", "swapping the index", "swapped the index",
	} {
		if !slices.Contains(steps, step) {
			t.Errorf("there was no step %q among %q", step, steps)
		}
	}
}

// Two servers append without a pause while a third one purges, erases and rewrites without a pause: nothing is lost, no append fails, and
// none waits for a rewrite.
func TestShredUnderLoad(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	stores := []*postgres.Store{open(t, url), open(t, url)}
	third, fourth := open(t, url), open(t, url)
	var ids []log.ID
	for i := range 4 {
		ids = append(ids, storetest.CreateLog(t, third, fmt.Sprint("log-", i)).ID)
		add(t, third, ids[i], secrets("first", 2000))
	}
	ctx, stop := context.WithCancel(t.Context())
	var slowest atomic.Int64
	var appends, rewritten atomic.Int64
	var wg sync.WaitGroup
	sizes := make([]atomic.Uint64, len(ids))
	for i, id := range ids {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				began := time.Now()
				from, err := storetest.Append(context.Background(), stores[i%2], id, secrets("more", 20))
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				took := time.Since(began)
				for was := slowest.Load(); int64(took) > was && !slowest.CompareAndSwap(was, int64(took)); was = slowest.Load() {
				}
				sizes[i].Store(from + 20)
				appends.Add(1)
			}
		})
	}
	for _, s := range []*postgres.Store{third, fourth} {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, err := s.Shred(context.Background()); err != nil {
					t.Errorf("shred: %v", err)
					return
				}
				rewritten.Add(1)
			}
		})
	}
	erased := make([]map[uint64]bool, len(ids))
	kept := make([]uint64, len(ids)) // from where on everything is kept
	for i := range erased {
		erased[i] = make(map[uint64]bool)
	}
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
		for i, id := range ids {
			size := sizes[i].Load()
			if size < 100 {
				continue
			}
			kept[i] = size - 90
			if err := third.Purge(t.Context(), id, span(0, kept[i])); err != nil {
				t.Fatal(err)
			}
			at := size - 7
			if err := fourth.Reduce(t.Context(), id, []log.Reduced{{Index: at, Data: fmt.Appendf(nil, "\x03left of %d", at)}}); err != nil {
				t.Fatal(err)
			}
			erased[i][at] = true
		}
	}
	stop()
	wg.Wait()
	shred(t, third)
	for i, id := range ids {
		size := sizes[i].Load()
		next := kept[i]
		err := stores[0].Payloads(t.Context(), id, 0, size, func(index uint64, p log.Payload) error {
			if index != next {
				t.Errorf("log %d: got content %d, want %d", id, index, next)
			}
			next = index + 1
			want := secret("more", int(index)%20)
			if erased[i][index] {
				want = log.Payload{Data: fmt.Appendf(nil, "\x03left of %d", index)}
			}
			if !bytes.Equal(p.Data, want.Data) || !bytes.Equal(p.Seed, want.Seed) {
				t.Errorf("log %d: content %d is %q", id, index, p.Data)
			}
			return nil
		})
		if err != nil || next != size {
			t.Errorf("log %d: contents up to %d, %v, want %d", id, next, err, size)
		}
	}
	t.Logf("%d appends, the slowest took %v; %d calls of Shred", appends.Load(), time.Duration(slowest.Load()), rewritten.Load())
	if took := time.Duration(slowest.Load()); took > 3*time.Second {
		t.Errorf("an append took %v", took)
	}
}

// A part that somebody reads for long is copied, and takes its place when they have ended; meanwhile nobody else waits.
func TestALongReaderHoldsUpOnlyTheSwap(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	s := open(t, url)
	one := storetest.CreateLog(t, s, "one")
	add(t, s, one.ID, secrets("a", 100))
	if err := s.Purge(t.Context(), one.ID, span(0, 50)); err != nil {
		t.Fatal(err)
	}
	reader, err := direct(t, url).Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback()
	if _, err := reader.Exec("SELECT count(*) FROM payloads"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := s.Shred(context.Background())
		ended <- err
	}()
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		at := time.Now()
		add(t, s, one.ID, secrets("b", 10))
		if err := s.Payloads(t.Context(), one.ID, 50, 100, func(uint64, log.Payload) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(at); took > time.Second {
			t.Errorf("an append and a read took %v", took)
		}
	}
	reader.Rollback()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	shred(t, s)
	var n int
	if err := direct(t, url).QueryRow("SELECT count(*) FROM payloads WHERE part = 1 AND idx < 100").Scan(&n); err != nil || n != 50 {
		t.Errorf("%d contents are in the part, %v, want 50", n, err)
	}
}

// Samples of contents that PostgreSQL has taken as statistics, before it was told not to, go too.
func TestOldStatisticsGo(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	url := server.Database(t)
	if err := postgres.MigrateTo(t.Context(), url, 7); err != nil {
		t.Fatal(err)
	}
	db := direct(t, url)
	for _, statement := range []string{
		"INSERT INTO parts (part, class, opened_at) VALUES (1, 'standard', 0)",
		"CREATE TABLE payloads_1 (LIKE payloads INCLUDING ALL, PRIMARY KEY (log, idx))",
		"ALTER TABLE payloads ATTACH PARTITION payloads_1 FOR VALUES IN (1)",
		"INSERT INTO payloads (log, idx, part, seed, payload) SELECT 2, i, 1, 'seed', convert_to('sampled content ' || i, 'UTF8') FROM generate_series(1, 20) AS i",
		"INSERT INTO index_blocks (log, level, segment, key, data) SELECT 2, 0, i, convert_to('sampled word ' || i, 'UTF8'), '' FROM generate_series(1, 20) AS i",
		"ANALYZE payloads", "ANALYZE",
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	samples := func() (n int) {
		t.Helper()
		server.Exec(t, "postgres", "CHECKPOINT")
		var path string
		if err := db.QueryRow("SELECT pg_relation_filepath('pg_statistic')").Scan(&path); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(server.Dir, path))
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(content, []byte("sampled content")) + bytes.Count(content, []byte("sampled word"))
	}
	if samples() == 0 {
		t.Fatal("PostgreSQL has taken no samples")
	}
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	s := open(t, url)
	shred(t, s)
	if n := samples(); n > 0 {
		t.Errorf("%d samples are left", n)
	}
	if _, err := db.Exec("ANALYZE"); err != nil {
		t.Fatal(err)
	}
	if n := samples(); n > 0 {
		t.Errorf("%d samples were taken again", n)
	}
}

// What is written to the search index while it is copied is in the copy that takes its place, and what is dropped isn't.
func TestTheIndexIsWrittenWhileItIsCopied(t *testing.T) {
	t.Parallel()
	s := open(t, migrated(t))
	one := storetest.CreateLog(t, s, "one")
	at := func(n uint64) log.Indexed { return log.Indexed{Size: 1024 * n} }
	segment := func(n uint64) *index.Segment {
		text := fmt.Append(nil, "block ", n)
		return &index.Segment{Meta: index.Meta{Number: n}, Blocks: []index.Block{{Key: text, Data: text}}}
	}
	write := func(from, to uint64, drop []index.Meta, add ...*index.Segment) {
		t.Helper()
		if err := s.WriteIndex(t.Context(), one.ID, at(from), at(to), drop, add); err != nil {
			t.Error(err)
		}
	}
	write(0, 1, nil, segment(0))
	write(1, 2, nil, segment(1))
	write(2, 2, []index.Meta{{Number: 0}}, segment(0))
	copies := 0
	postgres.WithFault(s, func(step string) error {
		if step == "copied the index" {
			switch copies++; copies {
			case 1: // so that the copy has had what it was
				write(2, 2, []index.Meta{{Number: 1}}, segment(1))
			case 2:
				write(2, 3, []index.Meta{{Number: 0}}, segment(2))
			}
		}
		return nil
	})
	shred(t, s)
	var got []string
	err := s.Blocks(t.Context(), one.ID, 0, []uint64{0, 1, 2}, []index.Range{index.Whole}, func(_ uint64, _, data []byte) error {
		got = append(got, string(data))
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"block 1", "block 2"}) || copies != 2 {
		t.Errorf("after %d copies the index has %q, %v; want 2, and blocks 1 and 2", copies, got, err)
	}
}
