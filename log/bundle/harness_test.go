package bundle_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math/bits"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/log/bundle"
	"github.com/treeline-log/treeline/merkle"
)

const origin = "test.example/logs/acme"

// began is when the first event of every log was received, µs since 1970 UTC.
const began = 1_790_000_000_000_000

// aLog is a log in memory.
type aLog struct {
	t           testing.TB
	origin      string
	disclosures []*log.Disclosure
	leaves      []merkle.Hash
	signer      note.Signer
	vkey        string
}

// newLog returns a log of n events, which are the same whenever it is made.
func newLog(t testing.TB, n int) *aLog {
	t.Helper()
	return newLogOf(t, n, origin)
}

func newLogOf(t testing.TB, n int, origin string) *aLog {
	t.Helper()
	l := &aLog{t: t, origin: origin}
	var err error
	if l.signer, l.vkey, err = (checkpoint.Seed{7}).Ed25519(origin, 0); err != nil {
		t.Fatal(err)
	}
	previous := log.Genesis(origin)
	for i := range n {
		event, err := log.ParseEvent(fmt.Appendf(nil, `{"id":"e%d","action":"user.updated","actor_id":"u%d","actor_email":"u%d@example.com",
			"target_id":"żółć \"%d\"","metadata":{"plan":"pro","n":%d}}`, i, i%5, i%5, i%3, i), log.ParseOptions{Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		seed := [32]byte{byte(i), byte(i >> 8), 1}
		d := &log.Disclosure{ReceivedAt: began + int64(i)*1000, Previous: previous, Event: event, Seed: &seed}
		previous = d.Entry().LeafHash()
		l.disclosures, l.leaves = append(l.disclosures, d), append(l.leaves, previous)
	}
	return l
}

// root is the root of the perfect or any other tree over [from, to), by RFC 6962.
func (l *aLog) root(from, to int) merkle.Hash {
	switch to - from {
	case 0:
		return merkle.EmptyRoot()
	case 1:
		return l.leaves[from]
	}
	k := 1 << (bits.Len(uint(to-from-1)) - 1)
	return merkle.NodeHash(l.root(from, from+k), l.root(from+k, to))
}

func (l *aLog) cover(_ context.Context, from, to uint64) (hashes []merkle.Hash, _ error) {
	for from < to {
		n := uint64(1) << (bits.Len64(to-from) - 1)
		if from > 0 {
			n = min(n, from&-from)
		}
		hashes = append(hashes, l.root(int(from), int(from+n)))
		from += n
	}
	return hashes, nil
}

// path is the audit path of an entry in the tree over [from, to), by RFC 6962.
func (l *aLog) path(index, from, to int) []merkle.Hash {
	if to-from == 1 {
		return nil
	}
	k := from + 1<<(bits.Len(uint(to-from-1))-1)
	if index < k {
		return append(l.path(index, from, k), l.root(k, to))
	}
	return append(l.path(index, k, to), l.root(from, k))
}

// proofWith returns a proof file of an entry under the checkpoint of a size.
func (l *aLog) proofWith(index, size int, extra []byte) []byte {
	l.t.Helper()
	data, err := checkpoint.Proof{Index: uint64(index), Hashes: l.path(index, 0, size), Checkpoint: l.note(size), Extra: extra}.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	return data
}

// note is the signed checkpoint of a size.
func (l *aLog) note(size int) []byte {
	l.t.Helper()
	msg, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: l.origin, Size: uint64(size), Root: l.root(0, size)}, l.signer)
	if err != nil {
		l.t.Fatal(err)
	}
	return msg
}

func (l *aLog) policy() []byte { return []byte("log " + l.vkey + "\n\nquorum none\n") }

func (l *aLog) trust() log.Trust {
	l.t.Helper()
	v, err := checkpoint.NewVerifier(l.vkey)
	if err != nil {
		l.t.Fatal(err)
	}
	return log.Trust{Keys: []note.Verifier{v}}
}

// bundle returns the bundle of the events at indices, under a checkpoint of the given size.
func (l *aLog) bundle(size int, s bundle.Selection, indices []int, change ...func(int, *log.Disclosure) *log.Disclosure) []byte {
	l.t.Helper()
	return l.withRemovals(size, s, nil, indices, change...)
}

// withRemovals does that with proofs of removals.
func (l *aLog) withRemovals(size int, s bundle.Selection, proofs [][]byte, indices []int, change ...func(int, *log.Disclosure) *log.Disclosure) []byte {
	l.t.Helper()
	var out bytes.Buffer
	w, err := bundle.NewWriter(&out, l.note(size), l.policy(), l.cover)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range proofs {
		if err := w.AddRemoval(p); err != nil {
			l.t.Fatal(err)
		}
	}
	for _, i := range indices {
		d := l.disclosures[i]
		for _, fn := range change {
			d = fn(i, d)
		}
		if err := w.Add(context.Background(), uint64(i), d); err != nil {
			l.t.Fatal(err)
		}
	}
	if _, err := w.Close(context.Background(), s); err != nil {
		l.t.Fatal(err)
	}
	return out.Bytes()
}

// all are the indices [from, to).
func all(from, to int) (indices []int) {
	for i := from; i < to; i++ {
		indices = append(indices, i)
	}
	return indices
}

// whole returns the bundle of the events [from, to).
func (l *aLog) whole(size, from, to int) []byte {
	l.t.Helper()
	return l.bundle(size, bundle.Selection{From: uint64(from), To: uint64(to)}, all(from, to))
}

// aFile is a file of a container as the tests take it apart.
type aFile struct {
	name    string
	content []byte
}

// unpack and pack are written for the tests, from the format's description.
func unpack(t testing.TB, data []byte) (files []aFile) {
	t.Helper()
	for bytes.HasPrefix(data, []byte("PK\x03\x04")) {
		size, length := int(binary.LittleEndian.Uint32(data[18:])), int(binary.LittleEndian.Uint16(data[26:]))
		files = append(files, aFile{string(data[30 : 30+length]), slices.Clone(data[30+length : 30+length+size])})
		data = data[30+length+size:]
	}
	return files
}

func pack(files []aFile) []byte {
	le := binary.LittleEndian
	common := func(dst []byte, f aFile) []byte {
		dst = append(dst, 10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0)
		dst = le.AppendUint32(dst, crc32.ChecksumIEEE(f.content))
		dst = le.AppendUint32(le.AppendUint32(dst, uint32(len(f.content))), uint32(len(f.content)))
		return le.AppendUint16(le.AppendUint16(dst, uint16(len(f.name))), 0)
	}
	var out, directory []byte
	for _, f := range files {
		directory = common(append(directory, "PK\x01\x02\x0a\x00"...), f)
		directory = le.AppendUint32(append(directory, make([]byte, 10)...), uint32(len(out)))
		directory = append(directory, f.name...)
		out = append(common(append(out, "PK\x03\x04"...), f), f.name...)
		out = append(out, f.content...)
	}
	at, n := uint32(len(out)), uint16(len(files))
	out = append(append(out, directory...), "PK\x05\x06\x00\x00\x00\x00"...)
	out = le.AppendUint16(le.AppendUint16(out, n), n)
	return append(le.AppendUint32(le.AppendUint32(out, uint32(len(directory))), at), 0, 0)
}

// remanifest writes the manifest of files anew, as a forger would who has changed others of them.
func remanifest(t testing.TB, files []aFile, change ...func(manifest map[string]any)) []aFile {
	t.Helper()
	last := len(files) - 1
	var m map[string]any
	if err := json.Unmarshal(files[last].content, &m); err != nil {
		t.Fatal(err)
	}
	var entries []any
	for _, f := range files[:last] {
		if !bytes.HasPrefix([]byte(f.name), []byte("events/")) {
			sum := sha256.Sum256(f.content)
			entries = append(entries, map[string]any{"name": f.name, "sha256": hex.EncodeToString(sum[:]), "size": len(f.content)})
		}
	}
	m["files"] = entries
	for _, fn := range change {
		fn(m)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(m); err != nil {
		t.Fatal(err)
	}
	out := slices.Clone(files)
	out[last].content = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	return out
}
