package log

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/treeline-log/treeline/merkle"
)

// Limits of the queue in front of the sequencer, and of one batch. A request is never split: all of its events get
// consecutive indices in one transaction, or none does.
const (
	MaxRequestEvents = 10_000   // events in one append
	MaxRequestBytes  = 16 << 20 // canonical bytes in one append

	maxBatchEvents = MaxRequestEvents
	maxBatchBytes  = MaxRequestBytes

	gatherEvents = 1024 // from which on a batch is large enough not to wait for more

	maxQueueEvents    = 50_000
	maxQueueBytes     = 64 << 20
	maxLogQueueEvents = 20_000
	maxLogQueueBytes  = 24 << 20
)

// maxClockLag is how far a log's newest entry may be ahead of the clock before appends are refused rather than
// back-dated: received_at never decreases within a log.
const maxClockLag = 10 * time.Second

// Errors of an append. Nothing is stored, but where ErrOutcomeUnknown says that it may be.
var (
	// ErrOverloaded means that the server's queue is full.
	ErrOverloaded = errors.New("the server's queue is full")
	// ErrLogOverloaded means that the log's own share of the queue is full.
	ErrLogOverloaded = errors.New("the log's queue is full")
	// ErrClosed means that the server is shutting down.
	ErrClosed = errors.New("the server is shutting down")
	// ErrClockBehind means that the log's newest entry is more than ten seconds ahead of the server's clock.
	ErrClockBehind = errors.New("the server's clock is behind the log's newest entry")
	// ErrOutcomeUnknown means that the connection was lost, or the disk failed, while committing: the events may be
	// there or not. Sending them again with the same ids is safe.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrUnavailable means that the store failed before the commit: the disk is full, or can't be read.
	ErrUnavailable = errors.New("the store failed")
	// ErrNotReady means that the log could not be checked against its fence yet, which is tried again and again.
	ErrNotReady = errors.New("the log isn't ready yet")
	// ErrFrozen means that the log has ended.
	ErrFrozen = errors.New("the log is frozen")
	// ErrStopped means that the log is stopped since its store contradicts what was signed.
	ErrStopped = errors.New("the log is stopped")
)

// ConflictError means that ids are taken by events with other content. Nothing of the request is stored.
type ConflictError struct {
	IDs []string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("already recorded with other content: %s", strings.Join(e.IDs, ", "))
}

// draft is an event ready to be sequenced: all that can be computed without knowing its place is.
type draft struct {
	event  *Event
	seed   [32]byte
	digest [32]byte
	data   []byte // the payload as it will rest in the store
}

// Place is where an event stands in its log.
type Place struct {
	Index      uint64
	ReceivedAt int64 // µs since 1970 UTC
	Previous   merkle.Hash
	Hash       merkle.Hash
	Seed       *[32]byte
	// Duplicate tells that the event was there before, under the same id and with the same content. Then only Index
	// is set, until Log.Locate has set the others but for Seed.
	Duplicate bool
	// Unchecked tells of a duplicate whose content is gone, so that the id alone decided.
	Unchecked bool
}

// request is one append, waiting for its turn.
type request struct {
	log    *Log
	drafts []draft
	bytes  int
	own    bool // of the log's own events, which a frozen log takes, too

	done   chan struct{} // closed when places or err is set
	places []Place
	err    error
}

func (r *request) answer(places []Place, err error) {
	r.places, r.err = places, err
	close(r.done)
}

// sequencer gives events their place. Requests wait in a queue for each log; a lane takes from all its queues in turn what
// makes up a batch, commits it as one transaction, and answers. What arrives meanwhile is the next batch: with little
// load a batch is one request and nobody waits for company; with much load it grows until the store's cost of a commit is
// spread over thousands of events.
//
// A log is always in the same lane, so its requests are sequenced in the order in which they were queued. There are as many
// lanes as the store has use for transactions at a time: one for the embedded store, which has one writer.
type sequencer struct {
	store   Store
	now     func() time.Time
	logger  *slog.Logger
	metrics *metrics
	single  bool // batches of one log each

	mu     sync.Mutex
	events int // queued, over all logs
	bytes  int
	closed bool
	lanes  []*lane
}

// lane is a queue of its own, and the goroutine that empties it.
type lane struct {
	*sequencer
	// Guarded by sequencer.mu.
	ring   []*Log // logs with something queued, the next one to be served first
	queued int    // events
	// The goroutine's own.
	tails map[ID]*tail
	wake  chan struct{} // buffered: something was queued, or closed was set
	ended chan struct{} // closed when everybody is answered
}

// logQueue is a log's share of the queue, guarded by sequencer.mu.
type logQueue struct {
	requests []*request
	events   int
	bytes    int
}

// tail is what a lane remembers of a log between batches.
type tail struct {
	head Head
	edge *merkle.Range
}

func newSequencer(c Config, m *metrics) *sequencer {
	s := &sequencer{store: c.Store, now: c.Now, logger: c.Logger, metrics: m, single: c.SingleLogBatches}
	for range max(1, c.Lanes) {
		l := &lane{sequencer: s, wake: make(chan struct{}, 1), ended: make(chan struct{}), tails: make(map[ID]*tail)}
		s.lanes = append(s.lanes, l)
		go l.run()
	}
	return s
}

// lane returns the lane that a log is always in.
func (s *sequencer) lane(l *Log) *lane { return s.lanes[uint64(l.ID)%uint64(len(s.lanes))] }

// append queues a request and waits for its answer. If ctx ends while the request is still queued it is withdrawn;
// once it is in a batch, the answer is awaited, since it is on its way.
func (s *sequencer) append(ctx context.Context, r *request) error {
	r.done = make(chan struct{})
	for i := range r.drafts {
		r.bytes += len(r.drafts[i].event.JSON())
	}
	if err := s.enqueue(r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if s.withdraw(r) {
			return ctx.Err()
		}
		<-r.done
	}
	return r.err
}

func (s *sequencer) enqueue(r *request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, n := &r.log.queue, len(r.drafts)
	lag, _ := r.log.progress.unindexed()
	switch {
	case s.closed:
		return ErrClosed
	case lag > maxUnindexed:
		return fmt.Errorf("%w: by %d events", ErrIndexLag, lag)
	// An empty queue takes any request that is not too large in itself.
	case len(q.requests) > 0 && (q.events+n > maxLogQueueEvents || q.bytes+r.bytes > maxLogQueueBytes):
		return ErrLogOverloaded
	case s.events > 0 && (s.events+n > maxQueueEvents || s.bytes+r.bytes > maxQueueBytes):
		return ErrOverloaded
	}
	lane := s.lane(r.log)
	if len(q.requests) == 0 {
		lane.ring = append(lane.ring, r.log)
	}
	q.requests = append(q.requests, r)
	s.count(r, +1)
	lane.signal()
	return nil
}

// withdraw takes a request out of the queue, and reports whether it still was there.
func (s *sequencer) withdraw(r *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &r.log.queue
	i := slices.Index(q.requests, r)
	if i < 0 {
		return false
	}
	q.requests = slices.Delete(q.requests, i, i+1)
	if len(q.requests) == 0 {
		lane := s.lane(r.log)
		lane.ring = slices.DeleteFunc(lane.ring, func(l *Log) bool { return l == r.log })
	}
	s.count(r, -1)
	return true
}

func (s *sequencer) count(r *request, sign int) {
	r.log.queue.events += sign * len(r.drafts)
	r.log.queue.bytes += sign * r.bytes
	s.lane(r.log).queued += sign * len(r.drafts)
	s.events += sign * len(r.drafts)
	s.bytes += sign * r.bytes
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take removes the next batch from the lane's queues: from each log in turn one request, as long as they fit. A request that
// doesn't fit waits, and its log is served first the next time; so a log with a small request waits for the batch in
// flight and never for more than one batch's worth of others.
func (l *lane) take() (batch []*request, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var events, bytes int
	var waiting []*Log
	for len(l.ring) > 0 {
		next := l.ring[0]
		l.ring = l.ring[1:]
		r := next.queue.requests[0]
		if len(batch) > 0 && (events+len(r.drafts) > maxBatchEvents || bytes+r.bytes > maxBatchBytes ||
			l.single && next != batch[0].log) {
			waiting = append(waiting, next)
			continue
		}
		next.queue.requests[0] = nil
		next.queue.requests = next.queue.requests[1:]
		l.count(r, -1)
		events, bytes = events+len(r.drafts), bytes+r.bytes
		batch = append(batch, r)
		if len(next.queue.requests) > 0 {
			l.ring = append(l.ring, next)
		}
	}
	l.ring = waiting
	return batch, l.closed
}

func (l *lane) run() {
	defer close(l.ended)
	for {
		l.gather()
		batch, closed := l.take()
		if len(batch) == 0 {
			if closed {
				return
			}
			<-l.wake
			continue
		}
		start := time.Now()
		committed, err := l.sequence(batch)
		if err != nil {
			l.logger.Error("a batch was not committed", "requests", len(batch), "error", err)
		}
		l.metrics.batch(committed, time.Since(start), err)
	}
}

// gather lets requests that are being read and parsed at this moment join the next batch: it gives way to other
// goroutines as long as that makes the queue grow. With nothing else to run it returns at once, so it delays nobody who is
// alone; under load it makes batches several times as large, and so the cost of a commit a fraction for each event.
func (l *lane) gather() {
	for n := l.waiting(); n > 0 && n < gatherEvents; {
		runtime.Gosched()
		grown := l.waiting()
		if grown == n {
			return
		}
		n = grown
	}
}

// waiting returns how many events wait for the lane's next batch.
func (l *lane) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queued
}

// waiting returns how many events wait in all lanes.
func (s *sequencer) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events
}

// close refuses new requests and waits until everything queued is answered.
func (s *sequencer) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, l := range s.lanes {
		l.signal()
		<-l.ended
	}
}

// extension is what a batch does to one log.
type extension struct {
	log      *Log
	requests []*request
	tail     *tail // nil: the log is frozen, and no request is of its own events
	batch    Batch
	events   []*Event       // of batch.Rows
	rows     map[string]int // id → its row in the batch
}

// Attempts at a batch that the store rolls back for the sake of other transactions, and the longest first pause between two.
const (
	maxAttempts  = 6
	attemptPause = 5 * time.Millisecond
)

// sequence commits one batch, answers its requests, and returns how many events it appended.
//
// After any error nothing is remembered of the logs involved, so that the next batch starts from what is stored. Only an
// error of the commit itself leaves open what became of the batch. A log whose rows contradict its head is stopped, and the
// batch done again without it: that is its trouble, and not of those that happen to share the batch.
func (l *lane) sequence(batch []*request) (int, error) {
	var extensions []*extension
	var err error
	for attempt := range maxAttempts {
		if attempt > 0 { // others were at it: let them finish
			time.Sleep(rand.N(attemptPause << attempt))
		}
		extensions = byLog(batch)
		if err = l.commit(extensions); err == nil {
			return l.committed(batch, extensions), nil
		}
		for _, x := range extensions {
			delete(l.tails, x.log.ID)
		}
		if !errors.Is(err, ErrRolledBack) && !errors.Is(err, ErrHeadMoved) {
			break
		}
	}
	if errors.Is(err, ErrDamaged) && !errors.Is(err, ErrOutcomeUnknown) {
		return l.isolate(extensions, err)
	}
	unknown := errors.Is(err, ErrOutcomeUnknown)
	if !unknown {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, r := range batch {
		if unknown {
			r.log.progress.doubt.Store(true) // it may have grown: the publisher will look
		}
		r.answer(nil, err)
	}
	return 0, err
}

// committed answers a batch that is committed, and returns how many events it appended.
func (l *lane) committed(batch []*request, extensions []*extension) int {
	n := 0
	for _, x := range extensions {
		if x.tail == nil {
			continue // frozen
		}
		n += len(x.batch.Rows)
		x.tail.head = x.batch.Head
		x.log.progress.sequenced(x.batch.Head)
	}
	for _, r := range batch {
		r.answer(r.places, r.err)
	}
	return n
}

// isolate does a batch again, a log at a time, after one of its logs turned out to be damaged. A log that is by itself is
// stopped.
func (l *lane) isolate(extensions []*extension, err error) (n int, _ error) {
	if len(extensions) == 1 {
		x := extensions[0]
		x.log.stop(err)
		for _, r := range x.requests {
			r.answer(nil, fmt.Errorf("%w: %w", ErrStopped, err))
		}
		return 0, nil
	}
	var errs []error
	for _, x := range extensions {
		committed, err := l.sequence(x.requests)
		n += committed
		errs = append(errs, err)
	}
	return n, errors.Join(errs...)
}

// commit is the protocol:
//
//  1. lock the heads of the batch's logs,
//  2. compare them with what is remembered; if somebody else has moved one, or nothing is remembered, load and check it,
//  3. of each request, drop the events that are already there, and refuse the request if an id has other content,
//  4. give the others their index and time, chain them, and extend the tree,
//  5. write rows and nodes, and move each head on the condition that it stands where it stood,
//  6. commit.
//
// A client that leaves doesn't undo the others' events, hence no context of a request.
func (l *lane) commit(extensions []*extension) error {
	ctx := context.Background()
	ids := make([]ID, len(extensions))
	var keys []EventKey
	for i, x := range extensions {
		ids[i] = x.log.ID
		keys = x.appendKeys(keys)
	}
	slices.Sort(ids)
	tx, err := l.store.Begin(ctx, ids)
	if err != nil {
		return fmt.Errorf("beginning a batch: %w", err)
	}
	defer tx.Rollback()
	for _, x := range extensions {
		if x.tail, err = l.loadTail(ctx, tx, x); err != nil && !errors.Is(err, ErrFrozen) {
			return fmt.Errorf("loading the head of log %s: %w", x.log.Name, err)
		}
	}
	var found map[EventKey]uint64
	if len(keys) > 0 {
		if found, err = tx.Find(keys); err != nil {
			return fmt.Errorf("looking for ids: %w", err)
		}
	}
	var batches []*Batch
	now := l.now().UnixMicro()
	for _, x := range extensions {
		if err := x.compute(tx, found, now); err != nil {
			return fmt.Errorf("appending to log %s: %w", x.log.Name, err)
		}
		if len(x.batch.Rows) > 0 {
			batches = append(batches, &x.batch)
		}
	}
	if len(batches) > 0 {
		if err := tx.Append(batches); err != nil {
			return fmt.Errorf("writing a batch: %w", err)
		}
	}
	if err := tx.Commit(); errors.Is(err, ErrRolledBack) {
		return fmt.Errorf("committing: %w", err)
	} else if err != nil {
		return fmt.Errorf("%w: committing: %w", ErrOutcomeUnknown, err)
	}
	return nil
}

// byLog sorts a batch by log, keeping the order within each.
func byLog(batch []*request) []*extension {
	var out []*extension
	at := make(map[*Log]*extension)
	for _, r := range batch {
		x := at[r.log]
		if x == nil {
			x = &extension{log: r.log}
			at[r.log] = x
			out = append(out, x)
		}
		x.requests = append(x.requests, r)
	}
	return out
}

// loadTail returns what is remembered of the log if its head still stands there. Otherwise it loads the head and checks
// it against the rows that it summarises.
func (l *lane) loadTail(ctx context.Context, tx Tx, x *extension) (*tail, error) {
	log := x.log
	head, err := tx.Head(log.ID)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("it is missing: %w", ErrDamaged)
	}
	if err != nil {
		return nil, err
	}
	if head.Frozen {
		log.progress.frozen.Store(true)
		if !slices.ContainsFunc(x.requests, func(r *request) bool { return r.own }) {
			return nil, ErrFrozen
		}
	}
	if t := l.tails[log.ID]; t != nil && t.head.Size == head.Size && t.head.Last == head.Last {
		t.head.Frozen = head.Frozen
		return t, nil
	}
	if err := log.checkRemembered(ctx, log.progress.remembered(), head.Size); err != nil {
		return nil, err
	}
	edge, err := checkHead(ctx, l.store, log.Info, head)
	if err != nil {
		return nil, err
	}
	t := &tail{head: head, edge: edge}
	l.tails[log.ID] = t
	return t, nil
}

// compute computes what the batch appends to one log, and sets the outcome of each of its requests. The tail's edge is
// ahead of its head from here on until the commit; an error drops both.
func (x *extension) compute(tx Tx, found map[EventKey]uint64, now int64) error {
	if x.tail == nil {
		for _, r := range x.requests {
			r.err = ErrFrozen
		}
		return nil
	}
	head := x.tail.head
	x.batch = Batch{Log: x.log.ID, From: head.Size, Head: head}
	if lag := time.Duration(head.ReceivedAt-now) * time.Microsecond; lag > maxClockLag {
		for _, r := range x.requests {
			r.err = fmt.Errorf("%w: by %v", ErrClockBehind, lag)
		}
		return nil
	}
	x.rows = make(map[string]int)
	x.batch.Head.ReceivedAt = max(now, head.ReceivedAt)
	for _, r := range x.requests {
		if head.Frozen && !r.own {
			r.err = ErrFrozen
			continue
		}
		if r.places, r.err = x.known(tx, r, found); r.err != nil {
			var conflict *ConflictError
			if errors.As(r.err, &conflict) || errors.Is(r.err, ErrDamaged) {
				continue // nothing of this request is in the batch, and the others have no part in it
			}
			return r.err
		}
		for i := range r.drafts {
			if !r.places[i].Duplicate {
				r.places[i] = x.add(&r.drafts[i])
			}
		}
	}
	if len(x.batch.Rows) == 0 {
		x.batch.Head = head
		return nil
	}
	x.batch.Head.Edge = x.tail.edge.Hashes()
	return nil
}

// appendKeys appends the keys of those events whose ids clients chose. Those that the server made are new.
func (x *extension) appendKeys(keys []EventKey) []EventKey {
	for _, r := range x.requests {
		for i := range r.drafts {
			if e := r.drafts[i].event; !e.ServerID() {
				keys = append(keys, EventKey{x.log.ID, e.ID()})
			}
		}
	}
	return keys
}

// maxConflicts bounds how many conflicts of one request are looked for: each costs the others in the lane a look at a
// stored content that may be much larger than what was sent. Contents are read compareRows at a time.
const (
	maxConflicts = 20
	compareRows  = 100
)

// known returns the places of those of a request's events that are in the log, or earlier in the batch, already. It is a
// ConflictError if the content differs from what stands there.
func (x *extension) known(tx Tx, r *request, found map[EventKey]uint64) ([]Place, error) {
	places := make([]Place, len(r.drafts))
	differ := make(map[uint64]bool)  // indices whose content is another
	sent := make(map[uint64]*Event)  // by the index at which it is stored
	checked := make(map[uint64]bool) // indices whose content is still there
	for i := range r.drafts {
		e := r.drafts[i].event
		if row, ok := x.rows[e.ID()]; ok {
			places[i] = Place{Index: x.batch.From + uint64(row), Duplicate: true}
			if !e.Same(x.events[row]) {
				differ[places[i].Index] = true
			}
		} else if index, ok := found[EventKey{x.log.ID, e.ID()}]; ok {
			places[i] = Place{Index: index, Duplicate: true}
			sent[index] = e
		}
	}
	custody := x.log.custody.Load()
	for indices := range slices.Chunk(slices.Sorted(maps.Keys(sent)), compareRows) {
		if len(differ) >= maxConflicts {
			break
		}
		err := tx.PayloadsAt(x.log.ID, indices, func(index uint64, p Payload) error {
			if p.Data == nil || p.Data[0] == payloadReduced {
				return nil
			}
			x, err := custody.content(index, p, nil)
			if err != nil {
				return fmt.Errorf("content of entry %d: %w", index, err)
			}
			if x.purgedBy != nil || x.claims != nil { // the id alone decides
				return nil
			}
			checked[index] = true
			if !sent[index].Same(x.event) {
				differ[index] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var conflicts []string
	for i, p := range places {
		if p.Duplicate && differ[p.Index] && len(conflicts) < maxConflicts {
			conflicts = append(conflicts, r.drafts[i].event.ID())
		}
		_, stored := sent[p.Index]
		places[i].Unchecked = p.Duplicate && stored && !checked[p.Index]
	}
	if conflicts != nil {
		return nil, &ConflictError{IDs: conflicts}
	}
	return places, nil
}

// add gives an event the next place: it is chained to the one before, and a leaf of the tree.
func (x *extension) add(d *draft) Place {
	b := &x.batch
	e := Entry{ReceivedAt: b.Head.ReceivedAt, Previous: b.Head.Last, Digest: d.digest}
	b.Entries = e.Append(b.Entries)
	place := Place{
		Index:      b.Head.Size,
		ReceivedAt: e.ReceivedAt,
		Previous:   e.Previous,
		Seed:       &d.seed,
		Hash:       merkle.LeafHash(b.Entries[len(b.Entries)-EntrySize:]),
	}
	x.tail.edge.Append(place.Hash, func(level uint, index uint64, h merkle.Hash) {
		if level > 0 && level%8 == 0 {
			b.Nodes = append(b.Nodes, Node{Level: int(level / 8), Index: index, Hash: h})
		}
	})
	x.rows[d.event.ID()] = len(b.Rows)
	x.events = append(x.events, d.event)
	b.Rows = append(b.Rows, Row{ID: d.event.ID(), Payload: Payload{Seed: d.seed[:], Data: d.data}})
	b.Head.Size++
	b.Head.Last = place.Hash
	return place
}
