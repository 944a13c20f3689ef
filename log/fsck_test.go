package log_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/log"
)

// What fsck says of a log that is whole.
func TestFsckOfAWholeLog(t *testing.T) {
	t.Parallel()
	s := newTampered(t)
	r := s.check()
	if r.Log != "default" || r.Origin != "test.example/logs/default" || r.Size != 600 || r.Signed != 600 || !r.Pinned ||
		r.Checkpoints != 4 || r.Contents != 600 || r.Truncated || len(r.Root) != 64 {
		t.Errorf("report: got %+v", r)
	}
	store := s.openReader()
	defer store.Close()
	infos, err := store.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var progress atomic.Int64
	bare, err := log.Fsck(t.Context(), store, infos[0], log.FsckOptions{
		SkipContents: true, Progress: func(n int) { progress.Add(int64(n)) },
	})
	if err != nil || len(bare.Problems) > 0 || bare.Pinned || bare.Contents != 0 || bare.Root != r.Root {
		t.Errorf("without keys, fence and contents: got %+v, %v", bare, err)
	}
	if progress.Load() != 600 {
		t.Errorf("progress: got %d, want 600", progress.Load())
	}
}

func TestFsckOfAnEmptyLog(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	if r := s.check(); r.Size != 0 || r.Checkpoints != 1 || r.Contents != 0 {
		t.Errorf("report: got %+v", r)
	}
}

// A server that appends and signs meanwhile is no damage.
func TestFsckBesideAServer(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	var wg sync.WaitGroup
	var done atomic.Bool
	for c := range 4 {
		wg.Go(func() {
			for i := 0; !done.Load(); i++ {
				if _, err := s.log().Append(t.Context(), []*log.Event{event(t, fmt.Sprint("c", c, "-", i), "x")}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		s.check()
	}
	done.Store(true)
	wg.Wait()
	s.signed()
	s.check()
}

// A log in ruins gives a report of bounded length that says so.
func TestFsckOfRuins(t *testing.T) {
	t.Parallel()
	for name, ruin := range map[string]func(f *intruder){
		"all contents gone": func(f *intruder) { f.exec(`DELETE FROM payloads`) },
		"all ids gone":      func(f *intruder) { f.exec(`DELETE FROM ids`) },
		"all entries noise": func(f *intruder) { f.exec(`UPDATE entries SET entries = randomblob(length(entries))`) },
		"all entries in reverse": func(f *intruder) {
			all := f.entries()
			for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
				all[i], all[j] = all[j], all[i]
			}
			f.setEntries(all)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTampered(t)
			s.forge(t, ruin)
			r := s.fsck()
			if len(r.Problems) != 20 || !r.Truncated {
				t.Errorf("got %d problems, truncated %v, want 20 and true", len(r.Problems), r.Truncated)
			}
			if r.Problems[0].Index != 0 {
				t.Errorf("first problem: got %+v, want index 0", r.Problems[0])
			}
			for i := 1; i < len(r.Problems); i++ {
				if r.Problems[i].Index < r.Problems[i-1].Index {
					t.Errorf("problems are not in order: %d after %d", r.Problems[i].Index, r.Problems[i-1].Index)
				}
			}
		})
	}
}

// Without a fence and without its own keys a store vouches for itself; a key that it names and isn't one is a problem.
func TestFsckOfAWrongVerifierKey(t *testing.T) {
	t.Parallel()
	s := newTampered(t)
	s.forge(t, func(f *intruder) { f.exec(`UPDATE log_keys SET vkey = 'nonsense'`) })
	store := s.openReader()
	defer store.Close()
	infos, err := store.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := log.Fsck(t.Context(), store, infos[0], log.FsckOptions{})
	if err != nil || len(r.Problems) == 0 || !strings.Contains(r.Problems[0].What, "a verifier key that isn't one") {
		t.Errorf("the store's keys: got %+v, %v", r, err)
	}
	r, err = log.Fsck(t.Context(), store, infos[0], log.FsckOptions{Verifiers: []note.Verifier{verifier(t, infos[0].Origin)}})
	if err != nil || len(r.Problems) != 2 || !strings.Contains(r.Problems[1].What, "is not among those that the store names") {
		t.Errorf("a pinned key: got %+v, %v", r, err)
	}
	if err := s.tryOpen(); err == nil || !strings.Contains(err.Error(), "this is not the seed that belongs to this store") {
		t.Errorf("start: got %v", err)
	}
}

// On a machine with many cores there are more workers than connections: none may hold one while it waits for a second.
func TestFsckWithMoreWorkersThanConnections(t *testing.T) {
	s := newTestService(t)
	batch := make([]*log.Event, 0, 10_000)
	for round := range 3 {
		batch = batch[:0]
		for i := range 8_000 {
			batch = append(batch, event(t, fmt.Sprintf("r%d-%d", round, i), ""))
		}
		if _, err := s.log().Append(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	s.signed()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(16))
	if r := s.check(); r.Contents != 24_000 {
		t.Errorf("contents: got %d, want 24000", r.Contents)
	}
}
