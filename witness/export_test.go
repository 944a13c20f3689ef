package witness

// Stall makes the server call fn when it has checked and cosigned a batch, before any of it is recorded; nil for nothing. It must be
// called before requests are sent.
func (s *Server) Stall(fn func()) { s.committer.testingOnlyStall = fn }

// Refresh takes up what others have made known, at once.
func (s *Server) Refresh() { s.refresh() }
