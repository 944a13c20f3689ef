package witness_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAddCheckpoint is add-checkpoint over HTTP with a durable state in SQLite, client and witness in one process. Each log has one
// request in flight, as a log that feeds a witness has: the next checkpoint is sent when the last is cosigned, and each has a proof of
// some twenty hashes. The requests are made and signed beforehand; the client doesn't check cosignatures.
func BenchmarkAddCheckpoint(b *testing.B) {
	for _, kind := range []string{"ed25519", "both"} {
		for _, logs := range []int{1, 100} {
			b.Run(fmt.Sprintf("%s/logs=%d", kind, logs), func(b *testing.B) { benchmarkAddCheckpoint(b, logs, kind == "both") })
		}
	}
}

// benchSize is the size from which the logs of a benchmark grow.
const benchSize = 1 << 17

func benchmarkAddCheckpoint(b *testing.B, logs int, mldsa bool) {
	db := newSQLite(b)
	w := newWitness(b, options{state: db, mldsa: mldsa})
	shared := newTree("bench", benchSize)
	var all []*testLog
	for i := range logs {
		l := newLog(b, fmt.Sprintf("example.com/%d", i), 0)
		l.testTree = shared
		if _, err := db.AddKeys(b.Context(), l.keys(), true); err != nil {
			b.Fatal(err)
		}
		all = append(all, l)
	}
	w.Refresh()
	each := (b.N + logs - 1) / logs
	for range each {
		shared.grow("bench")
	}
	bodies := make([][]string, logs)
	for i, l := range all {
		for n := range uint64(each) {
			bodies[i] = append(bodies[i], l.request(b, benchSize+n, benchSize+n+1))
		}
	}
	for _, l := range all {
		w.mustAdd(b, l, 0, benchSize)
	}
	var failed atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	start := time.Now()
	for _, mine := range bodies {
		wg.Go(func() {
			for _, body := range mine {
				resp, err := w.client.Post(w.url+"/add-checkpoint", "", strings.NewReader(body))
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				resp.Body.Close()
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(each*logs)/time.Since(start).Seconds(), "requests/s")
	if n := failed.Load(); n > 0 {
		b.Errorf("%d requests were not cosigned", n)
	}
}
