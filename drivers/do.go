package drivers

import (
	"errors"
	"fmt"
	"time"
)

// do calls the backend for op.
func (e *Engine) do(op *Op) error {
	switch op.Kind {
	case OpRead, OpWrite, OpPunch, OpAllocate, OpSync, OpOpen, OpDropCache:
		return e.doObject(op)
	case OpLock:
		l, ok := e.backend.(Locker)
		if !ok {
			return opError(op, errors.ErrUnsupported)
		}
		var err error
		op.Lock, err = l.Lock(e.ctx, string(op.Name))
		return err
	}
	name := string(op.Name)
	var err error
	if op.Kind.Mutates() {
		if err = guardError(op); err != nil {
			return opError(op, err)
		}
	}
	switch op.Kind {
	case OpCreate:
		return e.create(op, name)
	case OpStat:
		op.Info, err = e.backend.Stat(e.ctx, name)
	case OpUnlink:
		if err = e.backend.Unlink(e.ctx, name); err == nil {
			e.handles.drop(name)
		}
	case OpList:
		err = e.backend.List(e.ctx, name, op.Each)
	case OpLoad:
		op.Data, err = e.backend.Load(e.ctx, name)
	case OpReplace:
		if err = e.backend.Replace(e.ctx, name, op.Data, op.Cond); err == nil {
			e.handles.drop(name) // it shows what was replaced
		}
	case OpSyncGroup:
		err = e.backend.SyncGroup(e.ctx, name)
	case OpCloneFile:
		c, ok := e.backend.(FileCloner)
		if !ok {
			return opError(op, errors.ErrUnsupported)
		}
		err = c.CloneFile(e.ctx, name, op.File)
	}
	return err
}

// doObject does what needs an open object.
func (e *Engine) doObject(op *Op) error {
	if op.Kind == OpSync {
		if err := e.failed.get(op.Name); err != nil {
			return err
		}
	}
	h, err := e.handles.get(op)
	if err != nil {
		return err
	}
	switch op.Kind {
	case OpRead:
		err = h.obj.ReadAt(op.Data, op.Off)
	case OpSync:
		err = e.dirty.sync(h)
	case OpDropCache:
		if d, ok := h.obj.(CacheDropper); ok {
			err = unlessUnsupported(d.DropCache())
		}
		if e.handles.forget(h); err == nil {
			e.failed.forget(h.name) // what is read from now on is what the storage has
		}
	case OpWrite, OpPunch, OpAllocate:
		if err = e.beginChange(h, op.due); err == nil {
			if err = guardError(op); err == nil {
				err = e.change(h, op)
			} else {
				err = opError(op, err)
			}
			if e.handles.put(h, true) {
				return errors.Join(err, e.handles.close(h))
			}
			return err
		}
		err = opError(op, err)
	}
	if e.handles.put(h, false) {
		// The object is gone or unchanged: what its close says changes nothing.
		_ = e.handles.close(h)
	}
	return err
}

// change writes, punches or allocates.
func (e *Engine) change(h *handle, op *Op) error {
	switch op.Kind {
	case OpWrite:
		return h.obj.WriteAt(op.Data, op.Off)
	case OpAllocate:
		if a, ok := h.obj.(Allocator); ok {
			return unlessUnsupported(a.Allocate(op.Off, op.Length))
		}
		return nil
	}
	if p, ok := h.obj.(Puncher); ok {
		if err := p.PunchHole(op.Off, op.Length); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	size, err := h.obj.Size()
	if err != nil {
		return err
	}
	for off, end := op.Off, min(op.Off+op.Length, size); off < end; {
		n := min(end-off, int64(len(e.zeros)))
		if err := guardError(op); err != nil {
			return opError(op, err)
		}
		if err := h.obj.WriteAt(e.zeros[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
}

func unlessUnsupported(err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

// create makes an object and caches its handle. Others that need the name meanwhile wait for the outcome.
func (e *Engine) create(op *Op, name string) error {
	h := e.handles.claim(name)
	if err := e.handles.reserve(op.due); err != nil {
		e.handles.fail(h, errAgain)
		return opError(op, err)
	}
	err := guardError(op) // again: the wait may have been long
	var obj Object
	if err == nil {
		obj, err = e.backend.Open(e.ctx, name, Create)
	} else {
		err = opError(op, err)
	}
	if err != nil {
		e.handles.release()
		e.handles.fail(h, errAgain)
		return err
	}
	if h == nil {
		// An older handle of that name is cached: of an object that another process removed.
		e.handles.drop(name)
		if h = e.handles.claim(name); h == nil {
			e.handles.release()
			return obj.Close()
		}
	}
	e.handles.opened(h, obj, nil)
	if e.handles.put(h, false) {
		// It was removed meanwhile.
		_ = e.handles.close(h)
	}
	return nil
}

// open opens the object of a claimed handle.
func (e *Engine) open(h *handle, due time.Time) error {
	if err := e.handles.reserve(due); err != nil {
		e.handles.fail(h, errAgain)
		return fmt.Errorf("open %s: %w", h.name, err)
	}
	obj, err := e.backend.Open(e.ctx, h.name, ReadWrite)
	var readOnly error
	if errors.Is(err, ErrReadOnly) {
		readOnly = err
		obj, err = e.backend.Open(e.ctx, h.name, ReadOnly)
	}
	if err != nil {
		e.handles.release()
		e.handles.fail(h, err)
		return err
	}
	e.handles.opened(h, obj, readOnly)
	return nil
}
