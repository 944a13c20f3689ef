package log_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

// bothKeys returns the verifier keys and the verifiers that testSeed gives the log default.
func bothKeys(t *testing.T) (vkeys []string, verifiers []note.Verifier) {
	t.Helper()
	for _, kind := range []func(string, uint32) (note.Signer, string, error){testSeed.Ed25519, testSeed.MLDSA44} {
		_, vkey, err := kind("test.example/logs/default", 0)
		if err != nil {
			t.Fatal(err)
		}
		v, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		vkeys, verifiers = append(vkeys, vkey), append(verifiers, v)
	}
	return vkeys, verifiers
}

// signedWith appends an event, waits until it is signed, and returns which of both keys, "ed25519 mldsa44", have signed it.
func (s *testService) signedWith(t *testing.T, id string) string {
	t.Helper()
	s.append(id)
	s.signed()
	_, msg := s.log().Signed()
	_, verifiers := bothKeys(t)
	var names []string
	for i, name := range []string{"ed25519", "mldsa44"} {
		if _, _, err := checkpoint.Open(msg, "test.example/logs/default", verifiers[i]); err == nil {
			names = append(names, name)
		} else if !errors.Is(err, checkpoint.ErrNotSigned) {
			t.Error(err)
		}
	}
	return strings.Join(names, " ")
}

// Ed25519 signs always, ML-DSA-44 beside it while it is switched on. A key that was ever used stays the log's.
func TestMLDSA44IsSwitchedOnAndOff(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	vkeys, _ := bothKeys(t)
	reopen := func(mldsa bool) {
		t.Helper()
		s.close()
		s.mldsa = mldsa
		s.open()
	}
	for i, step := range []struct {
		mldsa bool
		vkeys int
		by    string
	}{
		{false, 1, "ed25519"}, {true, 2, "ed25519 mldsa44"}, {false, 2, "ed25519"}, {false, 2, "ed25519"}, {true, 2, "ed25519 mldsa44"},
	} {
		reopen(step.mldsa)
		if got := s.log().VKeys; !slices.Equal(got, vkeys[:step.vkeys]) {
			t.Errorf("step %d: the log has %d verifier keys, want %d", i, len(got), step.vkeys)
		}
		if by := s.signedWith(t, fmt.Sprint("e", i)); by != step.by {
			t.Errorf("step %d: signed by %q, want %q", i, by, step.by)
		}
	}

	// A log that is made while it is on has both keys from the start, and the id that its first key gives.
	other, err := s.CreateLog(t.Context(), log.ByServer(), "other", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	_, first, err := testSeed.Ed25519(other.Origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(other.VKeys) != 2 || other.VKeys[0] != first {
		t.Errorf("a new log has verifier keys %.80q, want two, of which the first is %s", other.VKeys, first)
	}

	s.close()
	store := s.openReader()
	defer store.Close()
	infos, err := store.Logs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, verifiers := bothKeys(t)
	report, err := log.Fsck(t.Context(), store, infos[0], log.FsckOptions{Verifiers: verifiers, Fence: s.fence()})
	if err != nil || len(report.Problems) > 0 || !report.Pinned {
		t.Errorf("fsck: %+v, %v", report, err)
	}
	report, err = log.Fsck(t.Context(), store, infos[0], log.FsckOptions{Verifiers: verifiers[:1], Fence: s.fence()})
	if err != nil || len(report.Problems) != 1 || !strings.Contains(report.Problems[0].What, "if it is, name it, too") {
		t.Errorf("fsck with the first key: %+v, %v", report, err)
	}
}

// Whoever holds a signature can get the key for it: the store has it first.
func TestAKeyIsStoredBeforeItSigns(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.append("e0")
	s.signed()
	s.close()
	s.mldsa, s.noKeys = true, true
	if err := s.tryOpen(); !errors.Is(err, errInjected) {
		t.Fatalf("start: got %v, want the error of storing the key", err)
	}
	s.mldsa = false
	s.open()
	if by := s.signedWith(t, "e1"); by != "ed25519" {
		t.Errorf("signed by %q, want ed25519", by)
	}
	if n := len(s.log().VKeys); n != 1 {
		t.Errorf("the log has %d verifier keys, want 1", n)
	}
}

// What the store names is shown to all who ask, so it must be what the seed derives.
func TestALogHasNoMLDSA44KeyButItsOwn(t *testing.T) {
	t.Parallel()
	_, foreign, err := checkpoint.Seed{8}.MLDSA44("test.example/logs/default", 0)
	if err != nil {
		t.Fatal(err)
	}
	vkeys, _ := bothKeys(t)
	for name, planted := range map[string][]string{
		"another seed's": {foreign}, "a third": {vkeys[1], foreign}, "nonsense": {"nonsense"},
	} {
		s := newTestService(t)
		id := s.log().ID
		for _, vkey := range planted {
			if err := s.store.AddVKey(t.Context(), id, vkey); err != nil {
				t.Fatal(err)
			}
		}
		s.close()
		for _, s.mldsa = range []bool{false, true} {
			if err := s.tryOpen(); err == nil || !strings.Contains(err.Error(), "this is not the seed that belongs to this store") {
				t.Errorf("%s: start with ML-DSA-44 %v: got %v, want a refusal", name, s.mldsa, err)
			}
		}
	}
}
