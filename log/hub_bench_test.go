package log_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// BenchmarkHub is one second of a server with many logs, of which a hundredth grow: what the hub adds to the signing of the logs. Making
// the logs takes about a minute.
func BenchmarkHub(b *testing.B) {
	const logs = 10_000
	w := newHubWitness(b)
	s := &testService{t: b, dir: b.TempDir(), seed: testSeed, hub: true, policy: w.policy, signing: time.Hour}
	s.open()
	for i := range logs {
		s.create(fmt.Sprint("log-", i))
	}
	hub := s.Log(log.HubName)
	first := func(n int) {
		for i := range n {
			s.grow(fmt.Sprint("log-", i), 1)
		}
		s.SignGrown(b.Context())
	}
	cosigned := func() { w.cosign(hub, hub.Sizes().Signed) }
	first(logs)
	s.GrowHub(b.Context())
	cosigned()
	next := 0
	grow := func() {
		for range logs / 100 {
			s.grow(fmt.Sprint("log-", next%logs), 1)
			next++
		}
	}
	b.Run("sign 1% of the logs", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			grow()
			b.StartTimer()
			s.SignGrown(b.Context())
		}
	})
	b.Run("put 1% of the logs into the hub", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			grow()
			s.SignGrown(b.Context())
			b.StartTimer()
			s.GrowHub(b.Context())
		}
	})
	b.Run("find that no log has grown", func(b *testing.B) {
		s.GrowHub(b.Context())
		for b.Loop() {
			s.GrowHub(b.Context())
		}
	})
	b.Run("tell 1% of the logs that they are witnessed", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			grow()
			s.SignGrown(b.Context())
			s.GrowHub(b.Context())
			last := s.Log(fmt.Sprint("log-", (next-1)%logs))
			b.StartTimer()
			cosigned()
			if err := last.Wait(b.Context(), last.Sizes().Size, log.StateWitnessed); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tell all logs, as at start", func(b *testing.B) {
		for b.Loop() {
			if err := s.CarryHub(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
