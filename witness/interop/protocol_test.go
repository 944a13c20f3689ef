package interop

import (
	"net/http"
	"testing"
)

// What C2SP tlog-witness demands of a witness, and each of them does, ours no other than those that are not ours.
func TestWitnesses(t *testing.T) {
	for name, startOne := range each {
		t.Run(name, func(t *testing.T) {
			l := newLog(t, "interop.example/log")
			l.grow(300)
			w := startOne(t, l)

			for _, step := range []struct {
				what   string
				body   string
				status int
			}{
				{"the first checkpoint", l.request(0, 5), http.StatusOK},
				{"a larger one", l.request(5, 300), http.StatusOK},
			} {
				a := w.addCheckpoint(t, step.body)
				if a.status != step.status {
					t.Errorf("%s: got %v, want %d", step.what, a, step.status)
				}
			}
			a := w.addCheckpoint(t, l.request(300, 300))
			w.cosigned(t, l.checkpoint(300, l.root(300)), a)
			t.Log(w.addCheckpoint(t, l.request(5, 300)))
		})
	}
}
