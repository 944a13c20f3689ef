package bundle

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

const (
	// PartEvents is how many events are in each part, and at most in the last.
	PartEvents = 512

	readmeName, checkpointName, policyName, manifestName = "README.txt", "checkpoint", "policy", "manifest.json"

	entrySize = 8 + log.EntrySize // with its index
	// maxLine is the longest line of a part's events: a disclosure, and an index of up to 16 digits.
	maxLine  = len(linePrefix) + log.MaxDisclosure + len(lineIndex) + 16 + len(lineSuffix)
	maxCover = 2 * 63 * merkle.HashSize // bytes of the hashes before an entry

	linePrefix, lineIndex, lineSuffix = `{"disclosure":`, `,"index":`, "}\n"
)

//go:embed README.txt
var readme []byte

func removalName(n int) string    { return fmt.Sprintf("removals/%06d.tlog-proof", n) }
func entriesName(part int) string { return fmt.Sprintf("entries/%06d.bin", part) }
func hashesName(part int) string  { return fmt.Sprintf("hashes/%06d.bin", part) }
func eventsName(part int) string  { return fmt.Sprintf("events/%06d.ndjson", part) }

// Cover returns the hashes of the cover of the entries [from, to) in the tree that a bundle's checkpoint signs, see
// merkle.CoverHashes.
type Cover func(ctx context.Context, from, to uint64) ([]merkle.Hash, error)

// Writer writes a bundle as its events come, in the order of their indices. The same events under the same checkpoint give the same
// bytes.
type Writer struct {
	zip     container
	head    checkpoint.Checkpoint
	cover   Cover
	tree    *merkle.Range
	files   []fileEntry
	count   uint64
	parts   int
	removed int  // proofs of removals
	begun   bool // an event was added
	n       int  // events in the part that is being filled
	entries []byte
	hashes  []byte
	events  []byte
}

// NewWriter returns a Writer of a bundle under the given checkpoint, a signed note, and writes its beginning. The policy is a file that
// checkpoint.ParsePolicy reads.
func NewWriter(w io.Writer, note, policy []byte, cover Cover) (*Writer, error) {
	c, _, err := checkpoint.ParseNote(note)
	if err != nil {
		return nil, err
	}
	if _, err := checkpoint.ParsePolicy(policy); err != nil {
		return nil, fmt.Errorf("the policy of a bundle: %w", err)
	}
	b := &Writer{zip: container{w: w}, head: c, cover: cover, tree: merkle.NewRange()}
	for _, f := range []struct {
		name    string
		content []byte
	}{{readmeName, readme}, {checkpointName, note}, {policyName, policy}} {
		if err := b.add(f.name, f.content); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// add writes a file that the manifest hashes.
func (b *Writer) add(name string, content []byte) error {
	sum := sha256.Sum256(content)
	b.files = append(b.files, fileEntry{name, hex.EncodeToString(sum[:]), len(content)})
	return b.zip.add(name, content)
}

// AddRemoval adds the proof of an event treeline.retention.purged or treeline.subject.erased of the log, so that a verifier can tell
// what was removed from what is withheld. Removals come before all events, in the order of their indices.
func (b *Writer) AddRemoval(proof []byte) error {
	if b.begun || b.removed == maxRemovals {
		return fmt.Errorf("a proof of a removal after %d others and %d events: want them before all events, and at most %d",
			b.removed, b.count, maxRemovals)
	}
	b.removed++
	return b.add(removalName(b.removed-1), proof)
}

// Add adds the event at an index, which must be greater than those added before and below the checkpoint's size.
func (b *Writer) Add(ctx context.Context, index uint64, d *log.Disclosure) error {
	if index >= b.head.Size {
		return fmt.Errorf("event %d in a bundle under a checkpoint of size %d", index, b.head.Size)
	}
	if b.n == PartEvents {
		if err := b.flush(); err != nil {
			return err
		}
	}
	disclosure, err := d.Marshal()
	if err != nil {
		return fmt.Errorf("event %d: %w", index, err)
	}
	if err := b.fill(ctx, index); err != nil {
		return err
	}
	entry := d.Entry()
	b.tree.Append(entry.LeafHash(), nil)
	b.entries = entry.Append(binary.BigEndian.AppendUint64(b.entries, index))
	b.events = appendLine(b.events, index, disclosure)
	b.n++
	b.count++
	b.begun = true
	return nil
}

// fill adds the hashes of what lies before index.
func (b *Writer) fill(ctx context.Context, index uint64) error {
	if index == b.tree.Size() {
		return nil
	}
	hashes, err := b.cover(ctx, b.tree.Size(), index)
	if err == nil {
		err = b.tree.AppendCover(index, hashes)
	}
	for _, h := range hashes {
		b.hashes = append(b.hashes, h[:]...)
	}
	return err
}

// flush writes the part that is being filled.
func (b *Writer) flush() error {
	if err := b.add(entriesName(b.parts), b.entries); err != nil {
		return err
	}
	if err := b.add(hashesName(b.parts), b.hashes); err != nil {
		return err
	}
	if err := b.zip.add(eventsName(b.parts), b.events); err != nil {
		return err
	}
	b.parts, b.n = b.parts+1, 0
	b.entries, b.hashes, b.events = b.entries[:0], b.hashes[:0], b.events[:0]
	return nil
}

// Full reports whether it may be that the bundle can't take another PartEvents events and the rest that a bundle has: it is then
// time to Close it, and to go on in another one.
func (b *Writer) Full() bool {
	const most = int64(PartEvents*(entrySize+maxLine+maxCover) + 1<<12)
	return b.zip.offset+3*most+int64(len(b.files))*256 > maxContainer || len(b.zip.files)+10 > maxFiles
}

// Close writes what is left, and returns the SHA-256 of the manifest, which identifies the bundle whatever of its events is erased. It
// doesn't close the underlying writer. If the events don't lead to the checkpoint's root it is log.ErrDamaged, and no bundle.
func (b *Writer) Close(ctx context.Context, s Selection) (manifestHash [32]byte, err error) {
	if err := b.fill(ctx, b.head.Size); err != nil {
		return manifestHash, err
	}
	if got := b.tree.Root(); got != b.head.Root {
		return manifestHash, fmt.Errorf("the events of a bundle lead to root %v, the checkpoint of size %d says %v: %w",
			got, b.head.Size, b.head.Root, log.ErrDamaged)
	}
	m, err := newManifest(b.head, nil, b.count, s)
	if err != nil {
		return manifestHash, err
	}
	if err := b.flush(); err != nil {
		return manifestHash, err
	}
	m.Files = b.files
	data := m.marshal()
	if err := b.zip.add(manifestName, data); err != nil {
		return manifestHash, err
	}
	return sha256.Sum256(data), b.zip.close()
}
