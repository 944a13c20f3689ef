package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
)

// openArchive opens the archive of a server; nil if it has none. One that can't be reached yet is opened when it is needed: events are
// appended without it, and nothing is purged.
func openArchive(ctx context.Context, url string, logger *slog.Logger) (archive.Archive, error) {
	if url == "" {
		return nil, nil
	}
	a, err := archive.Open(ctx, url)
	var network net.Error
	if errors.As(err, &network) {
		logger.Warn("the archive can't be reached; nothing is purged until it can", "error", err)
		return &awaited{url: url}, nil
	}
	return a, err
}

// awaited is an archive that couldn't be reached when the server started.
type awaited struct {
	url string

	mu     sync.Mutex
	opened archive.Archive
}

func (w *awaited) open(ctx context.Context) (archive.Archive, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened != nil {
		return w.opened, nil
	}
	a, err := archive.Open(ctx, w.url)
	if err != nil {
		return nil, err
	}
	w.opened = a
	return a, nil
}

func (w *awaited) Put(ctx context.Context, name string, write func(io.Writer) error) error {
	a, err := w.open(ctx)
	if err != nil {
		return err
	}
	return a.Put(ctx, name, write)
}

func (w *awaited) Replace(ctx context.Context, name string, write func(io.Writer) error) error {
	a, err := w.open(ctx)
	if err != nil {
		return err
	}
	return a.Replace(ctx, name, write)
}

func (w *awaited) Forget(ctx context.Context, name string) error {
	a, err := w.open(ctx)
	if err != nil {
		return err
	}
	return a.Forget(ctx, name)
}

func (w *awaited) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	a, err := w.open(ctx)
	if err != nil {
		return nil, err
	}
	return a.Open(ctx, name)
}

func (w *awaited) List(ctx context.Context, prefix string) ([]string, error) {
	a, err := w.open(ctx)
	if err != nil {
		return nil, err
	}
	return a.List(ctx, prefix)
}

func (w *awaited) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened != nil {
		return w.opened.String()
	}
	place, _, _ := strings.Cut(w.url, "?")
	return place
}

func (w *awaited) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened == nil {
		return nil
	}
	return w.opened.Close()
}

func newArchiveCmd() *cobra.Command {
	return newGroupCmd("archive", "List, verify, search and read what was archived before it was purged",
		newArchiveListCmd(), newArchiveVerifyCmd(), newArchiveSearchCmd(), newArchiveRestoreCmd())
}

// archiveOptions are the flags of commands on an archive.
type archiveOptions struct {
	url    string
	origin string
	vkeys  []string
	policy string
	from   uint64
	to     uint64
}

func (o *archiveOptions) register(cmd *cobra.Command, reads bool) {
	f := cmd.Flags()
	f.StringVar(&o.url, "archive", "", "the archive, dir:PATH or s3://BUCKET/PREFIX?…, as the server has it")
	f.StringVar(&o.origin, "origin", "", "`ORIGIN` of the log, as treeline log show prints it")
	if reads {
		f.StringArrayVar(&o.vkeys, "vkey", nil, "`VKEY` of the log, NAME+HASH+KEY (repeatable)")
		f.StringVar(&o.policy, "policy", "", "`FILE` of the policy that says which logs and witnesses are trusted")
	}
}

// registerRange registers the flags that say which events are meant.
func (o *archiveOptions) registerRange(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&o.from, "from-index", 0, "`INDEX` of the first event")
	cmd.Flags().Uint64Var(&o.to, "to-index", 0, "`INDEX` before which to end (default: none)")
}

// open opens the archive. A directory must be there: what only reads makes none.
func (o *archiveOptions) open(ctx context.Context) (archive.Archive, error) {
	if o.url == "" {
		return nil, withHint(errors.New("no archive is given"), "name it by --archive, as treeline serve has it")
	}
	if path, ok := strings.CutPrefix(o.url, "dir:"); ok {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
	}
	return archive.Open(ctx, o.url)
}

// trust returns what bundles are verified by.
func (o *archiveOptions) trust() (trust log.Trust, err error) {
	if trust.Keys, err = parseVKeys(o.vkeys); err != nil {
		return trust, err
	}
	if o.policy != "" {
		trust.Policy, err = readPolicy(o.policy)
	}
	return trust, err
}

// bundles returns what is in the archive, of one log or of all.
func (o *archiveOptions) bundles(ctx context.Context, a archive.Archive) (all []archivedBundle, err error) {
	prefix := ""
	if o.origin != "" {
		prefix = o.origin + "/"
	}
	names, err := a.List(ctx, prefix)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		origin, from, to, ok := archive.ParseName(name)
		if ok && (o.origin == "" || o.origin == origin) {
			all = append(all, archivedBundle{Name: name, Origin: origin, From: from, To: to})
		}
	}
	return all, nil
}

// archivedBundle is a bundle in an archive, for people and machines.
type archivedBundle struct {
	Name   string `json:"name"`
	Origin string `json:"origin"`
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Result string `json:"result,omitempty"` // of its verification
	Reason string `json:"reason,omitempty"`
	Count  uint64 `json:"count,omitempty"`
	Erased uint64 `json:"events_with_erased_claims,omitempty"`
}

func newArchiveListCmd() *cobra.Command {
	var o archiveOptions
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Short: "List the bundles in an archive", Args: arguments(0, 0, "none")}
	o.register(cmd, false)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		a, err := o.open(cmd.Context())
		if err != nil {
			return fmt.Errorf("archive list: %w", err)
		}
		defer a.Close()
		all, err := o.bundles(cmd.Context(), a)
		if err != nil {
			return fmt.Errorf("archive list: %w", err)
		}
		return printBundles(cmd.OutOrStdout(), all, asJSON)
	}
	return cmd
}

func printBundles(w io.Writer, all []archivedBundle, asJSON bool) error {
	if asJSON {
		if all == nil {
			all = []archivedBundle{}
		}
		return printJSON(w, map[string]any{"data": all})
	}
	header, rows := "ORIGIN\tFROM\tTO\tNAME", [][]string(nil)
	for _, b := range all {
		row := []string{b.Origin, strconv.FormatUint(b.From, 10), strconv.FormatUint(b.To, 10), b.Name}
		if b.Result != "" {
			header = "RESULT\tORIGIN\tFROM\tTO\tEVENTS\tERASED IN\tNAME\tREASON"
			row = []string{b.Result, b.Origin, row[1], row[2], strconv.FormatUint(b.Count, 10), strconv.FormatUint(b.Erased, 10), b.Name, b.Reason}
		}
		rows = append(rows, row)
	}
	return printTable(w, header, rows)
}

func newArchiveVerifyCmd() *cobra.Command {
	var o archiveOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Verify the bundles in an archive",
		Long: `Verify checks each bundle in an archive as treeline verify does, and that it is the complete range that its name says.

Exit codes: 0 all are VALID; 1 could not run; 3 one is not verifiable; 4 one is INVALID.`,
		Args: arguments(0, 0, "none"),
	}
	o.register(cmd, true)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		trust, err := o.trust()
		if err != nil {
			return err
		}
		a, err := o.open(cmd.Context())
		if err != nil {
			return fmt.Errorf("archive verify: %w", err)
		}
		defer a.Close()
		all, err := o.bundles(cmd.Context(), a)
		if err != nil {
			return fmt.Errorf("archive verify: %w", err)
		}
		worst := exitOK
		for i := range all {
			b := &all[i]
			v, err := archive.Read(cmd.Context(), a, b.Name, trust, nil)
			var code int
			b.Result, b.Reason, code = judge(err)
			switch {
			case code == exitFailure && errors.Is(err, archive.ErrUnsound):
				b.Result, b.Reason, code = "INVALID", err.Error(), exitInvalid
			case code == exitFailure:
				return fmt.Errorf("archive verify: %w", err)
			}
			if v != nil {
				b.Count, b.Erased = v.Count, v.Erased
			}
			worst = max(worst, code)
		}
		if err := printBundles(cmd.OutOrStdout(), all, asJSON); err != nil || worst == exitOK {
			return err
		}
		return &verdict{worst, "archive verify: not all bundles are VALID"}
	}
	return cmd
}

// query returns what is looked for in an archive.
func (o *archiveOptions) query(args []string) (q archive.Query, err error) {
	if o.origin == "" {
		return q, withHint(errors.New("no log is given"), "name it by --origin, see treeline archive list")
	}
	filters, err := parseSearch(strings.Join(args, " "))
	if err != nil {
		return q, err
	}
	if err := absoluteTimes(filters); err != nil {
		return q, err
	}
	q = archive.Query{Origin: o.origin, From: o.from, To: o.to}
	if q.Filter, err = log.ParseFilter(filters); err != nil {
		return q, err
	}
	q.Trust, err = o.trust()
	return q, err
}

func newArchiveSearchCmd() *cobra.Command {
	var o archiveOptions
	var ndjson bool
	cmd := &cobra.Command{
		Use:   "search [QUERY]",
		Short: "Find events in an archive",
		Long: `Search prints the archived events of a log that a query finds, oldest first. Each bundle is verified before anything of it is printed.
A QUERY is that of treeline search, whose help has the grammar.`,
	}
	o.register(cmd, true)
	o.registerRange(cmd)
	cmd.Flags().BoolVar(&ndjson, "ndjson", false, "print a record a line, as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q, err := o.query(args)
		if err != nil {
			return fmt.Errorf("archive search: %w", err)
		}
		a, err := o.open(cmd.Context())
		if err != nil {
			return fmt.Errorf("archive search: %w", err)
		}
		defer a.Close()
		out := cmd.OutOrStdout()
		var rows [][]string
		err = archive.Search(cmd.Context(), a, q, func(f *archive.Found) error {
			if ndjson {
				_, err := out.Write(append(f.AppendJSON(nil), '\n'))
				return err
			}
			row, err := archivedRow(f)
			rows = append(rows, row)
			return err
		})
		if !ndjson {
			if err := printTable(out, "INDEX\tRECEIVED\tACTION\tACTOR\tTARGET\tOUTCOME\tID\tERASED", rows); err != nil {
				return err
			}
		}
		return archived("archive search", err)
	}
	return cmd
}

// archivedRow returns an archived event as the row of a table.
func archivedRow(f *archive.Found) ([]string, error) {
	e, err := f.Shown()
	if err != nil {
		return nil, err
	}
	text := map[string]string{}
	for _, c := range e.Claims() {
		if len(c.Value) > 1 && c.Value[0] == '"' {
			if s, err := strconv.Unquote(string(c.Value)); err == nil {
				text[c.Pointer] = s
			} else {
				text[c.Pointer] = string(c.Value)
			}
		}
	}
	var erased []string
	for i := range f.Claims {
		if f.Claims[i].Withheld() {
			erased = append(erased, f.Claims[i].Pointer)
		}
	}
	return []string{
		strconv.FormatUint(f.Index, 10), string(log.AppendTime(nil, f.ReceivedAt)), text["/action"], text["/actor/id"], text["/targets/0/id"],
		text["/outcome"], f.ID, strings.Join(erased, " "),
	}, nil
}

// archived returns the error of a command that reads an archive: one that says what isn't sound has the exit code for that.
func archived(what string, err error) error {
	if errors.Is(err, archive.ErrUnsound) {
		_, _, code := judge(err)
		if code == exitFailure {
			code = exitInvalid
		}
		return &verdict{code, fmt.Sprintf("%s: not everything was read: %s", what, strings.ReplaceAll(err.Error(), "\n", "; "))}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func newArchiveRestoreCmd() *cobra.Command {
	var o archiveOptions
	var output string
	cmd := &cobra.Command{
		Use:   "restore [QUERY]",
		Short: "Write archived events to a file, for reading",
		Long: `Restore writes the archived events of a log, or those that a query finds, a record a line, as an export in NDJSON has them. Each bundle is
verified before. Nothing comes back into the log: what was purged stays purged.`,
	}
	o.register(cmd, true)
	o.registerRange(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "-", "`FILE` to save to, - for standard output")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		q, err := o.query(args)
		if err != nil {
			return fmt.Errorf("archive restore: %w", err)
		}
		a, err := o.open(cmd.Context())
		if err != nil {
			return fmt.Errorf("archive restore: %w", err)
		}
		defer a.Close()
		out, said := cmd.OutOrStdout(), cmd.ErrOrStderr()
		if output != "-" {
			f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("archive restore: %w", err)
			}
			defer func() {
				if e := f.Close(); err == nil {
					err = e
				}
			}()
			out, said = f, cmd.OutOrStdout()
		}
		n, err := archive.Restore(cmd.Context(), a, q, out)
		if err == nil {
			fmt.Fprintf(said, "restored %d events of %s\n", n, printable(o.origin, ""))
		}
		return archived("archive restore", err)
	}
	return cmd
}
