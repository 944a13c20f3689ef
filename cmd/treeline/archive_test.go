package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/archive"
	"github.com/treeline-log/treeline/log/retention"
	"github.com/treeline-log/treeline/log/sqlite"
)

// archivedLog purges a log of 10 events, and one of its own that stays, into an archive, and returns the archive's URL, the log's origin and its key.
func archivedLog(t *testing.T) (dir, origin, vkey string) {
	t.Helper()
	dir = t.TempDir()
	store, err := sqlite.Open(t.Context(), filepath.Join(dir, "treeline.db"))
	if err != nil {
		t.Fatal(err)
	}
	fence, err := checkpoint.OpenFileFence(filepath.Join(dir, "fence"))
	if err != nil {
		t.Fatal(err)
	}
	var ahead atomic.Int64
	logger, registry := slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry()
	service, err := log.Open(context.Background(), log.Config{
		Store: store, Seed: checkpoint.Seed{9}, Fence: fence, Prefix: "test.example", Interval: 10 * time.Millisecond, Logger: logger, Metrics: registry,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	defer service.Close()
	l, err := service.CreateLog(t.Context(), log.ByServer(), "acme", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	var events []*log.Event
	for i := range 10 {
		e, err := log.ParseEvent(fmt.Appendf(nil, `{"id":"e%d","action":"a.b","actor":{"id":"user-%d"}}`, i, i%2), log.ParseOptions{Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	if _, err := l.Append(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if _, err := l.SetRetention(t.Context(), log.ByServer(), log.Retention{Max: log.Age{Days: 30}, Archive: true}, "a test"); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(31 * 24 * time.Hour))
	if err := l.Wait(t.Context(), 11, log.StateSigned); err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(t.Context(), "dir:"+filepath.Join(dir, "archive"))
	if err != nil {
		t.Fatal(err)
	}
	keeper := retention.New(retention.Config{Service: service, Store: store, Archive: a, Logger: logger, Metrics: registry})
	if r, err := keeper.RunOnce(t.Context(), l, false); err != nil || r.Purged != 10 || r.Blocked != nil {
		t.Fatalf("got %+v, %v", r, err)
	}
	return filepath.Join(dir, "archive"), l.Origin, l.VKeys[0]
}

// What was purged is found in the archive, by whoever has it and the log's key, without a server.
func TestTheArchiveIsReadWithoutAServer(t *testing.T) {
	dir, origin, vkey := archivedLog(t)
	url := "dir:" + dir
	restored := filepath.Join(t.TempDir(), "restored.ndjson")
	for _, tt := range []struct {
		args string
		code int
		want []string
	}{
		{"archive list", exitOK, []string{origin + "  0", origin + "/000000000000-"}},
		{"archive list --json", exitOK, []string{`"from": 0`, `"origin": "` + origin + `"`}},
		{"archive list --origin other.example/logs/acme --json", exitOK, []string{`"data": []`}},
		{"archive verify --vkey " + vkey, exitOK, []string{"VALID"}},
		{"archive verify", exitUnverified, []string{"NOT_VERIFIABLE"}},
		{"archive search actor:user-1 --origin " + origin + " --vkey " + vkey, exitOK, []string{"e1", "e9", "user-1"}},
		{"archive search actor:user-1 --ndjson --from-index 2 --to-index 4 --origin " + origin + " --vkey " + vkey, exitOK, []string{`"id":"e3"`, `"bundle":"`}},
		{"archive search --origin " + origin, exitUnverified, nil},
		{"archive restore --origin " + origin + " --vkey " + vkey + " -o " + restored, exitOK, []string{"restored 11 events"}},
	} {
		code, out, stderr := runCommand(t, "", append(strings.Fields(tt.args), "--archive", url)...)
		if code != tt.code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", tt.args, code, tt.code, out, stderr)
		}
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: got\n%s\nwithout %q", tt.args, out, want)
			}
		}
		if strings.Contains(tt.args, "user-1") && strings.Contains(out, "user-0") {
			t.Errorf("%s: got\n%s", tt.args, out)
		}
	}
	lines, err := os.ReadFile(restored)
	if err != nil || strings.Count(string(lines), "\n") != 11 || !strings.Contains(string(lines), `"id":"e0","log":"acme","index":0,`) {
		t.Errorf("got %s, %v", lines, err)
	}
	// A byte that isn't as it was written shows.
	bundles, err := filepath.Glob(filepath.Join(dir, origin, "*.zip"))
	if err != nil || len(bundles) != 1 {
		t.Fatalf("got %q, %v", bundles, err)
	}
	data, err := os.ReadFile(bundles[0])
	if err != nil {
		t.Fatal(err)
	}
	data[strings.Index(string(data), "user-1")] ^= 1
	if err := os.WriteFile(bundles[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, stderr := runCommand(t, "", "archive", "verify", "--archive", url, "--vkey", vkey); code != exitInvalid || !strings.Contains(out, "INVALID") {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
	if code, out, _ := runCommand(t, "", "archive", "search", "--archive", url, "--vkey", vkey, "--origin", origin); code != exitInvalid || strings.Contains(out, "user-0") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
