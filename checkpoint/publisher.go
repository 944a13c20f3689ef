package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/merkle"
)

var (
	// ErrConflict is wrapped by the error of [Source.Record] when the store already
	// has a checkpoint that is larger, or of the same size and different, and by that
	// of [Publisher.Publish] when it has another than was last recorded.
	ErrConflict = errors.New("the store has another checkpoint")

	// ErrUnborn is wrapped by the errors of [Publisher.Resume] and
	// [Publisher.Publish] when the log is empty and has no checkpoint yet, so that
	// [Publisher.Birth] must come first.
	ErrUnborn = errors.New("the log has no first checkpoint yet")
)

// A Source is one log as its publisher sees it. Everything is read afresh from the
// store, nothing from a cache of those who append; what has been read once can be read
// until the log is gone. An error's outcome may be unknown: the publisher then reads
// again.
type Source interface {
	// Origin returns the log's origin.
	Origin() string

	// Head returns the size and root of the newest committed tree.
	Head(ctx context.Context) (size uint64, root merkle.Hash, err error)

	// ReadEntries calls fn with the entries [from, to) in order, exactly to-from
	// times, unless it returns an error; that of fn ends it. fn doesn't keep the
	// slice.
	ReadEntries(ctx context.Context, from, to uint64, fn func(entry []byte) error) error

	// ReadTile reads the stored tree.
	merkle.TileReader

	// Latest returns the newest note that was recorded, or nil if there is none.
	Latest(ctx context.Context) ([]byte, error)

	// Record durably records a checkpoint and its note, if it is larger than all
	// that were recorded before. If the newest one has the same note, byte for byte,
	// nothing changes and that is no error. Otherwise the error wraps ErrConflict.
	// It is atomic among all processes that use the store.
	Record(ctx context.Context, c Checkpoint, note []byte) error

	// Publish tells that the checkpoint is signed, recorded and fenced, so others may
	// see it. It may be called again with one that it was called with before.
	Publish(c Checkpoint, note []byte)
}

// A Publisher signs the checkpoints of one log. It never signs a tree that doesn't
// extend the last one it signed, and nothing that it hasn't read back from the store
// and checked.
//
// Any error makes it forget what it knows, so that the next call begins with what
// [Publisher.Resume] does. A [Refusal] is final. Any other error may pass, and the call
// is to be made again.
//
// Several publishers of one log, on servers that share store and fence, don't harm each
// other, but one at a time is enough. A Publisher is not safe for concurrent use.
type Publisher struct {
	src       Source
	hub       HubSource // src, if the log is a hub; else nil
	fence     Fence
	signers   []note.Signer
	verifiers []note.Verifier

	last    *signed  // nil if it must be read first
	grown   *growth  // of a hub, the newest that was signed or found signed, so that not all of it need be read again
	refusal *Refusal // nil unless the publisher has stopped for good
}

// signed is a signed checkpoint together with the state to go on from.
type signed struct {
	Checkpoint
	note   []byte
	replay replay
}

// NewPublisher returns the publisher of src. Checkpoints are signed by all signers, one
// of which must have the log's origin as its name. The verifiers are those of the
// signers, and during a rotation those of the keys that signed before as well: the last
// checkpoint must be signed with at least one of them.
func NewPublisher(src Source, fence Fence, signers []note.Signer, verifiers ...note.Verifier) *Publisher {
	return &Publisher{src: src, fence: fence, signers: signers, verifiers: verifiers}
}

// NewHubPublisher returns the publisher of a hub. It signs entries only that say of each
// log what that log has itself signed and recorded, with sizes that grow.
func NewHubPublisher(src HubSource, fence Fence, signers []note.Signer, verifiers ...note.Verifier) *Publisher {
	return &Publisher{src: src, hub: src, fence: fence, signers: signers, verifiers: verifiers}
}

// Resume takes up the log where its last checkpoint left it, which is to be done before
// anything is appended after a start. It checks that
//
//   - the fence has the newest checkpoint that is recorded in the store, or an older one
//     that the newest extends, as after a crash between recording and fencing,
//   - both are signed with the log's keys,
//   - the store's head is not behind,
//   - the stored tree has the signed root at the signed size,
//   - the last entry of that tree is in it, as the chain goes on from there.
//
// Then it completes what a crash has left undone, and publishes the checkpoint. A
// contradiction is a [Refusal]. For a log without a first checkpoint the error wraps
// [ErrUnborn].
func (p *Publisher) Resume(ctx context.Context) error {
	if p.refusal != nil {
		return p.refusal
	}
	p.last = nil
	return p.settle(p.resume(ctx))
}

// Birth makes the checkpoint of size 0 that every log begins with: signed, recorded,
// fenced and published. It is to be done before the first entry is appended, and can be
// done again after any error or crash. For a log that has a checkpoint it is the same as
// [Publisher.Resume].
func (p *Publisher) Birth(ctx context.Context) error {
	if p.refusal != nil {
		return p.refusal
	}
	p.last = nil
	return p.settle(p.birth(ctx))
}

// Publish does one round: if another server has signed meanwhile, that is taken up as
// by [Publisher.Resume]; otherwise, if the log has grown since the last checkpoint, the new entries
// are read, checked and made into a tree, and if that is the store's own, the next
// checkpoint is signed, recorded, fenced and published.
//
// It returns the newest published checkpoint, which is the last one still if the log
// hasn't grown. Errors are as for [Publisher.Resume].
func (p *Publisher) Publish(ctx context.Context) (Checkpoint, error) {
	if p.refusal != nil {
		return Checkpoint{}, p.refusal
	}
	if err := p.settle(p.publish(ctx)); err != nil {
		return Checkpoint{}, err
	}
	return p.last.Checkpoint, nil
}

// settle draws the consequences of a call's error. Which errors left the outcome of a
// step unknown is not worth telling apart: resuming costs a few reads.
func (p *Publisher) settle(err error) error {
	if err == nil {
		return nil
	}
	p.last = nil
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		p.refusal = refusal
	}
	return err
}

func (p *Publisher) birth(ctx context.Context) error {
	err := p.resume(ctx)
	if !errors.Is(err, ErrUnborn) {
		return err
	}
	c := Checkpoint{Origin: p.src.Origin(), Size: 0, Root: merkle.EmptyRoot()}
	msg, err := p.sign(c)
	if err != nil {
		return err
	}
	if err := p.src.Record(ctx, c, msg); err != nil {
		return fmt.Errorf("recording the first checkpoint: %w", err)
	}
	// What is left to do is what a crash here would leave to do.
	return p.resume(ctx)
}

func (p *Publisher) resume(ctx context.Context) error {
	// In this order, which is the reverse of that of writing: when another publisher
	// is at work meanwhile, the store may look ahead of the fence, and the head ahead
	// of the store's checkpoint, but not the other way round.
	fencedNote, err := p.fence.Load(ctx, p.src.Origin())
	if err != nil {
		return err
	}
	recordedNote, err := p.src.Latest(ctx)
	if err != nil {
		return fmt.Errorf("reading the newest recorded checkpoint: %w", err)
	}
	size, root, err := p.src.Head(ctx)
	if err != nil {
		return fmt.Errorf("reading the head: %w", err)
	}
	head := Checkpoint{p.src.Origin(), size, root}
	if fencedNote == nil && (recordedNote != nil || size > 0) {
		// Only one that is missing still is missing: another publisher may have given birth to the log meanwhile.
		again, err := p.fence.Load(ctx, head.Origin)
		if err != nil {
			return err
		}
		if again != nil {
			return fmt.Errorf("while %s was born: %w", head.Origin, ErrFenceMoved)
		}
	}
	refuse := func(reason Reason, want, got Checkpoint, format string, args ...any) error {
		return &Refusal{
			Origin: head.Origin, Reason: reason, Detail: fmt.Sprintf(format, args...),
			Fenced: fencedNote, Recorded: recordedNote, Want: want, Got: got,
		}
	}
	none := Checkpoint{}

	var fenced, recorded Checkpoint
	if fencedNote != nil {
		if fenced, _, err = Open(fencedNote, head.Origin, p.verifiers...); err != nil {
			return refuse(Unverified, none, none, "the fence's checkpoint: %v", err)
		}
	}
	if recordedNote != nil {
		if recorded, _, err = Open(recordedNote, head.Origin, p.verifiers...); err != nil {
			return refuse(Unverified, none, none, "the store's newest checkpoint: %v", err)
		}
	}

	// The store against the fence. A fence may be missing only while the log is being
	// born, which is before it has entries.
	switch {
	case fencedNote == nil && recordedNote == nil && size == 0:
		return fmt.Errorf("%s: %w", head.Origin, ErrUnborn)
	case fencedNote == nil && recordedNote == nil:
		return refuse(Unfenced, none, none, "the store has %d entries, but neither the store nor the fence has a checkpoint; "+
			"restore both from where they were kept together", size)
	case fencedNote == nil && (recorded.Size > 0 || size > 0):
		return refuse(Unfenced, none, none, "the store has a checkpoint of size %d, but the fence has none; "+
			"bring back the fence; if it is lost, and you are sure that the store is the newest one there was, run: treeline fence accept %s",
			recorded.Size, logName(head.Origin))
	case recordedNote == nil:
		return refuse(Rollback, fenced, none, "the fence has a checkpoint of size %d, the store has none; "+
			"this is not the newest store of the log: bring that back", fenced.Size)
	case fenced.Size > recorded.Size:
		return refuse(Rollback, fenced, recorded, "the fence has a checkpoint of size %d, the newest in the store is of size %d; "+
			"this is not the newest store of the log: bring that back", fenced.Size, recorded.Size)
	case fencedNote != nil && fenced.Size == recorded.Size && !bytes.Equal(fencedNote, recordedNote):
		return refuse(Diverged, fenced, recorded, "the fence and the store have different checkpoints of size %d", fenced.Size)
	}

	// The store against its own checkpoint.
	if size < recorded.Size {
		return refuse(Rollback, recorded, head, "the store has fewer entries than its checkpoint says")
	}
	if size == recorded.Size && root != recorded.Root {
		return refuse(Diverged, recorded, head, "the store has another tree than its checkpoint of the same size says")
	}
	tree, err := merkle.RangeFromTiles(ctx, recorded.Size, p.src)
	if err != nil {
		return fmt.Errorf("reading the stored tree: %w", err)
	}
	if tree.Root() != recorded.Root {
		got := Checkpoint{head.Origin, recorded.Size, tree.Root()}
		return refuse(Diverged, recorded, got, "the stored tree is not the one that was signed")
	}
	state, wrong, err := p.lastEntry(ctx, recorded)
	if err != nil {
		return err
	}
	if wrong != nil {
		return refuse(Damaged, none, none, "%v", wrong)
	}
	state.tree = tree

	if !bytes.Equal(fencedNote, recordedNote) {
		if fencedNote != nil {
			proof, err := merkle.ConsistencyProof(ctx, fenced.Size, recorded.Size, p.src)
			if err != nil {
				return fmt.Errorf("reading the stored tree: %w", err)
			}
			if err := merkle.VerifyConsistency(fenced.Size, recorded.Size, proof, fenced.Root, recorded.Root); err != nil {
				return refuse(Diverged, fenced, recorded, "the store's newest checkpoint doesn't extend the fence's: %v", err)
			}
		}
		if err := p.fence.Swap(ctx, head.Origin, fencedNote, recordedNote); err != nil {
			return err
		}
	}
	p.src.Publish(recorded, recordedNote)
	p.last = &signed{recorded, recordedNote, state}
	p.grown, _ = state.order.(*growth)
	return nil
}

// lastEntry reads the last entry of a signed tree and checks that it is. It returns the
// state of a replay after it, without the tree. The second result says what is wrong
// with the entry, the third is an error of reading.
func (p *Publisher) lastEntry(ctx context.Context, c Checkpoint) (state replay, wrong, err error) {
	if c.Size == 0 {
		state.order, err = p.orderAfter(ctx, c, nil)
		return state, nil, err
	}
	last := c.Size - 1
	var entry []byte
	err = p.src.ReadEntries(ctx, last, c.Size, func(e []byte) error {
		entry = bytes.Clone(e)
		return nil
	})
	if err != nil {
		return replay{}, nil, fmt.Errorf("reading entry %d: %w", last, err)
	}
	proof, err := merkle.InclusionProof(ctx, last, c.Size, p.src)
	if err != nil {
		return replay{}, nil, fmt.Errorf("reading the stored tree: %w", err)
	}
	if err := merkle.VerifyInclusion(last, c.Size, merkle.LeafHash(entry), proof, c.Root); err != nil {
		return replay{}, fmt.Errorf("entry %d is not the one that was signed: %w", last, err), nil
	}
	if p.hub != nil {
		_, wrong = ParseHubEntry(entry)
	} else {
		_, _, wrong = splitEntry(entry)
	}
	if wrong != nil {
		return replay{}, fmt.Errorf("entry %d: %w", last, wrong), nil
	}
	state.order, err = p.orderAfter(ctx, c, entry)
	return state, nil, err
}

// orderAfter returns the order of the log's entries after those of a signed tree, of which last is the
// newest, well formed, or nil if there is none.
func (p *Publisher) orderAfter(ctx context.Context, c Checkpoint, last []byte) (order, error) {
	if p.hub != nil {
		return p.growthAfter(ctx, c.Size)
	}
	if last == nil {
		return &chained{NewChain(c.Origin)}, nil
	}
	receivedAt, _, err := splitEntry(last)
	return &chained{ResumeChain(merkle.LeafHash(last), receivedAt)}, err
}

func (p *Publisher) publish(ctx context.Context) error {
	if p.last == nil {
		if err := p.resume(ctx); err != nil {
			return err
		}
	}
	last := p.last
	refuse := func(reason Reason, want, got Checkpoint, detail string) error {
		return &Refusal{
			Origin: last.Origin, Reason: reason, Detail: detail,
			Fenced: last.note, Recorded: last.note, Want: want, Got: got,
		}
	}

	// If another server has signed, this one takes up its checkpoint and leaves it at that: so a log is signed once each
	// interval however many servers there are, by the one that has done so before, and by any other if that one is gone.
	recorded, err := p.src.Latest(ctx)
	if err != nil {
		return fmt.Errorf("reading the newest recorded checkpoint: %w", err)
	}
	if !bytes.Equal(recorded, last.note) {
		return p.resume(ctx)
	}

	// What the store says it has.
	size, root, err := p.src.Head(ctx)
	if err != nil {
		return fmt.Errorf("reading the head: %w", err)
	}
	head := Checkpoint{last.Origin, size, root}
	if size < last.Size {
		return refuse(Rollback, last.Checkpoint, head, "the store has fewer entries than were signed")
	}
	if size == last.Size {
		if root != last.Root {
			return refuse(Diverged, last.Checkpoint, head, "the store has another tree than the one of the same size that was signed")
		}
		return nil
	}

	// What it has.
	next := last.replay.clone()
	var wrong error
	err = p.src.ReadEntries(ctx, last.Size, size, func(entry []byte) error {
		wrong = next.add(entry)
		return wrong
	})
	if wrong != nil {
		return refuse(Damaged, Checkpoint{}, Checkpoint{}, wrong.Error())
	}
	if err != nil {
		return fmt.Errorf("reading entries %d to %d: %w", last.Size, size, err)
	}
	if got := (Checkpoint{last.Origin, next.tree.Size(), next.tree.Root()}); got != head {
		return refuse(Damaged, head, got, "the stored entries don't give the tree of the store's head")
	}
	for _, check := range []func() (wrong, err error){
		func() (error, error) { return next.checkTiles(ctx, p.src) },
		func() (error, error) { return next.order.settle(ctx) },
	} {
		if wrong, err = check(); err != nil {
			return err
		}
		if wrong != nil {
			return refuse(Damaged, Checkpoint{}, Checkpoint{}, wrong.Error())
		}
	}

	// If the fence or the store isn't where this publisher left it, then another one is
	// at work, or somebody tampers. Resuming tells which.
	fenced, err := p.fence.Load(ctx, last.Origin)
	if err != nil {
		return err
	}
	if !bytes.Equal(fenced, last.note) {
		return fmt.Errorf("before signing size %d of %s: %w", size, last.Origin, ErrFenceMoved)
	}
	if recorded, err = p.src.Latest(ctx); err != nil {
		return fmt.Errorf("reading the newest recorded checkpoint: %w", err)
	}
	if !bytes.Equal(recorded, last.note) {
		return fmt.Errorf("before signing size %d of %s: %w", size, last.Origin, ErrConflict)
	}

	msg, err := p.sign(head)
	if err != nil {
		return err
	}
	// Nobody may see the signature before both have it: whoever then reads the store
	// or the fence knows of every checkpoint that anybody can hold.
	if err := p.src.Record(ctx, head, msg); err != nil {
		return fmt.Errorf("recording the checkpoint of size %d: %w", size, err)
	}
	if err := p.fence.Swap(ctx, last.Origin, last.note, msg); err != nil {
		return err
	}
	p.src.Publish(head, msg)
	p.last = &signed{head, msg, next}
	p.grown, _ = next.order.(*growth)
	return nil
}

// sign signs c and checks the signature, since a wrong one would be recorded for ever.
func (p *Publisher) sign(c Checkpoint) ([]byte, error) {
	msg, err := Sign(c, p.signers...)
	if err != nil {
		return nil, err
	}
	if _, _, err := Open(msg, c.Origin, p.verifiers...); err != nil {
		return nil, fmt.Errorf("checking the signature just made: %w", err)
	}
	return msg, nil
}

// logName returns the name in a log's origin.
func logName(origin string) string {
	return origin[strings.LastIndexByte(origin, '/')+1:]
}
