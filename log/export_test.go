package log

import (
	"context"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log/index"
)

// Scrub checks the log's first size events as the background scrub does, and returns the first thing that is wrong.
func Scrub(ctx context.Context, store Reader, log ID, size uint64) error {
	c, err := foldCustody(ctx, store, log, new(custody))
	if err != nil {
		return err
	}
	for from := uint64(0); from < size; from += scrubSize {
		if err := checkContents(ctx, store, c, log, from, min(from+scrubSize, size)); err != nil {
			return err
		}
	}
	return nil
}

// SetCopyEvents sets how many events are copied in one transaction, until the returned function is called.
func SetCopyEvents(n uint64) (reset func()) {
	before := copyEvents
	copyEvents = n
	return func() { copyEvents = before }
}

// Queued returns how many events wait for a batch.
func (s *Service) Queued() int { return s.sequencer.waiting() }

// IndexTo makes the index of a log anew, up to a size.
func IndexTo(ctx context.Context, store Store, id ID, size uint64) error {
	if err := store.DropIndex(ctx, id); err != nil {
		return err
	}
	x := newIndexer(store, func(ID, error) {}, storedCustody(store))
	for at := (Indexed{}); ; {
		to, err := x.run(ctx, id, at, size)
		if err != nil || to == at {
			return err
		}
		at = to
	}
}

// WordsVersion names what this program's words are.
var WordsVersion = wordsVersion

// IndexWith makes the index of a log anew: without words up to a size, and from there on with words of a version.
func IndexWith(ctx context.Context, store Store, id ID, older, size uint64, version uint32) error {
	if err := store.DropIndex(ctx, id); err != nil {
		return err
	}
	x, at := newIndexer(store, func(ID, error) {}, storedCustody(store)), Indexed{}
	for x.words = 0; ; {
		to, err := x.run(ctx, id, at, older)
		if err != nil {
			return err
		}
		if to == at {
			if x.words == version || size <= older {
				return nil
			}
			x.words, older = version, size
		}
		at = to
	}
}

// Unindexed returns how many events the index is behind, and whether it is searched.
func (l *Log) Unindexed() (uint64, bool) { return l.progress.unindexed() }

// MaxUnindexed is the lag from which on appends are refused.
const MaxUnindexed = maxUnindexed

// Terms builds the segment of an index with contents as they are stored, for a benchmark.
type Terms struct {
	b segmentBuilder
}

// Build builds a segment from payloads, all received at the same time.
func (t *Terms) Build(number uint64, payloads []Payload) (*index.Segment, error) {
	t.b.termer.builder.Begin(number, wordsVersion)
	t.b.termer.words = true
	for _, p := range payloads {
		e, err := decodeEvent(p)
		if err != nil {
			return nil, err
		}
		t.b.termer.add(e, 1)
	}
	return t.b.termer.builder.Segment(), nil
}

// EncodePayload returns the form in which a canonical event is stored.
func EncodePayload(json []byte) []byte { return encodePayload(json) }

// ForgetReplicaFailure has the replica asked again at once.
func (s *Service) ForgetReplicaFailure() { s.reader.(*replicated).retry.Store(0) }

// Holds reports whether the JSON of an event holds what any has that the filter selects.
func Holds(f *Filter, json []byte) bool { return f.needles().in(json) }

// SetMaxGrowths sets how many entries are appended to a hub in one transaction, until the returned function is called.
func SetMaxGrowths(n int) (reset func()) {
	before := maxGrowths
	maxGrowths = n
	return func() { maxGrowths = before }
}

// ScrubHub checks a hub's first size entries as the background scrub does, and returns the first thing that is wrong.
func ScrubHub(ctx context.Context, store Reader, hub ID, size uint64) error {
	for from := uint64(0); from < size; from += scrubSize {
		if err := checkHub(ctx, store, hub, from, min(from+scrubSize, size)); err != nil {
			return err
		}
	}
	return nil
}

// AppendHubEntry appends an entry of a hub to dst.
func AppendHubEntry(dst []byte, id [32]byte, c checkpoint.Checkpoint) []byte {
	return appendHubEntry(dst, id, c)
}

// SignGrown signs the logs that have grown, as happens every interval.
func (s *Service) SignGrown(ctx context.Context) { s.publishGrown(ctx) }

// GrowHub puts into the hub what logs have signed, and signs it, as happens every interval.
func (s *Service) GrowHub(ctx context.Context) { s.hub.grow(ctx) }

// CarryHub carries to the logs all that witnesses say of the hub, as happens at a start.
func (s *Service) CarryHub(ctx context.Context) error {
	return (&hub{service: s, log: s.hub.log}).carry(ctx)
}

// KeepsAll reports whether a policy keeps all that another one does.
func KeepsAll(r, o Retention) bool { return r.keepsAll(o) }

// MaxAddresses is how many addresses of a key are told apart.
const MaxAddresses = maxAddresses

// SetMaxTallies sets how much of what is read is kept in memory, until the returned function is called.
func SetMaxTallies(tallies, untold int) (reset func()) {
	before, beforeUntold := maxTallies, maxUntold
	maxTallies, maxUntold = tallies, untold
	return func() { maxTallies, maxUntold = before, beforeUntold }
}

// ReadsLost returns how many reads were lost.
func (s *Service) ReadsLost() uint64 { return s.reads.lost.Load() }

// Turns are the turns that those take who check logs beside a server's other work.
type Turns = turns

// NewTurns returns turns of which none is taken.
func NewTurns() Turns { return newTurns() }

// Take waits for a turn.
func (t turns) Take(ctx context.Context) (done func(context.Context), err error) { return t.take(ctx) }

// ToldErased returns how many bytes each of the events has of what is erased that an erasure is recorded in.
func ToldErased(groups []ErasedGroup) (sizes []int) {
	for _, part := range toldErased(groups) {
		sizes = append(sizes, len(appendErased(nil, part)))
	}
	return sizes
}

// Unannounced has the service know nothing of what was decided about a log, as if another server had decided it and was killed before it
// announced that; LearnCustody has it look for such.
func (l *Log) Unannounced(ctx context.Context) error {
	if err := l.service.learnCustody(ctx, false); err != nil {
		return err
	}
	l.custody.Store(new(custody))
	return nil
}

// LearnCustody learns what other servers have decided.
func (s *Service) LearnCustody(ctx context.Context, all bool) error { return s.learnCustody(ctx, all) }
