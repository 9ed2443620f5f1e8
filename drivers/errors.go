package drivers

import "errors"

// The errors that backends and the engine promise. They come wrapped with the name of
// the object and the operation; test with [errors.Is].
var (
	ErrNotFound    = errors.New("no such object")
	ErrExists      = errors.New("object exists")
	ErrConflict    = errors.New("object was changed by another writer")
	ErrLocked      = errors.New("locked by another process")
	ErrNoSpace     = errors.New("no space left on the storage")
	ErrReadOnly    = errors.New("storage is read-only")
	ErrUnavailable = errors.New("storage is unavailable")
	ErrInvalid     = errors.New("invalid argument")
	ErrClosed      = errors.New("closed")

	// ErrUnknownOutcome says that a mutation ended without the storage's verdict: it
	// may have happened, may happen later, or never. It always comes with
	// ErrUnavailable.
	ErrUnknownOutcome = errors.New("outcome unknown")
)
