package nbd

// BudgetIsWhole reports whether no bytes of Options.MaxInFlight are in use. It uses them up.
func (s *Server) BudgetIsWhole() bool { return s.budget.TryAcquire(s.opts.MaxInFlight) }

// AskAlways has the server ask before each change whether the client is there.
func (s *Server) AskAlways() { s.lag = 0 }

// Stalled reports whether a connection waits for room.
func (s *Server) Stalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		stalled := c.stalled
		c.mu.Unlock()
		if stalled {
			return true
		}
	}
	return false
}
