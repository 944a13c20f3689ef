package postgres_test

import (
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
	return open(t, o.url, o.pooler)
}

func (o *opener) Reopen(t *testing.T, s log.Store) log.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, o.url, o.pooler)
}

// migrated returns the URL of a database with a schema.
func migrated(t testing.TB) string {
	t.Helper()
	url := pgtest.Database(t)
	if _, err := postgres.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return url
}

func open(t testing.TB, url string, pooler bool) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Options{URL: url, PartRows: 100, Pooler: pooler})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) { storetest.Run(t, &opener{}) }
