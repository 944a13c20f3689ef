package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	progressTick = 100 * time.Millisecond
	// lastAnswer is how long requests under way when the time is over may take to be answered.
	lastAnswer = 15 * time.Second
	// Pauses of one connection, so that a server that refuses isn't measured by how fast it refuses.
	refusedPause = 10 * time.Millisecond
	brokenPause  = 100 * time.Millisecond
)

// load drives a server as hard as its connections allow, or at a rate. It shares the machine with the server more often than not,
// so a request must cost little: net/http's client takes about 40 µs of CPU for one, with two goroutines for each
// connection and a header map for each answer. Here a connection is one goroutine that overwrites its last request
// in place, writes it with one system call, and reads of the answer no more than it must (see responseReader).
type load struct {
	base     *url.URL
	address  string // host:port
	head     []byte // of every request
	body     *body  // copied by each connection
	sequence *sequence
	logs     int // how many logs the requests go to in turn; 0: one
	logAt    int // where in the head the number of the log ends
	turn     atomic.Uint64

	rate     float64       // requests a second that are due from began on; 0: whenever the one before is answered
	due      atomic.Uint64 // how many of them connections have taken upon themselves
	began    time.Time
	from, to time.Time // answers in [from, to) are counted

	mu       sync.Mutex
	requests uint64 // answered by 200 or 201
	errors   map[string]uint64
	latency  *hdrhistogram.Histogram // microseconds, of the requests counted

	elapsed time.Duration // from from to to
	cpu     time.Duration // of this process in that time, 0 where it can't be told
}

// newLoad returns the load of sending call over and over, with the events of body as sequence goes on.
func newLoad(c *client, call *request, b *body, s *sequence) *load {
	l := &load{
		base:     c.base,
		address:  c.base.Host,
		body:     b,
		sequence: s,
		errors:   map[string]uint64{},
		latency:  hdrhistogram.New(1, int64((time.Minute)/time.Microsecond), 3),
	}
	if c.base.Port() == "" {
		l.address = net.JoinHostPort(c.base.Hostname(), map[string]string{"http": "80", "https": "443"}[c.base.Scheme])
	}
	target, _ := url.Parse(call.url(c.base)) // base was parsed already, and the rest is ours
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: treeline\r\nContent-Type: %s\r\nContent-Length: %d\r\n",
		call.method, target.RequestURI(), c.base.Host, call.contentType, len(b.bytes))
	if c.key != "" {
		fmt.Fprintf(&head, "Authorization: Bearer %s\r\n", c.key)
	}
	head.WriteString("\r\n")
	l.head = head.Bytes()
	return l
}

// spread makes requests go to several logs in turn, the first of which is the one that the head names.
func (l *load) spread(first string, logs int) {
	l.logs, l.logAt = logs, bytes.Index(l.head, []byte("log="+first))+len("log="+first)
}

// schedule sets when the load begins, which is now, and when what is counted.
func (l *load) schedule(opt *benchOptions) {
	l.rate = opt.rate / float64(l.body.events)
	l.began = time.Now()
	l.from = l.began.Add(opt.warmUp)
	l.to = l.from.Add(opt.duration)
}

// run sends for opt's warm-up and duration, over opt's connections, and counts what the second brought.
func (l *load) run(ctx context.Context, opt *benchOptions, bar progress) error {
	ctx, cancel := context.WithDeadline(ctx, l.to.Add(lastAnswer))
	defer cancel()
	var connections sync.WaitGroup
	for range opt.concurrency {
		connections.Go(func() { l.send(ctx) })
	}
	err := waitUntil(ctx, l.from, bar)
	began, cpu := time.Now(), processCPU()
	if err == nil {
		err = waitUntil(ctx, l.to, bar)
	}
	l.elapsed, l.cpu = time.Since(began), processCPU()-cpu
	if err != nil {
		cancel()
	}
	connections.Wait()
	return err
}

// waitUntil waits until t and moves bar on meanwhile.
func waitUntil(ctx context.Context, t time.Time, bar progress) error {
	for {
		left := time.Until(t)
		if left <= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(left, progressTick)):
			bar.add(1)
		}
	}
}

// send keeps one connection busy, and opens another when that breaks, until the time is over.
func (l *load) send(ctx context.Context) {
	// The request is one piece of memory: its head, and a body that is overwritten in place.
	buffer := slices.Concat(l.head, l.body.bytes)
	b := &body{bytes: buffer[len(l.head):], events: l.body.events, places: l.body.places}
	for l.running(ctx) {
		conn, err := l.dial(ctx)
		if err == nil {
			err = l.use(ctx, conn, buffer, b)
			conn.Close()
		}
		if err != nil {
			l.fail("connection")
			pause(ctx, brokenPause)
		}
	}
}

// use sends the request in buffer, with new events in its body b, whenever the one before is answered and another is due. It
// returns an error if the connection breaks, and nil when the server closes it or the time is over.
func (l *load) use(ctx context.Context, conn net.Conn, buffer []byte, b *body) error {
	// When the caller gives up, what waits for an answer is interrupted.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	response := newResponseReader(conn)
	for keep := true; keep && l.running(ctx); {
		b.fill(l.sequence)
		if l.logs > 0 {
			putDecimal(buffer[l.logAt-4:l.logAt], l.turn.Add(1)%uint64(l.logs)+1)
		}
		sent := l.next(ctx)
		if !l.running(ctx) {
			return nil
		}
		if _, err := conn.Write(buffer); err != nil {
			return err
		}
		var status int
		var err error
		status, keep, err = response.read()
		switch {
		case err != nil:
			return err
		case status == http.StatusOK || status == http.StatusCreated:
			l.succeed(sent, time.Now())
		default:
			l.fail(strconv.Itoa(status))
			pause(ctx, refusedPause)
		}
	}
	return nil
}

// next waits until another request is due, and returns since when it is. One that no connection was free for has been so for a while.
func (l *load) next(ctx context.Context) time.Time {
	if l.rate == 0 {
		return time.Now()
	}
	due := l.began.Add(time.Duration(float64(l.due.Add(1)-1) / l.rate * float64(time.Second)))
	if wait := min(time.Until(due), time.Until(l.to)); wait > 0 {
		pause(ctx, wait)
	}
	return due
}

// running reports whether there is time for another request.
func (l *load) running(ctx context.Context) bool {
	return ctx.Err() == nil && time.Now().Before(l.to)
}

// dial opens a connection to the server.
func (l *load) dial(ctx context.Context) (net.Conn, error) {
	if l.base.Scheme == "https" {
		d := tls.Dialer{Config: &tls.Config{NextProtos: []string{"http/1.1"}}}
		return d.DialContext(ctx, "tcp", l.address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", l.address)
}

// succeed counts a request that was sent, or due, and answered at the given times.
func (l *load) succeed(sent, answered time.Time) {
	if answered.Before(l.from) || !answered.Before(l.to) {
		return
	}
	micros := min(max(answered.Sub(sent).Microseconds(), 1), l.latency.HighestTrackableValue())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	// The value is in the histogram's range, so recording it can't fail.
	_ = l.latency.RecordValue(micros)
}

// fail counts a request that has no answer, or another than hoped for.
func (l *load) fail(kind string) {
	if now := time.Now(); now.Before(l.from) || !now.Before(l.to) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors[kind]++
}

// pause waits for d, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
