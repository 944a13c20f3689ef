package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// TestBenchSearch measures how long the first page of what people ask takes: a year of events in one log of a million on the
// embedded store, and in 200 logs of ten million together on PostgreSQL. It takes long; `make bench-search` runs it and prints what
// docs/performance.md says. TREELINE_BENCH_EVENTS is how many events there are on PostgreSQL, a tenth of them on the embedded store.
func TestBenchSearch(t *testing.T) {
	if os.Getenv("TREELINE_BENCH") == "" {
		t.Skip("a measurement, not a test: run it by make bench-search")
	}
	events := 10_000_000
	if n, err := strconv.Atoi(os.Getenv("TREELINE_BENCH_EVENTS")); err == nil {
		events = n
	}
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		b := &searchBench{serverBench: serverBench{t, serving(t, dir, "--checkpoint-interval", "1s")}, logs: 1, events: events / 10}
		fmt.Printf("\n## The embedded store: %d events in one log\n", b.events)
		b.history()
		b.questions()
		for _, name := range []string{"treeline.db", "treeline-search.db"} {
			bytes := int64(0)
			for _, end := range []string{"", "-wal"} {
				if fi, err := os.Stat(filepath.Join(dir, name+end)); err == nil {
					bytes += fi.Size()
				} else if !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			fmt.Printf("%s: %.0f bytes an event\n", name, float64(bytes)/float64(b.events))
		}
	})
	t.Run("postgres", func(t *testing.T) {
		server := pgtest.Start(t, "shared_buffers = 2GB", "max_wal_size = 8GB", "min_wal_size = 8GB", "checkpoint_timeout = 15min")
		db := server.Database(t)
		if _, err := postgres.Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		p := serving(t, t.TempDir(), "--db", db, "--single-server", "--checkpoint-interval", "1s")
		b := &searchBench{serverBench: serverBench{t, p}, logs: 200, events: events}
		fmt.Printf("\n## PostgreSQL: %d events in %d logs\n", b.events, b.logs)
		b.history()
		b.questions()
		(&pgBench{serverBench: b.serverBench, pg: server, url: db}).sizes()
	})
}

// searchBench measures searches in a year of events of logs.
type searchBench struct {
	serverBench
	logs, events int
}

func (b *searchBench) log(i int) string { return fmt.Sprintf("tenant-%04d", i) }

// What the events of a year are made of: 10,000 people, and a tenth of what they do are changes of somebody's permissions.
var (
	historyActions = []string{
		"user.login", "user.login", "user.login", "user.logout", "document.viewed", "document.viewed", "document.updated", "invoice.sent", "user.login.failed",
	}
	historyPermissions = []string{"user.permission.granted", "user.permission.updated", "user.permission.revoked"}
	historyFirst       = []string{"jane", "omar", "li", "anna", "joão", "marta", "ken", "aisha", "piotr", "zoë"}
	historyLast        = []string{"doe", "smith", "wang", "kowalska", "silva", "garcia", "tanaka", "khan", "novak", "brontë"}
)

// history appends the events, one after the other over the year, and prints how fast.
func (b *searchBench) history() {
	b.t.Helper()
	for i := range b.logs {
		b.createLog(b.log(i))
	}
	const batch = 5000
	each := b.events / b.logs
	year, end := 365*24*time.Hour, time.Now()
	r := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	for from := 0; from < each; from += batch {
		for l := range b.logs {
			body.Reset()
			z.Reset(&body)
			for i := from; i < min(from+batch, each); i++ {
				at := end.Add(-year + time.Duration(float64(year)*float64(i)/float64(each)))
				writeHistory(z, r, at)
			}
			if err := z.Close(); err != nil {
				b.t.Fatal(err)
			}
			for {
				a, err := b.server.call(http.MethodPost, "/v1/events/batch?log="+b.log(l), body.Bytes(),
					"Content-Type", "application/x-ndjson", "Content-Encoding", "gzip")
				if err != nil {
					b.t.Fatal(err)
				}
				if a.status == http.StatusTooManyRequests { // the index is behind
					time.Sleep(100 * time.Millisecond)
					continue
				}
				if a.status != http.StatusCreated {
					b.t.Fatalf("got %d %s", a.status, a.body)
				}
				break
			}
		}
	}
	appended := time.Since(began)
	b.settled(b.logs)
	fmt.Printf("appended at %.0f events/s, and all indexed %.1f s later\n", float64(b.events)/appended.Seconds(), (time.Since(began) - appended).Seconds())
}

// writeHistory writes what happened at a time.
func writeHistory(w *gzip.Writer, r *rand.Rand, at time.Time) {
	user := func(n int) string { return fmt.Sprintf("user_%05d", n) }
	name := func(n int) string { return historyFirst[n%10] + " " + historyLast[n/10%10] }
	actor, other := r.IntN(10_000), r.IntN(10_000)
	action, target := historyActions[r.IntN(len(historyActions))], fmt.Sprintf(`"id":"doc_%d","type":"document"`, r.IntN(1_000_000))
	metadata := fmt.Sprintf(`"request":"%08x-%04x","region":"eu-west-%d"`, r.Uint32(), r.IntN(1<<16), r.IntN(3))
	if r.IntN(10) == 0 {
		action, target = historyPermissions[r.IntN(3)], fmt.Sprintf(`"id":%q,"type":"user","name":%q`, user(other), name(other))
		metadata += `,"old_role":"viewer","new_role":"editor","note":"approved by the head of the department"`
	}
	fmt.Fprintf(w, `{"action":%q,"occurred_at":%q,"actor":{"id":%q,"name":%q,"email":"%s@example.com"},"targets":[{%s}],"ip":"203.0.113.%d","metadata":{%s}}`+"\n",
		action, at.UTC().Format(time.RFC3339Nano), user(actor), name(actor), user(actor), target, r.IntN(256), metadata)
}

// questions measures the first page of what people ask, of each log in turn and of other people each time.
func (b *searchBench) questions() {
	b.t.Helper()
	for _, question := range []struct{ what, query string }{
		{"all permission changes for user X in the last 90 days", "action=user.permission.*&target_id=user_%05d&from=-90d"},
		{"all permission changes that X made in the last 90 days", "action=user.permission.*&actor_id=user_%05d&from=-90d"},
		{"everything", ""},
		{"q: an id", "q=user_%05d"},
		{"q: an id, in permission changes of 90 days", "q=user_%05d+permission&from=-90d"},
		{"q: a name", "q=jane+doe"},
		{"q: the beginning of a name", "q=kow*"},
		{"q: two words that are common, but never together", "q=viewed+approved"},
		{"q: a word that is nowhere", "q=nowhere%d"},
	} {
		query := question.query
		b.reads(question.what, 1, 2000, func(i int) string {
			text := query
			if strings.Contains(text, "%") {
				text = fmt.Sprintf(text, i*7919%10_000)
			}
			return "/v1/events?log=" + url.QueryEscape(b.log(i%b.logs)) + "&" + text
		})
	}
}
