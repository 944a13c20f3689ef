package log

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
)

// maxToldFilter is how many bytes of an export's filter the system log tells; of a longer one its hash tells the rest.
const maxToldFilter = 8 << 10

// Export is an export that is under way.
type Export struct {
	log *Log
	by  By
	id  string
}

// BeginExport records that events of the log are about to be exported: those that a filter selects, in a form. Unless the error is
// nil nothing may leave; it is ErrUnrecorded.
func (l *Log) BeginExport(ctx context.Context, by By, filter, format string) (*Export, error) {
	told := map[string]any{"filter": cleaned(filter, maxToldFilter), "format": format}
	if len(filter) > maxToldFilter {
		hash := sha256.Sum256([]byte(filter))
		told["filter_sha256"] = hex.EncodeToString(hash[:])
	}
	id, err := l.service.record(ctx, by, Act{Action: "export.started", Targets: []Target{l.Target()}, Metadata: told})
	return &Export{l, by, id}, err
}

// End records how the export ended: with what was sent, and unless failed is nil before everything was.
func (x *Export) End(sent map[string]any, failed error) {
	told := map[string]any{"started": x.id}
	maps.Copy(told, sent)
	outcome := "success"
	if failed != nil {
		outcome = "failure"
	}
	x.log.service.recordEnd(x.by, Act{Action: "export.finished", Targets: []Target{x.log.Target()}, Metadata: told}, outcome)
}
