package storetest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/index"
)

var errCrash = errors.New("crash")

// Crash lets removing contents end at each of its steps, as if the process ended there, opens the store again, and does it again. The
// steps are those that the store names to the function which fault gives it. Whatever happened, what was to go is gone after that, and
// nothing else is. It returns the steps that there were.
func Crash(t *testing.T, o Opener, fault func(s log.Store, at func(step string) error)) (steps []string) {
	run := func(t *testing.T, crashAt int) (n int) {
		s := o.Open(t)
		one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
		appendTo(t, s, one.ID, 700)
		retain(t, s, one.ID, "short")
		appendTo(t, s, one.ID, 700)
		retain(t, s, two.ID, "none")
		appendTo(t, s, two.ID, 700)
		writeIndex(t, s, one.ID, "secret")
		at := func(step string) error {
			if crashAt < 0 && !slices.Contains(steps, step) {
				steps = append(steps, step)
			}
			n++
			if n-1 == crashAt {
				return fmt.Errorf("%w at %q", errCrash, step)
			}
			return nil
		}
		fault(s, at)
		want := custody{purged: spans(0, 650, 700, 1000), reduced: map[uint64]string{650: "\x03left", 1399: "\x03left"}}
		for _, act := range []func() error{
			func() error {
				return s.Reduce(t.Context(), one.ID, []log.Reduced{{Index: 650, Data: []byte("\x03left")}, {Index: 1399, Data: []byte("\x03left")}})
			},
			func() error { return s.Purge(t.Context(), one.ID, want.purged) },
			func() error { return s.Purge(t.Context(), two.ID, spans(0, 700)) },
			func() error {
				old := log.Indexed{Size: 1024}
				return s.WriteIndex(t.Context(), one.ID, old, old, []index.Meta{{}}, []*index.Segment{segment(0, 0, "rest")})
			},
			func() error {
				for {
					if more, err := s.Shred(t.Context()); err != nil || !more {
						return err
					}
				}
			},
		} {
			for attempt := 0; ; attempt++ {
				err := act()
				if err == nil {
					break
				}
				if !errors.Is(err, errCrash) || attempt > 1 {
					t.Fatal(err)
				}
				s = o.Reopen(t, s)
				fault(s, at)
				custody{purged: spans(0, 700)}.checkAtMost(t, s, two.ID)
				want.checkAtMost(t, s, one.ID)
			}
		}
		appendTo(t, s, one.ID, 30)
		appendTo(t, s, two.ID, 30)
		want.check(t, s, one.ID)
		custody{purged: spans(0, 700)}.check(t, s, two.ID)
		if got := blocksOf(t, s, one.ID); !slices.Equal(got, []string{"0/0 rest"}) {
			t.Errorf("the index has %q", got)
		}
		s = o.Reopen(t, s)
		want.check(t, s, one.ID)
		return n
	}
	total := run(t, -1)
	for crashAt := range total {
		t.Run(fmt.Sprint("crash ", crashAt), func(t *testing.T) { run(t, crashAt) })
	}
	return steps
}

// checkAtMost checks that no content is gone, or other than it was, but for those that may be.
func (c custody) checkAtMost(t testing.TB, s log.Store, id log.ID) {
	t.Helper()
	head, err := s.Head(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	all := contents(t, s, id)
	for i := range head.Size {
		p, ok := all[i]
		want := payload(i)
		whole := ok && string(p.Data) == string(want.Data) && string(p.Seed) == string(want.Seed)
		left, reduced := c.reduced[i]
		mayGo := slices.ContainsFunc(c.purged, func(s log.Span) bool { return s.From <= i && i < s.To })
		if !whole && (ok || !mayGo) && (!reduced || string(p.Data) != left || p.Seed != nil) {
			t.Errorf("content %d of log %d: got %t %x %q", i, id, ok, p.Seed, p.Data)
		}
	}
}

// writeIndex gives a log an index of one segment.
func writeIndex(t *testing.T, s log.Store, id log.ID, text string) {
	t.Helper()
	if err := s.WriteIndex(t.Context(), id, log.Indexed{}, log.Indexed{Size: 1024}, nil, []*index.Segment{segment(0, 0, text)}); err != nil {
		t.Fatal(err)
	}
}

func retain(t *testing.T, s log.Store, id log.ID, class string) {
	t.Helper()
	if err := s.Retain(t.Context(), id, class); err != nil {
		t.Fatal(err)
	}
}

func blocksOf(t *testing.T, s log.Store, id log.ID) (all []string) {
	t.Helper()
	err := s.Blocks(t.Context(), id, 0, []uint64{0}, []index.Range{index.Whole}, func(_ uint64, _, data []byte) error {
		all = append(all, string(data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
