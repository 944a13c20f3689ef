package api

// Patterns returns the patterns of all routes.
func (s *Server) Patterns() []string { return s.patterns }
