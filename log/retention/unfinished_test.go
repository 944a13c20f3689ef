package retention_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/treeline-log/treeline/log/archive"
)

// halting is an archive in a directory of which the process ends, as by kill -9, while an object is written.
type halting struct {
	archive.Archive
	dir string
}

func (h halting) Put(_ context.Context, name string, write func(io.Writer) error) error {
	dir := filepath.Join(h.dir, filepath.FromSlash(filepath.Dir(name)))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	return fmt.Errorf("it was killed")
}

// What an interrupted write has left in an archive is rid of what is erased, too, also if it isn't written again.
func TestErasureReachesUnfinishedBundles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	archived := filepath.Join(dir, "archive")
	s := newServer(t, dir, halting{openArchive(t, "dir:"+archived), archived})
	policy := month
	policy.EraseEarly = true
	l := s.create("acme", policy)
	first := s.append(l, 30, "none")
	s.signed(l)
	s.pass(31 * day)
	if r := s.run(l); r.Blocked == nil || !bytes.Contains(raw(t, archived), []byte(secret(l, first+1, "name"))) {
		t.Fatalf("it was to be interrupted: %+v", r)
	}
	e := s.erase(l, "u1", "/actor/name")
	s.pass(day)
	s.run(l)
	if done, err := l.Erasure(t.Context(), e.ID); err != nil || done.Outcome == nil {
		t.Fatalf("the erasure isn't finished: %+v, %v", done, err)
	}
	for i := first; i < first+30; i++ {
		if erased := (i-first)%3 == 1; erased && bytes.Contains(raw(t, archived), []byte(secret(l, i, "name"))) {
			t.Errorf("event %d: what was erased is in the archive", i)
		}
	}
}

// A log's directory in the archive can be a link to another place.
func TestArchiveBehindALink(t *testing.T) {
	t.Parallel()
	s := newServer(t, t.TempDir(), nil)
	policy := month
	policy.EraseEarly = true
	l := s.create("acme", policy)
	s.append(l, 30, "none")
	s.signed(l)
	other := t.TempDir()
	path := filepath.Join(s.archiveDir(), filepath.FromSlash(l.Origin))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, path); err != nil {
		t.Fatal(err)
	}
	s.pass(31 * day)
	if r := s.run(l); r.Purged != 30 || len(s.archived(l)) == 0 {
		t.Fatalf("got %+v, and the archive shows %d events", r, len(s.archived(l)))
	}
}
