package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"github.com/treeline-log/treeline/log"
)

// holdView is a hold.
type holdView struct {
	ID         string         `json:"id"`
	Log        string         `json:"log"`
	State      string         `json:"state"` // placed or released
	Matter     string         `json:"matter"`
	Reason     string         `json:"reason"`
	Filter     map[string]any `json:"filter"` // as it was given; {}: the whole log
	PlacedBy   actorView      `json:"placed_by"`
	PlacedAt   string         `json:"placed_at"`
	Event      log.Ref        `json:"event"` // that says so
	ReleasedBy *actorView     `json:"released_by,omitempty"`
	ReleasedAt string         `json:"released_at,omitempty"`
	Release    string         `json:"release_reason,omitempty"`
}

func viewHold(l *log.Log, h log.Hold) holdView {
	v := holdView{
		ID: h.ID, Log: l.Name, State: "placed", Matter: h.Matter, Reason: h.Reason, Filter: viewFilter(h.Filter), PlacedBy: viewActor(h.By),
		PlacedAt: timeText(h.PlacedAt), Event: h.Event, ReleasedAt: timeText(h.ReleasedAt), Release: h.Release,
	}
	if h.ReleasedAt != 0 {
		by := viewActor(h.ReleasedBy)
		v.State, v.ReleasedBy = "released", &by
	}
	return v
}

// filterInput are the parameters of a search as JSON: the value of each is a text, or an array of them.
type filterInput map[string]json.RawMessage

// values returns the parameters, in the one order.
func (in filterInput) values(what string) (url.Values, error) {
	values := url.Values{}
	for name, raw := range in {
		var one string
		var all []string
		if json.Unmarshal(raw, &one) == nil {
			all = []string{one}
		} else if json.Unmarshal(raw, &all) != nil || len(all) == 0 {
			return nil, badRequest("the body: %s: %s is neither a text nor an array of texts", what, name)
		}
		slices.Sort(all)
		values[name] = slices.Compact(all)
	}
	return values, nil
}

// viewFilter returns a filter in the form in which it is given.
func viewFilter(text string) map[string]any {
	values, err := url.ParseQuery(text)
	if err != nil {
		panic(err) // it was parsed when the hold was taken up
	}
	filter := make(map[string]any)
	for name, all := range values {
		if len(all) == 1 {
			filter[name] = all[0]
		} else {
			filter[name] = all
		}
	}
	return filter
}

// asMissing says of what isn't there what it is.
func asMissing(err error, what string) error {
	if errors.Is(err, log.ErrNotFound) {
		return notFound(what)
	}
	return err
}

// postHold places a hold.
func (s *Server) postHold(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in struct {
		Matter string      `json:"matter"`
		Reason string      `json:"reason"`
		Filter filterInput `json:"filter"`
	}
	if err := readAdmin(w, r, &in, "matter", "reason", "filter"); err != nil {
		return err
	}
	filter, err := in.Filter.values("filter")
	if err != nil {
		return err
	}
	h, err := l.PlaceHold(r.Context(), s.by(w, r, key), in.Matter, in.Reason, filter)
	if err != nil {
		return err
	}
	s.logger.Info("hold placed", "log", l.Name, "hold", h.ID, "by", key.ID)
	return writeJSON(w, http.StatusCreated, viewHold(l, h))
}

// listHolds answers with all holds of a log, in the order in which they were placed.
func (s *Server) listHolds(w http.ResponseWriter, _ *http.Request, l *log.Log, _ query, _ log.Key) error {
	views := []holdView{}
	for _, h := range l.Holds() {
		views = append(views, viewHold(l, h))
	}
	return writeJSON(w, http.StatusOK, list{Data: views})
}

func (s *Server) getHold(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, _ log.Key) error {
	for _, h := range l.Holds() {
		if h.ID == r.PathValue("id") {
			return writeJSON(w, http.StatusOK, viewHold(l, h))
		}
	}
	return notFound("hold")
}

func (s *Server) releaseHold(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	var in struct {
		Reason string `json:"reason"`
	}
	if err := readAdmin(w, r, &in, "reason"); err != nil {
		return err
	}
	h, err := l.ReleaseHold(r.Context(), s.by(w, r, key), r.PathValue("id"), in.Reason)
	if err != nil {
		return asMissing(err, "hold")
	}
	s.logger.Info("hold released", "log", l.Name, "hold", h.ID, "by", key.ID)
	return writeJSON(w, http.StatusOK, viewHold(l, h))
}
