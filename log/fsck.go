package log

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// FsckOptions say what Fsck checks a log against.
type FsckOptions struct {
	// Verifiers are the keys that the caller trusts for the log. Without any, the keys that the store itself names are
	// used, and the report says that nothing pins them.
	Verifiers []note.Verifier
	// Fence is where the log's newest checkpoint is recorded outside the store; nil: not checked.
	Fence checkpoint.Fence
	// Policy names the witnesses under whose keys cosignatures are checked; nil: none.
	Policy *checkpoint.Policy
	// SkipContents leaves out the events, and checks entries, chain, tree and checkpoints only.
	SkipContents bool
	// Progress, if not nil, is told how many more entries or contents have been checked, from several goroutines.
	Progress func(n int)

	turns turns // nil: all at once, with all the processors there are
}

// Problem kinds of fsck.
const (
	KindInvalid  = "invalid"  // something is missing, or isn't what a hash or a signature says
	KindDiverged = "diverged" // the store is behind, or another history than, what was signed and fenced
)

// FsckProblem is something wrong with a log.
type FsckProblem struct {
	Index uint64 `json:"index"` // the first entry concerned
	Kind  string `json:"kind"`
	What  string `json:"what"`

	entry bool   // it is about the entry at Index or its content
	end   uint64 // it is about a sum over [Index, end), if not 0
}

// FsckReport is what Fsck found out about a log.
type FsckReport struct {
	Log         string        `json:"log"`
	Origin      string        `json:"origin"`
	Size        uint64        `json:"size"`
	Signed      uint64        `json:"signed"` // size of the newest recorded checkpoint
	Frozen      bool          `json:"frozen,omitempty"`
	Root        string        `json:"root"`    // of the entries that were read
	Pinned      bool          `json:"pinned"`  // the signatures were checked under keys that the caller gave
	Entries     uint64        `json:"entries"` // how many were re-hashed
	Links       uint64        `json:"links"`   // of them, how many were compared with the hash of the entry before
	Nodes       uint64        `json:"nodes"`   // stored tree nodes that were compared with what the entries give
	Checkpoints int           `json:"checkpoints"`
	Cosigned    int           `json:"cosigned"`    // cosignatures that were checked under a key of the policy
	Uncheckable int           `json:"uncheckable"` // cosignatures by other keys
	Contents    uint64        `json:"contents"`    // how many events were re-hashed, wholly or what is left of them
	Purged      uint64        `json:"purged"`      // events whose content is gone, as an event of the log says
	Erased      uint64        `json:"erased"`      // events of which claims are gone, as events of the log say
	Pending     uint64        `json:"pending"`     // of these, how many are to be removed from the store still
	Problems    []FsckProblem `json:"problems"`    // by index; empty if all is well
	Truncated   bool          `json:"truncated,omitempty"`
}

// maxProblems bounds a report: one wrong entry spoils many sums.
const maxProblems = 20

// Fsck re-reads and re-hashes everything that a store holds of a log: entries, chain and tree, stored tree nodes, every
// checkpoint with its signature and cosignatures, the fence, what witnesses have shown against the log, and each event against its entry and its id. It may run beside a server that
// appends; it checks what was there when it began. Its error is that of not being able to check at all.
//
// Of a hub it compares each entry with the checkpoint that the log has recorded. That these are signed, and that each extends the one
// before, is found by checking that log.
func Fsck(ctx context.Context, store Reader, info Info, opt FsckOptions) (*FsckReport, error) {
	f := newFsck(store, info, opt)
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	f.end = f.head.Size
	if info.IsHub() {
		infos, err := store.Logs(ctx)
		if err != nil {
			return nil, fmt.Errorf("reading the list of logs: %w", err)
		}
		f.hub = newHubCheck(infos)
	}
	return f.run(ctx, f.checkTree)
}

// newFsck returns a run over all of a log that has checked nothing yet.
func newFsck(store Reader, info Info, opt FsckOptions) *fsck {
	return &fsck{
		store: store, info: info, opt: opt,
		report: &FsckReport{Log: info.Name, Origin: info.Origin, Pinned: len(opt.Verifiers) > 0, Problems: []FsckProblem{}},
		leaves: merkle.NewRange(), last: Genesis(info.Origin), diverged: -1, custody: new(custody),
	}
}

// run checks the contents of [from, end) while checkTree checks all else, and returns what both have found.
func (f *fsck) run(ctx context.Context, checkTree func(context.Context) error) (*FsckReport, error) {
	contents := &fsck{store: f.store, info: f.info, opt: f.opt, custody: f.custody, from: f.from, end: f.end, report: &FsckReport{}}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := checkTree(gctx)
		f.blame(false)
		if f.later > 0 {
			f.report.Problems[f.diverged].What += fmt.Sprintf("; later checkpoints that contradict the entries, too: %d", f.later)
		}
		f.report.Root = f.leaves.Root().String()
		return err
	})
	if !f.opt.SkipContents && !f.info.IsHub() {
		g.Go(func() error { return contents.checkContents(gctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r := f.report
	r.Contents = contents.report.Contents
	r.Purged, r.Erased, r.Pending = contents.report.Purged, contents.report.Erased, contents.report.Pending
	for _, p := range contents.report.Problems {
		p.entry = true
		r.Problems = append(r.Problems, p)
	}
	if f.custody.unread != nil && len(r.Problems) == 0 {
		f.bad(0, KindInvalid, "an event that tells what was decided about the log's contents can't be read: %v", f.custody.unread)
	}
	locate(r.Problems)
	r.Truncated = len(r.Problems) > maxProblems || f.full() || contents.full()
	r.Problems = r.Problems[:min(len(r.Problems), maxProblems)]
	return r, nil
}

// locate sorts problems by index. A wrong sum is put where the first thing that is wrong by itself lies in what it is over.
func locate(problems []FsckProblem) {
	for i := range problems {
		p := &problems[i]
		first := p.end
		for _, o := range problems {
			if o.entry && o.Index >= p.Index && o.Index < first {
				first = o.Index
			}
		}
		if first < p.end {
			p.Index = first
		}
	}
	slices.SortStableFunc(problems, func(a, b FsckProblem) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.end, b.end))
	})
}

// fsck is one run over one log.
type fsck struct {
	store  Reader
	info   Info
	opt    FsckOptions
	report *FsckReport

	verifiers []note.Verifier
	fence     *checkpoint.Checkpoint // what the fence records, until it was compared with the entries
	fenced    []byte                 // its note
	newest    Signed                 // the newest checkpoint that the store has
	head      Head
	custody   *custody // what the log's own events say of its contents
	from, end uint64   // the entries that are read; the end is an earlier one once nothing can be read any more

	leaves     *merkle.Range // the tree of the entries read so far
	last       merkle.Hash   // leaf hash of the newest of them
	receivedAt int64
	nodes      [][]merkle.Hash // by tile level - 1: rebuilt, not compared yet
	compared   []uint64        // by tile level - 1: how many were
	matched    uint64          // the largest size at which a checkpoint agreed with the entries
	broken     *chainBreak     // the newest entry doesn't follow the one before it; the next one tells which of them is to blame
	named      uint64          // how far entries were named that are wrong by themselves or by the chain: the last one's index plus 1
	diverged   int             // where in the report the first checkpoint is that contradicts the entries, -1 if none does
	later      int             // how many later ones do, too

	hub *hubCheck // nil unless the log is a hub
}

// chainBreak is an entry that doesn't name the one before it.
type chainBreak struct {
	index        uint64
	follows, has merkle.Hash // the previous hash in it, and the hash of the entry before it
}

// bad notes a problem.
func (f *fsck) bad(index uint64, kind, format string, args ...any) {
	f.report.Problems = append(f.report.Problems, FsckProblem{Index: index, Kind: kind, What: fmt.Sprintf(format, args...)})
}

// badSum notes that a sum over [from, to) is wrong.
func (f *fsck) badSum(from, to uint64, kind, format string, args ...any) {
	f.bad(from, kind, format, args...)
	f.report.Problems[len(f.report.Problems)-1].end = to
}

// full reports whether there are problems enough.
func (f *fsck) full() bool { return len(f.report.Problems) >= maxProblems }

// prepare reads what the log is checked against: the fence before the checkpoints before the head, so that beside a
// running server each is covered by the next.
func (f *fsck) prepare(ctx context.Context) (err error) {
	for _, vkey := range f.info.VKeys {
		v, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			f.bad(0, KindInvalid, "the store names a verifier key that isn't one: %v", err)
			continue
		}
		f.verifiers = append(f.verifiers, v)
		pinned := func(p note.Verifier) bool { return p.Name() == v.Name() && p.KeyHash() == v.KeyHash() }
		if v.Name() != f.info.Origin || len(f.opt.Verifiers) > 0 && !slices.ContainsFunc(f.opt.Verifiers, pinned) {
			f.bad(0, KindInvalid, "the store names verifier key %s+%08x, which isn't one of the log's that are trusted; if it is, name it, too", v.Name(), v.KeyHash())
		}
	}
	for _, p := range f.opt.Verifiers {
		same := func(v note.Verifier) bool { return v.Name() == p.Name() && v.KeyHash() == p.KeyHash() }
		if !slices.ContainsFunc(f.verifiers, same) {
			f.bad(0, KindInvalid, "verifier key %s+%08x, which is trusted, is not among those that the store names", p.Name(), p.KeyHash())
		}
	}
	if len(f.opt.Verifiers) > 0 {
		f.verifiers = f.opt.Verifiers
	}
	if f.opt.Fence != nil {
		if err := f.readFence(ctx); err != nil {
			return err
		}
	}
	f.newest, err = f.store.Checkpoint(ctx, f.info.ID, merkle.MaxSize)
	newest := f.newest
	switch {
	case errors.Is(err, ErrNotFound):
		if f.fence == nil {
			f.bad(0, KindInvalid, "no checkpoint is recorded; every log has at least that of size 0")
		}
	case err != nil:
		return err
	}
	f.report.Signed = newest.Size
	switch {
	case f.fence == nil || f.fence.Size <= newest.Size && newest.Note != nil:
	case newest.Note == nil:
		f.bad(0, KindDiverged, "the fence records a signed checkpoint of size %d, the store has none: the store is another one, or its "+
			"checkpoints were removed", f.fence.Size)
	default:
		f.bad(newest.Size, KindDiverged, "the fence records a signed checkpoint of size %d, the store's newest is of size %d: "+
			"the store is an older copy, or its checkpoints were removed", f.fence.Size, newest.Size)
	}
	f.head, err = f.store.Head(ctx, f.info.ID)
	switch {
	case errors.Is(err, ErrNotFound):
		f.bad(0, KindInvalid, "the log's head is missing")
	case errors.Is(err, ErrDamaged):
		f.bad(0, KindInvalid, "%v", err)
	case err != nil:
		return fmt.Errorf("reading the head of log %s: %w", f.info.Name, err)
	}
	f.report.Size, f.report.Frozen = f.head.Size, f.head.Frozen
	if !f.info.IsHub() && !f.opt.SkipContents {
		if f.custody, err = foldCustody(ctx, f.store, f.info.ID, f.custody); err != nil {
			return err
		}
	}
	if f.report.Signed > f.head.Size {
		f.bad(f.head.Size, KindDiverged, "a checkpoint of size %d is recorded, but the log's head is at %d: entries were removed",
			f.report.Signed, f.head.Size)
	}
	return nil
}

func (f *fsck) readFence(ctx context.Context) error {
	fenced, err := f.opt.Fence.Load(ctx, f.info.Origin)
	if err != nil {
		return fmt.Errorf("reading the fence of log %s: %w", f.info.Name, err)
	}
	if fenced == nil {
		f.bad(0, KindDiverged, "the fence doesn't know the log: it was removed, or this is another fence")
		return nil
	}
	c, _, err := checkpoint.Open(fenced, f.info.Origin, f.verifiers...)
	if err != nil {
		f.bad(0, KindInvalid, "what the fence records isn't a checkpoint of the log: %v", err)
		return nil
	}
	f.fence, f.fenced = &c, fenced
	return nil
}

// checkTree replays the entries, and stops at the size of each checkpoint to compare roots.
func (f *fsck) checkTree(ctx context.Context) error {
	err := f.checkCheckpoints(ctx, merkle.MaxSize)
	if err == nil && f.fence != nil {
		err = f.compare(ctx, *f.fence, "the fence's")
	}
	if err == nil {
		err = f.replay(ctx, f.end)
	}
	if err == nil {
		err = f.checkEnd(ctx)
	}
	if err == nil {
		err = f.checkCosignatures(ctx)
	}
	if err == nil {
		err = f.checkEvidence(ctx)
	}
	return err
}

// checkCheckpoints replays the entries to the size of each recorded checkpoint from the run's begin up to a size, and compares roots.
func (f *fsck) checkCheckpoints(ctx context.Context, most uint64) error {
	const run = 1000 // read before any is compared: so no connection is held, and no state of the store kept, while entries are read
	for next, more := f.from, true; more; {
		var all []Signed
		done, err := f.opt.turns.take(ctx)
		if err != nil {
			return err
		}
		err = f.store.Checkpoints(ctx, f.info.ID, next, func(s Signed) error {
			if s.Size > most {
				return errEnough
			}
			if all = append(all, Signed{s.Size, bytes.Clone(s.Note)}); len(all) == run {
				return errEnough
			}
			return nil
		})
		done(ctx)
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		if more = len(all) == run; more {
			next = all[run-1].Size + 1
		}
		for _, s := range all {
			if err := f.checkCheckpoint(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkCheckpoint checks a recorded checkpoint by itself and against the entries. What the fence records comes between those around it.
func (f *fsck) checkCheckpoint(ctx context.Context, s Signed) error {
	if f.report.Checkpoints++; f.report.Checkpoints == 1 && s.Size != 0 && f.from == 0 {
		f.bad(0, KindInvalid, "the first recorded checkpoint is of size %d: older ones were removed, every log begins with that "+
			"of size 0", s.Size)
	}
	done, err := f.opt.turns.take(ctx)
	if err != nil {
		return err
	}
	c, ok := f.openRecorded(s)
	done(ctx)
	if !ok {
		return nil
	}
	if f.fence != nil && f.fence.Size <= c.Size {
		if err := f.compare(ctx, *f.fence, "the fence's"); err != nil {
			return err
		}
		f.fence = nil
	}
	return f.compare(ctx, c, "the recorded")
}

// openRecorded verifies a recorded checkpoint.
func (f *fsck) openRecorded(s Signed) (checkpoint.Checkpoint, bool) {
	c, _, err := checkpoint.Open(s.Note, f.info.Origin, f.verifiers...)
	if err != nil {
		f.bad(s.Size, KindInvalid, "the recorded checkpoint of size %d doesn't verify: %v", s.Size, err)
		return c, false
	}
	if c.Size != s.Size {
		f.bad(s.Size, KindInvalid, "the checkpoint recorded for size %d is of size %d", s.Size, c.Size)
		return c, false
	}
	return c, true
}

// checkCosignatures checks what witnesses have signed: each is on a recorded checkpoint and, if the policy names its key, verifies.
func (f *fsck) checkCosignatures(ctx context.Context) error {
	const run = 1000 // read before any is checked: two reads at a time could wait for each other's connection
	for most, more := uint64(merkle.MaxSize), true; more && !f.full(); {
		var all []Cosignature
		err := f.store.CosignaturesDown(ctx, f.info.ID, most, func(c Cosignature) error {
			if len(all) >= run && all[len(all)-1].Size != c.Size {
				return errEnough
			}
			all = append(all, c)
			return nil
		})
		if more = errors.Is(err, errEnough); err != nil && !more {
			return err
		}
		for len(all) > 0 && !f.full() {
			n := slices.IndexFunc(all, func(c Cosignature) bool { return c.Size != all[0].Size })
			if n < 0 {
				n = len(all)
			}
			if err := f.checkCosigned(ctx, all[:n]); err != nil {
				return err
			}
			most, all = all[0].Size-min(all[0].Size, 1), all[n:]
		}
	}
	return nil
}

// checkCosigned checks the cosignatures on one checkpoint.
func (f *fsck) checkCosigned(ctx context.Context, all []Cosignature) error {
	size := all[0].Size
	s, err := f.store.Checkpoint(ctx, f.info.ID, size)
	missing := errors.Is(err, ErrNotFound) || err == nil && s.Size != size
	if err != nil && !missing {
		return err
	}
	if missing {
		f.bad(size, KindInvalid, "there are cosignatures on a checkpoint of size %d, which isn't recorded", size)
		return nil
	}
	c, _, malformed := checkpoint.ParseNote(s.Note)
	for _, k := range all {
		i := -1
		if f.opt.Policy != nil {
			i = slices.IndexFunc(f.opt.Policy.Witnesses, func(w checkpoint.Witness) bool { return w.Key() == k.Key })
		}
		if i < 0 {
			f.report.Uncheckable++
			continue
		}
		f.report.Cosigned++
		if malformed == nil && !k.verifies(c, f.opt.Policy.Witnesses[i].Verifier) {
			f.bad(size, KindInvalid, "the cosignature of %s on the checkpoint of size %d doesn't verify", k.Key, size)
		}
	}
	return nil
}

// checkEvidence reports what witnesses have shown against the log.
func (f *fsck) checkEvidence(ctx context.Context) error {
	all, err := f.store.Evidence(ctx, f.info.ID)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.Kind != EvidenceContradiction {
			continue
		}
		if _, _, err := checkpoint.Open(e.Theirs, f.info.Origin, f.verifiers...); err != nil {
			f.bad(e.Size, KindInvalid, "the evidence by %s isn't a checkpoint of the log: %v", e.Key, err)
			continue
		}
		f.bad(e.Size, KindDiverged, "witness %s has shown a checkpoint of size %d under the log's key that isn't in its history", e.Key, e.Size)
	}
	return nil
}

// compare replays the entries up to a checkpoint's size and compares the roots.
func (f *fsck) compare(ctx context.Context, c checkpoint.Checkpoint, which string) error {
	if c.Size > f.end || c.Size < f.leaves.Size() {
		return nil // said already: the head is behind; or the fence was replayed past, which only disorder can do
	}
	if err := f.replay(ctx, c.Size); err != nil {
		return err
	}
	if f.leaves.Size() != c.Size || f.full() {
		return nil // said already: entries are missing
	}
	got := f.leaves.Root()
	switch {
	case got == c.Root:
		f.matched = c.Size
	case c.Size > 0 && f.matched == c.Size:
		f.bad(c.Size, KindDiverged, "%s checkpoint of size %d signs root %v, the fence's of that size signs %v, which the entries give: "+
			"two histories were signed", which, c.Size, c.Root, got)
	case f.diverged >= 0:
		f.later++ // a history that has left the signed one doesn't come back
	default:
		f.diverged = len(f.report.Problems)
		before := ""
		if f.matched < f.from {
			before = fmt.Sprintf(", or the stored tree before entry %d was", f.from)
		}
		f.badSum(f.matched, c.Size, KindDiverged, "%s checkpoint of size %d signs root %v, the entries give %v: entries of [%d, %d) were "+
			"changed after they were signed%s", which, c.Size, c.Root, got, f.matched, c.Size, before)
	}
	return nil
}

// replay reads entries up to size, and checks each against the one before it.
func (f *fsck) replay(ctx context.Context, size uint64) error {
	run := uint64(1 << 16) // between two looks at the context and at the progress
	if f.opt.turns != nil {
		run = turnEntries
	}
	for from := f.leaves.Size(); from < size && !f.full(); from = f.leaves.Size() {
		done, err := f.opt.turns.take(ctx)
		if err != nil {
			return err
		}
		err = f.replayRun(ctx, from, min(from+run, size))
		done(ctx)
		if err != nil {
			return err
		}
		size = min(size, f.end)
	}
	return nil
}

// replayRun reads the entries [from, to).
func (f *fsck) replayRun(ctx context.Context, from, to uint64) error {
	next := f.next
	if f.hub != nil {
		next = f.nextGrowth
	}
	err := f.store.Entries(ctx, f.info.ID, from, to, next)
	if errors.Is(err, ErrDamaged) {
		f.bad(f.leaves.Size(), KindInvalid, "%v", err)
		f.end = f.leaves.Size() // after a gap nothing that follows can be placed
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.compareNodes(ctx, false); err != nil {
		return err
	}
	if f.hub != nil {
		if err := f.checkGrowths(ctx, from); err != nil {
			return err
		}
	}
	if f.opt.Progress != nil {
		f.opt.Progress(int(to - from))
	}
	return nil
}

// next takes the next entry.
func (f *fsck) next(b []byte) error {
	index := f.leaves.Size()
	e, err := ParseEntry(b)
	if err != nil {
		f.badEntry(index, "entry %d: %v", index, err)
	} else {
		f.report.Links++
		follows := e.Previous == f.last
		f.blame(!follows)
		if !follows {
			f.broken = &chainBreak{index, e.Previous, f.last}
		}
		if e.ReceivedAt < f.receivedAt {
			f.badEntry(index, "entry %d was received before the one it follows", index)
		}
	}
	f.receivedAt = e.ReceivedAt
	return f.extend(b)
}

// extend adds an entry to the tree.
func (f *fsck) extend(b []byte) error {
	f.report.Entries++
	f.last = merkle.LeafHash(b)
	f.leaves.Append(f.last, func(level uint, _ uint64, h merkle.Hash) {
		if level == 0 || level%8 != 0 {
			return
		}
		i := int(level/8) - 1
		if i == len(f.nodes) {
			f.nodes, f.compared = append(f.nodes, nil), append(f.compared, f.from>>level)
		}
		f.nodes[i] = append(f.nodes[i], h)
	})
	if f.full() {
		return fmt.Errorf("too many problems: %w", ErrDamaged)
	}
	return nil
}

// badEntry notes that an entry is wrong by itself.
func (f *fsck) badEntry(index uint64, format string, args ...any) {
	if index < f.named {
		return // a change shows in more than one way
	}
	f.named = index + 1
	f.bad(index, KindInvalid, format, args...)
	f.report.Problems[len(f.report.Problems)-1].entry = true
}

// blame notes the chain's break at the newest entry, now that the one after it is known to follow it or not, or that there
// is none. An entry that was changed is one that the next entry doesn't follow any more. So where the chain goes on after
// the break, the entry before the break was changed; where it breaks again, the entry between the breaks was.
func (f *fsck) blame(again bool) {
	b := f.broken
	f.broken = nil
	switch {
	case b == nil:
	case again || b.index == 0:
		f.badEntry(b.index, "entry %d was changed or moved: it follows hash %v, the entry before it has %v", b.index, b.follows, b.has)
	default:
		f.badEntry(b.index-1, "entry %d was changed, or those from %d on are of another history: its hash is %v, entry %d follows %v",
			b.index-1, b.index, b.has, b.index, b.follows)
	}
}

// compareNodes compares rebuilt tree nodes with the stored ones, in runs unless it is the last time.
func (f *fsck) compareNodes(ctx context.Context, last bool) error {
	for i, nodes := range f.nodes {
		if len(nodes) == 0 || !last && len(nodes) < merkle.TileWidth {
			continue
		}
		level, from := i+1, f.compared[i]
		stored, err := f.store.Nodes(ctx, f.info.ID, level, from, from+uint64(len(nodes)))
		switch {
		case errors.Is(err, ErrDamaged):
			if err := f.missingNode(ctx, level, from); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			f.report.Nodes += uint64(len(nodes))
			for j := range nodes {
				if stored[j] != nodes[j] {
					n := from + uint64(j)
					f.badSum(n<<(8*level), (n+1)<<(8*level), KindInvalid, "tree node %d of level %d is %v, the entries give %v", n, level, stored[j], nodes[j])
					break
				}
			}
		}
		f.compared[i] += uint64(len(nodes))
		f.nodes[i] = nodes[:0]
	}
	return nil
}

// missingNode names the first node of a level, from an index on, that can't be read.
func (f *fsck) missingNode(ctx context.Context, level int, from uint64) error {
	for n := from; ; n++ {
		_, err := f.store.Nodes(ctx, f.info.ID, level, n, n+1)
		if errors.Is(err, ErrDamaged) {
			f.bad(n<<(8*level), KindInvalid, "%v", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// checkEnd checks the head against the entries, and looks for rows that belong to nothing.
func (f *fsck) checkEnd(ctx context.Context) error {
	if f.full() {
		return nil
	}
	size := f.leaves.Size()
	if size < f.report.Size {
		return nil // said already
	}
	if err := f.compareNodes(ctx, true); err != nil {
		return err
	}
	root, err := f.head.Root()
	switch {
	case err != nil:
		f.badSum(size-min(size, 1), size, KindInvalid, "the head of size %d isn't one: %v", size, err)
	case root != f.leaves.Root() || f.head.Last != f.last || f.head.ReceivedAt != f.receivedAt:
		f.badSum(size-min(size, 1), size, KindInvalid, "the head of size %d says root %v, last hash %v and time %d µs, the entries give %v, %v and %d µs",
			size, root, f.head.Last, f.head.ReceivedAt, f.leaves.Root(), f.last, f.receivedAt)
	}
	counts, err := f.store.Counts(ctx, f.info.ID)
	if err != nil {
		return err
	}
	now, err := f.store.Head(ctx, f.info.ID)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) {
		return nil // said already
	}
	if err != nil {
		return err
	}
	if now.Size != f.head.Size {
		return nil // a server is appending: counts of different moments say nothing
	}
	nodes := uint64(0)
	for n := size / merkle.TileWidth; n > 0; n /= merkle.TileWidth {
		nodes += n
	}
	events, growths := size, uint64(0)
	if f.hub != nil {
		events, growths = 0, size
	}
	var stray []string
	for _, c := range []struct {
		what      string
		got, want uint64
	}{
		{"entries", counts.Entries, size}, {"ids", counts.IDs, events},
		{"contents", counts.Payloads, events}, {"tree nodes", counts.Nodes, nodes}, {"rows of a hub's entries", counts.Growths, growths},
	} {
		if c.got > c.want || c.got != c.want && c.what != "contents" {
			stray = append(stray, fmt.Sprintf("%d %s, want %d", c.got, c.what, c.want))
		}
	}
	if stray != nil {
		f.bad(size, KindInvalid, "the store holds %s", strings.Join(stray, ", "))
	}
	return nil
}

// checkContents re-hashes every event, and looks its id up: runs of them, several at a time.
func (f *fsck) checkContents(ctx context.Context) error {
	run, workers := uint64(4096), runtime.GOMAXPROCS(0)
	if f.opt.turns != nil {
		run, workers = turnContents, 1
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	var mu sync.Mutex // of f's report
	full := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return f.full()
	}
	for from := f.from; from < f.end && !full(); from += run {
		g.Go(func() error {
			done, err := f.opt.turns.take(ctx)
			if err != nil {
				return err
			}
			part, err := f.checkPart(ctx, from, min(from+run, f.end))
			done(ctx)
			mu.Lock()
			defer mu.Unlock()
			f.report.Contents += part.report.Contents
			f.report.Purged += part.report.Purged
			f.report.Erased += part.report.Erased
			f.report.Pending += part.report.Pending
			f.report.Problems = append(f.report.Problems, part.report.Problems...)
			return err
		})
	}
	return g.Wait()
}

// checkPart re-hashes the events [from, to), and returns what it found. What is missing may have been removed since the check began.
func (f *fsck) checkPart(ctx context.Context, from, to uint64) (*fsck, error) {
	for c := f.custody; ; {
		part := &fsck{store: f.store, info: f.info, opt: f.opt, custody: c, report: &FsckReport{}}
		if err := part.checkRun(ctx, from, to); err != nil || len(part.report.Problems) == 0 {
			return part, err
		}
		newer, err := foldCustody(ctx, f.store, f.info.ID, c)
		if err != nil || len(newer.own) == len(c.own) {
			return part, err
		}
		c = newer
	}
}

// checkRun re-hashes the events [from, to).
func (f *fsck) checkRun(ctx context.Context, from, to uint64) error {
	digests := make([][32]byte, 0, to-from)
	err := f.store.Entries(ctx, f.info.ID, from, to, func(b []byte) error {
		e, _ := ParseEntry(b) // the tree's check names what is wrong with it
		digests = append(digests, e.Digest)
		return nil
	})
	if errors.Is(err, ErrDamaged) {
		to = from + uint64(len(digests)) // the tree's check says so
	} else if err != nil {
		return err
	}
	next := from
	missing := func(until uint64) {
		for ; next < until && !f.full(); next++ {
			if f.custody.purgedBy(next) != nil {
				f.report.Purged++
				continue
			}
			f.bad(next, KindInvalid, "the content of entry %d is missing, and no event says that it was purged", next)
		}
	}
	ids := make(map[uint64]string, to-from)
	err = f.store.Payloads(ctx, f.info.ID, from, to, func(index uint64, p Payload) error {
		if p.Data == nil {
			return nil
		}
		missing(index)
		next = index + 1
		x, err := f.custody.content(index, p, nil)
		if err == nil {
			err = x.check(digests[index-from])
		}
		if x.pending {
			f.report.Pending++
		}
		switch {
		case err != nil:
			f.bad(index, KindInvalid, "entry %d: %v", index, err)
		case x.purgedBy != nil:
			f.report.Purged++
			return ctx.Err()
		case x.claims != nil:
			f.report.Erased++
			ids[index] = x.event.ID()
		default:
			ids[index] = x.event.ID()
		}
		f.report.Contents++
		return ctx.Err()
	})
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	if err := f.checkIDs(ctx, from, next, ids); err != nil {
		return err
	}
	if err != nil {
		f.bad(next, KindInvalid, "the content of entry %d can't be read: %v", next, err)
		return nil
	}
	missing(to)
	if f.opt.Progress != nil {
		f.opt.Progress(int(to - from))
	}
	return nil
}

// checkIDs looks up the ids of the events in [from, to). Not while their rows are being read: a worker that held one
// connection and waited for a second could wait for ever.
func (f *fsck) checkIDs(ctx context.Context, from, to uint64, ids map[uint64]string) error {
	for index := from; index < to && !f.full(); index++ {
		id, ok := ids[index]
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// A lookup that watched the context itself would cost a goroutine.
		switch at, err := f.store.Find(context.WithoutCancel(ctx), f.info.ID, id); {
		case errors.Is(err, ErrNotFound):
			f.bad(index, KindInvalid, "entry %d: its id %s is missing from the list of ids", index, id)
		case errors.Is(err, ErrDamaged):
			f.bad(index, KindInvalid, "entry %d: its id %s can't be looked up: %v", index, id, err)
		case err != nil:
			return err
		case at != index:
			f.bad(index, KindInvalid, "entry %d: its id %s leads to entry %d", index, id, at)
		}
	}
	return nil
}
