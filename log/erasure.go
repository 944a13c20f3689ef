package log

import (
	"context"
	"errors"
	"net/url"
)

// Erased is what an event treeline.subject.erased says: that claims of entries were removed, and on what legal basis; never their values.
type Erased struct {
	Erasure    string // its id, the same in all its parts
	Groups     []ErasedGroup
	Subject    string // by which members the subject was found, such as actor_id, joined by commas
	LegalBasis string
	Reference  string
	Part       int // from 1: an erasure may take several events
	Parts      int
}

// ErasedGroup are entries of which the same claims were erased.
type ErasedGroup struct {
	Pointers []string `json:"pointers"` // ascending
	Ranges   []Span   `json:"ranges"`   // ascending
}

// ParseErased returns what an event treeline.subject.erased says; ErrOwnEvent if it isn't one.
func ParseErased(e *Event) (*Erased, error) { return nil, errors.ErrUnsupported }

// Names reports whether it says that a claim of the entry at index was erased.
func (e *Erased) Names(index uint64, pointer string) bool {
	for _, g := range e.Groups {
		if covers(g.Ranges, index) && contains(g.Pointers, pointer) {
			return true
		}
	}
	return false
}

// ErasureRequest asks for claims of all events of a data subject to be erased.
type ErasureRequest struct {
	// Subject finds the events: parameters of a search among actor_id, actor_email, target_id and metadata.<path>, each with one value.
	Subject url.Values
	// Claims are pointers of the claims to erase, in which * stands for a whole segment: /actor/email, /targets/*/name, /metadata/*.
	// /id, /action, /occurred_at and /credential can't be erased.
	Claims     []string
	LegalBasis string
	Reference  string // of whoever asked for it: a ticket, say; nothing personal
}

// ErasurePlan is what an erasure would do.
type ErasurePlan struct {
	Request  ErasureRequest
	Size     uint64            // of the log, when it was planned
	Matching uint64            // events of the subject
	Events   uint64            // of them, those that have such claims still
	First    []uint64          // the first of their indices, at most MaxPlanned
	Claims   map[string]uint64 // in how many events each pointer is erased
	HeldBy   []string          // ids of the holds that forbid it
	Early    uint64            // events that haven't come to the minimum age, where that forbids it

	groups []ErasedGroup
}

// MaxPlanned is how many indices a plan lists.
const MaxPlanned = 1000

// Errors of an erasure.
var (
	// ErrErasure means that such an erasure can't be asked for.
	ErrErasure = errors.New("not an erasure")
	// ErrTooEarly means that events haven't come to the minimum age that the log keeps them for.
	ErrTooEarly = errors.New("the log's retention policy forbids it before the minimum age")
)

// PlanErasure finds what an erasure would remove, and what forbids it. Errors are ErrErasure, ErrFilter, ErrHub, ErrSystem, and those of reading.
func (l *Log) PlanErasure(ctx context.Context, r ErasureRequest) (*ErasurePlan, error) {
	return nil, errors.ErrUnsupported
}

// Erase records an erasure as it was planned. On return no reader is shown the erased claims any more; that they are removed from
// the store, its files, its index and the archive takes longer, see Resume and Erasure. Errors are ErrHeld (a *HeldError),
// ErrTooEarly, ErrChanged if something became of the events since they were planned, and those of appending.
func (l *Log) Erase(ctx context.Context, by By, plan *ErasurePlan) (Erasure, error) {
	return Erasure{}, errors.ErrUnsupported
}

// Erasure is an erasure that was recorded.
type Erasure struct {
	ID         string
	Events     []Ref // the events that record it, in order of their parts
	ErasedAt   int64 // µs since 1970 UTC
	By         By
	Subject    string
	LegalBasis string
	Reference  string
	Groups     []ErasedGroup
	// Store and Index tell whether the values were removed from the contents and the index. That they are gone from the store's files
	// and archives is known by the outcome.
	Store, Index bool
	// Outcome is what FinishErasure recorded when all was done, nil before.
	Outcome []byte
}

// Erasures returns all erasures of the log, in order.
func (l *Log) Erasures(ctx context.Context) ([]Erasure, error) { return nil, errors.ErrUnsupported }

// Erasure returns the erasure with an id, or ErrNotFound.
func (l *Log) Erasure(ctx context.Context, id string) (Erasure, error) {
	return Erasure{}, errors.ErrUnsupported
}

// FinishErasure records the outcome of an erasure, once everything of it is done: a JSON object. The first one stays.
func (l *Log) FinishErasure(ctx context.Context, id string, outcome []byte) error {
	return errors.ErrUnsupported
}

// Resume removes from the store what was recorded as purged or erased and is still there, from the contents and from the index, and
// reports whether anything is left to do. It is done again and again until nothing is; each call does a bounded part.
func (l *Log) Resume(ctx context.Context) (more bool, err error) {
	return false, errors.ErrUnsupported
}
