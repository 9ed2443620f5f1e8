package nbd

// BudgetIsWhole reports whether no bytes of Options.MaxInFlight are in use. It uses them up.
func (s *Server) BudgetIsWhole() bool { return s.budget.TryAcquire(s.opts.MaxInFlight) }
