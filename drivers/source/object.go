package source

import (
	"fmt"
	"math"
	"sync/atomic"

	"skerry/drivers"
)

// object is an open object of an attached source. It looks for the source at each read: whoever keeps it open may do so while the
// source is detached, and attached again.
type object struct {
	b      *Backend
	name   string
	closed atomic.Bool
}

var _ drivers.Object = (*object)(nil)

// with calls do with the source and the object's part of it.
func (o *object) with(what string, do func(s drivers.Source, off, n int64) error) error {
	if o.closed.Load() {
		return fmt.Errorf("%s %s: %w", what, o.name, drivers.ErrClosed)
	}
	if a := o.b.find(o.name); a != nil {
		a.mu.RLock()
		defer a.mu.RUnlock()
		if off, n, ok := a.source.Find(o.name); ok && !a.gone {
			return do(a.source, off, n)
		}
	}
	return fmt.Errorf("%s %s: its source is not attached: %w", what, o.name, drivers.ErrNotFound)
}

// ReadAt implements [drivers.Object].
func (o *object) ReadAt(p []byte, off int64) error {
	if off < 0 || off > math.MaxInt64-int64(len(p)) {
		return fmt.Errorf("read %s: %d bytes at %d: %w", o.name, len(p), off, drivers.ErrInvalid)
	}
	return o.with("read", func(s drivers.Source, start, size int64) error {
		n := min(int64(len(p)), max(0, size-off))
		if n > 0 {
			if err := s.ReadAt(p[:n], start+off); err != nil {
				return fmt.Errorf("read %s: %w", o.name, err)
			}
		}
		clear(p[n:])
		return nil
	})
}

// WriteAt implements [drivers.Object].
func (o *object) WriteAt([]byte, int64) error {
	return fmt.Errorf("write %s: it belongs to an image: %w", o.name, drivers.ErrReadOnly)
}

// Sync implements [drivers.Object]: there is nothing to be made durable.
func (o *object) Sync() error {
	if o.closed.Load() {
		return fmt.Errorf("sync %s: %w", o.name, drivers.ErrClosed)
	}
	return nil
}

// Size implements [drivers.Object].
func (o *object) Size() (size int64, err error) {
	err = o.with("size", func(_ drivers.Source, _, n int64) error {
		size = n
		return nil
	})
	return size, err
}

// Close implements [drivers.Object].
func (o *object) Close() error {
	if o.closed.Swap(true) {
		return fmt.Errorf("close %s: %w", o.name, drivers.ErrClosed)
	}
	return nil
}
