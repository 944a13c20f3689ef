// Package witness is both halves of C2SP tlog-witness (https://c2sp.org/tlog-witness).
//
// # Witnesses
//
// A log's own signature says that the log's operator stands behind a tree. It doesn't say that everybody is shown the same tree.
// A witness is somebody else, who remembers one thing of each log: the largest tree that it has cosigned. It cosigns the next one
// only with a proof that it extends that one. So if a quorum of witnesses has cosigned a checkpoint, no second history of the log
// can have got as many cosignatures, unless so many witnesses lie that the two quorums have no honest one in common.
//
// # The server: a witness
//
// [Server] answers POST /add-checkpoint. A request is a straight line through four files:
//
//	request.go   read it strictly: one encoding of each thing, nothing else
//	logs.go      find the log by its origin, and check the log's signature
//	commit.go    check it against what was cosigned last; sign; make that durable; only then answer
//	server.go    say it in HTTP; the one switch that makes statuses of errors
//
// What the whole protocol hangs on is in commit.go and in the contract of [State]: the check and the record of what was checked
// are one step, whoever else is at it. Otherwise a request for size N that was checked early and recorded late would roll back
// the record of one for N+K, and the log's operator could have a second tree cosigned from there.
//
// loglist.go reads the lists (logs/v0) by which logs are made known, page.go is the page for people, metrics.go what operators
// watch. Package sqlstate below keeps the state in SQLite or PostgreSQL.
//
// # The client: a log's feeder
//
// [Feeder] brings the checkpoints of a server's logs to the witnesses of a policy:
//
//	feeder.go         what is due, in which rounds, and what follows from each answer
//	client.go         one request, and what may be believed of its answer
//	feedermetrics.go  what operators watch
//
// It sees a log through the interface [Log], which package log satisfies without knowing this one.
//
// This package may import merkle and checkpoint, and nothing else of this module.
package witness
