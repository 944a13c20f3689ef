package monitor

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// parallel is how many requests to one server are under way at most.
const parallel = 8

// follower follows one log: what it knows of it, and what the round under way finds out.
type follower struct {
	m         *Monitor
	origin    string
	kind      Kind
	verifiers []note.Verifier // of the log
	ids       []merkle.Hash   // that a hub may know it by, one for each key
	state     *state
	compared  map[string]checkpoint.Checkpoint // by witness: the last one that was found to be in the log's tree

	vouched uint64     // of a hub: for how many of its entries the policy was met
	away    *Problem   // of a hub: why it couldn't be read in this round; nil: it was
	report  *LogReport // of the round
}

// check does one round of following the log, as one server has it.
func (f *follower) check(ctx context.Context, s *server) *LogReport {
	f.report = &LogReport{URL: s.base, Origin: f.origin, Kind: f.kind, FirstContact: f.state.note == nil}
	reading, cancel := context.WithTimeout(ctx, f.m.maxCheck)
	defer cancel()
	x, err := f.fetch(reading, s)
	if err == nil {
		f.report.fetched, f.report.Served, f.report.served = true, x.cp.Size, x.cp
		f.judge(x)
		if err := f.take(reading, s, x); err != nil {
			f.report.add(asProblem(err))
		} else {
			f.report.taken = true
			if met := f.report.Quorum; met != nil && *met && x.cp.Size <= f.state.cp.Size {
				f.vouched = max(f.vouched, x.cp.Size)
			}
		}
	} else if p := asProblem(err); p.Kind == KindMissing { // it is the checkpoint itself that isn't there
		f.report.add(problem(Failed, KindUnreachable, "%v: no such log (its URL ends in /logs/NAME), or it is private and needs a key", err))
	} else {
		f.report.add(p)
	}
	if reading.Err() != nil && ctx.Err() == nil && !f.report.taken {
		f.report.add(problem(Failed, KindUnreachable, "it was read for %v, and not to its end: other logs are not kept waiting any longer", f.m.maxCheck))
	}
	if f.state.note != nil && err == nil {
		comparing, cancel := context.WithTimeout(ctx, f.m.maxCheck) // witnesses are asked however slow the log was
		defer cancel()
		t := newTiles(s, f.state.cp.Size)
		f.ask(comparing, t)
		f.askHubs(comparing, t)
	}
	f.recall()
	f.report.Size = f.state.cp.Size
	if f.state.note != nil {
		f.report.Root = f.state.cp.Root.String()
	}
	return f.report
}

// fetch reads the log's checkpoint and verifies it.
func (f *follower) fetch(ctx context.Context, s *server) (exhibit, error) {
	msg, err := s.get(ctx, "checkpoint", maxNote)
	if err != nil {
		return exhibit{}, err
	}
	cp, err := f.open(msg)
	return exhibit{cp: cp, note: msg, from: s.base}, err
}

// open returns the checkpoint of a note that a key of the log has signed.
func (f *follower) open(msg []byte, others ...note.Verifier) (checkpoint.Checkpoint, error) {
	cp, _, err := checkpoint.ParseForeignNote(msg)
	if err != nil {
		return cp, problem(Invalid, KindSignature, "%v", err)
	}
	if cp.Origin != f.origin {
		return cp, problem(Invalid, KindSignature, "checkpoint of log %.255q, want one of %q", cp.Origin, f.origin)
	}
	if cp.Size == 0 && cp.Root != merkle.EmptyRoot() {
		return cp, problem(Invalid, KindSignature, "checkpoint of size 0 with root %v", cp.Root)
	}
	n, err := note.Open(msg, note.VerifierList(append(others, f.verifiers...)...))
	if _, unverified := errors.AsType[*note.UnverifiedNoteError](err); unverified {
		return cp, problem(Unverified, KindUnsigned, "checkpoint of size %d: no pinned key has signed it", cp.Size)
	}
	if err != nil {
		return cp, problem(Invalid, KindSignature, "checkpoint of size %d: %v", cp.Size, err)
	}
	// C2SP tlog-policy: the name of a log's key is its origin.
	if !slices.ContainsFunc(n.Sigs, func(sig note.Signature) bool { return sig.Name == f.origin }) {
		return cp, problem(Unverified, KindUnsigned, "checkpoint of size %d: no pinned key of the log has signed it", cp.Size)
	}
	return cp, nil
}

// take compares a verified checkpoint with what is known of the log, and goes on to it if that is less.
func (f *follower) take(ctx context.Context, s *server, x exhibit) error {
	switch known := f.state.cp; {
	case f.state.note == nil || x.cp.Size > known.Size:
		return f.grow(ctx, s, x)
	case x.cp.Size < known.Size:
		return f.shrink(ctx, s, x)
	case x.cp.Root != known.Root:
		return f.m.dir.diverge(f.origin, contradiction{a: f.known(), b: x, why: "two roots of one size"})
	default:
		return nil
	}
}

// known returns the newest checkpoint that was verified.
func (f *follower) known() exhibit {
	return exhibit{cp: f.state.cp, note: f.state.note, from: "the state of this monitor"}
}

// grow reads the entries from what is known up to the checkpoint x and hashes them. Only if they give the root that is signed is
// what they say believed, and only if that is right, too, does the state move.
func (f *follower) grow(ctx context.Context, s *server, x exhibit) error {
	next := f.state.clone()
	next.cp, next.note = x.cp, x.note
	w := walk{state: next, server: s}
	if err := f.read(ctx, s, f.state.cp.Size, x.cp.Size, w.visit); err != nil {
		return err
	}
	if root := next.tree.Root(); root != x.cp.Root {
		return f.mismatch(ctx, s, x, root)
	}
	t := newTiles(s, x.cp.Size)
	for _, a := range w.contradicted {
		if err := f.relate(ctx, t, a.exhibit(), x); err != nil {
			f.report.add(asProblem(err))
		}
	}
	if w.wrong != nil {
		f.report.add(f.m.dir.accuse(problem(Invalid, KindChain, "what was signed is no log of its kind: %v", w.wrong), x,
			map[string][]byte{".entry": w.entry}))
	}
	for _, fault := range w.faults {
		f.report.add(f.m.dir.accuse(fault.problem(), x, fault.evidence(ctx, t, x)))
	}
	if !w.right() {
		return nil // it stays where it is, so that the next round finds the same
	}
	next.ahead = slices.DeleteFunc(next.ahead, func(a ahead) bool { return a.cp.Size <= x.cp.Size })
	if err := f.m.dir.save(next); err != nil {
		return err
	}
	f.state = next
	return nil
}

// read reads the entries [from, to) in order, some bundles at a time.
func (f *follower) read(ctx context.Context, s *server, from, to uint64, visit func(context.Context, [][]byte) error) error {
	for from < to {
		var bundles []merkle.Tile
		for i := range uint64(parallel) {
			if bundle, ok := merkle.TileOf(merkle.EntriesLevel, from/merkle.TileWidth+i, to); ok {
				bundles = append(bundles, bundle)
			}
		}
		window := make([][][]byte, len(bundles))
		g, fetching := errgroup.WithContext(ctx)
		for i, bundle := range bundles {
			g.Go(func() (err error) {
				window[i], err = s.entries(fetching, bundle)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, entries := range window {
			entries = entries[from%merkle.TileWidth:] // the first bundle may begin with entries that are known
			if err := visit(ctx, entries); err != nil {
				return err
			}
			from += uint64(len(entries))
			f.report.Read += uint64(len(entries))
			if f.m.progress != nil {
				f.m.progress(f.origin, from, to)
			}
		}
	}
	return nil
}

// walk goes along entries that aren't known to be those that were signed. So it doesn't stop at what is wrong with them, but
// remembers it for when they turn out to be.
type walk struct {
	*state
	server *server

	wrong        error  // what is wrong with the first entry that isn't right
	entry        []byte // that entry
	contradicted []ahead
	faults       []*growthFault // of a hub
}

// right reports whether nothing was found to be wrong.
func (w *walk) right() bool { return w.wrong == nil && len(w.contradicted) == 0 && len(w.faults) == 0 }

// visit adds the next entries.
func (w *walk) visit(ctx context.Context, entries [][]byte) error {
	first := w.tree.Size()
	for i, entry := range entries {
		if w.kind == Chained && w.wrong == nil {
			if _, err := w.chain.Add(first+uint64(i), entry); err != nil {
				w.wrong, w.entry = err, entry
			}
		}
		w.tree.Append(merkle.LeafHash(entry), nil)
		for _, a := range w.ahead {
			if a.cp.Size == w.tree.Size() && a.cp.Root != w.tree.Root() {
				w.contradicted = append(w.contradicted, a)
			}
		}
	}
	if w.kind == Hub && w.wrong == nil {
		return w.growth(ctx, first, entries)
	}
	return nil
}

func (a ahead) exhibit() exhibit {
	return exhibit{cp: a.cp, note: a.note, from: "witness " + a.witness}
}

// mismatch finds out what it means that the entries from the known ones on don't give the root of x: that x is of another
// history, or that the server hands out other entries than those that were signed.
func (f *follower) mismatch(ctx context.Context, s *server, x exhibit, root merkle.Hash) error {
	if f.state.cp.Size > 0 {
		err := f.relate(ctx, newTiles(s, x.cp.Size), f.known(), x)
		if errors.Is(err, errMissing) || errors.Is(err, errMalformed) {
			return f.m.dir.diverge(f.origin, contradiction{a: f.known(), b: x,
				why: fmt.Sprintf("the log doesn't show that it only grew: its entries don't give the signed root, and its tiles: %v", err)})
		}
		if err != nil {
			return err
		}
	}
	return f.m.dir.accuse(problem(Invalid, KindEntries, "the entries from %d on that are served are not those that were signed: "+
		"they give the root %v at size %d, want %v", f.state.cp.Size, root, x.cp.Size, x.cp.Root), x, nil)
}

// shrink looks at a checkpoint that is smaller than what is known. That alone is no fork: caches and replicas lag. The larger one
// stays what is known.
func (f *follower) shrink(ctx context.Context, s *server, x exhibit) error {
	err := f.relate(ctx, newTiles(s, f.state.cp.Size), x, f.known())
	if !errors.Is(err, errMissing) {
		return err
	}
	// What lies between isn't served any more. How far the two trees share what the state has the roots of can still be told.
	if err := f.relateRange(ctx, newTiles(s, x.cp.Size), x); err != nil {
		return err
	}
	return problem(Unverified, KindBehind, "a checkpoint of size %d is served, of %d entries that the log has signed and shown before; "+
		"what lies between is not served: a stale replica, or the log was set back", x.cp.Size, f.state.cp.Size)
}

// relate returns nil if the tiles of the larger of two trees show that it extends the smaller. Otherwise the error is a [Problem]
// of two histories, whose evidence is kept, or an error of reading. The tiles are those of the larger one.
func (f *follower) relate(ctx context.Context, t *tiles, small, large exhibit) error {
	a, b := small.cp, large.cp
	if a.Size == 0 || a == b {
		return nil
	}
	if a.Size == b.Size {
		return f.m.dir.diverge(f.origin, contradiction{a: small, b: large, why: "two roots of one size"})
	}
	proof, err := merkle.ConsistencyProof(ctx, a.Size, b.Size, t)
	if err != nil {
		return err
	}
	if merkle.VerifyConsistency(a.Size, b.Size, proof, a.Root, b.Root) == nil {
		return nil
	}
	prefix, err := merkle.RangeFromTiles(ctx, a.Size, t)
	if err != nil {
		return err
	}
	c := contradiction{a: small, b: large}
	claim := prefixClaim{a.Size, prefix.Root(), b, proof}
	if claim.holds() {
		c.why, c.claims = "the larger tree doesn't begin with the smaller", []prefixClaim{claim}
	} else {
		c.why = "the log doesn't show that it only grew: its tiles don't lead to the root that it has signed"
	}
	return f.m.dir.diverge(f.origin, c)
}

// relateRange compares a smaller tree with the largest subtree at the left edge of the known one that lies within it and whose
// root the state has. The tiles are those of the smaller tree, x.
func (f *follower) relateRange(ctx context.Context, t *tiles, x exhibit) error {
	hashes, rest := f.state.tree.Hashes(), f.state.cp.Size
	var size uint64
	n := 0
	for ; n < len(hashes); n++ {
		subtree := uint64(1) << (bits.Len64(rest) - 1)
		if size+subtree > x.cp.Size {
			break
		}
		size, rest = size+subtree, rest-subtree
	}
	if n == 0 {
		return nil
	}
	ours, err := merkle.ResumeRange(size, hashes[:n])
	if err != nil {
		return err
	}
	theirs, err := merkle.RangeFromTiles(ctx, size, t)
	if err != nil {
		return err
	}
	proof, err := merkle.ConsistencyProof(ctx, size, x.cp.Size, t)
	if err != nil {
		return err
	}
	claim := prefixClaim{size, theirs.Root(), x.cp, proof}
	if !claim.holds() {
		return f.m.dir.diverge(f.origin, contradiction{a: x, b: f.known(),
			why: "the log's tiles don't lead to the root that it has signed, and it has lost entries"})
	}
	if theirs.Root() == ours.Root() {
		return nil
	}
	return f.m.dir.diverge(f.origin, contradiction{a: x, b: f.known(), why: "the two trees don't begin alike",
		claims: []prefixClaim{claim, {size, ours.Root(), f.state.cp, rangeProof(hashes, n)}}})
}

// rangeProof returns the consistency proof from the tree of the first n subtrees of a compact range to the whole. n is less than
// there are. With the hashes h1, h2 … the root is H(h1, H(h2, …)), so the path from subtree n up has the rest of the range beside
// it, and then the subtrees before it, from right to left. The subtree itself leads, unless it is the whole smaller tree.
func rangeProof(hashes []merkle.Hash, n int) []merkle.Hash {
	rest := hashes[len(hashes)-1]
	for i := len(hashes) - 2; i >= n; i-- {
		rest = merkle.NodeHash(hashes[i], rest)
	}
	if n == 1 {
		return []merkle.Hash{rest}
	}
	proof := []merkle.Hash{hashes[n-1], rest}
	for i := n - 2; i >= 0; i-- {
		proof = append(proof, hashes[i])
	}
	return proof
}

// judge says whether the policy is met by cosignatures of the checkpoint itself, apart from all else.
func (f *follower) judge(x exhibit) {
	if f.m.policy == nil {
		return
	}
	j, err := f.m.policy.Judge(x.note, time.Now(), f.verifiers...)
	if err != nil { // the log's signature is right, so it is a witness's that fails
		f.report.add(problem(Invalid, KindSignature, "%v", err))
		return
	}
	f.report.Quorum = &j.Met
	for _, w := range j.Witnesses {
		if w.State != checkpoint.Cosigned {
			f.report.Missing = append(f.report.Missing, w.Witness.Key())
		}
	}
	f.report.lacks = j.Lacks
}

// recall adds the divergences of earlier rounds: what two signatures have shown, no later answer takes back.
func (f *follower) recall() {
	found, err := f.m.dir.diverged(f.origin)
	if err != nil {
		f.report.add(asProblem(err))
	}
	for _, path := range found {
		if !slices.ContainsFunc(f.report.Problems, func(p *Problem) bool { return p.Evidence == path }) {
			p := problem(Diverged, KindDiverged, "it was seen to diverge; when that is dealt with, move the evidence away")
			p.Evidence = path
			f.report.add(p)
		}
	}
}
