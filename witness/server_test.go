package witness_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/merkle"
	"github.com/treeline-log/treeline/witness"
	"github.com/treeline-log/treeline/witness/sqlstate"
)

// Each status of add-checkpoint, and the sentence of C2SP tlog-witness that demands it. The witness has cosigned size 5 of log a, size 0
// of log z, and nothing of log n.
func TestStatusesOfAddCheckpoint(t *testing.T) {
	a, z, n := newLog(t, "example.com/a", 20), newLog(t, "example.com/z", 20), newLog(t, "example.com/n", 20)
	stranger := newLog(t, "example.com/stranger", 20)
	fork := a.forked(20)
	w := newWitness(t, options{}, a, z, n)
	w.mustAdd(t, a, 0, 5)
	w.mustAdd(t, z, 0, 0)

	// forged has the line of a signature by the log's key that isn't one.
	forged := func(l *testLog, size uint64) string {
		raw := make([]byte, 68)
		msg := l.note(t, l.text(size))
		_, sigs, err := checkpoint.ParseForeignNote([]byte(msg))
		if err != nil {
			t.Fatal(err)
		}
		key, err := base64.StdEncoding.DecodeString(sigs[0].Base64)
		if err != nil {
			t.Fatal(err)
		}
		copy(raw, key[:4])
		return l.text(size) + "\n— " + l.origin + " " + base64.StdEncoding.EncodeToString(raw) + "\n"
	}
	wrong := func(proof []merkle.Hash) []merkle.Hash {
		proof[0][0] ^= 1
		return proof
	}
	emptyText := func(l *testLog) string {
		return checkpoint.Checkpoint{Origin: l.origin, Size: 0, Root: merkle.Hash{1}}.Text()
	}
	impostor := newLog(t, a.origin, 20) // of the same origin and name, with a key that nobody trusts

	for _, row := range []struct {
		sentence string
		request  string
		status   int
		body     string // "": any
	}{
		{"Each line MUST terminate in a newline character (U+000A).",
			strings.TrimSuffix(a.request(t, 5, 10), "\n"), 400, ""},
		{"the tree size of the previous checkpoint encoded as an ASCII decimal with no leading zeroes",
			"old 05" + strings.TrimPrefix(a.request(t, 5, 10), "old 5"), 400, ""},
		{"The client MUST NOT send more than 63 consistency proof lines.",
			body(5, make([]merkle.Hash, 64), a.note(t, a.text(10))), 400, ""},
		{"The old size MUST be equal to or lower than the checkpoint size. Otherwise, the witness MUST respond with a \"400 Bad Request\"",
			body(6, nil, a.note(t, a.text(5))), 400, ""},
		{"If the checkpoint origin is unknown, the witness MUST respond with a \"404 Not Found\" HTTP status code.",
			stranger.request(t, 0, 5), 404, ""},
		{"(the origin is looked at before the signature)",
			body(0, nil, forged(stranger, 5)), 404, ""},
		{"The witness MUST respond with a \"403 Forbidden\" HTTP status code if either no signature from a trusted key for the origin is present",
			impostor.request(t, 5, 10), 403, ""},
		{"(nor does the signature of a trusted log count for the origin of another)",
			body(0, nil, a.note(t, n.text(5))), 403, ""},
		{"or a signature line's key name and ID match a trusted key but the signature itself fails to verify",
			body(5, a.proof(t, 5, 10), forged(a, 10)), 403, ""},
		{"(the signature is looked at before the sizes)",
			body(11, nil, forged(a, 10)), 403, ""},
		{"If it doesn't match, the witness MUST respond with a \"409 Conflict\" HTTP status code. The response body MUST consist of the " +
			"tree size of the latest cosigned checkpoint in decimal, followed by a newline (U+000A).",
			a.request(t, 3, 10), 409, "5\n"},
		{"If a client doesn't have information on the latest cosigned checkpoint, it MAY initially make a request with a old size of zero to obtain it.",
			a.request(t, 0, 10), 409, "5\n"},
		{"the size of the latest checkpoint it cosigned for the checkpoint's origin (or zero if it never cosigned a checkpoint for that origin)",
			n.request(t, 5, 10), 409, "0\n"},
		{"(a checkpoint of size zero that was cosigned is one of size zero)",
			z.request(t, 5, 10), 409, "0\n"},
		{"(the size that was cosigned is looked at before the proof)",
			body(4, wrong(a.proof(t, 4, 10)), a.note(t, a.text(10))), 409, "5\n"},
		{"A checkpoint of size zero MUST have the root hash of the empty tree […]. Otherwise, the witness MUST respond with a \"422 Unprocessable Entity\"",
			body(0, nil, n.note(t, emptyText(n))), 422, ""},
		{"(also where size zero was cosigned before)",
			body(0, nil, z.note(t, emptyText(z))), 422, ""},
		{"If the proof is not empty when the old size is zero […] the witness MUST respond with a \"422 Unprocessable Entity\"",
			body(0, make([]merkle.Hash, 1), n.note(t, n.text(5))), 422, ""},
		{"(from size zero to size zero, too)",
			body(0, make([]merkle.Hash, 1), z.note(t, z.text(0))), 422, ""},
		{"or if a Merkle Consistency Proof doesn't verify, the witness MUST respond with a \"422 Unprocessable Entity\"",
			body(5, wrong(a.proof(t, 5, 10)), a.note(t, a.text(10))), 422, ""},
		{"(a proof of too few hashes)",
			body(5, nil, a.note(t, a.text(10))), 422, ""},
		{"(a proof of too many)",
			body(5, append(a.proof(t, 5, 10), merkle.Hash{}), a.note(t, a.text(10))), 422, ""},
		{"(a proof that is right for the history of another)",
			fork.request(t, 5, 10), 422, ""},
		{"If the old size matches the checkpoint size, the witness MUST check that the root hashes are also identical. If they don't match, " +
			"the witness MUST respond with a \"422 Unprocessable Entity\" HTTP status code.",
			fork.request(t, 5, 5), 422, ""},
		{"(from a size to itself only the empty proof is one)",
			body(5, make([]merkle.Hash, 1), a.note(t, a.text(5))), 422, ""},
	} {
		got := w.add(t, row.request)
		if got.status != row.status || row.body != "" && got.body != row.body {
			t.Errorf("%s\n%s\ngot status %d, %q, want %d, %q", row.sentence, row.request, got.status, got.body, row.status, row.body)
		}
		// "The response MUST have a Content-Type of text/x.tlog.size."
		if is := got.header.Get("Content-Type") == "text/x.tlog.size"; is != (row.status == 409) {
			t.Errorf("%s\ngot status %d with Content-Type %q", row.sentence, got.status, got.header.Get("Content-Type"))
		}
		if strings.Contains(got.body, "—") {
			t.Errorf("%s\ngot a signature line in an answer that refuses: %q", row.sentence, got.body)
		}
	}
	for l, size := range map[*testLog]uint64{a: 5, z: 0, n: 0} {
		if got := w.size(t, l); got != size {
			t.Errorf("after all that %s is at size %d, want %d", l.origin, got, size)
		}
	}

	// "If all the checks above pass, the witness MUST update its record of the latest cosigned checkpoint and respond with a 200".
	w.mustAdd(t, a, 5, 5) // a refresh
	w.mustAdd(t, a, 5, 20)
	w.mustAdd(t, z, 0, 0)
	w.mustAdd(t, z, 0, 20) // "the empty tree is consistent with any tree, so no proof is necessary"
	w.mustAdd(t, n, 0, 1)
	w.mustAdd(t, n, 1, 20)
	// The old line of a repeated request no longer matches.
	if got := w.add(t, n.request(t, 1, 20)); got.status != 409 || got.body != "20\n" {
		t.Errorf("the same again: got %d %q, want 409", got.status, got.body)
	}
	if got := w.get(t, "/add-checkpoint"); got.status != http.StatusMethodNotAllowed {
		t.Errorf("\"The request MUST be an HTTP POST\": got status %d", got.status)
	}
}

// "It MUST ignore signatures from unknown keys", of which there may be many and large ones: a body of 16 signatures of 5 kB and 63
// lines of proof is taken, and what is much larger is refused before it is read.
func TestSizeOfRequests(t *testing.T) {
	l := newLog(t, "example.com/log", 10)
	w := newWitness(t, options{}, l)
	msg := l.note(t, l.text(5))
	for i := range 15 {
		msg += fmt.Sprintf("— witness-%d.example %s\n", i, base64.StdEncoding.EncodeToString(make([]byte, 5000)))
	}
	sent := body(0, nil, msg)
	a := w.add(t, sent)
	if a.status != 200 {
		t.Errorf("a request of %d bytes: got status %d %q", len(sent), a.status, a.body)
	}
	// What the witness serves has no signatures but the log's and its own.
	if got := w.get(t, "/"+l.hash()+"/checkpoint").body; strings.Contains(got, "witness-") {
		t.Errorf("the checkpoint served is %q", got)
	}
	if a := w.add(t, body(5, nil, msg)+strings.Repeat("x", 128<<10)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of more than 128 KiB: got status %d", a.status)
	}
}

// Several keys of one log, of several kinds and names, one after the other or at once: any one of them will do, each must be valid.
func TestKeysOfALog(t *testing.T) {
	const origin = "logs.example/logs/acme"
	l := newLog(t, origin, 20)
	l.addKey(t, origin)         // the next generation
	l.addKey(t, "another/name") // a key needn't have the name of the origin
	signer, vkey, err := checkpoint.Seed{9}.MLDSA44(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.signers, l.vkeys = append(l.signers, signer), append(l.vkeys, vkey)
	w := newWitness(t, options{mldsa: true}, l)
	w.mustAdd(t, l, 0, 1) // all four
	for i, size := range []uint64{2, 3, 4, 5} {
		one := *l
		one.signers = one.signers[i : i+1]
		w.mustAdd(t, &one, size-1, size)
		got := w.get(t, "/"+l.hash()+"/checkpoint").body
		if c, sigs, err := checkpoint.ParseForeignNote([]byte(got)); err != nil || c.Size != size || len(sigs) != 3 {
			t.Errorf("signed by key %d: got %v with %d signatures, %v, want size %d with 3", i, c, len(sigs), err, size)
		}
	}
	// Another one's key doesn't sign for the log, whatever its name.
	impostor := newLog(t, origin, 20)
	impostor.addKey(t, "another/name")
	if a := w.add(t, impostor.request(t, 5, 6)); a.status != 403 {
		t.Errorf("signed by unknown keys: got status %d", a.status)
	}
	// One valid signature doesn't make up for one that isn't.
	msg := l.note(t, l.text(6))
	i := strings.LastIndex(strings.TrimSuffix(msg, "\n"), "\n")
	broken := msg[:i+1] + strings.Replace(msg[i+1:], msg[len(msg)-80:len(msg)-60], strings.Repeat("A", 20), 1)
	if a := w.add(t, body(5, l.proof(t, 5, 6), broken)); a.status != 403 {
		t.Errorf("one of four signatures is invalid: got status %d %q", a.status, a.body)
	}
	w.mustAdd(t, l, 5, 6)
}

// Origins of others: with spaces, umlauts, and whatever else isn't a newline.
func TestForeignOrigins(t *testing.T) {
	for _, origin := range []string{"rekor.example - 2605736670972794746", "ö", "go.sum database tree", "a+b", strings.Repeat("x", 255)} {
		l := newLog(t, "key.example", 3)
		l.origin = origin
		w := newWitness(t, options{mldsa: true}, l)
		w.mustAdd(t, l, 0, 3)
		if got := w.size(t, l); got != 3 {
			t.Errorf("%q: got size %d, want 3", origin, got)
		}
	}
}

// "A witness SHOULD serve a recent checkpoint for each log it cosigned. […] it MUST include the cosignature(s) from the witness's
// key(s) that were returned from add-checkpoint and the cosignature from the log key(s) that the witness verified. If the witness has
// never cosigned a checkpoint for that log, it MUST respond with a 404".
func TestCheckpointServed(t *testing.T) {
	l := newLog(t, "example.com/log", 10)
	w := newWitness(t, options{mldsa: true}, l)
	path := "/" + l.hash() + "/checkpoint"
	if a := w.get(t, path); a.status != 404 {
		t.Errorf("before the first cosignature: got status %d", a.status)
	}
	w.add(t, body(0, make([]merkle.Hash, 1), l.note(t, l.text(5)))) // refused
	if a := w.get(t, path); a.status != 404 {
		t.Errorf("after a request that was refused: got status %d", a.status)
	}
	for _, size := range []uint64{0, 5, 5} {
		from := min(size, w.size(t, l))
		got := w.add(t, l.request(t, from, size))
		a := w.get(t, path)
		if want := l.note(t, l.text(size)) + got.body; a.status != 200 || a.body != want {
			t.Errorf("size %d: got status %d %q, want %q", size, a.status, a.body, want)
		}
		if ct := a.header.Get("Content-Type"); !strings.HasPrefix(ct, "text/plain") {
			t.Errorf("got Content-Type %q", ct)
		}
	}
	for _, path := range []string{"/" + strings.ToUpper(l.hash()) + "/checkpoint", "/" + l.hash()[1:] + "/checkpoint", "/example.com%2Flog/checkpoint"} {
		if a := w.get(t, path); a.status != 404 {
			t.Errorf("GET %s: got status %d, want 404", path, a.status)
		}
	}
}

// states are what the tests that are about the state run on.
func states(t *testing.T, fn func(t *testing.T, state, other witness.State)) {
	t.Run("sqlite", func(t *testing.T) {
		db := newSQLite(t)
		fn(t, db, db) // one file has one witness: it can only be two requests of one process
	})
	t.Run("postgres", func(t *testing.T) {
		url := pgtest.Database(t)
		open := func() witness.State {
			db, err := sqlstate.OpenPostgres(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			return db
		}
		fn(t, open(), open())
	})
}

// The race that the specification spells out:
//
//  1. Request A with size N is checked for consistency.
//  2. Request B with size N+K is checked for consistency.
//  3. The stored size is updated to N+K for request B.
//  4. A cosignature for N+K is returned to request B.
//  5. The stored size is updated to N for request A, *rolling back K leaves*.
//  6. A cosignature for N is returned to request A.
//
// Here A is answered with 409 and the size of B, and whatever forks off between the two is refused.
func TestRaceOfTwoRequests(t *testing.T) {
	states(t, func(t *testing.T, state, other witness.State) {
		l := newLog(t, "example.com/log", 20)
		a := newWitness(t, options{state: state}, l)
		b := newWitness(t, options{state: other}, l)
		b.Refresh()
		a.mustAdd(t, l, 0, 5)
		checked, goOn := a.stallOnce()
		answers := make(chan answer)
		go func() { answers <- a.add(t, l.request(t, 5, 8)) }()
		<-checked
		b.mustAdd(t, l, 5, 12)
		goOn()
		if got := <-answers; got.status != 409 || got.body != "12\n" {
			t.Errorf("request A: got status %d %q, want 409 with 12", got.status, got.body)
		}
		for _, w := range []*testWitness{a, b} {
			if got := w.size(t, l); got != 12 {
				t.Errorf("the witness went back to size %d, want 12", got)
			}
		}
		// The leaves between 8 and 12 can't be had once more in another form.
		fork := l.forked(20)
		if got := a.add(t, body(8, fork.proof(t, 8, 13), fork.note(t, fork.text(13)))); got.status != 409 {
			t.Errorf("a fork from size 8: got status %d", got.status)
		}
		a.mustAdd(t, l, 12, 15)
		b.mustAdd(t, l, 15, 16)
	})
}

// Two servers on one database that refresh the same checkpoint at the same time: the times of a log's cosignatures don't go back.
func TestRaceOfTwoClocks(t *testing.T) {
	states(t, func(t *testing.T, state, other witness.State) {
		l := newLog(t, "example.com/log", 5)
		a := newWitness(t, options{state: state}, l)
		b := newWitness(t, options{state: other}, l)
		b.Refresh()
		b.clock.now = a.clock.now.Add(3 * time.Second)
		a.mustAdd(t, l, 0, 5)
		checked, goOn := a.stallOnce()
		answers := make(chan answer)
		go func() { answers <- a.add(t, l.request(t, 5, 5)) }()
		<-checked
		b.mustAdd(t, l, 5, 5)
		goOn()
		got := <-answers
		if got.status != 200 {
			t.Fatalf("got status %d %q", got.status, got.body)
		}
		if at := times(t, l.note(t, l.text(5))+got.body, a.verifiers); at[0] != b.clock.now.Unix() {
			t.Errorf("cosigned at %d after a cosignature at %d", at[0], b.clock.now.Unix())
		}
	})
}

// times returns the times of the cosignatures of a note.
func times(t *testing.T, msg string, verifiers []note.Verifier) (at []int64) {
	t.Helper()
	n, err := note.Open([]byte(msg), note.VerifierList(verifiers...))
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range n.Sigs {
		when, err := checkpoint.CosignatureTime(sig)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, when.Unix())
	}
	return at
}

// A clock that is set back a little holds up nothing and is not believed; one that is set back by much is not signed with.
func TestTimesDoNotGoBack(t *testing.T) {
	l := newLog(t, "example.com/log", 10)
	w := newWitness(t, options{}, l)
	start := w.clock.now
	for i, row := range []struct {
		after  time.Duration // by the clock, since the start
		status int
		want   time.Duration
	}{
		{900 * time.Millisecond, 200, 0}, {2 * time.Second, 200, 2 * time.Second}, {time.Second, 200, 2 * time.Second},
		{-8 * time.Second, 200, 2 * time.Second}, {-9 * time.Second, 503, 0}, {-9 * time.Second, 503, 0}, {3 * time.Second, 200, 3 * time.Second},
	} {
		w.clock.now = start.Add(row.after)
		sent := l.request(t, min(uint64(i), 1), 1)
		got := w.add(t, sent)
		if got.status != row.status {
			t.Fatalf("%v after the start: got status %d %q, want %d", row.after, got.status, got.body, row.status)
		}
		if row.status != 200 {
			continue
		}
		if at := times(t, l.note(t, l.text(1))+got.body, w.verifiers); at[0] != start.Add(row.want).Unix() {
			t.Errorf("%v after the start: cosigned %d s after it, want %v", row.after, at[0]-start.Unix(), row.want)
		}
	}
	if got := w.metric(t, `treeline_witness_failures_total{attempted="clock"}`); got != 2 {
		t.Errorf("requests counted that the clock made fail: got %v, want 2", got)
	}
	w.Close()
	if got := strings.Count(w.logs.String(), "the clock is behind"); got != 1 {
		t.Errorf("the operator was told %d times within a minute, want once: %s", got, w.logs)
	}
}

// faulty is a state that fails: before it has done what it was asked to, or after.
type faulty struct {
	witness.State
	before, after bool
}

func (f *faulty) Update(ctx context.Context, origins []string, decide func(map[string]witness.Head) witness.Changes) error {
	if f.before {
		_ = f.State.Update(ctx, origins, func(heads map[string]witness.Head) witness.Changes {
			decide(heads) // the cosignature is made
			return witness.Changes{}
		})
		return errors.New("the disk is on fire")
	}
	err := f.State.Update(ctx, origins, decide)
	if f.after {
		return errors.New("the connection was lost at the commit")
	}
	return err
}

// "The witness MUST persist the new checkpoint before responding." Where that isn't certain there is no cosignature, and afterwards
// the client finds out from which size to go on.
func TestNothingIsAnsweredThatIsNotDurable(t *testing.T) {
	l := newLog(t, "example.com/log", 10)
	state := &faulty{State: newSQLite(t)}
	w := newWitness(t, options{state: state}, l)
	w.mustAdd(t, l, 0, 2)
	refused := func() {
		t.Helper()
		a := w.add(t, l.request(t, 2, 5))
		if a.status != http.StatusServiceUnavailable || strings.Contains(a.body, "—") || strings.Contains(a.body, "fire") ||
			a.header.Get("Retry-After") == "" {
			t.Errorf("got status %d %q, want 503 without a cosignature or a reason", a.status, a.body)
		}
	}
	ready := func(want int) {
		t.Helper()
		if a := w.do(t, http.MethodGet, w.ops.URL+"/readyz", ""); a.status != want || want != 200 && !strings.Contains(a.body, "the disk is on fire") {
			t.Errorf("/readyz: got status %d %q, want %d", a.status, a.body, want)
		}
	}
	ready(200)
	state.before = true
	refused()
	ready(503)
	state.before = false
	if a := w.add(t, l.request(t, 0, 5)); a.status != http.StatusConflict {
		t.Errorf("got status %d %q, want 409", a.status, a.body)
	}
	ready(503) // nothing was written since
	if got := w.size(t, l); got != 2 {
		t.Errorf("after a failure before the commit: size %d, want 2", got)
	}
	state.after = true
	refused()
	state.after = false
	if got := w.add(t, l.request(t, 2, 6)); got.status != 409 || got.body != "5\n" {
		t.Errorf("after a failure at the commit: got status %d %q, want 409 with 5", got.status, got.body)
	}
	w.mustAdd(t, l, 5, 6)
	ready(200)
	if got := w.metric(t, `treeline_witness_failures_total{attempted="commit"}`); got != 2 {
		t.Errorf("got %v failures, want 2", got)
	}
}

// On a full disk each batch fails. The operator is told at once, and then how many failed, not of each.
func TestAnOutageIsToldOnce(t *testing.T) {
	l := newLog(t, "example.com/log", 10)
	state := &faulty{State: newSQLite(t), before: true}
	w := newWitness(t, options{state: state}, l)
	for range 5 {
		if a := w.add(t, l.request(t, 0, 5)); a.status != http.StatusServiceUnavailable {
			t.Errorf("got status %d, want 503", a.status)
		}
	}
	state.before = false
	w.mustAdd(t, l, 0, 5)
	w.mustAdd(t, l, 5, 6)
	w.Close()
	text := w.logs.String()
	if strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "committed again") != 1 || !strings.Contains(text, "last_told=4") {
		t.Errorf("the operator was told:\n%s", text)
	}
}

// Who goes on failing is counted once a minute, and nothing that failed stays untold.
func TestOutagesAreCounted(t *testing.T) {
	var b bytes.Buffer
	o := witness.NewOutage(slog.New(slog.NewTextHandler(&b, nil)))
	start := time.Now()
	for _, x := range []struct {
		after int // seconds
		fails bool
		want  string // "": nothing is said
	}{
		{0, false, ""}, {1, true, "batches=1 requests=3"}, {2, true, ""}, {59, true, ""}, {62, true, "batches=3 requests=9"}, {63, true, ""},
		{64, false, "committed again"}, {65, false, ""}, {66, true, ""}, {67, false, ""}, {121, false, ""}, {122, false, "last_told=1 requests=3"},
		{123, true, "batches=1 requests=3"}, {124, false, "committed again"},
	} {
		b.Reset()
		if now := start.Add(time.Duration(x.after) * time.Second); x.fails {
			o.Failed(now, 3, errors.New("the disk is full"))
		} else {
			o.Committed(now)
		}
		if got := b.String(); (got == "") != (x.want == "") || !strings.Contains(got, x.want) {
			t.Errorf("after %d s: told %q, want %q", x.after, got, x.want)
		}
	}
}

// net/http recovers from a handler's panic. The handler of one request commits those of others, who must be told that they were not
// cosigned, and the next ones must not wait for it.
func TestPanicInABatch(t *testing.T) {
	logs := []*testLog{newLog(t, "example.com/0", 2), newLog(t, "example.com/1", 2), newLog(t, "example.com/2", 2)}
	w := newWitness(t, options{}, logs...)
	queued := func(n float64) {
		t.Helper()
		for w.metric(t, "treeline_witness_queue_requests") < n {
			time.Sleep(time.Millisecond)
		}
	}
	var calls atomic.Int32
	w.Stall(func() {
		switch calls.Add(1) {
		case 1:
			queued(2)
		case 2:
			panic("of the test")
		}
	})
	var wg sync.WaitGroup
	var status [3]int // 0: the connection was closed
	for i, l := range logs {
		body := l.request(t, 0, 1)
		wg.Go(func() {
			resp, err := w.client.Post(w.url+"/add-checkpoint", "", strings.NewReader(body))
			if err != nil {
				return
			}
			defer resp.Body.Close()
			status[i] = resp.StatusCode
		})
		switch i {
		case 0:
			for calls.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
		case 1:
			queued(1) // it stays there until the next one is there, too
		}
	}
	wg.Wait()
	if status != [3]int{200, 0, 503} {
		t.Errorf("got statuses %v, want 200, a closed connection, and 503", status)
	}
	for i, l := range logs[1:] {
		if got := w.size(t, l); got != 0 {
			t.Errorf("log %d is at size %d, want 0", i+1, got)
		}
		w.mustAdd(t, l, 0, 2)
	}
}

// Many requests at once, of many logs and many of one: each is answered as if it were alone, and no log goes back.
func TestConcurrentRequests(t *testing.T) {
	states(t, func(t *testing.T, state, other witness.State) {
		const logs, workers, size = 5, 4, 40
		var all []*testLog
		for i := range logs {
			all = append(all, newLog(t, fmt.Sprintf("example.com/%d", i), size))
		}
		servers := []*testWitness{newWitness(t, options{state: state}, all...), newWitness(t, options{state: other})}
		servers[1].Refresh()
		var wg sync.WaitGroup
		for i, l := range all {
			for j := range workers {
				w := servers[(i+j)%2]
				wg.Go(func() {
					at := uint64(0)
					for at < size {
						next := min(size, at+1+uint64(j))
						sent := l.request(t, at, next)
						switch a := w.add(t, sent); a.status {
						case 200:
							w.check(t, sent, a)
							at = next
						case 409:
							known, err := strconv.ParseUint(strings.TrimSuffix(a.body, "\n"), 10, 64)
							if err != nil || known < at {
								t.Errorf("the witness went back from %d to %q", at, a.body)
								return
							}
							at = known
						case 503: // others were faster six times in a row
						default:
							t.Errorf("got status %d %q", a.status, a.body)
							return
						}
					}
				})
			}
		}
		wg.Wait()
		for _, l := range all {
			if got := servers[0].size(t, l); got != size {
				t.Errorf("%s is at size %d, want %d", l.origin, got, size)
			}
		}
	})
}

// What a log's key has signed twice in different ways is kept, and shown.
func TestEvidence(t *testing.T) {
	states(t, func(t *testing.T, state, _ witness.State) {
		l := newLog(t, "example.com/log", 40)
		w := newWitness(t, options{state: state}, l)
		w.mustAdd(t, l, 0, 5)
		fork := l.forked(40)
		forkRequest := fork.request(t, 5, 5)
		for _, row := range []struct {
			request string
			status  int
		}{
			{forkRequest, 422},
			{forkRequest, 422},                              // once more, which is no news
			{fork.request(t, 3, 5), 409},                    // the same, found though the old size is wrong
			{fork.request(t, 5, 9), 422},                    // inconsistent
			{l.request(t, 3, 4), 409},                       // late, and honest
			{body(5, nil, l.note(t, "x\n"+l.text(6))), 400}, // not a checkpoint of the log at all
			{newLog(t, l.origin, 40).request(t, 5, 5), 403}, // not the log's
		} {
			if got := w.add(t, row.request); got.status != row.status {
				t.Errorf("%s\ngot status %d %q, want %d", row.request, got.status, got.body, row.status)
			}
		}
		for size := uint64(10); size < 30; size++ {
			w.add(t, fork.request(t, 5, size))
		}
		found, err := state.Evidence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kinds := make(map[witness.Conflict]int)
		for _, e := range found {
			kinds[e.Conflict]++
			if want := fork.note(t, fork.text(e.Refused.Size)); string(e.Note) != want {
				t.Errorf("got the note %q, want %q", e.Note, want)
			}
			// Both notes have the log's signature: that is what makes them evidence.
			w.checkNote(t, string(e.Cosigned), 1)
			c, _, err := checkpoint.ParseForeignNote(e.Cosigned)
			if err != nil || c.Size != 5 || c.Root != l.roots[5] || e.Head.Size != 5 || e.Head.Root != l.roots[5] {
				t.Errorf("beside it: %v, %v, %+v, want what was cosigned", c, err, e.Head)
			}
		}
		if kinds[witness.ConflictFork] != 1 || kinds[witness.ConflictInconsistent] != witness.MaxEvidence || len(kinds) != 2 {
			t.Errorf("got %v, want one fork and %d that are inconsistent", kinds, witness.MaxEvidence)
		}
		if string(found[0].Proof)+"\n"+string(found[0].Note) != forkRequest {
			t.Errorf("the request isn't what was sent: %q %q", found[0].Proof, found[0].Note)
		}
		if got := w.metric(t, `treeline_witness_contradictions_total{conflict="fork"}`); got != 3 {
			t.Errorf("the metric counts %v forks, want 3", got)
		}
		w.mustAdd(t, l, 5, 9) // the honest history goes on
	})
}

// A log that asks for cosignatures on two trees at once, which are then decided on together: one is cosigned, and kept as what the
// other one contradicts.
func TestEvidenceOfOneBatch(t *testing.T) {
	states(t, func(t *testing.T, state, _ witness.State) {
		l, other := newLog(t, "example.com/log", 9), newLog(t, "example.com/other", 5)
		fork := l.forked(9)
		w := newWitness(t, options{state: state}, l, other)
		checked, goOn := w.stallOnce()
		var wg sync.WaitGroup
		wg.Go(func() { w.mustAdd(t, other, 0, 5) })
		<-checked
		for i, send := range []func(){
			func() { w.mustAdd(t, l, 0, 5) },
			func() {
				if got := w.add(t, fork.request(t, 0, 5)); got.status != 409 || got.body != "5\n" {
					t.Errorf("the fork: got status %d %q, want 409", got.status, got.body)
				}
			},
			func() { w.mustAdd(t, l, 5, 9) }, // after which the row has another note
		} {
			wg.Go(send)
			for w.metric(t, "treeline_witness_queue_requests") < float64(i+1) {
				time.Sleep(time.Millisecond)
			}
		}
		goOn()
		wg.Wait()
		found, err := state.Evidence(t.Context())
		if err != nil || len(found) != 1 || found[0].Conflict != witness.ConflictFork {
			t.Fatalf("got %+v, %v, want one fork", found, err)
		}
		if want := l.note(t, l.text(5)); !strings.HasPrefix(string(found[0].Cosigned), want) {
			t.Fatalf("beside it: %q, want what begins with %q", found[0].Cosigned, want)
		}
		w.checkNote(t, string(found[0].Cosigned), 1)
	})
}

func TestEvidenceOfAnEmptyTree(t *testing.T) {
	l := newLog(t, "example.com/log", 5)
	w := newWitness(t, options{}, l)
	text := checkpoint.Checkpoint{Origin: l.origin, Root: merkle.Hash{1}}.Text()
	if a := w.add(t, body(0, nil, l.note(t, text))); a.status != 422 {
		t.Errorf("got status %d", a.status)
	}
	found, err := w.state.Evidence(t.Context())
	if err != nil || len(found) != 1 || found[0].Conflict != witness.ConflictEmpty || found[0].Cosigned != nil {
		t.Errorf("got %+v, %v, want one of an empty tree", found, err)
	}
}

// Limits count what a log's key has signed, so that nobody can use up those of another's log.
func TestLimitOfALog(t *testing.T) {
	l, other := newLog(t, "example.com/log", 30), newLog(t, "example.com/other", 30)
	state := newSQLite(t)
	for _, k := range []witness.LogKey{{Origin: l.origin, VKey: l.vkeys[0], QPD: 24}, {Origin: other.origin, VKey: other.vkeys[0]}} {
		if _, err := state.AddKeys(t.Context(), []witness.LogKey{k}, true); err != nil {
			t.Fatal(err)
		}
	}
	w := newWitness(t, options{state: state})
	impostor := newLog(t, l.origin, 30)
	for range 30 {
		if a := w.add(t, impostor.request(t, 0, 1)); a.status != 403 {
			t.Fatalf("got status %d", a.status)
		}
	}
	for size := range uint64(10) {
		w.mustAdd(t, l, size, size+1)
	}
	a := w.add(t, l.request(t, 10, 11))
	if wait, err := strconv.Atoi(a.header.Get("Retry-After")); a.status != http.StatusTooManyRequests || err != nil || wait != 3600 {
		t.Errorf("the eleventh at once: got status %d, Retry-After %q, want 429 and an hour", a.status, a.header.Get("Retry-After"))
	}
	w.mustAdd(t, other, 0, 1)
	w.clock.now = w.clock.now.Add(time.Hour)
	w.mustAdd(t, l, 10, 11)
	if a := w.add(t, l.request(t, 11, 12)); a.status != http.StatusTooManyRequests {
		t.Errorf("the second after an hour: got status %d", a.status)
	}
}

func TestLimitOfTheWitness(t *testing.T) {
	l := newLog(t, "example.com/log", 30)
	w := newWitness(t, options{rate: 3}, l)
	for size := range uint64(3) {
		w.mustAdd(t, l, size, size+1)
	}
	if a := w.add(t, l.request(t, 3, 4)); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "1" {
		t.Errorf("got status %d, Retry-After %q, want 429", a.status, a.header.Get("Retry-After"))
	}
	w.clock.now = w.clock.now.Add(time.Second)
	w.mustAdd(t, l, 3, 4)
}

// The page for people shows everything, and nothing of it is believed to be harmless.
func TestPage(t *testing.T) {
	hostile := newLog(t, "key.example", 5)
	hostile.origin = `<script>alert(1)</script>&"'`
	l := newLog(t, "example.com/log", 12345)
	w := newWitness(t, options{mldsa: true}, hostile, l)
	w.mustAdd(t, l, 0, 12345)
	a := w.get(t, "/")
	if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Fatalf("got status %d, %q", a.status, a.header.Get("Content-Type"))
	}
	for _, want := range append(w.VKeys(), witnessName, "example.com/log", "12345", "2027-01-15 08:00:00 UTC", l.hash()+"/checkpoint",
		hostile.origin, "never", "2 logs") {
		if !strings.Contains(html.UnescapeString(a.body), want) {
			t.Errorf("the page lacks %q:\n%s", want, a.body)
		}
	}
	if strings.Contains(a.body, "<script>alert") {
		t.Errorf("the page has what a log's origin said:\n%s", a.body)
	}
	if csp := a.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "script-src") {
		t.Errorf("got Content-Security-Policy %q", csp)
	}
	if a := w.get(t, "/nothing"); a.status != 404 {
		t.Errorf("got status %d, want 404", a.status)
	}
}

func TestPageOfManyLogs(t *testing.T) {
	w := newWitness(t, options{})
	l := newLog(t, "example.com/log", 1)
	var keys []witness.LogKey
	for i := range 1001 {
		keys = append(keys, witness.LogKey{Origin: fmt.Sprintf("origin & %04d", i), VKey: l.vkeys[0]})
	}
	if _, err := w.state.AddKeys(t.Context(), keys, true); err != nil {
		t.Fatal(err)
	}
	w.Refresh()
	seen, path := 0, "/"
	for pages := 0; path != ""; pages++ {
		a := w.get(t, path)
		seen += strings.Count(a.body, "<td>origin &amp; ")
		_, rest, more := strings.Cut(a.body, `<p><a href="`)
		if path = ""; more {
			next, _, _ := strings.Cut(rest, `"`)
			path = "/" + html.UnescapeString(next)
		}
		if pages > 3 {
			t.Fatal("the pages don't end")
		}
	}
	if seen != 1001 {
		t.Errorf("got %d logs on all pages, want 1001", seen)
	}
}

// What no database takes is the asker's fault, and not the state's.
func TestPageAfterNothing(t *testing.T) {
	states(t, func(t *testing.T, state, _ witness.State) {
		w := newWitness(t, options{state: state})
		for _, after := range []string{"%00", "%ff"} {
			if a := w.get(t, "/?after="+after); a.status != http.StatusBadRequest {
				t.Errorf("after %s: got status %d %q, want 400", after, a.status, a.body)
			}
		}
	})
}

func TestOps(t *testing.T) {
	l := newLog(t, "example.com/log", 5)
	w := newWitness(t, options{}, l)
	w.mustAdd(t, l, 0, 5)
	w.add(t, "nonsense")
	for name, want := range map[string]float64{
		`treeline_witness_requests_total{status="200"}`: 1, `treeline_witness_requests_total{status="400"}`: 1,
		"treeline_witness_logs": 1, "treeline_witness_queue_requests": 0, "treeline_witness_batch_requests_sum": 1,
	} {
		if got := w.metric(t, name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if a := w.do(t, http.MethodGet, w.ops.URL+"/readyz", ""); a.status != 200 || a.body != "ready\n" {
		t.Errorf("/readyz: got %d %q", a.status, a.body)
	}
	if err := w.state.(*sqlstate.DB).Close(); err != nil {
		t.Fatal(err)
	}
	if a := w.do(t, http.MethodGet, w.ops.URL+"/readyz", ""); a.status != 503 {
		t.Errorf("/readyz without a state: got %d %q", a.status, a.body)
	}
	if a := w.get(t, "/metrics"); a.status != 404 {
		t.Errorf("/metrics in public: got status %d", a.status)
	}
}

// A list makes logs known, and does nothing else: no key is added to a log that is known, nothing is changed, nothing removed. A list
// that is invalid or gone does nothing at all.
func TestListsAddLogsAndNothingElse(t *testing.T) {
	known, listed, later := newLog(t, "example.com/known", 5), newLog(t, "example.com/listed", 5), newLog(t, "example.com/later", 5)
	block := func(l *testLog) string {
		return "vkey " + l.vkeys[0] + "\norigin " + l.origin + "\nqpd 10\ncontact me\n"
	}
	takeover := newLog(t, known.origin, 5) // another key of a log that is known
	var mu sync.Mutex
	list := "logs/v0\n" + block(listed) + block(takeover)
	fetched := 0
	lists := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			http.NotFound(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprint(w, list)
		fetched++
	}))
	defer lists.Close()
	w := newWitness(t, options{}, known)
	w.PollLists([]string{lists.URL + "/gone", lists.URL}, 10*time.Millisecond)
	becomes := func(l *testLog, want int) {
		t.Helper()
		sent := l.request(t, w.size(t, l), 5)
		for deadline := time.Now().Add(30 * time.Second); w.add(t, sent).status != want; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %d, want %d", l.origin, w.add(t, sent).status, want)
			}
		}
	}
	set := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		list = text
		// When it is fetched for the second time, what it says has been done or not.
		for before := fetched; fetched < before+2; {
			mu.Unlock()
			time.Sleep(5 * time.Millisecond)
			mu.Lock()
		}
	}
	becomes(listed, 200)
	w.mustAdd(t, known, 0, 5)
	if a := w.add(t, takeover.request(t, 5, 5)); a.status != 403 {
		t.Errorf("a key that a list gave to a log that was known: got status %d, want 403", a.status)
	}
	set("logs/v0\n" + block(later) + "nonsense\n")
	if a := w.add(t, later.request(t, 0, 5)); a.status != 404 {
		t.Errorf("a log of an invalid list: got status %d, want 404", a.status)
	}
	set("logs/v0\n" + block(later)) // the other one is gone from it
	becomes(later, 200)
	w.mustAdd(t, listed, 5, 5)
	keys, err := w.state.Keys(t.Context(), 0)
	if err != nil || len(keys) != 3 {
		t.Errorf("got keys %+v, %v, want 3", keys, err)
	}
}

// Whoever keeps a list can't make the witness know more logs than its operator allows.
func TestListsAddLogsUpToALimit(t *testing.T) {
	first, second, third := newLog(t, "example.com/1", 5), newLog(t, "example.com/2", 5), newLog(t, "example.com/3", 5)
	first.addKey(t, first.origin)
	list := "logs/v0\n"
	for _, l := range []*testLog{third, second, first} {
		for _, vkey := range l.vkeys {
			list += "vkey " + vkey + "\nqpd 10\ncontact me\n"
		}
	}
	lists := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, list) }))
	defer lists.Close()
	w := newWitness(t, options{most: 3}, newLog(t, "example.com/known", 5))
	w.PollLists([]string{lists.URL}, 10*time.Millisecond)
	failed := func() float64 { return w.metric(t, `treeline_witness_failures_total{attempted="list"}`) }
	for deadline := time.Now().Add(30 * time.Second); failed() < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing tells that a list has more logs than are taken")
		}
	}
	w.mustAdd(t, first, 0, 5)
	w.mustAdd(t, second, 0, 5)
	if a := w.add(t, third.request(t, 0, 5)); a.status != 404 {
		t.Errorf("a log beyond the limit: got status %d, want 404", a.status)
	}
	if got := w.metric(t, "treeline_witness_logs"); got != 3 {
		t.Errorf("logs known: got %v, want 3", got)
	}
	w.Close()
	if got := w.logs.String(); !strings.Contains(got, "1 of its logs were not added") || !strings.Contains(got, "--list-max-logs") {
		t.Errorf("the operator isn't told what to do: %s", got)
	}
	// By hand there is no limit.
	if added, err := w.state.AddKeys(t.Context(), third.keys(), true); err != nil || added != 1 {
		t.Errorf("added by hand: got %d, %v, want 1", added, err)
	}
}
