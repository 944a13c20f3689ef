package api

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/treeline-log/treeline/log"
)

// An index that is far behind is the log's trouble, which passes: the client is told to wait, and that nothing was stored.
func TestAnIndexThatIsFarBehindIsTooManyRequests(t *testing.T) {
	p := asProblem(fmt.Errorf("%w: by 50001 events", log.ErrIndexLag))
	if p.Status != http.StatusTooManyRequests || p.Code != "index_lag" {
		t.Errorf("got %d %s, want 429 index_lag", p.Status, p.Code)
	}
}

// A store that can't be reached is the server's trouble, which passes. Nothing was stored, unless a commit was under way or done.
func TestAStoreThatCantBeReachedIsUnavailable(t *testing.T) {
	away := fmt.Errorf("dial: %w", log.ErrUnreachable)
	for _, row := range []struct {
		err  error
		code string
	}{
		{away, "store_unavailable"},
		{fmt.Errorf("%w: %w", log.ErrUnavailable, away), "store_unavailable"},
		{fmt.Errorf("%w: %w", log.ErrOutcomeUnknown, away), "outcome_unknown"},
		{afterCommit(away), "outcome_unknown"},
	} {
		if p := asProblem(row.err); p.Status != http.StatusServiceUnavailable || p.Code != row.code {
			t.Errorf("%v: got %d %s, want 503 %s", row.err, p.Status, p.Code, row.code)
		}
	}
	if p := asProblem(afterCommit(log.ErrDamaged)); p.Status != http.StatusInternalServerError {
		t.Errorf("a damaged store: got %d %s, want 500", p.Status, p.Code)
	}
}

// A hub's monitors take what isn't there for an alarm, and a server that fails for one that may be asked again. That a log was forked or
// set back since the hub has it doesn't pass.
func TestAGrowthWithoutProofIsNotFound(t *testing.T) {
	p := asProblem(fmt.Errorf("log acme, from size 3 to 5: %w", log.ErrNoProof))
	if p.Status != http.StatusNotFound || p.Code != "no_proof" {
		t.Errorf("got %d %s, want 404 no_proof", p.Status, p.Code)
	}
}
