package faulty

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"skerry/drivers"
)

// Backend is a [drivers.Backend] whose calls go through a [Hook].
type Backend struct {
	drivers.Backend // the wrapped one
	hook            atomic.Pointer[Hook]
	calls           atomic.Int64
	inline          atomic.Bool

	mu   sync.Mutex
	held []Held
}

var (
	_ drivers.Backend    = (*Backend)(nil)
	_ drivers.Locker     = (*Backend)(nil)
	_ drivers.FileCloner = (*Backend)(nil)
)

// Wrap returns a backend that lets everything through until a hook is set. Closing it closes b.
func Wrap(b drivers.Backend) *Backend { return &Backend{Backend: b} }

// SetHook sets what decides about calls from now on; nil lets all through.
func (b *Backend) SetHook(h Hook) {
	if h == nil {
		b.hook.Store(nil)
		return
	}
	b.hook.Store(&h)
}

// SetInline says whether Try methods go through the hook, or say that they would block while one is set.
func (b *Backend) SetInline(on bool) { b.inline.Store(on) }

// Calls returns how many calls were made.
func (b *Backend) Calls() int64 { return b.calls.Load() }

// call numbers a call, asks the hook, and does what it says. do does the call; torn, which may be
// nil, does its first n sectors.
func (b *Backend) call(m Held, do func() error, torn func(n int) error) error {
	m.N = b.calls.Add(1)
	var a Action
	if h := b.hook.Load(); h != nil {
		a = (*h)(m.Call)
	}
	if a.Wait != nil {
		<-a.Wait
	}
	held := (a.late || a.again) && m.Kind.Mutates()
	var err error
	switch {
	case a.skip:
	case a.torn:
		if torn != nil {
			err = torn(a.sectors)
		}
	default:
		err = do()
		if a.twice {
			_ = do() // the first outcome is the answer
		}
	}
	if held {
		b.hold(m)
	}
	if a.Err != nil {
		return fmt.Errorf("%s: %w", m.Call, a.Err)
	}
	return err
}

// Open implements [drivers.Backend].
func (b *Backend) Open(ctx context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	var opened []drivers.Object
	kind := drivers.OpOpen
	if mode == drivers.Create {
		kind = drivers.OpCreate
	}
	err := b.call(Held{Call: Call{Kind: kind, Name: name}}, func() error {
		o, err := b.Backend.Open(ctx, name, mode)
		if err == nil {
			opened = append(opened, o)
		}
		return err
	}, nil)
	if err == nil && len(opened) > 0 {
		o := &object{Object: opened[0], b: b, name: name}
		opened = opened[1:]
		return o, closeAll(opened)
	}
	return nil, errors.Join(err, closeAll(opened))
}

// closeAll closes what nobody will use.
func closeAll(list []drivers.Object) error {
	var errs []error
	for _, o := range list {
		errs = append(errs, o.Close())
	}
	return errors.Join(errs...)
}

// Stat implements [drivers.Backend].
func (b *Backend) Stat(ctx context.Context, name string) (info drivers.Info, err error) {
	err = b.call(Held{Call: Call{Kind: drivers.OpStat, Name: name}}, func() (err error) {
		info, err = b.Backend.Stat(ctx, name)
		return err
	}, nil)
	return info, err
}

// Unlink implements [drivers.Backend].
func (b *Backend) Unlink(ctx context.Context, name string) error {
	return b.call(Held{Call: Call{Kind: drivers.OpUnlink, Name: name}}, func() error {
		return b.Backend.Unlink(ctx, name)
	}, nil)
}

// List implements [drivers.Backend].
func (b *Backend) List(ctx context.Context, group string, fn func(drivers.Info) error) error {
	return b.call(Held{Call: Call{Kind: drivers.OpList, Name: group}}, func() error {
		return b.Backend.List(ctx, group, fn)
	}, nil)
}

// Load implements [drivers.Backend].
func (b *Backend) Load(ctx context.Context, name string) (data []byte, err error) {
	err = b.call(Held{Call: Call{Kind: drivers.OpLoad, Name: name}}, func() (err error) {
		data, err = b.Backend.Load(ctx, name)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Replace implements [drivers.Backend].
func (b *Backend) Replace(ctx context.Context, name string, data []byte, cond drivers.Condition) error {
	m := Held{Call: Call{Kind: drivers.OpReplace, Name: name, Length: int64(len(data))}, data: data, cond: cond}
	return b.call(m, func() error { return b.Backend.Replace(ctx, name, data, cond) }, nil)
}

// SyncGroup implements [drivers.Backend].
func (b *Backend) SyncGroup(ctx context.Context, group string) error {
	return b.call(Held{Call: Call{Kind: drivers.OpSyncGroup, Name: group}}, func() error {
		return b.Backend.SyncGroup(ctx, group)
	}, nil)
}

// Lock implements [drivers.Locker]; errors.ErrUnsupported if the wrapped backend does not.
func (b *Backend) Lock(ctx context.Context, name string) (io.Closer, error) {
	l, ok := b.Backend.(drivers.Locker)
	if !ok {
		return nil, fmt.Errorf("lock %s: %w", name, errors.ErrUnsupported)
	}
	var lock io.Closer
	err := b.call(Held{Call: Call{Kind: drivers.OpLock, Name: name}}, func() error {
		got, err := l.Lock(ctx, name)
		if err == nil {
			lock = got
		}
		return err
	}, nil)
	if err != nil && lock != nil {
		err = errors.Join(err, lock.Close())
	}
	if err != nil {
		return nil, err
	}
	return lock, nil
}

// CloneFile implements [drivers.FileCloner]; errors.ErrUnsupported if the wrapped backend does not.
func (b *Backend) CloneFile(ctx context.Context, name string, f *os.File) error {
	c, ok := b.Backend.(drivers.FileCloner)
	if !ok {
		return fmt.Errorf("clone file to %s: %w", name, errors.ErrUnsupported)
	}
	return b.call(Held{Call: Call{Kind: drivers.OpCloneFile, Name: name}, file: f}, func() error {
		return c.CloneFile(ctx, name, f)
	}, nil)
}
