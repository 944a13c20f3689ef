package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/sqlite"
)

func newFenceCmd() *cobra.Command {
	var o storeOptions
	group := newGroupCmd("fence", "Show or mend the record of signed checkpoints outside the store",
		&cobra.Command{
			Use:   "show",
			Short: "Print the newest checkpoint that the fence records of each log",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return showFence(cmd.Context(), cmd.OutOrStdout(), o)
			},
		},
		&cobra.Command{
			Use:   "accept LOG",
			Short: "Let the fence record what the store has signed",
			Long: `Let the fence record the newest checkpoint that the store has of a log, after checking all of the log (as fsck does).
For a store that was moved without its fence. It refuses a store that is behind the fence: then entries that were signed
are gone, and signing anew would make a second history. Stop the server first.`,
			Args: arguments(1, 1, "the log's name"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return acceptFence(cmd.Context(), cmd.OutOrStdout(), o, args[0])
			},
		},
		&cobra.Command{
			Use:   "drop ORIGIN",
			Short: "Forget a log that was given up for good",
			Long: `Forget a log whose store is given up for good, so that the server starts without it. Whoever holds a checkpoint of that log
can still show that it existed. Its name and origin must never be used again. Stop the server first.`,
			Args: arguments(1, 1, "the log's origin"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return dropFence(cmd.Context(), cmd.OutOrStdout(), o, args[0])
			},
		},
	)
	for _, cmd := range group.Commands() {
		o.register(cmd.Flags())
	}
	return group
}

// mustReadFence opens the fence, which must be there.
func (o storeOptions) mustReadFence(ctx context.Context) (fence, error) {
	fence, err := o.readFence(ctx)
	if err == nil && fence == nil {
		err = withHint(fmt.Errorf("there is no fence at %s", o.fencePath()), "name it with --data-dir or --fence")
	}
	return fence, err
}

// openAlone opens the store for writing, though nothing is written: no server may run meanwhile, which a SQLite store makes sure
// of. It returns its logs, too.
func (o storeOptions) openAlone(ctx context.Context, logger *slog.Logger) (log.Store, []log.Info, error) {
	if !o.onPostgres() {
		path, err := o.dbPath()
		if err != nil {
			return nil, nil, err
		}
		if _, err := os.Stat(path); err != nil {
			return nil, nil, err // opening it would make one
		}
	}
	store, err := o.openWriter(ctx, postgres.Options{Logger: logger, Unhurried: true})
	var inUse *inUseError
	if errors.As(err, &inUse) {
		return nil, nil, withHint(fmt.Errorf("%s: %w", inUse.path, sqlite.ErrLocked), "stop the server first")
	}
	if err != nil {
		return nil, nil, err
	}
	infos, err := store.Logs(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, infos, nil
}

func showFence(ctx context.Context, w io.Writer, o storeOptions) error {
	fence, err := o.mustReadFence(ctx)
	if err != nil {
		return err
	}
	defer fence.Close()
	origins, err := fence.Origins(ctx)
	if err != nil {
		return err
	}
	for _, origin := range origins {
		note, err := fence.Load(ctx, origin)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\n", note)
	}
	return nil
}

// dropFence forgets a log, but not one that the store has: its checkpoints are what keeps it from being rolled back.
func dropFence(ctx context.Context, w io.Writer, o storeOptions, origin string) error {
	fence, err := o.mustReadFence(ctx)
	if err != nil {
		return err
	}
	defer fence.Close()
	store, infos, err := o.openAlone(ctx, slog.New(slog.DiscardHandler))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if store != nil {
		defer store.Close()
	}
	if slices.ContainsFunc(infos, func(i log.Info) bool { return i.Origin == origin }) {
		return fmt.Errorf("the store has the log %s: its fence can't be dropped while it is there", origin)
	}
	drop := func(ctx context.Context) error { return fence.Drop(ctx, origin) }
	if store != nil {
		act := log.Act{Action: "fence.dropped", Metadata: map[string]any{"origin": origin}}
		err = log.DoBeside(ctx, store, log.ByCommand("treeline fence drop", userName()), act, drop)
	} else {
		err = drop(ctx)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "the fence no longer knows %s\n", origin)
	return nil
}

func acceptFence(ctx context.Context, w io.Writer, o storeOptions, name string) error {
	store, infos, err := o.openAlone(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer store.Close()
	i := slices.IndexFunc(infos, func(i log.Info) bool { return i.Name == name })
	if i < 0 {
		return fmt.Errorf("the store has no log %q", name)
	}
	fence, err := o.openFence(ctx) // one that was lost is made anew
	if err != nil {
		return err
	}
	defer fence.Close()
	return acceptLog(ctx, w, o, store, fence, infos[i])
}

func acceptLog(ctx context.Context, w io.Writer, o storeOptions, store log.Store, fence checkpoint.Fence, info log.Info) error {
	keys, err := fsckOptions{storeOptions: o}.pinnedKeys()
	if err != nil {
		return err
	}
	verifiers, err := keys(info)
	if err != nil {
		return err
	}
	if len(verifiers) == 0 {
		return withHint(fmt.Errorf("there is no seed at %s to check signatures with", o.seedPath()), "name it with --seed-file")
	}
	old, err := fence.Load(ctx, info.Origin)
	if err != nil {
		return err
	}
	opt := log.FsckOptions{Verifiers: verifiers}
	if old != nil {
		opt.Fence = fence
	}
	report, err := log.Fsck(ctx, store, info, opt)
	if err != nil {
		return err
	}
	result := fsckResult{Logs: []*log.FsckReport{report}}
	if code := result.judge(true, fsckOptions{}); code != exitOK {
		result.print(w, fsckOptions{})
		return &verdict{code, "the fence was not changed"}
	}
	newest, err := store.Checkpoint(ctx, info.ID, report.Signed)
	if err != nil {
		return err
	}
	act := log.Act{Action: "fence.accepted", Metadata: map[string]any{"origin": info.Origin, "size": newest.Size}}
	err = log.DoBeside(ctx, store, log.ByCommand("treeline fence accept", userName()), act, func(ctx context.Context) error {
		return fence.Swap(ctx, info.Origin, old, newest.Note)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "the fence records the checkpoint of size %d of log %s\n", newest.Size, info.Name)
	return nil
}
