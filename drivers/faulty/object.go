package faulty

import (
	"errors"
	"fmt"

	"skerry/drivers"
)

// object has every ability; it answers errors.ErrUnsupported, or that it would block, for those that the wrapped object lacks.
type object struct {
	drivers.Object
	b    *Backend
	name string
}

var (
	_ drivers.Puncher      = (*object)(nil)
	_ drivers.Allocator    = (*object)(nil)
	_ drivers.CacheDropper = (*object)(nil)
	_ drivers.TryReader    = (*object)(nil)
	_ drivers.TryWriter    = (*object)(nil)
)

func (o *object) call(kind drivers.Kind, off, n int64) Held {
	return Held{Call: Call{Kind: kind, Name: o.name, Off: off, Length: n}}
}

func (o *object) unsupported(kind drivers.Kind) error {
	return fmt.Errorf("%s %s: %w", kind, o.name, errors.ErrUnsupported)
}

// ReadAt implements [drivers.Object].
func (o *object) ReadAt(p []byte, off int64) error {
	return o.b.call(o.call(drivers.OpRead, off, int64(len(p))), func() error { return o.Object.ReadAt(p, off) }, nil)
}

// WriteAt implements [drivers.Object].
func (o *object) WriteAt(p []byte, off int64) error {
	m := o.call(drivers.OpWrite, off, int64(len(p)))
	m.data = p
	return o.b.call(m, func() error { return o.Object.WriteAt(p, off) }, func(n int) error {
		end := (off/SectorSize+int64(n))*SectorSize - off
		if n <= 0 || end <= 0 {
			return nil
		}
		return o.Object.WriteAt(p[:min(end, int64(len(p)))], off)
	})
}

// Sync implements [drivers.Object].
func (o *object) Sync() error { return o.b.call(o.call(drivers.OpSync, 0, 0), o.Object.Sync, nil) }

// PunchHole implements [drivers.Puncher].
func (o *object) PunchHole(off, n int64) error {
	p, ok := o.Object.(drivers.Puncher)
	if !ok {
		return o.unsupported(drivers.OpPunch)
	}
	return o.b.call(o.call(drivers.OpPunch, off, n), func() error { return p.PunchHole(off, n) }, nil)
}

// Allocate implements [drivers.Allocator].
func (o *object) Allocate(off, n int64) error {
	a, ok := o.Object.(drivers.Allocator)
	if !ok {
		return o.unsupported(drivers.OpAllocate)
	}
	return o.b.call(o.call(drivers.OpAllocate, off, n), func() error { return a.Allocate(off, n) }, nil)
}

// DropCache implements [drivers.CacheDropper].
func (o *object) DropCache() error {
	d, ok := o.Object.(drivers.CacheDropper)
	if !ok {
		return o.unsupported(drivers.OpDropCache)
	}
	return o.b.call(o.call(drivers.OpDropCache, 0, 0), d.DropCache, nil)
}

// TryReadAt implements [drivers.TryReader].
func (o *object) TryReadAt(p []byte, off int64) (bool, error) {
	t, ok := o.Object.(drivers.TryReader)
	if !ok {
		return false, nil
	}
	if o.b.hook.Load() != nil {
		if !o.b.inline.Load() {
			return false, nil
		}
		return true, o.ReadAt(p, off)
	}
	done, err := t.TryReadAt(p, off)
	if done {
		o.b.calls.Add(1)
	}
	return done, err
}

// TryWriteAt implements [drivers.TryWriter].
func (o *object) TryWriteAt(p []byte, off int64) (bool, error) {
	t, ok := o.Object.(drivers.TryWriter)
	if !ok {
		return false, nil
	}
	if o.b.hook.Load() != nil {
		if !o.b.inline.Load() {
			return false, nil
		}
		return true, o.WriteAt(p, off)
	}
	done, err := t.TryWriteAt(p, off)
	if done {
		o.b.calls.Add(1)
	}
	return done, err
}
