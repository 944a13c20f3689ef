package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// listAll gets every page of the list at path, in the server's order.
func listAll(ctx context.Context, c *client, path string) ([]json.RawMessage, error) {
	items := []json.RawMessage{}
	query := url.Values{}
	for {
		var page struct {
			Data       []json.RawMessage `json:"data"`
			NextCursor *string           `json:"next_cursor"`
			HasMore    bool              `json:"has_more"`
		}
		if err := c.getJSON(ctx, path, query, &page); err != nil {
			return nil, err
		}
		items = append(items, page.Data...)
		if !page.HasMore || page.NextCursor == nil {
			return items, nil
		}
		query.Set("cursor", *page.NextCursor)
	}
}

// newListCmd returns a command "list" that prints what the server lists at /v1/<what>: a table under header, a row an
// item, or the server's items as they are with --json.
func newListCmd(short, what, header string, row func(item json.RawMessage) ([]string, error)) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Short: short, Args: arguments(0, 0, "none")}
	client := addClientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		items, err := listAll(cmd.Context(), c, "/v1/"+what)
		if err != nil {
			return fmt.Errorf("list %s: %w", what, err)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{"data": items})
		}
		rows := make([][]string, len(items))
		for i, item := range items {
			if rows[i], err = row(item); err != nil {
				return fmt.Errorf("list %s: %w", what, err)
			}
		}
		return printTable(cmd.OutOrStdout(), header, rows)
	}
	return cmd
}

// printTable writes rows to w in aligned columns under header, whose columns are set apart by tabs; "" for none. An empty cell
// is shown as "-".
func printTable(w io.Writer, header string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if header != "" {
		fmt.Fprintln(t, header)
	}
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			if cell == "" {
				cell = "-"
			}
			fmt.Fprint(t, printable(cell, ""))
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
