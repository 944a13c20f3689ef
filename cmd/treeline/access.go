package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// accessInfo is what a server tells of an act, or of reads.
type accessInfo struct {
	At     string `json:"at"`
	Action string `json:"action"`
	Actor  struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"actor"`
	IP      string `json:"ip"`
	Outcome string `json:"outcome"`
	Keys    []struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"keys"`
	Changes []struct {
		Field string          `json:"field"`
		After json.RawMessage `json:"after"`
	} `json:"changes"`
	Metadata map[string]json.RawMessage `json:"metadata"`
}

func newAccessCmd() *cobra.Command {
	var log, actor, from, to string
	var actions []string
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Show who read a log, and what was done to it and its keys",
		Long: `Access shows what the server's own log, system, tells of one log: the acts by which the log was set up and its keys were made and
ended, exports, and how often each key read what, in each minute; newest first. It is for an auditor's or manager's key of the
log, or an admin's.`,
		Example: `  treeline access --from -7d --action treeline.log.read
  treeline access --log acme --action 'treeline.key.*' --key-file treeline-data/admin.key`,
		Args: arguments(0, 0, "none"),
	}
	client := addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&log, "log", "", "`NAME` of the log, for an admin's key")
	f.StringVar(&actor, "actor", "", "only what was done with the key of this `ID`")
	f.StringArrayVar(&actions, "action", nil, "only these `ACTION`s, or with * at the end those that begin so (repeatable)")
	f.StringVar(&from, "from", "", "only what was at or after this `TIME`: RFC 3339, or before now, such as -7d, -12h, -30m")
	f.StringVar(&to, "to", "", "only what was before this `TIME`")
	f.IntVar(&limit, "limit", 100, "how many to show; 0: all")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 {
			return fmt.Errorf("--limit %d: want 0 or more", limit)
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		query := url.Values{}
		for name, value := range map[string]string{"log": log, "actor_id": actor, "from": from, "to": to} {
			if value != "" {
				query.Set(name, value)
			}
		}
		query["action"] = actions
		items, err := listUpTo(cmd.Context(), c, "/v1/access", query, limit)
		if err != nil {
			return fmt.Errorf("access: %w", err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{"data": items})
		}
		rows := make([][]string, len(items))
		for i, item := range items {
			var a accessInfo
			if err := decodeAnswer(item, &a); err != nil {
				return fmt.Errorf("access: %w", err)
			}
			by := a.Actor.ID
			if a.Actor.Name != "" {
				by += " (" + a.Actor.Name + ")"
			}
			rows[i] = []string{a.At, strings.TrimPrefix(a.Action, "treeline."), by, a.IP, a.what()}
		}
		return printTable(cmd.OutOrStdout(), "AT\tACTION\tBY\tIP\tWHAT", rows)
	}
	return cmd
}

// listUpTo gets pages of the list at path until there are that many items, 0 for all.
func listUpTo(ctx context.Context, c *client, path string, query url.Values, limit int) ([]json.RawMessage, error) {
	const maxPage = 1000
	items := []json.RawMessage{}
	for {
		page := maxPage
		if limit > 0 {
			page = min(maxPage, limit-len(items))
		}
		query.Set("limit", strconv.Itoa(page))
		var answer struct {
			Data       []json.RawMessage `json:"data"`
			NextCursor *string           `json:"next_cursor"`
		}
		if err := c.getJSON(ctx, path, query, &answer); err != nil {
			return nil, err
		}
		items = append(items, answer.Data...)
		if answer.NextCursor == nil || limit > 0 && len(items) >= limit {
			return items, nil
		}
		query.Set("cursor", *answer.NextCursor)
	}
}

// what says in a line what was done: the keys it was done to, what settings became, and whatever else is told of it.
func (a *accessInfo) what() string {
	var parts []string
	for _, k := range a.Keys {
		part := "key " + k.ID
		if k.Name != "" {
			part += " (" + k.Name + ")"
		}
		parts = append(parts, part)
	}
	for _, c := range a.Changes {
		parts = append(parts, c.Field+"="+string(c.After))
	}
	var reads map[string]uint64
	if json.Unmarshal(a.Metadata["reads"], &reads) == nil {
		for _, kind := range slices.Sorted(maps.Keys(reads)) {
			parts = append(parts, fmt.Sprintf("%d %s", reads[kind], kind))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Metadata)) {
		var text string
		if name == "reads" {
			continue
		} else if json.Unmarshal(a.Metadata[name], &text) != nil {
			text = string(a.Metadata[name])
		}
		parts = append(parts, name+"="+text)
	}
	if a.Outcome != "" {
		parts = append(parts, "outcome="+a.Outcome)
	}
	return strings.Join(parts, ", ")
}
