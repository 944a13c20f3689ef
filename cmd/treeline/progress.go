package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// isTerminal reports whether someone is watching what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress is a progress bar on a terminal, and nothing anywhere else. Its methods are safe for concurrent use.
type progress struct {
	bar *progressbar.ProgressBar // nil: nobody is watching
}

// newProgress returns a bar on w that is full at total, or one without an end when total is -1.
func newProgress(w io.Writer, total int64, description string, options ...progressbar.Option) progress {
	if !isTerminal(w) {
		return progress{}
	}
	return progress{progressbar.NewOptions64(total, append([]progressbar.Option{
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(description),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionSetWidth(24),
		progressbar.OptionClearOnFinish(),
	}, options...)...)}
}

// A bar is decoration: that it can't be drawn is no reason to stop, so the methods drop the bar's errors.

func (p progress) add(n int64) {
	if p.bar != nil {
		_ = p.bar.Add64(n)
	}
}

func (p progress) describe(text string) {
	if p.bar != nil {
		p.bar.Describe(text)
	}
}

// finish removes the bar from the terminal.
func (p progress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
