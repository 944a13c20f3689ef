package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHoldCmd() *cobra.Command {
	return newGroupCmd("hold", "Keep events from being purged or erased, for as long as a matter takes",
		newHoldPlaceCmd(), newHoldListCmd(), newHoldShowCmd(), newHoldReleaseCmd())
}

// holdInfo is what a server tells of a hold.
type holdInfo struct {
	ID         string         `json:"id"`
	Log        string         `json:"log"`
	State      string         `json:"state"`
	Matter     string         `json:"matter"`
	Reason     string         `json:"reason"`
	Filter     map[string]any `json:"filter"`
	PlacedBy   actorInfo      `json:"placed_by"`
	PlacedAt   string         `json:"placed_at"`
	ReleasedBy *actorInfo     `json:"released_by"`
	ReleasedAt string         `json:"released_at"`
	Release    string         `json:"release_reason"`
}

// selects says which events a hold keeps.
func (h holdInfo) selects() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(h.Filter)) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, h.Filter[name]))
	}
	if parts == nil {
		return "all events"
	}
	return strings.Join(parts, " ")
}

func (h holdInfo) print(w io.Writer) error {
	return printTable(w, "", [][]string{
		{"hold", h.ID}, {"log", h.Log}, {"state", h.State}, {"matter", h.Matter}, {"reason", h.Reason}, {"keeps", h.selects()},
		{"placed", h.PlacedAt}, {"placed by", h.PlacedBy.text()}, {"released", h.ReleasedAt}, {"released by", h.ReleasedBy.text()},
		{"released since", h.Release},
	})
}

// absoluteTimes makes times before now in filters absolute: what they are for is kept.
func absoluteTimes(filters url.Values) error {
	for _, name := range []string{"from", "to", "received_from", "received_to"} {
		for i, text := range filters[name] {
			back, ok := strings.CutPrefix(text, "-")
			if !ok || !agoRE.MatchString(back) {
				continue
			}
			unit := map[byte]time.Duration{'d': 24 * time.Hour, 'h': time.Hour, 'm': time.Minute, 's': time.Second}[back[len(back)-1]]
			var n int64
			if _, err := fmt.Sscan(back[:len(back)-1], &n); err != nil || n > 36_500*24*3600 {
				return fmt.Errorf("%s: %q is too far back", name, back)
			}
			filters[name][i] = time.Now().Add(-time.Duration(n) * unit).UTC().Format("2006-01-02T15:04:05.000000Z")
		}
	}
	return nil
}

// filterJSON returns filters as the server takes them in JSON.
func filterJSON(filters url.Values) map[string]any {
	out := map[string]any{}
	for name, values := range filters {
		out[name] = values
	}
	return out
}

// logQuery returns the parameter that names a log, if one is named.
func logQuery(log string) url.Values {
	if log == "" {
		return nil
	}
	return url.Values{"log": {log}}
}

// aboutOne runs a command about one thing of a log: it sends a request and prints what is answered.
func aboutOne(cmd *cobra.Command, flags *clientFlags, r *request, asJSON bool, v interface{ print(io.Writer) error }) error {
	c, err := newClient(cmd, flags)
	if err != nil {
		return err
	}
	answer, err := c.do(cmd.Context(), r)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), json.RawMessage(answer))
	}
	if err := decodeAnswer(answer, v); err != nil {
		return err
	}
	return v.print(cmd.OutOrStdout())
}

func newHoldPlaceCmd() *cobra.Command {
	var log, matter, reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "place [QUERY] --matter MATTER --reason REASON",
		Short: "Place a hold on the events that a query finds, or on all",
		Long: `Place keeps the events that a query finds, also those that are still to come, from being purged or erased until the hold is released. A
QUERY is that of treeline search, whose help has the grammar; without one all of the log is held. The hold is an event in the log.`,
		Example: `  treeline hold place 'actor:user_456' --matter 'Doe v. Acme' --reason 'letter of 2026-11-23'`,
	}
	client := addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	f.StringVar(&matter, "matter", "", "what it is for: a lawsuit, an inquiry")
	f.StringVar(&reason, "reason", "", "why")
	f.BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		filters, err := parseSearch(strings.Join(args, " "))
		if err == nil {
			err = absoluteTimes(filters)
		}
		if err != nil {
			return fmt.Errorf("place hold: %w", err)
		}
		r, err := jsonRequest(http.MethodPost, "/v1/holds", map[string]any{"matter": matter, "reason": reason, "filter": filterJSON(filters)})
		if err != nil {
			return err
		}
		r.query = logQuery(log)
		if err := aboutOne(cmd, client, r, asJSON, new(holdInfo)); err != nil {
			return fmt.Errorf("place hold: %w", err)
		}
		return nil
	}
	return cmd
}

// newListOfLogCmd returns a command "list" of what a log has.
func newListOfLogCmd(short, what, header string, row func(item json.RawMessage) ([]string, error)) *cobra.Command {
	var log string
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Short: short, Args: arguments(0, 0, "none")}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		var page struct {
			Data []json.RawMessage `json:"data"`
		}
		if err := c.getJSON(cmd.Context(), "/v1/"+what, logQuery(log), &page); err != nil {
			return fmt.Errorf("list %s: %w", what, err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), page)
		}
		rows := make([][]string, len(page.Data))
		for i, item := range page.Data {
			if rows[i], err = row(item); err != nil {
				return fmt.Errorf("list %s: %w", what, err)
			}
		}
		return printTable(cmd.OutOrStdout(), header, rows)
	}
	return cmd
}

func newHoldListCmd() *cobra.Command {
	return newListOfLogCmd("List the holds of a log, those that were released among them", "holds", "ID\tSTATE\tMATTER\tKEEPS\tPLACED\tPLACED BY\tRELEASED",
		func(item json.RawMessage) ([]string, error) {
			var h holdInfo
			err := decodeAnswer(item, &h)
			return []string{h.ID, h.State, h.Matter, h.selects(), h.PlacedAt, h.PlacedBy.text(), h.ReleasedAt}, err
		})
}

func newHoldShowCmd() *cobra.Command {
	var log string
	var asJSON bool
	cmd := &cobra.Command{Use: "show ID", Short: "Show a hold", Args: arguments(1, 1, "the ID of a hold")}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r := &request{method: http.MethodGet, path: "/v1/holds/" + url.PathEscape(args[0]), query: logQuery(log), repeatable: true}
		if err := aboutOne(cmd, client, r, asJSON, new(holdInfo)); err != nil {
			return fmt.Errorf("show hold %s: %w", args[0], err)
		}
		return nil
	}
	return cmd
}

func newHoldReleaseCmd() *cobra.Command {
	var log, reason string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "release ID --reason REASON", Short: "Release a hold",
		Long: "Release ends a hold. What it alone kept, and has expired, is purged by the next run.",
		Args: arguments(1, 1, "the ID of a hold"),
	}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	cmd.Flags().StringVar(&reason, "reason", "", "why")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the server's answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := jsonRequest(http.MethodPost, "/v1/holds/"+url.PathEscape(args[0])+"/release", map[string]string{"reason": reason})
		if err != nil {
			return err
		}
		r.query = logQuery(log)
		if err := aboutOne(cmd, client, r, asJSON, new(holdInfo)); err != nil {
			return fmt.Errorf("release hold %s: %w", args[0], err)
		}
		return nil
	}
	return cmd
}
