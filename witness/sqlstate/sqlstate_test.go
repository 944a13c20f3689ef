package sqlstate_test

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/merkle"
	"github.com/treeline-log/treeline/witness"
	"github.com/treeline-log/treeline/witness/sqlstate"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// places are where a state can be. Each returns what opens it, again and again, and what opens the database below it.
var places = map[string]func(t *testing.T) (open func() *sqlstate.DB, raw func() *sqlx.DB){
	"sqlite": func(t *testing.T) (func() *sqlstate.DB, func() *sqlx.DB) {
		path := filepath.Join(t.TempDir(), "witness.db")
		return func() *sqlstate.DB {
				db, err := sqlstate.OpenSQLite(t.Context(), path)
				if err != nil {
					t.Fatal(err)
				}
				return db
			}, func() *sqlx.DB {
				return sqlx.MustOpen("sqlite", path)
			}
	},
	"postgres": func(t *testing.T) (func() *sqlstate.DB, func() *sqlx.DB) {
		url := pgtest.Database(t)
		return func() *sqlstate.DB {
				db, err := sqlstate.OpenPostgres(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				return db
			}, func() *sqlx.DB {
				return sqlx.MustOpen("postgres", url)
			}
	},
}

// everywhere runs a test on a state of each kind.
func everywhere(t *testing.T, fn func(t *testing.T, open func() *sqlstate.DB, raw func() *sqlx.DB)) {
	for name, place := range places {
		t.Run(name, func(t *testing.T) {
			open, raw := place(t)
			fn(t, func() *sqlstate.DB {
				db := open()
				t.Cleanup(func() { db.Close() })
				return db
			}, func() *sqlx.DB {
				db := raw()
				t.Cleanup(func() { db.Close() })
				return db
			})
		})
	}
}

func key(origin, vkey string) witness.LogKey {
	return witness.LogKey{Origin: origin, VKey: vkey, QPD: 7, Contact: "me"}
}

func add(t *testing.T, db *sqlstate.DB, extend bool, keys ...witness.LogKey) int {
	t.Helper()
	n, err := db.AddKeys(t.Context(), keys, extend)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func head(origin string, size uint64, at int64) witness.Head {
	return witness.Head{Origin: origin, Size: size, Root: merkle.Hash{byte(size)}, At: at}
}

// move makes a state's heads these, whatever they were.
func move(t *testing.T, db *sqlstate.DB, heads ...witness.Head) error {
	t.Helper()
	var origins []string
	for _, h := range heads {
		origins = append(origins, h.Origin)
	}
	return db.Update(t.Context(), origins, func(map[string]witness.Head) (c witness.Changes) {
		for _, h := range heads {
			c.Moves = append(c.Moves, witness.Move{Head: h, Note: fmt.Appendf(nil, "note of %s at %d", h.Origin, h.Size)})
		}
		return c
	})
}

// present returns what a state says of a log.
func present(t *testing.T, db *sqlstate.DB, origin string) (h witness.Head, known bool) {
	t.Helper()
	err := db.Update(t.Context(), []string{origin}, func(heads map[string]witness.Head) witness.Changes {
		h, known = heads[origin]
		return witness.Changes{}
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, known
}

func TestKeys(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() *sqlstate.DB, _ func() *sqlx.DB) {
		db := open()
		if n := add(t, db, false, key("b", "b1"), key("a", "a1"), key("b", "b2"), key("a", "a1")); n != 3 {
			t.Errorf("got %d new keys, want 3", n)
		}
		if n := add(t, db, false, key("a", "a2"), key("c", "c1"), witness.LogKey{Origin: "b", VKey: "b1", QPD: 99}); n != 1 {
			t.Errorf("got %d new keys, want the one of the log that wasn't known", n)
		}
		if n := add(t, db, true, key("a", "a2"), key("c", "c1")); n != 1 {
			t.Errorf("got %d new keys, want the one of the log that was known", n)
		}
		want := []witness.LogKey{
			{Seq: 1, Origin: "b", VKey: "b1", QPD: 7, Contact: "me"}, {Seq: 2, Origin: "a", VKey: "a1", QPD: 7, Contact: "me"},
			{Seq: 3, Origin: "b", VKey: "b2", QPD: 7, Contact: "me"}, {Seq: 4, Origin: "c", VKey: "c1", QPD: 7, Contact: "me"},
			{Seq: 5, Origin: "a", VKey: "a2", QPD: 7, Contact: "me"},
		}
		for after := range int64(6) {
			if got, err := db.Keys(t.Context(), after); err != nil || !slices.Equal(got, want[after:]) {
				t.Errorf("keys after %d: got %+v, %v, want %+v", after, got, err, want[after:])
			}
		}
	})
}

func TestHeads(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() *sqlstate.DB, _ func() *sqlx.DB) {
		db := open()
		if _, known := present(t, db, "a"); known {
			t.Error("a log is known that wasn't added")
		}
		add(t, db, false, key("a", "a1"), key("B", "b1"), key("ä", "c1"))
		if h, known := present(t, db, "a"); !known || h != (witness.Head{Origin: "a", Root: merkle.EmptyRoot()}) {
			t.Errorf("a log that was just added: got %+v, %v, want size 0", h, known)
		}
		if _, err := db.Cosigned(t.Context(), "a"); !errors.Is(err, witness.ErrNotFound) {
			t.Errorf("its checkpoint: got %v, want ErrNotFound", err)
		}
		for _, heads := range [][]witness.Head{
			{head("a", 0, 1)}, {head("a", 5, 2), head("ä", 7, 2)}, {head("ä", 1<<63-1, 3)}, {head("a", 5, 3)},
		} {
			if err := move(t, db, heads...); err != nil {
				t.Fatal(err)
			}
			for _, h := range heads {
				if got, _ := present(t, db, h.Origin); got != h {
					t.Errorf("got %+v, want %+v", got, h)
				}
				note, err := db.Cosigned(t.Context(), h.Origin)
				if want := fmt.Sprintf("note of %s at %d", h.Origin, h.Size); err != nil || string(note) != want {
					t.Errorf("got %q, %v, want %q", note, err, want)
				}
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		db = open()
		want := []witness.Head{{Origin: "B", Root: merkle.EmptyRoot()}, head("a", 5, 3), head("ä", 1<<63-1, 3)}
		for from, after := range []string{"", "B", "a", "ä"} {
			if got, err := db.Heads(t.Context(), after, 10); err != nil || !slices.Equal(got, want[from:]) {
				t.Errorf("heads after %q: got %+v, %v, want %+v", after, got, err, want[from:])
			}
		}
		if got, err := db.Heads(t.Context(), "", 2); err != nil || !slices.Equal(got, want[:2]) {
			t.Errorf("two heads: got %+v, %v", got, err)
		}
		// Adding what is there doesn't set it back.
		add(t, db, true, key("a", "a1"), key("a", "a3"))
		if got, _ := present(t, db, "a"); got != want[1] {
			t.Errorf("got %+v, want %+v", got, want[1])
		}
	})
}

// A head is moved only if it is what it was decided on: in size, root and time. If one isn't nothing is done, and what is then read is
// what the other writer has left.
func TestUpdateIsConditional(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() *sqlstate.DB, raw func() *sqlx.DB) {
		db, other := open(), raw()
		add(t, db, false, key("a", "a1"), key("b", "b1"))
		if err := move(t, db, head("a", 5, 10), head("b", 5, 10)); err != nil {
			t.Fatal(err)
		}
		for _, set := range []string{"size = 6", "cosigned_at = 11", "root = (SELECT root FROM witness_logs WHERE origin = 'x')"} {
			if strings.HasPrefix(set, "root") {
				add(t, db, false, key("x", "x1"))
			}
			stalled := false
			err := db.Update(t.Context(), []string{"a", "b"}, func(heads map[string]witness.Head) witness.Changes {
				stalled = true
				other.MustExec("UPDATE witness_logs SET " + set + " WHERE origin = 'b'")
				return witness.Changes{
					Moves:    []witness.Move{{Head: head("a", 9, 12)}, {Head: head("b", 9, 12)}},
					Evidence: []witness.Evidence{{Conflict: witness.ConflictFork, Head: heads["a"], Refused: checkpoint.Checkpoint{Origin: "a", Size: 5}, Note: []byte("n"), Proof: []byte("p")}},
				}
			})
			if !stalled || !errors.Is(err, witness.ErrMoved) {
				t.Errorf("%s: got %v, want ErrMoved", set, err)
			}
			if got, _ := present(t, db, "a"); got != head("a", 5, 10) {
				t.Errorf("%s: the other log was moved to %+v", set, got)
			}
			if got, _ := present(t, db, "b"); got == head("b", 9, 12) || got == head("b", 5, 10) {
				t.Errorf("%s: got %+v, want what the other writer made of it", set, got)
			}
			if got, err := db.Evidence(t.Context()); err != nil || len(got) != 0 {
				t.Errorf("%s: got evidence %+v, %v, want none", set, got, err)
			}
			b, _ := present(t, db, "b")
			if err := move(t, db, head("b", 5, 10)); err != nil {
				t.Fatalf("%s: after %+v: %v", set, b, err)
			}
		}
	})
}

// Writers that all add one to what they were given: none is lost.
func TestUpdatesAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() *sqlstate.DB, _ func() *sqlx.DB) {
		db := open()
		add(t, db, false, key("a", "a1"), key("b", "b1"))
		const writers, each = 4, 25
		var wg sync.WaitGroup
		for i := range writers {
			origins := []string{"a", "b"}
			if i%2 == 1 {
				slices.Reverse(origins)
			}
			wg.Go(func() {
				for done := 0; done < each; {
					err := db.Update(t.Context(), origins, func(heads map[string]witness.Head) (c witness.Changes) {
						for _, origin := range origins {
							h := heads[origin]
							c.Moves = append(c.Moves, witness.Move{Head: head(origin, h.Size+1, h.At+1), Note: []byte("note")})
						}
						return c
					})
					if err == nil {
						done++
					} else if !errors.Is(err, witness.ErrMoved) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		for _, origin := range []string{"a", "b"} {
			if h, _ := present(t, db, origin); h.Size != writers*each || h.At != writers*each {
				t.Errorf("got %+v, want size and time %d", h, writers*each)
			}
		}
	})
}

func TestEvidenceIsBounded(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() *sqlstate.DB, _ func() *sqlx.DB) {
		db := open()
		add(t, db, false, key("a", "a1"), key("b", "b1"))
		if err := move(t, db, head("a", 5, 10)); err != nil {
			t.Fatal(err)
		}
		evidence := func(origin string, conflict witness.Conflict, size uint64) witness.Evidence {
			h, _ := present(t, db, origin)
			return witness.Evidence{
				Conflict: conflict, Seen: 77, Head: h, Note: []byte("refused"), Proof: []byte("old 5\n"),
				Refused: checkpoint.Checkpoint{Origin: origin, Size: size, Root: merkle.Hash{9}},
			}
		}
		keep := func(e ...witness.Evidence) {
			t.Helper()
			err := db.Update(t.Context(), []string{"a", "b"}, func(map[string]witness.Head) witness.Changes { return witness.Changes{Evidence: e} })
			if err != nil {
				t.Fatal(err)
			}
		}
		first := evidence("a", witness.ConflictFork, 5)
		keep(first)
		keep(first, first) // no news
		for size := range uint64(2 * witness.MaxEvidence) {
			keep(evidence("a", witness.ConflictInconsistent, 100+size))
		}
		keep(evidence("b", witness.ConflictEmpty, 0))
		got, err := db.Evidence(t.Context())
		if err != nil || len(got) != 2+witness.MaxEvidence {
			t.Fatalf("got %d pieces, %v, want %d", len(got), err, 2+witness.MaxEvidence)
		}
		first.Cosigned = []byte("note of a at 5")
		if !reflect.DeepEqual(got[0], first) {
			t.Errorf("got %+v, want %+v", got[0], first)
		}
		if last := got[len(got)-1]; last.Cosigned != nil || last.Refused.Origin != "b" {
			t.Errorf("got %+v, want the one of b, beside nothing", last)
		}
	})
}

// Evidence without the note that it contradicts proves nothing. So where another writer has put a later note in its place meanwhile, it
// is decided anew.
func TestEvidenceIsConditional(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() *sqlstate.DB, raw func() *sqlx.DB) {
		db, other := open(), raw()
		add(t, db, false, key("a", "a1"))
		if err := move(t, db, head("a", 5, 10)); err != nil {
			t.Fatal(err)
		}
		err := db.Update(t.Context(), []string{"a"}, func(heads map[string]witness.Head) witness.Changes {
			other.MustExec("UPDATE witness_logs SET size = 6, cosigned_at = 11 WHERE origin = 'a'")
			return witness.Changes{Evidence: []witness.Evidence{{
				Conflict: witness.ConflictFork, Head: heads["a"], Refused: checkpoint.Checkpoint{Origin: "a", Size: 5}, Note: []byte("n"), Proof: []byte("p"),
			}}}
		})
		if !errors.Is(err, witness.ErrMoved) {
			t.Errorf("got %v, want ErrMoved", err)
		}
		if got, err := db.Evidence(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("got evidence %+v, %v, want none", got, err)
		}
	})
}

func TestIdentityIsClaimedOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, open func() *sqlstate.DB, _ func() *sqlx.DB) {
		db := open()
		if got, err := db.Identity(t.Context()); got != "" || err != nil {
			t.Errorf("got %q, %v, want nobody", got, err)
		}
		for _, vkey := range []string{"first", "second"} {
			if got, err := db.Claim(t.Context(), vkey); got != "first" || err != nil {
				t.Errorf("claimed by %s: got %q, %v", vkey, got, err)
			}
		}
		if got, err := db.Identity(t.Context()); got != "first" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestANewerSchemaIsRefused(t *testing.T) {
	path, url := filepath.Join(t.TempDir(), "witness.db"), pgtest.Database(t)
	for driver, place := range map[string]struct {
		dsn  string
		open func() (*sqlstate.DB, error)
	}{
		"sqlite":   {path, func() (*sqlstate.DB, error) { return sqlstate.OpenSQLite(t.Context(), path) }},
		"postgres": {url, func() (*sqlstate.DB, error) { return sqlstate.OpenPostgres(t.Context(), url) }},
	} {
		db, err := place.open()
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
		raw := sqlx.MustOpen(driver, place.dsn)
		raw.MustExec("INSERT INTO witness_version (version_id, is_applied) VALUES (999, TRUE)")
		raw.Close()
		if _, err := place.open(); err == nil || !strings.Contains(err.Error(), "newer treeline") {
			t.Errorf("%s: got %v, want a word about a newer treeline", driver, err)
		}
	}
}

// Commands may be run as a witness starts for the first time: whoever comes first makes the tables, and the others find them.
func TestOpenedAtOnce(t *testing.T) {
	for range 5 {
		path, url := filepath.Join(t.TempDir(), "witness.db"), pgtest.Database(t)
		openers := []func() (*sqlstate.DB, error){func() (*sqlstate.DB, error) { return sqlstate.OpenSQLite(t.Context(), path) }}
		for range 6 {
			openers = append(openers, func() (*sqlstate.DB, error) { return sqlstate.OpenSQLiteBeside(t.Context(), path) })
		}
		for range 3 {
			openers = append(openers, func() (*sqlstate.DB, error) { return sqlstate.OpenPostgres(t.Context(), url) })
		}
		var wg sync.WaitGroup
		for i, open := range openers {
			wg.Go(func() {
				db, err := open()
				if err != nil {
					t.Error(err)
					return
				}
				defer db.Close()
				if _, err := db.AddKeys(t.Context(), []witness.LogKey{key("a", fmt.Sprint("a", i))}, true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}

func TestOneWitnessAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "witness.db")
	db, err := sqlstate.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sqlstate.OpenSQLite(t.Context(), path); !errors.Is(err, sqlstate.ErrLocked) {
		t.Errorf("a second witness: got %v, want ErrLocked", err)
	}
	beside, err := sqlstate.OpenSQLiteBeside(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	add(t, beside, true, key("a", "a1"))
	if h, known := present(t, db, "a"); !known || h.Size != 0 {
		t.Errorf("a log that was added beside the witness: got %+v, %v", h, known)
	}
	// Beside a witness nothing is remembered, so nothing of what it says is old.
	if err := move(t, db, head("a", 5, 1)); err != nil {
		t.Fatal(err)
	}
	if h, _ := present(t, beside, "a"); h != head("a", 5, 1) {
		t.Errorf("got %+v", h)
	}
	beside.Close()
	db.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: got %v, %v, want 0600", info.Mode(), err)
	}
	db, err = sqlstate.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatalf("after it was closed: %v", err)
	}
	db.Close()
}

// A server that may lose what it has committed is no place for a witness's memory, nor one that becomes such a server.
func TestUnsafePostgresIsRefused(t *testing.T) {
	url := pgtest.Database(t)
	db, err := sqlstate.OpenPostgres(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	add(t, db, false, key("a", "a1"))
	raw := sqlx.MustOpen("postgres", url)
	defer raw.Close()
	var name string
	if err := raw.Get(&name, "SELECT current_database()"); err != nil {
		t.Fatal(err)
	}
	set := func(value string) {
		raw.MustExec("ALTER DATABASE " + name + " SET synchronous_commit = " + value)
		// New sessions have it, and the old ones end.
		raw.MustExec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()", name)
	}
	set("off")
	_, err = sqlstate.OpenPostgres(t.Context(), url)
	if err == nil || !strings.Contains(err.Error(), "synchronous_commit is off") || strings.Contains(err.Error(), "horse") {
		t.Errorf("got %v, want a refusal without a password", err)
	}
	if err := settled(func() error { return move(t, db, head("a", 5, 1)) }); err == nil || !strings.Contains(err.Error(), "synchronous_commit is off") {
		t.Errorf("moving a head: got %v, want a refusal", err)
	}
	set("on")
	var was witness.Head
	err = settled(func() error {
		return db.Update(t.Context(), []string{"a"}, func(heads map[string]witness.Head) witness.Changes {
			was = heads["a"]
			return witness.Changes{Moves: []witness.Move{{Head: head("a", 6, 2), Note: []byte("note")}}}
		})
	})
	if err != nil || was.Size != 0 {
		t.Errorf("when it is safe again: %v, from %+v, want size 0", err, was)
	}
}

// settled calls fn until it doesn't fail for the sake of a session that has ended.
func settled(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, sqlstate.ErrUnreachable) {
			return err
		}
	}
}

// What may pass is told apart, so that a witness which is started before its database waits for it.
func TestUnreachablePostgres(t *testing.T) {
	good := pgtest.Database(t)
	for what, change := range map[string]func(u *url.URL){
		"a wrong password":    func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong") },
		"no such database":    func(u *url.URL) { u.Path = "/nothing" },
		"nobody listens":      func(u *url.URL) { u.Host = "127.0.0.1:1" },
		"nobody of that name": func(u *url.URL) { u.Host = "nowhere.invalid:5432" },
	} {
		u, err := url.Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		change(u)
		_, err = sqlstate.OpenPostgres(t.Context(), u.String())
		if !errors.Is(err, sqlstate.ErrUnreachable) || strings.Contains(err.Error(), "wrong") || strings.Contains(err.Error(), "horse") {
			t.Errorf("%s: got %v, want ErrUnreachable without a password", what, err)
		}
	}
}
