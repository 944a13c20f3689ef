package main

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

func newLogCmd() *cobra.Command {
	return newGroupCmd("log", "Create, list, succeed and look into the logs of a server", newLogCreateCmd(), newLogListCmd(), newLogSucceedCmd(), newLogEvidenceCmd())
}

// logInfo is what a server tells of one of its logs.
type logInfo struct {
	Name      string   `json:"name"`
	Origin    string   `json:"origin"`
	VKeys     []string `json:"vkeys"`
	Public    bool     `json:"public"`
	Stopped   string   `json:"stopped"`
	Frozen    bool     `json:"frozen"`
	CreatedAt string   `json:"created_at"`
	Sizes     struct {
		Size      uint64 `json:"size"`
		Signed    uint64 `json:"signed"`
		Witnessed uint64 `json:"witnessed"`
		Released  uint64 `json:"released"`
	} `json:"sizes"`
}

func newLogCreateCmd() *cobra.Command {
	var public, asJSON bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create a log and print its verifier keys",
		Long: `Create makes a new log and prints its verifier keys, a line each: what an auditor pins, and gives to
treeline verify as --vkey. A log's name is never used again, not even when the log is gone.`,
		Args: arguments(1, 1, "one NAME"),
	}
	client := addClientFlags(cmd)
	cmd.Flags().BoolVar(&public, "public", false, "let anyone read the log's checkpoint and tiles, which tell when and how much but never what")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		answer, err := c.postJSON(cmd.Context(), "/v1/logs", struct {
			Name   string `json:"name"`
			Public bool   `json:"public,omitempty"`
		}{args[0], public})
		if err != nil {
			return fmt.Errorf("create log %s: %w", args[0], err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
		}
		var l logInfo
		if err := decodeAnswer(answer, &l); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "created log %s with origin %s; its verifier keys:\n", printable(l.Name, ""), printable(l.Origin, ""))
		for _, vkey := range l.VKeys {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), printable(vkey, "")); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func newLogListCmd() *cobra.Command {
	return newListCmd("List the logs of a server", "logs", "NAME\tORIGIN\tSIZE\tSIGNED\tWITNESSED\tRELEASED\tPUBLIC\tCREATED\tSTATE",
		func(item json.RawMessage) ([]string, error) {
			var l logInfo
			err := decodeAnswer(item, &l)
			var state string
			switch {
			case l.Frozen:
				state = "frozen"
			case l.Stopped != "":
				state = "stopped"
			}
			number := func(n uint64) string { return strconv.FormatUint(n, 10) }
			return []string{
				l.Name, l.Origin, number(l.Sizes.Size), number(l.Sizes.Signed), number(l.Sizes.Witnessed), number(l.Sizes.Released),
				map[bool]string{true: "yes", false: "no"}[l.Public], l.CreatedAt, state,
			}, err
		})
}
