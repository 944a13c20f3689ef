package merkle_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/merkle"
)

func TestAppendBundle(t *testing.T) {
	bundle := []byte("before")
	for _, entry := range []string{"abc", "", "de"} {
		var err error
		if bundle, err = merkle.AppendBundle(bundle, []byte(entry)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := string(bundle), "before\x00\x03abc\x00\x00\x00\x02de"; got != want {
		t.Errorf("bundle = %q, want %q", got, want)
	}
}

func TestAppendBundleRefusesLongEntries(t *testing.T) {
	if _, err := merkle.AppendBundle(nil, make([]byte, 65535)); err != nil {
		t.Errorf("entry of 65535 bytes: %v", err)
	}
	got, err := merkle.AppendBundle([]byte("before"), make([]byte, 65536))
	if !errors.Is(err, merkle.ErrEntrySize) {
		t.Errorf("entry of 65536 bytes: got error %v, want ErrEntrySize", err)
	}
	if string(got) != "before" {
		t.Errorf("entry of 65536 bytes: the bundle is %d bytes long, want it unchanged", len(got))
	}
}

func TestParseBundle(t *testing.T) {
	entries, err := merkle.ParseBundle([]byte("\x00\x03abc\x00\x00\x00\x02de"), 3)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]byte{[]byte("abc"), {}, []byte("de")}
	if !slices.EqualFunc(entries, want, bytes.Equal) {
		t.Errorf("entries = %q, want %q", entries, want)
	}
	_ = append(entries[0], "------"...) // as many bytes as follow in the bundle
	if !slices.EqualFunc(entries, want, bytes.Equal) {
		t.Errorf("after appending to one, entries = %q, want %q", entries, want)
	}
}

func TestParseBundleErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		data  string
		width int
	}{
		{"nothing", "", 1},
		{"half a length", "\x00", 1},
		{"length without entry", "\x00\x01", 1},
		{"entry cut off", "\x00\x03ab", 1},
		{"longest length, no entry", "\xff\xff", 1},
		{"too few", "\x00\x01a", 2},
		{"second cut off", "\x00\x01a\x00\x01", 2},
		{"too many", "\x00\x01a\x00\x01b", 1},
		{"a byte too many", "\x00\x01a\x00", 1},
		{"width 0", "", 0},
		{"width 0 of something", "\x00\x01a", 0},
		{"width negative", "", -1},
		{"width 257", string(make([]byte, 2*257)), 257},
	} {
		if entries, err := merkle.ParseBundle([]byte(tt.data), tt.width); err == nil || entries != nil {
			t.Errorf("%s: ParseBundle = %q, %v, want an error", tt.name, entries, err)
		}
	}
}

func TestBundleRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 256).Draw(t, "entries")
		bundle := encodeBundle(t, entries)
		got, err := merkle.ParseBundle(bundle, len(entries))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got, entries, bytes.Equal) {
			t.Errorf("entries = %q, want %q", got, entries)
		}
		for _, width := range []int{len(entries) - 1, len(entries) + 1} {
			if _, err := merkle.ParseBundle(bundle, width); err == nil {
				t.Errorf("a bundle of %d was taken for one of %d", len(entries), width)
			}
		}
	})
}

func encodeBundle(t interface{ Fatal(...any) }, entries [][]byte) []byte {
	var bundle []byte
	for _, entry := range entries {
		var err error
		if bundle, err = merkle.AppendBundle(bundle, entry); err != nil {
			t.Fatal(err)
		}
	}
	return bundle
}

// A bundle that parses is what its entries encode to, so there is one bundle
// for a list of entries.
func FuzzParseBundle(f *testing.F) {
	f.Add([]byte("\x00\x03abc\x00\x00\x00\x02de"), 3)
	f.Fuzz(func(t *testing.T, data []byte, width int) {
		entries, err := merkle.ParseBundle(data, width)
		if err != nil {
			return
		}
		if got := len(entries); got != width || width < 1 || width > merkle.TileWidth {
			t.Errorf("got %d entries for a width of %d", got, width)
		}
		if got := encodeBundle(t, entries); !bytes.Equal(got, data) {
			t.Errorf("%x parsed and encoded is %x", data, got)
		}
	})
}
