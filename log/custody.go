package log

import "errors"

// OwnPrefix begins the ids of a log's own events, so that they are found without reading all others. Clients may have such ids, too: an
// event is the log's own by its action, which begins with "treeline.".
const OwnPrefix = "treeline:"

// Actions of the events that tell what was decided about a log's contents.
const (
	ActionRetentionRequested = "treeline.retention.requested"
	ActionRetentionApproved  = "treeline.retention.approved"
	ActionRetentionCancelled = "treeline.retention.cancelled"
	ActionRetentionChanged   = "treeline.retention.changed"
	ActionHoldPlaced         = "treeline.hold.placed"
	ActionHoldReleased       = "treeline.hold.released"
	ActionPurged             = "treeline.retention.purged"
	ActionErased             = "treeline.subject.erased"
)

// Ref names an event of the log.
type Ref struct {
	ID    string `json:"id"`
	Index uint64 `json:"index"`
}

// Errors of what is decided about a log's contents.
var (
	// ErrOwnEvent means that an event isn't one that a server makes of its own.
	ErrOwnEvent = errors.New("not an event of the server's own")
	// ErrChanged means that something became of what was to be decided about since it was looked at.
	ErrChanged = errors.New("changed meanwhile")
)

// custody is what a log's own events say of its contents: which policy applies, what is held, what was purged and erased. It doesn't
// change; a Log has a new one after each such event.
type custody struct {
	retention folded
	holds     []*Hold
	purged    []PurgedSpan // ascending, disjoint
}

type folded struct{ current RetentionState }

func (f folded) state() RetentionState { return f.current }

func (c *custody) allHolds() []Hold {
	var all []Hold
	for _, h := range c.holds {
		all = append(all, *h)
	}
	return all
}
