package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// watched is what a server's metrics said while it was measured.
type watched struct {
	Unindexed       float64     `json:"unindexed_events"` // that the search index was behind, over all logs: at the end,
	UnindexedMax    float64     `json:"unindexed_events_max"`
	UnindexedTenths [10]float64 `json:"unindexed_events_max_by_tenth"` // at most in each tenth of the time
	ResidentMax     float64     `json:"resident_bytes_max"`
}

// watch asks a server for its metrics, again and again.
type watch struct {
	watched
	url    string
	client http.Client
}

// Metrics that watch looks at. What has no resident memory to tell, such as a server on macOS, has 0.
const (
	metricUnindexed = "treeline_unindexed_events"
	metricResident  = "process_resident_memory_bytes"
)

// newWatch returns a watch on the server whose operator's listener is at the URL, which answered.
func newWatch(ctx context.Context, ops string) (*watch, error) {
	w := &watch{url: strings.TrimSuffix(ops, "/") + "/metrics", client: http.Client{Timeout: 5 * time.Second}}
	if err := w.look(ctx, 0); err != nil {
		return nil, withHint(err, "give --ops the URL of the server's --ops-listen, such as http://127.0.0.1:8081")
	}
	w.watched = watched{}
	return w, nil
}

// run looks every second, or more often in a short time, from one time to another.
func (w *watch) run(ctx context.Context, from, to time.Time) error {
	pause(ctx, time.Until(from))
	span := to.Sub(from)
	for now := time.Now(); now.Before(to); now = time.Now() {
		if err := w.look(ctx, int(10*now.Sub(from)/span)); err != nil {
			return err
		}
		pause(ctx, min(time.Second, span/20, time.Until(to)))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

// look looks once, in a tenth of the time.
func (w *watch) look(ctx context.Context, tenth int) error {
	text, err := w.metrics(ctx)
	if err != nil {
		return err
	}
	if w.Unindexed, err = metricIn(text, metricUnindexed); err != nil {
		return fmt.Errorf("%s: %w", w.url, err)
	}
	w.UnindexedMax = max(w.UnindexedMax, w.Unindexed)
	w.UnindexedTenths[tenth] = max(w.UnindexedTenths[tenth], w.Unindexed)
	if resident, err := metricIn(text, metricResident); err == nil {
		w.ResidentMax = max(w.ResidentMax, resident)
	}
	return nil
}

// metrics returns the metrics as they are written.
func (w *watch) metrics(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
	if err != nil {
		return "", err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %d", w.url, resp.StatusCode)
	}
	return string(text), err
}

// metricIn returns the value of a metric without labels.
func metricIn(text, name string) (float64, error) {
	_, rest, ok := strings.Cut("\n"+text, "\n"+name+" ")
	if !ok {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return 0, fmt.Errorf("metric %s is %q: %w", name, value, err)
	}
	return n, nil
}
