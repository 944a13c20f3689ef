package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/treeline-log/treeline/merkle"
)

const testOrigin = "logs.example.com/logs/acme"

// testSeed is 32 times 0x07.
var testSeed = Seed(bytes.Repeat([]byte{7}, 32))

// testKey returns a key of the log testOrigin.
func testKey(t testing.TB, generation uint32) (note.Signer, note.Verifier) {
	t.Helper()
	signer, vkey, err := testSeed.Ed25519(testOrigin, generation)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

// naiveRoot is the definition of RFC 6962, section 2.1.
func naiveRoot(entries [][]byte) merkle.Hash {
	switch len(entries) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, entries[0]...))
	}
	k := 1
	for 2*k < len(entries) {
		k *= 2
	}
	left, right := naiveRoot(entries[:k]), naiveRoot(entries[k:])
	return sha256.Sum256(slices.Concat([]byte{1}, left[:], right[:]))
}

// testEntry returns the entry that follows previous.
func testEntry(previous merkle.Hash, receivedAt uint64, content string) []byte {
	digest := sha256.Sum256([]byte(content))
	entry := binary.BigEndian.AppendUint64([]byte{1}, receivedAt)
	return slices.Concat(entry, previous[:], digest[:])
}

// extend returns entries with n more, whose contents depend on history.
func extend(entries [][]byte, n int, history string) [][]byte {
	entries = slices.Clone(entries)
	previous := merkle.Hash(sha256.Sum256([]byte("treeline/log/v1\n" + testOrigin + "\n")))
	if len(entries) > 0 {
		previous = naiveRoot(entries[len(entries)-1:])
	}
	for range n {
		i := len(entries)
		entries = append(entries, testEntry(previous, uint64(1e15+i/3), fmt.Sprint(history, i)))
		previous = naiveRoot(entries[i:])
	}
	return entries
}

func testCheckpoint(entries [][]byte) Checkpoint {
	return Checkpoint{testOrigin, uint64(len(entries)), naiveRoot(entries)}
}

// An outcome is what becomes of one step.
type outcome int

const (
	works   outcome = iota
	fails           // an error, and nothing happened
	applied         // an error, but it happened
	kills           // the process dies before the step
	dies            // the process dies after the step
)

var (
	errFault  = errors.New("injected fault")
	errKilled = errors.New("the process is dead")
)

// A world is all that survives a process: a store and a fence, in memory. It is also
// the judge: it sees every signature and every publication.
type world struct {
	t testing.TB

	mu       sync.Mutex
	entries  [][]byte                 // of the store
	size     uint64                   // of the store's head
	root     merkle.Hash              // of the store's head
	tiles    map[string][]merkle.Hash // stored tiles that differ from what entries give
	notes    [][]byte                 // recorded in the store
	fenced   []byte
	signed   []string // texts of all notes ever signed
	honest   [][]byte // the history that may be signed
	trace    []string // the steps that were made
	onSwap   func()   // called before each Swap
	released uint64   // largest size published
}

func newWorld(t testing.TB) *world {
	return &world{t: t, tiles: map[string][]merkle.Hash{}, root: merkle.EmptyRoot()}
}

// set makes entries the content of the store, as its sequencer would.
func (w *world) set(entries [][]byte) {
	w.entries, w.size, w.root = entries, uint64(len(entries)), naiveRoot(entries)
}

// grow appends n honest entries.
func (w *world) grow(n int) {
	w.honest = extend(w.honest, n, "honest")
	w.set(w.honest)
	// The store's bytes are its own, to be damaged by tests.
	w.entries = slices.Clone(w.entries)
	for i := max(0, len(w.entries)-1000); i < len(w.entries); i++ {
		w.entries[i] = bytes.Clone(w.entries[i])
	}
}

// A process uses the world, and has faults.
type process struct {
	*world
	plan func(step string) outcome
	dead bool
}

// do makes a step, the way the plan says.
func (p *process) do(step string, act func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errKilled
	}
	p.trace = append(p.trace, step)
	o := works
	if p.plan != nil {
		o = p.plan(step)
	}
	switch o {
	case fails:
		return errFault
	case kills:
		p.dead = true
		return errKilled
	}
	err := act()
	switch o {
	case applied:
		return errFault
	case dies:
		p.dead = true
		return errKilled
	}
	return err
}

type memSource struct{ *process }

func (s memSource) Origin() string { return testOrigin }

func (s memSource) Head(ctx context.Context) (size uint64, root merkle.Hash, err error) {
	err = s.do("head", func() error {
		size, root = s.size, s.root
		return nil
	})
	return size, root, err
}

func (s memSource) ReadEntries(ctx context.Context, from, to uint64, fn func([]byte) error) error {
	// It leaves out what isn't there, and doesn't say so.
	return s.do("entries", func() error {
		buf := make([]byte, 0, 100)
		for i := from; i < min(to, uint64(len(s.entries))); i++ {
			buf = append(buf[:0], s.entries[i]...)
			if err := fn(buf); err != nil {
				return errors.New("the callback failed") // a source need not hand it on
			}
			clear(buf)
		}
		return nil
	})
}

func (s memSource) ReadTile(ctx context.Context, t merkle.Tile) (hashes []merkle.Hash, err error) {
	err = s.do("tile", func() error {
		if wrong, ok := s.tiles[t.Path()]; ok {
			hashes = wrong
			return nil
		}
		width := 1 << (8 * t.Level)
		for i := range t.Width {
			first := (int(t.Index)*256 + i) * width
			if first+width > len(s.entries) {
				return fmt.Errorf("no hash %d in %s", i, t.Path())
			}
			hashes = append(hashes, naiveRoot(s.entries[first:first+width]))
		}
		return nil
	})
	return hashes, err
}

func (s memSource) Latest(ctx context.Context) (msg []byte, err error) {
	err = s.do("latest", func() error {
		if len(s.notes) > 0 {
			msg = bytes.Clone(s.notes[len(s.notes)-1])
		}
		return nil
	})
	return msg, err
}

func (s memSource) Record(ctx context.Context, c Checkpoint, msg []byte) error {
	return s.do("record", func() error {
		if n := len(s.notes); n > 0 {
			newest, _, err := ParseNote(s.notes[n-1])
			if err != nil {
				return err
			}
			if bytes.Equal(s.notes[n-1], msg) {
				return nil
			}
			if c.Size <= newest.Size {
				return fmt.Errorf("size %d after %d: %w", c.Size, newest.Size, ErrConflict)
			}
		}
		s.notes = append(s.notes, bytes.Clone(msg))
		return nil
	})
}

// Publish checks invariant 5: recorded and fenced before anyone can see it.
func (s memSource) Publish(c Checkpoint, msg []byte) {
	if s.dead {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trace = append(s.trace, "publish")
	if !slices.ContainsFunc(s.notes, func(n []byte) bool { return bytes.Equal(n, msg) }) {
		s.t.Errorf("size %d was published and isn't recorded", c.Size)
	}
	fenced, _, err := ParseNote(s.fenced)
	if err != nil || fenced.Size < c.Size {
		s.t.Errorf("size %d was published, the fence is at %q", c.Size, s.fenced)
	}
	s.released = max(s.released, c.Size)
}

type memFence struct{ *process }

func (f memFence) Load(ctx context.Context, origin string) (msg []byte, err error) {
	err = f.do("load", func() error {
		msg = bytes.Clone(f.fenced)
		return nil
	})
	return msg, err
}

func (f memFence) Swap(ctx context.Context, origin string, old, new []byte) error {
	return f.do("swap", func() error {
		if f.onSwap != nil {
			f.onSwap()
		}
		if !bytes.Equal(f.fenced, old) {
			return ErrFenceMoved
		}
		f.fenced = bytes.Clone(new)
		return nil
	})
}

func (f memFence) Origins(ctx context.Context) ([]string, error) { return nil, nil }
func (f memFence) Drop(ctx context.Context, origin string) error { return nil }

// A spySigner tells the world of every signature.
type spySigner struct {
	note.Signer
	*world
}

func (s spySigner) Sign(msg []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.signed = append(s.signed, string(msg))
	return s.Signer.Sign(msg)
}

// start starts a process with a publisher.
func (w *world) start(plan func(step string) outcome) *Publisher {
	w.t.Helper()
	signer, verifier := testKey(w.t, 0)
	p := &process{world: w, plan: plan}
	return NewPublisher(memSource{p}, memFence{p}, []note.Signer{spySigner{signer, w}}, verifier)
}

// born starts a process and makes a log of n entries with a checkpoint at each of the
// given sizes.
func (w *world) born(sizes ...int) *Publisher {
	w.t.Helper()
	ctx := context.Background()
	p := w.start(nil)
	if err := p.Birth(ctx); err != nil {
		w.t.Fatal(err)
	}
	for _, n := range sizes {
		w.grow(n - len(w.honest))
		if c, err := p.Publish(ctx); err != nil || c != testCheckpoint(w.honest) {
			w.t.Fatalf("Publish = %v, %v, want %v", c, err, testCheckpoint(w.honest))
		}
	}
	w.check()
	return p
}

// sign returns the note of the tree over entries by the log's own key, as the publisher
// of another history would make it.
func (w *world) sign(entries [][]byte) []byte {
	w.t.Helper()
	signer, _ := testKey(w.t, 0)
	msg, err := Sign(testCheckpoint(entries), signer)
	if err != nil {
		w.t.Fatal(err)
	}
	return msg
}

// check checks invariant 4 on all that was ever signed: trees of one history only. And
// it checks that sizes recorded grow.
func (w *world) check() {
	w.t.Helper()
	for _, text := range w.signed {
		c, err := ParseText(text)
		if err != nil {
			w.t.Errorf("signed %q: %v", text, err)
			continue
		}
		if c.Size > uint64(len(w.honest)) || c.Root != naiveRoot(w.honest[:c.Size]) {
			w.t.Errorf("signed a tree of size %d that is not of the log's history", c.Size)
		}
	}
	var last uint64
	for i, msg := range w.notes {
		c, _, err := ParseNote(msg)
		if err != nil || i > 0 && c.Size <= last {
			w.t.Errorf("recorded %q after size %d: %v", msg, last, err)
		}
		last = c.Size
	}
}
