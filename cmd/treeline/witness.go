package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/witness"
	"github.com/treeline-log/treeline/witness/sqlstate"
)

// witnessOptions are the flags of witness.
type witnessOptions struct {
	witnessState
	name         string
	mldsa        bool
	listen       string
	opsListen    string
	logs         []string
	lists        []string
	listMaxLogs  int
	listInterval time.Duration
	rate         float64
	logFormat    string
	logLevel     string
}

func newWitnessCmd() *cobra.Command {
	var o witnessOptions
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "Run a witness, which cosigns the checkpoints of other logs",
		Long: `Run a witness (C2SP tlog-witness). With no flags it keeps its keys and what it has cosigned in ./treeline-witness and listens
on 127.0.0.1:8090. It cosigns a checkpoint of a log that it knows only with proof that it extends the last one that it cosigned.
Logs are made known by "treeline witness add-log", which also works while it runs, by --logs and by --list.`,
		Example: `  treeline witness --name witness.example.com/w1 --logs logs.txt
  treeline witness add-log logs.example.com/logs/acme+61802530+AeQ5GK/WLLPTJJDio2/aSp/cEJb47mo47OYZYxIZImYj`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runWitness(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	o.witnessState.register(f)
	o.registerSeed(f)
	f.StringVar(&o.name, "name", "", "the witness's name, best its URL without the scheme; it is in its key, so it is chosen at the first start")
	f.BoolVar(&o.mldsa, "mldsa", false, "cosign with ML-DSA-44, too")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8090", "address to listen on")
	f.StringVar(&o.opsListen, "ops-listen", "127.0.0.1:8091", "address for metrics and health; empty for none")
	f.StringArrayVar(&o.logs, "logs", nil, "`FILE` of logs to make known, a list (logs/v0) or the log lines of a policy; may be repeated")
	f.StringArrayVar(&o.lists, "list", nil, "`URL` of a list of logs (logs/v0) to poll for new ones; may be repeated")
	f.IntVar(&o.listMaxLogs, "list-max-logs", witness.DefaultMaxListed, "how many logs the witness may know before lists add no more")
	f.DurationVar(&o.listInterval, "list-interval", time.Hour, "how often lists are polled")
	f.Float64Var(&o.rate, "rate-limit", 0, "add-checkpoint requests a second that are answered, over all logs; 0 for any number")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	cmd.AddCommand(newWitnessAddLogCmd(), newWitnessListLogsCmd(), newWitnessKeyCmd(), newWitnessEvidenceCmd())
	return cmd
}

// check refuses flags that make no sense, before anything is touched.
func (o witnessOptions) check() error {
	if o.listInterval < time.Second || o.listInterval > 24*time.Hour {
		return fmt.Errorf("--list-interval %v: from 1s to 24h", o.listInterval)
	}
	if o.listMaxLogs < 1 || o.listMaxLogs > 10_000_000 {
		return fmt.Errorf("--list-max-logs %d: from 1 to 10000000", o.listMaxLogs)
	}
	if !(o.rate >= 0 && o.rate <= 1e6) {
		return fmt.Errorf("--rate-limit %v: from 0 to 1000000", o.rate)
	}
	for _, url := range o.lists {
		if err := witness.CheckListURL(url); err != nil {
			return fmt.Errorf("--list: %w", err)
		}
	}
	return nil
}

func runWitness(ctx context.Context, o witnessOptions, stdout, stderr io.Writer) error {
	logger, err := newLogger(stderr, o.logFormat, o.logLevel)
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	known, err := readLogs(o.logs)
	if err != nil {
		return err
	}
	// The listeners first, so that a second witness on the address gives up before it touches anything.
	var front, back gate
	listeners, err := listen(o.listen, o.opsListen, &front, &back, logger)
	if err != nil {
		return err
	}
	defer listeners.close()
	state, err := whenReachable(ctx, logger, &back, func() (*sqlstate.DB, error) { return o.open(ctx) }, func(err error) bool {
		return errors.Is(err, sqlstate.ErrUnreachable)
	})
	if ctx.Err() != nil && err != nil {
		return nil // stopped as it was asked to, before its database came
	}
	if err != nil {
		return err
	}
	defer state.Close()
	cosigners, err := o.cosigners(ctx, state)
	if err != nil {
		return err
	}
	if _, err := state.AddKeys(ctx, known, true); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server, err := witness.NewServer(ctx, witness.ServerConfig{
		State: state, Cosigners: cosigners, Logger: logger, Registry: registry, Rate: o.rate, MaxListed: o.listMaxLogs,
	})
	if err != nil {
		return err
	}
	defer server.Close() // when all requests are answered
	server.PollLists(o.lists, o.listInterval)
	front.open(server)
	back.open(server.Ops())
	greetWitness(stdout, server, cosigners[0].Name(), listeners.public(), listeners.ops())
	return listeners.serve(ctx, func() {}, logger)
}

// readLogs reads the files that --logs names.
func readLogs(files []string) ([]witness.LogKey, error) {
	var all []witness.LogKey
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		keys, err := witness.ParseLogs(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, keys...)
	}
	return all, nil
}

// cosigners returns the witness's keys. At the first start they are made and recorded in the state. From then on the state belongs to
// them: a witness with other keys is another witness, which must have its own memory. They belong to the state as well, so which
// witness it is stands in the data directory, too: a new state under keys that were used is that of a witness that has forgotten.
func (o witnessOptions) cosigners(ctx context.Context, state *sqlstate.DB) ([]*checkpoint.Cosigner, error) {
	is, err := state.Identity(ctx)
	if err != nil {
		return nil, err
	}
	seed, err := checkpoint.LoadSeed(o.seedPath())
	if errors.Is(err, os.ErrNotExist) {
		if is != "" {
			return nil, fmt.Errorf("%s is missing, and the state is that of the witness %s, whose key is derived from it; put it back, or "+
				"name it with --seed-file", o.seedPath(), is)
		}
		seed, err = checkpoint.CreateSeed(o.seedPath())
	}
	if err != nil {
		return nil, err
	}
	used, err := os.ReadFile(o.identityPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	name, _, recorded := strings.Cut(is, "+")
	if !recorded {
		if before, _, ok := strings.Cut(string(used), "+"); ok && (o.name == "" || o.name == before) {
			return nil, fmt.Errorf("the state is new, and %s says that the witness %s has run here, who would cosign what contradicts its own "+
				"cosignatures; find its state, and name it with --db; if it is lost, start another witness: one with another --name",
				o.identityPath(), strings.TrimSpace(string(used)))
		}
		if name = o.name; name == "" {
			name = randomWitnessName()
		}
	} else if o.name != "" && o.name != name {
		return nil, fmt.Errorf("--name %s: the state is that of the witness %s; a name is part of the key, so another name is another "+
			"witness, which wants its own --data-dir", o.name, name)
	}
	cosigners, err := deriveCosigners(seed, name, o.mldsa)
	if err != nil {
		return nil, err
	}
	vkey := cosigners[0].VKey()
	if is, err = state.Claim(ctx, vkey); err != nil {
		return nil, err
	}
	if is != vkey {
		return nil, fmt.Errorf("the state is that of the witness %s, and the seed in %s is that of %s; name the right one with "+
			"--seed-file", is, o.seedPath(), vkey)
	}
	if string(used) != vkey+"\n" {
		if err := checkpoint.ReplaceFile(o.identityPath(), []byte(vkey+"\n")); err != nil {
			return nil, err
		}
	}
	return cosigners, nil
}

// identityPath returns the file that says which witness has run with the data directory, by its first verifier key.
func (o witnessOptions) identityPath() string { return filepath.Join(o.dataDir, "identity") }

// randomWitnessName returns a name for a witness that wasn't given one, so that no two have the same.
func randomWitnessName() string {
	var random [6]byte
	rand.Read(random[:])
	return hex.EncodeToString(random[:]) + ".localhost/witness"
}

// deriveCosigners returns the keys of a witness, Ed25519 first.
func deriveCosigners(seed checkpoint.Seed, name string, mldsa bool) ([]*checkpoint.Cosigner, error) {
	ed25519, err := seed.Ed25519Cosigner(name)
	if err != nil {
		return nil, err
	}
	if !mldsa {
		return []*checkpoint.Cosigner{ed25519}, nil
	}
	mldsa44, err := seed.MLDSA44Cosigner(name)
	if err != nil {
		return nil, err
	}
	return []*checkpoint.Cosigner{ed25519, mldsa44}, nil
}

// greetWitness prints where the witness is, and what others need to trust it.
func greetWitness(w io.Writer, server *witness.Server, name string, public, ops net.Addr) {
	base := localURL(public)
	fmt.Fprintf(w, "treeline witness %s is listening on %s\n", name, base)
	if ops != nil {
		fmt.Fprintf(w, "Metrics and health for the operator: %s/metrics\n", localURL(ops))
	}
	fmt.Fprint(w, "\nVerifier keys (whoever trusts this witness puts one of them into a policy: witness W1 KEY URL):\n")
	for _, vkey := range server.VKeys() {
		fmt.Fprintf(w, "  %s\n", vkey)
	}
	fmt.Fprint(w, "\nMake a log known:\n  treeline witness add-log VKEY\n\n")
}
