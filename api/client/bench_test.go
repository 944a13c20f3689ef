package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/treeline-log/treeline/api/client"
)

// benchEvent returns an event of some 250 bytes.
func benchEvent(n int) client.Event {
	user := fmt.Sprintf("user_%05d", n*7919%10_000)
	return client.Event{
		Action: "user.permission.updated", Outcome: "success",
		Actor:   client.Actor{ID: user, Email: user + "@example.com"},
		Targets: []client.Target{{ID: fmt.Sprintf("user_%05d", n%10_000), Type: "user"}},
		Metadata: map[string]any{
			"old_role": "viewer", "new_role": "editor",
		},
	}
}

// BenchmarkRecord measures how fast a spool takes events, whose server is away meanwhile: one goroutine that waits until each is on the
// disk, 64 that do, and one that doesn't wait.
func BenchmarkRecord(b *testing.B) {
	for _, row := range []struct {
		name       string
		goroutines int
		every      time.Duration
	}{
		{"each synced", 1, 0}, {"each synced, 64 at once", 64, 0}, {"synced every second", 1, time.Second},
	} {
		b.Run(row.name, func(b *testing.B) {
			s := newServer(b)
			s.refuse.Store(true)
			spool, _ := openSpool(b, s, b.TempDir(), func(c *client.SpoolConfig) { c.MaxBytes, c.SyncEvery = 8<<30, row.every })
			each := (b.N + row.goroutines - 1) / row.goroutines
			done := make(chan error, row.goroutines)
			b.ResetTimer()
			for g := range row.goroutines {
				go func() {
					var err error
					for i := 0; i < each && err == nil; i++ {
						err = spool.Record(b.Context(), benchEvent(g*each+i))
					}
					done <- err
				}()
			}
			for range row.goroutines {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(each*row.goroutines)/b.Elapsed().Seconds(), "events/s")
			b.StopTimer()
			gone, cancel := context.WithCancel(b.Context())
			cancel()
			if err := spool.Close(gone); !errors.Is(err, context.Canceled) { // what is left isn't of interest
				b.Error(err)
			}
		})
	}
}

// BenchmarkSpool measures how fast events go through a spool into a server's log: from the first record until the last is stored.
func BenchmarkSpool(b *testing.B) {
	s := newServer(b)
	spool, _ := openSpool(b, s, b.TempDir(), func(c *client.SpoolConfig) { c.MaxBytes, c.SyncEvery = 8<<30, time.Second })
	b.ResetTimer()
	for i := range b.N {
		if err := spool.Record(b.Context(), benchEvent(i)); err != nil {
			b.Fatal(err)
		}
	}
	recorded := b.Elapsed()
	if err := spool.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/recorded.Seconds(), "recorded/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "stored/s")
	b.StopTimer()
	closeSpool(b, spool)
}
