package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/log/postgres"
)

func newMigrateCmd() *cobra.Command {
	var db string
	group := newGroupCmd("migrate", "Bring a database's schema to this version, or a store into a database",
		&cobra.Command{
			Use:   "up",
			Short: "Take the steps that a PostgreSQL database hasn't taken yet",
			Long: `Take the steps that a PostgreSQL database hasn't taken yet. Give it a direct connection, not one through a pooler, and a
user who may make tables. A SQLite store is brought up by serve itself.`,
			Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return migrateUp(cmd.Context(), cmd.OutOrStdout(), db)
			},
		},
		&cobra.Command{
			Use:   "status",
			Short: "Show which steps a PostgreSQL database has taken",
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return migrateStatus(cmd.Context(), cmd.OutOrStdout(), db)
			},
		},
	)
	for _, cmd := range group.Commands() {
		cmd.Flags().StringVar(&db, "db", "", "the database, postgres://USER:PASSWORD@HOST:PORT/DATABASE")
	}
	group.AddCommand(newMigrateCopyCmd())
	return group
}

func checkMigrateDB(db string) error {
	if !(storeOptions{db: db}).onPostgres() {
		return errors.New("--db: want postgres://USER:PASSWORD@HOST:PORT/DATABASE; a SQLite store is brought up by serve itself")
	}
	return nil
}

func migrateUp(ctx context.Context, w io.Writer, db string) error {
	if err := checkMigrateDB(db); err != nil {
		return err
	}
	done, err := postgres.Migrate(ctx, db)
	for _, m := range done {
		fmt.Fprintf(w, "applied %s\n", m.Name)
	}
	if err == nil && len(done) == 0 {
		fmt.Fprintln(w, "nothing to do: the schema is this version's")
	}
	return err
}

func migrateStatus(ctx context.Context, w io.Writer, db string) error {
	if err := checkMigrateDB(db); err != nil {
		return err
	}
	all, err := postgres.MigrationStatus(ctx, db)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STEP\tTAKEN")
	for _, m := range all {
		taken := "no"
		if m.Applied {
			taken = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\n", m.Name, taken)
	}
	return t.Flush()
}
