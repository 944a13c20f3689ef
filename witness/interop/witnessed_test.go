package interop

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/torchwood"
	formatsproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/tessera"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Our server has its logs cosigned by witnesses that are not ours, and by ours: each alone, and all under a quorum of two, the logs with
// and without a signature of ML-DSA-44 that the others don't know. What it then publishes, and the proof files that it makes, torchwood
// and Tessera accept under the same policy.
func TestTreelineWitnessed(t *testing.T) {
	all := slices.Sorted(maps.Keys(witnesses))
	rows := map[string]struct{ witnesses, flags []string }{
		"two of all":                 {all, nil},
		"two of all, with ML-DSA-44": {all, []string{"--mldsa"}},
	}
	for _, name := range all {
		rows[name] = struct{ witnesses, flags []string }{[]string{name}, nil}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		t.Run(name, func(t *testing.T) {
			dir, logs := newServer(t, rows[name].flags...)
			policy := "log " + logs[0].vkey + "\n"
			var vkeys []string
			for _, name := range rows[name].witnesses {
				w := witnesses[name](t, logs...)
				policy += fmt.Sprintf("witness %s %s %s\n", name, w.vkey, w.url)
				vkeys = append(vkeys, w.vkey)
			}
			if len(vkeys) > 1 {
				policy += "group majority 2 " + strings.Join(rows[name].witnesses, " ") + "\nquorum majority\n"
			} else {
				policy += "quorum " + name + "\n"
			}
			file := write(t, filepath.Join(t.TempDir(), "policy"), policy)

			s := serve(t, dir, append([]string{"--policy", file, "--witness-interval", "50ms"}, rows[name].flags...)...)
			ids := s.append(t, 0, 1, "witnessed")
			ids = append(ids, s.append(t, 1, 10, "witnessed")...)
			ids = append(ids, s.append(t, 10, 300, "witnessed")...)
			if sizes := s.sizes(t); sizes.Witnessed != 300 || sizes.Released != 300 {
				t.Fatalf("after waiting for the witnesses: %+v", sizes)
			}
			acceptsCheckpoint(t, policy, s.released(t), 300)
			if got, want := len(s.released(t)) > 3000, len(rows[name].flags) > 0; got != want {
				t.Errorf("the public checkpoint has a signature of ML-DSA-44: %v, want %v", got, want)
			}
			proofs := map[int64]string{}
			for i := range int64(300) {
				if i%37 == 0 || i == 299 {
					proofs[i] = s.call(t, http.MethodGet, "/v1/events/"+ids[i]+"/proof?log="+theLog, "", http.StatusOK, nil).body
				}
			}
			entries := readsTiles(t, s, policy)
			acceptsProofs(t, policy, proofs, entries)
			if code := verify(t, file, proofs[37]); code != 0 {
				t.Errorf("treeline verify: exit code %d, want 0", code)
			}
			for what, tampered := range tamper(t, proofs[37]) {
				if code := verify(t, file, tampered); code != 3 && code != 4 {
					t.Errorf("treeline verify, of a proof with %s: exit code %d, want 3 or 4", what, code)
				}
			}
		})
	}
}

// While its only witness is down our server appends and signs, and publishes nothing; when the witness is back it takes up again.
func TestTreelineWithoutItsWitness(t *testing.T) {
	dir, logs := newServer(t)
	w := witnesses["litewitness"](t, logs...)
	g := newGateway(t, w.url)
	policy := fmt.Sprintf("log %s\nwitness lite %s %s\nquorum lite\n", logs[0].vkey, w.vkey, g.url)
	s := serve(t, dir, "--policy", write(t, filepath.Join(t.TempDir(), "policy"), policy), "--witness-interval", "50ms")
	s.append(t, 0, 3, "witnessed")
	before := s.released(t)
	acceptsCheckpoint(t, policy, before, 3)

	w.kill()
	s.append(t, 3, 7, "signed")
	eventually(t, "our server has asked for a cosignature in vain", func() bool { return g.answers(http.StatusBadGateway) > 0 }, s.process)
	if sizes := s.sizes(t); sizes.Size != 7 || sizes.Signed != 7 || sizes.Witnessed != 3 || sizes.Released != 3 {
		t.Errorf("without the witness: %+v", sizes)
	}
	if got := s.released(t); got != before {
		t.Errorf("without the witness our server publishes\n%s\nwant that of before\n%s", got, before)
	}

	w.restart()
	g.passTo(w.url)
	eventually(t, "our server has its cosignature", func() bool { return s.sizes(t).Released == 7 }, s.process)
	acceptsCheckpoint(t, policy, s.released(t), 7)
}

// acceptsCheckpoint checks that those who are not ours accept a checkpoint under a policy.
func acceptsCheckpoint(t *testing.T, policy, signed string, size int64) {
	t.Helper()
	p, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	c, n, err := torchwood.VerifyCheckpoint([]byte(signed), p)
	if err != nil || c.N != size || c.Extension != "" {
		t.Fatalf("torchwood: %+v, %v, want size %d", c, err, size)
	}
	for _, sig := range n.UnverifiedSigs {
		if sig.Name != c.Origin { // the log's other key
			t.Errorf("torchwood finds a signature that it has no key for: %v", sig)
		}
	}
	g, err := tessera.NewWitnessGroupFromPolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	if !g.Satisfied([]byte(signed)) {
		t.Errorf("Tessera's policy isn't satisfied by\n%s", signed)
	}
}

// readsTiles reads all entries by torchwood's client, which checks every tile and entry against the checkpoint.
func readsTiles(t *testing.T, s *server, policy string) [][]byte {
	t.Helper()
	p, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := torchwood.VerifyCheckpoint([]byte(s.released(t)), p)
	if err != nil {
		t.Fatal(err)
	}
	fetcher, err := torchwood.NewTileFetcher(s.url+"/logs/"+theLog, torchwood.WithTilePath(torchwood.TilePath))
	if err != nil {
		t.Fatal(err)
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		t.Fatal(err)
	}
	var entries [][]byte
	for i, entry := range client.AllEntries(context.Background(), c.Tree, 0) {
		if i != int64(len(entries)) {
			t.Fatalf("entry %d after %d entries", i, len(entries))
		}
		entries = append(entries, entry)
	}
	if err := client.Err(); err != nil || int64(len(entries)) != c.N {
		t.Fatalf("torchwood reads %d entries of %d: %v", len(entries), c.N, err)
	}
	return entries
}

// acceptsProofs checks that torchwood accepts proof files, and none that was tampered with, nor any under another policy.
func acceptsProofs(t *testing.T, policy string, proofs map[int64]string, entries [][]byte) {
	t.Helper()
	p, err := torchwood.ParsePolicy([]byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	stranger := newLog(t, "interop.example/stranger")
	others := map[string]string{
		"another log's key":        strings.Replace(policy, "log "+field(policy, "log", 1), "log "+stranger.vkey, 1),
		"a witness that's missing": demandingAnother(t, policy),
	}
	for index, proof := range proofs {
		record := tlog.RecordHash(entries[index])
		if err := torchwood.VerifyProof(p, record, []byte(proof)); err != nil {
			t.Errorf("torchwood refuses the proof of event %d: %v\n%s", index, err, proof)
		}
		var parsed formatsproof.TLogProof
		if err := parsed.Unmarshal([]byte(proof)); err != nil || string(parsed.Marshal()) != proof {
			t.Errorf("formats reads the proof of event %d otherwise: %v\n%s", index, err, parsed.Marshal())
		}
		if extra, err := torchwood.ProofExtraData([]byte(proof)); err != nil || !strings.Contains(string(extra), fmt.Sprintf(`"e%d"`, index)) {
			t.Errorf("torchwood finds beside the proof of event %d: %q, %v", index, extra, err)
		}
		for what, tampered := range tamper(t, proof) {
			if err := torchwood.VerifyProof(p, record, []byte(tampered)); err == nil {
				t.Errorf("torchwood accepts the proof of event %d with %s", index, what)
			}
		}
		if err := torchwood.VerifyProof(p, tlog.RecordHash(entries[(index+1)%int64(len(entries))]), []byte(proof)); err == nil {
			t.Errorf("torchwood accepts the proof of event %d for the next one", index)
		}
		for what, other := range others {
			p, err := torchwood.ParsePolicy([]byte(other))
			if err != nil {
				t.Fatal(err)
			}
			var unmet *note.UnverifiedNoteError
			if err := torchwood.VerifyProof(p, record, []byte(proof)); !errors.As(err, &unmet) {
				t.Errorf("under a policy with %s torchwood says %v of the proof of event %d", what, err, index)
			}
		}
	}
}

// field returns a word of the policy's first line that begins with a keyword.
func field(policy, keyword string, n int) string {
	for line := range strings.Lines(policy) {
		if fields := strings.Fields(line); len(fields) > n && fields[0] == keyword {
			return fields[n]
		}
	}
	return ""
}

// demandingAnother returns the policy with one more witness, whose cosignature isn't there, and that has to be.
func demandingAnother(t *testing.T, policy string) string {
	t.Helper()
	head, quorum, _ := strings.Cut(policy, "quorum ")
	return head + "witness another " + cosignatureKey("another.example/witness", make([]byte, 32)) + " https://another.example\n" +
		"group more all another " + strings.TrimSpace(quorum) + "\nquorum more\n"
}

// tamper returns the proof with one thing changed, by what it is.
func tamper(t *testing.T, proof string) map[string]string {
	t.Helper()
	head, signed, ok := strings.Cut(proof, "\n\n")
	if !ok {
		t.Fatalf("not a proof:\n%s", proof)
	}
	lines := strings.Split(head, "\n") // header, extra, index, hashes
	text, signatures, _ := strings.Cut(signed, "\n\n")
	out := map[string]string{}
	with := func(what string, lines []string, text, signatures string) {
		out[what] = strings.Join(lines, "\n") + "\n\n" + text + "\n\n" + signatures
	}
	edit := func(i int, line string) []string {
		edited := slices.Clone(lines)
		edited[i] = line
		return edited
	}
	with("another index", edit(2, lines[2]+"7"), text, signatures)
	for i := 3; i < len(lines); i++ {
		with(fmt.Sprintf("another hash %d", i-3), edit(i, flipped(t, lines[i])), text, signatures)
	}
	with("a hash less", lines[:len(lines)-1], text, signatures)
	with("a hash more", append(slices.Clone(lines), wrong.String()), text, signatures)
	texts := strings.Split(text, "\n")
	for i, what := range []string{"another origin", "another size", "another root"} {
		edited := slices.Clone(texts)
		if i < 2 {
			edited[i] += "0"
		} else {
			edited[i] = flipped(t, edited[i])
		}
		with(what, lines, strings.Join(edited, "\n"), signatures)
	}
	of := strings.SplitAfter(strings.TrimSuffix(signatures, "\n"), "\n")
	for i, line := range of {
		words := strings.Fields(line)
		words[2] = flipped(t, words[2])
		edited := slices.Clone(of)
		edited[i] = strings.Join(words, " ") + "\n"
		with("another signature of "+words[1], lines, text, strings.Join(edited, ""))
	}
	own := slices.DeleteFunc(slices.Clone(of), func(line string) bool { return strings.Fields(line)[1] != texts[0] })
	with("no signature but the log's", lines, text, strings.Join(own, ""))
	return out
}

// flipped returns base64 of which the last bit is another.
func flipped(t *testing.T, s string) string {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	return base64.StdEncoding.EncodeToString(data)
}

// verify runs treeline verify on a proof under a policy, and returns its exit code.
func verify(t *testing.T, policy, proof string) int {
	t.Helper()
	_, code := run(t, "treeline", "verify", "--policy", policy, write(t, filepath.Join(t.TempDir(), "event.tlog-proof"), proof))
	return code
}
