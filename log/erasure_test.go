package log_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/treeline-log/treeline/log"
)

// A content that is damaged doesn't keep what follows it from being removed, at once or after a start, and is said to be.
func TestDamagedContentKeepsNothingElse(t *testing.T) {
	if onPostgres {
		t.Skip("it is damaged by SQL for SQLite")
	}
	s := newTestService(t)
	s.setRetention(log.Retention{Max: log.Forever, EraseEarly: true})
	s.people(600, 3)
	s.signed()
	mend := s.fail("reduce")
	for person := range 3 {
		if _, err := s.erase(person, "/actor/name"); err != nil {
			t.Fatal(err)
		}
	}
	s.forge(t, func(f *intruder) { f.exec(`UPDATE payloads SET payload = x'02' WHERE log = ? AND idx = 4`, f.log.ID) })
	mend()
	left := func() (n int) {
		t.Helper()
		for person := range 3 {
			n += strings.Count(s.stored(), fmt.Sprintf("Name%dx", person))
		}
		return n
	}
	if left() == 0 {
		t.Fatal("it was to fail")
	}
	if _, err := s.log().Resume(t.Context()); !errors.Is(err, log.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	if n := left(); n != 0 {
		t.Errorf("%d contents still have what was erased", n)
	}
}

// The log's own events are never found by who has made them, not even those that are appended while it is looked for others.
func TestOwnEventsAreNobodys(t *testing.T) {
	s := newTestService(t)
	done := make(chan error, 1)
	go func() {
		var err error
		for range 60 {
			if _, e := s.log().PlaceHold(t.Context(), operator, "m", "r", url.Values{"actor_id": {"nobody"}}); e != nil {
				err = e
			}
		}
		done <- err
	}()
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		p, err := s.log().PlanErasure(t.Context(), log.ErasureRequest{
			Subject: url.Values{"actor_id": {operator.ID}}, Claims: []string{"/actor/*", "/metadata/*"}, LegalBasis: "Art. 17 GDPR",
		})
		if err != nil {
			t.Fatal(err)
		}
		if p.Matching != 0 || len(p.Entries()) != 0 {
			t.Fatalf("it would erase entries %v", p.Entries())
		}
	}
}

// Pointers that are long when they are written in JSON are told in as many events as that takes.
func TestErasureOfOddNames(t *testing.T) {
	var group log.ErasedGroup
	for i := range 64 {
		group.Pointers = append(group.Pointers, fmt.Sprintf("/metadata/%s%02d", strings.Repeat("\x01", 62), i))
	}
	for i := range uint64(2000) {
		group.Ranges = append(group.Ranges, log.Span{From: 2 * i, To: 2*i + 1})
	}
	told := 0
	for _, size := range log.ToldErased([]log.ErasedGroup{group}) {
		if size > 20<<10 { // of 24 KiB that an event can have
			t.Errorf("an event has %d bytes of it", size)
		}
		told++
	}
	if told < 3 {
		t.Errorf("it was told in %d events", told)
	}
}

// What a server has decided that was killed before it announced it is learned all the same.
func TestUnannouncedDecisionsAreLearned(t *testing.T) {
	s := newTestService(t)
	s.setRetention(log.Retention{Max: log.Forever, EraseEarly: true})
	s.people(3, 3)
	if _, err := s.erase(1, "/actor/name"); err != nil {
		t.Fatal(err)
	}
	if err := s.log().Unannounced(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{false, true} {
		if err := s.LearnCustody(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		if e, err := s.log().Erasures(t.Context()); err != nil || (len(e) == 1) != all {
			t.Errorf("asked for all: %v: it knows of %d erasures, %v", all, len(e), err)
		}
	}
}
