package main

import (
	"net/http"
	"strings"
	"testing"
)

func TestProblemText(t *testing.T) {
	json := http.Header{"Content-Type": {"application/problem+json; charset=utf-8"}}
	for _, row := range []struct {
		name   string
		status int
		header http.Header
		body   string
		want   string
	}{
		{"detail", 404, json, `{"title":"Not Found","status":404,"code":"not_found","detail":"no such event","request_id":"r1"}`,
			"server answered 404 not_found: no such event (request r1)"},
		{"one fault", 400, json, `{"code":"invalid_event","detail":"the event is invalid","errors":[{"pointer":"/actor_id","detail":"empty"}]}`,
			"server answered 400 invalid_event: /actor_id: empty"},
		{"one fault of a batch", 400, json, `{"code":"invalid_event","errors":[{"index":16,"pointer":"/metadata/a~1b","detail":"too deep"}]}`,
			"server answered 400 invalid_event: event 16: /metadata/a~1b: too deep"},
		{"wrong parameter", 400, json, `{"code":"invalid_request","detail":"limit: \"x\" is no number","errors":[{"parameter":"limit","detail":"\"x\" is no number"}]}`,
			`server answered 400 invalid_request: limit: "x" is no number`},
		{"fault of the whole", 400, json, `{"code":"invalid_event","errors":[{"pointer":"","detail":"not JSON"}]}`,
			"server answered 400 invalid_event: not JSON"},
		{"several faults", 400, json, `{"code":"invalid_event","detail":"2 faults","errors":[{"index":0,"pointer":"/a","detail":"x"},{"index":3,"pointer":"/b","detail":"y"}]}`,
			"server answered 400 invalid_event: 2 faults\n  event 0: /a: x\n  event 3: /b: y"},
		{"status line wins", 503, json, `{"status":200,"code":"busy"}`, "server answered 503 busy"},
		{"proxy's page", 502, http.Header{"Content-Type": {"text/html"}}, "<html>\n <b>Bad\tgateway</b>", "server answered 502 bad gateway: <html> <b>Bad gateway</b>"},
		{"broken problem", 500, json, `{"code":`, `server answered 500 internal server error: {"code":`},
		{"nothing", 500, http.Header{}, "", "server answered 500 internal server error"},
		{"terminal escapes", 400, json, `{"code":"x","detail":"\u001b[2Jboo\nnext"}`, `server answered 400 x: \u001b[2Jboo\u000anext`},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := parseProblem(row.status, row.header, []byte(row.body)).Error(); got != row.want {
				t.Errorf("got  %q\nwant %q", got, row.want)
			}
		})
	}
}

func TestLongBodyOfAProxyIsCut(t *testing.T) {
	got := parseProblem(502, http.Header{}, []byte(strings.Repeat("x", 5000))).Error()
	if len(got) > 300 || !strings.HasSuffix(got, "…") {
		t.Errorf("got %d bytes: %s", len(got), got)
	}
}
