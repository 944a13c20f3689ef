package retention

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
)

// Outcome is what becomes of an erasure, as it is recorded once all of it is done.
type Outcome struct {
	FinishedAt string `json:"finished_at"`
	// Archive is where bundles are kept; "" if nothing is archived here.
	Archive string `json:"archive,omitempty"`
	// Bundles are the names of the bundles in the archive that the erased claims were taken out of.
	Bundles []string `json:"bundles,omitempty"`
	// Unreachable are those that keep them: an older version stays in the archive, under a lock, or the bundle is in no archive that there is.
	Unreachable []Unreachable `json:"unreachable,omitempty"`
}

// Unreachable is a bundle that keeps what was erased.
type Unreachable struct {
	Bundle string `json:"bundle"`
	Until  string `json:"until,omitempty"` // when the lock ends; absent: it isn't in the archive
}

// eraseArchived takes what was erased out of the archive, and records the outcome of erasures of which everything is done.
func (k *Keeper) eraseArchived(ctx context.Context, l *log.Log, r *Report) error {
	erasures, err := l.Erasures(ctx)
	if err != nil {
		return err
	}
	erasures = slices.DeleteFunc(erasures, func(e log.Erasure) bool { return e.Outcome != nil })
	if len(erasures) == 0 {
		return nil
	}
	outcomes := make([]Outcome, len(erasures))
	bundles, err := k.archived(ctx, l)
	if err != nil {
		return fmt.Errorf("erasing in the archive: %w", err)
	}
	if err := k.forgetUnfinished(ctx, l, erasures, bundles); err != nil {
		return err
	}
	for _, b := range bundles {
		var concerned []int
		for i := range erasures {
			if b.has(erasures[i].Entries()) || b.elsewhere && b.From < erasures[i].Events[0].Index { // nobody could look into that one
				concerned = append(concerned, i)
			}
		}
		if concerned == nil {
			continue
		}
		var locked *archive.LockedError
		if !b.elsewhere {
			if err := k.eraseIn(ctx, l, b.Name); err != nil && !errors.As(err, &locked) {
				return fmt.Errorf("erasing in the archive: %w", err)
			}
		}
		for _, i := range concerned {
			switch o := &outcomes[i]; {
			case b.elsewhere:
				o.Unreachable = append(o.Unreachable, Unreachable{Bundle: b.Name})
			case locked != nil:
				o.Unreachable = append(o.Unreachable, Unreachable{b.Name, rfc3339(locked.Until)})
			default:
				o.Bundles = append(o.Bundles, b.Name)
			}
		}
	}
	if err := k.shred(ctx); err != nil { // what is removed from the store by now
		return fmt.Errorf("shredding what was erased: %w", err)
	}
	for i, e := range erasures {
		if !e.Store || !e.Index {
			continue // when it was shredded, so once more
		}
		if k.config.Archive != nil {
			outcomes[i].Archive = k.config.Archive.String()
		}
		outcomes[i].FinishedAt = rfc3339(k.config.Now())
		text, err := json.Marshal(outcomes[i])
		if err == nil {
			err = l.FinishErasure(ctx, e.ID, text)
		}
		if err != nil {
			return fmt.Errorf("recording the outcome of erasure %s: %w", e.ID, err)
		}
		k.step("finished")
		r.Erasures = append(r.Erasures, e.ID)
	}
	return nil
}

// forgetUnfinished removes what interrupted writes have left in the archive of bundles with erased claims that aren't there, which nothing
// else would ever remove. That they were begun to be written the store's labels say.
func (k *Keeper) forgetUnfinished(ctx context.Context, l *log.Log, erasures []log.Erasure, bundles []archivedBundle) error {
	if k.config.Archive == nil {
		return nil
	}
	labels, err := k.config.Store.Labels(ctx, archivedLabel(l))
	if err != nil {
		return fmt.Errorf("looking for what was begun to be archived of log %s: %w", l.Name, err)
	}
	for label, text := range labels {
		from, err := strconv.ParseUint(strings.TrimPrefix(label, archivedLabel(l)), 10, 64)
		if err != nil {
			return fmt.Errorf("the store's label %s doesn't end in an index", label)
		}
		to, err := endIn(label, text, from)
		if err != nil {
			return err
		}
		b := archivedBundle{Bundle: archive.Bundle{Name: archive.Name(l.Origin, from, to), From: from, To: to}}
		if slices.ContainsFunc(bundles, func(o archivedBundle) bool { return o.Name == b.Name }) ||
			!slices.ContainsFunc(erasures, func(e log.Erasure) bool { return b.has(e.Entries()) }) {
			continue
		}
		if err := k.config.Archive.Forget(ctx, b.Name); err != nil {
			return fmt.Errorf("erasing in the archive what was begun to be written: %w", err)
		}
	}
	return nil
}

// Bundles returns the names of the bundles that have one of some entries of a log, ascending: of those in the archive, and of those that the
// log says were archived, wherever they are.
func (k *Keeper) Bundles(ctx context.Context, l *log.Log, entries []log.Span) (names []string, err error) {
	bundles, err := k.archived(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("looking into the archive: %w", err)
	}
	for _, b := range bundles {
		if b.has(entries) {
			names = append(names, b.Name)
		}
	}
	return names, nil
}

// PlanErasure plans an erasure, see log.PlanErasure, also of what only the archive has, since it was purged from the log. unsearched are the
// names of the bundles that can't be read, or aren't in the archive: what they have isn't in the plan.
func (k *Keeper) PlanErasure(ctx context.Context, l *log.Log, r log.ErasureRequest) (p *log.ErasurePlan, unsearched []string, err error) {
	r.Archived = func(ctx context.Context, spans []log.Span, fn func(uint64, *log.Disclosure)) (err error) {
		unsearched, err = k.eachArchived(ctx, l, spans, fn)
		return err
	}
	p, err = l.PlanErasure(ctx, r)
	return p, unsearched, err
}

// eachArchived calls fn with what the archive shows of events in spans, in order, each once.
func (k *Keeper) eachArchived(ctx context.Context, l *log.Log, spans []log.Span, fn func(uint64, *log.Disclosure)) (unsearched []string, err error) {
	bundles, err := k.archived(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("looking into the archive: %w", err)
	}
	next := uint64(0) // bundles may overlap
	for _, b := range bundles {
		if !b.has(spans) {
			continue
		}
		err := errors.New("it isn't in the archive")
		if !b.elsewhere {
			var trust log.Trust
			if trust, err = k.trust(ctx, l, b.Name); err != nil {
				return nil, err
			}
			_, err = archive.Read(ctx, k.config.Archive, b.Name, trust, func(index uint64, d *log.Disclosure) error {
				if index >= next {
					next = index + 1
					fn(index, d)
				}
				return nil
			})
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			k.config.Logger.Warn("an archived bundle can't be looked into for an erasure", "log", l.Name, "bundle", b.Name, "error", err)
			unsearched = append(unsearched, b.Name)
		}
	}
	return unsearched, nil
}

// archivedBundle is a bundle of a log's events.
type archivedBundle struct {
	archive.Bundle
	elsewhere bool // the log says that it was archived, and it isn't in the archive that there is
}

// has reports whether the bundle is of one of some entries.
func (b *archivedBundle) has(entries []log.Span) bool {
	return slices.ContainsFunc(entries, func(s log.Span) bool { return s.From < b.To && b.From < s.To })
}

// archived returns all bundles of a log's events, in the order of their names.
func (k *Keeper) archived(ctx context.Context, l *log.Log) (all []archivedBundle, err error) {
	if k.config.Archive != nil {
		bundles, err := archive.Bundles(ctx, k.config.Archive, l.Origin)
		if err != nil {
			return nil, err
		}
		for _, b := range bundles {
			all = append(all, archivedBundle{Bundle: b})
		}
	}
	named, err := l.Archives(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range named {
		if !slices.ContainsFunc(all, func(b archivedBundle) bool { return b.Name == a.Name }) {
			all = append(all, archivedBundle{archive.Bundle{Name: a.Name, From: a.From, To: a.To}, true})
		}
	}
	slices.SortFunc(all, func(a, b archivedBundle) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// eraseIn takes all that was erased from the log out of a bundle in the archive. It is a *archive.LockedError if only readers of it don't get
// it any more.
func (k *Keeper) eraseIn(ctx context.Context, l *log.Log, name string) error {
	erasures, err := l.Erasures(ctx)
	if err != nil {
		return err
	}
	trust, err := k.trust(ctx, l, name)
	if err != nil {
		return err
	}
	erase := func(index uint64, d *log.Disclosure) (*log.Disclosure, error) {
		if pointers := opened(d, erasures, index); pointers != nil {
			return d.Withhold(pointers...)
		}
		return d, nil
	}
	found := false
	_, err = archive.Read(ctx, k.config.Archive, name, trust, func(index uint64, d *log.Disclosure) error {
		found = found || opened(d, erasures, index) != nil
		return nil
	})
	if err != nil {
		return err
	}
	if !found { // it was taken out, maybe just before a crash
		return k.config.Archive.Forget(ctx, name)
	}
	err = archive.Rewrite(ctx, k.config.Archive, name, trust, erase)
	if err == nil || errors.Is(err, archive.ErrLocked) {
		k.step("erased")
	}
	return err
}

// trust returns what a bundle is verified by that is to be written anew: under the log's keys, but not by today's witnesses, who
// needn't be those that have cosigned it. What was purged since is no reason either.
func (k *Keeper) trust(ctx context.Context, l *log.Log, name string) (log.Trust, error) {
	trust := log.Trust{Removals: new(log.Removals)}
	for _, vkey := range l.VKeys {
		v, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			return trust, err
		}
		trust.Keys = append(trust.Keys, v)
	}
	_, from, to, _ := archive.ParseName(name)
	removals, err := l.Removals(ctx, from, to)
	if err != nil {
		return trust, err
	}
	for _, by := range removals {
		proof, err := l.Proof(ctx, by.Index)
		if errors.Is(err, log.ErrNotSigned) {
			continue // nothing depends on it then
		}
		if err == nil {
			_, err = trust.Removals.Add(proof, trust)
		}
		if err != nil {
			return trust, err
		}
	}
	return trust, nil
}

// opened returns the pointers of the claims that a disclosure shows although they were erased.
func opened(d *log.Disclosure, erasures []log.Erasure, index uint64) (pointers []string) {
	shown := d.Shown()
	if shown == nil {
		return nil
	}
	for i := range erasures {
		for _, e := range erasures[i].Erased {
			if !slices.ContainsFunc(e.Ranges, func(s log.Span) bool { return s.From <= index && index < s.To }) {
				continue
			}
			for _, c := range shown.Claims() {
				if slices.Contains(e.Pointers, c.Pointer) {
					pointers = append(pointers, c.Pointer)
				}
			}
		}
	}
	return pointers
}
