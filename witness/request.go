package witness

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

const (
	// maxBody bounds an add-checkpoint request. C2SP signed-note asks verifiers to take at least 16 signatures, and says that
	// post-quantum ones may have 5 kB each; 63 lines of proof are another 2.8 kB.
	maxBody = 128 << 10

	// "The client MUST NOT send more than 63 consistency proof lines."
	maxProof = 63
)

// A request is the body of add-checkpoint.
type request struct {
	old        uint64
	proof      []merkle.Hash
	lines      []byte // the lines of the two above
	checkpoint checkpoint.Checkpoint
	sigs       []note.Signature
	note       []byte // the signed note that the two above are from
}

// parseRequest reads the body of add-checkpoint without checking any signature or proof. Every error wraps errMalformed.
//
// The body must be what encoding the result would give: decimals and base64 have one form here, and there is no carriage return
// before a newline. The libraries' decoders are more lenient, and where two parsers differ a witness cosigns what the log's
// clients will read otherwise.
func parseRequest(body []byte) (*request, error) {
	// "The request body MUST be a sequence of an old size line, zero or more consistency proof lines, and an empty line, followed
	// by a checkpoint."
	lines, msg, ok := bytes.Cut(body, []byte("\n\n"))
	if !ok {
		return nil, fmt.Errorf("%w: no empty line after the proof", errMalformed)
	}
	r := &request{lines: body[:len(lines)+1], note: msg}
	first, rest, more := bytes.Cut(lines, []byte("\n"))
	var err error
	if r.old, err = parseOld(first); err != nil {
		return nil, err
	}
	if more {
		if r.proof, err = parseProof(rest); err != nil {
			return nil, err
		}
	}
	if r.checkpoint, r.sigs, err = checkpoint.ParseForeignNote(msg); err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return r, nil
}

// parseOld reads the old size line: "the string old, a single space (0x20), and the tree size of the previous checkpoint encoded as
// an ASCII decimal with no leading zeroes (unless the size is zero, in which case the encoding MUST be 0)".
func parseOld(line []byte) (uint64, error) {
	decimal, ok := bytes.CutPrefix(line, []byte("old "))
	size, err := strconv.ParseUint(string(decimal), 10, 64)
	if !ok || err != nil || strconv.FormatUint(size, 10) != string(decimal) {
		return 0, fmt.Errorf("%w: the first line is %.60q, want \"old \" and a size", errMalformed, line)
	}
	if size > merkle.MaxSize {
		return 0, fmt.Errorf("%w: old size %d, want <= %d", errMalformed, size, uint64(merkle.MaxSize))
	}
	return size, nil
}

// parseProof reads the proof: "each consistency proof line MUST encode a single hash in base64".
func parseProof(text []byte) ([]merkle.Hash, error) {
	if n := bytes.Count(text, []byte("\n")) + 1; n > maxProof {
		return nil, fmt.Errorf("%w: got %d lines of proof, want <= %d", errMalformed, n, maxProof)
	}
	var proof []merkle.Hash
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		hash, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(hash) != merkle.HashSize || base64.StdEncoding.EncodeToString(hash) != string(line) {
			return nil, fmt.Errorf("%w: line %d of the proof is %.60q, want the base64 of %d bytes", errMalformed, len(proof)+1, line,
				merkle.HashSize)
		}
		proof = append(proof, merkle.Hash(hash))
	}
	return proof, nil
}
