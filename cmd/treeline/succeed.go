package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/log"
)

func newLogSucceedCmd() *cobra.Command {
	var o storeOptions
	var as, reason string
	cmd := &cobra.Command{
		Use:   "succeed NAME --as NEWNAME",
		Short: "End a log that can't go on, and make the one that follows it",
		Long: `Succeed freezes a log for ever and makes another one that follows it, in the same store, under the same host: for a log whose
store lost what was signed and can't be brought back. Appends to the frozen log are refused with 409 "frozen", reads go on, and it
no longer keeps the server from being ready. The first event of the new log, treeline.log.started, names the last checkpoint of
the old one that anybody outside can hold, which is the fence's.

It works on the store itself. With SQLite, stop the server first; servers on a PostgreSQL database may go on. If it fails half-way,
run it again.`,
		Args: arguments(1, 1, "the log's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return succeed(cmd.Context(), cmd.OutOrStdout(), o, args[0], as, reason)
		},
	}
	f := cmd.Flags()
	o.register(f)
	f.StringVar(&as, "as", "", "name of the log that follows")
	f.StringVar(&reason, "reason", "", "why, for those who read the new log's first event; at most 1024 bytes")
	return cmd
}

func succeed(ctx context.Context, w io.Writer, o storeOptions, name, as, reason string) error {
	if as == "" {
		return withHint(errors.New("the new log has no name"), "give it with --as")
	}
	store, _, err := o.openAlone(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer store.Close()
	prefix, err := prefixOf(ctx, store, name)
	if err != nil {
		return err
	}
	seed, err := o.openSeed(ctx, store)
	if err != nil {
		return err
	}
	fence, err := o.openFence(ctx)
	if err != nil {
		return err
	}
	defer fence.Close()
	service, err := log.Open(ctx, log.Config{
		Store: store, Seed: seed, Fence: fence, Prefix: prefix, Interval: 100 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(), Shared: o.onPostgres(), System: true,
	})
	if err != nil {
		return err
	}
	defer service.Close()
	next, last, err := service.Succeed(ctx, log.ByCommand("treeline log succeed", userName()), name, as, reason)
	var conflict *log.ConflictError
	if errors.As(err, &conflict) {
		return withHint(err, "give the same --reason as the first time")
	}
	if errors.Is(err, log.ErrUnrecorded) {
		return withHint(err, "let another system log follow first: treeline log succeed system --as system-2; or, if that one can't go on, "+
			"system-3 after it, and so on")
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w, `log %s is frozen: nothing will be appended to it again
log %s follows it; its first event names this checkpoint of log %s:
  origin %s
  size   %d
  root   %v
Verifier key of log %s:
  %s
`, name, as, name, last.Origin, last.Size, last.Root, as, next.VKeys[0])
	return nil
}

// userName returns the name of the user of the system who runs the command, "" if it has none.
func userName() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

// prefixOf returns what the origin of a log begins with, for the log that follows it.
func prefixOf(ctx context.Context, store log.Store, name string) (string, error) {
	infos, err := store.Logs(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(infos, func(i log.Info) bool { return i.Name == name })
	if i < 0 {
		return "", fmt.Errorf("the store has no log %q", name)
	}
	return strings.TrimSuffix(infos[i].Origin, "/logs/"+name), nil
}
