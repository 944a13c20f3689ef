package bundle

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
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
	// maxRemovals bounds the proofs of what was removed, which are all remembered.
	maxRemovals = 4096
	// maxNamed bounds how many different pointers of claims are named, and how many events that tell of removals.
	maxNamed = 1000
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

	Partial  uint64   // events of which some claims are withheld, and not proven to be erased
	Withheld []string // the pointers of those claims, ascending; of more than 1000 different ones only 1000
	Erased   uint64   // events of which some claims are proven to be erased
	// ErasedClaims are the pointers of those claims, ascending; of more than 1000 different ones only 1000.
	ErasedClaims []string
	NotShown     uint64 // events of which nothing is shown, and that aren't proven to be purged
	Purged       uint64 // events that are proven to be purged
	// RemovedBy are the events that prove that something was erased or purged, ascending by index; of more than 1000 only 1000.
	RemovedBy []log.Ref
}

// Verify checks a bundle offline, against the keys and the policy that the caller trusts. As log.VerifyProof does it returns nil for a
// VALID one only. Otherwise the error wraps log.ErrInvalidProof, with no Verification; or log.ErrNotVerifiable, with a Verification
// of what was checked, and each reason; or neither, if r fails.
//
// VALID means: the file is in its one encoding; each disclosure is of the entry at its place; these entries, at these indices, are
// in the tree of a checkpoint that a pinned key or a log of the policy has signed, and that meets the policy's quorum; entries that
// follow upon each other are chained, and their times never decrease; and of each event something is shown, or else the log's own event
// that tells of its purge is proven, in the bundle or by trust.Removals. Only that is vouched for. The README, the policy in the bundle
// and the filter in its manifest are the word of whoever made it.
func Verify(r io.Reader, trust log.Trust) (*Verification, error) {
	return newVerifier(r, trust).run()
}

// run checks a bundle, and returns what Verify does.
func (b *verifier) run() (*Verification, error) {
	if err := b.trust.Check(); err != nil {
		return nil, err
	}
	unmet, err := b.verify(b.trust)
	switch {
	case b.files.failed != nil:
		return nil, fmt.Errorf("reading the bundle: %w", b.files.failed)
	case b.stopped != nil:
		return nil, b.stopped
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
	files    contents
	trust    log.Trust
	removals *log.Removals // what is proven to have been removed
	result   Verification
	hashed   []fileEntry // what the manifest must say of the files
	tree     *merkle.Range
	hashes   []byte      // of covers, that are not in the tree yet
	first    uint64      // index of the first entry
	end      uint64      // of the entries: the index after the last
	last     merkle.Hash // leaf hash of the newest entry
	withheld map[string]bool
	erased   map[string]bool
	by       map[log.Ref]bool

	visit     func(index uint64, d *log.Disclosure) error // nil: nobody is told of the events
	rewriting *rewriting                                  // nil: it isn't written anew
	stopped   error                                       // of these two, which says nothing about the bundle
}

func newVerifier(r io.Reader, trust log.Trust) *verifier {
	b := &verifier{
		trust: trust, tree: merkle.NewRange(),
		withheld: make(map[string]bool), erased: make(map[string]bool), by: make(map[log.Ref]bool),
	}
	b.files.from(r)
	return b
}

// read reads a file that the manifest hashes.
func (b *verifier) read(name string, limit int64) ([]byte, error) {
	content, err := b.files.read(name, limit)
	if err != nil {
		return nil, err
	}
	return content, b.note(name, content)
}

// note notes what the manifest must say of a file.
func (b *verifier) note(name string, content []byte) error {
	sum := sha256.Sum256(content)
	b.hashed = append(b.hashed, fileEntry{name, hex.EncodeToString(sum[:]), len(content)})
	return b.copy(name, content)
}

// readRemovals reads the proofs of what was removed, and notes what those say that are VALID.
func (b *verifier) readRemovals() error {
	b.removals = b.trust.Removals.Clone()
	for n := 0; ; n++ {
		f, ok, err := b.files.next(removalName(n), checkpoint.MaxProofSize)
		if err != nil || !ok {
			return err
		}
		if n == maxRemovals {
			return fmt.Errorf("%w: more than %d proofs of removals", errMalformed, maxRemovals)
		}
		proof, err := b.files.content(f)
		if err == nil {
			err = b.note(f.name, proof)
		}
		if err != nil {
			return err
		}
		v, err := b.removals.Add(proof, b.trust)
		if v == nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if v.Origin != b.result.Checkpoint.Origin {
			return fmt.Errorf("%s is of the log %s, the bundle of %s", f.name, v.Origin, b.result.Checkpoint.Origin)
		}
	}
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
	if err := b.readRemovals(); err != nil {
		return nil, err
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
	v.Withheld, v.ErasedClaims = slices.Sorted(maps.Keys(b.withheld)), slices.Sorted(maps.Keys(b.erased))
	v.RemovedBy = slices.SortedFunc(maps.Keys(b.by), func(a, b log.Ref) int { return cmp.Compare(a.Index, b.Index) })
	if err := b.copyEnd(data); err != nil {
		return nil, err
	}
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
		if err := b.note(name, entries); err != nil {
			return nil, err
		}
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
		if err := b.copyEvents(f.name); err != nil {
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
	if d, err = b.change(index, d); err != nil {
		return err
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
	b.count(index, d)
	return nil
}

// count notes what a disclosure doesn't show.
func (b *verifier) count(index uint64, d *log.Disclosure) {
	v, origin := &b.result, b.result.Checkpoint.Origin
	if !d.Shows() {
		if by, ok := b.removals.Purged(origin, index); ok {
			v.Purged++
			add(b.by, by)
		} else {
			v.NotShown++
		}
		return
	}
	withheld, erased := false, false
	for i := range d.Claims {
		c := &d.Claims[i]
		if !c.Withheld() {
			continue
		}
		if by, ok := b.removals.Erased(origin, index, c.Pointer); ok {
			erased = true
			add(b.erased, c.Pointer)
			add(b.by, by)
		} else {
			withheld = true
			add(b.withheld, c.Pointer)
		}
	}
	if withheld {
		v.Partial++
	}
	if erased {
		v.Erased++
	}
}

// add adds what is to be named, unless that is too much.
func add[K comparable](names map[K]bool, name K) {
	if len(names) < maxNamed {
		names[name] = true
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
