package pgfence_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/checkpoint/fencetest"
	"github.com/treeline-log/treeline/checkpoint/pgfence"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func open(t *testing.T, url, storeSystem string) *pgfence.Fence {
	t.Helper()
	f, err := pgfence.Open(t.Context(), url, storeSystem)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// refused checks that the fence can't be opened, for a reason that has the text in it and shows no password.
func refused(t *testing.T, url, storeSystem, want string) {
	t.Helper()
	start := time.Now()
	f, err := pgfence.Open(t.Context(), url, storeSystem)
	if err == nil {
		f.Close()
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: Open = %v, want %q", url, err, want)
	} else if strings.Contains(err.Error(), "horse") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%s: Open shows the password: %v", url, err)
	}
	if d := time.Since(start); d > 15*time.Second {
		t.Errorf("%s: Open took %v", url, d)
	}
}

// A place is a database.
type place string

func (p place) Open(t *testing.T) checkpoint.Fence { return open(t, string(p), "") }

func (p place) Put(t *testing.T, origin string, content []byte) {
	t.Helper()
	exec(t, string(p), "INSERT INTO fences (origin, note) VALUES ($1, $2) ON CONFLICT (origin) DO UPDATE SET note = excluded.note",
		origin, content)
}

func exec(t *testing.T, url, statement string, args ...any) {
	t.Helper()
	db, err := sqlx.ConnectContext(t.Context(), "postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement, args...); err != nil {
		t.Fatal(err)
	}
}

func TestFence(t *testing.T) {
	fencetest.Run(t, func(t *testing.T) fencetest.Place { return place(pgtest.Database(t)) })
}

// The database's own idea of isolation and of order doesn't matter.
func TestFenceInAnOddDatabase(t *testing.T) {
	fencetest.Run(t, func(t *testing.T) fencetest.Place {
		name := "odd_" + strconv.FormatInt(time.Now().UnixNano(), 10)
		first := pgtest.Database(t)
		exec(t, first, "CREATE DATABASE "+name+" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'")
		exec(t, first, "ALTER DATABASE "+name+" SET default_transaction_isolation = 'repeatable read'")
		u, err := url.Parse(first)
		if err != nil {
			t.Fatal(err)
		}
		u.Path = "/" + name
		return place(u.String())
	})
}

// A server is a PostgreSQL server of the test's own.
type server struct{ *pgtest.Server }

func (s server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

func (s server) Open(t *testing.T, addr string) checkpoint.Fence {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, pgtest.URL(n, "postgres"), "")
}

func (s server) Kill(*testing.T) { s.Quit() }

func (s server) Start(t *testing.T) {
	t.Helper()
	s.Run(t)
}

func TestFenceBehindANetwork(t *testing.T) {
	t.Parallel() // it waits most of the time
	fencetest.RunRemote(t, func(t *testing.T) fencetest.Server { return server{pgtest.Start(t)} })
}

// What sets the store back must not take the fence along.
func TestTheStoresClusterIsRefused(t *testing.T) {
	t.Parallel() // it waits most of the time
	store, fence := pgtest.Start(t), pgtest.Start(t)
	system, err := pgfence.SystemIdentifier(t.Context(), store.URL("postgres"))
	if err != nil || system == "" {
		t.Fatalf("SystemIdentifier = %q, %v", system, err)
	}
	refused(t, store.Database(t), system, "in the cluster of the store")
	open(t, fence.Database(t), system)

	// A standby is what the store fails over to, and can't be written to either.
	standby := store.Clone(t)
	standby.StandBy(t, store)
	standby.Run(t)
	refused(t, standby.URL("postgres"), system, "in the cluster of the store")
	refused(t, standby.URL("postgres"), "", "standby")
}

func TestAServerThatLosesCommitsIsRefused(t *testing.T) {
	t.Parallel() // it waits most of the time
	s := pgtest.Start(t)
	for _, setting := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		open(t, s.URL("postgres"), "")
		s.Exec(t, "postgres", "ALTER SYSTEM SET "+setting+" = off")
		s.Quit()
		s.Run(t)
		refused(t, s.URL("postgres"), "", setting+" is off")
		s.Exec(t, "postgres", "ALTER SYSTEM RESET ALL")
		s.Quit()
		s.Run(t)
	}
}

// A server of Treeline needs no right to make tables or to forget logs.
func TestLeastPrivileges(t *testing.T) {
	url := pgtest.Database(t)
	open(t, url, "")
	role := "least_" + strconv.FormatInt(time.Now().UnixNano(), 10)
	exec(t, url, "CREATE ROLE "+role+" LOGIN PASSWORD 'hunter2'")
	exec(t, url, "GRANT SELECT, INSERT, UPDATE ON fences TO "+role)
	f := open(t, strings.Replace(url, "treeline:correct%20horse@", role+":hunter2@", 1), "")
	note := fencetest.Note(t, fencetest.Origin, 1, "honest")
	if err := f.Swap(t.Context(), fencetest.Origin, nil, note); err != nil {
		t.Error(err)
	}
	if err := f.Swap(t.Context(), fencetest.Origin, note, fencetest.Note(t, fencetest.Origin, 2, "honest")); err != nil {
		t.Error(err)
	}
	if origins, err := f.Origins(t.Context()); err != nil || len(origins) != 1 {
		t.Errorf("Origins = %q, %v", origins, err)
	}
	if err := f.Drop(t.Context(), fencetest.Origin); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("Drop = %v", err)
	}
}

// Servers that start at the same time all open the fence, also a new one.
func TestManyOpenAtOnce(t *testing.T) {
	url := pgtest.Database(t)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			f, err := pgfence.Open(t.Context(), url, "")
			if err != nil {
				t.Error(err)
				return
			}
			f.Close()
		})
	}
	wg.Wait()
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	url := pgtest.Database(t)
	t.Setenv("PGPASSFILE", os.DevNull)
	for _, test := range []struct{ url, want string }{
		{"https://x/hunter2", "want a URL like postgres://"},
		{"postgres://u:hun ter2@h\x00unter2/x", "want a URL like postgres://"},
		{"postgres://u:p/hunter2@host/x", "want a URL like postgres://"},
		{"postgres://u:12/hunter2@host/x", "want a URL like postgres://"},
		{"postgres://u:12#hunter2@host/x", "want a URL like postgres://"},
		{"postgres://u:hunter2@127.0.0.1:1/x?sslmode=disable", "connection refused"},
		{"postgres://u:hunter2@127.0.0.1:1/x?sslmode=nonsense", "sslmode"},
		{strings.Replace(url, "correct%20horse", "hunter2", 1), "password authentication failed"},
		{url + "&password=hunter2", "password authentication failed"},
		{strings.Replace(url, "/test_", "/no_such_", 1), "does not exist"},
		{strings.Replace(url, "sslmode=disable", "sslmode=require", 1), "SSL"},
	} {
		refused(t, test.url, "", test.want)
	}

	// A server that takes connections and is silent.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	refused(t, fmt.Sprintf("postgres://u:hunter2@%s/x?sslmode=disable&connect_timeout=100", l.Addr()), "", "timeout")
}

// A statement that hangs in the server, here behind a lock that somebody holds, ends in time and changes nothing.
func TestALockedRowIsAnErrorInTime(t *testing.T) {
	t.Parallel() // it waits most of the time
	url := pgtest.Database(t)
	f := open(t, url, "")
	note := fencetest.Note(t, fencetest.Origin, 1, "honest")
	if err := f.Swap(t.Context(), fencetest.Origin, nil, note); err != nil {
		t.Fatal(err)
	}
	db, err := sqlx.Connect("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx := db.MustBegin()
	tx.MustExec("SELECT * FROM fences FOR UPDATE")
	start := time.Now()
	if err := f.Swap(t.Context(), fencetest.Origin, note, fencetest.Note(t, fencetest.Origin, 2, "honest")); err == nil {
		t.Error("Swap of a locked row went well")
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("Swap took %v", d)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Load(t.Context(), fencetest.Origin); err != nil || string(got) != string(note) {
		t.Errorf("Load = %q, %v, want %q", got, err, note)
	}
}
