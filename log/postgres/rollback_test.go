package postgres_test

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/storetest"
)

// direct opens a pool of plain connections to a database.
func direct(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Somebody who locks heads in the other order makes PostgreSQL undo one of the two transactions. A batch that is undone is done again.
func TestADeadlockIsNobodysLoss(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	svc := serve(t, url, postgres.Options{URL: url + "&deadlock_timeout=1s"}) // looked for once, when the rival waits, too
	for _, name := range []string{"second", "third", "fourth", "fifth"} {     // of two lanes, those with odd numbers are in one
		if _, err := svc.CreateLog(t.Context(), log.ByServer(), name, log.Settings{}); err != nil {
			t.Fatal(err)
		}
	}
	first, third := svc.Log("default").ID, svc.Log("third").ID
	db := direct(t, url+"&deadlock_timeout=1h") // which never gives way
	lock := func(tx *sql.Tx, id log.ID) {
		if _, err := tx.Exec("SELECT FROM heads WHERE log = $1 FOR UPDATE", id); err != nil {
			t.Error(err)
		}
	}
	untilWaiting := func() {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			var waiting int
			err := db.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%' " +
				"AND datname = current_database()").Scan(&waiting)
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("%d wait for a head, %v; want 1", waiting, err)
			}
			if waiting == 1 {
				return
			}
		}
	}
	var wg sync.WaitGroup
	appendTo := func(name, id string) chan struct{} {
		done := make(chan struct{})
		wg.Go(func() {
			defer close(done)
			e, err := log.ParseEvent(fmt.Appendf(nil, `{"id":%q,"action":"x"}`, id), log.ParseOptions{Now: time.Now()})
			if err == nil {
				_, err = svc.Log(name).Append(t.Context(), []*log.Event{e})
			}
			if err != nil {
				t.Errorf("append %s to log %s: %v", id, name, err)
			}
		})
		return done
	}
	begin := func() *sql.Tx {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	// A batch waits for the head of the fifth log, and meanwhile one for the first and the third gathers behind it.
	gate, rival := begin(), begin()
	lock(gate, svc.Log("fifth").ID)
	lock(rival, third)
	ahead := appendTo("fifth", "a")
	untilWaiting()
	appendTo("default", "b")
	appendTo("third", "c")
	time.Sleep(50 * time.Millisecond)
	gate.Rollback()
	<-ahead
	// It has the first head now, and waits for the third one.
	untilWaiting()
	lock(rival, first)
	rival.Rollback()
	wg.Wait()
	var deadlocks int
	for deadline := time.Now().Add(10 * time.Second); deadlocks == 0 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err := db.QueryRow("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").Scan(&deadlocks); err != nil {
			t.Fatal(err)
		}
	}
	if deadlocks == 0 {
		t.Error("there was no deadlock")
	}
	svc.holds("b")
}

// Whatever isolation a database has as its default, transactions are as they were meant to be: writers queue, and don't fail.
func TestTheIsolationIsTheProgramsOwn(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	db := direct(t, url)
	var name string
	if err := db.QueryRow("SELECT current_database()").Scan(&name); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("ALTER DATABASE " + name + " SET default_transaction_isolation = serializable"); err != nil {
		t.Fatal(err)
	}
	services := []*service{serve(t, url, postgres.Options{URL: url})}
	second := &service{t: t, fence: services[0].fence, direct: url}
	second.open(postgres.Options{URL: url})
	services = append(services, second)
	var wg sync.WaitGroup
	var ids [2][]string
	for i, svc := range services {
		wg.Go(func() {
			for n := range 40 {
				id := fmt.Sprintf("%d-%d", i, n)
				if _, err := svc.append(id); err != nil {
					t.Errorf("append %s: %v", id, err)
				}
				ids[i] = append(ids[i], id)
				if n%10 == 0 {
					if _, err := svc.CreateLog(t.Context(), log.ByServer(), fmt.Sprintf("log-%d-%d", i, n), log.Settings{}); err != nil {
						t.Errorf("log %d-%d: %v", i, n, err)
					}
					if _, _, err := svc.CreateKey(t.Context(), log.ByServer(), log.Key{Role: log.RoleReader, Name: id}); err != nil {
						t.Errorf("key %s: %v", id, err)
					}
				}
			}
		})
	}
	wg.Wait()
	var size int
	if err := db.QueryRow("SELECT count(*) FROM ids WHERE log = $1", services[0].Log("default").ID).Scan(&size); err != nil || size != 80 {
		t.Errorf("%d events are stored, %v; want 80", size, err)
	}
	services[0].signed()
}

// Statements fail at will, and so does COMMIT, by a trigger that is put off until then.
func TestWhatIsRolledBackAnywhereIsDoneAgain(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	svc := serve(t, url, postgres.Options{URL: url})
	if _, err := svc.append("event-0"); err != nil {
		t.Fatal(err)
	}
	db := direct(t, url)
	ids := []string{"event-0"}
	for _, table := range []string{"heads", "entries", "ids", "payloads_1"} {
		for _, when := range []string{"NOT DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"} {
			for _, code := range []string{"40001", "40P01"} {
				failTwice(t, db, table, when, code, func() error {
					ids = append(ids, fmt.Sprint("event-", len(ids)))
					_, err := svc.append(ids[len(ids)-1])
					return err
				})
			}
		}
	}
	svc.holds(ids...)
}

// failTwice does what is to be done at the third attempt, since the first two fail at a table.
func failTwice(t *testing.T, db *sql.DB, table, when, code string, do func() error) {
	t.Helper()
	// A sequence isn't undone with the transaction, so it counts the attempts.
	for _, statement := range []string{
		"DROP SEQUENCE IF EXISTS attempts; CREATE SEQUENCE attempts",
		"CREATE OR REPLACE FUNCTION fail() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN IF nextval('attempts') < 3 THEN " +
			"RAISE EXCEPTION 'again' USING ERRCODE = '" + code + "'; END IF; RETURN NULL; END $$",
		"CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE ON " + table + " " + when + " FOR EACH ROW EXECUTE FUNCTION fail()",
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := do(); err != nil {
		t.Errorf("%s, %s, %s: %v", table, when, code, err)
	}
	var attempts int
	if err := db.QueryRow("SELECT last_value FROM attempts").Scan(&attempts); err != nil || attempts != 3 {
		t.Errorf("%s, %s, %s: %d attempts, %v; want 3", table, when, code, attempts, err)
	}
	if _, err := db.Exec("DROP TRIGGER fail ON " + table); err != nil {
		t.Fatal(err)
	}
}

// The same holds for every other write.
func TestEveryWriteThatIsRolledBackIsDoneAgain(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	s := open(t, url)
	l := storetest.CreateLog(t, s, "first")
	db := direct(t, url)
	if err := s.CreateKey(t.Context(), log.Key{ID: "changed"}); err != nil {
		t.Fatal(err)
	}
	n := 0
	var label string // that is there
	var indexed log.Indexed
	for _, write := range []struct {
		table string
		do    func() error
	}{
		{"logs", func() error {
			return s.CreateLog(t.Context(), &log.Info{Name: fmt.Sprint("log-", n), Origin: fmt.Sprint("test.example/logs/", n), VKeys: []string{"v"}})
		}},
		{"signed", func() error { return s.Record(t.Context(), l.ID, log.Signed{Size: uint64(n), Note: []byte("note")}) }},
		{"checkpoints", func() error {
			return s.RecordAll(t.Context(), l.ID, []log.Signed{{Size: uint64(n), Note: []byte("note")}})
		}},
		{"api_keys", func() error { return s.CreateKey(t.Context(), log.Key{ID: fmt.Sprint(n)}) }},
		{"api_keys", func() error {
			return s.ChangeKey(t.Context(), "changed", func(k *log.Key) (*log.Key, error) { k.RevokedAt++; return nil, nil })
		}},
		{"api_keys", func() error { return s.UseKeys(t.Context(), map[string]int64{"changed": int64(n)}) }},
		{"logs", func() error {
			_, err := s.Configure(t.Context(), l.ID, func(c *log.Settings) error { c.Title = fmt.Sprint(n); return nil })
			return err
		}},
		{"labels", func() error {
			label = fmt.Sprint("label-", n)
			_, err := s.Label(t.Context(), label, "value")
			return err
		}},
		{"labels", func() error {
			from := label
			label = fmt.Sprint("renamed-", n)
			return s.RenameLabel(t.Context(), from, label)
		}},
		{"labels", func() error {
			return s.Import(t.Context(), nil, nil, map[string]string{fmt.Sprint("imported-", n): "value"})
		}},
		{"index_logs", func() error {
			from := indexed
			indexed = log.Indexed{Size: uint64(n), Last: [32]byte{1}}
			return s.WriteIndex(t.Context(), l.ID, from, indexed, nil, nil)
		}},
		{"heads", func() error { return s.Freeze(t.Context(), l.ID) }},
	} {
		for _, when := range []string{"NOT DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"} {
			for _, code := range []string{"40001", "40P01"} {
				if n++; write.table == "index_logs" && indexed == (log.Indexed{}) {
					if err := write.do(); err != nil { // inserts a row and changes it, which is two attempts a transaction
						t.Fatal(err)
					}
					n++
				}
				failTwice(t, db, write.table, when, code, write.do)
			}
		}
	}
}

// Servers that make logs, keys and labels at the same time don't fail each other.
func TestAdministrationAtTheSameTime(t *testing.T) {
	t.Parallel()
	url := migrated(t)
	stores := []*postgres.Store{open(t, url), open(t, url), open(t, url)}
	var wg sync.WaitGroup
	var labels sync.Map
	for i, s := range stores {
		wg.Go(func() {
			for n := range 10 {
				storetest.CreateLog(t, s, fmt.Sprintf("log-%d-%d", i, n))
				if label, err := s.Label(t.Context(), fmt.Sprint(n), fmt.Sprint(i)); err != nil {
					t.Error(err)
				} else if other, there := labels.LoadOrStore(n, label); there && other != label {
					t.Errorf("label %d is %s, and for another server %s", n, label, other)
				}
			}
		})
	}
	wg.Wait()
	logs, err := stores[0].Logs(t.Context())
	if err != nil || len(logs) != 30 || logs[29].ID != 30 {
		t.Errorf("got %d logs, %v; want 30, without a gap", len(logs), err)
	}
}
