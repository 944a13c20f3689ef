package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

const (
	maxBatch = 1024 // requests in one transaction
	maxQueue = 8192 // requests that wait

	// maxClockLag is how far a log's newest cosignature may be ahead of the clock. Up to there the next one has its time, since
	// times don't go back; beyond there something is wrong with the clock.
	maxClockLag = 10 // seconds

	// failurePatience is for how long after a failure the witness isn't ready. Then it says that it is, and whoever sends requests only to
	// those that are finds out whether it is so.
	failurePatience = 30 * time.Second

	// clockWarning is how often the operator is told.
	clockWarning = time.Minute

	// commitPatience is how long a transaction may take.
	commitPatience = 30 * time.Second

	maxAttempts  = 6 // at a batch whose heads other processes move
	attemptPause = 4 * time.Millisecond
)

// errPanic is the outcome of a batch until there is one.
var errPanic = errors.New("it panicked")

// submission is a request whose log and signature are known to be right, waiting for its turn.
type submission struct {
	*request
	signed []note.Signature // by the log's keys, valid

	turn     chan turn // buffered: what a waiting submission is told, once
	accepted Head      // what the log's head became by it
	lines    []byte    // the cosignatures, if err is nil
	err      error
}

// turn is what a submission that waits is told.
type turn bool

const (
	answered turn = false // its lines and err are set
	commits  turn = true  // the batch that it is the first of is its own to commit
)

// cosigned returns the checkpoint with the signatures of the log and the witness.
func (s *submission) cosigned() []byte { return append(joinNote(s.checkpoint, s.signed), s.lines...) }

// committer checks requests against what was cosigned, and cosigns. It does that for all requests that have arrived while the ones
// before them were being made durable: one transaction, in the order in which they came, and no timer. The goroutine of the first
// of them does it for the others. Alone a request is a batch of its own and waits for nobody.
type committer struct {
	state     State
	cosigners []*checkpoint.Cosigner
	now       func() time.Time
	logger    *slog.Logger
	metrics   *serverMetrics

	// Of whoever commits:
	warned time.Time // when the operator was told last that the clock is behind
	outage outage

	mu     sync.Mutex
	queue  []*submission
	busy   bool // somebody commits, or has been told to
	closed bool
	idle   sync.Cond // on mu: busy has become false

	failed atomic.Pointer[failedCommit] // the last batch, if it wasn't committed

	// testingOnlyStall is called when requests were checked and cosigned and nothing of it is recorded. Tests use it to let another
	// witness on the same state go first: that is the race by which a witness would go back to an earlier tree.
	testingOnlyStall func()
}

func newCommitter(c ServerConfig, m *serverMetrics) *committer {
	n := &committer{state: c.State, cosigners: c.Cosigners, now: c.Now, logger: c.Logger, metrics: m, outage: outage{logger: c.Logger}}
	n.idle.L = &n.mu
	return n
}

// failedCommit is how and when a batch was not committed.
type failedCommit struct {
	at  time.Time
	err error
}

// remember notes how a batch ended, for who asks whether the witness is ready.
func (c *committer) remember(batch []*submission, err error) {
	switch {
	case errors.Is(err, ErrMoved): // other processes were faster
	case err != nil:
		c.failed.Store(&failedCommit{time.Now(), err})
	case written(batch):
		c.failed.Store(nil)
	}
}

// written reports whether anything of a batch that was committed was written: of what is refused nothing is.
func written(batch []*submission) bool {
	return slices.ContainsFunc(batch, func(s *submission) bool { return s.err == nil })
}

// failing returns why nothing can be committed, as far as is known: a moment after a failure it must be tried again to be known.
func (c *committer) failing() error {
	if f := c.failed.Load(); f != nil && time.Since(f.at) < failurePatience {
		return f.err
	}
	return nil
}

// submit queues a submission and waits until it is answered: by then it is durable, or refused. There is no giving up: a request
// whose client is gone is checked and recorded as any other.
func (c *committer) submit(s *submission) ([]byte, error) {
	s.turn = make(chan turn, 1)
	c.mu.Lock()
	switch {
	case c.closed:
		c.mu.Unlock()
		return nil, errUnavailable
	case len(c.queue) >= maxQueue:
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %d requests wait", errUnavailable, maxQueue)
	}
	c.queue = append(c.queue, s)
	wait := c.busy
	c.busy = true
	c.mu.Unlock()
	if !wait || <-s.turn == commits {
		c.commitQueue(s)
	}
	return s.lines, s.err
}

// commitQueue commits a batch of what is queued, whose first is the caller's, passes its office on, and tells the others.
func (c *committer) commitQueue(own *submission) {
	c.gather()
	batch := c.take()
	start := time.Now()
	err := errPanic
	defer func() { // also when net/http is to recover from a panic: others mustn't wait for ever, nor believe what isn't durable
		if err != nil {
			for _, s := range batch {
				s.lines, s.err = nil, fmt.Errorf("%w: %w", errUnavailable, err)
			}
			c.outage.failed(time.Now(), len(batch), err)
		} else if written(batch) {
			c.outage.committed(time.Now())
		}
		c.remember(batch, err)
		c.metrics.batch(len(batch), time.Since(start), err)
		c.passOn()
		for _, s := range batch {
			if s != own {
				s.turn <- answered
			}
		}
	}()
	err = c.commit(batch)
}

// passOn lets the first of the queue commit, if there is one.
func (c *committer) passOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) > 0 {
		c.queue[0].turn <- commits
		return
	}
	c.busy = false
	c.idle.Broadcast()
}

// gather gives way to requests that are being read and verified at this moment, as long as that makes the queue grow. With nothing
// else to run it returns at once.
func (c *committer) gather() {
	for n := c.waiting(); n < maxBatch; {
		runtime.Gosched()
		grown := c.waiting()
		if grown == n {
			return
		}
		n = grown
	}
}

// waiting returns how many requests wait.
func (c *committer) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

func (c *committer) take() (batch []*submission) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.queue), maxBatch)
	batch = c.queue[:n:n]
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	return batch
}

// close refuses new requests and waits until those that are queued are answered.
func (c *committer) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.busy {
		c.idle.Wait()
	}
}

// commit decides on each submission of a batch. If it returns an error none was cosigned, and that is what each of them is told;
// their signatures, if they were made already, are forgotten.
func (c *committer) commit(batch []*submission) error {
	ctx, cancel := context.WithTimeout(context.Background(), commitPatience)
	defer cancel()
	var origins []string
	seen := make(map[string]bool)
	for _, s := range batch {
		if !seen[s.checkpoint.Origin] {
			seen[s.checkpoint.Origin] = true
			origins = append(origins, s.checkpoint.Origin)
		}
	}
	var changes Changes
	var err error
	for attempt := range maxAttempts {
		if attempt > 0 { // another process was faster: let it finish, and check everything against what it did
			time.Sleep(rand.N(attemptPause << attempt))
		}
		var failed error
		err = c.state.Update(ctx, origins, func(heads map[string]Head) Changes {
			changes, failed = c.decide(batch, heads)
			if c.testingOnlyStall != nil {
				c.testingOnlyStall()
			}
			return changes
		})
		if err = errors.Join(failed, err); !errors.Is(err, ErrMoved) {
			break
		}
	}
	if err == nil {
		c.report(changes.Evidence)
	}
	return err
}

// report tells the operator of contradictions.
func (c *committer) report(evidence []Evidence) {
	for _, e := range evidence {
		c.metrics.evidence.WithLabelValues(string(e.Conflict)).Inc()
		c.logger.Warn("a log contradicts what was cosigned; see: treeline witness evidence", "conflict", e.Conflict,
			"origin", e.Refused.Origin, "size", e.Refused.Size, "root", e.Refused.Root, "cosigned_size", e.Head.Size,
			"cosigned_root", e.Head.Root)
	}
}

// behind returns the error for a request that isn't cosigned since the clock is behind the log's newest cosignature, and tells the
// operator, whom no request will: once a minute, as that may be so for each of them.
func (c *committer) behind(seconds int64) error {
	c.metrics.failures.WithLabelValues("clock").Inc()
	if now := time.Now(); now.Sub(c.warned) >= clockWarning {
		c.warned = now
		c.logger.Warn("the clock is behind the newest cosignature of a log, which isn't cosigned until it has caught up; set the clock right, "+
			"or find out which one was ahead when that was made", "seconds", seconds)
	}
	return fmt.Errorf("%w: the clock is %d seconds behind the log's newest cosignature", errUnavailable, seconds)
}

// decide checks the submissions in turn, each against the head that the ones before it leave behind, cosigns those that pass, and
// returns what has to be recorded before any of them may be told. If it can't sign it returns no changes and the error.
func (c *committer) decide(batch []*submission, heads map[string]Head) (Changes, error) {
	var changes Changes
	now := c.now().Unix()
	last := make(map[string]*submission)   // of each log that moves, the one that it ends at
	var passed, contradicted []*submission // the second beside the evidence; nil where what is contradicted is recorded already
	for _, s := range batch {
		head, ok := heads[s.checkpoint.Origin]
		s.lines, s.err = nil, nil
		if !ok {
			s.err = errUnknown // it was known a moment ago, and what is known stays known
			continue
		}
		var found Conflict
		if found, s.err = check(head, s.request); found != "" {
			changes.Evidence = append(changes.Evidence, Evidence{
				Conflict: found, Seen: now, Head: head, Refused: s.checkpoint, Note: joinNote(s.checkpoint, s.signed), Proof: s.request.lines,
			})
			contradicted = append(contradicted, last[head.Origin])
		}
		if s.err == nil && head.At-now > maxClockLag {
			s.err = c.behind(head.At - now)
		}
		if s.err != nil {
			continue
		}
		s.accepted = Head{Origin: head.Origin, Size: s.checkpoint.Size, Root: s.checkpoint.Root, At: max(now, head.At)}
		heads[head.Origin] = s.accepted
		last[head.Origin] = s
		passed = append(passed, s)
	}
	if err := c.cosign(passed); err != nil {
		return Changes{}, err
	}
	for i, s := range contradicted {
		if s != nil {
			changes.Evidence[i].Cosigned = s.cosigned()
		}
	}
	for _, s := range last {
		changes.Moves = append(changes.Moves, Move{s.accepted, s.cosigned()})
	}
	return changes, nil
}

// check is the protocol: it decides on a request of a log whose head is given. The order is that of the specification's text. A
// conflict is found where the checkpoint, which the log has signed, contradicts what was cosigned; the request is then refused, too.
func check(head Head, r *request) (found Conflict, err error) {
	size, root := r.checkpoint.Size, r.checkpoint.Root
	// "The old size MUST be equal to or lower than the checkpoint size. Otherwise, the witness MUST respond with a 400".
	if r.old > size {
		return "", fmt.Errorf("%w: old size %d is greater than the checkpoint's, %d", errMalformed, r.old, size)
	}
	forked := head.At > 0 && size == head.Size && root != head.Root
	if forked {
		found = ConflictFork
	} else if size == 0 && root != merkle.EmptyRoot() {
		found = ConflictEmpty
	}
	// "The witness MUST check that the old size matches the size of the latest checkpoint it cosigned for the checkpoint's origin
	// (or zero if it never cosigned a checkpoint for that origin). If it doesn't match, the witness MUST respond with a 409".
	if r.old != head.Size {
		return found, &conflictError{head.Size}
	}
	// "A checkpoint of size zero MUST have the root hash of the empty tree […]. Otherwise, the witness MUST respond with a 422".
	if size == 0 && root != merkle.EmptyRoot() {
		return found, fmt.Errorf("%w: size 0 with the root %v, want %v", errInconsistent, root, merkle.EmptyRoot())
	}
	// "If the old size matches the checkpoint size, the witness MUST check that the root hashes are also identical. If they don't
	// match, the witness MUST respond with a 422".
	if forked {
		return found, fmt.Errorf("%w: the root of size %d is %v, cosigned was %v", errInconsistent, size, root, head.Root)
	}
	// "If the proof is not empty when the old size is zero, or if a Merkle Consistency Proof doesn't verify, the witness MUST
	// respond with a 422". From size 0, and from a size to itself, only the empty proof verifies.
	if err := merkle.VerifyConsistency(r.old, size, r.proof, head.Root, root); err != nil {
		if r.old > 0 && size > r.old {
			found = ConflictInconsistent
		}
		return found, fmt.Errorf("%w: %w", errInconsistent, err)
	}
	return "", nil
}

// cosign makes the cosignatures of the submissions, on all processors: of what a batch costs they are the most.
func (c *committer) cosign(passed []*submission) error {
	workers := min(runtime.GOMAXPROCS(0), (len(passed)+7)/8)
	if workers <= 1 {
		for _, s := range passed {
			if err := c.cosignOne(s); err != nil {
				return err
			}
		}
		return nil
	}
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(passed) && errs[w] == nil; i += workers {
				errs[w] = c.cosignOne(passed[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// cosignOne sets the signature lines of a submission. "The cosignature MUST NOT omit the timestamp, i.e. the timestamp MUST NOT be
// zero." What is signed is encoded from the parsed checkpoint, and for the whole tree.
func (c *committer) cosignOne(s *submission) error {
	for _, cosigner := range c.cosigners {
		sig, err := cosigner.Cosign(s.checkpoint, s.accepted.Time())
		if err != nil {
			return err
		}
		s.lines = append(s.lines, checkpoint.SignatureLine(sig)...)
	}
	return nil
}

// joinNote returns the signed note of a checkpoint.
func joinNote(c checkpoint.Checkpoint, sigs []note.Signature) []byte {
	msg := []byte(c.Text() + "\n")
	for _, sig := range sigs {
		msg = append(msg, checkpoint.SignatureLine(sig)...)
	}
	return msg
}
