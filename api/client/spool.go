package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	defaultMaxBytes = 256 << 20
	minMaxBytes     = 1 << 20
	maxSegmentBytes = 4 << 20 // after which a segment is followed by the next, so that it can be removed once it is settled
)

var (
	// ErrFull is what Record returns when the spool is full, and stayed so for as long as it was to wait. The event isn't recorded.
	ErrFull = errors.New("the spool is full")
	// ErrClosed is what Record returns after Close.
	ErrClosed = errors.New("the spool is closed")
)

// SpoolConfig says where a Spool keeps its events, and where it sends them.
type SpoolConfig struct {
	Client *Client
	// Dir is a folder of the spool's own, on a local disk. Only one process at a time can have it; its files are for its owner only.
	Dir string
	// MaxBytes bounds the files in Dir; 0: 256 MiB; at least 1 MiB.
	MaxBytes int64
	// BlockFor is how long Record waits for room when that is used up, before it returns ErrFull; 0: it doesn't wait.
	BlockFor time.Duration
	// SyncEvery is when events are forced to the disk: 0: before Record returns, one fsync for all that come together, so that a power
	// failure loses nothing that was recorded. Above 0: so often, and a power failure loses as much. A process that is killed loses
	// nothing in either case.
	SyncEvery time.Duration
	// OnError is told what goes wrong in the background: the first of several failures to send, every event that was rejected, and
	// damage that was found in the files. nil: it is written to the standard error. It mustn't block.
	OnError func(error)
}

// Spool is a queue of events in files. It takes events fast, and sends them in order in the background, under ids that they got
// when they came, until the server has stored them. It is safe for concurrent use: an event for which Record returned before another was
// recorded is before it in the log.
//
// An event that the server refuses for good is put aside in the file rejected.ndjson with the reason, and counted. What is put aside is
// yours to look at and to remove, and takes of MaxBytes until the spool is next opened without it. Everything else is sent again, also where a key was revoked or
// a log frozen: that can be mended, and the events be sent then.
//
// Its use of memory is bounded by one batch, some MiB, however many events wait.
type Spool struct {
	client       *Client
	dir          string
	maxBytes     int64
	segmentBytes int64
	blockFor     time.Duration
	syncEvery    time.Duration
	onError      func(error)
	lock         *os.File
	stop         context.CancelFunc
	background   sync.WaitGroup

	syncing sync.Mutex // held while files are forced to the disk; taken before mu

	mu       sync.Mutex
	changed  chan struct{} // closed, and replaced, when anything below changes
	segments []*segment    // oldest first
	file     *os.File      // of the last segment, for writing; nil: the next event begins one
	last     uint64        // number of the last segment
	bytes    int64         // of all segments, and of what was put aside
	written  uint64        // events that were found or recorded
	settled  uint64        // events of these that were sent or rejected
	synced   uint64        // events of these that are known to be on the disk, but for those in doubt
	doubt    struct {      // events that a failure to sync was about
		from, to uint64
		err      error
	}
	closed bool
	stats  Stats
}

// Stats are a spool's counters since it was opened. They have a JSON form, for expvar.Func.
type Stats struct {
	Recovered  uint64 `json:"recovered"`  // events that were there when it was opened
	Recorded   uint64 `json:"recorded"`   // events that Record took
	Sent       uint64 `json:"sent"`       // events that the server has stored
	Duplicates uint64 `json:"duplicates"` // events of these that it had stored before: their first answer was lost
	Rejected   uint64 `json:"rejected"`   // events that the server refused for good
	Dropped    uint64 `json:"dropped"`    // events that Record did not take: the spool or the disk was full
	Retries    uint64 `json:"retries"`    // failures to send a batch, after which it was sent again
	Damaged    int64  `json:"damaged"`    // bytes that were found and are no events
	Pending    uint64 `json:"pending"`    // events that are still to be sent
	Bytes      int64  `json:"bytes"`      // of the files
	LastError  string `json:"last_error"` // the newest failure to send; "" after a success
}

// OpenSpool opens a spool, making its folder if there is none, and begins to send what an earlier process left behind.
func OpenSpool(c SpoolConfig) (*Spool, error) {
	if c.Client == nil {
		return nil, errors.New("spool: no client")
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.MaxBytes < minMaxBytes {
		return nil, fmt.Errorf("spool: at most %d bytes, want at least %d", c.MaxBytes, minMaxBytes)
	}
	if c.OnError == nil {
		c.OnError = func(err error) { fmt.Fprintln(os.Stderr, "treeline:", err) }
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	lock, err := lockFile(filepath.Join(c.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("spool: %s is in use by another process: %w", c.Dir, err)
	}
	s := &Spool{
		client: c.Client, dir: c.Dir, maxBytes: c.MaxBytes, segmentBytes: min(maxSegmentBytes, c.MaxBytes/8),
		blockFor: c.BlockFor, syncEvery: c.SyncEvery, onError: c.OnError, lock: lock, changed: make(chan struct{}),
	}
	if err := s.recover(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("spool: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.background.Go(func() { s.send(ctx) })
	if s.syncEvery > 0 {
		s.background.Go(func() { s.keepSyncing(ctx) })
	}
	return s, nil
}

// recover reads what an earlier process left behind. New events go into a new segment.
func (s *Spool) recover() error {
	all, err := listSegments(s.dir)
	if err != nil {
		return err
	}
	number, settled := readPosition(s.dir)
	s.last = number
	for _, seg := range all {
		s.last = max(s.last, seg.number)
		if seg.number < number {
			if err := os.Remove(seg.path); err != nil {
				return err
			}
			continue
		}
		from := int64(0)
		if seg.number == number {
			from = settled
		}
		events, damaged, err := seg.scan(from)
		if err != nil {
			return err
		}
		if damaged > 0 {
			s.stats.Damaged += damaged
			s.onError(fmt.Errorf("spool: %d bytes at the end of %s are no events; they are kept in %s", damaged, seg.path, seg.path+damagedExt))
		}
		s.segments = append(s.segments, seg)
		s.bytes += seg.size
		s.written += events
	}
	aside, err := filepath.Glob(filepath.Join(s.dir, "*"+damagedExt))
	if err != nil {
		return err
	}
	for _, path := range append(aside, filepath.Join(s.dir, rejectedFile)) {
		if info, err := os.Stat(path); err == nil {
			s.bytes += info.Size()
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	s.stats.Recovered, s.synced = s.written, s.written
	s.reap()
	return nil
}

// Record takes an event: when it returns nil the event is in a file, on the disk if SyncEvery is 0, and is going to be sent. It gives
// an event without an id one, and the time.
//
// ErrFull, and errors of the file system before the event is there, mean that it is not recorded; they are counted in Stats.Dropped.
// After an error of fsync it may be recorded or not.
func (s *Spool) Record(ctx context.Context, e Event) error {
	data, err := prepare(&e, time.Now())
	if err != nil {
		return err
	}
	n, err := s.write(ctx, frameOf(data))
	if err != nil {
		return fmt.Errorf("event %s is not recorded: %w", e.ID, err)
	}
	if s.syncEvery > 0 {
		return nil
	}
	if err := s.sync(n); err != nil {
		return fmt.Errorf("event %s may not be on the disk: %w", e.ID, err)
	}
	return nil
}

// write appends a frame, and returns how many events there are with it.
func (s *Spool) write(ctx context.Context, frame []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.waitForRoom(ctx, int64(len(frame))); err != nil {
		if !errors.Is(err, ErrClosed) {
			s.stats.Dropped++
		}
		return 0, err
	}
	if err := s.append(frame); err != nil {
		s.stats.Dropped++
		return 0, err
	}
	s.written++
	s.stats.Recorded++
	s.notify()
	return s.written, nil
}

// waitForRoom waits until n bytes more are allowed. mu is held, but not while it waits.
func (s *Spool) waitForRoom(ctx context.Context, n int64) error {
	var until time.Time
	for {
		switch {
		case s.closed:
			return ErrClosed
		case s.bytes+n <= s.maxBytes:
			return nil
		case until.IsZero():
			until = time.Now().Add(s.blockFor)
		}
		left := time.Until(until)
		if left <= 0 {
			return ErrFull
		}
		changed := s.changed
		s.mu.Unlock()
		timer := time.NewTimer(left)
		var err error
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			err = fmt.Errorf("%w, and %w", ErrFull, context.Cause(ctx))
		}
		timer.Stop()
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
}

// append writes a frame to the last segment, or to a new one. mu is held.
func (s *Spool) append(frame []byte) error {
	if s.file != nil && s.segments[len(s.segments)-1].size+int64(len(frame)) > s.segmentBytes {
		// The last events of it may still wait to be on the disk.
		s.noteSync(s.written, s.file.Sync())
		s.endSegment()
	}
	if s.file == nil {
		seg, f, err := createSegment(s.dir, s.last+1)
		if err != nil {
			return err
		}
		s.last, s.file = seg.number, f
		s.segments = append(s.segments, seg)
		s.reap()
	}
	seg := s.segments[len(s.segments)-1]
	if _, err := s.file.Write(frame); err != nil {
		// Nothing may come after a part of a frame.
		if s.file.Truncate(seg.size) != nil {
			s.noteSync(s.written, s.file.Sync())
			s.endSegment()
		}
		return err
	}
	seg.size += int64(len(frame))
	s.bytes += int64(len(frame))
	return nil
}

// endSegment makes the next event begin a segment. mu is held.
func (s *Spool) endSegment() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// sync returns when the first n events are on the disk. Of those who wait together one does it for all.
func (s *Spool) sync(n uint64) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.synced < n {
		f, written := s.file, s.written
		s.mu.Unlock()
		err := f.Sync()
		s.mu.Lock()
		if f == s.file { // else it was ended meanwhile, and this noted
			s.noteSync(written, err)
		}
	}
	if s.doubt.from < n && n <= s.doubt.to {
		return s.doubt.err
	}
	return nil
}

// noteSync notes that the first n events were forced to the disk, or that this failed: then they are in doubt, and as what a later
// fsync of the same file says means nothing for them, the next event begins a new one. mu is held.
func (s *Spool) noteSync(n uint64, err error) {
	if err != nil && s.synced < n {
		if s.doubt.err == nil {
			s.doubt.from = s.synced
		}
		s.doubt.to, s.doubt.err = s.written, err
		n = s.written
		s.endSegment()
	}
	s.synced = max(s.synced, n)
}

// keepSyncing forces events to the disk every so often.
func (s *Spool) keepSyncing(ctx context.Context) {
	for failed := false; sleep(ctx, s.syncEvery) == nil; {
		s.mu.Lock()
		n, behind := s.written, s.synced < s.written
		s.mu.Unlock()
		if !behind {
			continue
		}
		err := s.sync(n)
		if err != nil && !failed {
			s.onError(fmt.Errorf("spool: events may not be on the disk: %w", err))
		}
		failed = err != nil
	}
}

// reap removes the segments that are settled, but for the one that is being written. mu is held.
func (s *Spool) reap() {
	for len(s.segments) > 0 {
		seg := s.segments[0]
		if seg.settled < seg.size || s.file != nil && len(s.segments) == 1 {
			return
		}
		if err := os.Remove(seg.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return // tried again with the next; the position says that it is settled
		}
		s.bytes -= seg.size
		s.segments = s.segments[1:]
	}
}

// notify wakes all who wait for a change. mu is held.
func (s *Spool) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Stats returns the counters.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Pending, stats.Bytes = s.written-s.settled, s.bytes
	return stats
}

// Flush waits until all events that were recorded before are sent or rejected.
func (s *Spool) Flush(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := s.written; s.settled < n; {
		changed := s.changed
		s.mu.Unlock()
		var err error
		select {
		case <-changed:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		s.mu.Lock()
		if err != nil {
			return fmt.Errorf("%d events are not sent yet, %w; last: %s", s.written-s.settled, err, s.stats.LastError)
		}
	}
	return nil
}

// Close takes no more events, waits until all are sent or the context ends, and lets go of the folder. An error says how many events
// are left there; they are sent when it is opened again.
func (s *Spool) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	s.notify()
	s.mu.Unlock()
	err := s.Flush(ctx)
	s.stop()
	s.background.Wait()
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		failed := s.file.Sync()
		s.noteSync(s.written, failed) // for those who still wait in Record
		s.endSegment()
		err = errors.Join(err, failed)
	}
	s.reap()
	return errors.Join(err, s.lock.Close())
}
