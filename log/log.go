package log

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// ErrNotSigned means that an event or a size is not under a signed checkpoint yet; it will be in a moment.
var ErrNotSigned = errors.New("not signed yet")

// Log is one tenant's log, open in a Service. It is safe for concurrent use.
type Log struct {
	Info
	service    *Service
	queue      logQueue // guarded by the sequencer
	progress   progress
	settings   atomic.Pointer[Settings]
	signing    sync.Mutex // guards publisher
	publisher  *checkpoint.Publisher
	recorded   []byte                 // the note that this server recorded last; guarded by signing
	signs      atomic.Bool            // the newest checkpoint is this server's
	judging    sync.Mutex             // one release is decided at a time
	accepted   atomic.Uint64          // up to where claims of witnesses are let pass
	logID      [32]byte               // see checkpoint.LogID
	inHub      atomic.Pointer[Growth] // the newest one that the hub covers; nil: none
	rechecking atomic.Bool            // a Recheck is being made
}

// Sizes returns how far the log has come.
func (l *Log) Sizes() Sizes {
	sizes, _, _, _ := l.progress.get()
	return sizes
}

// Stopped returns why the log is stopped, or nil: its store contradicts what was signed, so nothing is signed or
// appended any more, while reads go on.
func (l *Log) Stopped() error {
	_, _, _, err := l.progress.get()
	return err
}

// Frozen reports whether the log has ended: nothing is appended to it any more, reads go on.
func (l *Log) Frozen() bool { return l.progress.frozen.Load() }

// Signed returns the newest signed checkpoint.
func (l *Log) Signed() (checkpoint.Checkpoint, []byte) {
	_, c, note, _ := l.progress.get()
	return c, note
}

// Released returns the newest checkpoint that the public may see, with the cosignatures that are known on it. The note is nil if
// there is none yet: what is signed waits for witnesses, unless the service has none or fails open.
func (l *Log) Released() (checkpoint.Checkpoint, []byte) { return l.progress.released() }

// Append appends events, all or none, at consecutive indices but for those that are in the log already, and returns their
// places in the same order. When it returns nil they are durable and their indices final. The errors are those of the
// sequencer, *ConflictError, ErrSystem, and ctx's while the request is waiting for its turn.
func (l *Log) Append(ctx context.Context, events []*Event) ([]Place, error) {
	if l.IsSystem() {
		return nil, ErrSystem
	}
	return l.append(ctx, events)
}

// append does that with any log.
func (l *Log) append(ctx context.Context, events []*Event) ([]Place, error) {
	if len(events) > MaxRequestEvents {
		return nil, fmt.Errorf("%d events at once, at most %d can be appended", len(events), MaxRequestEvents)
	}
	switch _, _, note, stopped := l.progress.get(); {
	case l.IsHub():
		return nil, ErrHub
	case l.Frozen():
		return nil, ErrFrozen
	case stopped != nil:
		return nil, fmt.Errorf("%w: %w", ErrStopped, stopped)
	case l.service.setBack() != nil:
		return nil, fmt.Errorf("%w with the hub: %w", ErrStopped, l.service.setBack())
	case note == nil:
		return nil, ErrNotReady
	}
	if len(events) == 0 {
		return nil, nil
	}
	drafts := make([]draft, len(events))
	for i, e := range events {
		d := &drafts[i]
		rand.Read(d.seed[:]) // never fails: crypto/rand ends the program instead
		d.event, d.digest, d.data = e, e.Digest(&d.seed), encodePayload(e.JSON())
	}
	r := &request{log: l, drafts: drafts}
	if err := l.service.sequencer.append(ctx, r); err != nil {
		return nil, err
	}
	return r.places, nil
}

// Find returns the index of the event with the id, or ErrNotFound.
func (l *Log) Find(ctx context.Context, id string) (uint64, error) {
	if !isEventID(id) {
		return 0, ErrNotFound
	}
	return l.service.reader.Find(ctx, l.ID, id)
}

// Record returns the record at index, which must be below the log's size. Its content has been re-hashed: what its entry
// doesn't commit to is ErrDamaged.
func (l *Log) Record(ctx context.Context, index uint64) (Record, error) {
	records, err := l.Records(ctx, index, index+1, 0)
	if err != nil {
		return Record{}, err
	}
	r := records[0]
	d, err := r.Disclosure()
	if err != nil {
		return Record{}, fmt.Errorf("entry %d: %w", index, err)
	}
	if entry := d.Entry(); entry.LeafHash() != r.Hash {
		return Record{}, fmt.Errorf("entry %d: %w", index, errContent)
	}
	return r, nil
}

// RecordByID returns the record of the event with the id, as Record does, or ErrNotFound.
func (l *Log) RecordByID(ctx context.Context, id string) (Record, error) {
	index, err := l.Find(ctx, id)
	if err != nil {
		return Record{}, err
	}
	r, err := l.Record(ctx, index)
	if err == nil && r.ID != id {
		err = fmt.Errorf("the id %s leads to entry %d, which has the id %s: %w", id, index, r.ID, ErrDamaged)
	}
	return r, err
}

// RecordsBackwards returns the records [from, to), the newest first, as Records does: fewer, but those before to, if they
// have more than maxBytes of content.
func (l *Log) RecordsBackwards(ctx context.Context, from, to uint64, maxBytes int) ([]Record, error) {
	const step = 64
	var out []Record
	for length := 0; to > from && length < maxBytes; {
		first := max(from, to-min(to, step))
		run, err := l.Records(ctx, first, to, step*MaxEventSize)
		if err != nil {
			return nil, err
		}
		slices.Reverse(run)
		for _, r := range run {
			length += len(r.Event)
		}
		out, to = append(out, run...), first
	}
	return out, nil
}

// errEnough ends the reading of contents.
var errEnough = errors.New("enough")

// Records returns the records [from, to), in the order of their indices; to must be at most the log's size. They are fewer,
// but at least one, if they have more than maxBytes of content.
func (l *Log) Records(ctx context.Context, from, to uint64, maxBytes int) ([]Record, error) {
	if l.IsHub() {
		return nil, ErrHub
	}
	sizes := l.Sizes()
	out := make([]Record, 0, to-from)
	err := l.service.reader.Entries(ctx, l.ID, from, to, func(b []byte) error {
		index := from + uint64(len(out))
		e, err := storedEntry(index, b)
		if err != nil {
			return err
		}
		r := Record{
			Log: l.Name, Index: index, Hash: merkle.LeafHash(b),
			State: sizes.State(index), ReceivedAt: e.ReceivedAt, Previous: e.Previous,
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading entries of log %s: %w", l.Name, err)
	}
	have, length := from, 0
	err = l.service.reader.Payloads(ctx, l.ID, from, to, func(index uint64, p Payload) error {
		event, err := decodeEvent(p)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if index != have {
			return fmt.Errorf("entry %d: its content is missing: %w", have, ErrDamaged)
		}
		have++
		r := &out[index-from]
		r.ID, r.Event, r.Seed, r.parsed = event.ID(), event.JSON(), slices.Clone(p.Seed), event
		if length += len(r.Event); length > maxBytes {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return out[:have-from], nil
	}
	if err == nil && have != to {
		err = fmt.Errorf("entry %d: its content is missing: %w", have, ErrDamaged)
	}
	if err != nil {
		return nil, fmt.Errorf("reading contents of log %s: %w", l.Name, err)
	}
	return out, nil
}

// decodeEvent returns the event in a payload.
func decodeEvent(p Payload) (*Event, error) {
	json, err := decodePayload(p.Data)
	if err != nil {
		return nil, err
	}
	return storedEvent(json)
}

// storedEvent returns the event that a store has. It is ErrDamaged if it isn't one.
func storedEvent(json []byte) (*Event, error) {
	e, err := ParseStored(json)
	if err != nil {
		return nil, fmt.Errorf("its content isn't a canonical event: %v: %w", err, ErrDamaged)
	}
	return e, nil
}

// Wait returns when the log is in the given state up to size, or with ctx's error.
func (l *Log) Wait(ctx context.Context, size uint64, state State) error {
	l.service.waiting.Add(1)
	defer l.service.waiting.Add(-1)
	return l.progress.wait(ctx, reached(size, state))
}

// Proof returns the proof file of the event at index (C2SP tlog-proof), under the newest checkpoint for which the witness policy is
// met, with its cosignatures, or, if that doesn't cover the event, under the newest signed one. It is ErrNotSigned if that doesn't cover the event yet. The proof has been verified: a stored content that no longer matches
// its entry, or an entry its tree, is ErrDamaged and not a proof that fails elsewhere.
func (l *Log) Proof(ctx context.Context, index uint64) ([]byte, error) {
	c, note := l.covering(index)
	if note == nil {
		l.refreshSigned(ctx, func(s Sizes) bool { return index < s.Signed })
		if c, note = l.covering(index); note == nil {
			return nil, ErrNotSigned
		}
	}
	return l.proofUnder(ctx, index, c, note)
}

// proofUnder returns the proof file of the event at index under a checkpoint that covers it, after verifying it.
func (l *Log) proofUnder(ctx context.Context, index uint64, c checkpoint.Checkpoint, note []byte) ([]byte, error) {
	r, err := l.Record(ctx, index)
	if err != nil {
		return nil, err
	}
	d, err := r.Disclosure()
	if err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	hashes, err := merkle.InclusionProof(ctx, index, c.Size, l.proven())
	if err != nil {
		return nil, err
	}
	entry := d.Entry()
	if err := merkle.VerifyInclusion(index, c.Size, merkle.LeafHash(entry.Append(nil)), hashes, c.Root); err != nil {
		return nil, fmt.Errorf("the stored event %d doesn't verify under checkpoint %d: %v: %w", index, c.Size, err, ErrDamaged)
	}
	extra, err := d.Marshal()
	if err != nil {
		return nil, err
	}
	return checkpoint.Proof{Index: index, Hashes: hashes, Checkpoint: note, Extra: extra}.Marshal()
}

// covering returns the checkpoint under which an entry is best proven, a nil note if there is none yet.
func (l *Log) covering(index uint64) (checkpoint.Checkpoint, []byte) {
	for _, newest := range []func() (checkpoint.Checkpoint, []byte){l.progress.witnessed, l.Signed} {
		if c, note := newest(); note != nil && index < c.Size {
			return c, note
		}
	}
	return checkpoint.Checkpoint{}, nil
}

// Covering returns the note under which the entry at index is best proven: the newest witnessed one, or else the newest signed one,
// if that covers it; otherwise nil.
func (l *Log) Covering(index uint64) []byte {
	_, note := l.covering(index)
	return note
}

// Inclusion returns the inclusion proof of the entry at index in the tree of the given size, with the leaf hash. The size
// must be signed.
func (l *Log) Inclusion(ctx context.Context, index, size uint64) (leaf merkle.Hash, hashes []merkle.Hash, err error) {
	if err := l.checkSigned(ctx, size); err != nil {
		return leaf, nil, err
	}
	if hashes, err = merkle.InclusionProof(ctx, index, size, l.proven()); err != nil {
		return leaf, nil, err
	}
	tile, _ := merkle.TileOf(0, index/merkle.TileWidth, size) // there is one, or there would be no proof
	leaves, err := l.proven().ReadTile(ctx, tile)
	if err != nil {
		return leaf, nil, err
	}
	return leaves[index%merkle.TileWidth], hashes, nil
}

// checkSigned returns ErrNotSigned for a size that is not signed yet, and merkle.ErrOutOfRange for one the log doesn't have.
func (l *Log) checkSigned(ctx context.Context, size uint64) error {
	if size > l.Sizes().Signed {
		l.refreshSigned(ctx, func(s Sizes) bool { return size <= s.Signed })
	}
	switch sizes := l.Sizes(); {
	case size > sizes.Size:
		return fmt.Errorf("size %d of a log of size %d: %w", size, sizes.Size, merkle.ErrOutOfRange)
	case size > sizes.Signed:
		return ErrNotSigned
	}
	return nil
}

// Consistency returns the consistency proof between the trees of two sizes, from ≤ to, both signed.
func (l *Log) Consistency(ctx context.Context, from, to uint64) ([]merkle.Hash, error) {
	if err := l.checkSigned(ctx, to); err != nil {
		return nil, err
	}
	return merkle.ConsistencyProof(ctx, from, to, l.proven())
}

// Root returns the root of the tree of a size, which must be signed.
func (l *Log) Root(ctx context.Context, size uint64) (merkle.Hash, error) {
	if err := l.checkSigned(ctx, size); err != nil {
		return merkle.Hash{}, err
	}
	if c, note := l.Signed(); note != nil && c.Size == size {
		return c.Root, nil
	}
	r, err := merkle.RangeFromTiles(ctx, size, l.proven())
	if err != nil {
		return merkle.Hash{}, err
	}
	return r.Root(), nil
}

// CheckpointAt returns the newest checkpoint of at most the given size.
func (l *Log) CheckpointAt(ctx context.Context, size uint64) (Signed, error) {
	if size > l.Sizes().Signed {
		l.refreshSigned(ctx, func(s Sizes) bool { return size <= s.Signed })
	}
	if c, note := l.Signed(); note != nil && c.Size <= size {
		return Signed{c.Size, note}, nil
	}
	return l.service.reader.Checkpoint(ctx, l.ID, min(size, l.Sizes().Signed))
}

// Tile returns the bytes of a tile or entry bundle (C2SP tlog-tiles), ErrNotFound if the released tree doesn't have it.
func (l *Log) Tile(ctx context.Context, t merkle.Tile) ([]byte, error) {
	if !t.In(l.Sizes().Released) {
		l.refreshReleased(ctx, func(s Sizes) bool { return t.In(s.Released) })
		if !t.In(l.Sizes().Released) {
			return nil, ErrNotFound
		}
	}
	var out []byte
	if t.Level == merkle.EntriesLevel {
		from := t.Index * merkle.TileWidth
		out = make([]byte, 0, t.Width*(2+EntrySize))
		err := l.service.reader.Entries(ctx, l.ID, from, from+uint64(t.Width), func(b []byte) (err error) {
			out, err = merkle.AppendBundle(out, b)
			return err
		})
		return out, err
	}
	hashes, err := tiles{l.service.reader, l.ID}.ReadTile(ctx, t)
	for _, h := range hashes {
		out = append(out, h[:]...)
	}
	return out, err
}

// source is the log as its publisher sees it: everything is read afresh from the store. It is a checkpoint.Source.
type source struct {
	tiles
	l *Log
}

func (s source) Origin() string { return s.l.Origin }

func (s source) Head(ctx context.Context) (uint64, merkle.Hash, error) {
	m := s.l.progress.remembered() // before the store's, which may be ahead but never behind
	head, err := s.store.Head(ctx, s.log)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("the head is missing: %w", ErrDamaged)
	}
	if err != nil {
		return 0, merkle.Hash{}, err
	}
	// What is signed has a refusal of its own. Of what isn't yet another server may have signed another version.
	if m.Size > m.Signed && head.Size >= m.Signed && (head.Size < m.Size || s.l.service.config.Shared) {
		if err := s.l.checkRemembered(ctx, m, head.Size); err != nil {
			return 0, merkle.Hash{}, err
		}
	}
	root, err := head.Root()
	if err != nil {
		return 0, merkle.Hash{}, fmt.Errorf("the head of size %d isn't one: %v: %w", head.Size, err, ErrDamaged)
	}
	return head.Size, root, nil
}

func (s source) ReadEntries(ctx context.Context, from, to uint64, fn func([]byte) error) error {
	m := s.l.progress.remembered()
	index := from
	return s.store.Entries(ctx, s.log, from, to, func(entry []byte) error {
		// Nobody has signed it yet, but a client holds its hash.
		if index++; index == m.lastOf && merkle.LeafHash(entry) != m.last {
			return errAcknowledged(index-1, merkle.LeafHash(entry), m.last)
		}
		return fn(entry)
	})
}

// checkRemembered checks that the store, whose head is of the given size, still holds all that this server has seen there, and as
// the newest entry that it has told clients of the very one that it told. A store that failed over to a copy which lagged doesn't.
func (l *Log) checkRemembered(ctx context.Context, m memory, size uint64) error {
	if size < m.Size {
		return fmt.Errorf("%d entries were acknowledged, the store's head is at %d: %w", m.Size, size, ErrDamaged)
	}
	if m.lastOf == 0 {
		return nil
	}
	return l.service.store.Entries(ctx, l.ID, m.lastOf-1, m.lastOf, func(entry []byte) error {
		if got := merkle.LeafHash(entry); got != m.last {
			return errAcknowledged(m.lastOf-1, got, m.last)
		}
		return nil
	})
}

func errAcknowledged(index uint64, got, want merkle.Hash) error {
	return fmt.Errorf("entry %d has hash %v, it was acknowledged with %v: %w", index, got, want, ErrDamaged)
}

func (s source) Latest(ctx context.Context) ([]byte, error) {
	c, err := s.store.Checkpoint(ctx, s.log, merkle.MaxSize)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return c.Note, err
}

func (s source) Record(ctx context.Context, c checkpoint.Checkpoint, note []byte) error {
	err := s.l.service.store.Record(ctx, s.log, Signed{Size: c.Size, Note: note})
	if errors.Is(err, ErrExists) {
		return fmt.Errorf("%w: %w", checkpoint.ErrConflict, err)
	}
	if err == nil {
		s.l.recorded = note
		s.l.service.metrics.signatures.Inc()
	}
	return err
}

func (s source) Publish(c checkpoint.Checkpoint, note []byte) {
	s.l.signs.Store(bytes.Equal(note, s.l.recorded))
	s.l.progress.publish(c, note)
}

// Locate completes the places of duplicates, all of them with one request to the store.
func (l *Log) Locate(ctx context.Context, places []Place) error {
	duplicates := make(map[uint64]*Place)
	for i := range places {
		if p := &places[i]; p.Duplicate {
			duplicates[p.Index] = p // no two ids are at one index
		}
	}
	if len(duplicates) == 0 {
		return nil
	}
	return l.service.reader.EntriesAt(ctx, l.ID, slices.Sorted(maps.Keys(duplicates)), func(index uint64, b []byte) error {
		e, err := storedEntry(index, b)
		p := duplicates[index]
		p.ReceivedAt, p.Previous, p.Hash = e.ReceivedAt, e.Previous, merkle.LeafHash(b)
		return err
	})
}
