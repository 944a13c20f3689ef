package log

import (
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// Formats of a payload at rest: its first byte.
const (
	payloadPlain = 0
	payloadZstd  = 1
	// 2 is reserved for encryption under a key of the log.
	payloadReduced = 3 // what erasure leaves of an event, see decodeReduced
)

// compressFrom is the size from which a payload is worth compressing. Below it zstd without a dictionary saves a third of
// the bytes and costs as much CPU as everything else that is done with the event.
const compressFrom = 1024

var (
	payloadEncoder = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(64<<10),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true)))
	payloadDecoder = must(zstd.NewReader(nil, zstd.WithDecoderMaxMemory(MaxEventSize), zstd.WithDecoderConcurrency(0)))
)

// must returns v, whose options are constants: an error is a mistake in them.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// encodePayload returns the form of a canonical event that is kept in a store.
func encodePayload(json []byte) []byte {
	if len(json) >= compressFrom {
		if out := payloadEncoder.EncodeAll(json, []byte{payloadZstd}); len(out) <= len(json) {
			return slices.Clip(out)
		}
	}
	return append([]byte{payloadPlain}, json...)
}

// decodePayload returns the canonical event in a stored payload.
func decodePayload(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("empty payload: %w", ErrDamaged)
	}
	switch data[0] {
	case payloadPlain:
		return data[1:], nil
	case payloadZstd:
		out, err := payloadDecoder.DecodeAll(data[1:], nil)
		if err != nil {
			return nil, fmt.Errorf("payload doesn't decompress: %v: %w", err, ErrDamaged)
		}
		return out, nil
	}
	return nil, fmt.Errorf("payload format %d is unknown: %w", data[0], ErrDamaged)
}
