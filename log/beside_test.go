package log_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// What commands do beside the store is told at the next start, once, as of when and by whom it was done; and that it failed, if it did.
func TestActsBesideTheStoreAreToldAtTheNextStart(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	before := s.toldSize()
	s.close()
	store, err := s.openStore()
	if err != nil {
		t.Fatal(err)
	}
	by := log.ByCommand("treeline fence drop", "root")
	act := log.Act{Action: "fence.dropped", Metadata: map[string]any{"origin": "test.example/logs/gone"}}
	acted := time.Now()
	for _, want := range []error{nil, errInjected} {
		err := log.DoBeside(t.Context(), store, by, act, func(ctx context.Context) error {
			if labels, err := store.Labels(ctx, ""); err != nil || len(labels) == 0 {
				t.Errorf("it is done before the store has it: %v, %v", labels, err)
			}
			return want
		})
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	store.Close()
	time.Sleep(10 * time.Millisecond)
	for range 2 {
		opened := time.Now()
		s.open()
		all := s.told(before)
		if len(all) != 3 {
			t.Fatalf("told: got %+v, want three events", all)
		}
		for i, e := range all {
			at, err := time.Parse(time.RFC3339, e.OccurredAt)
			if err != nil || at.Before(acted.Truncate(time.Microsecond)) || !at.Before(opened) {
				t.Errorf("event %d occurred at %s, want between %v and %v", i, e.OccurredAt, acted, opened)
			}
			if e.Action != "treeline.fence.dropped" || e.Actor.ID != by.ID || e.Actor.Type != "command" || e.Actor.Name != "root" {
				t.Errorf("event %d: got %+v", i, e)
			}
		}
		if all[0].Metadata["origin"] != "test.example/logs/gone" || all[1].Metadata["origin"] != "test.example/logs/gone" {
			t.Errorf("what was dropped: got %v and %v", all[0].Metadata, all[1].Metadata)
		}
		if all[0].Outcome != "" || all[1].Outcome != "" || all[2].Outcome != "unknown" || all[2].Metadata["act"] != all[1].ID {
			t.Errorf("how they ended: got %+v", all)
		}
		s.close()
	}
}

// While the system log can't be appended to, a server starts all the same, and a later start tells.
func TestActsThatCantBeToldAreToldLater(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	before := s.toldSize()
	act := log.Act{Action: "fence.accepted", Metadata: map[string]any{"size": 7}}
	err := log.DoBeside(t.Context(), s.store, byOperator, act, func(context.Context) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Freeze(t.Context(), s.Systems()[0].ID); err != nil {
		t.Fatal(err)
	}
	s.close()
	s.open()
	if n := s.toldSize(); n != before {
		t.Errorf("%d events in a frozen log, want %d", n, before)
	}
	if _, _, err := s.Succeed(t.Context(), byTest, log.SystemName, "system-2", "why"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.close()
		s.open()
		n := 0
		for _, e := range s.told(0) {
			if e.Action == "treeline.fence.accepted" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("told %d times, want once: %+v", n, s.told(0))
		}
	}
}

// That an operator accepts a claim is recorded before it is so, once.
func TestAcceptedClaimsAreRecorded(t *testing.T) {
	t.Parallel()
	s := &testService{t: t, dir: t.TempDir(), seed: testSeed, policy: quorumOf(t, 2, 2), system: true}
	if onPostgres {
		s.url = migrated(t)
	}
	s.open()
	if _, err := s.CreateLog(t.Context(), log.ByServer(), "default", log.Settings{}); err != nil {
		t.Fatal(err)
	}
	if err := s.log().Outvoted(t.Context(), map[string]uint64{"w1.example+00000000": 9}); err != nil {
		t.Fatal(err)
	}
	before := s.toldSize()
	const huge = 1<<62 + 1 // which is no number of JSON
	for _, size := range []uint64{9, 9, huge, 8} {
		s.close()
		s.accept = map[string]uint64{"default": size}
		s.open()
		if err := s.log().Stopped(); err != nil {
			t.Errorf("accepted up to %d: %v", size, err)
		}
	}
	all := s.told(before)
	if len(all) != 2 || all[0].Metadata["size"] != "9" || all[1].Metadata["size"] != "4611686018427387905" {
		t.Fatalf("told: got %+v, want both sizes", all)
	}
	for _, e := range all {
		if e.Action != "treeline.log.claims_accepted" || e.Actor.ID != byOperator.ID || len(e.Targets) != 1 || e.Targets[0] != s.log().Target() {
			t.Errorf("told: got %+v", e)
		}
	}
	// What can't be recorded isn't done.
	system := s.Systems()[0].ID
	if err := s.store.Freeze(t.Context(), system); err != nil {
		t.Fatal(err)
	}
	s.close()
	s.accept = map[string]uint64{"default": huge + 1}
	if err := s.tryOpen(); !errors.Is(err, log.ErrUnrecorded) {
		t.Fatalf("opened: %v, want ErrUnrecorded", err)
	}
	s.Service = nil
	s.accept = nil
	s.open()
	if got := s.log().Accepted(); got != huge {
		t.Errorf("accepted up to %d, want %d", got, uint64(huge))
	}
}
