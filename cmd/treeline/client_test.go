package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// transport answers requests by calling a handler in the same goroutine, so that tests can run in a synctest bubble,
// where time is fake. A nil answer of broken means that the connection works.
type transport struct {
	handler http.Handler
	broken  func() error
}

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.broken != nil {
		if err := t.broken(); err != nil {
			return nil, err
		}
	}
	w := httptest.NewRecorder()
	t.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

func testClient(t transport) *client {
	return &client{
		base:     &url.URL{Scheme: "http", Host: "log.example"},
		key:      "tl_secret",
		retryFor: time.Minute,
		http:     &http.Client{Transport: t},
	}
}

// answers is a handler that gives one answer after the other, and repeats the last.
type answers []func(w http.ResponseWriter)

func (a *answers) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	(*a)[0](w)
	if len(*a) > 1 {
		*a = (*a)[1:]
	}
}

func status(code int, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		w.Write([]byte("{}"))
	}
}

func TestRequestIsRepeatedWhileServerIsBusy(t *testing.T) {
	for _, code := range []int{429, 502, 503, 504} {
		synctest.Test(t, func(t *testing.T) {
			c := testClient(transport{handler: &answers{status(code), status(code), status(201)}})
			began := time.Now()
			if _, err := c.do(t.Context(), &request{method: "POST", path: "/x", repeatable: true}); err != nil {
				t.Fatalf("after two answers %d: %v", code, err)
			}
			// Two pauses, each between half of the doubling pause and the whole.
			if took := time.Since(began); took < 300*time.Millisecond || took > 600*time.Millisecond {
				t.Errorf("after two answers %d: took %v, want 300 to 600 ms", code, took)
			}
		})
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		date := time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat)
		c := testClient(transport{handler: &answers{
			status(429, "Retry-After", "7"), status(503, "Retry-After", date), status(200),
		}})
		began := time.Now()
		if _, err := c.do(t.Context(), &request{method: "GET", path: "/x", repeatable: true}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("took %v, want the 30s that the server asked for", took)
		}
	})
}

func TestRetryingEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testClient(transport{handler: &answers{status(503)}})
		began := time.Now()
		_, err := c.do(t.Context(), &request{method: "GET", path: "/x", repeatable: true})
		if p, ok := errors.AsType[*problem](err); !ok || p.Status != 503 {
			t.Errorf("got error %v, want the server's 503", err)
		}
		if took := time.Since(began); took > c.retryFor || took < c.retryFor-maxPause {
			t.Errorf("gave up after %v, want a bit less than %v", took, c.retryFor)
		}

		// A wait longer than there is patience isn't begun.
		c = testClient(transport{handler: &answers{status(429, "Retry-After", "3600")}})
		began = time.Now()
		if _, err := c.do(t.Context(), &request{method: "GET", path: "/x", repeatable: true}); err == nil || time.Since(began) != 0 {
			t.Errorf("asked to wait an hour: got error %v after %v, want one at once", err, time.Since(began))
		}
	})
}

func TestLostConnection(t *testing.T) {
	lost := errors.New("connection reset")
	synctest.Test(t, func(t *testing.T) {
		failures := 2
		c := testClient(transport{
			handler: &answers{status(201)},
			broken: func() error {
				if failures--; failures >= 0 {
					return lost
				}
				return nil
			},
		})
		if _, err := c.do(t.Context(), &request{method: "POST", path: "/x", repeatable: true}); err != nil {
			t.Errorf("connection lost twice: %v", err)
		}

		// What may not be repeated isn't: its outcome is unknown.
		failures = 1
		if _, err := c.do(t.Context(), &request{method: "POST", path: "/x"}); !errors.Is(err, lost) {
			t.Errorf("unrepeatable request: got error %v, want %v", err, lost)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c := testClient(transport{broken: func() error { return lost }})
		began := time.Now()
		if _, err := c.do(t.Context(), &request{method: "GET", path: "/x", repeatable: true}); !errors.Is(err, lost) {
			t.Errorf("got error %v, want %v", err, lost)
		}
		if took := time.Since(began); took > firstContact {
			t.Errorf("gave up on a server that was never there after %v, want at most %v", took, firstContact)
		}
	})
}

func TestCancellationEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("interrupt")
		ctx, cancel := context.WithCancelCause(t.Context())
		c := testClient(transport{handler: &answers{status(503, "Retry-After", "50")}})
		time.AfterFunc(time.Second, func() { cancel(why) })
		began := time.Now()
		if _, err := c.do(ctx, &request{method: "GET", path: "/x", repeatable: true}); err != why || time.Since(began) != time.Second {
			t.Errorf("got error %v after %v, want %v after 1s", err, time.Since(began), why)
		}
	})
}

func TestRefusalIsNotRepeated(t *testing.T) {
	for _, code := range []int{302, 400, 401, 403, 404, 409, 413, 500} {
		calls := 0
		c := testClient(transport{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls++
			status(code, "Location", "http://elsewhere.example/")(w)
		})})
		c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		_, err := c.do(t.Context(), &request{method: "POST", path: "/x", repeatable: true})
		if p, ok := errors.AsType[*problem](err); !ok || p.Status != code || calls != 1 {
			t.Errorf("answer %d: got error %v after %d calls", code, err, calls)
		}
	}
}

func TestKeyIsSentAndNeverShown(t *testing.T) {
	const key = "tl_AbCdEf_0123456789_xyz"
	var sent []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
		http.Error(w, "no", http.StatusUnauthorized)
	}))
	defer server.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	t.Setenv("TREELINE_KEY", key)
	t.Setenv("TREELINE_RETRY_FOR", "1ns")
	for _, url := range []string{server.URL, gone.URL, "https" + strings.TrimPrefix(server.URL, "http")} {
		for _, args := range [][]string{
			{"append", "--action", "a"}, {"log", "list"}, {"key", "create", "--role", "reader"}, {"proof", "x"}, {"bench"},
		} {
			_, out, errs := runCommand(t, "", append(args, "--server", url)...)
			if strings.Contains(out+errs, key) {
				t.Errorf("%v at %s shows the key:\n%s%s", args, url, out, errs)
			}
		}
	}
	for _, authorization := range sent {
		if authorization != "Bearer "+key {
			t.Errorf("sent Authorization %q, want the key", authorization)
		}
	}
	if len(sent) != 5 {
		t.Errorf("server was called %d times, want 5", len(sent))
	}

	_, out, errs := runCommand(t, "", "log", "list", "--key", "tl_Secret \x01", "--server", gone.URL)
	if strings.Contains(out+errs, "tl_Secret") {
		t.Errorf("a malformed key is shown: %s%s", out, errs)
	}
}

func TestKeySources(t *testing.T) {
	for _, row := range []struct {
		name, env, envFile string
		args               []string
		want, wantErr      string
	}{
		{name: "none"},
		{name: "environment", env: "e", want: "Bearer e"},
		{name: "file of the environment", envFile: "file-key\n", want: "Bearer file-key"},
		{name: "command line before environment", env: "e", args: []string{"--key", "c"}, want: "Bearer c"},
		{name: "file of command line before environment", env: "e", args: []string{"--key-file", "FILE"}, want: "Bearer file-key"},
		{name: "command line before file of environment", envFile: "file-key\n", args: []string{"--key", "c"}, want: "Bearer c"},
		{name: "both", args: []string{"--key", "c", "--key-file", "FILE"}, wantErr: "both a key and a key file are given"},
		{name: "missing file", args: []string{"--key-file", "nowhere"}, wantErr: "read key: open nowhere"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r.Header.Get("Authorization")
				w.Write([]byte(`{"data":[]}`))
			}))
			defer server.Close()
			file := writeTemp(t, "file-key\n")
			t.Setenv("TREELINE_SERVER", server.URL)
			t.Setenv("TREELINE_KEY", row.env)
			if row.envFile != "" {
				t.Setenv("TREELINE_KEY_FILE", file)
			}
			args := []string{"log", "list"}
			for _, a := range row.args {
				args = append(args, strings.Replace(a, "FILE", file, 1))
			}
			code, _, errs := runCommand(t, "", args...)
			if row.wantErr != "" {
				if code != exitFailure || !strings.Contains(errs, row.wantErr) {
					t.Errorf("got code %d and %q, want an error with %q", code, errs, row.wantErr)
				}
				return
			}
			if code != exitOK || got != row.want {
				t.Errorf("sent Authorization %q with code %d (%s), want %q", got, code, errs, row.want)
			}
		})
	}
}
