package log

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// State is how far an event has come.
type State string

// States, in the order in which an event passes through them.
const (
	StateSequenced State = "sequenced" // durable, its index final
	StateSigned    State = "signed"    // under a signed and fenced checkpoint
	StateWitnessed State = "witnessed" // under one that witnesses enough have cosigned, or that the hub's is above
)

// ParseState returns the state of that name.
func ParseState(s string) (State, bool) {
	switch st := State(s); st {
	case StateSequenced, StateSigned, StateWitnessed:
		return st, true
	}
	return "", false
}

// Sizes tell how much of a log is in each state: an event is, when its index is below the size.
type Sizes struct {
	Size      uint64 // sequenced
	Signed    uint64 // under a recorded and fenced checkpoint
	Released  uint64 // served to the public: all that is signed, or, where that waits for witnesses, what is witnessed
	Witnessed uint64 // under a checkpoint for which the witness policy is met, directly or through the hub
}

// State returns the state of the event at index.
func (s Sizes) State(index uint64) State {
	switch {
	case index < s.Witnessed:
		return StateWitnessed
	case index < s.Signed:
		return StateSigned
	}
	return StateSequenced
}

// reached returns what reports whether everything below size is in the state.
func reached(size uint64, state State) func(Sizes) bool {
	return func(s Sizes) bool {
		switch state {
		case StateWitnessed:
			return s.Witnessed >= size
		case StateSigned:
			return s.Signed >= size
		}
		return s.Size >= size
	}
}

// progress is how far a log has come, with a way to wait for more.
type progress struct {
	doubt  atomic.Bool // the log may be larger than sizes say, after a commit with an unknown outcome, or set back
	frozen atomic.Bool // the log has ended

	mu      sync.Mutex
	sizes   Sizes
	last    merkle.Hash // leaf hash of the newest entry that was read at start or acknowledged since
	lastOf  uint64      // the size at which it was the newest
	signed  checkpoint.Checkpoint
	note    []byte // the signed checkpoint
	gated   bool   // what is signed is not released before release says so
	public  public
	stopped error // why the log is stopped
	held    error // why signing waits; nil: it doesn't
	failure error // of signing, the last one unless it succeeded since
	since   time.Time
	waiting []*waiter

	indexed    uint64 // how far the search index has come
	searchable bool   // the index was found to be of this record
}

// public is a checkpoint that was released by witnesses, with the cosignatures for which it was.
type public struct {
	checkpoint.Checkpoint
	note []byte // nil: there is none yet
}

// waiter is one who waits for the sizes to reach something.
type waiter struct {
	reached func(Sizes) bool
	done    chan struct{}
}

// change changes what fn changes, and wakes those who waited for it, and nobody else.
func (p *progress) change(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
	p.waiting = slices.DeleteFunc(p.waiting, func(w *waiter) bool {
		reached := w.reached(p.sizes)
		if reached {
			close(w.done)
		}
		return reached
	})
}

// sequenced notes how far the log has grown.
func (p *progress) sequenced(head Head) {
	p.change(func() {
		p.sizes.Size = max(p.sizes.Size, head.Size)
		p.last, p.lastOf = head.Last, head.Size
	})
}

// grown notes how far the log has grown by others' hands.
func (p *progress) grown(size uint64) {
	p.mu.Lock()
	same := size <= p.sizes.Size
	p.mu.Unlock()
	if !same {
		p.change(func() { p.sizes.Size = max(p.sizes.Size, size) })
	}
}

// memory is what a server remembers of a log's record, and a store must still have.
type memory struct {
	Sizes
	// last is the leaf hash that the newest entry of the size lastOf has, as clients may have been told. Through the chain it
	// stands for all entries before.
	last   merkle.Hash
	lastOf uint64
}

func (p *progress) remembered() memory {
	p.mu.Lock()
	defer p.mu.Unlock()
	return memory{p.sizes, p.last, p.lastOf}
}

// setBack forgets all but the size of what is left of a log that is stopped, so that this can be read.
func (p *progress) setBack(size uint64) {
	p.change(func() {
		p.sizes, p.signed, p.note, p.public = Sizes{Size: size}, checkpoint.Checkpoint{}, nil, public{}
	})
}

// publish notes a checkpoint that may now be seen, whoever has signed it: so signing doesn't fail.
func (p *progress) publish(c checkpoint.Checkpoint, note []byte) {
	p.change(func() {
		p.signed, p.note, p.failure = c, note, nil
		p.sizes.Size = max(p.sizes.Size, c.Size)
		p.sizes.Signed = c.Size
		if !p.gated {
			p.sizes.Released = c.Size
		}
	})
}

// gate makes what is signed wait for release.
func (p *progress) gate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gated = true
}

// release notes a signed checkpoint that the public may see, with the cosignatures for which it may, if it isn't older than
// the one before. It may be called again with one that has more of them; one that has less, as it is the hub that is cosigned, changes
// nothing.
func (p *progress) release(c checkpoint.Checkpoint, note []byte) {
	p.change(func() {
		if p.public.note != nil && (c.Size < p.public.Size || c.Size == p.public.Size && len(note) < len(p.public.note)) {
			return
		}
		p.public = public{c, note}
		p.sizes.Released = max(p.sizes.Released, c.Size)
	})
}

// witness notes how much of the log is witnessed.
func (p *progress) witness(size uint64) {
	p.change(func() { p.sizes.Witnessed = max(p.sizes.Witnessed, size) })
}

// released returns the newest checkpoint that the public may see; a nil note if there is none.
func (p *progress) released() (checkpoint.Checkpoint, []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gated && p.note != nil && (p.public.note == nil || p.public.Size < p.signed.Size) {
		return p.signed, p.note
	}
	return p.public.Checkpoint, p.public.note
}

// witnessed returns the newest checkpoint that was released by witnesses; a nil note if there is none.
func (p *progress) witnessed() (checkpoint.Checkpoint, []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.public.Checkpoint, p.public.note
}

// unsigned notes that signing fails, or with nil that it doesn't.
func (p *progress) unsigned(err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure == nil {
		p.since = now
	}
	p.failure = err
}

// failing returns why and since when signing fails.
func (p *progress) failing() (since time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since, p.failure
}

// stop notes that the log is stopped; the first reason stays, but for a claim, when it is proven.
func (p *progress) stop(reason error) {
	p.change(func() {
		if p.stopped == nil || errors.Is(p.stopped, errOutvoted) && errors.Is(reason, ErrContradicted) {
			p.stopped = reason
		}
	})
}

// hold makes signing wait for a reason, or, with nil, no longer. It returns the reason before.
func (p *progress) hold(reason error) (before error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, p.held = p.held, reason
	return before
}

// holding returns why signing waits.
func (p *progress) holding() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// assumeIndexed takes all that is there for indexed until the index was looked at: appends shall not be refused for a lag that
// nobody knows of.
func (p *progress) assumeIndexed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.indexed = p.sizes.Size
}

// indexedTo notes how far the search index of the log's record has come.
func (p *progress) indexedTo(size uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.indexed, p.searchable = size, true
}

// unsearchable notes that the index isn't to be believed.
func (p *progress) unsearchable() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.searchable = false
}

// indexedSize returns how far the search index has come.
func (p *progress) indexedSize() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.indexed
}

// unindexed returns how many events the search index is behind, and whether there is one that may be searched.
func (p *progress) unindexed() (lag uint64, searchable bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sizes.Size - min(p.sizes.Size, p.indexed), p.searchable
}

func (p *progress) get() (Sizes, checkpoint.Checkpoint, []byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sizes, p.signed, p.note, p.stopped
}

// wait returns when reached says so of the sizes, or with ctx's error.
func (p *progress) wait(ctx context.Context, reached func(Sizes) bool) error {
	p.mu.Lock()
	if reached(p.sizes) {
		p.mu.Unlock()
		return nil
	}
	w := &waiter{reached, make(chan struct{})}
	p.waiting = append(p.waiting, w)
	p.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waiting = slices.DeleteFunc(p.waiting, func(o *waiter) bool { return o == w })
		return ctx.Err()
	}
}
