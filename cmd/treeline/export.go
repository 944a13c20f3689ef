package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
)

// exportEndHeader is the trailer that an export ends with.
const exportEndHeader = "Export-End"

// exportEnd is what the server says at the end of an export.
type exportEnd struct {
	Log      string  `json:"log"`
	From     uint64  `json:"from"`
	Size     uint64  `json:"size"`
	Count    uint64  `json:"count"`
	First    *uint64 `json:"first_index"`
	Last     *uint64 `json:"last_index"`
	SHA256   string  `json:"sha256"`
	Cursor   string  `json:"cursor"`
	Manifest string  `json:"manifest_sha256,omitempty"`
}

func newExportCmd() *cobra.Command {
	var log, format, output, cursor string
	var filters, withhold []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export [QUERY]",
		Short: "Export the events of a log, or of a search, to a file",
		Long: `Export saves the events of a log that a query and all filters select, oldest first, up to where the log stands now.

A QUERY is that of treeline search, whose help has the grammar; a --filter is one of GET /v1/events. The formats are ndjson, a record a line; json, one object; csv, for spreadsheets, in
which no cell is run as a formula; and bundle, a ZIP file that proves that the events are in the log, up to its newest checkpoint:
check it offline with treeline verify FILE.

The file appears under its name when it is complete, by the end that the server sends: count, first and last index, and SHA-256. One as
ndjson that breaks off is taken up where it broke off, for --retry-for at a time.

The cursor that is printed at the end is for the next export: with --cursor and the same filters it begins where this one ended.`,
		Example: `  treeline export 'target:user_456 action:user.permission.* since:90d' --format csv -o changes.csv
  treeline export --filter 'action=user.permission.*' --filter from=-90d -o changes.ndjson
  treeline export --format bundle -o evidence.zip`,
	}
	client := addClientFlags(cmd)
	cmd.Flags().StringVar(&log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "`NAME=VALUE` that events must match (repeatable)")
	cmd.Flags().StringVar(&format, "format", "ndjson", "ndjson, json, csv or bundle")
	cmd.Flags().StringArrayVar(&withhold, "withhold", nil, "`POINTER` of claims that a bundle doesn't show, such as /actor/email or /metadata/* (repeatable)")
	cmd.Flags().StringVar(&cursor, "cursor", "", "begin where the export ended that printed this")
	cmd.Flags().StringVarP(&output, "output", "o", "-", "`FILE` to save to, - for standard output")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the end as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if format == "bundle" && output == "-" && isTerminal(cmd.OutOrStdout()) {
			return withHint(errors.New("export: a bundle is a ZIP file, and no text for a terminal"), "name a file: -o evidence.zip")
		}
		query, err := parseSearch(strings.Join(args, " "))
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		query.Set("format", format)
		for _, f := range filters {
			name, value, ok := strings.Cut(f, "=")
			if !ok || slices.Contains([]string{"format", "compression", "cursor", "after", "log", "withhold"}, name) {
				return withHint(fmt.Errorf("--filter %q is no filter", f), "give it like --filter action=user.created")
			}
			query.Add(name, value)
		}
		if log != "" {
			query.Set("log", log)
		}
		if cursor != "" {
			query.Set("cursor", cursor)
		}
		for _, pointer := range withhold {
			query.Add("withhold", pointer)
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		c.http.Timeout = 0 // an export takes as long as it takes; each wait for more of it is bounded
		d := &download{client: c, query: query, lines: format == "ndjson", sum: sha256.New()}
		d.progress = newProgress(cmd.ErrOrStderr(), -1, "exporting", progressbar.OptionShowBytes(true))
		end, err := d.save(cmd.Context(), output, cmd.OutOrStdout())
		d.progress.finish()
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		switch {
		case asJSON && output != "-":
			return printJSON(cmd.OutOrStdout(), end)
		case asJSON:
			return printJSON(cmd.ErrOrStderr(), end)
		}
		said := cmd.OutOrStdout()
		if output == "-" {
			said = cmd.ErrOrStderr()
		}
		fmt.Fprintf(said, "exported %d events of log %s, from index %d up to size %d\nto go on from here: --cursor %s\n",
			end.Count, end.Log, end.From, end.Size, end.Cursor)
		if format == "bundle" && output != "-" {
			fmt.Fprintf(said, "check it with: treeline verify %s --vkey VKEY\n", output)
		}
		return nil
	}
	return cmd
}

// download is an export on its way to a file.
type download struct {
	client   *client
	query    url.Values
	lines    bool // as NDJSON: what is there of it tells where to go on
	progress progress
	out      io.Writer
	sum      hash.Hash // of all that was written before the tail, but for the end of NDJSON
	tail     []byte    // the last that was written, in which the end of JSON is
	begun    bool
	cursor   string // that resumes it

	from        uint64
	first, last *uint64
	count       uint64
}

// save writes the export to the named file, wholly or not at all, or as it comes to standard output.
func (d *download) save(ctx context.Context, name string, stdout io.Writer) (end *exportEnd, err error) {
	if name == "-" {
		d.out = stdout
		return d.run(ctx)
	}
	f, err := os.OpenFile(name+".partial", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
		if err == nil {
			err = os.Rename(f.Name(), name)
		}
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	buffered := bufio.NewWriterSize(f, 1<<20)
	d.out = buffered
	if end, err = d.run(ctx); err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	return end, err
}

// run fetches the export, going on where it broke off if that can be done.
func (d *download) run(ctx context.Context) (*exportEnd, error) {
	began, had := time.Now(), d.count
	for attempt := 1; ; attempt++ {
		end, after, err := d.attempt(ctx)
		if err == nil {
			return end, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if d.count > had { // it got on
			began, had, attempt = time.Now(), d.count, 1
		}
		budget, pause := d.client.retryFor, max(backoff(attempt), after)
		if !d.client.reached.Load() {
			budget = min(budget, firstContact)
		}
		p, answered := errors.AsType[*problem](err)
		_, final := errors.AsType[*contentError](err)
		if final || answered && !p.transient() || !answered && permanent(err) || d.begun && !d.lines || time.Since(began)+pause > budget {
			return nil, d.client.explain(err)
		}
		if d.client.onRetry != nil {
			d.client.onRetry(err, pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// contentError means that what the server sent isn't what it should be, or can't be written: asking again is of no use.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

func badContent(format string, args ...any) error { return &contentError{fmt.Errorf(format, args...)} }

// attempt fetches the export once, or what of it isn't there yet. With an error it returns how long the server asked to wait.
func (d *download) attempt(ctx context.Context) (end *exportEnd, after time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(attemptTimeout, func() { cancel(errSilent) })
	defer idle.Stop()
	defer func() {
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}()
	query := maps.Clone(d.query)
	if d.cursor != "" {
		query.Set("cursor", d.cursor)
	}
	switch {
	case d.last != nil:
		query.Set("after", strconv.FormatUint(*d.last, 10))
	case d.cursor != "" && d.from > 0: // it broke off before its first record
		query.Set("after", strconv.FormatUint(d.from-1, 10))
	}
	res, err := d.client.open(ctx, &request{method: http.MethodGet, path: "/v1/export", query: query})
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
		if err != nil {
			return nil, 0, err
		}
		return nil, retryAfter(res.Header, time.Now()), parseProblem(res.StatusCode, res.Header, body)
	}
	if d.cursor == "" {
		d.cursor = res.Header.Get("Export-Cursor")
		d.from, _ = strconv.ParseUint(res.Header.Get("Export-From"), 10, 63)
	}
	body := alive{res.Body, idle}
	if d.lines {
		end, err = d.records(body)
		return end, 0, err
	}
	if _, err := io.Copy(d, body); err != nil {
		return nil, 0, err
	}
	end = new(exportEnd)
	text := res.Trailer.Get(exportEndHeader)
	if text == "" {
		return nil, 0, badContent("the end that shows whether all is there is missing: is there a proxy that takes trailers away?")
	}
	if err := json.Unmarshal([]byte(text), end); err != nil {
		return nil, 0, badContent("the end of the export: %w", err)
	}
	tail := ""
	if d.query.Get("format") == "json" {
		tail = `,"end":` + text + "}\n"
	}
	if got, ok := d.sumBefore(tail); !ok || got != end.SHA256 {
		return nil, 0, badContent("what came before the end has SHA-256 %s, the server says %s", got, end.SHA256)
	}
	return end, 0, nil
}

// maxExportEnd is more bytes than an end has.
const maxExportEnd = 8 << 10

// sumBefore returns the SHA-256 of all that was written before an end, and whether that is how it ended.
func (d *download) sumBefore(end string) (sum string, ok bool) {
	d.tail, ok = bytes.CutSuffix(d.tail, []byte(end))
	d.sum.Write(d.tail)
	return hex.EncodeToString(d.sum.Sum(nil)), ok
}

// Write writes a piece of the export.
func (d *download) Write(b []byte) (int, error) {
	d.begun = true
	if d.tail = append(d.tail, b...); len(d.tail) > 2*maxExportEnd {
		over := len(d.tail) - maxExportEnd
		d.sum.Write(d.tail[:over])
		d.tail = append(d.tail[:0], d.tail[over:]...)
	}
	d.progress.add(int64(len(b)))
	n, err := d.out.Write(b)
	if err != nil {
		err = &contentError{err}
	}
	return n, err
}

// alive notes that the server sends.
type alive struct {
	io.Reader
	idle *time.Timer
}

func (a alive) Read(b []byte) (int, error) {
	n, err := a.Reader.Read(b)
	a.idle.Reset(attemptTimeout)
	return n, err
}

// records writes the records of NDJSON, whole lines only, and then the end of all that was written.
func (d *download) records(body io.Reader) (*exportEnd, error) {
	lines, sum, n := bufio.NewReaderSize(body, 256<<10), sha256.New(), uint64(0)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, badContent("a line of the export is longer than any record")
		case errors.Is(err, io.EOF):
			return nil, io.ErrUnexpectedEOF // it broke off, in a way that HTTP doesn't notice
		case err != nil:
			return nil, err
		}
		if text, ok := bytes.CutPrefix(line, []byte(`{"end":`)); ok {
			return d.finish(bytes.TrimSuffix(text, []byte("}\n")), sum.Sum(nil), n)
		}
		index, err := recordIndex(line)
		if err != nil {
			return nil, err
		}
		if d.last != nil && index <= *d.last {
			return nil, badContent("record %d came after record %d", index, *d.last)
		}
		if d.first == nil {
			d.first = &index
		}
		d.last = &index
		d.count++
		n++
		sum.Write(line)
		if _, err := d.Write(line); err != nil {
			return nil, err
		}
	}
}

// recordIndex returns the index in the line of a record, which begins with its id and its log, both without escapes.
func recordIndex(line []byte) (uint64, error) {
	_, rest, _ := bytes.Cut(line, []byte(`","index":`))
	digits, _, _ := bytes.Cut(rest, []byte(","))
	index, err := strconv.ParseUint(string(digits), 10, 63)
	if err != nil {
		return 0, badContent("a line of the export is no record: %s", excerpt(line))
	}
	return index, nil
}

// finish compares the end that the server sent with what came before it in the same answer, and writes that of the whole export.
func (d *download) finish(text, sum []byte, n uint64) (*exportEnd, error) {
	var end exportEnd
	if err := json.Unmarshal(text, &end); err != nil {
		return nil, badContent("the end of the export: %w", err)
	}
	if end.Count != n || end.SHA256 != hex.EncodeToString(sum) || n > 0 && (end.Last == nil || *end.Last != *d.last) {
		return nil, badContent("%d records came with SHA-256 %x, the server says %d with %s", n, sum, end.Count, end.SHA256)
	}
	if d.begun && d.count != n { // it came in several parts
		end.From, end.Count, end.First, end.Last = d.from, d.count, d.first, d.last
		end.SHA256, _ = d.sumBefore("")
	}
	line, err := json.Marshal(map[string]any{"end": end})
	if err == nil {
		_, err = d.out.Write(append(line, '\n'))
	}
	return &end, err
}
