package log

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// The hub is a log of the other logs' checkpoints. Witnesses cosign its checkpoints only, however many logs there are: a log is
// witnessed up to its newest checkpoint that is in the part of the hub that they have cosigned.
//
// Its entries say that a log has signed a tree of a size and root. There is no chain of them, nor are there contents or ids. Its
// tree, checkpoints and fence are those of any log.

// HubName is the name of the hub. It is reserved.
const HubName = checkpoint.HubName

// Errors of what a hub is asked for.
var (
	// ErrHub means that a log is the hub, which holds no events and can't be appended to.
	ErrHub = errors.New("the hub holds the checkpoints of other logs, and no events")
	// ErrNoHub means that the service keeps no hub.
	ErrNoHub = errors.New("this server keeps no hub")
	// ErrNoProof means that the store doesn't have what would show that a log in the hub only grew: it was set back, forked or damaged
	// since the hub has it.
	ErrNoProof = errors.New("the store doesn't show that the log only grew")
	// ErrNotInHub means that an event is not under a witnessed checkpoint of the hub yet.
	ErrNotInHub = errors.New("not under a witnessed checkpoint of the hub yet")
)

// IsHub reports whether the log is the hub, and not a tenant's.
func (i Info) IsHub() bool { return i.Name == HubName }

// hubEntryVersion is the first byte of an entry of a hub.
const hubEntryVersion = 0x02

// appendHubEntry appends the EntrySize bytes of an entry of a hub to dst: that the log with an id has signed a checkpoint.
func appendHubEntry(dst []byte, id [32]byte, c checkpoint.Checkpoint) []byte {
	dst = append(dst, hubEntryVersion)
	dst = append(dst, id[:]...)
	dst = binary.BigEndian.AppendUint64(dst, c.Size)
	return append(dst, c.Root[:]...)
}

// maxGrowths is how many entries are appended to the hub in one transaction, and how many of its newest entries are read again
// rather than asking for the newest of every log.
var maxGrowths = 10_000 // smaller in tests

// hub puts into the hub what the logs of a service have signed, and lets them know when that is witnessed.
//
// Several servers may do so at the same time: the hub's head is locked while one appends, and the others then find that there
// is nothing left to do.
type hub struct {
	service *Service
	log     *Log

	// Of the loop that appends. Without edge nothing is remembered.
	head   Head
	edge   *merkle.Range
	newest map[ID]uint64 // by log, the size in its newest entry

	// Of the loop that carries.
	carried uint64 // how much of the hub's witnessed entries the logs know of
}

// openHub opens the hub of a service whose other logs are open, and makes it if there is none.
func (s *Service) openHub(ctx context.Context) error {
	l, err := s.openOwn(ctx, HubName, Settings{Public: s.config.HubPublic})
	if err != nil {
		return err
	}
	s.hub = &hub{service: s, log: l}
	if l.Stopped() == nil { // otherwise it is no measure of others
		if err := s.hub.compare(ctx); err != nil {
			return fmt.Errorf("comparing the logs with what the hub has of them: %w", err)
		}
	}
	// Witnesses may have cosigned the logs themselves while no hub was kept. What is public by that stays so.
	for _, l := range s.Tenants() {
		if s.config.Policy == nil || l.diverged() {
			continue
		}
		if err := l.findWitnessed(ctx); errors.Is(err, ErrDamaged) {
			s.fail(l, err)
		} else if err != nil {
			return fmt.Errorf("log %s: %w", l.Name, err)
		}
	}
	if err := s.hub.carry(ctx); err != nil {
		s.hub.failed("carry", err)
	}
	return nil
}

// recallHub lets the logs of a service that keeps no hub any more know what witnesses had cosigned of the one it kept, so that what is
// public by that stays so until they have cosigned the logs themselves.
func (s *Service) recallHub(ctx context.Context) error {
	l := s.Log(HubName)
	if l == nil || s.config.Policy == nil {
		return nil
	}
	h := &hub{service: s, log: l}
	err := l.findWitnessed(ctx)
	if err == nil {
		err = h.carry(ctx)
	}
	if errors.Is(err, ErrDamaged) { // which is the hub's own trouble
		s.fail(l, err)
		return nil
	}
	return err
}

// compare stops the logs that are not what the hub says that they have signed: less of them is there, as in an old copy, or
// another tree. What it says witnesses may have cosigned, and whatever such a log signed next would be a fork of that.
func (h *hub) compare(ctx context.Context) error {
	newest, err := h.service.store.NewestGrowths(ctx, h.log.ID, h.log.Sizes().Size)
	if err != nil {
		return err
	}
	indices := make([]uint64, len(newest))
	for i, g := range newest {
		indices[i] = g.Index
	}
	slices.Sort(indices)
	// The entries are what is signed and witnessed, their rows only say where they are.
	entries := make([]checkpoint.HubEntry, 0, len(indices))
	err = h.service.store.EntriesAt(ctx, h.log.ID, indices, func(index uint64, b []byte) error {
		e, err := checkpoint.ParseHubEntry(b)
		if err != nil {
			return fmt.Errorf("entry %d of the hub: %w: %w", index, err, ErrDamaged)
		}
		entries = append(entries, e)
		return nil
	})
	if errors.Is(err, ErrDamaged) {
		h.log.stop(err)
		return nil
	}
	if err != nil {
		return err
	}
	for i, e := range entries {
		l := h.service.logOf(ctx, e.LogID)
		if l == nil || l.Stopped() != nil {
			continue
		}
		if err := l.compare(ctx, indices[i], e); errors.As(err, new(*checkpoint.Refusal)) || errors.Is(err, ErrDamaged) {
			h.service.fail(l, err)
		} else if err != nil {
			return fmt.Errorf("log %s: %w", l.Name, err)
		}
	}
	return nil
}

// compare compares the log with the hub's entry at index, which is about it. A contradiction is a checkpoint.Refusal.
func (l *Log) compare(ctx context.Context, index uint64, e checkpoint.HubEntry) error {
	refuse := func(reason checkpoint.Reason, got checkpoint.Checkpoint, detail string) error {
		_, recorded := l.Signed()
		return &checkpoint.Refusal{
			Origin: l.Origin, Reason: reason, Recorded: recorded,
			Detail: fmt.Sprintf("entry %d of the hub says that the log has signed size %d, %s", index, e.Size, detail),
			Want:   checkpoint.Checkpoint{Origin: l.Origin, Size: e.Size, Root: e.Root}, Got: got,
		}
	}
	if l.Sizes().Size < e.Size {
		head, err := l.service.store.Head(ctx, l.ID) // other servers go on while this one starts
		if err != nil {
			return err
		}
		l.progress.grown(head.Size)
	}
	if size := l.Sizes().Size; size < e.Size {
		c, _ := l.Signed()
		return refuse(checkpoint.Rollback, c, fmt.Sprintf(
			"the store has %d entries of it; this is not the newest store of the log: bring that back", size))
	}
	got, _ := l.Signed()
	if got.Size != e.Size { // as after a crash before the hub had the newest
		tree, err := merkle.RangeFromTiles(ctx, e.Size, tiles{l.service.store, l.ID})
		if err != nil {
			return err
		}
		got = checkpoint.Checkpoint{Origin: l.Origin, Size: e.Size, Root: tree.Root()}
	}
	if got.Root != e.Root {
		return refuse(checkpoint.Diverged, got, "the store has another tree of that size")
	}
	return nil
}

// errHeld means that no log is signed since the hub isn't.
var errHeld = errors.New("no log is signed before the hub may be; the hub's witnesses say that it had more, or it is stopped, so that they " +
	"can't be asked")

// setBack returns why nothing is appended to any log, or nil: a witness has shown another history of the hub, so the store, with all logs
// in it, isn't the one to go on with. What is only claimed keeps logs from being signed, since it may be a lie, and from nothing else.
func (s *Service) setBack() error {
	if s.hub == nil {
		return nil
	}
	if err := s.hub.log.Stopped(); errors.Is(err, ErrContradicted) {
		return err
	}
	return nil
}

// ready returns errHeld if logs wait to be signed for more than the moment in which witnesses are asked at start.
func (h *hub) ready() error {
	if err := h.log.holding(); err == nil || errors.Is(err, errUnasked) && h.log.Stopped() == nil {
		return nil
	}
	return errHeld
}

// heed looks whether another server has found that witnesses contradict the hub, before logs are signed. It reports whether they may
// be, so far as that is known.
func (h *hub) heed(ctx context.Context) bool {
	if !h.service.config.Shared || !h.service.feeds(h.log.Info) || h.log.Stopped() != nil {
		return true
	}
	err := h.log.heed(ctx)
	if err != nil && ctx.Err() == nil {
		h.service.fail(h.log, err)
	}
	return err == nil
}

// grow appends to the hub what logs have signed beyond their newest entries, and signs it.
func (h *hub) grow(ctx context.Context) {
	for {
		if _, note := h.log.Signed(); note == nil || h.log.Stopped() != nil {
			return
		}
		n, err := h.append(ctx)
		if errors.Is(err, ErrDamaged) && !errors.Is(err, ErrOutcomeUnknown) {
			h.log.stop(err)
			return
		}
		if err != nil && ctx.Err() == nil {
			h.failed("append to the hub", err)
		}
		if n == 0 {
			return
		}
		if err := h.log.publish(ctx, false); err != nil && ctx.Err() == nil {
			h.service.fail(h.log, err)
		}
		if n < maxGrowths {
			return
		}
	}
}

// failed notes an error, after which it is tried again.
func (h *hub) failed(attempted string, err error) {
	if errors.Is(err, ErrRolledBack) || errors.Is(err, ErrHeadMoved) { // another server was faster
		return
	}
	h.service.metrics.failures.WithLabelValues("hub").Inc()
	h.service.logger.Warn("the hub failed, will be tried again", "attempted", attempted, "error", err)
}

// grown are logs that have signed more than the hub has of them.
type grown struct {
	log    *Log
	signed checkpoint.Checkpoint
}

// behind returns the logs of which the hub has less than they have signed, maxGrowths of them at most.
func (h *hub) behind() (all []grown) {
	for _, l := range h.service.Logs() {
		if l == h.log || l.diverged() {
			continue
		}
		if c, _ := l.Signed(); c.Size > h.newest[l.ID] {
			all = append(all, grown{l, c})
			if len(all) == maxGrowths {
				break
			}
		}
	}
	return all
}

// append appends one batch of entries, and returns how many. After any error nothing is remembered, so that the next call begins
// with what is stored.
func (h *hub) append(ctx context.Context) (n int, err error) {
	defer func() {
		if err != nil {
			h.edge = nil
		}
	}()
	if h.edge == nil {
		head, err := h.service.store.Head(ctx, h.log.ID)
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("the hub's head is missing: %w", ErrDamaged)
		}
		if err != nil {
			return 0, err
		}
		if err := h.load(ctx, head); err != nil {
			return 0, err
		}
	}
	if h.behind() == nil {
		return 0, nil
	}
	tx, err := h.service.store.Begin(ctx, []ID{h.log.ID})
	if err != nil {
		return 0, fmt.Errorf("beginning a batch: %w", err)
	}
	defer tx.Rollback()
	head, err := tx.Head(h.log.ID)
	if err != nil {
		return 0, fmt.Errorf("reading the hub's head: %w", err)
	}
	if head.Frozen {
		h.log.progress.frozen.Store(true)
		return 0, ErrFrozen
	}
	if head.Size != h.head.Size || head.Last != h.head.Last {
		if err := h.load(ctx, head); err != nil {
			return 0, err
		}
	}
	b := h.batch(h.behind())
	if len(b.Growths) == 0 {
		return 0, nil
	}
	if err := tx.Append([]*Batch{b}); err != nil {
		return 0, fmt.Errorf("writing a batch: %w", err)
	}
	if err := tx.Commit(); err != nil {
		if !errors.Is(err, ErrRolledBack) {
			h.log.progress.doubt.Store(true) // it may have grown: the publisher will look
			err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		return 0, fmt.Errorf("committing: %w", err)
	}
	h.head = b.Head
	for _, g := range b.Growths {
		h.newest[g.Log] = g.Size
	}
	h.log.progress.sequenced(b.Head)
	return len(b.Growths), nil
}

// load takes up the hub at a head: it checks that against the rows, and reads what the hub has of each log. Of a hub that others
// have appended to since, only that is read.
func (h *hub) load(ctx context.Context, head Head) (err error) {
	store := h.service.store
	if err := h.log.checkRemembered(ctx, h.log.progress.remembered(), head.Size); err != nil {
		return err
	}
	known := h.edge != nil && head.Size >= h.head.Size && head.Size-h.head.Size <= uint64(maxGrowths)
	if h.edge, err = checkHead(ctx, store, h.log.Info, head); err != nil {
		return err
	}
	if known {
		err = store.Growths(ctx, h.log.ID, h.head.Size, head.Size, func(g Growth) error {
			h.newest[g.Log] = g.Size
			return nil
		})
	} else {
		var all []Growth
		all, err = store.NewestGrowths(ctx, h.log.ID, head.Size)
		h.newest = make(map[ID]uint64, len(all))
		for _, g := range all {
			h.newest[g.Log] = g.Size
		}
	}
	h.head = head
	return err
}

// batch makes what appends logs' checkpoints to the hub.
func (h *hub) batch(logs []grown) *Batch {
	b := &Batch{Log: h.log.ID, From: h.head.Size, Head: h.head}
	for _, g := range logs {
		b.Growths = append(b.Growths, Growth{Log: g.log.ID, Size: g.signed.Size, Index: b.Head.Size})
		b.Entries = appendHubEntry(b.Entries, g.log.logID, g.signed)
		b.Head.Last = merkle.LeafHash(b.Entries[len(b.Entries)-EntrySize:])
		h.edge.Append(b.Head.Last, b.complete)
		b.Head.Size++
	}
	b.Head.Edge = h.edge.Hashes()
	return b
}

// covered returns how much of the hub stands behind the logs in it: what is witnessed, or without witnesses what is signed.
func (h *hub) covered(s Sizes) uint64 {
	if h.service.config.Policy == nil {
		return s.Signed
	}
	return s.Witnessed
}

// run carries what witnesses say of the hub to the logs, until ctx ends.
func (h *hub) run(ctx context.Context) {
	more := func() error {
		carried := h.carried
		return h.log.progress.wait(ctx, func(s Sizes) bool { return h.covered(s) > carried })
	}
	for ctx.Err() == nil && more() == nil {
		err := h.carry(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		h.failed("carry", err)
		select {
		case <-ctx.Done():
		case <-time.After(h.service.config.Interval):
		}
	}
}

// carry lets each log that has entries in what the hub has newly covered know of the newest one: up to there it is witnessed and
// released.
func (h *hub) carry(ctx context.Context) error {
	to := h.covered(h.log.Sizes())
	newest, err := h.newestIn(ctx, h.carried, to)
	if err != nil {
		return fmt.Errorf("reading the hub's entries [%d, %d): %w", h.carried, to, err)
	}
	notes := make([][]byte, len(newest))
	err = h.service.store.CheckpointsOf(ctx, newest, func(i int, note []byte) error {
		notes[i] = bytes.Clone(note)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the checkpoints that are in the hub: %w", err)
	}
	late := 0
	for i, g := range newest {
		if l := h.service.LookupID(ctx, g.Log); l == nil || !l.carry(ctx, g, notes[i]) {
			late++
		}
	}
	if late > 0 {
		return fmt.Errorf("%d logs are in the hub with checkpoints that this server doesn't know of", late)
	}
	h.carried = to
	return nil
}

// newestIn returns the newest growth of each log that has one among the hub's entries [from, to); if there are many, of all logs.
func (h *hub) newestIn(ctx context.Context, from, to uint64) ([]Growth, error) {
	if to-min(from, to) > uint64(maxGrowths) {
		return h.service.store.NewestGrowths(ctx, h.log.ID, to)
	}
	var all []Growth
	at := make(map[ID]int)
	err := h.service.store.Growths(ctx, h.log.ID, from, to, func(g Growth) error {
		if i, ok := at[g.Log]; ok {
			all[i] = g
			return nil
		}
		at[g.Log] = len(all)
		all = append(all, g)
		return nil
	})
	return all, err
}

// carry notes that the hub covers a checkpoint of the log, and reports whether this server knows of it.
func (l *Log) carry(ctx context.Context, g Growth, note []byte) bool {
	if l.diverged() {
		return true // of two histories none is shown
	}
	c, _, err := checkpoint.ParseNote(note)
	if c.Size > l.Sizes().Signed {
		l.refreshSigned(ctx, func(s Sizes) bool { return c.Size <= s.Signed })
	}
	if err != nil || c.Size > l.Sizes().Signed {
		return l.Stopped() != nil // it won't
	}
	l.inHub.Store(&g)
	if l.service.config.Policy != nil {
		l.progress.release(c, note)
		l.progress.witness(c.Size)
	}
	return true
}

// KeepsHub reports whether the service puts its logs' checkpoints into a hub.
func (s *Service) KeepsHub() bool { return s.hub != nil }

// InHub reports whether there is a hub proof of the event at index.
func (l *Log) InHub(index uint64) bool {
	g := l.inHub.Load()
	return g != nil && index < g.Size
}

// HubProof returns the hub proof of the event at index: the proof of the event under the log's newest checkpoint that a
// witnessed checkpoint of the hub covers, and the proof that it does. It is ErrNotInHub if there is none that covers the
// event, and ErrNoHub if there is no hub. It has been verified. Claims of the event may be withheld.
func (l *Log) HubProof(ctx context.Context, index uint64, without Withheld) ([]byte, error) {
	h := l.service.hub
	if l.IsHub() {
		return nil, ErrHub
	}
	if h == nil {
		return nil, ErrNoHub
	}
	g := l.inHub.Load()
	if g == nil || index >= g.Size {
		return nil, ErrNotInHub
	}
	signed, err := l.service.reader.Checkpoint(ctx, l.ID, g.Size)
	if err != nil {
		return nil, err
	}
	c, _, err := checkpoint.ParseNote(signed.Note)
	if err != nil || c.Size != g.Size {
		return nil, fmt.Errorf("log %s: its checkpoint of size %d, which is in the hub, isn't there: %w", l.Name, g.Size, ErrDamaged)
	}
	event, err := l.proofUnder(ctx, index, c, signed.Note, without)
	if err != nil {
		return nil, err
	}
	entry, err := h.proof(ctx, *g, appendHubEntry(nil, l.logID, c))
	if err != nil {
		return nil, err
	}
	return checkpoint.HubProof{Event: event, Entry: entry}.Marshal()
}

// proof returns the proof file of an entry of the hub, whose bytes are given, under its newest witnessed checkpoint.
func (h *hub) proof(ctx context.Context, g Growth, entry []byte) ([]byte, error) {
	c, note := h.log.Signed()
	if h.service.config.Policy != nil {
		c, note = h.log.progress.witnessed()
	}
	hashes, err := merkle.InclusionProof(ctx, g.Index, c.Size, h.log.proven())
	if err != nil {
		return nil, err
	}
	if err := merkle.VerifyInclusion(g.Index, c.Size, merkle.LeafHash(entry), hashes, c.Root); err != nil {
		return nil, fmt.Errorf("entry %d of the hub doesn't verify under checkpoint %d: %v: %w", g.Index, c.Size, err, ErrDamaged)
	}
	return checkpoint.Proof{Index: g.Index, Hashes: hashes, Checkpoint: note, Extra: entry}.Marshal()
}

// Extension says how the tree that an entry of a hub is about extends that of the entry before it of the same log.
type Extension struct {
	First    bool   // there is none before it
	Previous uint64 // index of the one before it
	Hashes   []merkle.Hash
}

// Text returns the extension as it is served: a line "first", or "previous" and an index, then a line of base64 for each hash.
func (x Extension) Text() []byte {
	out := []byte("first\n")
	if !x.First {
		out = append(strconv.AppendUint([]byte("previous "), x.Previous, 10), '\n')
	}
	for _, h := range x.Hashes {
		out = append(base64.StdEncoding.AppendEncode(out, h[:]), '\n')
	}
	return out
}

// Extension returns how the tree of the hub's entry at index extends the one before it, from size 0 if there is none. The proof has
// been verified. What isn't released is ErrNotFound, and what can't be shown is ErrNoProof.
func (l *Log) Extension(ctx context.Context, index uint64) (x Extension, err error) {
	if !l.IsHub() {
		return x, ErrNotFound
	}
	if index >= l.Sizes().Released {
		l.refreshSigned(ctx, func(s Sizes) bool { return index < s.Released })
		if index >= l.Sizes().Released {
			return x, ErrNotFound
		}
	}
	e, err := l.hubEntry(ctx, index)
	if err != nil {
		return x, err
	}
	of := l.service.logOf(ctx, e.LogID)
	if of == nil {
		return x, fmt.Errorf("entry %d of the hub is about log %x, which isn't there: %w", index, e.LogID, ErrDamaged)
	}
	g, err := l.service.reader.GrowthBefore(ctx, l.ID, of.ID, e.Size)
	if errors.Is(err, ErrNotFound) {
		return Extension{First: true}, nil
	}
	if err != nil {
		return x, err
	}
	before, err := l.hubEntry(ctx, g.Index)
	if err != nil {
		return x, err
	}
	if g.Index >= index || before.LogID != e.LogID || before.Size != g.Size {
		return x, fmt.Errorf("entry %d of the hub isn't the one before entry %d of the same log: %w", g.Index, index, ErrDamaged)
	}
	hashes, err := merkle.ConsistencyProof(ctx, before.Size, e.Size, of.proven())
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrNotFound) {
		return x, fmt.Errorf("log %s, from size %d to %d: %w: %v", of.Name, before.Size, e.Size, ErrNoProof, err)
	}
	if err != nil {
		return x, err
	}
	if err := merkle.VerifyConsistency(before.Size, e.Size, hashes, before.Root, e.Root); err != nil {
		return x, fmt.Errorf("log %s, from size %d to %d: %w: %v", of.Name, before.Size, e.Size, ErrNoProof, err)
	}
	return Extension{Previous: g.Index, Hashes: hashes}, nil
}

// hubEntry returns the entry at index of a hub.
func (l *Log) hubEntry(ctx context.Context, index uint64) (e checkpoint.HubEntry, err error) {
	err = l.service.reader.Entries(ctx, l.ID, index, index+1, func(b []byte) (err error) {
		if e, err = checkpoint.ParseHubEntry(b); err != nil {
			err = fmt.Errorf("entry %d of the hub: %w: %w", index, err, ErrDamaged)
		}
		return err
	})
	return e, err
}

// logOf returns the log with the id, also if another server has just made it, or nil.
func (s *Service) logOf(ctx context.Context, id [32]byte) *Log {
	find := func() *Log {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.byLogID[id]
	}
	l := find()
	if l == nil && s.config.Shared {
		s.learn(ctx)
		l = find()
	}
	return l
}

// hubSource is the hub as its publisher sees it: everything is read afresh from the store. It is a checkpoint.HubSource.
type hubSource struct {
	source
	byID    map[ID]Info       // logs that were in the store when it was read last; what is kept of a log never changes
	byLogID map[[32]byte]Info // the same
}

// learn reads which logs there are.
func (s *hubSource) learn(ctx context.Context) error {
	infos, err := s.store.Logs(ctx)
	if err != nil {
		return fmt.Errorf("reading the list of logs: %w", err)
	}
	s.byID, s.byLogID = make(map[ID]Info, len(infos)), make(map[[32]byte]Info, len(infos))
	for _, info := range infos {
		if len(info.VKeys) > 0 && !info.IsHub() {
			s.byID[info.ID], s.byLogID[checkpoint.LogID(info.VKeys[0])] = info, info
		}
	}
	return nil
}

func (s *hubSource) NewestSizes(ctx context.Context, size uint64) (map[[32]byte]uint64, error) {
	all, err := s.store.NewestGrowths(ctx, s.log, size)
	if err != nil {
		return nil, err
	}
	if err := s.learn(ctx); err != nil {
		return nil, err
	}
	newest := make(map[[32]byte]uint64, len(all))
	for _, g := range all {
		info, ok := s.byID[g.Log]
		if !ok {
			return nil, fmt.Errorf("the hub has entries of log %d, which isn't there: %w", g.Log, ErrDamaged)
		}
		newest[checkpoint.LogID(info.VKeys[0])] = g.Size
	}
	return newest, nil
}

func (s *hubSource) Recorded(ctx context.Context, entries []checkpoint.HubEntry, fn func(int, []string, []byte) error) error {
	for _, e := range entries {
		if _, ok := s.byLogID[e.LogID]; !ok {
			if err := s.learn(ctx); err != nil {
				return err
			}
			break
		}
	}
	var asked []Growth
	var at []int // in entries
	for i, e := range entries {
		if info, ok := s.byLogID[e.LogID]; ok {
			asked, at = append(asked, Growth{Log: info.ID, Size: e.Size}), append(at, i)
		}
	}
	return s.store.CheckpointsOf(ctx, asked, func(i int, note []byte) error {
		return fn(at[i], s.byID[asked[i].Log].VKeys, note)
	})
}
