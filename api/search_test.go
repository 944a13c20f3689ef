package api_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log"
)

// appendLines appends events, one a line, and returns when they were received.
func (s *testServer) appendLines(lines string) (receivedAt string) {
	s.t.Helper()
	var answer struct {
		Data []struct {
			ReceivedAt string `json:"received_at"`
		}
	}
	s.do(request{method: "POST", path: "/v1/events/batch", key: s.admin, body: lines, kind: "application/x-ndjson"}).
		into(s.t, http.StatusCreated, &answer)
	return answer.Data[0].ReceivedAt
}

// search returns the records of all pages.
func (s *testServer) search(query string) (found []record) {
	s.t.Helper()
	cursor := ""
	for {
		var p page
		s.get("/v1/events?"+query+cursor, s.admin).into(s.t, http.StatusOK, &p)
		found = append(found, p.Data...)
		if (p.NextCursor != nil) != p.HasMore {
			s.t.Fatalf("%s: got %+v", query, p)
		}
		for _, r := range p.Data {
			if r.Index < p.Searched.From || r.Index >= p.Searched.To {
				s.t.Fatalf("%s: found entry %d, though [%d, %d) was searched", query, r.Index, p.Searched.From, p.Searched.To)
			}
		}
		if !p.HasMore {
			return found
		}
		cursor = "&cursor=" + *p.NextCursor
	}
}

// ids returns the ids of records, separated by spaces.
func ids(records []record) string {
	var all []string
	for _, r := range records {
		all = append(all, r.ID)
	}
	return strings.Join(all, " ")
}

const fixedEvents = `{"id":"e0","action":"user.created","actor_id":"alice","actor_email":"alice@example.com","target_id":"bob","target_type":"user","outcome":"success","ip":"203.0.113.9","occurred_at":"2026-01-01T00:00:00Z","metadata":{"plan":"pro","seats":5}}
{"id":"e1","action":"user.deleted","actor_id":"alice","target_id":"carol","target_type":"user","outcome":"denied","ip":"2001:db8::1","occurred_at":"2026-01-01T00:00:00.000001Z","metadata":{"plan":"free","trial":true}}
{"id":"e2","action":"user","actor_id":"bob smith+1","targets":[{"id":"t&1","type":"team"},{"id":"bob","type":"role"}],"outcome":"failure","occurred_at":"2026-01-02T00:00:00Z","metadata":{"request":{"region":"eu","retries":0}}}
{"id":"e3","action":"invoice.paid","actor_id":"żółć","outcome":"unknown","occurred_at":"2026-01-03T00:00:00Z","metadata":{"request.region":"eu","note":"a = b & c","empty":"","owner":null}}
{"id":"e4","action":"user.created","metadata":{"plan":"pro"}}
`

func TestFilters(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	first := s.appendLines(fixedEvents)
	time.Sleep(time.Millisecond)
	second := s.appendLines(`{"id":"e5","action":"Users"}` + "\n")
	for _, c := range []struct{ query, want string }{
		{"", "e0 e1 e2 e3 e4 e5"},
		{"action=user.created", "e0 e4"},
		{"action=user.*", "e0 e1 e4"},
		{"action=user*", "e0 e1 e2 e4"},
		{"action=*", "e0 e1 e2 e3 e4 e5"},
		{"action=user&action=*", "e0 e1 e2 e3 e4 e5"},
		{"action=*&outcome=denied", "e1"},
		{"action=user&action=invoice.*", "e2 e3"},
		{"action=none", ""},
		{"actor_id=alice", "e0 e1"},
		{"actor_id=Alice", ""},
		{"actor_id=ali", ""},
		{"actor_id=alice&actor_id=bob+smith%2B1", "e0 e1 e2"},
		{"actor_id=%C5%BC%C3%B3%C5%82%C4%87", "e3"},
		{"actor_email=alice@example.com", "e0"},
		{"target_id=bob", "e0 e2"},
		{"target_id=t%261", "e2"},
		{"target_type=role", "e2"},
		{"target_id=bob&target_type=user", "e0"},
		{"target_id=bob&target_type=team", "e2"},
		{"outcome=success", "e0"},
		{"outcome=success&outcome=unknown&outcome=success", "e0 e3"},
		{"ip=203.0.113.9", "e0"},
		{"ip=::ffff:203.0.113.9", "e0"},
		{"ip=2001:DB8:0:0::1", "e1"},
		{"from=2026-01-01T00:00:00.000001Z&to=2026-01-02T00:00:00.000001Z", "e1 e2"},
		{"from=2026-01-01T01:00:00%2B01:00&to=2025-12-31T23:00:00.000001-01:00", "e0"},
		{"to=2026-01-01T00:00:00.0000019Z", "e0"},
		{"from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", ""},
		{"from=" + first, "e4 e5"},
		{"to=" + first, "e0 e1 e2 e3"},
		{"from=" + second, "e5"},
		{"from=-1h", "e4 e5"},
		{"to=-1h", "e0 e1 e2 e3"},
		{"received_from=" + second, "e5"},
		{"received_from=" + first + "&received_to=" + second, "e0 e1 e2 e3 e4"},
		{"received_to=" + first, ""},
		{"received_from=-3600s&received_to=-0d", "e0 e1 e2 e3 e4 e5"},
		{"received_from=-36500d&received_to=-60m", ""},
		{"metadata.plan=pro", "e0 e4"},
		{"metadata.plan=pro&metadata.plan=free", "e0 e1 e4"},
		{"metadata.plan=pro&metadata.seats=5", "e0"},
		{"metadata.plan=pro&metadata.seats=6", ""},
		{"metadata.trial=true", "e1"},
		{"metadata.owner=null", "e3"},
		{"metadata.empty=", "e3"},
		{"metadata.request.region=eu", "e2 e3"},
		{"metadata.request.retries=0", "e2"},
		{"metadata.note=a+%3D+b+%26+c", "e3"},
		{"action=user.*&actor_id=alice&outcome=denied&metadata.plan=free&from=2026-01-01T00:00:00Z", "e1"},
		{"log=default&action=user", "e2"},
		{"q=alice", "e0 e1"},
		{"q=ALICE", "e0 e1"},
		{"q=ali", ""},
		{"q=ali*", "e0 e1"},
		{"q=created", "e0 e4"},
		{"q=user.created", "e0 e4"},
		{"q=user", "e0 e1 e2 e4"},
		{"q=user*", "e0 e1 e2 e4 e5"},
		{"q=example.com+bob", "e0"},
		{"q=bob", "e0 e2"},
		{"q=%C5%BB%C3%93%C5%81%C4%86", "e3"},
		{"q=eu", "e2 e3"},
		{"q=pro&q=free", "e0 e1 e4"},
		{"q=pro+alice&q=free", "e0 e1"},
		{"q=pro&q=free&action=user.created", "e0 e4"},
		{"q=pro+free", ""},
		{"q=5", ""},
		{"q=t%261", "e2"},
		{"q=e1", "e1"},
		{"q=-+-e1*-", "e1"},
	} {
		for _, order := range []string{"newest", "oldest"} {
			want := strings.Fields(c.want)
			if order == "newest" {
				slices.Reverse(want)
			}
			for _, limit := range []int{1, 2, 50} {
				if got := ids(s.search(fmt.Sprintf("limit=%d&order=%s&%s", limit, order, c.query))); got != strings.Join(want, " ") {
					t.Errorf("%s, %s first, %d a page: got %s, want %s", c.query, order, limit, got, want)
				}
			}
		}
	}
}

// Filters select among real events what their lines say.
func TestFiltersOnRealEvents(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../log/testdata/cloudtrail-events.ndjson.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	s := newTestServer(t, 10*time.Millisecond)
	s.appendLines(string(lines))
	type event struct {
		ID, Action, IP string
		ActorID        string    `json:"actor_id"`
		TargetType     string    `json:"target_type"`
		OccurredAt     time.Time `json:"occurred_at"`
		Metadata       map[string]any
	}
	var events []event
	for line := range bytes.Lines(lines) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	at := time.Date(2023, 7, 10, 12, 0, 0, 0, time.UTC)
	for query, selects := range map[string]func(event) bool{
		"action=iam.*&action=sts.GetCallerIdentity": func(e event) bool { return strings.HasPrefix(e.Action, "iam.") || e.Action == "sts.GetCallerIdentity" },
		"actor_id=arn:aws:iam::123837392027:user/benjamin&action=s3.*": func(e event) bool {
			return strings.HasSuffix(e.ActorID, ":user/benjamin") && strings.HasPrefix(e.Action, "s3.")
		},
		"target_type=roleName&target_type=policyName":              func(e event) bool { return e.TargetType == "roleName" || e.TargetType == "policyName" },
		"ip=192.168.10.20&metadata.readOnly=false":                 func(e event) bool { return e.IP == "192.168.10.20" && e.Metadata["readOnly"] == false },
		"from=2023-07-10T12:00:00Z&to=2023-07-10T14:05:00%2B02:00": func(e event) bool { return !e.OccurredAt.Before(at) && e.OccurredAt.Before(at.Add(5*time.Minute)) },
		"metadata.tlsDetails.tlsVersion=TLSv1.3&target_type=secretId": func(e event) bool {
			d, _ := e.Metadata["tlsDetails"].(map[string]any)
			return d["tlsVersion"] == "TLSv1.3" && e.TargetType == "secretId"
		},
		"metadata.eventCategory=Management&received_from=-1h&action=*": func(e event) bool { return e.Metadata["eventCategory"] == "Management" },
		"metadata.requestParameters.roleName=stratus-red-team-ec2-steal-credentials-role": func(e event) bool {
			p, _ := e.Metadata["requestParameters"].(map[string]any)
			return p["roleName"] == "stratus-red-team-ec2-steal-credentials-role"
		},
	} {
		var want []string
		for _, e := range events {
			if selects(e) {
				want = append(want, e.ID)
			}
		}
		if len(want) == 0 || len(want) == len(events) && !strings.Contains(query, "Management") {
			t.Errorf("%s: %d events say nothing", query, len(want))
		}
		slices.Reverse(want)
		if got := ids(s.search("limit=97&" + query)); got != strings.Join(want, " ") {
			t.Errorf("%s: got %d ids, want %d", query, len(strings.Fields(got)), len(want))
		}
	}
}

// What is found rarely is found all the same, over however many pages.
func TestSearchingALongLog(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, time.Second)
	s.appendLines(`{"id":"first","action":"rare"}` + "\n" + strings.Repeat("{\"action\":\"a\"}\n", log.MaxRequestEvents-1))
	s.appendLines(strings.Repeat("{\"action\":\"a\"}\n", 2500) + `{"id":"last","action":"rare"}` + "\n")
	if got := ids(s.search("action=rare")); got != "last first" {
		t.Errorf("newest first: got %s", got)
	}
	if got := ids(s.search("action=rare&order=oldest")); got != "first last" {
		t.Errorf("oldest first: got %s", got)
	}
}

// A cursor is good for the filters it was made for, in whatever order they are given.
func TestCursorsOfOtherFilters(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.appendLines(fixedEvents)
	const filters = "action=user.*&action=user&actor_id=alice&actor_id=bob&from=-9000d&metadata.plan=pro&metadata.plan=free"
	var first page
	s.get("/v1/events?order=newest&limit=1&"+filters, s.admin).into(t, http.StatusOK, &first)
	if len(first.Data) != 1 || first.NextCursor == nil || first.Size != 5 {
		t.Fatalf("first page: got %+v", first)
	}
	for name, query := range map[string]string{
		"the same":      filters,
		"another limit": filters + "&limit=3",
		"another order": "metadata.plan=free&metadata.plan=pro&from=-9000d&actor_id=bob&actor_id=alice&action=user&action=user.*&log=default&order=newest",
		"a value twice": filters + "&action=user",
		"escaped":       strings.ReplaceAll(filters, "*", "%2A"),
	} {
		var p page
		s.get("/v1/events?"+query+"&cursor="+*first.NextCursor, s.admin).into(t, http.StatusOK, &p)
		if got := ids(p.Data); got != "e0" {
			t.Errorf("%s: got %s", name, got)
		}
	}
	for name, query := range map[string]string{
		"no filters":      "",
		"one less":        strings.Replace(filters, "actor_id=bob&", "", 1),
		"one more":        filters + "&outcome=success",
		"another value":   strings.Replace(filters, "alice", "carol", 1),
		"another time":    strings.Replace(filters, "9000d", "9001d", 1),
		"another path":    strings.Replace(filters, "metadata.plan=pro", "metadata.seats=pro", 1),
		"values swapped":  strings.NewReplacer("actor_id=bob", "actor_id=pro", "plan=pro", "plan=bob").Replace(filters),
		"oldest first":    filters + "&order=oldest",
		"values in one":   strings.Replace(filters, "action=user&", "action=user%26", 1),
		"another filter":  strings.Replace(filters, "actor_id=bob", "target_id=bob", 1),
		"of receipt":      strings.Replace(filters, "from=", "received_from=", 1),
		"words":           filters + "&q=alice",
		"prefix to exact": strings.Replace(filters, "user.*", "user.", 1),
	} {
		got := s.get("/v1/events?"+query+"&cursor="+*first.NextCursor, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
		if len(got.Errors) != 1 || got.Errors[0].Parameter != "cursor" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// A time before now is counted from the first page.
func TestRelativeTimesStayFixed(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	now := time.Now().UTC()
	var lines strings.Builder
	for i, ago := range []time.Duration{3 * time.Hour, 90 * time.Minute, 90 * time.Minute, 30 * time.Minute, 90 * time.Minute} {
		fmt.Fprintf(&lines, "{\"id\":\"e%d\",\"action\":\"a\",\"occurred_at\":%q}\n", i, now.Add(-ago).Format(time.RFC3339Nano))
	}
	s.appendLines(lines.String())
	for order, want := range map[string]string{"oldest": "e1 e2 e4", "newest": "e4 e2 e1"} {
		query := "/v1/events?limit=1&from=-2h&to=-60m&order=" + order
		s.clock.Store(0)
		var got []record
		for cursor := ""; ; {
			var p page
			s.get(query+cursor, s.admin).into(t, http.StatusOK, &p)
			got = append(got, p.Data...)
			if !p.HasMore {
				break
			}
			cursor = "&cursor=" + *p.NextCursor
			s.clock.Add(int64(time.Hour)) // by now e3 would be selected instead, then nothing
		}
		if ids(got) != want {
			t.Errorf("%s first: got %s, want %s", order, ids(got), want)
		}
		s.clock.Store(int64(time.Hour))
		if got := ids(s.search("from=-2h&to=-60m&order=" + order)); got != "e3" {
			t.Errorf("%s first, an hour later: got %s, want e3", order, got)
		}
	}
}

// Whatever a filter can't mean is refused, by the name of its parameter.
func TestWrongFilters(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, 10*time.Millisecond)
	s.append("default", 0, 3)
	times := func(n int, param string) string {
		var all []string
		for i := range n {
			all = append(all, strings.ReplaceAll(param, "#", strconv.Itoa(i)))
		}
		return strings.Join(all, "&")
	}
	long := strings.Repeat("x", 512)
	for _, c := range []struct{ parameter, query string }{
		{"action", "action="}, {"action", "action=a*b"}, {"action", "action=*.b"}, {"action", "action=**"}, {"action", "action=a%20b"}, {"action", "action=a%2Cb"},
		{"action", "action=a&action=*b"}, {"action", "action=%C3%A9"}, {"action", "action=" + strings.Repeat("a", 129)}, {"action", times(21, "action=a")},
		{"actor_id", "actor_id="}, {"actor_id", "actor_id=%FF"}, {"actor_id", "actor_id=a%00"}, {"actor_id", "actor_id=x" + long}, {"actor_id", times(21, "actor_id=#")},
		{"actor_email", "actor_email="}, {"target_id", "target_id=a&target_id="}, {"target_type", "target_type="},
		{"outcome", "outcome=ok"}, {"outcome", "outcome=Success"}, {"outcome", "outcome="}, {"outcome", "outcome=success,denied"}, {"outcome", "outcome=success*"},
		{"ip", "ip="}, {"ip", "ip=203.0.113.0/24"}, {"ip", "ip=fe80::1%25eth0"}, {"ip", "ip=203.0.113"}, {"ip", "ip=localhost"},
		{"from", "from="}, {"from", "from=yesterday"}, {"from", "from=2026-01-01"}, {"from", "from=2026-01-01T00:00:00"}, {"from", "from=2026-01-01T00:00:00+01:00"},
		{"from", "from=2026-02-30T00:00:00Z"}, {"from", "from=1767225600"}, {"from", "from=-1w"}, {"from", "from=-d"}, {"from", "from=-1.5h"}, {"from", "from=1h"},
		{"from", "from=--1h"}, {"from", "from=-36501d"}, {"from", "from=-9999999999d"}, {"from", "from=-1h%0A"}, {"from", "from=-1h&from=-1h"},
		{"q", "q="}, {"q", "q=*"}, {"q", "q=..."}, {"q", "q=a*b"}, {"q", "q=%22a+b%22"}, {"q", "q=%FF"}, {"q", "q=a%00"}, {"q", "q=a&q="}, {"q", "q=x" + long},
		{"q", times(21, "q=w#")}, {"q", "q=" + strings.Repeat("a+", 10) + strings.ReplaceAll(times(21, "w#"), "&", "+")},
		{"to", "to=now"}, {"to", "from=-1h&to=-2h"}, {"to", "from=2026-01-01T00:00:00.000001Z&to=2026-01-01T00:00:00Z"}, {"to", "to=-1h&to=-2h"},
		{"received_from", "received_from=x"}, {"received_to", "received_to=x"}, {"received_to", "received_from=-1s&received_to=-1m"},
		{"received_from", "received_from=-1s&received_from=-1s"},
		{"metadata.", "metadata.=x"}, {"metadata", "metadata=x"}, {"Metadata.plan", "Metadata.plan=x"}, {"metadata.plan", "metadata.plan=%FF"},
		{"metadata.plan", "metadata.plan=x" + long}, {"metadata.plan", times(21, "metadata.plan=#")}, {"metadata.x" + long, "metadata.x" + long + "=1"},
		{"metadata.m9", times(11, "metadata.m#=x")}, {"metadata.\u0000", "metadata.%00=x"},
		{"limit", "limit=1&limit=1"}, {"limit", "limit=x"}, {"order", "order=newest&order=newest"}, {"order", "order=up"}, {"cursor", "cursor=x"},
		{"cursor", "cursor=x&cursor=x"}, {"log", "log=default&log=default"}, {"actor", "actor=x"}, {"query", "query=x"}, {"action[]", "action[]=x"},
	} {
		got := s.get("/v1/events?"+c.query, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
		if len(got.Errors) != 1 || got.Errors[0].Parameter != c.parameter || got.Errors[0].Detail == "" || !strings.HasPrefix(got.Detail, c.parameter+": ") {
			t.Errorf("%.100s: got %+v", c.query, got)
		}
	}
	for _, query := range []string{
		times(20, "action=a.#*"), times(20, "actor_id=#"), times(10, "metadata.m#=x"), "actor_id=" + long, "target_id=" + long, "metadata." + long + "=" + long,
		"action=" + strings.Repeat("a", 128), "action=treeline.*", "from=-36500d", times(20, "metadata.plan=#"),
	} {
		s.get("/v1/events?"+query, s.admin).into(t, http.StatusOK, new(page))
	}
	for _, path := range []string{"/v1/feed?action=a", "/v1/feed?metadata.plan=pro", "/v1/events/e1?action=a", "/v1/checkpoint?from=-1h"} {
		s.get(path, s.admin).problem(t, http.StatusBadRequest, "invalid_request")
	}
	if _, err := url.ParseQuery("action=a;b"); err == nil {
		t.Error("a semicolon separates parameters")
	}
}
