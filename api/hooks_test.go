package api

// SetBundleEvents makes bundles full that have n events, until restore is called.
func SetBundleEvents(n uint64) (restore func()) {
	testingOnlyFull = func(events uint64) bool { return events == n }
	return func() { testingOnlyFull = nil }
}
