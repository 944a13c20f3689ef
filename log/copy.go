package log

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/merkle"
)

// A copy moves all logs of a store to another one. At no instant can both be served:
//
//  1. The target gets the source's logs, empty, its keys and labels, and the label "copying", in one transaction. From here on
//     it is refused by whoever would serve it.
//  2. Entries, contents, ids and tree nodes are appended in batches, re-hashed on the way; then checkpoints are recorded.
//  3. Both sides are read again and compared.
//  4. The source gets the label "moved". From here on it is refused.
//  5. The target's label "copying" becomes "copied". From here on it can be served.
//
// After a crash the same copy is begun again: what is there is checked, and it goes on from there. The labels begin with the
// number of the copy, so that a source that is marked belongs to one target only.
const (
	labelMoved   = "moved"
	labelCopying = "copying"
	labelCopied  = "copied"
)

// Errors of opening a store for a server.
var (
	// ErrMoved means that the store's logs go on in another one.
	ErrMoved = errors.New("this store was moved")
	// ErrCopying means that the store isn't whole yet.
	ErrCopying = errors.New("a copy into this database isn't complete; run the same command again to resume")
)

// checkServed returns an error if a store isn't to be served.
func checkServed(ctx context.Context, store Reader) error {
	labels, err := store.Labels(ctx, "")
	if err != nil {
		return fmt.Errorf("reading labels: %w", err)
	}
	if moved, ok := labels[labelMoved]; ok {
		_, to, _ := strings.Cut(moved, " ")
		return fmt.Errorf("%w %s: serve that one; this one can be read, as by fsck, and nothing else", ErrMoved, to)
	}
	if copying, ok := labels[labelCopying]; ok {
		_, from, _ := strings.Cut(copying, " ")
		return fmt.Errorf("%w (%s)", ErrCopying, from)
	}
	return nil
}

// CopyOptions say how a copy is made. Source and Target are required.
type CopyOptions struct {
	Source, Target string // what people call them: no secrets
	// Progress, if not nil, is told how many more events have been copied or compared, from several goroutines. Each is counted
	// twice.
	Progress func(n int)
}

// CopyReport is what a copy has done.
type CopyReport struct {
	Logs   int    // without the hub
	Hub    bool   // there is one
	Events uint64 // that are in the target now, without the hub's entries
	Copied uint64 // of them by this call
	Before bool   // everything was done before
}

// Copy copies everything that a store holds to another one, checks it there, and marks the source as moved. Nobody else may
// write to either; the source is to be held exclusively.
func Copy(ctx context.Context, from Store, to Importer, opt CopyOptions) (r CopyReport, err error) {
	c := &copier{from: from, to: to, opt: opt}
	logs, id, err := c.prepare(ctx)
	if err != nil {
		return r, err
	}
	r.Before = id == ""
	// The hub last: it is compared with what is there of the others.
	if i := slices.IndexFunc(logs, Info.IsHub); i >= 0 {
		logs = append(slices.Delete(slices.Clone(logs), i, i+1), logs[i])
	}
	for _, l := range logs {
		if !r.Before {
			if err := c.copyLog(ctx, l); err != nil {
				return r, fmt.Errorf("log %s: %w", l.Name, err)
			}
		}
		head, err := to.Head(ctx, l.ID)
		if err != nil {
			return r, err
		}
		if l.IsHub() {
			r.Hub = true
			continue
		}
		r.Logs++
		r.Events += head.Size
	}
	if r.Before {
		return r, nil
	}
	r.Copied = c.copied
	text := fmt.Sprintf("%s to %s on %s", id, opt.Target, time.Now().UTC().Format(time.RFC3339))
	if _, err := from.Label(ctx, labelMoved, text); err != nil {
		return r, fmt.Errorf("marking the source as moved: %w", err)
	}
	if err := to.RenameLabel(ctx, labelCopying, labelCopied); err != nil {
		return r, fmt.Errorf("marking the target as complete: %w", err)
	}
	return r, nil
}

type copier struct {
	from   Store
	to     Importer
	opt    CopyOptions
	copied uint64

	custody *custody          // what the own events of the log that is copied say
	ids     map[uint64]string // of those of its events that were purged
}

func (c *copier) progress(n int) {
	if c.opt.Progress != nil {
		c.opt.Progress(n)
	}
}

// inventory is what a store holds besides the content of logs.
type inventory struct {
	logs   []Info
	keys   []Key
	labels map[string]string
	// Of what is there, what has changed since.
	vkeys    map[ID][]string // further verifier keys
	settings map[ID]Settings
	changed  []Key
}

func takeInventory(ctx context.Context, store Reader) (i inventory, err error) {
	if i.logs, err = store.Logs(ctx); err != nil {
		return i, fmt.Errorf("reading the list of logs: %w", err)
	}
	if i.keys, err = store.Keys(ctx); err != nil {
		return i, fmt.Errorf("reading the list of keys: %w", err)
	}
	if i.labels, err = store.Labels(ctx, ""); err != nil {
		return i, fmt.Errorf("reading labels: %w", err)
	}
	return i, nil
}

// prepare brings logs, keys and labels to the target, and returns the logs to copy and the copy's number; "" if the copy was
// completed before. A target that holds anything that isn't the source's is refused.
func (c *copier) prepare(ctx context.Context) ([]Info, string, error) {
	source, err := takeInventory(ctx, c.from)
	if err != nil {
		return nil, "", fmt.Errorf("the source: %w", err)
	}
	target, err := takeInventory(ctx, c.to)
	if err != nil {
		return nil, "", fmt.Errorf("the target: %w", err)
	}
	movedID, moved, isMoved := strings.Cut(source.labels[labelMoved], " ")
	copyingID, _, isCopying := strings.Cut(target.labels[labelCopying], " ")
	copiedID, _, isCopied := strings.Cut(target.labels[labelCopied], " ")
	delete(source.labels, labelMoved)
	delete(target.labels, labelCopying)
	maps.DeleteFunc(target.labels, func(name, _ string) bool { // what was done beside the target before it had anything
		_, ours := source.labels[name]
		return strings.HasPrefix(name, labelAct) && !ours
	})
	switch {
	case isMoved && isCopied && movedID == copiedID:
		return source.logs, "", nil
	case isMoved && movedID != copyingID:
		return nil, "", fmt.Errorf("%w %s, which isn't this target", ErrMoved, moved)
	case len(source.logs) == 0:
		return nil, "", errors.New("the source has no logs")
	case !isCopying && len(target.logs)+len(target.keys)+len(target.labels) > 0:
		return nil, "", errors.New("the target is in use already: it has logs, keys or labels; give an empty database")
	}
	id := copyingID
	missing := inventory{labels: make(map[string]string), vkeys: make(map[ID][]string), settings: make(map[ID]Settings)}
	if !isCopying {
		var random [8]byte
		rand.Read(random[:])
		id = hex.EncodeToString(random[:])
		missing.labels[labelCopying] = fmt.Sprintf("%s from %s, begun %s", id, c.opt.Source, time.Now().UTC().Format(time.RFC3339))
	}
	if err := target.within(source, &missing); err != nil {
		return nil, "", err
	}
	if len(missing.logs)+len(missing.keys)+len(missing.labels) > 0 {
		if err := c.to.Import(ctx, missing.logs, missing.keys, missing.labels); err != nil {
			return nil, "", fmt.Errorf("adding logs to the target: %w", err)
		}
	}
	if err := c.update(ctx, missing); err != nil {
		return nil, "", err
	}
	return source.logs, id, nil
}

// update brings what is there of logs and keys in the target to what it is in the source, which was served meanwhile.
func (c *copier) update(ctx context.Context, i inventory) error {
	for log, vkeys := range i.vkeys {
		for _, vkey := range vkeys {
			if err := c.to.AddVKey(ctx, log, vkey); err != nil {
				return fmt.Errorf("adding a verifier key to the target: %w", err)
			}
		}
	}
	for log, settings := range i.settings {
		_, err := c.to.Configure(ctx, log, func(s *Settings) error {
			*s = settings
			return nil
		})
		if err != nil {
			return fmt.Errorf("changing a log's settings in the target: %w", err)
		}
	}
	for _, k := range i.changed {
		err := c.to.ChangeKey(ctx, k.ID, func(have *Key) (*Key, error) {
			*have = k
			return nil, nil
		})
		if err != nil {
			return fmt.Errorf("changing API key %s in the target: %w", k.ID, err)
		}
	}
	return nil
}

// within returns an error if i holds anything that isn't in all, and adds to missing what i lacks.
func (i inventory) within(all inventory, missing *inventory) error {
	logs := make(map[ID]Info)
	for _, l := range i.logs {
		logs[l.ID] = l
	}
	for _, l := range all.logs {
		have, ok := logs[l.ID]
		if !ok {
			missing.logs = append(missing.logs, l)
		} else if !sameInfo(have, l) {
			return fmt.Errorf("the target's log %s isn't the source's log %s", have.Name, l.Name)
		}
		if n := len(have.VKeys); ok && n < len(l.VKeys) { // the source was served meanwhile, and a kind of signature switched on
			missing.vkeys[l.ID] = l.VKeys[n:]
		}
		if ok && !have.Settings.equal(l.Settings) {
			missing.settings[l.ID] = l.Settings
		}
		delete(logs, l.ID)
	}
	for _, l := range logs {
		return fmt.Errorf("the target has a log %s, which isn't the source's", l.Name)
	}
	for _, k := range all.keys {
		at := slices.IndexFunc(i.keys, k.same)
		if at < 0 {
			missing.keys = append(missing.keys, k)
		} else if i.keys[at] != k {
			missing.changed = append(missing.changed, k)
		}
	}
	for _, k := range i.keys {
		if !slices.ContainsFunc(all.keys, k.same) {
			return fmt.Errorf("the target has an API key %s, which isn't the source's", k.ID)
		}
	}
	for name, value := range all.labels {
		if _, ok := i.labels[name]; !ok {
			missing.labels[name] = value
		}
	}
	for name, value := range i.labels {
		if want, ok := all.labels[name]; !ok || want != value {
			return fmt.Errorf("the target has a label %s, which isn't the source's", name)
		}
	}
	return nil
}

// same reports whether both are one key, whatever has become of it.
func (k Key) same(o Key) bool {
	k.ExpiresAt, k.RevokedAt, k.ReplacedBy, k.LastUsedAt = o.ExpiresAt, o.RevokedAt, o.ReplacedBy, o.LastUsedAt
	return k == o
}

// sameInfo reports whether what the target has is the source's, but for verifier keys and settings that the source has got since.
func sameInfo(target, source Info) bool {
	n := min(len(target.VKeys), len(source.VKeys))
	return target.ID == source.ID && target.Name == source.Name && target.Origin == source.Origin &&
		target.CreatedAt == source.CreatedAt && slices.Equal(target.VKeys, source.VKeys[:n])
}

// copyLog copies what the target lacks of a log, and compares all of it.
func (c *copier) copyLog(ctx context.Context, info Info) error {
	source, err := sound(ctx, c.from, info, "source")
	if err != nil {
		return err
	}
	at, err := c.to.Head(ctx, info.ID)
	if err != nil {
		return err
	}
	if err := c.checkPrefix(ctx, info, at, source.Size); err != nil {
		return err
	}
	if err := c.learnRemoved(ctx, info.ID); err != nil {
		return fmt.Errorf("reading the source: %w", err)
	}
	contents := sha256.New() // the source's
	if err := c.addContents(ctx, contents, c.from, info, at.Size); err != nil {
		return fmt.Errorf("reading the source: %w", err)
	}
	if err := c.copyEvents(ctx, info, at, source.Size, contents); err != nil {
		return err
	}
	if err := c.copyCheckpoints(ctx, info.ID); err != nil {
		return err
	}
	if err := c.copyCosignatures(ctx, info.ID); err != nil {
		return err
	}
	if source.Frozen {
		if err := c.to.Freeze(ctx, info.ID); err != nil {
			return fmt.Errorf("freezing it in the target: %w", err)
		}
	}
	return c.compare(ctx, info, source, contents)
}

// sound checks a log as Fsck does, but for the contents, which are checked when they are copied.
func sound(ctx context.Context, store Reader, info Info, side string) (*FsckReport, error) {
	r, err := Fsck(ctx, store, info, FsckOptions{SkipContents: true})
	if err != nil {
		return nil, fmt.Errorf("checking the %s: %w", side, err)
	}
	if len(r.Problems) > 0 {
		p := r.Problems[0]
		return nil, fmt.Errorf("the %s at entry %d: %s: %w", side, p.Index, p.What, ErrDamaged)
	}
	return r, nil
}

// checkPrefix checks that the target's head is one that the source had at that size.
func (c *copier) checkPrefix(ctx context.Context, info Info, at Head, size uint64) error {
	differs := fmt.Errorf("the target has %d entries that aren't the first of the source's %d", at.Size, size)
	if at.Size > size {
		return differs
	}
	have, err := at.Root()
	if err != nil {
		return fmt.Errorf("the target's head: %v: %w", err, ErrDamaged)
	}
	want, err := merkle.RangeFromTiles(ctx, at.Size, tiles{c.from, info.ID})
	if err != nil {
		return fmt.Errorf("the source: %w", err)
	}
	if have != want.Root() {
		return differs
	}
	return nil
}

// What is copied in one transaction.
const (
	copyBytes       = maxBatchBytes
	copyCheckpoints = 10_000
)

var copyEvents uint64 = 8192 // smaller in tests

// copyEvents appends the source's events up to size to the target, which stands at a head, and adds their contents to a hash.
// One batch is read while the one before it is written.
func (c *copier) copyEvents(ctx context.Context, info Info, at Head, size uint64, contents hash.Hash) error {
	g, ctx := errgroup.WithContext(ctx)
	batches := make(chan *Batch)
	g.Go(func() error {
		defer close(batches)
		edge, err := merkle.ResumeRange(at.Size, at.Edge)
		if err != nil {
			return err
		}
		for at.Size < size {
			read := c.read
			if info.IsHub() {
				read = c.readGrowths
			}
			b, err := read(ctx, info.ID, at, edge, min(at.Size+copyEvents, size))
			if err != nil {
				return fmt.Errorf("reading the source: %w", err)
			}
			for i, r := range b.Rows {
				if r.Data == nil {
					continue
				}
				addFields(contents, b.From+uint64(i), r.Seed, r.Data)
			}
			select {
			case batches <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
			at = b.Head
		}
		return nil
	})
	g.Go(func() error {
		for b := range batches {
			if err := c.write(ctx, b); err != nil {
				return fmt.Errorf("writing entries from %d on to the target: %w", b.From, err)
			}
			c.copied += uint64(len(b.Rows))
			c.progress(len(b.Rows) + len(b.Growths))
		}
		return nil
	})
	return g.Wait()
}

// read returns the batch that brings a log from a head towards size, with everything in it checked: the chain, the times, and
// each content against its entry. The tree's edge goes along.
func (c *copier) read(ctx context.Context, id ID, at Head, edge *merkle.Range, size uint64) (*Batch, error) {
	b := &Batch{Log: id, From: at.Size, Head: at}
	bytes := 0
	err := c.contents(ctx, c.from, id, at.Size, size, func(_ uint64, p Payload) error {
		b.Rows = append(b.Rows, Row{Payload: Payload{Seed: slices.Clone(p.Seed), Data: slices.Clone(p.Data)}})
		if bytes += len(p.Data); bytes > copyBytes {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	digests := make([][32]byte, 0, len(b.Rows))
	err = c.from.Entries(ctx, id, at.Size, at.Size+uint64(len(b.Rows)), func(entry []byte) error {
		e, err := storedEntry(b.Head.Size, entry)
		if err != nil {
			return err
		}
		if e.Previous != b.Head.Last || e.ReceivedAt < b.Head.ReceivedAt {
			return fmt.Errorf("entry %d doesn't follow the one before it: %w", b.Head.Size, ErrDamaged)
		}
		digests = append(digests, e.Digest)
		b.Entries = append(b.Entries, entry...)
		b.Head.Last, b.Head.ReceivedAt = merkle.LeafHash(entry), e.ReceivedAt
		b.Head.Size++
		edge.Append(b.Head.Last, b.complete)
		return nil
	})
	if err != nil {
		return nil, err
	}
	b.Head.Edge = edge.Hashes()
	return b, c.fillIDs(b, digests)
}

// readGrowths does the same of a hub. What its entries say was checked with the rest of the source, and is again in the target.
func (c *copier) readGrowths(ctx context.Context, id ID, at Head, edge *merkle.Range, size uint64) (*Batch, error) {
	b := &Batch{Log: id, From: at.Size, Head: at}
	err := c.from.Growths(ctx, id, at.Size, size, func(g Growth) error {
		b.Growths = append(b.Growths, g)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = c.from.Entries(ctx, id, at.Size, size, func(entry []byte) error {
		if i := b.Head.Size - b.From; i >= uint64(len(b.Growths)) || b.Growths[i].Index != b.Head.Size {
			return fmt.Errorf("the row that says where entry %d is is missing: %w", b.Head.Size, ErrDamaged)
		}
		b.Entries = append(b.Entries, entry...)
		b.Head.Last = merkle.LeafHash(entry)
		b.Head.Size++
		edge.Append(b.Head.Last, b.complete)
		return nil
	})
	b.Head.Edge = edge.Hashes()
	return b, err
}

// complete notes a subtree that became complete.
func (b *Batch) complete(level uint, index uint64, h merkle.Hash) {
	if level > 0 && level%8 == 0 {
		b.Nodes = append(b.Nodes, Node{Level: int(level / 8), Index: index, Hash: h})
	}
}

// learnRemoved reads what the source's own events say of a log, and the ids of the events that were purged, which no content tells.
func (c *copier) learnRemoved(ctx context.Context, id ID) (err error) {
	if c.custody, err = foldCustody(ctx, c.from, id, new(custody)); err != nil {
		return err
	}
	c.ids = make(map[uint64]string)
	if len(c.custody.purged) == 0 {
		return nil
	}
	return c.from.IDs(ctx, id, func(event string, index uint64) error {
		if c.custody.purgedBy(index) != nil {
			c.ids[index] = event
		}
		return nil
	})
}

// contents calls fn with the content of each entry in [from, to), in order, as it is to be in the target: without what was purged or erased,
// also if the store has that still.
func (c *copier) contents(ctx context.Context, store Reader, id ID, from, to uint64, fn func(index uint64, p Payload) error) error {
	next := from
	gone := func(until uint64) error {
		for ; next < until; next++ {
			if c.custody.purgedBy(next) == nil {
				return fmt.Errorf("entry %d: its content is missing: %w", next, ErrDamaged)
			}
			if err := fn(next, Payload{}); err != nil {
				return err
			}
		}
		return nil
	}
	err := store.Payloads(ctx, id, from, to, func(index uint64, p Payload) error {
		if p.Data == nil || c.custody.purgedBy(index) != nil {
			return nil
		}
		if err := gone(index); err != nil {
			return err
		}
		next = index + 1
		if c.custody.erasedOf(index) != nil {
			x, err := c.custody.content(index, p, nil)
			if err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
			p = Payload{Data: x.reduced()}
		}
		return fn(index, p)
	})
	if err != nil {
		return err
	}
	return gone(to)
}

// fillIDs checks a batch's contents against the digests in their entries, and takes their ids out of them.
func (c *copier) fillIDs(b *Batch, digests [][32]byte) error {
	var g errgroup.Group
	run := len(b.Rows)/runtime.GOMAXPROCS(0) + 1
	for first := 0; first < len(b.Rows); first += run {
		g.Go(func() error {
			for i := first; i < min(first+run, len(b.Rows)); i++ {
				index, p := b.From+uint64(i), b.Rows[i].Payload
				if p.Data == nil {
					if b.Rows[i].ID = c.ids[index]; b.Rows[i].ID == "" {
						return fmt.Errorf("entry %d: its id is missing: %w", index, ErrDamaged)
					}
					continue
				}
				x, err := c.custody.content(index, p, nil)
				if err == nil {
					err = x.check(digests[i])
				}
				if err != nil {
					return fmt.Errorf("entry %d: %w", index, err)
				}
				b.Rows[i].ID = x.event.ID()
			}
			return nil
		})
	}
	return g.Wait()
}

// write appends a batch to the target.
func (c *copier) write(ctx context.Context, b *Batch) error {
	tx, err := c.to.Begin(ctx, []ID{b.Log})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := tx.Append([]*Batch{b}); err != nil {
		return err
	}
	return tx.Commit()
}

// copyCheckpoints records the source's checkpoints that the target lacks.
func (c *copier) copyCheckpoints(ctx context.Context, id ID) error {
	newest, err := c.to.Checkpoint(ctx, id, merkle.MaxSize)
	none := errors.Is(err, ErrNotFound)
	if err != nil && !none {
		return err
	}
	var all []Signed
	record := func() error {
		if len(all) == 0 {
			return nil
		}
		err := c.to.RecordAll(ctx, id, all)
		all = all[:0]
		return err
	}
	from := newest.Size + 1
	if none {
		from = 0
	}
	err = c.from.Checkpoints(ctx, id, from, func(s Signed) error {
		all = append(all, Signed{s.Size, bytes.Clone(s.Note)})
		if len(all) < copyCheckpoints {
			return nil
		}
		return record()
	})
	if err == nil {
		err = record()
	}
	if err != nil {
		return fmt.Errorf("copying checkpoints: %w", err)
	}
	return nil
}

// copyCosignatures adds the source's cosignatures, and what it keeps as evidence, to the target. Those that are there already stay.
func (c *copier) copyCosignatures(ctx context.Context, id ID) error {
	var all []Cosignature
	add := func() error {
		err := c.to.Cosign(ctx, id, all)
		all = all[:0]
		return err
	}
	err := c.from.CosignaturesDown(ctx, id, merkle.MaxSize, func(k Cosignature) error {
		if all = append(all, k); len(all) < copyCheckpoints {
			return nil
		}
		return add()
	})
	if err == nil {
		err = add()
	}
	if err != nil {
		return fmt.Errorf("copying cosignatures: %w", err)
	}
	evidence, err := c.from.Evidence(ctx, id)
	for _, e := range evidence {
		if err == nil {
			err = c.to.AddEvidence(ctx, id, e)
		}
	}
	if err != nil {
		return fmt.Errorf("copying evidence: %w", err)
	}
	return nil
}

// compare reads all of a log in the target, and compares it with the source's: entries and tree by the root, the rest by hashes
// over every byte.
func (c *copier) compare(ctx context.Context, info Info, source *FsckReport, contents hash.Hash) error {
	differ := func(what string) error {
		return fmt.Errorf("the target's %s aren't the source's: %w", what, ErrDamaged)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		target, err := sound(ctx, c.to, info, "target")
		if err == nil && (target.Size != source.Size || target.Root != source.Root || target.Frozen != source.Frozen) {
			err = differ("entries")
		}
		return err
	})
	g.Go(func() error {
		copied := sha256.New()
		err := c.addContents(ctx, copied, c.to, info, source.Size)
		if err == nil && !bytes.Equal(copied.Sum(nil), contents.Sum(nil)) {
			err = differ("contents")
		}
		return err
	})
	g.Go(func() error {
		var sums [2][]byte
		for i, store := range []Reader{c.from, c.to} {
			sum := sha256.New()
			err := store.IDs(ctx, info.ID, func(event string, index uint64) error {
				addFields(sum, index, []byte(event))
				return nil
			})
			if err != nil {
				return err
			}
			sums[i] = sum.Sum(nil)
		}
		if !bytes.Equal(sums[0], sums[1]) {
			return differ("ids")
		}
		return nil
	})
	g.Go(func() error {
		var sums [2][]byte
		for i, store := range []Reader{c.from, c.to} {
			sum := sha256.New()
			err := store.Checkpoints(ctx, info.ID, 0, func(s Signed) error {
				addFields(sum, s.Size, s.Note)
				return nil
			})
			if err != nil {
				return err
			}
			sums[i] = sum.Sum(nil)
		}
		if !bytes.Equal(sums[0], sums[1]) {
			return differ("checkpoints")
		}
		return nil
	})
	g.Go(func() error {
		var sums [2][]byte
		for i, store := range []Reader{c.from, c.to} {
			sum := sha256.New()
			err := store.CosignaturesDown(ctx, info.ID, merkle.MaxSize, func(k Cosignature) error {
				addFields(sum, k.Size, []byte(k.Key), []byte(k.Line), strconv.AppendInt(nil, k.At, 10))
				return nil
			})
			if err != nil {
				return err
			}
			evidence, err := store.Evidence(ctx, info.ID)
			if err != nil {
				return err
			}
			for _, e := range evidence {
				addFields(sum, e.Size, []byte(e.Kind), []byte(e.Key), e.Ours, e.Theirs, strconv.AppendInt(nil, e.At, 10))
			}
			sums[i] = sum.Sum(nil)
		}
		if !bytes.Equal(sums[0], sums[1]) {
			return differ("cosignatures")
		}
		return nil
	})
	return g.Wait()
}

// addContents adds a store's first size contents of a log to a hash.
func (c *copier) addContents(ctx context.Context, h hash.Hash, store Reader, info Info, size uint64) error {
	if info.IsHub() { // which has none
		c.progress(int(size))
		return nil
	}
	for from := uint64(0); from < size; from += copyEvents {
		to := min(from+copyEvents, size)
		err := c.contents(ctx, store, info.ID, from, to, func(index uint64, p Payload) error {
			if p.Data != nil {
				addFields(h, index, p.Seed, p.Data)
			}
			return nil
		})
		if err != nil {
			return err
		}
		c.progress(int(to - from))
	}
	return nil
}

// addFields adds a row to a hash, so that no other row adds the same bytes.
func addFields(h hash.Hash, number uint64, fields ...[]byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, number))
	for _, f := range fields {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(f))))
		h.Write(f)
	}
}
