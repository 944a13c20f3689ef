package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
)

// Limits of one batch, which are the server's.
const (
	maxBatchEvents = 10_000
	maxBatchBytes  = 16 << 20
)

// maxConcurrency is the most requests in flight that a command makes.
const maxConcurrency = 10_000

// batch is a run of lines that is sent as one request.
type batch struct {
	body   []byte // the events, a line each
	lines  []int  // the number, from 1, of each event's line in the input
	read   int64  // bytes of the input that it took, blank lines included
	last   bool   // the input ends after it
	random bool   // it, or a batch before it, has ids that the same input will not be given again
}

// batchReader cuts NDJSON into batches and gives every event an id that has none. Blank lines are passed over. Lines
// that aren't JSON objects are left as they are: it is the server that says what is wrong with them.
type batchReader struct {
	in   *bufio.Reader
	ids  *lineIDs
	most int // events in a batch

	// One line is read ahead, so that the last batch is known as such.
	ahead []byte // as it will be sent, without its end; nil when none is held
	line  int    // the number of the last line read, from 1
	read  int64  // bytes read and not yet given out in a batch
	err   error  // why there is no further line; io.EOF at the end
}

// newBatchReader returns a reader of batches of at most most events.
func newBatchReader(in io.Reader, most int, ids *lineIDs) *batchReader {
	return &batchReader{in: bufio.NewReaderSize(in, 1<<20), ids: ids, most: most}
}

// next returns the next batch, or io.EOF when there are no more events. Another error concerns the line r.line; the
// events before it have been given out.
func (r *batchReader) next() (*batch, error) {
	if r.ahead == nil {
		r.advance()
	}
	if r.ahead == nil {
		return nil, r.err
	}
	b := &batch{}
	for r.ahead != nil && len(b.lines) < r.most && len(b.body)+len(r.ahead) < maxBatchBytes {
		b.body = append(append(b.body, r.ahead...), '\n')
		b.lines = append(b.lines, r.line)
		b.read, r.read = b.read+r.read, 0
		r.advance()
	}
	b.last = r.ahead == nil && errors.Is(r.err, io.EOF)
	b.random = r.ids.random
	return b, nil
}

// advance reads the next event into r.ahead, or sets it to nil and r.err to why it can't.
func (r *batchReader) advance() {
	r.ahead = nil
	for r.err == nil {
		var line []byte
		line, r.err = r.readLine()
		if r.err != nil && (!errors.Is(r.err, io.EOF) || len(line) == 0) {
			return
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		line, err := r.ids.identify(line)
		switch {
		case err != nil:
			r.err = err
		case len(line) >= maxBatchBytes:
			r.err = fmt.Errorf("longer than a batch may be, %d bytes", maxBatchBytes)
		default:
			r.ahead = line
		}
		return
	}
}

// readLine returns the next line, with its end if it has one, valid for ever. It returns io.EOF with the last line
// when that has no end, and then with nothing.
func (r *batchReader) readLine() ([]byte, error) {
	r.line++
	var line []byte
	for {
		part, err := r.in.ReadSlice('\n')
		line = append(line, part...)
		r.read += int64(len(part))
		if errors.Is(err, bufio.ErrBufferFull) && len(line) <= maxBatchBytes {
			continue
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			err = fmt.Errorf("longer than a batch may be, %d bytes", maxBatchBytes)
		}
		return line, err
	}
}

// lineIDs makes the ids of events that come without one.
//
// In derived form, an id is prefix "-" and 32 hex digits: the first half of a chain of SHA-256 over the lines of
// the input, blank ones aside and without white space at their ends,
//
//	chain(0) = SHA-256("treeline/append/v1\n")
//	chain(n) = SHA-256(chain(n-1) ‖ line(n))
//
// so it depends on the line, its place and all that came before it. The same input gives the same ids, an input that
// has grown gives its old lines their old ids, and two inputs share ids only as far as they begin alike. A hash of
// the line and its number would find equal events at equal places of unrelated files to be one, and lose the second.
type lineIDs struct {
	prefix string // "" for random ids, which are UUIDv7
	chain  [sha256.Size]byte
	random bool // an id was made at random
}

// maxIDPrefix leaves room for "-" and 32 digits in the 128 characters of an id.
const maxIDPrefix = 95

// validIDPrefix reports whether ids that begin with prefix are ids that the server takes.
func validIDPrefix(prefix string) bool {
	if prefix == "" || len(prefix) > maxIDPrefix || strings.ContainsRune("._:-", rune(prefix[0])) {
		return false
	}
	return !strings.ContainsFunc(prefix, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		return !letter && !('0' <= r && r <= '9') && !strings.ContainsRune("._:-", r)
	})
}

// newLineIDs returns ids derived from the input that begin with prefix, or random ones when that is empty.
func newLineIDs(prefix string) *lineIDs {
	return &lineIDs{prefix: prefix, chain: sha256.Sum256([]byte("treeline/append/v1\n"))}
}

// identify returns line, the next of the input, with an id put in if it has none. It keeps no reference to line, but
// may return it.
func (l *lineIDs) identify(line []byte) ([]byte, error) {
	h := sha256.New()
	h.Write(l.chain[:])
	h.Write(line)
	h.Sum(l.chain[:0])

	start, end, ok := placeForID(line)
	if !ok {
		return line, nil
	}
	var id string
	if l.prefix != "" {
		id = l.prefix + "-" + hex.EncodeToString(l.chain[:16])
	} else {
		u, err := uuid.NewV7()
		if err != nil {
			return nil, err
		}
		id = u.String()
		l.random = true
	}
	out := make([]byte, 0, len(line)+len(id)+len(`"id":"",`))
	out = append(out, line[:start]...)
	switch {
	case start < end: // in place of null
		out = append(append(append(out, '"'), id...), '"')
	case bytes.HasPrefix(bytes.TrimLeft(line[end:], " \t\r"), []byte("}")):
		out = append(append(append(out, `"id":"`...), id...), '"')
	default:
		out = append(append(append(out, `"id":"`...), id...), `",`...)
	}
	return append(out, line[end:]...), nil
}

// placeForID returns where in line, a JSON object, an id is to be put: in place of line[start:end], which is the null
// of a member "id" or, with start == end, the place before the first member. ok is false when line has an id or isn't
// a JSON object.
func placeForID(line []byte) (start, end int, ok bool) {
	d := json.NewDecoder(bytes.NewReader(line))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return 0, 0, false
	}
	start = int(d.InputOffset())
	end = start
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return 0, 0, false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return 0, 0, false
		}
		if name != "id" {
			continue
		}
		if string(value) != "null" || start < end {
			return 0, 0, false
		}
		end = int(d.InputOffset())
		start = end - len("null")
	}
	_, err := d.Token()
	return start, end, err == nil
}
