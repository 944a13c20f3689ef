package monitor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/treeline-log/treeline/merkle"
)

// Where a hub is followed, witnesses cosign its checkpoints and not those of the logs in it. So the policy is the hub's, and what
// a log shows meets it, too, if the hub has it in the part of it for which the policy is met: it is hub-witnessed.

// maxLookBack bounds how many entry bundles of a hub are read for one checkpoint.
const maxLookBack = 64

// hubSays is what a hub says of a log: an entry that was found to be in the log's tree.
type hubSays struct {
	hub *followed
	hubEntry
}

// hubs returns the hubs that are followed.
func (m *Monitor) hubs() []*followed {
	return slices.DeleteFunc(slices.Clone(m.logs), func(l *followed) bool { return l.kind != Hub })
}

// inHub reports whether the log may be in a hub that is followed.
func (f *follower) inHub() bool { return f.kind == Chained && len(f.m.hubs()) > 0 }

// vouchKnown takes up for how much of a hub the policy is met by the note that is known from earlier rounds.
func (f *follower) vouchKnown() {
	if f.kind != Hub || f.m.policy == nil || f.state.note == nil {
		return
	}
	if j, err := f.m.policy.Judge(f.state.note, time.Now(), f.verifiers...); err == nil && j.Met {
		f.vouched = f.state.cp.Size
	}
}

// hubWitnessed returns up to which size the log is witnessed through hubs, by their newest entries.
func (f *follower) hubWitnessed(r *LogReport) (size uint64) {
	for _, s := range r.hubSays {
		if s.index < s.hub.vouched {
			size = max(size, s.size)
		}
	}
	for _, hub := range f.m.hubs() {
		for _, id := range f.ids {
			if e := hub.state.logs[id]; e.index < hub.vouched && e.size == r.served.Size && e.root == r.served.Root {
				size = max(size, e.size)
			}
		}
	}
	return size
}

// absence returns why a hub couldn't be read in a round, by the reports on all its URLs; nil if it was.
func absence(found []*LogReport) (away *Problem) {
	for _, r := range found {
		if r.taken {
			return nil
		}
		for _, p := range r.Problems {
			if p.Verdict == Failed {
				away = p
			}
		}
	}
	return away
}

// uncovered reports whether the policy is met neither by cosignatures of what the log shows nor through the newest entries of hubs.
func (f *follower) uncovered(r *LogReport) bool {
	return len(r.lacks) > 0 && (!f.inHub() || f.hubWitnessed(r) < r.Served)
}

// conclude says whether the policy is met. Where that is up to a hub that couldn't be read in this round, nobody knows.
func (f *follower) conclude(ctx context.Context, r *LogReport) {
	if len(r.lacks) == 0 {
		return
	}
	covered := !f.uncovered(r)
	var away *Problem
	for _, hub := range f.m.hubs() {
		if f.kind == Chained && hub.away != nil {
			away = hub.away
		}
		for _, id := range f.ids {
			if covered || f.kind != Chained || hub.state.logs[id].size <= r.Served {
				continue
			}
			var err error
			if covered, err = hub.had(ctx, id, r); err != nil {
				if p := asProblem(err); p.Verdict == Failed {
					away = p
				} else {
					r.add(p)
				}
			}
		}
	}
	if covered {
		met := true
		r.Quorum, r.ByHub = &met, true
		return
	}
	if away != nil { // it might show what is lacking
		r.Quorum = nil
		r.add(problem(Failed, KindUnreachable, "whether the quorum is met for the checkpoint of size %d can't be told while a hub is away: %s",
			r.Served, away.Detail))
		return
	}
	instead := ""
	if f.inHub() {
		instead = fmt.Sprintf("; of the hub, the part for which it is met has size %d of this log", f.hubWitnessed(r))
	}
	var lacks []string
	for _, w := range r.lacks {
		lacks = append(lacks, w.Key())
	}
	r.add(problem(Unverified, KindQuorum, "the quorum is unmet: checkpoint of size %d lacks %s%s", r.Served, strings.Join(lacks, ", "), instead))
}

// had reports whether a hub, which has a larger checkpoint of a log by now, had the very one that the log shows. That is so for a moment
// after it has got another, or as long as somebody caches what the log showed.
func (f *followed) had(ctx context.Context, id merkle.Hash, r *LogReport) (bool, error) {
	newest, s := f.state.logs[id], f.servers[0]
	for n := newest.index / merkle.TileWidth; newest.index/merkle.TileWidth-n < maxLookBack; n-- {
		bundle, _ := merkle.TileOf(merkle.EntriesLevel, n, f.state.cp.Size)
		entries, err := s.entries(ctx, bundle)
		if err != nil {
			return false, err
		}
		for i, data := range slices.Backward(entries) {
			of, e, err := parseHubEntry(n*merkle.TileWidth+uint64(i), data)
			if err != nil {
				return false, fmt.Errorf("%w: %w", errMalformed, err)
			}
			if of != id || e.size > r.Served {
				continue
			}
			if e.size != r.Served || e.root != r.served.Root || e.index >= f.vouched {
				return false, nil
			}
			proof, err := merkle.InclusionProof(ctx, e.index, f.state.cp.Size, newTiles(s, f.state.cp.Size))
			if err != nil {
				return false, err
			}
			return merkle.VerifyInclusion(e.index, f.state.cp.Size, merkle.LeafHash(data), proof, f.state.cp.Root) == nil, nil
		}
		if n == 0 {
			break
		}
	}
	return false, nil
}
