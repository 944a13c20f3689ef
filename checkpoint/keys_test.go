package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// hkdf32 is HKDF-SHA256 (RFC 5869) without a salt, for 32 bytes: one block.
func hkdf32(secret []byte, info string) []byte {
	extract := hmac.New(sha256.New, make([]byte, 32))
	extract.Write(secret)
	expand := hmac.New(sha256.New, extract.Sum(nil))
	expand.Write([]byte(info))
	expand.Write([]byte{1})
	return expand.Sum(nil)
}

func TestDerive(t *testing.T) {
	got := testSeed.Derive("treeline/test/v1\n")
	if want := hkdf32(testSeed[:], "treeline/test/v1\n"); !bytes.Equal(got[:], want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if testSeed.Derive("a") == testSeed.Derive("b") || testSeed.Derive("a") == (Seed{}).Derive("a") {
		t.Error("different secrets are the same")
	}
}

func TestEd25519Keys(t *testing.T) {
	const info = "treeline/key/ed25519/v1\n" + testOrigin
	for generation, suffix := range map[uint32]string{0: "\x00\x00\x00\x00", 1: "\x00\x00\x00\x01", 0x01020304: "\x01\x02\x03\x04"} {
		signer, vkey, err := testSeed.Ed25519(testOrigin, generation)
		if err != nil {
			t.Fatal(err)
		}
		private := ed25519.NewKeyFromSeed(hkdf32(testSeed[:], info+suffix))
		public := append([]byte{1}, private[32:]...)
		id := sha256.Sum256(append([]byte(testOrigin+"\n"), public...))
		want := fmt.Sprintf("%s+%x+%s", testOrigin, id[:4], base64.StdEncoding.EncodeToString(public))
		if vkey != want {
			t.Errorf("generation %d: got %s, want %s", generation, vkey, want)
		}
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := signer.Sign([]byte("text\n"))
		if err != nil || !bytes.Equal(sig, ed25519.Sign(private, []byte("text\n"))) || !verifier.Verify([]byte("text\n"), sig) {
			t.Errorf("generation %d: signature %x, %v", generation, sig, err)
		}
		if signer.Name() != testOrigin || signer.KeyHash() != verifier.KeyHash() {
			t.Errorf("generation %d: signer %s+%08x", generation, signer.Name(), signer.KeyHash())
		}
	}
	if _, _, err := testSeed.Ed25519("no origin", 0); err == nil {
		t.Error("made a key for a malformed origin")
	}
}

// These must stay the same for ever: logs have been made with them.
func TestKeyVectors(t *testing.T) {
	_, vkey, err := testSeed.Ed25519(testOrigin, 0)
	if err != nil {
		t.Fatal(err)
	}
	if want := "logs.example.com/logs/acme+61802530+AeQ5GK/WLLPTJJDio2/aSp/cEJb47mo47OYZYxIZImYj"; vkey != want {
		t.Errorf("verifier key is %s, want %s", vkey, want)
	}
	id := LogID(vkey)
	if got, want := hex.EncodeToString(id[:]), "baea49fb0861cd4fa8e6bd071f136202f28fad78876e6aee8fcb5401c6e9cc95"; got != want {
		t.Errorf("log id is %s, want %s", got, want)
	}
	signer, _ := testKey(t, 0)
	msg, err := Sign(Checkpoint{Origin: testOrigin, Root: sha256.Sum256(nil)}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if want := testOrigin + "\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n" +
		"— " + testOrigin + " YYAlMEHM6++4AVemto1gXH3bAPU39ihAfVCf4SEtsogn1EK0L2OLpi0hnReCgq0lHbSgIsrHl1YHHHWzJjOJhVIVjwo=\n"; string(msg) != want {
		t.Errorf("first checkpoint is %q, want %q", msg, want)
	}
}

// The example of C2SP signed-note is a note, and written as this package writes notes.
func TestVectorOfSignedNote(t *testing.T) {
	const vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
	const msg = "This is an example message.\n\n" +
		"— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	text, sigs, err := splitNote([]byte(msg))
	if err != nil || text != "This is an example message.\n" || len(sigs) != 1 || sigs[0].Hash != 0x530d903a {
		t.Errorf("got %q, %v, %v", text, sigs, err)
	}
	if _, err := note.Open([]byte(msg), note.VerifierList(verifier)); err != nil {
		t.Error(err)
	}
}

func TestSeedDoesNotShowItself(t *testing.T) {
	digits := hex.EncodeToString(testSeed[:])
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		for _, v := range []any{testSeed, &testSeed, struct{ Seed Seed }{testSeed}} {
			got := fmt.Sprintf(verb, v)
			if strings.Contains(strings.ToLower(got), digits[:8]) || strings.Contains(got, "7 7") || strings.Contains(got, "7, 7") {
				t.Errorf("%s shows %s", verb, got)
			}
		}
	}
	if got := testSeed.LogValue().String(); got != "(secret)" {
		t.Errorf("a log shows %s", got)
	}
}
