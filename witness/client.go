package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// Limits of what is asked of a witness, and of what it may answer.
const (
	maxProofLines  = 63       // "The client MUST NOT send more than 63 consistency proof lines"
	maxAnswer      = 64 << 10 // bytes: a dozen ML-DSA-44 lines, and no more than is worth reading of a page that says what is wrong
	requestTimeout = 10 * time.Second
	maxRetryAfter  = 10 * time.Minute // a witness can't send us away for longer
)

// Errors of a request to a witness. What isn't one of these may pass by itself: the witness can't be reached, or fails.
var (
	// errRefused means that the witness refuses this checkpoint, and will again as long as nobody changes anything.
	errRefused = errors.New("the witness refuses it")
	// errOtherTree means that it refuses it since it has seen another tree, it says.
	errOtherTree = fmt.Errorf("it says that it has seen another tree: %w", errRefused)
	// errAnswer means that what the witness answers can't be right.
	errAnswer = errors.New("the witness's answer is wrong")
)

// A sizeError means that the witness has cosigned another size last than it was asked to go on from.
type sizeError struct{ size uint64 }

func (e *sizeError) Error() string {
	return fmt.Sprintf("the witness has cosigned size %d last", e.size)
}

// A busyError means that the witness doesn't want to be asked just now.
type busyError struct {
	status int
	wait   time.Duration // as it says; 0: it doesn't
}

func (e *busyError) Error() string { return fmt.Sprintf("the witness is busy: status %d", e.status) }

// newTransport returns what requests to all witnesses go over. Connections are kept, since "clients SHOULD use … HTTP keep-alive".
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = maxInFlight
	t.MaxResponseHeaderBytes = 16 << 10
	t.DisableCompression = true // answers are short, and their limit is one of bytes on the wire then
	return t
}

// newHTTPClient returns a client over a transport that does what it is told, and goes nowhere else.
func newHTTPClient(t http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: t, Timeout: requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// checkURL returns an error unless a policy's URL is one that a witness can be asked at. It has no password, since it is shown in
// logs and on pages; witnesses have no use for one.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil { // which may quote a password
		return errors.New("what the policy has as its URL isn't one; want such as https://witness.example.com")
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not the URL of a witness, such as https://witness.example.com, without user or query", u.Redacted())
	}
	return nil
}

// appendRequest appends the body of an add-checkpoint request: the size that the proof leads from, the proof, and the note.
func appendRequest(dst []byte, old uint64, proof []merkle.Hash, msg []byte) []byte {
	dst = append(strconv.AppendUint(append(dst, "old "...), old, 10), '\n')
	for _, h := range proof {
		dst = append(base64.StdEncoding.AppendEncode(dst, h[:]), '\n')
	}
	return append(append(dst, '\n'), msg...)
}

// addCheckpoint submits a checkpoint's note to the witness at a submission prefix, with the proof that it extends the tree of the
// size old. It returns the signature lines of the answer, which are not checked.
func addCheckpoint(ctx context.Context, client *http.Client, prefix string, old uint64, proof []merkle.Hash, msg []byte) ([]byte, error) {
	if len(proof) > maxProofLines {
		return nil, fmt.Errorf("a proof of %d hashes, want <= %d", len(proof), maxProofLines)
	}
	body := appendRequest(nil, old, proof, msg)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(prefix, "/")+"/add-checkpoint", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	status, header, answer, err := do(client, req)
	if err != nil {
		return nil, err
	}
	switch {
	case status == http.StatusOK:
		return answer, nil
	case status == http.StatusConflict:
		// "The response MUST have a Content-Type of text/x.tlog.size." Without, the body isn't a size, whatever it looks like: one
		// witness in the field answers so where this protocol has 422 for another root.
		if kind, _, _ := mime.ParseMediaType(header.Get("Content-Type")); kind != "text/x.tlog.size" {
			return nil, fmt.Errorf("status 409 without a size: %w", errOtherTree)
		}
		size, err := parseSize(answer)
		if err != nil {
			return nil, err
		}
		return nil, &sizeError{size}
	case status == http.StatusUnprocessableEntity:
		return nil, fmt.Errorf("status 422%s: %w", excerpt(answer), errOtherTree)
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
		return nil, &busyError{status, retryAfter(header)}
	case status >= 500:
		return nil, fmt.Errorf("status %d%s", status, excerpt(answer))
	}
	return nil, fmt.Errorf("status %d%s: %w", status, excerpt(answer), errRefused)
}

// errUnreachable means that there is a witness, or something before it, that says it isn't there.
var errUnreachable = errors.New("the witness is unavailable")

// do sends a request, and reads the answer up to its limit.
func do(client *http.Client, req *http.Request) (status int, header http.Header, body []byte, err error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("%w: reading its answer: %w", errUnreachable, err)
	}
	if len(body) > maxAnswer {
		return 0, nil, nil, fmt.Errorf("status %d with more than %d bytes: %w", resp.StatusCode, maxAnswer, errAnswer)
	}
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		if wait := retryAfter(resp.Header); wait > 0 {
			return 0, nil, nil, &busyError{resp.StatusCode, wait}
		}
		return 0, nil, nil, fmt.Errorf("%w: status %d", errUnreachable, resp.StatusCode)
	}
	return resp.StatusCode, resp.Header, body, nil
}

// parseSize parses the body of a 409: "the tree size of the latest cosigned checkpoint in decimal, followed by a newline".
func parseSize(body []byte) (uint64, error) {
	text, ok := strings.CutSuffix(string(body), "\n")
	size, err := strconv.ParseUint(text, 10, 64)
	if !ok || err != nil || strconv.FormatUint(size, 10) != text || size > merkle.MaxSize {
		return 0, fmt.Errorf("status 409 with the size %.30q: %w", body, errAnswer)
	}
	return size, nil
}

// retryAfter returns for how long an answer asks to be left alone, 0 if it doesn't.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0 // there is none, or it is a date, which witnesses don't send
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}

// excerpt returns the beginning of what a witness says is wrong, for people.
func excerpt(body []byte) string {
	text := strings.TrimSpace(string(body))
	if text == "" {
		return ""
	}
	return fmt.Sprintf(" (%.200q)", text)
}

// latestCheckpoint returns the checkpoint that the witness serves of a log: "GET <monitoring prefix>/<origin hash>/checkpoint". Where
// that prefix is another one than the one for submissions, nothing is found.
func latestCheckpoint(ctx context.Context, client *http.Client, prefix, origin string) ([]byte, error) {
	address := strings.TrimSuffix(prefix, "/") + "/" + checkpoint.OriginHash(origin) + "/checkpoint"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	status, _, body, err := do(client, req)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("status %d for its checkpoint of the log", status)
	}
	return body, nil
}

// cosignatures returns the cosignatures of the given witnesses among the lines that one answered, checked: each is over the
// checkpoint, and was made not before notBefore and not after notAfter. Lines of other keys, or that are none, are ignored, as "the
// client MUST ignore any cosignatures from unknown keys"; one of a known key that is wrong spoils the answer.
func cosignatures(c checkpoint.Checkpoint, lines []byte, by []checkpoint.Witness, notBefore, notAfter time.Time) ([]note.Signature, error) {
	text := c.Text()
	var sigs []note.Signature
	have := make(map[string]bool)
	for line := range strings.Lines(string(lines)) {
		sig, raw, ok := parseLine(line)
		if !ok {
			continue
		}
		key := checkpoint.KeyID(sig.Name, sig.Hash)
		for _, w := range by {
			if w.Key() != key || have[key] {
				continue
			}
			if !w.Verifier.Verify([]byte(text), raw) {
				return nil, fmt.Errorf("its cosignature doesn't verify under key %s: %w", key, errAnswer)
			}
			at, err := checkpoint.CosignatureTime(sig)
			switch {
			case err != nil:
				return nil, fmt.Errorf("its cosignature by key %s: %v: %w", key, err, errAnswer)
			case at.After(notAfter):
				return nil, fmt.Errorf("its cosignature by key %s is of %s, which is still to come: %w", key, at.Format(time.RFC3339), errAnswer)
			case at.Before(notBefore):
				return nil, fmt.Errorf("its cosignature by key %s is of %s, older than its last one, of %s: %w",
					key, at.Format(time.RFC3339), notBefore.Format(time.RFC3339), errAnswer)
			}
			have[key] = true
			sigs = append(sigs, sig)
		}
	}
	if len(sigs) == 0 {
		return nil, fmt.Errorf("there is no cosignature by a key of it that the policy names: %w", errAnswer)
	}
	return sigs, nil
}

// parseLine parses a signature's line, and returns the signature without its key's hash, too.
func parseLine(line string) (sig note.Signature, raw []byte, ok bool) {
	line, ended := strings.CutSuffix(line, "\n")
	rest, dash := strings.CutPrefix(line, "— ")
	name, b64, two := strings.Cut(rest, " ")
	data, err := base64.StdEncoding.DecodeString(b64)
	if !ended || !dash || !two || name == "" || err != nil || len(data) < 5 || base64.StdEncoding.EncodeToString(data) != b64 {
		return note.Signature{}, nil, false
	}
	hash := uint32(data[0])<<24 | uint32(data[1])<<16 | uint32(data[2])<<8 | uint32(data[3])
	return note.Signature{Name: name, Hash: hash, Base64: b64}, data[4:], true
}
