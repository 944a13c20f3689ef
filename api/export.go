package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

const (
	// exportPage and exportPageBytes are how much of an export is in memory at a time, up to three times: read, being read, being
	// written.
	exportPage      = 1000
	exportPageBytes = 1 << 20
	// exportStep is how many bytes are written at a time, and exportPatience how long the client may take to accept them.
	exportStep     = 64 << 10
	exportPatience = 60 * time.Second
)

// Parameters that cursors of exports are bound to, with the filters: one that goes on with an export up to the same size, and one
// that begins the next, with what came since.
const (
	exportResumes = "export resumes?"
	exportGoesOn  = "export goes on?"
)

// export is what a request asks for: those of the events [from, size) of a log that a filter selects, oldest first.
type export struct {
	log        *log.Log
	filter     *log.Filter
	filterText string
	from, size uint64
	asOf       int64 // what times before now are counted from, µs since 1970 UTC
	format     string
	without    log.Withheld // of a bundle, claims that it doesn't show
	key        log.Key
	by         log.By
	told       *log.Export // what the system log tells of it, once it has begun
}

// newExport reads the parameters that say which events are wanted. The size is that of the log now, or of the export that a cursor
// resumes.
func (s *Server) newExport(l *log.Log, q query) (*export, error) {
	x := &export{log: l, filterText: q.filterText(), size: l.Sizes().Size, asOf: s.now().UnixMicro()}
	if text, ok := q.one("cursor"); ok {
		at, err := s.cursors.decode(text, l.ID, exportResumes+x.filterText)
		if err == nil && at.position <= x.size { // a larger one is of a log that was put back to an older copy
			x.size = at.position
		} else if at, err = s.cursors.decode(text, l.ID, exportGoesOn+x.filterText); err == nil && at.position <= x.size {
			x.from = at.position
		} else {
			return nil, errCursor
		}
		x.asOf = at.asOf
	}
	if _, ok := q["after"]; ok {
		after, err := q.number("after", 0, 0, merkle.MaxSize)
		if err != nil {
			return nil, err
		}
		if after >= x.size {
			return nil, badParameter("after", "there is no event %d among the %d of this export", after, x.size)
		}
		x.from = max(x.from, after+1)
	}
	var err error
	x.filter, err = q.filter(x.asOf)
	return x, err
}

// pages calls fn with the records of the export, page by page, while the next page is being read.
func (x *export) pages(ctx context.Context, fn func([]log.Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan []log.Record)
	size := x.size // fn may make the export end sooner
	var reader errgroup.Group
	reader.Go(func() error {
		defer close(pages)
		for from := x.from; from < size; {
			found, err := x.log.Search(ctx, x.filter, log.Page{
				Oldest: true, Position: from, Size: size, Limit: exportPage, MaxBytes: exportPageBytes,
			})
			if err != nil {
				return err
			}
			select {
			case pages <- found.Records:
			case <-ctx.Done():
				return ctx.Err()
			}
			if !found.More {
				return nil
			}
			from = found.Position
		}
		return nil
	})
	var failed error
	for records := range pages {
		if failed = fn(records); failed != nil {
			cancel()
			break
		}
	}
	err := reader.Wait()
	cancel()
	if failed != nil {
		return failed
	}
	return err
}

// exportEnd is the end of an export, which shows that nothing of it is missing.
type exportEnd struct {
	Log    string  `json:"log"`
	From   uint64  `json:"from"` // the export is of the events from this index on,
	Size   uint64  `json:"size"` // up to this one, which is not in it
	Count  uint64  `json:"count"`
	First  *uint64 `json:"first_index"` // null: there are no events in it
	Last   *uint64 `json:"last_index"`
	SHA256 string  `json:"sha256"` // of what came before, in the form without compression
	Cursor string  `json:"cursor"` // for the next export, of what comes after this one
	// Manifest is the SHA-256 of a bundle's manifest.
	Manifest string `json:"manifest_sha256,omitempty"`
}

// note counts records.
func (e *exportEnd) note(records []log.Record) {
	if len(records) == 0 {
		return
	}
	if e.First == nil {
		e.First = &records[0].Index
	}
	e.Last = &records[len(records)-1].Index
	e.Count += uint64(len(records))
}

func (e *exportEnd) json() []byte {
	out, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return out
}

// exportEndHeader is the trailer that holds the end of an export whose form has no place for it.
const exportEndHeader = "Export-End"

// exportForm is how an export is written.
type exportForm struct {
	kind, ext string // media type, and extension of the file
	head      string
	between   string // two records
	record    func(dst []byte, r *log.Record) ([]byte, error)
	tail      string // the last that the hash in the end covers
	// endHead and endTail stand around the end; where there are none it is in the trailer only.
	endHead, endTail string
}

func recordJSON(dst []byte, r *log.Record) ([]byte, error) { return r.AppendJSON(dst, false), nil }

func recordLine(dst []byte, r *log.Record) ([]byte, error) {
	return append(r.AppendJSON(dst, false), '\n'), nil
}

// exportForms are the forms by the names of the parameter format.
var exportForms = map[string]*exportForm{
	"ndjson": {kind: "application/x-ndjson", ext: ".ndjson", record: recordLine, endHead: `{"end":`, endTail: "}\n"},
	"json": {
		kind: "application/json", ext: ".json", head: "{\"data\":[\n", between: ",\n", record: recordJSON, tail: "\n]",
		endHead: `,"end":`, endTail: "}\n",
	},
	"csv": {kind: "text/csv; charset=utf-8; header=present", ext: ".csv", head: csvHead, record: recordCSV},
}

// choice returns a parameter that is one of a few words, or the first of them where it isn't given.
func (q query) choice(name string, words ...string) (string, error) {
	word, ok := q.one(name)
	if !ok {
		return words[0], nil
	}
	if !slices.Contains(words, word) {
		return "", badParameter(name, "%q is none of: %s", word, strings.Join(words, ", "))
	}
	return word, nil
}

// getExport streams the events that the filters select, oldest first, up to where the log stood when it began. Whatever breaks off
// in the middle lacks its end, and the connection is closed in a way that no client takes for an end.
func (s *Server) getExport(w http.ResponseWriter, r *http.Request, l *log.Log, q query, key log.Key) error {
	format, err := q.choice("format", "ndjson", "json", "csv", "bundle")
	if err != nil {
		return err
	}
	compression, err := q.choice("compression", "none", "gzip", "zstd")
	if err != nil {
		return err
	}
	x, err := s.newExport(l, q)
	if err != nil {
		return err
	}
	x.format, x.key, x.by = format, key, s.by(w, r, key)
	if x.without, err = q.withheld(); err != nil {
		return err
	}
	if format != "bundle" && x.without != nil {
		return badParameter(withholdParam, "is for format=bundle: of a record that lacks claims nothing could be checked")
	}
	switch err := s.exports.reserve(l.ID, 1); {
	case errors.Is(err, log.ErrLogOverloaded):
		return newProblem(http.StatusTooManyRequests, "too_many_exports", "%d exports of this log are under way; try again later", maxLogExports)
	case err != nil:
		return newProblem(http.StatusServiceUnavailable, "too_many_exports", "the server has too many exports under way; try again later")
	}
	defer s.exports.release(l.ID, 1)

	if format == "bundle" {
		if compression != "none" {
			return badParameter("compression", "a bundle has none")
		}
		return s.getBundle(w, r, x)
	}
	form := exportForms[format]
	out := s.newExportWriter(w, r, key)
	out.describe(l.Name+form.ext, form.kind, compression)
	w.Header().Set("Export-Cursor", s.cursors.encode(cursor{x.size, x.asOf}, l.ID, exportResumes+x.filterText))
	w.Header().Set("Export-From", strconv.FormatUint(x.from, 10))
	w.Header().Set("Trailer", exportEndHeader)
	if r.Method == http.MethodHead {
		return nil
	}
	if err := x.begin(r.Context()); err != nil {
		return s.finish(out, r, err)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	end := exportEnd{Log: l.Name, From: x.from, Size: x.size, Cursor: s.cursors.encode(cursor{x.size, x.asOf}, l.ID, exportGoesOn+x.filterText)}
	err = x.write(ctx, form, out, &end)
	x.end(&end, err)
	return s.finish(out, r, err)
}

// begin has the export recorded. Nothing is written before.
func (x *export) begin(ctx context.Context) (err error) {
	x.told, err = x.log.BeginExport(ctx, x.by, x.filterText, x.format)
	return err
}

// end has it recorded how the export ended.
func (x *export) end(end *exportEnd, failed error) {
	sent := map[string]any{"from": end.From, "size": end.Size, "count": end.Count}
	if end.First != nil {
		sent["first_index"], sent["last_index"] = *end.First, *end.Last
	}
	if failed == nil {
		sent["sha256"] = end.SHA256
	}
	x.told.End(sent, failed)
}

// write writes the export.
func (x *export) write(ctx context.Context, form *exportForm, out *exportWriter, end *exportEnd) error {
	buf := []byte(form.head)
	err := x.pages(ctx, func(records []log.Record) (err error) {
		for i := range records {
			if end.Count > 0 || i > 0 {
				buf = append(buf, form.between...)
			}
			if buf, err = form.record(buf, &records[i]); err != nil {
				return err
			}
		}
		end.note(records)
		_, err = out.Write(buf)
		buf = buf[:0]
		return err
	})
	if err != nil {
		return err
	}
	if _, err := out.Write(append(buf, form.tail...)); err != nil {
		return err
	}
	end.SHA256 = hex.EncodeToString(out.sum.Sum(nil))
	text := end.json()
	if form.endHead != "" {
		if _, err := out.Write(slices.Concat([]byte(form.endHead), text, []byte(form.endTail))); err != nil {
			return err
		}
	}
	out.w.Header().Set(exportEndHeader, string(text))
	return out.Close()
}

// finish ends the answer after err: with a problem if nothing is written yet, and otherwise by breaking it off.
func (s *Server) finish(out *exportWriter, r *http.Request, err error) error {
	if err == nil {
		return nil
	}
	if !out.began {
		for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Disposition", "Export-Cursor", "Export-From", "Trailer"} {
			out.w.Header().Del(name)
		}
		return err
	}
	if r.Context().Err() == nil && s.closing.Err() == nil {
		s.logger.Error("an export broke off", "request_id", out.w.Header().Get("X-Request-Id"), "error", err)
	}
	panic(http.ErrAbortHandler)
}

// exportWriter writes an export to its client: hashed, then compressed, then at the client's pace.
type exportWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	accepts string
	may     func() error // returns why no more may be written
	sum     hash.Hash
	body    io.WriteCloser // nil: none is needed
	began   bool
}

func (s *Server) newExportWriter(w http.ResponseWriter, r *http.Request, key log.Key) *exportWriter {
	return &exportWriter{
		w: w, control: http.NewResponseController(w), accepts: strings.Join(r.Header.Values("Accept-Encoding"), ","), sum: sha256.New(),
		may: func() error { return s.stillGood(r.Context(), key) },
	}
}

// describe sets the header. Compression that was asked for by parameter is the file's; otherwise, if the client accepts any, it is
// the connection's.
func (o *exportWriter) describe(name, kind, compression string) {
	h := o.w.Header()
	switch compression {
	case "gzip":
		name, kind = name+".gz", "application/gzip"
	case "zstd":
		name, kind = name+".zst", "application/zstd"
	default:
		if compression = acceptedEncoding(o.accepts); compression != "" {
			h.Set("Content-Encoding", compression)
		}
	}
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h["Cache-Control"] = noStore
	switch compression {
	case "gzip":
		o.body = must(gzip.NewWriterLevel(paced{o}, gzip.BestSpeed))
	case "zstd":
		o.body = must(zstd.NewWriter(paced{o}, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(512<<10), zstd.WithLowerEncoderMem(true)))
	}
}

// must returns v, whose options are constants: an error is a mistake in them.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// acceptedEncoding returns the encoding that suits a client best among those that it accepts, "" for none.
func acceptedEncoding(accepts string) string {
	found := ""
	for item := range strings.SplitSeq(accepts, ",") {
		name, weight, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		q, weighted := strings.CutPrefix(strings.TrimSpace(weight), "q=")
		if weighted {
			if v, err := strconv.ParseFloat(q, 64); err != nil || v <= 0 {
				continue
			}
		}
		if name == "zstd" || name == "gzip" && found == "" {
			found = name
		}
	}
	return found
}

func (o *exportWriter) Write(b []byte) (int, error) {
	o.sum.Write(b)
	if o.body != nil {
		return o.body.Write(b)
	}
	return paced{o}.Write(b)
}

// Close ends the compression.
func (o *exportWriter) Close() error {
	if o.body != nil {
		return o.body.Close()
	}
	return nil
}

// paced writes to the client, which may take its time for each step but not stop, as long as its key is good.
type paced struct{ *exportWriter }

func (p paced) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		step := b[:min(len(b), exportStep)]
		if err := p.may(); err != nil {
			return n, err
		}
		if err := p.control.SetWriteDeadline(time.Now().Add(exportPatience)); err != nil {
			return n, fmt.Errorf("giving the client time: %w", err)
		}
		p.began = true
		m, err := p.w.Write(step)
		if n += m; err != nil {
			return n, err
		}
		b = b[m:]
	}
	return n, nil
}
