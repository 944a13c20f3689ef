package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// TestBenchPostgres is a measurement of whole processes side by side, which takes long. `make bench-postgres` runs it and prints what
// docs/performance.md says. TREELINE_BENCH_EVENTS is how many events the store grows by, over 200 logs.
func TestBenchPostgres(t *testing.T) {
	if os.Getenv("TREELINE_BENCH") == "" {
		t.Skip("a measurement, not a test: run it by make bench-postgres")
	}
	large := 10_000_000
	if n, err := strconv.Atoi(os.Getenv("TREELINE_BENCH_EVENTS")); err == nil {
		large = n
	}
	server := pgtest.Start(t, "shared_buffers = 2GB", "max_wal_size = 8GB", "min_wal_size = 8GB", "checkpoint_timeout = 15min")
	b := &pgBench{serverBench: serverBench{t: t}, pg: server, url: server.Database(t)}
	b.settle()
	if _, err := postgres.Migrate(t.Context(), b.url); err != nil {
		t.Fatal(err)
	}
	b.server = serving(t, t.TempDir(), "--db", b.url, "--single-server", "--checkpoint-interval", "1s")

	fmt.Println("\n## Single events over HTTP")
	b.load("--log", "default", "--mode", "single", "--concurrency", "1", "--duration", "6s")
	b.load("--log", "default", "--mode", "single", "--concurrency", "256", "--duration", "10s")

	fmt.Println("\n## Batches of 1,000 beside a bare loop that copies the same rows into the same tables")
	for round := range 3 {
		name := fmt.Sprint("round", round)
		b.createLog(name)
		b.checkpoint()
		acknowledged, indexed := b.batches(10*time.Second, "--log", name)
		raw, rawIndexed := b.bareLoop(name)
		fmt.Printf("round %d: Treeline %.0f events/s acknowledged, %.0f indexed; bare loop %.0f and %.0f: %.2f and %.2f of it\n",
			round+1, acknowledged, indexed, raw, rawIndexed, acknowledged/raw, indexed/rawIndexed)
	}

	fmt.Println("\n## Over 200 logs, as the store grows")
	before, wal := b.events(), b.wal()
	b.checkpoint()
	first, firstIndexed := b.batches(20*time.Second, "--log", "many", "--logs", "200")
	fmt.Printf("at %d events: %.0f events/s acknowledged, %.0f indexed\n", b.events(), first, firstIndexed)
	for b.events()-before < large {
		b.batches(30*time.Second, "--log", "many", "--logs", "200")
		fmt.Printf("  %d events\n", b.events())
	}
	last, lastIndexed := b.batches(20*time.Second, "--log", "many", "--logs", "200")
	fmt.Printf("at %d events: %.0f events/s acknowledged, %.0f indexed: %.2f and %.2f of the start\n",
		b.events(), last, lastIndexed, last/first, lastIndexed/firstIndexed)
	fmt.Printf("PostgreSQL's log: %.0f bytes an event\n", (b.wal()-wal)/float64(b.events()-before))

	fmt.Printf("\n## Reads at %d events\n", b.events())
	b.searches()
	b.proofs()

	fmt.Println("\n## Bytes on disk an event")
	b.sizes()
}

// serverBench measures a server.
type serverBench struct {
	t      *testing.T
	server *process
}

// pgBench measures a server on a private PostgreSQL.
type pgBench struct {
	serverBench
	pg  *pgtest.Server
	url string
}

// load runs treeline bench and returns what it reports.
func (b *serverBench) load(args ...string) benchReport {
	b.t.Helper()
	cmd := exec.Command("treeline", append([]string{"bench", "--json", "--warm-up", "2s"}, args...)...)
	cmd.Env = append(os.Environ(), "TREELINE_SERVER="+b.server.url, "TREELINE_KEY="+b.server.key)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("bench %q: %v\n%s", args, err, stderr.String())
	}
	var r benchReport
	if err := json.Unmarshal(out, &r); err != nil {
		b.t.Fatal(err)
	}
	fmt.Printf("%s × %d over %d connections: %.0f events/s, p50 %.2f ms, p99 %.2f ms, errors %v\n",
		r.Mode, r.Batch, r.Concurrency, r.EventsPerSec, r.Latency.P50, r.Latency.P99, r.Errors)
	return r
}

// batches appends for a while, and returns the rate of what was acknowledged, and of all of it until the index had caught up.
func (b *serverBench) batches(d time.Duration, args ...string) (acknowledged, indexed float64) {
	b.t.Helper()
	before, began := b.events(), time.Now()
	r := b.load(append(args, "--mode", "batch", "--batch", "1000", "--concurrency", "4", "--duration", d.String())...)
	b.settled(210)
	return r.EventsPerSec, float64(b.events()-before) / (time.Since(began) - 200*time.Millisecond).Seconds()
}

// settled waits until all of so many logs is indexed but for their ends, which no segment is made of yet.
func (b *serverBench) settled(logs int) {
	b.t.Helper()
	for began := time.Now(); b.metric("treeline_unindexed_events") > float64(logs)*1024 && time.Since(began) < 10*time.Minute; {
		time.Sleep(20 * time.Millisecond)
	}
	last := -1.0
	for unindexed := b.metric("treeline_unindexed_events"); unindexed != last; unindexed = b.metric("treeline_unindexed_events") {
		last = unindexed
		time.Sleep(200 * time.Millisecond)
	}
}

func (b *serverBench) metric(name string) float64 {
	b.t.Helper()
	resp, err := http.Get(b.server.ops + "/metrics")
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil {
		b.t.Fatal(err)
	}
	n, err := metricIn(out.String(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *serverBench) events() int { return int(b.metric("treeline_events")) }

// wal returns how many bytes PostgreSQL's log has grown to.
func (b *pgBench) wal() (bytes float64) {
	b.t.Helper()
	b.scan(b.open(b.url), `SELECT pg_current_wal_lsn() - '0/0'`, nil, &bytes)
	return bytes
}

func (b *serverBench) createLog(name string) {
	b.t.Helper()
	b.server.mustPost(b.t, "/v1/logs", `{"name":"`+name+`"}`, http.StatusCreated, new(any))
}

// table is rows to copy, as they were read, with how many of them belong to a batch of 1,000 events.
type table struct {
	copy string
	rows [][]any
	each int
}

// settle brings PostgreSQL to where it is after a day: it writes its log into files that it has used before. New ones it has to fill
// with zeros first, which doubles what is written.
func (b *pgBench) settle() {
	b.t.Helper()
	b.pg.Exec(b.t, "postgres", `
		DO $$ BEGIN
		    FOR i IN 1..512 LOOP
		        PERFORM pg_logical_emit_message(FALSE, 'bench', 'so that there is something to switch from');
		        PERFORM pg_switch_wal();
		    END LOOP;
		END $$`)
	b.checkpoint()
}

// checkpoint writes back all that was changed, so that what is measured next starts as all others do.
func (b *pgBench) checkpoint() {
	b.t.Helper()
	b.pg.Exec(b.t, "postgres", "CHECKPOINT")
}

// bareLoop copies the rows of a log into an empty database, one batch of 1,000 events after the other, by nothing but the driver's
// COPY in transactions that move the head: once without and once with the rows of the search index.
func (b *pgBench) bareLoop(name string) (raw, indexed float64) {
	b.t.Helper()
	source := b.open(b.url)
	var id, size int
	b.scan(source, `SELECT id, size FROM logs JOIN heads ON log = id WHERE name = $1`, []any{name}, &id, &size)
	batches := min(size/1000, 300)
	read := func(copy, query string) *table {
		rows, err := source.Query(query, id, batches*1000)
		if err != nil {
			b.t.Fatal(err)
		}
		defer rows.Close()
		tab := &table{copy: copy}
		columns, _ := rows.Columns()
		for rows.Next() {
			row, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range row {
				into[i] = &row[i]
			}
			if err := rows.Scan(into...); err != nil {
				b.t.Fatal(err)
			}
			tab.rows = append(tab.rows, row)
		}
		if err := rows.Err(); err != nil {
			b.t.Fatal(err)
		}
		tab.each = (len(tab.rows) + batches - 1) / batches
		return tab
	}
	record := []*table{
		read(`COPY entries (log, first, entries) FROM STDIN`, `SELECT log, first, entries FROM entries WHERE log = $1 AND first < $2 ORDER BY first`),
		read(`COPY ids (log, idx, id) FROM STDIN`, `SELECT log, idx, id FROM ids WHERE log = $1 AND idx < $2 ORDER BY idx`),
		read(`COPY payloads_1 (log, idx, part, seed, payload) FROM STDIN`,
			`SELECT log, idx, 1, seed, payload FROM payloads WHERE log = $1 AND idx < $2 ORDER BY idx`),
		read(`COPY nodes (log, level, idx, hash) FROM STDIN`,
			`SELECT log, level, idx, hash FROM nodes WHERE log = $1 AND idx << (8 * level) < $2 ORDER BY idx << (8 * level)`),
	}
	search := []*table{
		read(`COPY index_segments (log, level, segment, min_occurred, max_occurred, first_received, last_received) FROM STDIN`,
			`SELECT * FROM index_segments WHERE log = $1 AND segment << (10 + 6 * level) < $2 ORDER BY level DESC, segment`),
		read(`COPY index_blocks (log, level, segment, key, data) FROM STDIN`,
			`SELECT * FROM index_blocks WHERE log = $1 AND segment << (10 + 6 * level) < $2 ORDER BY level DESC, segment, key`),
	}
	raw = b.copyAll(id, batches, record)
	indexed = b.copyAll(id, batches, append(record, search...))
	return raw, indexed
}

func (b *pgBench) copyAll(log, batches int, tables []*table) float64 {
	b.t.Helper()
	url := b.pg.Database(b.t)
	if _, err := postgres.Migrate(b.t.Context(), url); err != nil {
		b.t.Fatal(err)
	}
	store, err := postgres.Open(b.t.Context(), postgres.Options{URL: url}) // which makes the first part
	if err != nil {
		b.t.Fatal(err)
	}
	store.Close()
	db := b.open(url)
	must := func(_ sql.Result, err error) {
		if err != nil {
			b.t.Fatal(err)
		}
	}
	must(db.Exec(`INSERT INTO heads (log, size, received_at, last, edge, frozen, class, part) VALUES ($1, 0, 0, '', '', false, 'standard', 1)`, log))
	b.checkpoint()
	began := time.Now()
	for batch := range batches {
		tx, err := db.Begin()
		if err != nil {
			b.t.Fatal(err)
		}
		must(tx.Exec(`SELECT size FROM heads WHERE log = $1 FOR UPDATE`, log))
		must(tx.Exec(`UPDATE heads SET size = size + 1000 WHERE log = $1 AND size = $2`, log, batch*1000))
		for _, tab := range tables {
			rows := tab.rows[min(batch*tab.each, len(tab.rows)):min((batch+1)*tab.each, len(tab.rows))]
			if len(rows) == 0 {
				continue
			}
			stmt, err := tx.Prepare(tab.copy)
			if err != nil {
				b.t.Fatal(err)
			}
			for _, row := range rows {
				must(stmt.Exec(row...))
			}
			must(stmt.Exec())
			if err := stmt.Close(); err != nil {
				b.t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			b.t.Fatal(err)
		}
	}
	return float64(batches*1000) / time.Since(began).Seconds()
}

func (b *pgBench) open(url string) *sql.DB {
	b.t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { db.Close() })
	return db
}

func (b *pgBench) scan(db *sql.DB, query string, args []any, into ...any) {
	b.t.Helper()
	if err := db.QueryRow(query, args...).Scan(into...); err != nil {
		b.t.Fatalf("%s: %v", query, err)
	}
}

// searches measures the first page of each filter, on logs in turn.
func (b *pgBench) searches() {
	now := time.Now().UTC()
	for _, filter := range []string{
		"", "action=user.permission.updated", "action=user.*", "actor_id=user_00042", "actor_email=user_00042%40example.com",
		"target_id=user_00042", "target_type=user", "metadata.new_role=editor", "metadata.ip=203.0.113.42", "actor_id=nobody", "ip=192.0.2.1",
		"from=" + now.Add(-time.Hour).Format(time.RFC3339), "to=" + now.Add(-time.Minute).Format(time.RFC3339),
		"received_from=" + now.Add(-time.Minute).Format(time.RFC3339), "outcome=failure&actor_id=user_00042",
		"action=user.permission.*&actor_id=user_00042&from=-90d", "order=oldest&target_id=user_00042", "q=00042", "q=user_00042", "q=nobody",
	} {
		b.reads("first page of "+orAll(filter), 1, 300, func(i int) string {
			return fmt.Sprintf("/v1/events?log=many-%04d&%s", i%200+1, filter)
		})
	}
}

func orAll(filter string) string {
	if filter == "" {
		return "everything"
	}
	if text, err := url.QueryUnescape(filter); err == nil {
		return text
	}
	return filter
}

// proofs measures inclusion proofs, one client and several.
func (b *pgBench) proofs() {
	var head struct{ Sizes struct{ Signed int } }
	b.server.mustGetJSON(b.t, "/v1/checkpoint?log=many-0001", &head)
	for _, clients := range []int{1, 8} {
		b.reads(fmt.Sprintf("inclusion proof, %d clients", clients), clients, 20_000, func(i int) string {
			return fmt.Sprintf("/v1/proofs/inclusion?log=many-0001&index=%d&size=%d", i*7919%head.Sizes.Signed, head.Sizes.Signed)
		})
	}
}

// reads sends n requests and prints how long they took.
func (b *serverBench) reads(what string, clients, n int, path func(i int) string) {
	b.t.Helper()
	var mu sync.Mutex
	h := hdrhistogram.New(1, 60_000_000, 3)
	began := time.Now()
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			for i := client; i < n; i += clients {
				sent := time.Now()
				answer, err := b.server.call(http.MethodGet, path(i), nil)
				if err != nil || answer.status != http.StatusOK {
					b.t.Errorf("%s: %v", path(i), err)
					return
				}
				mu.Lock()
				h.RecordValue(time.Since(sent).Microseconds())
				mu.Unlock()
			}
		})
	}
	group.Wait()
	l := summarize(h)
	fmt.Printf("%s: %.0f/s, p50 %.2f ms, p99 %.2f ms\n", what, float64(n)/time.Since(began).Seconds(), l.P50, l.P99)
}

// sizes prints what the tables take, with their indexes.
func (b *pgBench) sizes() {
	db := b.open(b.url)
	rows, err := db.QueryContext(context.Background(), `
		SELECT CASE WHEN relname LIKE 'payloads_%' THEN 'payloads' ELSE relname END AS name,
		       sum(pg_relation_size(oid) + coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0)), sum(pg_indexes_size(oid))
		FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::REGNAMESPACE GROUP BY 1 ORDER BY 2 DESC`)
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	events := float64(b.events())
	var lines []string
	var all float64
	for rows.Next() {
		var name string
		var heap, indexes float64
		if err := rows.Scan(&name, &heap, &indexes); err != nil {
			b.t.Fatal(err)
		}
		all += heap + indexes
		if (heap+indexes)/events >= 0.5 {
			lines = append(lines, fmt.Sprintf("%s: %.0f, and %.0f in its index", name, heap/events, indexes/events))
		}
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	fmt.Println(strings.Join(slices.Concat(lines, []string{fmt.Sprintf("all: %.0f", all/events)}), "\n"))
}
