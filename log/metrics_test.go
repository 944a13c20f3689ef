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
