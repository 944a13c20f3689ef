package log

import (
	"context"
	"errors"
)

// Purged is what an event treeline.retention.purged says: that the contents of entries were removed, and why.
type Purged struct {
	Ranges    []Span // ascending
	Policy    Retention
	Archive   *Archived // nil: archiving was switched off for the log
	Approvers []string  // of the policy
	Part      int       // from 1: a purge may take several events
	Parts     int
}

// Archived says where purged contents are: in a bundle of all events [From, To) that was read back and verified.
type Archived struct {
	Name     string `json:"name"`
	Manifest string `json:"manifest_sha256"` // lower-case hex of the SHA-256 of its manifest
	From     uint64 `json:"from"`
	To       uint64 `json:"to"`
	Size     uint64 `json:"size"` // of the checkpoint in it
}

// ParsePurged returns what an event treeline.retention.purged says; ErrOwnEvent if it isn't one.
func ParsePurged(e *Event) (*Purged, error) { return nil, errors.ErrUnsupported }

// Covers reports whether the content of the entry at index was purged by it.
func (p *Purged) Covers(index uint64) bool { return covers(p.Ranges, index) }

// Reasons why nothing of a log is purged, although something has expired.
const (
	BlockedStopped     = "stopped"     // the log contradicts what was signed
	BlockedDamaged     = "damaged"     // an event that tells what was decided can't be read
	BlockedClock       = "clock"       // the server's clock is behind the log's newest entry
	BlockedUnsigned    = "unsigned"    // not signed yet
	BlockedUnwitnessed = "unwitnessed" // the policy asks for witnesses, who haven't cosigned it yet
)

// Expired is what may be purged of a log.
type Expired struct {
	// Spans are the entries of [From, To) to purge, ascending: all but those that are held, are the log's own events, or are purged.
	Spans    []Span
	From, To uint64 // what was looked at: all of it has expired
	End      uint64 // how far the log has expired: what is before it has come to the age
	Held     uint64 // how many of [From, To) only holds keep
	Policy   Retention
	// Blocked is why nothing may be purged now, one of the Blocked constants, or "". Then Why says more.
	Blocked string
	Why     string
}

// ErrBlocked is wrapped by the error of a purge that may not be now.
var ErrBlocked = errors.New("nothing may be purged")

// Expired returns what of the entries from an index on, at most limit of them, may be purged now.
func (l *Log) Expired(ctx context.Context, from, limit uint64) (Expired, error) {
	return Expired{}, errors.ErrUnsupported
}

// Purge records that the contents in spans, as Expired returned them, are purged, and removes them. archived says which archive
// has them; nil is refused unless the policy has archiving off. All is decided again, so that a hold, a shorter clock or another
// server that came between are heeded: then it is ErrBlocked, ErrHeld, or ErrChanged, and nothing was done.
// Once it is recorded the contents are gone for readers, also if removing them fails, which Resume does again.
func (l *Log) Purge(ctx context.Context, by By, spans []Span, archived *Archived) error {
	return errors.ErrUnsupported
}

// Purges returns all ranges of the log that were purged, ascending, and by which event each was.
func (l *Log) Purges() []PurgedSpan { return l.custody.Load().purged }

// PurgedSpan is a range of purged entries.
type PurgedSpan struct {
	Span
	By Ref
}
