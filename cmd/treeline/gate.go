package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"
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

// startPause is the longest pause between attempts to start.
const startPause = 5 * time.Second

// whenReachable calls start until it succeeds, or fails with what doesn't pass. Meanwhile the operator's listener tells why it waits: a
// server that ends, and is started again and again, helps nobody.
func whenReachable[T any](ctx context.Context, logger *slog.Logger, ops *gate, start func() (T, error), passes func(error) bool) (T, error) {
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, startPause) {
		started, err := start()
		if err == nil || !passes(err) || ctx.Err() != nil {
			return started, err
		}
		logger.Error("not ready: what is to be served can't be reached; trying again", "error", err)
		ops.waiting(err)
		select {
		case <-ctx.Done():
			return started, ctx.Err()
		case <-time.After(pause):
		}
	}
}
