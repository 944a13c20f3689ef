package monitor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/checkpoint"
)

// DefaultMaxLag is how long a log may lack what it has signed for a witness. Witnesses show their checkpoints with a delay of up
// to an hour, logs show theirs at once.
const DefaultMaxLag = time.Hour

// DefaultMaxCheck is how long a round reads one log at one URL. Some tens of thousands of entries a second can be read from afar.
const DefaultMaxCheck = 10 * time.Minute

// logsAtOnce is how many logs are followed at a time.
const logsAtOnce = 4

// Config says what a [Monitor] follows and how.
type Config struct {
	Targets  []Target
	Policy   *checkpoint.Policy // whose witnesses must have cosigned, and are asked; nil for none
	VKeys    []string           // verifier keys of logs, beside those of the policy
	StateDir string             // made if it isn't there; its parent must be
	Strict   bool               // a witness that can't be compared with is a problem
	MaxLag   time.Duration      // see DefaultMaxLag, which 0 stands for
	MaxCheck time.Duration      // see DefaultMaxCheck, which 0 stands for
	Client   *http.Client       // nil for NewClient()
	Metrics  prometheus.Registerer

	// Progress, if not nil, is told while entries are read: all below done are. Calls may be concurrent.
	Progress func(origin string, done, of uint64)
}

// A Monitor follows logs, each in rounds. Nobody else can use its state directory meanwhile.
type Monitor struct {
	dir      *directory
	policy   *checkpoint.Policy
	strict   bool
	maxLag   time.Duration
	maxCheck time.Duration
	client   *http.Client
	metrics  *metrics
	progress func(origin string, done, of uint64)

	logs []*followed
}

// followed is a log with all the URLs at which it is followed: what one of them shows is compared with what the others did.
type followed struct {
	follower
	servers []*server
}

// Open opens the state directory and reads what is known of the logs. A state that is damaged is an error: who starts afresh
// forgets what the log must extend, so only a person can decide that.
func Open(c Config) (*Monitor, error) {
	m := &Monitor{policy: c.Policy, strict: c.Strict, maxLag: c.MaxLag, maxCheck: c.MaxCheck, client: c.Client, progress: c.Progress}
	if m.maxLag == 0 {
		m.maxLag = DefaultMaxLag
	}
	if m.maxCheck == 0 {
		m.maxCheck = DefaultMaxCheck
	}
	if m.client == nil {
		m.client = NewClient()
	}
	var err error
	if m.dir, err = openDirectory(c.StateDir); err != nil {
		return nil, err
	}
	for _, t := range c.Targets {
		if err := m.add(t, c.VKeys); err != nil {
			return nil, errors.Join(err, m.dir.close())
		}
	}
	m.metrics = newMetrics(c.Metrics, m.logs)
	return m, nil
}

// Close gives up the state directory.
func (m *Monitor) Close() error { return m.dir.close() }

// add adds a target to what is followed.
func (m *Monitor) add(t Target, vkeys []string) error {
	base, _, err := ParseURL(t.URL)
	if err != nil {
		return err
	}
	kind := t.Kind
	if kind == "" {
		kind = KindOf(t.Origin)
	}
	s := &server{base: base, key: t.Key, client: m.client}
	for _, l := range m.logs {
		if l.origin == t.Origin {
			if l.kind != kind {
				return fmt.Errorf("log %s is to be followed as %s and as %s", t.Origin, l.kind, kind)
			}
			l.servers = append(l.servers, s)
			return nil
		}
	}
	l := &followed{follower{m: m, origin: t.Origin, kind: kind, compared: map[string]checkpoint.Checkpoint{}}, []*server{s}}
	pinned := slices.Clone(vkeys)
	if m.policy != nil {
		for _, p := range m.policy.Logs {
			pinned = append(pinned, p.VKey)
		}
	}
	for _, vkey := range pinned {
		v, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			return err
		}
		same := func(k note.Verifier) bool { return k.KeyHash() == v.KeyHash() }
		if v.Name() == t.Origin && !slices.ContainsFunc(l.verifiers, same) { // a key twice is ambiguous to note.Open
			l.verifiers = append(l.verifiers, v)
			l.ids = append(l.ids, checkpoint.LogID(vkey))
		}
	}
	if len(l.verifiers) == 0 {
		return fmt.Errorf("no key of log %s is pinned", t.Origin)
	}
	if l.state, err = m.dir.load(t.Origin); err != nil {
		return err
	}
	if l.state == nil {
		l.state = newState(t.Origin, kind, time.Now())
	}
	if l.state.kind != kind {
		return fmt.Errorf("log %s was followed as %s until now, not as %s", t.Origin, l.state.kind, kind)
	}
	l.vouchKnown()
	m.logs = append(m.logs, l)
	return nil
}

// Round checks every log once, and returns what it found.
func (m *Monitor) Round(ctx context.Context) *Report {
	found := make([][]*LogReport, len(m.logs))
	// Hubs first: what a hub shows of a log, the log shows, too, as soon as the hub does.
	m.check(ctx, found, true)
	m.check(ctx, found, false)
	// What a log shows, the hub has shown before, but maybe not when it was read.
	if m.anyUncovered(found) {
		m.check(ctx, found, true)
	}
	concluding, cancel := context.WithTimeout(ctx, m.maxCheck) // of all logs, with what hubs have shown of them before
	defer cancel()
	for i, l := range m.logs {
		for _, r := range found[i] {
			l.conclude(concluding, r)
		}
		m.metrics.observe(found[i], &l.follower)
	}
	report := &Report{At: time.Now().UTC(), Logs: slices.Concat(found...)}
	for _, r := range report.Logs {
		report.Verdict = max(report.Verdict, r.Verdict)
	}
	m.metrics.rounds.Inc()
	return report
}

// check checks all hubs, or all other logs, at each of their URLs. The reports on what is checked again take the place of the first, and
// keep what those found to be wrong.
func (m *Monitor) check(ctx context.Context, found [][]*LogReport, hubs bool) {
	var g errgroup.Group
	g.SetLimit(logsAtOnce)
	for i, l := range m.logs {
		if (l.kind == Hub) != hubs {
			continue
		}
		g.Go(func() error {
			before := found[i]
			found[i] = nil
			for at, s := range l.servers {
				r := l.check(ctx, s)
				if before != nil {
					r.follows(before[at])
				}
				found[i] = append(found[i], r)
			}
			if hubs {
				l.away = absence(found[i])
			}
			return nil
		})
	}
	_ = g.Wait() // none of them returns an error
}

// anyUncovered reports whether something that a log shows would be witnessed only if a hub has shown more since it was read.
func (m *Monitor) anyUncovered(found [][]*LogReport) bool {
	for i, l := range m.logs {
		if l.inHub() && slices.ContainsFunc(found[i], l.uncovered) {
			return true
		}
	}
	return false
}
