package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// benchOptions are the flags of bench beside those of the client.
type benchOptions struct {
	log         string
	logs        int
	mode        string
	batch       int
	concurrency int
	duration    time.Duration
	warmUp      time.Duration
	rate        float64
	event       string
	ops         string
	json        bool
}

func newBenchCmd() *cobra.Command {
	var opt benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast a server takes events",
		Long: `Bench appends events to a log for a while and prints how many a second the server took, and how
long requests waited for their answers. The events stay in the log, so give it a log of its own.

It is a closed loop: each connection sends its next request when the one before is answered,
so the server is never asked for more than it can do, and latency is what a client sees that
waits for its answers. With --rate it is an open one: requests are due at even times, whether
or not those before are answered, and latency counts from when they were due. Requests are
counted when their answer arrives in the measured time.

An --event FILE holds one JSON event or several, which a batch takes in turn. In their strings
{{id}} becomes an id that is used once, {{user}} one of 10,000 numbers, and {{other}} another
of them.

With --ops it also tells how many events the search index was behind, and the server's memory.`,
		Example: `  treeline bench --log bench --concurrency 256 --duration 30s
  treeline bench --log bench --mode batch --batch 1000 --concurrency 4 --json
  treeline bench --log bench --mode batch --rate 16000 --duration 10m --ops http://127.0.0.1:8081`,
		Args: arguments(0, 0, "none"),
	}
	client := addClientFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&opt.log, "log", "", "`NAME` of the log, for a key that isn't bound to one")
	flags.IntVar(&opt.logs, "logs", 0, "spread requests over this many logs, NAME-0001 and so on, which are made if need be")
	flags.StringVar(&opt.mode, "mode", "single", "`MODE`: single events, or batch for NDJSON")
	flags.IntVar(&opt.batch, "batch", 1000, "events in a batch, 1 to 10000")
	flags.IntVar(&opt.concurrency, "concurrency", 64, "connections")
	flags.DurationVar(&opt.duration, "duration", 10*time.Second, "how long to measure")
	flags.DurationVar(&opt.warmUp, "warm-up", 2*time.Second, "how long to run before measuring")
	flags.Float64Var(&opt.rate, "rate", 0, "events a second to send, whatever is answered (default as many as are answered)")
	flags.StringVar(&opt.event, "event", "", "`FILE` with the events to send (default an event of a permission change)")
	flags.StringVar(&opt.ops, "ops", "", "`URL` of the server's --ops-listen, to watch its index and memory")
	flags.BoolVar(&opt.json, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := opt.check(); err != nil {
			return err
		}
		c, err := newClient(cmd, client)
		if err != nil {
			return err
		}
		report, err := bench(cmd, c, &opt)
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		if opt.json {
			err = printJSON(cmd.OutOrStdout(), report)
		} else {
			err = report.print(cmd.OutOrStdout())
		}
		if err == nil && report.Requests == 0 {
			err = withHint(errors.New("bench: no request succeeded in the measured time"), "see the errors above, or measure longer")
		}
		return err
	}
	return cmd
}

// check returns an error that names the first option out of its range.
func (o *benchOptions) check() error {
	switch {
	case o.mode != "single" && o.mode != "batch":
		return fmt.Errorf("--mode %q: want single or batch", o.mode)
	case o.logs < 0 || o.logs > maxBenchLogs || o.logs > 0 && o.log == "":
		return fmt.Errorf("--logs %d: want 1 to %d, and --log for what their names begin with", o.logs, maxBenchLogs)
	case o.batch < 1 || o.batch > maxBatchEvents:
		return fmt.Errorf("--batch %d: want 1 to %d events", o.batch, maxBatchEvents)
	case o.concurrency < 1 || o.concurrency > maxConcurrency:
		return fmt.Errorf("--concurrency %d: want 1 to %d", o.concurrency, maxConcurrency)
	case o.duration <= 0:
		return fmt.Errorf("--duration %v: want more than nothing", o.duration)
	case o.warmUp < 0:
		return fmt.Errorf("--warm-up %v: want 0 or more", o.warmUp)
	case !(o.rate >= 0 && o.rate <= maxBenchRate):
		return fmt.Errorf("--rate %v: want 0 to %.0f events a second", o.rate, maxBenchRate)
	}
	return nil
}

// maxBenchRate is more than any server takes.
const maxBenchRate = 1e9

// maxBenchLogs is the most that the four digits in their names can tell apart.
const maxBenchLogs = 9999

// benchLog returns the name of one of several logs.
func benchLog(name string, number int) string { return fmt.Sprintf("%s-%04d", name, number) }

// makeBenchLogs makes the logs that aren't there yet.
func makeBenchLogs(ctx context.Context, c *client, opt *benchOptions) error {
	for number := 1; number <= opt.logs; number++ {
		body, err := json.Marshal(map[string]string{"name": benchLog(opt.log, number)})
		if err != nil {
			return err
		}
		_, err = c.do(ctx, &request{method: http.MethodPost, path: "/v1/logs", contentType: "application/json", body: body})
		var p *problem
		if errors.As(err, &p) && p.Status == http.StatusConflict {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// benchReport is what a run measured. Rates and latencies count the answers 200 and 201 only.
type benchReport struct {
	Server           string            `json:"server"`
	Mode             string            `json:"mode"`
	Batch            int               `json:"batch"` // events in a request
	Concurrency      int               `json:"concurrency"`
	Rate             float64           `json:"rate,omitempty"` // events a second that were asked for
	RequestBytes     int               `json:"request_bytes"`  // of one body
	WarmUpSeconds    float64           `json:"warm_up_seconds"`
	Seconds          float64           `json:"seconds"`
	Requests         uint64            `json:"requests"`
	Events           uint64            `json:"events"`
	RequestsPerSec   float64           `json:"requests_per_second"`
	EventsPerSec     float64           `json:"events_per_second"`
	Latency          latencies         `json:"latency_ms"`
	Errors           map[string]uint64 `json:"errors"`                                    // by HTTP status; "connection" for no answer
	ClientCPUSeconds float64           `json:"client_cpu_seconds,omitempty"`              // of this process while measuring
	ClientCPUMicros  float64           `json:"client_cpu_microseconds_request,omitempty"` // of this process for each request
	CPUs             int               `json:"cpus"`                                      // of this machine
	Watched          *watched          `json:"server_watched,omitempty"`
	Build            build             `json:"client"`
}

// latencies are in milliseconds, from before a request is written until its answer is read.
type latencies struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// summarize returns the latencies in h, which holds microseconds.
func summarize(h *hdrhistogram.Histogram) latencies {
	ms := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1000 }
	return latencies{
		Mean: h.Mean() / 1000,
		P50:  ms(50),
		P90:  ms(90),
		P99:  ms(99),
		P999: ms(99.9),
		Max:  float64(h.Max()) / 1000,
	}
}

// bench runs the load that opt describes.
func bench(cmd *cobra.Command, c *client, opt *benchOptions) (*benchReport, error) {
	events, path, contentType := 1, "/v1/events", "application/json"
	if opt.mode == "batch" {
		events, path, contentType = opt.batch, "/v1/events/batch", "application/x-ndjson"
	}
	source := []byte(defaultTemplate)
	if opt.event != "" {
		var err error
		if source, err = os.ReadFile(opt.event); err != nil {
			return nil, err
		}
	}
	body, err := parseTemplate(source, events)
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", opt.event, err)
	}
	if len(body.bytes) > maxBatchBytes {
		return nil, fmt.Errorf("a batch of %d events is %d bytes long, more than the %d that a server takes", events, len(body.bytes), maxBatchBytes)
	}
	call := &request{method: http.MethodPost, path: path, contentType: contentType, body: body.bytes}
	if opt.log != "" {
		call.query = url.Values{"log": {opt.log}}
	}
	if opt.logs > 0 {
		if err := makeBenchLogs(cmd.Context(), c, opt); err != nil {
			return nil, err
		}
		call.query.Set("log", benchLog(opt.log, 1))
	}

	// The first request goes the ordinary way, which explains what may be wrong with the key or the event.
	sequence := newSequence()
	body.fill(sequence)
	if _, err := c.do(cmd.Context(), call); err != nil {
		return nil, err
	}

	l := newLoad(c, call, body, sequence)
	if opt.logs > 0 {
		l.spread(benchLog(opt.log, 1), opt.logs)
	}
	var watch *watch
	if opt.ops != "" {
		if watch, err = newWatch(cmd.Context(), opt.ops); err != nil {
			return nil, err
		}
	}
	bar := newProgress(cmd.ErrOrStderr(), int64((opt.warmUp+opt.duration)/progressTick), "bench")
	defer bar.finish()
	l.schedule(opt)
	group, ctx := errgroup.WithContext(cmd.Context())
	group.Go(func() error { return l.run(ctx, opt, bar) })
	if watch != nil {
		group.Go(func() error { return watch.run(ctx, l.from, l.to) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	seconds := l.elapsed.Seconds()
	r := &benchReport{
		Server:           c.base.String(),
		Mode:             opt.mode,
		Batch:            events,
		Concurrency:      opt.concurrency,
		Rate:             opt.rate,
		RequestBytes:     len(body.bytes),
		WarmUpSeconds:    opt.warmUp.Seconds(),
		Seconds:          seconds,
		Requests:         l.requests,
		Events:           l.requests * uint64(events),
		RequestsPerSec:   float64(l.requests) / seconds,
		Latency:          summarize(l.latency),
		Errors:           l.errors,
		ClientCPUSeconds: l.cpu.Seconds(),
		CPUs:             runtime.NumCPU(),
		Build:            readBuild(),
	}
	r.EventsPerSec = r.RequestsPerSec * float64(events)
	if watch != nil {
		r.Watched = &watch.watched
	}
	if l.requests > 0 {
		r.ClientCPUMicros = float64(l.cpu.Microseconds()) / float64(l.requests)
	}
	return r, nil
}

// print writes the report for people.
func (r *benchReport) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "events\t%.0f/s\t%d in %.1f s, %d a request of %d bytes\n", r.EventsPerSec, r.Events, r.Seconds, r.Batch, r.RequestBytes)
	fmt.Fprintf(t, "requests\t%.0f/s\tover %d connections", r.RequestsPerSec, r.Concurrency)
	if r.Rate > 0 {
		fmt.Fprintf(t, "; %.0f/s were asked for", r.Rate/float64(r.Batch))
	}
	fmt.Fprintln(t)
	fmt.Fprintf(t, "latency\tp50 %.2f ms\tp90 %.2f, p99 %.2f, p99.9 %.2f, max %.2f, mean %.2f\n",
		r.Latency.P50, r.Latency.P90, r.Latency.P99, r.Latency.P999, r.Latency.Max, r.Latency.Mean)
	kinds := make([]string, 0, len(r.Errors))
	total := uint64(0)
	for kind, n := range r.Errors {
		kinds = append(kinds, fmt.Sprintf("%s: %d", kind, n))
		total += n
	}
	slices.Sort(kinds)
	fmt.Fprintf(t, "errors\t%d\t%s\n", total, strings.Join(kinds, ", "))
	if r.ClientCPUSeconds > 0 {
		fmt.Fprintf(t, "client CPU\t%.1f µs\ta request; %.2f of this machine's %d cores\n", r.ClientCPUMicros, r.ClientCPUSeconds/r.Seconds, r.CPUs)
	}
	if w := r.Watched; w != nil {
		fmt.Fprintf(t, "not indexed\t%.0f\tat most; %.0f at the end, %.0f at most in each tenth of the time\n", w.UnindexedMax, w.Unindexed, w.UnindexedTenths)
		fmt.Fprintf(t, "server memory\t%.0f MB\tresident at most\n", w.ResidentMax/1e6)
	}
	return t.Flush()
}
