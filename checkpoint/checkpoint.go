package checkpoint

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/merkle"
)

// ErrNotSigned is wrapped by the error of [Open] about a checkpoint that is well
// formed but carries no signature that was checked with a key of the log. It may
// still be right: the caller doesn't have the key to tell.
var ErrNotSigned = errors.New("not signed with a known key of the log")

// A Checkpoint states the size and the root of a log's tree.
type Checkpoint struct {
	Origin string      // the log's unique name, see [CheckOrigin]
	Size   uint64      // number of entries, at most [merkle.MaxSize]
	Root   merkle.Hash // of the tree over them
}

// Text returns the text of the checkpoint's note, three lines that each end in a
// newline: the origin, the size in decimal, the root in base64 (C2SP
// tlog-checkpoint). There are no extension lines.
func (c Checkpoint) Text() string {
	return c.Origin + "\n" +
		strconv.FormatUint(c.Size, 10) + "\n" +
		base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

// check returns an error unless a log of this package can have the checkpoint.
func (c Checkpoint) check() error {
	if err := CheckOrigin(c.Origin); err != nil {
		return err
	}
	if c.Size > merkle.MaxSize {
		return fmt.Errorf("checkpoint of size %d, want <= %d", c.Size, uint64(merkle.MaxSize))
	}
	return c.checkEmpty()
}

// checkForeign returns an error unless some log can have the checkpoint, be it one of
// this package or not. What [Checkpoint.checkEmpty] checks is not checked.
func (c Checkpoint) checkForeign() error {
	isControl := func(r rune) bool { return r < 0x20 }
	if c.Origin == "" || len(c.Origin) > maxOrigin || !utf8.ValidString(c.Origin) || strings.ContainsFunc(c.Origin, isControl) {
		return fmt.Errorf("origin %.60q, want 1 to %d bytes of text without control characters", c.Origin, maxOrigin)
	}
	if c.Size > merkle.MaxSize {
		return fmt.Errorf("checkpoint of size %d, want <= %d", c.Size, uint64(merkle.MaxSize))
	}
	return nil
}

// checkEmpty returns an error if the checkpoint is of an empty tree and its root isn't.
func (c Checkpoint) checkEmpty() error {
	if c.Size == 0 && c.Root != merkle.EmptyRoot() {
		return fmt.Errorf("checkpoint of size 0 with root %v, want %v", c.Root, merkle.EmptyRoot())
	}
	return nil
}

// ParseText parses the text of a checkpoint's note, as [Checkpoint.Text] writes
// it. Everything else is an error: an origin that [CheckOrigin] refuses, a size
// with a sign or leading zeros or above [merkle.MaxSize], a root that isn't the
// canonical base64 of 32 bytes or isn't [merkle.EmptyRoot] for size 0, extension
// lines, carriage returns.
func ParseText(text string) (Checkpoint, error) {
	c, err := parseLines(text)
	if err != nil {
		return Checkpoint{}, err
	}
	if err := c.check(); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}

// parseForeignText is [ParseText] for [ParseForeignNote].
func parseForeignText(text string) (Checkpoint, error) {
	c, err := parseLines(text)
	if err != nil {
		return Checkpoint{}, err
	}
	if err := c.checkForeign(); err != nil {
		return Checkpoint{}, err
	}
	return c, nil
}

// parseLines parses the three lines of a checkpoint's text, which must be canonical,
// whatever they say.
func parseLines(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, fmt.Errorf("malformed checkpoint: got %d newlines in %.300q, want 3 lines", len(lines)-1, text)
	}
	size, err := strconv.ParseUint(lines[1], 10, 64)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("malformed checkpoint: size %.30q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != merkle.HashSize {
		return Checkpoint{}, fmt.Errorf("malformed checkpoint: root %.60q", lines[2])
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: merkle.Hash(root)}
	// The decoders are lenient about zeros before the number and about the
	// unused bits at the end of base64. Two texts for one tree would be two
	// signatures for it.
	if c.Text() != text {
		return Checkpoint{}, fmt.Errorf("malformed checkpoint: %.300q is not in canonical form", text)
	}
	return c, nil
}

// Open parses the signed note of a checkpoint and checks its signatures with the
// given verifiers. It returns the checkpoint, and the note with its signatures
// told apart into those that were checked and those by keys that weren't given.
//
// The checkpoint must be of the given origin, and at least one of the verifiers
// that have the origin as their name must have signed it; otherwise, if nothing
// else is wrong, the error wraps [ErrNotSigned]. Other verifiers, such as those of
// witnesses, may be given as well. Signatures by keys that weren't given are
// ignored, as C2SP signed-note demands, but one that fails under a key that was
// given makes the note invalid.
//
// The message must be in the form that [ParseNote] demands. So no byte of it can
// change without making it invalid, but within the signatures that are listed as
// not checked.
func Open(msg []byte, origin string, verifiers ...note.Verifier) (Checkpoint, *note.Note, error) {
	c, _, err := ParseNote(msg)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c.Origin != origin {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint of log %q, want one of %q", c.Origin, origin)
	}
	n, err := note.Open(msg, note.VerifierList(verifiers...))
	if unverified, ok := errors.AsType[*note.UnverifiedNoteError](err); ok {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint of %s: %w: %w", origin, ErrNotSigned, unverified)
	}
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint of %s: %w", origin, err)
	}
	if !slices.ContainsFunc(n.Sigs, func(s note.Signature) bool { return s.Name == origin }) {
		return Checkpoint{}, nil, fmt.Errorf("checkpoint of %s: %w", origin, ErrNotSigned)
	}
	return c, n, nil
}

// Sign returns the note of c, signed by each of the signers in turn. At least one
// of them must have the log's origin as its name, and no key may be there twice.
// With signers that are deterministic, as those of [Seed.Ed25519] are, the same
// checkpoint gives the same bytes.
//
// Sign doesn't know what was signed before. [Publisher] does.
func Sign(c Checkpoint, signers ...note.Signer) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	if !slices.ContainsFunc(signers, func(s note.Signer) bool { return s.Name() == c.Origin }) {
		return nil, fmt.Errorf("signing a checkpoint of %s: none of %d signers has that name", c.Origin, len(signers))
	}
	msg, err := note.Sign(&note.Note{Text: c.Text()}, signers...)
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint of %s: %w", c.Origin, err)
	}
	if _, _, err := ParseNote(msg); err != nil { // the same key twice, or too many
		return nil, fmt.Errorf("signing: %w", err)
	}
	return msg, nil
}
