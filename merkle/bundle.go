package merkle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// MaxEntrySize is the length in bytes of the longest entry that a bundle can
// hold.
const MaxEntrySize = math.MaxUint16

// ErrEntrySize is the error, maybe wrapped, for an entry that is longer than
// [MaxEntrySize].
var ErrEntrySize = errors.New("entry is too long for a bundle")

// AppendBundle appends entry, in the encoding of an entry bundle, to dst and
// returns the extended slice. C2SP tlog-tiles: "Entry bundles are sequences of
// big-endian uint16 length-prefixed log entries."
//
// An entry longer than [MaxEntrySize] is an error wrapping [ErrEntrySize], and
// dst is returned as it was.
func AppendBundle(dst, entry []byte) ([]byte, error) {
	if len(entry) > MaxEntrySize {
		return dst, fmt.Errorf("%w: got %d bytes, want <= %d", ErrEntrySize, len(entry), MaxEntrySize)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(entry)))
	return append(dst, entry...), nil
}

// ParseBundle returns the entries of the entry bundle data, which must have
// exactly width of them, 1 to [TileWidth], and nothing after the last. The
// entries are parts of data, not copies.
func ParseBundle(data []byte, width int) ([][]byte, error) {
	if width < 1 || width > TileWidth {
		return nil, fmt.Errorf("entry bundle: width is %d, want 1 to %d", width, TileWidth)
	}
	entries := make([][]byte, 0, width)
	for i := range width {
		if len(data) < 2 {
			return nil, fmt.Errorf("entry bundle: got %d entries, want %d", i, width)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		if len(data) < end {
			return nil, fmt.Errorf("entry bundle: entry %d is cut off: got %d bytes, want %d", i, len(data)-2, end-2)
		}
		// The capacity ends with the entry, so that appending to one can't
		// overwrite the next.
		entries = append(entries, data[2:end:end])
		data = data[end:]
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("entry bundle: %d bytes after the last of %d entries", len(data), width)
	}
	return entries, nil
}
