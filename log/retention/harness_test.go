package retention_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/log/retention"
	"github.com/treeline-log/treeline/log/sqlite"
)

// began is when the clocks of all tests begin.
var began = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// onPostgres is set while the tests run on PostgreSQL.
var onPostgres bool

// TestMain runs all tests on the embedded store, or on PostgreSQL.
func TestMain(m *testing.M) { pgtest.Either(m, &onPostgres, "^$") }

// server is a service on a store of the test's own with a keeper, all by a clock that the test moves.
type server struct {
	*log.Service
	t        testing.TB
	dir      string
	url      string // of a PostgreSQL store
	store    store
	archive  archive.Archive
	keeper   *retention.Keeper
	clock    *atomic.Int64 // µs since 1970 UTC
	logs     *bytes.Buffer
	registry *prometheus.Registry
	most     uint64 // events in a bundle
}

// store is a store that can be closed.
type store interface {
	log.Store
	Close() error
}

// newServer opens a service in a directory, with an archive beside it unless there is another one.
func newServer(t testing.TB, dir string, a archive.Archive) *server {
	t.Helper()
	url := ""
	if onPostgres {
		url = pgtest.Database(t)
		if _, err := postgres.Migrate(t.Context(), url); err != nil {
			t.Fatal(err)
		}
	}
	return newServerAt(t, dir, url, a, began)
}

// newServerAt does that when it is the given time, on a PostgreSQL store if there is a URL.
func newServerAt(t testing.TB, dir, url string, a archive.Archive, now time.Time) *server {
	t.Helper()
	s := &server{t: t, dir: dir, url: url, archive: a, clock: new(atomic.Int64), logs: new(bytes.Buffer), most: 40}
	s.clock.Store(now.UnixMicro())
	if a == nil {
		s.archive = openArchive(t, "dir:"+s.archiveDir())
	}
	s.open()
	t.Cleanup(s.close)
	return s
}

func openArchive(t testing.TB, url string) archive.Archive {
	t.Helper()
	a, err := archive.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func (s *server) archiveDir() string { return filepath.Join(s.dir, "archive") }
func (s *server) path() string       { return filepath.Join(s.dir, "treeline.db") }
func (s *server) now() time.Time     { return time.UnixMicro(s.clock.Load()).UTC() }

func (s *server) open() {
	s.t.Helper()
	store, err := s.openStore()
	if err != nil {
		s.t.Fatal(err)
	}
	fence, err := checkpoint.OpenFileFence(filepath.Join(s.dir, "fence"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.registry, s.store = prometheus.NewRegistry(), store
	logger := slog.New(slog.NewTextHandler(s.logs, nil))
	s.Service, err = log.Open(context.Background(), log.Config{
		Store: store, Seed: checkpoint.Seed{7}, Fence: fence, Prefix: "test.example", Interval: 5 * time.Millisecond,
		Logger: logger, Metrics: s.registry, Now: s.now,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.keeper = retention.New(retention.Config{
		Service: s.Service, Store: store, Archive: s.archive, Logger: logger, Metrics: s.registry, Now: s.now, BundleEvents: s.most,
	})
}

func (s *server) openStore() (store, error) {
	if s.url != "" {
		return postgres.Open(context.Background(), postgres.Options{URL: s.url})
	}
	return sqlite.Open(context.Background(), s.path())
}

func (s *server) close() {
	if s.Service != nil {
		s.Service.Close()
		if err := s.store.Close(); err != nil {
			s.t.Error(err)
		}
		s.Service = nil
	}
}

// create makes a log with a policy.
func (s *server) create(name string, policy log.Retention) *log.Log {
	s.t.Helper()
	l, err := s.CreateLog(s.t.Context(), log.ByServer(), name, log.Settings{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.setPolicy(l, policy)
	return l
}

func (s *server) setPolicy(l *log.Log, policy log.Retention) {
	s.t.Helper()
	if _, err := l.SetRetention(s.t.Context(), log.ByServer(), policy, "the test asks for it"); err != nil {
		s.t.Fatal(err)
	}
	s.signed(l)
}

// signed waits until all of a log is signed.
func (s *server) signed(l *log.Log) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := l.Wait(ctx, l.Sizes().Size, log.StateSigned); err != nil {
		s.t.Fatalf("log %s of size %d isn't signed: %v", l.Name, l.Sizes().Size, err)
	}
}

// append appends n events, each with a text of its own in it that nothing else holds, and returns the index of the first.
func (s *server) append(l *log.Log, n int, member string) uint64 {
	s.t.Helper()
	first := l.Sizes().Size
	var events []*log.Event
	for i := range n {
		e, err := log.ParseEvent(fmt.Appendf(nil, `{"action":"user.login","actor":{"id":"u%d","email":"u%d@%s.example","name":"%s"},
			"metadata":{"text":"%s","dossier":"%s"}}`, i%3, i%3, l.Name, secret(l, first+uint64(i), "name"), secret(l, first+uint64(i), "text"), member),
			log.ParseOptions{Now: s.now(), NewID: func() string { return fmt.Sprintf("%s-%d", l.Name, first+uint64(i)) }})
		if err != nil {
			s.t.Fatal(err)
		}
		events = append(events, e)
	}
	if _, err := l.Append(s.t.Context(), events); err != nil {
		s.t.Fatal(err)
	}
	return first
}

// secret is a word in one event only, which is in no other one. Events are so small that they aren't compressed at rest.
func secret(l *log.Log, index uint64, what string) string {
	return fmt.Sprintf("%sx%sx%dxz", what, l.Name, index)
}

// run has the keeper do what is to be done with a log.
func (s *server) run(l *log.Log) *retention.Report {
	s.t.Helper()
	r, err := s.keeper.RunOnce(s.t.Context(), l, false)
	if err != nil {
		s.t.Fatal(err)
	}
	s.signed(l)
	return r
}

// fsck checks that all of a log is sound.
func (s *server) fsck(l *log.Log) {
	s.t.Helper()
	r, err := log.Fsck(s.t.Context(), s.store, l.Info, log.FsckOptions{Verifiers: verifiers(s.t, l)})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(r.Problems) > 0 || r.Size != l.Sizes().Size {
		s.t.Fatalf("fsck of log %s: %+v", l.Name, r)
	}
}

func verifiers(t testing.TB, l *log.Log) []note.Verifier {
	t.Helper()
	v, err := checkpoint.NewVerifier(l.VKeys[0])
	if err != nil {
		t.Fatal(err)
	}
	return []note.Verifier{v}
}

// raw returns the bytes of all files in a directory, those too that are about to be removed.
func raw(t testing.TB, dir string) []byte {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all = append(all, content...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// database returns the bytes of the store's files.
func (s *server) database() []byte {
	s.t.Helper()
	var all []byte
	for _, path := range s.files() {
		content, err := os.ReadFile(path)
		if err != nil && (s.url == "" || !errors.Is(err, fs.ErrNotExist)) { // PostgreSQL removes files when it comes to it
			s.t.Fatal(err)
		}
		all = append(all, content...)
	}
	return all
}

// files returns the paths of the store's files, WAL of PostgreSQL aside, once they have what was written.
func (s *server) files() []string {
	s.t.Helper()
	pattern := filepath.Join(s.dir, "treeline*") // with that of the search index, and their WALs
	if s.url != "" {
		db, err := sql.Open("postgres", s.url)
		if err != nil {
			s.t.Fatal(err)
		}
		defer db.Close()
		for range 2 { // the first drops what was dropped, the second what that left behind
			if _, err := db.Exec("CHECKPOINT"); err != nil {
				s.t.Fatal(err)
			}
		}
		if err := db.QueryRow(`SELECT current_setting('data_directory') || '/base/' || oid || '/*' FROM pg_database
			WHERE datname = current_database()`).Scan(&pattern); err != nil {
			s.t.Fatal(err)
		}
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		s.t.Fatalf("the files %s: %v, %v", pattern, files, err)
	}
	return files
}

// archived returns the events of a log that the archive shows, by their indices, as search finds them.
func (s *server) archived(l *log.Log) map[uint64]*archive.Found {
	s.t.Helper()
	all := make(map[uint64]*archive.Found)
	err := archive.Search(s.t.Context(), s.archive, archive.Query{
		Origin: l.Origin, Filter: new(log.Filter), Trust: log.Trust{Keys: verifiers(s.t, l)},
	}, func(f *archive.Found) error {
		all[f.Index] = f
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// names are those of a log's bundles in the archive.
func (s *server) names(l *log.Log) string {
	s.t.Helper()
	names, err := s.archive.List(s.t.Context(), l.Origin+"/")
	if err != nil {
		s.t.Fatal(err)
	}
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], l.Origin+"/")
	}
	return strings.Join(names, " ")
}

// outage is an archive that can't be reached, or that gives back something else than was written, when the test wants it.
type outage struct {
	archive.Archive
	down    atomic.Bool
	corrupt atomic.Bool
}

func (o *outage) check() error {
	if o.down.Load() {
		return fmt.Errorf("the archive is on fire")
	}
	return nil
}

func (o *outage) Put(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := o.check(); err != nil {
		return err
	}
	return o.Archive.Put(ctx, name, write)
}

func (o *outage) Replace(ctx context.Context, name string, write func(io.Writer) error) error {
	if err := o.check(); err != nil {
		return err
	}
	return o.Archive.Replace(ctx, name, write)
}

func (o *outage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return o.Archive.List(ctx, prefix)
}

func (o *outage) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	r, err := o.Archive.Open(ctx, name)
	if err != nil || !o.corrupt.Load() {
		return r, err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err == nil {
		content[len(content)/2] ^= 1
	}
	return io.NopCloser(bytes.NewReader(content)), err
}
