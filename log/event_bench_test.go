package log_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/treeline-log/treeline/log"
)

// firstCall is the event of the README's first call.
const firstCall = `{"action":"user.permission.updated","actor_id":"user_123","actor_email":"admin@example.com","target_type":"user",
      "target_id":"user_456","metadata":{"old_role":"viewer","new_role":"editor","ip":"203.0.113.42"}}`

func BenchmarkParseEvent(b *testing.B) {
	opt := log.ParseOptions{Now: time.Now(), NewID: uuid.NewString, Credential: "abcdefghijkl"}
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"curl", []byte(firstCall)},
		{"cloudtrail", cloudTrail(b)[1]},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := log.ParseEvent(c.data, opt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseStored(b *testing.B) {
	e, err := log.ParseEvent(cloudTrail(b)[1], log.ParseOptions{Now: time.Now()})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(e.JSON())))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := log.ParseStored(e.JSON()); err != nil {
			b.Fatal(err)
		}
	}
}
