package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/witness"
)

func newWitnessAddLogCmd() *cobra.Command {
	var o witnessState
	var k witness.LogKey
	cmd := &cobra.Command{
		Use:   "add-log VKEY",
		Short: "Make a log known to the witness, or a further key of one",
		Long: `Add-log makes a log known by its verifier key. A witness that runs takes it up within a second or two. A second key of a log
that is known is added to it. There is no way back: a witness that forgot a log would cosign a second history of it.`,
		Args: arguments(1, 1, "one VKEY"),
	}
	o.register(cmd.Flags())
	cmd.Flags().StringVar(&k.Origin, "origin", "", "the log's origin, if it isn't the key's name")
	cmd.Flags().Uint64Var(&k.QPD, "qpd", 0, "requests a day that the log may make; 0 for any number. Of a log that is known it isn't changed")
	cmd.Flags().StringVar(&k.Contact, "contact", "", "how to reach the log's operator, in your own words")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		k.VKey = args[0]
		key, err := witness.NewLogKey(k)
		if err != nil {
			return err
		}
		state, err := o.openBeside(cmd.Context(), true)
		if err != nil {
			return err
		}
		defer state.Close()
		added, err := state.AddKeys(cmd.Context(), []witness.LogKey{key}, true)
		if err != nil {
			return err
		}
		did := "added"
		if added == 0 {
			did = "is known already"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", printable(key.Origin, ""), did)
		return err
	}
	return cmd
}

// witnessedLog is a log as list-logs shows it.
type witnessedLog struct {
	Origin     string   `json:"origin"`
	VKeys      []string `json:"vkeys"`
	QPD        uint64   `json:"qpd"` // 0: no limit
	Contact    string   `json:"contact"`
	Size       uint64   `json:"size"`
	Root       string   `json:"root"`
	CosignedAt string   `json:"cosigned_at"` // "": never
}

func newWitnessListLogsCmd() *cobra.Command {
	var o witnessState
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list-logs",
		Short: "List the logs that the witness knows, and what it has cosigned of them",
		Args:  arguments(0, 0, "none"),
	}
	o.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		logs, err := witnessedLogs(cmd.Context(), o)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{"data": logs})
		}
		var rows [][]string
		for _, l := range logs {
			qpd := ""
			if l.QPD > 0 {
				qpd = strconv.FormatUint(l.QPD, 10)
			}
			rows = append(rows, []string{
				l.Origin, strconv.FormatUint(l.Size, 10), l.CosignedAt, strconv.Itoa(len(l.VKeys)), qpd, l.Contact,
			})
		}
		return printTable(cmd.OutOrStdout(), "ORIGIN\tSIZE\tCOSIGNED\tKEYS\tQPD\tCONTACT", rows)
	}
	return cmd
}

func witnessedLogs(ctx context.Context, o witnessState) ([]*witnessedLog, error) {
	state, err := o.openBeside(ctx, false)
	if err != nil {
		return nil, err
	}
	defer state.Close()
	keys, err := state.Keys(ctx, 0)
	if err != nil {
		return nil, err
	}
	logs := []*witnessedLog{}
	byOrigin := make(map[string]*witnessedLog)
	const page = 1000
	for after := ""; ; {
		heads, err := state.Heads(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for _, h := range heads {
			l := &witnessedLog{Origin: h.Origin, VKeys: []string{}, Size: h.Size, Root: h.Root.String()}
			if h.At > 0 {
				l.CosignedAt = h.Time().Format(time.RFC3339)
			}
			logs, byOrigin[h.Origin] = append(logs, l), l
			after = h.Origin
		}
		if len(heads) < page {
			break
		}
	}
	for _, k := range keys {
		if l := byOrigin[k.Origin]; l != nil { // or it became known in between
			if len(l.VKeys) == 0 {
				l.QPD, l.Contact = k.QPD, k.Contact
			}
			l.VKeys = append(l.VKeys, k.VKey)
		}
	}
	return logs, nil
}
