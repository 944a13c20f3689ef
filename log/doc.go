// Package log is the domain: events, the entries that commit to them, logs of entries, and what can be said about them. It
// knows no HTTP, no flags and no SQL.
//
// It imports merkle and checkpoint, and log/index for the bytes of the search index. Its stores (log/sqlite, tested by
// log/storetest) import it, as do api and cmd/treeline. Package checkpoint doesn't import it, on purpose: what is signed is
// re-read and checked by code that has no part in appending, through the small [checkpoint.Source] that a log implements.
//
// # How an event passes through
//
//	ParseEvent       what a client sent, to the one canonical form, cut into claims
//	Log.Append       seed, commitments, digest, payload: all that doesn't depend on the place
//	sequencer        queue, batch, index, time, chain, tree; one transaction
//	Store            the transaction: durable when Commit returns
//	Log.Append       returns the places; the event is sequenced
//	checkpoint       the publisher reads it back through source, checks, signs, fences; the event is signed
//	Log.Proof        disclosure, inclusion proof and checkpoint, verified before they are handed out
//	VerifyProof      the same file, elsewhere, with a pinned key and nothing else
//
// # Where things are
//
// Events, pure and without I/O:
//
//	event.go                       Event, ParseEvent, ParseStored
//	batch.go                       ParseBatch, ParseNDJSON
//	parser.go, text.go, number.go  one pass over JSON that validates and writes the canonical form (RFC 8785)
//	canonical.go                   the same for any JSON value: AppendCanonical, IsCanonical
//	members.go, values.go, time.go the members of an event, their grammars and limits
//	flat.go, metadata.go           the flat spellings; the client's own members
//	compose.go                     the canonical form of an event, and where in it each claim is
//	pointer.go                     the grammar of claims' pointers: CheckPointers, CheckClaim
//	problem.go                     Problem, InvalidError: what is wrong with an input, and where
//
// What commits to them, pure as well:
//
//	claims.go                      salts, commitments, the event digest
//	entry.go                       the 73 bytes of an entry; Genesis
//	disclosure.go                  Disclosure: an event shown wholly or in part
//	verify.go, hubproof.go         VerifyProof, VerifyHubProof
//	removal.go                     the events that tell what was removed, and what proofs of them prove
//
// Logs:
//
//	store.go                       the contract of a Store
//	service.go                     Service: opens all logs of a store, makes logs and keys, signs on a clock
//	log.go                         Log: append, read, prove; the source of its publisher
//	sequencer.go                   the one place where indices are given
//	hub.go                         the log of other logs' checkpoints, and what witnesses of it say of them
//	system.go, reads.go            the log of what is done to logs and keys, and who reads what
//	exported.go                    what is told of an export
//	progress.go                    how far a log has come, and waiting for more
//	filter.go, match.go            Filter: which events a search selects, and whether one is among them
//	search.go                      Log.Search: the index, then the events that aren't in it yet
//	terms.go                       the terms by which events are found
//	indexer.go, follower.go        building the index, behind the appends
//	indexstore.go, reindex.go      the contract of its store; building it anew, and comparing it
//	tiles.go                       the tree as tiles, from stored nodes and entries; the check of a head
//	record.go, payload.go          the form in which events are shown, and that in which they rest
//	key.go                         API keys and roles
//	query.go                       filters as text: the parameters of a search
//
// What becomes of contents, and who decides it:
//
//	custody.go                     what a log's own events say, folded; deciding, one at a time over all servers
//	content.go                     what is left of what a store has: the one place that makes an event of it
//	retention.go, age.go           for how long contents are kept, and how that is changed
//	hold.go                        what is kept whatever the policy says
//	purge.go, erasure.go           removing whole contents that have expired, and claims of a person
//	removing.go                    doing what was recorded: in the contents, and in the search index
//	removal.go                     the events that tell what was removed, as verifiers read them
//	span.go                        ranges of entries
//
// And beside all that:
//
//	scrub.go, fsck.go, hubcheck.go re-reading and re-hashing, slowly for ever or all at once
//	copy.go                        moving all logs to another store
//	succeed.go                     ending a log, and beginning the one that follows it
//	metrics.go                     what an operator watches
//
// The bytes of all of this are specified in docs/spec.md, with vectors in testdata/vectors; the way through the code is
// in docs/architecture.md.
package log
