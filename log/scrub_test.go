package log_test

import (
	"strings"
	"testing"

	"github.com/treeline-log/treeline/log"
)

// The scrub comes to every log, empty ones and others' damage notwithstanding, and says which event of which log is damaged.
func TestTheScrubFindsDamageAtRest(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	damaged, err := s.CreateLog(t.Context(), log.ByServer(), "damaged", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := damaged.Append(t.Context(), events(t, 3)); err != nil {
		t.Fatal(err)
	}
	s.append("whole")
	s.signed()
	s.forge(t, func(f *intruder) {
		f.exec(`UPDATE payloads SET seed = zeroblob(32) WHERE idx = 2 AND log = ?`, damaged.ID)
	})
	s.until("the scrub to report the damage", func() bool {
		return strings.Contains(s.logs.String(), "the background scrub found a stored event that can't be verified")
	})
	for _, want := range []string{"log=damaged", "entry 2: its content or seed is not what its entry commits to", "treeline fsck"} {
		if got := s.logs.String(); !strings.Contains(got, want) {
			t.Errorf("the report: got %s, want %s in it", got, want)
		}
	}
	// Appending goes on: what is damaged is content, and no entry that is signed.
	if _, err := damaged.Append(t.Context(), events(t, 1)); err != nil {
		t.Errorf("append: %v", err)
	}
	if err := log.Scrub(t.Context(), s.store, s.log().ID, 1); err != nil {
		t.Errorf("scrub of the whole log: %v", err)
	}
}
