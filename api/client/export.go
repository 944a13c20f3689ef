package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"
)

// The formats of an export.
const (
	NDJSON = "ndjson" // a Record a line
	JSON   = "json"
	CSV    = "csv"
	Bundle = "bundle" // a ZIP file with proof, to be checked offline by treeline verify
)

// ExportEnd says what an export is: of the events from index From up to before Size, Count of which matched.
type ExportEnd struct {
	Log        string  `json:"log"`
	From       uint64  `json:"from"`
	Size       uint64  `json:"size"`
	Count      uint64  `json:"count"`
	FirstIndex *uint64 `json:"first_index"` // nil if none matched
	LastIndex  *uint64 `json:"last_index"`
	SHA256     string  `json:"sha256"`          // of what comes before the end: all of a CSV or bundle
	Cursor     string  `json:"cursor"`          // for the Query of the next export, of what came since
	Manifest   string  `json:"manifest_sha256"` // of a bundle
}

// ErrIncomplete means that an export broke off, or isn't what its end says.
var ErrIncomplete = errors.New("the export is not complete")

// Export writes all events that the query selects to w in a format, oldest first, as the log stands now; Oldest and Limit of the query mean
// nothing here. It needs a key that may export.
//
// What was written is the whole file if the error is nil: the end of it was there, and its hash is right. After ErrIncomplete, or another
// error, it is of no use. It takes as long as it takes, but ends when nothing has come for a minute.
func (c *Client) Export(ctx context.Context, q Query, format string, w io.Writer) (*ExportEnd, error) {
	query := q.values()
	query.Del("order")
	query.Del("limit")
	query.Set("format", format)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(attemptTimeout, func() { cancel(errSilent) })
	defer silence.Stop()
	res, err := c.start(ctx, request{method: http.MethodGet, path: "/v1/export", query: query})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	sum := &tailHash{of: sha256.New()}
	if _, err := io.Copy(io.MultiWriter(w, sum), alive{res.Body, silence}); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	text := res.Trailer.Get("Export-End")
	if text == "" {
		return nil, fmt.Errorf("%w: it has no end", ErrIncomplete)
	}
	end := new(ExportEnd)
	if err := json.Unmarshal([]byte(text), end); err != nil {
		return nil, errAnswer("end of an export", err)
	}
	tail := map[string]string{NDJSON: `{"end":` + text + "}\n", JSON: `,"end":` + text + "}\n"}[format]
	if got, ok := sum.before(tail); !ok || got != end.SHA256 {
		return nil, fmt.Errorf("%w: what came before its end has another hash than %s", ErrIncomplete, end.SHA256)
	}
	return end, nil
}

// errSilent is why an export is waited for no longer.
var errSilent = fmt.Errorf("the server sent nothing for %v", attemptTimeout)

// alive puts off the end of waiting with all that comes.
type alive struct {
	io.Reader
	silence *time.Timer
}

func (a alive) Read(b []byte) (int, error) {
	n, err := a.Reader.Read(b)
	a.silence.Reset(attemptTimeout)
	return n, err
}

// start sends a request whose answer is read as it comes, for as long as that takes. It isn't sent again: what was written can't be taken back.
func (c *Client) start(ctx context.Context, r request) (*http.Response, error) {
	req, err := c.newRequest(ctx, r)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, c.failure(err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, c.failure(err)
	}
	return nil, newError(res, body)
}

// tailHash hashes all that is written but for the last few KB, where an export's end is.
type tailHash struct {
	of   hash.Hash
	tail []byte
}

// maxTail is more bytes than an end has.
const maxTail = 8 << 10

func (t *tailHash) Write(b []byte) (int, error) {
	t.tail = append(t.tail, b...)
	if over := len(t.tail) - maxTail; over > 0 {
		t.of.Write(t.tail[:over])
		t.tail = append(t.tail[:0], t.tail[over:]...)
	}
	return len(b), nil
}

// before returns the hash of what was written before an end, and whether that is how it ended.
func (t *tailHash) before(end string) (string, bool) {
	rest, ok := bytes.CutSuffix(t.tail, []byte(end))
	if !ok {
		return "", false
	}
	t.of.Write(rest)
	return hex.EncodeToString(t.of.Sum(nil)), true
}
