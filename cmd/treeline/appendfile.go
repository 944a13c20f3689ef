package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// appendReport says what came of a file of events.
type appendReport struct {
	File       string   `json:"file"` // "-" for standard input
	Log        string   `json:"log,omitempty"`
	New        int      `json:"new"`
	Duplicates int      `json:"duplicates"` // stored already, by an earlier run or attempt
	FirstIndex *uint64  `json:"first_index,omitempty"`
	LastIndex  *uint64  `json:"last_index,omitempty"` // of the new events; other clients' may lie between
	Seconds    float64  `json:"seconds"`
	Stopped    *stopped `json:"stopped,omitempty"` // absent when every event is stored
}

// stopped says where appending stopped. Every event before the line is stored.
type stopped struct {
	Line  int    `json:"line"` // from 1
	Error string `json:"error"`
}

// appender sends the events of one file.
type appender struct {
	c    *client
	opt  *appendOptions
	in   *batchReader
	name string
	bar  progress
	size int64 // of the file in bytes, -1 if not known

	mu     sync.Mutex
	report appendReport
	err    error // why it stopped, at report.Stopped.Line
	final  placed
}

// appendFile sends every line of the named file, or of standard input for "-", and prints a report.
func appendFile(cmd *cobra.Command, c *client, opt *appendOptions, name string) error {
	a := &appender{c: c, opt: opt, name: name, size: -1, report: appendReport{File: name}}
	in := cmd.InOrStdin()
	ids := newLineIDs(opt.idPrefix)
	if name == "-" {
		a.name = "standard input"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("append: %w", err)
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			a.size = info.Size()
		}
		if opt.idPrefix == "" {
			ids = newLineIDs("line")
		}
		in = f
	}
	a.in = newBatchReader(in, opt.batch, ids)

	// A file's progress is known in bytes; of a stream, only the events that went by.
	style := []progressbar.Option{progressbar.OptionShowBytes(true)}
	if a.size < 0 {
		style = []progressbar.Option{progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("events")}
	}
	a.bar = newProgress(cmd.ErrOrStderr(), a.size, "append", style...)
	if c.onRetry != nil {
		c.onRetry = func(err error, _ time.Duration) { a.bar.describe("append, retrying: " + printable(err.Error(), "")) }
	}

	began := time.Now()
	a.sendAll(cmd.Context())
	a.bar.finish()
	a.report.Seconds = time.Since(began).Seconds()
	if err := a.print(cmd.OutOrStdout()); err != nil {
		return err
	}
	if a.err != nil {
		return a.err
	}
	if a.final.ID == "" {
		return nil
	}
	return opt.checkState(a.final.ID, a.final.State)
}

// sendAll sends batch after batch until the input ends or one fails.
func (a *appender) sendAll(ctx context.Context) {
	var flying errgroup.Group
	flying.SetLimit(a.opt.concurrency)
	defer func() { _ = flying.Wait() }() // failures are kept in a
	for !a.failed() {
		b, err := a.in.next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			_ = flying.Wait() // an earlier batch that fails is where it stopped
			a.stop(a.in.line, err, nil, a.in.ids.random)
			return
		}
		if b.last && a.opt.wait != "" {
			// The batch that is waited for is sent when all others are stored, so it has the highest indices.
			_ = flying.Wait()
		}
		flying.Go(func() error {
			// With one batch in flight this begins when the one before has ended, perhaps badly: order is kept.
			if !a.failed() {
				a.send(ctx, b)
			}
			return nil
		})
	}
}

// failed reports whether a batch has failed, so that no further one is begun.
func (a *appender) failed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err != nil
}

// send sends one batch and adds what came of it to the report.
func (a *appender) send(ctx context.Context, b *batch) {
	var answer struct {
		Log  string   `json:"log"`
		Data []placed `json:"data"`
	}
	body, err := a.c.do(ctx, &request{
		method:      http.MethodPost,
		path:        "/v1/events/batch",
		query:       a.opt.query(b.last),
		contentType: "application/x-ndjson",
		body:        b.body,
		repeatable:  true, // every event has an id
	})
	if err == nil {
		err = decodeAnswer(body, &answer)
	}
	if err == nil && len(answer.Data) != len(b.lines) {
		err = fmt.Errorf("server answered for %d events, sent %d", len(answer.Data), len(b.lines))
	}
	if err != nil {
		a.stop(b.lines[0], err, b.lines, b.random)
		return
	}

	a.mu.Lock()
	defer a.mu.Unlock()
	r := &a.report
	r.Log = answer.Log
	for _, e := range answer.Data {
		if e.Duplicate {
			r.Duplicates++
			continue
		}
		r.New++
		if r.FirstIndex == nil || e.Index < *r.FirstIndex {
			r.FirstIndex = &e.Index
		}
		if r.LastIndex == nil || e.Index > *r.LastIndex {
			r.LastIndex = &e.Index
		}
	}
	if b.last {
		a.final = answer.Data[len(answer.Data)-1]
	}
	a.bar.describe("append") // no longer retrying
	if a.size >= 0 {
		a.bar.add(b.read)
	} else {
		a.bar.add(int64(len(b.lines)))
	}
}

// stop records that nothing from the given line on is known to be stored, unless an earlier line is recorded
// already. lines are the numbers of the failed batch's events, nil if none were sent; random says that some events
// so far have ids that are lost with this run.
func (a *appender) stop(line int, err error, lines []int, random bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.report.Stopped; s != nil && s.Line <= line {
		return
	}
	p, refused := errors.AsType[*problem](err)
	text := err.Error()
	if refused && len(p.Errors) > 0 {
		text = p.text(func(index int) string {
			if index < 0 || index >= len(lines) {
				return "event " + strconv.Itoa(index) + " of the batch"
			}
			return "line " + strconv.Itoa(lines[index])
		})
	}
	a.report.Stopped = &stopped{Line: line, Error: text}
	a.err = fmt.Errorf("append %s: stopped at line %d: %s", a.name, line, text)
	invalid := refused && (p.Status == http.StatusBadRequest || p.Status == http.StatusConflict)
	switch {
	case refused && !invalid && !p.transient():
		if hint := p.hint(); hint != "" {
			a.err = withHint(a.err, hint)
		}
	case random && a.opt.concurrency == 1 && (invalid || lines == nil):
		a.err = withHint(a.err, "all before this line is stored, nothing after it: correct it and send the rest")
	case random:
		a.err = withHint(a.err, "all before this line is stored, later ones perhaps: look for them before sending the rest (an --id-prefix makes a run repeatable)")
	case invalid || lines == nil:
		a.err = withHint(a.err, "correct it and run the same command again: what is stored already counts as duplicates")
	default:
		a.err = withHint(a.err, "run the same command again: what is stored already counts as duplicates")
	}
}

// print writes the report to w.
func (a *appender) print(w io.Writer) error {
	r := &a.report
	if a.opt.json {
		return printJSON(w, r)
	}
	line := fmt.Sprintf("%d events stored", r.New+r.Duplicates)
	if r.Log != "" {
		line += " in log " + printable(r.Log, "")
	}
	line += fmt.Sprintf(": %d new", r.New)
	if r.FirstIndex != nil {
		line += fmt.Sprintf(" (indexes %d to %d)", *r.FirstIndex, *r.LastIndex)
	}
	line += fmt.Sprintf(", %d duplicates, in %.1f s", r.Duplicates, r.Seconds)
	if r.Stopped != nil {
		line += fmt.Sprintf("; stopped at line %d", r.Stopped.Line)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
