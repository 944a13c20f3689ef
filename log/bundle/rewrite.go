package bundle

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/treeline-log/treeline/log"
)

// Change returns what becomes of the disclosure of the event at an index: that one, or another one of the same entry. Whatever it is
// that is taken out, entries, hashes and the manifest stay as they are.
type Change func(index uint64, d *log.Disclosure) (*log.Disclosure, error)

// Rewrite writes a bundle anew, with the disclosures that change returns in place of those that it has. The result has the same
// manifest, by which a bundle is named.
//
// Both are checked as Verify does: what was read, since nothing is to be written anew that is no bundle, and what is written, of which
// the Verification is. Unless the error is nil what was written is to be thrown away: it isn't whole, or isn't VALID. The errors are
// those of Verify, that of change, or w's.
func Rewrite(r io.Reader, w io.Writer, trust log.Trust, change Change) (*Verification, error) {
	b := newVerifier(r, trust)
	b.rewriting = &rewriting{zip: container{w: w}, change: change}
	return b.run()
}

// Read verifies a bundle as Verify does, and calls visit with each of its events in the order of their indices. Not before it returns nil
// is any of them known to be in the log.
func Read(r io.Reader, trust log.Trust, visit func(index uint64, d *log.Disclosure) error) (*Verification, error) {
	b := newVerifier(r, trust)
	b.visit = visit
	return b.run()
}

// rewriting is what of a bundle is written anew.
type rewriting struct {
	zip    container
	change Change
	events []byte // of the part that is being read
}

// stop notes an error that says nothing about the bundle that is read.
func (b *verifier) stop(err error) error {
	if err != nil {
		b.stopped = err
	}
	return err
}

// copy writes a file as it was read.
func (b *verifier) copy(name string, content []byte) error {
	if b.rewriting == nil {
		return nil
	}
	if err := b.rewriting.zip.add(name, content); err != nil {
		return b.stop(fmt.Errorf("writing the bundle anew: %w", err))
	}
	return nil
}

// change returns the disclosure that an event has from now on, and adds it to the events of the part.
func (b *verifier) change(index uint64, d *log.Disclosure) (*log.Disclosure, error) {
	if b.visit != nil {
		if err := b.visit(index, d); err != nil {
			return nil, b.stop(err)
		}
	}
	w := b.rewriting
	if w == nil {
		return d, nil
	}
	entry := d.Entry()
	d, err := w.change(index, d)
	if err != nil {
		return nil, b.stop(fmt.Errorf("event %d: %w", index, err))
	}
	disclosure, err := d.Marshal()
	if err == nil && d.Entry() != entry {
		err = errors.New("what it is changed to isn't what its entry commits to")
	}
	if err != nil {
		return nil, b.stop(fmt.Errorf("event %d: %w", index, err))
	}
	w.events = appendLine(w.events, index, disclosure)
	return d, nil
}

// appendLine appends the line of an event.
func appendLine(dst []byte, index uint64, disclosure []byte) []byte {
	dst = append(append(append(dst, linePrefix...), disclosure...), lineIndex...)
	return append(strconv.AppendUint(dst, index, 10), lineSuffix...)
}

// copyEvents writes the events of the part that was read.
func (b *verifier) copyEvents(name string) error {
	if b.rewriting == nil {
		return nil
	}
	err := b.copy(name, b.rewriting.events)
	b.rewriting.events = b.rewriting.events[:0]
	return err
}

// copyEnd writes the manifest, and what stands after the files.
func (b *verifier) copyEnd(manifest []byte) error {
	err := b.copy(manifestName, manifest)
	if err == nil && b.rewriting != nil {
		err = b.stop(b.rewriting.zip.close())
	}
	return err
}
