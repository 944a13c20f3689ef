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

	"github.com/treeline-log/treeline/log"
)

func newReindexCmd() *cobra.Command {
	var o storeOptions
	cmd := &cobra.Command{
		Use:   "reindex [LOG…]",
		Short: "Build the search index anew from the record",
		Long: `Build the search index of all logs, or of those that are named, anew from the record. Nothing of the record is changed. Stop the
server first. Until a log is indexed again its searches are slow, but exact: so if this is interrupted, or the index's file
is just removed, a server builds the rest by itself.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return reindex(cmd.Context(), o, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.register(cmd.Flags())
	return cmd
}

func reindex(ctx context.Context, o storeOptions, names []string, stdout, stderr io.Writer) error {
	store, infos, err := o.openAlone(ctx, slog.New(slog.NewTextHandler(stderr, nil)))
	if errors.Is(err, os.ErrNotExist) {
		path, _ := o.dbPath()
		return withHint(fmt.Errorf("there is no store at %s", path), "name it with --data-dir or --db")
	}
	if err != nil {
		return err
	}
	defer store.Close()
	for _, name := range names {
		if !slices.ContainsFunc(infos, func(i log.Info) bool { return i.Name == name }) {
			return fmt.Errorf("the store has no log %q", name)
		}
	}
	for _, info := range infos {
		if len(names) > 0 && !slices.Contains(names, info.Name) {
			continue
		}
		head, err := store.Head(ctx, info.ID)
		if err != nil {
			return fmt.Errorf("reading the head of log %s: %w", info.Name, err)
		}
		bar := newProgress(stderr, int64(head.Size), "log "+info.Name)
		err = log.Reindex(ctx, store, info, func(n int) { bar.add(int64(n)) })
		bar.finish()
		if err != nil {
			return err
		}
		at, err := store.Indexed(ctx, info.ID)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "log %s: %d of %d events are indexed", info.Name, at.Size, head.Size)
		if rest := head.Size - at.Size; rest > 0 {
			fmt.Fprintf(stdout, "; the newest %d don't fill a segment yet, searches read them themselves", rest)
		}
		fmt.Fprintln(stdout)
	}
	return nil
}
