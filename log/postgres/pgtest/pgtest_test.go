package pgtest_test

import (
	"database/sql"
	"testing"

	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestAServerIsDurableAndSurvivesACrash(t *testing.T) {
	s := pgtest.Start(t)
	db, err := sql.Open("postgres", s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		var value string
		if err := db.QueryRow("SHOW " + name).Scan(&value); err != nil || value != "on" {
			t.Errorf("%s is %q, %v; want on", name, value, err)
		}
	}
	s.Exec(t, "postgres", "CREATE TABLE t AS SELECT 1 AS n")
	s.Quit()
	s.Run(t)
	var n int
	if err := db.QueryRow("SELECT n FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("after a crash: got %d, %v", n, err)
	}
}

func TestDatabasesAreApart(t *testing.T) {
	a, b := pgtest.Database(t), pgtest.Database(t)
	if a == b {
		t.Errorf("two databases have the URL %s", a)
	}
}
