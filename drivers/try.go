package drivers

// Try does a read or a write inline if that will not block: then it returns true, and op.Err says how it ended.
// Otherwise nothing has happened, and op is the caller's.
func (e *Engine) Try(op *Op) bool {
	op.Err = nil
	done, _ := e.tryInline(op)
	return done
}
