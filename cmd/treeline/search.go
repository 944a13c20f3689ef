package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// maxSearchPage is how many events are asked for at a time, at most.
const maxSearchPage = 1000

// searchOptions are the flags of search beside those of the client.
type searchOptions struct {
	log    string
	limit  int
	all    bool
	oldest bool
	json   bool
	ndjson bool

	changes bool // a column with them in the table
}

func newSearchCmd() *cobra.Command {
	var o searchOptions
	cmd := &cobra.Command{
		Use:   "search [QUERY]",
		Short: "Find events",
		Long: `Search prints the events that a query finds, newest first; without a query the newest events.

` + searchGrammar,
		Example: `  treeline search 'actor:user_456 action:user.permission.* since:90d'
  treeline search 'target:user_456 action:user.permission.*' --changes
  treeline search 'target:doc_7 outcome:denied outcome:failure metadata.plan:pro' --all --ndjson
  treeline search 'jane invoice*'`,
	}
	client := addClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	f.IntVar(&o.limit, "limit", 50, "how many events to print at most")
	f.BoolVar(&o.all, "all", false, "print all that are found")
	f.BoolVar(&o.oldest, "oldest", false, "oldest first")
	f.BoolVar(&o.json, "json", false, "print one JSON object: the records, and which part of the log was searched")
	f.BoolVar(&o.ndjson, "ndjson", false, "print a record a line, as JSON")
	f.BoolVar(&o.changes, "changes", false, "print what was changed, too, from what to what")
	cmd.MarkFlagsMutuallyExclusive("json", "ndjson", "changes")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if o.limit < 1 {
			return fmt.Errorf("--limit %d: want 1 or more, or --all", o.limit)
		}
		filters, err := parseSearch(strings.Join(args, " "))
		if err != nil {
			return fmt.Errorf("search: %w", err)
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		return search(cmd.Context(), c, o, filters, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// eventPage is an answer of GET /v1/events.
type eventPage struct {
	Data       []json.RawMessage `json:"data"`
	NextCursor *string           `json:"next_cursor"`
	HasMore    bool              `json:"has_more"`
	Size       uint64            `json:"size"`
	Searched   indexRange        `json:"searched"`
}

// indexRange is a part of a log.
type indexRange struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// search prints what the filters select, a page at a time.
func search(ctx context.Context, c *client, o searchOptions, filters url.Values, stdout, stderr io.Writer) error {
	query := maps.Clone(filters)
	if o.log != "" {
		query.Set("log", o.log)
	}
	if o.oldest {
		query.Set("order", "oldest")
	}
	out := o.writer(stdout)
	var all indexRange
	for n, first := 0, true; ; first = false {
		limit := maxSearchPage
		if !o.all {
			limit = min(limit, o.limit-n)
		}
		query.Set("limit", strconv.Itoa(limit))
		var page eventPage
		if err := c.getJSON(ctx, "/v1/events", query, &page); err != nil {
			return fmt.Errorf("search: %w", err)
		}
		switch {
		case first:
			all = page.Searched
		case o.oldest:
			all.To = page.Searched.To
		default:
			all.From = page.Searched.From
		}
		if err := out.records(page.Data); err != nil {
			return err
		}
		n += len(page.Data)
		if more := page.HasMore && page.NextCursor != nil; !more || !o.all && n >= o.limit {
			return out.end(searched{N: n, HasMore: more, Size: page.Size, Searched: all}, stderr)
		}
		query.Set("cursor", *page.NextCursor)
	}
}

// searched is what a search says at its end.
type searched struct {
	N        int        `json:"-"`
	HasMore  bool       `json:"has_more"`
	Size     uint64     `json:"size"`
	Searched indexRange `json:"searched"`
}

// searchWriter prints records in one form or another.
type searchWriter interface {
	records(page []json.RawMessage) error
	end(s searched, stderr io.Writer) error
}

func (o searchOptions) writer(w io.Writer) searchWriter {
	switch {
	case o.ndjson:
		return ndjsonWriter{w}
	case o.json:
		return &jsonWriter{w: w}
	}
	return &tableWriter{w: w, changes: o.changes}
}

// ndjsonWriter prints a record a line.
type ndjsonWriter struct{ w io.Writer }

func (n ndjsonWriter) records(page []json.RawMessage) error {
	for _, r := range page {
		if _, err := fmt.Fprintf(n.w, "%s\n", r); err != nil {
			return err
		}
	}
	return nil
}

func (n ndjsonWriter) end(searched, io.Writer) error { return nil }

// jsonWriter prints one object, with a record a line in it.
type jsonWriter struct {
	w     io.Writer
	begun bool
}

func (j *jsonWriter) records(page []json.RawMessage) error {
	for _, r := range page {
		before := ",\n"
		if !j.begun {
			before, j.begun = "{\"data\":[\n", true
		}
		if _, err := fmt.Fprintf(j.w, "%s%s", before, r); err != nil {
			return err
		}
	}
	return nil
}

func (j *jsonWriter) end(s searched, _ io.Writer) error {
	before := "\n],"
	if !j.begun {
		before = `{"data":[],`
	}
	rest, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(j.w, "%s%s\n", before, rest[1:])
	return err
}

// tableWriter prints a table, whose columns are aligned within a page.
type tableWriter struct {
	w       io.Writer
	begun   bool
	changes bool
}

func (t *tableWriter) records(page []json.RawMessage) error {
	header := eventHeader
	if t.changes {
		header += "\tCHANGES"
	}
	if t.begun && len(page) == 0 {
		return nil
	} else if t.begun {
		header = ""
	}
	rows := make([][]string, len(page))
	for i, r := range page {
		var err error
		if rows[i], err = eventRow(r); err != nil {
			return err
		}
		if t.changes {
			changes, err := eventChanges(r)
			if err != nil {
				return err
			}
			rows[i] = append(rows[i], changes)
		}
	}
	t.begun = true
	return printTable(t.w, header, rows)
}

func (t *tableWriter) end(s searched, stderr io.Writer) error {
	verb := "found; the log has"
	if s.HasMore {
		verb = "shown, there may be more (--limit N, --all); the log has"
	}
	fmt.Fprintf(stderr, "%d %s %d events\n", s.N, verb, s.Size)
	return nil
}

const eventHeader = "TIME\tACTOR\tACTION\tTARGET\tOUTCOME\tID"

// eventRow returns a record as a row under eventHeader.
func eventRow(record json.RawMessage) ([]string, error) {
	e, err := shownOf(record)
	if err != nil {
		return nil, err
	}
	at := e.OccurredAt
	if at == "" {
		at = e.ReceivedAt
	}
	if second, _, ok := strings.Cut(at, "."); ok {
		at = second + "Z"
	}
	target := ""
	if n := len(e.Targets); n > 0 {
		first := e.Targets[0]
		target = strings.TrimPrefix(first.Type+" "+named(first.ID, first.Name), " ")
		if n > 1 {
			target += fmt.Sprintf(" +%d", n-1)
		}
	}
	return []string{at, named(e.Actor.ID, e.Actor.Email, e.Actor.Name), e.Action, target, e.Outcome, e.ID}, nil
}

// eventChanges says what a record's event changed, from what to what.
func eventChanges(record json.RawMessage) (string, error) {
	e, err := shownOf(record)
	if err != nil {
		return "", err
	}
	var all []string
	for _, c := range e.Changes {
		all = append(all, fmt.Sprintf("%s: %s -> %s", c.Field, cmp.Or(string(c.Before), "-"), cmp.Or(string(c.After), "-")))
	}
	return strings.Join(all, ", "), nil
}

// named returns an id with the first of names that there is.
func named(id string, names ...string) string {
	for _, name := range names {
		if name != "" && name != id {
			return id + " (" + name + ")"
		}
	}
	return id
}
