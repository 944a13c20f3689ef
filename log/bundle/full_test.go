package bundle

import (
	"io"
	"testing"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// A writer says that it is full before a container has more bytes or files than it can have.
func TestFull(t *testing.T) {
	t.Parallel()
	signer, vkey, err := checkpoint.Seed{1}.Ed25519("test.example/logs/acme", 0)
	if err != nil {
		t.Fatal(err)
	}
	note, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: "test.example/logs/acme", Root: merkle.EmptyRoot()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(io.Discard, note, checkpoint.PolicyFile([]string{vkey}, nil), nil)
	if err != nil || w.Full() {
		t.Fatalf("a new bundle is full, or %v", err)
	}
	offset := w.zip.offset
	w.zip.offset = maxContainer - int64(3*PartEvents*maxLine)
	if !w.Full() {
		t.Error("there is room where three parts of the largest events have none")
	}
	w.zip.offset = maxContainer - 50
	if err := w.zip.add("x", make([]byte, 100)); err == nil {
		t.Error("a file was added beyond the last byte that can be")
	}
	w.zip.offset = offset
	for len(w.zip.files) < maxFiles-9 {
		w.zip.files = append(w.zip.files, file{name: "x"})
	}
	if !w.Full() {
		t.Error("there is room for more files than can be")
	}
	for len(w.zip.files) < maxFiles {
		w.zip.files = append(w.zip.files, file{name: "x"})
	}
	if err := w.zip.add("x", nil); err == nil {
		t.Error("a file was added beyond the last that can be")
	}
}
