package sqlite_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log/sqlite"
)

// The newest growth of each log is found by the log, and not among all rows.
func TestNewestGrowthsAreLookedUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "treeline.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	db := sqlx.MustOpen("sqlite", path)
	defer db.Close()
	rows, err := db.Queryx("EXPLAIN QUERY PLAN "+sqlite.NewestGrowths, 1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	text := strings.Join(plan, "\n")
	if strings.Count(text, "SEARCH") != 2 || strings.Count(text, "(log=? AND subject=?") != 2 || strings.Contains(text, "TEMP B-TREE") {
		t.Errorf("the plan is\n%s", text)
	}
}
