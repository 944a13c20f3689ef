package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// statusClientClosed is what is counted of a request whose client went away. No client ever sees it.
const statusClientClosed = 499

// problem is an answer that is an error (RFC 9457, application/problem+json).
type problem struct {
	Type      string        `json:"type"`
	Title     string        `json:"title"`
	Status    int           `json:"status"`
	Detail    string        `json:"detail,omitempty"`
	Code      string        `json:"code"` // stable, for programs
	RequestID string        `json:"request_id"`
	Errors    []problemItem `json:"errors,omitempty"`
	IDs       []string      `json:"ids,omitempty"`
	Holds     []string      `json:"holds,omitempty"` // that forbid it, by their ids
	// Of a purged event, what is left of it: its record, its proof file, and the record of the event by which it was purged.
	Record json.RawMessage `json:"record,omitempty"`
	Proof  string          `json:"proof,omitempty"`
	Purge  json.RawMessage `json:"purge,omitempty"`

	allow      string // the Allow header of a 405
	retryAfter int    // seconds, of a 429 that knows them
}

// problemItem says what is wrong with one place of the input.
type problemItem struct {
	Index     *int    `json:"index,omitempty"`     // in a batch, from 0
	Pointer   *string `json:"pointer,omitempty"`   // RFC 6901, in the event as it was sent
	Parameter string  `json:"parameter,omitempty"` // of the query, where that is the input
	Detail    string  `json:"detail"`
}

func (p *problem) Error() string { return p.Code + ": " + p.Detail }

func newProblem(status int, code, format string, args ...any) *problem {
	return &problem{Status: status, Code: code, Detail: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, "invalid_request", format, args...)
}

// badParameter says what is wrong with a parameter of the query.
func badParameter(name, format string, args ...any) *problem {
	detail := fmt.Sprintf(format, args...)
	p := badRequest("%s: %s", name, detail)
	p.Errors = []problemItem{{Parameter: name, Detail: detail}}
	return p
}

// notFound is one answer for what doesn't exist and for what the caller may not know of.
func notFound(what string) *problem {
	return newProblem(http.StatusNotFound, "not_found", "there is no such %s", what)
}

// asProblem is the one place where an error becomes a status and a code.
func asProblem(err error) *problem {
	var p *problem
	var invalid *log.InvalidError
	var conflict *log.ConflictError
	var tooLarge *http.MaxBytesError
	var held *log.HeldError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &invalid):
		p := newProblem(http.StatusBadRequest, "invalid_event", "%v; nothing was stored", err)
		for _, x := range invalid.Problems {
			item := problemItem{Pointer: &x.Pointer, Detail: x.Detail}
			if x.Index >= 0 {
				item.Index = &x.Index
			}
			p.Errors = append(p.Errors, item)
		}
		return p
	case errors.As(err, &conflict):
		p := newProblem(http.StatusConflict, "conflict",
			"an id names one event for ever, and is taken by one with other content; nothing was stored")
		p.IDs = conflict.IDs
		return p
	case errors.As(err, &tooLarge):
		return newProblem(http.StatusRequestEntityTooLarge, "too_large", "the body is over the limit of %d bytes", tooLarge.Limit)
	case errors.Is(err, log.ErrNotSigned):
		return newProblem(http.StatusConflict, "not_signed",
			"not under a signed checkpoint yet; try again in a moment, or add wait=signed")
	case errors.Is(err, log.ErrNotInHub):
		return newProblem(http.StatusConflict, "not_witnessed",
			"not under a witnessed checkpoint of the hub yet; try again in a moment, or add wait=witnessed")
	case errors.Is(err, log.ErrUnrecorded): // whatever the reason for that
		return newProblem(http.StatusServiceUnavailable, "not_recorded",
			"the system log can't be appended to, and what isn't recorded isn't done; try again later")
	case errors.As(err, &held):
		p := newProblem(http.StatusConflict, "held", "holds forbid it: %v; nothing was erased", err)
		p.Holds = held.Holds
		return p
	case errors.Is(err, log.ErrTooEarly):
		return newProblem(http.StatusConflict, "min_age", "%v, to which not all of the events have come; nothing was erased", err)
	case errors.Is(err, log.ErrApprover):
		return newProblem(http.StatusConflict, "own_approval", "%v; another person has to approve it, with a key of their own", err)
	case errors.Is(err, log.ErrPending):
		return newProblem(http.StatusConflict, "approval_needed", "%v; it has to be approved and take effect, or be cancelled, before", err)
	case errors.Is(err, log.ErrReleased):
		return newProblem(http.StatusConflict, "released", "%v", err)
	case errors.Is(err, log.ErrChanged):
		return newProblem(http.StatusConflict, "plan_changed", "%v; nothing was erased: make another dry run", err)
	case errors.Is(err, log.ErrNothing):
		return newProblem(http.StatusConflict, "nothing_to_erase", "%v", err)
	case errors.Is(err, log.ErrSystem):
		return newProblem(http.StatusForbidden, "system_log", "%v: nobody else appends to it, sets it up or ends it", log.ErrSystem)
	case errors.Is(err, log.ErrNoProof):
		return newProblem(http.StatusNotFound, "no_proof", "there is no proof that the log which this entry is about only grew")
	case errors.Is(err, log.ErrHub):
		return newProblem(http.StatusBadRequest, "hub_log", "%v; see /v1/checkpoint, /v1/proofs/… and /logs/hub/…", err)
	case errors.Is(err, log.ErrNotFound):
		return notFound("thing")
	case errors.Is(err, merkle.ErrOutOfRange):
		return badRequest("%v", err)
	case errors.Is(err, log.ErrName), errors.Is(err, log.ErrSettings), errors.Is(err, log.ErrFilter), errors.Is(err, log.ErrReason),
		errors.Is(err, log.ErrRetention), errors.Is(err, log.ErrErasure):
		return badRequest("%v", err)
	case errors.Is(err, log.ErrReplaced):
		return newProblem(http.StatusConflict, "key_replaced", "%v; rotate or revoke that one", err)
	case errors.Is(err, log.ErrKeyRevoked), errors.Is(err, log.ErrKeyExpired):
		return newProblem(http.StatusConflict, "key_ended", "%v; make another one", err)
	case errors.Is(err, log.ErrExists):
		return newProblem(http.StatusConflict, "exists", "the name is taken; names are never reused")
	case errors.Is(err, log.ErrLogOverloaded):
		return newProblem(http.StatusTooManyRequests, "log_overloaded", "%v; send it again later", err)
	case errors.Is(err, log.ErrRechecking):
		return newProblem(http.StatusTooManyRequests, "verifying", "%v, and one at a time is; ask again when that has ended", err)
	case errors.Is(err, log.ErrIndexLag):
		return newProblem(http.StatusTooManyRequests, "index_lag", "%v; nothing was stored, send it again later", err)
	case errors.Is(err, log.ErrOverloaded):
		return newProblem(http.StatusServiceUnavailable, "overloaded", "%v; send it again later", err)
	case errors.Is(err, log.ErrClosed):
		return newProblem(http.StatusServiceUnavailable, "shutting_down", "%v; send it again", err)
	case errors.Is(err, log.ErrClockBehind):
		return newProblem(http.StatusServiceUnavailable, "clock_behind", "%v; nothing was stored", err)
	case errors.Is(err, log.ErrUnavailable), errors.Is(err, log.ErrRolledBack):
		return newProblem(http.StatusServiceUnavailable, "store_unavailable", "the store failed; nothing was stored, send it again later")
	case errors.Is(err, log.ErrNotReady):
		return newProblem(http.StatusServiceUnavailable, "log_not_ready", "%v; send it again later", err)
	case errors.Is(err, log.ErrFrozen):
		return newProblem(http.StatusConflict, "frozen",
			"the log has ended; nothing was stored. Events go to the log that follows it, reads go on")
	case errors.Is(err, log.ErrStopped):
		return newProblem(http.StatusServiceUnavailable, "log_stopped",
			"the log is stopped, since its store contradicts what was signed; reads go on, an operator has to look at it")
	case errors.Is(err, log.ErrOutcomeUnknown):
		return newProblem(http.StatusServiceUnavailable, "outcome_unknown",
			"the store failed while committing: the events may be recorded or not; send them again with these ids, which is safe")
	case errors.Is(err, log.ErrUnreachable):
		return newProblem(http.StatusServiceUnavailable, "store_unavailable", "the store can't be reached; try again later")
	case errors.Is(err, context.Canceled):
		return newProblem(statusClientClosed, "client_closed_request", "the client went away")
	}
	return newProblem(http.StatusInternalServerError, "internal",
		"the server failed; its log has more under this request_id. If this was an append, send it again with the same ids")
}

// explain returns the problem that an error of a request is, and logs what the operator has to know.
func (s *Server) explain(w http.ResponseWriter, r *http.Request, err error) *problem {
	p := *asProblem(err)
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	if p.Status == statusClientClosed {
		p.Title = "Client Closed Request"
	}
	p.RequestID = w.Header().Get("X-Request-Id")
	if p.Status >= 500 {
		s.logger.Error("request failed", "request_id", p.RequestID, "method", r.Method, "path", r.URL.Path, "code", p.Code, "error", err)
	}
	return &p
}

// writeError answers with a problem.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	p := s.explain(w, r, err)
	h := w.Header()
	switch p.Status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		// Spread, so that those who were refused together don't come back together.
		after := 1 + rand.IntN(3)
		if p.retryAfter > 0 {
			after = p.retryAfter
		}
		h.Set("Retry-After", strconv.Itoa(after))
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="treeline"`)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", p.allow)
	}
	var body bytes.Buffer
	e := json.NewEncoder(&body)
	e.SetEscapeHTML(false) // people read it as it is
	if err := e.Encode(p); err != nil {
		panic(err) // strings and numbers only
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(p.Status)
	w.Write(body.Bytes())
}

// writeJSON answers with the JSON form of v.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeBody(w, status, append(body, '\n'))
	return nil
}

// writeBody answers with JSON that is ready.
func writeBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = contentTypeJSON
	h["Cache-Control"] = noStore
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// Header values that every answer carries, made once.
var (
	contentTypeJSON = []string{"application/json"}
	noStore         = []string{"no-store"}
)
