package log

import (
	"context"
	"errors"
	"fmt"

	"github.com/treeline-log/treeline/merkle"
)

// Errors that a Store returns, wrapped or bare.
var (
	// ErrNotFound means that no such row exists.
	ErrNotFound = errors.New("not found")
	// ErrExists means that a name, an origin or an id is taken. Names are never reused.
	ErrExists = errors.New("already exists")
	// ErrHeadMoved means that a head was not where the writer believed it to be: somebody else appended. Nothing
	// was written.
	ErrHeadMoved = errors.New("the log's head has moved")
	// ErrRolledBack means that the store undid a transaction for the sake of others (a deadlock, a serialization failure):
	// nothing was written, and it can be done again.
	ErrRolledBack = errors.New("the store rolled the transaction back")
	// ErrUnreachable means that the store isn't there for now.
	ErrUnreachable = errors.New("the store can't be reached")
	// ErrDamaged means that stored rows are missing, or are not what this package wrote.
	ErrDamaged = errors.New("the store is damaged")
)

// ID numbers a log within its store. It is not shown outside.
type ID int64

// Info is what a store keeps about a log besides its content. It is fixed at creation, but that verifier keys are added, and
// for what is said to be as it was read.
type Info struct {
	ID        ID
	Name      string // [a-z0-9][a-z0-9-]{0,62}
	Origin    string // <host>/logs/<name>, the checkpoints' first line
	CreatedAt int64  // µs since 1970 UTC
	// VKeys are the verifier keys ever valid for the log, the first of them made with the log.
	VKeys    []string
	Settings Settings // as they were read
	Frozen   bool     // as it was read: whether the log has ended, see Head
}

// Head is the sequenced end of a log: what the next entry builds on.
type Head struct {
	Size       uint64
	ReceivedAt int64         // of the newest entry, µs since 1970 UTC; 0 for an empty log
	Last       merkle.Hash   // leaf hash of the newest entry; the genesis hash for an empty log
	Edge       []merkle.Hash // the compact range [0, Size), as merkle.Range.Hashes gives it
	Frozen     bool          // nothing may be appended any more
}

// Root returns the RFC 6962 root of the head's tree.
func (h Head) Root() (merkle.Hash, error) {
	r, err := merkle.ResumeRange(h.Size, h.Edge)
	if err != nil {
		return merkle.Hash{}, err
	}
	return r.Root(), nil
}

// Payload is an event's content as it rests in a store.
type Payload struct {
	Seed []byte // 32 bytes; nil if something of the event was erased
	Data []byte // one format byte and the canonical event, or what is left of it, see encodePayload
}

// Reduced is what erasure leaves of a content. Its seed is gone.
type Reduced struct {
	Index uint64
	Data  []byte
}

// Row is one event to append. A copy of a log also has such without a content: their Data is nil.
type Row struct {
	ID string
	Payload
}

// Node is the hash of a complete subtree of 256^Level entries, the Index-th of its level: one hash of the tile level
// Level ≥ 1 (C2SP tlog-tiles). Level 0, the leaves, is rebuilt from the entries.
type Node struct {
	Level int
	Index uint64
	Hash  merkle.Hash
}

// Growth is what an entry of a hub stands for: that a log has signed a size. For one log sizes and indices grow together.
type Growth struct {
	Log   ID     // that has grown, not the hub
	Size  uint64 // that it has signed
	Index uint64 // of the entry in the hub
}

// Batch is what one transaction appends to one log: events, or to a hub growths.
type Batch struct {
	Log     ID
	From    uint64   // the size that it builds on
	Head    Head     // after the batch
	Entries []byte   // the new entries, EntrySize bytes each, in index order
	Rows    []Row    // their events, in the same order
	Growths []Growth // of a hub, instead of events, in the same order
	Nodes   []Node   // the subtrees that became complete
}

// Check reports whether the parts of a batch belong together.
func (b *Batch) Check() error {
	n := len(b.Rows) + len(b.Growths)
	if len(b.Entries) != n*EntrySize || b.Head.Size != b.From+uint64(n) || len(b.Rows) > 0 && len(b.Growths) > 0 {
		return fmt.Errorf("%d rows, %d growths, %d bytes of entries, head from %d to %d don't belong together",
			len(b.Rows), len(b.Growths), len(b.Entries), b.From, b.Head.Size)
	}
	return nil
}

// EventKey names an event.
type EventKey struct {
	Log ID
	ID  string
}

// Tx is one write transaction over the logs it was begun for. It is for one goroutine, and ends with Commit or
// Rollback. The context it was begun with bounds all of it. Any of its methods may fail with ErrRolledBack.
type Tx interface {
	// Head returns the log's head, which no other transaction can move before this one ends.
	Head(log ID) (Head, error)
	// Find returns the indices of those of the events that are there already.
	Find(keys []EventKey) (map[EventKey]uint64, error)
	// PayloadsAt calls fn with the contents that are there at the indices, which ascend, in their order.
	PayloadsAt(log ID, indices []uint64, fn func(index uint64, p Payload) error) error
	// Append adds batches, one a log at most, and moves each head on the condition that it still stands at From;
	// otherwise ErrHeadMoved. This condition, not a belief to be alone, is what keeps a log from forking. After an error
	// nothing but Rollback may be called.
	Append(batches []*Batch) error
	// Commit makes everything durable: on return it survives a crash of process and machine. After an error the outcome is
	// unknown, unless it is ErrRolledBack, and whoever cached anything must read it again.
	Commit() error
	// Rollback undoes everything. After Commit it does nothing.
	Rollback()
}

// Reader reads what is committed. Its methods may be called concurrently, see everything committed before the call, and
// never wait for a writer. Ranges are half-open; callbacks must not keep the slices they are given.
type Reader interface {
	// Logs returns all logs in the order of their creation.
	Logs(ctx context.Context) ([]Info, error)
	// Head returns the log's committed head.
	Head(ctx context.Context, log ID) (Head, error)
	// Sizes returns the sizes of all logs.
	Sizes(ctx context.Context) (map[ID]uint64, error)
	// Entries calls fn with the entries [from, to) in order, exactly to-from times; ErrDamaged if one is missing.
	Entries(ctx context.Context, log ID, from, to uint64, fn func(entry []byte) error) error
	// EntriesAt calls fn with the entries at indices, which are ascending, in order; ErrDamaged if one is missing.
	EntriesAt(ctx context.Context, log ID, indices []uint64, fn func(index uint64, entry []byte) error) error
	// Nodes returns the hashes [from, to) of a tile level ≥ 1; ErrDamaged if one is missing.
	Nodes(ctx context.Context, log ID, level int, from, to uint64) ([]merkle.Hash, error)
	// Find returns the index of the event with the id, or ErrNotFound.
	Find(ctx context.Context, log ID, id string) (uint64, error)
	// IDs calls fn with every id of a log and its index, in the byte order of the ids.
	IDs(ctx context.Context, log ID, fn func(id string, index uint64) error) error
	// IDsWithPrefix calls fn with those that begin with a prefix, likewise.
	IDsWithPrefix(ctx context.Context, log ID, prefix string, fn func(id string, index uint64) error) error
	// Payloads calls fn with the contents that are there in [from, to), in order of index. Contents that were purged may be among
	// them until Shred has removed them: what a log's events say of them counts.
	Payloads(ctx context.Context, log ID, from, to uint64, fn func(index uint64, p Payload) error) error
	// PayloadsAt calls fn with the contents that are there at indices, which are ascending, in order; as Payloads does, also with
	// such as were purged and not removed yet.
	PayloadsAt(ctx context.Context, log ID, indices []uint64, fn func(index uint64, p Payload) error) error
	// Checkpoint returns the newest recorded checkpoint of at most the given size, or ErrNotFound.
	Checkpoint(ctx context.Context, log ID, size uint64) (Signed, error)
	// Checkpoints calls fn with every recorded checkpoint of at least the given size, in order of size.
	Checkpoints(ctx context.Context, log ID, from uint64, fn func(Signed) error) error
	// Cosignatures returns the cosignatures that are kept on the log's checkpoint of exactly that size, in the order of their
	// keys.
	Cosignatures(ctx context.Context, log ID, size uint64) ([]Cosignature, error)
	// CosignaturesDown calls fn with every cosignature on checkpoints of at most the given size, the largest size first, those
	// on one checkpoint in the order of their keys.
	CosignaturesDown(ctx context.Context, log ID, size uint64, fn func(Cosignature) error) error
	// Confirmations returns what each witness that ever cosigned a checkpoint of the log has confirmed last, by its key.
	Confirmations(ctx context.Context, log ID) (map[string]Confirmation, error)
	// Evidence returns what is kept of contradictions between the log and its witnesses, in the order of their times.
	Evidence(ctx context.Context, log ID) ([]Evidence, error)
	// CheckpointsOf calls fn with the notes of those checkpoints, of the logs and sizes that growths name, that are recorded,
	// in any order. Their indices don't matter.
	CheckpointsOf(ctx context.Context, growths []Growth, fn func(i int, note []byte) error) error
	// Growths calls fn with the growths that a hub's entries [from, to) stand for, in order of index, leaving out what is missing.
	Growths(ctx context.Context, hub ID, from, to uint64, fn func(Growth) error) error
	// NewestGrowths returns the newest growth of each log that has one among the first size entries of a hub.
	NewestGrowths(ctx context.Context, hub ID, size uint64) ([]Growth, error)
	// GrowthBefore returns the newest growth of a log to less than a size, or ErrNotFound.
	GrowthBefore(ctx context.Context, hub, log ID, size uint64) (Growth, error)
	// Custody returns a number for each log whose Guard was ever released, which grows each time.
	Custody(ctx context.Context) (map[ID]uint64, error)
	// Counts counts the rows of a log, wherever its head stands. Contents that were purged count until Shred has removed them.
	Counts(ctx context.Context, log ID) (Counts, error)
	IndexReader
	// Labels returns the texts that are kept under names that begin with a prefix, by their names.
	Labels(ctx context.Context, prefix string) (map[string]string, error)
	// Keys returns all API keys in the order of their creation.
	Keys(ctx context.Context) ([]Key, error)
}

// Signed is a recorded checkpoint.
type Signed struct {
	Size uint64
	Note []byte // the signed note
}

// Cosignature is a witness's signature on a checkpoint of a log.
type Cosignature struct {
	Size uint64 // of the checkpoint
	Key  string // of the witness, <name>+<8 hex digits>, as its verifier key begins
	At   int64  // the time in it, in seconds since 1970 UTC
	Line string // its line in a note, with the newline
}

// Confirmation is what a witness has confirmed of a log: that it saw no other history up to a size, until a time.
type Confirmation struct {
	Size uint64 // the largest it has cosigned
	At   int64  // the newest time in its cosignatures, in seconds since 1970 UTC
}

// Kinds of evidence.
const (
	EvidenceContradiction = "contradiction" // a witness showed a checkpoint under the log's key that isn't in the log's history
	EvidenceClaim         = "claim"         // witnesses enough for the quorum claimed a size that the log never signed
	EvidenceAccepted      = "accepted"      // an operator let the log be signed in spite of such claims
)

// Evidence is what a witness has said of a log that contradicts it, or what an operator made of that.
type Evidence struct {
	Kind   string
	Key    string // of the witness, as in a Cosignature; "" for what an operator did
	Size   uint64 // what the witness says the log has, or up to where claims are accepted
	At     int64  // µs since 1970 UTC
	Ours   []byte // the log's newest signed checkpoint then
	Theirs []byte // the checkpoint that the witness showed, a note signed with the log's key; empty if it showed none
}

// Counts are numbers of rows, for a checker that looks for rows which should not be there.
type Counts struct {
	Entries, Payloads, IDs, Growths, Nodes uint64
}

// Store keeps logs: their record (entries, contents, ids), tree, checkpoints with their cosignatures, and API keys, and beside it
// their search index. Rows of the record are only ever added, but for heads, and for contents, which Reduce and Purge take away. It
// is safe for concurrent use.
type Store interface {
	Reader
	Index
	// Begin starts the transaction that appends to logs, and locks their heads, always in the same order.
	Begin(ctx context.Context, logs []ID) (Tx, error)
	// CreateLog adds an empty log and sets its ID; ErrExists if name or origin was ever used.
	CreateLog(ctx context.Context, info *Info) error
	// AddVKey durably adds a verifier key to those of a log, after the others. One that is there is left where it is.
	AddVKey(ctx context.Context, log ID, vkey string) error
	// Freeze ends a log: from its return on, every Tx.Head of it says so. It can't be undone.
	Freeze(ctx context.Context, log ID) error
	// Guard lets one at a time, over all servers, decide what becomes of a log's contents: place a hold, purge, erase. It waits for the
	// one before. What is decided is appended before release is called, and release is called soon.
	Guard(ctx context.Context, log ID) (release func(), err error)
	// Reduce replaces contents by what erasure leaves of them, all or none; their indices ascend. It is ErrNotFound if one of them isn't
	// there, and changes nothing where it was called before. It is durable on return; what it removed is unreadable after Shred.
	Reduce(ctx context.Context, log ID, contents []Reduced) error
	// Purge removes the contents in spans, which ascend, and passes over those that aren't there. What it did before an error, or a
	// crash, stays done; it can be called again. The space is given back by Shred.
	Purge(ctx context.Context, log ID, spans []Span) error
	// Shred makes unreadable, also in the store's files, what Purge, Reduce and rewritten or dropped index segments have removed,
	// and gives back the space. A call does a bounded part of it, and more says that there is something left to do now. It holds up no
	// append, and may be called by several servers at once, of which one does the work and the others return at once with more.
	Shred(ctx context.Context) (more bool, err error)
	// Retain sets the retention class of a log's new contents, [a-z0-9]{1,16}, so that what expires together lies together. It is
	// ErrNotFound if there is no such log.
	Retain(ctx context.Context, log ID, class string) error
	// Record adds a checkpoint if it is larger than the newest one. The same size is accepted, and changes
	// nothing, if the note is the same; otherwise ErrExists. It is durable on return.
	Record(ctx context.Context, log ID, s Signed) error
	// Cosign adds cosignatures, one at most for each size and key, or replaces those that have an earlier time; all or none.
	// It is ErrNotFound if a checkpoint of such a size isn't recorded. They are durable on return.
	Cosign(ctx context.Context, log ID, all []Cosignature) error
	// AddEvidence keeps evidence. The first of a kind, key and size stays. It is durable on return.
	AddEvidence(ctx context.Context, log ID, e Evidence) error
	// Label returns a text kept under name, which value becomes if there was none.
	Label(ctx context.Context, name, value string) (string, error)
	// Configure lets change alter the settings of a log, and returns them; meanwhile nobody else does. It is ErrNotFound if there is
	// no such log, and change's error if it returns one, after which nothing is altered. change may be called again.
	Configure(ctx context.Context, log ID, change func(*Settings) error) (Settings, error)
	// CreateKey adds an API key.
	CreateKey(ctx context.Context, k Key) error
	// ChangeKey lets change alter what changes of an API key, and adds the key that it returns, if any, both or none; meanwhile nobody
	// else does. It is ErrNotFound if there is no such key, and change's error if it returns one. change may be called again.
	ChangeKey(ctx context.Context, id string, change func(*Key) (next *Key, err error)) error
	// UseKeys notes when API keys were used last, by their ids, unless they were used later. Ids of no key are passed over.
	UseKeys(ctx context.Context, at map[string]int64) error
	// Key returns the API key with the public id, or ErrNotFound.
	Key(ctx context.Context, id string) (Key, error)
	// Ping reports whether the store answers.
	Ping(ctx context.Context) error
	// Incarnation returns what changes whenever the store may have been set back under a server that runs: whenever its database
	// was started, or another one has taken its place.
	Incarnation(ctx context.Context) (string, error)
	Close() error
}

// Importer is a Store that can take over the logs of another one, with the numbers that they have there. Entries come by
// Tx.Append, as all entries do.
type Importer interface {
	Store
	// Import adds empty logs, keys and labels, all or none. It is ErrExists if any of them is there.
	Import(ctx context.Context, logs []Info, keys []Key, labels map[string]string) error
	// RecordAll adds checkpoints, larger than all there are and ascending, as Record does each.
	RecordAll(ctx context.Context, log ID, all []Signed) error
	// RenameLabel gives the text under one name another name; ErrNotFound if there is none.
	RenameLabel(ctx context.Context, from, to string) error
}
