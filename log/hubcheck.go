package log

import (
	"context"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// hubCheck is what fsck knows of the logs that a hub is about.
type hubCheck struct {
	logs   map[[32]byte]Info
	newest map[[32]byte]uint64 // by log id, the size in its newest entry so far
	run    []hubGrowth         // well-formed entries that were read and not compared with rows yet
}

// hubGrowth is an entry of a hub, and where it is.
type hubGrowth struct {
	index uint64
	checkpoint.HubEntry
}

func newHubCheck(infos []Info) *hubCheck {
	c := &hubCheck{logs: make(map[[32]byte]Info), newest: make(map[[32]byte]uint64)}
	for _, info := range infos {
		if len(info.VKeys) > 0 && !info.IsHub() {
			c.logs[checkpoint.LogID(info.VKeys[0])] = info
		}
	}
	return c
}

// nextGrowth takes the next entry of a hub.
func (f *fsck) nextGrowth(b []byte) error {
	index := f.leaves.Size()
	e, err := checkpoint.ParseHubEntry(b)
	if err != nil {
		f.badEntry(index, "entry %d: %v", index, err)
		return f.extend(b)
	}
	if before := f.hub.newest[e.LogID]; e.Size <= before {
		f.badEntry(index, "entry %d gives log %x the size %d, it had %d before", index, e.LogID, e.Size, before)
	}
	f.hub.newest[e.LogID] = e.Size
	f.hub.run = append(f.hub.run, hubGrowth{index, e})
	return f.extend(b)
}

// checkGrowths compares the entries of a run that begins at an index with what logs have recorded, and with the rows that say where
// they are.
func (f *fsck) checkGrowths(ctx context.Context, from uint64) error {
	run := f.hub.run
	f.hub.run = nil
	rows := make(map[uint64]Growth, len(run))
	err := f.store.Growths(ctx, f.info.ID, from, f.leaves.Size(), func(g Growth) error {
		rows[g.Index] = g
		return nil
	})
	if err != nil {
		return err
	}
	asked := make([]Growth, len(run)) // of a log that isn't there that of no log
	for i, e := range run {
		asked[i] = Growth{Log: f.hub.logs[e.LogID].ID, Size: e.Size, Index: e.index}
	}
	roots := make([]*merkle.Hash, len(run))
	err = f.store.CheckpointsOf(ctx, asked, func(i int, note []byte) error {
		if c, _, err := checkpoint.ParseNote(note); err == nil && c.Size == run[i].Size && c.Origin == f.hub.logs[run[i].LogID].Origin {
			roots[i] = &c.Root
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, e := range run {
		if f.full() {
			return nil
		}
		info, known := f.hub.logs[e.LogID]
		row, there := rows[e.index]
		switch {
		case !known:
			f.badEntry(e.index, "entry %d is about log %x, which the store doesn't have", e.index, e.LogID)
		case roots[i] == nil:
			f.badEntry(e.index, "entry %d says that log %s had size %d, of which it has no checkpoint", e.index, info.Name, e.Size)
		case *roots[i] != e.Root:
			f.bad(e.index, KindDiverged, "entry %d says that log %s had root %v at size %d, its checkpoint says %v: two histories were signed",
				e.index, info.Name, e.Root, e.Size, *roots[i])
		case !there:
			f.bad(e.index, KindInvalid, "the row that says where entry %d is, of log %s and size %d, is missing", e.index, info.Name, e.Size)
		case row != asked[i]:
			f.bad(e.index, KindInvalid, "the row of entry %d says log number %d and size %d, the entry is about number %d and size %d",
				e.index, row.Log, row.Size, info.ID, e.Size)
		}
	}
	return nil
}
