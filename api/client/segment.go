package client

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A spool's folder has these files:
//
//	<16 hex digits>.v1.spool   segments, in the order of their numbers: frames of one event each, appended and never changed
//	position                   what of the oldest segment is settled
//	rejected.ndjson            events that the server has refused for good, and why
//	<segment>.damaged          what was found in a segment that isn't frames
//	lock                       held while a process has the spool
//
// A frame is u32(length) ‖ u32(CRC-32C of the four bytes of the length and the event) ‖ the event's JSON, big-endian. The checksum
// covers the length, so that a stretch of zeros is no frame.
const (
	segmentExt   = ".v1.spool"
	damagedExt   = ".damaged"
	frameHeader  = 8
	positionFile = "position"
	rejectedFile = "rejected.ndjson"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(length, event []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, event)
}

// frameOf returns the frame of an event.
func frameOf(event []byte) []byte {
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, frameHeader+len(event)), uint32(len(event)))
	frame = binary.BigEndian.AppendUint32(frame, checksum(frame, event))
	return append(frame, event...)
}

var (
	errTorn    = errors.New("a frame ends too early")
	errDamaged = errors.New("not a frame")
)

// readFrame reads an event from its frame: io.EOF where there is none, errTorn where only its beginning is there, errDamaged where
// something else is.
func readFrame(r io.Reader) ([]byte, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errTorn
	} else if err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(header[:4])
	if n == 0 || n > maxEvent {
		return nil, errDamaged
	}
	event := make([]byte, n)
	if _, err := io.ReadFull(r, event); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errTorn
	} else if err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(header[4:]) != checksum(header[:4], event) {
		return nil, errDamaged
	}
	return event, nil
}

// segment is a file of frames.
type segment struct {
	path    string
	number  uint64
	size    int64 // bytes of whole frames
	settled int64 // bytes of frames at its beginning that need not be sent any more
}

// createSegment makes the file of a new segment, and makes sure that it is still there after a power failure.
func createSegment(dir string, number uint64) (*segment, *os.File, error) {
	s := &segment{path: filepath.Join(dir, fmt.Sprintf("%016x%s", number, segmentExt)), number: number}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := syncDir(dir); err != nil {
		f.Close()
		os.Remove(s.path)
		return nil, nil, err
	}
	return s, f, nil
}

// listSegments returns the segments in a folder in order, not yet scanned.
func listSegments(dir string) ([]*segment, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentExt))
	if err != nil {
		return nil, err
	}
	var out []*segment
	for _, path := range names {
		text := strings.TrimSuffix(filepath.Base(path), segmentExt)
		number, err := strconv.ParseUint(text, 16, 64)
		if err != nil || fmt.Sprintf("%016x", number) != text {
			return nil, fmt.Errorf("%s is not a segment", path)
		}
		out = append(out, &segment{path: path, number: number})
	}
	slices.SortFunc(out, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	return out, nil
}

// scan finds how far a segment that an earlier process has left behind is whole, and counts the events after the first from bytes,
// which are settled if they end where a frame does. What is not whole is cut off. It is an event whose Record never returned if it is
// a last frame that ends too early, see isTorn; anything else is kept in a file beside, and its bytes returned as damaged.
func (s *segment) scan(from int64) (events uint64, damaged int64, err error) {
	f, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		event, err := readFrame(r)
		if err == nil {
			s.size += frameHeader + int64(len(event))
			events++
			if s.size == from {
				s.settled, events = from, 0
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return events, 0, nil
		}
		if !errors.Is(err, errTorn) && !errors.Is(err, errDamaged) {
			return 0, 0, err
		}
		torn := errors.Is(err, errTorn)
		if torn {
			if torn, err = s.isTorn(f); err != nil {
				return 0, 0, err
			}
		}
		if !torn {
			if damaged, err = s.keepRest(f); err != nil {
				return 0, 0, err
			}
		}
		if err := f.Truncate(s.size); err != nil {
			return 0, 0, err
		}
		return events, damaged, f.Sync()
	}
}

// isTorn reports whether what is after the whole frames is nothing but the beginning of one, and not a frame whose length is damaged, so
// that it seems to end behind the file: then the event in it is whole, or frames follow.
func (s *segment) isTorn(f *os.File) (bool, error) {
	rest, err := io.ReadAll(io.NewSectionReader(f, s.size, frameHeader+maxEvent))
	if err != nil || len(rest) > frameHeader && json.Valid(rest[frameHeader:]) {
		return false, err
	}
	for i := 1; i < len(rest); i++ {
		if _, err := readFrame(bytes.NewReader(rest[i:])); err == nil {
			return false, nil
		}
	}
	return true, nil
}

// keepRest copies what is after the whole frames to a file beside the segment.
func (s *segment) keepRest(f *os.File) (int64, error) {
	if _, err := f.Seek(s.size, io.SeekStart); err != nil {
		return 0, err
	}
	out, err := os.OpenFile(s.path+damagedExt, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, f)
	return n, errors.Join(err, out.Sync(), out.Close())
}

// spooled is an event as it is in a segment.
type spooled struct {
	id   string
	data []byte
}

// read returns the next events to send, up to a number and bytes of them but at least one, and none twice: a batch may hold an id
// only once. It also returns where they end.
func (s *segment) read(size int64, most, mostBytes int) (events []spooled, end int64, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	r := bufio.NewReader(io.NewSectionReader(f, s.settled, size-s.settled))
	end = s.settled
	bytes, ids := 0, make(map[string]bool)
	for len(events) < most && bytes < mostBytes {
		data, err := readFrame(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%s at byte %d: %w", s.path, end, err)
		}
		var e struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(data, &e); err != nil {
			return nil, 0, fmt.Errorf("%s at byte %d: %w", s.path, end, err)
		}
		if ids[e.ID] {
			break
		}
		ids[e.ID] = true
		events = append(events, spooled{e.ID, data})
		bytes += len(data)
		end += frameHeader + int64(len(data))
	}
	return events, end, nil
}

// readPosition returns the number of the oldest segment that isn't settled, and how many bytes of it are. Without a file that says so
// nothing is: events are sent again then, under the same ids, which does no harm.
func readPosition(dir string) (number uint64, settled int64) {
	data, err := os.ReadFile(filepath.Join(dir, positionFile))
	if err != nil {
		return 0, 0
	}
	var n uint64
	var at int64
	if _, err := fmt.Sscanf(string(data), "%x %d\n", &n, &at); err != nil || !bytes.Equal(data, position(n, at)) {
		return 0, 0
	}
	return n, at
}

func position(number uint64, settled int64) []byte {
	return fmt.Appendf(nil, "%016x %d\n", number, settled)
}

// writePosition replaces the position. It is never removed, since numbers of segments go up from it.
func writePosition(dir string, number uint64, settled int64) error {
	path := filepath.Join(dir, positionFile)
	if err := os.WriteFile(path+".new", position(number, settled), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
