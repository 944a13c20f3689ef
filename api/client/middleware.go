package client

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// MiddlewareOptions says what is recorded of requests.
type MiddlewareOptions struct {
	// Describe fills in what the application knows of every request, such as its actor, before it is served; where nobody is known, no
	// actor, since one without an ID is refused. nil: nothing.
	Describe func(*http.Request, *Event)
	// OnError is told of an event that couldn't be recorded. nil: it is written to the standard error.
	OnError func(*http.Request, Event, error)
}

type eventKey struct{}

// EventOf returns the event of the request that the context belongs to, for the handler to fill in: it is recorded after the handler
// has returned, if it has an action by then. Outside of Middleware it is an event that goes nowhere.
//
// The event is for the goroutine that serves the request.
func EventOf(ctx context.Context) *Event {
	if e, ok := ctx.Value(eventKey{}).(*Event); ok {
		return e
	}
	return new(Event)
}

// Middleware returns what wraps a handler so that each request is an event, if something gives that an action: the handler, by EventOf,
// or Describe. The context's ip (of the connection: behind a proxy let Describe correct it), user_agent and traceparent are the
// request's. The outcome, where nobody gave one, is by the answer's status: below 400 success, 401 and 403 denied, else failure.
//
// A short answer leaves when the event is recorded; one of some KB, or one that was flushed, is on its way by then. A handler that must not answer unless the event is stored calls Record itself.
func Middleware(r Recorder, o MiddlewareOptions) func(http.Handler) http.Handler {
	if o.OnError == nil {
		o.OnError = func(req *http.Request, e Event, err error) {
			fmt.Fprintf(os.Stderr, "treeline: %s %s: %v\n", req.Method, e.Action, err)
		}
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			e := &Event{Context: contextOf(req)}
			if o.Describe != nil {
				o.Describe(req, e)
			}
			answer := &statusWriter{ResponseWriter: w}
			failed := true // unless the handler returns
			defer func() {
				if e.Action == "" {
					return
				}
				if e.Outcome == "" {
					e.Outcome = outcomeOf(answer.status, failed)
				}
				// The client may have gone; what it did is recorded all the same.
				if err := r.Record(context.WithoutCancel(req.Context()), *e); err != nil {
					o.OnError(req, *e, err)
				}
			}()
			next.ServeHTTP(answer, req.WithContext(context.WithValue(req.Context(), eventKey{}, e)))
			failed = false
		})
	}
}

func contextOf(req *http.Request) Context {
	c := Context{UserAgent: truncate(req.UserAgent(), 2048), Traceparent: truncate(req.Header.Get("Traceparent"), 64)}
	if at, err := netip.ParseAddrPort(req.RemoteAddr); err == nil {
		c.IP = at.Addr().WithZone("").String()
	}
	return c
}

// truncate returns the beginning of a text: what a stranger sends must not make the server refuse the event.
func truncate(text string, most int) string {
	if len(text) > most {
		text = text[:most]
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\x00", "")
}

func outcomeOf(status int, failed bool) Outcome {
	switch {
	case failed:
		return Failure
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return Denied
	case status >= http.StatusBadRequest:
		return Failure
	}
	return Success
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap gives http.ResponseController the writer below.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush and Hijack are for those who ask by the interfaces that came before http.ResponseController.
func (w *statusWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
