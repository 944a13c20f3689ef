package index

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"pgregory.net/rapid"
)

// event is what the tests know of an event, the naive way.
type event struct {
	received, occurred int64
	action             string
	words              []string
	terms              []term
}

// testWords names the words of the tests' events.
const testWords = 0x01020304

type term struct {
	field       Field
	path, value string // path for Metadata alone
}

func (e *event) has(f Field, path, value string) bool {
	return slices.Contains(e.terms, term{f, path, value})
}

// build makes the segment of level 0 with the given number.
func build(b *Builder, number uint64, events []event) *Segment {
	b.Begin(number, testWords)
	for _, e := range events {
		b.Add(e.received, e.occurred)
		if e.action != "" {
			b.Action([]byte(e.action))
		}
		for _, w := range e.words {
			b.Word([]byte(w))
		}
		for _, t := range e.terms {
			if t.field == Metadata {
				b.Metadata([]byte(t.path), []byte(t.value))
			} else {
				b.Term(t.field, []byte(t.value))
			}
		}
	}
	return b.Segment()
}

// buildAtOnce is a second, slow implementation: any level, one map, no merging.
func buildAtOnce(level int, number uint64, events []event) *Segment {
	s := &Segment{Meta: Meta{
		Level: level, Number: number, MinOccurred: events[0].occurred, MaxOccurred: events[0].occurred,
		FirstReceived: events[0].received, LastReceived: events[len(events)-1].received, Words: testWords,
	}}
	keys := map[string][]uint32{}
	add := func(offset int, key []byte) {
		if have := keys[string(key)]; len(have) == 0 || have[len(have)-1] != uint32(offset) {
			keys[string(key)] = append(have, uint32(offset))
		}
	}
	for i, e := range events {
		s.MinOccurred, s.MaxOccurred = min(s.MinOccurred, e.occurred), max(s.MaxOccurred, e.occurred)
		if e.action != "" {
			add(i, []byte("a"+e.action))
		}
		for _, w := range e.words {
			add(i, []byte("z"+w[:min(len(w), 64)]))
		}
		for _, t := range e.terms {
			value := t.value
			if t.field == Metadata {
				value = t.path + "\x00" + value
			}
			add(i, fmt.Appendf([]byte{byte(t.field)}, "%s", hashBytes(value)))
		}
	}
	for i := 0; i < len(events); i += Width {
		var times []int64
		for _, e := range events[i : i+Width] {
			times = append(times, e.occurred)
		}
		s.addTimes(times)
	}
	e := encoder{segment: s}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		e.add([]byte(key), keys[key])
	}
	e.end()
	return s
}

func hashBytes(s string) []byte {
	h := xxhash.Sum64String(s)
	return []byte{byte(h >> 56), byte(h >> 48), byte(h >> 40), byte(h >> 32), byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}
}

// random makes n events with terms of which some are everywhere and some are rare.
func random(r *rand.Rand, n int) []event {
	actions := []string{"user.login", "user.logout", "user", "user.login.failed", "", "billing.invoice.paid"}
	out := make([]event, n)
	received := int64(1_700_000_000_000_000)
	for i := range out {
		received += r.Int64N(2000)
		e := event{received: received, occurred: received - r.Int64N(1_000_000), action: actions[r.IntN(len(actions))]}
		if r.IntN(8) == 0 {
			e.action = fmt.Sprint("rare.", r.IntN(300))
		}
		e.terms = []term{
			{ActorID, "", fmt.Sprint("user-", r.IntN(50))},
			{Outcome, "", []string{"success", "success", "success", "failure"}[r.IntN(4)]},
			{TargetType, "", "document"}, {TargetType, "", "document"}, // twice: two targets of one type
			{Metadata, "request", fmt.Sprint("r-", r.IntN(1<<40))},
			{Metadata, "plan", fmt.Sprint("p", r.IntN(3))},
		}
		long := strings.Repeat("é", 31) + "x" // 63 bytes
		e.words = []string{"user", "common", "common", fmt.Sprint("w", r.IntN(3000)), "twice" + fmt.Sprint(i%50), "twice" + fmt.Sprint(i%50), long + "ü" + fmt.Sprint(r.IntN(5)), long}
		if r.IntN(20) == 0 {
			e.action, e.words, e.terms = "", nil, nil // its content is gone
		}
		out[i] = e
	}
	return out
}

func random1(seed uint64, n int) []event { return random(rand.New(rand.NewPCG(seed, 1)), n) }

// stored returns the blocks that a store hands out for ranges, as Index in package log says.
func stored(s *Segment, ranges []Range) (out []Block) {
	for i, b := range s.Blocks {
		wanted := slices.ContainsFunc(ranges, func(r Range) bool {
			covers := bytes.Compare(b.Key, r.From) <= 0 &&
				(i+1 == len(s.Blocks) || bytes.Compare(s.Blocks[i+1].Key, r.From) > 0)
			return covers || bytes.Compare(b.Key, r.From) > 0 && bytes.Compare(b.Key, r.To) < 0
		})
		if wanted {
			out = append(out, b)
		}
	}
	return out
}

func lookup(q *Query, s *Segment) ([]uint64, error) {
	l := q.NewLookup(s.Meta)
	for _, b := range stored(s, q.Ranges()) {
		if err := l.Add(b.Key, b.Data); err != nil {
			return nil, err
		}
	}
	set, err := l.Result()
	return set.Append(nil, 0), err
}

func same(a, b *Segment) error {
	if a.Meta != b.Meta {
		return fmt.Errorf("meta: got %+v, want %+v", a.Meta, b.Meta)
	}
	if len(a.Blocks) != len(b.Blocks) {
		return fmt.Errorf("got %d blocks, want %d", len(a.Blocks), len(b.Blocks))
	}
	for i := range a.Blocks {
		if !bytes.Equal(a.Blocks[i].Key, b.Blocks[i].Key) || !bytes.Equal(a.Blocks[i].Data, b.Blocks[i].Data) {
			return fmt.Errorf("block %d differs: key %x, want %x", i, a.Blocks[i].Key, b.Blocks[i].Key)
		}
	}
	return nil
}

// queries are members and a naive matcher for each.
type member struct {
	ranges  []Range
	matches func(e *event) bool
}

func drawMember(t *rapid.T, events []event) member {
	one := func() (Range, func(e *event) bool) {
		e := rapid.SampledFrom(events).Draw(t, "like")
		if len(e.words) > 0 && rapid.IntRange(0, 2).Draw(t, "word") == 0 {
			w := rapid.SampledFrom(e.words).Draw(t, "which")
			cut := func(word string) string { return word[:min(len(word), MaxWord)] }
			if rapid.Bool().Draw(t, "exact") {
				return WordIs(w), func(e *event) bool {
					return slices.ContainsFunc(e.words, func(have string) bool { return cut(have) == cut(w) })
				}
			}
			w = w[:rapid.IntRange(1, len(w)).Draw(t, "prefix")]
			return WordBegins(w), func(e *event) bool {
				return slices.ContainsFunc(e.words, func(have string) bool { return strings.HasPrefix(cut(have), cut(w)) })
			}
		}
		if len(e.terms) == 0 || rapid.Bool().Draw(t, "action") {
			switch action := e.action; {
			case rapid.Bool().Draw(t, "exact"):
				return ActionIs(action), func(e *event) bool { return action != "" && e.action == action }
			default:
				prefix := action[:rapid.IntRange(0, len(action)).Draw(t, "prefix")]
				return ActionBegins(prefix), func(e *event) bool {
					return e.action != "" && len(e.action) >= len(prefix) && e.action[:len(prefix)] == prefix
				}
			}
		}
		x := rapid.SampledFrom(e.terms).Draw(t, "term")
		if rapid.IntRange(0, 9).Draw(t, "absent") == 0 {
			x.value = "absent"
		}
		if x.field == Metadata {
			return MemberIs(x.path, x.value), func(e *event) bool { return e.has(x.field, x.path, x.value) }
		}
		return Is(x.field, x.value), func(e *event) bool { return e.has(x.field, "", x.value) }
	}
	var m member
	var any []func(e *event) bool
	first, matches := one()
	m.ranges, any = append(m.ranges, first), append(any, matches)
	for range rapid.IntRange(0, 3).Draw(t, "more") {
		r, matches := one()
		if r.From[0] != first.From[0] {
			continue // the values of one member are of one field
		}
		m.ranges, any = append(m.ranges, r), append(any, matches)
	}
	m.matches = func(e *event) bool {
		return slices.ContainsFunc(any, func(f func(*event) bool) bool { return f(e) })
	}
	return m
}

// drawQuery draws members of which at most one is about actions and one about words: those are the fields with ranges that overlap.
func drawQuery(t *rapid.T, events []event) (*Query, func(e *event) bool) {
	var members []member
	texts := make(map[byte]bool)
	for range rapid.IntRange(1, 3).Draw(t, "members") {
		m := drawMember(t, events)
		if f := m.ranges[0].From[0]; f == byte(Action) || f == byte(Word) {
			if texts[f] {
				continue
			}
			texts[f] = true
		}
		members = append(members, m)
	}
	var ranges [][]Range
	for _, m := range members {
		ranges = append(ranges, m.ranges)
	}
	return NewQuery(ranges), func(e *event) bool {
		return !slices.ContainsFunc(members, func(m member) bool { return !m.matches(e) })
	}
}

func TestALookupFindsWhatANaiveOneFinds(t *testing.T) {
	one := random1(1, Width)
	all := random1(2, Width*Fanout)
	for _, c := range []struct {
		name    string
		segment *Segment
		events  []event
	}{
		{"level 0", build(new(Builder), 7, one), one},
		{"level 1", merge(t, 3, all), all},
		{"without content", build(new(Builder), 0, make([]event, Width)), make([]event, Width)},
	} {
		t.Run(c.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				like := c.events
				if c.name == "without content" {
					like = one
				}
				q, matches := drawQuery(t, like)
				got, err := lookup(q, c.segment)
				if err != nil {
					t.Fatal(err)
				}
				var want []uint64
				for i := range c.events {
					if matches(&c.events[i]) {
						want = append(want, uint64(i))
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("got %d candidates, want %d: %v, %v", len(got), len(want), got, want)
				}
			})
		})
	}
}

// merge builds the segments of level 0 and merges them.
func merge(t testing.TB, number uint64, events []event) *Segment {
	t.Helper()
	s, err := Merge(parts(number, events))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func parts(number uint64, events []event) (out []*Segment) {
	var b Builder
	for i := range Fanout {
		out = append(out, build(&b, number*Fanout+uint64(i), events[i*Width:(i+1)*Width]))
	}
	return out
}

// Of long words the keys hold only the beginning, so that one may be found for another, but all are found.
func TestALongWordIsFoundByItsBeginning(t *testing.T) {
	word := strings.Repeat("x", MaxWord) + "yz"
	events := random1(9, Width)
	events[77].words = []string{word}
	s := build(new(Builder), 0, events)
	for n := MaxWord - 2; n <= len(word); n++ {
		for name, r := range map[string]Range{"begins": WordBegins(word[:n]), "is": WordIs(word[:n])} {
			got, err := lookup(NewQuery([][]Range{{r}}), s)
			if found := name == "begins" || n >= MaxWord; err != nil || found != slices.Equal(got, []uint64{77}) {
				t.Errorf("%s, %d bytes: got %v, %v, want it found: %t", name, n, got, err, found)
			}
		}
	}
}

func TestASegmentIsTheSameHoweverItIsBuilt(t *testing.T) {
	for seed := range uint64(3) {
		events := random1(10+seed, Width*Fanout)
		if err := same(merge(t, seed, events), buildAtOnce(Level1, seed, events)); err != nil {
			t.Errorf("merged and built at once: %v", err)
		}
		if err := same(build(new(Builder), seed, events[:Width]), buildAtOnce(Level0, seed, events[:Width])); err != nil {
			t.Errorf("built and built at once: %v", err)
		}
	}
}

func TestTheColumnHoldsEachEventsTime(t *testing.T) {
	events := random1(4, Width*Fanout)
	s := merge(t, 1, events)
	c, n := NewColumn(s.Meta), 0
	for _, b := range stored(s, []Range{Times}) {
		err := c.Add(b.Key, b.Data, func(offset int, occurred int64) {
			if offset != n || occurred != events[n].occurred {
				t.Fatalf("got %d at %d, want %d at %d", occurred, offset, events[n].occurred, n)
			}
			n++
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil || n != len(events) {
		t.Errorf("got %d times, %v, want %d", n, err, len(events))
	}
}

// Whatever is missing, changed or in another's place, no lookup gives a wrong answer.
func TestDamageIsAnErrorAndNoAnswer(t *testing.T) {
	events := random1(5, Width)
	s, other := build(new(Builder), 3, events), build(new(Builder), 4, events)
	q := NewQuery([][]Range{{ActionBegins("")}, {{[]byte{'b'}, []byte{'z'}}}})
	all := stored(s, q.Ranges())
	if len(all) < 3 {
		t.Fatalf("%d blocks are too few to show anything", len(all))
	}
	if _, err := lookup(q, s); err != nil {
		t.Fatal(err)
	}
	try := func(name string, blocks []Block) {
		t.Helper()
		l := q.NewLookup(s.Meta)
		var err error
		for _, b := range blocks {
			if err = l.Add(b.Key, b.Data); err != nil {
				break
			}
		}
		if err == nil {
			_, err = l.Result()
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %v, want ErrDamaged", name, err)
		}
	}
	for i, b := range all {
		try(fmt.Sprintf("block %d missing", i), slices.Delete(slices.Clone(all), i, i+1))
		try(fmt.Sprintf("block %d twice", i), slices.Insert(slices.Clone(all), i, b))
		changed := slices.Clone(all)
		for _, j := range []int{0, checksumSize, len(b.Data) / 2, len(b.Data) - 1} {
			data := bytes.Clone(b.Data)
			data[j] ^= 4
			changed[i] = Block{b.Key, data}
			try(fmt.Sprintf("byte %d of block %d changed", j, i), changed)
		}
		changed[i] = Block{b.Key, b.Data[:len(b.Data)-1]}
		try(fmt.Sprintf("block %d cut off", i), changed)
		changed[i] = Block{b.Key, nil}
		try(fmt.Sprintf("block %d empty", i), changed)
		changed[i] = Block{append(bytes.Clone(b.Key), 1), b.Data}
		try(fmt.Sprintf("block %d under another key", i), changed)
		relabelled := s.Meta
		relabelled.Words++
		if err := q.NewLookup(relabelled).Add(b.Key, b.Data); !errors.Is(err, ErrDamaged) {
			t.Errorf("block %d of a segment with other words: got %v, want ErrDamaged", i, err)
		}
		for _, o := range other.Blocks {
			if bytes.Equal(o.Key, b.Key) {
				changed[i] = o
				try(fmt.Sprintf("block %d of another segment", i), changed)
			}
		}
	}
	parts := parts(0, random1(6, Width*Fanout))
	for i := range parts[9].Blocks {
		damaged := *parts[9]
		damaged.Blocks = slices.Delete(slices.Clone(damaged.Blocks), i, i+1)
		with := slices.Clone(parts)
		with[9] = &damaged
		if _, err := Merge(with); !errors.Is(err, ErrDamaged) {
			t.Errorf("merging without block %d: got %v, want ErrDamaged", i, err)
		}
	}
	relabelled := *parts[9]
	relabelled.Words++
	with := slices.Clone(parts)
	with[9] = &relabelled
	if _, err := Merge(with); !errors.Is(err, ErrDamaged) {
		t.Errorf("merging segments with different words: got %v, want ErrDamaged", err)
	}
	if _, err := Merge(parts[1:]); !errors.Is(err, ErrDamaged) {
		t.Errorf("merging 63 segments: got %v, want ErrDamaged", err)
	}
}

// Blocks with a right checksum but any content at all: nothing panics, and what is found lies within the segment.
func FuzzLookup(f *testing.F) {
	s := build(new(Builder), 0, random1(7, Width))
	for _, b := range s.Blocks[1:] {
		f.Add(b.Data[checksumSize:])
	}
	f.Add([]byte{})
	f.Add([]byte("\x00\x00\x02aa\x0a\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for level := range 2 {
			s := &Segment{Meta: Meta{Level: level}}
			s.seal([]byte{firstKey}, append(make([]byte, checksumSize), body...))
			q := NewQuery([][]Range{{ActionBegins("")}, {Is(ActorID, "user-1")}})
			if got, err := lookup(q, s); err == nil {
				for _, o := range got {
					if o >= Events(level) {
						t.Fatalf("offset %d in a segment of %d events", o, Events(level))
					}
				}
			} else if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			s.Blocks = nil
			s.seal(timesKeyOf(0), append(make([]byte, checksumSize), body...))
			if err := NewColumn(s.Meta).Add(s.Blocks[0].Key, s.Blocks[0].Data, func(int, int64) {}); err != nil && !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
		}
	})
}

// A merge of anything gives a segment or ErrDamaged.
func FuzzMerge(f *testing.F) {
	for _, b := range build(new(Builder), 0, random1(8, Width)).Blocks[1:] {
		f.Add(b.Data[checksumSize:])
	}
	f.Add([]byte("\x00\x00\x02aa\x0a\xff"))
	empty := make([]*Segment, Fanout)
	for i := range empty {
		empty[i] = build(new(Builder), uint64(i), make([]event, Width))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		with := slices.Clone(empty)
		for _, i := range []int{0, 63} {
			s := &Segment{Meta: empty[i].Meta, Blocks: empty[i].Blocks[:1:1]}
			s.seal([]byte{firstKey}, append(make([]byte, checksumSize), body...))
			with[i] = s
		}
		if _, err := Merge(with); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}

func TestBitsAreKeptWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := rapid.IntRange(0, Width).Draw(t, "from"), rapid.IntRange(0, Width).Draw(t, "to")
		s := NewSet(Level0)
		for i := range s {
			s[i] = ^uint64(0)
		}
		s.Keep(from, to)
		for i := range Width {
			if s.Has(i) != (from <= i && i < to) {
				t.Fatalf("[%d, %d): offset %d is %t", from, to, i, s.Has(i))
			}
		}
	})
}

func BenchmarkBuild(b *testing.B) {
	events := random1(1, Width)
	var builder Builder
	for b.Loop() {
		build(&builder, 0, events)
	}
	b.ReportMetric(float64(b.N)*Width/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkMerge(b *testing.B) {
	parts := parts(0, random1(1, Width*Fanout))
	for b.Loop() {
		if _, err := Merge(parts); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*Width*Fanout/b.Elapsed().Seconds(), "events/s")
}
