package log_test

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/log"
)

// Operators build alarms on these names, so docs/operations.md has each of them.
func TestMetricsAreDocumented(t *testing.T) {
	s := newTestService(t)
	fence := s.fence()
	s.close()
	store, err := s.openStore()
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	registry := prometheus.NewRegistry()
	service, err := log.Open(t.Context(), log.Config{
		Store: store, Seed: testSeed, Fence: fence, Prefix: "test.example", Interval: time.Second,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(families) == 0 {
		t.Fatal("no metrics were gathered")
	}
	for _, f := range families {
		name := "`" + f.GetName()
		if !strings.Contains(string(doc), name+"`") && !strings.Contains(string(doc), name+"{") {
			t.Errorf("docs/operations.md doesn't name %s", f.GetName())
		}
	}
}

// counted returns the value of a counter without labels.
func (s *testService) counted(name string) int {
	s.t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	s.t.Fatalf("there is no metric %s", name)
	return 0
}

// What another server has signed isn't this one's work.
func TestSignaturesAreCountedWhereTheyAreMade(t *testing.T) {
	const signatures = "treeline_checkpoints_signed_total"
	s := newTestService(t)
	peer := &testService{t: t, dir: s.dir, url: s.url, seed: testSeed}
	want := 2 // of size 0 and 1
	release := func() {}
	if onPostgres {
		peer.open()
		release = peer.holdPublisher()
	}
	s.append("one")
	s.signed()
	release()
	if got := s.counted(signatures); got != want {
		t.Errorf("signed: got %d, want %d", got, want)
	}
	if !onPostgres {
		return // one server only
	}
	peer.until("the other server's checkpoint is taken up", func() bool { return peer.log().Sizes().Signed == 1 })
	time.Sleep(50 * time.Millisecond) // some rounds
	if got := peer.counted(signatures); got != 0 {
		t.Errorf("signed by a server that only took up what the other one did: got %d, want 0", got)
	}
}
