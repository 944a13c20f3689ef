package witness

import (
	"log/slog"
	"time"
)

// outageReport is how often the operator is told of batches that weren't committed.
const outageReport = time.Minute

// outage is what the operator is told of batches that weren't committed: the first at once, since on a full disk that is so for each of
// them, and how many more there were once a minute and when batches are committed again.
type outage struct {
	logger   *slog.Logger
	told     time.Time // when the operator was told last that a batch wasn't committed
	ongoing  bool      // none was committed since then
	batches  int       // that weren't committed, of which the operator wasn't told
	requests int       // in them
}

// failed takes note of a batch that wasn't committed.
func (o *outage) failed(now time.Time, requests int, err error) {
	o.batches, o.requests = o.batches+1, o.requests+requests
	if now.Sub(o.told) < outageReport {
		return
	}
	o.logger.Error("a batch was not committed; nothing of it is cosigned; the next ones like it are counted", "batches", o.batches,
		"requests", o.requests, "error", err)
	o.told, o.ongoing, o.batches, o.requests = now, true, 0, 0
}

// committed takes note of a batch that was.
func (o *outage) committed(now time.Time) {
	if !o.ongoing && (o.batches == 0 || now.Sub(o.told) < outageReport) {
		return
	}
	o.logger.Info("batches are committed again", "batches_not_committed_since_last_told", o.batches, "requests", o.requests)
	o.ongoing, o.batches, o.requests = false, 0, 0
}
