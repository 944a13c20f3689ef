// Package apitest starts whole servers for the tests of what talks to one.
package apitest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/sqlite"
)

// Server is a server in this process, with one log, api.DefaultLog, which is signed every 10 ms.
type Server struct {
	URL   string
	Key   string // an admin's
	Log   *log.Log
	close func() error
}

// Start starts a server on an embedded store in a folder. wrap, if not nil, is put between it and its clients.
func Start(dir string, wrap func(http.Handler) http.Handler) (*Server, error) {
	ctx := context.Background()
	store, err := sqlite.Open(ctx, filepath.Join(dir, "treeline.db"))
	if err != nil {
		return nil, err
	}
	fence, err := checkpoint.OpenFileFence(filepath.Join(dir, "fence"))
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	logger, registry, seed := slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry(), checkpoint.Seed{7}
	service, err := log.Open(ctx, log.Config{
		System: true,
		Store:  store, Seed: seed, Fence: fence, Prefix: "test.example", Interval: 10 * time.Millisecond, Logger: logger, Metrics: registry,
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	handler := api.New(api.Config{Service: service, Seed: seed, Logger: logger, Registry: registry})
	var served http.Handler = handler
	if wrap != nil {
		served = wrap(handler)
	}
	web := httptest.NewServer(served)
	s := &Server{URL: web.URL, close: func() error {
		handler.Close()
		web.Close()
		service.Close()
		return store.Close()
	}}
	if s.Log, err = service.CreateLog(ctx, log.ByServer(), api.DefaultLog, log.Settings{}); err == nil {
		_, s.Key, err = service.CreateKey(ctx, log.ByServer(), log.Key{Role: log.RoleAdmin, Name: "test"})
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close stops the server.
func (s *Server) Close() error { return s.close() }
