package faulty

import (
	"context"
	"errors"
	"fmt"
	"os"

	"skerry/drivers"
)

// Held is a mutation that was held back, or a copy of one that was done.
type Held struct {
	Call
	data []byte
	cond drivers.Condition
	file *os.File // of a clone; its owner keeps it open until the delivery
}

// Deliver does the mutation on a backend, which may be another one than the call was made on, as after a crash.
// It may be called several times.
func (h Held) Deliver(ctx context.Context, to drivers.Backend) error {
	switch h.Kind {
	case drivers.OpUnlink:
		return to.Unlink(ctx, h.Name)
	case drivers.OpReplace:
		return to.Replace(ctx, h.Name, h.data, h.cond)
	case drivers.OpCreate:
		o, err := to.Open(ctx, h.Name, drivers.Create)
		if err != nil {
			return err
		}
		return o.Close()
	case drivers.OpCloneFile:
		c, ok := to.(drivers.FileCloner)
		if !ok {
			return fmt.Errorf("deliver %s: %w", h.Call, errors.ErrUnsupported)
		}
		return c.CloneFile(ctx, h.Name, h.file)
	}
	o, err := to.Open(ctx, h.Name, drivers.ReadWrite)
	if err != nil {
		return err
	}
	switch h.Kind {
	case drivers.OpWrite:
		err = o.WriteAt(h.data, h.Off)
	case drivers.OpPunch:
		if p, ok := o.(drivers.Puncher); ok {
			err = p.PunchHole(h.Off, h.Length)
		}
	case drivers.OpAllocate:
		if a, ok := o.(drivers.Allocator); ok {
			err = a.Allocate(h.Off, h.Length)
		}
	default:
		err = fmt.Errorf("deliver %s: %w", h.Call, errors.ErrUnsupported)
	}
	return errors.Join(err, o.Close())
}

// TakeHeld returns the mutations held so far, in order, and forgets them.
func (b *Backend) TakeHeld() []Held {
	b.mu.Lock()
	defer b.mu.Unlock()
	held := b.held
	b.held = nil
	return held
}

// Deliver does all held mutations in order on the wrapped backend.
func (b *Backend) Deliver(ctx context.Context) error {
	var errs []error
	for _, h := range b.TakeHeld() {
		if err := h.Deliver(ctx, b.Backend); err != nil {
			errs = append(errs, fmt.Errorf("deliver %s: %w", h.Call, err))
		}
	}
	return errors.Join(errs...)
}

func (b *Backend) hold(h Held) {
	h.data = append([]byte(nil), h.data...)
	h.cond.Prefix = append([]byte(nil), h.cond.Prefix...)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = append(b.held, h)
}
