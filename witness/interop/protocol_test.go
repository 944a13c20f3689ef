package interop

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// wrong is a hash that is in no tree.
var wrong = tlog.RecordHash([]byte("something else"))

// requests are what a log may send to a witness that has cosigned before, and how C2SP tlog-witness has it answered. What witnesses
// that are not ours answer otherwise is listed, so that a new version of theirs shows what changes for a log that they witness.
var requests = []struct {
	what   string
	before int64 // the size that the witness has cosigned, or 0
	body   func(l *aLog) string
	status int
	others map[string]int
}{
	{"the first checkpoint", 0, func(l *aLog) string { return l.request(0, 5) }, 200, nil},
	{"the empty tree", 0, func(l *aLog) string { return l.request(0, 0) }, 200, nil},
	{"a larger tree", 5, func(l *aLog) string { return l.request(5, 300) }, 200, nil},
	{"the same checkpoint again", 5, func(l *aLog) string { return l.request(5, 5) }, 200, nil},

	// "The request body MUST be a sequence of a previous size line, zero or more consistency proof lines, an empty line, and a
	// checkpoint." "If it doesn't match" – the old size is above that of the checkpoint – "… a 400 Bad Request HTTP status code".
	{"nothing after the old size", 0, func(*aLog) string { return "old 0\n" }, 400, nil},
	{"no old size", 0, func(l *aLog) string { return "\n" + l.checkpoint(5, l.root(5)) }, 400, nil},
	{"an old size above that of the checkpoint", 5, func(l *aLog) string { return "old 5\n\n" + l.checkpoint(4, l.root(4)) }, 400, nil},

	// "If the checkpoint origin is unknown, the witness MUST respond with a 404 Not Found".
	{"a log that it doesn't know", 0, func(l *aLog) string {
		unknown := newLog(l.t, l.origin+"/unknown")
		return unknown.request(0, 0)
	}, 404, map[string]int{"omniwitness": 500}},

	// "If none of the signatures verify against a trusted public key, the witness MUST respond with a 403 Forbidden".
	{"a checkpoint that another key signed", 0, func(l *aLog) string {
		stranger := newLog(l.t, l.origin)
		return stranger.request(0, 0)
	}, 403, map[string]int{"omniwitness": 500}},
	{"a signature that fails", 0, func(l *aLog) string {
		return strings.Replace(l.request(0, 5), fmt.Sprint(l.root(5)), wrong.String(), 1)
	}, 403, map[string]int{"omniwitness": 500}},

	// "The witness MUST check that the old size matches the size of the latest checkpoint it cosigned for the checkpoint's origin
	// (or zero if it never cosigned a checkpoint for that origin). If it doesn't match, … 409 Conflict".
	{"an old size that it never cosigned", 0, func(l *aLog) string { return l.request(3, 5) }, 409, map[string]int{"omniwitness": 200}},
	{"an old size below what it cosigned", 5, func(l *aLog) string { return l.request(3, 300) }, 409, nil},
	{"an old size of nothing, which asks for the right one", 5, func(l *aLog) string { return l.request(0, 300) }, 409, nil},
	{"a smaller tree", 5, func(l *aLog) string { return l.request(3, 4) }, 409, nil},

	// "If the proof doesn't verify" – also when there is nothing to prove, or two roots of one size – "… 422 Unprocessable Entity".
	{"another root of the same size", 5, func(l *aLog) string { return "old 5\n\n" + l.checkpoint(5, wrong) }, 422, nil},
	{"a larger tree that doesn't extend the one before", 5, func(l *aLog) string {
		return strings.Replace(l.request(5, 300), l.checkpoint(300, l.root(300)), l.checkpoint(300, wrong), 1)
	}, 422, nil},
	{"a larger tree with no proof", 5, func(l *aLog) string { return "old 5\n\n" + l.checkpoint(300, l.root(300)) }, 422, nil},
	{"a proof from nothing", 0, func(l *aLog) string {
		return fmt.Sprintf("old 0\n%s\n\n%s", wrong, l.checkpoint(5, l.root(5)))
	}, 422, map[string]int{"litewitness": 200, "omniwitness": 200}},
	{"an empty tree with the root of another", 0, func(l *aLog) string { return "old 0\n\n" + l.checkpoint(0, wrong) }, 422,
		map[string]int{"litewitness": 200}},
}

func TestProtocol(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(witnesses)) {
		t.Run(name, func(t *testing.T) {
			var logs []*aLog
			for i := range requests {
				l := newLog(t, fmt.Sprintf("interop.example/%d", i))
				l.grow(300)
				logs = append(logs, l)
			}
			w := witnesses[name](t, logs...)
			for i, request := range requests {
				l := logs[i]
				if request.before > 0 {
					w.cosigned(t, l.checkpoint(request.before, l.root(request.before)), w.addCheckpoint(t, l.request(0, request.before)))
				}
				want := request.status
				if status, ok := request.others[name]; ok {
					want = status
				}
				body := request.body(l)
				a := w.addCheckpoint(t, body)
				if a.status != want {
					t.Errorf("%s: got %v, want %d", request.what, a, want)
				}
				switch a.status {
				case http.StatusOK:
					_, signed, _ := strings.Cut(body, "\n\n")
					w.cosigned(t, signed, a)
				case http.StatusConflict:
					if a.contentType != "text/x.tlog.size" || a.body != fmt.Sprintln(request.before) {
						t.Errorf("%s: got %v, want the size %d", request.what, a, request.before)
					}
				}
			}
		})
	}
}
