package checkpoint

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const (
	// ed25519Info begins the HKDF info of a log's Ed25519 key.
	ed25519Info = "treeline/key/ed25519/v1\n"

	// algEd25519 is the signature type of plain Ed25519 (C2SP signed-note).
	algEd25519 = 0x01
)

// Derive returns the 32-byte secret for the purpose that info names:
// HKDF-SHA256(seed, no salt, info, 32 bytes) (RFC 5869). Secrets for different
// purposes tell nothing of each other, nor of the seed. An info that begins with
// "treeline/key/" is a signing key of a log and not for anything else.
func (s Seed) Derive(info string) [32]byte {
	key, err := hkdf.Key(sha256.New, s[:], nil, info, 32)
	if err != nil {
		// Only for outputs of more than 255 hashes, or with FIPS 140-only
		// enforcement for secrets shorter than 14 bytes.
		panic(fmt.Sprintf("checkpoint: deriving a key: %v", err))
	}
	return [32]byte(key)
}

// Ed25519 returns the signer and the verifier key of the log with the given
// origin, for one generation of its keys, counted from 0. The key has the origin
// for its name and is of the signature type 0x01. Its private part is [Seed.Derive]
// of "treeline/key/ed25519/v1\n" ‖ origin ‖ u32(generation), big-endian.
//
// The verifier key is a string <name>+<hash>+<key>, as note.NewVerifier takes it.
// The error is that of [CheckOrigin].
func (s Seed) Ed25519(origin string, generation uint32) (signer note.Signer, vkey string, err error) {
	if err := CheckOrigin(origin); err != nil {
		return nil, "", err
	}
	info := binary.BigEndian.AppendUint32([]byte(ed25519Info+origin), generation)
	private := s.Derive(string(info))
	key := ed25519.NewKeyFromSeed(private[:])
	vkey, err = note.NewEd25519VerifierKey(origin, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, "", fmt.Errorf("key of %s: %w", origin, err)
	}
	// The library makes signers from text only: the verifier key's name and
	// hash, and the private key in place of the public one.
	name, rest, _ := strings.Cut(vkey, "+")
	hash, _, _ := strings.Cut(rest, "+")
	skey := "PRIVATE+KEY+" + name + "+" + hash + "+" +
		base64.StdEncoding.EncodeToString(append([]byte{algEd25519}, private[:]...))
	signer, err = note.NewSigner(skey)
	if err != nil {
		return nil, "", fmt.Errorf("key of %s: %w", origin, err)
	}
	return signer, vkey, nil
}

// LogID returns the id of the log whose first Ed25519 verifier key is vkey: the
// SHA-256 of that string. It stays the same when keys are rotated.
func LogID(vkey string) [32]byte {
	return sha256.Sum256([]byte(vkey))
}
