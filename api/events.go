package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/treeline-log/treeline/log"
)

// buffers are for bodies and answers of single events. The parser keeps nothing of what it reads.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// parseOptions are what the server adds to an event that a key sends.
func parseOptions(l *log.Log, key log.Key) log.ParseOptions {
	return log.ParseOptions{Now: time.Now(), NewID: newID, Credential: key.ID, Required: l.Settings().Required}
}

// checkActions refuses events that the key may not append because of what they say.
func checkActions(key log.Key, events []*log.Event, batch bool) error {
	if key.Actions == "" {
		return nil
	}
	p := newProblem(http.StatusForbidden, "action_not_allowed", "this key may append only %s; nothing was stored", key.Actions)
	pointer := "/action"
	for i, e := range events {
		if key.MayAppend(e.Action()) || len(p.Errors) == log.MaxProblems {
			continue
		}
		item := problemItem{Pointer: &pointer, Detail: fmt.Sprintf("%q is not for this key", e.Action())}
		if batch {
			item.Index = &i
		}
		p.Errors = append(p.Errors, item)
	}
	if p.Errors == nil {
		return nil
	}
	return p
}

func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(err) // the system has no random numbers
	}
	return id.String()
}

// postEvent appends one event and answers with its record.
func (s *Server) postEvent(w http.ResponseWriter, r *http.Request, l *log.Log, q query, key log.Key) error {
	wait, err := s.waitFor(q)
	if err != nil {
		return err
	}
	if kind, err := mediaType(r); err != nil {
		return err
	} else if kind != "application/json" {
		return unsupported(kind, "application/json")
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(buf)
	buf.Reset()
	if err := readBody(nil, buf, w, r, maxEventBody); err != nil {
		return err
	}
	event, err := log.ParseEvent(buf.Bytes(), parseOptions(l, key))
	if err != nil {
		return err
	}
	if err := checkActions(key, []*log.Event{event}, false); err != nil {
		return err
	}
	if err := s.chargeEvents(w, l, key, 1); err != nil {
		return err
	}
	places, err := l.Append(r.Context(), []*log.Event{event})
	if err != nil {
		return withIDs(err, event)
	}
	place := places[0]
	s.await(r.Context(), l, wait, place.Index+1)
	record, err := recordAt(r.Context(), l, event, place)
	if err != nil {
		return withIDs(afterCommit(err), event)
	}
	buf.Reset()
	out := record.AppendJSON(buf.AvailableBuffer(), true)
	status := http.StatusCreated
	if place.Duplicate {
		status = http.StatusOK
		out = append(out, `,"duplicate":true`...)
		if place.Unchecked {
			out = append(out, `,"unchecked":true`...)
		}
	}
	if wait != "" && record.State != log.StateSequenced {
		// The event is recorded, and that is the answer, whatever keeps it from being proven.
		if proof, err := l.Proof(r.Context(), place.Index); err == nil {
			out = append(append(out, `,"proof":`...), quote(proof)...)
		} else if !errors.Is(err, context.Canceled) {
			s.logger.Error("an event that was just recorded can't be proven", "log", l.Name, "index", place.Index, "error", err)
		}
	}
	writeBody(w, status, append(out, "}\n"...))
	return nil
}

// recordAt returns the record of an event that was appended just now, or, of a duplicate, the stored one.
func recordAt(ctx context.Context, l *log.Log, e *log.Event, p log.Place) (log.Record, error) {
	if p.Duplicate {
		r, err := l.Record(ctx, p.Index)
		r.ID = e.ID() // of one that was purged nothing else is left
		return r, err
	}
	return log.Record{
		ID: e.ID(), Log: l.Name, Index: p.Index, Hash: p.Hash, State: stateOf(l, p.Index),
		ReceivedAt: p.ReceivedAt, Previous: p.Previous, Event: e.JSON(), Seed: p.Seed[:],
	}, nil
}

func stateOf(l *log.Log, index uint64) log.State { return l.Sizes().State(index) }

// waitFor returns the state that ?wait= asks for, "" if none.
func (s *Server) waitFor(q query) (log.State, error) {
	v, ok := q.one("wait")
	if !ok {
		return "", nil
	}
	state, ok := log.ParseState(v)
	if !ok || state == log.StateSequenced {
		return "", badParameter("wait", "%q is neither signed nor witnessed", v)
	}
	if state == log.StateWitnessed && !s.service.Witnessed() {
		return "", badParameter("wait", "this server has no witnesses to wait for")
	}
	return state, nil
}

// await waits until the log is in the state up to size, but not for ever, and not while the server is stopping: the answer
// says how far it came.
func (s *Server) await(ctx context.Context, l *log.Log, state log.State, size uint64) {
	if state == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	_ = l.Wait(ctx, size, state) // however it ends, the answer says how far the log has come
}

// hubLook is how often it is looked whether the hub covers an event that somebody waits for.
const hubLook = 20 * time.Millisecond

// awaitHub waits until the hub covers the event at index, as await does.
func (s *Server) awaitHub(ctx context.Context, l *log.Log, index uint64) {
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	for !l.InHub(index) && s.service.KeepsHub() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(hubLook):
		}
	}
}

// postBatch appends events, all or none, and answers with their places.
func (s *Server) postBatch(w http.ResponseWriter, r *http.Request, l *log.Log, q query, key log.Key) error {
	wait, err := s.waitFor(q)
	if err != nil {
		return err
	}
	kind, err := mediaType(r)
	if err != nil {
		return err
	}
	parse := log.ParseBatch
	switch kind {
	case "application/json":
	case "application/x-ndjson", "application/ndjson":
		parse = log.ParseNDJSON
	default:
		return unsupported(kind, "application/json or application/x-ndjson")
	}
	reserved := reservation{budget: &s.bodies, log: l.ID}
	defer reserved.release()
	var body bytes.Buffer
	if err := readBody(&reserved, &body, w, r, maxBatchBody); err != nil {
		return err
	}
	events, err := parse(body.Bytes(), parseOptions(l, key), log.MaxRequestEvents)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return badRequest("the batch holds no event")
	}
	if err := checkActions(key, events, true); err != nil {
		return err
	}
	if err := s.chargeEvents(w, l, key, len(events)); err != nil {
		return err
	}
	places, err := l.Append(r.Context(), events)
	if err != nil {
		return withIDs(err, events...)
	}
	return s.writePlaces(w, r, l, wait, events, places)
}

// writePlaces answers a batch.
func (s *Server) writePlaces(w http.ResponseWriter, r *http.Request, l *log.Log, wait log.State, events []*log.Event, places []log.Place) error {
	end, fresh := uint64(0), false
	for _, p := range places {
		end, fresh = max(end, p.Index+1), fresh || !p.Duplicate
	}
	s.await(r.Context(), l, wait, end)
	if err := l.Locate(r.Context(), places); err != nil {
		return withIDs(afterCommit(err), events...)
	}
	out := make([]byte, 0, 64+len(events)*320)
	out = append(out, `{"log":"`+l.Name+`","data":[`...)
	for i, p := range places {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, `{"id":"`...), events[i].ID()...), `","index":`...)
		out = strconv.AppendUint(out, p.Index, 10)
		out = append(log.AppendTime(append(out, `,"received_at":"`...), p.ReceivedAt), `","hash":"`...)
		out = append(hex.AppendEncode(out, p.Hash[:]), `","previous_hash":"`...)
		out = append(hex.AppendEncode(out, p.Previous[:]), `","state":"`...)
		out = append(append(out, stateOf(l, p.Index)...), `","duplicate":`...)
		out = strconv.AppendBool(out, p.Duplicate)
		if p.Unchecked {
			out = append(out, `,"unchecked":true`...)
		}
		out = append(out, '}')
	}
	out = append(out, ']')
	if note := l.Covering(end - 1); wait != "" && note != nil {
		out = append(append(out, `,"checkpoint":`...), quote(note)...)
	}
	status := http.StatusCreated
	if !fresh {
		status = http.StatusOK
	}
	writeBody(w, status, append(out, "}\n"...))
	return nil
}

// withIDs adds to an error after which events should be sent again their ids, also those that the server made.
func withIDs(err error, events ...*log.Event) error {
	p := *asProblem(err)
	if p.Status < http.StatusInternalServerError || p.Status == http.StatusServiceUnavailable && !errors.Is(err, log.ErrOutcomeUnknown) {
		return err // nothing was stored
	}
	for _, e := range events {
		p.IDs = append(p.IDs, e.ID())
	}
	return fmt.Errorf("%w: %w", &p, err)
}

// afterCommit returns the error of an answer that couldn't be completed: events are recorded, though a store that can't be reached
// means elsewhere that nothing is.
func afterCommit(err error) error {
	if errors.Is(err, log.ErrUnreachable) {
		return fmt.Errorf("%w: %w", log.ErrOutcomeUnknown, err)
	}
	return err
}

// readBody reads a request's body, decompressing it if it says so, up to limit bytes, for which it reserves memory if there
// is a reservation.
func readBody(reserved *reservation, buf *bytes.Buffer, w http.ResponseWriter, r *http.Request, limit int64) error {
	var body io.Reader = http.MaxBytesReader(w, r.Body, limit)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return unreadable(err)
		}
		body = http.MaxBytesReader(w, z, limit)
	default:
		return newProblem(http.StatusUnsupportedMediaType, "unsupported_encoding", "Content-Encoding %q is not gzip", encoding)
	}
	if reserved != nil {
		reserved.body = body
		body = reserved
	}
	if _, err := buf.ReadFrom(body); err != nil {
		return unreadable(err)
	}
	return nil
}

func unreadable(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) || errors.Is(err, log.ErrOverloaded) || errors.Is(err, log.ErrLogOverloaded) {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return badRequest("the body ends too early; nothing was stored")
	}
	return badRequest("the body can't be read: %v; nothing was stored", err)
}

// mediaType returns the body's media type. UTF-8 is the only charset of JSON.
func mediaType(r *http.Request) (string, error) {
	v := r.Header.Get("Content-Type")
	switch v {
	case "application/json", "application/x-ndjson":
		return v, nil
	case "":
		return "", unsupported("none", "application/json")
	}
	kind, params, err := mime.ParseMediaType(v)
	if err != nil {
		return "", unsupported(v, "application/json")
	}
	if c, ok := params["charset"]; ok && !strings.EqualFold(c, "utf-8") {
		return "", unsupported(v, "UTF-8")
	}
	return kind, nil
}

func unsupported(got, want string) error {
	return newProblem(http.StatusUnsupportedMediaType, "unsupported_media_type", "Content-Type is %s, want %s", got, want)
}

// getEvent answers with one record.
func (s *Server) getEvent(w http.ResponseWriter, r *http.Request, l *log.Log, _ query, key log.Key) error {
	record, err := findEvent(r, l)
	if err != nil {
		return err
	}
	if record.PurgedBy != nil {
		s.count(w, r, key, l, log.ReadEvent) // an error isn't, otherwise
		return s.purged(r, l, record)
	}
	writeBody(w, http.StatusOK, append(record.AppendJSON(nil, false), '\n'))
	return nil
}

func findEvent(r *http.Request, l *log.Log) (log.Record, error) {
	record, err := l.RecordByID(r.Context(), r.PathValue("id"))
	if errors.Is(err, log.ErrNotFound) {
		return record, notFound("event")
	}
	return record, err
}

func appendRecords(dst []byte, records []log.Record) []byte {
	dst = append(dst, '[')
	for i := range records {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = records[i].AppendJSON(dst, false)
	}
	return append(dst, ']')
}

// getFeed answers with the records from an index on, waiting for the first of them: what a SIEM pulls.
func (s *Server) getFeed(w http.ResponseWriter, r *http.Request, l *log.Log, q query, key log.Key) error {
	from, err := q.number("from", 0, 0, 1<<63-1)
	if err != nil {
		return err
	}
	limit, err := q.number("limit", maxPage, 1, maxPage)
	if err != nil {
		return err
	}
	timeout := 20 * time.Second
	if v, ok := q.one("timeout"); ok {
		if timeout, err = time.ParseDuration(v); err != nil || timeout < 0 || timeout > maxPoll {
			return badParameter("timeout", "%q is not a duration from 0s to %v", v, maxPoll)
		}
	}
	if size := l.Sizes().Size; from > size {
		return badParameter("from", "%d is beyond the log's size %d", from, size)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	_ = l.Wait(ctx, from+1, log.StateSequenced) // nothing new is an answer too
	if err := s.stillGood(r.Context(), key); err != nil {
		return err
	}
	size := l.Sizes().Size
	to := min(from+limit, size)
	records, err := l.Records(r.Context(), from, to, maxPageBytes)
	if err != nil {
		return err
	}
	out := appendRecords([]byte(`{"data":`), records)
	out = strconv.AppendUint(append(out, `,"next":`...), from+uint64(len(records)), 10)
	out = strconv.AppendUint(append(out, `,"size":`...), size, 10)
	writeBody(w, http.StatusOK, append(out, "}\n"...))
	return nil
}

// number returns a decimal parameter, or def where it isn't given.
func (q query) number(name string, def, least, most uint64) (uint64, error) {
	v, ok := q.one(name)
	if !ok {
		return def, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n < least || n > most || strconv.FormatUint(n, 10) != v {
		return 0, badParameter(name, "%q is not a number from %d to %d", v, least, most)
	}
	return n, nil
}

// quote returns a JSON string.
func quote(text []byte) []byte {
	out, err := json.Marshal(string(text))
	if err != nil {
		panic(err) // a string always has a JSON form
	}
	return out
}
