// Package source wraps a backend and shows content from elsewhere as objects beside those that are stored: an image that lies on this
// host, for example, as the chunks of a volume. What is attached can only be read, is in no list, and does not outlive the process.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"
	"sync/atomic"

	"skerry/drivers"
)

// Backend is a [drivers.Attacher]. Calls for names that belong to no attached group go to the wrapped backend, and its objects are
// returned as they are.
type Backend struct {
	drivers.Backend // the wrapped one

	mu       sync.Mutex // of changes of attached
	attached atomic.Pointer[map[string]*attachment]
}

var (
	_ drivers.Attacher   = (*Backend)(nil)
	_ drivers.Locker     = (*Backend)(nil)
	_ drivers.FileCloner = (*Backend)(nil)
)

// attachment is an attached source.
type attachment struct {
	source drivers.Source

	mu   sync.RWMutex // held by those who read
	gone bool
}

// Wrap returns a backend to which nothing is attached yet. Closing it closes b.
func Wrap(b drivers.Backend) *Backend {
	w := &Backend{Backend: b}
	w.attached.Store(&map[string]*attachment{})
	return w
}

// Attach implements [drivers.Attacher].
func (b *Backend) Attach(group string, s drivers.Source) error {
	if !drivers.ValidName(group) {
		return fmt.Errorf("attach %q: %w", group, drivers.ErrInvalid)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.attached.Load()
	if old[group] != nil {
		return fmt.Errorf("attach %s: %w", group, drivers.ErrExists)
	}
	all := maps.Clone(old)
	all[group] = &attachment{source: s}
	b.attached.Store(&all)
	return nil
}

// Detach implements [drivers.Attacher].
func (b *Backend) Detach(group string) {
	b.mu.Lock()
	all := maps.Clone(*b.attached.Load())
	a := all[group]
	delete(all, group)
	b.attached.Store(&all)
	b.mu.Unlock()
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone = true
}

// find returns the attachment that a name belongs to, nil if there is none.
func (b *Backend) find(name string) *attachment {
	all := *b.attached.Load()
	if len(all) == 0 {
		return nil
	}
	for i := range len(name) {
		if name[i] == '/' {
			if a := all[name[:i]]; a != nil {
				return a
			}
		}
	}
	return nil
}

// Open implements [drivers.Backend].
func (b *Backend) Open(ctx context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	a := b.find(name)
	if a == nil {
		return b.Backend.Open(ctx, name, mode)
	}
	_, _, ok := a.source.Find(name)
	switch {
	case mode > drivers.Create:
		return nil, fmt.Errorf("open %s: mode %d: %w", name, mode, drivers.ErrInvalid)
	case ok && mode == drivers.ReadOnly:
		return &object{b: b, name: name}, nil
	case ok || mode == drivers.Create:
		return nil, fmt.Errorf("open %s: it belongs to an image: %w", name, drivers.ErrReadOnly)
	}
	return nil, fmt.Errorf("open %s: %w", name, drivers.ErrNotFound)
}

// Stat implements [drivers.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (drivers.Info, error) {
	a := b.find(name)
	if a == nil {
		return b.Backend.Stat(ctx, name)
	}
	_, n, ok := a.source.Find(name)
	if !ok {
		return drivers.Info{}, fmt.Errorf("stat %s: %w", name, drivers.ErrNotFound)
	}
	return drivers.Info{Name: name, Size: n}, nil
}

// Lock implements [drivers.Locker]; errors.ErrUnsupported if the wrapped backend does not.
func (b *Backend) Lock(ctx context.Context, name string) (io.Closer, error) {
	l, ok := b.Backend.(drivers.Locker)
	if !ok {
		return nil, fmt.Errorf("lock %s: %w", name, errors.ErrUnsupported)
	}
	return l.Lock(ctx, name)
}

// CloneFile implements [drivers.FileCloner]; errors.ErrUnsupported if the wrapped backend does not.
func (b *Backend) CloneFile(ctx context.Context, name string, f *os.File) error {
	c, ok := b.Backend.(drivers.FileCloner)
	if !ok {
		return fmt.Errorf("clone file to %s: %w", name, errors.ErrUnsupported)
	}
	return c.CloneFile(ctx, name, f)
}

// Unlink implements [drivers.Backend].
func (b *Backend) Unlink(ctx context.Context, name string) error {
	if b.find(name) != nil {
		return fmt.Errorf("unlink %s: it belongs to an image: %w", name, drivers.ErrReadOnly)
	}
	return b.Backend.Unlink(ctx, name)
}

// Replace implements [drivers.Backend].
func (b *Backend) Replace(ctx context.Context, name string, data []byte, cond drivers.Condition) error {
	if b.find(name) != nil {
		return fmt.Errorf("replace %s: it belongs to an image: %w", name, drivers.ErrReadOnly)
	}
	return b.Backend.Replace(ctx, name, data, cond)
}
