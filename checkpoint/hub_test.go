package checkpoint

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/merkle"
)

// hubEntry returns the bytes of a hub's entry.
func hubEntry(e HubEntry) []byte {
	b := append([]byte{2}, e.LogID[:]...)
	b = binary.BigEndian.AppendUint64(b, e.Size)
	return append(b, e.Root[:]...)
}

func TestParseHubEntry(t *testing.T) {
	want := HubEntry{LogID: [32]byte{1, 2}, Size: 1 << 40, Root: merkle.Hash{3}}
	good := hubEntry(want)
	if got, err := ParseHubEntry(good); err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
	change := func(fn func(b []byte)) []byte {
		b := bytes.Clone(good)
		fn(b)
		return b
	}
	for _, c := range []struct {
		name    string
		b       []byte
		version bool
	}{
		{"empty", nil, false},
		{"an event's", change(func(b []byte) { b[0] = 1 }), true},
		{"an unknown version", change(func(b []byte) { b[0] = 3 }), true},
		{"too short", good[:72], false},
		{"too long", append(bytes.Clone(good), 0), false},
		{"size 0", change(func(b []byte) { clear(b[33:41]) }), false},
		{"size too large", change(func(b []byte) { b[33] = 0x80 }), false},
	} {
		if _, err := ParseHubEntry(c.b); err == nil || errors.Is(err, ErrNotHubEntry) != c.version {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func testHubProof(t testing.TB) HubProof {
	t.Helper()
	event, err := testProof(t, []byte("event")).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	entry, err := testProof(t, hubEntry(HubEntry{Size: 5})).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return HubProof{event, entry}
}

func TestHubProofFile(t *testing.T) {
	p := testHubProof(t)
	data, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("treeline/hub-proof@v1\n%d\n%s%s", len(p.Event), p.Event, p.Entry)
	if string(data) != want {
		t.Errorf("got %q, want %q", data, want)
	}
	got, err := ParseHubProof(data)
	if err != nil || !bytes.Equal(got.Event, p.Event) || !bytes.Equal(got.Entry, p.Entry) {
		t.Errorf("got %q, %v", got, err)
	}
	if !IsHubProof(data) || IsHubProof(p.Event) || IsHubProof(nil) {
		t.Error("a hub proof isn't told from a proof")
	}
}

func TestMalformedHubProofs(t *testing.T) {
	p := testHubProof(t)
	n := len(p.Event)
	file := func(header, length string, event, entry []byte) string {
		return header + length + string(event) + string(entry)
	}
	const header = "treeline/hub-proof@v1\n"
	length := fmt.Sprintf("%d\n", n)
	if _, err := ParseHubProof([]byte(file(header, length, p.Event, p.Entry))); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{
		"empty":                     "",
		"header only":               header,
		"another header":            file("treeline/hub-proof@v2\n", length, p.Event, p.Entry),
		"no length":                 file(header, "\n", p.Event, p.Entry),
		"a zero before the length":  file(header, "0"+length, p.Event, p.Entry),
		"a sign before the length":  file(header, "+"+length, p.Event, p.Entry),
		"a space after the length":  file(header, fmt.Sprintf("%d \n", n), p.Event, p.Entry),
		"a carriage return":         file(header, fmt.Sprintf("%d\r\n", n), p.Event, p.Entry),
		"a length of one more":      file(header, fmt.Sprintf("%d\n", n+1), p.Event, p.Entry),
		"a length of one less":      file(header, fmt.Sprintf("%d\n", n-1), p.Event, p.Entry),
		"a length of all":           file(header, fmt.Sprintf("%d\n", n+len(p.Entry)), p.Event, p.Entry),
		"a length beyond the end":   file(header, fmt.Sprintf("%d\n", n+len(p.Entry)+1), p.Event, p.Entry),
		"a huge length":             file(header, "18446744073709551616\n", p.Event, p.Entry),
		"a length of 0":             file(header, "0\n", nil, p.Entry),
		"one proof only":            file(header, length, p.Event, nil),
		"something after":           file(header, length, p.Event, append(bytes.Clone(p.Entry), '\n')),
		"a third proof":             file(header, length, p.Event, append(bytes.Clone(p.Entry), p.Entry...)),
		"a byte order mark":         "\ufeff" + file(header, length, p.Event, p.Entry),
		"another hub proof in it":   file(header, fmt.Sprintf("%d\n", len(file(header, length, p.Event, p.Entry))), []byte(file(header, length, p.Event, p.Entry)), p.Entry),
		"more than the largest one": file(header, length, p.Event, make([]byte, MaxHubProofSize)),
	} {
		if got, err := ParseHubProof([]byte(data)); err == nil {
			t.Errorf("%s: accepted as %q", name, got)
		}
	}
	if _, err := (HubProof{p.Event, []byte("x")}).Marshal(); err == nil {
		t.Error("Marshal took what can't be parsed")
	}
}

// A hubWorld is a world whose log is a hub, of logs that the store has as well.
type hubWorld struct {
	*world
	ids      []string            // verifier keys of the logs
	recorded map[string][][]byte // by verifier key: the note of each size from 1 on
	mistaken string              // the verifier key that the store gives for that of any log; "": it doesn't
}

// origins of the logs in a hubWorld.
func hubLogOrigin(i int) string { return fmt.Sprintf("logs.example.com/logs/tenant-%d", i) }

func newHubWorld(t testing.TB, logs int) *hubWorld {
	w := &hubWorld{world: newWorld(t), recorded: map[string][][]byte{}}
	for i := range logs {
		signer, vkey, err := testSeed.Ed25519(hubLogOrigin(i), 0)
		if err != nil {
			t.Fatal(err)
		}
		w.ids = append(w.ids, vkey)
		for size := uint64(1); size <= 20; size++ {
			msg, err := Sign(Checkpoint{hubLogOrigin(i), size, hubLogRoot(i, size)}, signer)
			if err != nil {
				t.Fatal(err)
			}
			w.recorded[vkey] = append(w.recorded[vkey], msg)
		}
	}
	return w
}

func hubLogRoot(i int, size uint64) merkle.Hash { return merkle.Hash{byte(i), byte(size)} }

func (w *hubWorld) entry(i int, size uint64) []byte {
	return hubEntry(HubEntry{LogID(w.ids[i]), size, hubLogRoot(i, size)})
}

// add appends entries to the hub, honest or not.
func (w *hubWorld) add(entries ...[]byte) {
	w.entries = append(slices.Clone(w.entries), entries...)
	w.set(w.entries)
	w.honest = w.entries
}

func (w *hubWorld) startHub() *Publisher {
	signer, verifier := testKey(w.t, 0)
	p := &process{world: w.world}
	return NewHubPublisher(hubMemSource{memSource{p}, w}, memFence{p}, []note.Signer{spySigner{signer, w.world}}, verifier)
}

type hubMemSource struct {
	memSource
	w *hubWorld
}

func (s hubMemSource) NewestSizes(_ context.Context, size uint64) (map[[32]byte]uint64, error) {
	newest := map[[32]byte]uint64{}
	return newest, s.do("newest", func() error {
		for _, b := range s.w.entries[:size] {
			e, err := ParseHubEntry(b)
			if err != nil {
				return err
			}
			newest[e.LogID] = max(newest[e.LogID], e.Size)
		}
		return nil
	})
}

func (s hubMemSource) Recorded(_ context.Context, entries []HubEntry, fn func(int, []string, []byte) error) error {
	return s.do("recorded", func() error {
		for i, e := range entries {
			for vkey, notes := range s.w.recorded {
				if LogID(vkey) == e.LogID && e.Size <= uint64(len(notes)) && notes[e.Size-1] != nil {
					if err := fn(i, []string{cmp.Or(s.w.mistaken, vkey)}, notes[e.Size-1]); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

func TestAHubIsSigned(t *testing.T) {
	ctx := context.Background()
	w := newHubWorld(t, 3)
	p := w.startHub()
	if err := p.Birth(ctx); err != nil {
		t.Fatal(err)
	}
	publish := func(p *Publisher) {
		t.Helper()
		if c, err := p.Publish(ctx); err != nil || c.Size != uint64(len(w.entries)) || c.Root != naiveRoot(w.entries) {
			t.Fatalf("got %v, %v, want size %d", c, err, len(w.entries))
		}
	}
	w.add(w.entry(0, 3), w.entry(1, 1))
	publish(p)
	w.add(w.entry(0, 4), w.entry(2, 20), w.entry(0, 9))
	publish(p)
	// After a restart the sizes are known again.
	p = w.startHub()
	w.add(w.entry(1, 2))
	publish(p)
	// Another server signs; this one goes on from there without asking for all sizes again.
	w.add(w.entry(1, 3))
	publish(w.startHub())
	w.trace = nil
	publish(p)
	w.add(w.entry(1, 4))
	publish(p)
	if slices.Contains(w.trace, "newest") {
		t.Errorf("the newest sizes were asked for again: %q", w.trace)
	}
	w.check()
}

// Everything that a hub may not say of another log, and what its publisher does: it never signs that.
func TestAHubThatIsNotSigned(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name, want string
		do         func(w *hubWorld)
	}{
		{"an event", "entry 3: got version 0x01", func(w *hubWorld) { w.add(testEntry(merkle.Hash{}, 1, "x")) }},
		{"an unknown version", "entry 3: got version 0x03", func(w *hubWorld) { w.add(append([]byte{3}, w.entry(0, 9)[1:]...)) }},
		{"a short entry", "entry 3: hub entry: got 72 bytes", func(w *hubWorld) { w.add(w.entry(0, 9)[:72]) }},
		{"the same size again", "has size 4, it had 4 before", func(w *hubWorld) { w.add(w.entry(0, 4)) }},
		{"a smaller size", "has size 2, it had 4 before", func(w *hubWorld) { w.add(w.entry(0, 2)) }},
		{"a size that shrinks within a batch", "has size 6, it had 7 before", func(w *hubWorld) { w.add(w.entry(0, 7), w.entry(0, 6)) }},
		{"another root", "it recorded size 9 and root", func(w *hubWorld) {
			w.add(hubEntry(HubEntry{LogID(w.ids[0]), 9, hubLogRoot(1, 9)}))
		}},
		{"a log that isn't there", "is not in the store", func(w *hubWorld) { w.add(hubEntry(HubEntry{[32]byte{1}, 9, merkle.Hash{}})) }},
		{"a size that wasn't recorded", "has no checkpoint of size 21", func(w *hubWorld) { w.add(w.entry(0, 21)) }},
		{"a note by another key", "the checkpoint that it recorded for size 9", func(w *hubWorld) {
			w.recorded[w.ids[0]][8] = w.recorded[w.ids[1]][8]
			w.add(w.entry(0, 9))
		}},
		{"a note of another size", "the hub has size 9", func(w *hubWorld) {
			w.recorded[w.ids[0]][8] = w.recorded[w.ids[0]][9]
			w.add(w.entry(0, 9))
		}},
		{"a note of another log, under that one's key", "doesn't give this id", func(w *hubWorld) {
			w.mistaken = w.ids[1]
			w.recorded[w.ids[0]][8] = w.recorded[w.ids[1]][8]
			w.add(hubEntry(HubEntry{LogID(w.ids[0]), 9, hubLogRoot(1, 9)}))
		}},
		{"a signature that fails", "invalid signature", func(w *hubWorld) {
			msg := w.recorded[w.ids[0]][8]
			w.recorded[w.ids[0]][8] = bytes.Replace(msg, []byte("\n9\n"), []byte("\n8\n"), 1)
			w.add(w.entry(0, 9))
		}},
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restarted=%v", c.name, restarted), func(t *testing.T) {
				w := newHubWorld(t, 2)
				p := w.startHub()
				if err := p.Birth(ctx); err != nil {
					t.Fatal(err)
				}
				w.add(w.entry(0, 1), w.entry(1, 5), w.entry(0, 4))
				if _, err := p.Publish(ctx); err != nil {
					t.Fatal(err)
				}
				signed := len(w.signed)
				c.do(w)
				if restarted {
					p = w.startHub()
				}
				_, err := p.Publish(ctx)
				var refusal *Refusal
				if !errors.As(err, &refusal) || refusal.Reason != Damaged || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want damaged with %q", err, c.want)
				}
				if len(w.signed) != signed {
					t.Errorf("it was signed: %q", w.signed[signed:])
				}
			})
		}
	}
}

// A hub isn't signed by the publisher of events, nor the other way round.
func TestKindsOfLogsAreNotMixed(t *testing.T) {
	ctx := context.Background()
	w := newHubWorld(t, 1)
	if err := w.startHub().Birth(ctx); err != nil {
		t.Fatal(err)
	}
	w.add(w.entry(0, 1))
	if _, err := w.start(nil).Publish(ctx); err == nil {
		t.Error("the publisher of events signed a hub's entry")
	}
	if _, err := w.startHub().Publish(ctx); err != nil {
		t.Fatal(err)
	}
	if err := w.start(nil).Resume(ctx); err == nil {
		t.Error("the publisher of events took up a hub")
	}
	e := newWorld(t)
	e.born(2)
	h := &hubWorld{world: e, recorded: maps.Clone(w.recorded)}
	if err := h.startHub().Resume(ctx); err == nil {
		t.Error("the publisher of a hub took up a log of events")
	}
}

func FuzzParseHubProof(f *testing.F) {
	p := testHubProof(f)
	data, err := p.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(hubProofHeader + "0\n"))
	f.Add(append([]byte(hubProofHeader+"+845\n"), data[len(hubProofHeader)+4:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseHubProof(data)
		if err != nil {
			return
		}
		again, err := p.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted %q, which is %q, %v", data, again, err)
		}
		for _, file := range [][]byte{p.Event, p.Entry} {
			if _, err := ParseProof(file); err != nil {
				t.Errorf("accepted %q: %v", data, err)
			}
		}
	})
}

func FuzzParseHubEntry(f *testing.F) {
	f.Add(hubEntry(HubEntry{Size: 1}))
	f.Add(testEntry([32]byte{}, 1, "x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseHubEntry(data)
		if err == nil && !bytes.Equal(hubEntry(e), data) {
			t.Errorf("accepted %x, which is %x", data, hubEntry(e))
		}
	})
}
