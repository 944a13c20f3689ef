package log_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

// predecessor is what a following log's first event says, as a verifier reads it.
type predecessor struct {
	Action   string
	Metadata struct {
		Origin string `json:"predecessor_origin"`
		Size   uint64 `json:"predecessor_size"`
		Root   string `json:"predecessor_root"`
		Reason string
	}
}

// verifiedPredecessor takes the first event's proof to somebody who has the new log's verifier key and nothing else.
func verifiedPredecessor(t testing.TB, l *log.Log) (p predecessor) {
	t.Helper()
	file, err := l.Proof(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	v, err := log.VerifyProof(file, log.Trust{Keys: []note.Verifier{verifier(t, l.Origin)}})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := checkpoint.ParseProof(file)
	if err != nil {
		t.Fatal(err)
	}
	var d struct{ Event json.RawMessage }
	if err := json.Unmarshal(parsed.Extra, &d); err != nil || v.Index != 0 {
		t.Fatalf("the proof is of entry %d: %v", v.Index, err)
	}
	if err := json.Unmarshal(d.Event, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// fencedOf returns the checkpoint that a log's fence has.
func (s *testService) fencedOf(l *log.Log) checkpoint.Checkpoint {
	s.t.Helper()
	msg, err := s.fence().Load(s.t.Context(), l.Origin)
	if err != nil {
		s.t.Fatal(err)
	}
	c, _, err := checkpoint.Open(msg, l.Origin, verifier(s.t, l.Origin))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// checkFollows checks what a log that follows another says, and that the other one has ended.
func (s *testService) checkFollows(next *log.Log, c checkpoint.Checkpoint, reason string) {
	s.t.Helper()
	p := verifiedPredecessor(s.t, next)
	if p.Action != "treeline.log.started" || p.Metadata.Origin != c.Origin || p.Metadata.Size != c.Size ||
		p.Metadata.Root != c.Root.String() || p.Metadata.Reason != reason {
		s.t.Errorf("the first event says %+v, the fence has %+v", p, c)
	}
	if _, err := s.log().Append(s.t.Context(), []*log.Event{event(s.t, "late", "x")}); !errors.Is(err, log.ErrFrozen) {
		s.t.Errorf("appending to the frozen log: %v, want ErrFrozen", err)
	}
	if err := s.Ready(s.t.Context()); err != nil {
		s.t.Errorf("not ready: %v", err)
	}
}

// After a restore of a backup that lacks what was signed, the log is over, and another follows it from where the fence says.
func TestALogWhoseEndIsLostIsFollowed(t *testing.T) {
	s := newTestService(t)
	s.append("kept")
	s.signed()
	_, seen := s.log().Signed()
	s.close()
	backup, err := os.ReadFile(s.path())
	if err != nil {
		t.Fatal(err)
	}
	s.open()
	s.append("lost")
	s.signed()
	last, _ := s.log().Signed()
	s.close()
	if err := os.WriteFile(s.path(), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	s.open()
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "rollback") {
		t.Fatalf("ready after a bad restore: %v", err)
	}
	next, c, err := s.Succeed(t.Context(), log.ByServer(), "default", "default-2", "the disk <died>")
	if err != nil {
		t.Fatal(err)
	}
	if c != last || c.Size != 2 || s.fencedOf(s.log()) != last {
		t.Errorf("begun from %+v, want %+v", c, last)
	}
	s.checkFollows(next, last, "the disk <died>")

	// It stays so, and reads go on.
	s.close()
	s.open()
	next = s.Log("default-2")
	s.checkFollows(next, last, "the disk <died>")
	if s.log().Stopped() == nil || !s.log().Frozen() || next.Frozen() || next.Stopped() != nil {
		t.Errorf("stopped %v and %v, frozen %t and %t", s.log().Stopped(), next.Stopped(), s.log().Frozen(), next.Frozen())
	}
	if r, err := s.log().RecordByID(t.Context(), "kept"); err != nil || r.Index != 0 {
		t.Errorf("reading the frozen log: %+v, %v", r, err)
	}
	if _, note := s.log().Signed(); string(note) != string(seen) {
		t.Errorf("the frozen log's checkpoint is\n%s\nwant\n%s", note, seen)
	}
	if _, err := next.Append(t.Context(), []*log.Event{event(t, "goes-on", "x")}); err != nil {
		t.Errorf("appending to the following log: %v", err)
	}
}

// A log that is intact is signed to its end before another follows it.
func TestALogThatIsIntactIsFollowedFromItsEnd(t *testing.T) {
	s := newTestService(t)
	s.append("a")
	s.signed()
	release := s.holdPublisher()
	s.append("b")
	type result struct {
		next *log.Log
		c    checkpoint.Checkpoint
		err  error
	}
	done := make(chan result)
	go func() {
		next, c, err := s.Succeed(context.Background(), log.ByServer(), "default", "next", "")
		done <- result{next, c, err}
	}()
	release()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	if r.c.Size != 2 || r.c != s.fencedOf(s.log()) {
		t.Errorf("begun from %+v", r.c)
	}
	s.checkFollows(r.next, r.c, "")
	if r.next.Public() {
		t.Error("the following log of a private one is public")
	}

	// Again, as after a crash half-way; with another name, or another predecessor, it is refused.
	again, c, err := s.Succeed(t.Context(), log.ByServer(), "default", "next", "")
	if err != nil || again != r.next || c != r.c || again.Sizes().Size != 1 {
		t.Errorf("again: %v, %+v, size %d", err, c, again.Sizes().Size)
	}
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "other", log.Settings{Public: true}); err != nil {
		t.Fatal(err)
	}
	for what, names := range map[string][2]string{
		"itself": {"default", "default"}, "another's follower": {"other", "next"}, "a log with events": {"other", "default"},
		"a second log": {"default", "next-too"},
	} {
		if _, _, err := s.Succeed(t.Context(), log.ByServer(), names[0], names[1], ""); !errors.Is(err, log.ErrExists) {
			t.Errorf("succeeded by %s: %v, want ErrExists", what, err)
		}
	}
	if s.Log("other").Frozen() || s.Log("next-too") != nil {
		t.Error("something was changed, though the log couldn't be followed")
	}
	for _, names := range [][2]string{{"other", "Not A Name"}, {"absent", "new"}} {
		if _, _, err := s.Succeed(t.Context(), log.ByServer(), names[0], names[1], ""); err == nil {
			t.Errorf("%s was succeeded by %s", names[0], names[1])
		}
	}
	third, _, err := s.Succeed(t.Context(), log.ByServer(), "other", "third", "")
	if err != nil || !third.Public() {
		t.Errorf("succeeding an empty, public log: %v", err)
	}
}

// Without its fence nobody knows where a log ended, so nothing is changed.
func TestALogWithoutItsFenceIsNotFollowed(t *testing.T) {
	s := newTestService(t)
	s.append("a")
	s.signed()
	s.close()
	if err := os.RemoveAll(filepath.Join(s.dir, "fence")); err != nil {
		t.Fatal(err)
	}
	s.open()
	if _, _, err := s.Succeed(t.Context(), log.ByServer(), "default", "next", ""); err == nil || !strings.Contains(err.Error(), "the fence has no checkpoint") {
		t.Errorf("got %v", err)
	}
	if s.log().Frozen() || s.Log("next") != nil {
		t.Error("something was changed")
	}
}

// Freezing a log is known to every server before its next append, and has no part in what others do.
func TestAFrozenLogRefusesWhatIsQueued(t *testing.T) {
	s := newTestService(t)
	other, err := s.CreateLog(t.Context(), log.ByServer(), "other", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	s.append("a")
	release := s.hold()
	errs := make(chan error, 2)
	queue := func(l *log.Log) {
		events := []*log.Event{event(t, "b", "x")}
		go func() {
			_, err := l.Append(context.Background(), events)
			errs <- err
		}()
	}
	queue(s.log())
	s.untilHeld()
	queue(other)
	if err := s.store.Freeze(t.Context(), s.log().ID); err != nil { // as another server does
		t.Fatal(err)
	}
	release()
	var frozen int
	for range 2 {
		if err := <-errs; errors.Is(err, log.ErrFrozen) {
			frozen++
		} else if err != nil {
			t.Error(err)
		}
	}
	if frozen != 1 || !s.log().Frozen() || s.log().Sizes().Size != 1 || other.Sizes().Size != 1 {
		t.Errorf("%d refused, sizes %d and %d", frozen, s.log().Sizes().Size, other.Sizes().Size)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
}

// A server whose log is stopped learns from the store that it was frozen, and is ready again.
func TestOtherServersLearnThatAStoppedLogIsFrozen(t *testing.T) {
	if !onPostgres {
		t.Skip("one server has a SQLite store")
	}
	s := newTestService(t)
	s.append("a")
	s.signed()
	blind := &testService{t: t, dir: t.TempDir(), url: s.url, seed: testSeed} // without the fence
	blind.open()
	if err := blind.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "unfenced") {
		t.Fatalf("ready without a fence: %v", err)
	}
	if _, _, err := s.Succeed(t.Context(), log.ByServer(), "default", "next", ""); err != nil {
		t.Fatal(err)
	}
	blind.until("the log to be known as frozen", blind.log().Frozen)
	if _, err := blind.log().Append(t.Context(), []*log.Event{event(t, "b", "x")}); !errors.Is(err, log.ErrFrozen) {
		t.Errorf("appending to it: %v, want ErrFrozen", err)
	}
}
