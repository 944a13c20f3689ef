package log

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/treeline-log/treeline/merkle"
)

// MaxDisclosure is the largest canonical disclosure in bytes. An event is refused when its disclosure would be larger with
// all claims opened. In base64 it is a line of less than 64 KiB, which is as much as common readers of proof files take.
const MaxDisclosure = maxOpened

// ErrDisclosure is wrapped by all errors about disclosures that are malformed, contradict themselves, or are not in the one
// encoding that is accepted.
var ErrDisclosure = errors.New("malformed disclosure")

// Disclosure shows what an entry commits to, wholly or in part. From it alone anybody can recompute the entry, so it needs
// no trust; but it says nothing about being in a log, which takes a proof. It has exactly one of three forms:
//
//   - Event and Seed: everything is shown.
//   - Claims: each part of the event is named, and opened or withheld.
//   - Digest: nothing is shown. What is left when an event's content is gone.
//
// No two disclosures with the same event digest contradict each other: both have the same pointers, and where both open a
// claim they open it to the same value, or else SHA-256 has a collision.
type Disclosure struct {
	ReceivedAt int64       // µs since 1970 UTC, see Entry
	Previous   merkle.Hash // see Entry

	Event *Event
	Seed  *[32]byte

	Claims []Claim // ascending by Pointer

	Digest *[32]byte
}

// Claim is one part of an event in a Disclosure: opened if it has a Value, otherwise withheld. The two are not told apart
// by why: withheld by whoever made the disclosure, or erased from the log.
type Claim struct {
	Pointer string // RFC 6901

	Salt  [32]byte // if opened, see Salt
	Value []byte   // if opened, in canonical form (RFC 8785); nil otherwise

	Commitment [32]byte // if withheld; otherwise it follows from the rest and is ignored
}

// Withheld reports whether the claim's value is not shown.
func (c *Claim) Withheld() bool { return c.Value == nil }

// Entry returns the entry that d discloses. It is meaningful only for a disclosure from ParseDisclosure or one that Marshal
// accepts.
func (d *Disclosure) Entry() Entry {
	return Entry{ReceivedAt: d.ReceivedAt, Previous: d.Previous, Digest: d.eventDigest()}
}

func (d *Disclosure) eventDigest() [32]byte {
	switch {
	case d.Event != nil:
		return d.Event.Digest(d.Seed)
	case d.Digest != nil:
		return *d.Digest
	}
	data := []byte(eventDigestLabel)
	for i := range d.Claims {
		c := &d.Claims[i]
		commitment := c.Commitment
		if !c.Withheld() {
			commitment = Commitment(&c.Salt, c.Pointer, c.Value)
		}
		data = appendCommitted(data, c.Pointer, &commitment)
	}
	return sha256.Sum256(data)
}

// Withhold returns a disclosure of the same entry in which the claims with the given pointers are withheld, besides those
// that are already. All others stay as they are, so without pointers it only cuts an event into its claims. Any claim may be
// withheld, /id and /action too: a claim's name is shown in any case, its value never has to be. It is an error if d
// has no such claim, or shows nothing to begin with.
func (d *Disclosure) Withhold(pointers ...string) (*Disclosure, error) {
	if d.Digest != nil {
		return nil, errors.New("withhold: the disclosure shows no claims")
	}
	out := &Disclosure{ReceivedAt: d.ReceivedAt, Previous: d.Previous, Claims: append([]Claim(nil), d.Claims...)}
	if d.Event != nil {
		s := newSalter(d.Seed)
		for _, c := range d.Event.Claims() {
			out.Claims = append(out.Claims, Claim{Pointer: c.Pointer, Salt: s.salt(c.Pointer), Value: c.Value})
		}
	}
next:
	for _, p := range pointers {
		for i := range out.Claims {
			if c := &out.Claims[i]; c.Pointer == p {
				if !c.Withheld() {
					*c = Claim{Pointer: p, Commitment: Commitment(&c.Salt, p, c.Value)}
				}
				continue next
			}
		}
		return nil, fmt.Errorf("withhold: the event has no claim %q", p)
	}
	return out, nil
}

// Marshal returns the disclosure as a JSON object in canonical form (RFC 8785), which is its only encoding:
//
//	{"event":{…},"previous_hash":"…","received_at":"…","seed":"…"}
//	{"claims":[{"pointer":"…","salt":"…","value":…},{"commitment":"…","pointer":"…"},…],"previous_hash":"…","received_at":"…"}
//	{"digest":"…","previous_hash":"…","received_at":"…"}
//
// The error wraps ErrDisclosure; what Marshal returns, ParseDisclosure accepts.
func (d *Disclosure) Marshal() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	out := d.append(nil)
	if len(out) > MaxDisclosure {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrDisclosure, len(out), MaxDisclosure)
	}
	return out, nil
}

// append appends the canonical form to dst. Members are in the order of their names, as RFC 8785 demands.
func (d *Disclosure) append(dst []byte) []byte {
	switch {
	case d.Event != nil:
		dst = append(append(dst, `{"event":`...), d.Event.JSON()...)
	case d.Digest != nil:
		dst = appendHexMember(append(dst, '{'), "digest", d.Digest)
	default:
		dst = append(dst, `{"claims":[`...)
		for i := range d.Claims {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = d.Claims[i].append(dst)
		}
		dst = append(dst, ']')
	}
	dst = appendHexMember(append(dst, ','), "previous_hash", (*[32]byte)(&d.Previous))
	dst = append(dst, `,"received_at":"`...)
	dst = AppendTime(dst, d.ReceivedAt)
	dst = append(dst, '"')
	if d.Event != nil {
		dst = appendHexMember(append(dst, ','), "seed", d.Seed)
	}
	return append(dst, '}')
}

func (c *Claim) append(dst []byte) []byte {
	dst = append(dst, '{')
	if c.Withheld() {
		dst = append(appendHexMember(dst, "commitment", &c.Commitment), ',')
	}
	dst = appendString(append(dst, `"pointer":`...), c.Pointer)
	if !c.Withheld() {
		dst = appendHexMember(append(dst, ','), "salt", &c.Salt)
		dst = append(append(dst, `,"value":`...), c.Value...)
	}
	return append(dst, '}')
}

func appendHexMember(dst []byte, name string, value *[32]byte) []byte {
	dst = append(append(append(dst, '"'), name...), `":"`...)
	return append(hex.AppendEncode(dst, value[:]), '"')
}

// check makes sure that d has exactly one form and that everything in it is valid.
func (d *Disclosure) check() error {
	if d.ReceivedAt < 0 || d.ReceivedAt > MaxReceivedAt {
		return fmt.Errorf("%w: received_at is %d µs, want 0 to %d", ErrDisclosure, d.ReceivedAt, int64(MaxReceivedAt))
	}
	if (d.Event != nil) != (d.Seed != nil) {
		return fmt.Errorf("%w: event and seed go together", ErrDisclosure)
	}
	forms := 0
	for _, has := range []bool{d.Event != nil, d.Claims != nil, d.Digest != nil} {
		if has {
			forms++
		}
	}
	if forms != 1 {
		return fmt.Errorf("%w: got %d of event, claims and digest, want one of them", ErrDisclosure, forms)
	}
	if d.Claims == nil {
		return nil
	}
	pointers := make([]string, len(d.Claims))
	for i := range d.Claims {
		pointers[i] = d.Claims[i].Pointer
	}
	if err := CheckPointers(pointers); err != nil {
		return fmt.Errorf("%w: %w", ErrDisclosure, err)
	}
	for i := range d.Claims {
		if c := &d.Claims[i]; !c.Withheld() {
			if err := CheckClaim(c.Pointer, c.Value); err != nil {
				return fmt.Errorf("%w: %w", ErrDisclosure, err)
			}
		}
	}
	return nil
}

// ParseDisclosure reads a disclosure. Only the canonical encoding is accepted: data must be, byte for byte, what Marshal
// makes of the result. So whatever differs in spelling only (white space, order or letter case of members, escapes, upper-case
// hex, other forms of the same time, unknown or repeated members) is an error, and all errors wrap ErrDisclosure.
//
// It checks everything that can be checked without a log: the event's or the claims' own rules, the pointers that must be
// there, the limits. The result doesn't share memory with data.
func ParseDisclosure(data []byte) (*Disclosure, error) {
	if len(data) > MaxDisclosure {
		return nil, fmt.Errorf("%w: %d bytes, want at most %d", ErrDisclosure, len(data), MaxDisclosure)
	}
	// encoding/json takes far more than it should: members in any case, more than once, unknown ones. None of that
	// survives the comparison below, since what it understood is written anew.
	var in struct {
		Claims     []claimJSON     `json:"claims"`
		Digest     *string         `json:"digest"`
		Event      json.RawMessage `json:"event"`
		Previous   string          `json:"previous_hash"`
		ReceivedAt string          `json:"received_at"`
		Seed       *string         `json:"seed"`
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDisclosure, err)
	}
	d := new(Disclosure)
	var err error
	if d.ReceivedAt, err = parseReceivedAt(in.ReceivedAt); err != nil {
		return nil, err
	}
	if err = parseHex((*[32]byte)(&d.Previous), "previous_hash", in.Previous); err != nil {
		return nil, err
	}
	if in.Digest != nil {
		d.Digest = new([32]byte)
		if err = parseHex(d.Digest, "digest", *in.Digest); err != nil {
			return nil, err
		}
	}
	if in.Seed != nil {
		d.Seed = new([32]byte)
		if err = parseHex(d.Seed, "seed", *in.Seed); err != nil {
			return nil, err
		}
	}
	if in.Event != nil {
		if d.Event, err = ParseStored(in.Event); err != nil {
			return nil, fmt.Errorf("%w: event: %w", ErrDisclosure, err)
		}
	}
	if d.Claims, err = parseClaims(in.Claims); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(d.append(make([]byte, 0, len(data))), data) {
		return nil, fmt.Errorf("%w: not in canonical form, or with members that don't belong there", ErrDisclosure)
	}
	return d, nil
}

// claimJSON is a claim as JSON has it, up to what the comparison with the canonical form finds.
type claimJSON struct {
	Commitment *string         `json:"commitment"`
	Pointer    string          `json:"pointer"`
	Salt       string          `json:"salt"`
	Value      json.RawMessage `json:"value"`
}

func parseClaims(in []claimJSON) (claims []Claim, err error) {
	for _, c := range in {
		claim := Claim{Pointer: c.Pointer, Value: c.Value}
		if c.Commitment != nil {
			err = parseHex(&claim.Commitment, "commitment of "+c.Pointer, *c.Commitment)
		} else {
			err = parseHex(&claim.Salt, "salt of "+c.Pointer, c.Salt)
		}
		if err != nil {
			return nil, err
		}
		claims = append(claims, claim)
	}
	return claims, nil
}

// parseReceivedAt reads a time in the one form that AppendTime writes, up to spellings that the comparison with the
// canonical form finds.
func parseReceivedAt(s string) (int64, error) {
	t, err := time.Parse(timeLayout, s)
	if err != nil {
		return 0, fmt.Errorf("%w: received_at %q is not RFC 3339 in UTC with six fractional digits", ErrDisclosure, s)
	}
	return t.UnixMicro(), nil
}

// parseHex reads 32 bytes in hex. Upper-case digits are left to the comparison with the canonical form.
func parseHex(dst *[32]byte, what, s string) error {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(dst) {
		return fmt.Errorf("%w: %s is not 64 lower-case hex digits", ErrDisclosure, what)
	}
	copy(dst[:], b)
	return nil
}
