package fencetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// A source is a log of up to 256 entries in memory, for a publisher whose fence is the matter. It judges publications by what
// another fence at the same place sees.
type source struct {
	t        testing.TB
	judge    checkpoint.Fence
	entries  [][]byte
	last     merkle.Hash // of the last entry
	note     []byte      // recorded last
	records  int
	released uint64
}

func newSource(t testing.TB, judge checkpoint.Fence) *source {
	return &source{t: t, judge: judge, last: sha256.Sum256([]byte("treeline/log/v1\n" + Origin + "\n"))}
}

// publisher returns a publisher of the log, as that of a process that was just started.
func (s *source) publisher(f checkpoint.Fence) *checkpoint.Publisher {
	signer, verifier := keys(s.t, Origin)
	return checkpoint.NewPublisher(s, f, []note.Signer{signer}, verifier)
}

// grow appends n entries.
func (s *source) grow(n int) {
	for range n {
		entry := binary.BigEndian.AppendUint64([]byte{1}, uint64(1e15+len(s.entries)))
		digest := sha256.Sum256(fmt.Append(nil, len(s.entries)))
		entry = append(append(entry, s.last[:]...), digest[:]...)
		s.entries, s.last = append(s.entries, entry), merkle.LeafHash(entry)
	}
}

func (s *source) Origin() string { return Origin }

func (s *source) Head(context.Context) (uint64, merkle.Hash, error) {
	tree := merkle.NewRange()
	for _, e := range s.entries {
		tree.Append(merkle.LeafHash(e), nil)
	}
	return tree.Size(), tree.Root(), nil
}

func (s *source) ReadEntries(_ context.Context, from, to uint64, fn func([]byte) error) error {
	for _, e := range s.entries[from:to] {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) ReadTile(_ context.Context, t merkle.Tile) (hashes []merkle.Hash, err error) {
	if t.Level > 0 || t.Index > 0 {
		return nil, fmt.Errorf("no %s", t.Path())
	}
	for _, e := range s.entries[:t.Width] {
		hashes = append(hashes, merkle.LeafHash(e))
	}
	return hashes, nil
}

func (s *source) Latest(context.Context) ([]byte, error) { return s.note, nil }

func (s *source) Record(_ context.Context, _ checkpoint.Checkpoint, msg []byte) error {
	if !bytes.Equal(s.note, msg) {
		s.note, s.records = msg, s.records+1
	}
	return nil
}

// Publish checks that the fence has what others may now see.
func (s *source) Publish(c checkpoint.Checkpoint, msg []byte) {
	mustHold(s.t, s.judge, Origin, msg)
	s.released = max(s.released, c.Size)
}
