package api_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// roleTable is the table of routes and roles in docs/api.md: by route and column what is in the cell.
func roleTable(t *testing.T) (columns []string, cells map[string]map[string]string) {
	t.Helper()
	doc, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(doc), "\n### Who may ask for what\n")
	if !ok {
		t.Fatal("docs/api.md has no section on who may ask for what")
	}
	cells = make(map[string]map[string]string)
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "#") {
			break
		}
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") {
			continue
		}
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range row {
			row[i] = strings.Trim(row[i], " `")
		}
		if columns == nil {
			columns = row[1:]
			continue
		}
		if len(row) != len(columns)+1 || cells[row[0]] != nil {
			t.Fatalf("row %q: got %d cells, want %d, and the route once", row[0], len(row), len(columns)+1)
		}
		cells[row[0]] = make(map[string]string)
		for i, column := range columns {
			cells[row[0]][column] = row[i+1]
		}
	}
	return columns, cells
}

// Each role is tried on each route that there is, and may do what the table in the documentation says, and no more.
func TestEachRoleOnEachRoute(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	columns, cells := roleTable(t)
	var roles []string
	for _, role := range log.Roles {
		roles = append(roles, string(role))
	}
	if !slices.Equal(columns, append([]string{"no key"}, roles...)) {
		t.Fatalf("columns of the table: got %q, want no key and %q", columns, roles)
	}
	var patterns []string
	for _, pattern := range s.api.Patterns() {
		if pattern != "/" { // which answers what is no route
			patterns = append(patterns, pattern)
		}
	}
	for pattern := range cells {
		if !slices.Contains(patterns, pattern) {
			t.Errorf("the table has %s, which is no route", pattern)
		}
	}
	for _, pattern := range patterns {
		if cells[pattern] == nil {
			t.Errorf("the table in docs/api.md has no row for %s: say there who may ask for it", pattern)
			continue
		}
		for i, column := range columns {
			name := fmt.Sprintf("log-%d-%d", slices.Index(patterns, pattern), i)
			s.log(name)
			var key string
			switch column {
			case "no key":
			case "admin":
				key = s.admin
			default:
				key = s.key(log.Role(column), name)
			}
			s.tryRole(pattern, cells[pattern][column], name, key)
		}
	}
}

// tryRole asks for a route about a log and compares the answer with what the table says.
func (s *testServer) tryRole(pattern, cell, name, key string) {
	s.t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	path = strings.NewReplacer("{name}", name, "{id}", "none", "{index}", "0", "{path...}", "0/000.p/1").Replace(path)
	if path == "/v1/feed" {
		path += "?timeout=0s"
	}
	r := request{method: method, path: path, key: key}
	if method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		r.body = `{}`
	}
	got := s.do(r)
	refused := got.status == http.StatusUnauthorized || got.status == http.StatusForbidden
	switch {
	case cell == "yes":
		if refused || strings.Contains(string(got.body), "no such log") {
			s.t.Errorf("%s with key %.12q: got %d %s, the table says yes", pattern, key, got.status, got.body)
		}
	case cell == "public": // the log isn't, so it doesn't exist
		got.problem(s.t, http.StatusNotFound, "not_found")
	case cell != "":
		s.t.Errorf("the table says %q of %s, want yes, public or nothing", cell, pattern)
	case key == "":
		got.problem(s.t, http.StatusUnauthorized, "unauthorized")
	default:
		if p := got.problem(s.t, http.StatusForbidden, "forbidden"); !strings.Contains(p.Detail, "role") {
			s.t.Errorf("%s: the answer doesn't speak of the key's role: %s", pattern, p.Detail)
		}
	}
}
