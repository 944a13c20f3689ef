package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/mldsa"
	cosignatures "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/merkle"
)

// foreign is the example of C2SP tlog-checkpoint.
func foreign(t testing.TB) Checkpoint {
	t.Helper()
	root, err := base64.StdEncoding.DecodeString(rootB64)
	if err != nil {
		t.Fatal(err)
	}
	return Checkpoint{"example.com/behind-the-sofa", 20852163, merkle.Hash(root)}
}

const testWitnessVKey = "witness.example/w1+aa4a09d1+BOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs"

// The key pair of 32 times 0x07, as another implementation has encoded and used it.
func TestCosignatureVector(t *testing.T) {
	k := verifierKey{"witness.example/w1", algEd25519Time, ed25519.NewKeyFromSeed(testSeed[:]).Public().(ed25519.PublicKey)}
	if k.String() != testWitnessVKey || k.hash() != 0xaa4a09d1 {
		t.Errorf("verifier key is %s, want %s", k, testWitnessVKey)
	}
	plain := k
	plain.alg = algEd25519
	if plain.hash() != 0x68cca5d4 {
		t.Errorf("the hash as a key of type 0x01 is %08x, want 68cca5d4", plain.hash())
	}
	const line = "— witness.example/w1 qkoJ0QAAAABkGFDLWr4Jea05CAgwNVtwky0Jgz6WfX0QJgM//FkB/W9BoT9TX0DkTxG+2cT4p/ViKNhUM/SnUwFcYQzugGFQ15LwDw==\n"
	verifier, err := NewVerifier(testWitnessVKey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open([]byte(foreign(t).Text()+"\n"+line), note.VerifierList(verifier))
	if err != nil {
		t.Fatal(err)
	}
	at, err := CosignatureTime(n.Sigs[0])
	if err != nil || at.Unix() != 1679315147 || SignatureLine(n.Sigs[0]) != line {
		t.Errorf("got %v, %v, %q", at, err, SignatureLine(n.Sigs[0]))
	}
}

// The same secret keys in the library give the same keys and, with Ed25519, signatures.
func TestCosigners(t *testing.T) {
	const name = "witness.example/w1"
	c, at := foreign(t), time.Unix(1679315147, 999_999_999)
	ed, err := testSeed.Ed25519Cosigner(name)
	if err != nil {
		t.Fatal(err)
	}
	ml, err := testSeed.MLDSA44Cosigner(name)
	if err != nil {
		t.Fatal(err)
	}

	edKey := ed25519.NewKeyFromSeed(hkdf32(testSeed[:], "treeline/witness/ed25519/v1\n"+name+"\x00\x00\x00\x00"))
	mlKey, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), hkdf32(testSeed[:], "treeline/witness/mldsa44/v1\n"+name+"\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	edSigned := "cosignature/v1\ntime 1679315147\n" + c.Text()
	var mlSigned []byte
	mlSigned = append(mlSigned, "subtree/v1\n\x00"...)
	mlSigned = append(mlSigned, byte(len(name)))
	mlSigned = append(mlSigned, name...)
	mlSigned = binary.BigEndian.AppendUint64(mlSigned, 1679315147)
	mlSigned = append(mlSigned, byte(len(c.Origin)))
	mlSigned = append(mlSigned, c.Origin...)
	mlSigned = binary.BigEndian.AppendUint64(mlSigned, 0)
	mlSigned = binary.BigEndian.AppendUint64(mlSigned, c.Size)
	mlSigned = append(mlSigned, c.Root[:]...)

	for _, tc := range []struct {
		cosigner *Cosigner
		key      verifierKey
		size     int
		valid    func(sig []byte) bool
	}{
		{ed, verifierKey{name, 4, edKey[32:]}, 76, func(sig []byte) bool {
			return bytes.Equal(sig, ed25519.Sign(edKey, []byte(edSigned)))
		}},
		{ml, verifierKey{name, 6, mlKey.PublicKey().Bytes()}, 2432, func(sig []byte) bool {
			return mldsa.Verify(mlKey.PublicKey(), mlSigned, sig, nil) == nil
		}},
	} {
		vkey := tc.cosigner.VKey()
		if vkey != tc.key.String() || tc.cosigner.Name() != name || tc.cosigner.KeyHash() != tc.key.hash() {
			t.Errorf("got key %.60s, want %.60s", vkey, tc.key)
		}
		sig, err := tc.cosigner.Cosign(c, at)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := base64.StdEncoding.DecodeString(sig.Base64)
		if err != nil || len(raw) != tc.size || sig.Name != name || sig.Hash != tc.key.hash() || binary.BigEndian.Uint32(raw) != sig.Hash {
			t.Fatalf("got a signature of %d bytes by %s, %v, want %d", len(raw), KeyID(sig.Name, sig.Hash), err, tc.size)
		}
		if got, err := CosignatureTime(sig); err != nil || got != time.Unix(1679315147, 0).UTC() {
			t.Errorf("got time %v, %v", got, err)
		}
		if !tc.valid(raw[12:]) {
			t.Error("the specified message isn't what was signed")
		}
		ours, err := NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := cosignatures.NewVerifierForCosignatureV1(vkey)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []note.Verifier{ours, theirs} {
			if v.Name() != name || v.KeyHash() != sig.Hash || !v.Verify([]byte(c.Text()), raw[4:]) {
				t.Errorf("%T doesn't accept it", v)
			}
		}
		for i := 4; i < 20; i++ {
			changed := bytes.Clone(raw)
			changed[i] ^= 1
			if ours.Verify([]byte(c.Text()), changed[4:]) {
				t.Errorf("accepted with byte %d changed", i)
			}
		}
		other := c
		other.Size++
		if ours.Verify([]byte(other.Text()), raw[4:]) {
			t.Error("accepted for another size")
		}
	}
}

// What isn't in the bytes that ML-DSA-44 signs could be put into the text afterwards.
func TestTimedVerifiersTakeCanonicalCheckpointsOnly(t *testing.T) {
	c := foreign(t)
	ed, err := testSeed.Ed25519Cosigner("w")
	if err != nil {
		t.Fatal(err)
	}
	ml, err := testSeed.MLDSA44Cosigner("w")
	if err != nil {
		t.Fatal(err)
	}
	for _, cosigner := range []*Cosigner{ed, ml} {
		sig, err := cosigner.Cosign(c, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := base64.StdEncoding.DecodeString(sig.Base64)
		verifier, err := NewVerifier(cosigner.VKey())
		if err != nil {
			t.Fatal(err)
		}
		text := c.Text()
		for name, changed := range map[string]string{
			"extension line":     text + "extension\n",
			"leading zero":       strings.Replace(text, "\n2", "\n02", 1),
			"bits after root":    strings.Replace(text, "q2I=", "q2J=", 1),
			"a newline too few":  strings.TrimSuffix(text, "\n"),
			"newline in root":    strings.Replace(text, "/Xajj", "\n/Xajj", 1),
			"carriage returns":   strings.ReplaceAll(text, "\n", "\r\n"),
			"carriage in origin": strings.Replace(text, "\n", "\r\n", 1),
		} {
			if verifier.Verify([]byte(changed), raw[4:]) {
				t.Errorf("%s: %s accepted %q", name, cosigner.VKey()[:12], changed)
			}
		}
		if !verifier.Verify([]byte(text), raw[4:]) || verifier.Verify([]byte(text), raw[4:len(raw)-1]) || verifier.Verify([]byte(text), nil) {
			t.Error("the signature itself")
		}
	}
}

// "It MUST NOT exceed 2^63 - 1", says C2SP tlog-cosignature of the time.
func TestTimesBeyondInt64AreNoTimes(t *testing.T) {
	c, cosigner := foreign(t), cosigner(t, "w")
	verifier, err := NewVerifier(cosigner.VKey())
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[uint64]bool{1<<63 - 1: true, 1 << 63: false, 1<<64 - 1: false} {
		sig, err := cosigner.sign(c, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := verifier.Verify([]byte(c.Text()), append(binary.BigEndian.AppendUint64(nil, at), sig...)); got != want {
			t.Errorf("at %d: accepted %v, want %v", at, got, want)
		}
	}
}

func TestCosignRefuses(t *testing.T) {
	c := foreign(t)
	ml, err := testSeed.MLDSA44Cosigner("w")
	if err != nil {
		t.Fatal(err)
	}
	ed, err := testSeed.Ed25519Cosigner("w")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1679315147, 0)
	for name, tc := range map[string]struct {
		Checkpoint
		at time.Time
	}{
		"no time":                 {c, time.Time{}},
		"1970":                    {c, time.Unix(0, 999)},
		"before 1970":             {c, time.Unix(-1, 0)},
		"no origin":               {Checkpoint{"", 1, c.Root}, now},
		"an origin of two lines":  {Checkpoint{"a\nb", 1, c.Root}, now},
		"an origin of 256 bytes":  {Checkpoint{strings.Repeat("a", 256), 1, c.Root}, now},
		"too large":               {Checkpoint{"a", merkle.MaxSize + 1, c.Root}, now},
		"an empty tree with root": {Checkpoint{"a", 0, c.Root}, now},
	} {
		for _, cosigner := range []*Cosigner{ed, ml} {
			if sig, err := cosigner.Cosign(tc.Checkpoint, tc.at); err == nil {
				t.Errorf("%s: cosigned, %v", name, sig)
			}
		}
	}
	for _, name := range []string{"", "a b", "a+b", "a\n", "a\xff", "a\u2003b"} {
		if _, err := testSeed.Ed25519Cosigner(name); err == nil {
			t.Errorf("made an Ed25519 key for %q", name)
		}
		if _, err := testSeed.MLDSA44Cosigner(name); err == nil {
			t.Errorf("made an ML-DSA-44 key for %q", name)
		}
	}
	if _, err := testSeed.MLDSA44Cosigner(strings.Repeat("a", 256)); err == nil {
		t.Error("made an ML-DSA-44 key for a name of 256 bytes")
	}
}

func TestCosignatureTime(t *testing.T) {
	sig := func(size int, at uint64) note.Signature {
		raw := make([]byte, size)
		if size >= 12 {
			binary.BigEndian.PutUint64(raw[4:], at)
		}
		return note.Signature{Name: "w", Base64: base64.StdEncoding.EncodeToString(raw)}
	}
	for _, size := range []int{76, 2432} {
		if at, err := CosignatureTime(sig(size, 1<<63-1)); err != nil || at.Unix() != 1<<63-1 {
			t.Errorf("%d bytes: %v, %v", size, at, err)
		}
	}
	for _, bad := range []note.Signature{
		sig(76, 0), sig(2432, 0), sig(76, 1<<63), sig(75, 1), sig(77, 1), sig(68, 1), sig(2431, 1), sig(8, 1), {Base64: "?"},
	} {
		if at, err := CosignatureTime(bad); err == nil {
			t.Errorf("%.40q has time %v", bad.Base64, at)
		}
	}
}

// A log's ML-DSA-44 key signs beside the other, and either is enough to open the note.
func TestMLDSA44Keys(t *testing.T) {
	signer, vkey, err := testSeed.MLDSA44(testOrigin, 1)
	if err != nil {
		t.Fatal(err)
	}
	private, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), hkdf32(testSeed[:], "treeline/key/mldsa44/v1\n"+testOrigin+"\x00\x00\x00\x01"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (verifierKey{testOrigin, 6, private.PublicKey().Bytes()}).String(); vkey != want {
		t.Errorf("got %.80s, want %.80s", vkey, want)
	}
	verifier, err := NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	ed, edVerifier := testKey(t, 0)
	c := testCheckpoint(extend(nil, 5, "honest"))
	msg, err := Sign(c, ed, signer)
	if err != nil {
		t.Fatal(err)
	}
	for _, verifiers := range [][]note.Verifier{{verifier}, {edVerifier}, {edVerifier, verifier}} {
		got, n, err := Open(msg, testOrigin, verifiers...)
		if err != nil || got != c || len(n.Sigs) != len(verifiers) {
			t.Errorf("Open with %d keys = %v, %v, %v", len(verifiers), got, n, err)
		}
	}
	_, sigs, err := ParseNote(msg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CosignatureTime(sigs[1]); !errors.Is(err, errNoTime) {
		t.Errorf("the log's own signature: %v, want no time", err)
	}
	if sig, err := signer.Sign([]byte("no checkpoint\n")); err == nil {
		t.Errorf("signed something else, %x", sig)
	}
	if _, _, err := testSeed.MLDSA44("no origin", 0); err == nil {
		t.Error("made a key for a malformed origin")
	}
}

// These must stay the same for ever: the files were written when the format was made.
func TestMLDSA44Vectors(t *testing.T) {
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join("testdata", "mldsa44", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	_, vkey, err := testSeed.MLDSA44(testOrigin, 0)
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := testSeed.MLDSA44Cosigner("witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	if got := read("log.vkey"); got != vkey+"\n" {
		t.Errorf("the log's key is %q, want %q", vkey, got)
	}
	if got := read("witness.vkey"); got != cosigner.VKey()+"\n" {
		t.Errorf("the witness's key is %q, want %q", cosigner.VKey(), got)
	}
	_, edVerifier := testKey(t, 0)
	verifiers := []note.Verifier{edVerifier}
	for _, k := range []string{vkey, cosigner.VKey()} {
		v, err := NewVerifier(k)
		if err != nil {
			t.Fatal(err)
		}
		verifiers = append(verifiers, v)
	}
	c, n, err := Open([]byte(read("note")), testOrigin, verifiers...)
	if err != nil || c != testCheckpoint(extend(nil, 5, "honest")) || len(n.Sigs) != 3 {
		t.Fatalf("Open = %v, %v, %v", c, n, err)
	}
	if at, err := CosignatureTime(n.Sigs[2]); err != nil || at.Unix() != 1679315147 {
		t.Errorf("cosigned at %v, %v", at, err)
	}
}

func TestVerifierKeys(t *testing.T) {
	ml, err := testSeed.MLDSA44Cosigner("witness.example/w1")
	if err != nil {
		t.Fatal(err)
	}
	_, logKey, err := testSeed.Ed25519(testOrigin, 0)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(name string, raw ...byte) string {
		k := verifierKey{name: name, alg: raw[0], public: raw[1:]}
		return k.String()
	}
	for _, vkey := range []string{
		logKey, testWitnessVKey, ml.VKey(),
		"example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
	} {
		v, err := NewVerifier(vkey)
		if err != nil || !strings.HasPrefix(vkey, KeyID(v.Name(), v.KeyHash())+"+") {
			t.Errorf("%.60s: got %v, %v", vkey, v, err)
		}
	}
	for name, vkey := range map[string]string{
		"nothing":                   "",
		"a name":                    "witness.example/w1",
		"two parts":                 "witness.example/w1+aa4a09d1",
		"wrong hash":                strings.Replace(testWitnessVKey, "aa4a09d1", "deadbeef", 1),
		"hash of type 0x01":         strings.Replace(testWitnessVKey, "aa4a09d1", "68cca5d4", 1),
		"hash in capitals":          strings.Replace(testWitnessVKey, "aa4a09d1", "AA4A09D1", 1),
		"another name":              strings.Replace(testWitnessVKey, "w1", "w2", 1),
		"newline":                   testWitnessVKey + "\n",
		"newline in the key":        strings.Replace(testWitnessVKey, "GPin", "GP\nin", 1),
		"unpadded":                  strings.TrimRight(logKey, "=") + "=",
		"URL alphabet":              strings.Replace(logKey, "/WLLP", "_WLLP", 1),
		"no key":                    "w+00000000+",
		"only a type":               encode("w", 4),
		"31 bytes":                  encode("w", append([]byte{4}, make([]byte, 31)...)...),
		"33 bytes":                  encode("w", append([]byte{1}, make([]byte, 33)...)...),
		"ML-DSA of 32 bytes":        encode("w", append([]byte{6}, make([]byte, 32)...)...),
		"ML-DSA of 1311 bytes":      encode("w", append([]byte{6}, make([]byte, 1311)...)...),
		"ECDSA":                     encode("w", append([]byte{2}, make([]byte, 32)...)...),
		"empty name":                encode("", append([]byte{4}, make([]byte, 32)...)...),
		"space in the name":         encode("w w", append([]byte{4}, make([]byte, 32)...)...),
		"no-break space":            encode("w\u00a0w", append([]byte{4}, make([]byte, 32)...)...),
		"NUL in the name":           encode("w\x00", append([]byte{4}, make([]byte, 32)...)...),
		"name not UTF-8":            encode("w\xff", append([]byte{4}, make([]byte, 32)...)...),
		"ML-DSA name of 256 bytes":  encode(strings.Repeat("w", 256), append([]byte{6}, make([]byte, 1312)...)...),
		"unused bits of base64 set": encodeLoose(testWitnessVKey),
	} {
		if v, err := NewVerifier(vkey); err == nil {
			t.Errorf("%s: accepted %.100q as %s", name, vkey, KeyID(v.Name(), v.KeyHash()))
		}
	}
}

// encodeLoose returns the verifier key of one byte less than the given one has, with bits
// set that base64 doesn't use. Its hash is right.
func encodeLoose(vkey string) string {
	parts := strings.SplitN(vkey, "+", 3)
	raw, _ := base64.StdEncoding.DecodeString(parts[2])
	s := verifierKey{parts[0], raw[0], append(raw[1:], 0)}.String()
	return nonCanonical(s)
}

// Any log's checkpoint is read, but by the same rules.
func TestParseForeignNote(t *testing.T) {
	line := "— w AAAAAAA=\n"
	for name, origin := range map[string]string{
		"of the standard":  "example.com/behind-the-sofa",
		"spaces":           "go.sum database tree",
		"not ASCII":        "bücher.example/Log 1+2",
		"255 bytes":        strings.Repeat("a", 255),
		"one of this kind": testOrigin,
	} {
		msg := origin + "\n7\n" + rootB64 + "\n\n" + line
		c, sigs, err := ParseForeignNote([]byte(msg))
		if err != nil || c.Origin != origin || c.Size != 7 || len(sigs) != 1 {
			t.Errorf("%s: got %v, %v, %v", name, c, sigs, err)
		}
	}
	if c, _, err := ParseForeignNote([]byte("a\n0\n" + rootB64 + "\n\n" + line)); err != nil || c.Root == merkle.EmptyRoot() {
		t.Errorf("an empty tree with a root: %v, %v", c, err)
	}
	for name, msg := range map[string]string{
		"no origin":        "\n7\n" + rootB64 + "\n\n" + line,
		"256 bytes":        strings.Repeat("a", 256) + "\n7\n" + rootB64 + "\n\n" + line,
		"tab":              "a\tb\n7\n" + rootB64 + "\n\n" + line,
		"not UTF-8":        "a\xff\n7\n" + rootB64 + "\n\n" + line,
		"extension line":   "a\n7\n" + rootB64 + "\nextension\n\n" + line,
		"leading zero":     "a\n07\n" + rootB64 + "\n\n" + line,
		"2^63":             "a\n9223372036854775808\n" + rootB64 + "\n\n" + line,
		"bits after root":  "a\n7\n" + strings.Replace(rootB64, "q2I=", "q2J=", 1) + "\n\n" + line,
		"31 bytes of root": "a\n7\n" + base64.StdEncoding.EncodeToString(make([]byte, 31)) + "\n\n" + line,
		"no signature":     "a\n7\n" + rootB64 + "\n\n",
		"twice one key":    "a\n7\n" + rootB64 + "\n\n" + line + line,
		"bits after it":    "a\n7\n" + rootB64 + "\n\n" + strings.Replace(line, "A=", "B=", 1),
	} {
		if c, _, err := ParseForeignNote([]byte(msg)); err == nil {
			t.Errorf("%s: accepted as %v", name, c)
		}
	}
}
