package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
)

func newMigrateCopyCmd() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "copy",
		Short: "Move a SQLite store into a PostgreSQL database",
		Long: `Move a SQLite store into an empty PostgreSQL database that migrate up has prepared: logs, keys, events and checkpoints, byte
for byte, under the same origins and verifier keys, so that every proof stays valid. Stop the server first.

Everything is re-hashed and compared, and only then the old store is marked: treeline serve refuses it for ever, and it can
still be read. Until then treeline serve refuses the database. A copy that was interrupted, however, is resumed by the same
command. Seed and fence aren't in the store: start the new server with those of the old one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return migrateCopy(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), from, to)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the store to move, sqlite:PATH")
	cmd.Flags().StringVar(&to, "to", "", "the database to move it to, postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	return cmd
}

func migrateCopy(ctx context.Context, stdout, stderr io.Writer, from, to string) error {
	path, ok := strings.CutPrefix(from, "sqlite:")
	if !ok || path == "" {
		return errors.New("--from: want sqlite:PATH")
	}
	if !(storeOptions{db: to}).onPostgres() {
		return errors.New("--to: want postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	source, _, err := storeOptions{db: from}.openAlone(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := postgres.Open(ctx, postgres.Options{URL: to, Lanes: 1, Unhurried: true})
	if err != nil {
		return err
	}
	defer target.Close()
	total, err := events(ctx, source)
	if err != nil {
		return err
	}
	bar := newProgress(stderr, 2*total, "copying")
	r, err := log.Copy(ctx, source, target, log.CopyOptions{
		Source: from, Target: target.Address(), Progress: func(n int) { bar.add(int64(n)) },
	})
	bar.finish()
	if err != nil {
		return fmt.Errorf("copying %s to %s: %w", from, target.Address(), err)
	}
	if r.Before {
		fmt.Fprintf(stdout, "nothing to do: %s was moved to %s before\n", path, target.Address())
		return nil
	}
	logs := fmt.Sprintf("%d logs", r.Logs)
	if r.Hub {
		logs += " and the hub"
	}
	fmt.Fprintf(stdout, `moved %s with %d events (%d of them now) to %s
Both sides were compared. %s is marked as moved: it can be read, but not served again.
Start the server with --db, and with the seed and the fence of the old one.
`, logs, r.Events, r.Copied, target.Address(), path)
	return nil
}

// events returns how many events a store has.
func events(ctx context.Context, store log.Store) (total int64, err error) {
	sizes, err := store.Sizes(ctx)
	for _, n := range sizes {
		total += int64(n)
	}
	return total, err
}
