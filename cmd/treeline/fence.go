package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/sqlite"
)

func newFenceCmd() *cobra.Command {
	var o storeOptions
	with := func(cmd *cobra.Command, fn func(ctx context.Context, w io.Writer, fence *checkpoint.FileFence, arg string) error) *cobra.Command {
		o.register(cmd.Flags())
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			fence, err := o.readFence()
			if err != nil {
				return err
			}
			if fence == nil && cmd.Name() == "accept" {
				fence, err = checkpoint.OpenFileFence(o.fencePath()) // a lost one is made anew
			} else if fence == nil {
				err = fmt.Errorf("there is no fence at %s", o.fencePath())
			}
			if err != nil {
				return err
			}
			arg := ""
			if len(args) > 0 {
				arg = args[0]
			}
			return fn(cmd.Context(), cmd.OutOrStdout(), fence, arg)
		}
		return cmd
	}
	return newGroupCmd("fence", "Show or mend the record of signed checkpoints outside the store",
		with(&cobra.Command{
			Use:   "show",
			Short: "Print the newest checkpoint that the fence records of each log",
			Args:  cobra.NoArgs,
		}, showFence),
		with(&cobra.Command{
			Use:   "accept LOG",
			Short: "Let the fence record what the store has signed",
			Long: `Let the fence record the newest checkpoint that the store has of a log, after checking all of the log (as fsck does).
For a store that was moved without its fence. It refuses a store that is behind the fence: then entries that were signed
are gone, and signing anew would make a second history. Stop the server first.`,
			Args: arguments(1, 1, "the log's name"),
		}, func(ctx context.Context, w io.Writer, fence *checkpoint.FileFence, name string) error {
			return acceptFence(ctx, w, o, fence, name)
		}),
		with(&cobra.Command{
			Use:   "drop ORIGIN",
			Short: "Forget a log that was given up for good",
			Long: `Forget a log whose store is given up for good, so that the server starts without it. Whoever holds a checkpoint of that log
can still show that it existed. Its name and origin must never be used again. Stop the server first.`,
			Args: arguments(1, 1, "the log's origin"),
		}, func(ctx context.Context, w io.Writer, fence *checkpoint.FileFence, origin string) error {
			return dropFence(ctx, w, o, fence, origin)
		}),
	)
}

// dropFence forgets a log, but not one that the store has: its checkpoints are what keeps it from being rolled back.
func dropFence(ctx context.Context, w io.Writer, o storeOptions, fence *checkpoint.FileFence, origin string) error {
	path, err := o.dbPath()
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		store, err := openAlone(ctx, path)
		if err != nil {
			return err
		}
		defer store.Close()
		infos, err := store.Logs(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(infos, func(i log.Info) bool { return i.Origin == origin }) {
			return fmt.Errorf("the store at %s has the log %s: its fence can't be dropped while it is there", path, origin)
		}
	}
	if err := fence.Drop(ctx, origin); err != nil {
		return err
	}
	fmt.Fprintf(w, "the fence no longer knows %s\n", origin)
	return nil
}

// openAlone opens a store for writing, though nothing is written: no server may run meanwhile.
func openAlone(ctx context.Context, path string) (*sqlite.Store, error) {
	store, err := sqlite.Open(ctx, path)
	if errors.Is(err, sqlite.ErrLocked) {
		err = withHint(err, "stop the server first")
	}
	return store, err
}

func showFence(ctx context.Context, w io.Writer, fence *checkpoint.FileFence, _ string) error {
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

func acceptFence(ctx context.Context, w io.Writer, o storeOptions, fence *checkpoint.FileFence, name string) error {
	path, err := o.dbPath()
	if err != nil {
		return err
	}
	store, err := openAlone(ctx, path)
	if err != nil {
		return err
	}
	defer store.Close()
	infos, err := store.Logs(ctx)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if info.Name == name {
			return acceptLog(ctx, w, o, store, fence, info)
		}
	}
	return fmt.Errorf("the store has no log %q", name)
}

func acceptLog(ctx context.Context, w io.Writer, o storeOptions, store *sqlite.Store, fence *checkpoint.FileFence, info log.Info) error {
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
	if err := fence.Swap(ctx, info.Origin, old, newest.Note); err != nil {
		return err
	}
	fmt.Fprintf(w, "the fence records the checkpoint of size %d of log %s\n", newest.Size, info.Name)
	return nil
}
