package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// hubProofHeader is the first line of a hub proof.
const hubProofHeader = "treeline/hub-proof@v1\n"

// MaxHubProofSize is the length in bytes to which a hub proof is limited: that of two proofs, and of what is before them.
const MaxHubProofSize = 2*MaxProofSize + len(hubProofHeader) + len("262144\n")

// A HubProof says that an entry is in the tree of a checkpoint, and that this checkpoint is in a hub, which is what was
// witnessed. Its file, by convention with the extension ".hub-proof", holds two proofs, each a file that is complete by itself:
//
//	treeline/hub-proof@v1
//	845                             how many bytes the first of them has
//	c2sp.org/tlog-proof@v1          the event's
//	…
//	c2sp.org/tlog-proof@v1          the hub entry's
//	…
//
// The extra data of the second is the entry of the hub, see [HubEntry]. To check one, both proofs are verified, each under
// keys of its own, and the entry must be about the tree of the first one's checkpoint.
type HubProof struct {
	Event []byte // the file of the event's Proof
	Entry []byte // the file of the hub entry's
}

// IsHubProof reports whether data begins as a hub proof does, and no other proof.
func IsHubProof(data []byte) bool { return bytes.HasPrefix(data, []byte(hubProofHeader)) }

// Marshal returns the file of the hub proof. It is an error if [ParseHubProof] would not accept that.
func (p HubProof) Marshal() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	return p.encode(), nil
}

// ParseHubProof parses the file of a hub proof. There is one encoding of each, and nothing else is accepted. Both
// proofs are such as [ParseProof] accepts; nothing that they say is checked.
func ParseHubProof(data []byte) (HubProof, error) {
	malformed := func(err error) (HubProof, error) { return HubProof{}, fmt.Errorf("malformed hub proof: %w", err) }
	if len(data) > MaxHubProofSize {
		return malformed(fmt.Errorf("%d bytes, want <= %d", len(data), MaxHubProofSize))
	}
	rest, ok := bytes.CutPrefix(data, []byte(hubProofHeader))
	length, files, ok2 := bytes.Cut(rest, []byte("\n"))
	if !ok || !ok2 {
		return malformed(errors.New("its first two lines are missing"))
	}
	n, err := strconv.ParseUint(string(length), 10, 32)
	if err != nil || n > uint64(len(files)) {
		return malformed(fmt.Errorf("%.20q is not the length of a proof in it", length))
	}
	p := HubProof{Event: files[:n:n], Entry: files[n:]}
	if err := p.check(); err != nil {
		return malformed(err)
	}
	// The decoder is lenient about zeros before the number, and a sign.
	if !bytes.Equal(p.encode(), data) {
		return malformed(errors.New("not in canonical form"))
	}
	return p, nil
}

func (p HubProof) check() error {
	if _, err := ParseProof(p.Event); err != nil {
		return fmt.Errorf("the event's: %w", err)
	}
	if _, err := ParseProof(p.Entry); err != nil {
		return fmt.Errorf("the hub entry's: %w", err)
	}
	return nil
}

func (p HubProof) encode() []byte {
	out := strconv.AppendInt([]byte(hubProofHeader), int64(len(p.Event)), 10)
	out = append(out, '\n')
	out = append(out, p.Event...)
	return append(out, p.Entry...)
}
