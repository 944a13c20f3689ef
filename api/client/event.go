package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Event is what an application tells. Only Action is needed. What each member may hold, and how long it may be, is in the server's
// documentation; the server refuses what it may not.
type Event struct {
	// ID names the event in its log for ever, and is how a retry is told from a second event: 1 to 128 of A-Z a-z 0-9 . _ : -, the
	// first a letter or digit. Where it is "" the client makes one. It outlives the event's content, so it is no place for personal
	// data.
	ID string `json:"id,omitempty"`
	// Action is what was done, such as "user.permission.updated": 1 to 128 of A-Z a-z 0-9 _ . : / -.
	Action string `json:"action"`
	// OccurredAt is when. Where it is zero and ID is "" the client takes the time at which it is called. With an ID of your own it
	// takes none: the event sent twice would be two that differ.
	OccurredAt time.Time `json:"occurred_at,omitzero"`
	Actor      Actor     `json:"actor,omitzero"`
	Targets    []Target  `json:"targets,omitempty"` // at most 20
	Context    Context   `json:"context,omitzero"`
	Outcome    Outcome   `json:"outcome,omitempty"`
	Changes    []Change  `json:"changes,omitempty"` // at most 50
	// Metadata is the application's own: at most 64 members with any JSON in them. The server refuses numbers that a float64 doesn't
	// hold exactly, such as 9007199254740993: make them strings.
	Metadata map[string]any `json:"metadata,omitempty"`
	// Credential is set by the server: the public id of the API key that wrote the event. It isn't sent.
	Credential string `json:"credential,omitempty"`
}

// Actor is who did it. ID is needed where there is an actor.
type Actor struct {
	ID    string `json:"id,omitempty"`
	Type  string `json:"type,omitempty"`
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
}

// Target is what it was done to. ID is needed.
type Target struct {
	ID   string `json:"id"`
	Type string `json:"type,omitempty"`
	Name string `json:"name,omitempty"`
}

// Context is where it came from.
type Context struct {
	IP          string `json:"ip,omitempty"` // an IPv4 or IPv6 address
	UserAgent   string `json:"user_agent,omitempty"`
	Location    string `json:"location,omitempty"`
	SessionID   string `json:"session_id,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
	Traceparent string `json:"traceparent,omitempty"`
}

// Outcome is how it ended; "" where nothing is said about that.
type Outcome string

// The outcomes that there are.
const (
	Success Outcome = "success"
	Failure Outcome = "failure"
	Denied  Outcome = "denied"
	Unknown Outcome = "unknown"
)

// Change is one thing that is another now. Before and After are anything with a JSON form, and nil is JSON's null.
type Change struct {
	Field  string `json:"field"`
	Before any    `json:"before"`
	After  any    `json:"after"`
}

// Recorder takes events. A Client is one that returns when the server has stored the event, a Spool one that returns when this
// machine has.
type Recorder interface {
	Record(ctx context.Context, e Event) error
}

// maxEvent is how many bytes of JSON an event is at most, as the server takes it.
const maxEvent = 256 << 10

// ErrTooLarge is what an event is answered with that no server takes.
var ErrTooLarge = errors.New("the event is too large")

// prepare gives the event an id if it has none, and returns its JSON without a line's end.
func prepare(e *Event, now time.Time) ([]byte, error) {
	if e.Action == "" {
		return nil, errors.New("the event has no action")
	}
	if e.ID == "" {
		e.ID = newID(now)
		if e.OccurredAt.IsZero() {
			e.OccurredAt = now
		}
	}
	e.Credential = ""
	if !e.OccurredAt.IsZero() {
		e.OccurredAt = e.OccurredAt.UTC().Truncate(time.Microsecond)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("event %s: %w", e.Action, err)
	}
	data := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(data) > maxEvent {
		return nil, fmt.Errorf("event %s: %d bytes, want at most %d: %w", e.Action, len(data), maxEvent, ErrTooLarge)
	}
	return data, nil
}

// newID returns a UUID of version 7 (RFC 9562): the time in ms, and 74 random bits.
func newID(now time.Time) string {
	var u [16]byte
	rand.Read(u[:])
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i))
	}
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// State is how far a log's checkpoints have come with an event. In all states it is stored durably, and its index is final.
type State string

// The states, each of which implies those before it.
const (
	Sequenced State = "sequenced"
	Signed    State = "signed"
	Witnessed State = "witnessed"
)

// Record is an event and its place in a log.
type Record struct {
	ID           string    `json:"id"`
	Log          string    `json:"log"`
	Index        uint64    `json:"index"`
	Hash         string    `json:"hash"` // of the Merkle leaf, lower-case hex
	State        State     `json:"state"`
	ReceivedAt   time.Time `json:"received_at"` // by the server's clock
	PreviousHash string    `json:"previous_hash"`
	Event        Event     `json:"event"`
	Seed         string    `json:"seed"` // that the event's commitments are salted with, lower-case hex

	// Of an event of which claims were erased, instead of Event and Seed: its claims, and the log's events that say so.
	Claims   []Claim `json:"claims,omitempty"`
	ErasedBy []Ref   `json:"erased_by,omitempty"`
	// Of an event that was purged, instead of all that: the log's event that says so, and the event digest in its entry.
	PurgedBy *Ref   `json:"purged_by,omitempty"`
	Digest   string `json:"digest,omitempty"`

	// Duplicate and Proof are of an append's answer only. Duplicate: the event was there already. Proof: the proof file, once the
	// state that was waited for is reached.
	Duplicate bool   `json:"duplicate,omitempty"`
	Proof     string `json:"proof,omitempty"`
}

// Claim is one part of an event: opened by Salt and Value, or, if it was erased, with its Commitment only.
type Claim struct {
	Pointer    string          `json:"pointer"`
	Salt       string          `json:"salt,omitempty"`
	Value      json.RawMessage `json:"value,omitempty"`
	Commitment string          `json:"commitment,omitempty"`
}

// Ref names an event of the log.
type Ref struct {
	ID    string `json:"id"`
	Index uint64 `json:"index"`
}

// Place is where an event of a batch is.
type Place struct {
	ID           string    `json:"id"`
	Index        uint64    `json:"index"`
	ReceivedAt   time.Time `json:"received_at"`
	Hash         string    `json:"hash"`
	PreviousHash string    `json:"previous_hash"`
	State        State     `json:"state"`
	Duplicate    bool      `json:"duplicate"` // it was there already
}
