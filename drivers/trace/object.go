package trace

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

// tell writes the line of a call with a range and returns its error.
func (o *object) tell(kind drivers.Kind, off, n int64, err error) error {
	o.b.tell(kind, o.name, fmt.Sprintf("%d+%d", off, n), err)
	return err
}

func (o *object) unsupported(kind drivers.Kind) error {
	return fmt.Errorf("%s %s: %w", kind, o.name, errors.ErrUnsupported)
}

// ReadAt implements [drivers.Object].
func (o *object) ReadAt(p []byte, off int64) error {
	return o.tell(drivers.OpRead, off, int64(len(p)), o.Object.ReadAt(p, off))
}

// WriteAt implements [drivers.Object].
func (o *object) WriteAt(p []byte, off int64) error {
	return o.tell(drivers.OpWrite, off, int64(len(p)), o.Object.WriteAt(p, off))
}

// Sync implements [drivers.Object].
func (o *object) Sync() error {
	err := o.Object.Sync()
	o.b.tell(drivers.OpSync, o.name, "", err)
	return err
}

// PunchHole implements [drivers.Puncher].
func (o *object) PunchHole(off, n int64) error {
	p, ok := o.Object.(drivers.Puncher)
	if !ok {
		return o.unsupported(drivers.OpPunch)
	}
	return o.tell(drivers.OpPunch, off, n, p.PunchHole(off, n))
}

// Allocate implements [drivers.Allocator].
func (o *object) Allocate(off, n int64) error {
	a, ok := o.Object.(drivers.Allocator)
	if !ok {
		return o.unsupported(drivers.OpAllocate)
	}
	return o.tell(drivers.OpAllocate, off, n, a.Allocate(off, n))
}

// DropCache implements [drivers.CacheDropper].
func (o *object) DropCache() error {
	d, ok := o.Object.(drivers.CacheDropper)
	if !ok {
		return o.unsupported(drivers.OpDropCache)
	}
	err := d.DropCache()
	o.b.tell(drivers.OpDropCache, o.name, "", err)
	return err
}

// TryReadAt implements [drivers.TryReader].
func (o *object) TryReadAt(p []byte, off int64) (bool, error) {
	t, ok := o.Object.(drivers.TryReader)
	if !ok {
		return false, nil
	}
	done, err := t.TryReadAt(p, off)
	if done {
		err = o.tell(drivers.OpRead, off, int64(len(p)), err)
	}
	return done, err
}

// TryWriteAt implements [drivers.TryWriter].
func (o *object) TryWriteAt(p []byte, off int64) (bool, error) {
	t, ok := o.Object.(drivers.TryWriter)
	if !ok {
		return false, nil
	}
	done, err := t.TryWriteAt(p, off)
	if done {
		err = o.tell(drivers.OpWrite, off, int64(len(p)), err)
	}
	return done, err
}
