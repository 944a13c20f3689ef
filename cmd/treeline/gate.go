package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
)

// gate is what a listener answers with before the server behind it is there: alive, but not ready.
type gate struct {
	handler atomic.Pointer[http.Handler]
	reason  atomic.Pointer[string] // shown where operators look; nil to tell nobody
}

// open lets all requests through.
func (g *gate) open(h http.Handler) { g.handler.Store(&h) }

// waiting notes why the server isn't ready.
func (g *gate) waiting(err error) {
	reason := err.Error()
	g.reason.Store(&reason)
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := g.handler.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	if r.URL.Path == "/healthz" {
		fmt.Fprintln(w, "ok")
		return
	}
	w.Header().Set("Retry-After", "1")
	if r.URL.Path == "/readyz" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "not ready")
		if reason := g.reason.Load(); reason != nil {
			fmt.Fprintln(w, *reason)
		}
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, `{"type":"about:blank","title":"Service Unavailable","status":503,"code":"store_unavailable",`+
		`"detail":"the server is starting, or waits for its store; nothing was stored, send it again later"}`)
}
