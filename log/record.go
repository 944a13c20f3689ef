package log

import (
	"encoding/hex"
	"slices"
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

	shown *Event // what Shown returns, where it was read from a store; nil otherwise
}

// Disclosure returns what the record discloses of its event.
func (r *Record) Disclosure() (*Disclosure, error) {
	d := &Disclosure{ReceivedAt: r.ReceivedAt, Previous: r.Previous}
	switch {
	case r.PurgedBy != nil:
		d.Digest = r.Digest
		return d, nil
	case r.Claims != nil:
		d.Claims = r.Claims
		return d, nil
	}
	event, err := r.whole()
	if err != nil {
		return nil, err
	}
	if len(r.Seed) != 32 {
		return nil, errSeed(r.Seed)
	}
	d.Event, d.Seed = event, (*[32]byte)(r.Seed)
	return d, nil
}

// whole returns the event of which nothing is gone. What isn't a canonical event is ErrDamaged.
func (r *Record) whole() (*Event, error) {
	if r.shown != nil {
		return r.shown, nil
	}
	return storedEvent(r.Event)
}

// AppendJSON appends the record's JSON object to dst, without its closing brace if open, so that the caller can add
// members.
func (r *Record) AppendJSON(dst []byte, open bool) []byte {
	dst = append(dst, '{')
	if r.ID != "" {
		dst = append(dst, `"id":"`...) // ids need no escaping
		dst = append(dst, r.ID...)
		dst = append(dst, `",`...)
	}
	dst = append(dst, `"log":"`...)
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
	switch {
	case r.PurgedBy != nil:
		dst = appendRef(append(dst, `,"purged_by":`...), *r.PurgedBy)
		dst = appendHexMember(append(dst, ','), "digest", r.Digest)
	case r.Claims != nil:
		dst = append(dst, `,"claims":[`...)
		for i := range r.Claims {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = r.Claims[i].append(dst)
		}
		dst = append(dst, `],"erased_by":[`...)
		for i, by := range r.ErasedBy {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendRef(dst, by)
		}
		dst = append(dst, ']')
	case r.Event != nil:
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

// appendRef appends the JSON object of a Ref.
func appendRef(dst []byte, r Ref) []byte {
	dst = append(append(dst, `{"id":"`...), r.ID...)
	dst = strconv.AppendUint(append(dst, `","index":`...), r.Index, 10)
	return append(dst, '}')
}

// Shown returns the event, or what is left of it: nil if it was purged. Of one of which claims were erased only claims, metadata and id
// are there, and no JSON.
func (r *Record) Shown() (*Event, error) {
	if r.shown != nil {
		return r.shown, nil
	}
	d, err := r.Disclosure()
	if err != nil {
		return nil, err
	}
	return d.Shown(), nil
}

// Size returns about how many bytes the record shows of its event.
func (r *Record) Size() int {
	n := len(r.Event)
	for i := range r.Claims {
		n += len(r.Claims[i].Pointer) + len(r.Claims[i].Value) + 64 // and a salt or a commitment
	}
	return n
}

// fill sets what is left of the record's event.
func (r *Record) fill(x content, digest [32]byte) {
	r.ErasedBy, r.PurgedBy, r.Claims, r.shown = x.erasedBy, x.purgedBy, x.claims, x.event
	switch {
	case x.purgedBy != nil:
		r.Digest = &digest
	case x.claims != nil:
		r.ID = x.event.ID()
	default:
		r.ID, r.Event, r.Seed = x.event.ID(), x.event.JSON(), slices.Clone(x.seed)
	}
}
