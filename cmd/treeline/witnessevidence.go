package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/witness"
)

func newWitnessEvidenceCmd() *cobra.Command {
	var o witnessState
	cmd := &cobra.Command{
		Use:   "evidence",
		Short: "Show the checkpoints that logs have signed and that contradict what was cosigned",
		Long: `Evidence shows what the witness refused although the log's key has signed it, beside what it had cosigned: "fork" is another
root of the same size, which proves that the log has two histories; "empty" a root that no tree of size 0 has; "inconsistent" a
larger tree with a proof that doesn't verify, for which a broken proof is reason enough. If there is proof that a log has two
histories the exit code is 5.`,
		Args: arguments(0, 0, "none"),
	}
	o.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		state, err := o.openBeside(cmd.Context(), false)
		if err != nil {
			return err
		}
		defer state.Close()
		all, err := state.Evidence(cmd.Context())
		if err != nil {
			return err
		}
		return showEvidence(cmd.OutOrStdout(), all)
	}
	return cmd
}

func showEvidence(w io.Writer, all []witness.Evidence) error {
	forks := make(map[string]bool)
	for _, e := range all {
		origin := printable(e.Refused.Origin, "")
		if e.Conflict == witness.ConflictFork {
			forks[origin] = true
		}
		fmt.Fprintf(w, "%s: %s at size %d, refused %s. The request:\n\n", origin, e.Conflict, e.Refused.Size,
			time.Unix(e.Seen, 0).UTC().Format(time.RFC3339))
		fmt.Fprintf(w, "%s\n\n", indented(string(e.Proof)+"\n"+string(e.Note)))
		if e.Cosigned != nil {
			fmt.Fprintf(w, "Cosigned was, %s:\n\n%s\n\n", e.Head.Time().Format(time.RFC3339), indented(string(e.Cosigned)))
		}
	}
	switch {
	case len(forks) > 0:
		return &verdict{exitDiverged, fmt.Sprintf("%d logs have signed two trees of one size", len(forks))}
	case len(all) == 0:
		fmt.Fprintln(w, "no log contradicts what was cosigned")
	}
	return nil
}

// indented returns a text of lines with two spaces before each, and nothing in it that could drive a terminal.
func indented(text string) string {
	text = strings.TrimSuffix(printable(text, "\n"), "\n")
	return "  " + strings.ReplaceAll(text, "\n", "\n  ")
}
