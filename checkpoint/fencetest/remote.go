package fencetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
)

// A Server is a fence's server: the test's own, running, and with an empty fence.
type Server interface {
	// Addr returns its address, which stays the same.
	Addr() string

	// Open opens the fence at the address, which is the server's or that of a [Proxy] before it.
	Open(t *testing.T, addr string) checkpoint.Fence

	// Kill ends the server at once, and Start starts it again.
	Kill(t *testing.T)
	Start(t *testing.T)
}

// patience is how long a call may take in all, whatever the network does.
const patience = 15 * time.Second

// RunRemote runs the tests of what a network does to a fence. Each of them has a new server.
func RunRemote(t *testing.T, newServer func(t *testing.T) Server) {
	for _, test := range []struct {
		name string
		fn   func(t *testing.T, s Server)
	}{
		{"a lost answer is an error, and what happened is read again", testLost},
		{"a server that is gone is an error, and no empty fence", testKilled},
		{"a publisher goes on after lost answers", testPublisherLost},
	} {
		t.Run(test.name, func(t *testing.T) { test.fn(t, newServer(t)) })
	}
}

func testLost(t *testing.T, s Server) {
	proxy := NewProxy(t, s.Addr())
	f, direct := s.Open(t, proxy.Addr), s.Open(t, s.Addr())
	var old []byte
	for i, test := range []struct {
		name    string
		fault   Fault
		applied bool
	}{
		{"creating, the request", LoseRequest, false},
		{"creating, the answer", LoseAnswer, true},
		{"moving, the request", LoseRequest, false},
		{"moving, the answer", LoseAnswer, true},
		{"moving, a server that is silent", HoldAnswer, true},
	} {
		new := Note(t, Origin, uint64(i)+1, "honest")
		proxy.Fail(new, test.fault)
		start := time.Now()
		// Nothing that was changed may be told to be unchanged, as ErrFenceMoved does.
		if err := f.Swap(t.Context(), Origin, old, new); err == nil || errors.Is(err, checkpoint.ErrFenceMoved) {
			t.Errorf("%s: Swap = %v, want another error", test.name, err)
		}
		if d := time.Since(start); d > patience {
			t.Errorf("%s: Swap took %v", test.name, d)
		}
		if !proxy.Failed() {
			t.Fatalf("%s: the request never came", test.name)
		}
		want := old
		if test.applied {
			want = new
		}
		mustHold(t, f, Origin, want)
		mustHold(t, direct, Origin, want)
		old = want
	}
}

func testKilled(t *testing.T, s Server) {
	f := s.Open(t, s.Addr())
	notes := notes(t, 3)
	mustSwap(t, f, Origin, nil, notes[1])
	s.Kill(t)
	start := time.Now()
	if got, err := f.Load(t.Context(), Origin); err == nil {
		t.Errorf("Load = %q", got)
	}
	if err := f.Swap(t.Context(), Origin, notes[1], notes[2]); err == nil || errors.Is(err, checkpoint.ErrFenceMoved) {
		t.Errorf("Swap = %v", err)
	}
	if got, err := f.Origins(t.Context()); err == nil {
		t.Errorf("Origins = %q", got)
	}
	if err := f.Drop(t.Context(), Origin); err == nil {
		t.Error("dropped where nobody is")
	}
	if d := time.Since(start); d > 4*patience {
		t.Errorf("four calls took %v", d)
	}
	s.Start(t)
	mustHold(t, f, Origin, notes[1])
	mustSwap(t, f, Origin, notes[1], notes[2])
	mustHold(t, s.Open(t, s.Addr()), Origin, notes[2])

	// A swap after a restart that nobody has noticed may fail, but tells nothing wrong.
	s.Kill(t)
	s.Start(t)
	next := Note(t, Origin, 9, "honest")
	if err := f.Swap(t.Context(), Origin, notes[2], next); errors.Is(err, checkpoint.ErrFenceMoved) {
		t.Errorf("Swap = %v", err)
	} else if err != nil {
		mustHold(t, f, Origin, notes[2])
	} else {
		mustHold(t, f, Origin, next)
	}
}

func testPublisherLost(t *testing.T, s Server) {
	proxy := NewProxy(t, s.Addr())
	src := newSource(t, s.Open(t, s.Addr()))
	f := s.Open(t, proxy.Addr)
	for _, fault := range []Fault{LoseRequest, LoseAnswer} {
		for _, restarted := range []bool{false, true} {
			publisher := src.publisher(f)
			if err := publisher.Birth(t.Context()); err != nil {
				t.Fatal(err)
			}
			src.grow(3)
			released := src.released
			// The signed note is what no other request has in it.
			next, root, err := src.Head(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			text := checkpoint.Checkpoint{Origin: Origin, Size: next, Root: root}.Text()
			proxy.Fail([]byte(text), fault)
			if c, err := publisher.Publish(t.Context()); err == nil || !proxy.Failed() {
				t.Fatalf("Publish = %v, %v, with its answer lost", c, err)
			}
			if src.released != released {
				t.Errorf("released %d before it was known to be fenced", src.released)
			}
			if restarted {
				publisher = src.publisher(f)
			}
			if c, err := publisher.Publish(t.Context()); err != nil || c.Size != next || src.released != next {
				t.Errorf("afterwards: Publish = %v, %v, released %d, want %d", c, err, src.released, next)
			}
		}
	}
}
