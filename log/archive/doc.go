// Package archive keeps evidence bundles outside the store: in a directory, or in a bucket of an S3-compatible server. What a log purges
// is archived before, so that it can be shown as long as its archive is kept, with the same proofs.
//
//	archive.go   Archive, Open, and the names of what is in one
//	dir.go       Dir: a directory
//	s3.go        S3: a bucket, with object lock if asked for
//	bundles.go   the bundles of a log that an archive has
//	search.go    Search: events in archived bundles, and Restore: all of them
//
// An archive is only a place: which bundles are in it, and whether they are sound, is for their readers to check. So everything that is
// read from one is verified with package bundle. The package imports log, log/bundle and what those import; it knows no store.
package archive
