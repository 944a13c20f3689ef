package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
)

// tailOptions are the flags of tail beside those of the client.
type tailOptions struct {
	log    string
	lines  int
	from   int64
	follow bool
	ndjson bool
}

func newTailCmd() *cobra.Command {
	var o tailOptions
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show the newest events, and follow the log",
		Long: `Tail prints the newest events of a log in their order, the newest last. With -f it goes on with every event that is appended, none left
out and none twice, until it is stopped; while the server can't be reached it waits for --retry-for, and then fails. With --from it
prints all events from that index on instead of the newest.`,
		Example: `  treeline tail -f
  treeline tail -f --from 0 --ndjson >> events.ndjson`,
		Args: arguments(0, 0, "none"),
	}
	client := addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	f.IntVarP(&o.lines, "lines", "n", 10, "how many of the newest events to print, at most 1000")
	f.Int64Var(&o.from, "from", -1, "`INDEX` of the first event to print, in place of --lines")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with new events")
	f.BoolVar(&o.ndjson, "ndjson", false, "print a record a line, as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.lines < 0 || o.lines > maxSearchPage {
			return fmt.Errorf("--lines %d: want 0 to %d; more can be had by --from, and by treeline search --limit", o.lines, maxSearchPage)
		}
		if o.from < -1 {
			return fmt.Errorf("--from %d: want the index of an event, from 0", o.from)
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		return tail(cmd.Context(), c, o, cmd.OutOrStdout())
	}
	return cmd
}

// tail prints the newest events, or those from an index on, and follows.
func tail(ctx context.Context, c *client, o tailOptions, w io.Writer) error {
	query := url.Values{}
	if o.log != "" {
		query.Set("log", o.log)
	}
	next := uint64(max(o.from, 0))
	if o.from < 0 {
		var err error
		if next, err = tailNewest(ctx, c, o, query, w); err != nil || !o.follow {
			return err
		}
	}
	for {
		var page struct {
			Data []json.RawMessage `json:"data"`
			Next uint64            `json:"next"`
			Size uint64            `json:"size"`
		}
		query.Set("from", strconv.FormatUint(next, 10))
		if !o.follow {
			query.Set("timeout", "0s")
		}
		err := c.getJSON(ctx, "/v1/feed", query, &page)
		if ctx.Err() != nil && o.follow {
			return nil // that is how following ends
		}
		if err != nil {
			return fmt.Errorf("tail: %w", err)
		}
		if err := o.print(w, page.Data); err != nil {
			return err
		}
		if next = page.Next; !o.follow && next >= page.Size {
			return nil
		}
	}
}

// tailNewest prints the newest events, and returns the index after them.
func tailNewest(ctx context.Context, c *client, o tailOptions, log url.Values, w io.Writer) (uint64, error) {
	query := url.Values{"limit": {strconv.Itoa(max(o.lines, 1))}}
	if name := log.Get("log"); name != "" {
		query.Set("log", name)
	}
	var newest []json.RawMessage
	for first, next := true, uint64(0); ; first = false {
		var page eventPage
		if err := c.getJSON(ctx, "/v1/events", query, &page); err != nil {
			return 0, fmt.Errorf("tail: %w", err)
		}
		if first {
			next = page.Searched.To
		}
		newest = append(newest, page.Data...)
		if len(newest) >= o.lines || !page.HasMore || page.NextCursor == nil {
			newest = newest[:min(len(newest), o.lines)]
			slices.Reverse(newest)
			return next, o.print(w, newest)
		}
		query.Set("cursor", *page.NextCursor)
	}
}

// print prints records in the order of their indices.
func (o tailOptions) print(w io.Writer, records []json.RawMessage) error {
	if o.ndjson {
		return ndjsonWriter{w}.records(records)
	}
	for _, r := range records {
		row, err := eventRow(r)
		if err != nil {
			return err
		}
		for i, cell := range row {
			if row[i] = printable(cell, ""); cell == "" {
				row[i] = "-"
			}
		}
		// Who follows sees each line at once, so columns are as wide as they usually need to be.
		if _, err := fmt.Fprintf(w, "%-20s  %-24s  %-28s  %-24s  %-7s  %s\n", row[0], row[1], row[2], row[3], row[4], row[5]); err != nil {
			return err
		}
	}
	return nil
}
