package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
)

const (
	// BundleEvents is how many events a bundle in an archive has at most.
	BundleEvents = 100_000
	// BundleBytes is about how many bytes of events it has at most: so much less than a bundle can have that the rest has room, too.
	BundleBytes = 1 << 30

	// readRun and readBytes are how much of a log is read at a time.
	readRun   = 1000
	readBytes = 8 << 20
)

// Config is what a Keeper is made of. Service, Store, Logger and Metrics are required.
type Config struct {
	Service *log.Service
	Store   log.Store       // the service's
	Archive archive.Archive // nil: there is none, so nothing is purged but of logs whose policy has archiving off
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	// Interval is how often it is looked for what is to be done; 0 is a minute.
	Interval time.Duration
	// Every is how often, for each log, it is looked for what has expired; 0 is a day. So that is how much a bundle is of at least, and
	// by how much later than it expires something may be purged.
	Every time.Duration
	// Now is the clock by which Every is counted; nil: the system's.
	Now func() time.Time
	// BundleEvents is how many events a bundle has at most; 0 is the constant.
	BundleEvents uint64
}

// Keeper keeps logs as their policies say.
type Keeper struct {
	config Config
	alerts *alerts
	looked map[log.ID]time.Time // when it was looked last for what has expired
	wake   chan struct{}
}

// New returns a Keeper.
func New(c Config) *Keeper {
	if c.Interval == 0 {
		c.Interval = time.Minute
	}
	if c.Every == 0 {
		c.Every = 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.BundleEvents == 0 {
		c.BundleEvents = BundleEvents
	}
	return &Keeper{config: c, alerts: newAlerts(c.Logger, c.Metrics), looked: make(map[log.ID]time.Time), wake: make(chan struct{}, 1)}
}

// Report is what was done with a log, or in a dry run what would be.
type Report struct {
	Log     string        `json:"log"`
	DryRun  bool          `json:"dry_run,omitempty"`
	Policy  log.Retention `json:"policy"`
	Expired uint64        `json:"expired"` // how far the log has expired: all before this index has
	Purged  uint64        `json:"purged"`  // events
	Held    uint64        `json:"held"`    // events that have expired and that only holds keep
	// Bundles are those in the archive that have what was purged.
	Bundles []Archived `json:"bundles,omitempty"`
	// Blocked says why not all was purged that has expired, but for what holds keep; nil if it was.
	Blocked *Blocked `json:"blocked,omitempty"`
	// Erasures are the ids of those that were finished.
	Erasures []string `json:"erasures,omitempty"`
}

// Archived is a bundle in an archive.
type Archived struct {
	log.Archived
	Written bool `json:"written"` // by this run
}

// testingOnlyStep, if not nil, is told of each step that was done.
var testingOnlyStep func(step string)

func (k *Keeper) step(name string) {
	if testingOnlyStep != nil {
		testingOnlyStep(name)
	}
}

// Run does what is to be done until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(k.config.Interval)
	defer tick.Stop()
	for {
		k.Pass(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-k.wake:
		}
	}
}

// Wake has Run look at once for what is to be done, as after an erasure.
func (k *Keeper) Wake() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Pass does once, for all logs, what is to be done now.
func (k *Keeper) Pass(ctx context.Context) {
	for _, l := range k.config.Service.Tenants() {
		if ctx.Err() != nil {
			return
		}
		due := k.config.Now().Sub(k.looked[l.ID]) >= k.config.Every
		r := &Report{Log: l.Name}
		err := k.keep(ctx, l, r, due)
		if due && err == nil {
			k.looked[l.ID] = k.config.Now()
		}
		if ctx.Err() == nil {
			k.alerts.tell(l, r, due, err)
		}
	}
	if err := k.shred(ctx); err != nil && ctx.Err() == nil {
		k.config.Logger.Warn("what was removed can't be shredded, will be tried again", "error", err)
	}
	k.alerts.ran(k.config.Now())
}

// RunOnce does with a log all that is to be done now, and reports it. A dry run does nothing, and reports what would be.
func (k *Keeper) RunOnce(ctx context.Context, l *log.Log, dryRun bool) (*Report, error) {
	r := &Report{Log: l.Name, DryRun: dryRun}
	if dryRun {
		return r, k.foresee(ctx, l, r)
	}
	err := k.keep(ctx, l, r, true)
	if err == nil {
		err = k.shred(ctx)
	}
	k.alerts.tell(l, r, true, err)
	return r, err
}

// keep does with a log what is to be done: what is recorded and not done yet, then erasures, then, if that is due, what has expired.
func (k *Keeper) keep(ctx context.Context, l *log.Log, r *Report, due bool) error {
	if _, err := l.SettleRetention(ctx); err != nil {
		return fmt.Errorf("settling the policy of log %s: %w", l.Name, err)
	}
	if err := k.resume(ctx, l); err != nil {
		return err
	}
	k.step("resumed")
	if err := k.eraseArchived(ctx, l, r); err != nil {
		return err
	}
	if !due {
		return nil
	}
	if err := k.purge(ctx, l, r); err != nil {
		return err
	}
	return k.resume(ctx, l)
}

// resume removes from the store what is recorded as removed.
func (k *Keeper) resume(ctx context.Context, l *log.Log) error {
	for {
		more, err := l.Resume(ctx)
		if err != nil {
			return fmt.Errorf("removing from log %s what was purged or erased: %w", l.Name, err)
		}
		if !more {
			return nil
		}
	}
}

// shred makes what was removed unreadable from the store's files.
func (k *Keeper) shred(ctx context.Context) error {
	for {
		more, err := k.config.Store.Shred(ctx)
		if err != nil {
			return err
		}
		k.step("shredded")
		if !more {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// foresee reports what purge would do.
func (k *Keeper) foresee(ctx context.Context, l *log.Log, r *Report) error {
	for at := uint64(0); ; {
		x, err := l.Expired(ctx, at, k.config.BundleEvents)
		if err != nil {
			return err
		}
		r.Policy, r.Expired = x.Policy, x.End
		if x.From >= x.End {
			return nil
		}
		if blockedBy(x.Blocked, r) {
			return nil
		}
		r.Held += x.Held
		r.Purged += count(x.Spans)
		if len(x.Spans) > 0 && x.Policy.Archive && k.config.Archive == nil {
			r.Blocked = noArchive
		}
		at = x.To
	}
}

// purge has purged what has expired, each part once it is archived. What keeps it from going on it notes in the report; an error is
// anything else.
func (k *Keeper) purge(ctx context.Context, l *log.Log, r *Report) error {
	by := log.ByServer()
	for at := uint64(0); ; {
		x, err := l.Expired(ctx, at, k.config.BundleEvents)
		if err != nil {
			return fmt.Errorf("looking for what has expired of log %s: %w", l.Name, err)
		}
		r.Policy, r.Expired = x.Policy, x.End
		if x.From >= x.End {
			return nil
		}
		if blockedBy(x.Blocked, r) {
			return nil
		}
		var archived *log.Archived
		if len(x.Spans) > 0 && x.Policy.Archive {
			b, err := k.archive(ctx, l, &x)
			var blocked *Blocked
			if errors.As(err, &blocked) {
				r.Blocked = blocked
				return nil
			}
			if err != nil {
				return err
			}
			if x.To > b.To { // the rest is in another one
				if x, err = l.Expired(ctx, x.Spans[0].From, b.To-x.Spans[0].From); err != nil {
					return err
				}
				if blockedBy(x.Blocked, r) { // since the bundle was written
					return nil
				}
			}
			archived = &b.Archived
			r.Bundles = append(r.Bundles, *b)
			k.step("verified")
		}
		r.Held += x.Held
		at = x.To
		if len(x.Spans) == 0 {
			continue
		}
		var blocked *log.BlockedError
		switch err := l.Purge(ctx, by, x.Spans, archived); {
		case errors.Is(err, log.ErrChanged) || errors.Is(err, log.ErrHeld): // since it was looked at; the next run looks again
			r.Blocked = &Blocked{BlockedChanged, err.Error()}
			return nil
		case errors.As(err, &blocked):
			blockedBy(blocked, r)
			return nil
		case err != nil:
			return fmt.Errorf("purging log %s: %w", l.Name, err)
		}
		r.Purged += count(x.Spans)
		k.step("purged")
	}
}

// blockedBy notes in a report what keeps a log from being purged, if anything does.
func blockedBy(by *log.BlockedError, r *Report) bool {
	if by != nil {
		r.Blocked = &Blocked{by.Reason, by.Why}
	}
	return by != nil
}

// count returns how many entries are in spans.
func count(spans []log.Span) (n uint64) {
	for _, s := range spans {
		n += s.Len()
	}
	return n
}
