// Package checkpoint makes and checks the signed heads of a log.
//
// # What a checkpoint is
//
// A checkpoint states how many entries a log has and what the root of its
// Merkle tree is. Its text is that of C2SP tlog-checkpoint
// (https://c2sp.org/tlog-checkpoint), three lines:
//
//	logs.example.com/logs/acme
//	20852163
//	CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//
// It is signed as a note (https://c2sp.org/signed-note). Whoever has seen two
// checkpoints of one log can demand a proof that the second tree extends the
// first. A log that can't give it has two histories, and its own signatures
// say so. [ParseText], [Open] and [Sign] are for checkpoints, [Seed] is for the
// keys, [Proof] is the file that holds a checkpoint together with the proof that
// one entry is in its tree.
//
// # Who else signs
//
// A witness signs a checkpoint, together with the time, only if the tree extends all that
// it has signed for the log before. Its cosignatures are further lines of the note. A
// [Cosigner] makes them. A [Policy] names logs and witnesses, and how many of them must
// have signed a checkpoint for it to be believed; [Policy.Judge] says whether they have.
// [ParseForeignNote] is for the checkpoints of logs that aren't ours. All keys are
// strings that [NewVerifier] takes, whatever their type.
//
// Everything is read strictly: there is one encoding of each value, and a parser
// accepts nothing else.
//
// # How a checkpoint comes about
//
// A log must never sign two trees of which one doesn't extend the other, whatever
// happens to its database. So a [Publisher] believes neither the code that appends
// nor what was in memory at the time. One round of it is a straight line:
//
//	read the head           Source.Head         what the store has committed
//	re-read the entries     Source.ReadEntries  from the last signed size on
//	check them, rebuild     replay              chain, order, versions, tree
//	compare                                     root of the head, stored tiles
//	read the fence          Fence.Load          still what was put there last?
//	read the record         Source.Latest       and this, too?
//	sign
//	record                  Source.Record       compare-and-set in the store
//	fence                   Fence.Swap          compare-and-set outside of it
//	publish                 Source.Publish      now others may see it
//
// The [Fence] is a second place that remembers the last checkpoint. It is what
// notices that a database was restored from an old backup before the log signs a
// second history. Recording comes before fencing, so a process that dies in
// between leaves a store that is one step ahead of the fence, which
// [Publisher.Resume] completes. A store that is behind its fence is never the
// trace of a crash. The publisher then returns a [Refusal] and stops.
//
// A hub is a log of other logs' checkpoints ([HubEntry], [HubProof]). Its publisher is the same, made by
// [NewHubPublisher], but for the order that its entries keep to.
//
// [FileFence] is the fence of one server. Servers that share a database share one of
// the packages s3fence or pgfence below. What all of them promise is in fencetest.
//
// This package may import merkle, and nothing else of this module: what it signs
// is checked by its own code.
package checkpoint
