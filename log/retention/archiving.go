package retention

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
	"github.com/treeline-log/treeline/log/bundle"
	"github.com/treeline-log/treeline/merkle"
)

// archive returns the bundle in the archive that has the first of what has expired, after it was read back and verified. It is written if
// there is none yet. The error is a *Blocked if the archive, or what is in it, doesn't let anything be purged.
func (k *Keeper) archive(ctx context.Context, l *log.Log, x *log.Expired) (*Archived, error) {
	if k.config.Archive == nil {
		return nil, noArchive
	}
	first := x.Spans[0].From
	name, recorded, err := k.bundleOf(ctx, l, first, x.To)
	if err != nil {
		return nil, err
	}
	out := new(Archived)
	for attempt := 1; ; attempt++ {
		out.Archived, err = k.readBack(ctx, l, name, recorded != nil)
		switch {
		case err == nil && recorded != nil && out.Manifest != recorded.Manifest:
			return nil, &Blocked{BlockedUnverified, fmt.Sprintf("%s in the archive isn't the bundle that the log names: its manifest is %s, not %s",
				name, out.Manifest, recorded.Manifest)}
		case err == nil:
			return out, nil
		case errors.Is(err, archive.ErrNotFound) && recorded != nil:
			return nil, &Blocked{BlockedMissing, fmt.Sprintf("%s, which the log says has been archived, isn't in the archive", name)}
		case errors.Is(err, errStale):
			err = k.eraseIn(ctx, l, name)
			if errors.Is(err, archive.ErrLocked) { // readers of the archive get it without
				err = nil
			}
		case errors.Is(err, archive.ErrNotFound):
			out.Written = true
			err = k.config.Archive.Put(ctx, name, k.writer(ctx, l, name))
			if errors.Is(err, archive.ErrExists) { // another server was faster
				out.Written, err = false, nil
			}
			if err == nil {
				k.step("archived")
			}
		case errors.Is(err, archive.ErrUnsound) || errors.Is(err, errLacks):
			_, from, to, _ := archive.ParseName(name)
			if recorded != nil || purgedWithin(l, from, to) || attempt > 1 { // it can't be written again, or that doesn't help
				return nil, &Blocked{BlockedUnverified, err.Error()}
			}
			out.Written = true
			err = k.config.Archive.Replace(ctx, name, k.writer(ctx, l, name))
			if errors.Is(err, archive.ErrLocked) {
				err = nil
			}
			if err == nil {
				k.step("replaced")
			}
		}
		if err == nil && attempt == 4 {
			err = errors.New("it doesn't come to a bundle that is as the log is")
		}
		if err != nil {
			return nil, k.unreachable(ctx, name, err)
		}
	}
}

// unreachable returns the error of an archive as what blocks a purge.
func (k *Keeper) unreachable(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &Blocked{BlockedUnreachable, fmt.Sprintf("archiving %s: %v", name, err)}
}

// purgedWithin reports whether any of the entries [from, to) was purged.
func purgedWithin(l *log.Log, from, to uint64) bool {
	return slices.ContainsFunc(l.Purges(), func(s log.PurgedSpan) bool { return s.From < to && from < s.To })
}

// bundleOf returns the name of the bundle that has an entry, or is to have it with those that follow it, at most up to end. recorded is
// what the log says of it, if something was purged because of it.
func (k *Keeper) bundleOf(ctx context.Context, l *log.Log, index, end uint64) (name string, recorded *log.Archived, err error) {
	archives, err := l.Archives(ctx)
	if err != nil {
		return "", nil, err
	}
	for i := range archives {
		if a := &archives[i]; a.From <= index && index < a.To {
			return a.Name, a, nil
		}
	}
	bundles, err := archive.Bundles(ctx, k.config.Archive, l.Origin)
	if err != nil {
		return "", nil, k.unreachable(ctx, l.Origin, err)
	}
	from := uint64(0) // where the one before ends
	for _, b := range bundles {
		switch {
		case b.From <= index && index < b.To:
			return b.Name, nil, nil
		case b.To <= index:
			from = max(from, b.To)
		default:
			end = min(end, b.From)
		}
	}
	for _, s := range l.Purges() { // without an archive, or with one that isn't this one
		if s.From <= from {
			from = max(from, s.To)
		}
	}
	if from > index || index-from >= k.config.BundleEvents { // what lies between is held, and comes later
		from = index
	}
	for {
		to, err := k.endOf(ctx, l, from, min(end, from+k.config.BundleEvents))
		if err != nil {
			return "", nil, err
		}
		if index < to {
			return archive.Name(l.Origin, from, to), nil, nil
		}
		from = to
	}
}

// endOf returns where the bundle ends that begins at an index. That is decided once, for all servers and also after a crash, so that nothing is
// archived under two names.
func (k *Keeper) endOf(ctx context.Context, l *log.Log, from, to uint64) (uint64, error) {
	bytes, pace := 0, newPace()
	for at := from; at < to; {
		records, err := l.Records(ctx, at, min(at+readRun, to), readBytes)
		if err != nil {
			return 0, err
		}
		for i := range records {
			if bytes += records[i].Size(); bytes > BundleBytes && records[i].Index > from {
				to = records[i].Index
				break
			}
		}
		at += uint64(len(records))
		if err := pace.rest(ctx); err != nil {
			return 0, err
		}
	}
	label := fmt.Sprint(archivedLabel(l), from)
	text, err := k.config.Store.Label(ctx, label, strconv.FormatUint(to, 10))
	if err != nil {
		return 0, fmt.Errorf("noting which events of log %s are archived: %w", l.Name, err)
	}
	k.step("named")
	return endIn(label, text, from)
}

// archivedLabel begins the names of the labels that say, after what each bundle of a log begins with, where it ends.
func archivedLabel(l *log.Log) string { return fmt.Sprintf("archive:%s:", l.Target().ID) }

// endIn returns where a bundle ends, as a label says.
func endIn(label, text string, from uint64) (uint64, error) {
	to, err := strconv.ParseUint(text, 10, 64)
	if err != nil || to <= from {
		return 0, fmt.Errorf("the store's label %s is %q, want an index above %d", label, text, from)
	}
	return to, nil
}

// writer returns what writes the bundle of a name.
func (k *Keeper) writer(ctx context.Context, l *log.Log, name string) func(io.Writer) error {
	_, from, to, _ := archive.ParseName(name)
	return func(w io.Writer) error {
		c, note, err := l.Attested(ctx)
		if err != nil {
			return err
		}
		if c.Size < to {
			return fmt.Errorf("events up to %d are to be archived under a checkpoint of size %d: %w", to, c.Size, log.ErrNotSigned)
		}
		b, err := bundle.NewWriter(w, note, l.PolicyFile(), func(ctx context.Context, from, to uint64) ([]merkle.Hash, error) {
			return l.Cover(ctx, from, to, c.Size)
		})
		if err != nil {
			return err
		}
		removals, err := l.Removals(ctx, from, to)
		if err != nil {
			return err
		}
		for _, by := range removals {
			proof, err := l.Proof(ctx, by.Index)
			if err == nil {
				err = b.AddRemoval(proof)
			}
			if err != nil {
				return err
			}
		}
		err = eachRecord(ctx, l, from, to, func(r *log.Record) error {
			d, err := r.Disclosure()
			if err != nil {
				return err
			}
			return b.Add(ctx, r.Index, d)
		})
		if err != nil {
			return err
		}
		_, err = b.Close(ctx, bundle.Selection{From: from, To: to})
		return err
	}
}

// eachRecord calls fn with each of the records [from, to).
func eachRecord(ctx context.Context, l *log.Log, from, to uint64, fn func(*log.Record) error) error {
	pace := newPace()
	for at := from; at < to; {
		records, err := l.Records(ctx, at, min(at+readRun, to), readBytes)
		if err != nil {
			return err
		}
		for i := range records {
			if err := fn(&records[i]); err != nil {
				return err
			}
		}
		at += uint64(len(records))
		if err := pace.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Errors of a bundle that is VALID, but isn't as the log is.
var (
	errLacks = errors.New("the archive doesn't show what the log has")
	errStale = errors.New("the archive shows what was erased")
)

// readBack reads a bundle from the archive and verifies it, under the log's own keys and by the policy that witnesses ask for, and compares it
// with the log: what that still has must be shown whole, and what was erased must not be. One that the log names was verified so before, by
// what was the policy then: it is verified under the log's keys.
func (k *Keeper) readBack(ctx context.Context, l *log.Log, name string, recorded bool) (out log.Archived, err error) {
	_, from, to, ok := archive.ParseName(name)
	if !ok {
		return out, &Blocked{BlockedUnverified, fmt.Sprintf("the log says that %q was archived, which is no name of a bundle", name)}
	}
	var trust log.Trust
	if recorded {
		trust, err = k.trust(ctx, l, name)
	} else {
		trust.Policy, err = checkpoint.ParsePolicy(l.PolicyFile())
	}
	if err != nil {
		return out, err
	}
	var records []log.Record // from index on
	stale, pace := false, newPace()
	v, err := archive.Read(ctx, k.config.Archive, name, trust, func(index uint64, d *log.Disclosure) error {
		if index < from || index >= to {
			return nil // which is found to be wrong
		}
		if len(records) == 0 {
			if err := pace.rest(ctx); err != nil {
				return err
			}
			if records, err = l.Records(ctx, index, min(index+readRun, to), readBytes); err != nil {
				return err
			}
		}
		r := &records[0]
		records = records[1:]
		if r.Index != index {
			return fmt.Errorf("event %d of %s: %w", r.Index, name, errLacks)
		}
		lacks, more := compare(r, d)
		if lacks {
			return fmt.Errorf("event %d of %s: %w", index, name, errLacks)
		}
		stale = stale || more
		return nil
	})
	if err != nil {
		return out, err
	}
	if stale {
		return out, fmt.Errorf("%s: %w", name, errStale)
	}
	return log.Archived{Name: name, Manifest: hex.EncodeToString(v.Manifest[:]), From: from, To: to, Size: v.Checkpoint.Size}, nil
}

// compare reports whether a disclosure lacks anything that the log has of an event, and whether it shows more. They are of the same entry.
func compare(r *log.Record, d *log.Disclosure) (lacks, more bool) {
	switch {
	case r.PurgedBy != nil:
		return false, false
	case r.Claims == nil:
		return d.Event == nil, false
	case d.Event != nil:
		return false, true // since claims of it were erased
	}
	for i := range r.Claims {
		if i >= len(d.Claims) || d.Claims[i].Pointer != r.Claims[i].Pointer {
			return true, false
		}
		lacks = lacks || d.Claims[i].Withheld() && !r.Claims[i].Withheld()
		more = more || !d.Claims[i].Withheld() && r.Claims[i].Withheld()
	}
	return lacks, more
}
