package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
)

const (
	// attemptTimeout bounds one request, answer included. The server itself holds a request for at most 10 s.
	attemptTimeout = 60 * time.Second
	// maxAnswer bounds the answer that is read into memory, in bytes. The largest, to a batch of 10,000 events,
	// is about 4 MB.
	maxAnswer = 64 << 20
	// firstContact bounds the retrying while no server has ever been reached, so that a mistyped address is
	// reported soon, and a server that is just starting is still waited for.
	firstContact = 3 * time.Second

	firstPause = 200 * time.Millisecond // before the first retry; doubled before each further one
	maxPause   = 10 * time.Second
)

// errSilent is why an answer that streams is waited for no longer.
var errSilent = fmt.Errorf("the server sent nothing for %v", attemptTimeout)

// clientFlags are the flags of every command that talks to a server.
type clientFlags struct {
	server   string
	key      string
	keyFile  string
	retryFor time.Duration
}

// addClientFlags gives cmd the flags that say which server it talks to, and as whom.
func addClientFlags(cmd *cobra.Command) *clientFlags {
	f := &clientFlags{}
	cmd.Flags().StringVar(&f.server, "server", "http://localhost:8080", "base `URL` of the server")
	cmd.Flags().StringVar(&f.key, "key", "", "bearer key; others on this machine may see it on the command line, unlike in the environment or a file")
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "`FILE` that holds the bearer key")
	cmd.Flags().DurationVar(&f.retryFor, "retry-for", time.Minute, "how long to repeat a request that may be repeated, after 429, 502, 503, 504 or a lost connection; "+
		"3s while the server has never answered")
	return f
}

// bearer returns the key to use, or "" when none is given. What the command line says wins over the environment.
func (f *clientFlags) bearer(cmd *cobra.Command) (string, error) {
	key, keyFile := f.key, f.keyFile
	if key != "" && keyFile != "" {
		switch flags := cmd.Flags(); {
		case onCommandLine(flags, "key") == onCommandLine(flags, "key-file"):
			return "", withHint(errors.New("both a key and a key file are given"), "give one of --key (TREELINE_KEY) and --key-file (TREELINE_KEY_FILE)")
		case onCommandLine(flags, "key"):
			keyFile = ""
		}
	}
	if keyFile != "" {
		data, err := os.ReadFile(keyFile)
		if err != nil {
			return "", fmt.Errorf("read key: %w", err)
		}
		key = string(data)
	}
	key = strings.TrimSpace(key)
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", withHint(errors.New("read key: it holds characters that no key has"), "give exactly one key, as the server printed it")
	}
	if key == "" && keyFile != "" {
		return "", fmt.Errorf("read key: %s is empty", keyFile)
	}
	return key, nil
}

// client talks to one server as one key. It is safe for concurrent use.
type client struct {
	base     *url.URL
	key      string
	retryFor time.Duration
	http     *http.Client
	reached  atomic.Bool // some answer has come from the server
	// onRetry, if not nil, is told why a request will be repeated and after which pause.
	onRetry func(err error, pause time.Duration)
}

// newClient returns the client that the flags of cmd describe.
func newClient(cmd *cobra.Command, f *clientFlags) (*client, error) {
	base, err := url.Parse(f.server)
	// The address appears in messages, so it is no place for a password.
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") ||
		base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, withHint(errors.New("--server is not the base URL of a server"), "give it like http://localhost:8080")
	}
	key, err := f.bearer(cmd)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = maxConcurrency
	c := &client{
		base:     base,
		key:      key,
		retryFor: f.retryFor,
		http: &http.Client{
			Transport: transport,
			Timeout:   attemptTimeout,
			// Following would repeat a POST as a GET and carry the key to an address nobody gave.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if stderr := cmd.ErrOrStderr(); isTerminal(stderr) {
		c.onRetry = func(err error, pause time.Duration) {
			fmt.Fprintf(stderr, "treeline: %s; trying again in %v\n", printable(err.Error(), ""), pause.Round(100*time.Millisecond))
		}
	}
	return c, nil
}

// request is one call of the server's API.
type request struct {
	method      string
	path        string     // below the base, escaped
	query       url.Values // may be nil
	contentType string     // of body
	body        []byte
	// repeatable says that sending the request twice has the effect of sending it once, so that it is sent again
	// when its outcome is unknown or the server was busy.
	repeatable bool
}

// url returns the address of r at the server with the given base.
func (r *request) url(base *url.URL) string {
	u := strings.TrimSuffix(base.String(), "/") + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	return u
}

// do sends r and returns the body of a 2xx answer. Any other answer is an error that wraps a *problem.
func (c *client) do(ctx context.Context, r *request) ([]byte, error) {
	began := time.Now()
	for attempt := 1; ; attempt++ {
		body, after, err := c.attempt(ctx, r)
		if err == nil {
			return body, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		budget := c.retryFor
		p, answered := errors.AsType[*problem](err)
		switch {
		case !r.repeatable, answered && !p.transient(), !answered && permanent(err):
			return nil, c.explain(err)
		case !c.reached.Load():
			budget = min(budget, firstContact)
		}
		pause := max(backoff(attempt), after)
		if time.Since(began)+pause > budget {
			if attempt > 1 {
				err = fmt.Errorf("%w (%d attempts in %v)", err, attempt, time.Since(began).Round(100*time.Millisecond))
			}
			return nil, c.explain(err)
		}
		if c.onRetry != nil {
			c.onRetry(err, pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// getJSON gets path with the query and decodes the answer into v.
func (c *client) getJSON(ctx context.Context, path string, query url.Values, v any) error {
	body, err := c.do(ctx, &request{method: http.MethodGet, path: path, query: query, repeatable: true})
	if err != nil {
		return err
	}
	return decodeAnswer(body, v)
}

// postJSON posts v to path, once, and returns the answer.
func (c *client) postJSON(ctx context.Context, path string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return c.do(ctx, &request{method: http.MethodPost, path: path, contentType: "application/json", body: body})
}

// decodeAnswer decodes what a server answered into v.
func decodeAnswer(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return withHint(fmt.Errorf("server's answer is not the JSON that was asked for: %w", err), "check that --server is a Treeline server")
	}
	return nil
}

// attempt sends r once. With an error it returns how long the server asked to wait before the next attempt, or 0.
func (c *client) attempt(ctx context.Context, r *request) (body []byte, after time.Duration, err error) {
	res, err := c.open(ctx, r)
	if err != nil {
		return nil, 0, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("read the server's answer: %w", err)
	case len(body) > maxAnswer:
		return nil, 0, fmt.Errorf("server's answer is longer than %d bytes", maxAnswer)
	case res.StatusCode/100 == 2:
		return body, 0, nil
	}
	p := parseProblem(res.StatusCode, res.Header, body)
	if to := res.Header.Get("Location"); res.StatusCode/100 == 3 && to != "" {
		p.Detail = "redirects to " + to
	}
	return nil, retryAfter(res.Header, time.Now()), p
}

// open sends r once, and returns the answer with its body still to be read.
func (c *client) open(ctx context.Context, r *request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url(c.base), bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "treeline")
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	res, err := c.http.Do(req)
	if err != nil {
		// net/http puts the method and the whole address in front; the server's base says enough.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, fmt.Errorf("%s: %w", c.base, err)
	}
	c.reached.Store(true)
	return res, nil
}

// backoff returns the pause after the given failed attempt, counted from 1: doubling, with its upper half at
// random, so that clients that failed together don't return together.
func backoff(attempt int) time.Duration {
	pause := maxPause
	if shift := attempt - 1; shift < 10 {
		pause = min(maxPause, firstPause<<shift)
	}
	return pause/2 + rand.N(pause/2)
}

// retryAfter returns the wait that a Retry-After header asks for, in seconds or as a date (RFC 9110, section
// 10.2.3), or 0.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}

// permanent reports whether a request that got no answer would not get one next time either.
func permanent(err error) bool {
	_, isCertificate := errors.AsType[x509.CertificateInvalidError](err)
	_, isHost := errors.AsType[x509.HostnameError](err)
	_, isAuthority := errors.AsType[x509.UnknownAuthorityError](err)
	return isCertificate || isHost || isAuthority || errors.Is(err, http.ErrSchemeMismatch)
}

// explain returns err with what the caller of a command can do next.
func (c *client) explain(err error) error {
	hint := "check --server and the network, then try again"
	if p, ok := errors.AsType[*problem](err); ok {
		hint = p.hint()
	} else if _, ok := errors.AsType[*net.OpError](err); ok && !c.reached.Load() {
		hint = "is the server running? start one with: treeline serve, or name it by --server"
	}
	if hint == "" {
		return err
	}
	return withHint(err, hint)
}
