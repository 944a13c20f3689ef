// Package interop is the tests that run Treeline beside programs of the transparency-log field that are not ours, each a process of
// its own: the witnesses litewitness and omniwitness cosign a log of Treeline's, `treeline witness` cosigns a log of Tessera's, and
// torchwood, Tessera and x/mod read what Treeline writes: checkpoints, proof files, policies, tiles.
//
// It is a module of its own, so that none of this is a dependency of Treeline. The programs are the module's tools, in the versions
// that its go.mod says; TestMain builds them, and Treeline from the module above. The tests know Treeline by its command line and by
// HTTP only, and import nothing of it: what they check, they check with the others' code.
//
// `make test` runs them. They need no network but the loopback.
package interop
