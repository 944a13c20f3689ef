package log_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
)

// witnessedVectors is testdata/vectors/witnessed.json, in which there are signatures that can't be made a second time: ML-DSA-44
// signs with randomness.
const witnessedVectors = "witnessed.json"

type witnessedFile struct {
	Description string            `json:"description"`
	MasterSeed  string            `json:"master_seed"`
	Keys        []keyVector       `json:"keys"`
	Proofs      []witnessedVector `json:"proofs"`
}

// keyVector is a key that the master seed gives.
type keyVector struct {
	Info        string `json:"info"` // of HKDF, in hex
	Secret      string `json:"secret"`
	VerifierKey string `json:"verifier_key"`
}

// witnessedVector is a proof file with cosignatures, and what verifying it comes to.
type witnessedVector struct {
	Name    string   `json:"name"`
	Keys    []string `json:"verifier_keys"`
	Policy  string   `json:"policy"`
	Now     int64    `json:"now"` // seconds since 1970 UTC
	Proof   string   `json:"proof"`
	Result  string   `json:"result"`            // as in proof-files.json
	Reasons []string `json:"reasons,omitempty"` // of "not verifiable": "not pinned", "not witnessed"
	State   string   `json:"state,omitempty"`   // "signed" or "witnessed"
	Counted []string `json:"counted,omitempty"` // names of the witnesses whose cosignatures count
}

func TestWitnessedVectors(t *testing.T) {
	path := filepath.Join("testdata", "vectors", witnessedVectors)
	data, err := os.ReadFile(path)
	if *update && errors.Is(err, os.ErrNotExist) {
		data = writeWitnessed(t, path)
	} else if err != nil {
		t.Fatal(err)
	}
	var file witnessedFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if got := derivedKeys(t); !slices.Equal(got, file.Keys) {
		t.Errorf("the master seed gives keys\n%.200q, want\n%.200q", got, file.Keys)
	}
	if len(file.Proofs) < 12 {
		t.Errorf("%d proofs", len(file.Proofs))
	}
	for _, want := range file.Proofs {
		got := want
		got.verify(t)
		if got.Result != want.Result || got.State != want.State || !slices.Equal(got.Reasons, want.Reasons) || !slices.Equal(got.Counted, want.Counted) {
			t.Errorf("%s: got %s %v, %s by %q; want %s %v, %s by %q", want.Name,
				got.Result, got.Reasons, got.State, got.Counted, want.Result, want.Reasons, want.State, want.Counted)
		}
	}
}

// verify sets what the proof comes to.
func (v *witnessedVector) verify(t *testing.T) {
	t.Helper()
	policy, err := checkpoint.ParsePolicy([]byte(v.Policy))
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	trust := log.Trust{Policy: policy, Now: time.Unix(v.Now, 0)}
	for _, vkey := range v.Keys {
		key, err := checkpoint.NewVerifier(vkey)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		trust.Keys = append(trust.Keys, key)
	}
	verification, err := log.VerifyProof([]byte(v.Proof), trust)
	v.Result, v.Reasons, v.State, v.Counted = "VALID", nil, "", nil
	if errors.Is(err, log.ErrNotVerifiable) {
		v.Result = "not verifiable"
	} else if err != nil {
		v.Result = "INVALID"
	}
	if errors.Is(err, log.ErrNotPinned) {
		v.Reasons = append(v.Reasons, "not pinned")
	}
	if errors.Is(err, log.ErrNotWitnessed) {
		v.Reasons = append(v.Reasons, "not witnessed")
	}
	if verification == nil {
		return
	}
	v.State = string(verification.State)
	for _, w := range verification.Witnesses {
		if w.State == checkpoint.Cosigned {
			v.Counted = append(v.Counted, w.Witness.Name)
		}
	}
}

// derivedKeys returns the keys of the vectors: the log's two, and those of three witnesses, of whom the first has both types.
func derivedKeys(t *testing.T) []keyVector {
	t.Helper()
	var out []keyVector
	add := func(prefix, name string, vkey string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		info := binary.BigEndian.AppendUint32([]byte(prefix+name), 0)
		secret := vectorSeed.Derive(string(info))
		out = append(out, keyVector{hex.EncodeToString(info), hex.EncodeToString(secret[:]), vkey})
	}
	_, vkey, err := vectorSeed.Ed25519(testOrigin, 0)
	add("treeline/key/ed25519/v1\n", testOrigin, vkey, err)
	_, vkey, err = vectorSeed.MLDSA44(testOrigin, 0)
	add("treeline/key/mldsa44/v1\n", testOrigin, vkey, err)
	for _, name := range []string{"w1", "w2", "w3"} {
		w, err := vectorSeed.Ed25519Cosigner("witness.example/" + name)
		add("treeline/witness/ed25519/v1\n", "witness.example/"+name, w.VKey(), err)
	}
	w, err := vectorSeed.MLDSA44Cosigner("witness.example/w1")
	add("treeline/witness/mldsa44/v1\n", "witness.example/w1", w.VKey(), err)
	return out
}

// writeWitnessed writes the vectors for the first time.
func writeWitnessed(t *testing.T, path string) []byte {
	t.Helper()
	const at = 1_780_315_300
	keys := derivedKeys(t)
	l, ed, edKey := threeEvents(t)
	ml, mlKey, err := vectorSeed.MLDSA44(testOrigin, 0)
	if err != nil {
		t.Fatal(err)
	}
	witness := func(name string, at int64) note.Signer {
		w, err := vectorSeed.Ed25519Cosigner("witness.example/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return cosigner{w, time.Unix(at, 0)}
	}
	w1, w2, w3 := witness("w1", at-3600), witness("w2", at), witness("w3", at)
	mlCosigner, err := vectorSeed.MLDSA44Cosigner("witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	wm := cosigner{mlCosigner, time.Unix(at, 0)}
	logs := "log " + edKey + "\nlog " + mlKey + "\n"
	witnesses := "witness A " + keys[2].VerifierKey + " https://witness.example/w1/\nwitness B " + keys[3].VerifierKey + "\nwitness C " + keys[4].VerifierKey +
		"\nwitness A-pq " + keys[5].VerifierKey + "\n"
	nested := "# of the first operator either key\n" + logs + "\n" + witnesses + "group first any A A-pq\ngroup both\tall first  B\n quorum both\n"
	proof := func(signers ...note.Signer) string {
		return string(l.proof(t, 1, 3, []byte(mustMarshal(t, l.disclosures[1])), signers...))
	}
	forge := func(proof string, line int) string {
		old := signatureOf(t, []byte(proof), line)
		raw := decode64(t, old)
		raw[len(raw)-1] ^= 1
		return strings.Replace(proof, old, base64.StdEncoding.EncodeToString(raw), 1)
	}
	file := witnessedFile{
		Description: "Keys of both signature types, and proof files of log-3.json's log with cosignatures, under policies.",
		MasterSeed:  hex.EncodeToString(vectorSeed[:]), Keys: keys,
	}
	for _, p := range []struct {
		name, policy, proof string
		keys                []string
		now                 int64
	}{
		{"two of three", logs + witnesses + "group g 2 A B C\nquorum g\n", proof(ed, w1, w3), nil, at},
		{"one of three", logs + witnesses + "group g 2 A B C\nquorum g\n", proof(ed, w2), nil, at},
		{"signed with ML-DSA-44 alone", logs + witnesses + "quorum B\n", proof(ml, w2), nil, at},
		{"signed with both types", logs + witnesses + "quorum B\n", proof(ed, ml, w2), nil, at},
		{"a group of groups", nested, proof(ed, ml, w2, wm), nil, at},
		{"a group of groups, one of them lacking", nested, proof(ed, ml, w2, w3), nil, at},
		{"no quorum", logs + witnesses + "quorum none\n", proof(ed, w1), nil, at},
		{"log not in the policy", witnesses + "quorum A\n", proof(ed, w1), nil, at},
		{"log not in the policy, but pinned", witnesses + "quorum A\n", proof(ed, w1), []string{edKey}, at},
		{"five minutes ahead", logs + witnesses + "quorum B\n", proof(ed, w2), nil, at - 300},
		{"more than five minutes ahead", logs + witnesses + "quorum B\n", proof(ed, w2), nil, at - 301},
		{"a cosignature that fails", logs + witnesses + "quorum A\n", forge(proof(ed, w1, w2), 2), nil, at},
		{"a cosignature with ML-DSA-44 that fails", logs + witnesses + "quorum A\n", forge(proof(ed, w1, wm), 2), nil, at},
		{"a cosignature of an unknown key that fails", logs + "witness A " + keys[2].VerifierKey + "\nquorum A\n", forge(proof(ed, w1, w2), 2), nil, at},
		{"the log's signature with ML-DSA-44 fails", logs + witnesses + "quorum A\n", forge(proof(ed, ml, w1), 1), nil, at},
	} {
		v := witnessedVector{Name: p.name, Keys: p.keys, Policy: p.policy, Now: p.now, Proof: p.proof}
		if v.Keys == nil {
			v.Keys = []string{}
		}
		v.verify(t)
		file.Proofs = append(file.Proofs, v)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
