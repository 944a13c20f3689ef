package main

import (
	"encoding/json"
	"strconv"
	"strings"
)

// shown is what a record shows of its event to people.
type shown struct {
	ID              string
	Action, Outcome string
	ReceivedAt      string
	OccurredAt      string `json:"occurred_at"`
	Actor           struct{ ID, Name, Email string }
	Targets         []struct{ ID, Type, Name string }
	Changes         []struct {
		Field         string
		Before, After json.RawMessage
	}
}

// shownOf returns what a record shows: the event, or of one with erased claims what is left of it. Of one that was purged, that it was.
func shownOf(record json.RawMessage) (s shown, err error) {
	var r struct {
		ID         string
		ReceivedAt string `json:"received_at"`
		Event      json.RawMessage
		Claims     []struct {
			Pointer string
			Value   json.RawMessage
		}
		PurgedBy *struct{} `json:"purged_by"`
	}
	if err := decodeAnswer(record, &r); err != nil {
		return s, err
	}
	switch {
	case r.PurgedBy != nil:
		s.Action = "(purged)"
	case r.Claims != nil:
		left := map[string]any{}
		for _, c := range r.Claims {
			if c.Value != nil {
				putClaim(left, strings.Split(c.Pointer, "/")[1:], c.Value)
			}
		}
		if r.Event, err = json.Marshal(left); err != nil {
			return s, err
		}
		fallthrough
	default:
		if err := decodeAnswer(r.Event, &s); err != nil {
			return s, err
		}
	}
	s.ID, s.ReceivedAt = r.ID, r.ReceivedAt
	return s, nil
}

// putClaim puts a claim's value to its place in an event; changes one after another, in the order of their pointers.
func putClaim(event map[string]any, path []string, value json.RawMessage) {
	last := path[len(path)-1]
	switch {
	case len(path) == 1:
		event[last] = value
	case path[0] == "changes":
		all, _ := event["changes"].([]json.RawMessage)
		event["changes"] = append(all, value)
	case path[0] == "targets":
		all, _ := event["targets"].([]map[string]any)
		i, _ := strconv.Atoi(path[1])
		for len(all) <= i {
			all = append(all, map[string]any{})
		}
		all[i][last] = value
		event["targets"] = all
	default:
		members, ok := event[path[0]].(map[string]any)
		if !ok {
			members = map[string]any{}
			event[path[0]] = members
		}
		members[last] = value
	}
}
