package sqlite_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/log/sqlite"
	"github.com/treeline-log/treeline/log/storetest"
)

// secret is a content that can be found again in a file, of a size between a line and several pages.
func secret(i int) log.Payload {
	seed, text := fmt.Sprintf("seed %06d", i), fmt.Sprintf("content %06d;", i)
	r := rand.New(rand.NewPCG(1, uint64(i)))
	return log.Payload{Seed: []byte(seed + strings.Repeat(".", 32-len(seed))), Data: []byte("\x00" + strings.Repeat(text, 1+r.IntN(1<<r.IntN(10))))}
}

func files(t *testing.T, dir string) (all []byte, size int64) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, content...)
		if strings.HasSuffix(path, ".db") {
			size += int64(len(content))
		}
	}
	return all, size
}

func shred(t *testing.T, s log.Store) {
	t.Helper()
	for range 1000 {
		more, err := s.Shred(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
	t.Fatal("Shred never comes to an end")
}

// After Shred nothing of what was purged or erased is in any file, wherever SQLite has moved it before, and the files are smaller.
func TestNothingRemovedIsInTheFiles(t *testing.T) {
	dir := t.TempDir()
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "treeline.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	one, two := storetest.CreateLog(t, s, "one"), storetest.CreateLog(t, s, "two")
	const n = 4000
	add := func(id log.ID, from, to int) {
		t.Helper()
		var contents []log.Payload
		for i := from; i < to; i++ {
			contents = append(contents, secret(i))
		}
		if _, err := storetest.Append(context.Background(), s, id, contents); err != nil {
			t.Fatal(err)
		}
	}
	for from := 0; from < n; from += 100 { // in the middle of the tree, and at its end
		add(one.ID, from, from+100)
		add(two.ID, n+from, n+from+50)
	}
	words := func(name string, n int) *index.Segment {
		seg := &index.Segment{}
		for i := range n {
			text := fmt.Appendf(nil, "%s %06d", name, i)
			seg.Blocks = append(seg.Blocks, index.Block{Key: text, Data: bytes.Repeat(text, 1+i%300)})
		}
		return seg
	}
	at := log.Indexed{Size: 1024}
	if err := s.WriteIndex(t.Context(), one.ID, log.Indexed{}, at, nil, []*index.Segment{words("person", 900)}); err != nil {
		t.Fatal(err)
	}
	gone := func(i int) bool { return i < 1000 || i >= 2500 && i < 2600 || i >= 3000 && i%7 == 0 }
	shred(t, s) // so that all is in the files
	_, before := files(t, dir)

	if err := s.WriteIndex(t.Context(), one.ID, at, at, []index.Meta{{}}, []*index.Segment{words("someone", 90)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context(), one.ID, []log.Span{{From: 0, To: 1000}, {From: 2500, To: 2600}}); err != nil {
		t.Fatal(err)
	}
	var reduced []log.Reduced
	for i := 3000; i < n; i++ {
		if gone(i) {
			reduced = append(reduced, log.Reduced{Index: uint64(i), Data: fmt.Appendf(nil, "\x03left of %d", i)})
		}
	}
	if err := s.Reduce(t.Context(), one.ID, reduced); err != nil {
		t.Fatal(err)
	}
	shred(t, s)
	all, after := files(t, dir)
	there := make(map[string]bool)
	for _, text := range regexp.MustCompile(`(seed|content|person) [0-9]{6}`).FindAll(all, -1) {
		there[string(text)] = true
	}
	var traces []string
	for i := range n {
		for _, what := range []string{"seed", "content"} {
			if text := fmt.Sprintf("%s %06d", what, i); there[text] == gone(i) {
				traces = append(traces, text)
			}
		}
		if text := fmt.Sprintf("person %06d", i); there[text] {
			traces = append(traces, text)
		}
	}
	if len(traces) > 0 {
		t.Errorf("%d texts are in the files and shouldn't, or aren't and should: %q…", len(traces), traces[:min(5, len(traces))])
	}
	if after > before*4/5 {
		t.Errorf("the files have %d bytes, before they had %d", after, before)
	}
}

func TestACrashWhileRemoving(t *testing.T) {
	steps := storetest.Crash(t, opener{make(map[log.Store]string)}, func(s log.Store, at func(string) error) { sqlite.WithFault(s.(*sqlite.Store), at) })
	for _, step := range []string{"purged a batch", "gave back some pages", "gave back pages", "scrubbed some pages", "scrubbed pages"} {
		if !slices.Contains(steps, step) {
			t.Errorf("there was no step %q among %q", step, steps)
		}
	}
}

// A search index that an older version has made, which couldn't give back pages, can.
func TestAnOlderIndexGivesBackItsSpace(t *testing.T) {
	dir, id := indexed(t)
	path := filepath.Join(dir, "treeline-search.db")
	db := sqlx.MustOpen("sqlite", path)
	db.MustExec(`PRAGMA auto_vacuum = NONE; VACUUM`)
	db.Close()
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "treeline.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := log.Indexed{Size: 1024}
	large := &index.Segment{Blocks: []index.Block{{Key: []byte("key"), Data: make([]byte, 1<<20)}}}
	if err := s.WriteIndex(t.Context(), id, at, at, []index.Meta{{}}, []*index.Segment{large}); err != nil {
		t.Fatal(err)
	}
	if err := s.DropIndex(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	shred(t, s)
	if fi, err := os.Stat(path); err != nil || fi.Size() > 1<<18 {
		t.Errorf("the file has %d bytes, %v", fi.Size(), err)
	}
}
