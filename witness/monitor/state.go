package monitor

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/merkle"
)

// A Kind says what a log's entries are, and so what is checked besides the tree.
type Kind string

// The kinds of logs that can be followed.
const (
	Chained Kind = "chained" // 73-byte entries of version 0x01 in a hash chain: a log of Treeline
	Hub     Kind = "hub"     // 73-byte entries of version 0x02: checkpoints of other logs
	Opaque  Kind = "opaque"  // anything else
)

// state is what a monitor knows of a log: the newest checkpoint that it has verified, and what is needed to go on from
// there. All of it has been checked by reading every entry, so whoever can write to it can hide what they like.
type state struct {
	origin    string
	kind      Kind
	firstSeen time.Time // whole seconds, UTC
	cp        checkpoint.Checkpoint
	note      []byte        // the signed note of cp
	tree      *merkle.Range // over the entries below cp.Size
	chain     checkpoint.Chain
	logs      map[merkle.Hash]hubEntry // of a hub: the newest entry of each log, by log id
	ahead     []ahead                  // in the order in which they were found
}

// hubEntry is where a hub has a log's newest entry, and what that says.
type hubEntry struct {
	index uint64
	size  uint64
	root  merkle.Hash
}

// ahead is a checkpoint that the log has signed and a witness serves, which is larger than what the log itself serves. It is
// kept until the log shows as many entries and the roots can be compared.
type ahead struct {
	cp      checkpoint.Checkpoint
	note    []byte
	witness string    // who served it
	since   time.Time // when it was found; whole seconds, UTC
}

// newState returns the state of a log that nothing is known of.
func newState(origin string, kind Kind, now time.Time) *state {
	return &state{
		origin: origin, kind: kind, firstSeen: now.UTC().Truncate(time.Second),
		cp:   checkpoint.Checkpoint{Origin: origin, Root: merkle.EmptyRoot()},
		tree: merkle.NewRange(), chain: checkpoint.NewChain(origin), logs: map[merkle.Hash]hubEntry{},
	}
}

// clone returns a copy that can be changed without changing s.
func (s *state) clone() *state {
	c := *s
	c.tree = s.tree.Clone()
	c.ahead = slices.Clone(s.ahead)
	c.logs = make(map[merkle.Hash]hubEntry, len(s.logs))
	for id, e := range s.logs {
		c.logs[id] = e
	}
	return &c
}

// The file of a state is one line, the format's name and the SHA-256 of all that follows, and then JSON. There is one encoding
// of each state. The hash is against disks and editors, not against an attacker.
const statePrefix = "treeline-audit-state-v1 "

// stateJSON is the JSON in the file. Hashes are lower-case hex.
type stateJSON struct {
	Origin     string      `json:"origin"`
	Kind       Kind        `json:"kind"`
	FirstSeen  string      `json:"first_seen"` // RFC 3339
	Note       string      `json:"note"`
	Range      []string    `json:"range"`                 // of the tree, from the largest subtree to the smallest
	Previous   string      `json:"previous,omitempty"`    // chained: the last entry's leaf hash, or what stands for it
	ReceivedAt uint64      `json:"received_at,omitempty"` // chained: µs since 1970
	Logs       []hubJSON   `json:"logs,omitempty"`        // hub: ascending by id
	Ahead      []aheadJSON `json:"ahead,omitempty"`
}

type hubJSON struct {
	ID    string `json:"id"`
	Index uint64 `json:"index"`
	Size  uint64 `json:"size"`
	Root  string `json:"root"`
}

type aheadJSON struct {
	Witness string `json:"witness"`
	Since   string `json:"since"`
	Note    string `json:"note"`
}

// encode returns the content of the state's file.
func (s *state) encode() []byte {
	j := stateJSON{Origin: s.origin, Kind: s.kind, FirstSeen: s.firstSeen.Format(time.RFC3339), Note: string(s.note), Range: []string{}}
	for _, h := range s.tree.Hashes() {
		j.Range = append(j.Range, h.String())
	}
	if s.kind == Chained {
		leaf, receivedAt := s.chain.Last()
		j.Previous, j.ReceivedAt = leaf.String(), receivedAt
	}
	for id, e := range s.logs {
		j.Logs = append(j.Logs, hubJSON{id.String(), e.index, e.size, e.root.String()})
	}
	slices.SortFunc(j.Logs, func(a, b hubJSON) int { return cmp.Compare(a.ID, b.ID) })
	for _, a := range s.ahead {
		j.Ahead = append(j.Ahead, aheadJSON{a.witness, a.since.Format(time.RFC3339), string(a.note)})
	}
	text, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		panic(fmt.Sprintf("monitor: encoding a state: %v", err)) // strings and numbers only
	}
	text = append(text, '\n')
	sum := sha256.Sum256(text)
	return append([]byte(statePrefix+hex.EncodeToString(sum[:])+"\n"), text...)
}

// parseState is the inverse of state.encode, and takes nothing else.
func parseState(data []byte) (*state, error) {
	line, text, ok := bytes.Cut(data, []byte("\n"))
	sum := sha256.Sum256(text)
	if !ok || string(line) != statePrefix+hex.EncodeToString(sum[:]) {
		return nil, errors.New("its first line is not the hash of the rest")
	}
	var j stateJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return nil, err
	}
	if j.Kind != Chained && j.Kind != Hub && j.Kind != Opaque {
		return nil, fmt.Errorf("kind %q of a log", j.Kind)
	}
	s := &state{origin: j.Origin, kind: j.Kind, note: []byte(j.Note), logs: map[merkle.Hash]hubEntry{}}
	var err error
	if s.firstSeen, err = parseTime(j.FirstSeen); err != nil {
		return nil, err
	}
	if s.cp, err = parseOwnNote(s.note, s.origin); err != nil {
		return nil, err
	}
	if s.tree, err = parseRange(s.cp, j.Range); err != nil {
		return nil, err
	}
	if s.kind == Chained {
		leaf, err := parseHash(j.Previous)
		if err != nil {
			return nil, err
		}
		s.chain = checkpoint.ResumeChain(leaf, j.ReceivedAt)
		if first := checkpoint.NewChain(s.origin); s.cp.Size == 0 && s.chain != first {
			return nil, errors.New("an empty log with a last entry")
		}
	}
	for _, l := range j.Logs {
		id, err := parseHash(l.ID)
		if err != nil {
			return nil, err
		}
		root, err := parseHash(l.Root)
		if err != nil {
			return nil, err
		}
		if l.Index >= s.cp.Size || l.Size == 0 || l.Size > merkle.MaxSize {
			return nil, fmt.Errorf("entry %d of log %v in a hub of size %d, for size %d", l.Index, id, s.cp.Size, l.Size)
		}
		s.logs[id] = hubEntry{l.Index, l.Size, root}
	}
	for _, a := range j.Ahead {
		h := ahead{note: []byte(a.Note), witness: a.Witness}
		if h.since, err = parseTime(a.Since); err != nil {
			return nil, err
		}
		if h.cp, err = parseOwnNote(h.note, s.origin); err != nil {
			return nil, err
		}
		s.ahead = append(s.ahead, h)
	}
	// Unknown members, members twice, hubs' entries out of order and all other freedom that JSON gives.
	if !bytes.Equal(s.encode(), data) {
		return nil, errors.New("not in canonical form")
	}
	return s, nil
}

func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	return t.UTC(), err
}

func parseHash(text string) (merkle.Hash, error) {
	data, err := hex.DecodeString(text)
	if err != nil || len(data) != merkle.HashSize {
		return merkle.Hash{}, fmt.Errorf("%.80q is not a hash", text)
	}
	return merkle.Hash(data), nil
}

// parseOwnNote parses a note that was verified before it was kept.
func parseOwnNote(note []byte, origin string) (checkpoint.Checkpoint, error) {
	cp, _, err := checkpoint.ParseForeignNote(note)
	if err == nil && cp.Origin != origin {
		err = fmt.Errorf("checkpoint of log %q, want one of %q", cp.Origin, origin)
	}
	return cp, err
}

// parseRange returns the compact range of the tree that a checkpoint is of.
func parseRange(cp checkpoint.Checkpoint, texts []string) (*merkle.Range, error) {
	var hashes []merkle.Hash
	for _, text := range texts {
		h, err := parseHash(text)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, h)
	}
	tree, err := merkle.ResumeRange(cp.Size, hashes)
	if err != nil {
		return nil, err
	}
	if got, want := tree.Root(), cp.Root; got != want {
		return nil, fmt.Errorf("range of size %d: got root %v, want %v", cp.Size, got, want)
	}
	return tree, nil
}

// directory is where a monitor keeps what it knows, for one process at a time:
//
//	.lock                                held while a process uses the directory
//	<hex SHA-256 of the origin>.state    a file for each log
//	evidence/                            what proves misbehaviour, see evidence.go
type directory struct {
	path string
	lock *flock.Flock
}

// openDirectory makes the directory, if there is none, and locks it.
func openDirectory(path string) (*directory, error) {
	for _, dir := range []string{path, filepath.Join(path, "evidence")} {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("opening the state directory: %w", err)
		}
		if err := checkpoint.SyncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
			return nil, fmt.Errorf("opening the state directory: %w", err)
		}
	}
	d := &directory{path, flock.New(filepath.Join(path, ".lock"))}
	locked, err := d.lock.TryLock()
	if err == nil && !locked {
		err = errors.New("another process uses it")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the state directory %s: %w", path, err)
	}
	return d, nil
}

func (d *directory) close() error { return d.lock.Close() }

// file returns the path of a log's state.
func (d *directory) file(origin string) string {
	return filepath.Join(d.path, checkpoint.OriginHash(origin)+".state")
}

// load returns the state of the log, nil if nothing is known of it. A file that isn't one is an error, never a fresh start,
// which would forget what the log must extend.
func (d *directory) load(origin string) (*state, error) {
	data, err := os.ReadFile(d.file(origin))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the state of %s: %w", origin, err)
	}
	s, err := parseState(data)
	if err == nil && s.origin != origin {
		err = fmt.Errorf("it is that of %s", s.origin)
	}
	if err != nil {
		return nil, fmt.Errorf("the state of %s in %s is damaged: %w", origin, d.file(origin), err)
	}
	return s, nil
}

// save durably replaces the state of the log.
func (d *directory) save(s *state) error {
	if err := checkpoint.ReplaceFile(d.file(s.origin), s.encode()); err != nil {
		return problem(Failed, KindState, "writing the state of %s: %v", s.origin, err)
	}
	return nil
}

// evidencePrefix begins the names of the files that show that a log has two histories.
func evidencePrefix(origin string) string {
	return "diverged-" + checkpoint.OriginHash(origin)[:16] + "-"
}

// diverged returns the reports of all divergences of the log whose evidence is still there.
func (d *directory) diverged(origin string) ([]string, error) {
	return d.reports(evidencePrefix(origin))
}

// reports returns the reports whose names have the prefix.
func (d *directory) reports(prefix string) ([]string, error) {
	files, err := os.ReadDir(filepath.Join(d.path, "evidence"))
	if err != nil {
		return nil, problem(Failed, KindState, "reading the evidence: %v", err)
	}
	var found []string
	for _, f := range files {
		if strings.HasPrefix(f.Name(), prefix) && strings.HasSuffix(f.Name(), reportSuffix) {
			found = append(found, filepath.Join(d.path, "evidence", f.Name()))
		}
	}
	return found, nil
}
