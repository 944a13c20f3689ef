package monitor

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// The layout of a hub's entry: version ‖ log id ‖ u64(size) ‖ root. As that of a log's own entries it is written down here again
// on purpose: a monitor has no code in common with what it watches.
const (
	hubVersion   = 0x02
	hubEntrySize = 1 + merkle.HashSize + 8 + merkle.HashSize
)

// parseHubEntry returns the fields of a hub's entry.
func parseHubEntry(index uint64, entry []byte) (id merkle.Hash, e hubEntry, err error) {
	if len(entry) != hubEntrySize {
		return id, e, fmt.Errorf("entry %d: got %d bytes, want %d", index, len(entry), hubEntrySize)
	}
	if entry[0] != hubVersion {
		return id, e, fmt.Errorf("entry %d: got version 0x%02x, want 0x%02x", index, entry[0], hubVersion)
	}
	size := binary.BigEndian.Uint64(entry[1+merkle.HashSize:])
	if size == 0 || size > merkle.MaxSize {
		return id, e, fmt.Errorf("entry %d: size %d of a log, want 1 to %d", index, size, uint64(merkle.MaxSize))
	}
	return merkle.Hash(entry[1:]), hubEntry{index, size, merkle.Hash(entry[1+merkle.HashSize+8:])}, nil
}

// encode is the inverse of parseHubEntry.
func (e hubEntry) encode(id merkle.Hash) []byte {
	out := append([]byte{hubVersion}, id[:]...)
	out = binary.BigEndian.AppendUint64(out, e.size)
	return append(out, e.root[:]...)
}

// growthFault is an entry of a hub of which it isn't shown that its log only grew since the entry before it.
type growthFault struct {
	id       merkle.Hash // of the log
	previous *hubEntry   // nil: there is none
	entry    hubEntry
	diverged bool
	detail   string
	answer   []byte // what the hub's server gave for a proof
}

// problem says what the fault is. A hub that has committed to two trees and answers with what doesn't connect them has two
// histories, as far as anybody can tell: Diverged. One that gives no answer, or no proof at all, is Invalid.
func (g *growthFault) problem() *Problem {
	if g.diverged {
		return problem(Diverged, KindDiverged, "log %v in the hub: %s", g.id, g.detail)
	}
	return problem(Invalid, KindGrowth, "log %v in the hub: %s", g.id, g.detail)
}

// evidence returns the files that go with the fault: the proofs that the two entries are in the hub, which are valid on their
// own, and the hub's answer.
func (g *growthFault) evidence(ctx context.Context, t *tiles, x exhibit) map[string][]byte {
	files := map[string][]byte{}
	if g.answer != nil {
		files[".growth.txt"] = g.answer
	}
	prove := func(suffix string, e hubEntry) {
		// Without: the detail names the entry, and whoever has the hub's entries can prove it.
		if file, err := proveEntry(ctx, t, x, g.id, e); err == nil {
			files[suffix] = file
		}
	}
	if g.previous != nil {
		prove(".previous.tlog-proof", *g.previous)
	}
	prove(".entry.tlog-proof", g.entry)
	return files
}

// proveEntry returns the proof file that a hub whose checkpoint is x has the entry. The tiles are those of that tree.
func proveEntry(ctx context.Context, t *tiles, x exhibit, id merkle.Hash, e hubEntry) ([]byte, error) {
	hashes, err := merkle.InclusionProof(ctx, e.index, x.cp.Size, t)
	if err != nil {
		return nil, err
	}
	return checkpoint.Proof{Index: e.index, Hashes: hashes, Checkpoint: x.note, Extra: e.encode(id)}.Marshal()
}

// growth checks the next entries of a hub: each must be of a larger tree than the one before it of the same log, and the server
// must have the proof that it extends it.
func (w *walk) growth(ctx context.Context, first uint64, entries [][]byte) error {
	var grown []*growthFault // not faults yet
	for i, data := range entries {
		id, e, err := parseHubEntry(first+uint64(i), data)
		if err != nil {
			w.wrong, w.entry = err, data
			break
		}
		g := &growthFault{id: id, entry: e}
		if previous, ok := w.logs[id]; ok {
			g.previous = &previous
		}
		w.logs[id] = e
		grown = append(grown, g)
	}
	g, fetching := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, step := range grown {
		g.Go(func() error { return step.check(fetching, w.server) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, step := range grown {
		if step.detail != "" && len(w.faults) < maxFaults {
			w.faults = append(w.faults, step)
		}
	}
	return nil
}

// maxFaults bounds how many faults of one hub a round reports.
const maxFaults = 16

// check fetches the growth proof of an entry and checks it. A detail is set if there is something wrong, the error is one of
// reading that may pass.
func (g *growthFault) check(ctx context.Context, s *server) error {
	at := fmt.Sprintf("entry %d has size %d and root %v", g.entry.index, g.entry.size, g.entry.root)
	if p := g.previous; p != nil {
		at = fmt.Sprintf("entry %d has size %d and root %v, %s", p.index, p.size, p.root, at)
		if p.size == g.entry.size && p.root != g.entry.root {
			g.diverged, g.detail = true, "two roots of one size: "+at
			return nil
		}
		if p.size >= g.entry.size {
			g.detail = "its size doesn't grow: " + at
			return nil
		}
	}
	data, err := s.get(ctx, "growth/"+strconv.FormatUint(g.entry.index, 10), maxGrowth)
	if errors.Is(err, errMissing) || errors.Is(err, errMalformed) {
		g.detail = fmt.Sprintf("no proof that it only grew: %s: %v", at, err)
		return nil
	}
	if err != nil {
		return err
	}
	g.answer = data
	p, err := parseGrowth(data)
	if err != nil {
		g.detail = fmt.Sprintf("no proof that it only grew: %s: %v", at, err)
		return nil
	}
	switch {
	case p.first != (g.previous == nil):
		g.detail = fmt.Sprintf("the hub's proof has another entry before this one than the hub itself: %s", at)
	case p.first:
	case p.previous != g.previous.index:
		g.detail = fmt.Sprintf("the hub's proof is from entry %d: %s", p.previous, at)
	default:
		err := merkle.VerifyConsistency(g.previous.size, g.entry.size, p.hashes, g.previous.root, g.entry.root)
		if err != nil {
			g.diverged, g.detail = true, fmt.Sprintf("the hub doesn't show that it only grew: %s: %v", at, err)
		}
	}
	return nil
}

// growthProof is what a hub's server answers about one of its entries: that there is no entry before it of the same log, or which
// one it is, and the consistency proof from that one.
type growthProof struct {
	first    bool
	previous uint64
	hashes   []merkle.Hash
}

// encode returns the answer: "first", or "previous <index>" and the hashes in base64, a line each.
func (p growthProof) encode() []byte {
	if p.first {
		return []byte("first\n")
	}
	out := fmt.Appendf(nil, "previous %d\n", p.previous)
	for _, h := range p.hashes {
		out = append(base64.StdEncoding.AppendEncode(out, h[:]), '\n')
	}
	return out
}

// parseGrowth is the inverse of growthProof.encode, and takes nothing else.
func parseGrowth(data []byte) (growthProof, error) {
	head, rest, _ := strings.Cut(string(data), "\n")
	p := growthProof{first: head == "first"}
	if digits, ok := strings.CutPrefix(head, "previous "); ok {
		var err error
		if p.previous, err = strconv.ParseUint(digits, 10, 63); err != nil {
			return p, fmt.Errorf("malformed growth proof: index %.30q", digits)
		}
	}
	for line := range strings.Lines(rest) {
		h, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
		if err != nil || len(h) != merkle.HashSize {
			return p, fmt.Errorf("malformed growth proof: hash %.60q", line)
		}
		p.hashes = append(p.hashes, merkle.Hash(h))
	}
	if !bytes.Equal(p.encode(), data) {
		return p, fmt.Errorf("malformed growth proof: %.80q", data)
	}
	return p, nil
}
