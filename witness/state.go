package witness

import (
	"context"
	"errors"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// Errors of a State.
var (
	// ErrMoved means that another writer moved the head of one of the logs after it was read. Nothing was changed.
	ErrMoved = errors.New("another writer has moved the log's head")
	// ErrNotFound means that there is no such log, or that none of its checkpoints was ever cosigned.
	ErrNotFound = errors.New("not found")
)

// A State is what a witness must never forget. It is used by several goroutines, and may be by several processes.
type State interface {
	// AddKeys makes keys known, all or none, and returns how many of them were new. With extend a key is added to a log that is
	// known already, without it only logs are added that aren't: whoever may add logs by a list must not thereby get a key for a
	// log of somebody else. What is known of a log is never changed, and nothing ever removes it: to forget a log would be to
	// cosign a second history of it.
	AddKeys(ctx context.Context, keys []LogKey, extend bool) (added int, err error)

	// Keys returns the keys whose Seq is greater than after, in that order. A key that becomes known later has a greater one.
	Keys(ctx context.Context, after int64) ([]LogKey, error)

	// Update moves heads of logs. It calls decide once, with the present head of each origin; what decide returns is done in one
	// transaction, in which each head must still be what decide was given: its size, its root and its time. If one isn't, nothing
	// is changed and the error is ErrMoved. That condition, and not any lock, is what keeps a witness from going back.
	//
	// If the error is nil everything is durable: it outlives the process and the machine's power. After any other error than
	// ErrMoved it may have been done or not.
	Update(ctx context.Context, origins []string, decide func(heads map[string]Head) Changes) error

	// Cosigned returns the newest cosigned checkpoint of a log. The error is ErrNotFound if there is none.
	Cosigned(ctx context.Context, origin string) (note []byte, err error)

	// Heads returns the heads of at most limit logs whose origins come after the given one in the order of their bytes.
	Heads(ctx context.Context, after string, limit int) ([]Head, error)

	// Evidence returns what was kept of requests that contradict what was cosigned, oldest first. Of one log and kind a State keeps
	// MaxEvidence at most, and each refused checkpoint once.
	Evidence(ctx context.Context) ([]Evidence, error)
}

// A LogKey is a key by which a log is known.
type LogKey struct {
	Seq     int64 // given by the State, from 1
	Origin  string
	VKey    string
	QPD     uint64 // add-checkpoint requests that the log may make in a day; 0: no limit. Of a log the first key's holds
	Contact string // how to reach the log's operator, in their words
}

// A Head is what a witness remembers of one log: the newest checkpoint that it cosigned. Before the first one it is size 0 with
// the root of the empty tree, at no time.
type Head struct {
	Origin string
	Size   uint64
	Root   merkle.Hash
	At     int64 // time of the newest cosignature, seconds since 1970 UTC; 0: never cosigned
}

// Time returns when the newest cosignature was made.
func (h Head) Time() time.Time { return time.Unix(h.At, 0).UTC() }

// Changes are what one transaction does.
type Changes struct {
	Moves    []Move // one at most for each log
	Evidence []Evidence
}

// A Move is what a log's head becomes.
type Move struct {
	Head Head
	Note []byte // the checkpoint, with the log's signatures and the witness's own
}

// A Conflict is how a request contradicts what was cosigned.
type Conflict string

// The kinds of evidence. The first alone is proof against the log: it has signed two trees of one size.
const (
	ConflictFork         Conflict = "fork"         // the size that was cosigned, with another root
	ConflictEmpty        Conflict = "empty"        // size 0 with a root that isn't that of the empty tree
	ConflictInconsistent Conflict = "inconsistent" // a larger size, with a proof that doesn't verify: maybe only the proof is wrong
)

// MaxEvidence is how much evidence of one kind a State keeps of one log. The first is as good as the last, and a log that signs
// many trees must not fill the disk.
const MaxEvidence = 8

// Evidence is a checkpoint with a valid signature of the log's key that the witness refused, beside the one it had cosigned.
type Evidence struct {
	Conflict Conflict
	Seen     int64                 // seconds since 1970 UTC
	Head     Head                  // what was cosigned then
	Refused  checkpoint.Checkpoint // what wasn't
	Note     []byte                // the note of Refused, with the log's signatures
	Proof    []byte                // the request's lines before the note
	Cosigned []byte                // the note of Head; nil if nothing was cosigned. Where Update gets none it takes what is recorded
}
