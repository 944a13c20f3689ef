package checkpoint

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"

	cosignatures "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

const (
	// ed25519Info and mldsa44Info begin the HKDF info of a log's keys.
	ed25519Info = "treeline/key/ed25519/v1\n"
	mldsa44Info = "treeline/key/mldsa44/v1\n"
)

// Derive returns the 32-byte secret for the purpose that info names:
// HKDF-SHA256(seed, no salt, info, 32 bytes) (RFC 5869). Secrets for different
// purposes tell nothing of each other, nor of the seed. An info that begins with
// "treeline/key/" is a signing key of a log, one with "treeline/witness/" that of a
// witness, and neither is for anything else.
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
// The verifier key is a string <name>+<hash>+<key>, as [NewVerifier] takes it.
// The error is that of [CheckOrigin].
func (s Seed) Ed25519(origin string, generation uint32) (signer note.Signer, vkey string, err error) {
	if err := CheckOrigin(origin); err != nil {
		return nil, "", err
	}
	private := s.Derive(keyInfo(ed25519Info, origin, generation))
	public := ed25519.NewKeyFromSeed(private[:]).Public().(ed25519.PublicKey)
	k := verifierKey{name: origin, alg: algEd25519, public: public}
	signer, err = note.NewSigner(signerKey(k, private))
	if err != nil {
		return nil, "", fmt.Errorf("key of %s: %w", origin, err)
	}
	return signer, k.String(), nil
}

// MLDSA44 returns the signer and the verifier key of the log with the given origin for
// signatures of type 0x06, ML-DSA-44, which are to be made beside those of
// [Seed.Ed25519]. The seed of the private key, ξ of FIPS 204, is [Seed.Derive] of
// "treeline/key/mldsa44/v1\n" ‖ origin ‖ u32(generation).
//
// The signer signs checkpoints only. It puts 0 in the place of the time: "These two
// values MAY be zero if the cosigner doesn't make any statement as to the tree being the
// largest observed at time of signing" (C2SP tlog-cosignature). A log says that its
// trees extend each other; and nothing that is signed depends on a clock. Two signatures
// of one checkpoint differ all the same, since ML-DSA-44 signs with randomness.
func (s Seed) MLDSA44(origin string, generation uint32) (signer note.Signer, vkey string, err error) {
	if err := CheckOrigin(origin); err != nil {
		return nil, "", err
	}
	k, subtree, err := newMLDSA44(origin, s.Derive(keyInfo(mldsa44Info, origin, generation)))
	if err != nil {
		return nil, "", fmt.Errorf("key of %s: %w", origin, err)
	}
	return untimedSigner{subtree}, k.String(), nil
}

// An untimedSigner signs checkpoints with ML-DSA-44 and without a time.
type untimedSigner struct{ *cosignatures.SubtreeSigner }

// Sign signs the checkpoint whose text is given.
func (s untimedSigner) Sign(text []byte) ([]byte, error) {
	c, err := parseForeignText(string(text))
	if err != nil {
		return nil, err
	}
	return s.SignSubtree(0, c.Origin, 0, c.Size, c.Root[:])
}

// keyInfo returns what a key is derived with: the prefix of its kind, its name, and the
// generation.
func keyInfo(prefix, name string, generation uint32) string {
	return string(binary.BigEndian.AppendUint32([]byte(prefix+name), generation))
}

// signerKey returns the text from which the libraries make a signer: the verifier key's
// name and hash, and the private key in place of the public one.
func signerKey(k verifierKey, private [32]byte) string {
	return "PRIVATE+KEY+" + KeyID(k.name, k.hash()) + "+" + base64.StdEncoding.EncodeToString(append([]byte{k.alg}, private[:]...))
}

// LogID returns the id of the log whose first Ed25519 verifier key is vkey: the
// SHA-256 of that string. It stays the same when keys are rotated.
func LogID(vkey string) [32]byte {
	return sha256.Sum256([]byte(vkey))
}
