package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// toldEvent is an event of the system log.
type toldEvent struct {
	ID       string
	Action   string
	Outcome  string
	Metadata map[string]any
}

// told returns what the system log tells from an index on.
func (s *testServer) told(from uint64) (all []toldEvent) {
	s.t.Helper()
	system := s.service.Log(log.SystemName)
	records, err := system.Records(s.t.Context(), from, system.Sizes().Size, 1<<20)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, record := range records {
		var e toldEvent
		if err := json.Unmarshal(record.Event, &e); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

var sizesRE = regexp.MustCompile(`"sizes":\{[^}]*\}`)

// What can't be recorded isn't done: no act, and not a byte of an export.
func TestWhatCannotBeRecordedIsNotDone(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 10)
	id := s.key(log.RoleReader, "default")[3:15]
	s.appendPerson("default", "someone")
	hold, plan := s.hold("default", s.admin, `{"actor_id":"nobody"}`), s.plan("default", s.admin, "someone")
	state := func() string {
		var all string
		for _, path := range []string{"/v1/logs", "/v1/keys", "/v1/logs/default/retention", "/v1/holds", "/v1/erasures"} {
			all += string(s.get(path, s.admin).body)
		}
		return sizesRE.ReplaceAllString(lastUseRE.ReplaceAllString(all, ""), "") // which change by themselves
	}
	before, size := state(), s.service.Log(log.SystemName).Sizes().Size
	s.store.failAppends.Store(true)
	for _, r := range []request{
		{method: "POST", path: "/v1/logs", body: `{"name":"new"}`},
		{method: "PATCH", path: "/v1/logs/default", body: `{"title":"new"}`},
		{method: "POST", path: "/v1/logs/default/freeze"},
		{method: "PUT", path: "/v1/logs/default/retention", body: `{"max":"90d","reason":"r"}`},
		{method: "POST", path: "/v1/logs/default/retention/run"},
		{method: "POST", path: "/v1/logs/default/close", body: `{"reason":"r"}`},
		{method: "POST", path: "/v1/holds", body: `{"matter":"m","reason":"r"}`},
		{method: "POST", path: "/v1/holds/" + hold.ID + "/release", body: `{"reason":"r"}`},
		{method: "POST", path: "/v1/erasures", body: erasing("someone", plan.Plan)},
		{method: "POST", path: "/v1/keys", body: `{"role":"reader"}`},
		{method: "DELETE", path: "/v1/keys/" + id},
		{method: "POST", path: "/v1/keys/" + id + "/rotate"},
		{method: "GET", path: "/v1/export?format=ndjson"},
		{method: "GET", path: "/v1/export?format=json&compression=gzip"},
		{method: "GET", path: "/v1/export?format=csv"},
		{method: "GET", path: "/v1/export?format=bundle"},
	} {
		r.key = s.admin
		got := s.do(r)
		got.problem(t, http.StatusServiceUnavailable, "not_recorded")
		if got.header.Get("Export-Cursor") != "" || got.header.Get("Content-Disposition") != "" {
			t.Errorf("%s: the answer that there is no export has %v", r.path, got.header)
		}
	}
	s.store.failAppends.Store(false)
	if after := state(); after != before {
		t.Errorf("got %s, want what was there before, %s", after, before)
	}
	if now := s.service.Log(log.SystemName).Sizes().Size; now != size {
		t.Errorf("the system log tells of %d events", now-size)
	}
}

// Nothing of an export leaves while the event that tells of it is on its way to the store.
func TestAnExportWaitsUntilItIsRecorded(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 10)
	for _, format := range []string{"ndjson", "json", "csv", "bundle"} {
		hold := make(chan struct{})
		s.store.held.Store(0)
		s.store.hold.Store(&hold)
		begun := make(chan *http.Response, 1)
		go func() {
			req, err := http.NewRequest(http.MethodGet, s.url+"/v1/export?format="+format, nil)
			if err == nil {
				req.Header.Set("Authorization", "Bearer "+s.admin)
				if resp, err := http.DefaultClient.Do(req); err == nil {
					begun <- resp
				}
			}
			close(begun)
		}()
		s.until("the export to be recorded", func() bool { return s.store.held.Load() > 0 })
		select {
		case <-begun:
			t.Errorf("%s: the answer has begun, and nothing is recorded yet", format)
		case <-time.After(50 * time.Millisecond):
		}
		s.store.hold.Store(nil)
		close(hold)
		resp, ok := <-begun
		if !ok || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: got no export once it was recorded", format)
		}
		resp.Body.Close()
	}
}

// Of an export that breaks off is told that it did, and of no fewer events than may have left.
func TestAnExportThatBreaksOffIsTold(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 3000)
	s.until("the log to be signed", func() bool { return s.service.Log("default").Sizes().Signed == 3000 })
	for _, format := range []string{"ndjson", "csv", "bundle"} {
		before := s.service.Log(log.SystemName).Sizes().Size
		spoil := func(index uint64, _ *log.Payload) error {
			if index == 2500 {
				return errInjected
			}
			return nil
		}
		s.store.spoil.Store(&spoil)
		body, _, _, err := s.tryExport("format=" + format)
		s.store.spoil.Store(nil)
		if err == nil {
			t.Errorf("%s: the export has an end", format)
		}
		s.until("the end to be told", func() bool { return len(s.told(before)) == 2 })
		all := s.told(before)
		started, finished := all[0], all[1]
		if started.Action != "treeline.export.started" || finished.Action != "treeline.export.finished" || finished.Outcome != "failure" ||
			finished.Metadata["started"] != started.ID {
			t.Errorf("%s: got %+v", format, all)
		}
		left := bytes.Count(body, []byte("\n"))
		if format == "bundle" {
			left = bytes.Count(body, []byte(`{"disclosure":`))
		}
		if count, _ := finished.Metadata["count"].(float64); int(count) < min(left, 2000) || left == 0 || finished.Metadata["size"] != 3000.0 {
			t.Errorf("%s: %d events left, the system log tells of %v", format, left, finished.Metadata)
		}
	}
}

// What ends in a panic, or breaks off, is counted among the requests as well.
func TestBrokenRequestsAreCounted(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.store.panics.Store(true)
	s.get("/v1/events/any", s.admin).problem(t, http.StatusInternalServerError, "internal")
	s.store.panics.Store(false)
	s.append("default", 0, 1500)
	spoil := func(index uint64, _ *log.Payload) error {
		if index == 1400 {
			return errors.New("a disk that can't be read")
		}
		return nil
	}
	s.store.spoil.Store(&spoil)
	if _, _, _, err := s.tryExport(""); err == nil {
		t.Error("the export has an end")
	}
	for _, route := range []string{"/v1/events/{id}", "/v1/export"} {
		name := fmt.Sprintf(`treeline_http_requests_total{route=%q,status="500"}`, route)
		s.until(name, func() bool {
			value, _ := s.findMetric(name)
			return value == "1"
		})
	}
}
