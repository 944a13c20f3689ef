package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/sqlite"
	"github.com/treeline-log/treeline/log/storetest"
)

// opener opens stores in temporary directories.
type opener struct{ paths map[log.Store]string }

func (o opener) Open(t *testing.T) log.Store {
	return o.open(t, filepath.Join(t.TempDir(), "treeline.db"))
}

func (o opener) open(t *testing.T, path string) log.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	o.paths[s] = path
	return s
}

func (o opener) Reopen(t *testing.T, s log.Store) log.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return o.open(t, o.paths[s])
}

func TestStore(t *testing.T) {
	storetest.Run(t, opener{make(map[log.Store]string)})
}

func TestASecondWriterIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "treeline.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path); !errors.Is(err, sqlite.ErrLocked) {
		t.Errorf("second open: got %v, want ErrLocked", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	s.Close()
}

func TestAReaderLooksOnWhileAWriterWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "treeline.db")
	if _, err := sqlite.OpenReadOnly(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading what isn't there: got %v, want ErrNotExist", err)
	}
	w, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r, err := sqlite.OpenReadOnly(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	info := storetest.CreateLog(t, w, "one")
	if head, err := r.Head(t.Context(), info.ID); err != nil || head.Size != 0 {
		t.Errorf("head: got %+v, %v", head, err)
	}
	if _, err := r.Begin(t.Context(), []log.ID{info.ID}); err == nil {
		t.Error("a reader could begin to write")
	}
}

// What has to be set before a database has its first page, and what each commit's durability hangs on.
func TestFileSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "treeline.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for pragma, want := range map[string]string{
		"auto_vacuum": "2", "journal_mode": "wal", "synchronous": "2", "secure_delete": "1",
	} {
		if got, err := s.Pragma(t.Context(), pragma); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", pragma, got, err, want)
		}
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: got %v, %v, want 0600", fi.Mode(), err)
	}
}

func TestANewerSchemaIsRefusedUntouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "treeline.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	db := sqlx.MustOpen("sqlite", path)
	db.MustExec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`)
	db.Close()
	for name, open := range map[string]func() (*sqlite.Store, error){
		"writing": func() (*sqlite.Store, error) { return sqlite.Open(t.Context(), path) },
		"reading": func() (*sqlite.Store, error) { return sqlite.OpenReadOnly(t.Context(), path) },
	} {
		if _, err := open(); err == nil || !strings.Contains(err.Error(), "newer treeline") {
			t.Errorf("%s: got %v, want a word about a newer treeline", name, err)
		}
	}
}

// A store that was made before logs could be frozen or had settings, and before keys could end.
func TestAnOlderSchemaIsBroughtUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "treeline.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	info := storetest.CreateLog(t, s, "one")
	key, _ := log.NewKey(log.RoleReader, info.ID, "a name", 3)
	if err := s.CreateKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	s.Close()
	db := sqlx.MustOpen("sqlite", path)
	for table, newer := range map[string]string{
		"logs":     "title event_rate request_rate required",
		"api_keys": "networks actions event_rate request_rate expires_at revoked_at replaced_by last_used_at created_by",
	} {
		for column := range strings.FieldsSeq(newer) {
			db.MustExec(`ALTER TABLE ` + table + ` DROP COLUMN ` + column)
		}
	}
	for _, newer := range []string{"cosignatures", "confirmations", "evidence", "hub_entries", "removals"} {
		db.MustExec(`DROP TABLE ` + newer)
	}
	db.MustExec(`ALTER TABLE heads DROP COLUMN frozen`)
	db.MustExec(`DELETE FROM goose_db_version WHERE version_id >= 2`)
	db.Close()
	if _, err := sqlite.OpenReadOnly(t.Context(), path); err == nil || !strings.Contains(err.Error(), "older version") {
		t.Errorf("reading: got %v, want a word about an older version", err)
	}
	if s, err = sqlite.Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if head, err := s.Head(t.Context(), info.ID); err != nil || head.Frozen {
		t.Errorf("head: got %+v, %v", head, err)
	}
	if got, err := s.Key(t.Context(), key.ID); err != nil || got != key {
		t.Errorf("key: got %+v, %v, want %+v", got, err, key)
	}
	if logs, err := s.Logs(t.Context()); err != nil || len(logs) != 1 || !reflect.DeepEqual(logs[0], info) {
		t.Errorf("logs: got %+v, %v, want %+v", logs, err, info)
	}
}

func TestWhatIsNoStoreIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "treeline.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlite.Open(t.Context(), path); !errors.Is(err, log.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
}
