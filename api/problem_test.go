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
