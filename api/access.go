package api

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/treeline-log/treeline/log"
)

// accessed is what the system log tells of a log to those who audit that one: who did what to it, or read it. Of the event's place in
// the system log nothing is shown, since that would tell how much there is to tell of others.
type accessed struct {
	ID       string          `json:"id"`
	At       string          `json:"at"` // of reads the minute that they are counted in
	Action   string          `json:"action"`
	Actor    *accessActor    `json:"actor,omitempty"`
	IP       string          `json:"ip,omitempty"`
	Outcome  string          `json:"outcome,omitempty"`
	Keys     []accessKey     `json:"keys,omitempty"` // that it was done to
	Changes  json.RawMessage `json:"changes,omitempty"`
	Metadata json.RawMessage `json:"metadata,omitempty"`
}

type accessActor struct {
	ID   string `json:"id"`
	Type string `json:"type,omitempty"`
	Name string `json:"name,omitempty"`
}

type accessKey struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

func viewAccess(r log.Record) (accessed, error) {
	var e struct {
		ID         string       `json:"id"`
		Action     string       `json:"action"`
		OccurredAt string       `json:"occurred_at"`
		Actor      *accessActor `json:"actor"`
		Context    struct {
			IP string `json:"ip"`
		} `json:"context"`
		Outcome string `json:"outcome"`
		Targets []struct {
			accessKey
			Type string `json:"type"`
		} `json:"targets"`
		Changes  json.RawMessage `json:"changes"`
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(r.Event, &e); err != nil {
		return accessed{}, err
	}
	if e.OccurredAt == "" {
		e.OccurredAt = string(log.AppendTime(nil, r.ReceivedAt))
	}
	v := accessed{
		ID: e.ID, At: e.OccurredAt, Action: e.Action, Actor: e.Actor, IP: e.Context.IP, Outcome: e.Outcome,
		Changes: e.Changes, Metadata: e.Metadata,
	}
	for _, t := range e.Targets {
		if t.Type == log.KeyTarget {
			v.Keys = append(v.Keys, t.accessKey)
		}
	}
	return v, nil
}

// getAccess answers with a page of what the system log tells of a log, newest first.
func (s *Server) getAccess(w http.ResponseWriter, r *http.Request, l *log.Log, q query, _ log.Key) error {
	limit, err := q.number("limit", defaultPage, 1, maxPage)
	if err != nil {
		return err
	}
	systems := s.service.Systems()
	at := sealedCursor{systems[0].ID, cursor{asOf: s.now().UnixMicro()}}
	if err := systems[0].Refresh(r.Context()); err != nil {
		return err
	}
	at.position = systems[0].Sizes().Size
	params := "access?" + q.filterText()
	if text, ok := q.one("cursor"); ok {
		if at, err = s.sealed.decode(text, l.ID, params); err != nil {
			return err
		}
	}
	filter := &log.Filter{TargetIDs: []string{l.Target().ID}}
	if filter.ActorIDs, err = q.texts("actor_id", "/actor/id"); err != nil {
		return err
	}
	if filter.Actions, err = q.texts("action", "/action"); err != nil {
		return err
	}
	if filter.Occurred, err = q.span("from", "to", at.asOf); err != nil {
		return err
	}
	views, next, err := s.access(r, systems, filter, at, int(limit))
	if err != nil {
		return err
	}
	page := list{Data: views, HasMore: next != nil}
	if next != nil {
		text := s.sealed.encode(*next, l.ID, params)
		page.NextCursor = &text
	}
	return writeJSON(w, http.StatusOK, page)
}

// access returns up to limit of what the filter finds in the system logs, from a place on, and the place where the next page begins, if
// there is one. It searches until it has one more than that, or has come to the end: how much there is in between, which others did,
// shows in nothing but the time that it takes.
func (s *Server) access(
	r *http.Request, systems []*log.Log, filter *log.Filter, at sealedCursor, limit int,
) (views []accessed, next *sealedCursor, err error) {
	views = []accessed{}
	first := slices.IndexFunc(systems, func(l *log.Log) bool { return l.ID == at.system })
	if first < 0 {
		return nil, nil, errCursor
	}
	last, bytes := at, 0
	for i, system := range systems[first:] {
		page := log.Page{Position: system.Sizes().Size, MaxBytes: maxPageBytes}
		if i == 0 {
			page.Position = at.position
		}
		for more := true; more; {
			page.Limit = limit + 1 - len(views)
			found, err := system.Search(r.Context(), filter, page)
			if err != nil {
				return nil, nil, err
			}
			for _, record := range found.Records {
				if bytes += len(record.Event); len(views) == limit || bytes > maxPageBytes && len(views) > 0 {
					return views, &last, nil
				}
				view, err := viewAccess(record)
				if err != nil {
					return nil, nil, err
				}
				views = append(views, view)
				last.system, last.position = system.ID, record.Index
			}
			page.Position, more = found.Position, found.More
		}
	}
	return views, nil, nil
}
