package bundle_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
)

// The vectors are for implementations of docs/spec.md in other languages, so they are never changed, only added to.
var update = flag.Bool("update", false, "write testdata/bundles.json anew")

// vector is a bundle, and what verifying it with the keys comes to.
type vector struct {
	Name     string   `json:"name"`
	Bundle   string   `json:"bundle"` // hex
	Keys     []string `json:"keys"`   // that are pinned; those after the first are of witnesses that must have cosigned
	Result   string   `json:"result"`
	Count    uint64   `json:"count"`
	Complete bool     `json:"complete"`
	Withheld []string `json:"withheld"`
	Erased   []string `json:"erased,omitempty"` // pointers that are proven to be
	Purged   uint64   `json:"purged,omitempty"` // events that are proven to be
	Manifest string   `json:"manifest_sha256"`
}

// judged verifies a bundle as a vector says.
func judged(t testing.TB, v vector, data []byte) vector {
	t.Helper()
	trust := log.Trust{Now: time.Unix(1_790_000_100, 0)}
	policy := ""
	for i, key := range v.Keys {
		if i == 0 {
			policy = "log " + key + "\n"
			continue
		}
		policy += fmt.Sprintf("witness w%d %s\n", i, key)
	}
	if quorum := len(v.Keys) - 1; quorum == 1 {
		policy += "quorum w1\n"
	} else {
		policy += "quorum none\n"
	}
	var err error
	if trust.Policy, err = checkpoint.ParsePolicy([]byte(policy)); err != nil {
		t.Fatal(err)
	}
	out := vector{Name: v.Name, Bundle: hex.EncodeToString(data), Keys: v.Keys}
	got, err := bundle.Verify(bytes.NewReader(data), trust)
	switch {
	case err == nil:
		out.Result = "VALID"
	case errors.Is(err, log.ErrInvalidProof):
		out.Result = "INVALID"
		return out
	case errors.Is(err, log.ErrNotVerifiable):
		out.Result = "NOT_VERIFIABLE"
	default:
		t.Fatalf("%s: %v", v.Name, err)
	}
	out.Count, out.Complete, out.Withheld, out.Manifest = got.Count, got.Complete, got.Withheld, hex.EncodeToString(got.Manifest[:])
	out.Erased, out.Purged = got.ErasedClaims, got.Purged
	return out
}

// bundles are bundles of all kinds.
func bundles(t testing.TB, n int) (all []vector, data [][]byte) {
	t.Helper()
	l := newLog(t, n)
	witness, err := checkpoint.Seed{9}.Ed25519Cosigner("witness.example")
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := checkpoint.Seed{8}.Ed25519(origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string, b []byte, keys ...string) {
		v := judged(t, vector{Name: name, Keys: keys}, b)
		all, data = append(all, v), append(data, b)
	}
	whole := l.whole(n, 0, n)
	add("all events", whole, l.vkey)
	add("all events, under another key", whole, stranger)
	add("a range", l.whole(n, n/4, n/2), l.vkey)
	add("the end of the log", l.whole(n, n/2, n), l.vkey)
	add("a selection", l.bundle(n, bundle.Selection{From: 1, To: uint64(n), Filter: "actor_id=u1"}, every(n, 5, 1)), l.vkey)
	add("nothing found", l.bundle(n, bundle.Selection{From: 0, To: uint64(n), Filter: "action=none&from=2026-01-01T00%3A00%3A00.000000Z"}, nil), l.vkey)
	add("an empty log", l.whole(0, 0, 0), l.vkey)
	some := bundle.Selection{From: 0, To: 3}
	withheld := func(i int, d *log.Disclosure) *log.Disclosure {
		out, err := d.Withhold("/actor/email", "/metadata/plan")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	add("claims withheld", l.bundle(n, some, every(3, 1, 0), withheld), l.vkey)
	add("nothing shown", l.bundle(n, some, every(3, 1, 0), func(_ int, d *log.Disclosure) *log.Disclosure {
		digest := d.Entry().Digest
		return &log.Disclosure{ReceivedAt: d.ReceivedAt, Previous: d.Previous, Digest: &digest}
	}), l.vkey)
	files := unpack(t, l.whole(n, 0, 3))
	c, _, err := checkpoint.ParseNote(files[1].content)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := witness.Cosign(c, time.Unix(1_790_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	add("not cosigned", pack(files), l.vkey, witness.VKey())
	files[1].content = append(bytes.Clone(files[1].content), checkpoint.SignatureLine(sig)...)
	add("cosigned", pack(remanifest(t, files)), l.vkey, witness.VKey())
	for name, change := range map[string]func(files []aFile){
		"a changed event": func(files []aFile) {
			files[5].content = bytes.Replace(files[5].content, []byte(`"e1"`), []byte(`"e9"`), 1)
		},
		"a changed entry": func(files []aFile) { files[3].content[60] ^= 1 },
		"a changed hash":  func(files []aFile) { files[4].content[0] ^= 1 },
		"a changed checkpoint": func(files []aFile) {
			files[1].content = bytes.Replace(files[1].content, []byte("acme"), []byte("acne"), 1)
		},
		"a changed README": func(files []aFile) { files[0].content[0] ^= 1 },
		"a hash in upper case": func(files []aFile) {
			_, hash, _ := bytes.Cut(files[5].content, []byte(`"previous_hash":"`))
			copy(hash, bytes.ToUpper(hash[:64]))
		},
		"a missing line": func(files []aFile) { files[5].content = files[5].content[:bytes.IndexByte(files[5].content, '\n')+1] },
	} {
		forged := unpack(t, l.whole(n, 0, 3))
		change(forged)
		if name != "a changed README" {
			forged = remanifest(t, forged)
		}
		add(name, pack(forged), l.vkey)
	}
	add("cut off", whole[:len(whole)/2], l.vkey)

	r := newLog(t, n)
	purge := r.removal("treeline:purged:1", log.ActionPurged, `{"policy":{"max":"30d"},"ranges":[[1,2]]}`)
	erase := r.removal("treeline:erased:1", log.ActionErased, `{"erased":[{"pointers":["/actor/email"],"ranges":[[0,1],[2,3]]}]}`)
	wrong := r.removal("treeline:purged:2", log.ActionPurged, `{"ranges":[[2,2]]}`)
	itself := r.removal("treeline:purged:3", log.ActionPurged, fmt.Sprintf(`{"ranges":[[0,%d]]}`, len(r.leaves)+1))
	size := len(r.leaves)
	removed := func(also ...string) func(int, *log.Disclosure) *log.Disclosure {
		return func(i int, d *log.Disclosure) *log.Disclosure {
			if i == 1 {
				digest := d.Entry().Digest
				return &log.Disclosure{ReceivedAt: d.ReceivedAt, Previous: d.Previous, Digest: &digest}
			}
			out, err := d.Withhold(append(also, "/actor/email")...)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	p, e := r.proof(purge, size), r.proof(erase, size)
	with := func(proofs ...[]byte) []byte { return r.withRemovals(size, some, proofs, all3, removed()) }
	add("purged and erased", with(p, e), l.vkey)
	add("purged and erased, and more withheld", r.withRemovals(size, some, [][]byte{p, e}, all3, removed("/metadata/plan")), l.vkey)
	add("purged, and withheld", with(p), l.vkey)
	add("erased, and not shown", with(e), l.vkey)
	add("removed under another key", with(p, e), stranger)
	add("removed, and not cosigned", with(p, e), l.vkey, witness.VKey())
	add("a client's event for a removal", with(p, r.proof(0, size)), l.vkey)
	add("a malformed removal", with(p, r.proof(wrong, size)), l.vkey)
	add("a removal of what comes after it", with(p, r.proof(itself, size)), l.vkey)
	add("a removal that isn't in the log", with(p, r.proofWith(purge+1, size, mustMarshal(t, r.disclosures[purge]))), l.vkey)
	return all, data
}

// all3 are the first three indices.
var all3 = []int{0, 1, 2}

func mustMarshal(t testing.TB, d *log.Disclosure) []byte {
	t.Helper()
	out, err := d.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// every returns each step-th index below n from one on.
func every(n, step, from int) (indices []int) {
	for i := from; i < n; i += step {
		indices = append(indices, i)
	}
	return indices
}

func TestVectors(t *testing.T) {
	t.Parallel()
	path := filepath.Join("testdata", "bundles.json")
	if *update {
		vectors, _ := bundles(t, 8)
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		if err := errors.Join(e.Encode(vectors), os.MkdirAll("testdata", 0o755), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	results := make(map[string]int)
	for _, v := range vectors {
		data, err := hex.DecodeString(v.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		if got := judged(t, v, data); fmt.Sprint(got) != fmt.Sprint(v) {
			t.Errorf("%s: got %+v, want %+v", v.Name, got, v)
		}
		results[v.Result]++
	}
	if results["VALID"] < 7 || results["NOT_VERIFIABLE"] < 3 || results["INVALID"] < 7 {
		t.Errorf("the vectors hold too little: %v", results)
	}
	made, _ := bundles(t, 8)
	for _, v := range made {
		if v.Result == "VALID" && !bytes.Contains(text, []byte(`"`+v.Bundle+`"`)) {
			t.Errorf("%s: the bytes are others than they were", v.Name)
		}
	}
}

// A verifier that was written from the specification alone, in another language, comes to the same results.
func TestPythonVerifier(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("the verifier in docs needs python3: ", err)
	}
	script, err := filepath.Abs(filepath.Join("..", "..", "docs", "verify_bundle.py"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{8, 1030} { // of one part, and of three
		vectors, data := bundles(t, n)
		for i, v := range vectors {
			file := filepath.Join(t.TempDir(), "bundle.zip")
			if err := os.WriteFile(file, data[i], 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(python, append([]string{"-B", script, file}, v.Keys...)...).CombinedOutput()
			want := map[string]int{"VALID": 0, "NOT_VERIFIABLE": 3, "INVALID": 4}[v.Result]
			if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || ok != (want != 0) || ok && exit.ExitCode() != want {
				t.Errorf("%s of %d events: got %v, want exit code %d\n%s", v.Name, n, err, want, out)
			}
			if !bytes.HasPrefix(out, []byte(v.Result)) {
				t.Errorf("%s of %d events: got %s, want %s", v.Name, n, out, v.Result)
			}
			for line, pointers := range map[string][]string{"claims withheld: ": v.Withheld, "claims erased, as the log itself records: ": v.Erased} {
				if want := line + strings.Join(pointers, " "); v.Result == "VALID" && pointers != nil && !bytes.Contains(out, []byte(want)) {
					t.Errorf("%s: it doesn't tell %q: %s", v.Name, want, out)
				}
			}
			if told := bytes.Contains(out, fmt.Appendf(nil, "%d events were purged", v.Purged)); v.Result == "VALID" && told != (v.Purged > 0) {
				t.Errorf("%s: %d were purged: %s", v.Name, v.Purged, out)
			}
		}
		out, err := exec.Command(python, "-B", script, filepath.Join(t.TempDir(), "none.zip"), vectors[0].Keys[0]).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
			t.Errorf("without a file: got %v\n%s", err, out)
		}
	}
}
