//go:build race

package log_test

import "flag"

// The race detector looks for what goroutines do beside each other, which a draw more or less doesn't change, and makes each draw take
// ten times as long. All draws are made without it: on PostgreSQL under `make test`, and on both stores under `make test-long`.
func init() { _ = flag.Set("rapid.checks", "25") }
