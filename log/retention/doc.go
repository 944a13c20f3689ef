// Package retention has the keeper, which does what logs' retention policies and erasures ask for: it archives what has expired, reads the
// archive back, verifies it, and only then has it purged; takes erased claims out of archived bundles; and sees to it that what was removed
// is gone from the store's files.
//
//	keeper.go    Keeper: Run and RunOnce, what is done in which order
//	archiving.go which bundle has what is to be purged; writing it, reading it back
//	erasing.go   erasures in archived bundles, and their outcome
//	alerts.go    why something isn't done, for operators
//
// What is decided is events of the log (package log), recorded before it is done; the keeper holds no state of its own but one label for
// each bundle, which fixes how far it goes. So it goes on after a crash wherever that was, and several servers may have one at a time:
// each step is safe to do twice, and an archived bundle has one name, whoever writes it.
//
// The package imports log, log/bundle, log/archive and what those import; it knows no HTTP and no SQL.
package retention
