package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/treeline-log/treeline/merkle"
)

const (
	// maxNote is more than a checkpoint of a hundred signatures has, the largest being those of ML-DSA-44. In bytes.
	maxNote = 512 << 10
	// maxBundle is the length of the longest entry bundle that there can be, 16.8 MB.
	maxBundle = merkle.TileWidth * (2 + merkle.MaxEntrySize)
	// maxGrowth is more than a consistency proof of 63 hashes and its first line have.
	maxGrowth = 4 << 10

	attempts       = 3
	attemptTimeout = 30 * time.Second
	firstPause     = 250 * time.Millisecond // before the second attempt; doubled before the third
	userAgent      = "treeline-audit (https://github.com/treeline-log/treeline)"
)

var (
	// errMissing is wrapped by the error for something that a server says it doesn't have.
	errMissing = errors.New("not found")
	// errMalformed is wrapped by the error for an answer that can't be what was asked for.
	errMalformed = errors.New("malformed")
)

// NewClient returns the HTTP client that a [Monitor] uses unless it is given another: it keeps connections open, and follows
// no redirect, which would carry a key to an address that nobody gave.
func NewClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = parallel
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// server reads what is below one URL: a log's public prefix, or a witness's.
type server struct {
	base   string // without a slash at the end
	key    string // bearer key, "" for none
	client *http.Client
}

// statusError is an answer that is neither 200 nor "not found".
type statusError struct {
	status   int
	location string // where it redirects to
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("answered %d %s", e.status, strings.ToLower(http.StatusText(e.status)))
	if e.location != "" {
		text += fmt.Sprintf(", redirects to %.200q", e.location)
	}
	return text
}

// passing reports whether the same request may be answered otherwise in a moment.
func (e *statusError) passing() bool {
	return e.status == http.StatusTooManyRequests || e.status >= 500
}

// get returns what is at the path, limit bytes at most. What may pass is tried again.
func (s *server) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		body, err := s.attempt(ctx, path, limit)
		status, answered := errors.AsType[*statusError](err)
		final := errors.Is(err, errMissing) || errors.Is(err, errMalformed) || answered && !status.passing()
		if err == nil || final || attempt == attempts || ctx.Err() != nil {
			return body, err
		}
		pause := firstPause << (attempt - 1)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

// attempt sends the request once.
func (s *server) attempt(ctx context.Context, path string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	where := s.base + "/" + path
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	if s.key != "" {
		req.Header.Set("Authorization", "Bearer "+s.key)
	}
	// Bundles may come compressed without having been asked for, which the transport undoes, since it asks for that.
	resp, err := s.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok { // its text is the method and the address, which come here, too
			err = u.Err
		}
		return nil, fmt.Errorf("reading %s: %w", where, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("reading %s: %w", where, errMissing)
	default:
		return nil, fmt.Errorf("reading %s: %w", where, &statusError{resp.StatusCode, resp.Header.Get("Location")})
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", where, err)
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("reading %s: %w: more than %d bytes", where, errMalformed, limit)
	}
	return body, nil
}

// tile returns the bytes of a tile or bundle, and how many hashes or entries they have. That is more than t has where the
// partial tile is gone and the full one is there: a log may delete the first once it has the second (C2SP tlog-tiles).
func (s *server) tile(ctx context.Context, t merkle.Tile, limit int64) ([]byte, int, error) {
	data, err := s.get(ctx, t.Path(), limit)
	if errors.Is(err, errMissing) && t.Width < merkle.TileWidth {
		full := merkle.Tile{Level: t.Level, Index: t.Index, Width: merkle.TileWidth}
		if data, fullErr := s.get(ctx, full.Path(), limit); fullErr == nil {
			return data, merkle.TileWidth, nil
		} else if !errors.Is(fullErr, errMissing) {
			err = fullErr
		}
	}
	return data, t.Width, err
}

// entries returns the entries of a bundle that the tree of a verified checkpoint implies.
func (s *server) entries(ctx context.Context, t merkle.Tile) ([][]byte, error) {
	data, width, err := s.tile(ctx, t, maxBundle)
	if err != nil {
		return nil, err
	}
	entries, err := merkle.ParseBundle(data, width)
	if err != nil {
		return nil, fmt.Errorf("reading %s/%s: %w: %w", s.base, t.Path(), errMalformed, err)
	}
	return entries[:t.Width], nil
}

// tiles are the tiles of a log's tree of one size, as its server has them: nothing in them is to be believed before it has led
// to the root of a checkpoint. It is a [merkle.TileReader] for that tree and all smaller ones, and reads each tile once.
type tiles struct {
	server *server
	size   uint64
	read   map[merkle.Tile][]merkle.Hash
}

func newTiles(s *server, size uint64) *tiles {
	return &tiles{s, size, map[merkle.Tile][]merkle.Hash{}}
}

// ReadTile returns the hashes of t, cut from the tile that the size implies: a log need not have had the narrower one.
func (r *tiles) ReadTile(ctx context.Context, t merkle.Tile) ([]merkle.Hash, error) {
	whole, ok := merkle.TileOf(t.Level, t.Index, r.size)
	if !ok || whole.Width < t.Width {
		return nil, fmt.Errorf("%s is not in a tree of size %d", t.Path(), r.size)
	}
	hashes, ok := r.read[whole]
	if !ok {
		data, width, err := r.server.tile(ctx, whole, merkle.TileWidth*merkle.HashSize)
		if err != nil {
			return nil, err
		}
		if got, want := len(data), width*merkle.HashSize; got != want {
			return nil, fmt.Errorf("%w: got %d bytes, want %d", errMalformed, got, want)
		}
		for i := range whole.Width {
			hashes = append(hashes, merkle.Hash(data[i*merkle.HashSize:]))
		}
		r.read[whole] = hashes
	}
	return hashes[:t.Width], nil
}
