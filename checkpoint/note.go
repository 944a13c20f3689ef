package checkpoint

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// maxSignatures is how many signatures a note may have. It is the limit of
// note.Open; C2SP signed-note asks for at least 16.
const maxSignatures = 100

var errMalformedNote = errors.New("malformed note")

// ParseNote parses the signed note of a checkpoint without checking any signature,
// so nothing in the result is to be believed. It is for finding out which keys
// [Open] needs.
//
// Beyond what note.Open demands, the signatures must be in canonical base64, there
// must be one at most for each pair of key name and key hash, and the text must be
// one that [ParseText] accepts.
func ParseNote(msg []byte) (Checkpoint, []note.Signature, error) {
	text, sigs, err := splitNote(msg)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	c, err := ParseText(text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, sigs, nil
}

// ParseForeignNote is [ParseNote] for the checkpoints of any log, as a witness or a
// monitor reads them. All that C2SP tlog-checkpoint allows is accepted, with these
// limits: there are no extension lines, as an ML-DSA-44 signature doesn't cover them; the
// origin has at most 255 bytes, as such a signature can't name a longer one; the size is
// at most [merkle.MaxSize].
//
// An empty tree may have a root that isn't [merkle.EmptyRoot], since a witness has an
// answer of its own to that. [Cosigner.Cosign], [Policy.Judge] and
// [merkle.VerifyConsistency] don't accept it.
func ParseForeignNote(msg []byte) (Checkpoint, []note.Signature, error) {
	text, sigs, err := splitNote(msg)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	c, err := parseForeignText(text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, sigs, nil
}

// SignatureLine returns the line of a note that the signature is in, with its newline.
func SignatureLine(sig note.Signature) string {
	return "— " + sig.Name + " " + sig.Base64 + "\n"
}

// splitNote parses a signed note of any text. It accepts a message only if writing
// the parsed note again gives the same bytes: note.Open takes several encodings of
// a signature, and drops lines that repeat a key.
func splitNote(msg []byte) (text string, sigs []note.Signature, err error) {
	// "Signed notes MUST be valid UTF-8 and MUST NOT contain any ASCII control
	// characters (those below U+0020) other than newline" (C2SP signed-note).
	isControl := func(r rune) bool { return r < 0x20 && r != '\n' }
	if !utf8.Valid(msg) || bytes.ContainsFunc(msg, isControl) {
		return "", nil, fmt.Errorf("%w: not text", errMalformedNote)
	}
	// The text may have empty lines, so it is the last one that ends it.
	split := bytes.LastIndex(msg, []byte("\n\n"))
	if split < 0 || split+2 == len(msg) || msg[len(msg)-1] != '\n' {
		return "", nil, fmt.Errorf("%w: no signature lines after an empty line", errMalformedNote)
	}
	text = string(msg[:split+1])

	type key struct {
		name string
		hash uint32
	}
	seen := make(map[key]bool)
	for line := range strings.SplitSeq(string(msg[split+2:len(msg)-1]), "\n") {
		sig, err := parseSignature(line)
		if err != nil {
			return "", nil, err
		}
		k := key{sig.Name, sig.Hash}
		if seen[k] {
			return "", nil, fmt.Errorf("%w: two signatures by %s+%08x", errMalformedNote, sig.Name, sig.Hash)
		}
		seen[k] = true
		sigs = append(sigs, sig)
		if len(sigs) > maxSignatures {
			return "", nil, fmt.Errorf("%w: more than %d signatures", errMalformedNote, maxSignatures)
		}
	}
	if !bytes.Equal(joinNote(text, sigs), msg) {
		return "", nil, fmt.Errorf("%w: not in canonical form", errMalformedNote)
	}
	return text, sigs, nil
}

// parseSignature parses a signature line without its newline: an em dash, a space,
// the key's name, a space, and the base64 of the key's hash and the signature.
func parseSignature(line string) (note.Signature, error) {
	rest, ok := strings.CutPrefix(line, "— ")
	name, b64, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 || name == "" || strings.ContainsFunc(name, unicode.IsSpace) || strings.Contains(name, "+") {
		return note.Signature{}, fmt.Errorf("%w: signature line %.100q", errMalformedNote, line)
	}
	raw, err := base64.StdEncoding.DecodeString(b64)
	if err != nil || len(raw) < 5 || base64.StdEncoding.EncodeToString(raw) != b64 {
		return note.Signature{}, fmt.Errorf("%w: signature by %.100q is not in canonical base64", errMalformedNote, name)
	}
	return note.Signature{Name: name, Hash: binary.BigEndian.Uint32(raw), Base64: b64}, nil
}

// joinNote is the inverse of splitNote.
func joinNote(text string, sigs []note.Signature) []byte {
	var b bytes.Buffer
	b.WriteString(text)
	b.WriteByte('\n')
	for _, sig := range sigs {
		b.WriteString(SignatureLine(sig))
	}
	return b.Bytes()
}
