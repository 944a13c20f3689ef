package log

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// Config is what a Service is made of. Store, Seed, Fence, Prefix, Interval, Logger and Metrics are required.
type Config struct {
	Store Store
	Seed  checkpoint.Seed
	Fence checkpoint.Fence
	// Prefix is the public base URL without its scheme, and without a slash at its end: what origins of new logs begin
	// with.
	Prefix string
	// Interval is how often grown logs are signed.
	Interval time.Duration
	Logger   *slog.Logger
	Metrics  prometheus.Registerer
	Now      func() time.Time
	// Lanes is how many transactions append at a time; 0 is 1.
	Lanes int
	// SingleLogBatches keeps events of different logs in different transactions, for a database that is sharded by log.
	SingleLogBatches bool
	// Shared means that other servers use the store, too.
	Shared bool
	// Replica, if there is one, opens a replica of Store, which is read instead of it where it has come far enough. While the error
	// is ErrUnreachable it is tried again. A replica is closed by whoever gives it, after the Service.
	Replica func(ctx context.Context) (Reader, error)
	// Policy says which witnesses cosign checkpoints, and how many of them make a checkpoint public; nil: none. Who sets it runs
	// a feeder over Fed, too.
	Policy *checkpoint.Policy
	// AcceptClaims are sizes, by log, up to which claims of witnesses don't keep the log from being signed, as AcceptedBy says.
	AcceptClaims map[string]uint64
	AcceptedBy   By
	// Hub keeps a log of all other logs' checkpoints, which is what witnesses cosign. Who sets it on one server of a store sets it on
	// all of them.
	Hub bool
	// HubPublic lets anybody read the hub's checkpoint and tiles.
	HubPublic bool
	// System keeps the system log. Without it nothing is recorded of what is done, so a service that anybody has access to has it.
	System bool
	// FailOpen releases all that is signed, whatever the witnesses say.
	FailOpen bool
	// RetentionCoolingOff is how long a change of a log's retention policy that loses something waits before it takes effect.
	RetentionCoolingOff time.Duration
	// RetentionApproval means that it also waits until another API key has approved it.
	RetentionApproval bool
	// MLDSA means that checkpoints are signed with ML-DSA-44, too, beside Ed25519.
	MLDSA bool
}

// Service is a set of logs in one store, with the sequencer that appends to them and the loop that signs them.
type Service struct {
	config    Config
	store     Store
	reader    Reader // of what is served: the store, or a replica of it
	logger    *slog.Logger
	metrics   *metrics
	sequencer *sequencer
	follower  *follower
	hub       *hub // nil: none is kept
	reads     reads

	creating sync.Mutex // one log is created at a time
	settling sync.Mutex // settings are read or changed by one at a time
	mu       sync.RWMutex
	logs     []*Log
	byName   map[string]*Log
	byID     map[ID]*Log
	byLogID  map[[32]byte]*Log

	tiles       tileCache
	turns       turns
	waiting     atomic.Int64           // how many wait for a log to grow
	incarnation atomic.Pointer[string] // of the store

	cancel context.CancelFunc // ends the background loops
	loops  sync.WaitGroup
}

// ErrName means that a log can't have the name.
var ErrName = errors.New("not a log's name: 1 to 63 of a-z, 0-9 and -, the first not -, and neither hub nor system nor system-<number>")

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckName returns ErrName if a log can't have the name.
func CheckName(name string) error {
	if !nameRE.MatchString(name) || name == HubName || isSystemName(name) {
		return ErrName
	}
	return nil
}

// Open opens all logs of a store: it checks that the seed derives their keys and that the fence knows the same logs, and
// resumes signing. A log whose store contradicts its fence is opened but stopped, and can be read; a fence of a log that
// the store doesn't have is an error, since then nobody would miss it, and so is a store that was moved (ErrMoved) or isn't
// whole yet (ErrCopying).
func Open(ctx context.Context, c Config) (*Service, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Service{
		config: c, store: c.Store, reader: c.Store, logger: c.Logger, turns: newTurns(),
		byName: make(map[string]*Log), byID: make(map[ID]*Log), byLogID: make(map[[32]byte]*Log),
	}
	// The fence's list before the store's: a log that another server makes meanwhile is in neither, or in the second alone.
	origins, err := c.Fence.Origins(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the fence: %w", err)
	}
	infos, err := c.Store.Logs(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the list of logs: %w", err)
	}
	if err := checkServed(ctx, c.Store); err != nil {
		return nil, err
	}
	if err := checkFence(origins, infos); err != nil {
		return nil, err
	}
	if err := s.checkAccepted(infos); err != nil {
		return nil, err
	}
	if err := s.learnIncarnation(ctx); err != nil { // before anything that the store says of its logs
		return nil, err
	}
	s.metrics = newMetrics(s, c.Metrics)
	var replica *replicated
	if c.Replica != nil {
		replica = &replicated{Reader: c.Store, open: c.Replica, logger: c.Logger, failures: s.metrics.failures.WithLabelValues("read replica")}
		if err := replica.start(ctx); err != nil {
			return nil, err
		}
		s.reader = replica
	}
	for _, info := range infos {
		l, err := s.openLog(ctx, info)
		if err != nil {
			return nil, fmt.Errorf("opening log %s: %w", info.Name, err)
		}
		s.add(l)
	}
	if c.System {
		if _, err := s.openOwn(ctx, SystemName, Settings{}); err != nil {
			return nil, err
		}
	}
	s.reads.service = s
	if c.Hub {
		if err := s.openHub(ctx); err != nil {
			return nil, err
		}
	} else if err := s.recallHub(ctx); err != nil {
		return nil, fmt.Errorf("taking up what the hub had of the logs: %w", err)
	}
	for _, l := range s.Tenants() {
		if err := l.replay(ctx); err != nil { // readers aren't shown it all the same
			s.metrics.failures.WithLabelValues("remove").Inc()
			s.logger.Error("what was purged or erased can't be removed from the store, will be tried again", "log", l.Name, "error", err)
		}
	}
	s.sequencer = newSequencer(c, s.metrics)
	s.follower = newFollower(s)
	if err := s.acceptClaims(ctx); err != nil {
		s.sequencer.close()
		return nil, err
	}
	if err := s.tellActs(ctx); err != nil { // which are done; the next start tells of them
		s.logger.Error("what was done beside the server can't be recorded in the system log", "error", err)
	}
	ctx, s.cancel = context.WithCancel(context.Background())
	s.loops.Go(func() { s.publish(ctx) })
	s.loops.Go(func() { s.scrub(ctx) })
	s.loops.Go(func() { s.follower.run(ctx) })
	s.loops.Go(func() { s.recordReads(ctx) })
	if s.hub != nil {
		s.loops.Go(func() { s.hub.run(ctx) })
	}
	if c.Shared {
		s.loops.Go(func() { s.follow(ctx) })
		s.loops.Go(func() { s.learnSettings(ctx) })
		s.loops.Go(func() { s.followCustody(ctx) })
	}
	if replica != nil {
		s.loops.Go(func() { replica.takeUp(ctx) })
	}
	return s, nil
}

// checkFence refuses a fence that knows logs which the store doesn't have.
func checkFence(origins []string, infos []Info) error {
	var missing []string
	for _, o := range origins {
		if !slices.ContainsFunc(infos, func(i Info) bool { return i.Origin == o }) {
			missing = append(missing, o)
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("the fence records checkpoints of logs that the store doesn't have: %s; name the store that "+
		"holds them by --db, or for another store a --fence of its own; only if they are given up for good, run "+
		"`treeline fence drop ORIGIN` for each", strings.Join(missing, ", "))
}

// derive returns the keys that the seed gives a log: Ed25519 and, if asked for, ML-DSA-44 after it.
func (s *Service) derive(origin string, mldsa bool) (signers []note.Signer, vkeys []string, err error) {
	kinds := []func(origin string, generation uint32) (note.Signer, string, error){s.config.Seed.Ed25519}
	if mldsa {
		kinds = append(kinds, s.config.Seed.MLDSA44)
	}
	for _, kind := range kinds {
		signer, vkey, err := kind(origin, 0)
		if err != nil {
			return nil, nil, err
		}
		signers, vkeys = append(signers, signer), append(vkeys, vkey)
	}
	return signers, vkeys, nil
}

// keys returns what signs for a log now, and all verifier keys that it has: with ML-DSA-44's if that is used, or ever was. Those that
// the store names must be the same, but for one that comes into use.
func (s *Service) keys(info Info) ([]note.Signer, []string, error) {
	signers, vkeys, err := s.derive(info.Origin, s.config.MLDSA || len(info.VKeys) > 1)
	if err != nil {
		return nil, nil, err
	}
	// No others either: what the store names is shown to whoever asks for the log's keys.
	if n := len(info.VKeys); n == 0 || n > len(vkeys) || !slices.Equal(info.VKeys, vkeys[:n]) {
		return nil, nil, fmt.Errorf("the seed file derives verifier key %s, the store says that the log has %s: this is not the seed "+
			"that belongs to this store, or the store was tampered with", strings.Join(vkeys, ", "), strings.Join(info.VKeys, ", "))
	}
	if !s.config.MLDSA {
		signers = signers[:1]
	}
	return signers, vkeys, nil
}

// verifiers returns the verifiers of all keys of the log. Each of its checkpoints is signed with one of them at least.
func (i Info) verifiers() ([]note.Verifier, error) {
	var all []note.Verifier
	for _, vkey := range i.VKeys {
		v, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

func (s *Service) openLog(ctx context.Context, info Info) (*Log, error) {
	signers, vkeys, err := s.keys(info)
	if err != nil {
		return nil, err
	}
	if old := s.LogByID(info.ID); old != nil {
		return nil, fmt.Errorf("its number is that of log %s, which the store has lost: %w", old.Name, ErrDamaged)
	}
	// Before the first signature with a key, whoever asks for the log's keys can get it.
	for _, vkey := range vkeys[len(info.VKeys):] {
		if err := s.store.AddVKey(ctx, info.ID, vkey); err != nil {
			return nil, fmt.Errorf("adding a verifier key to the store: %w", err)
		}
	}
	info.VKeys = vkeys
	verifiers, err := info.verifiers()
	if err != nil {
		return nil, err
	}
	l := &Log{Info: info, service: s, logID: checkpoint.LogID(info.VKeys[0])}
	l.adopt(info.Settings)
	l.custody.Store(new(custody))
	if l.checkTenant() == nil {
		if _, err := l.learnOwn(ctx); err != nil {
			return nil, fmt.Errorf("reading what was decided about it: %w", err)
		}
	}
	if s.gates(info) {
		l.progress.gate()
	}
	if s.feeds(info) {
		_ = l.progress.hold(errUnasked)
	}
	src := source{tiles{s.store, info.ID}, l}
	if l.IsHub() {
		l.publisher = checkpoint.NewHubPublisher(&hubSource{source: src}, s.config.Fence, signers, verifiers...)
	} else {
		l.publisher = checkpoint.NewPublisher(src, s.config.Fence, signers, verifiers...)
	}
	head, err := s.store.Head(ctx, info.ID)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("its head is missing: %w", ErrDamaged)
	}
	if err == nil {
		l.progress.sequenced(head)
		l.progress.assumeIndexed()
		l.progress.frozen.Store(head.Frozen)
		if err = l.resume(ctx); err == nil {
			_, err = checkHead(ctx, s.store, info, head)
		}
	}
	if err != nil {
		s.fail(l, err)
		l.showFenced(ctx)
	}
	err = l.resumeWitnessed(ctx)
	if errors.Is(err, ErrDamaged) { // which is this log's own trouble
		s.fail(l, err)
		err = nil
	}
	return l, err
}

// resumeWitnessed takes up what witnesses have said of the log: what it is stopped by, and what of it is released.
func (l *Log) resumeWitnessed(ctx context.Context) error {
	err := l.heed(ctx)
	if size := l.service.config.AcceptClaims[l.Name]; size > l.Accepted() {
		l.accepted.Store(size) // to be recorded and kept before anything is signed: Service.acceptClaims
		err = l.heed(ctx)
	}
	if contradicted(err) {
		l.stop(err)
	} else if err != nil {
		return err
	}
	return l.learnWitnessed(ctx)
}

// showFenced lets a log that is stopped serve what it had signed: the newest recorded checkpoint that the fence
// covers, if it verifies and the store still has its tree. Two histories are not served at all.
func (l *Log) showFenced(ctx context.Context) {
	if l.Stopped() == nil || l.diverged() {
		return
	}
	verifiers, err := l.verifiers()
	if err != nil {
		return
	}
	msg, err := l.service.config.Fence.Load(ctx, l.Origin)
	if err != nil || msg == nil {
		return
	}
	fenced, _, err := checkpoint.Open(msg, l.Origin, verifiers...)
	if err != nil {
		return
	}
	recorded, err := l.service.store.Checkpoint(ctx, l.ID, fenced.Size)
	if err != nil {
		return
	}
	c, _, err := checkpoint.Open(recorded.Note, l.Origin, verifiers...)
	if err != nil || c.Size == fenced.Size && c.Root != fenced.Root {
		return
	}
	tree, err := merkle.RangeFromTiles(ctx, c.Size, tiles{l.service.store, l.ID})
	if err == nil && tree.Root() == c.Root {
		l.progress.publish(c, recorded.Note)
	}
}

// diverged reports whether the log is stopped since there are two histories of it.
func (l *Log) diverged() bool {
	var refusal *checkpoint.Refusal
	return errors.As(l.Stopped(), &refusal) && refusal.Reason == checkpoint.Diverged
}

// resume checks the log's store against its fence and takes up signing; the first time it makes the checkpoint of size 0
// that every log is born with.
func (l *Log) resume(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		latest, err := source{tiles{l.service.store, l.ID}, l}.Latest(ctx)
		if err != nil {
			return err
		}
		if latest == nil && l.Sizes().Size == 0 {
			err = l.publisher.Birth(ctx)
		} else {
			err = l.publisher.Resume(ctx)
		}
		if !l.service.config.Shared || !lost(err) || attempt == 3 {
			return err
		}
	}
}

// fail notes an error of signing. A refusal stops the log for good; anything else is tried again.
func (s *Service) fail(l *Log, err error) {
	if s.config.Shared && lost(err) {
		l.progress.unsigned(err, s.config.Now()) // quietly: only if it goes on, something is wrong
		return
	}
	s.metrics.failures.WithLabelValues("sign").Inc()
	var refusal *checkpoint.Refusal
	if errors.As(err, &refusal) || errors.Is(err, checkpoint.ErrUnborn) || errors.Is(err, ErrDamaged) || contradicted(err) {
		l.stop(err)
		return
	}
	l.progress.unsigned(err, s.config.Now())
	s.logger.Warn("signing failed, will be tried again", "log", l.Name, "error", err)
}

// stop stops a log for good, loudly unless it is frozen, as an operator does with a log that can't go on.
func (l *Log) stop(reason error) {
	l.progress.stop(reason)
	if l.Frozen() {
		l.service.logger.Warn("a frozen log contradicts what was signed; it can be read", "log", l.Name, "error", reason)
		return
	}
	l.service.logger.Error("LOG STOPPED: its store contradicts itself or what was signed; nothing is signed or appended until "+
		"this is resolved, reads go on", "log", l.Name, "error", reason)
	if l.IsHub() && l.service.config.Hub && l.holding() != nil {
		appends := "appends are taken"
		if errors.Is(reason, ErrContradicted) {
			appends = "and nothing is appended, since this isn't the newest store"
		}
		l.service.logger.Error("SIGNING WAITS: no log is signed while the hub is stopped; " + appends)
	}
}

func (s *Service) add(l *Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs = append(s.logs, l)
	s.byName[l.Name], s.byID[l.ID], s.byLogID[l.logID] = l, l, l
}

// CreateLog makes a log. It is durable, and has its signed checkpoint of size 0, on return. The error is ErrName,
// ErrSettings, ErrExists if the name was ever used, ErrUnrecorded, or ErrNotReady if the log is made but couldn't be signed yet, which
// is tried again.
func (s *Service) CreateLog(ctx context.Context, by By, name string, settings Settings) (l *Log, err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := settings.Check(); err != nil {
		return nil, err
	}
	if s.Lookup(ctx, name) != nil {
		return nil, fmt.Errorf("log %q: %w", name, ErrExists)
	}
	target, err := s.logTarget(name)
	if err != nil {
		return nil, err
	}
	act := Act{Action: "log.created", Targets: []Target{target}, Changes: Settings{}.changes(settings)}
	err = s.do(ctx, by, act, func(ctx context.Context) error {
		l, err = s.createLog(ctx, name, settings)
		return err
	})
	return l, err
}

// createLog makes a log of any name.
func (s *Service) createLog(ctx context.Context, name string, settings Settings) (*Log, error) {
	s.creating.Lock()
	defer s.creating.Unlock()
	info := Info{Name: name, Origin: s.config.Prefix + "/logs/" + name, Settings: settings, CreatedAt: s.config.Now().UnixMicro()}
	if err := checkpoint.CheckOrigin(info.Origin); err != nil {
		return nil, err
	}
	_, vkeys, err := s.derive(info.Origin, s.config.MLDSA)
	if err != nil {
		return nil, err
	}
	info.VKeys = vkeys
	// A client that leaves half-way must not leave half a log behind.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := s.store.CreateLog(ctx, &info); errors.Is(err, ErrExists) && s.Log(name) == nil {
		// Its row is there since an attempt that failed after it was written, or another server has made it.
		if info, err = s.find(ctx, name); err != nil {
			return nil, err
		}
		if _, _, err := s.keys(info); err != nil { // two servers that each made a seed of their own, say
			return nil, err
		}
		if _, err := s.store.Checkpoint(ctx, info.ID, 0); err == nil {
			return nil, fmt.Errorf("log %q: %w", name, ErrExists)
		}
	} else if err != nil {
		return nil, err
	}
	if err := checkServed(ctx, s.store); err != nil { // the log may have come by a copy that began after this service
		return nil, err
	}
	l, err := s.openLog(ctx, info)
	if err != nil {
		return nil, err
	}
	s.add(l)
	if _, note := l.Signed(); note == nil {
		return nil, fmt.Errorf("log %s is made, but has no checkpoint yet, which is tried again: %w", name, ErrNotReady)
	}
	return l, nil
}

// find returns what the store keeps about the log of that name, or ErrExists if another has its origin.
func (s *Service) find(ctx context.Context, name string) (Info, error) {
	infos, err := s.store.Logs(ctx)
	if err != nil {
		return Info{}, err
	}
	for _, info := range infos {
		if info.Name == name {
			return info, nil
		}
	}
	return Info{}, ErrExists
}

// Log returns the log of that name, or nil.
func (s *Service) Log(name string) *Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byName[name]
}

// LogByID returns the log with that number, or nil.
func (s *Service) LogByID(id ID) *Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byID[id]
}

// Logs returns all logs in the order of their creation.
func (s *Service) Logs() []*Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.logs)
}

// Tenants returns all logs but the server's own, the hub and the system log, in the order of their creation.
func (s *Service) Tenants() []*Log {
	return slices.DeleteFunc(s.Logs(), func(l *Log) bool { return l.IsHub() || l.IsSystem() })
}

// Witnessed reports whether there are witnesses that events can be witnessed by.
func (s *Service) Witnessed() bool { return s.config.Policy != nil }

// CreateKey makes an API key that may do what k may, until k expires, and returns it with its text, which is not kept.
func (s *Service) CreateKey(ctx context.Context, by By, k Key) (Key, string, error) {
	k, text := k.fresh(s.config.Now().UnixMicro())
	if by.Type == byKey {
		k.CreatedBy = by.ID
	}
	return k, text, s.AddKey(ctx, by, k)
}

// AddKey adds an API key, such as NewKey makes. The error may be ErrUnrecorded.
func (s *Service) AddKey(ctx context.Context, by By, k Key) error {
	act := Act{Action: "key.created", Targets: s.targets(ctx, k), Metadata: k.told()}
	return s.do(ctx, by, act, func(ctx context.Context) error { return s.store.CreateKey(ctx, k) })
}

// RevokeKey ends an API key now, if it hasn't ended before, and returns it. The error is ErrNotFound if there is no such key, or
// ErrUnrecorded.
func (s *Service) RevokeKey(ctx context.Context, by By, id string) (Key, error) {
	revoked, err := s.Key(ctx, id)
	if err != nil || revoked.RevokedAt != 0 {
		return revoked, err
	}
	err = s.do(ctx, by, Act{Action: "key.revoked", Targets: s.targets(ctx, revoked)}, func(ctx context.Context) error {
		return s.store.ChangeKey(ctx, id, func(k *Key) (*Key, error) {
			if now := s.config.Now().UnixMicro(); k.RevokedAt == 0 {
				k.RevokedAt = now
			}
			revoked = *k
			return nil, nil
		})
	})
	return revoked, err
}

// ErrReplaced means that an API key has been rotated before.
var ErrReplaced = errors.New("this API key was rotated before")

// RotateKey makes an API key that may do what another one may, for as long from now as that was made for, and returns it with its
// text, which is not kept. The other one ends after the overlap, if not sooner. The error is ErrNotFound if there is none,
// ErrKeyRevoked or ErrKeyExpired if it has ended, ErrReplaced, since each key is followed by one, or ErrUnrecorded.
func (s *Service) RotateKey(ctx context.Context, by By, id string, overlap time.Duration) (next Key, text string, err error) {
	old, err := s.Key(ctx, id)
	if err != nil {
		return next, "", err
	}
	now := s.config.Now().UnixMicro()
	if err := old.rotatable(now); err != nil {
		return next, "", err
	}
	next, text = old.fresh(now)
	end := now + overlap.Microseconds()
	if old.ExpiresAt != 0 {
		next.ExpiresAt = min(now+old.ExpiresAt-old.CreatedAt, maxTime)
		end = min(end, old.ExpiresAt)
	}
	told := next.told()
	told["old_key_ends"] = string(AppendTime(nil, end))
	act := Act{Action: "key.rotated", Targets: append([]Target{old.Target()}, s.targets(ctx, next)...), Metadata: told}
	err = s.do(ctx, by, act, func(ctx context.Context) error {
		return s.store.ChangeKey(ctx, id, func(k *Key) (*Key, error) {
			if err := k.rotatable(now); err != nil {
				return nil, err
			}
			k.ExpiresAt, k.ReplacedBy = end, next.ID
			return &next, nil
		})
	})
	return next, text, err
}

// rotatable returns why the key can't be rotated at a time, or nil.
func (k Key) rotatable(now int64) error {
	if err := k.Ended(now); err != nil {
		return err
	}
	if k.ReplacedBy != "" {
		return fmt.Errorf("%w: %s follows it", ErrReplaced, k.ReplacedBy)
	}
	return nil
}

// UseKeys notes when API keys were used last, in µs since 1970 UTC by their public ids.
func (s *Service) UseKeys(ctx context.Context, at map[string]int64) error {
	err := s.store.UseKeys(ctx, at)
	if err != nil {
		s.metrics.failures.WithLabelValues("note use of keys").Inc()
	}
	return err
}

// Key returns the API key with the public id, or ErrNotFound.
func (s *Service) Key(ctx context.Context, id string) (Key, error) { return s.store.Key(ctx, id) }

// Keys returns all API keys in the order of their creation.
func (s *Service) Keys(ctx context.Context) ([]Key, error) { return s.store.Keys(ctx) }

// signingPatience is for how long signing may fail before the service isn't ready.
const signingPatience = 30 * time.Second

// Ready returns why the service isn't fit to serve, or nil.
func (s *Service) Ready(ctx context.Context) error {
	if err := s.store.Ping(ctx); err != nil {
		return fmt.Errorf("the store doesn't answer: %w", err)
	}
	errs := []error{s.follower.ready()}
	for _, l := range s.Logs() {
		if l.Frozen() {
			continue // whatever is wrong with it has been dealt with
		}
		if err := l.Stopped(); err != nil {
			errs = append(errs, fmt.Errorf("log %s is stopped: %w", l.Name, err))
		} else if err := l.progress.holding(); err != nil && !errors.Is(err, errUnasked) {
			errs = append(errs, fmt.Errorf("log %s isn't signed until --accept-witness-claim or a newer store: %w", l.Name, err))
		} else if since, err := l.progress.failing(); err != nil && s.config.Now().Sub(since) > signingPatience {
			errs = append(errs, fmt.Errorf("log %s couldn't be signed since %v: %w", l.Name, since.UTC().Format(time.RFC3339), err))
		}
	}
	if s.hub != nil {
		errs = append(errs, s.hub.ready())
	}
	return errors.Join(errs...)
}

// publish signs the logs that have grown, every interval.
func (s *Service) publish(ctx context.Context) {
	tick := time.NewTicker(s.config.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.config.Shared {
				s.learn(ctx)
			}
			s.publishGrown(ctx)
			if s.hub != nil {
				s.hub.grow(ctx)
			}
		}
	}
}

// signers is how many logs are signed at a time: a signature is mostly waiting, for the store and the fence.
const signers = 8

func (s *Service) publishGrown(ctx context.Context) {
	if s.hub != nil && !s.hub.heed(ctx) {
		return
	}
	var group errgroup.Group
	group.SetLimit(signers)
	for _, l := range s.Logs() {
		sizes, _, note, stopped := l.progress.get()
		doubt := l.progress.doubt.Swap(false)
		if stopped != nil || note != nil && sizes.Size <= sizes.Signed && !doubt {
			continue
		}
		group.Go(func() error {
			if err := l.publish(ctx, doubt); err != nil {
				if doubt { // but never take back one that came up meanwhile
					l.progress.doubt.Store(true)
				}
				if ctx.Err() == nil {
					s.fail(l, err)
				}
			}
			return nil
		})
	}
	_ = group.Wait() // each notes its own error
}

// publish signs the log if it has grown. In doubt whether the store is what it was, that is looked at first, also if the log
// hasn't grown.
func (l *Log) publish(ctx context.Context, doubt bool) error {
	l.signing.Lock()
	defer l.signing.Unlock()
	if _, note := l.Signed(); note == nil { // it couldn't be resumed at start, or its birth was interrupted
		return l.resume(ctx)
	}
	if doubt {
		if err := l.publisher.Resume(ctx); err != nil {
			return err
		}
	}
	if l.Stopped() != nil || l.holding() != nil {
		return nil // it was stopped while this waited for its turn; or witnesses are asked first
	}
	if l.service.config.Shared && l.service.feeds(l.Info) {
		if err := l.heed(ctx); err != nil { // which another server may have found
			return err
		}
	}
	if _, err := l.publisher.Publish(ctx); err != nil {
		l.recorded = nil // another server may have recorded the same one, and been the one to publish it
		return err
	}
	l.progress.unsigned(nil, time.Time{})
	return nil
}

// Close records what was read, refuses new appends, answers those that are queued, signs what they made grow, and ends the loops.
// The store stays open.
func (s *Service) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.tryRecordReads(ctx)
	s.sequencer.close()
	s.cancel()
	s.loops.Wait()
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s.publishGrown(ctx)
	if s.hub != nil {
		s.hub.grow(ctx)
	}
}
