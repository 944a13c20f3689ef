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
	Event      []byte // canonical; nil when the content is gone
	Seed       []byte // 32 bytes; nil when the content is gone
	parsed     *Event // what Event was read as; nil unless it was read from a store
}

// Parsed returns the record's event. What isn't a canonical event is ErrDamaged.
func (r *Record) Parsed() (*Event, error) {
	if r.parsed != nil {
		return r.parsed, nil
	}
	return storedEvent(r.Event)
}

// Disclosure returns what the record discloses of its event.
func (r *Record) Disclosure() (*Disclosure, error) {
	event, err := r.Parsed()
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
