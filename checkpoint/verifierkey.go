package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"filippo.io/mldsa"
	cosignatures "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// The signature types of C2SP signed-note that this package makes and checks.
const (
	algEd25519     = 0x01 // plain Ed25519 over the text: what logs sign with
	algEd25519Time = 0x04 // Ed25519 over a time and the text: what witnesses sign with
	algMLDSA44     = 0x06 // ML-DSA-44 over a time and the tree: for both
)

// timeSize is the length of the time that begins a signature of the types 0x04 and
// 0x06, in seconds since 1970 UTC, big-endian.
const timeSize = 8

// maxKeyName is the length in bytes to which the name of an ML-DSA-44 key is limited,
// by one byte that holds it in what is signed (C2SP tlog-cosignature).
const maxKeyName = 255

// A verifierKey is the content of a verifier key's string, <name>+<hash>+<key>.
type verifierKey struct {
	name   string
	alg    byte   // signature type
	public []byte // public key, in the form of its type
}

// NewVerifier returns the verifier for a verifier key of the signature type 0x01
// (Ed25519), 0x04 (Ed25519 with a time) or 0x06 (ML-DSA-44 with a time).
//
// There is one string for each key: the hash in lower case and right for the rest, the
// key in canonical base64, the name without Unicode spaces, '+' or control characters.
//
// Verifiers of the types with a time accept nothing but checkpoints without extension
// lines, as [ParseForeignNote] has them, and no time above 2^63-1. What is signed with
// ML-DSA-44 is not the text but the origin, size and root in it, so two texts that say
// the same would both be signed. Whether the time makes sense is for the caller to say:
// see [CosignatureTime].
func NewVerifier(vkey string) (note.Verifier, error) {
	k, err := parseVerifierKey(vkey)
	if err != nil {
		return nil, err
	}
	return k.verifier()
}

// KeyID returns what identifies a key in a note, "<name>+<hash>" with the hash as eight
// hexadecimal digits: the first two parts of its verifier key.
func KeyID(name string, hash uint32) string {
	return fmt.Sprintf("%s+%08x", name, hash)
}

// parseVerifierKey parses a verifier key of any known signature type.
func parseVerifierKey(vkey string) (verifierKey, error) {
	// The base64 may have a '+' of its own.
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return verifierKey{}, fmt.Errorf("verifier key %.100q is not of the form <name>+<hash>+<key>", vkey)
	}
	name, hash := parts[0], parts[1]
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) < 2 {
		return verifierKey{}, fmt.Errorf("verifier key %.100q: its last part is not the base64 of a key", vkey)
	}
	k := verifierKey{name: name, alg: raw[0], public: raw[1:]}
	if err := k.check(); err != nil {
		return verifierKey{}, fmt.Errorf("verifier key %.100q: %w", vkey, err)
	}
	if want := fmt.Sprintf("%08x", k.hash()); hash != want {
		return verifierKey{}, fmt.Errorf("verifier key %.100q: the hash in it is %.20q, that of its name and key is %s; "+
			"a part of it was lost or changed", vkey, hash, want)
	}
	if k.String() != vkey {
		return verifierKey{}, fmt.Errorf("verifier key %.100q is not in canonical form", vkey)
	}
	return k, nil
}

// check returns an error unless there can be such a key.
func (k verifierKey) check() error {
	if err := checkKeyName(k.name); err != nil {
		return err
	}
	want := ed25519.PublicKeySize
	switch k.alg {
	default:
		return fmt.Errorf("signature type 0x%02x, want 0x01, 0x04 or 0x06", k.alg)
	case algEd25519, algEd25519Time:
	case algMLDSA44:
		want = mldsa.MLDSA44PublicKeySize
		if len(k.name) > maxKeyName {
			return fmt.Errorf("a name of %d bytes, want <= %d", len(k.name), maxKeyName)
		}
	}
	if len(k.public) != want {
		return fmt.Errorf("a public key of %d bytes, want %d for signature type 0x%02x", len(k.public), want, k.alg)
	}
	return nil
}

// checkKeyName returns an error unless a note can have a signature by a key of the name.
func checkKeyName(name string) error {
	isForeign := func(r rune) bool { return r < 0x20 || r == '+' || unicode.IsSpace(r) }
	switch {
	case name == "":
		return errors.New("its name is empty")
	case !utf8.ValidString(name):
		return errors.New("its name is not UTF-8")
	case strings.ContainsFunc(name, isForeign):
		return fmt.Errorf("its name %.100q has a space, a plus or a control character", name)
	}
	return nil
}

// hash returns the key's hash, which stands for it in signature lines.
func (k verifierKey) hash() uint32 {
	sum := sha256.Sum256(bytes.Join([][]byte{[]byte(k.name), {'\n', k.alg}, k.public}, nil)[:])
	return binary.BigEndian.Uint32(sum[:])
}

// String is the inverse of parseVerifierKey.
func (k verifierKey) String() string {
	return KeyID(k.name, k.hash()) + "+" + base64.StdEncoding.EncodeToString(append([]byte{k.alg}, k.public...))
}

func (k verifierKey) verifier() (note.Verifier, error) {
	if k.alg == algEd25519 {
		return note.NewVerifier(k.String())
	}
	v, err := cosignatures.NewVerifierForCosignatureV1(k.String())
	if err != nil {
		return nil, fmt.Errorf("verifier key %.100q: %w", k, err)
	}
	return timedVerifier{v}, nil
}

// A timedVerifier is a verifier of signatures that begin with a time.
type timedVerifier struct{ note.Verifier }

// Verify reports whether sig is a signature of the checkpoint whose text is given. The
// verifier inside would also take a text that isn't canonical, or has lines which it
// doesn't look at.
func (v timedVerifier) Verify(text, sig []byte) bool {
	if len(sig) < timeSize || binary.BigEndian.Uint64(sig) > math.MaxInt64 {
		return false
	}
	if _, err := parseForeignText(string(text)); err != nil {
		return false
	}
	return v.Verifier.Verify(text, sig)
}
