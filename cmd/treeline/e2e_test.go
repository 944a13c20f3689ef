package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// sample returns the step in which a test goes through thousands of like things: 1 in the long campaigns.
func sample() int {
	if long() {
		return 1
	}
	return 7
}

// realEvents returns the 2,200 real events, a line each (log/testdata/LICENSE.cloudtrail-events).
func realEvents(t *testing.T) [][]byte {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "log", "testdata", "cloudtrail-events.ndjson.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	if len(lines) != 2200 {
		t.Fatalf("got %d events, want 2200", len(lines))
	}
	return lines
}

// compressed returns data as gzip has it.
func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What goes in over HTTP, in whatever way, comes back in whatever way, and all of it can be proven to somebody who has
// nothing but the log's verifier key.
func TestRealEventsOverHTTP(t *testing.T) {
	lines := realEvents(t)
	dir := t.TempDir()
	p := serving(t, dir, "--checkpoint-interval", "50ms")
	records := appendRealEvents(t, p, lines)
	var head logPage
	for head.Sizes.Signed < uint64(len(lines)) {
		p.mustGetJSON(t, "/v1/checkpoint", &head)
		time.Sleep(10 * time.Millisecond)
	}
	vkey := head.VKeys[0]

	t.Run("come back", func(t *testing.T) { checkReads(t, p, records) })
	t.Run("are proven offline", func(t *testing.T) {
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		var g errgroup.Group
		g.SetLimit(4)
		for _, r := range records {
			g.Go(func() error {
				file, err := p.get("/v1/events/" + r.ID + "/proof")
				if err != nil {
					return err
				}
				return checkProofFile(file, verifier, r)
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("are in every tree", func(t *testing.T) { checkProofs(t, p, vkey, records) })
	t.Run("pass fsck", func(t *testing.T) {
		mustFsck(t, dir)
		if err := p.stop(); err != nil {
			t.Fatal(err)
		}
		mustFsck(t, dir)
	})
}

// appendRealEvents sends the first half of lines one by one, and the second in batches, every other one compressed. It
// returns the records that must come back: the answers to single events, and what the answers to batches amount to.
func appendRealEvents(t *testing.T, p *process, lines [][]byte) []storedRecord {
	t.Helper()
	credential := strings.Split(p.key, "_")[1]
	event := func(line []byte) *log.Event {
		e, err := log.ParseEvent(line, log.ParseOptions{Now: time.Now(), Credential: credential})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	var records []storedRecord
	half := len(lines) / 2
	for _, line := range lines[:half] {
		var r storedRecord
		p.mustPost(t, "/v1/events", string(line), http.StatusCreated, &r)
		if want := event(line); r.ID != want.ID() || !bytes.Equal(r.Event, want.JSON()) || r.Index != uint64(len(records)) {
			t.Fatalf("event %d is answered with\n%s at %d, want\n%s", len(records), r.Event, r.Index, want.JSON())
		}
		records = append(records, r)
	}
	n := 0
	for batch := range slices.Chunk(lines[half:], 100) {
		body, header := bytes.Join(batch, []byte("\n")), []string{"Content-Type", "application/x-ndjson"}
		if n++; n%2 == 0 {
			body, header = compressed(t, body), append(header, "Content-Encoding", "gzip")
		}
		a, err := p.call(http.MethodPost, "/v1/events/batch", body, header...)
		if err != nil || a.status != http.StatusCreated {
			t.Fatalf("batch %d: %v, %v", n, a, err)
		}
		var answer struct {
			Log  string
			Data []storedRecord
		}
		if err := json.Unmarshal(a.body, &answer); err != nil || len(answer.Data) != len(batch) {
			t.Fatalf("batch of %d is answered with %s, %v", len(batch), a.body, err)
		}
		for i, r := range answer.Data {
			want := event(batch[i])
			if r.ID != want.ID() || r.Index != uint64(len(records)) {
				t.Fatalf("event %s of batch %d stands at %d as %s, want %d", want.ID(), n, r.Index, r.ID, len(records))
			}
			r.Log, r.Event = answer.Log, want.JSON()
			records = append(records, r)
		}
	}
	return records
}

// checkReads reads everything in every way there is, and compares.
func checkReads(t *testing.T, p *process, want []storedRecord) {
	t.Helper()
	compare := func(what string, got []storedRecord) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: got %d records, want %d", what, len(got), len(want))
		}
		for i, r := range got {
			if want[i].Seed == "" { // the answer to a batch doesn't have it
				want[i].Seed = r.Seed
			}
			if d := r.differs(want[i]); d != "" {
				t.Fatalf("%s: record %d is not what was acknowledged: %s", what, i, d)
			}
			if err := checkRecord(r); err != nil {
				t.Fatalf("%s: record %d: %v", what, i, err)
			}
		}
	}
	compare("feed", feed(t, p, "default"))
	compare("oldest first", pages(t, p, "/v1/events?order=oldest&limit=300"))
	newest := pages(t, p, "/v1/events?limit=333")
	slices.Reverse(newest)
	compare("newest first", newest)
	for i := 0; i < len(want); i += sample() {
		var got storedRecord
		p.mustGetJSON(t, "/v1/events/"+want[i].ID, &got)
		if d := got.differs(want[i]); d != "" {
			t.Fatalf("event %d by its id is not what was acknowledged: %s", i, d)
		}
	}
}

// checkRecord recomputes a record's leaf hash from its content alone.
func checkRecord(r storedRecord) error {
	event, err := log.ParseStored(r.Event)
	if err != nil {
		return err
	}
	seed, err := parseHash(r.Seed) // as long as a hash, and shown like one
	if err != nil {
		return err
	}
	at, err := time.Parse(time.RFC3339Nano, r.ReceivedAt)
	if err != nil {
		return err
	}
	previous, err := parseHash(r.Previous)
	if err != nil {
		return err
	}
	entry := log.Entry{ReceivedAt: at.UnixMicro(), Previous: previous, Digest: event.Digest((*[32]byte)(&seed))}
	if got := merkle.LeafHash(entry.Append(nil)).String(); got != r.Hash || event.ID() != r.ID {
		return fmt.Errorf("event %s has leaf hash %s, the record says %s of %s", event.ID(), got, r.Hash, r.ID)
	}
	return nil
}

// feed reads a log from its beginning as a SIEM does.
func feed(t *testing.T, p *process, name string) (records []storedRecord) {
	t.Helper()
	for from := uint64(0); ; {
		var page struct {
			Data       []storedRecord
			Next, Size uint64
		}
		p.mustGetJSON(t, fmt.Sprintf("/v1/feed?log=%s&from=%d&timeout=0s", name, from), &page)
		if page.Next != from+uint64(len(page.Data)) {
			t.Fatalf("feed of %s from %d: %d records, next %d", name, from, len(page.Data), page.Next)
		}
		records = append(records, page.Data...)
		if from = page.Next; from == page.Size {
			return records
		}
	}
}

// pages follows the cursors of a list from the page at path to the last.
func pages(t *testing.T, p *process, path string) (records []storedRecord) {
	t.Helper()
	for next := path; ; {
		var page struct {
			Data       []storedRecord
			NextCursor *string `json:"next_cursor"`
			HasMore    bool    `json:"has_more"`
		}
		p.mustGetJSON(t, next, &page)
		records = append(records, page.Data...)
		if !page.HasMore {
			if page.NextCursor != nil {
				t.Errorf("the last page of %s has a cursor", path)
			}
			return records
		}
		next = path + "&cursor=" + *page.NextCursor
	}
}

// checkProofFile verifies a proof file under one key, and that it proves the record.
func checkProofFile(file []byte, verifier note.Verifier, r storedRecord) error {
	v, err := log.VerifyProof(file, log.Trust{Keys: []note.Verifier{verifier}})
	if err != nil {
		return fmt.Errorf("proof of %s: %w", r.ID, err)
	}
	if v.Index != r.Index || v.Leaf.String() != r.Hash || !bytes.Equal(v.Event(), r.Event) {
		return fmt.Errorf("proof of %s proves entry %d: %s, want %d: %s", r.ID, v.Index, v.Event(), r.Index, r.Event)
	}
	return nil
}

// checkProofs asks for proofs between all kinds of sizes, and verifies them against the roots of the records' own leaf
// hashes.
func checkProofs(t *testing.T, p *process, vkey string, records []storedRecord) {
	t.Helper()
	size := uint64(len(records))
	roots, leaves := rootsOf(t, records)
	for i := uint64(0); i < size; i += uint64(sample()) {
		of := i + 1 + rand.Uint64N(size-i) // a size that has the entry
		var a proofAnswer
		p.mustGetJSON(t, fmt.Sprintf("/v1/proofs/inclusion?index=%d&size=%d", i, of), &a)
		hashes, err := a.proof()
		if err != nil {
			t.Fatal(err)
		}
		if a.Index != i || a.Size != of || a.Hash != leaves[i].String() || a.Root != roots[of].String() {
			t.Fatalf("inclusion of %d in %d: %+v, want hash %v and root %v", i, of, a, leaves[i], roots[of])
		}
		if err := merkle.VerifyInclusion(i, of, leaves[i], hashes, roots[of]); err != nil {
			t.Fatal(err)
		}
		checkNote(t, vkey, a.Checkpoint, roots)
	}
	for range 400 / sample() {
		to := 1 + rand.Uint64N(size)
		from := rand.Uint64N(to + 1)
		checkConsistency(t, p, "default", vkey, from, to, roots)
	}
	for _, path := range []string{
		fmt.Sprintf("/v1/proofs/inclusion?index=%d", size), fmt.Sprintf("/v1/proofs/inclusion?index=0&size=%d", size+1),
		fmt.Sprintf("/v1/proofs/consistency?from=0&to=%d", size+1), "/v1/proofs/consistency?from=7&to=6",
		"/v1/proofs/inclusion?index=6&size=6", "/v1/proofs/inclusion?index=-1", "/v1/proofs/consistency?from=01&to=6",
	} {
		if a, err := p.call(http.MethodGet, path, nil); err != nil || a.status < 400 || a.status > 499 {
			t.Errorf("GET %s: %d %s, %v; want a refusal", path, a.status, a.body, err)
		}
	}
}

// rootsOf returns the roots of all sizes up to the records', and their leaf hashes.
func rootsOf(t *testing.T, records []storedRecord) (roots, leaves []merkle.Hash) {
	t.Helper()
	tree := merkle.NewRange()
	roots = append(roots, tree.Root())
	for _, r := range records {
		leaf, err := parseHash(r.Hash)
		if err != nil {
			t.Fatal(err)
		}
		tree.Append(leaf, nil)
		roots, leaves = append(roots, tree.Root()), append(leaves, leaf)
	}
	return roots, leaves
}

// checkConsistency verifies a consistency proof of the server's against known roots.
func checkConsistency(t *testing.T, p *process, name, vkey string, from, to uint64, roots []merkle.Hash) {
	t.Helper()
	var a proofAnswer
	p.mustGetJSON(t, fmt.Sprintf("/v1/proofs/consistency?log=%s&from=%d&to=%d", name, from, to), &a)
	hashes, err := a.proof()
	if err != nil {
		t.Fatal(err)
	}
	if a.From != from || a.To != to || a.RootFrom != roots[from].String() || a.RootTo != roots[to].String() {
		t.Fatalf("consistency from %d to %d: %+v, want roots %v and %v", from, to, a, roots[from], roots[to])
	}
	if err := merkle.VerifyConsistency(from, to, hashes, roots[from], roots[to]); err != nil {
		t.Fatal(err)
	}
	checkNote(t, vkey, a.Checkpoint, roots)
}

// checkNote verifies a checkpoint's signature and its root, and returns it.
func checkNote(t *testing.T, vkey, msg string, roots []merkle.Hash) checkpoint.Checkpoint {
	t.Helper()
	c, err := openNote(vkey, msg)
	if err != nil {
		t.Fatal(err)
	}
	if c.Size >= uint64(len(roots)) || c.Root != roots[c.Size] {
		t.Fatalf("checkpoint of size %d with root %v isn't one of the log's %d entries", c.Size, c.Root, len(roots)-1)
	}
	return c
}
