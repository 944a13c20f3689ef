package log

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

func TestWaitingForProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p progress
		sequenced := func(n uint64) func(Sizes) bool { return func(s Sizes) bool { return s.Size >= n } }
		signed := func(n uint64) func(Sizes) bool { return func(s Sizes) bool { return s.Signed >= n } }
		done := make(map[string]error)
		wait := func(name string, reached func(Sizes) bool, most time.Duration) {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), most)
				defer cancel()
				err := p.wait(ctx, reached)
				p.mu.Lock()
				defer p.mu.Unlock()
				done[name] = err
			}()
		}
		expect := func(names ...string) {
			t.Helper()
			synctest.Wait()
			if len(done) != len(names) {
				t.Errorf("returned: got %v, want %v", done, names)
			}
			for _, name := range names {
				if err, ok := done[name]; !ok || err != nil {
					t.Errorf("%s: got %v, %v", name, ok, err)
				}
			}
		}
		wait("nothing", sequenced(0), time.Second)
		expect("nothing")
		wait("three", sequenced(3), time.Minute)
		wait("five", sequenced(5), time.Minute)
		wait("three signed", signed(3), time.Minute)
		expect("nothing")
		p.sequenced(Head{Size: 3, Last: merkle.Hash{3}})
		expect("nothing", "three")
		p.publish(checkpoint.Checkpoint{Size: 3}, []byte("note"))
		expect("nothing", "three", "three signed")
		p.sequenced(Head{Size: 9, Last: merkle.Hash{9}})
		expect("nothing", "three", "three signed", "five")

		wait("never", sequenced(10), time.Second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := done["never"]; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("what isn't reached: got %v, want the deadline's error", err)
		}
		if m := p.remembered(); m.lastOf != 9 || m.last != (merkle.Hash{9}) {
			t.Errorf("acknowledged: got %d, %v", m.lastOf, m.last)
		}
	})
}

func TestTheFirstReasonStays(t *testing.T) {
	var p progress
	first := errors.New("first")
	p.stop(first)
	p.stop(errors.New("second"))
	if _, _, _, err := p.get(); err != first {
		t.Errorf("stopped: got %v, want %v", err, first)
	}
}

func TestACheckpointEndsAFailureOfSigning(t *testing.T) {
	var p progress
	p.unsigned(errors.New("another server was faster"), time.Now())
	p.publish(checkpoint.Checkpoint{Size: 7}, []byte("note")) // that server's, which a reader asked for
	if _, err := p.failing(); err != nil {
		t.Errorf("failing: got %v, want nothing", err)
	}
}

func TestSizesOnlyGrow(t *testing.T) {
	var p progress
	p.publish(checkpoint.Checkpoint{Size: 7}, []byte("note")) // another server's, ahead of what this one has sequenced
	p.sequenced(Head{Size: 5})
	if sizes, _, _, _ := p.get(); sizes != (Sizes{Size: 7, Signed: 7, Released: 7}) {
		t.Errorf("sizes: got %+v, want 7 of everything", sizes)
	}
}

func TestWhatIsSignedWaitsForItsRelease(t *testing.T) {
	var p progress
	p.gate()
	p.publish(checkpoint.Checkpoint{Size: 7}, []byte("seven"))
	if _, note := p.released(); note != nil {
		t.Errorf("before the first release: got %q, want nothing", note)
	}
	p.witness(7)
	p.release(checkpoint.Checkpoint{Size: 7}, []byte("seven, cosigned"))
	p.publish(checkpoint.Checkpoint{Size: 9}, []byte("nine"))
	p.release(checkpoint.Checkpoint{Size: 5}, []byte("five, cosigned late")) // an older one takes nothing back
	p.witness(5)
	if sizes, _, _, _ := p.get(); sizes != (Sizes{Size: 9, Signed: 9, Released: 7, Witnessed: 7}) {
		t.Errorf("sizes: got %+v, want 9 signed, 7 released and witnessed", sizes)
	}
	p.release(checkpoint.Checkpoint{Size: 7}, []byte("seven, cosigned twice"))
	if c, note := p.released(); c.Size != 7 || string(note) != "seven, cosigned twice" {
		t.Errorf("released: got size %d, %q, want 7 with the cosignature that came late", c.Size, note)
	}
	for index, want := range map[uint64]State{6: StateWitnessed, 7: StateSigned, 8: StateSigned, 9: StateSequenced} {
		if got := p.sizes.State(index); got != want {
			t.Errorf("the event at %d: got %s, want %s", index, got, want)
		}
	}
}

func TestWhatIsSignedIsReleasedWhereNothingGatesIt(t *testing.T) {
	var p progress
	p.publish(checkpoint.Checkpoint{Size: 7}, []byte("seven"))
	p.release(checkpoint.Checkpoint{Size: 7}, []byte("seven, cosigned"))
	if _, note := p.released(); string(note) != "seven, cosigned" {
		t.Errorf("released: got %q, want the cosigned note", note)
	}
	p.publish(checkpoint.Checkpoint{Size: 9}, []byte("nine"))
	if c, note := p.released(); c.Size != 9 || string(note) != "nine" {
		t.Errorf("released: got size %d, %q, want nine", c.Size, note)
	}
	if c, _ := p.witnessed(); c.Size != 7 {
		t.Errorf("witnessed: got size %d, want 7", c.Size)
	}
	if sizes, _, _, _ := p.get(); sizes.Released != 9 {
		t.Errorf("released size: got %d, want 9", sizes.Released)
	}
}

func TestParseState(t *testing.T) {
	for _, s := range []State{StateSequenced, StateSigned, StateWitnessed} {
		if got, ok := ParseState(string(s)); !ok || got != s {
			t.Errorf("%s: got %q, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "Signed", "erased"} {
		if got, ok := ParseState(s); ok {
			t.Errorf("%q: got %q", s, got)
		}
	}
}
