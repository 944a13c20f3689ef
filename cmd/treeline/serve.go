package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/retention"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	storeOptions
	listen    string
	opsListen string
	url       string
	interval  time.Duration
	mldsa     bool
	logFormat string
	logLevel  string
	feedOptions
	// Of a PostgreSQL store.
	lanes            int
	conns            int
	partRows         uint64
	singleLogBatches bool
	allowUnsafe      bool
	pooler           bool
	dbRead           string
	// Of the hub.
	hub       bool
	hubPublic bool
	list      api.WitnessList
	// Of retention.
	archive    string
	coolingOff time.Duration
	approval   bool
	// Of the interface.
	rates          log.Rates
	trustedProxies []string
	proxies        []netip.Prefix // the same, read
}

func newServeCmd() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Run the server. With no flags it keeps everything in ./treeline-data, listens on 127.0.0.1:8080, makes a log named
"default" and an admin key, and prints what to paste next.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	o.storeOptions.register(f)
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "address to listen on")
	f.StringVar(&o.opsListen, "ops-listen", "127.0.0.1:8081", "address for metrics and health details; empty for none")
	f.StringVar(&o.url, "url", "", "public base URL, from which the origins of new logs are made")
	f.DurationVar(&o.interval, "checkpoint-interval", time.Second, "how often logs that have grown are signed")
	f.BoolVar(&o.mldsa, "mldsa", false, "sign with ML-DSA-44, too, beside Ed25519: 3.3 kB more a checkpoint and a proof")
	o.feedOptions.register(f)
	f.StringVar(&o.dbRead, "db-read", "", "PostgreSQL: a standby of the database, postgres://…, to read from where it has come far enough")
	f.IntVar(&o.lanes, "lanes", postgres.DefaultLanes, "PostgreSQL: transactions that append at a time")
	f.IntVar(&o.conns, "db-conns", postgres.DefaultConns, "PostgreSQL: connections that read, beside two and one for each lane that write")
	f.Uint64Var(&o.partRows, "part-rows", postgres.DefaultPartRows, "PostgreSQL: contents after which the next partition is opened")
	f.BoolVar(&o.singleLogBatches, "single-log-batches", false, "PostgreSQL: one log in a transaction, for a database that is sharded by log")
	f.BoolVar(&o.pooler, "db-pooler", false, "PostgreSQL: the URL leads to a pooler in transaction mode, so prepare no statements")
	f.BoolVar(&o.allowUnsafe, "allow-unsafe-db", false, "PostgreSQL: start though its settings let it lose acknowledged events")
	f.BoolVar(&o.hub, "hub", false, "keep a log of all other logs' checkpoints, named hub, so that only that one needs witnesses")
	f.BoolVar(&o.hubPublic, "hub-public", false, "let anybody read the hub's checkpoint and tiles: which logs grew and when, by their ids")
	f.Uint64Var(&o.list.QPD, "witness-list-qpd", api.DefaultQPD, "how many checkpoints of a log a day /witness/logs announces to witnesses")
	f.StringVar(&o.list.Contact, "contact", "", "how witnesses' operators reach you, as /witness/logs says it")
	f.StringVar(&o.archive, "archive", "", "the archive, dir:PATH or s3://BUCKET/PREFIX?…, to which contents go before they are purged; without one nothing is purged "+
		"but of logs that have archiving off")
	f.DurationVar(&o.coolingOff, "retention-cooling-off", 168*time.Hour, "how long a change of a retention policy that loses something waits before it takes effect")
	f.BoolVar(&o.approval, "retention-approval", true, "such a change takes effect only when another API key has approved it")
	f.IntVar(&o.rates.Events, "log-events-per-second", 0, "events a second that a log takes on average, unless it has a limit of its own; 0: no limit")
	f.IntVar(&o.rates.Requests, "log-requests-per-second", 0, "requests a second that are answered about a log on average, likewise; 0: no limit")
	f.StringSliceVar(&o.trustedProxies, "trusted-proxies", nil, "`CIDR,…` of proxies whose X-Forwarded-For tells where a request comes from, for keys that are for some networks")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// maxCoolingOff is the longest cooling-off time.
const maxCoolingOff = 365 * 24 * time.Hour

func serve(ctx context.Context, o serveOptions, stdout, stderr io.Writer) error {
	logger, err := newLogger(stderr, o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// The heap is small and its garbage short-lived: collecting it a quarter as often costs some 50 MB and gives a tenth
		// of the CPU to appends.
		debug.SetGCPercent(400)
	}
	if o.interval < 10*time.Millisecond || o.interval > time.Hour {
		return fmt.Errorf("--checkpoint-interval %v: from 10ms to 1h", o.interval)
	}
	if o.coolingOff < 0 || o.coolingOff > maxCoolingOff {
		return fmt.Errorf("--retention-cooling-off %v: from 0s to %v", o.coolingOff, maxCoolingOff)
	}
	if o.lanes < 1 || o.lanes > 64 || o.conns < 2 || o.conns > 1000 {
		return errors.New("--lanes: from 1 to 64; --db-conns: from 2 to 1000")
	}
	if o.witnesses, err = o.feedOptions.read(); err != nil {
		return err
	}
	if o.dbRead != "" && !o.onPostgres() {
		return errors.New("--db-read is for a store in PostgreSQL")
	}
	if o.hubPublic && !o.hub {
		return errors.New("--hub-public: there is no hub without --hub")
	}
	if err := o.list.Check(); err != nil {
		return fmt.Errorf("--witness-list-qpd, --contact: %w", err)
	}
	if o.rates.Check() != nil {
		return fmt.Errorf("--log-events-per-second, --log-requests-per-second: from 0 (no limit) to %d", log.MaxRate)
	}
	for _, text := range o.trustedProxies {
		p, err := log.ParseNetwork(text)
		if err != nil {
			return fmt.Errorf("--trusted-proxies: %w", err)
		}
		o.proxies = append(o.proxies, p)
	}
	prefix, err := originPrefix(o.url)
	if err != nil {
		return err
	}
	if !strings.Contains(o.fence, "://") {
		if err := o.mayKeepDirectory(); err != nil {
			return err
		}
	}
	if err := makeDataDir(o.dataDir); err != nil {
		return err
	}
	// The listeners first, so that a second server on the address gives up before it touches anything, and health is answered
	// while a database isn't there yet.
	var front, back gate
	listeners, err := listen(o.listen, o.opsListen, &front, &back, logger)
	if err != nil {
		return err
	}
	defer listeners.close()
	r, err := whenReachable(ctx, logger, &back, func() (*running, error) { return o.start(ctx, prefix, logger) }, func(err error) bool {
		var network net.Error // of the fence
		return o.onPostgres() && (errors.Is(err, postgres.ErrUnreachable) || errors.As(err, &network))
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // stopped as it was asked to, before its database came
	}
	if err != nil {
		return err
	}
	defer r.close()
	front.open(r.server)
	back.open(r.server.Ops())
	greet(stdout, r.service, listeners.public(), listeners.ops(), r.keyFile)
	return listeners.serve(ctx, r.server.Close, logger)
}

// running is what a server is made of, once its store is there.
type running struct {
	store   log.Store
	replica log.Store // nil: none
	fence   fence
	service *log.Service
	server  *api.Server
	feeding func() // ends the feeding of witnesses; nil: there are none
	keeping func() // ends what the keeper does; nil: it hasn't begun
	archive archive.Archive
	keyFile string
}

func (r *running) close() {
	for _, end := range []func(){r.keeping, r.feeding} {
		if end != nil {
			end()
		}
	}
	if r.service != nil {
		r.service.Close()
	}
	if r.fence != nil {
		r.fence.Close()
	}
	if r.archive != nil {
		r.archive.Close()
	}
	for _, store := range []log.Store{r.replica, r.store} {
		if store != nil {
			store.Close()
		}
	}
}

func (o serveOptions) start(ctx context.Context, prefix string, logger *slog.Logger) (_ *running, err error) {
	r := &running{}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	lanes := 1
	if o.onPostgres() {
		lanes = o.lanes
	}
	r.store, err = o.openWriter(ctx, postgres.Options{
		AllowUnsafe: o.allowUnsafe, Pooler: o.pooler, PartRows: o.partRows, Conns: o.conns, Lanes: lanes, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	var openReplica func(context.Context) (log.Reader, error)
	if o.dbRead != "" {
		openReplica = func(ctx context.Context) (_ log.Reader, err error) {
			if r.replica, err = o.openReplica(ctx, r.store, logger); err != nil {
				return nil, fmt.Errorf("--db-read: %w", err)
			}
			return r.replica, nil
		}
	}
	if prefix == "" {
		if prefix, err = installationPrefix(ctx, r.store); err != nil {
			return nil, err
		}
	}
	seed, err := o.openSeed(ctx, r.store)
	if err != nil {
		return nil, err
	}
	if r.fence, err = o.openFence(ctx); err != nil {
		return nil, err
	}
	if r.archive, err = openArchive(ctx, o.archive, logger); err != nil {
		return nil, fmt.Errorf("--archive: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.service, err = log.Open(ctx, log.Config{
		Store: r.store, Seed: seed, Fence: r.fence, Prefix: prefix, Interval: o.interval, Logger: logger, Metrics: registry,
		Lanes: lanes, SingleLogBatches: o.singleLogBatches, Shared: o.onPostgres(), Replica: openReplica,
		MLDSA: o.mldsa, System: true, Hub: o.hub, HubPublic: o.hubPublic,
		RetentionCoolingOff: o.coolingOff, RetentionApproval: o.approval,
		Policy: o.witnesses.policy, FailOpen: o.failOpen, AcceptClaims: o.witnesses.acceptClaims,
		AcceptedBy: log.ByCommand("treeline serve --accept-witness-claim", userName()),
	})
	if err != nil {
		return nil, err
	}
	if len(r.service.Tenants()) == 0 {
		if _, err := r.service.CreateLog(ctx, log.ByServer(), api.DefaultLog, log.Settings{}); err != nil && !errors.Is(err, log.ErrExists) {
			return nil, fmt.Errorf("making the log %q: %w", api.DefaultLog, err)
		}
	}
	if r.keyFile, err = o.ensureAdminKey(ctx, r.service); err != nil {
		return nil, err
	}
	keeper := retention.New(retention.Config{Service: r.service, Store: r.store, Archive: r.archive, Logger: logger, Metrics: registry})
	r.keeping = inBackground(keeper.Run)
	c := api.Config{Service: r.service, Seed: seed, Logger: logger, Registry: registry, List: o.list, Rates: o.rates, Proxies: o.proxies, Keeper: keeper}
	if o.witnesses.policy != nil {
		feeder, err := o.newFeeder(r.service, logger, registry)
		if err != nil {
			return nil, err
		}
		c.Warnings = feeder.Problems
		r.feeding = feedInBackground(feeder)
	}
	r.server = api.New(c)
	return r, nil
}

// openReplica opens the standby that --db-read names, of the store in PostgreSQL. It is postgres.ErrUnreachable while the standby isn't
// there, or hasn't come so far as to have the schema that the store has.
func (o serveOptions) openReplica(ctx context.Context, store log.Store, logger *slog.Logger) (log.Store, error) {
	replica, err := postgres.OpenReadOnly(ctx, postgres.Options{URL: o.dbRead, Conns: o.conns, Logger: logger})
	if errors.Is(err, postgres.ErrSchema) {
		err = fmt.Errorf("%w: %w", postgres.ErrUnreachable, err)
	}
	if err != nil {
		return nil, err
	}
	if err := store.(*postgres.Store).CheckCopy(ctx, replica); err != nil {
		return nil, errors.Join(err, replica.Close())
	}
	return replica, nil
}

func newLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var opt slog.HandlerOptions
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: debug, info, warn or error", level)
	}
	opt.Level = l
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &opt)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &opt)), nil
	}
	return nil, fmt.Errorf("--log-format %q: text or json", format)
}

// originPrefix returns what origins begin with under a public base URL, "" if there is none.
func originPrefix(base string) (string, error) {
	if base == "" {
		return "", nil
	}
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("--url %q: want the public base URL, such as https://audit.example.com", base)
	}
	prefix := strings.TrimSuffix(u.Host+u.EscapedPath(), "/")
	if err := checkpoint.CheckOrigin(prefix + "/logs/x"); err != nil {
		return "", fmt.Errorf("--url %q: %w", base, err)
	}
	return prefix, nil
}

// installationPrefix returns the label that stands for a host while no public URL is given. It is made once, so that no
// two installations have logs of the same origin.
func installationPrefix(ctx context.Context, store log.Store) (string, error) {
	var random [6]byte
	rand.Read(random[:])
	return store.Label(ctx, "installation", hex.EncodeToString(random[:])+".localhost")
}

// makeDataDir makes a directory, and those that it is in, unless they are there. What is made survives a crash, as what will be in it does.
func makeDataDir(dir string) error {
	dir = filepath.Clean(dir)
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, os.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the data directory: %w", err)
	}
	for _, d := range missing {
		if err := checkpoint.SyncDir(filepath.Dir(d)); err != nil {
			return fmt.Errorf("making the data directory: %w", err)
		}
	}
	return nil
}

// openSeed loads the seed. It makes one only for a store without logs: a new seed would not derive the keys of old ones.
func (o storeOptions) openSeed(ctx context.Context, store log.Store) (checkpoint.Seed, error) {
	path := o.seedPath()
	seed, err := checkpoint.LoadSeed(path)
	if !errors.Is(err, os.ErrNotExist) {
		return seed, err
	}
	logs, err := store.Logs(ctx)
	if err != nil {
		return seed, err
	}
	if len(logs) > 0 {
		return seed, fmt.Errorf("%s is missing, and the store's logs are signed with keys derived from it; put it back, or name "+
			"it with --seed-file", path)
	}
	return checkpoint.CreateSeed(path)
}

// ensureAdminKey makes an admin key if there is none that is good, and returns the file that it is written to. The file is
// written first: a key that is in the store but in nobody's hands would keep the next start from making another.
func (o serveOptions) ensureAdminKey(ctx context.Context, service *log.Service) (string, error) {
	path := filepath.Join(o.dataDir, "admin.key")
	keys, err := service.Keys(ctx)
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		if k.Role == log.RoleAdmin && k.Ended(time.Now().UnixMicro()) == nil {
			return path, nil
		}
	}
	key, text := log.NewKey(log.RoleAdmin, 0, "admin.key, made at first start", time.Now().UnixMicro())
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return "", fmt.Errorf("writing the admin key: %w", err)
	}
	defer f.Close()
	if err := f.Chmod(0o600); err != nil { // it may have been there, and readable by others
		return "", fmt.Errorf("writing the admin key: %w", err)
	}
	if _, err := fmt.Fprintln(f, text); err != nil {
		return "", fmt.Errorf("writing the admin key: %w", err)
	}
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("writing the admin key: %w", err)
	}
	return path, service.AddKey(ctx, log.ByServer(), key)
}

// greet prints where the server is, and a call that works when pasted. Without a listener for operators ops is nil.
func greet(w io.Writer, service *log.Service, public, ops net.Addr, keyFile string) {
	base := localURL(public)
	fmt.Fprintf(w, "treeline is listening on %s\n", base)
	if ops != nil {
		fmt.Fprintf(w, "Metrics and health for the operator: %s/metrics\n", localURL(ops))
	}
	fmt.Fprintln(w)
	l := service.Log(api.DefaultLog)
	if l == nil {
		l = service.Tenants()[0]
	}
	fmt.Fprintf(w, "Verifier key of log %q (give it to whoever verifies):\n  %s\n", l.Name, l.VKeys[0])
	if len(l.VKeys) > 1 {
		fmt.Fprintf(w, "It has an ML-DSA-44 key, too, which is longer: GET /v1/checkpoint shows it.\n")
	}
	fmt.Fprintln(w)
	if hub := service.Log(log.HubName); hub != nil && service.KeepsHub() {
		fmt.Fprintf(w, "Verifier key of the hub (for the policy of whoever verifies hub proofs, and for witnesses):\n  %s\n\n", hub.VKeys[0])
	}
	key := fmt.Sprintf("$(cat %s)", keyFile)
	if _, err := os.Stat(keyFile); err != nil { // moved to a safe place, or written by another server
		key = "tl_…  # an admin's or a writer's key"
	}
	fmt.Fprintf(w, `Append an event:
  export KEY=%s
  curl -X POST %s/v1/events -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \
   -d '{"action":"user.permission.updated","actor_id":"user_123","actor_email":"admin@example.com","target_type":"user",
        "target_id":"user_456","metadata":{"old_role":"viewer","new_role":"editor","ip":"203.0.113.42"}}'

`, key, base)
}

// localURL returns the URL by which this machine reaches a listener.
func localURL(addr net.Addr) string {
	if a, ok := addr.(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		return fmt.Sprintf("http://localhost:%d", a.Port)
	}
	return "http://" + addr.String()
}
