package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

var policySeed = checkpoint.Seed{7}

// testCosigner returns a witness's key, named for the witness, of the type 0x04.
func testCosigner(t *testing.T, name string) *checkpoint.Cosigner {
	t.Helper()
	c, err := policySeed.Ed25519Cosigner("witness.example/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// testPolicy returns a policy of three witnesses, two of whom must cosign, or, with a witness that nobody asks, none.
func testPolicy(t *testing.T, quorum string, logs ...string) string {
	t.Helper()
	var b strings.Builder
	for _, vkey := range logs {
		fmt.Fprintf(&b, "log %s\n", vkey)
	}
	for _, name := range []string{"a", "b", "c", "spare"} {
		fmt.Fprintf(&b, "witness %s %s https://witness.example/%[1]s\n", name, testCosigner(t, name).VKey())
	}
	fmt.Fprintf(&b, "group g 2 a b c\nquorum %s\n", quorum)
	return b.String()
}

// testNote returns a checkpoint of an empty log, cosigned by the named witnesses, and the log's key.
func testNote(t *testing.T, at time.Time, witnesses ...string) (msg, vkey string) {
	t.Helper()
	c := checkpoint.Checkpoint{Origin: "logs.example.com/logs/acme", Root: merkle.EmptyRoot()}
	signer, vkey, err := policySeed.Ed25519(c.Origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := checkpoint.Sign(c, signer)
	if err != nil {
		t.Fatal(err)
	}
	msg = string(signed)
	for _, name := range witnesses {
		sig, err := testCosigner(t, name).Cosign(c, at)
		if err != nil {
			t.Fatal(err)
		}
		msg += checkpoint.SignatureLine(sig)
	}
	return msg, vkey
}

func TestPolicyCheck(t *testing.T) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	full, vkey := testNote(t, at, "c", "a", "stranger")
	partly, _ := testNote(t, at, "b", "spare")
	future, _ := testNote(t, time.Now().Add(time.Hour), "a", "b")
	plain, _ := testNote(t, at)
	forged := strings.Replace(partly, "\n0\n", "\n1\n", 1)
	policy := writeTemp(t, testPolicy(t, "g", vkey))
	logless := writeTemp(t, testPolicy(t, "g"))
	for _, row := range []struct {
		name   string
		args   []string
		stdin  string
		code   int
		stdout []string // parts, in their order
		stderr string
	}{
		{
			"a policy alone", []string{policy}, "", exitOK,
			[]string{
				"log logs.example.com/logs/acme (key ", "quorum g\n  group g: 2 of 3\n    witness a (witness.example/a+",
				" https://witness.example/a)\n", "not in the quorum:\n  witness spare (", "OK\n",
			}, "",
		},
		{
			"met", []string{policy, "-"}, full, exitOK,
			[]string{
				"checkpoint of logs.example.com/logs/acme, size 0, root e3b0c442", "  signed by logs.example.com/logs/acme+", "  not checked: signature of witness.example/stranger+",
				"group g: 2 of 3: met\n    witness a: cosigned 2026-06-01T12:00:00Z (", "witness b: missing (", "witness c: cosigned", "\nMET\n",
			}, "",
		},
		{
			"unmet", []string{policy, "-"}, partly, exitUnverified,
			[]string{"group g: 2 of 3: NOT met\n", "witness a: missing", "witness b: cosigned", "witness spare: cosigned", "UNMET: the quorum isn't met; it would be with a\n"},
			": UNMET: the quorum isn't met; it would be with a",
		},
		{"two are missing", []string{policy, "-"}, plain, exitUnverified, []string{"it would be with a, b\n"}, "UNMET"},
		{"from the future", []string{policy, "-"}, future, exitUnverified, []string{"witness a: from the future 2", "UNMET"}, "UNMET"},
		{"none is asked for", []string{writeTemp(t, testPolicy(t, "none", vkey)), "-"}, plain, exitOK, []string{"quorum none\n", "not in the quorum:\n  group g", "MET\n"}, ""},
		{"an unknown log", []string{logless, "-"}, full, exitUnverified, []string{"logs: none\n", "NOT_SIGNED: "}, "give its key with --vkey"},
		{"a log known from elsewhere", []string{logless, "-", "--vkey", vkey}, full, exitOK, []string{"MET\n"}, ""},
		{"forged", []string{policy, "-"}, forged, exitInvalid, []string{"INVALID: ", "invalid signature for key"}, "INVALID"},
		{"no checkpoint", []string{policy, "-"}, "?", exitInvalid, []string{"INVALID: malformed note"}, "INVALID"},
		{"a wrong policy", []string{writeTemp(t, "# mine\nwitness a\n"), "-"}, full, exitInvalid, []string{"INVALID: line 2: want: witness NAME VKEY [URL]\n"}, "line 2"},
		{"no such policy", []string{"missing", "-"}, full, exitFailure, nil, "missing"},
		{"no such checkpoint", []string{policy, "missing"}, "", exitFailure, nil, "missing"},
		{"no key", []string{policy, "-", "--vkey", "x"}, full, exitFailure, nil, "--vkey: verifier key \"x\" is not of the form"},
	} {
		code, stdout, stderr := runCommand(t, row.stdin, append([]string{"policy", "check"}, row.args...)...)
		rest := stdout
		for _, part := range row.stdout {
			_, after, ok := strings.Cut(rest, part)
			if !ok {
				t.Errorf("%s: stdout has no %q after what comes before it:\n%s", row.name, part, stdout)
			}
			rest = after
		}
		if code != row.code || !strings.Contains(stderr, row.stderr) || (row.stderr == "") != (stderr == "") {
			t.Errorf("%s: code %d, stderr %q, want %d and %q", row.name, code, stderr, row.code, row.stderr)
		}
	}
}

func TestPolicyCheckForMachines(t *testing.T) {
	msg, vkey := testNote(t, time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), "b")
	code, stdout, _ := runCommand(t, msg, "policy", "check", writeTemp(t, testPolicy(t, "g", vkey)), "-", "--json")
	var got policyReport
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitUnverified {
		t.Fatalf("code %d, %v:\n%s", code, err, stdout)
	}
	if got.Result != "UNMET" || got.Logs[0].VKey != vkey || *got.Size != 0 || !slices.Equal(got.Lacks, []string{"a"}) || *got.Groups[0].Met {
		t.Errorf("got %s", stdout)
	}
	if w := got.Witnesses[1]; w.State != "cosigned" || w.At != "2026-06-01T12:00:00Z" || w.VKey != testCosigner(t, "b").VKey() {
		t.Errorf("got %+v", w)
	}
	if w := got.Witnesses[0]; w.State != "missing" || w.At != "" {
		t.Errorf("got %+v", w)
	}
}

// testProof returns the proof of the only event of a log, cosigned by the named witnesses, and the log's key.
func testProof(t *testing.T, at time.Time, witnesses ...string) (file, vkey string) {
	t.Helper()
	const origin = "logs.example.com/logs/acme"
	event, err := log.ParseEvent([]byte(`{"id":"e0","action":"a.b"}`), log.ParseOptions{Now: at})
	if err != nil {
		t.Fatal(err)
	}
	d := &log.Disclosure{ReceivedAt: at.UnixMicro(), Previous: log.Genesis(origin), Event: event, Seed: &[32]byte{1}}
	extra, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	c := checkpoint.Checkpoint{Origin: origin, Size: 1, Root: d.Entry().LeafHash()}
	signer, vkey, err := policySeed.Ed25519(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := checkpoint.Sign(c, signer)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range witnesses {
		sig, err := testCosigner(t, name).Cosign(c, at)
		if err != nil {
			t.Fatal(err)
		}
		msg = append(msg, checkpoint.SignatureLine(sig)...)
	}
	data, err := checkpoint.Proof{Checkpoint: msg, Extra: extra}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(data), vkey
}

func TestVerifyUnderAPolicy(t *testing.T) {
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	full, vkey := testProof(t, at, "a", "c", "stranger")
	partly, _ := testProof(t, at, "b")
	policy := writeTemp(t, testPolicy(t, "g", vkey))
	logless := writeTemp(t, testPolicy(t, "g"))
	for _, row := range []struct {
		name   string
		args   []string
		stdin  string
		code   int
		stdout []string // lines, in their order
		stderr string
	}{
		{
			"met", []string{"--policy", policy}, full, exitOK, []string{
				"VALID", "  signed by    logs.example.com/logs/acme+", "  cosigned by  a on 2026-06-01T12:00:00Z (witness.example/a+",
				"  witness      b: missing (witness.example/b+", "  cosigned by  c on ", "  state        witnessed", "  not checked  signature of witness.example/stranger+",
			}, "",
		},
		{"met, the log's key given apart", []string{"--policy", logless, "--vkey", vkey}, full, exitOK, []string{"VALID", "  state        witnessed"}, ""},
		{"without a policy", []string{"--vkey", vkey}, full, exitOK, []string{"VALID", "  state        signed", "  not checked  signature of witness.example/a+"}, ""},
		{
			"unmet", []string{"--policy", policy}, partly, exitUnverified,
			[]string{"NOT_VERIFIABLE", "  witness      a: missing", "  cosigned by  b on", "  witness      c: missing", "  state        signed"},
			"NOT_VERIFIABLE: the policy's quorum isn't met: it would be with a\n",
		},
		{"another log's", []string{"--policy", logless}, full, exitUnverified, []string{"NOT_VERIFIABLE"}, "see that the policy has that log"},
		{"a wrong policy", []string{"--policy", writeTemp(t, "quorum none # x\n")}, full, exitFailure, nil, ": line 1: a comment after a definition"},
		{"no policy", []string{"--policy", "missing"}, full, exitFailure, nil, "reading the policy: open missing"},
	} {
		code, stdout, stderr := runCommand(t, row.stdin, append([]string{"verify", "-"}, row.args...)...)
		rest := stdout
		for _, part := range row.stdout {
			_, after, ok := strings.Cut(rest, part)
			if !ok {
				t.Errorf("%s: stdout has no %q after what comes before it:\n%s", row.name, part, stdout)
			}
			rest = after
		}
		if code != row.code || !strings.Contains(stderr, row.stderr) || (row.stderr == "") != (stderr == "") {
			t.Errorf("%s: code %d, stderr %q, want %d and %q", row.name, code, stderr, row.code, row.stderr)
		}
	}

	_, stdout, _ := runCommand(t, full, "verify", "-", "--policy", policy, "--json")
	var got verification
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	if got.Result != "VALID" || got.State != "witnessed" || len(got.SignedBy) != 1 || len(got.Witnesses) != 4 ||
		got.Witnesses[0] != (testimony{"a", checkpoint.KeyID("witness.example/a", testCosigner(t, "a").KeyHash()), "cosigned", "2026-06-01T12:00:00Z"}) {
		t.Errorf("got %s", stdout)
	}
}
