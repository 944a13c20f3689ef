package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/treeline-log/treeline/log"
)

// keyTTL is how long a key that was read from the store is believed: how long another server's change may take to be seen.
const keyTTL = 5 * time.Second

// maxCachedKeys bounds the cache of keys; past it, it starts anew.
const maxCachedKeys = 10_000

// keyring reads API keys from the store, and remembers them for a while.
type keyring struct {
	lookup func(ctx context.Context, id string) (log.Key, error)

	mu        sync.RWMutex
	keys      map[string]cachedKey
	forgotten uint64 // how often a key was
}

type cachedKey struct {
	log.Key
	until time.Time
}

// forget makes the key with the public id be read again: it has been changed.
func (k *keyring) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.keys, id)
	k.forgotten++
}

var errKey = newProblem(http.StatusUnauthorized, "unauthorized",
	"send an API key of this server: Authorization: Bearer tl_<id>_<secret>_<checksum>")

// authenticate returns the key that the request presents. Whatever is wrong with it, the answer is the same.
func (k *keyring) authenticate(r *http.Request) (log.Key, error) {
	text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return log.Key{}, errKey
	}
	if key, ok := k.cached(text); ok {
		return key, nil
	}
	id, err := log.ParseKey(text)
	if err != nil {
		return log.Key{}, errKey
	}
	key, err := k.read(r.Context(), id)
	if errors.Is(err, log.ErrNotFound) {
		return log.Key{}, errKey
	}
	if err != nil && r.Context().Err() == nil { // nothing has begun: it may be sent again
		err = fmt.Errorf("%w: reading the API key: %w", log.ErrUnavailable, err)
	}
	if err != nil {
		return log.Key{}, err
	}
	if !key.Matches(text) {
		return log.Key{}, errKey
	}
	return key, nil
}

// cached returns the key with the text if it is remembered.
func (k *keyring) cached(text string) (log.Key, bool) {
	k.mu.RLock()
	c, ok := k.keys[log.KeyID(text)]
	k.mu.RUnlock()
	return c.Key, ok && time.Now().Before(c.until) && c.Matches(text)
}

// current returns the key with the public id as it is now, or was a few seconds ago.
func (k *keyring) current(ctx context.Context, id string) (log.Key, error) {
	k.mu.RLock()
	c, ok := k.keys[id]
	k.mu.RUnlock()
	if ok && time.Now().Before(c.until) {
		return c.Key, nil
	}
	return k.read(ctx, id)
}

// read reads the key with the public id from the store.
func (k *keyring) read(ctx context.Context, id string) (log.Key, error) {
	k.mu.RLock()
	forgotten := k.forgotten
	k.mu.RUnlock()
	key, err := k.lookup(ctx, id)
	if err != nil {
		return log.Key{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.forgotten != forgotten {
		return key, nil // what was read may be from before a change
	}
	if k.keys == nil || len(k.keys) >= maxCachedKeys {
		k.keys = make(map[string]cachedKey)
	}
	k.keys[id] = cachedKey{key, time.Now().Add(keyTTL)}
	return key, nil
}

// admit returns the key that the request presents, if it may be used at this time, from this address, and as often as this.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) (log.Key, error) {
	key, err := s.keys.authenticate(r)
	if err != nil {
		return log.Key{}, err
	}
	now := s.now()
	if err := ended(key, now); err != nil { // the sender has the secret, so what is wrong may be said
		return log.Key{}, err
	}
	if key.Networks != "" {
		if addr := s.senderOf(r); !key.MayComeFrom(addr) {
			return log.Key{}, newProblem(http.StatusForbidden, "address_not_allowed", "this key may not be used from %v", addr)
		}
	}
	if err := s.chargeKey(w, key); err != nil {
		return log.Key{}, err
	}
	s.uses.note(key.ID, now)
	return key, nil
}

// ended returns why a key isn't good any more, as its sender is told, or nil.
func ended(key log.Key, now time.Time) error {
	err := key.Ended(now.UnixMicro())
	switch {
	case errors.Is(err, log.ErrKeyRevoked):
		return newProblem(http.StatusUnauthorized, "key_revoked", "%v; ask for another one", err)
	case err != nil:
		return newProblem(http.StatusUnauthorized, "key_expired", "%v; ask for another one", err)
	}
	return nil
}

// stillGood returns why a key isn't good any more that was when its request came, or nil: whoever ends a key doesn't mean what it
// waits for, or is being sent, to be given out all the same.
func (s *Server) stillGood(ctx context.Context, key log.Key) error {
	key, err := s.keys.current(ctx, key.ID)
	if err != nil {
		return fmt.Errorf("reading the API key again: %w", err)
	}
	return ended(key, s.now())
}

// access is what a route asks of a key.
type access int

const (
	toAppend access = iota
	toRead
	toProve  // to read what is signed, for which the newest size doesn't matter
	toExport // to take much of the log away at once
	toAudit  // to have the log verified, and see who has read it
	toManage // to set up the log and its keys
	toAdminister
)

// may reports whether a role is enough. It is the only place that says so, and the table in docs/api.md is what it must say.
func may(role log.Role, a access) bool {
	switch role {
	case log.RoleAdmin:
		return true
	case log.RoleWriter:
		return a == toAppend
	case log.RoleReader:
		return a == toRead || a == toProve
	case log.RoleExporter:
		return may(log.RoleReader, a) || a == toExport
	case log.RoleAuditor:
		return may(log.RoleExporter, a) || a == toAudit
	case log.RoleManager:
		return may(log.RoleAuditor, a) || a == toManage
	}
	return false
}

// logOf returns the log that a request with the key is about: the key's own, or for a server-wide key the one that ?log=
// names. A log that the key isn't for is answered as one that doesn't exist.
func (s *Server) logOf(ctx context.Context, key log.Key, name string) (*log.Log, error) {
	if key.Log != 0 {
		l := s.service.LookupID(ctx, key.Log)
		if l == nil || name != "" && name != l.Name {
			return nil, notFound("log")
		}
		return l, nil
	}
	if name == "" {
		name = DefaultLog
	}
	if l := s.service.Lookup(ctx, name); l != nil {
		return l, nil
	}
	return nil, notFound("log")
}
