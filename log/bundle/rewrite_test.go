package bundle_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

func same(_ uint64, d *log.Disclosure) (*log.Disclosure, error) { return d, nil }

// without withholds a claim of events that a condition selects.
func without(pointer string, of func(index uint64) bool) bundle.Change {
	return func(index uint64, d *log.Disclosure) (*log.Disclosure, error) {
		if !of(index) {
			return d, nil
		}
		return d.Withhold(pointer)
	}
}

// A bundle written anew has the same manifest, and what was taken out of it is nowhere in the file.
func TestRewrite(t *testing.T) {
	t.Parallel()
	l := newLog(t, 1100)
	data := l.whole(1100, 0, 1100)
	before, err := bundle.Verify(bytes.NewReader(data), l.trust())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if v, err := bundle.Rewrite(bytes.NewReader(data), &out, l.trust(), same); err != nil || v.Manifest != before.Manifest {
		t.Fatalf("unchanged: got %+v, %v", v, err)
	}
	if !bytes.Equal(out.Bytes(), data) {
		t.Error("with nothing changed the bytes are others")
	}
	out.Reset()
	third := func(index uint64) bool { return index%5 == 3 }
	written, err := bundle.Rewrite(bytes.NewReader(data), &out, l.trust(), without("/actor/email", third))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out.Bytes(), []byte("u3@example.com")) || !bytes.Contains(out.Bytes(), []byte("u2@example.com")) {
		t.Error("what was taken out is still there, or something else isn't")
	}
	after, err := bundle.Verify(bytes.NewReader(out.Bytes()), l.trust())
	if err != nil || fmt.Sprintf("%+v", after.Withheld) != "[/actor/email]" || after.Partial != 220 {
		t.Fatalf("got %+v, %v", after, err)
	}
	if after.Manifest != before.Manifest || written.Manifest != before.Manifest || written.Partial != after.Partial {
		t.Errorf("the manifest was %x, written is %x, found %x", before.Manifest, written.Manifest, after.Manifest)
	}
	was, is := unpack(t, data), unpack(t, out.Bytes())
	for i, f := range was {
		if changed := !bytes.Equal(f.content, is[i].content); f.name != is[i].name || changed != bytes.HasPrefix([]byte(f.name), []byte("events/")) {
			t.Errorf("%s has become %s, changed: %v", f.name, is[i].name, changed)
		}
	}
	// Once more, of what has claims already.
	var again bytes.Buffer
	if _, err := bundle.Rewrite(bytes.NewReader(out.Bytes()), &again, l.trust(), without("/actor/email", third)); err != nil || !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("what was rewritten before is changed: %v", err)
	}
}

// Nothing that isn't a bundle is written anew, nor into anything that isn't one.
func TestRewriteRefuses(t *testing.T) {
	t.Parallel()
	l := newLog(t, 600)
	data := l.whole(600, 0, 600)
	forged := func(change func(files []aFile)) []byte {
		files := unpack(t, data)
		change(files)
		return pack(remanifest(t, files))
	}
	for name, in := range map[string][]byte{
		"cut off":         data[:len(data)/2],
		"longer":          append(slices.Clone(data), 0),
		"a changed event": forged(func(f []aFile) { f[5].content = bytes.Replace(f[5].content, []byte(`"e1"`), []byte(`"e9"`), 1) }),
		"a changed entry": forged(func(f []aFile) { f[3].content[60] ^= 1 }),
		"a changed hash":  forged(func(f []aFile) { f[1].content[len(f[1].content)-9] ^= 1 }),
		"a changed file":  bytes.Replace(data, []byte(`"filter"`), []byte(`"filler"`), 1),
	} {
		if _, err := bundle.Rewrite(bytes.NewReader(in), io.Discard, l.trust(), same); !errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := bundle.Rewrite(bytes.NewReader(data), io.Discard, log.Trust{}, same); !errors.Is(err, log.ErrNotPinned) {
		t.Errorf("of nobody known: got %v", err)
	}
	neither := func(err error) bool {
		return err != nil && !errors.Is(err, log.ErrInvalidProof) && !errors.Is(err, log.ErrNotVerifiable)
	}
	for name, change := range map[string]bundle.Change{
		"another event": func(uint64, *log.Disclosure) (*log.Disclosure, error) { return l.disclosures[7], nil },
		"no form": func(_ uint64, d *log.Disclosure) (*log.Disclosure, error) {
			return &log.Disclosure{Previous: d.Previous}, nil
		},
		"a failure": func(uint64, *log.Disclosure) (*log.Disclosure, error) { return nil, io.ErrClosedPipe },
		"another time": func(_ uint64, d *log.Disclosure) (*log.Disclosure, error) {
			d.ReceivedAt++
			return d, nil
		},
	} {
		if _, err := bundle.Rewrite(bytes.NewReader(data), io.Discard, l.trust(), change); !neither(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// What fails beneath says nothing about the bundle.
	for _, n := range []int64{0, 100, int64(len(data)) / 2, int64(len(data)) - 1} {
		if _, err := bundle.Rewrite(bytes.NewReader(data), &full{n}, l.trust(), same); !errors.Is(err, io.ErrShortWrite) || !neither(err) {
			t.Errorf("a disk that is full after %d bytes: got %v", n, err)
		}
	}
	if _, err := bundle.Rewrite(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(data))), io.Discard, l.trust(), same); !neither(err) {
		t.Errorf("unreadable: got %v", err)
	}
}

// full is a writer that has room for n bytes.
type full struct{ n int64 }

func (f *full) Write(b []byte) (int, error) {
	if f.n -= int64(len(b)); f.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

// However large a bundle is, it takes no more memory than a part to write it anew.
func TestRewriteTakesConstantMemory(t *testing.T) {
	const parts = 60
	l := newLog(t, parts*bundle.PartEvents)
	data := l.whole(len(l.leaves), 0, len(l.leaves))
	var peak, base runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&base)
	seen := 0
	_, err := bundle.Rewrite(bytes.NewReader(data), io.Discard, l.trust(), func(_ uint64, d *log.Disclosure) (*log.Disclosure, error) {
		if seen++; seen%(5*bundle.PartEvents) == 0 {
			var now runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&now)
			peak.HeapAlloc = max(peak.HeapAlloc, now.HeapAlloc)
		}
		return d, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if grown := int64(peak.HeapAlloc) - int64(base.HeapAlloc); grown > int64(len(data))/8 {
		t.Errorf("it took %d bytes for a bundle of %d", grown, len(data))
	}
}

// removal appends an event of the server's own, and returns its index.
func (l *aLog) removal(id, action, metadata string) int {
	l.t.Helper()
	event, err := log.ParseEvent(fmt.Appendf(nil, `{"id":%q,"action":%q,"metadata":%s}`, id, action, metadata), log.ParseOptions{System: true})
	if err != nil {
		l.t.Fatal(err)
	}
	last := l.disclosures[len(l.disclosures)-1]
	d := &log.Disclosure{ReceivedAt: last.ReceivedAt + 1000, Previous: last.Entry().LeafHash(), Event: event, Seed: &[32]byte{byte(len(l.leaves)), 7}}
	l.disclosures, l.leaves = append(l.disclosures, d), append(l.leaves, d.Entry().LeafHash())
	return len(l.leaves) - 1
}

// proof returns the proof of an entry under the checkpoint of a size.
func (l *aLog) proof(index, size int) []byte {
	l.t.Helper()
	extra, err := l.disclosures[index].Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	return l.proofWith(index, size, extra)
}

// What a bundle doesn't show is told apart by the proofs that are in it: purged, erased, withheld, and not shown.
func TestBundlesTellWhatWasRemoved(t *testing.T) {
	t.Parallel()
	l := newLog(t, 30)
	purge := l.removal("treeline:purged:1", log.ActionPurged, `{"ranges":[[4,6],[9,10]]}`)
	erase := l.removal("treeline:erased:1", log.ActionErased, `{"erased":[{"pointers":["/actor/email"],"ranges":[[12,14],[20,21]]}]}`)
	size := len(l.leaves)
	gone := func(indices ...int) func(int, *log.Disclosure) *log.Disclosure {
		return func(i int, d *log.Disclosure) *log.Disclosure {
			if !slices.Contains(indices, i) {
				return d
			}
			digest := d.Entry().Digest
			return &log.Disclosure{ReceivedAt: d.ReceivedAt, Previous: d.Previous, Digest: &digest}
		}
	}
	hide := func(pointer string, indices ...int) func(int, *log.Disclosure) *log.Disclosure {
		return func(i int, d *log.Disclosure) *log.Disclosure {
			if d.Digest != nil || !slices.Contains(indices, i) {
				return d
			}
			out, err := d.Withhold(pointer)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	both := [][]byte{l.proof(purge, size), l.proof(erase, size)}
	s := bundle.Selection{From: 0, To: 30}
	purged, erased := gone(4, 5, 9), hide("/actor/email", 12, 13, 20)

	v, err := bundle.Verify(bytes.NewReader(l.withRemovals(size, s, both, all(0, 30), purged, erased)), l.trust())
	if err != nil || v.Purged != 3 || v.Erased != 3 || v.NotShown != 0 || v.Partial != 0 || len(v.Withheld) != 0 ||
		fmt.Sprint(v.ErasedClaims) != "[/actor/email]" || fmt.Sprint(v.RemovedBy) != "[{treeline:purged:1 30} {treeline:erased:1 31}]" {
		t.Errorf("all proven: got %+v, %v", v, err)
	}
	manifest := v.Manifest
	v, err = bundle.Verify(bytes.NewReader(l.withRemovals(size, s, both, all(0, 30), purged, hide("/metadata/plan", 3), hide("/actor/email", 13, 14))), l.trust())
	if err != nil || v.Erased != 1 || v.Partial != 2 || fmt.Sprint(v.Withheld) != "[/actor/email /metadata/plan]" || v.Manifest != manifest {
		t.Errorf("some withheld: got %+v, %v", v, err)
	}
	v, err = bundle.Verify(bytes.NewReader(l.withRemovals(size, s, both, all(0, 30), gone(4, 6))), l.trust())
	if !errors.Is(err, log.ErrNotShown) || v.Purged != 1 || v.NotShown != 1 {
		t.Errorf("one is gone that wasn't purged: got %+v, %v", v, err)
	}
	// The proofs may come from elsewhere, too.
	plain := l.bundle(size, s, all(0, 30), purged, erased)
	v, err = bundle.Verify(bytes.NewReader(plain), l.trust())
	if !errors.Is(err, log.ErrNotShown) || v.NotShown != 3 || v.Partial != 3 || v.Erased+v.Purged != 0 {
		t.Errorf("nothing proven: got %+v, %v", v, err)
	}
	trust := l.trust()
	trust.Removals = new(log.Removals)
	for _, proof := range both {
		if _, err := trust.Removals.Add(proof, trust); err != nil {
			t.Fatal(err)
		}
	}
	if v, err = bundle.Verify(bytes.NewReader(plain), trust); err != nil || v.Purged != 3 || v.Erased != 3 {
		t.Errorf("proven apart: got %+v, %v", v, err)
	}
	// They are written anew with the rest.
	var out bytes.Buffer
	if v, err = bundle.Rewrite(bytes.NewReader(l.withRemovals(size, s, both, all(0, 30), purged)), &out, l.trust(),
		without("/actor/email", func(i uint64) bool { return i == 12 })); err != nil || v.Erased != 1 || v.Manifest != manifest {
		t.Errorf("written anew: got %+v, %v", v, err)
	}

	for name, proofs := range map[string][][]byte{
		"of a client's event": {l.proof(3, size)},
		"no proof":            {[]byte("c2sp.org/tlog-proof@v1\n")},
		"changed":             {append(l.proof(purge, size), '\n')},
	} {
		if _, err := bundle.Verify(bytes.NewReader(l.withRemovals(size, s, proofs, all(0, 30))), l.trust()); !errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Without a key nothing is proven.
	v, err = bundle.Verify(bytes.NewReader(l.withRemovals(size, s, both, all(0, 30), purged, erased)), log.Trust{})
	if !errors.Is(err, log.ErrNotPinned) || !errors.Is(err, log.ErrNotShown) || v.Purged+v.Erased != 0 || v.NotShown != 3 {
		t.Errorf("without keys: got %+v, %v", v, err)
	}
}
