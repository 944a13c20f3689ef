package client_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/treeline-log/treeline/api/apitest"
	"github.com/treeline-log/treeline/api/client"
)

// start starts a server for an example, in place of the one that an application has elsewhere.
func start() (c *client.Client, dir string, stop func()) {
	dir, err := os.MkdirTemp("", "treeline-example-")
	if err != nil {
		panic(err)
	}
	s, err := apitest.Start(dir, nil)
	if err != nil {
		panic(err)
	}
	c, err = client.New(client.Config{Server: s.URL, Key: s.Key})
	if err != nil {
		panic(err)
	}
	return c, dir + "/spool", func() {
		s.Close()
		os.RemoveAll(dir)
	}
}

// Strict: when Append returns, the event is stored, and its place is final.
func ExampleClient_Append() {
	c, _, stop := start() // client.New(client.Config{Server: "https://audit.example.com", Key: os.Getenv("TREELINE_KEY")})
	defer stop()

	record, err := c.Append(context.Background(), client.Event{
		ID:      "perm-8f14e45f", // your own, so that you can send it again
		Action:  "user.permission.updated",
		Actor:   client.Actor{ID: "user_123"},
		Targets: []client.Target{{ID: "user_456", Type: "user"}},
		Changes: []client.Change{{Field: "role", Before: "viewer", After: "editor"}},
		Outcome: client.Success,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(record.Log, record.Index, record.Event.Action)
	// Output: default 0 user.permission.updated
}

// Buffered: when Record returns, the event is on this machine's disk.
func ExampleOpenSpool() {
	c, dir, stop := start()
	defer stop()
	ctx := context.Background()

	spool, err := client.OpenSpool(client.SpoolConfig{Client: c, Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, action := range []string{"session.opened", "report.read", "session.closed"} {
		if err := spool.Record(ctx, client.Event{Action: action, Actor: client.Actor{ID: "user_123"}}); err != nil {
			fmt.Println(err)
		}
	}
	if err := spool.Close(ctx); err != nil { // sends what is left
		fmt.Println(err)
	}
	for record, err := range c.All(ctx, client.Query{ActorIDs: []string{"user_123"}, Oldest: true}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(record.Index, record.Event.Action)
	}
	fmt.Println(spool.Stats().Sent, "sent")
	// Output:
	// 0 session.opened
	// 1 report.read
	// 2 session.closed
	// 3 sent
}

func ExampleNewHandler() {
	c, _, stop := start()
	defer stop()

	audit := slog.New(client.NewHandler(c, nil)) // or of a spool
	audit.Info("user.permission.updated", "actor_id", "user_123", "target_id", "user_456", "role", "editor")

	page, err := c.Events(context.Background(), client.Query{TargetIDs: []string{"user_456"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	e := page.Records[0].Event
	fmt.Println(e.Action, e.Actor.ID, e.Targets[0].ID, e.Metadata["role"])
	// Output: user.permission.updated user_123 user_456 editor
}

func ExampleMiddleware() {
	c, _, stop := start()
	defer stop()

	documents := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := client.EventOf(r.Context())
		e.Action, e.Targets = "document.deleted", []client.Target{{ID: r.URL.Path, Type: "document"}}
		http.Error(w, "it is locked", http.StatusForbidden)
	})
	audited := client.Middleware(c, client.MiddlewareOptions{
		Describe: func(r *http.Request, e *client.Event) { e.Actor.ID = r.Header.Get("X-User") },
	})

	web := httptest.NewServer(audited(documents))
	defer web.Close()
	req, err := http.NewRequest(http.MethodDelete, web.URL+"/plan", strings.NewReader(""))
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Header.Set("X-User", "user_123")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	web.Close() // waits for the request, and with it for its event

	page, err := c.Events(context.Background(), client.Query{ActorIDs: []string{"user_123"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	e := page.Records[0].Event
	fmt.Println(e.Action, e.Targets[0].ID, e.Outcome, e.Context.IP)
	// Output: document.deleted /plan denied 127.0.0.1
}
