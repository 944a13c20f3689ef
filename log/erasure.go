package log

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// ErasedGroup are claims that were erased: those of each pointer, of each entry in the ranges.
type ErasedGroup struct {
	Pointers []string // ascending
	Ranges   []Span   // ascending, apart from each other
}

// ErasureRequest asks for claims of all events of a data subject to be erased.
type ErasureRequest struct {
	// Subject finds the events: parameters of a search among actor_id, actor_email, target_id and metadata.<path>, all of which must
	// match.
	Subject url.Values
	// Claims are pointers of the claims to erase, in which * stands for a whole segment: /actor/email, /targets/*/name, /metadata/*.
	// /id, /action, /occurred_at and /credential can't be erased.
	Claims     []string
	LegalBasis string
	Reference  string // of whoever asked for it: a ticket, say; nothing personal
	// Size is how much of the log is meant: entries before it. 0: all that there is.
	Size uint64
	// Archived, if not nil, calls fn with what archives show of events in spans, which ascend: in order of index, each once. So claims are
	// erased of events, too, that were purged and that only archives have.
	Archived func(ctx context.Context, spans []Span, fn func(index uint64, d *Disclosure)) error
}

// ErasurePlan is what an erasure would do.
type ErasurePlan struct {
	Request  ErasureRequest
	Size     uint64            // of the log, when it was planned
	Matching uint64            // events of the subject
	Purged   uint64            // of them, those that only archives have
	Events   uint64            // of them, those that have such claims still
	First    []uint64          // the first of their indices, at most MaxPlanned
	Claims   map[string]uint64 // in how many events each pointer is erased
	Bytes    uint64            // how much of values that is
	HeldBy   []string          // ids of the holds that forbid it
	Early    uint64            // events that haven't come to the minimum age, where the policy forbids it for these

	groups   []ErasedGroup
	acts     int    // that there were when it was planned
	holds    string // that were in force then
	youngest int64  // when the newest of the events was received
}

// MaxPlanned is how many indices a plan lists.
const MaxPlanned = 1000

// Errors of an erasure.
var (
	// ErrErasure means that such an erasure can't be asked for.
	ErrErasure = errors.New("not an erasure")
	// ErrNothing means that there is nothing to erase.
	ErrNothing = errors.New("no event of the subject has such claims")
	// ErrTooEarly means that events haven't come to the minimum age that the log keeps them for.
	ErrTooEarly = errors.New("the log's retention policy forbids it before the minimum age")
)

// maxPatterns is how many pointers an erasure can be asked for.
const maxPatterns = 100

// Check returns ErrErasure or ErrFilter if such an erasure can't be asked for.
func (r ErasureRequest) Check() error {
	if len(r.Subject) == 0 {
		return fmt.Errorf("%w: it names no subject", ErrErasure)
	}
	for name, values := range r.Subject {
		if name != "actor_id" && name != "actor_email" && name != "target_id" && !strings.HasPrefix(name, MetadataParameter) {
			return fmt.Errorf("%w: a subject is found by actor_id, actor_email, target_id and metadata.<path>, not by %s", ErrErasure, name)
		}
		if len(values) == 0 || slices.Contains(values, "") {
			return fmt.Errorf("%w: %s has no value", ErrErasure, name)
		}
	}
	if _, err := ParseFilter(r.Subject); err != nil {
		return err
	}
	if len(r.Claims) == 0 || len(r.Claims) > maxPatterns {
		return fmt.Errorf("%w: %d claims, want 1 to %d", ErrErasure, len(r.Claims), maxPatterns)
	}
	for _, p := range r.Claims {
		if !isErasable(p) {
			return fmt.Errorf("%w: %q names no claim that can be erased, such as /actor/email, /targets/*/name or /metadata/*", ErrErasure, p)
		}
	}
	if err := checkReason("legal basis", r.LegalBasis); err != nil {
		return err
	}
	if r.Reference != "" {
		return checkReason("reference", r.Reference)
	}
	return nil
}

// mayErase reports whether claims of a pointer are ever erased. Those that aren't say what the entry is, and when that was.
func mayErase(pointer string) bool { return pointer != "/occurred_at" && checkErasable(pointer) == nil }

// isErasable reports whether a pattern can match a claim that can be erased.
func isErasable(pattern string) bool {
	if name, ok := strings.CutPrefix(pattern, "/metadata/"); ok {
		return name == "*" || mayErase(pattern)
	}
	matches := func(pointer string) bool { return matchesPointer(pattern, pointer) && mayErase(pointer) }
	return slices.ContainsFunc(slices.Concat(eventPointers, actorPointers, contextPointers, changePointers[:]), matches) ||
		slices.ContainsFunc(slices.Concat(targetPointers[:]...), matches)
}

// matchesPointer reports whether a pointer is one that a pattern means.
func matchesPointer(pattern, pointer string) bool {
	for {
		want, restOfPattern, more := strings.Cut(pattern, "/")
		have, rest, deeper := strings.Cut(pointer, "/")
		if want != have && (want != "*" || have == "") || more != deeper {
			return false
		}
		if !more {
			return true
		}
		pattern, pointer = restOfPattern, rest
	}
}

// PlanErasure finds what an erasure would remove, and what forbids it. Errors are ErrErasure, ErrFilter, ErrReason, ErrHub, ErrSystem, and
// those of reading.
func (l *Log) PlanErasure(ctx context.Context, r ErasureRequest) (*ErasurePlan, error) {
	if err := l.checkTenant(); err != nil {
		return nil, err
	}
	if err := r.Check(); err != nil {
		return nil, err
	}
	c, err := l.learnOwn(ctx) // also what other servers have just decided
	if err != nil {
		return nil, err
	}
	filter, _ := ParseFilter(r.Subject) // checked
	size := l.Sizes().Size
	if r.Size > size {
		return nil, fmt.Errorf("%w: there are %d entries, not %d", ErrErasure, size, r.Size)
	}
	if r.Size > 0 {
		size = r.Size
	}
	p := &ErasurePlan{
		Request: r, Size: size, Claims: make(map[string]uint64), acts: len(c.acts), holds: c.holdKey(),
	}
	holds, heldBy := c.inForce(), make(map[*Hold]bool)
	groups := make(map[string]*indexGroup)
	policy, now := c.policy(), l.service.config.Now().UnixMicro()
	add := func(index uint64, e *Event, receivedAt int64) {
		p.Matching++
		if !p.add(groups, index, e) {
			return
		}
		p.youngest = max(p.youngest, receivedAt)
		if !policy.EraseEarly && !policy.Min.Reached(receivedAt, now) {
			p.Early++
		}
		for _, h := range holds {
			if !heldBy[h] && h.filter.Match(e, receivedAt) {
				heldBy[h] = true
				p.HeldBy = append(p.HeldBy, h.ID)
			}
		}
	}
	for at, more := uint64(0), true; more; {
		found, err := l.Search(ctx, filter, Page{Oldest: true, Position: at, Size: p.Size, Limit: 1000, MaxBytes: 8 << 20})
		if err != nil {
			return nil, err
		}
		at, more = found.Position, found.More && found.Position < p.Size
		for i := range found.Records {
			rec := &found.Records[i]
			if rec.Index >= p.Size {
				continue
			}
			e, err := rec.Shown()
			if err != nil {
				return nil, err
			}
			if !strings.HasPrefix(e.Action(), ownActions) { // which isn't one of the log's own, not even one that isn't in c yet
				add(rec.Index, e, rec.ReceivedAt)
			}
		}
	}
	if purged := spansWithin(c.purgedSpans(), []Span{{0, p.Size}}); purged != nil && r.Archived != nil {
		err := r.Archived(ctx, purged, func(index uint64, d *Disclosure) {
			if e := d.Shown(); e != nil && covers(purged, index) && filter.Match(e, d.ReceivedAt) {
				p.Purged++
				add(index, e, d.ReceivedAt)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		g := groups[key]
		slices.Sort(g.indices) // of archived events they come last
		p.groups = append(p.groups, ErasedGroup{g.pointers, spansOf(g.indices)})
	}
	for _, s := range p.Entries() {
		for i := s.From; i < s.To && len(p.First) < MaxPlanned; i++ {
			p.First = append(p.First, i)
		}
	}
	slices.Sort(p.HeldBy)
	return p, nil
}

// Digest is equal for plans that erase the same claims of the same entries.
func (p *ErasurePlan) Digest() [32]byte {
	return sha256.Sum256(appendErased(strconv.AppendUint(nil, p.Size, 10), p.groups))
}

// Entries returns the entries that the plan erases claims of, ascending.
func (p *ErasurePlan) Entries() []Span { return entriesOf(p.groups) }

// indexGroup are entries of which the same claims are to be erased.
type indexGroup struct {
	pointers []string
	indices  []uint64
}

// add adds an event to the plan, and reports whether it has claims to erase.
func (p *ErasurePlan) add(groups map[string]*indexGroup, index uint64, e *Event) bool {
	var pointers []string
	for _, c := range e.Claims() {
		means := func(pattern string) bool { return matchesPointer(pattern, c.Pointer) }
		if mayErase(c.Pointer) && slices.ContainsFunc(p.Request.Claims, means) {
			pointers = append(pointers, c.Pointer)
			p.Claims[c.Pointer]++
			p.Bytes += uint64(len(c.Value))
		}
	}
	if pointers == nil {
		return false
	}
	p.Events++
	key := strings.Join(pointers, "\x00")
	g := groups[key]
	if g == nil {
		g = &indexGroup{pointers: pointers}
		groups[key] = g
	}
	g.indices = append(g.indices, index)
	return true
}

// erasedEvent is what the metadata of an event ActionErased says.
type erasedEvent struct {
	Erased json.RawMessage `json:"erased"`
	erasedDetails
	Part  int `json:"part"`
	Parts int `json:"parts"`
}

// erasedDetails are the same in all parts of an erasure.
type erasedDetails struct {
	Erasure    string `json:"erasure"`
	Subject    string `json:"subject"` // by which members it was found, never their values
	LegalBasis string `json:"legal_basis"`
	Reference  string `json:"reference,omitempty"`
}

// Erase records an erasure as it was planned. On return no reader is shown the erased claims any more, on other servers after a few
// seconds; that they are removed from the store, its files, its index and the archive takes longer, see Resume and Erasure. Errors are
// ErrNothing, ErrHeld (a *HeldError), ErrTooEarly, ErrChanged if holds were placed, or anything was purged or erased, since it was planned,
// and those of appending.
func (l *Log) Erase(ctx context.Context, by By, plan *ErasurePlan) (Erasure, error) {
	details := erasedDetails{
		Erasure: uuid.Must(uuid.NewV7()).String(), Subject: strings.Join(slices.Sorted(maps.Keys(plan.Request.Subject)), ","),
		LegalBasis: plan.Request.LegalBasis, Reference: plan.Request.Reference,
	}
	err := l.decide(ctx, by, func(_ context.Context, c *custody) ([]*Event, error) {
		switch policy := c.policy(); {
		case plan.groups == nil:
			return nil, ErrNothing
		case len(c.acts) != plan.acts || c.holdKey() != plan.holds:
			return nil, fmt.Errorf("%w: it is to be planned again", ErrChanged)
		case len(plan.HeldBy) > 0:
			return nil, &HeldError{plan.HeldBy}
		case !policy.EraseEarly && !policy.Min.Reached(plan.youngest, l.service.config.Now().UnixMicro()):
			return nil, fmt.Errorf("%w of %v", ErrTooEarly, policy.Min)
		}
		parts := toldErased(plan.groups)
		if len(parts) > MaxRequestEvents {
			return nil, fmt.Errorf("%w: it takes %d events to record, want at most %d: choose fewer at a time", ErrErasure, len(parts), MaxRequestEvents)
		}
		var events []*Event
		for i, part := range parts {
			e, err := l.ownEventOf(by, ActionErased, "erased", erasedEvent{appendErased(nil, part), details, i + 1, len(parts)})
			if err != nil {
				return nil, err
			}
			events = append(events, e)
		}
		return events, nil
	})
	if err != nil {
		return Erasure{}, err
	}
	l.carryOut(ctx)
	return l.Erasure(ctx, details.Erasure)
}

// toldErased divides what is erased into what one event each can tell.
func toldErased(groups []ErasedGroup) (parts [][]ErasedGroup) {
	room := 0
	add := func(e ErasedGroup, size int) {
		if size > room {
			parts, room = append(parts, nil), maxTold
		}
		last := len(parts) - 1
		parts[last], room = append(parts[last], e), room-size
	}
	for _, g := range groups {
		for pointers := range chunksOfPointers(g.Pointers, maxTold/2) {
			told := len(appendErased(nil, []ErasedGroup{{pointers, nil}}))
			for spans := g.Ranges; len(spans) > 0; {
				n, size := tellable(spans, max(room-told, maxTold/4))
				add(ErasedGroup{pointers, spans[:n]}, told+size)
				spans = spans[n:]
			}
		}
	}
	return parts
}

// chunksOfPointers yields pointers in runs of so many bytes at most, one at least.
func chunksOfPointers(pointers []string, most int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for len(pointers) > 0 {
			n, size := 0, 0
			for n < len(pointers) {
				told := len(appendString(nil, pointers[n])) + 1 // and a comma
				if n > 0 && size+told > most {
					break
				}
				size, n = size+told, n+1
			}
			if !yield(pointers[:n:n]) {
				return
			}
			pointers = pointers[n:]
		}
	}
}

// Erasure is an erasure that was recorded.
type Erasure struct {
	ID         string
	Events     []Ref // that record it, in order of their parts
	ErasedAt   int64 // µs since 1970 UTC
	By         By
	Subject    string // by which members the subject was found, such as actor_id, joined by commas
	LegalBasis string
	Reference  string
	Erased     []ErasedGroup
	// Store and Index tell whether the values were removed from the contents and the index. Whether they are gone from the store's files
	// and the archive the keeper knows.
	Store, Index bool
	// Outcome is what FinishErasure recorded when all was done; nil before.
	Outcome []byte
}

// Entries returns the entries that the erasure concerns, ascending.
func (e *Erasure) Entries() []Span { return entriesOf(e.Erased) }

func entriesOf(groups []ErasedGroup) []Span {
	var all []Span
	for _, g := range groups {
		all = append(all, g.Ranges...)
	}
	return united(all)
}

// Erasures returns all erasures of the log, in order.
func (l *Log) Erasures(ctx context.Context) ([]Erasure, error) {
	c, err := l.inCustody(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(c.acts, func(a act) bool { return a.erased != nil }) {
		return nil, nil
	}
	labels, err := l.service.store.Labels(ctx, l.erasureLabel(""))
	if err != nil {
		return nil, fmt.Errorf("reading labels: %w", err)
	}
	stored, indexed := l.removing.done()
	var all []Erasure
	for i := range c.acts {
		a := &c.acts[i]
		if a.erased == nil {
			continue
		}
		if len(all) == 0 || all[len(all)-1].ID != a.erasure {
			all = append(all, Erasure{
				ID: a.erasure, ErasedAt: a.at, By: a.by, Subject: a.details.Subject, LegalBasis: a.details.LegalBasis,
				Reference: a.details.Reference, Outcome: []byte(labels[l.erasureLabel(a.erasure)]),
			})
		}
		e := &all[len(all)-1]
		e.Events, e.Erased = append(e.Events, a.Ref), append(e.Erased, a.erased...)
		if len(e.Outcome) == 0 {
			e.Outcome = nil
		}
		e.Store, e.Index = e.Outcome != nil || i < stored, e.Outcome != nil || i < indexed
	}
	return all, nil
}

// erasureLabel is the name under which the store keeps the outcome of an erasure.
func (l *Log) erasureLabel(id string) string {
	return "erasure:" + hex.EncodeToString(l.logID[:]) + ":" + id
}

// Erasure returns the erasure with an id, or ErrNotFound.
func (l *Log) Erasure(ctx context.Context, id string) (Erasure, error) {
	all, err := l.Erasures(ctx)
	if err != nil {
		return Erasure{}, err
	}
	if i := slices.IndexFunc(all, func(e Erasure) bool { return e.ID == id }); i >= 0 {
		return all[i], nil
	}
	return Erasure{}, fmt.Errorf("erasure %q: %w", id, ErrNotFound)
}

// FinishErasure records the outcome of an erasure, once everything of it is done: a JSON object. The first one stays.
func (l *Log) FinishErasure(ctx context.Context, id string, outcome []byte) error {
	e, err := l.Erasure(ctx, id)
	if err != nil {
		return err
	}
	if !e.Store || !e.Index {
		return fmt.Errorf("erasure %s isn't done yet", id)
	}
	_, err = l.service.store.Label(ctx, l.erasureLabel(id), string(outcome))
	return err
}
