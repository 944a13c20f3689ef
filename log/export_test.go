package log

// Queued returns how many events wait for a batch.
func (s *Service) Queued() int { return s.sequencer.queued() }
