package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	attemptTimeout  = 60 * time.Second // of one request, answer included; the server holds one for 30 s at most
	defaultRetryFor = time.Minute
	maxAnswer       = 64 << 20 // bytes that are read of an answer; a batch of 10,000 is answered with some 4 MB

	firstPause = 200 * time.Millisecond // before a request is sent again; doubled each time
	maxPause   = 10 * time.Second
)

// Config says which server, and as whom.
type Config struct {
	// Server is the server's base URL, such as https://audit.example.com.
	Server string
	// Key is an API key, tl_….
	Key string
	// Log names the log, for an admin key. Others are for one log, and Log is "".
	Log string
	// RetryFor is how long a request is repeated after a lost connection, 429, 500, 502, 503 or 504; 0: a minute; below 0: it isn't.
	// The context of a call ends it too.
	RetryFor time.Duration
	// HTTP does the requests; nil: one of Go's default ones. Redirects are not followed unless its CheckRedirect says so, and a request
	// gets 60 s at most.
	HTTP *http.Client
}

// Client talks to one server as one key. It is safe for concurrent use.
type Client struct {
	base     *url.URL
	key      string
	log      string
	retryFor time.Duration
	http     *http.Client
}

// New returns a Client. It doesn't reach for the server yet.
func New(c Config) (*Client, error) {
	base, err := url.Parse(c.Server)
	// The address shows in errors, so it is no place for a password.
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("server: want a base URL such as https://audit.example.com")
	}
	key := strings.TrimSpace(c.Key)
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("key: want exactly one API key, as the server showed it")
	}
	if c.RetryFor == 0 {
		c.RetryFor = defaultRetryFor
	}
	var h http.Client
	if c.HTTP != nil {
		h = *c.HTTP
	}
	if h.CheckRedirect == nil {
		// Following would repeat a POST as a GET, and carry the key to an address that nobody gave.
		h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return &Client{base: base, key: key, log: c.Log, retryFor: c.RetryFor, http: &h}, nil
}

// request is one call of the interface, which may be sent again: a read, or an append of events with ids.
type request struct {
	method string
	path   string // below the base, escaped
	query  url.Values
	kind   string // Content-Type of the body
	body   []byte
}

// do sends a request, again as long as that may help, and returns the body of a 2xx answer.
func (c *Client) do(ctx context.Context, r request) ([]byte, error) {
	began := time.Now()
	for attempt := 1; ; attempt++ {
		body, err := c.once(ctx, r)
		if err == nil {
			return body, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		}
		pause := backoff(attempt)
		if e, ok := errors.AsType[*Error](err); ok {
			if !e.transient() {
				return nil, err
			}
			pause = max(pause, e.retryAfter)
		}
		if time.Since(began)+pause > c.retryFor {
			return nil, err
		}
		if ended := sleep(ctx, pause); ended != nil {
			return nil, fmt.Errorf("%w; last: %w", ended, err)
		}
	}
}

// once sends a request. An answer that isn't 2xx is an *Error; other errors are of the way there and back.
func (c *Client) once(ctx context.Context, r request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.failure(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: reading the answer: %w", c.base, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s: the answer is longer than %d bytes", c.base, maxAnswer)
	case res.StatusCode/100 != 2:
		return nil, newError(res, body)
	}
	return body, nil
}

func (c *Client) newRequest(ctx context.Context, r request) (*http.Request, error) {
	query := url.Values{}
	maps.Copy(query, r.query)
	if c.log != "" {
		query.Set("log", c.log)
	}
	address := strings.TrimSuffix(c.base.String(), "/") + r.path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("User-Agent", "treeline-go")
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	return req, nil
}

// failure returns the error of a request that got no answer. net/http puts the method and the whole address in front; the base says enough.
func (c *Client) failure(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Errorf("%s: %w", c.base, err)
}

// get gets a path and decodes the answer.
func get[T any](ctx context.Context, c *Client, path string, query url.Values, what string) (*T, error) {
	body, err := c.do(ctx, request{method: http.MethodGet, path: path, query: query})
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, errAnswer(what, err)
	}
	return v, nil
}

// backoff returns the pause after a failed attempt, counted from 1: doubled each time, the upper half of it at random, so that
// clients that failed together don't come back together.
func backoff(attempt int) time.Duration {
	pause := maxPause
	if attempt < 10 {
		pause = min(maxPause, firstPause<<(attempt-1))
	}
	return pause/2 + rand.N(pause/2)
}

// sleep waits, or returns why the context ended before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
