package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// exporter is a server whose exports break off.
type exporter struct {
	*httptest.Server
	records int
	after   int // how many records come at a time before the connection breaks; 0: all
	late    int // how many requests break off before that
	asked   []string
	forge   func(end string) string
	trailer bool
}

func newExporter(t *testing.T, records, after int) *exporter {
	e := &exporter{records: records, after: after, trailer: true, forge: func(end string) string { return end }}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.Close)
	return e
}

func exportLine(i int) string {
	return fmt.Sprintf(`{"id":"e%d","log":"acme","index":%d,"event":{"index":7}}`+"\n", i, 2*i)
}

func (e *exporter) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	e.asked = append(e.asked, q.Get("cursor")+"/"+q.Get("after"))
	from := 0
	if q.Get("cursor") == "later" {
		from = 3
	}
	if after, err := strconv.Atoi(q.Get("after")); err == nil {
		from = after/2 + 1
	}
	w.Header().Set("Export-Cursor", "resume")
	w.Header().Set("Export-From", strconv.Itoa(2*from))
	w.Header().Set("Trailer", "Export-End")
	if len(e.asked) <= e.late { // before the first record
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	var body strings.Builder
	for i := from; i < e.records; i++ {
		if e.after > 0 && i == from+e.after {
			fmt.Fprint(w, body.String(), exportLine(i)[:9]) // in the middle of a line
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		body.WriteString(exportLine(i))
	}
	end := e.forge(fmt.Sprintf(`{"log":"acme","from":%d,"size":%d,"count":%d,"first_index":%d,"last_index":%d,"sha256":"%x","cursor":"next"}`,
		2*from, 2*e.records, e.records-from, 2*from, 2*e.records-2, sha256.Sum256([]byte(body.String()))))
	fmt.Fprint(w, body.String())
	switch {
	case end == "":
	case q.Get("format") == "ndjson":
		fmt.Fprintf(w, "{\"end\":%s}\n", end)
	case q.Get("format") == "json":
		fmt.Fprintf(w, ",\"end\":%s}\n", end)
	}
	if e.trailer {
		w.Header().Set("Export-End", end)
	}
}

func runExport(t *testing.T, e *exporter, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"export", "--server", e.URL, "--retry-for", "2s"}, args...)
	code = run(context.Background(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// A file that came in pieces is that which would have come at once.
func TestExportResumes(t *testing.T) {
	t.Parallel()
	var want strings.Builder
	for i := range 10 {
		want.WriteString(exportLine(i))
	}
	fmt.Fprintf(&want, `{"end":{"log":"acme","from":0,"size":20,"count":10,"first_index":0,"last_index":18,"sha256":"%x","cursor":"next"}}`+"\n",
		sha256.Sum256([]byte(want.String())))
	for _, after := range []int{0, 1, 4} {
		e := newExporter(t, 10, after)
		file := filepath.Join(t.TempDir(), "x.ndjson")
		if code, _, stderr := runExport(t, e, "-o", file); code != 0 {
			t.Fatalf("%d at a time: exit code %d: %s", after, code, stderr)
		}
		got, err := os.ReadFile(file)
		if err != nil || string(got) != want.String() {
			t.Errorf("%d at a time, asked %v: got %v\n%s, want\n%s", after, e.asked, err, got, want.String())
		}
		if after == 4 && fmt.Sprint(e.asked) != "[/ resume/6 resume/14]" {
			t.Errorf("asked %v", e.asked)
		}
	}
}

// One that begins where another one ended does so also if it breaks off before its first record.
func TestExportGoesOn(t *testing.T) {
	t.Parallel()
	e := newExporter(t, 10, 0)
	e.late = 2
	code, stdout, stderr := runExport(t, e, "--cursor", "later")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if !strings.HasPrefix(stdout, exportLine(3)) || strings.Count(stdout, "\n") != 8 || fmt.Sprint(e.asked) != "[later/ resume/5 resume/5]" {
		t.Errorf("asked %v, got\n%s", e.asked, stdout)
	}
}

// JSON has its end in itself, and is a file when that is there.
func TestExportOfJSON(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "x.json")
	if code, _, stderr := runExport(t, newExporter(t, 100, 0), "--format", "json", "-o", file); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// What isn't whole, or isn't what the server says, is no file.
func TestExportRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		format string
		after  int
		change func(*exporter)
		want   string
	}{
		"an end with another hash":  {"ndjson", 0, func(e *exporter) { e.forge = flip(`"sha256":"`, `"sha256":"0`) }, "the server says"},
		"an end with another count": {"ndjson", 0, func(e *exporter) { e.forge = flip(`"count":10`, `"count":9`) }, "the server says 9"},
		"no end":                    {"ndjson", 0, func(e *exporter) { e.forge = func(string) string { return "" } }, "unexpected EOF"},
		"CSV without its end":       {"csv", 0, func(e *exporter) { e.trailer = false }, "takes trailers away"},
		"JSON with another hash":    {"json", 0, func(e *exporter) { e.forge = flip(`"sha256":"`, `"sha256":"0`) }, "the server says"},
		"JSON without its end":      {"json", 0, func(e *exporter) { e.trailer = false }, "takes trailers away"},
		"CSV with another hash":     {"csv", 0, func(e *exporter) { e.forge = flip(`"sha256":"`, `"sha256":"0`) }, "the server says"},
		"CSV that breaks off":       {"csv", 3, func(*exporter) {}, "unexpected EOF"},
		"a bundle that breaks off":  {"bundle", 3, func(*exporter) {}, "unexpected EOF"},
	} {
		e := newExporter(t, 10, c.after)
		c.change(e)
		dir := t.TempDir()
		code, _, stderr := runExport(t, e, "--format", c.format, "-o", filepath.Join(dir, "x"))
		if code != exitFailure || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d: %s", name, code, stderr)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: files are left: %v, %v", name, left, err)
		}
	}
}

func flip(old, new string) func(string) string {
	return func(end string) string { return strings.Replace(end, old, new, 1) }
}
