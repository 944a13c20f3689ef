package log

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/treeline-log/treeline/merkle"
)

// Record is what is written, read, listed and fed: an event and its place, with all that is needed to recompute its leaf
// hash.
type Record struct {
	ID         string
	Log        string // the log's name
	Index      uint64
	Hash       merkle.Hash // leaf hash of the entry
	State      State
	ReceivedAt int64 // µs since 1970 UTC
	Previous   merkle.Hash
	Event      []byte // canonical; nil when the content is gone, in part or all of it
	Seed       []byte // 32 bytes; nil when the content is gone, in part or all of it

	// Of an event of which claims were erased, instead of Event and Seed: its claims, those that were erased withheld, and the events
	// treeline.subject.erased that say so.
	Claims   []Claim
	ErasedBy []Ref
	// Of an event that was purged, instead of all that: the event treeline.retention.purged that says so, and the event digest in its
	// entry. Its ID is known only where the record was asked for by it.
	PurgedBy *Ref
	Digest   *[32]byte
}

// Disclosure returns what the record discloses of its event.
func (r *Record) Disclosure() (*Disclosure, error) {
	event, err := storedEvent(r.Event)
	if err != nil {
		return nil, err
	}
	if len(r.Seed) != 32 {
		return nil, fmt.Errorf("its seed has %d bytes, not 32: %w", len(r.Seed), ErrDamaged)
	}
	return &Disclosure{ReceivedAt: r.ReceivedAt, Previous: r.Previous, Event: event, Seed: (*[32]byte)(r.Seed)}, nil
}

// AppendJSON appends the record's JSON object to dst, without its closing brace if open, so that the caller can add
// members.
func (r *Record) AppendJSON(dst []byte, open bool) []byte {
	dst = append(dst, `{"id":"`...) // ids need no escaping
	dst = append(dst, r.ID...)
	dst = append(dst, `","log":"`...)
	dst = append(dst, r.Log...)
	dst = append(dst, `","index":`...)
	dst = strconv.AppendUint(dst, r.Index, 10)
	dst = append(dst, `,"hash":"`...)
	dst = hex.AppendEncode(dst, r.Hash[:])
	dst = append(dst, `","state":"`...)
	dst = append(dst, r.State...)
	dst = append(dst, `","received_at":"`...)
	dst = AppendTime(dst, r.ReceivedAt)
	dst = append(dst, `","previous_hash":"`...)
	dst = hex.AppendEncode(dst, r.Previous[:])
	dst = append(dst, '"')
	if r.Event != nil {
		dst = append(dst, `,"event":`...)
		dst = append(dst, r.Event...)
		dst = append(dst, `,"seed":"`...)
		dst = hex.AppendEncode(dst, r.Seed)
		dst = append(dst, '"')
	}
	if open {
		return dst
	}
	return append(dst, '}')
}
