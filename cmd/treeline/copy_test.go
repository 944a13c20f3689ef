package main

import (
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/log/postgres"
	"github.com/treeline-log/treeline/log/postgres/pgtest"
	"github.com/treeline-log/treeline/merkle"
)

// A store that outgrows its file is moved to PostgreSQL by a copy that is killed again and again: at no time could both be
// served, all that was acknowledged comes back, old proofs stay valid, and new checkpoints extend the old ones.
func TestAStoreOutgrowsItsFile(t *testing.T) {
	lines := realEvents(t)
	dir, url := t.TempDir(), pgtest.Start(t).Database(t)
	p := serving(t, dir, "--checkpoint-interval", "20ms")
	records := appendRealEvents(t, p, lines)
	for _, name := range []string{"empty", "other"} {
		p.mustPost(t, "/v1/logs", `{"name":"`+name+`"}`, http.StatusCreated, &struct{}{})
	}
	grow(t, p, "other", 0, 10)
	var before logPage
	for before.Sizes.Signed < uint64(len(lines)) {
		p.mustGetJSON(t, "/v1/checkpoint", &before)
		time.Sleep(10 * time.Millisecond)
	}
	proof, err := p.get("/v1/events/" + records[1000].ID + "/proof")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}

	command := []string{"migrate", "copy", "--from", "sqlite:" + dir + "/treeline.db", "--to", url}
	mustFail := func(want string, args ...string) {
		t.Helper()
		code, out, err := treeline(args...)
		if err != nil || code != exitFailure || !strings.Contains(out, want) {
			t.Fatalf("treeline %s: exit code %d, %v\n%s\nwant %q", args[0], code, err, out, want)
		}
		if strings.Contains(out, "correct") { // the password
			t.Errorf("treeline %s shows the password:\n%s", args[0], out)
		}
	}
	serve := []string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--ops-listen="}
	onTarget := append(serve, "--db", url, "--single-server")
	mustFail("run: treeline migrate up", command...)
	if code, out, err := treeline("migrate", "up", "--db", url); err != nil || code != exitOK {
		t.Fatalf("migrate up: %d, %v\n%s", code, err, out)
	}
	for range 8 {
		cmd := exec.Command("treeline", command...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(50+rand.IntN(250)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		mark := markOf(t, url)
		t.Logf("killed when the target was marked as %q", mark)
		switch mark {
		case "copying":
			mustFail("a copy into this database isn't complete; run the same command again to resume", onTarget...)
		case "copied":
			mustFail("this store was moved to database", serve...)
		}
	}
	code, out, err := treeline(command...)
	if err != nil || code != exitOK || !strings.Contains(out, "moved 4 logs with ") && !strings.Contains(out, "nothing to do") {
		t.Fatalf("the copy: exit code %d, %v\n%s", code, err, out)
	}
	mustFail("this store was moved to database", serve...)
	mustFsck(t, dir)
	if code, out, err := treeline(command...); err != nil || code != exitOK || !strings.Contains(out, "nothing to do") {
		t.Errorf("the copy again: exit code %d, %v\n%s", code, err, out)
	}

	p = serving(t, dir, "--checkpoint-interval", "20ms", "--db", url, "--single-server")
	checkReads(t, p, records)
	grow(t, p, "default", 0, 5)
	var after logPage
	for after.Sizes.Signed < uint64(len(lines)+5) {
		p.mustGetJSON(t, "/v1/checkpoint", &after)
		time.Sleep(10 * time.Millisecond)
	}
	old, err := openNote(before.VKeys[0], before.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	now, err := openNote(before.VKeys[0], after.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	var consistency proofAnswer
	p.mustGetJSON(t, "/v1/proofs/consistency?from=2200&to=2205", &consistency)
	hashes, err := consistency.proof()
	if err != nil {
		t.Fatal(err)
	}
	if err := merkle.VerifyConsistency(old.Size, now.Size, hashes, old.Root, now.Root); err != nil || old.Size != 2200 || now.Size != 2205 {
		t.Errorf("the checkpoint of size %d doesn't extend that of size %d: %v", now.Size, old.Size, err)
	}
	if code, out, err := treeline("verify", writeTemp(t, string(proof)), "--vkey", before.VKeys[0]); err != nil || code != exitOK {
		t.Errorf("a proof from before: exit code %d, %v\n%s", code, err, out)
	}
	if code, out, err := treeline("fsck", "--data-dir", dir, "--db", url, "--single-server"); err != nil || code != exitOK {
		t.Errorf("fsck of the target: exit code %d, %v\n%s", code, err, out)
	}
}

// markOf returns which mark of a copy a database has.
func markOf(t *testing.T, url string) string {
	t.Helper()
	s, err := postgres.OpenReadOnly(t.Context(), postgres.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	labels, err := s.Labels(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"copying", "copied"} {
		if labels[mark] != "" {
			return mark
		}
	}
	return ""
}
