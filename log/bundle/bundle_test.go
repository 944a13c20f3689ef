package bundle_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
	"github.com/treeline-log/treeline/merkle"
)

// Whatever events of whatever tree are in a bundle, it is VALID and says which they are.
func TestBundlesVerify(t *testing.T) {
	t.Parallel()
	const most = 1100 // two parts and some
	l := newLog(t, most)
	check := func(t testing.TB, size, from, to int, filter string, indices []int) {
		t.Helper()
		data := l.bundle(size, bundle.Selection{From: uint64(from), To: uint64(to), Filter: filter}, indices)
		v, err := bundle.Verify(bytes.NewReader(data), l.trust())
		if err != nil {
			t.Fatalf("%d of the events from %d to %d of %d: %v", len(indices), from, to, size, err)
		}
		if v.Checkpoint.Origin != origin || int(v.Checkpoint.Size) != size || v.Checkpoint.State != log.StateSigned || int(v.From) != from ||
			int(v.To) != to || v.Filter != filter || int(v.Count) != len(indices) || v.Complete != (len(indices) == to-from) {
			t.Errorf("%d of the events from %d to %d of %d: got %+v", len(indices), from, to, size, v)
		}
		if n := len(indices); n > 0 && (v.FirstReceived != began+int64(indices[0])*1000 || v.LastReceived != began+int64(indices[n-1])*1000) {
			t.Errorf("received from %d to %d", v.FirstReceived-began, v.LastReceived-began)
		}
		if again := l.bundle(size, v.Selection, indices); !bytes.Equal(again, data) {
			t.Error("the same events give other bytes")
		}
	}
	for _, size := range []int{0, 1, 2, 3, 7, 511, 512, 513, 1024, 1025, most} {
		check(t, size, 0, size, "", all(0, size))
		check(t, size, 0, size, "action=none", nil)
		check(t, size, size/3, size/2, "", all(size/3, size/2))
	}
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(1, most).Draw(rt, "size")
		from := rapid.IntRange(0, size).Draw(rt, "from")
		to := rapid.IntRange(from, size).Draw(rt, "to")
		keep := rapid.IntRange(0, 8).Draw(rt, "keep")
		indices := slices.DeleteFunc(all(from, to), func(i int) bool { return (i*i+i/3)%8 >= keep })
		check(t, size, from, to, "actor_id=u1", indices)
	})
}

// People look into bundles with what they have.
func TestBundlesAreZIPs(t *testing.T) {
	t.Parallel()
	l := newLog(t, 600)
	data := l.whole(600, 0, 600)
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	lines := 0
	for _, f := range z.File {
		names = append(names, f.Name)
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		if !strings.HasPrefix(f.Name, "events/") {
			continue
		}
		for line := range bytes.Lines(content) {
			var event struct {
				Index      int
				Disclosure struct{ Event struct{ ID string } }
			}
			if err := json.Unmarshal(line, &event); err != nil || event.Index != lines || event.Disclosure.Event.ID != fmt.Sprint("e", lines) {
				t.Fatalf("line %d: %s: %v", lines, line, err)
			}
			lines++
		}
	}
	want := "[README.txt checkpoint policy entries/000000.bin hashes/000000.bin events/000000.ndjson " +
		"entries/000001.bin hashes/000001.bin events/000001.ndjson manifest.json]"
	if fmt.Sprint(names) != want || lines != 600 {
		t.Errorf("got %v with %d events", names, lines)
	}
}

// What is withheld or erased changes neither the proof nor the manifest, and is told.
func TestBundlesWithParts(t *testing.T) {
	t.Parallel()
	l := newLog(t, 30)
	withhold := func(i int, d *log.Disclosure) *log.Disclosure {
		if i%2 == 0 {
			return d
		}
		out, err := d.Withhold("/actor/email", "/metadata/n")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	s := bundle.Selection{From: 3, To: 23}
	v, err := bundle.Verify(bytes.NewReader(l.whole(30, 3, 23)), l.trust())
	if err != nil {
		t.Fatal(err)
	}
	partial, err := bundle.Verify(bytes.NewReader(l.bundle(30, s, all(3, 23), withhold)), l.trust())
	if err != nil {
		t.Fatal(err)
	}
	if partial.Partial != 10 || fmt.Sprint(partial.Withheld) != "[/actor/email /metadata/n]" || partial.NotShown != 0 {
		t.Errorf("withheld: got %+v", partial)
	}
	if partial.Manifest != v.Manifest {
		t.Error("withholding changes the manifest")
	}
	remove := func(i int, d *log.Disclosure) *log.Disclosure {
		digest := d.Entry().Digest
		return &log.Disclosure{ReceivedAt: d.ReceivedAt, Previous: d.Previous, Digest: &digest}
	}
	gone, err := bundle.Verify(bytes.NewReader(l.bundle(30, s, all(3, 23), remove)), l.trust())
	if !errors.Is(err, log.ErrNotVerifiable) || !errors.Is(err, log.ErrNotShown) || gone.NotShown != 20 || gone.Manifest != v.Manifest {
		t.Errorf("with no content: got %+v, %v", gone, err)
	}
}

func TestBundlesOfNobodyKnown(t *testing.T) {
	t.Parallel()
	l := newLog(t, 9)
	data := l.whole(9, 0, 9)
	v, err := bundle.Verify(bytes.NewReader(data), log.Trust{})
	if !errors.Is(err, log.ErrNotVerifiable) || !errors.Is(err, log.ErrNotPinned) || v.Count != 9 {
		t.Errorf("without keys: got %+v, %v", v, err)
	}
	// A failing disk says nothing about the bundle.
	_, err = bundle.Verify(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(data))), l.trust())
	if !errors.Is(err, iotest.ErrTimeout) || errors.Is(err, log.ErrInvalidProof) || errors.Is(err, log.ErrNotVerifiable) {
		t.Errorf("unreadable: got %v", err)
	}
	if v, err := bundle.Verify(iotest.OneByteReader(bytes.NewReader(data)), l.trust()); err != nil || v.Count != 9 {
		t.Errorf("read slowly: got %+v, %v", v, err)
	}
}

// A store that is damaged gives no bundle.
func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	l := newLog(t, 20)
	ctx := context.Background()
	write := func(cover bundle.Cover, s bundle.Selection, indices ...int) error {
		w, err := bundle.NewWriter(io.Discard, l.note(10), l.policy(), cover)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range indices {
			if err := w.Add(ctx, uint64(i), l.disclosures[i]); err != nil {
				return err
			}
		}
		_, err = w.Close(ctx, s)
		return err
	}
	wrong := func(_ context.Context, from, to uint64) ([]merkle.Hash, error) {
		return make([]merkle.Hash, merkle.CoverSize(from, to)), nil
	}
	short := func(context.Context, uint64, uint64) ([]merkle.Hash, error) { return nil, nil }
	broken := func(context.Context, uint64, uint64) ([]merkle.Hash, error) { return nil, io.ErrClosedPipe }
	some := bundle.Selection{From: 0, To: 10, Filter: "action=a"}
	for name, err := range map[string]error{
		"wrong hashes":          write(wrong, some, 1, 5),
		"too few hashes":        write(short, some, 1, 5),
		"no hashes":             write(broken, some, 1, 5),
		"out of order":          write(l.cover, some, 5, 1),
		"the same twice":        write(l.cover, some, 5, 5),
		"beyond the checkpoint": write(l.cover, some, 5, 10),
		"not all":               write(l.cover, bundle.Selection{From: 0, To: 10}, 1, 2),
		"more than there are":   write(l.cover, bundle.Selection{From: 5, To: 5, Filter: "action=a"}, 4),
		"beyond the size":       write(l.cover, bundle.Selection{From: 0, To: 11, Filter: "action=a"}, 4),
		"another filter":        write(l.cover, bundle.Selection{From: 0, To: 10, Filter: "b=1&a=2"}, 4),
	} {
		if err == nil {
			t.Errorf("%s: a bundle was written", name)
		}
		if damaged := name == "wrong hashes"; damaged != errors.Is(err, log.ErrDamaged) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := write(l.cover, some, 1, 5); err != nil {
		t.Error(err)
	}
	if _, err := bundle.NewWriter(io.Discard, l.note(10), []byte("quorum none"), l.cover); err == nil {
		t.Error("a malformed policy was taken")
	}
}

// The manifest identifies a bundle.
func TestManifestHash(t *testing.T) {
	t.Parallel()
	l := newLog(t, 5)
	data := l.whole(5, 0, 5)
	v, err := bundle.Verify(bytes.NewReader(data), l.trust())
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, data)
	if got := sha256.Sum256(files[len(files)-1].content); got != v.Manifest {
		t.Errorf("got %x, want %x", v.Manifest, got)
	}
}
