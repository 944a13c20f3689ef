// Package monitor follows logs from outside, as a third party that trusts neither the log's operator nor its server.
//
// # What it is for
//
// Whoever holds a checkpoint can demand that later ones extend it. A monitor does that for as long as it runs: it keeps the
// newest checkpoint of each log that it has verified, and once more than that:
//
//	read the checkpoint        server.get      signed by a pinned key? quorum met?
//	compare with the state     follower.take   same size: same root. Smaller: a prefix of what is known
//	read every new entry       server.entries  entry bundles, never proofs
//	hash, check the chain      follower.grow   from the kept compact range on
//	compare                                    the root that the entries give, with the signed one
//	keep                       state, on disk  only now: what is in it has been checked
//	ask the policy's witnesses follower.ask    have they cosigned the same tree?
//	ask the hubs               follower.askHubs, conclude: have they the same tree, cosigned in their place?
//
// So consistency is shown by computing the root again, and no proof of the server's is believed. Proofs, made from its tiles,
// come in where something doesn't fit: they tell a fork, which the operator signed, from a server that hands out wrong bytes.
//
// What is found is a [Problem] with a [Verdict]. Two signed histories are [Diverged]. Their notes are written to the state
// directory as evidence that anybody can check, and the log stays diverged until a person has moved that away.
//
// # What is followed
//
// A log of Treeline ([Chained]): besides the tree the hash chain and the order in time are checked. A hub ([Hub]), whose
// entries are checkpoints of other logs: each must extend the one before it of the same log, by a proof that the server must
// have for each. Any other log of C2SP tlog-tiles ([Opaque]): its entries are hashed and not looked into.
//
// The package may import merkle and checkpoint: what is checked here is checked by code that has no part in running a log.
package monitor
