package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/witness"
)

// feedOptions are the flags of serve that are about the witnesses of its logs.
type feedOptions struct {
	policyFile      string
	failOpen        bool
	acceptClaims    []string
	witnessInterval time.Duration
	witnessRefresh  time.Duration

	witnesses witnesses
}

// witnesses is what the flags say, read.
type witnesses struct {
	policy       *checkpoint.Policy // nil: there are none
	acceptClaims map[string]uint64  // by log
}

func (o *feedOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.policyFile, "policy", "", "`FILE` that says which witnesses must have cosigned a checkpoint before it is released (C2SP tlog-policy)")
	f.BoolVar(&o.failOpen, "witness-fail-open", false, "release what is signed though the witness policy isn't met")
	f.StringArrayVar(&o.acceptClaims, "accept-witness-claim", nil,
		"`LOG=SIZE`: sign the log though witnesses claim that it had up to so many entries, which the store doesn't have (repeatable)")
	f.DurationVar(&o.witnessInterval, "witness-interval", 5*time.Second, "shortest time between two checkpoints of one log that go to witnesses")
	f.DurationVar(&o.witnessRefresh, "witness-refresh", time.Hour, "how often witnesses cosign a checkpoint again that hasn't changed")
}

// read reads the policy, and checks the flags.
func (o *feedOptions) read() (witnesses, error) {
	var w witnesses
	if o.policyFile == "" {
		if o.failOpen || len(o.acceptClaims) > 0 {
			return w, fmt.Errorf("--witness-fail-open and --accept-witness-claim are for a server with --policy")
		}
		return w, nil
	}
	if o.witnessInterval < 0 || o.witnessInterval > 24*time.Hour || o.witnessRefresh < time.Second || o.witnessRefresh > 30*24*time.Hour {
		return w, fmt.Errorf("--witness-interval: from 0s to 24h; --witness-refresh: from 1s to 720h")
	}
	var err error
	if w.policy, err = optionalPolicy(o.policyFile); err != nil {
		return w, err
	}
	w.acceptClaims = make(map[string]uint64)
	for _, claim := range o.acceptClaims {
		name, text, ok := strings.Cut(claim, "=")
		size, err := strconv.ParseUint(text, 10, 63)
		if !ok || err != nil || name == "" {
			return w, fmt.Errorf("--accept-witness-claim %q: want LOG=SIZE, as the server's log names them", claim)
		}
		w.acceptClaims[name] = size
	}
	return w, nil
}

// optionalPolicy reads the file that --policy names; nil if it names none.
func optionalPolicy(path string) (*checkpoint.Policy, error) {
	if path == "" {
		return nil, nil
	}
	return readPolicy(path)
}

// newFeeder returns what brings the service's checkpoints to the witnesses.
func (o *feedOptions) newFeeder(service *log.Service, logger *slog.Logger, registry *prometheus.Registry) (*witness.Feeder, error) {
	feeder, err := witness.NewFeeder(witness.FeederConfig{
		Policy: o.witnesses.policy, Logger: logger, Metrics: registry, Interval: o.witnessInterval, Refresh: o.witnessRefresh,
		Logs: func() []witness.Log {
			fed := service.Fed()
			logs := make([]witness.Log, len(fed))
			for i, l := range fed {
				logs[i] = l
			}
			return logs
		},
	})
	if err != nil {
		return nil, fmt.Errorf("--policy %s: %w", o.policyFile, err)
	}
	if o.failOpen {
		logger.Warn("FAIL OPEN: checkpoints are released though the witness policy isn't met (--witness-fail-open)")
	}
	return feeder, nil
}

// feedInBackground runs a feeder, and returns what ends it.
func feedInBackground(feeder *witness.Feeder) (end func()) { return inBackground(feeder.Run) }

// inBackground runs run until end is called, which waits until it has ended.
func inBackground(run func(context.Context)) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}
