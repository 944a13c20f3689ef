package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/log"
)

func newLogEvidenceCmd() *cobra.Command {
	var o storeOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "evidence [LOG…]",
		Short: "Show what witnesses have said against logs",
		Long: `Show what the store keeps of contradictions between its logs and their witnesses: checkpoints that witnesses have shown
under a log's key and that aren't in its history, with the log's own newest checkpoint at that time; claims of larger sizes, by
enough witnesses for the quorum; and which claims an operator has accepted. It reads the store itself, beside a server or without.

Exit codes: 0 there is no contradiction; 1 could not run; 5 there is.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return showLogEvidence(cmd, o, args, asJSON)
		},
	}
	o.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

// logEvidence is evidence as it is printed.
type logEvidence struct {
	Log     string `json:"log"`
	Kind    string `json:"kind"`
	Witness string `json:"witness,omitempty"`
	Size    uint64 `json:"size"`
	At      string `json:"at"`
	Ours    string `json:"ours"`
	Theirs  string `json:"theirs,omitempty"`
}

func showLogEvidence(cmd *cobra.Command, o storeOptions, names []string, asJSON bool) error {
	store, err := o.openReader(cmd.Context())
	if err != nil {
		return err
	}
	defer store.Close()
	infos, err := store.Logs(cmd.Context())
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(infos, func(i log.Info) bool { return i.Name == name }) {
			return fmt.Errorf("the store has no log %q", name)
		}
	}
	all, contradicted := []logEvidence{}, false
	for _, info := range infos {
		if len(names) > 0 && !slices.Contains(names, info.Name) {
			continue
		}
		evidence, err := store.Evidence(cmd.Context(), info.ID)
		if err != nil {
			return err
		}
		for _, e := range evidence {
			all = append(all, logEvidence{
				Log: info.Name, Kind: e.Kind, Witness: e.Key, Size: e.Size, At: time.UnixMicro(e.At).UTC().Format(time.RFC3339),
				Ours: string(e.Ours), Theirs: string(e.Theirs),
			})
			contradicted = contradicted || e.Kind == log.EvidenceContradiction
		}
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), all); err != nil {
			return err
		}
	} else {
		printLogEvidence(cmd.OutOrStdout(), all)
	}
	if contradicted {
		return &verdict{exitDiverged, "a witness has seen another history of a log"}
	}
	return nil
}

func printLogEvidence(w io.Writer, all []logEvidence) {
	if len(all) == 0 {
		fmt.Fprintln(w, "there is none")
	}
	for _, e := range all {
		switch e.Kind {
		case log.EvidenceContradiction:
			fmt.Fprintf(w, "log %s: at %s witness %s showed a checkpoint under the log's key that isn't in its history:\n\n%s\n"+
				"The log's own newest one was then:\n\n%s\n", e.Log, e.At, e.Witness, e.Theirs, e.Ours)
		case log.EvidenceClaim:
			fmt.Fprintf(w, "log %s: at %s witness %s claimed that it had %d entries, without showing anything\n", e.Log, e.At, e.Witness, e.Size)
		case log.EvidenceAccepted:
			fmt.Fprintf(w, "log %s: at %s an operator let claims pass up to size %d\n", e.Log, e.At, e.Size)
		}
	}
}
