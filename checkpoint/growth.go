package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/merkle"
)

// A HubSource is a hub as its publisher sees it: the Source of its own entries, and what the store has of the logs that
// they are about.
type HubSource interface {
	Source

	// NewestSizes returns, for each log that has an entry among the first size ones of the hub,
	// the size in the newest of them.
	NewestSizes(ctx context.Context, size uint64) (map[[32]byte]uint64, error)

	// Recorded calls fn for those of the entries, in any order, whose log the store has together with a
	// recorded checkpoint of that size: with the log's verifier keys, the first of which gives its id, and
	// with the note. An error of fn ends it.
	Recorded(ctx context.Context, entries []HubEntry, fn func(i int, vkeys []string, msg []byte) error) error
}

// growth is the order of a hub's entries: sizes of one log strictly increase, and each entry is a checkpoint that the log
// has signed and recorded.
type growth struct {
	src    HubSource
	size   uint64              // of the hub
	newest map[[32]byte]uint64 // by log id, the size in its newest entry
	added  []HubEntry          // since clone
}

func (g *growth) clone() order {
	return &growth{src: g.src, size: g.size, newest: maps.Clone(g.newest)}
}

func (g *growth) add(index uint64, entry []byte) (leaf merkle.Hash, err error) {
	e, err := ParseHubEntry(entry)
	if err != nil {
		return leaf, fmt.Errorf("entry %d: %w", index, err)
	}
	if before := g.newest[e.LogID]; e.Size <= before {
		return leaf, fmt.Errorf("entry %d: log %x has size %d, it had %d before", index, e.LogID, e.Size, before)
	}
	g.newest[e.LogID] = e.Size
	g.added = append(g.added, e)
	g.size++
	return merkle.LeafHash(entry), nil
}

// settle compares each entry with what its log has recorded. That can't change any more: a log
// whose checkpoint isn't there now has not signed it.
func (g *growth) settle(ctx context.Context) (wrong, err error) {
	checked := make([]bool, len(g.added))
	err = g.src.Recorded(ctx, g.added, func(i int, vkeys []string, msg []byte) error {
		wrong = g.added[i].check(vkeys, msg)
		checked[i] = wrong == nil
		return wrong
	})
	if wrong != nil {
		return wrong, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoints of logs: %w", err)
	}
	for i, e := range g.added {
		if !checked[i] {
			return fmt.Errorf("log %x is not in the store, or has no checkpoint of size %d recorded", e.LogID, e.Size), nil
		}
	}
	g.added = nil
	return nil, nil
}

// check checks an entry against the verifier keys of its log, and the note that it recorded for that size.
func (e HubEntry) check(vkeys []string, msg []byte) error {
	if len(vkeys) == 0 || LogID(vkeys[0]) != e.LogID {
		return fmt.Errorf("log %x: its first verifier key in the store doesn't give this id", e.LogID)
	}
	var verifiers []note.Verifier
	for _, vkey := range vkeys {
		v, err := NewVerifier(vkey)
		if err != nil {
			return fmt.Errorf("log %x: verifier key %q: %w", e.LogID, vkey, err)
		}
		verifiers = append(verifiers, v)
	}
	c, _, err := Open(msg, verifiers[0].Name(), verifiers...)
	if err != nil {
		return fmt.Errorf("log %x: the checkpoint that it recorded for size %d: %w", e.LogID, e.Size, err)
	}
	if c.Size != e.Size || c.Root != e.Root {
		return fmt.Errorf("log %x: the hub has size %d and root %v, it recorded size %d and root %v", e.LogID, e.Size, e.Root, c.Size, c.Root)
	}
	return nil
}

// maxReplayed is from how many entries on it is better to ask for the newest sizes than to read them.
const maxReplayed = 1 << 16

// growthAfter returns the order of a hub's entries after those of a signed tree. Where this publisher was there not long before, as
// when another server has signed meanwhile, it reads what came since. Otherwise it believes what the store says are the newest
// entries: an old size there would let a log's old checkpoint in again, which its monitor would see, but never one that the log
// hasn't signed.
func (p *Publisher) growthAfter(ctx context.Context, size uint64) (order, error) {
	if p.grown == nil || p.grown.size > size || size-p.grown.size > maxReplayed {
		newest, err := p.hub.NewestSizes(ctx, size)
		if err != nil {
			return nil, fmt.Errorf("reading the newest entries of logs: %w", err)
		}
		return &growth{src: p.hub, size: size, newest: newest}, nil
	}
	g := p.grown.clone().(*growth)
	err := p.src.ReadEntries(ctx, g.size, size, func(entry []byte) error {
		_, err := g.add(g.size, entry)
		return err
	})
	g.added = nil // they are signed
	if err == nil && g.size != size {
		err = errors.New("entries are missing")
	}
	if err != nil {
		from := p.grown.size
		p.grown = nil
		return nil, fmt.Errorf("reading entries %d to %d: %w", from, size, err)
	}
	return g, nil
}
