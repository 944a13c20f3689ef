package bundle

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// Limits of what is read.
const (
	maxReadme   = 64 << 10
	maxNote     = 512 << 10
	maxManifest = 16 << 20
	// maxWithheld bounds how many different pointers of withheld claims are named.
	maxWithheld = 1000
)

// Signature is how a bundle begins, and no other file that Treeline verifies does.
const Signature = localHeader

// Verification is what a bundle was found to hold.
type Verification struct {
	Checkpoint *log.Verification // of its checkpoint: origin, size and root, and who signed

	Selection
	Count    uint64   // of events
	Complete bool     // whether these are all events from From up to To
	Manifest [32]byte // SHA-256 of the manifest

	FirstReceived, LastReceived int64 // of the first and the last event, µs since 1970 UTC; 0 if there are none

	Partial  uint64   // events of which some claims are withheld
	Withheld []string // the pointers of those claims, ascending; of more than 1000 different ones only 1000
	NotShown uint64   // events of which nothing is shown
}

// Verify checks a bundle offline, against the keys and the policy that the caller trusts. As log.VerifyProof does it returns nil for a
// VALID one only. Otherwise the error wraps log.ErrInvalidProof, with no Verification; or log.ErrNotVerifiable, with a Verification
// of what was checked, and each reason; or neither, if r fails.
//
// VALID means: the file is in its one encoding; each disclosure is of the entry at its place; these entries, at these indices, are
// in the tree of a checkpoint that a pinned key or a log of the policy has signed, and that meets the policy's quorum; entries that
// follow upon each other are chained, and their times never decrease. Only that is vouched for. The README, the policy in the bundle
// and the filter in its manifest are the word of whoever made it.
func Verify(r io.Reader, trust log.Trust) (*Verification, error) {
	if err := trust.Check(); err != nil {
		return nil, err
	}
	b := &verifier{tree: merkle.NewRange(), hidden: make(map[string]bool)}
	b.files.from(r)
	unmet, err := b.verify(trust)
	switch {
	case b.files.failed != nil:
		return nil, fmt.Errorf("reading the bundle: %w", b.files.failed)
	case errors.Is(err, log.ErrInvalidProof):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", log.ErrInvalidProof, err)
	}
	if len(unmet) > 0 {
		return &b.result, fmt.Errorf("%w: %w", log.ErrNotVerifiable, errors.Join(unmet...))
	}
	return &b.result, nil
}

// ErrUnknownFormat is a reason for log.ErrNotVerifiable: the bundle is of a later version of the format.
var ErrUnknownFormat = errors.New("unknown format of a bundle")

// verifier is in the middle of a bundle.
type verifier struct {
	files  contents
	result Verification
	hashed []fileEntry // what the manifest must say of the files
	tree   *merkle.Range
	hashes []byte      // of covers, that are not in the tree yet
	first  uint64      // index of the first entry
	end    uint64      // of the entries: the index after the last
	last   merkle.Hash // leaf hash of the newest entry
	hidden map[string]bool
}

// read reads a file that the manifest hashes.
func (b *verifier) read(name string, limit int64) ([]byte, error) {
	content, err := b.files.read(name, limit)
	b.note(name, content)
	return content, err
}

// note notes what the manifest must say of a file.
func (b *verifier) note(name string, content []byte) {
	sum := sha256.Sum256(content)
	b.hashed = append(b.hashed, fileEntry{name, hex.EncodeToString(sum[:]), len(content)})
}

// verify checks the bundle from its beginning to its end. The first result says what keeps a flawless one from being VALID, the second
// what is wrong.
func (b *verifier) verify(trust log.Trust) (unmet []error, err error) {
	v := &b.result
	if _, err := b.read(readmeName, maxReadme); err != nil {
		return nil, err
	}
	note, err := b.read(checkpointName, maxNote)
	if err != nil {
		return nil, err
	}
	var reason error
	if v.Checkpoint, reason, err = log.VerifyCheckpoint(note, trust); err != nil {
		return nil, err
	}
	if reason != nil {
		unmet = append(unmet, reason)
	}
	policy, err := b.read(policyName, checkpoint.MaxPolicySize)
	if err != nil {
		return nil, err
	}
	if _, err := checkpoint.ParsePolicy(policy); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	unknown, err := b.parts()
	if err != nil {
		return nil, err
	}
	if unknown != nil {
		return append(unmet, unknown), nil // whatever follows may be by other rules
	}
	data, err := b.files.read(manifestName, maxManifest)
	if err != nil {
		return nil, err
	}
	m, known, err := parseManifest(data)
	if err != nil {
		return nil, err
	}
	if err := b.files.close(); err != nil {
		return nil, err
	}
	if !known {
		return append(unmet, fmt.Errorf("the manifest says format %.60q: %w", m.Format, ErrUnknownFormat)), nil
	}
	if err := b.checkManifest(&m); err != nil {
		return nil, err
	}
	v.Manifest, v.Selection = sha256.Sum256(data), Selection{m.From, m.To, m.Filter}
	v.Complete = v.Count == m.To-m.From
	for pointer := range b.hidden {
		v.Withheld = append(v.Withheld, pointer)
	}
	slices.Sort(v.Withheld)
	if v.NotShown > 0 {
		unmet = append(unmet, fmt.Errorf("%w, of %d events", log.ErrNotShown, v.NotShown))
	}
	return unmet, nil
}

// parts reads the parts, and checks that their events are in the tree. The first result says why that couldn't be done.
func (b *verifier) parts() (unknown, err error) {
	lines := bufio.NewReaderSize(nil, maxLine)
	n := PartEvents // of events in the part before
	for part := 0; ; part++ {
		name := entriesName(part)
		f, ok, err := b.files.next(name, PartEvents*entrySize)
		if err != nil {
			return nil, err
		}
		if !ok && part > 0 {
			return nil, b.fill(b.result.Checkpoint.Size)
		}
		switch {
		case !ok:
			return nil, b.files.missing(name)
		case f.size%entrySize != 0 || f.size == 0 && part > 0 || n < PartEvents:
			return nil, fmt.Errorf("%w: %s has %d bytes, the part before has %d events; want %d events of %d bytes in all parts but the last",
				errMalformed, name, f.size, n, PartEvents, entrySize)
		case len(b.hashes) > 0:
			return nil, fmt.Errorf("%w: %d bytes of hashes before %s are of no use", errMalformed, len(b.hashes), name)
		}
		n = int(f.size) / entrySize
		entries, err := b.files.content(f)
		if err != nil {
			return nil, err
		}
		b.note(name, entries)
		if b.hashes, err = b.read(hashesName(part), int64(n+1)*int64(maxCover)); err != nil {
			return nil, err
		}
		if f, ok, err = b.files.next(eventsName(part), int64(n)*int64(maxLine)); err != nil {
			return nil, err
		}
		if !ok {
			return nil, b.files.missing(eventsName(part))
		}
		lines.Reset(f)
		for e := range slices.Chunk(entries, entrySize) {
			if err := b.event(binary.BigEndian.Uint64(e), e[8:], lines); errors.Is(err, log.ErrUnknownVersion) {
				return err, nil
			} else if err != nil {
				return nil, err
			}
		}
		if _, err := lines.ReadByte(); err != io.EOF {
			return nil, fmt.Errorf("%w: %s has more than %d lines", errMalformed, f.name, n)
		}
		if err := f.close(); err != nil {
			return nil, err
		}
	}
}

// fill appends to the tree what lies before an entry, of which there are only hashes.
func (b *verifier) fill(to uint64) error {
	n := merkle.CoverSize(b.tree.Size(), to) * merkle.HashSize
	if to == b.result.Checkpoint.Size {
		n = len(b.hashes) // they are the last
	}
	if n > len(b.hashes) || n%merkle.HashSize != 0 {
		return fmt.Errorf("%w: %d bytes of hashes before entry %d, want %d", errMalformed, len(b.hashes), to, n)
	}
	var hashes []merkle.Hash
	for h := range slices.Chunk(b.hashes[:n], merkle.HashSize) {
		hashes = append(hashes, merkle.Hash(h))
	}
	b.hashes = b.hashes[n:]
	return b.tree.AppendCover(to, hashes)
}

// event checks an entry, and the disclosure of it that the next line holds.
func (b *verifier) event(index uint64, entry []byte, lines *bufio.Reader) error {
	v := &b.result
	e, err := log.ParseEntry(entry)
	if err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	line, err := lines.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("%w: there is no line for entry %d, of at most %d bytes", errMalformed, index, maxLine)
	}
	suffix := lineIndex + strconv.FormatUint(index, 10) + lineSuffix
	if !bytes.HasPrefix(line, []byte(linePrefix)) || !bytes.HasSuffix(line, []byte(suffix)) || len(line) < len(linePrefix)+len(suffix) {
		return fmt.Errorf("%w: the line for entry %d isn't of the form %s…%s", errMalformed, index, linePrefix, suffix[:len(suffix)-1])
	}
	d, err := log.ParseDisclosure(line[len(linePrefix) : len(line)-len(suffix)])
	if err != nil {
		return fmt.Errorf("event %d: %w", index, err)
	}
	if d.Entry() != e {
		return fmt.Errorf("event %d: it isn't what its entry commits to", index)
	}

	size := b.tree.Size()
	switch {
	case index >= v.Checkpoint.Size || index < size:
		return fmt.Errorf("entry %d in a bundle under a checkpoint of size %d, after entries up to %d", index, v.Checkpoint.Size, size)
	case index == 0 && e.Previous != log.Genesis(v.Checkpoint.Origin):
		return fmt.Errorf("entry 0 isn't the first of the log %s", v.Checkpoint.Origin)
	case index == size && index > 0 && e.Previous != b.last:
		return fmt.Errorf("entry %d isn't chained to the one before", index)
	case e.ReceivedAt < v.LastReceived:
		return fmt.Errorf("entry %d was received before the entry before it", index)
	}
	if index > size {
		if err := b.fill(index); err != nil {
			return err
		}
	}
	b.last = e.LeafHash()
	b.tree.Append(b.last, nil)
	b.end = index + 1
	if v.Count == 0 {
		b.first, v.FirstReceived = index, e.ReceivedAt
	}
	v.Count, v.LastReceived = v.Count+1, e.ReceivedAt
	b.count(d)
	return nil
}

// count notes what a disclosure withholds.
func (b *verifier) count(d *log.Disclosure) {
	withheld := 0
	for i := range d.Claims {
		if c := &d.Claims[i]; c.Withheld() {
			withheld++
			if len(b.hidden) < maxWithheld {
				b.hidden[c.Pointer] = true
			}
		}
	}
	switch {
	case d.Digest != nil || withheld > 0 && withheld == len(d.Claims):
		b.result.NotShown++
	case withheld > 0:
		b.result.Partial++
	}
}

// checkManifest compares the manifest with the rest of the bundle, after that was read.
func (b *verifier) checkManifest(m *manifest) error {
	v := &b.result
	c := v.Checkpoint
	if got := b.tree.Root(); got != c.Root {
		return fmt.Errorf("the entries and hashes lead to root %v, the checkpoint says %v", got, c.Root)
	}
	if m.Origin != c.Origin || m.Size != c.Size || m.Root != c.Root.String() {
		return errors.New("the manifest is of another checkpoint")
	}
	if m.Count != v.Count || v.Count > 0 && (b.first < m.From || b.end > m.To) {
		return fmt.Errorf("the manifest says %d events from %d to %d, there are %d from %d to %d", m.Count, m.From, m.To, v.Count, b.first, b.end)
	}
	if !slices.Equal(m.Files, b.hashed) {
		return errors.New("the manifest has other names, sizes or hashes of files")
	}
	return nil
}
