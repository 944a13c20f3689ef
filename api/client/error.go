package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error is an answer that is an error (RFC 9457). Programs go by Code; the list of codes is in the server's documentation.
type Error struct {
	Status    int      `json:"status"`
	Code      string   `json:"code"` // "" where something else than a Treeline server has answered
	Title     string   `json:"title"`
	Detail    string   `json:"detail"`
	RequestID string   `json:"request_id"` // by which the server's operator finds it
	Errors    []Item   `json:"errors"`
	IDs       []string `json:"ids"`   // of the events in conflict, or whose outcome is unknown
	Holds     []string `json:"holds"` // that forbid it, by their ids

	// Of an event that was purged (IsCode(err, "purged")) what is left: its record without content, its proof file, and the record of the
	// log's own event that says so.
	Record *Record `json:"record"`
	Proof  string  `json:"proof"`
	Purge  *Record `json:"purge"`

	retryAfter time.Duration
}

// Item is one thing that is wrong in what was sent.
type Item struct {
	Index     *int   `json:"index"`     // of the event in a batch, from 0
	Pointer   string `json:"pointer"`   // in the event (RFC 6901)
	Parameter string `json:"parameter"` // of the query, where that is what is wrong
	Detail    string `json:"detail"`
}

// Error says what the server said.
func (e *Error) Error() string {
	text := strconv.Itoa(e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	return text
}

// IsCode reports whether err is an answer with the code.
func IsCode(err error, code string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == code
}

// newError returns the error of an answer, whoever gave it.
func newError(res *http.Response, body []byte) *Error {
	e := &Error{}
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") || json.Unmarshal(body, e) != nil {
		e = &Error{Title: http.StatusText(res.StatusCode), Detail: excerpt(body)}
		if to := res.Header.Get("Location"); to != "" {
			e.Detail = "redirects to " + to
		}
	}
	e.Status = res.StatusCode
	e.retryAfter = retryAfter(res.Header, time.Now())
	return e
}

// excerpt returns the beginning of an answer that nobody expected.
func excerpt(body []byte) string {
	const most = 200
	if len(body) > most {
		body = body[:most]
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(body), ""))
}

// transient reports whether the same request may well be answered otherwise a little later.
func (e *Error) transient() bool {
	switch e.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusInternalServerError:
		return true // an append is sent again with the same ids, which is safe
	}
	return false
}

// retryAfter returns the wait that a Retry-After header asks for, in seconds or as a date (RFC 9110, section 10.2.3), or 0.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

// errAnswer is an answer that isn't what was asked for.
func errAnswer(what string, err error) error {
	return fmt.Errorf("the server's answer is no %s: %w", what, err)
}
