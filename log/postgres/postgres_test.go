package postgres_test

import (
	"sync"
	"testing"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/log/storetest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// opener opens stores in databases of their own.
type opener struct {
	url    string
	by     func(url string) string // the way to a database; nil: directly
	pooler bool
}

func (o *opener) Open(t *testing.T) log.Store {
	o.url = migrated(t)
	if o.by != nil {
		o.url = o.by(o.url)
	}
	return openWith(t, postgres.Options{URL: o.url, PartRows: 100, Pooler: o.pooler})
}

func (o *opener) Reopen(t *testing.T, s log.Store) log.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return openWith(t, postgres.Options{URL: o.url, PartRows: 100, Pooler: o.pooler})
}

// template is a database with a schema, which others are copies of.
var template struct {
	once sync.Once
	url  string
	err  error
}

// migrated returns the URL of a database with a schema.
func migrated(t testing.TB) string {
	t.Helper()
	template.once.Do(func() {
		template.url = pgtest.Database(t)
		_, template.err = postgres.Migrate(t.Context(), template.url)
	})
	if template.err != nil {
		t.Fatal(template.err)
	}
	return pgtest.Copy(t, template.url)
}

// migratedAt returns the URL of a database with a schema on a server of the test's own.
func migratedAt(t testing.TB, server *pgtest.Server) string {
	t.Helper()
	url := server.Database(t)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return url
}

func open(t testing.TB, url string) *postgres.Store {
	t.Helper()
	return openWith(t, postgres.Options{URL: url, PartRows: 100})
}

func openWith(t testing.TB, o postgres.Options) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) { storetest.Run(t, &opener{}) }
