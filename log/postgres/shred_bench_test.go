package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/storetest"
)

// BenchmarkAppendWhileShredding appends 5,000 events a second, 50 at a time, while nothing is removed and while parts are rewritten and
// dropped without a pause, and reports how long an append takes, and how many contents were copied.
func BenchmarkAppendWhileShredding(b *testing.B) {
	for _, shredding := range []bool{false, true} {
		b.Run(fmt.Sprintf("shredding=%t", shredding), func(b *testing.B) {
			s := openWith(b, postgres.Options{URL: migrated(b)})
			id, old := createLog(b, s, "one"), createLog(b, s, "old")
			content := log.Payload{Seed: make([]byte, 32), Data: append([]byte{0}, bytes.Repeat([]byte("content "), 60)...)}
			const rows = 300_000
			for range rows / 5000 {
				add(b, s, old, slices.Repeat([]log.Payload{content}, 5000))
			}
			ctx, stop := context.WithCancel(context.Background())
			var calls atomic.Int64
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for end := uint64(rows / 4); shredding && ctx.Err() == nil; end = min(end+1000, rows) {
					if err := s.Purge(ctx, old, span(0, end)); err != nil && ctx.Err() == nil {
						b.Error(err)
					}
					if err := s.Reduce(ctx, old, []log.Reduced{{Index: end, Data: fmt.Appendf(nil, "\x03%d", end)}}); err != nil && ctx.Err() == nil {
						b.Error(err)
					}
					if _, err := s.Shred(ctx); err != nil && ctx.Err() == nil {
						b.Error(err)
					}
					calls.Add(1)
				}
			}()
			var took []time.Duration
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			batch := slices.Repeat([]log.Payload{content}, 50)
			for b.Loop() {
				due := <-tick.C
				if _, err := storetest.Append(context.Background(), s, id, batch); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(due))
			}
			stop()
			<-ended
			slices.Sort(took)
			for name, share := range map[string]int{"p50-ms": 50, "p99-ms": 99, "max-ms": 100} {
				b.ReportMetric(float64(took[min(len(took)-1, len(took)*share/100)].Microseconds())/1000, name)
			}
			b.ReportMetric(float64(calls.Load()), "rewrites")
		})
	}
}

func createLog(b *testing.B, s *postgres.Store, name string) log.ID {
	b.Helper()
	info := log.Info{Name: name, Origin: "bench.example/logs/" + name, CreatedAt: 1, VKeys: []string{"a"}}
	if err := s.CreateLog(context.Background(), &info); err != nil {
		b.Fatal(err)
	}
	return info.ID
}
