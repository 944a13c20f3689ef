package log

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// content is what is left of an event: all of it, some claims, or nothing.
type content struct {
	event    *Event  // the event, or what is left of it to find it by; nil if it was purged, or isn't wanted
	seed     []byte  // of a whole event; not to be kept
	claims   []Claim // of an event of which claims were erased, instead of a seed
	erasedBy []Ref   // the events that say so
	purgedBy *Ref    // the event that says so
	pending  bool    // more of it is stored than is left
}

// content returns what is left of the content that a store has of an entry. This is the only place that makes something of what a
// store has, so that nobody is shown what was purged or erased, also while it is still there: in a copy that lags, or after a crash between
// the event and the deed. Claims that are missing and that no event says to have been erased are ErrDamaged.
//
// If wanted isn't nil it is asked of the JSON of a whole event, and what isn't wanted has no event.
func (c *custody) content(index uint64, p Payload, wanted func(json []byte) bool) (content, error) {
	if by := c.purgedBy(index); by != nil {
		return content{purgedBy: by, pending: true}, nil
	}
	erased := c.erasedOf(index)
	if len(p.Data) > 0 && p.Data[0] == payloadReduced {
		claims, err := decodeReduced(p.Data)
		if err != nil {
			return content{}, err
		}
		return reducedContent(claims, erased)
	}
	text, err := decodePayload(p.Data)
	if err != nil {
		return content{}, err
	}
	if erased == nil && wanted != nil && !wanted(text) {
		return content{}, nil
	}
	event, err := storedEvent(text)
	if err != nil {
		return content{}, err
	}
	if erased == nil {
		return content{event: event, seed: p.Seed}, nil
	}
	if len(p.Seed) != 32 {
		return content{}, errSeed(p.Seed)
	}
	d, err := (&Disclosure{Event: event, Seed: (*[32]byte)(p.Seed)}).Withhold()
	if err != nil {
		return content{}, err
	}
	return reducedContent(d.Claims, erased)
}

// reducedContent returns what erasures leave of claims.
func reducedContent(claims []Claim, erased []erasedBy) (content, error) {
	x := content{claims: claims}
	for _, by := range erased {
		x.erasedBy = append(x.erasedBy, by.Ref)
	}
	x.erasedBy = slices.CompactFunc(x.erasedBy, func(a, b Ref) bool { return a.Index == b.Index })
	for i := range claims {
		c := &claims[i]
		named := slices.ContainsFunc(erased, func(by erasedBy) bool { return contains(by.pointers, c.Pointer) })
		switch {
		case named && !c.Withheld():
			*c = Claim{Pointer: c.Pointer, Commitment: Commitment(&c.Salt, c.Pointer, c.Value)}
			x.pending = true
		case !named && c.Withheld():
			return content{}, fmt.Errorf("its claim %s is missing, and no event says that it was erased: %w", c.Pointer, ErrDamaged)
		}
	}
	x.event = shownEvent(claims)
	return x, nil
}

// check returns an error if what is left isn't what the entry commits to.
func (x *content) check(digest [32]byte) error {
	switch {
	case x.purgedBy != nil:
		return nil
	case x.claims != nil:
		if (&Disclosure{Claims: x.claims}).eventDigest() != digest {
			return errContent
		}
		return nil
	case len(x.seed) != 32:
		return errSeed(x.seed)
	case x.event.Digest((*[32]byte)(x.seed)) != digest:
		return errContent
	}
	return nil
}

func errSeed(seed []byte) error {
	return fmt.Errorf("its seed has %d bytes, not 32: %w", len(seed), ErrDamaged)
}

// contents calls fn with what is left of the content of each entry in [from, to), in order, and with what the store has of it. A
// content that is missing, and that no event says to have been purged, is ErrDamaged.
func (c *custody) contents(ctx context.Context, store Reader, id ID, from, to uint64, fn func(index uint64, p Payload, x content) error) error {
	next := from
	gone := func(until uint64) error {
		for ; next < until; next++ {
			by := c.purgedBy(next)
			if by == nil {
				return fmt.Errorf("entry %d: its content is missing: %w", next, ErrDamaged)
			}
			if err := fn(next, Payload{}, content{purgedBy: by}); err != nil {
				return err
			}
		}
		return nil
	}
	err := store.Payloads(ctx, id, from, to, func(index uint64, p Payload) error {
		if p.Data == nil {
			return nil
		}
		if err := gone(index); err != nil {
			return err
		}
		next = index + 1
		x, err := c.content(index, p, nil)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		return fn(index, p, x)
	})
	if err != nil {
		return err
	}
	return gone(to)
}

// reduced returns the form in which a store keeps what is left.
func (x *content) reduced() []byte {
	out := append([]byte{payloadReduced}, `{"claims":[`...)
	for i := range x.claims {
		if i > 0 {
			out = append(out, ',')
		}
		out = x.claims[i].append(out)
	}
	out = append(out, `],"erased_by":[`...)
	for i, by := range x.erasedBy {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendString(out, by.ID)
	}
	return append(out, ']', '}')
}

// decodeReduced reads that, and returns the claims.
func decodeReduced(data []byte) (claims []Claim, err error) {
	var in struct {
		Claims   []claimJSON `json:"claims"`
		ErasedBy []string    `json:"erased_by"`
	}
	bad := func(err error) ([]Claim, error) {
		return nil, fmt.Errorf("its content isn't what erasure leaves: %v: %w", err, ErrDamaged)
	}
	if err := json.Unmarshal(data[1:], &in); err != nil {
		return bad(err)
	}
	if claims, err = parseClaims(in.Claims); err != nil {
		return bad(err)
	}
	if err := (&Disclosure{Claims: claims}).check(); err != nil {
		return bad(err)
	}
	x := content{claims: claims}
	for _, id := range in.ErasedBy {
		x.erasedBy = append(x.erasedBy, Ref{ID: id})
	}
	if !bytes.Equal(x.reduced(), data) {
		return bad(errors.New("not in canonical form"))
	}
	return claims, nil
}

// shownEvent returns the event of those claims that are opened, ascending: to be compared with a Filter and indexed, not to be shown. It has no
// JSON but its metadata's.
func shownEvent(claims []Claim) *Event {
	e := new(Event)
	var metadata []byte
	for i := range claims {
		c := &claims[i]
		if c.Withheld() {
			continue
		}
		e.claims = append(e.claims, EventClaim{c.Pointer, c.Value})
		switch name, isMetadata := strings.CutPrefix(c.Pointer, "/metadata/"); {
		case isMetadata:
			metadata = appendString(append(metadata, ','), unescapeReference(name))
			metadata = append(append(metadata, ':'), c.Value...)
		case c.Pointer == "/id":
			e.id = string(c.Value[1 : len(c.Value)-1])
		case c.Pointer == "/occurred_at":
			if t, err := time.Parse(`"`+timeLayout+`"`, string(c.Value)); err == nil {
				e.occurredAt, e.hasTime = t.UnixMicro(), true
			}
		}
	}
	if metadata != nil {
		metadata[0] = '{'
		e.json = append(metadata, '}')
		e.metadata = span{0, int32(len(e.json))}
	}
	return e
}

// unescapeReference returns the name that a reference token (RFC 6901) stands for.
func unescapeReference(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
}

// Shown returns the event, or what the disclosure shows of it; nil if that is nothing. Of an event that isn't shown whole only claims,
// metadata and id are there, and no JSON.
func (d *Disclosure) Shown() *Event {
	switch {
	case d.Event != nil:
		return d.Event
	case d.Claims != nil:
		return shownEvent(d.Claims)
	}
	return nil
}

// MatchDisclosure reports whether the filter selects the event by what a disclosure shows of it, as Match does. Of what isn't shown only a
// filter that selects all, or by when it was received, can know.
func (f *Filter) MatchDisclosure(d *Disclosure) bool {
	e := d.Shown()
	if e == nil {
		e = new(Event)
	}
	return f.Match(e, d.ReceivedAt)
}
