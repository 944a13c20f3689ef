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

	mu   sync.RWMutex
	keys map[string]cachedKey
}

type cachedKey struct {
	log.Key
	until time.Time
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

// read reads the key with the public id from the store.
func (k *keyring) read(ctx context.Context, id string) (log.Key, error) {
	key, err := k.lookup(ctx, id)
	if err != nil {
		return log.Key{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys == nil || len(k.keys) >= maxCachedKeys {
		k.keys = make(map[string]cachedKey)
	}
	k.keys[id] = cachedKey{key, time.Now().Add(keyTTL)}
	return key, nil
}

// access is what a route asks of a key.
type access int

const (
	toAppend access = iota
	toRead
	toProve // to read what is signed, for which the newest size doesn't matter
	toAdminister
)

// may reports whether a role is enough.
func may(role log.Role, a access) bool {
	switch role {
	case log.RoleAdmin:
		return true
	case log.RoleWriter:
		return a == toAppend
	case log.RoleReader:
		return a == toRead || a == toProve
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
