package api

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

// list is the envelope of lists that are never long.
type list struct {
	Data       any     `json:"data"`
	NextCursor *string `json:"next_cursor"`
	HasMore    bool    `json:"has_more"`
}

// logView is a log as administrators see it.
type logView struct {
	Name      string   `json:"name"`
	Origin    string   `json:"origin"`
	LogID     string   `json:"log_id"`
	VKeys     []string `json:"vkeys"`
	Public    bool     `json:"public"`
	Hub       bool     `json:"hub,omitempty"` // it is no tenant's
	CreatedAt string   `json:"created_at"`
	Sizes     sizes    `json:"sizes"`
	Frozen    bool     `json:"frozen,omitempty"`
	Stopped   string   `json:"stopped,omitempty"`
}

func viewLog(l *log.Log) logView {
	id := checkpoint.LogID(l.VKeys[0])
	v := logView{
		Name: l.Name, Origin: l.Origin, LogID: hex.EncodeToString(id[:]), VKeys: l.VKeys, Public: l.Public(), Hub: l.IsHub(),
		CreatedAt: string(log.AppendTime(nil, l.CreatedAt)), Sizes: sizesOf(l), Frozen: l.Frozen(),
	}
	if err := l.Stopped(); err != nil {
		v.Stopped = err.Error()
	}
	return v
}

func (s *Server) postLog(w http.ResponseWriter, r *http.Request, key log.Key) error {
	var in struct {
		Name   string `json:"name"`
		Public bool   `json:"public"`
	}
	if err := readAdmin(w, r, &in, "name", "public"); err != nil {
		return err
	}
	l, err := s.service.CreateLog(r.Context(), in.Name, log.Settings{Public: in.Public})
	if err != nil {
		return err
	}
	s.logger.Info("log created", "log", l.Name, "origin", l.Origin, "by", key.ID)
	return writeJSON(w, http.StatusCreated, viewLog(l))
}

func (s *Server) listLogs(w http.ResponseWriter, r *http.Request, _ log.Key) error {
	views := []logView{}
	for _, l := range s.service.Learned(r.Context()) {
		views = append(views, viewLog(l))
	}
	return writeJSON(w, http.StatusOK, list{Data: views})
}

// keyView is an API key as administrators see it; the key itself is there once, when it is made.
type keyView struct {
	ID        string   `json:"id"`
	Key       string   `json:"key,omitempty"`
	Role      log.Role `json:"role"`
	Log       *string  `json:"log"` // null: server-wide
	Name      string   `json:"name"`
	CreatedAt string   `json:"created_at"`
}

// viewKey returns the view of a key for the log of a name.
func viewKey(k log.Key, name string) keyView {
	v := keyView{ID: k.ID, Role: k.Role, Name: k.Name, CreatedAt: string(log.AppendTime(nil, k.CreatedAt))}
	if k.Log != 0 {
		v.Log = &name
	}
	return v
}

func (s *Server) postKey(w http.ResponseWriter, r *http.Request, by log.Key) error {
	var in struct {
		Role string `json:"role"`
		Log  string `json:"log"`
		Name string `json:"name"`
	}
	if err := readAdmin(w, r, &in, "role", "log", "name"); err != nil {
		return err
	}
	role, err := log.ParseRole(in.Role)
	if err != nil {
		return badRequest("role: %v", err)
	}
	if len(in.Name) > 128 || !utf8.ValidString(in.Name) {
		return badRequest("name: at most 128 bytes of UTF-8")
	}
	var id log.ID
	switch {
	case role == log.RoleAdmin && in.Log != "":
		return badRequest("log: an admin key is server-wide; leave log out")
	case role != log.RoleAdmin:
		if in.Log == "" {
			in.Log = DefaultLog
		}
		l := s.service.Lookup(r.Context(), in.Log)
		if l == nil {
			return notFound("log")
		}
		if l.IsHub() && role == log.RoleWriter {
			return badRequest("role: nobody appends to the hub; a reader of it may read its checkpoint and tiles")
		}
		id = l.ID
	}
	k, text, err := s.service.CreateKey(r.Context(), log.Key{Role: role, Log: id, Name: in.Name})
	if err != nil {
		return err
	}
	s.logger.Info("API key created", "key", k.ID, "role", string(k.Role), "log", in.Log, "by", by.ID)
	v := viewKey(k, in.Log)
	v.Key = text
	return writeJSON(w, http.StatusCreated, v)
}

func (s *Server) listKeys(w http.ResponseWriter, r *http.Request, _ log.Key) error {
	keys, err := s.service.Keys(r.Context())
	if err != nil {
		return err
	}
	names, err := s.service.Names(r.Context()) // not of the logs that this server knows: another one may have made the key's
	if err != nil {
		return err
	}
	views := make([]keyView, len(keys))
	for i, k := range keys {
		views[i] = viewKey(k, names[k.Log])
	}
	return writeJSON(w, http.StatusOK, list{Data: views})
}

// readAdmin reads a small JSON object into v, and refuses members that it shouldn't have.
func readAdmin(w http.ResponseWriter, r *http.Request, v any, members ...string) error {
	if kind, err := mediaType(r); err != nil {
		return err
	} else if kind != "application/json" {
		return unsupported(kind, "application/json")
	}
	var body bytes.Buffer
	if err := readBody(nil, &body, w, r, maxAdminBody); err != nil {
		return err
	}
	// encoding/json alone would take duplicate members, and names in any case.
	canonical, err := log.AppendCanonical(nil, body.Bytes())
	if err != nil {
		return badRequest("the body: %v", err)
	}
	var have map[string]json.RawMessage
	if err := json.Unmarshal(canonical, &have); err != nil {
		return badRequest("the body: %v", err)
	}
	for name := range have {
		if !slices.Contains(members, name) {
			return badRequest("the body: member %q is unknown here; known are: %s", name, strings.Join(members, ", "))
		}
	}
	if err := json.Unmarshal(canonical, v); err != nil {
		return badRequest("the body: %v", err)
	}
	return nil
}
