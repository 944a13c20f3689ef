package checkpoint

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"filippo.io/mldsa"
	cosignatures "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

const (
	// witnessEd25519Info and witnessMLDSA44Info begin the HKDF info of a witness's keys.
	witnessEd25519Info = "treeline/witness/ed25519/v1\n"
	witnessMLDSA44Info = "treeline/witness/mldsa44/v1\n"
)

// A Cosigner signs checkpoints as a witness does: together with the time (C2SP
// tlog-cosignature, https://c2sp.org/tlog-cosignature). A cosignature says that the tree
// extends every one that the witness has cosigned for the log before, and that it is the
// largest of them at that time. The Cosigner knows nothing of that: the witness does.
type Cosigner struct {
	key  verifierKey
	sign func(c Checkpoint, at uint64) ([]byte, error) // the signature alone
}

// Ed25519Cosigner returns the cosigner of the signature type 0x04 for the witness with
// the given name, by convention its URL without the scheme. Its private key is
// [Seed.Derive] of "treeline/witness/ed25519/v1\n" ‖ name ‖ u32(0).
//
// What it signs doesn't have the name in it, so each name has a key of its own.
func (s Seed) Ed25519Cosigner(name string) (*Cosigner, error) {
	private := s.Derive(keyInfo(witnessEd25519Info, name, 0))
	key := ed25519.NewKeyFromSeed(private[:])
	k := verifierKey{name: name, alg: algEd25519Time, public: key.Public().(ed25519.PublicKey)}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("key of witness %.100q: %w", name, err)
	}
	sign := func(c Checkpoint, at uint64) ([]byte, error) {
		// "The signed message MUST be two newline (U+000A) terminated lines (one
		// header line and one timestamp line) followed by the whole note body".
		return ed25519.Sign(key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, c.Text())), nil
	}
	return &Cosigner{k, sign}, nil
}

// MLDSA44Cosigner returns the cosigner of the signature type 0x06 for the witness with
// the given name, of at most 255 bytes. The seed of its private key, ξ of FIPS 204, is
// [Seed.Derive] of "treeline/witness/mldsa44/v1\n" ‖ name ‖ u32(0).
func (s Seed) MLDSA44Cosigner(name string) (*Cosigner, error) {
	k, signer, err := newMLDSA44(name, s.Derive(keyInfo(witnessMLDSA44Info, name, 0)))
	if err != nil {
		return nil, fmt.Errorf("key of witness %.100q: %w", name, err)
	}
	sign := func(c Checkpoint, at uint64) ([]byte, error) {
		sig, err := signer.SignSubtree(at, c.Origin, 0, c.Size, c.Root[:])
		if err != nil {
			return nil, err
		}
		return sig[timeSize:], nil
	}
	return &Cosigner{k, sign}, nil
}

// newMLDSA44 returns the key with the given name and FIPS 204 seed.
func newMLDSA44(name string, private [32]byte) (verifierKey, *cosignatures.SubtreeSigner, error) {
	key, err := mldsa.NewPrivateKey(mldsa.MLDSA44(), private[:])
	if err != nil {
		return verifierKey{}, nil, err
	}
	k := verifierKey{name: name, alg: algMLDSA44, public: key.PublicKey().Bytes()}
	if err := k.check(); err != nil {
		return verifierKey{}, nil, err
	}
	signer, err := cosignatures.NewMLDSASigner(signerKey(k, private))
	if err != nil {
		return verifierKey{}, nil, err
	}
	return k, signer, nil
}

// Name returns the witness's name.
func (c *Cosigner) Name() string { return c.key.name }

// KeyHash returns the hash of the key, which is in the signature lines.
func (c *Cosigner) KeyHash() uint32 { return c.key.hash() }

// VKey returns the verifier key, as [NewVerifier] takes it.
func (c *Cosigner) VKey() string { return c.key.String() }

// Cosign returns the cosignature of the checkpoint at the given time, of which a
// fraction of a second is left off; it must be after 1970, as a cosignature without a
// time is not for witnesses to make. What is signed is encoded from cp anew, so it
// doesn't depend on how somebody else has read the note.
func (c *Cosigner) Cosign(cp Checkpoint, at time.Time) (note.Signature, error) {
	if err := cp.checkForeign(); err != nil {
		return note.Signature{}, fmt.Errorf("cosigning: %w", err)
	}
	if err := cp.checkEmpty(); err != nil {
		return note.Signature{}, fmt.Errorf("cosigning: %w", err)
	}
	if at.Unix() <= 0 {
		return note.Signature{}, fmt.Errorf("cosigning a checkpoint of %s at %v, want a time after 1970", cp.Origin, at)
	}
	sig, err := c.sign(cp, uint64(at.Unix()))
	if err != nil {
		return note.Signature{}, fmt.Errorf("cosigning a checkpoint of %s: %w", cp.Origin, err)
	}
	raw := binary.BigEndian.AppendUint32(nil, c.KeyHash())
	raw = binary.BigEndian.AppendUint64(raw, uint64(at.Unix()))
	raw = append(raw, sig...)
	return note.Signature{Name: c.Name(), Hash: c.KeyHash(), Base64: base64.StdEncoding.EncodeToString(raw)}, nil
}

// CosignatureTime returns the time in a signature by a key of type 0x04 or 0x06, in UTC.
// It doesn't check the signature. It is an error if there is no time in it, as when it
// is 0: that is what a log's own signature of type 0x06 has, and what a witness must not
// answer ("The timestamp MUST NOT be zero", C2SP tlog-witness).
func CosignatureTime(sig note.Signature) (time.Time, error) {
	raw, err := base64.StdEncoding.DecodeString(sig.Base64)
	if err != nil {
		return time.Time{}, fmt.Errorf("signature by %s: %w", KeyID(sig.Name, sig.Hash), err)
	}
	const hashSize = 4
	size := len(raw) - hashSize - timeSize
	if size != ed25519.SignatureSize && size != mldsa.MLDSA44SignatureSize {
		return time.Time{}, fmt.Errorf("signature by %s of %d bytes is none with a time", KeyID(sig.Name, sig.Hash), len(raw))
	}
	at := binary.BigEndian.Uint64(raw[hashSize:])
	if at == 0 {
		return time.Time{}, fmt.Errorf("signature by %s: %w", KeyID(sig.Name, sig.Hash), errNoTime)
	}
	if at > math.MaxInt64 {
		return time.Time{}, fmt.Errorf("signature by %s at %d seconds, want < 2^63", KeyID(sig.Name, sig.Hash), at)
	}
	return time.Unix(int64(at), 0).UTC(), nil
}

var errNoTime = errors.New("it has no time")
