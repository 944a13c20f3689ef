package log

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// ErrRechecking means that entries of the log are being checked again already.
var ErrRechecking = errors.New("the log is being verified already")

// Recheck is one check of a log's entries [From, To) beside all else that a server does: what fsck does with a whole store. Entries,
// chain, tree and contents are read from the store and hashed again, and compared with what was signed. One at a time is made of a log.
type Recheck struct {
	From, To uint64
	// Against is the newest signed checkpoint: what the entries must lead to. Its note is nil if there is none that verifies, which
	// is a problem that the report has.
	Against Signed

	log    *Log
	fsck   *fsck
	target checkpoint.Checkpoint // Against
}

// NewRecheck prepares a check of the entries [from, to) of the log; a to of merkle.MaxSize is for all that is signed. Errors are
// ErrRechecking, ErrHub, ErrNotSigned if the end isn't signed yet, merkle.ErrOutOfRange, and those of reading the store and the fence. Without an
// error End must be called.
func (l *Log) NewRecheck(ctx context.Context, from, to uint64) (*Recheck, error) {
	if l.IsHub() {
		return nil, ErrHub
	}
	if !l.rechecking.CompareAndSwap(false, true) {
		return nil, ErrRechecking
	}
	r := &Recheck{From: from, To: to, log: l}
	err := r.prepare(ctx)
	if err != nil {
		r.End()
		return nil, err
	}
	return r, nil
}

// End lets another check of the log be made.
func (r *Recheck) End() { r.log.rechecking.Store(false) }

// prepare reads what the entries are checked against, and settles the range.
func (r *Recheck) prepare(ctx context.Context) error {
	verifiers, err := r.log.verifiers()
	if err != nil {
		return err
	}
	s := r.log.service
	f := newFsck(s.store, r.log.Info, FsckOptions{Verifiers: verifiers, Fence: s.config.Fence, turns: s.turns})
	r.fsck = f
	if err := f.prepare(ctx); err != nil {
		return err
	}
	signed := f.head.Size
	if note := r.findTarget(verifiers); note != nil {
		r.Against = Signed{r.target.Size, note}
		signed = r.target.Size
	}
	switch {
	case r.To == merkle.MaxSize:
		r.To = signed
	case r.To > max(signed, f.head.Size):
		return fmt.Errorf("size %d of a log of size %d: %w", r.To, f.head.Size, merkle.ErrOutOfRange)
	case r.To > signed:
		return ErrNotSigned
	}
	if r.From > r.To {
		return fmt.Errorf("entries from %d to %d: %w", r.From, r.To, merkle.ErrOutOfRange)
	}
	f.from, f.end = r.From, r.To
	return nil
}

// findTarget returns the note of the newest recorded checkpoint that verifies, else of the fence's, else nil.
func (r *Recheck) findTarget(verifiers []note.Verifier) []byte {
	f := r.fsck
	if c, _, err := checkpoint.Open(f.newest.Note, r.log.Origin, verifiers...); err == nil && c.Size == f.newest.Size {
		r.target = c
		return f.newest.Note
	}
	if f.fence == nil {
		return nil
	}
	r.target = *f.fence
	return f.fenced
}

// Run does the check, and returns what it found. Progress is told how many more entries or contents have been checked, from several
// goroutines: in the end twice as many as there are entries, unless there were problems too many to go on. The error is that of not being able to check at all.
func (r *Recheck) Run(ctx context.Context, progress func(n int)) (*FsckReport, error) {
	r.fsck.opt.Progress = progress
	report, err := r.fsck.run(ctx, r.checkTree)
	if err != nil {
		return nil, err
	}
	if r.fsck.leaves.Size() != r.To {
		report.Root = "" // of fewer entries
	}
	if len(report.Problems) > 0 { // whoever asked knows of it now, and the operator shall not be the last to
		s := r.log.service
		s.metrics.failures.WithLabelValues("verify").Inc()
		s.logger.Error("a log that was to be verified has entries that can't be; run `treeline fsck`", "log", r.log.Name,
			"entry", report.Problems[0].Index, "problem", report.Problems[0].What)
	}
	return report, nil
}

// checkTree replays the entries, and shows that they lead to the newest checkpoint.
func (r *Recheck) checkTree(ctx context.Context) error {
	f := r.fsck
	fence := f.fence // which those of the entries' checkpoints that are larger take up
	err := f.resume(ctx)
	if err == nil && f.leaves.Size() == f.from {
		err = f.checkCheckpoints(ctx, f.end)
		if err == nil && f.fence != nil {
			err = f.compare(ctx, *f.fence, "the fence's")
		}
		if err == nil {
			err = f.replay(ctx, f.end)
		}
		if err == nil {
			err = f.compareNodes(ctx, true)
		}
		if err == nil && r.Against.Note != nil {
			err = f.leadTo(ctx, r.target, "the newest")
		}
		if err == nil && fence != nil && *fence != r.target {
			err = f.leadTo(ctx, *fence, "the fence's")
		}
	}
	if err == nil {
		err = f.checkEvidence(ctx)
	}
	return err
}

// resume takes up the tree and the chain at the first entry of the run. What is stored of those before it is believed: with the entries
// that follow it leads to what was signed, or it doesn't.
func (f *fsck) resume(ctx context.Context) error {
	if f.from == 0 {
		return nil
	}
	leaves, err := merkle.RangeFromTiles(ctx, f.from, tiles{f.store, f.info.ID})
	if err == nil {
		err = f.store.Entries(ctx, f.info.ID, f.from-1, f.from, func(b []byte) error {
			e, _ := ParseEntry(b) // it isn't one of those to check
			f.last, f.receivedAt = merkle.LeafHash(b), e.ReceivedAt
			return nil
		})
	}
	if errors.Is(err, ErrDamaged) {
		f.bad(f.from, KindInvalid, "the tree before entry %d can't be read, so that what follows can't be placed: %v", f.from, err)
		return nil
	}
	if err == nil {
		f.leaves = leaves
	}
	return err
}

// leadTo checks that the entries that were read, and the stored tree beside them, lead to a checkpoint of a larger size.
func (f *fsck) leadTo(ctx context.Context, c checkpoint.Checkpoint, which string) error {
	size := f.leaves.Size()
	if c.Size <= size || size < f.end || f.diverged >= 0 || f.full() {
		return nil // compared, or said already
	}
	f.report.Checkpoints++
	hashes, err := merkle.ConsistencyProof(ctx, size, c.Size, tiles{f.store, f.info.ID})
	if errors.Is(err, ErrDamaged) {
		f.bad(size, KindInvalid, "the tree after entry %d can't be read, so that nothing leads to %s checkpoint of size %d: %v", size, which, c.Size, err)
		return nil
	}
	if err != nil {
		return err
	}
	if err := merkle.VerifyConsistency(size, c.Size, hashes, f.leaves.Root(), c.Root); err != nil {
		f.badSum(f.matched, c.Size, KindInvalid, "the entries [%d, %d) and the stored tree beside them don't lead to %s checkpoint of size %d: %v",
			f.from, size, which, c.Size, err)
	}
	return nil
}

// How much is read in one turn: some 10 ms of work each.
const (
	turnEntries  = 4096
	turnContents = 512
)

// turns lets those who check logs beside a server's other work do so one after the other, a few rows at a time, and each rest after a
// turn for as long as it took. So all of them together take half a processor at most, less when others keep it busy, and the memory of one.
type turns chan struct{}

func newTurns() turns { return make(turns, 1) }

// take waits for a turn, which ends with the rest in the function that it returns.
func (t turns) take(ctx context.Context) (done func(context.Context), err error) {
	if err := ctx.Err(); err != nil || t == nil {
		return func(context.Context) {}, err
	}
	select {
	case t <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	began := time.Now()
	return func(ctx context.Context) {
		select {
		case <-time.After(time.Since(began)):
		case <-ctx.Done():
		}
		<-t
	}, nil
}
