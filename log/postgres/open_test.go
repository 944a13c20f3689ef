package postgres_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
)

// What keeps a store from being opened is named, with where the database is, and never with the password.
func TestOpeningSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	good := migrated(t)
	change := func(do func(*url.URL)) string {
		u := at(t, good)
		do(u)
		return u.String()
	}
	newer := migrated(t)
	if _, err := direct(t, newer).Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, TRUE)"); err != nil {
		t.Fatal(err)
	}
	latin := at(t, pgtest.Database(t))
	name := strings.TrimPrefix(latin.Path, "/") + "_latin1"
	if _, err := direct(t, latin.String()).Exec("CREATE DATABASE " + name + " TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'"); err != nil {
		t.Fatal(err)
	}
	latin.Path = name
	if _, err := postgres.Migrate(t.Context(), latin.String()); err == nil || !strings.Contains(err.Error(), "LATIN1") {
		t.Errorf("migrating a database of another encoding: got %v, want a refusal", err)
	}
	for _, test := range []struct {
		name, url string
		is        error
		says      string
	}{
		{"no URL", "postgres://user:correct%20horse@[", nil, "want postgres://"},
		{"wrong password", change(func(u *url.URL) { u.User = url.UserPassword(pgtest.User, "tr0ub4dor") }), postgres.ErrUnreachable, "password"},
		{"no such user", change(func(u *url.URL) { u.User = url.UserPassword("nobody", "tr0ub4dor") }), postgres.ErrUnreachable, "nobody"},
		{"no such database", change(func(u *url.URL) { u.Path = "nowhere" }), postgres.ErrUnreachable, "createdb"},
		{"nobody there", change(func(u *url.URL) { u.Host = "127.0.0.1:1" }), postgres.ErrUnreachable, "refused"},
		{"no such host", change(func(u *url.URL) { u.Host = "nowhere.invalid:5432" }), postgres.ErrUnreachable, "nowhere.invalid"},
		{"no TLS", change(func(u *url.URL) { u.RawQuery = "sslmode=require" }), nil, "the server has no TLS"},
		{"a timeout that is none", good + "&statement_timeout=soon", nil, "statement_timeout=soon"},
		{"no schema", pgtest.Database(t), postgres.ErrSchema, "treeline migrate up"},
		{"a newer schema", newer, postgres.ErrSchema, "newer treeline"},
		{"another encoding", latin.String(), postgres.ErrSchema, "LATIN1"},
	} {
		for how, open := range map[string]func() (*postgres.Store, error){
			"writing": func() (*postgres.Store, error) { return postgres.Open(t.Context(), postgres.Options{URL: test.url}) },
			"reading": func() (*postgres.Store, error) {
				return postgres.OpenReadOnly(t.Context(), postgres.Options{URL: test.url})
			},
		} {
			s, err := open()
			if err == nil {
				s.Close()
				t.Errorf("%s, for %s: no error", test.name, how)
				continue
			}
			text := err.Error()
			if test.is != nil && !errors.Is(err, test.is) || !strings.Contains(text, test.says) {
				t.Errorf("%s, for %s: got %q, want %v, and in it %q", test.name, how, text, test.is, test.says)
			}
			for _, secret := range []string{"tr0ub4dor", "correct horse", "correct%20horse"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s, for %s: the password is in %q", test.name, how, text)
				}
			}
		}
	}
}

// A server that may lose what it has committed is refused, whoever has made it so, unless the operator accepts that.
func TestAnUnsafeServerIsRefused(t *testing.T) {
	t.Parallel()
	unsafe := pgtest.Start(t, "fsync = off", "full_page_writes = off")
	made := unsafe.Database(t)
	if _, err := postgres.Migrate(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	byDatabase, byRole := migrated(t), migrated(t)
	database := strings.TrimPrefix(at(t, byDatabase).Path, "/")
	role := at(t, byRole)
	role.User = url.UserPassword("hasty", pgtest.Password)
	for _, statement := range []string{
		"ALTER DATABASE " + database + " SET synchronous_commit = off",
		"CREATE ROLE hasty SUPERUSER LOGIN PASSWORD '" + pgtest.Password + "'",
		"ALTER ROLE hasty SET synchronous_commit = off",
	} {
		if _, err := direct(t, byRole).Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	for _, test := range []struct {
		url      string
		settings []string
	}{
		{made, []string{"fsync", "full_page_writes"}},
		{byDatabase, []string{"synchronous_commit"}},
		{role.String(), []string{"synchronous_commit"}},
		{migrated(t) + "&synchronous_commit=off", []string{"synchronous_commit"}},
	} {
		_, err := postgres.Open(t.Context(), postgres.Options{URL: test.url})
		settings := strings.Join(test.settings, ", ")
		if !errors.Is(err, postgres.ErrUnsafe) || !strings.Contains(err.Error(), "off is "+settings+";") ||
			!strings.Contains(err.Error(), "--allow-unsafe-db") {
			t.Errorf("got %v, want %v because of %s", err, postgres.ErrUnsafe, settings)
		}
		var logged bytes.Buffer
		s, err := postgres.Open(t.Context(), postgres.Options{
			URL: test.url, AllowUnsafe: true, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if want := "UNSAFE DATABASE: a crash loses or damages acknowledged events"; !strings.Contains(logged.String(), want) ||
			!strings.Contains(logged.String(), settings) {
			t.Errorf("the log has no %q of %s:\n%s", want, settings, &logged)
		}
	}
}

// A server that becomes one that loses commits, while it is used, takes nothing more until it is safe again: after it was started with
// other settings, and after it has read them again.
func TestAServerThatBecomesUnsafeIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	url := migratedAt(t, server)
	svc := serve(t, url, postgres.Options{URL: url})
	allowed := openWith(t, postgres.Options{URL: url, AllowUnsafe: true})
	if _, err := svc.append("before"); err != nil {
		t.Fatal(err)
	}
	until := func(what string, reached func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !reached(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited in vain for the service %s: %v", what, svc.Ready(t.Context()))
			}
		}
	}
	unsafe := func() bool { return errors.Is(svc.Ready(t.Context()), postgres.ErrUnsafe) }
	ready := func() bool { return svc.Ready(t.Context()) == nil }
	for _, setting := range []string{"fsync", "full_page_writes"} {
		server.Exec(t, "postgres", "ALTER SYSTEM SET "+setting+" = off")
		server.Quit()
		server.Run(t)
		until("to find it unsafe", unsafe)
		if _, err := svc.append("unsafe"); !errors.Is(err, log.ErrUnavailable) || !errors.Is(err, postgres.ErrUnsafe) {
			t.Errorf("%s is off, appending: %v", setting, err)
		}
		if _, err := svc.Log("default").RecordByID(t.Context(), "before"); err != nil {
			t.Errorf("%s is off, reading: %v", setting, err)
		}
		if err := allowed.Ping(t.Context()); err != nil {
			t.Errorf("%s is off, which was allowed: %v", setting, err)
		}
		server.Exec(t, "postgres", "ALTER SYSTEM RESET "+setting)
		server.Exec(t, "postgres", "SELECT pg_reload_conf()")
		until("to be ready", ready)
		if _, err := svc.append("safe-" + setting); err != nil {
			t.Errorf("%s is on again, appending: %v", setting, err)
		}
	}
	svc.holds("before", "safe-fsync", "safe-full_page_writes")
}

// A standby can be read, and not be served from. It may become a primary, so that is waited for.
func TestAStandbyIsForReading(t *testing.T) {
	t.Parallel()
	primary := pgtest.Start(t)
	url := primary.Database(t)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	standby := primary.Clone(t)
	standby.StandBy(t, primary)
	standby.Run(t)
	there := at(t, url)
	there.Host = fmt.Sprintf("127.0.0.1:%d", standby.Port)
	_, err := postgres.Open(t.Context(), postgres.Options{URL: there.String()})
	if !errors.Is(err, postgres.ErrUnreachable) || !strings.Contains(err.Error(), "standby") {
		t.Errorf("opened for writing: %v, want %v", err, postgres.ErrUnreachable)
	}
	reader, err := postgres.OpenReadOnly(t.Context(), postgres.Options{URL: there.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := reader.Logs(t.Context()); err != nil {
		t.Error(err)
	}
	standby.Promote(t)
	s, err := postgres.Open(t.Context(), postgres.Options{URL: there.String()})
	if err != nil {
		t.Fatalf("after its promotion: %v", err)
	}
	s.Close()
}

// Connections that a restart of the server ended are replaced by new ones, and no append pays for them. The store tells of it, since
// what was started again may be less than what ended.
func TestARestartOfTheServerIsSurvived(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	url := s.Database(t)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	svc := serve(t, url, postgres.Options{URL: url})
	incarnation := func() string {
		t.Helper()
		now, err := svc.store.Incarnation(t.Context())
		if err != nil || now == "" {
			t.Fatalf("the incarnation: got %q, %v", now, err)
		}
		return now
	}
	var ids []string
	for i, end := range []func(){s.Stop, s.Quit} {
		before := incarnation()
		ids = append(ids, fmt.Sprint("before-", i))
		if _, err := svc.append(ids[len(ids)-1]); err != nil {
			t.Fatal(err)
		}
		svc.signed()
		end()
		s.Run(t)
		ids = append(ids, fmt.Sprint("after-", i))
		if _, err := svc.append(ids[len(ids)-1]); err != nil {
			t.Errorf("the first append after restart %d: %v", i, err)
		}
		if now := incarnation(); now == before || now != incarnation() {
			t.Errorf("restart %d: the incarnation was %s and is %s", i, before, now)
		}
	}
	svc.holds(ids...)
}

// Logs and keys that an older program has made have no settings, and no end.
func TestOlderLogsAndKeysAreBroughtUp(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	if err := postgres.MigrateTo(t.Context(), url, 5); err != nil {
		t.Fatal(err)
	}
	info := log.Info{ID: 1, Name: "one", Origin: "test.example/logs/one", CreatedAt: 5, Settings: log.Settings{Public: true}}
	key, _ := log.NewKey(log.RoleReader, 1, "a name", 3)
	for statement, args := range map[string][]any{
		"INSERT INTO logs (id, name, origin, public, created_at) VALUES (1, 'one', 'test.example/logs/one', TRUE, 5)": nil,
		"INSERT INTO api_keys (id, hash, role, log, name, created_at) VALUES ($1, $2, 'reader', 1, 'a name', 3)":      {key.ID, key.Hash[:]},
	} {
		if _, err := direct(t, url).Exec(statement, args...); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Open(t.Context(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Key(t.Context(), key.ID); err != nil || got != key {
		t.Errorf("key: got %+v, %v, want %+v", got, err, key)
	}
	if logs, err := s.Logs(t.Context()); err != nil || len(logs) != 1 || !reflect.DeepEqual(logs[0], info) {
		t.Errorf("logs: got %+v, %v, want %+v", logs, err, info)
	}
}

// A migration that runs out of time says so, and not that the database is away.
func TestAMigrationThatTakesTooLongSaysSo(t *testing.T) {
	url := pgtest.Database(t)
	db, err := sqlx.Connect("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Beginx()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec(`CREATE TABLE logs (id INT)`); err != nil { // which the first step waits for
		t.Fatal(err)
	}
	_, err = postgres.Migrate(t.Context(), url+"&statement_timeout=300")
	if err == nil || errors.Is(err, postgres.ErrUnreachable) || !strings.Contains(err.Error(), "it took longer than statement_timeout") {
		t.Errorf("got %v, want a word about statement_timeout", err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Errorf("the same again: %v", err)
	}
}
