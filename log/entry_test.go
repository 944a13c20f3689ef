package log_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := log.Entry{ReceivedAt: rapid.Int64Range(0, log.MaxReceivedAt).Draw(t, "received_at")}
		copy(e.Previous[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "previous"))
		copy(e.Digest[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
		b := e.Append(nil)
		if len(b) != log.EntrySize {
			t.Fatalf("got %d bytes, want %d", len(b), log.EntrySize)
		}
		got, err := log.ParseEntry(b)
		if err != nil || got != e {
			t.Fatalf("got %+v, %v, want %+v", got, err, e)
		}
		if got, want := e.LeafHash(), merkle.LeafHash(b); got != want {
			t.Fatalf("leaf hash: got %v, want %v", got, want)
		}
	})
}

func TestEntryLayout(t *testing.T) {
	e := log.Entry{ReceivedAt: 0x0102030405060, Previous: merkle.Hash{0xaa, 31: 0xab}, Digest: [32]byte{0xba, 31: 0xbb}}
	want := "01" + "0000102030405060" + "aa" + zeros(30) + "ab" + "ba" + zeros(30) + "bb"
	if got := hex.EncodeToString(e.Append(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func zeros(n int) string { return string(bytes.Repeat([]byte("00"), n)) }

func TestParseEntryRefuses(t *testing.T) {
	valid := log.Entry{ReceivedAt: 1}.Append(nil)
	change := func(fn func(b []byte)) []byte {
		b := bytes.Clone(valid)
		fn(b)
		return b
	}
	for _, tt := range []struct {
		name    string
		b       []byte
		unknown bool
	}{
		{"nothing", nil, false},
		{"one byte short", valid[:log.EntrySize-1], false},
		{"one byte long", append(bytes.Clone(valid), 0), false},
		{"received_at after the year 9999", change(func(b []byte) { b[1] = 0x04 }), false},
		{"received_at negative", change(func(b []byte) { b[1] = 0x80 }), false},
		{"version 0", change(func(b []byte) { b[0] = 0x00 }), true},
		{"version 2, a hub's", change(func(b []byte) { b[0] = 0x02 }), true},
		{"version 2 of another length", []byte{2, 3}, true},
		{"version 255", change(func(b []byte) { b[0] = 0xff }), true},
	} {
		_, err := log.ParseEntry(tt.b)
		if err == nil || errors.Is(err, log.ErrUnknownVersion) != tt.unknown {
			t.Errorf("%s: got error %v, want one that is ErrUnknownVersion: %t", tt.name, err, tt.unknown)
		}
	}
}

func TestMaxReceivedAtIsTheLastTimeOfRFC3339(t *testing.T) {
	want := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() - 1
	if log.MaxReceivedAt != want {
		t.Errorf("got %d, want %d", int64(log.MaxReceivedAt), want)
	}
}

func TestGenesisDependsOnTheOrigin(t *testing.T) {
	// printf 'treeline/log/v1\naudit.example.com/logs/acme\n' | sha256sum
	const want = "3ba908baaa3d3ad05af57d8aff9701d241bf59fb7a8760469d385c172811e3b3"
	if got := log.Genesis("audit.example.com/logs/acme").String(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if log.Genesis("audit.example.com/logs/acme") == log.Genesis("audit.example.com/logs/acme2") {
		t.Error("two logs begin with the same hash")
	}
}
