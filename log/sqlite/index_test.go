package sqlite_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
	"github.com/treeline-log/treeline/log/sqlite"
	"github.com/treeline-log/treeline/log/storetest"
)

// indexed opens a store with a log that has an index, and returns its directory and the log; the store is closed.
func indexed(t *testing.T) (dir string, id log.ID) {
	t.Helper()
	dir = t.TempDir()
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "treeline.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id = storetest.CreateLog(t, s, "one").ID
	if err := s.WriteIndex(t.Context(), id, log.Indexed{}, log.Indexed{Size: 1024}, nil, []*index.Segment{{}}); err != nil {
		t.Fatal(err)
	}
	return dir, id
}

// An index that can't be used is put aside, and the store opens without it: all of it can be rebuilt.
func TestAnUnusableIndexIsPutAside(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"no database": func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a newer schema": func(_ *testing.T, path string) {
			db := sqlx.MustOpen("sqlite", path)
			defer db.Close()
			db.MustExec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, id := indexed(t)
			path := filepath.Join(dir, "treeline-search.db")
			spoil(t, path)
			r, err := sqlite.OpenReadOnly(t.Context(), filepath.Join(dir, "treeline.db"))
			if err != nil {
				t.Fatalf("the record can't be read since its index can't: %v", err)
			}
			if _, err := r.Indexed(t.Context(), id); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("reading the index: got %v, want an error that names it", err)
			}
			r.Close()
			s, err := sqlite.Open(t.Context(), filepath.Join(dir, "treeline.db"))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got, err := s.Indexed(t.Context(), id); err != nil || got != (log.Indexed{}) {
				t.Errorf("indexed: got %+v, %v, want none", got, err)
			}
			if want := path + ".damaged"; s.DamagedIndex() != want {
				t.Errorf("put aside: got %q, want %q", s.DamagedIndex(), want)
			} else if _, err := os.Stat(want); err != nil {
				t.Error(err)
			}
		})
	}
}

// An index that was written before segments had words says that they have none.
func TestAnIndexOfAnOlderSchemaHasNoWords(t *testing.T) {
	dir, id := indexed(t)
	db := sqlx.MustOpen("sqlite", filepath.Join(dir, "treeline-search.db"))
	db.MustExec(`ALTER TABLE index_segments DROP COLUMN words`)
	db.MustExec(`DROP TABLE removals`)
	db.MustExec(`DELETE FROM goose_db_version WHERE version_id >= 2`)
	db.Close()
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "treeline.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.DamagedIndex() != "" {
		t.Error("the index was put aside")
	}
	if metas, err := s.Segments(t.Context(), id); err != nil || len(metas) != 1 || metas[0].Words != 0 {
		t.Errorf("segments: got %+v, %v, want one without words", metas, err)
	}
}

func TestARecordIsReadWithoutItsIndex(t *testing.T) {
	dir, id := indexed(t)
	if err := os.Remove(filepath.Join(dir, "treeline-search.db")); err != nil {
		t.Fatal(err)
	}
	r, err := sqlite.OpenReadOnly(t.Context(), filepath.Join(dir, "treeline.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := r.Indexed(t.Context(), id); err != nil || got != (log.Indexed{}) {
		t.Errorf("indexed: got %+v, %v, want none", got, err)
	}
	if got, err := r.Segments(t.Context(), id); err != nil || len(got) != 0 {
		t.Errorf("segments: got %v, %v, want none", got, err)
	}
	if err := r.Blocks(t.Context(), id, 0, []uint64{0}, []index.Range{index.Whole}, nil); err != nil {
		t.Errorf("blocks: %v", err)
	}
	if err := r.DropIndex(t.Context(), id); err == nil {
		t.Error("a reader could drop the index")
	}
	if _, err := os.Stat(filepath.Join(dir, "treeline-search.db")); err == nil {
		t.Error("a reader made an index")
	}
}

func TestTheIndexIsAFileOfItsOwnThatOnlyItsOwnerReads(t *testing.T) {
	dir, _ := indexed(t)
	fi, err := os.Stat(filepath.Join(dir, "treeline-search.db"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want a file of mode 0600", fi, err)
	}
}
