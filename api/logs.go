package api

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

// logView is a log as those see it who set it up.
type logView struct {
	Name      string   `json:"name"`
	Title     string   `json:"title"`
	Origin    string   `json:"origin"`
	LogID     string   `json:"log_id"`
	VKeys     []string `json:"vkeys"`
	Public    bool     `json:"public"`
	Hub       bool     `json:"hub,omitempty"`    // it is no tenant's
	System    bool     `json:"system,omitempty"` // nor is this
	CreatedAt string   `json:"created_at"`
	ratesView
	Required []string `json:"required"`
	Sizes    sizes    `json:"sizes"`
	Frozen   bool     `json:"frozen,omitempty"`
	Stopped  string   `json:"stopped,omitempty"`
}

// ratesView are the limits that a log or a key has of its own.
type ratesView struct {
	EventsPerSecond   int `json:"events_per_second"`
	RequestsPerSecond int `json:"requests_per_second"`
}

func viewLog(l *log.Log) logView {
	id := checkpoint.LogID(l.VKeys[0])
	c := l.Settings()
	v := logView{
		Name: l.Name, Title: c.Title, Origin: l.Origin, LogID: hex.EncodeToString(id[:]), VKeys: l.VKeys, Public: c.Public, Hub: l.IsHub(), System: l.IsSystem(),
		CreatedAt: string(log.AppendTime(nil, l.CreatedAt)), ratesView: ratesView{c.Rates.Events, c.Rates.Requests},
		Required: c.Required, Sizes: sizesOf(l), Frozen: l.Frozen(),
	}
	if v.Required == nil {
		v.Required = []string{}
	}
	if err := l.Stopped(); err != nil {
		v.Stopped = err.Error()
	}
	return v
}

// settingsInput is what of a log's settings is given. What isn't stays as it is.
type settingsInput struct {
	Title             *string   `json:"title"`
	Public            *bool     `json:"public"`
	EventsPerSecond   *int      `json:"events_per_second"`
	RequestsPerSecond *int      `json:"requests_per_second"`
	Required          *[]string `json:"required"`
}

var settingsMembers = []string{"title", "public", "events_per_second", "requests_per_second", "required"}

func (in settingsInput) apply(s *log.Settings) {
	if in.Title != nil {
		s.Title = *in.Title
	}
	if in.Public != nil {
		s.Public = *in.Public
	}
	if in.EventsPerSecond != nil {
		s.Rates.Events = *in.EventsPerSecond
	}
	if in.RequestsPerSecond != nil {
		s.Rates.Requests = *in.RequestsPerSecond
	}
	if in.Required != nil {
		s.Required = *in.Required
	}
}

func (s *Server) postLog(w http.ResponseWriter, r *http.Request, key log.Key) error {
	var in struct {
		Name *string `json:"name"`
		settingsInput
	}
	if err := readAdmin(w, r, &in, append([]string{"name"}, settingsMembers...)...); err != nil {
		return err
	}
	if in.Name == nil {
		name := randomName()
		in.Name = &name
	}
	var settings log.Settings
	in.apply(&settings)
	l, err := s.service.CreateLog(r.Context(), s.by(w, r, key), *in.Name, settings)
	if err != nil {
		return err
	}
	s.logger.Info("log created", "log", l.Name, "origin", l.Origin, "by", key.ID)
	return writeJSON(w, http.StatusCreated, viewLog(l))
}

// randomName returns a name for a log whose customer's name is nobody's business: names are in origins, and so in public.
func randomName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return "l-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))[:12]
}

// listLogs answers with all logs that the key may set up.
func (s *Server) listLogs(w http.ResponseWriter, r *http.Request, key log.Key) error {
	logs := s.service.Learned(r.Context())
	if err := s.service.LearnSettings(r.Context()); err != nil {
		return err
	}
	views := []logView{}
	for _, l := range logs {
		if key.Log == 0 || key.Log == l.ID {
			views = append(views, viewLog(l))
		}
	}
	return writeJSON(w, http.StatusOK, list{Data: views})
}

func (s *Server) getLog(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, _ log.Key) error {
	err := errors.Join(s.service.LearnSettings(r.Context()), l.Refresh(r.Context()))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, viewLog(l))
}

// patchLog changes the settings that are given.
func (s *Server) patchLog(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in settingsInput
	if err := readAdmin(w, r, &in, settingsMembers...); err != nil {
		return err
	}
	if (in.EventsPerSecond != nil || in.RequestsPerSecond != nil) && !may(key.Role, toAdminister) {
		return newProblem(http.StatusForbidden, "forbidden",
			"events_per_second and requests_per_second of a log are for an admin's key to change: they protect the other logs from this one")
	}
	_, err := l.Configure(r.Context(), s.by(w, r, key), func(c *log.Settings) error {
		in.apply(c)
		return nil
	})
	if err != nil {
		return err
	}
	s.logger.Info("log configured", "log", l.Name, "by", key.ID)
	return writeJSON(w, http.StatusOK, viewLog(l))
}

// freezeLog ends a log.
func (s *Server) freezeLog(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	if err := l.Freeze(r.Context(), s.by(w, r, key)); err != nil {
		return err
	}
	s.logger.Info("log frozen", "log", l.Name, "by", key.ID)
	return writeJSON(w, http.StatusOK, viewLog(l))
}
