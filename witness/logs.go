package witness

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
)

// registry is the logs that a witness knows, by origin: a copy in memory of what the State has, which only ever grows.
type registry struct {
	state State
	now   func() time.Time

	refreshing sync.Mutex // held while the State is asked
	seq        int64      // of the newest key that is known; guarded by refreshing

	mu     sync.RWMutex
	logs   map[string]*knownLog
	hashes map[string]string // [checkpoint.OriginHash] of an origin → the origin
}

// knownLog is a log's keys and its limit. It doesn't change; a further key makes another one.
type knownLog struct {
	origin    string
	verifiers map[keyID]note.Verifier
	limit     *limiter // nil: none. The same for all that a log has been
}

// keyID is what a signature line says of its key.
type keyID struct {
	name string
	hash uint32
}

func newRegistry(state State, now func() time.Time) *registry {
	return &registry{state: state, now: now, logs: make(map[string]*knownLog), hashes: make(map[string]string)}
}

// refresh takes up the keys that have become known since the last time.
func (r *registry) refresh(ctx context.Context) error {
	r.refreshing.Lock()
	defer r.refreshing.Unlock()
	keys, err := r.state.Keys(ctx, r.seq)
	if err != nil {
		return err
	}
	for _, k := range keys {
		v, err := checkpoint.NewVerifier(k.VKey)
		if err != nil {
			return fmt.Errorf("key %d of the state: %w", k.Seq, err)
		}
		r.add(k, v)
		r.seq = k.Seq
	}
	return nil
}

func (r *registry) add(k LogKey, v note.Verifier) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &knownLog{origin: k.Origin, verifiers: map[keyID]note.Verifier{{v.Name(), v.KeyHash()}: v}}
	if before := r.logs[k.Origin]; before != nil {
		l.limit = before.limit
		for id, v := range before.verifiers {
			l.verifiers[id] = v
		}
	} else if k.QPD > 0 {
		l.limit = perDay(k.QPD, r.now())
	}
	r.logs[k.Origin] = l
	r.hashes[checkpoint.OriginHash(k.Origin)] = k.Origin
}

// log returns the log with the given origin, nil if none is known.
func (r *registry) log(origin string) *knownLog {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.logs[origin]
}

// origin returns the origin that has the given hash, "" if none has.
func (r *registry) origin(hash string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.hashes[hash]
}

// len returns how many logs are known.
func (r *registry) len() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.logs)
}

// verify returns the signatures of the request that are the log's. "The witness MUST verify the checkpoint signature against the
// public key(s) it trusts for the checkpoint origin, and it MUST ignore signatures from unknown keys." The error is errForbidden
// "if either no signature from a trusted key for the origin is present, or a signature line's key name and ID match a trusted key
// but the signature itself fails to verify".
func (l *knownLog) verify(r *request) ([]note.Signature, error) {
	text := []byte(r.checkpoint.Text())
	var valid []note.Signature
	for _, sig := range r.sigs {
		v := l.verifiers[keyID{sig.Name, sig.Hash}]
		if v == nil {
			continue
		}
		raw, err := signatureBytes(sig)
		if err != nil || !v.Verify(text, raw) {
			return nil, fmt.Errorf("%w: the signature by %s+%08x is not valid", errForbidden, sig.Name, sig.Hash)
		}
		valid = append(valid, sig)
	}
	if valid == nil {
		return nil, fmt.Errorf("%w: no signature by a key that is trusted for %q", errForbidden, l.origin)
	}
	return valid, nil
}

// limiter is a bucket that a steady drip of tokens fills up to a bound: how often something may happen.
type limiter struct {
	perSecond, burst float64

	mu     sync.Mutex
	tokens float64
	filled time.Time
}

// newLimiter returns a limiter with a full bucket.
func newLimiter(perSecond, burst float64, now time.Time) *limiter {
	return &limiter{perSecond: perSecond, burst: burst, tokens: burst, filled: now}
}

// perDay returns the limiter of a log that may make so many requests a day. It may make those of an hour at once, and at least
// ten, so that learning the size by a 409 and trying again costs a log with few requests nothing.
func perDay(n uint64, now time.Time) *limiter {
	return newLimiter(float64(n)/(24*60*60), max(10, float64(n)/24), now)
}

// take takes a token. If there is none it returns how long it takes until there is one.
func (l *limiter) take(now time.Time) (wait time.Duration, ok bool) {
	if l == nil {
		return 0, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if since := now.Sub(l.filled); since > 0 {
		l.tokens = min(l.burst, l.tokens+since.Seconds()*l.perSecond)
		l.filled = now
	}
	if l.tokens >= 1 {
		l.tokens--
		return 0, true
	}
	return time.Duration((1 - l.tokens) / l.perSecond * float64(time.Second)), false
}
