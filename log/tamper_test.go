package log_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"golang.org/x/mod/sumdb/note"
	_ "modernc.org/sqlite"

	"github.com/treeline-log/treeline/checkpoint"
	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// The log that is tampered with: 600 entries, two of whose tiles are complete, signed at these sizes.
const tamperedSize = 600

var tamperedSigned = []int{0, 300, 500, tamperedSize}

// newTampered returns a stopped service with that log.
func newTampered(t *testing.T) *testService {
	t.Helper()
	s := newTestService(t)
	s.signed()
	for i := 1; i < len(tamperedSigned); i++ {
		var events []*log.Event
		for n := tamperedSigned[i-1]; n < tamperedSigned[i]; n++ {
			events = append(events, event(t, fmt.Sprint("e", n), fmt.Sprint("text ", n)))
		}
		if _, err := s.log().Append(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		s.signed()
	}
	s.close()
	return s
}

// copyTo returns a stopped service on a copy of s's directory.
func (s *testService) copyTo(t *testing.T) *testService {
	t.Helper()
	c := &testService{t: t, dir: t.TempDir(), seed: testSeed}
	if err := os.CopyFS(c.dir, os.DirFS(s.dir)); err != nil {
		t.Fatal(err)
	}
	return c
}

// intruder is somebody, or something, that writes to the store's file directly: a database administrator, a broken disk.
type intruder struct {
	t   *testing.T
	s   *testService
	db  *sqlx.DB
	log log.Info
}

// forge lets fn write to the store's file.
func (s *testService) forge(t *testing.T, fn func(f *intruder)) {
	t.Helper()
	db, err := sqlx.Open("sqlite", "file:"+s.path()+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	f := &intruder{t: t, s: s, db: db}
	if err := db.QueryRowx(`SELECT id, name, origin FROM logs WHERE name = 'default'`).Scan(&f.log.ID, &f.log.Name, &f.log.Origin); err != nil {
		t.Fatal(err)
	}
	fn(f)
}

// exec runs a statement that must change something.
func (f *intruder) exec(query string, args ...any) {
	f.t.Helper()
	res, err := f.db.Exec(query, args...)
	if err != nil {
		f.t.Fatalf("%s: %v", query, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		f.t.Fatalf("%s: changed %d rows, %v", query, n, err)
	}
}

func (f *intruder) entries() (all []log.Entry) {
	f.t.Helper()
	var runs [][]byte
	if err := f.db.Select(&runs, `SELECT entries FROM entries ORDER BY first`); err != nil {
		f.t.Fatal(err)
	}
	for b := bytes.Join(runs, nil); len(b) > 0; b = b[log.EntrySize:] {
		e, err := log.ParseEntry(b[:log.EntrySize])
		if err != nil {
			f.t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// setEntries replaces all entries and nothing else.
func (f *intruder) setEntries(all []log.Entry) {
	f.t.Helper()
	f.exec(`DELETE FROM entries`)
	for run := range slices.Chunk(all, merkle.TileWidth) {
		var b []byte
		for _, e := range run {
			b = e.Append(b)
		}
		f.exec(`INSERT INTO entries (log, first, entries) VALUES (?, (SELECT coalesce(sum(length(entries)), 0)/73 FROM entries), ?)`, f.log.ID, b)
	}
}

// editEntry changes one entry and nothing else.
func (f *intruder) editEntry(index int, edit func(*log.Entry)) {
	f.t.Helper()
	all := f.entries()
	edit(&all[index])
	f.setEntries(all)
}

// rebuild makes chain, tree nodes and head agree with the entries, as a server would have written them.
func (f *intruder) rebuild(all []log.Entry) {
	f.t.Helper()
	head := log.Head{Size: uint64(len(all)), Last: log.Genesis(f.log.Origin)}
	tree := merkle.NewRange()
	if len(all) >= merkle.TileWidth {
		f.exec(`DELETE FROM nodes`)
	}
	for i := range all {
		all[i].Previous = head.Last
		head.Last, head.ReceivedAt = all[i].LeafHash(), all[i].ReceivedAt
		tree.Append(head.Last, func(level uint, index uint64, h merkle.Hash) {
			if level == 8 {
				f.exec(`INSERT INTO nodes (log, level, idx, hash) VALUES (?, 1, ?, ?)`, f.log.ID, index, h[:])
			}
		})
	}
	f.setEntries(all)
	f.setHead(head.Size, head.ReceivedAt, head.Last, tree.Hashes())
}

func (f *intruder) setHead(size uint64, receivedAt int64, last merkle.Hash, edge []merkle.Hash) {
	f.t.Helper()
	b := []byte{}
	for _, h := range edge {
		b = append(b, h[:]...)
	}
	f.exec(`UPDATE heads SET size = ?, received_at = ?, last = ?, edge = ?`, size, receivedAt, last[:], b)
}

// truncate drops the entries from size on and everything that belongs to them, but for checkpoints.
func (f *intruder) truncate(size int) {
	f.t.Helper()
	f.rebuild(f.entries()[:size])
	f.exec(`DELETE FROM payloads WHERE idx >= ?`, size)
	f.exec(`DELETE FROM ids WHERE idx >= ?`, size)
}

// rewrite gives one event other content, with an entry that commits to it.
func (f *intruder) rewrite(index int) []log.Entry {
	f.t.Helper()
	e := event(f.t, fmt.Sprint("e", index), "forged")
	seed := [32]byte{9}
	f.exec(`UPDATE payloads SET seed = ?, payload = ? WHERE idx = ?`, seed[:], append([]byte{0}, e.JSON()...), index)
	all := f.entries()
	all[index].Digest = e.Digest(&seed)
	return all
}

// note returns a checkpoint of the log, signed with the key that the seed derives.
func (f *intruder) note(seed checkpoint.Seed, size uint64, root merkle.Hash) []byte {
	f.t.Helper()
	signer, _, err := seed.Ed25519(f.log.Origin, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	msg, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: f.log.Origin, Size: size, Root: root}, signer)
	if err != nil {
		f.t.Fatal(err)
	}
	return msg
}

// editByte changes one byte of a blob column; at counts from 0, and from the end if negative.
func (f *intruder) editByte(table, column, where string, at int) {
	f.t.Helper()
	var b []byte
	if err := f.db.Get(&b, fmt.Sprintf(`SELECT %s FROM %s WHERE %s`, column, table, where)); err != nil {
		f.t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	f.exec(fmt.Sprintf(`UPDATE %s SET %s = ? WHERE %s`, table, column, where), b)
}

// tampering is a kind of damage, and what is said of it.
type tampering struct {
	name   string
	damage func(f *intruder)
	// What fsck says first: the index, the kind, and a part of what it says.
	index uint64
	kind  string
	what  string
	// also is a part of another thing that fsck says, if not "".
	also string
	// stopped is a part of why the log is stopped after a start; "" if what is damaged is not read then.
	stopped string
	// unproven are events of which there is no proof any more, where the log isn't stopped.
	unproven []uint64
	// scrubbed is a part of what the background scrub logs, where the log isn't stopped; "" if it isn't its business.
	scrubbed string
}

var tamperings = []tampering{
	// Contents.
	{
		name: "a byte of a content", damage: func(f *intruder) { f.editByte("payloads", "payload", "idx = 123", -4) },
		index: 123, kind: log.KindInvalid, what: "entry 123: its content", unproven: []uint64{123}, scrubbed: "entry 123: its content",
	},
	{
		name: "a content's format", damage: func(f *intruder) { f.editByte("payloads", "payload", "idx = 123", 0) },
		index: 123, kind: log.KindInvalid, what: "entry 123: payload doesn't decompress", unproven: []uint64{123}, scrubbed: "entry 123",
	},
	{
		name: "a seed", damage: func(f *intruder) { f.editByte("payloads", "seed", "idx = 599", 31) },
		index: 599, kind: log.KindInvalid, what: "entry 599: its content or seed is not what its entry commits to", unproven: []uint64{599},
		scrubbed: "entry 599: its content or seed",
	},
	{
		name: "a seed cut off", damage: func(f *intruder) { f.exec(`UPDATE payloads SET seed = substr(seed, 1, 31) WHERE idx = 0`) },
		index: 0, kind: log.KindInvalid, what: "entry 0: its seed has 31 bytes, not 32", unproven: []uint64{0}, scrubbed: "entry 0: its seed",
	},
	{
		name: "two contents swapped",
		damage: func(f *intruder) {
			f.exec(`UPDATE payloads SET idx = -1 WHERE idx = 77`)
			f.exec(`UPDATE payloads SET idx = 77 WHERE idx = 400`)
			f.exec(`UPDATE payloads SET idx = 400 WHERE idx = -1`)
		},
		index: 77, kind: log.KindInvalid, what: "entry 77: its content or seed is not what its entry commits to",
		also: "entry 400: its content or seed", unproven: []uint64{77, 400}, scrubbed: "entry 77: ",
	},
	{
		name: "a content removed", damage: func(f *intruder) { f.exec(`DELETE FROM payloads WHERE idx = 310`) },
		index: 310, kind: log.KindInvalid, what: "the content of entry 310 is missing", unproven: []uint64{310},
		scrubbed: "entry 310: its content is missing",
	},
	{
		name: "the last content removed", damage: func(f *intruder) { f.exec(`DELETE FROM payloads WHERE idx = 599`) },
		index: 599, kind: log.KindInvalid, what: "the content of entry 599 is missing", unproven: []uint64{599}, scrubbed: "entry 599",
	},
	{
		name: "a content too many", damage: func(f *intruder) {
			f.exec(`INSERT INTO payloads (log, idx, seed, payload) SELECT log, 600, seed, payload FROM payloads WHERE idx = 1`)
		},
		index: 600, kind: log.KindInvalid, what: "the store holds 601 contents, want 600",
	},

	// Ids.
	{
		name: "an id that leads elsewhere", damage: func(f *intruder) { f.exec(`UPDATE ids SET idx = 5 WHERE id = 'e50'`) },
		index: 50, kind: log.KindInvalid, what: "entry 50: its id e50 leads to entry 5",
	},
	{
		name: "an id changed", damage: func(f *intruder) { f.exec(`UPDATE ids SET id = 'other' WHERE id = 'e50'`) },
		index: 50, kind: log.KindInvalid, what: "entry 50: its id e50 is missing from the list of ids",
	},
	{
		name: "an id too many", damage: func(f *intruder) { f.exec(`INSERT INTO ids (log, id, idx) VALUES (?, 'other', 5)`, f.log.ID) },
		index: 600, kind: log.KindInvalid, what: "the store holds 601 ids, want 600",
	},

	// Entries.
	{
		name: "an entry's digest", damage: func(f *intruder) { f.editEntry(123, func(e *log.Entry) { e.Digest[0] ^= 1 }) },
		index: 123, kind: log.KindInvalid, what: "entry 123 was changed", also: "entry 123: its content or seed is not what its entry commits to",
		unproven: []uint64{123, 0, 255}, scrubbed: "the entries [0, 256) give tree node",
	},
	{
		name: "an entry's time", damage: func(f *intruder) { f.editEntry(299, func(e *log.Entry) { e.ReceivedAt++ }) },
		index: 299, kind: log.KindInvalid, what: "entry 299 was changed", also: "the recorded checkpoint of size 300 signs root",
		unproven: []uint64{299}, scrubbed: "the entries [256, 512) give tree node",
	},
	{
		name: "an entry's previous hash", damage: func(f *intruder) { f.editEntry(123, func(e *log.Entry) { e.Previous[31] ^= 1 }) },
		index: 123, kind: log.KindInvalid, what: "entry 123 was changed or moved: it follows hash", unproven: []uint64{123},
		scrubbed: "the entries [0, 256) give tree node",
	},
	{
		name: "the first entry's previous hash", damage: func(f *intruder) { f.editEntry(0, func(e *log.Entry) { e.Previous[31] ^= 1 }) },
		index: 0, kind: log.KindInvalid, what: "entry 0 was changed or moved: it follows hash", unproven: []uint64{0},
		scrubbed: "the entries [0, 256) give tree node",
	},
	{
		name: "an entry's version", damage: func(f *intruder) { f.editByte("entries", "entries", "first = 0", 200*log.EntrySize) },
		index: 200, kind: log.KindInvalid, what: "entry 200: ", unproven: []uint64{200}, scrubbed: "entry 200: ",
	},
	{
		name: "the newest entry", damage: func(f *intruder) { f.editEntry(599, func(e *log.Entry) { e.Digest[0] ^= 1 }) },
		index: 599, kind: log.KindInvalid, what: "entry 599: its content or seed is not what its entry commits to",
		also: "entries of [500, 600) were changed after they were signed", stopped: "diverged: the stored tree is not the one that was signed",
	},
	{
		name: "two entries swapped", damage: func(f *intruder) {
			all := f.entries()
			all[123], all[124] = all[124], all[123]
			f.setEntries(all)
		},
		index: 123, kind: log.KindInvalid, what: "entry 123 was changed or moved", also: "entries of [0, 300) were changed after they were signed",
		unproven: []uint64{123, 124}, scrubbed: "the entries [0, 256) give tree node",
	},
	{
		name: "a run of entries in the middle removed", damage: func(f *intruder) { f.exec(`DELETE FROM entries WHERE first = 256`) },
		index: 256, kind: log.KindInvalid, what: "entry 256 is missing", unproven: []uint64{256, 299}, scrubbed: "entry 256 is missing",
	},
	{
		name: "a run of entries cut off", damage: func(f *intruder) { f.exec(`UPDATE entries SET entries = substr(entries, 1, 700) WHERE first = 256`) },
		index: 256, kind: log.KindInvalid, what: "entry 256 is missing: the nearest run begins at 256 and is 700 bytes long",
		unproven: []uint64{256}, scrubbed: "entry 256 is missing",
	},
	{
		name: "an entry too many", damage: func(f *intruder) {
			f.exec(`INSERT INTO entries (log, first, entries) VALUES (?, 600, zeroblob(73))`, f.log.ID)
		},
		index: 600, kind: log.KindInvalid, what: "the store holds 601 entries, want 600",
	},

	// The tree and the head.
	{
		name: "a tree node", damage: func(f *intruder) { f.editByte("nodes", "hash", "level = 1 AND idx = 1", 7) },
		index: 256, kind: log.KindInvalid, what: "tree node 1 of level 1 is", stopped: "diverged: the stored tree is not the one that was signed",
	},
	{
		name: "a tree node removed", damage: func(f *intruder) { f.exec(`DELETE FROM nodes WHERE idx = 1`) },
		index: 256, kind: log.KindInvalid, what: "tree node 1 of level 1 is missing", stopped: "tree node 1 of level 1 is missing",
	},
	{
		name: "a tree node too many", damage: func(f *intruder) {
			f.exec(`INSERT INTO nodes (log, level, idx, hash) VALUES (?, 1, 2, zeroblob(32))`, f.log.ID)
		},
		index: 600, kind: log.KindInvalid, what: "the store holds 3 tree nodes, want 2",
	},
	{
		name: "the head's tree", damage: func(f *intruder) { f.editByte("heads", "edge", "size = 600", 0) },
		index: 599, kind: log.KindInvalid, what: "the head of size 600 says root", stopped: "diverged: the store has another tree than its checkpoint",
	},
	{
		name: "the head's last hash", damage: func(f *intruder) { f.editByte("heads", "last", "size = 600", 0) },
		index: 599, kind: log.KindInvalid, what: "the head of size 600 says root", stopped: "entry 599 has hash",
	},
	{
		name: "the head's time", damage: func(f *intruder) { f.exec(`UPDATE heads SET received_at = received_at - 1`) },
		index: 599, kind: log.KindInvalid, what: "the head of size 600 says", stopped: "entry 599 has hash",
	},
	{
		name: "the head's edge cut off", damage: func(f *intruder) { f.exec(`UPDATE heads SET edge = substr(edge, 1, 32)`) },
		index: 599, kind: log.KindInvalid, what: "the head of size 600 isn't one", stopped: "the head of size 600 isn't one",
	},
	{
		name: "the head beyond the entries", damage: func(f *intruder) { f.exec(`UPDATE heads SET size = 601`) },
		index: 600, kind: log.KindInvalid, what: "entry 600 is missing", stopped: "the head of size 601 isn't one",
	},

	// Loss of the end.
	{
		name: "the last entries removed", damage: func(f *intruder) { f.setEntries(f.entries()[:550]) },
		index: 550, kind: log.KindInvalid, what: "entry 550 is missing", stopped: "entry 550 is missing",
	},
	{
		name: "the last entries removed and the head moved back", damage: func(f *intruder) { f.truncate(550) },
		index: 550, kind: log.KindDiverged, what: "a checkpoint of size 600 is recorded, but the log's head is at 550: entries were removed",
		stopped: "rollback: the store has fewer entries than its checkpoint says (got size 550",
	},
	{
		name: "the last entries and their checkpoint removed", damage: func(f *intruder) {
			f.truncate(500)
			f.exec(`DELETE FROM checkpoints WHERE size > 500`)
		},
		index: 500, kind: log.KindDiverged, what: "the fence records a signed checkpoint of size 600, the store's newest is of size 500",
		stopped: "rollback: the fence has a checkpoint of size 600, the newest in the store is of size 500",
	},
	{
		name: "all entries removed", damage: func(f *intruder) {
			f.exec(`DELETE FROM entries`)
			f.exec(`DELETE FROM nodes`)
			f.exec(`DELETE FROM payloads`)
			f.exec(`DELETE FROM ids`)
			f.exec(`DELETE FROM checkpoints`)
			f.setHead(0, 0, log.Genesis(f.log.Origin), nil)
		},
		index: 0, kind: log.KindDiverged, what: "the fence records a signed checkpoint of size 600, the store has none",
		stopped: "rollback: the fence has a checkpoint of size 600, the store has none",
	},

	// Checkpoints.
	{
		name: "the newest checkpoint edited", damage: func(f *intruder) {
			f.exec(`UPDATE checkpoints SET note = CAST(replace(CAST(note AS TEXT), char(10)||'600'||char(10), char(10)||'599'||char(10)) AS BLOB) WHERE size = 600`)
		},
		index: 600, kind: log.KindInvalid, what: "the recorded checkpoint of size 600 doesn't verify", stopped: "unverified: the store's newest checkpoint",
	},
	{
		name: "an old checkpoint edited", damage: func(f *intruder) {
			f.exec(`UPDATE checkpoints SET note = CAST(replace(CAST(note AS TEXT), char(10)||'300'||char(10), char(10)||'301'||char(10)) AS BLOB) WHERE size = 300`)
		},
		index: 300, kind: log.KindInvalid, what: "the recorded checkpoint of size 300 doesn't verify",
	},
	{
		name: "the newest checkpoint removed", damage: func(f *intruder) { f.exec(`DELETE FROM checkpoints WHERE size = 600`) },
		index: 500, kind: log.KindDiverged, what: "its checkpoints were removed",
		stopped: "rollback: the fence has a checkpoint of size 600, the newest in the store is of size 500",
	},
	{
		name: "the first checkpoints removed", damage: func(f *intruder) { f.exec(`DELETE FROM checkpoints WHERE size < 500`) },
		index: 0, kind: log.KindInvalid, what: "the first recorded checkpoint is of size 500: older ones were removed",
	},
	{
		name: "all checkpoints removed", damage: func(f *intruder) { f.exec(`DELETE FROM checkpoints`) },
		index: 0, kind: log.KindDiverged, what: "the fence records a signed checkpoint of size 600, the store has none",
		stopped: "rollback: the fence has a checkpoint of size 600, the store has none",
	},
	{
		name: "the newest checkpoint signed with another key", damage: func(f *intruder) {
			root := rootOf(f.entries())
			f.exec(`UPDATE checkpoints SET note = ? WHERE size = 600`, f.note(checkpoint.Seed{8}, 600, root))
		},
		index: 600, kind: log.KindInvalid, what: "the recorded checkpoint of size 600 doesn't verify", stopped: "unverified: the store's newest checkpoint",
	},
	{
		name: "a checkpoint recorded for another size", damage: func(f *intruder) { f.exec(`UPDATE checkpoints SET size = 450 WHERE size = 500`) },
		index: 450, kind: log.KindInvalid, what: "the checkpoint recorded for size 450 is of size 500",
	},
	{
		// With the key: the server itself, or who has stolen its seed.
		name: "a checkpoint of another history, well signed", damage: func(f *intruder) {
			f.exec(`UPDATE checkpoints SET note = ? WHERE size = 600`, f.note(testSeed, 600, merkle.Hash{1}))
		},
		index: 600, kind: log.KindDiverged, what: "two histories were signed", stopped: "diverged: the fence and the store have different checkpoints of size 600",
	},

	// Other histories, consistent in themselves.
	{
		name: "everything from the middle on", damage: func(f *intruder) { f.rebuild(f.rewrite(350)) },
		index: 300, kind: log.KindDiverged, what: "entries of [300, 500) were changed after they were signed", also: "later checkpoints that contradict the entries, too: 2",
		stopped: "diverged: the store has another tree than its checkpoint of the same size says",
	},
	{
		name: "everything from the middle on, old checkpoints removed", damage: func(f *intruder) {
			f.rebuild(f.rewrite(350))
			f.exec(`DELETE FROM checkpoints WHERE size BETWEEN 301 AND 599`)
		},
		index: 300, kind: log.KindDiverged, what: "entries of [300, 600) were changed after they were signed",
		stopped: "diverged: the store has another tree than its checkpoint of the same size says",
	},
	{
		name: "everything from the middle on, all later checkpoints removed", damage: func(f *intruder) {
			f.rebuild(f.rewrite(350))
			f.exec(`DELETE FROM checkpoints WHERE size > 300`)
		},
		index: 300, kind: log.KindDiverged, what: "the fence records a signed checkpoint of size 600, the store's newest is of size 300",
		also: "the fence's checkpoint of size 600 signs root", stopped: "rollback: the fence has a checkpoint of size 600",
	},
	{
		name: "everything from the middle on, signed with another key", damage: func(f *intruder) {
			all := f.rewrite(350)
			f.rebuild(all)
			for _, size := range []int{500, 600} {
				f.exec(`UPDATE checkpoints SET note = ? WHERE size = ?`, f.note(checkpoint.Seed{8}, uint64(size), rootOf(all[:size])), size)
			}
		},
		index: 300, kind: log.KindDiverged, what: "the fence's checkpoint of size 600 signs root", also: "the recorded checkpoint of size 500 doesn't verify",
		stopped: "unverified: the store's newest checkpoint",
	},
	{
		// Nothing but the fence, and whoever holds a checkpoint of the old history, can tell.
		name: "everything from the middle on, signed anew", damage: func(f *intruder) {
			all := f.rewrite(350)
			f.rebuild(all)
			for _, size := range []int{500, 600} {
				f.exec(`UPDATE checkpoints SET note = ? WHERE size = ?`, f.note(testSeed, uint64(size), rootOf(all[:size])), size)
			}
		},
		index: 500, kind: log.KindDiverged, what: "the fence's checkpoint of size 600 signs root",
		stopped: "diverged: the fence and the store have different checkpoints of size 600",
	},
	{
		name: "another history that is longer, signed anew", damage: func(f *intruder) {
			all := f.rewrite(350)
			f.exec(`DELETE FROM payloads WHERE idx >= 598`)
			f.exec(`DELETE FROM ids WHERE idx >= 598`)
			f.rebuild(all[:598])
			f.exec(`DELETE FROM checkpoints WHERE size > 300`)
			f.exec(`INSERT INTO checkpoints (log, size, note) VALUES (?, 598, ?)`, f.log.ID, f.note(testSeed, 598, rootOf(all[:598])))
		},
		index: 598, kind: log.KindDiverged, what: "the fence records a signed checkpoint of size 600, the store's newest is of size 598",
		stopped: "rollback: the fence has a checkpoint of size 600",
	},
}

func rootOf(entries []log.Entry) merkle.Hash {
	tree := merkle.NewRange()
	for _, e := range entries {
		tree.Append(e.LeafHash(), nil)
	}
	return tree.Root()
}

// Whatever is done to the store's file while the service is stopped, fsck says what is wrong and where. What would be signed
// or proven on top of it stops the log at the next start; what isn't read then gives no proof, and the scrub finds it.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	whole := newTampered(t)
	whole.check()
	for _, x := range tamperings {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			s := whole.copyTo(t)
			s.forge(t, x.damage)
			x.checkFsck(t, s.fsck())
			x.checkStart(t, s)
		})
	}
}

func (x tampering) checkFsck(t *testing.T, r *log.FsckReport) {
	t.Helper()
	if len(r.Problems) == 0 {
		t.Fatal("fsck found nothing")
	}
	if p := r.Problems[0]; p.Index != x.index || p.Kind != x.kind || !strings.Contains(p.What, x.what) {
		t.Errorf("fsck's first problem: got %+v, want %s at %d: …%s…", p, x.kind, x.index, x.what)
	}
	if !slices.ContainsFunc(r.Problems, func(p log.FsckProblem) bool { return strings.Contains(p.What, x.also) }) {
		t.Errorf("fsck: want another problem …%s…", x.also)
	}
	if t.Failed() {
		for _, p := range r.Problems {
			t.Logf("%+v", p)
		}
	}
}

func (x tampering) checkStart(t *testing.T, s *testService) {
	t.Helper()
	if err := s.tryOpen(); err != nil {
		t.Fatalf("the service doesn't start: %v; want a log that can be read", err)
	}
	x.checkRecheck(t, s)
	if x.stopped != "" {
		s.checkStopped(t, x.stopped)
		return
	}
	if err := s.log().Stopped(); err != nil {
		t.Fatalf("the log is stopped: %v", err)
	}
	for _, index := range x.unproven {
		if proof, err := s.log().Proof(t.Context(), index); !errors.Is(err, log.ErrDamaged) {
			t.Errorf("proof of %d: got %q, %v, want ErrDamaged", index, proof, err)
		}
	}
	// What is whole can be proven still, in a tile that is whole.
	if _, err := s.log().Proof(t.Context(), 550); err != nil {
		t.Errorf("proof of another: %v", err)
	}
	err := log.Scrub(t.Context(), s.store, s.log().ID, tamperedSize)
	if (err != nil) != (x.scrubbed != "") || err != nil && !strings.Contains(err.Error(), x.scrubbed) {
		t.Errorf("scrub: got %v, want …%s…", err, x.scrubbed)
	}
}

// checkStopped checks that the log is stopped for a reason, says so, and can be read.
func (s *testService) checkStopped(t *testing.T, why string) {
	t.Helper()
	stopped := s.log().Stopped()
	if stopped == nil || !strings.Contains(stopped.Error(), why) {
		t.Fatalf("the log is stopped: got %v, want …%s…", stopped, why)
	}
	if _, err := s.log().Append(t.Context(), []*log.Event{event(t, "late", "x")}); !errors.Is(err, log.ErrStopped) {
		t.Errorf("append: got %v, want ErrStopped", err)
	}
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "log default is stopped") || !strings.Contains(err.Error(), why) {
		t.Errorf("ready: got %v, want the log's name and reason", err)
	}
	s.until("a loud line in the log", func() bool { return strings.Contains(s.logs.String(), "LOG STOPPED") })
	if s.log().Sizes().Size > 0 {
		if _, err := s.log().Record(t.Context(), 3); err != nil {
			t.Errorf("reading: %v", err)
		}
	}
	before := s.log().Sizes()
	time.Sleep(30 * time.Millisecond) // three rounds of the publisher
	if after := s.log().Sizes(); after != before {
		t.Errorf("sizes of the stopped log: got %+v after %+v", after, before)
	}
}

// An older copy of the store under the newer fence, and a store that was lost, with or without its logs' rows.
func TestALostStoreIsRefused(t *testing.T) {
	t.Parallel()
	s := newTampered(t)
	old := s.copyTo(t)
	s.open()
	s.append("newer")
	s.signed()
	s.close()

	restored := s.copyTo(t)
	copyFile(t, old.path(), restored.path())
	x := tampering{
		index: tamperedSize, kind: log.KindDiverged,
		what: "the fence records a signed checkpoint of size 601, the store's newest is of size 600: the store is an older copy",
	}
	x.checkFsck(t, restored.fsck())
	restored.open()
	restored.checkStopped(t, "rollback: the fence has a checkpoint of size 601, the newest in the store is of size 600")

	for name, lose := range map[string]func(*testService){
		"the file": func(s *testService) {
			if err := os.Remove(s.path()); err != nil {
				t.Fatal(err)
			}
		},
		"its rows": func(s *testService) {
			s.forge(t, func(f *intruder) {
				for _, table := range []string{"log_keys", "heads", "entries", "nodes", "ids", "payloads", "checkpoints", "logs"} {
					f.exec(`DELETE FROM ` + table)
				}
			})
		},
	} {
		lost := s.copyTo(t)
		lose(lost)
		if err := lost.tryOpen(); err == nil || !strings.Contains(err.Error(), "logs that the store doesn't have: test.example/logs/default") ||
			!strings.Contains(err.Error(), "treeline fence drop") {
			t.Errorf("without %s: got %v, want a refusal that names the log and the way out", name, err)
		}
	}

	damaged := s.copyTo(t)
	if err := os.WriteFile(damaged.path(), []byte(strings.Repeat("not a database\n", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := damaged.tryOpen(); !errors.Is(err, log.ErrDamaged) {
		t.Errorf("a file that is no database: got %v, want ErrDamaged", err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The fence and the seed belong to the store: without them, or with others, nothing is signed.
func TestFenceAndSeedBelongToTheStore(t *testing.T) {
	t.Parallel()
	whole := newTampered(t)

	t.Run("the fence removed", func(t *testing.T) {
		s := whole.copyTo(t)
		if err := os.RemoveAll(filepath.Join(s.dir, "fence")); err != nil {
			t.Fatal(err)
		}
		x := tampering{index: 0, kind: log.KindDiverged, what: "the fence doesn't know the log: it was removed, or this is another fence"}
		x.checkFsck(t, s.fsck())
		s.open()
		s.checkStopped(t, "unfenced: the store has a checkpoint of size 600, but the fence has none; bring back the fence")
	})
	t.Run("the fence of another store", func(t *testing.T) {
		other := newTestService(t)
		if _, err := other.CreateLog(t.Context(), log.ByServer(), "other", log.Settings{}); err != nil {
			t.Fatal(err)
		}
		other.close()
		s := whole.copyTo(t)
		if err := os.RemoveAll(filepath.Join(s.dir, "fence")); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(s.dir, "fence"), os.DirFS(filepath.Join(other.dir, "fence"))); err != nil {
			t.Fatal(err)
		}
		if err := s.tryOpen(); err == nil || !strings.Contains(err.Error(), "test.example/logs/other") {
			t.Errorf("start: got %v, want a refusal that names the log which isn't there", err)
		}
	})
	t.Run("the fence of another history", func(t *testing.T) {
		other := newTampered(t)
		s := whole.copyTo(t)
		if err := os.RemoveAll(filepath.Join(s.dir, "fence")); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(s.dir, "fence"), os.DirFS(filepath.Join(other.dir, "fence"))); err != nil {
			t.Fatal(err)
		}
		x := tampering{
			index: 500, kind: log.KindDiverged, what: "the fence's checkpoint of size 600 signs root",
		}
		x.checkFsck(t, s.fsck())
		s.open()
		s.checkStopped(t, "diverged: the fence and the store have different checkpoints of size 600")
	})
	t.Run("another seed", func(t *testing.T) {
		s := whole.copyTo(t)
		s.seed = checkpoint.Seed{8}
		if err := s.tryOpen(); err == nil || !strings.Contains(err.Error(), "this is not the seed that belongs to this store") ||
			!strings.Contains(err.Error(), "test.example/logs/default+") {
			t.Errorf("start: got %v, want a refusal with both verifier keys", err)
		}
	})
	t.Run("another pinned key", func(t *testing.T) {
		s := whole.copyTo(t)
		_, vkey, err := checkpoint.Seed{8}.Ed25519("test.example/logs/default", 0)
		if err != nil {
			t.Fatal(err)
		}
		v, err := note.NewVerifier(vkey)
		if err != nil {
			t.Fatal(err)
		}
		s.pinned = v
		x := tampering{
			index: 0, kind: log.KindInvalid, what: "which isn't one of the log's",
			also: "what the fence records isn't a checkpoint of the log",
		}
		x.checkFsck(t, s.fsck())
	})
}

// Tampering beside the running service, with what is acknowledged and not signed yet. Nothing of it is signed.
func TestTamperingWithTheUnsignedTail(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name    string
		damage  func(f *intruder)
		stopped string
	}{
		{
			"an entry changed", func(f *intruder) { f.editEntry(6, func(e *log.Entry) { e.Digest[0] ^= 1 }) },
			"entry 7 doesn't continue the chain",
		},
		{
			"the newest entry changed", func(f *intruder) { f.editEntry(7, func(e *log.Entry) { e.Digest[0] ^= 1 }) },
			"entry 7 has hash",
		},
		{
			"a time set back", func(f *intruder) {
				all := f.entries()
				all[6].ReceivedAt = all[4].ReceivedAt - 1
				f.rebuild(all)
			},
			"entry 6 was received at",
		},
		// Consistent in itself and never signed: only the hash that clients were given tells.
		{"the tail forked", func(f *intruder) { f.rebuild(f.rewrite(6)) }, "it was acknowledged with"},
		{
			"the tail forked and grown", func(f *intruder) {
				all := f.rewrite(6)
				f.rebuild(append(all, log.Entry{ReceivedAt: all[7].ReceivedAt, Digest: [32]byte{1}}))
			},
			"it was acknowledged with",
		},
		{"the tail dropped", func(f *intruder) { f.truncate(6) }, "entries were acknowledged, the store's head is at 6"},
		{"all that isn't signed dropped", func(f *intruder) { f.truncate(5) }, "the store's head is at 5"},
		{"what is signed dropped", func(f *intruder) { f.truncate(4) }, "rollback: the store has fewer entries than were signed"},
		{
			"the head's tree", func(f *intruder) { f.editByte("heads", "edge", "size = 8", 0) },
			"the stored entries don't give the tree of the store's head",
		},
		{
			"another checkpoint recorded, well signed", func(f *intruder) {
				f.exec(`INSERT INTO checkpoints (log, size, note) VALUES (?, 8, ?)`, f.log.ID, f.note(testSeed, 8, merkle.Hash{1}))
			},
			"diverged: ",
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			s := newTestService(t)
			for i := range 5 {
				s.append(fmt.Sprint("e", i))
			}
			s.signed()
			release := s.holdPublisher()
			for i := 5; i < 8; i++ {
				s.append(fmt.Sprint("e", i))
			}
			var honest []log.Entry
			s.forge(t, func(f *intruder) {
				honest = f.entries()
				x.damage(f)
			})
			release()
			s.until("the log to be stopped", func() bool { return s.log().Stopped() != nil })
			s.checkStopped(t, x.stopped)
			c, _ := s.log().Signed()
			if c.Size < 5 || c.Size > 8 || c.Root != rootOf(honest[:c.Size]) {
				t.Errorf("signed: got size %d root %v, want nothing but what was acknowledged", c.Size, c.Root)
			}
		})
	}
}

// The sequencer doesn't build on a tail that isn't the one it acknowledged, and a log with that trouble is alone with it.
func TestAForkedTailIsNotExtended(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	other, err := s.CreateLog(t.Context(), log.ByServer(), "other", log.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	s.append("e0")
	s.signed()
	release := s.holdPublisher()
	defer release()
	s.append("e1")
	s.forge(t, func(f *intruder) {
		all := f.entries()
		all[1].Digest[0] ^= 1
		f.exec(`DELETE FROM entries`)
		var b []byte
		tree := merkle.NewRange()
		for _, e := range all {
			b = e.Append(b)
			tree.Append(e.LeafHash(), nil)
		}
		f.exec(`INSERT INTO entries (log, first, entries) VALUES (?, 0, ?)`, f.log.ID, b)
		var edge []byte
		for _, h := range tree.Hashes() {
			edge = append(edge, h[:]...)
		}
		last := all[1].LeafHash()
		f.exec(`UPDATE heads SET last = ?, edge = ? WHERE log = ?`, last[:], edge, f.log.ID)
	})
	// All three in one batch.
	let := s.hold()
	first := make(chan error)
	go func() { _, err := other.Append(context.Background(), events(t, 1)); first <- err }()
	s.untilHeld()
	mine, theirs := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.log().Append(context.Background(), []*log.Event{event(t, "e2", "x")}); mine <- err }()
	go func() { _, err := other.Append(context.Background(), []*log.Event{event(t, "o", "x")}); theirs <- err }()
	s.untilQueued(2)
	let()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-mine; !errors.Is(err, log.ErrDamaged) || !strings.Contains(err.Error(), "it was acknowledged with") {
		t.Errorf("append to the forked log: got %v, want ErrDamaged", err)
	}
	if err := <-theirs; err != nil {
		t.Errorf("append to another log in the same batch: %v", err)
	}
	if head, err := s.store.Store.Head(t.Context(), s.log().ID); err != nil || head.Size != 2 {
		t.Errorf("size of the forked log: got %d, %v, want 2", head.Size, err)
	}
}

// Sending an id again whose stored content is damaged is an error of that request alone.
func TestADamagedContentFailsOnlyItsRetry(t *testing.T) {
	t.Parallel()
	s := newTestService(t)
	s.append("a")
	s.forge(t, func(f *intruder) { f.exec(`UPDATE payloads SET payload = x'00' WHERE idx = 0`) })
	let := s.hold()
	first := make(chan error)
	go func() { _, err := s.log().Append(context.Background(), events(t, 1)); first <- err }()
	s.untilHeld()
	retry, fresh := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.log().Append(context.Background(), []*log.Event{event(t, "a", "x")})
		retry <- err
	}()
	go func() { _, err := s.log().Append(context.Background(), []*log.Event{event(t, "b", "x")}); fresh <- err }()
	s.untilQueued(2)
	let()
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-retry; !errors.Is(err, log.ErrDamaged) || !strings.Contains(err.Error(), "content of entry 0") {
		t.Errorf("the retry: got %v, want ErrDamaged about entry 0", err)
	}
	if err := <-fresh; err != nil {
		t.Errorf("another event in the same batch: %v", err)
	}
}
