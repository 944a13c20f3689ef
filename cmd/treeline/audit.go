package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/witness/monitor"
)

// auditOptions are the flags of audit.
type auditOptions struct {
	policy   string
	vkeys    []string
	hubs     []string
	opaque   []string
	keys     []string
	keyFiles []string
	state    string
	interval time.Duration
	maxLag   time.Duration
	maxCheck time.Duration
	strict   bool
	metrics  string
	json     bool
}

func newAuditCmd() *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "audit [URL…]",
		Short: "Follow logs from outside, and notice if one has two histories",
		Long: `Follow logs from outside as a third party does, trusting neither operator nor server. Each URL is a log's public prefix, such as
https://audit.example.com/logs/acme; without any, the logs of --policy that have a URL there are followed.

One round reads each log's checkpoint, verifies it under the keys of --policy and --vkey, reads every entry that is new, hashes it,
checks the hash chain, and compares the root that results with the signed one. Then it compares the log with what each witness of
--policy serves, at its URL there. For a hub (--hub) it checks the proof that each log in it only grew, one for each entry.

With --hub the policy is the hub's: witnesses cosign that, and not the logs in it. A log is then witnessed as far as the hub has it in
the part for which the policy is met, and each log is compared with its newest entry there. Give the logs' own keys by --vkey.

What was verified is kept in --state, which is what a later round must extend: keep it, and don't share it. When two histories are
seen, both signed notes and the proof are written to evidence/ in there, and the log stays DIVERGED until you move them away.

Without --interval there is one round, for cron. With it audit runs until it is stopped, and serves --metrics-listen.

Exit codes: 0 all checked; 1 could not run, or a server was away; 3 not verifiable (no pinned key signed it, quorum unmet, a log set
back or holding back what it signed); 4 INVALID (bad signature, entries, chain or growth proof, something missing); 5 DIVERGED. The
worst of all logs counts.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.readKeys(); err != nil {
				return err
			}
			return audit(cmd.Context(), o, args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.policy, "policy", "", "`FILE` with the logs' keys, the witnesses and the quorum (C2SP tlog-policy)")
	f.StringArrayVar(&o.vkeys, "vkey", nil, "`VKEY` of a log, beside those of the policy (repeatable)")
	f.StringArrayVar(&o.hubs, "hub", nil, "`URL` of a hub to follow, through which the logs in it are witnessed (repeatable)")
	f.StringArrayVar(&o.opaque, "opaque", nil, "`URL` of a log to follow whose entries aren't Treeline's though its origin looks like it (repeatable)")
	f.StringArrayVar(&o.keys, "key", nil, "bearer key for private logs, sent to their host only: `[HOST=|URL=]KEY`, for all logs at a host or for the one at a URL (repeatable)")
	f.StringArrayVar(&o.keyFiles, "key-file", nil, "file that holds such a key, `[HOST=|URL=]FILE` (repeatable)")
	// The variable that other commands have for it may name the key of one's own server, which is nothing for the hosts of others.
	_ = f.SetAnnotation("key-file", commandLineOnly, []string{"true"})
	f.StringVar(&o.state, "state", "treeline-audit", "`DIR` in which to keep what was verified")
	f.DurationVar(&o.interval, "interval", 0, "go on, with a round at this interval")
	f.DurationVar(&o.maxLag, "max-lag", monitor.DefaultMaxLag, "how long a log may lack what a witness shows that it has signed")
	f.DurationVar(&o.maxCheck, "max-check", monitor.DefaultMaxCheck, "how long a round reads one log at one URL before it goes on to others; at first contact all entries are read")
	f.BoolVar(&o.strict, "strict", false, "exit 3 if a witness is away, doesn't know the log, or serves what doesn't verify")
	f.StringVar(&o.metrics, "metrics-listen", "", "with --interval: `ADDRESS` to serve Prometheus metrics on")
	f.BoolVar(&o.json, "json", false, "print reports as JSON, with --interval a line each")
	return cmd
}

func audit(ctx context.Context, o auditOptions, urls []string, stdout, stderr io.Writer) error {
	if o.interval < 0 || o.interval == 0 && o.metrics != "" {
		return withHint(errors.New("--metrics-listen is for a process that stays"), "give --interval, such as 1m")
	}
	if o.maxCheck <= 0 {
		return fmt.Errorf("--max-check %v: want more than 0", o.maxCheck)
	}
	config := monitor.Config{VKeys: o.vkeys, StateDir: o.state, Strict: o.strict, MaxLag: o.maxLag, MaxCheck: o.maxCheck}
	var err error
	if o.policy != "" {
		if config.Policy, err = readPolicy(o.policy); err != nil {
			return err
		}
	}
	pinned, err := parseVKeys(o.vkeys)
	if err != nil {
		return err
	}
	if config.Targets, err = o.targets(urls, config.Policy, pinned); err != nil {
		return err
	}
	bar := newProgress(stderr, -1, "reading entries")
	config.Progress = func(origin string, done, of uint64) {
		bar.describe(fmt.Sprintf("%s: entry %d of %d", origin, done, of))
	}
	registry := prometheus.NewRegistry()
	config.Metrics = registry
	m, err := monitor.Open(config)
	if err != nil {
		return err
	}
	defer m.Close()
	a := auditor{monitor: m, json: o.json, stdout: stdout, stderr: stderr}
	if o.interval == 0 {
		report := m.Round(ctx)
		bar.finish()
		if err := a.print(report, true); err != nil {
			return err
		}
		return verdictOf(report)
	}
	if o.metrics != "" {
		registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		server, err := serveMetrics(o.metrics, registry, stderr)
		if err != nil {
			return err
		}
		defer server.Close()
	}
	return a.run(ctx, o.interval)
}

// targets returns what is to be followed.
func (o auditOptions) targets(urls []string, policy *checkpoint.Policy, pinned []note.Verifier) ([]monitor.Target, error) {
	if len(urls)+len(o.hubs)+len(o.opaque) == 0 && policy != nil {
		for _, l := range policy.Logs {
			if l.URL != "" && !slices.Contains(urls, l.URL) { // once, though it has two keys
				urls = append(urls, l.URL)
			}
		}
	}
	var targets []monitor.Target
	var hosts []string
	for _, list := range []struct {
		urls []string
		kind monitor.Kind
	}{{urls, ""}, {o.opaque, monitor.Opaque}, {o.hubs, monitor.Hub}} {
		for _, text := range list.urls {
			base, host, err := monitor.ParseURL(text)
			if err != nil {
				return nil, err
			}
			origin, err := monitor.Origin(base, policy, pinned)
			if err != nil {
				return nil, err
			}
			targets = append(targets, monitor.Target{URL: base, Origin: origin, Kind: list.kind})
			hosts = append(hosts, host)
		}
	}
	if len(targets) == 0 {
		return nil, withHint(errors.New("there is no log to follow"), "give its URL, and its key by --policy or --vkey; see treeline audit --help")
	}
	return targets, o.addKeys(targets, hosts)
}

// readKeys adds the keys that are in files to the others.
func (o *auditOptions) readKeys() error {
	for _, text := range o.keyFiles {
		where, file, named := strings.Cut(text, "=")
		if !named {
			file = text
		}
		key, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read key: %w", err)
		}
		if text = strings.TrimSpace(string(key)); named {
			text = where + "=" + text
		}
		o.keys = append(o.keys, text)
	}
	return nil
}

// addKeys gives each target the key that is for its URL, or else for its host. A key alone is for the one host that there is.
func (o auditOptions) addKeys(targets []monitor.Target, hosts []string) error {
	byHost := make(map[string]string)
	for _, text := range o.keys {
		where, key, named := strings.Cut(text, "=")
		if !named {
			where, key = hosts[0], text
			if slices.ContainsFunc(hosts, func(h string) bool { return h != where }) {
				return withHint(errors.New("there are several hosts, and a key is for one of them"), "give it as --key HOST=KEY")
			}
		}
		key = strings.TrimSpace(key)
		if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return withHint(errors.New("--key or --key-file holds what no key has"), "give exactly one key, as the server printed it")
		}
		if base, _, err := monitor.ParseURL(where); err == nil {
			i := slices.IndexFunc(targets, func(t monitor.Target) bool { return t.URL == base })
			if i < 0 {
				return fmt.Errorf("--key: no log is followed at %.200q", base)
			}
			targets[i].Key = key
			continue
		}
		if !slices.Contains(hosts, where) {
			return fmt.Errorf("--key: no log is at the host %.100q", where)
		}
		if byHost[where] != "" {
			return withHint(fmt.Errorf("there are two keys for the host %s", where), "say which log each is for: --key URL=KEY")
		}
		byHost[where] = key
	}
	for i := range targets {
		if targets[i].Key == "" {
			targets[i].Key = byHost[hosts[i]]
		}
	}
	return nil
}

// serveMetrics answers /metrics on the address until it is closed, and says where that is.
func serveMetrics(address string, registry *prometheus.Registry, stderr io.Writer) (*http.Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%w; choose another address with --metrics-listen", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := api.HTTPServer(mux, slog.New(slog.DiscardHandler))
	go func() { _ = server.Serve(listener) }() // until it is closed
	fmt.Fprintf(stderr, "metrics: %s/metrics\n", localURL(listener.Addr()))
	return server, nil
}

// auditor prints what a monitor finds.
type auditor struct {
	monitor        *monitor.Monitor
	json           bool
	stdout, stderr io.Writer

	last    string   // what was printed last
	noticed []string // evidence that was shown
}

// run does a round at each interval until it is stopped, and returns what the last one came to. One that was interrupted has not
// checked all, so it only counts for what it has found to be wrong.
func (a *auditor) run(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	result := errors.New("audit: stopped before the first round ended: nothing was checked")
	for {
		report := a.monitor.Round(ctx)
		if ctx.Err() == nil || report.Verdict >= monitor.Invalid {
			if err := a.print(report, false); err != nil {
				return err
			}
			result = verdictOf(report)
		}
		select {
		case <-ctx.Done():
			return result
		case <-tick.C:
		}
	}
}

// verdictOf returns the error that a report is for the shell, nil if all is well.
func verdictOf(r *monitor.Report) error {
	if r.Verdict == monitor.Verified {
		return nil
	}
	bad := 0
	for _, l := range r.Logs {
		if l.Verdict != monitor.Verified {
			bad++
		}
	}
	return &verdict{int(r.Verdict), fmt.Sprintf("audit: %v: something is wrong with %d of %d logs", r.Verdict, bad, len(r.Logs))}
}

// print writes a report, and to the standard error the evidence that wasn't shown yet. Of rounds that follow each other a table is
// printed only when something else than sizes has changed.
func (a *auditor) print(r *monitor.Report, single bool) error {
	for _, l := range r.Logs {
		for _, p := range l.Problems {
			if p.Notice == "" || slices.Contains(a.noticed, p.Evidence) {
				continue
			}
			fmt.Fprintln(a.stderr, printable(p.Notice, "\n\t"))
			if p.Evidence != "" {
				a.noticed = append(a.noticed, p.Evidence)
			}
		}
	}
	if a.json {
		encoder := json.NewEncoder(a.stdout)
		if single {
			encoder.SetIndent("", "  ")
		}
		return encoder.Encode(r)
	}
	var b strings.Builder
	for _, l := range r.Logs {
		fmt.Fprintln(&b, l.URL, l.Verdict)
		for _, p := range l.Problems {
			fmt.Fprintln(&b, p.Kind, p.Evidence)
		}
	}
	if b.String() == a.last {
		return nil
	}
	a.last = b.String()
	return printAudit(a.stdout, r)
}

// printAudit writes a report for people.
func printAudit(w io.Writer, r *monitor.Report) error {
	var rows [][]string
	for _, l := range r.Logs {
		quorum := "-"
		if l.Quorum != nil {
			quorum = "unmet"
			if *l.Quorum {
				quorum = "met"
			}
			if l.ByHub {
				quorum = "by hub"
			}
		}
		rows = append(rows, []string{
			l.Origin, l.Verdict.String(), fmt.Sprint(l.Size), fmt.Sprint(l.Served), fmt.Sprint(l.Read), quorum, countWitnesses(l.Witnesses),
		})
	}
	if err := printTable(w, "LOG\tRESULT\tVERIFIED\tSERVED\tREAD\tQUORUM\tWITNESSES", rows); err != nil {
		return err
	}
	for _, l := range r.Logs {
		if l.FirstContact && l.Size > 0 {
			fmt.Fprintf(w, "%s: nothing was known of it before; all its entries were read\n", printable(l.Origin, ""))
		}
		for _, p := range l.Problems {
			fmt.Fprintf(w, "%s: %v: %s\n", printable(l.Origin, ""), p.Verdict, printable(p.Detail, ""))
			if p.Evidence != "" {
				fmt.Fprintf(w, "  evidence: %s\n", p.Evidence)
			}
		}
		for _, x := range l.Witnesses {
			if x.Detail != "" {
				fmt.Fprintf(w, "%s: witness %s: %s: %s\n", printable(l.Origin, ""), x.Witness, x.Result, printable(x.Detail, ""))
			}
		}
	}
	return nil
}

// countWitnesses says how many comparisons came to what.
func countWitnesses(witnesses []monitor.WitnessReport) string {
	var parts []string
	for len(witnesses) > 0 {
		result := witnesses[0].Result
		rest := slices.DeleteFunc(slices.Clone(witnesses), func(x monitor.WitnessReport) bool { return x.Result == result })
		parts = append(parts, fmt.Sprintf("%d %s", len(witnesses)-len(rest), result))
		witnesses = rest
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}
