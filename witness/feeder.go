package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// A Log is a log as a [Feeder] sees it. A Feeder knows a log by the value of its Log, which must be comparable.
type Log interface {
	// Signed returns the newest checkpoint that is signed, recorded and fenced, and its note, with no signatures but the log's
	// own. The note is nil if there is none yet.
	Signed() (checkpoint.Checkpoint, []byte)

	// Signs reports whether this server is the one that signs the log. Where another one does, that one feeds, too, as long as
	// Confirmed moves.
	Signs() bool

	// Confirmed returns the largest size that witnesses with one of the keys have confirmed, and the newest time in their
	// cosignatures, by whichever server these were collected.
	Confirmed(ctx context.Context, keys []string) (size uint64, at time.Time, err error)

	// Consistency returns the consistency proof between the trees of two sizes, from ≤ to, both signed.
	Consistency(ctx context.Context, from, to uint64) ([]merkle.Hash, error)

	// Cosign keeps cosignatures, which have been checked, on the signed checkpoint of that size.
	Cosign(ctx context.Context, size uint64, sigs []note.Signature) error

	// Recorded reads from the store which size is the largest that any server has signed.
	Recorded(ctx context.Context) (uint64, error)

	// Examine compares a checkpoint that a witness with the key has shown with the log's history as it is recorded now. If the
	// log's key has signed it and it isn't in that history, the log is stopped for good, both checkpoints are kept, and the
	// result is true. What the log's key hasn't signed is an error.
	Examine(ctx context.Context, key string, shown []byte) (contradicts bool, err error)

	// Accepted returns the size up to which an operator has let claims of witnesses pass.
	Accepted() uint64

	// Outvoted stops the log, since witnesses that alone meet the quorum claim sizes, by key, that it never signed.
	Outvoted(ctx context.Context, claims map[string]uint64) error

	// Asked tells, with nil, that no witness claims more than the log has signed, so that it may be signed from here on; or
	// why it may not yet be.
	Asked(objection error)
}

// FeederConfig is what a Feeder is made of. Policy, Logs, Logger and Metrics are required.
type FeederConfig struct {
	Policy *checkpoint.Policy
	// Logs returns the logs to feed, also those that were made a moment ago.
	Logs   func() []Log
	Logger *slog.Logger
	// Metrics is where the Feeder's metrics are registered.
	Metrics prometheus.Registerer
	// Interval is the shortest time between two checkpoints of one log that are submitted.
	Interval time.Duration
	// Refresh is after how long a witness is asked to cosign a checkpoint again that hasn't changed; 0: an hour.
	Refresh time.Duration
	// Transport carries the requests; nil: one of the Feeder's own.
	Transport http.RoundTripper
	// Now is what the times in cosignatures are compared with; nil: time.Now.
	Now func() time.Time
}

// What a Feeder bounds its work by.
const (
	maxInFlight   = 16                     // requests to one witness at a time, of different logs
	lookInterval  = 100 * time.Millisecond // how often all logs are looked at, unless a request has ended
	lookPause     = 10 * time.Millisecond  // how long after a look the next one is, at least
	askPatience   = 5 * time.Second        // how long a log waits to be signed first, for a witness that doesn't answer
	roundPatience = 15 * time.Second       // how long a checkpoint is held on to while it may still get its quorum
	takeOver      = 10 * time.Second       // how long another server may do nothing before this one feeds its log
	maxSkew       = 5 * time.Minute        // how far a witness's clock may be ahead
	maxTries      = 3                      // requests in a row, while a witness says where to go on from
)

// Pauses after what went wrong: the first, which doubles each time, and the longest. All of them are spread.
const (
	failurePause, maxFailurePause = 500 * time.Millisecond, time.Minute
	refusalPause, maxRefusalPause = 30 * time.Second, 15 * time.Minute
)

// A Feeder brings the checkpoints of logs to the witnesses of a policy, and their cosignatures back.
//
// Witnesses must cosign the same checkpoint for it to meet a quorum, so a Feeder works in rounds: it holds on to one checkpoint of a
// log, the newest there was, until the quorum is met, or each witness has answered or failed; then it goes on to the newest. A
// witness that is slow is asked for what the round is at when it has answered; whoever is down holds up nobody. For one log and one
// witness there is one request at a time: two at once, of sizes N and N+K, would make each other's proof wrong.
//
// Of what a witness says that contradicts the log, only what the log itself has signed is believed at once: a conflict's size
// carries no signature. Without one it sets the witness aside, and stops a log only if as many say so as would meet the quorum.
type Feeder struct {
	FeederConfig
	client    *http.Client
	endpoints []*endpoint
	metrics   *feederMetrics
	wake      chan struct{} // a request has ended
	requests  sync.WaitGroup

	mu    sync.Mutex
	feeds map[Log]*feed
}

// An endpoint is one witness: what is at one URL of the policy. It may have several keys there.
type endpoint struct {
	url       string
	name      string // of its witnesses in the policy
	witnesses []checkpoint.Witness
	keys      []string

	inFlight int
	failures int       // in a row, of reaching it
	until    time.Time // before then it isn't asked
	problem  string    // what the last failure was, "" if there was none since
	since    time.Time
	late     bool      // it left a log waiting that was to be signed first
	newest   time.Time // in any cosignature of it
}

// A feed is what a Feeder does for one log.
type feed struct {
	log   Log
	links []*link

	began time.Time // of the round
	round checkpoint.Checkpoint
	note  []byte // of the round's checkpoint; nil before the first round

	cleared bool // no witness objects to the log's being signed
}

// A link is one log at one witness.
type link struct {
	*endpoint
	busy   bool
	known  bool      // size and at were read from the store
	asked  bool      // it has answered, or failed to, at least once; that it is busy is no answer
	asking time.Time // when it was asked first; zero: the log's turn hasn't come
	cosign uint64
	size   uint64    // that it has confirmed last
	at     time.Time // the newest time in its cosignatures
	moved  time.Time // when that was seen to have changed
	stale  time.Time // when it is to be refreshed

	failures, refusals int // in a row
	until              time.Time
	problem            string
	claim              uint64 // the size it claims, if that is more than the log has signed
}

// NewFeeder returns a Feeder. It is an error if the quorum can't be met by the witnesses of which the policy says where they are.
func NewFeeder(c FeederConfig) (*Feeder, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Refresh == 0 {
		c.Refresh = time.Hour
	}
	if c.Transport == nil {
		c.Transport = newTransport()
	}
	f := &Feeder{FeederConfig: c, client: newHTTPClient(c.Transport), wake: make(chan struct{}, 1), feeds: make(map[Log]*feed)}
	at := make(map[string]*endpoint)
	for _, w := range c.Policy.Witnesses {
		if w.URL == "" {
			continue
		}
		if err := checkURL(w.URL); err != nil {
			return nil, fmt.Errorf("witness %s: %w", w.Name, err)
		}
		url := strings.TrimSuffix(w.URL, "/")
		e := at[url]
		if e == nil {
			e = &endpoint{url: url, name: w.Name}
			at[url] = e
			f.endpoints = append(f.endpoints, e)
		} else {
			e.name += "," + w.Name
		}
		e.witnesses, e.keys = append(e.witnesses, w), append(e.keys, w.Key())
	}
	if lacks := c.Policy.Lacks(func(w checkpoint.Witness) bool { return w.URL != "" }); len(lacks) > 0 {
		return nil, fmt.Errorf("the quorum can't be met: the policy has no URL for witness %s", lacks[0].Name)
	}
	f.metrics = newFeederMetrics(f, c.Metrics)
	return f, nil
}

// Run feeds until ctx ends, and returns when nothing is under way any more.
func (f *Feeder) Run(ctx context.Context) {
	defer f.requests.Wait()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		f.look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookPause):
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-f.wake:
		}
	}
}

// look starts what is due, in an order of its own each time, so that no log is always the last.
func (f *Feeder) look(ctx context.Context) {
	logs := f.Logs()
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	var cleared []*feed
	for i, first := 0, rand.IntN(max(len(logs), 1)); i < len(logs); i++ {
		l := logs[(first+i)%len(logs)]
		d := f.feeds[l]
		if d == nil {
			d = &feed{log: l}
			for _, e := range f.endpoints {
				d.links = append(d.links, &link{endpoint: e, moved: now})
			}
			f.feeds[l] = d
		}
		if d.cleared {
			cleared = append(cleared, d)
		} else {
			f.step(ctx, d, now)
		}
	}
	for _, d := range cleared { // after those that can't be signed yet
		f.step(ctx, d, now)
	}
}

// step starts what is due for one log.
func (f *Feeder) step(ctx context.Context, d *feed, now time.Time) {
	c, msg := d.log.Signed()
	if msg == nil {
		return
	}
	if d.note == nil || c.Size > d.round.Size && now.Sub(d.began) >= f.Interval && f.settled(d, now) {
		d.round, d.note, d.began = c, msg, now
	}
	for _, l := range d.links {
		if !l.busy && l.inFlight < maxInFlight && !now.Before(l.until) && !now.Before(l.endpoint.until) && f.due(d, l, now) {
			l.busy = true
			l.inFlight++
			if l.asking.IsZero() {
				l.asking = now
			}
			f.requests.Go(func() { f.attempt(ctx, d, l) })
		}
	}
	if !d.cleared {
		f.clear(d, now)
	}
}

// due reports whether the witness is to be asked for the round's checkpoint.
func (f *Feeder) due(d *feed, l *link, now time.Time) bool {
	if !l.asked {
		return true
	}
	if l.size >= d.round.Size && now.Before(l.stale) {
		return false
	}
	return d.log.Signs() || now.Sub(l.moved) >= takeOver
}

// settled reports whether nothing is to be gained by holding on to the round's checkpoint.
func (f *Feeder) settled(d *feed, now time.Time) bool {
	if now.Sub(d.began) >= roundPatience || !slices.ContainsFunc(d.links, func(l *link) bool { return l.busy }) {
		return true
	}
	return f.Policy.Met(func(w checkpoint.Witness) bool {
		return slices.ContainsFunc(d.links, func(l *link) bool { return l.cosign == d.round.Size && slices.Contains(l.keys, w.Key()) })
	})
}

// clear lets a log be signed after a start, if all witnesses were asked and none of them claims that it had signed more. Those that
// don't answer in time are not waited for. The time is counted from when the log's own request was sent: of thousands of logs most
// wait for their turn first. They don't where a witness was found not to answer.
func (f *Feeder) clear(d *feed, now time.Time) {
	waits := false
	for _, l := range d.links {
		switch {
		case l.asked || l.endpoint.failures > 0:
		case l.asking.IsZero():
			waits = waits || !l.late
		case now.Sub(l.asking) < askPatience:
			waits = true
		default:
			l.late = l.late || l.busy
		}
	}
	if waits {
		return
	}
	claims := d.claims()
	if len(claims) == 0 {
		d.cleared = true
		d.log.Asked(nil)
		return
	}
	largest := uint64(0)
	var names []string
	for _, l := range claims {
		largest = max(largest, l.claim)
		names = append(names, l.name)
	}
	d.log.Asked(fmt.Errorf("witness %s says that the log had %d entries, the largest size signed here is %d: this store may be an old copy",
		strings.Join(names, ", "), largest, d.round.Size))
}

// claims returns the links whose witness claims more than the log has signed, and than an operator has let pass.
func (d *feed) claims() (claims []*link) {
	c, _ := d.log.Signed()
	for _, l := range d.links {
		if l.claim > max(c.Size, d.log.Accepted()) {
			claims = append(claims, l)
		}
	}
	return claims
}

// attempt asks a witness to cosign the round's checkpoint, and notes how it went.
func (f *Feeder) attempt(ctx context.Context, d *feed, l *link) {
	f.mu.Lock()
	c, msg := d.round, d.note
	f.mu.Unlock()
	start := time.Now()
	err := f.submit(ctx, d, l, c, msg)
	f.metrics.request(l.name, err, time.Since(start))
	f.mu.Lock()
	f.note(d, l, c, err)
	l.busy, l.asked = false, l.asked || !errors.Is(err, errLeft) && !errors.As(err, new(*busyError))
	l.inFlight--
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// errLeft means that there was nothing to ask: another server has.
var errLeft = errors.New("left to another server")

// A claimError means that the witness claims a size that the log never signed.
type claimError struct {
	size uint64
	why  string // why nothing shows it
}

func (e *claimError) Error() string {
	return fmt.Sprintf("the witness claims that the log had %d entries, more than it ever signed, and shows nothing that proves it (%s)", e.size, e.why)
}

// errContradicted means that the witness has shown a checkpoint under the log's key that isn't in its history.
var errContradicted = errors.New("the witness shows a checkpoint under the log's key that isn't in its history")

// submit asks a witness to cosign a checkpoint, with the proof from where it stands, and keeps what it answers.
func (f *Feeder) submit(ctx context.Context, d *feed, l *link, c checkpoint.Checkpoint, msg []byte) error {
	theirs, err := f.learn(ctx, d, l)
	if err != nil {
		return err
	}
	if theirs || l.size > c.Size && !d.log.Signs() { // which has signed more than this one has heard of
		return errLeft
	}
	old := min(l.size, c.Size)
	for try := 1; ; try++ {
		proof, err := d.log.Consistency(ctx, old, c.Size)
		if err != nil {
			return fmt.Errorf("proving that size %d extends %d: %w", c.Size, old, err)
		}
		lines, err := addCheckpoint(ctx, f.client, l.url, old, proof, msg)
		var conflict *sizeError
		switch {
		case errors.As(err, &conflict) && conflict.size > c.Size:
			return f.doubt(ctx, d, l, c, conflict.size, err)
		case errors.As(err, &conflict) && (conflict.size == old || try == maxTries):
			return fmt.Errorf("%w, though it was asked from size %d: %w", err, old, errAnswer)
		case errors.As(err, &conflict):
			old = conflict.size
			continue
		case errors.Is(err, errOtherTree):
			return f.doubt(ctx, d, l, c, 0, err)
		case err != nil:
			return err
		}
		sigs, err := cosignatures(c, lines, l.witnesses, l.at, f.Now().Add(maxSkew))
		if err != nil {
			return err
		}
		if err := d.log.Cosign(ctx, c.Size, sigs); err != nil {
			return fmt.Errorf("keeping its cosignature on size %d: %w", c.Size, err)
		}
		f.confirmed(l, c.Size, sigs)
		return nil
	}
}

// learn reads what the witness has confirmed, if that isn't known, or if another server may have asked it. It reports whether the
// log is left to that one.
func (f *Feeder) learn(ctx context.Context, d *feed, l *link) (theirs bool, err error) {
	if l.known && d.log.Signs() {
		return false, nil
	}
	size, at, err := d.log.Confirmed(ctx, l.keys)
	if err != nil {
		return false, fmt.Errorf("reading what it has confirmed: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	moved := size != l.size || !at.Equal(l.at)
	first := !l.known
	l.size, l.at, l.known = size, at, true
	if !moved || first {
		return false, nil
	}
	l.moved, l.stale = time.Now(), f.staleFrom(at)
	return !d.log.Signs(), nil
}

// confirmed notes cosignatures.
func (f *Feeder) confirmed(l *link, size uint64, sigs []note.Signature) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, sig := range sigs {
		if at, err := checkpoint.CosignatureTime(sig); err == nil && at.After(l.at) {
			l.at = at
		}
	}
	l.size, l.cosign, l.moved = size, size, time.Now()
	l.stale = f.staleFrom(f.Now())
	if l.at.After(l.newest) {
		l.newest = l.at
	}
}

// staleFrom returns when what was confirmed at a time is to be refreshed: not all logs at once.
func (f *Feeder) staleFrom(at time.Time) time.Time {
	age := f.Now().Sub(at)
	return time.Now().Add(f.Refresh*9/10 + rand.N(f.Refresh/5+1) - age)
}

// doubt finds out what a witness has against a checkpoint: it claims a larger size, or another tree. If it shows a checkpoint that
// the log's key has signed, that decides. Otherwise it is a claim.
func (f *Feeder) doubt(ctx context.Context, d *feed, l *link, c checkpoint.Checkpoint, claimed uint64, reason error) error {
	shown, err := latestCheckpoint(ctx, f.client, l.url, c.Origin)
	why := ""
	if err == nil {
		var contradicts bool
		if contradicts, err = d.log.Examine(ctx, l.keys[0], shown); contradicts {
			return errContradicted
		}
		why = "the checkpoint that it serves is in the log's history"
	}
	if err != nil {
		why = err.Error()
	}
	if claimed == 0 {
		return fmt.Errorf("%w; %s", reason, why)
	}
	// Read after the witness was asked: what another server has signed before then is there.
	recorded, err := d.log.Recorded(ctx)
	if err != nil {
		return fmt.Errorf("reading which size was signed last: %w", err)
	}
	if claimed <= recorded {
		f.mu.Lock()
		l.size = claimed
		f.mu.Unlock()
		return errLeft // this server just hasn't heard of it
	}
	return &claimError{claimed, why}
}

// note draws the consequences of an attempt.
func (f *Feeder) note(d *feed, l *link, c checkpoint.Checkpoint, err error) {
	now := time.Now()
	var busy *busyError
	var claim *claimError
	if errors.Is(err, errLeft) {
		l.until = now.Add(spread(failurePause))
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	if errors.As(err, &claim) {
		l.claim = claim.size
		l.size = min(l.size, c.Size)
	} else if !errors.Is(err, errUnreachable) && !errors.As(err, &busy) {
		l.claim = 0 // it says something else now
	}
	if err == nil || !errors.Is(err, errUnreachable) { // it is there
		f.reached(l.endpoint, now)
	}
	if err == nil {
		if l.problem != "" {
			f.Logger.Info("a witness cosigns a log again", "witness", l.name, "origin", c.Origin, "size", c.Size)
		}
		l.failures, l.refusals, l.problem, l.until = 0, 0, "", time.Time{}
		return
	}
	switch {
	case errors.Is(err, errUnreachable):
		f.unreached(l.endpoint, now, err)
		return
	case errors.As(err, &busy):
		l.failures++
		l.until = now.Add(max(busy.wait, backoff(l.failures, failurePause, maxFailurePause)))
		if l.failures < 5 {
			return // that it is busy for a moment is no problem
		}
	case claim != nil, errors.Is(err, errRefused), errors.Is(err, errAnswer), errors.Is(err, errContradicted):
		l.refusals++
		l.until = now.Add(backoff(l.refusals, refusalPause, maxRefusalPause))
	default: // it failed, or the store did
		l.failures++
		l.until = now.Add(backoff(l.failures, failurePause, maxFailurePause))
		if l.failures < 3 {
			return
		}
	}
	if text := err.Error(); text != l.problem {
		l.problem = text
		level := slog.LevelWarn
		if claim != nil || errors.Is(err, errOtherTree) || errors.Is(err, errContradicted) {
			level = slog.LevelError
		}
		f.Logger.Log(context.Background(), level, "a witness doesn't cosign a log", "witness", l.name, "url", l.url,
			"origin", c.Origin, "size", c.Size, "error", err)
	}
	if claim != nil {
		f.weigh(d)
	}
}

// weigh stops a log if witnesses that alone meet the quorum claim more than it ever signed. That one does stops nothing: a conflict
// carries no signature, so whoever runs a witness could stop any log by it.
func (f *Feeder) weigh(d *feed) {
	claims := make(map[string]uint64)
	for _, l := range d.claims() {
		for _, key := range l.keys {
			claims[key] = l.claim
		}
	}
	nobody := func(checkpoint.Witness) bool { return false }
	claimed := func(w checkpoint.Witness) bool { return claims[w.Key()] > 0 }
	if f.Policy.Met(nobody) || !f.Policy.Met(claimed) {
		return
	}
	f.requests.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		if err := d.log.Outvoted(ctx, claims); err != nil {
			f.Logger.Error("keeping what witnesses claim of a log failed", "error", err)
		}
	})
}

// reached notes that a witness answers.
func (f *Feeder) reached(e *endpoint, now time.Time) {
	if e.failures > 0 {
		f.Logger.Info("a witness can be reached again", "witness", e.name, "url", e.url, "after", now.Sub(e.since).Round(time.Second))
	}
	e.failures, e.problem, e.until = 0, "", time.Time{}
}

// unreached notes that a witness can't be reached, once for all requests that were under way together.
func (f *Feeder) unreached(e *endpoint, now time.Time, err error) {
	if now.Before(e.until) {
		return
	}
	if e.failures == 0 {
		e.since = now
		f.Logger.Warn("a witness can't be reached; its cosignatures will be late", "witness", e.name, "url", e.url, "error", err)
	}
	e.failures++
	e.problem = err.Error()
	e.until = now.Add(backoff(e.failures, failurePause, maxFailurePause))
}

// backoff returns how long to wait after the n-th failure in a row.
func backoff(n int, first, most time.Duration) time.Duration {
	return spread(min(first<<min(n-1, 20), most))
}

// spread returns from half to one and a half of d, so that those who failed together don't come back together.
func spread(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }

// maxProblems bounds what Problems returns.
const maxProblems = 20

// Problems returns what is wrong with the witnesses now, for people.
func (f *Feeder) Problems() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, e := range f.endpoints {
		if e.failures > 1 {
			all = append(all, fmt.Sprintf("witness %s couldn't be reached since %s: %s", e.name, e.since.UTC().Format(time.RFC3339), e.problem))
		}
	}
	more := 0
	for _, l := range f.Logs() {
		d := f.feeds[l]
		if d == nil {
			continue
		}
		for _, link := range d.links {
			if link.problem == "" {
				continue
			}
			if len(all) < maxProblems {
				all = append(all, fmt.Sprintf("witness %s, %s: %s", link.name, d.round.Origin, link.problem))
			} else {
				more++
			}
		}
	}
	if more > 0 {
		all = append(all, fmt.Sprintf("and %d more logs that a witness doesn't cosign", more))
	}
	return all
}
