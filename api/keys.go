package api

import (
	"errors"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/treeline-log/treeline/log"
)

// What a key that is rotated may be good for afterwards.
const (
	defaultOverlap = 24 * time.Hour
	maxOverlap     = 30 * 24 * time.Hour
)

// maxKeyName is in bytes.
const maxKeyName = 128

// keyView is an API key as those see it who manage it; the key itself is there once, when it is made.
type keyView struct {
	ID        string   `json:"id"`
	Key       string   `json:"key,omitempty"`
	Role      log.Role `json:"role"`
	Log       *string  `json:"log"` // null: server-wide
	Name      string   `json:"name"`
	State     string   `json:"state"` // active, expired or revoked
	CreatedAt string   `json:"created_at"`
	ExpiresAt string   `json:"expires_at,omitempty"`
	ratesView
	Networks   []string `json:"networks"` // empty: any
	Actions    []string `json:"actions"`  // empty: any
	LastUsedAt string   `json:"last_used_at,omitempty"`
	RevokedAt  string   `json:"revoked_at,omitempty"`
	ReplacedBy string   `json:"replaced_by,omitempty"`
}

// viewKey returns the view of a key for the log of a name.
func (s *Server) viewKey(k log.Key, name string) keyView {
	optional := func(t int64) string {
		if t == 0 {
			return ""
		}
		return string(log.AppendTime(nil, t))
	}
	v := keyView{
		ID: k.ID, Role: k.Role, Name: k.Name, State: "active", CreatedAt: string(log.AppendTime(nil, k.CreatedAt)),
		ExpiresAt: optional(k.ExpiresAt), ratesView: ratesView{k.Rates.Events, k.Rates.Requests},
		Networks: append([]string{}, strings.Fields(k.Networks)...), Actions: append([]string{}, strings.Fields(k.Actions)...),
		LastUsedAt: optional(k.LastUsedAt), RevokedAt: optional(k.RevokedAt), ReplacedBy: k.ReplacedBy,
	}
	if err := k.Ended(s.now().UnixMicro()); errors.Is(err, log.ErrKeyRevoked) {
		v.State = "revoked"
	} else if err != nil {
		v.State = "expired"
	}
	if k.Log != 0 {
		v.Log = &name
	}
	return v
}

// keyInput is what is said of a key that is to be made.
type keyInput struct {
	Role              string   `json:"role"`
	Log               string   `json:"log"`
	Name              string   `json:"name"`
	ExpiresAt         string   `json:"expires_at"`
	ExpiresIn         string   `json:"expires_in"`
	EventsPerSecond   int      `json:"events_per_second"`
	RequestsPerSecond int      `json:"requests_per_second"`
	Networks          []string `json:"networks"`
	Actions           []string `json:"actions"`
}

// key returns the key that is asked for, but for its log.
func (in keyInput) key(now time.Time) (k log.Key, err error) {
	if k.Role, err = log.ParseRole(in.Role); err != nil {
		return k, badRequest("role: %v", err)
	}
	if k.Name = in.Name; len(k.Name) > maxKeyName || !utf8.ValidString(k.Name) {
		return k, badRequest("name: at most %d bytes of UTF-8", maxKeyName)
	}
	if k.ExpiresAt, err = in.expiry(now); err != nil {
		return k, err
	}
	k.Rates = log.Rates{Events: in.EventsPerSecond, Requests: in.RequestsPerSecond}
	if err := k.Rates.Check(); err != nil {
		return k, badRequest("%v", err)
	}
	if k.Networks, err = log.ParseNetworks(in.Networks); err != nil {
		return k, badRequest("networks: %v", err)
	}
	if k.Actions, err = log.ParseActions(in.Actions); err != nil {
		return k, badRequest("actions: %v", err)
	}
	if k.Role != log.RoleWriter && k.Actions != "" {
		return k, badRequest("actions: they are for a writer; a key of role %s can't be told what to append", k.Role)
	}
	return k, nil
}

// expiry returns when the key is to expire, 0 for never.
func (in keyInput) expiry(now time.Time) (int64, error) {
	switch {
	case in.ExpiresAt != "" && in.ExpiresIn != "":
		return 0, badRequest("expires_in: expires_at says it already")
	case in.ExpiresIn != "":
		d, err := parseSpan(in.ExpiresIn, maxBack)
		if err != nil || d == 0 {
			return 0, badRequest("expires_in: %q is not a time from now such as 90d, 12h, 15m or 30s", in.ExpiresIn)
		}
		return now.Add(d).UnixMicro(), nil
	case in.ExpiresAt != "":
		t, err := log.ParseTime(in.ExpiresAt)
		if err != nil {
			return 0, badRequest("expires_at: %q %v", in.ExpiresAt, err)
		}
		if t <= now.UnixMicro() {
			return 0, badRequest("expires_at: %q is in the past", in.ExpiresAt)
		}
		return t, nil
	}
	return 0, nil
}

var spanRE = regexp.MustCompile(`^([0-9]{1,10})([dhms])$`)

// parseSpan returns a span of time such as 90d, 12h, 15m or 30s, up to most.
func parseSpan(text string, most time.Duration) (time.Duration, error) {
	m := spanRE.FindStringSubmatch(text)
	if m == nil {
		return 0, errors.New("it is not a number and one of d, h, m, s")
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if unit := backUnits[m[2]]; err == nil && n <= int64(most/unit) {
		return time.Duration(n) * unit, nil
	}
	return 0, errors.New("it is too long")
}

// mayManage reports whether a key may make and end keys of a role: one that can't do as much as itself, unless it may do everything.
func mayManage(by log.Key, role log.Role) bool {
	return may(by.Role, toAdminister) || !may(role, toManage)
}

func (s *Server) postKey(w http.ResponseWriter, r *http.Request, by log.Key) error {
	var in keyInput
	err := readAdmin(w, r, &in, "role", "log", "name", "expires_at", "expires_in", "events_per_second", "requests_per_second", "networks", "actions")
	if err != nil {
		return err
	}
	k, err := in.key(s.now())
	if err != nil {
		return err
	}
	if !mayManage(by, k.Role) {
		return newProblem(http.StatusForbidden, "forbidden", "a key of role %s is for an admin's key to make", k.Role)
	}
	name := in.Log
	switch {
	case k.Role == log.RoleAdmin && name != "":
		return badRequest("log: an admin key is server-wide; leave log out")
	case k.Role != log.RoleAdmin:
		l, err := s.logOf(r.Context(), by, name)
		if err != nil {
			return err
		}
		if l.IsHub() && (k.Role == log.RoleWriter || k.Role == log.RoleManager) {
			return badRequest("role: nobody appends to the hub or sets it up; a reader of it may read its checkpoint and tiles")
		}
		if l.IsSystem() && (k.Role == log.RoleWriter || k.Role == log.RoleManager) {
			return badRequest("role: only the server appends to the system log, and nobody sets it up; a reader, exporter or auditor may read it")
		}
		k.Log, name = l.ID, l.Name
	}
	k, text, err := s.service.CreateKey(r.Context(), s.by(w, r, by), k)
	if err != nil {
		return err
	}
	s.logger.Info("API key created", "key", k.ID, "role", string(k.Role), "log", name, "by", by.ID)
	v := s.viewKey(k, name)
	v.Key = text
	return writeJSON(w, http.StatusCreated, v)
}

// listKeys answers with all keys that the key may see: of its own log, or all.
func (s *Server) listKeys(w http.ResponseWriter, r *http.Request, by log.Key) error {
	keys, err := s.service.Keys(r.Context())
	if err != nil {
		return err
	}
	names, err := s.service.Names(r.Context()) // not of the logs that this server knows: another one may have made the key's
	if err != nil {
		return err
	}
	views := []keyView{}
	for _, k := range keys {
		if by.Log == 0 || by.Log == k.Log {
			views = append(views, s.viewKey(k, names[k.Log]))
		}
	}
	return writeJSON(w, http.StatusOK, list{Data: views})
}

// keyOf returns the key that the path names, and the name of its log. One of another log is answered as one that doesn't exist.
func (s *Server) keyOf(r *http.Request, by log.Key) (k log.Key, name string, err error) {
	id := r.PathValue("id")
	if !log.IsKeyID(id) {
		return k, "", notFound("API key")
	}
	k, err = s.service.Key(r.Context(), id)
	if errors.Is(err, log.ErrNotFound) || err == nil && by.Log != 0 && by.Log != k.Log {
		return log.Key{}, "", notFound("API key")
	}
	if err != nil {
		return k, "", err
	}
	names, err := s.service.Names(r.Context())
	return k, names[k.Log], err
}

// managedKey returns the same of a key that the other may change.
func (s *Server) managedKey(r *http.Request, by log.Key) (k log.Key, name string, err error) {
	k, name, err = s.keyOf(r, by)
	if err == nil && !mayManage(by, k.Role) {
		err = newProblem(http.StatusForbidden, "forbidden", "a key of role %s is for an admin's key to change", k.Role)
	}
	return k, name, err
}

func (s *Server) getKey(w http.ResponseWriter, r *http.Request, by log.Key) error {
	k, name, err := s.keyOf(r, by)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, s.viewKey(k, name))
}

// revokeKey ends a key: on this server at once, on others when they read it next.
func (s *Server) revokeKey(w http.ResponseWriter, r *http.Request, by log.Key) error {
	k, name, err := s.managedKey(r, by)
	if err != nil {
		return err
	}
	k, err = s.service.RevokeKey(r.Context(), s.by(w, r, by), k.ID)
	s.keys.forget(r.PathValue("id")) // also if the outcome is unknown
	if err != nil {
		return err
	}
	s.logger.Info("API key revoked", "key", k.ID, "role", string(k.Role), "by", by.ID)
	return writeJSON(w, http.StatusOK, s.viewKey(k, name))
}

// rotateKey makes a key that follows another one, and answers with it.
func (s *Server) rotateKey(w http.ResponseWriter, r *http.Request, by log.Key) error {
	old, name, err := s.managedKey(r, by)
	if err != nil {
		return err
	}
	overlap := defaultOverlap
	if r.ContentLength != 0 {
		var in struct {
			Overlap string `json:"overlap"`
		}
		if err := readAdmin(w, r, &in, "overlap"); err != nil {
			return err
		}
		if in.Overlap != "" {
			if overlap, err = parseSpan(in.Overlap, maxOverlap); err != nil {
				return badRequest("overlap: %q is not a time such as 0s, 90m, 24h or 7d, up to 30d", in.Overlap)
			}
		}
	}
	next, text, err := s.service.RotateKey(r.Context(), s.by(w, r, by), old.ID, overlap)
	s.keys.forget(old.ID)
	if err != nil {
		return err
	}
	s.logger.Info("API key rotated", "key", old.ID, "next", next.ID, "role", string(next.Role), "overlap", overlap, "by", by.ID)
	v := s.viewKey(next, name)
	v.Key = text
	return writeJSON(w, http.StatusCreated, v)
}
