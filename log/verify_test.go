package log_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

const testOrigin = "audit.example.com/logs/acme"

// plainLog is a log in memory: events, entries and tree, made from the definitions.
type plainLog struct {
	origin      string
	disclosures []*log.Disclosure
	leaves      []merkle.Hash
}

// newLog returns a log of n events, received a second apart.
func newLog(t rapid.TB, origin string, n int) *plainLog {
	t.Helper()
	l := &plainLog{origin: origin}
	for i := range n {
		e, err := log.ParseEvent(fmt.Appendf(nil, `{"id":"e%d","action":"user.login","actor_id":"user_%d",
			"actor_email":"u%d@example.com","metadata":{"n":%d,"é/~":["😀",null]}}`, i, i%7, i, i), options)
		if err != nil {
			t.Fatal(err)
		}
		l.append(&log.Disclosure{ReceivedAt: 1780315200_000000 + int64(i)*1e6, Event: e, Seed: &[32]byte{byte(i), byte(i >> 8), 3}})
	}
	return l
}

// append chains d to the log.
func (l *plainLog) append(d *log.Disclosure) {
	d.Previous = log.Genesis(l.origin)
	if n := len(l.leaves); n > 0 {
		d.Previous = l.leaves[n-1]
	}
	l.disclosures = append(l.disclosures, d)
	l.leaves = append(l.leaves, d.Entry().LeafHash())
}

func (l *plainLog) root(size int) merkle.Hash {
	r := merkle.NewRange()
	for _, leaf := range l.leaves[:size] {
		r.Append(leaf, nil)
	}
	return r.Root()
}

// ReadTile makes the log a merkle.TileReader.
func (l *plainLog) ReadTile(_ context.Context, tile merkle.Tile) ([]merkle.Hash, error) {
	width := 1 << (8 * tile.Level) // of one hash, in leaves
	var hashes []merkle.Hash
	for i := range tile.Width {
		first := (int(tile.Index)*merkle.TileWidth + i) * width
		r := merkle.NewRange()
		for _, leaf := range l.leaves[first : first+width] {
			r.Append(leaf, nil)
		}
		hashes = append(hashes, r.Root())
	}
	return hashes, nil
}

// testKey returns a key of a log, the same one every time.
func testKey(t rapid.TB, origin string, generation uint32) (note.Signer, note.Verifier) {
	t.Helper()
	signer, vkey, err := checkpoint.Seed{1, 2, 3}.Ed25519(origin, generation)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

// proof returns the proof of the entry at index in the tree of the given size, with extra as its disclosure.
func (l *plainLog) proof(t rapid.TB, index, size int, extra []byte, signers ...note.Signer) []byte {
	t.Helper()
	hashes, err := merkle.InclusionProof(context.Background(), uint64(index), uint64(size), l)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: l.origin, Size: uint64(size), Root: l.root(size)}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	data, err := checkpoint.Proof{Index: uint64(index), Hashes: hashes, Checkpoint: msg, Extra: extra}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestVerifyProofValid(t *testing.T) {
	signer, verifier := testKey(t, testOrigin, 0)
	next, nextVerifier := testKey(t, testOrigin, 1)
	l := newLog(t, testOrigin, 300)
	for _, tt := range []struct{ index, size int }{{0, 1}, {0, 2}, {1, 2}, {2, 3}, {0, 300}, {255, 300}, {256, 300}, {299, 300}, {7, 256}} {
		d := l.disclosures[tt.index]
		proof := l.proof(t, tt.index, tt.size, []byte(mustMarshal(t, d)), signer, next)
		v, err := log.VerifyProof(proof, log.Trust{Keys: []note.Verifier{verifier}})
		if err != nil {
			t.Fatalf("index %d of %d: %v", tt.index, tt.size, err)
		}
		if v.Index != uint64(tt.index) || v.Size != uint64(tt.size) || v.Origin != testOrigin || v.Root != l.root(tt.size) ||
			v.Entry != d.Entry() || v.Leaf != l.leaves[tt.index] || !bytes.Equal(v.Event(), d.Event.JSON()) || v.Withheld() != nil {
			t.Errorf("index %d of %d: got %+v", tt.index, tt.size, v)
		}
		wantSignatures(t, v, []note.Verifier{verifier}, []note.Verifier{nextVerifier})
	}
}

func wantSignatures(t *testing.T, v *log.Verification, verified, unchecked []note.Verifier) {
	t.Helper()
	list := func(verifiers []note.Verifier) (s []log.Signature) {
		for _, v := range verifiers {
			s = append(s, log.Signature{Name: v.Name(), ID: v.KeyHash()})
		}
		return s
	}
	if !slices.Equal(v.Verified, list(verified)) || !slices.Equal(v.Unchecked, list(unchecked)) {
		t.Errorf("got signatures %v verified and %v unchecked, want %v and %v",
			v.Verified, v.Unchecked, list(verified), list(unchecked))
	}
}

func TestVerifyProofWithheld(t *testing.T) {
	signer, verifier := testKey(t, testOrigin, 0)
	l := newLog(t, testOrigin, 3)
	d := mustWithhold(t, l.disclosures[1], "/actor/email", "/id")
	v, err := log.VerifyProof(l.proof(t, 1, 3, []byte(mustMarshal(t, d)), signer), log.Trust{Keys: []note.Verifier{verifier}})
	if err != nil {
		t.Fatal(err)
	}
	if got := v.Withheld(); !slices.Equal(got, []string{"/actor/email", "/id"}) {
		t.Errorf("got %v withheld", got)
	}
	if v.Event() != nil {
		t.Errorf("got event %s though claims are withheld", v.Event())
	}
	if v.Leaf != l.leaves[1] {
		t.Errorf("got leaf hash %v, want %v", v.Leaf, l.leaves[1])
	}
}

// now is the time of these tests' verifiers.
var now = time.Unix(1_800_000_000, 0)

// testWitness returns the key of a witness: ML-DSA-44 for w2, Ed25519 for others.
func testWitness(t rapid.TB, name string) *checkpoint.Cosigner {
	t.Helper()
	kind := checkpoint.Seed{1, 2, 3}.Ed25519Cosigner
	if name == "w2" {
		kind = checkpoint.Seed{1, 2, 3}.MLDSA44Cosigner
	}
	c, err := kind("witness.example/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cosigner is a witness that signs checkpoints at one time, as a note.Signer.
type cosigner struct {
	*checkpoint.Cosigner
	at time.Time
}

func (c cosigner) Sign(text []byte) ([]byte, error) {
	cp, err := checkpoint.ParseText(string(text))
	if err != nil {
		return nil, err
	}
	sig, err := c.Cosign(cp, c.at)
	if err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.DecodeString(sig.Base64)
	return raw[4:], err
}

func witnessSigner(t rapid.TB, name string, at time.Time) note.Signer {
	t.Helper()
	return cosigner{testWitness(t, name), at}
}

// policyOf returns a policy with the log testOrigin, whose quorum is a group of the witnesses, or none.
func policyOf(t rapid.TB, threshold string, witnesses ...string) *checkpoint.Policy {
	t.Helper()
	_, vkey, err := checkpoint.Seed{1, 2, 3}.Ed25519(testOrigin, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := "log " + vkey + "\n"
	for _, name := range witnesses {
		text += "witness " + name + " " + testWitness(t, name).VKey() + "\n"
	}
	if threshold == "none" {
		text += "quorum none\n"
	} else {
		text += "group g " + threshold + " " + strings.Join(witnesses, " ") + "\nquorum g\n"
	}
	p, err := checkpoint.ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestVerifyProofUnderAPolicy(t *testing.T) {
	signer, verifier := testKey(t, testOrigin, 0)
	next, nextVerifier := testKey(t, testOrigin, 1)
	w1, w2, w3 := witnessSigner(t, "w1", now.Add(-time.Hour)), witnessSigner(t, "w2", now), witnessSigner(t, "w3", now)
	early := witnessSigner(t, "w3", now.Add(checkpoint.MaxClockSkew+time.Second))
	two := policyOf(t, "2", "w1", "w2", "w3")
	w1Verifier, err := checkpoint.NewVerifier(testWitness(t, "w1").VKey())
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t, testOrigin, 3)
	whole := []byte(mustMarshal(t, l.disclosures[1]))
	for _, tt := range []struct {
		name    string
		signers []note.Signer
		trust   log.Trust
		want    error
		state   log.State
		detail  string
	}{
		{"met", []note.Signer{signer, w1, w2}, log.Trust{Policy: two}, nil, log.StateWitnessed, ""},
		{"met by all", []note.Signer{signer, w3, w2, w1}, log.Trust{Policy: two, Keys: []note.Verifier{verifier}}, nil, log.StateWitnessed, ""},
		{"a witness is pinned, too", []note.Signer{signer, w1, w2}, log.Trust{Policy: two, Keys: []note.Verifier{w1Verifier}}, nil, log.StateWitnessed, ""},
		{"one is missing", []note.Signer{signer, w2}, log.Trust{Policy: two}, log.ErrNotWitnessed, log.StateSigned, "it would be with w1"},
		{"two are missing", []note.Signer{signer}, log.Trust{Policy: two}, log.ErrNotWitnessed, log.StateSigned, "it would be with w1, w2"},
		{"one is from the future", []note.Signer{signer, w2, early}, log.Trust{Policy: two}, log.ErrNotWitnessed, log.StateSigned, "it would be with w1"},
		{"none is asked for", []note.Signer{signer, w1}, log.Trust{Policy: policyOf(t, "none", "w1")}, nil, log.StateSigned, ""},
		{"no policy", []note.Signer{signer, w1, w2}, log.Trust{Keys: []note.Verifier{verifier}}, nil, log.StateSigned, ""},
		{"by a key of the log that the policy doesn't have", []note.Signer{next, w1, w2}, log.Trust{Policy: two}, log.ErrNotPinned, "", ""},
		{"the same, pinned", []note.Signer{next, w1, w2}, log.Trust{Policy: two, Keys: []note.Verifier{nextVerifier}}, nil, log.StateWitnessed, ""},
	} {
		tt.trust.Now = now
		v, err := log.VerifyProof(l.proof(t, 1, 3, whole, tt.signers...), tt.trust)
		if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || errors.Is(err, log.ErrNotVerifiable) != (tt.want != nil) ||
			err != nil && !strings.Contains(err.Error(), tt.detail) {
			t.Errorf("%s: got error %v, want %v: %s", tt.name, err, tt.want, tt.detail)
		}
		if v == nil || v.State != tt.state {
			t.Errorf("%s: got %+v, want state %q", tt.name, v, tt.state)
		}
	}

	v, err := log.VerifyProof(l.proof(t, 1, 3, whole, signer, w2, early), log.Trust{Policy: two, Now: now})
	if !errors.Is(err, log.ErrNotWitnessed) || len(v.Witnesses) != 3 || len(v.Verified) != 3 {
		t.Fatalf("got %+v, %v", v, err)
	}
	for i, want := range []checkpoint.Testimony{
		{Witness: two.Witnesses[0], State: checkpoint.Missing},
		{Witness: two.Witnesses[1], State: checkpoint.Cosigned, At: now.UTC()},
		{Witness: two.Witnesses[2], State: checkpoint.FromFuture, At: now.Add(checkpoint.MaxClockSkew + time.Second).UTC()},
	} {
		if got := v.Witnesses[i]; got.Witness.Name != want.Witness.Name || got.State != want.State || !got.At.Equal(want.At) {
			t.Errorf("witness %d: got %+v, want %+v", i, got, want)
		}
	}

	// A cosignature that fails makes it invalid, even of a witness that isn't needed.
	good := l.proof(t, 1, 3, whole, signer, w1, w2, w3)
	line := signatureOf(t, good, 3)
	raw := decode64(t, line)
	raw[len(raw)-1] ^= 1
	forged := bytes.Replace(good, []byte(line), []byte(base64.StdEncoding.EncodeToString(raw)), 1)
	if v, err := log.VerifyProof(forged, log.Trust{Policy: two, Now: now}); !errors.Is(err, log.ErrInvalidProof) || v != nil {
		t.Errorf("a forged cosignature: got %+v, %v", v, err)
	}
	if _, err := log.VerifyProof(forged, log.Trust{Policy: policyOf(t, "2", "w1", "w2"), Now: now}); err != nil {
		t.Errorf("a forged cosignature of nobody that is known: %v", err)
	}
}

// A witness may call its key as it likes. It doesn't speak for the log.
func TestAWitnessNamedAsTheLogIsNoLog(t *testing.T) {
	_, verifier := testKey(t, testOrigin, 0)
	imposter, err := checkpoint.Seed{1, 2, 3}.Ed25519Cosigner(testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := checkpoint.NewVerifier(imposter.VKey())
	if err != nil {
		t.Fatal(err)
	}
	policy, err := checkpoint.ParsePolicy([]byte("witness w " + imposter.VKey() + "\nquorum w\n"))
	if err != nil {
		t.Fatal(err)
	}
	l := newLog(t, testOrigin, 3)
	proof := l.proof(t, 1, 3, []byte(mustMarshal(t, l.disclosures[1])), cosigner{imposter, now})
	for _, keys := range [][]note.Verifier{nil, {verifier}, {pinned}} {
		v, err := log.VerifyProof(proof, log.Trust{Policy: policy, Now: now, Keys: keys})
		if !errors.Is(err, log.ErrNotPinned) || v.State != "" {
			t.Errorf("with %d keys: got %+v, %v, want ErrNotPinned", len(keys), v, err)
		}
	}
}

func TestVerifyProofResults(t *testing.T) {
	signer, verifier := testKey(t, testOrigin, 0)
	rotated, rotatedVerifier := testKey(t, testOrigin, 1)
	other, otherVerifier := testKey(t, "audit.example.com/logs/other", 0)
	hubSigner, hubVerifier := testKey(t, "audit.example.com/logs/hub", 0)
	l, hub := newLog(t, testOrigin, 3), newLog(t, "audit.example.com/logs/hub", 3)
	whole := []byte(mustMarshal(t, l.disclosures[1]))
	entry := l.disclosures[1].Entry()
	digest := []byte(mustMarshal(t, &log.Disclosure{ReceivedAt: entry.ReceivedAt, Previous: entry.Previous, Digest: &entry.Digest}))
	var all []string
	for _, c := range l.disclosures[1].Event.Claims() {
		all = append(all, c.Pointer)
	}
	withheld := []byte(mustMarshal(t, mustWithhold(t, l.disclosures[1], all...)))
	valid := l.proof(t, 1, 3, whole, signer)
	replace := func(proof []byte, old, new string) []byte {
		t.Helper()
		if !bytes.Contains(proof, []byte(old)) {
			t.Fatalf("%q is not in %s", old, proof)
		}
		return bytes.Replace(proof, []byte(old), []byte(new), 1)
	}
	keys := func(v ...note.Verifier) []note.Verifier { return v }

	for _, tt := range []struct {
		name      string
		proof     []byte
		verifiers []note.Verifier
		want      []error // nil: VALID
	}{
		{"valid", valid, keys(verifier), nil},
		{"valid with more keys than needed", valid, keys(otherVerifier, verifier, rotatedVerifier), nil},
		{"signed by another log as well", l.proof(t, 1, 3, whole, signer, other), keys(verifier, otherVerifier), nil},

		{"no key", valid, nil, []error{log.ErrNotVerifiable, log.ErrNotPinned}},
		{"the next key only", valid, keys(rotatedVerifier), []error{log.ErrNotVerifiable, log.ErrNotPinned}},
		{"another log's key", valid, keys(otherVerifier), []error{log.ErrNotVerifiable, log.ErrNotPinned}},
		{"a pinned key, not named as the origin", l.proof(t, 1, 3, whole, signer, other), keys(otherVerifier),
			[]error{log.ErrNotVerifiable, log.ErrNotPinned}},
		{"digest alone", l.proof(t, 1, 3, digest, signer), keys(verifier), []error{log.ErrNotVerifiable, log.ErrNotShown}},
		{"all claims withheld", l.proof(t, 1, 3, withheld, signer), keys(verifier), []error{log.ErrNotVerifiable, log.ErrNotShown}},
		{"no disclosure", l.proof(t, 1, 3, nil, signer), keys(verifier), []error{log.ErrNotVerifiable, log.ErrNotShown}},
		{"digest alone, no key", l.proof(t, 1, 3, digest, signer), nil,
			[]error{log.ErrNotVerifiable, log.ErrNotShown, log.ErrNotPinned}},
		{"an entry of version 2", hub.proof(t, 1, 3, append([]byte{2}, make([]byte, 72)...), hubSigner), keys(hubVerifier),
			[]error{log.ErrNotVerifiable, log.ErrUnknownVersion}},
		{"an entry of version 2, not in a hub", l.proof(t, 1, 3, append([]byte{2}, make([]byte, 72)...), signer), keys(verifier),
			[]error{log.ErrNotVerifiable, log.ErrUnknownVersion}},

		{"nothing", nil, keys(verifier), []error{log.ErrInvalidProof}},
		{"an entry of version 1, bare", l.proof(t, 1, 3, entry.Append(nil), signer), keys(verifier), []error{log.ErrInvalidProof}},
		{"extra data of some other kind", l.proof(t, 1, 3, []byte("hello"), signer), keys(verifier), []error{log.ErrInvalidProof}},
		{"an event in the hub", hub.proof(t, 1, 3, []byte(mustMarshal(t, hub.disclosures[1])), hubSigner), keys(hubVerifier),
			[]error{log.ErrInvalidProof}},
		{"another entry's disclosure", l.proof(t, 0, 3, whole, signer), keys(verifier), []error{log.ErrInvalidProof}},
		{"another entry's digest", l.proof(t, 0, 3, digest, signer), keys(verifier), []error{log.ErrInvalidProof}},
		{"another entry's disclosure, no key", l.proof(t, 0, 3, whole, signer), nil, []error{log.ErrInvalidProof}},
		{"another index", replace(valid, "index 1\n", "index 0\n"), keys(verifier), []error{log.ErrInvalidProof}},
		{"index beyond the tree", replace(valid, "index 1\n", "index 3\n"), keys(verifier), []error{log.ErrInvalidProof}},
		{"another size", replace(valid, "\n3\n", "\n4\n"), keys(verifier), []error{log.ErrInvalidProof}},
		{"another size, no key", replace(valid, "\n3\n", "\n2\n"), nil, []error{log.ErrInvalidProof}},
		{"another log's checkpoint", replace(valid, testOrigin+"\n3", "audit.example.com/logs/other\n3"), keys(verifier, otherVerifier),
			[]error{log.ErrInvalidProof}},
		{"a failing signature beside a good one",
			replace(l.proof(t, 1, 3, whole, signer, other), signatureOf(t, l.proof(t, 1, 3, whole, signer, other), 1), forgedSignature(other)),
			keys(verifier, otherVerifier), []error{log.ErrInvalidProof}},
		{"the same, its key not pinned",
			replace(l.proof(t, 1, 3, whole, signer, other), signatureOf(t, l.proof(t, 1, 3, whole, signer, other), 1), forgedSignature(other)),
			keys(verifier), nil},
		{"a failing signature beside a good one of the same log",
			replace(l.proof(t, 1, 3, whole, signer, rotated), signatureOf(t, l.proof(t, 1, 3, whole, signer, rotated), 1), forgedSignature(rotated)),
			keys(verifier, rotatedVerifier), []error{log.ErrInvalidProof}},
	} {
		v, err := log.VerifyProof(tt.proof, log.Trust{Keys: tt.verifiers})
		all := []error{log.ErrInvalidProof, log.ErrNotVerifiable, log.ErrNotPinned, log.ErrNotShown, log.ErrUnknownVersion}
		var got []error
		for _, e := range all {
			if errors.Is(err, e) {
				got = append(got, e)
			}
		}
		slices.SortFunc(tt.want, func(a, b error) int { return slices.Index(all, a) - slices.Index(all, b) })
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: got error %v, want %v", tt.name, err, tt.want)
		}
		if (v == nil) != errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("%s: got verification %+v with error %v", tt.name, v, err)
		}
	}
	if _, err := log.VerifyProof(valid, log.Trust{Keys: keys(verifier, verifier)}); err == nil || errors.Is(err, log.ErrInvalidProof) {
		t.Errorf("the same key twice: got error %v, want one that doesn't blame the proof", err)
	}
}

// signatureOf returns the base64 of the i-th signature of a proof.
func signatureOf(t *testing.T, proof []byte, i int) string {
	t.Helper()
	lines := strings.Split(string(proof[bytes.LastIndex(proof, []byte("\n\n"))+2:]), "\n")
	return strings.Fields(lines[i])[2]
}

// forgedSignature returns the base64 of a signature with the key id of a signer, and nothing right beyond that.
func forgedSignature(s note.Signer) string {
	id := s.KeyHash()
	return base64.StdEncoding.EncodeToString(append([]byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)}, make([]byte, 64)...))
}

func decode64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestChangedProofIsNeverValid changes proofs in one place, in every place and in many ways.
func TestChangedProofIsNeverValid(t *testing.T) {
	signer, verifier := testKey(t, testOrigin, 0)
	next, nextVerifier := testKey(t, testOrigin, 1)
	both := []note.Verifier{verifier, nextVerifier}
	w1, w2 := witnessSigner(t, "w1", now), witnessSigner(t, "w2", now)
	policy := policyOf(t, "any", "w1", "w2")
	for _, tt := range []struct {
		index, size int
		withhold    []string
		signers     []note.Signer
		// unchecked is set where a signature is by a key that may be unknown to the verifier, because it isn't given or
		// because the change made it another key. Such lines may be anything, but what is verified must stay the same.
		unchecked bool
		trust     log.Trust
	}{
		{0, 1, nil, []note.Signer{signer}, false, log.Trust{Keys: both[:1]}},
		{1, 3, nil, []note.Signer{signer}, false, log.Trust{Keys: both[:1]}},
		{1, 3, []string{"/actor/email", "/id"}, []note.Signer{signer}, false, log.Trust{Keys: both}},
		{256, 300, nil, []note.Signer{signer}, false, log.Trust{Keys: both[:1]}},
		{1, 3, nil, []note.Signer{signer, next}, true, log.Trust{Keys: both}},
		{1, 3, nil, []note.Signer{signer, next}, true, log.Trust{Keys: both[:1]}},
		// A policy's cosignatures, by witnesses of both types.
		{1, 3, nil, []note.Signer{signer, w1}, true, log.Trust{Policy: policy, Now: now}},
		{1, 3, nil, []note.Signer{signer, w2, next}, true, log.Trust{Policy: policy, Now: now, Keys: both}},
	} {
		t.Run(fmt.Sprintf("%d of %d, withheld %d, signatures %d, keys %d, policy %v",
			tt.index, tt.size, len(tt.withhold), len(tt.signers), len(tt.trust.Keys), tt.trust.Policy != nil), func(t *testing.T) {
			t.Parallel()
			l := newLog(t, testOrigin, tt.size)
			d := l.disclosures[tt.index]
			if tt.withhold != nil {
				d = mustWithhold(t, d, tt.withhold...)
			}
			valid := l.proof(t, tt.index, tt.size, []byte(mustMarshal(t, d)), tt.signers...)
			want, err := log.VerifyProof(valid, tt.trust)
			if err != nil {
				t.Fatal(err)
			}
			wantMarshal := mustMarshal(t, want.Disclosure)
			tried := 0
			changes(valid, func(what string, changed []byte) {
				tried++
				got, err := log.VerifyProof(changed, tt.trust)
				if err != nil {
					if errors.Is(err, log.ErrInvalidProof) == errors.Is(err, log.ErrNotVerifiable) {
						t.Errorf("%s: got error %v", what, err)
					}
					return
				}
				if !tt.unchecked {
					t.Errorf("%s: VALID:\n%s", what, changed)
				}
				if got.State != want.State || !reflect.DeepEqual(got.Witnesses, want.Witnesses) {
					t.Errorf("%s: VALID, %s with %v, want %s with %v", what, got.State, got.Witnesses, want.State, want.Witnesses)
				}
				if got.Origin != want.Origin || got.Index != want.Index || got.Size != want.Size || got.Root != want.Root ||
					got.Entry != want.Entry || got.Leaf != want.Leaf || mustMarshal(t, got.Disclosure) != wantMarshal {
					t.Errorf("%s: VALID, and says something else:\n%s", what, changed)
				}
				if split := bytes.LastIndex(valid, []byte("\n\n")); !bytes.HasPrefix(changed, valid[:split+2]) {
					t.Errorf("%s: VALID, and differs before the signatures:\n%s", what, changed)
				}
			})
			t.Logf("%d changes of %d bytes", tried, len(valid))
		})
	}
}

// changes calls try with data changed in one place: each byte replaced, left out, repeated, exchanged with the next, and others put before
// it; each line left out, repeated, exchanged with the next; and each end cut off.
func changes(data []byte, try func(what string, changed []byte)) {
	for i, b := range data {
		for _, r := range []byte{b ^ 1, b ^ 0x20, b ^ 0x80, '\n', '0', '='} {
			if r != b {
				changed := bytes.Clone(data)
				changed[i] = r
				try(fmt.Sprintf("byte %d replaced by %q", i, r), changed)
			}
		}
		for _, r := range []byte{b, '\n', ' ', '0'} {
			try(fmt.Sprintf("%q put before byte %d", r, i), slices.Insert(bytes.Clone(data), i, r))
		}
		try(fmt.Sprintf("byte %d left out", i), slices.Delete(bytes.Clone(data), i, i+1))
		try(fmt.Sprintf("cut off at byte %d", i), data[:i])
		if i > 0 && data[i-1] != b {
			changed := bytes.Clone(data)
			changed[i-1], changed[i] = b, data[i-1]
			try(fmt.Sprintf("byte %d exchanged with the one before", i), changed)
		}
	}
	for _, r := range []string{"\n", "\r\n", " ", "0", "\x00"} {
		try(fmt.Sprintf("%q put behind", r), append(bytes.Clone(data), r...))
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines = lines[:len(lines)-1]
	for i := range lines {
		for what, changed := range map[string][][]byte{
			"left out": slices.Delete(slices.Clone(lines), i, i+1),
			"repeated": slices.Insert(slices.Clone(lines), i, lines[i]),
			"at end":   append(slices.Clone(lines), lines[i]),
		} {
			try(fmt.Sprintf("line %d %s", i, what), bytes.Join(changed, nil))
		}
		if i > 0 && !bytes.Equal(lines[i-1], lines[i]) {
			changed := slices.Clone(lines)
			changed[i-1], changed[i] = changed[i], changed[i-1]
			try(fmt.Sprintf("line %d exchanged with the one before", i), bytes.Join(changed, nil))
		}
	}
	try("twice", append(bytes.Clone(data), data...))
	try("with CRLF", bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")))
}

func FuzzVerifyProof(f *testing.F) {
	signer, verifier := testKey(f, testOrigin, 0)
	next, _ := testKey(f, testOrigin, 1)
	l := newLog(f, testOrigin, 3)
	whole := []byte(mustMarshal(f, l.disclosures[1]))
	known := map[string]bool{}
	for _, proof := range [][]byte{
		l.proof(f, 1, 3, whole, signer),
		l.proof(f, 1, 3, whole, next, signer),
		l.proof(f, 1, 3, []byte(mustMarshal(f, mustWithhold(f, l.disclosures[1], "/id"))), signer),
		l.proof(f, 2, 3, []byte(mustMarshal(f, l.disclosures[2])), signer),
		l.proof(f, 0, 1, []byte(mustMarshal(f, l.disclosures[0])), signer),
		l.proof(f, 1, 3, []byte{2}, signer),
	} {
		f.Add(proof)
		if v, err := log.VerifyProof(proof, log.Trust{Keys: []note.Verifier{verifier}}); err == nil {
			known[mustMarshal(f, v.Disclosure)] = true
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := log.VerifyProof(data, log.Trust{Keys: []note.Verifier{verifier}})
		if invalid, open := errors.Is(err, log.ErrInvalidProof), errors.Is(err, log.ErrNotVerifiable); err != nil && invalid == open {
			t.Errorf("got error %v, want it to be either ErrInvalidProof or ErrNotVerifiable", err)
		}
		if err != nil {
			return
		}
		// The key has signed nothing but what is in the corpus.
		if !known[mustMarshal(t, v.Disclosure)] {
			t.Errorf("VALID, though never signed: %s", data)
		}
		// What the same proof is worth without keys.
		if _, err := log.VerifyProof(data, log.Trust{}); !errors.Is(err, log.ErrNotPinned) || errors.Is(err, log.ErrInvalidProof) {
			t.Errorf("without keys: got error %v, want ErrNotPinned", err)
		}
	})
}
