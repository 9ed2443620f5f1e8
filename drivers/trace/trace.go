// Package trace wraps a backend and tells of each call that has returned, as one line of text that is the same in every
// run, for golden files: what, the name, the range, and the error if there is one.
//
//	create v/a/data/0/0.1.1
//	write v/a/data/0/0.1.1 0+4096
//	replace pool 120 absent
//	stat names/x: not found
package trace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"skerry/drivers"
)

// Backend is a [drivers.Backend] that tells what it does.
type Backend struct {
	drivers.Backend // the wrapped one
	line            func(string)
	rename          func(string) string
}

var (
	_ drivers.Backend    = (*Backend)(nil)
	_ drivers.Locker     = (*Backend)(nil)
	_ drivers.FileCloner = (*Backend)(nil)
)

// Wrap returns a backend that calls line for each call of b or of its objects, but Size and Close, that has returned. line
// is called by several goroutines at once. Closing the backend closes b.
func Wrap(b drivers.Backend, line func(string)) *Backend {
	return &Backend{Backend: b, line: line, rename: func(name string) string { return name }}
}

// Rename sets what turns names into what the lines say, so that random parts of names do not show. Call it before any other use.
func (b *Backend) Rename(fn func(name string) string) { b.rename = fn }

// tell writes the line of one call.
func (b *Backend) tell(kind drivers.Kind, name, rest string, err error) {
	if name == "" {
		name = "/"
	} else {
		name = b.rename(name)
	}
	s := kind.String() + " " + name
	if rest != "" {
		s += " " + rest
	}
	if err != nil {
		s += ": " + word(err)
	}
	b.line(s)
}

// word names an error in words that do not change.
func word(err error) string {
	for _, w := range []struct {
		err  error
		word string
	}{
		{drivers.ErrUnknownOutcome, "outcome unknown"},
		{drivers.ErrUnavailable, "unavailable"},
		{drivers.ErrNotFound, "not found"},
		{drivers.ErrExists, "exists"},
		{drivers.ErrConflict, "conflict"},
		{drivers.ErrLocked, "locked"},
		{drivers.ErrNoSpace, "no space"},
		{drivers.ErrReadOnly, "read-only"},
		{drivers.ErrInvalid, "invalid"},
		{drivers.ErrClosed, "closed"},
		{errors.ErrUnsupported, "unsupported"},
	} {
		if errors.Is(err, w.err) {
			return w.word
		}
	}
	return "error"
}

// Open implements [drivers.Backend].
func (b *Backend) Open(ctx context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	o, err := b.Backend.Open(ctx, name, mode)
	kind, rest := drivers.OpOpen, ""
	switch mode {
	case drivers.Create:
		kind = drivers.OpCreate
	case drivers.ReadOnly:
		rest = "read-only"
	}
	b.tell(kind, name, rest, err)
	if err != nil {
		return nil, err
	}
	return &object{Object: o, b: b, name: name}, nil
}

// Stat implements [drivers.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (drivers.Info, error) {
	info, err := b.Backend.Stat(ctx, name)
	b.tell(drivers.OpStat, name, "", err)
	return info, err
}

// Unlink implements [drivers.Backend].
func (b *Backend) Unlink(ctx context.Context, name string) error {
	err := b.Backend.Unlink(ctx, name)
	b.tell(drivers.OpUnlink, name, "", err)
	return err
}

// List implements [drivers.Backend].
func (b *Backend) List(ctx context.Context, group string, fn func(drivers.Info) error) error {
	err := b.Backend.List(ctx, group, fn)
	b.tell(drivers.OpList, group, "", err)
	return err
}

// Load implements [drivers.Backend].
func (b *Backend) Load(ctx context.Context, name string) ([]byte, error) {
	data, err := b.Backend.Load(ctx, name)
	b.tell(drivers.OpLoad, name, "", err)
	return data, err
}

// Replace implements [drivers.Backend].
func (b *Backend) Replace(ctx context.Context, name string, data []byte, cond drivers.Condition) error {
	err := b.Backend.Replace(ctx, name, data, cond)
	rest := fmt.Sprint(len(data))
	if cond.Absent {
		rest += " absent"
	}
	if len(cond.Prefix) > 0 {
		rest += " prefix"
	}
	b.tell(drivers.OpReplace, name, rest, err)
	return err
}

// SyncGroup implements [drivers.Backend].
func (b *Backend) SyncGroup(ctx context.Context, group string) error {
	err := b.Backend.SyncGroup(ctx, group)
	b.tell(drivers.OpSyncGroup, group, "", err)
	return err
}

// Lock implements [drivers.Locker]; errors.ErrUnsupported if the wrapped backend does not.
func (b *Backend) Lock(ctx context.Context, name string) (io.Closer, error) {
	l, ok := b.Backend.(drivers.Locker)
	if !ok {
		return nil, fmt.Errorf("lock %s: %w", name, errors.ErrUnsupported)
	}
	lock, err := l.Lock(ctx, name)
	b.tell(drivers.OpLock, name, "", err)
	return lock, err
}

// CloneFile implements [drivers.FileCloner]; errors.ErrUnsupported if the wrapped backend does not.
func (b *Backend) CloneFile(ctx context.Context, name string, f *os.File) error {
	c, ok := b.Backend.(drivers.FileCloner)
	if !ok {
		return fmt.Errorf("clone file to %s: %w", name, errors.ErrUnsupported)
	}
	err := c.CloneFile(ctx, name, f)
	b.tell(drivers.OpCloneFile, name, "", err)
	return err
}
