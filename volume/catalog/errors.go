package catalog

import "errors"

// The errors of a pool. They come wrapped with the thing and the next step; test with
// [errors.Is]. Errors of the storage (package drivers), of leases (package locking) and of damage (package mapper) show through.
var (
	ErrNotFound   = errors.New("not found")
	ErrExists     = errors.New("exists already")
	ErrInUse      = errors.New("in use")
	ErrNoPool     = errors.New("no pool")
	ErrPoolExists = errors.New("pool exists already")
)
