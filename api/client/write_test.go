package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nowhere is a client of a server that is never there.
func nowhere(t *testing.T) *Client {
	t.Helper()
	c, err := New(Config{Server: "http://treeline.example", Key: "k", HTTP: &http.Client{Transport: unreachable{}}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }

// readAll reads all events of all segments in a folder, none of which may hold anything else.
func readAll(t *testing.T, dir string) (actions []string) {
	t.Helper()
	all, err := listSegments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if _, damaged, err := s.scan(0); err != nil || damaged > 0 {
			t.Fatalf("%s: %d bytes are damaged, %v", s.path, damaged, err)
		}
		s.settled = 0
		events, _, err := s.read(s.size, 1<<30, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			_, action, _ := strings.Cut(string(e.data), `"action":"`)
			action, _, _ = strings.Cut(action, `"`)
			actions = append(actions, action)
		}
	}
	return actions
}

// A write that fails, or an fsync, is told to whoever recorded, and what comes after it is as safe as before.
func TestAFailingDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := OpenSpool(SpoolConfig{Client: nowhere(t), Dir: dir, OnError: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	record := func(action string) error { return s.Record(t.Context(), Event{Action: action}) }
	fail := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.file.Close() // whoever writes to it, or syncs it, is told so
	}
	if err := record("a"); err != nil {
		t.Fatal(err)
	}
	fail()
	if err := record("b"); err == nil || !strings.Contains(err.Error(), "is not recorded") {
		t.Errorf("got %v", err)
	}
	if err := record("c"); err != nil {
		t.Error(err)
	}
	n, err := s.write(t.Context(), frameOf([]byte(`{"id":"d","action":"d"}`)))
	if err != nil {
		t.Fatal(err)
	}
	fail()
	if err := s.sync(n); err == nil {
		t.Error("an fsync that failed is not told")
	}
	if err := s.sync(n); err == nil {
		t.Error("an fsync that failed is told only to the first who waits for it")
	}
	if err := record("e"); err != nil {
		t.Error(err)
	}
	got := s.Stats()
	if got.Recorded != 4 || got.Dropped != 1 || got.Pending != 4 {
		t.Errorf("got %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); err == nil {
		t.Error("sent to nowhere")
	}
	if got := strings.Join(readAll(t, dir), " "); got != "a c d e" {
		t.Errorf("on the disk are %q", got)
	}
}

// Between two segments nothing is lost to those who wait for the disk.
func TestSyncAcrossSegments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := OpenSpool(SpoolConfig{Client: nowhere(t), Dir: dir, MaxBytes: minMaxBytes, OnError: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	const writers, each = 8, 30
	for range writers {
		go func() {
			var err error
			for i := 0; i < each && err == nil; i++ {
				err = s.Record(t.Context(), Event{Action: "a", Metadata: map[string]any{"x": strings.Repeat("x", 3000)}})
			}
			done <- err
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Close(ctx) // there is nobody to send to
	all, err := filepath.Glob(filepath.Join(dir, "*"+segmentExt))
	if err != nil || len(all) < 5 {
		t.Errorf("got %v, %v, want several segments", all, err)
	}
	if got := len(readAll(t, dir)); got != writers*each {
		t.Errorf("got %d events, want %d", got, writers*each)
	}
}

// Whoever waits for an event of a segment that has ended looks at the next one.
func TestASegmentIsForcedToTheDiskAsItEnds(t *testing.T) {
	t.Parallel()
	s, err := OpenSpool(SpoolConfig{Client: nowhere(t), Dir: t.TempDir(), MaxBytes: minMaxBytes, OnError: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	var before uint64
	for s.last < 2 {
		before = s.written
		event := fmt.Sprintf(`{"id":"%d","action":"a","metadata":{"x":%q}}`, before, strings.Repeat("x", 50_000))
		if _, err := s.write(t.Context(), frameOf([]byte(event))); err != nil {
			t.Fatal(err)
		}
	}
	if s.synced != before {
		t.Errorf("%d events are known to be on the disk, want the %d of the segment that has ended", s.synced, before)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Close(ctx) // there is nobody to send to
}

// Close forces to the disk also what a Record waits for that came before it.
func TestClosingBesideARecord(t *testing.T) {
	t.Parallel()
	s, err := OpenSpool(SpoolConfig{Client: nowhere(t), Dir: t.TempDir(), MaxBytes: minMaxBytes, OnError: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.write(t.Context(), frameOf([]byte(`{"id":"a","action":"a"}`)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Close(ctx) // there is nobody to send to
	if err := s.sync(n); err != nil {
		t.Errorf("an event that is on the disk: got %v", err)
	}
}

func TestNewIDs(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(0x0123456789ab)
	a, b := newID(at), newID(at)
	if a == b || !strings.HasPrefix(a, "01234567-89ab-7") || len(a) != 36 || !strings.Contains("89ab", a[19:20]) {
		t.Errorf("got %s and %s", a, b)
	}
}

func TestFilesAreForTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "spool")
	s, err := OpenSpool(SpoolConfig{Client: nowhere(t), Dir: dir, OnError: func(error) {}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Record(t.Context(), Event{Action: "a"}); err != nil {
		t.Fatal(err)
	}
	err = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Close(ctx) // there is nobody to send to
}
