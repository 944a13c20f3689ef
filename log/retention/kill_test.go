package retention_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/retention"
)

// Killed at any step (kill -9, in a process of its own) the keeper goes on where it was: it never purges what isn't archived, and archives
// nothing under two names.
func TestKillAtEveryStep(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("TREELINE_TEST_KEEPER_DIR"); dir != "" {
		killedKeeper(t, dir)
		return
	}
	dir := t.TempDir()
	s := newServer(t, dir, nil)
	policy := month
	policy.EraseEarly = true
	l := s.create("acme", policy)
	first := s.append(l, 90, "none")
	hold, err := l.PlaceHold(t.Context(), log.ByServer(), "a lawsuit", "counsel asks for it", url.Values{"actor_id": {"u2"}})
	if err != nil {
		t.Fatal(err)
	}
	s.signed(l)
	end := first + 90
	s.pass(31 * day)
	killed := 0
	steps := make(map[string]int)
	// run has processes do what is to be done, each until the next time that it has come to a step, and then one to the end.
	run := func(check func(), order ...string) {
		s.close()
		for _, next := range append(order, "") {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestKillAtEveryStep$", "-test.count", "1")
			cmd.Env = append(os.Environ(), "TREELINE_TEST_KEEPER_DIR="+dir, "TREELINE_TEST_KEEPER_URL="+s.url,
				"TREELINE_TEST_KEEPER_STEP="+next, fmt.Sprint("TREELINE_TEST_KEEPER_NOW=", s.clock.Load()))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
				t.Fatalf("until it has %s: %v\n%s", next, err, out)
			}
			if err != nil {
				killed++
				steps[next]++
			}
			s.open()
			l = s.Log("acme")
			check()
			s.fsck(l)
			s.close()
		}
		s.open()
		l = s.Log("acme")
	}
	safe := func() {
		t.Helper()
		data, archived := s.database(), s.archived(l)
		for i := first; i < end; i++ {
			if f := archived[i]; !bytes.Contains(data, []byte(secret(l, i, "text"))) && (f == nil || f.Record.Event == nil && f.Claims == nil) {
				t.Fatalf("event %d is neither in the store nor in the archive", i)
			}
		}
		bundles := make(map[uint64]bool)
		names, err := s.archive.List(t.Context(), l.Origin)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			var from, to uint64
			if _, err := fmt.Sscanf(name[len(l.Origin)+1:], "%d-%d.zip", &from, &to); err != nil || bundles[from] {
				t.Fatalf("archived are %v", names)
			}
			for i := from; i < to; i++ {
				if bundles[i] {
					t.Fatalf("event %d is archived twice: %v", i, names)
				}
				bundles[i] = true
			}
		}
	}
	bundle := []string{"resumed", "named", "archived", "verified", "purged"}
	run(safe, slices.Concat(bundle, bundle, bundle, []string{"shredded"})...)
	if n := holdsSecrets(s.database(), l, first, end); n != 30 {
		t.Errorf("%d events are left, want the 30 that are held", n)
	}
	if _, err := l.ReleaseHold(t.Context(), log.ByServer(), hold.ID, "it is settled"); err != nil {
		t.Fatal(err)
	}
	e := s.erase(l, "u2", "/actor/name")
	run(safe, "resumed", "erased", "erased", "shredded", "finished", "verified", "purged", "shredded")
	if n := holdsSecrets(s.database(), l, first, end); n != 0 {
		t.Errorf("%d events are left", n)
	}
	done, err := l.Erasure(t.Context(), e.ID)
	if err != nil || done.Outcome == nil {
		t.Errorf("the erasure isn't finished: %+v, %v", done, err)
	}
	all := append(s.database(), raw(t, s.archiveDir())...)
	for i := first; i < end; i++ {
		if erased := (i-first)%3 == 2; bytes.Contains(all, []byte(secret(l, i, "name"))) == erased {
			t.Errorf("event %d: erased is %v", i, erased)
		}
	}
	for _, step := range []string{"resumed", "named", "archived", "verified", "purged", "erased", "finished", "shredded"} {
		if steps[step] == 0 {
			t.Errorf("it was never killed after it has %s: %v", step, steps)
		}
	}
	t.Logf("killed %d times: %v", killed, steps)
}

// killedKeeper does what is to be done until a step, and then ends as by kill -9.
func killedKeeper(t *testing.T, dir string) {
	now, err := strconv.ParseInt(os.Getenv("TREELINE_TEST_KEEPER_NOW"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	s := newServerAt(t, dir, os.Getenv("TREELINE_TEST_KEEPER_URL"), nil, time.UnixMicro(now))
	l := s.Log("acme")
	s.signed(l)
	retention.SetStep(func(step string) {
		if step == os.Getenv("TREELINE_TEST_KEEPER_STEP") {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	if _, err := s.keeper.RunOnce(t.Context(), l, false); err != nil {
		t.Fatal(err)
	}
}
