package api_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/treeline-log/treeline/api"
	"github.com/treeline-log/treeline/log"
)

// BenchmarkAdmit measures what it costs to know who sends a request, and whether that may send it now: with one key or many, in use in
// turn, of which each has limits, or none has, and neither has the log. Twice as many as are remembered are read from the store again
// and again.
func BenchmarkAdmit(b *testing.B) {
	s := newTestServerWith(b, time.Hour, func(*log.Config) {}, func(c *api.Config) { c.Now = nil })
	id := s.service.Log("default").ID
	for _, limits := range []struct {
		name  string
		rates log.Rates
	}{
		{"no limits", log.Rates{}},
		{"limits", log.Rates{Requests: 1_000_000, Events: 1_000_000}},
	} {
		if limits.rates.Requests > 0 {
			s.patch("/v1/logs/default", s.admin, `{"requests_per_second":1000000,"events_per_second":1000000}`).into(b, http.StatusOK, new(any))
		}
		requests := make([]*http.Request, 20_000)
		for i := range requests {
			k, text := log.NewKey(log.RoleWriter, id, "bench", 1)
			k.Rates = limits.rates
			if err := s.store.CreateKey(b.Context(), k); err != nil {
				b.Fatal(err)
			}
			requests[i] = httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(""))
			requests[i].Header.Set("Authorization", "Bearer "+text)
		}
		for _, n := range []int{1, 1000, 10_000, 20_000} {
			b.Run(fmt.Sprintf("%s/%d keys", limits.name, n), func(b *testing.B) {
				for _, r := range requests[:n] { // whose keys are remembered from here on, as many as are
					if err := s.api.AdmitAppend(discarded{}, r); err != nil {
						b.Fatal(err)
					}
				}
				var next atomic.Uint64
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					w := discarded{}
					for pb.Next() {
						clear(w)
						// Neighbours are far apart, as those of many clients are.
						r := requests[next.Add(1)*7919%uint64(n)]
						if err := s.api.AdmitAppend(w, r); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

// discarded is the header of an answer that nobody gets.
type discarded http.Header

func (d discarded) Header() http.Header         { return http.Header(d) }
func (d discarded) Write(p []byte) (int, error) { return len(p), nil }
func (d discarded) WriteHeader(int)             {}
