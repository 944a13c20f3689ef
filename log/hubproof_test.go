package log_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

const hubOrigin = "audit.example.com/logs/hub"

// hubScene is a log, a hub that has some of its checkpoints, and those who sign for both.
type hubScene struct {
	log, hub       *plainLog
	signer, hubKey note.Signer
	vkey, hubVKey  string
	entries        [][]byte // of the hub
	witness        cosigner
}

// newHubScene makes a log of five events, whose sizes 2, 3 and 5 are in the hub among entries of another log.
func newHubScene(t rapid.TB, seed checkpoint.Seed) *hubScene {
	t.Helper()
	s := &hubScene{log: newLog(t, testOrigin, 5), hub: &plainLog{origin: hubOrigin}, witness: cosigner{testWitness(t, "w1"), now}}
	var err error
	if s.signer, s.vkey, err = seed.Ed25519(testOrigin, 0); err != nil {
		t.Fatal(err)
	}
	if s.hubKey, s.hubVKey, err = seed.Ed25519(hubOrigin, 0); err != nil {
		t.Fatal(err)
	}
	_, other, err := seed.Ed25519("audit.example.com/logs/other", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{2, 3, 5} {
		s.add(log.AppendHubEntry(nil, checkpoint.LogID(other), checkpoint.Checkpoint{Size: uint64(size), Root: s.log.root(size)}))
		s.add(log.AppendHubEntry(nil, checkpoint.LogID(s.vkey), checkpoint.Checkpoint{Size: uint64(size), Root: s.log.root(size)}))
	}
	return s
}

func (s *hubScene) add(entry []byte) {
	s.entries = append(s.entries, entry)
	s.hub.leaves = append(s.hub.leaves, merkle.LeafHash(entry))
}

// policy is the hub's: its key, one witness, and that as the quorum, or none.
func (s *hubScene) policy(t rapid.TB, quorum string) *checkpoint.Policy {
	t.Helper()
	p, err := checkpoint.ParsePolicy([]byte("log " + s.hubVKey + "\nwitness w1 " + s.witness.VKey() + "\nquorum " + quorum + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// event returns the proof of event 1 in the log's tree of a size.
func (s *hubScene) event(t rapid.TB, size int) []byte {
	t.Helper()
	return s.log.proof(t, 1, size, []byte(mustMarshal(t, s.log.disclosures[1])), s.signer)
}

// entry returns the proof of an entry of the hub.
func (s *hubScene) entry(t rapid.TB, index int) []byte {
	t.Helper()
	return s.hub.proof(t, index, len(s.entries), s.entries[index], s.hubKey, s.witness)
}

// join makes a hub proof, of any two files.
func join(event, entry []byte) []byte {
	return slices.Concat([]byte("treeline/hub-proof@v1\n"+strconv.Itoa(len(event))+"\n"), event, entry)
}

func TestVerifyHubProof(t *testing.T) {
	s := newHubScene(t, checkpoint.Seed{1, 2, 3})
	trust := log.HubTrust{Keys: []string{s.vkey}, Policy: s.policy(t, "w1"), Now: now}
	for size, index := range map[int]int{2: 1, 3: 3, 5: 5} {
		data, err := checkpoint.HubProof{Event: s.event(t, size), Entry: s.entry(t, index)}.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		v, err := log.VerifyHubProof(data, trust)
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		if v.State != log.StateHubWitnessed || v.Origin != testOrigin || v.Index != 1 || v.Size != uint64(size) || v.Leaf != s.log.leaves[1] {
			t.Errorf("size %d: got %+v", size, v)
		}
		h := v.Hub
		if h.State != log.StateWitnessed || h.Origin != hubOrigin || h.Index != uint64(index) || h.Size != 6 || h.Leaf != s.hub.leaves[index] {
			t.Errorf("size %d: the hub's part: got %+v", size, h)
		}
	}
}

// Whatever is pinned of one part says nothing of the other, and no mixture of valid parts is valid.
func TestVerifyHubProofResults(t *testing.T) {
	s := newHubScene(t, checkpoint.Seed{1, 2, 3})
	next, nextKey, err := checkpoint.Seed{1, 2, 3}.Ed25519(testOrigin, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := checkpoint.Seed{1, 2, 3}.Ed25519("audit.example.com/logs/other", 0)
	if err != nil {
		t.Fatal(err)
	}
	whole := []byte(mustMarshal(t, s.log.disclosures[1]))
	entry := s.log.disclosures[1].Entry()
	digest := []byte(mustMarshal(t, &log.Disclosure{ReceivedAt: entry.ReceivedAt, Previous: entry.Previous, Digest: &entry.Digest}))
	asksW1, none := s.policy(t, "w1"), s.policy(t, "none")
	policy := func(text string) *checkpoint.Policy {
		p, err := checkpoint.ParsePolicy([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	witnessLine := "witness w1 " + s.witness.VKey() + "\nquorum w1\n"
	hubWith := func(signers ...note.Signer) []byte { return s.hub.proof(t, 3, 6, s.entries[3], signers...) }
	valid := join(s.event(t, 3), s.entry(t, 3))
	// entries of the hub that it should never have
	strange := func(entry []byte) []byte {
		x := newHubScene(t, checkpoint.Seed{1, 2, 3})
		x.entries[3], x.hub.leaves[3] = entry, merkle.LeafHash(entry)
		return x.entry(t, 3)
	}
	id := checkpoint.LogID(s.vkey)
	elsewhere := func(origin string) []byte {
		x := newHubScene(t, checkpoint.Seed{1, 2, 3})
		x.hub.origin = origin
		signer, _, err := checkpoint.Seed{1, 2, 3}.Ed25519(origin, 0)
		if err != nil {
			t.Fatal(err)
		}
		x.hubKey = signer
		return x.entry(t, 3)
	}

	for _, tt := range []struct {
		name   string
		proof  []byte
		keys   []string
		policy *checkpoint.Policy
		want   []error // nil: VALID
		state  log.State
	}{
		{"valid", valid, []string{s.vkey}, asksW1, nil, log.StateHubWitnessed},
		{"valid, and the policy asks for nobody", join(s.event(t, 3), hubWith(s.hubKey)), []string{s.vkey}, none, nil, log.StateSigned},
		{"rotated, both keys given", join(s.log.proof(t, 1, 3, whole, next), s.entry(t, 3)), []string{s.vkey, nextKey}, asksW1, nil, log.StateHubWitnessed},

		{"rotated, the first key not given", join(s.log.proof(t, 1, 3, whole, next), s.entry(t, 3)), []string{nextKey}, asksW1,
			[]error{log.ErrNotVerifiable, log.ErrNotFirstKey}, log.StateSigned},
		{"no policy", valid, []string{s.vkey}, nil, []error{log.ErrNotVerifiable, log.ErrNotPinned}, log.StateSigned},
		{"no key of the log", valid, nil, asksW1, []error{log.ErrNotVerifiable, log.ErrNotPinned, log.ErrNotFirstKey}, ""},
		{"the hub's key for the log's", valid, []string{s.hubVKey}, asksW1, []error{log.ErrNotVerifiable, log.ErrNotPinned, log.ErrNotFirstKey}, ""},
		{"the log's key in the policy, and none given", valid, nil, policy("log " + s.vkey + "\nlog " + s.hubVKey + "\n" + witnessLine),
			[]error{log.ErrNotVerifiable, log.ErrNotPinned, log.ErrNotFirstKey}, ""},
		{"the hub's key given with the log's, and not in the policy", valid, []string{s.vkey, s.hubVKey}, policy(witnessLine),
			[]error{log.ErrNotVerifiable, log.ErrNotPinned}, log.StateSigned},
		{"the log's key in the policy for the hub's", valid, []string{s.vkey}, policy("log " + s.vkey + "\n" + witnessLine),
			[]error{log.ErrNotVerifiable, log.ErrNotPinned}, log.StateSigned},
		{"not witnessed", join(s.event(t, 3), hubWith(s.hubKey)), []string{s.vkey}, asksW1,
			[]error{log.ErrNotVerifiable, log.ErrNotWitnessed}, log.StateSigned},
		{"the event's checkpoint witnessed, and not the hub's",
			join(s.log.proof(t, 1, 3, whole, s.signer, s.witness), hubWith(s.hubKey)), []string{s.vkey}, asksW1,
			[]error{log.ErrNotVerifiable, log.ErrNotWitnessed}, log.StateSigned},
		{"another log's entry of the same size and root", join(s.event(t, 3), s.entry(t, 2)), []string{s.vkey}, asksW1,
			[]error{log.ErrNotVerifiable, log.ErrNotFirstKey}, log.StateSigned},
		{"the same, and that log's key is given", join(s.event(t, 3), s.entry(t, 2)), []string{s.vkey, otherKey}, asksW1,
			[]error{log.ErrNotVerifiable, log.ErrNotFirstKey}, log.StateSigned},
		{"nothing shown", join(s.log.proof(t, 1, 3, digest, s.signer), s.entry(t, 3)), []string{s.vkey}, asksW1,
			[]error{log.ErrNotVerifiable, log.ErrNotShown}, log.StateSigned},
		{"an unknown version in the hub", join(s.event(t, 3), strange(append([]byte{3}, s.entries[3][1:]...))), []string{s.vkey}, asksW1,
			[]error{log.ErrNotVerifiable, log.ErrUnknownVersion}, log.StateSigned},
		{"an unknown version in the log", join(s.log.proof(t, 1, 3, append([]byte{3}, make([]byte, 72)...), s.signer), s.entry(t, 3)),
			[]string{s.vkey}, asksW1, []error{log.ErrNotVerifiable, log.ErrUnknownVersion}, log.StateSigned},

		{"another size of the log", join(s.event(t, 3), s.entry(t, 5)), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"a size that isn't in the hub", join(s.event(t, 4), s.entry(t, 3)), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"another root in the hub", join(s.event(t, 3), strange(log.AppendHubEntry(nil, id, checkpoint.Checkpoint{Size: 3, Root: s.log.root(2)}))),
			[]string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"another size in the hub", join(s.event(t, 3), strange(log.AppendHubEntry(nil, id, checkpoint.Checkpoint{Size: 2, Root: s.log.root(3)}))),
			[]string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"another index in the hub", join(s.event(t, 3), s.hub.proof(t, 5, 6, s.entries[3], s.hubKey, s.witness)), []string{s.vkey}, asksW1,
			[]error{log.ErrInvalidProof}, ""},
		{"an event in the hub", join(s.event(t, 3), strange(entry.Append(nil))), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"a short entry", join(s.event(t, 3), strange(s.entries[3][:72])), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"no entry", join(s.event(t, 3), s.hub.proof(t, 3, 6, nil, s.hubKey, s.witness)), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"a hub's entry in another log", join(s.event(t, 3), elsewhere("audit.example.com/logs/hub-2")), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"parts exchanged", join(s.entry(t, 3), s.event(t, 3)), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"the event's proof twice", join(s.event(t, 3), s.event(t, 3)), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"the hub's proof twice", join(s.entry(t, 3), s.entry(t, 3)), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"a hub in itself", join(s.hub.proof(t, 1, 3, s.entries[1], s.hubKey),
			strange(log.AppendHubEntry(nil, checkpoint.LogID(s.hubVKey), checkpoint.Checkpoint{Size: 3, Root: s.hub.root(3)}))),
			[]string{s.hubVKey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"the event's proof alone", s.event(t, 3), []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
		{"nothing", nil, []string{s.vkey}, asksW1, []error{log.ErrInvalidProof}, ""},
	} {
		v, err := log.VerifyHubProof(tt.proof, log.HubTrust{Keys: tt.keys, Policy: tt.policy, Now: now})
		var got []error
		for _, e := range []error{log.ErrInvalidProof, log.ErrNotVerifiable, log.ErrNotPinned, log.ErrNotWitnessed, log.ErrNotFirstKey,
			log.ErrNotShown, log.ErrUnknownVersion} {
			if errors.Is(err, e) {
				got = append(got, e)
			}
		}
		for _, e := range tt.want {
			if !slices.Contains(got, e) {
				t.Errorf("%s: got %v, want %v", tt.name, err, e)
			}
		}
		if len(got) != len(tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if (v == nil) != errors.Is(err, log.ErrInvalidProof) || v != nil && v.State != tt.state {
			t.Errorf("%s: got %+v, want state %q", tt.name, v, tt.state)
		}
	}
	if _, err := log.VerifyHubProof(valid, log.HubTrust{Keys: []string{s.vkey, s.vkey}}); err == nil || errors.Is(err, log.ErrInvalidProof) {
		t.Errorf("a key given twice: got %v", err)
	}
	if _, err := log.VerifyProof(s.entry(t, 3), log.Trust{Policy: asksW1, Now: now}); !errors.Is(err, log.ErrUnknownVersion) {
		t.Errorf("the hub's proof alone, as that of an event: got %v, want ErrUnknownVersion", err)
	}
}

// No byte of a valid hub proof can be changed, left out or added, all of whose signatures are by known keys; but their lines have no
// order, and those of unknown keys are said to be unchecked.
func TestChangedHubProofIsNeverValid(t *testing.T) {
	s := newHubScene(t, checkpoint.Seed{1, 2, 3})
	trust := log.HubTrust{Keys: []string{s.vkey}, Policy: s.policy(t, "w1"), Now: now}
	valid := join(s.event(t, 3), s.entry(t, 3))
	if _, err := log.VerifyHubProof(valid, trust); err != nil {
		t.Fatal(err)
	}
	n := 0
	changes(valid, func(what string, changed []byte) {
		n++
		if bytes.Equal(changed, valid) {
			return
		}
		if v, err := log.VerifyHubProof(changed, trust); err == nil && len(v.Hub.Unchecked) == 0 && !slices.Equal(sorted(changed), sorted(valid)) {
			t.Errorf("VALID with %s", what)
		}
	})
	if n < 1000 {
		t.Errorf("only %d changes were tried", n)
	}
}

func FuzzVerifyHubProof(f *testing.F) {
	s := newHubScene(f, checkpoint.Seed{1, 2, 3})
	trust := log.HubTrust{Keys: []string{s.vkey}, Policy: s.policy(f, "w1"), Now: now}
	valid := join(s.event(f, 3), s.entry(f, 3))
	f.Add(valid)
	f.Add(join(s.entry(f, 3), s.event(f, 3)))
	f.Add(join(s.event(f, 2), s.entry(f, 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := log.VerifyHubProof(data, trust)
		switch {
		case err == nil && (v.Hub == nil || v.State != log.StateHubWitnessed):
			t.Errorf("VALID, and says %+v", v)
		case err == nil && !slices.ContainsFunc([]int{2, 3, 5}, func(size int) bool { return v.Root == s.log.root(size) }):
			t.Errorf("VALID under the root %v, which the log never had", v.Root)
		case err != nil && errors.Is(err, log.ErrInvalidProof) == errors.Is(err, log.ErrNotVerifiable):
			t.Errorf("the error is of no kind, or of both: %v", err)
		case err != nil && (v == nil) != errors.Is(err, log.ErrInvalidProof):
			t.Errorf("got %+v, %v", v, err)
		}
	})
}

// hubProofVector is a hub proof and what verifying it comes to.
type hubProofVector struct {
	Name    string   `json:"name"`
	Keys    []string `json:"verifier_keys"` // of the log
	Policy  string   `json:"policy"`        // of the hub; "": none
	Now     int64    `json:"now"`           // by which cosignatures are judged, in seconds since 1970 UTC
	Proof   string   `json:"proof"`
	Result  string   `json:"result"`            // "VALID", "not verifiable" or "INVALID"
	State   string   `json:"state,omitempty"`   // of VALID: "hub-witnessed" or "signed"
	Reasons []string `json:"reasons,omitempty"` // of "not verifiable"
}

// hubVector is a hub of six entries, of two logs.
type hubVector struct {
	Origin      string            `json:"origin"`
	VerifierKey string            `json:"verifier_key"`
	Entries     []hubEntryVector  `json:"entries"`
	Root        string            `json:"root"`
	Refused     []string          `json:"malformed_entries"`
	Extensions  []extensionVector `json:"growth"`
	HubProofs   []hubProofVector  `json:"hub_proofs"`
}

type hubEntryVector struct {
	LogID    string `json:"log_id"`
	Size     uint64 `json:"size"`
	Root     string `json:"root"`
	Entry    string `json:"entry"`
	LeafHash string `json:"leaf_hash"`
}

// extensionVector is what GET /logs/hub/growth/{index} answers.
type extensionVector struct {
	Index uint64 `json:"index"`
	Body  string `json:"body"`
}

func hubVectors(t *testing.T) *hubVector {
	t.Helper()
	s := newHubScene(t, vectorSeed)
	root := s.hub.root(6)
	v := &hubVector{Origin: hubOrigin, VerifierKey: s.hubVKey, Root: root.String()}
	for i, b := range s.entries {
		e, err := checkpoint.ParseHubEntry(b)
		if err != nil {
			t.Fatal(err)
		}
		v.Entries = append(v.Entries, hubEntryVector{hex.EncodeToString(e.LogID[:]), e.Size, e.Root.String(), hex.EncodeToString(b), s.hub.leaves[i].String()})
	}
	good := s.entries[3]
	for _, b := range [][]byte{
		{}, good[:72], append(bytes.Clone(good), 0), append([]byte{1}, good[1:]...), append([]byte{3}, good[1:]...),
		slices.Concat(good[:33], make([]byte, 8), good[41:]), slices.Concat(good[:33], []byte{0x80}, good[34:]),
	} {
		if _, err := checkpoint.ParseHubEntry(b); err == nil {
			t.Fatalf("%x is an entry", b)
		}
		v.Refused = append(v.Refused, hex.EncodeToString(b))
	}
	for i, size := range map[int]int{1: 2, 3: 3, 5: 5} {
		x := log.Extension{First: i == 1, Previous: uint64(i) - 2}
		if !x.First {
			before := map[int]int{3: 2, 5: 3}[i]
			hashes, err := merkle.ConsistencyProof(t.Context(), uint64(before), uint64(size), s.log)
			if err != nil {
				t.Fatal(err)
			}
			x.Hashes = hashes
		}
		v.Extensions = append(v.Extensions, extensionVector{uint64(i), string(x.Text())})
	}
	slices.SortFunc(v.Extensions, func(a, b extensionVector) int { return int(a.Index) - int(b.Index) })

	policy := func(quorum string) string {
		return "log " + s.hubVKey + "\nwitness w1 " + s.witness.VKey() + "\nquorum " + quorum + "\n"
	}
	valid := join(s.event(t, 3), s.entry(t, 3))
	unwitnessed := join(s.event(t, 3), s.hub.proof(t, 3, 6, s.entries[3], s.hubKey))
	for _, p := range []struct {
		name, policy string
		keys         []string
		proof        []byte
	}{
		{"valid", policy("w1"), []string{s.vkey}, valid},
		{"the largest size", policy("w1"), []string{s.vkey}, join(s.event(t, 5), s.entry(t, 5))},
		{"quorum none", policy("none"), []string{s.vkey}, unwitnessed},
		{"not witnessed", policy("w1"), []string{s.vkey}, unwitnessed},
		{"no policy", "", []string{s.vkey}, valid},
		{"no key of the log", policy("w1"), []string{}, valid},
		{"another log's entry of the same size and root", policy("w1"), []string{s.vkey}, join(s.event(t, 3), s.entry(t, 2))},
		{"another size of the log", policy("w1"), []string{s.vkey}, join(s.event(t, 3), s.entry(t, 5))},
		{"parts exchanged", policy("w1"), []string{s.vkey}, join(s.entry(t, 3), s.event(t, 3))},
		{"the event's proof twice", policy("w1"), []string{s.vkey}, join(s.event(t, 3), s.event(t, 3))},
		{"a zero before the length", policy("w1"), []string{s.vkey}, bytes.Replace(valid, []byte("v1\n"), []byte("v1\n0"), 1)},
		{"a newline more at the end", policy("w1"), []string{s.vkey}, append(bytes.Clone(valid), '\n')},
	} {
		trust := log.HubTrust{Keys: p.keys, Now: now}
		if p.policy != "" {
			var err error
			if trust.Policy, err = checkpoint.ParsePolicy([]byte(p.policy)); err != nil {
				t.Fatal(err)
			}
		}
		x := hubProofVector{Name: p.name, Keys: p.keys, Policy: p.policy, Now: now.Unix(), Proof: string(p.proof), Result: "INVALID"}
		got, err := log.VerifyHubProof(p.proof, trust)
		switch {
		case err == nil:
			x.Result, x.State = "VALID", string(got.State)
		case errors.Is(err, log.ErrNotVerifiable):
			x.Result = "not verifiable"
		}
		for _, r := range []struct {
			err  error
			name string
		}{{log.ErrNotPinned, "not pinned"}, {log.ErrNotWitnessed, "not witnessed"}, {log.ErrNotFirstKey, "not the first key"}} {
			if errors.Is(err, r.err) && got != nil {
				x.Reasons = append(x.Reasons, r.name)
			}
		}
		v.HubProofs = append(v.HubProofs, x)
	}
	if results := resultsOf(v.HubProofs); results != "VVVnnnnIIIII" {
		t.Errorf("the results are %s", results)
	}
	return v
}

// resultsOf returns the first letter of each result.
func resultsOf(vectors []hubProofVector) string {
	var b strings.Builder
	for _, v := range vectors {
		b.WriteString(v.Result[:1])
	}
	return b.String()
}

// sorted returns the lines of a file, in order.
func sorted(data []byte) []string {
	lines := strings.Split(string(data), "\n")
	slices.Sort(lines)
	return lines
}
