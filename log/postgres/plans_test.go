package postgres_test

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lib/pq"

	"github.com/treeline-log/treeline/log/postgres"
)

// What fills the tables with 240,000 events of four logs, one of them much larger than the others, in three parts. Only the
// shape of the rows matters.
var fill = []string{
	`CREATE TEMPORARY TABLE sizes AS SELECT * FROM (VALUES (1, 200000), (2, 30000), (3, 9000), (4, 1000)) AS s (log, size)`,
	`INSERT INTO parts (part, class, opened_at) VALUES (2, 'standard', 0), (3, 'standard', 0)`,
	`CREATE TABLE payloads_2 (LIKE payloads INCLUDING ALL, PRIMARY KEY (log, idx))`,
	`ALTER TABLE payloads ATTACH PARTITION payloads_2 FOR VALUES IN (2)`,
	`CREATE TABLE payloads_3 (LIKE payloads INCLUDING ALL, PRIMARY KEY (log, idx))`,
	`ALTER TABLE payloads ATTACH PARTITION payloads_3 FOR VALUES IN (3)`,
	`INSERT INTO heads SELECT log, size, 0, sha256(''), '', FALSE, 'standard', 3 FROM sizes`,
	`INSERT INTO entries SELECT log, i, convert_to(repeat('x', 73 * 10), 'UTF8') FROM sizes, generate_series(0, size - 1, 10) AS i`,
	`INSERT INTO ids SELECT log, i, 'event-' || md5(i::TEXT) FROM sizes, generate_series(0, size - 1) AS i`,
	`INSERT INTO payloads SELECT log, i, 1 + 3 * i / size, sha256(i::TEXT::BYTEA), convert_to(repeat(md5(i::TEXT), 6), 'UTF8')
	 FROM sizes, generate_series(0, size - 1) AS i`,
	`INSERT INTO nodes SELECT log, 1, i, sha256(i::TEXT::BYTEA) FROM sizes, generate_series(0, size / 256 - 1) AS i`,
	`INSERT INTO checkpoints SELECT log, i, convert_to(repeat('x', 300), 'UTF8') FROM sizes, generate_series(0, size, 20) AS i`,
	`INSERT INTO hub_entries SELECT 4, 1 + i % 3, i, i FROM generate_series(0, 99999) AS i`,
	`INSERT INTO index_segments SELECT log, 0, i, 0, 0, 0, 0 FROM sizes, generate_series(0, size / 1024 - 1) AS i`,
	`INSERT INTO index_blocks SELECT log, 0, i, sha256(k::TEXT::BYTEA), convert_to(repeat('x', 1000), 'UTF8')
	 FROM sizes, generate_series(0, size / 1024 - 1) AS i, generate_series(1, 20) AS k`,
	`ANALYZE`,
}

// No statement that reads or searches goes through a whole table, with the planner's estimate for these parameters or for any, not
// even by a plan that was made before there was anything in it.
func TestNothingIsReadWhole(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	s := open(t, url) // which makes the first part
	for name, want := range postgres.Planning {
		if got, err := postgres.Setting(t.Context(), s, name); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %s", name, got, err, want)
		}
	}
	conn := session(t, url)
	numbers := func(n, step int64) (out pq.Int64Array) {
		for i := range n {
			out = append(out, i*step)
		}
		return out
	}
	keys := func(n int) (from, to pq.ByteaArray) {
		for i := range n {
			from, to = append(from, []byte{byte(i)}), append(to, []byte{byte(i), 1})
		}
		return from, to
	}
	from, to := keys(8)
	oneFrom, oneTo := keys(1)
	logs, ids := make(pq.Int64Array, 1000), make(pq.StringArray, 1000)
	for i := range logs {
		logs[i], ids[i] = int64(1+i%4), fmt.Sprint("event-", i)
	}
	tests := []struct {
		name   string
		params []any
	}{
		{"sqlLockHeads", []any{numbers(4, 1)}},
		{"sqlHead", []any{1}},
		{"sqlFindAll", []any{logs, ids}},
		{"sqlFindAll", []any{logs[:1], ids[:1]}},
		{"sqlFind", []any{1, "event-5"}},
		{"sqlEntries", []any{1, 0, 16384}},
		{"sqlEntries", []any{1, 150_000, 150_256}},
		{"sqlEntries", []any{1, 199_999, 200_000}},
		{"sqlEntries", []any{4, 0, 1000}},
		{"sqlEntriesAt", []any{1, numbers(1, 0)}},
		{"sqlEntriesAt", []any{1, numbers(1000, 199)}},
		{"sqlNodes", []any{1, 1, 0, 256}},
		{"sqlNodes", []any{4, 1, 2, 3}},
		{"sqlPayloads", []any{1, 0, 1024}},
		{"sqlPayloads", []any{1, 60_000, 61_024}},
		{"sqlPayloadsAt", []any{1, numbers(1, 0)}},
		{"sqlPayloadsAt", []any{1, numbers(1000, 199)}},
		{"sqlCheckpoint", []any{1, int64(1) << 62}},
		{"sqlCheckpoint", []any{1, 1000}},
		{"sqlCheckpoints", []any{1, -1}},
		{"sqlCheckpointsOf", []any{logs, numbers(1000, 20)}},
		{"sqlCheckpointsOf", []any{logs[:1], numbers(1, 20)}},
		{"sqlGrowths", []any{4, 50_000, 60_000}},
		{"sqlGrowthBefore", []any{4, 1, 50_000}},
		{"sqlIDs", []any{1, "event-5", "event-6"}},
		{"sqlSegments", []any{1}},
		{"sqlBlocks", []any{1, 0, numbers(1, 1), oneFrom, oneTo}},
		{"sqlBlocks", []any{1, 0, numbers(64, 1), from, to}},
	}
	check := func(when string, settings map[string]string) {
		for _, test := range tests {
			plan := explain(t, conn, settings, postgres.Statements[test.name], test.params)
			if bad := wholeScans(plan); bad != nil {
				t.Errorf("%s, planned %s: %v are read whole:\n%s", test.name, when, bad, plan)
			}
		}
	}
	if _, err := conn.ExecContext(t.Context(), "VACUUM ANALYZE"); err != nil {
		t.Fatal(err)
	}
	check("when the tables are known to be empty, and kept", postgres.Planning)
	for _, statement := range fill {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	check("when they are full", postgres.Planning)
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} { // as behind a pooler
		check("with "+mode, map[string]string{"plan_cache_mode": mode, "enable_seqscan": "on"})
	}
}

// To read a whole table costs so much, where that is forbidden, that PostgreSQL would compile the statement each time first.
func TestNothingIsCompiled(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	open(t, url)
	conn := session(t, url)
	if plan := explain(t, conn, postgres.Planning, postgres.SizesStatement, nil); strings.Contains(plan, `"JIT"`) {
		t.Errorf("it is compiled:\n%s", plan)
	}
}

// Blocks are looked up in the order in which they are wanted: what is sorted is their keys.
func TestNoBlockIsSorted(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	open(t, url)
	conn := session(t, url)
	for _, statement := range fill {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	params := []any{1, 0, pq.Int64Array{1, 2, 3}, pq.ByteaArray{{0}, {5}}, pq.ByteaArray{{1}, {6}}}
	for _, settings := range []map[string]string{postgres.Planning, {"plan_cache_mode": "force_custom_plan", "enable_seqscan": "on"}} {
		plan := explain(t, conn, settings, postgres.Statements["sqlBlocks"], params)
		var sorted func(n planNode) bool
		sorted = func(n planNode) bool {
			return strings.HasSuffix(n.Type, "Sort") && slices.ContainsFunc(n.Output, func(column string) bool {
				return strings.HasSuffix(column, "data")
			}) || slices.ContainsFunc(n.Plans, sorted)
		}
		if n, err := readPlan(plan); err != nil || sorted(n) {
			t.Errorf("%v: blocks are sorted, %v:\n%s", settings, err, plan)
		}
	}
}

// session returns a session of its own with a database.
func session(t *testing.T, url string) *sql.Conn {
	t.Helper()
	conn, err := direct(t, url).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// explain returns the plan of a statement with parameters under some settings, as JSON.
func explain(t *testing.T, conn *sql.Conn, settings map[string]string, statement string, params []any) string {
	t.Helper()
	literals, arguments := make([]string, len(params)), ""
	for i, p := range params {
		if v, ok := p.(driver.Valuer); ok {
			value, err := v.Value()
			if err != nil {
				t.Fatal(err)
			}
			p = value
		}
		literals[i] = pq.QuoteLiteral(fmt.Sprint(p)) // of an unknown type, which the statement decides
	}
	if params != nil {
		arguments = "(" + strings.Join(literals, ", ") + ")"
	}
	prepare := []string{"PREPARE p AS " + statement}
	for name, value := range settings {
		prepare = append(prepare, "SET "+name+" = "+value)
	}
	for _, statement := range prepare {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	var plan string
	err := conn.QueryRowContext(t.Context(), "EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE p "+arguments).Scan(&plan)
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	if _, err := conn.ExecContext(t.Context(), "DEALLOCATE p"); err != nil {
		t.Fatal(err)
	}
	return plan
}

// wholeScans returns the large tables that a plan reads whole.
func wholeScans(plan string) (bad []string) {
	top, err := readPlan(plan)
	if err != nil {
		return []string{fmt.Sprint("unreadable: ", err)}
	}
	var look func(n planNode)
	look = func(n planNode) {
		if n.Type == "Seq Scan" && n.Relation != "heads" && n.Relation != "index_segments" {
			bad = append(bad, n.Relation)
		}
		for _, p := range n.Plans {
			look(p)
		}
	}
	look(top)
	return bad
}

// planNode is a step of a plan.
type planNode struct {
	Type     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Output   []string
	Plans    []planNode
}

// readPlan reads a plan in JSON.
func readPlan(plan string) (planNode, error) {
	var top []struct{ Plan planNode }
	if err := json.Unmarshal([]byte(plan), &top); err != nil {
		return planNode{}, err
	}
	if len(top) != 1 {
		return planNode{}, fmt.Errorf("%d plans, want 1", len(top))
	}
	return top[0].Plan, nil
}
