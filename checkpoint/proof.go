package checkpoint

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/transparency-dev/formats/proof"

	"github.com/treeline-log/treeline/merkle"
)

const (
	// MaxProofSize is the length in bytes to which a proof file is limited, 256 KiB.
	MaxProofSize = 256 << 10

	// MaxProofExtra is the length in bytes to which [Proof.Extra] is limited. Its
	// line of base64 is then the longest that formats/proof reads, 64 KiB.
	MaxProofExtra = 49_146

	// maxProofHashes is how many hashes the proof for a tree of merkle.MaxSize has.
	maxProofHashes = 63
)

// A Proof says that an entry is in the tree of a checkpoint. Its file, by
// convention with the extension ".tlog-proof", is that of C2SP tlog-proof
// (https://c2sp.org/tlog-proof):
//
//	c2sp.org/tlog-proof@v1
//	extra eyJldmVudCI6eyJhY3Rpb24iOiJ1c2VyLmxvZ2luIn0…
//	index 368
//	Xhuzg4RJgREJMnOVOa0EJ4aqT2DnPNcu1yAEHdhbQlo=
//	OLWVxyNBFIkgPJnvKIXPH+ulxTICOShU4tzI8IbOtMM=
//
//	logs.example.com/logs/acme
//	371
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//
//	— logs.example.com/logs/acme Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
//
// To check one: make the leaf hash from data that is believed for other reasons, or
// that is to be checked, never from what the file says the hash is; [Open] the
// checkpoint; and call [merkle.VerifyInclusion] with its size and root.
type Proof struct {
	Index      uint64        // the entry's, at most merkle.MaxSize-1
	Hashes     []merkle.Hash // the inclusion proof, 63 at most, the leaf's sibling first
	Checkpoint []byte        // the signed note
	Extra      []byte        // what the application adds, up to MaxProofExtra bytes; empty is the same as none. The proof doesn't cover it
}

// Marshal returns the proof's file. It is an error if [ParseProof] would not accept
// that.
func (p Proof) Marshal() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	data := p.encode()
	if len(data) > MaxProofSize {
		return nil, fmt.Errorf("proof of %d bytes, want <= %d", len(data), MaxProofSize)
	}
	return data, nil
}

// ParseProof parses a proof's file. There is one encoding of each proof, and nothing
// else is accepted. The checkpoint has the form that [ParseNote] demands; its
// signatures are not checked, nor is what the proof says.
func ParseProof(data []byte) (Proof, error) {
	if len(data) > MaxProofSize {
		return Proof{}, fmt.Errorf("malformed proof: %d bytes, want <= %d", len(data), MaxProofSize)
	}
	var parsed proof.TLogProof
	if err := parsed.Unmarshal(data); err != nil {
		return Proof{}, fmt.Errorf("malformed proof: %w", err)
	}
	p := Proof{Index: parsed.Index, Checkpoint: parsed.Checkpoint, Extra: parsed.ExtraData}
	for _, h := range parsed.Hashes {
		p.Hashes = append(p.Hashes, h)
	}
	if err := p.check(); err != nil {
		return Proof{}, fmt.Errorf("malformed %w", err)
	}
	// The library is lenient about carriage returns, base64, leading zeros, an
	// empty extra line and the last newline.
	if !bytes.Equal(p.encode(), data) {
		return Proof{}, errors.New("malformed proof: not in canonical form")
	}
	return p, nil
}

// check checks everything but the length of the file.
func (p Proof) check() error {
	if p.Index >= merkle.MaxSize {
		return fmt.Errorf("proof of index %d, want < %d", p.Index, uint64(merkle.MaxSize))
	}
	if len(p.Hashes) > maxProofHashes {
		return fmt.Errorf("proof of %d hashes, want <= %d", len(p.Hashes), maxProofHashes)
	}
	if len(p.Extra) > MaxProofExtra {
		return fmt.Errorf("proof with %d bytes of extra data, want <= %d", len(p.Extra), MaxProofExtra)
	}
	if _, _, err := ParseNote(p.Checkpoint); err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	return nil
}

// encode returns the file without checking that it can be read again.
func (p Proof) encode() []byte {
	t := proof.TLogProof{Index: p.Index, Checkpoint: p.Checkpoint}
	for _, h := range p.Hashes {
		t.Hashes = append(t.Hashes, h)
	}
	// The library writes a line for extra data that is empty but not nil.
	if len(p.Extra) > 0 {
		t.ExtraData = p.Extra
	}
	return t.Marshal()
}
