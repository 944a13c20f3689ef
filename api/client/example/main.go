// Command example is a small web application that writes its audit log to Treeline: people are given roles in a team.
//
//	go run ./api/client/example -server http://localhost:8080 -key "$KEY"
//	curl -u alice: -X PUT http://localhost:8085/members/bob -d editor
//	curl -u bob: -X PUT http://localhost:8085/members/bob -d owner
//	curl -u alice: http://localhost:8085/history/bob
//
// What there is to see is in newApp: the audit log takes one line there, and a few in the handlers.
package main

import (
	"context"
	"errors"
	"expvar"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/treeline-log/treeline/api/client"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

func run() error {
	listen := flag.String("listen", "localhost:8085", "`ADDRESS` of the application")
	server := flag.String("server", "http://localhost:8080", "base `URL` of the Treeline server")
	key := flag.String("key", os.Getenv("TREELINE_KEY"), "API key that may append and read")
	dir := flag.String("spool", "audit-spool", "`FOLDER` for events that are not sent yet")
	flag.Parse()

	c, err := client.New(client.Config{Server: *server, Key: *key})
	if err != nil {
		return err
	}
	spool, err := client.OpenSpool(client.SpoolConfig{Client: c, Dir: *dir})
	if err != nil {
		return err
	}
	expvar.Publish("audit", expvar.Func(func() any { return spool.Stats() })) // at /debug/vars

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	web := &http.Server{Addr: *listen, Handler: newApp(c, spool), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- web.ListenAndServe() }()
	fmt.Printf("listening on http://%s\n", *listen)
	select {
	case err = <-served:
	case <-ctx.Done():
	}
	// First the requests, which record events, then the events. What can't be sent in this time is sent by the next start.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(err, web.Shutdown(ctx), spool.Close(ctx))
}

// app is the application.
type app struct {
	audit *slog.Logger
	reads *client.Client

	mu    sync.Mutex
	roles map[string]string // by person
}

// newApp returns the application. It writes its audit log to the recorder, and reads it back from the client.
func newApp(c *client.Client, r client.Recorder) http.Handler {
	a := &app{audit: slog.New(client.NewHandler(r, nil)), reads: c, roles: map[string]string{"alice": "owner"}}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /members/{name}", a.putMember)
	mux.HandleFunc("GET /history/{name}", a.getHistory)
	mux.Handle("GET /debug/vars", expvar.Handler())
	// This is the line.
	return client.Middleware(r, client.MiddlewareOptions{Describe: describe})(mux)
}

// describe says who makes a request. A real application has authenticated them by now.
func describe(r *http.Request, e *client.Event) {
	if name, _, ok := r.BasicAuth(); ok {
		e.Actor = client.Actor{ID: name, Type: "user"}
	}
}

// putMember gives a person a role. Only owners may: the event says how it ended.
func (a *app) putMember(w http.ResponseWriter, r *http.Request) {
	e := client.EventOf(r.Context())
	name := r.PathValue("name")
	e.Action, e.Targets = "user.permission.updated", []client.Target{{ID: name, Type: "user"}}
	role, err := io.ReadAll(io.LimitReader(r.Body, 20))
	if err != nil || len(role) == 0 {
		http.Error(w, "which role?", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.roles[e.Actor.ID] != "owner" {
		http.Error(w, "only owners may", http.StatusForbidden)
		return
	}
	e.Changes = []client.Change{{Field: "role", Before: a.roles[name], After: string(role)}}
	a.roles[name] = string(role)
	fmt.Fprintf(w, "%s is %s\n", name, role)
}

// getHistory shows what was done to a person's permissions, which is itself worth an event.
func (a *app) getHistory(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	who, _, _ := r.BasicAuth()
	a.audit.InfoContext(r.Context(), "history.read", "actor_id", who, "target_id", name)
	query := client.Query{Actions: []string{"user.permission.*"}, TargetIDs: []string{name}, From: time.Now().AddDate(0, 0, -90)}
	for record, err := range a.reads.All(r.Context(), query) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		e := record.Event
		fmt.Fprintf(w, "%d %s %s", record.Index, e.Actor.ID, e.Outcome)
		for _, c := range e.Changes {
			fmt.Fprintf(w, " %s: %q to %q", c.Field, c.Before, c.After)
		}
		fmt.Fprintln(w)
	}
}
