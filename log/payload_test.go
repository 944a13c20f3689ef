package log

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestPayloads(t *testing.T) {
	noise := make([]byte, 2000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for name, x := range map[string]struct {
		json   []byte
		format byte
	}{
		"empty":          {nil, payloadPlain},
		"small":          {[]byte(`{"action":"a","id":"1"}`), payloadPlain},
		"compressible":   {bytes.Repeat([]byte("abc"), 1000), payloadZstd},
		"incompressible": {noise, payloadPlain},
		"the largest":    {bytes.Repeat([]byte("x"), MaxEventSize), payloadZstd},
	} {
		data := encodePayload(x.json)
		if data[0] != x.format || len(data) > len(x.json)+1 {
			t.Errorf("%s: got format %d and %d bytes for %d, want format %d", name, data[0], len(data), len(x.json), x.format)
		}
		if got, err := decodePayload(data); err != nil || !bytes.Equal(got, x.json) {
			t.Errorf("%s: got %d bytes back, %v, want %d", name, len(got), err, len(x.json))
		}
	}
}

func TestDamagedPayloads(t *testing.T) {
	whole := encodePayload(bytes.Repeat([]byte("abcdef"), 500))
	bomb := payloadEncoder.EncodeAll(make([]byte, 64<<20), []byte{payloadZstd})
	for name, x := range map[string]struct {
		data []byte
		what string
	}{
		"nothing":             {nil, "empty payload"},
		"reserved":            {[]byte{2, 'x'}, "format 2 is unknown"},
		"unknown":             {[]byte{255}, "format 255 is unknown"},
		"cut off":             {whole[:len(whole)-3], "doesn't decompress"},
		"not compressed":      {[]byte("\x01{}"), "doesn't decompress"},
		"too large by far":    {bomb, "doesn't decompress"},
		"too large by a byte": {payloadEncoder.EncodeAll(make([]byte, MaxEventSize+1), []byte{payloadZstd}), "doesn't decompress"},
	} {
		got, err := decodePayload(x.data)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), x.what) {
			t.Errorf("%s: got %d bytes, %v, want ErrDamaged: %s", name, len(got), err, x.what)
		}
	}
}

func FuzzDecodePayload(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{payloadPlain})
	f.Add([]byte("\x00{\"action\":\"a\",\"id\":\"1\"}"))
	f.Add([]byte("\x02sealed"))
	f.Add(encodePayload(bytes.Repeat([]byte("abc"), 1000)))
	f.Add(payloadEncoder.EncodeAll(make([]byte, 1<<20), []byte{payloadZstd}))
	encoder, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoder.EncodeAll([]byte("another writer's frame"), []byte{payloadZstd}))
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		got, err := decodePayload(data)
		if !bytes.Equal(data, before) {
			t.Error("the payload was changed")
		}
		if err != nil {
			if !errors.Is(err, ErrDamaged) || got != nil {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			return
		}
		if data[0] == payloadZstd && len(got) > MaxEventSize {
			t.Errorf("got %d bytes, more than an event has", len(got))
		}
		if len(got) > MaxEventSize {
			return
		}
		if again, err := decodePayload(encodePayload(got)); err != nil || !bytes.Equal(again, got) {
			t.Errorf("encoded anew: got %d bytes, %v, want %d", len(again), err, len(got))
		}
	})
}
