package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// maxAhead bounds how many checkpoints of witnesses a log can owe at a time.
const maxAhead = 64

// ask compares what is known of the log with what each witness of the policy serves (C2SP tlog-witness, GET <monitoring
// prefix>/<hex SHA-256 of the origin>/checkpoint). The URL of the policy is taken as that prefix.
// The tiles are those of what is known.
func (f *follower) ask(ctx context.Context, t *tiles) {
	if f.m.policy == nil {
		return
	}
	type answer struct {
		witness checkpoint.Witness
		msg     []byte
		err     error
	}
	var answers []*answer
	var wait sync.WaitGroup
	for _, w := range f.m.policy.Witnesses {
		if w.URL == "" {
			continue
		}
		a := &answer{witness: w}
		answers = append(answers, a)
		at := &server{base: strings.TrimSuffix(w.URL, "/"), client: f.m.client} // never with a key of the log
		wait.Go(func() { a.msg, a.err = at.get(ctx, checkpoint.OriginHash(f.origin)+"/checkpoint", maxNote) })
	}
	wait.Wait()
	for _, a := range answers {
		r := WitnessReport{Witness: a.witness.Key()}
		switch {
		case errors.Is(a.err, errMissing) && f.inHub():
			continue // it knows the hub instead
		case errors.Is(a.err, errMissing):
			r.Result = WitnessUnknown
		case errors.Is(a.err, errMalformed):
			r.Result, r.Detail = WitnessGarbage, a.err.Error()
		case a.err != nil:
			r.Result, r.Detail = WitnessUnreachable, a.err.Error()
		default:
			f.compare(ctx, t, a.witness, a.msg, &r)
		}
		f.report.Witnesses = append(f.report.Witnesses, r)
		switch r.Result {
		case WitnessUnknown, WitnessUnreachable, WitnessGarbage:
			if f.m.strict {
				f.report.add(problem(Unverified, KindWitness, "witness %s: %s %s", r.Witness, r.Result, r.Detail))
			}
		}
	}
	for _, a := range f.state.ahead {
		if behind := time.Since(a.since); behind > f.m.maxLag {
			f.report.add(problem(Unverified, KindWithheld, "witness %s has had a checkpoint of size %d for %v, which the log has signed and "+
				"doesn't show", a.witness, a.cp.Size, behind.Round(time.Second)))
		}
	}
}

// compare compares the note that a witness serves with what is known.
func (f *follower) compare(ctx context.Context, t *tiles, w checkpoint.Witness, msg []byte, r *WitnessReport) {
	cp, err := f.open(msg, w.Verifier)
	if err != nil {
		r.Result, r.Detail = WitnessGarbage, err.Error()
		return
	}
	r.Size = cp.Size
	err = f.place(ctx, t, exhibit{cp: cp, note: msg, from: "witness " + r.Witness}, r)
	if err != nil {
		f.contradicted(err, r)
		return
	}
	// The log's signature alone is enough to hold the log to it. Whether the witness vouches for it is another question.
	if !cosigned(msg, w.Verifier) {
		r.Result, r.Detail = WitnessGarbage, "it serves a checkpoint that it hasn't cosigned"
	}
}

// contradicted reports that what a witness has doesn't fit what is known, or that this can't be told.
func (f *follower) contradicted(err error, r *WitnessReport) {
	p := asProblem(err)
	r.Result, r.Detail = WitnessUnchecked, p.Detail
	if p.Verdict == Diverged {
		r.Result = WitnessDiverged
	}
	// Where less is served than is known, it was said already that something isn't there.
	if p.Kind != KindMissing || f.report.Served == f.state.cp.Size {
		f.report.add(p)
	}
}

func cosigned(msg []byte, v note.Verifier) bool {
	_, err := note.Open(msg, note.VerifierList(v))
	return err == nil
}

// place finds where a checkpoint that the log has signed belongs: in the tree that is known, or beyond its end.
func (f *follower) place(ctx context.Context, t *tiles, x exhibit, r *WitnessReport) error {
	if x.cp.Size <= f.state.cp.Size {
		r.Result = WitnessSame
		if f.compared[r.Witness] == x.cp {
			return nil
		}
		if err := f.relate(ctx, t, x, f.known()); err != nil {
			return err
		}
		f.compared[r.Witness] = x.cp
		return nil
	}
	r.Result = WitnessAhead
	for _, a := range f.state.ahead {
		if a.cp == x.cp {
			return nil
		}
		if a.cp.Size == x.cp.Size {
			return f.m.dir.diverge(f.origin, contradiction{a: a.exhibit(), b: x, why: "two roots of one size"})
		}
	}
	if len(f.state.ahead) >= maxAhead {
		return nil
	}
	next := f.state.clone()
	next.ahead = append(next.ahead, ahead{x.cp, slices.Clone(x.note), r.Witness, time.Now().UTC().Truncate(time.Second)})
	if err := f.m.dir.save(next); err != nil {
		return err
	}
	f.state = next
	return nil
}

// askHubs compares what is known of the log with its newest entry in each hub that is followed, too. Whoever checks hub proofs relies
// on it that what the hub has committed to is the log that they are shown.
func (f *follower) askHubs(ctx context.Context, t *tiles) {
	if f.kind != Chained {
		return
	}
	for _, hub := range f.m.logs {
		if hub.kind != Hub || hub.state.note == nil {
			continue
		}
		r := WitnessReport{Witness: hub.origin, Result: WitnessUnknown}
		for _, id := range f.ids {
			if e, ok := hub.state.logs[id]; ok {
				r.Size, r.Result = e.size, WitnessSame
				f.compareEntry(ctx, t, hub, id, e, &r)
				if r.Result == WitnessSame {
					f.report.hubSays = append(f.report.hubSays, hubSays{hub, e})
				}
			}
		}
		f.report.Witnesses = append(f.report.Witnesses, r)
	}
}

// compareEntry compares the entry that a hub has of the log with what is known of it. A larger one is looked at in the round in which
// the log shows as much: the hub's state keeps it until it has an entry that is larger still, and each of them extends the last.
func (f *follower) compareEntry(ctx context.Context, t *tiles, hub *followed, id merkle.Hash, e hubEntry, r *WitnessReport) {
	cp := checkpoint.Checkpoint{Origin: f.origin, Size: e.size, Root: e.root}
	if e.size > f.state.cp.Size {
		r.Result = WitnessAhead
		return
	}
	if f.compared[r.Witness] == cp {
		return
	}
	// The hub's key is the operator's, too: with the proof that the entry is under a checkpoint that it signed it is as good as a
	// note of the log's. The proof is read only for evidence.
	x := exhibit{cp: cp, from: fmt.Sprintf("entry %d of the hub %s", e.index, hub.origin), suffix: ".tlog-proof"}
	x.prove = func() []byte {
		file, err := proveEntry(ctx, newTiles(hub.servers[0], hub.state.cp.Size), exhibit{cp: hub.state.cp, note: hub.state.note}, id, e)
		if err != nil {
			return fmt.Appendf(nil, "the hub doesn't prove its entry: %v\n", err)
		}
		return file
	}
	if err := f.relate(ctx, t, x, f.known()); err != nil {
		f.contradicted(err, r)
		return
	}
	f.compared[r.Witness] = cp
}
