package catalog

import (
	"errors"
	"fmt"

	"skerry/locking"
)

// The errors of a pool. They come wrapped with the thing and the next step; test with
// [errors.Is]. Errors of the storage (package drivers), of leases (package locking) and of damage (package mapper) show through.
var (
	ErrNotFound   = errors.New("not found")
	ErrExists     = errors.New("exists already")
	ErrInUse      = errors.New("in use")
	ErrNoPool     = errors.New("no pool")
	ErrPoolExists = errors.New("pool exists already")
)

// told is an error whose text names the thing: what was being done to it need not be said too.
type told struct {
	text string
	err  error
}

func (t *told) Error() string { return t.text }

func (t *told) Unwrap() error { return t.err }

// tell returns an error that says all there is to say, and matches err.
func tell(err error, format string, args ...any) error {
	return &told{fmt.Sprintf(format, args...), err}
}

// doing puts what was being done in front of an error. One that names the thing by itself, however far down, is returned
// bare: two names in one sentence tell less than one. Where several errors were joined all are kept.
func doing(err error, format string, args ...any) error {
	for e := err; e != nil; {
		switch x := e.(type) {
		case *told, *locking.HeldError:
			return e
		case interface{ Unwrap() []error }:
			all := x.Unwrap()
			e = nil
			if len(all) == 1 {
				e = all[0]
			}
		default:
			e = errors.Unwrap(e)
		}
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
