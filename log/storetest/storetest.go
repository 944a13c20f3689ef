// Package storetest is the suite that every log.Store passes: what its contract promises, as tests.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/treeline-log/treeline/log"
	"github.com/treeline-log/treeline/merkle"
)

// Opener opens a store in a place of the test's own. Reopen closes it and opens the same place again, as a restarted server
// would.
type Opener interface {
	Open(t *testing.T) log.Store
	Reopen(t *testing.T, s log.Store) log.Store
}

// Run runs the suite.
func Run(t *testing.T, o Opener) {
	for _, test := range []struct {
		name string
		fn   func(t *testing.T, o Opener)
	}{
		{"an appended batch is there, also after a restart", testAppend},
		{"an append from a size that is not the head's changes nothing", testHeadMoved},
		{"a rolled-back transaction leaves nothing", testRollback},
		{"an id is taken once per log", testIDs},
		{"a range of entries may begin and end inside runs", testEntryRanges},
		{"what is missing is reported as damage", testMissing},
		{"transactions on one log follow each other", testConcurrentAppends},
		{"names and origins are never reused", testCreateLog},
		{"a verifier key is added once, after the others", testAddVKey},
		{"logs don't see each other's rows", testIsolation},
		{"checkpoints only grow", testRecord},
		{"a cosignature is kept with its checkpoint, the newest of each key", testCosign},
		{"evidence stays as it was first", testEvidence},
		{"a label is what it became first", testLabel},
		{"keys are found by their public id", testKeys},
		{"a key is changed, and another added, both or neither", testChangeKey},
		{"the last use of a key is the latest that was noted", testUseKeys},
		{"settings are changed by one at a time", testConfigure},
		{"entries and contents are found one by one", testAt},
		{"an index is moved as a whole or not at all", testWriteIndex},
		{"blocks are those that may hold keys in the ranges", testBlocks},
		{"an index is dropped without the others", testDropIndex},
		{"a frozen log says so to everybody who would append", testFreeze},
		{"what is imported keeps its number", testImport},
		{"a hub's growths are found by index and by log", testGrowths},
		{"checkpoints of many logs are read at once", testCheckpointsOf},
		{"what is purged is gone, and nothing else", testPurge},
		{"contents are reduced, all or none", testReduce},
		{"an id whose content is gone is appended alone", testAppendGone},
		{"ids are found by how they begin", testIDsWithPrefix},
		{"one at a time guards a log", testGuard},
		{"a log's contents stay where they are when its class is changed", testRetain},
	} {
		t.Run(test.name, func(t *testing.T) { test.fn(t, o) })
	}
}

// CreateLog makes a log of that name in the store.
func CreateLog(t *testing.T, s log.Store, name string) log.Info {
	t.Helper()
	info := log.Info{
		Name: name, Origin: "storetest.example/logs/" + name, CreatedAt: 1_700_000_000_000_000,
		VKeys: []string{"storetest.example/logs/" + name + "+00000000+AAAA"},
	}
	if err := s.CreateLog(t.Context(), &info); err != nil {
		t.Fatal(err)
	}
	return info
}

// batch makes a batch of n events that follows head. Its entries are chained; its contents are small texts.
func batch(l log.ID, head log.Head, n int, id func(index uint64) string) *log.Batch {
	edge, err := merkle.ResumeRange(head.Size, head.Edge)
	if err != nil {
		panic(err)
	}
	b := &log.Batch{Log: l, From: head.Size, Head: head}
	for range n {
		index := b.Head.Size
		e := log.Entry{ReceivedAt: 1_700_000_000_000_000 + int64(index), Previous: b.Head.Last}
		copy(e.Digest[:], fmt.Sprint("digest ", index))
		b.Entries = e.Append(b.Entries)
		leaf := merkle.LeafHash(b.Entries[len(b.Entries)-log.EntrySize:])
		edge.Append(leaf, func(level uint, i uint64, h merkle.Hash) {
			if level > 0 && level%8 == 0 {
				b.Nodes = append(b.Nodes, log.Node{Level: int(level / 8), Index: i, Hash: h})
			}
		})
		b.Rows = append(b.Rows, log.Row{ID: id(index), Payload: payload(index)})
		b.Head.Size, b.Head.Last, b.Head.ReceivedAt = index+1, leaf, e.ReceivedAt
	}
	b.Head.Edge = edge.Hashes()
	return b
}

func payload(index uint64) log.Payload {
	seed := bytes.Repeat([]byte{byte(index)}, 32)
	return log.Payload{Seed: seed, Data: append([]byte{0}, fmt.Sprint("content ", index)...)}
}

func number(index uint64) string { return fmt.Sprint("id-", index) }

// appendTo appends n events in one transaction.
func appendTo(t *testing.T, s log.Store, id log.ID, n int) *log.Batch {
	t.Helper()
	tx, err := s.Begin(t.Context(), []log.ID{id})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	head, err := tx.Head(id)
	if err != nil {
		t.Fatal(err)
	}
	b := batch(id, head, n, number)
	if err := tx.Append([]*log.Batch{b}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return b
}

func entries(t *testing.T, s log.Reader, id log.ID, from, to uint64) []byte {
	t.Helper()
	var out []byte
	err := s.Entries(t.Context(), id, from, to, func(b []byte) error {
		out = append(out, b...)
		return nil
	})
	if err != nil {
		t.Fatalf("entries [%d, %d): %v", from, to, err)
	}
	return out
}

func sameHead(a, b log.Head) bool {
	return a.Size == b.Size && a.Last == b.Last && a.ReceivedAt == b.ReceivedAt && slices.Equal(a.Edge, b.Edge)
}

func testAppend(t *testing.T, o Opener) {
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	empty, err := s.Head(t.Context(), info.ID)
	if err != nil || empty.Size != 0 || empty.Last != log.Genesis(info.Origin) || len(empty.Edge) != 0 {
		t.Fatalf("head of an empty log: got %+v, %v", empty, err)
	}
	var all []byte
	var nodes []log.Node
	var last *log.Batch
	for _, n := range []int{1, 2, 250, 300, 1} {
		last = appendTo(t, s, info.ID, n)
		all = append(all, last.Entries...)
		nodes = append(nodes, last.Nodes...)
	}
	check := func(s log.Store) {
		t.Helper()
		head, err := s.Head(t.Context(), info.ID)
		if err != nil || !sameHead(head, last.Head) {
			t.Fatalf("head: got %+v, %v, want %+v", head, err, last.Head)
		}
		if got := entries(t, s, info.ID, 0, head.Size); !bytes.Equal(got, all) {
			t.Fatal("entries differ from what was appended")
		}
		for _, n := range nodes {
			got, err := s.Nodes(t.Context(), info.ID, n.Level, n.Index, n.Index+1)
			if err != nil || len(got) != 1 || got[0] != n.Hash {
				t.Fatalf("node %d of level %d: got %v, %v, want %v", n.Index, n.Level, got, err, n.Hash)
			}
		}
		next := uint64(0)
		err = s.Payloads(t.Context(), info.ID, 0, head.Size, func(index uint64, p log.Payload) error {
			want := payload(index)
			if index != next || !bytes.Equal(p.Seed, want.Seed) || !bytes.Equal(p.Data, want.Data) {
				t.Fatalf("content: got %d %q, want %d %q", index, p.Data, next, want.Data)
			}
			next++
			return nil
		})
		if err != nil || next != head.Size {
			t.Fatalf("contents: got %d, %v, want %d", next, err, head.Size)
		}
		for _, index := range []uint64{0, 1, 300, head.Size - 1} {
			if got, err := s.Find(t.Context(), info.ID, number(index)); err != nil || got != index {
				t.Fatalf("id of %d: got %d, %v", index, got, err)
			}
		}
		counts, err := s.Counts(t.Context(), info.ID)
		if want := (log.Counts{Entries: head.Size, Payloads: head.Size, IDs: head.Size, Nodes: uint64(len(nodes))}); err != nil || counts != want {
			t.Fatalf("counts: got %+v, %v, want %+v", counts, err, want)
		}
	}
	check(s)
	check(o.Reopen(t, s))
}

func testHeadMoved(t *testing.T, o Opener) {
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	before := appendTo(t, s, info.ID, 3)
	for _, from := range []uint64{0, 2, 4, 1000} {
		tx, err := s.Begin(t.Context(), []log.ID{info.ID})
		if err != nil {
			t.Fatal(err)
		}
		head := before.Head
		b := batch(info.ID, head, 1, number)
		b.From, b.Head.Size = from, from+1
		if err := tx.Append([]*log.Batch{b}); !errors.Is(err, log.ErrHeadMoved) {
			t.Errorf("append from %d to a log of size 3: got %v, want ErrHeadMoved", from, err)
		}
		tx.Rollback()
	}
	if head, err := s.Head(t.Context(), info.ID); err != nil || !sameHead(head, before.Head) {
		t.Errorf("head: got %+v, %v, want %+v", head, err, before.Head)
	}
	if c, err := s.Counts(t.Context(), info.ID); err != nil || c.Entries != 3 || c.Payloads != 3 || c.IDs != 3 {
		t.Errorf("counts: got %+v, %v, want 3 of each", c, err)
	}
}

func testRollback(t *testing.T, o Opener) {
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	tx, err := s.Begin(t.Context(), []log.ID{info.ID})
	if err != nil {
		t.Fatal(err)
	}
	head, err := tx.Head(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Append([]*log.Batch{batch(info.ID, head, 300, number)}); err != nil {
		t.Fatal(err)
	}
	tx.Rollback()
	tx.Rollback() // twice is as good as once
	s = o.Reopen(t, s)
	if c, err := s.Counts(t.Context(), info.ID); err != nil || c != (log.Counts{}) {
		t.Errorf("counts: got %+v, %v, want none", c, err)
	}
	if head, err := s.Head(t.Context(), info.ID); err != nil || head.Size != 0 {
		t.Errorf("head: got %+v, %v, want size 0", head, err)
	}
}

func testIDs(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	appendTo(t, s, one.ID, 5)
	appendTo(t, s, two.ID, 5) // the same ids, in another log
	tx, err := s.Begin(t.Context(), []log.ID{one.ID})
	if err != nil {
		t.Fatal(err)
	}
	key := func(id string) log.EventKey { return log.EventKey{Log: one.ID, ID: id} }
	found, err := tx.Find([]log.EventKey{key("id-3"), key("id-0"), key("absent"), key("ID-1"), {Log: two.ID, ID: "id-4"}})
	want := map[log.EventKey]uint64{key("id-3"): 3, key("id-0"): 0, {Log: two.ID, ID: "id-4"}: 4}
	if err != nil || !maps.Equal(found, want) {
		t.Errorf("find: got %v, %v, want %v", found, err, want)
	}
	var contents []string
	err = tx.PayloadsAt(one.ID, []uint64{0, 3, 5}, func(index uint64, p log.Payload) error {
		contents = append(contents, fmt.Sprint(index, " ", string(p.Data[1:])))
		return nil
	})
	if err != nil || !slices.Equal(contents, []string{"0 content 0", "3 content 3"}) {
		t.Errorf("payloads at 0, 3 and 5: got %q, %v", contents, err)
	}
	head, err := tx.Head(one.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Append([]*log.Batch{batch(one.ID, head, 1, func(uint64) string { return "id-2" })}); err == nil {
		t.Error("an id could be taken twice")
	}
	tx.Rollback()
	if _, err := s.Find(t.Context(), one.ID, "absent"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("find absent: got %v, want ErrNotFound", err)
	}
	appendTo(t, s, one.ID, 6) // from 5 on: id-10 is before id-2
	var all []string
	err = s.IDs(t.Context(), one.ID, func(id string, index uint64) error {
		if id != number(index) {
			t.Errorf("id %s has the index %d", id, index)
		}
		all = append(all, id)
		return nil
	})
	if err != nil || len(all) != 11 || !slices.IsSorted(all) {
		t.Errorf("ids: got %q, %v, want 11 in their order", all, err)
	}
}

func testEntryRanges(t *testing.T, o Opener) {
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	var all []byte
	for _, n := range []int{3, 1, 7, 2} {
		all = append(all, appendTo(t, s, info.ID, n).Entries...)
	}
	for from := uint64(0); from <= 13; from++ {
		for to := from; to <= 13; to++ {
			if got := entries(t, s, info.ID, from, to); !bytes.Equal(got, all[from*log.EntrySize:to*log.EntrySize]) {
				t.Fatalf("entries [%d, %d) differ from what was appended", from, to)
			}
		}
	}
	stop := errors.New("enough")
	if err := s.Entries(t.Context(), info.ID, 0, 13, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a callback's error: got %v, want it back", err)
	}
}

func testMissing(t *testing.T, o Opener) {
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	appendTo(t, s, info.ID, 300)
	n := 0
	err := s.Entries(t.Context(), info.ID, 298, 303, func([]byte) error { n++; return nil })
	if !errors.Is(err, log.ErrDamaged) || n != 2 {
		t.Errorf("entries beyond the end: got %d and %v, want 2 and ErrDamaged", n, err)
	}
	if _, err := s.Nodes(t.Context(), info.ID, 1, 0, 2); !errors.Is(err, log.ErrDamaged) {
		t.Errorf("nodes beyond the end: got %v, want ErrDamaged", err)
	}
	if _, err := s.Head(t.Context(), info.ID+99); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("head of no log: got %v, want ErrNotFound", err)
	}
	if _, err := s.Checkpoint(t.Context(), info.ID, 10); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("checkpoint of none: got %v, want ErrNotFound", err)
	}
}

func testConcurrentAppends(t *testing.T, o Opener) {
	const writers, rounds = 8, 20
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for r := range rounds {
				if err := appendOne(s, info.ID, fmt.Sprintf("w%d-%d", w, r)); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	// Readers never see half a batch.
	for range 50 {
		head, err := s.Head(t.Context(), info.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(entries(t, s, info.ID, 0, head.Size)); got != int(head.Size)*log.EntrySize {
			t.Fatalf("head of size %d, %d bytes of entries", head.Size, got)
		}
	}
	wg.Wait()
	head, err := s.Head(t.Context(), info.ID)
	if err != nil || head.Size != writers*rounds {
		t.Fatalf("head: got %d, %v, want %d", head.Size, err, writers*rounds)
	}
	previous := log.Genesis(info.Origin)
	err = s.Entries(t.Context(), info.ID, 0, head.Size, func(b []byte) error {
		e, err := log.ParseEntry(b)
		if err != nil {
			return err
		}
		if e.Previous != previous {
			return errors.New("the chain is broken")
		}
		previous = merkle.LeafHash(b)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// appendOne appends one event in a transaction of its own, as a server that waits for its turn.
func appendOne(s log.Store, id log.ID, name string) error {
	tx, err := s.Begin(context.Background(), []log.ID{id})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	head, err := tx.Head(id)
	if err != nil {
		return err
	}
	if err := tx.Append([]*log.Batch{batch(id, head, 1, func(uint64) string { return name })}); err != nil {
		return err
	}
	return tx.Commit()
}

func testCreateLog(t *testing.T, o Opener) {
	s := o.Open(t)
	one := CreateLog(t, s, "one")
	two := CreateLog(t, s, "two")
	if one.ID == two.ID || one.ID == 0 || two.ID == 0 {
		t.Fatalf("log numbers %d and %d", one.ID, two.ID)
	}
	for _, info := range []log.Info{
		{Name: "one", Origin: "elsewhere.example/logs/one"},
		{Name: "three", Origin: one.Origin},
	} {
		if err := s.CreateLog(t.Context(), &info); !errors.Is(err, log.ErrExists) {
			t.Errorf("log %q with origin %q: got %v, want ErrExists", info.Name, info.Origin, err)
		}
	}
	s = o.Reopen(t, s)
	logs, err := s.Logs(t.Context())
	if err != nil || len(logs) != 2 {
		t.Fatalf("logs: got %d, %v, want 2", len(logs), err)
	}
	for i, want := range []log.Info{one, two} {
		if got := logs[i]; got.ID != want.ID || got.Name != want.Name || got.Origin != want.Origin ||
			got.CreatedAt != want.CreatedAt || !slices.Equal(got.VKeys, want.VKeys) {
			t.Errorf("log: got %+v, want %+v", got, want)
		}
	}
}

func testAddVKey(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	// Servers that share a store may find out at the same time that a key is missing.
	var group errgroup.Group
	for range 8 {
		group.Go(func() error { return s.AddVKey(t.Context(), two.ID, "second") })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, vkey := range []string{"second", "third", two.VKeys[0]} {
		if err := s.AddVKey(t.Context(), two.ID, vkey); err != nil {
			t.Fatal(err)
		}
	}
	s = o.Reopen(t, s)
	logs, err := s.Logs(t.Context())
	if err != nil || len(logs) != 2 {
		t.Fatalf("logs: got %d, %v, want 2", len(logs), err)
	}
	if got, want := logs[1].VKeys, []string{two.VKeys[0], "second", "third"}; !slices.Equal(got, want) {
		t.Errorf("verifier keys: got %q, want %q", got, want)
	}
	if got := logs[0].VKeys; !slices.Equal(got, one.VKeys) {
		t.Errorf("verifier keys of the other log: got %q, want %q", got, one.VKeys)
	}
}

func testIsolation(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	appendTo(t, s, one.ID, 300)
	if c, err := s.Counts(t.Context(), two.ID); err != nil || c != (log.Counts{}) {
		t.Errorf("counts of the other log: got %+v, %v, want none", c, err)
	}
	if _, err := s.Find(t.Context(), two.ID, "id-0"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("an id of the first log in the second: got %v, want ErrNotFound", err)
	}
	err := s.Payloads(t.Context(), two.ID, 0, 300, func(uint64, log.Payload) error {
		return errors.New("a content of the first log")
	})
	if err != nil {
		t.Error(err)
	}
	err = s.Entries(t.Context(), two.ID, 0, 1, func([]byte) error { return errors.New("an entry of the first log") })
	if !errors.Is(err, log.ErrDamaged) {
		t.Errorf("entries of an empty log: got %v, want ErrDamaged", err)
	}
	// Two logs in one transaction.
	tx, err := s.Begin(t.Context(), []log.ID{one.ID, two.ID})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var batches []*log.Batch
	for _, id := range []log.ID{one.ID, two.ID} {
		head, err := tx.Head(id)
		if err != nil {
			t.Fatal(err)
		}
		batches = append(batches, batch(id, head, 2, number))
	}
	if err := tx.Append(batches); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[log.ID]uint64{one.ID: 302, two.ID: 2} {
		if head, err := s.Head(t.Context(), id); err != nil || head.Size != want {
			t.Errorf("head: got %d, %v, want %d", head.Size, err, want)
		}
	}
	if sizes, err := s.Sizes(t.Context()); err != nil || !maps.Equal(sizes, map[log.ID]uint64{one.ID: 302, two.ID: 2}) {
		t.Errorf("sizes: got %v, %v", sizes, err)
	}
}

func testRecord(t *testing.T, o Opener) {
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	record := func(size uint64, note string) error {
		return s.Record(t.Context(), info.ID, log.Signed{Size: size, Note: []byte(note)})
	}
	for _, c := range []struct {
		size uint64
		note string
		err  error
	}{
		{0, "zero", nil}, {0, "zero", nil}, {0, "other", log.ErrExists},
		{7, "seven", nil}, {7, "seven", nil}, {7, "other", log.ErrExists},
		{5, "five", log.ErrExists}, {0, "zero", log.ErrExists}, {9, "nine", nil},
	} {
		if err := record(c.size, c.note); !errors.Is(err, c.err) {
			t.Errorf("record %d %q: got %v, want %v", c.size, c.note, err, c.err)
		}
	}
	s = o.Reopen(t, s)
	for size, want := range map[uint64]string{0: "zero", 6: "zero", 7: "seven", 8: "seven", 9: "nine", merkle.MaxSize: "nine"} {
		if c, err := s.Checkpoint(t.Context(), info.ID, size); err != nil || string(c.Note) != want {
			t.Errorf("checkpoint at %d: got %q, %v, want %q", size, c.Note, err, want)
		}
	}
	for from, want := range map[uint64][]uint64{0: {0, 7, 9}, 1: {7, 9}, 7: {7, 9}, 9: {9}, 10: nil, merkle.MaxSize: nil} {
		var sizes []uint64
		err := s.Checkpoints(t.Context(), info.ID, from, func(c log.Signed) error {
			sizes = append(sizes, c.Size)
			return nil
		})
		if err != nil || !slices.Equal(sizes, want) {
			t.Errorf("checkpoints from size %d: got %v, %v, want %v", from, sizes, err, want)
		}
	}
}

func testCosign(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	for _, size := range []uint64{0, 3, 9} {
		if err := s.Record(t.Context(), one.ID, log.Signed{Size: size, Note: []byte("note")}); err != nil {
			t.Fatal(err)
		}
	}
	cosignature := func(size uint64, key string, at int64) log.Cosignature {
		return log.Cosignature{Size: size, Key: key, At: at, Line: fmt.Sprintf("— %s %d at %d\n", key, size, at)}
	}
	a3, b3, a9 := cosignature(3, "a+00000001", 10), cosignature(3, "b+00000002", 11), cosignature(9, "a+00000001", 12)
	for _, all := range [][]log.Cosignature{nil, {b3, a3}, {a9, cosignature(0, "a+00000001", 5)}} {
		if err := s.Cosign(t.Context(), one.ID, all); err != nil {
			t.Fatal(err)
		}
	}
	// Late ones are merged: one with a newer time replaces the older one, and not the other way round.
	late, early := cosignature(3, "a+00000001", 20), cosignature(3, "b+00000002", 9)
	if err := s.Cosign(t.Context(), one.ID, []log.Cosignature{late, early}); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"a size of which there is no checkpoint": s.Cosign(t.Context(), one.ID, []log.Cosignature{cosignature(9, "c", 1), cosignature(4, "c", 1)}),
		"a checkpoint of another log":            s.Cosign(t.Context(), two.ID, []log.Cosignature{cosignature(3, "c", 1)}),
	} {
		if !errors.Is(err, log.ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", what, err)
		}
	}
	s = o.Reopen(t, s)
	for size, want := range map[uint64][]log.Cosignature{3: {late, b3}, 9: {a9}, 4: nil} {
		if got, err := s.Cosignatures(t.Context(), one.ID, size); err != nil || !slices.Equal(got, want) {
			t.Errorf("cosignatures of size %d: got %+v, %v, want %+v", size, got, err, want)
		}
	}
	down := func(id log.ID, size uint64) (all []log.Cosignature) {
		err := s.CosignaturesDown(t.Context(), id, size, func(c log.Cosignature) error {
			all = append(all, c)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	zero := cosignature(0, "a+00000001", 5)
	if got, want := down(one.ID, merkle.MaxSize), []log.Cosignature{a9, late, b3, zero}; !slices.Equal(got, want) {
		t.Errorf("cosignatures: got %+v, want %+v", got, want)
	}
	if got, want := down(one.ID, 8), []log.Cosignature{late, b3, zero}; !slices.Equal(got, want) {
		t.Errorf("cosignatures up to size 8: got %+v, want %+v", got, want)
	}
	if got := down(two.ID, merkle.MaxSize); got != nil {
		t.Errorf("cosignatures of another log: got %+v, want none", got)
	}
	confirmed, err := s.Confirmations(t.Context(), one.ID)
	if want := map[string]log.Confirmation{"a+00000001": {Size: 9, At: 20}, "b+00000002": {Size: 3, At: 11}}; err != nil || !maps.Equal(confirmed, want) {
		t.Errorf("confirmations: got %+v, %v, want %+v", confirmed, err, want)
	}
}

func testEvidence(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	shown := log.Evidence{Kind: log.EvidenceContradiction, Key: "a+00000001", Size: 9, At: 2, Ours: []byte("ours"), Theirs: []byte("theirs")}
	accepted := log.Evidence{Kind: log.EvidenceAccepted, Size: 9, At: 1}
	again := shown
	again.At, again.Theirs = 3, nil
	for _, e := range []log.Evidence{shown, accepted, again} {
		if err := s.AddEvidence(t.Context(), one.ID, e); err != nil {
			t.Fatal(err)
		}
	}
	s = o.Reopen(t, s)
	same := func(a, b log.Evidence) bool {
		return a.Kind == b.Kind && a.Key == b.Key && a.Size == b.Size && a.At == b.At && bytes.Equal(a.Ours, b.Ours) && bytes.Equal(a.Theirs, b.Theirs)
	}
	if got, err := s.Evidence(t.Context(), one.ID); err != nil || !slices.EqualFunc(got, []log.Evidence{accepted, shown}, same) {
		t.Errorf("evidence: got %+v, %v, want %+v and %+v", got, err, accepted, shown)
	}
	if got, err := s.Evidence(t.Context(), two.ID); err != nil || len(got) != 0 {
		t.Errorf("evidence of another log: got %+v, %v, want none", got, err)
	}
}

func testLabel(t *testing.T, o Opener) {
	s := o.Open(t)
	for _, value := range []string{"first", "second"} {
		if got, err := s.Label(t.Context(), "name", value); err != nil || got != "first" {
			t.Errorf("label: got %q, %v, want first", got, err)
		}
	}
	s = o.Reopen(t, s)
	if got, err := s.Label(t.Context(), "name", "third"); err != nil || got != "first" {
		t.Errorf("label after a restart: got %q, %v, want first", got, err)
	}
	if got, err := s.Labels(t.Context(), ""); err != nil || !maps.Equal(got, map[string]string{"name": "first"}) {
		t.Errorf("labels: got %v, %v", got, err)
	}
	for _, name := range []string{"nam", "names", "namf"} {
		if _, err := s.Label(t.Context(), name, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Labels(t.Context(), "name"); err != nil || !maps.Equal(got, map[string]string{"name": "first", "names": "x"}) {
		t.Errorf("labels that begin with a text: got %v, %v", got, err)
	}
}

func testKeys(t *testing.T, o Opener) {
	s := o.Open(t)
	info := CreateLog(t, s, "one")
	writer, text := log.NewKey(log.RoleWriter, info.ID, "a name", 1)
	writer = restricted(writer)
	admin, _ := log.NewKey(log.RoleAdmin, 0, "", 2)
	for _, k := range []log.Key{writer, admin} {
		if err := s.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	s = o.Reopen(t, s)
	got, err := s.Key(t.Context(), writer.ID)
	if err != nil || got != writer || !got.Matches(text) {
		t.Errorf("key: got %+v, %v, want %+v", got, err, writer)
	}
	if _, err := s.Key(t.Context(), "absent"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("absent key: got %v, want ErrNotFound", err)
	}
	if keys, err := s.Keys(t.Context()); err != nil || !slices.Equal(keys, []log.Key{writer, admin}) {
		t.Errorf("keys: got %+v, %v", keys, err)
	}
}

// restricted returns a key with a value of its own for everything that a key can have.
func restricted(k log.Key) log.Key {
	k.CreatedBy, k.Networks, k.Actions, k.Rates = "maker", "192.0.2.0/24 2001:db8::/32", "user.* invoice.paid", log.Rates{Events: 5, Requests: 6}
	k.ExpiresAt, k.RevokedAt, k.ReplacedBy, k.LastUsedAt = 7, 8, "next", 9
	return k
}

func testChangeKey(t *testing.T, o Opener) {
	s := o.Open(t)
	old, _ := log.NewKey(log.RoleWriter, 1, "old", 1)
	other, _ := log.NewKey(log.RoleWriter, 1, "other", 2)
	next, _ := log.NewKey(log.RoleWriter, 1, "next", 3)
	for _, k := range []log.Key{old, other} {
		if err := s.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	refused := errors.New("refused")
	for what, c := range map[string]struct {
		id     string
		change func(*log.Key) (*log.Key, error)
		err    error
	}{
		"no key":               {"absent", func(*log.Key) (*log.Key, error) { return &next, nil }, log.ErrNotFound},
		"a change that is off": {old.ID, func(k *log.Key) (*log.Key, error) { k.RevokedAt = 5; return &next, refused }, refused},
		"an id that is taken":  {old.ID, func(k *log.Key) (*log.Key, error) { k.RevokedAt = 5; return &other, nil }, log.ErrDamaged},
	} {
		if err := s.ChangeKey(t.Context(), c.id, c.change); !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, want %v", what, err, c.err)
		}
	}
	if keys, err := s.Keys(t.Context()); err != nil || !slices.Equal(keys, []log.Key{old, other}) {
		t.Errorf("keys after changes that failed: got %+v, %v", keys, err)
	}
	err := s.ChangeKey(t.Context(), old.ID, func(k *log.Key) (*log.Key, error) {
		if *k != old {
			t.Errorf("the key to change: got %+v, want %+v", *k, old)
		}
		k.ExpiresAt, k.RevokedAt, k.ReplacedBy, k.LastUsedAt = 10, 11, next.ID, 12
		return &next, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	old.ExpiresAt, old.RevokedAt, old.ReplacedBy, old.LastUsedAt = 10, 11, next.ID, 12
	s = o.Reopen(t, s)
	if keys, err := s.Keys(t.Context()); err != nil || !slices.Equal(keys, []log.Key{old, other, next}) {
		t.Errorf("keys: got %+v, %v, want %+v", keys, err, []log.Key{old, other, next})
	}
	// Each builds on what the one before it has left.
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			return s.ChangeKey(context.Background(), other.ID, func(k *log.Key) (*log.Key, error) { k.ExpiresAt++; return nil, nil })
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Key(t.Context(), other.ID); err != nil || k.ExpiresAt != 8 {
		t.Errorf("after 8 changes at a time: got %d, %v", k.ExpiresAt, err)
	}
}

func testUseKeys(t *testing.T, o Opener) {
	s := o.Open(t)
	a, _ := log.NewKey(log.RoleReader, 1, "", 1)
	b, _ := log.NewKey(log.RoleReader, 1, "", 2)
	for _, k := range []log.Key{a, b} {
		if err := s.CreateKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []map[string]int64{nil, {a.ID: 5}, {a.ID: 6, "absent": 9}, {a.ID: 4, b.ID: 7}} {
		if err := s.UseKeys(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	}
	s = o.Reopen(t, s)
	a.LastUsedAt, b.LastUsedAt = 6, 7
	if keys, err := s.Keys(t.Context()); err != nil || !slices.Equal(keys, []log.Key{a, b}) {
		t.Errorf("keys: got %+v, %v, want %+v", keys, err, []log.Key{a, b})
	}
}

var everySetting = log.Settings{
	Title: "Acmé, Inc.", Public: true, Rates: log.Rates{Events: 3, Requests: 4}, Required: []string{"/actor/id", "/metadata/a b\n\"c\""},
}

func sameSettings(a, b log.Settings) bool {
	return a.Title == b.Title && a.Public == b.Public && a.Rates == b.Rates && slices.Equal(a.Required, b.Required)
}

func testConfigure(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	if _, err := s.Configure(t.Context(), two.ID+99, func(*log.Settings) error { return nil }); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("settings of no log: got %v, want ErrNotFound", err)
	}
	refused := errors.New("refused")
	_, err := s.Configure(t.Context(), one.ID, func(c *log.Settings) error {
		c.Title = "never"
		return refused
	})
	if !errors.Is(err, refused) {
		t.Errorf("a change that is off: got %v", err)
	}
	got, err := s.Configure(t.Context(), one.ID, func(c *log.Settings) error {
		if !sameSettings(*c, log.Settings{}) {
			t.Errorf("settings of a new log: got %+v", *c)
		}
		*c = everySetting
		return nil
	})
	if err != nil || !sameSettings(got, everySetting) {
		t.Errorf("settings: got %+v, %v, want %+v", got, err, everySetting)
	}
	if err := s.Freeze(t.Context(), two.ID); err != nil {
		t.Fatal(err)
	}
	s = o.Reopen(t, s)
	logs, err := s.Logs(t.Context())
	if err != nil || len(logs) != 2 {
		t.Fatalf("logs: got %d, %v, want 2", len(logs), err)
	}
	for i, want := range []log.Info{{Settings: everySetting}, {Frozen: true}} {
		if got := logs[i]; !sameSettings(got.Settings, want.Settings) || got.Frozen != want.Frozen {
			t.Errorf("log %s: got %+v, frozen: %t; want %+v, %t", got.Name, got.Settings, got.Frozen, want.Settings, want.Frozen)
		}
	}
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			_, err := s.Configure(context.Background(), two.ID, func(c *log.Settings) error { c.Rates.Events++; return nil })
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if logs, err := s.Logs(t.Context()); err != nil || logs[1].Settings.Rates.Events != 8 {
		t.Errorf("after 8 changes at a time: got %+v, %v", logs[1].Settings, err)
	}
}

func testFreeze(t *testing.T, o Opener) {
	s := o.Open(t)
	one, two := CreateLog(t, s, "one"), CreateLog(t, s, "two")
	appendTo(t, s, one.ID, 3)
	before, err := s.Head(t.Context(), one.ID)
	if err != nil || before.Frozen {
		t.Fatalf("head: got %+v, %v", before, err)
	}
	for range 2 {
		if err := s.Freeze(t.Context(), one.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Freeze(t.Context(), two.ID+99); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("freezing no log: got %v, want ErrNotFound", err)
	}
	s = o.Reopen(t, s)
	tx, err := s.Begin(t.Context(), []log.ID{one.ID, two.ID})
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for id, want := range map[log.ID]bool{one.ID: true, two.ID: false} {
		locked, err := tx.Head(id)
		read, readErr := s.Head(t.Context(), id)
		if err != nil || readErr != nil || locked.Frozen != want || read.Frozen != want {
			t.Errorf("log %d is frozen: %t locked, %t read (%v, %v), want %t", id, locked.Frozen, read.Frozen, err, readErr, want)
		}
	}
	if head, err := s.Head(t.Context(), one.ID); err != nil || !sameHead(head, before) {
		t.Errorf("freezing changed the head to %+v, %v", head, err)
	}
}

func testImport(t *testing.T, o Opener) {
	s, ok := o.Open(t).(log.Importer)
	if !ok {
		return
	}
	info := func(id log.ID, name string) log.Info {
		return log.Info{
			ID: id, Name: name, Origin: "storetest.example/logs/" + name, CreatedAt: 17, VKeys: []string{"a", "b"},
			Settings: everySetting,
		}
	}
	logs := []log.Info{info(1, "one"), info(7, "seven")}
	key, _ := log.NewKey(log.RoleReader, 7, "a name", 3)
	key = restricted(key)
	err := s.Import(t.Context(), logs, []log.Key{key}, map[string]string{"label": "text"})
	if err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"number": s.Import(t.Context(), []log.Info{info(2, "two"), info(7, "other")}, nil, nil),
		"name":   s.Import(t.Context(), []log.Info{info(2, "two"), info(3, "one")}, nil, nil),
		"key":    s.Import(t.Context(), []log.Info{info(2, "two")}, []log.Key{key}, nil),
		"label":  s.Import(t.Context(), []log.Info{info(2, "two")}, nil, map[string]string{"label": "other"}),
	} {
		if !errors.Is(err, log.ErrExists) {
			t.Errorf("a %s that is taken: got %v, want ErrExists", what, err)
		}
	}
	same := func(a, b log.Info) bool {
		return a.ID == b.ID && a.Name == b.Name && a.Origin == b.Origin && a.CreatedAt == b.CreatedAt &&
			slices.Equal(a.VKeys, b.VKeys) && sameSettings(a.Settings, b.Settings)
	}
	if got, err := s.Logs(t.Context()); err != nil || !slices.EqualFunc(got, logs, same) {
		t.Errorf("logs: got %+v, %v, want %+v", got, err, logs)
	}
	if got, err := s.Keys(t.Context()); err != nil || !slices.Equal(got, []log.Key{key}) {
		t.Errorf("keys: got %+v, %v", got, err)
	}
	appendTo(t, s, 7, 5)
	if l := CreateLog(t, s, "next"); l.ID != 8 {
		t.Errorf("the log made next has the number %d, want 8", l.ID)
	}

	note := func(sizes ...uint64) (all []log.Signed) {
		for _, size := range sizes {
			all = append(all, log.Signed{Size: size, Note: fmt.Append(nil, size)})
		}
		return all
	}
	for _, c := range []struct {
		all []log.Signed
		err error
	}{{nil, nil}, {note(0, 2), nil}, {note(2, 3), log.ErrExists}, {note(1), log.ErrExists}, {note(4), nil}} {
		if err := s.RecordAll(t.Context(), 7, c.all); !errors.Is(err, c.err) {
			t.Errorf("recording %v: got %v, want %v", c.all, err, c.err)
		}
	}
	if err := s.Record(t.Context(), 7, note(3)[0]); !errors.Is(err, log.ErrExists) {
		t.Errorf("a checkpoint below those that were recorded: got %v, want ErrExists", err)
	}
	var sizes []uint64
	err = s.Checkpoints(t.Context(), 7, 0, func(c log.Signed) error {
		sizes = append(sizes, c.Size)
		return nil
	})
	if err != nil || !slices.Equal(sizes, []uint64{0, 2, 4}) {
		t.Errorf("checkpoints: got %v, %v, want 0, 2, 4", sizes, err)
	}

	if err := s.RenameLabel(t.Context(), "label", "renamed"); err != nil {
		t.Fatal(err)
	}
	if err := s.RenameLabel(t.Context(), "label", "again"); !errors.Is(err, log.ErrNotFound) {
		t.Errorf("renaming no label: got %v, want ErrNotFound", err)
	}
	if got, err := s.Labels(t.Context(), ""); err != nil || !maps.Equal(got, map[string]string{"renamed": "text"}) {
		t.Errorf("labels: got %v, %v", got, err)
	}
}
