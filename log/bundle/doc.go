// Package bundle writes and verifies evidence bundles: events of a log, all of a range or a selection, with what proves that they are
// in the log, in one file that can be checked offline by anybody. What is exported, what is archived, and what is shown with parts
// withheld are the same format, which docs/spec.md specifies.
//
// A bundle is a ZIP archive, so that people can look into it with what they have, but of one form: nothing in it is compressed, names,
// order and headers follow from the content, and the reader makes sure that not a byte is otherwise. So there is nothing in a
// bundle that one program would see and another not, and nothing that grows when it is opened. It has
//
//	README.txt             how to check it
//	checkpoint             the signed checkpoint, with its cosignatures
//	policy                 the log's keys and witnesses, as whoever made the bundle names them
//	removals/000000.tlog-proof …  proofs of the log's own events that tell what was purged and erased, if any
//	entries/000000.bin     the entries' indices and bytes, PartEvents at most in each part
//	hashes/000000.bin      the hashes of what lies before and between them, and in the last part behind them (merkle.CoverHashes)
//	events/000000.ndjson   the entries' disclosures
//	entries/000001.bin …
//	manifest.json          which range was searched, by which filter, and the SHA-256 of all the above but the events
//
// Entries and hashes lead to the root that the checkpoint signs, and each disclosure to its entry. The manifest doesn't hash the
// events, since the entries already do, claim by claim: so a claim can be taken out of a bundle, as erasure demands, and the
// manifest stays what it was. Rewrite does that.
//
// The Writer, Verify, Read and Rewrite need as much memory as a part has, however large the bundle is. The package may import log and what that
// imports; it knows no store and no HTTP.
package bundle
