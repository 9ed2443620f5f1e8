package mem

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"skerry/drivers"
)

// file is an open object.
type file struct {
	b        *Backend
	o        *object
	name     string
	readOnly bool
	closed   atomic.Bool
}

// inlineFile is a file that does I/O on the caller's goroutine.
type inlineFile struct{ *file }

var (
	_ drivers.Object       = (*file)(nil)
	_ drivers.Puncher      = (*file)(nil)
	_ drivers.Allocator    = (*file)(nil)
	_ drivers.CacheDropper = (*file)(nil)
	_ drivers.TryReader    = inlineFile{}
	_ drivers.TryWriter    = inlineFile{}
)

func (b *Backend) file(name string, o *object, mode drivers.Mode) drivers.Object {
	f := &file{b: b, o: o, name: name, readOnly: mode == drivers.ReadOnly}
	if b.o.NoInline {
		return f
	}
	return inlineFile{f}
}

// TryReadAt implements [drivers.TryReader].
func (f inlineFile) TryReadAt(p []byte, off int64) (bool, error) { return true, f.ReadAt(p, off) }

// TryWriteAt implements [drivers.TryWriter].
func (f inlineFile) TryWriteAt(p []byte, off int64) (bool, error) { return true, f.WriteAt(p, off) }

// check tests what all calls share.
func (f *file) check(what string, off, n int64, change bool) error {
	switch {
	case f.closed.Load():
		return fmt.Errorf("%s %s: %w", what, f.name, drivers.ErrClosed)
	case off < 0 || n < 0 || off > math.MaxInt64-n:
		return fmt.Errorf("%s %s: %d bytes at %d: %w", what, f.name, n, off, drivers.ErrInvalid)
	case change && f.readOnly:
		return fmt.Errorf("%s %s: opened for reading: %w", what, f.name, drivers.ErrReadOnly)
	}
	return nil
}

// ReadAt implements [drivers.Object].
func (f *file) ReadAt(p []byte, off int64) error {
	if err := f.check("read", off, int64(len(p)), false); err != nil {
		return err
	}
	f.b.world.RLock()
	defer f.b.world.RUnlock()
	f.o.mu.RLock()
	defer f.o.mu.RUnlock()
	f.o.content.read(p, off)
	return nil
}

// WriteAt implements [drivers.Object].
func (f *file) WriteAt(p []byte, off int64) error {
	return f.mutate("write", change{kind: drivers.OpWrite, off: off, n: int64(len(p)), data: p})
}

// PunchHole implements [drivers.Puncher].
func (f *file) PunchHole(off, n int64) error {
	return f.mutate("punch", change{kind: drivers.OpPunch, off: off, n: n})
}

// Allocate implements [drivers.Allocator].
func (f *file) Allocate(off, n int64) error {
	return f.mutate("allocate", change{kind: drivers.OpAllocate, off: off, n: n})
}

func (f *file) mutate(what string, c change) error {
	if err := f.check(what, c.off, c.n, true); err != nil {
		return err
	}
	b, o := f.b, f.o
	b.world.RLock()
	defer b.world.RUnlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if c.kind == drivers.OpPunch {
		c.n = min(c.n, o.content.size-c.off) // beyond is nothing
	}
	if c.n <= 0 {
		return nil
	}
	before := o.content.pages
	if c.kind != drivers.OpPunch && !o.unnamed {
		if n := o.content.missing(c.off, c.n); n > 0 {
			if err := b.take(n); err != nil {
				return fmt.Errorf("%s %s: %w", what, f.name, err)
			}
			before += n
		}
	}
	if !b.o.DurableWrites {
		if o.synced == nil {
			s := o.content.snapshot()
			o.synced = &s
		}
		o.log = append(o.log, c.image(&o.content, b.seq.Add(1)))
	}
	c.apply(&o.content, Everything())
	if !o.unnamed {
		b.used.Add(o.content.pages - before)
	}
	return nil
}

// Sync implements [drivers.Object].
func (f *file) Sync() error {
	if err := f.check("sync", 0, 0, false); err != nil {
		return err
	}
	f.b.world.RLock()
	defer f.b.world.RUnlock()
	f.o.mu.Lock()
	defer f.o.mu.Unlock()
	f.o.synced, f.o.log = nil, nil
	return nil
}

// DropCache implements [drivers.CacheDropper]. There is no cache.
func (f *file) DropCache() error { return f.check("drop cache", 0, 0, false) }

// Size implements [drivers.Object].
func (f *file) Size() (int64, error) {
	if err := f.check("size", 0, 0, false); err != nil {
		return 0, err
	}
	return f.o.info(f.name).Size, nil
}

// Close implements [drivers.Object].
func (f *file) Close() error {
	if f.closed.Swap(true) {
		return fmt.Errorf("close %s: %w", f.name, drivers.ErrClosed)
	}
	return nil
}

func sortInfos(infos []drivers.Info) {
	slices.SortFunc(infos, func(a, b drivers.Info) int { return cmp.Compare(a.Name, b.Name) })
}
