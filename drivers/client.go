package drivers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Client does operations on an [Engine] one at a time, for code that waits. It is a value: copies differ
// in nothing. Its methods may be called concurrently.
//
// ReadAt and WriteAt return only when the backend no longer uses the buffer; ctx can end them before they are
// handed to the backend, not after. The other methods copy what they need and return at
// the end of ctx: with an error that matches [ErrUnavailable] and ctx's own, and for a mutation that was handed to the
// backend also [ErrUnknownOutcome].
type Client struct {
	Engine *Engine
	Lane   Lane
	Tenant uint64
	Guard  Guard // asked before each mutation; may be nil
}

// Client returns a client of this engine.
func (e *Engine) Client(lane Lane, tenant uint64, guard Guard) Client {
	return Client{Engine: e, Lane: lane, Tenant: tenant, Guard: guard}
}

// WithLane returns a client that differs in its lane.
func (c Client) WithLane(l Lane) Client {
	c.Lane = l
	return c
}

// ReadAt fills p from offset off of the object; bytes past its end read as zero.
func (c Client) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	return c.transfer(ctx, OpRead, name, p, off)
}

// WriteAt writes all of p at offset off of the object.
func (c Client) WriteAt(ctx context.Context, name string, p []byte, off int64) error {
	return c.transfer(ctx, OpWrite, name, p, off)
}

// PunchHole makes [off, off+n) of the object read as zero.
func (c Client) PunchHole(ctx context.Context, name string, off, n int64) error {
	k := c.call(OpPunch, name)
	k.Off, k.Length = off, n
	return c.end(ctx, k)
}

// Allocate reserves space for [off, off+n) of the object, where the backend can.
func (c Client) Allocate(ctx context.Context, name string, off, n int64) error {
	k := c.call(OpAllocate, name)
	k.Off, k.Length = off, n
	return c.end(ctx, k)
}

// Sync makes the object's content durable. Once it has failed, it fails for ever.
func (c Client) Sync(ctx context.Context, name string) error {
	return c.end(ctx, c.call(OpSync, name))
}

// Create makes the object exclusively.
func (c Client) Create(ctx context.Context, name string) error {
	return c.end(ctx, c.call(OpCreate, name))
}

// Open makes sure that the object exists, and keeps it open.
func (c Client) Open(ctx context.Context, name string) error {
	return c.end(ctx, c.call(OpOpen, name))
}

// Stat returns the facts of the object.
func (c Client) Stat(ctx context.Context, name string) (Info, error) {
	k, err := c.wait(ctx, c.call(OpStat, name))
	if err != nil {
		return Info{}, err
	}
	info := k.Info
	c.recycle(k)
	return info, nil
}

// Unlink removes the name.
func (c Client) Unlink(ctx context.Context, name string) error {
	return c.end(ctx, c.call(OpUnlink, name))
}

// Load returns the content of a small object.
func (c Client) Load(ctx context.Context, name string) ([]byte, error) {
	k, err := c.wait(ctx, c.call(OpLoad, name))
	if err != nil {
		return nil, err
	}
	data := k.Data
	c.recycle(k)
	return data, nil
}

// Replace sets the content of a small object, durably, if cond holds.
func (c Client) Replace(ctx context.Context, name string, data []byte, cond Condition) error {
	k := c.call(OpReplace, name)
	k.Data = append([]byte(nil), data...)
	k.Cond = Condition{Absent: cond.Absent, Prefix: append([]byte(nil), cond.Prefix...)}
	return c.end(ctx, k)
}

// SyncGroup makes the names of the group durable.
func (c Client) SyncGroup(ctx context.Context, group string) error {
	return c.end(ctx, c.call(OpSyncGroup, group))
}

// DropCache forgets the cached clean data of the object, and its handle.
func (c Client) DropCache(ctx context.Context, name string) error {
	return c.end(ctx, c.call(OpDropCache, name))
}

// List calls fn for every object below group, on the caller's goroutine, until fn returns an error. What
// the backend lists before fn has taken it is kept in memory; so fn may use the engine, and a
// slow fn holds no worker.
func (c Client) List(ctx context.Context, group string, fn func(Info) error) error {
	type state struct {
		mu    sync.Mutex
		infos []Info
		ended bool
	}
	var (
		s    state
		more = make(chan struct{}, 1)
		stop = errors.New("list was given up")
	)
	k := c.call(OpList, group)
	k.Each = func(i Info) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ended {
			return stop
		}
		s.infos = append(s.infos, i)
		select {
		case more <- struct{}{}:
		default:
		}
		return nil
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = true
	}()
	take := func() error {
		s.mu.Lock()
		infos := s.infos
		s.infos = nil
		s.mu.Unlock()
		for _, i := range infos {
			if err := fn(i); err != nil {
				return err
			}
		}
		return nil
	}
	if c.Engine.submit(&k.Op, ctx.Done(), false) {
		err := withdrawn(ctx, k, k.Err)
		c.recycle(k)
		return err
	}
	for {
		select {
		case <-more:
			if err := take(); err != nil {
				return err
			}
		case <-k.done:
			err := k.Err
			c.recycle(k)
			return errors.Join(take(), err)
		case <-ctx.Done():
			return c.abandon(ctx, k)
		}
	}
}

// Lock makes the object if it is missing and locks it until the result is closed. It fails
// with [ErrLocked] if it is locked, with errors.ErrUnsupported if the backend has no locks.
func (e *Engine) Lock(ctx context.Context, name string) (io.Closer, error) {
	c := e.Client(LaneLease, 0, nil)
	k, err := c.wait(ctx, c.call(OpLock, name))
	if err != nil {
		return nil, err
	}
	l := k.Lock
	c.recycle(k)
	return l, nil
}

// call is an operation with someone who may wait for it.
type call struct {
	Op
	done chan struct{} // one send

	mu        sync.Mutex // Locks only
	abandoned bool
	ended     bool
}

// Complete implements [Completer].
func (k *call) Complete(op *Op) {
	if op.Kind == OpLock {
		k.mu.Lock()
		k.ended = true
		free := k.abandoned && op.Lock != nil
		k.mu.Unlock()
		if free {
			_ = op.Lock.Close() // nobody asked for it any more
		}
	}
	k.done <- struct{}{}
}

func (c Client) call(kind Kind, name string) *call {
	k, _ := c.Engine.calls.Get().(*call)
	if k == nil {
		k = &call{done: make(chan struct{}, 1)}
		k.Done = k
	}
	k.Kind, k.Lane, k.Tenant, k.Guard = kind, c.Lane, c.Tenant, c.Guard
	k.Name = append(k.Scratch[:0], name...)
	return k
}

// recycle takes back a call that has ended.
func (c Client) recycle(k *call) {
	k.Name, k.Data, k.Cond, k.Each, k.File, k.Guard, k.Err, k.Info, k.Lock = nil, nil, Condition{}, nil, nil, nil, nil, Info{}, nil
	k.ended = false
	c.Engine.calls.Put(k)
}

// transfer does a read or write, whose buffer is the caller's.
func (c Client) transfer(ctx context.Context, kind Kind, name string, p []byte, off int64) error {
	k := c.call(kind, name)
	k.Data, k.Off = p, off
	if err := ctx.Err(); err != nil {
		k.Err = withdrawn(ctx, k, errWithdrawn)
	} else if c.Engine.submit(&k.Op, ctx.Done(), ctx.Done() == nil) {
		k.Err = withdrawn(ctx, k, k.Err)
	} else {
		select {
		case <-k.done:
		case <-ctx.Done():
			if k.queue.withdraw(&k.Op) {
				k.Err = withdrawn(ctx, k, errWithdrawn)
			} else {
				<-k.done
			}
		}
	}
	err := k.Err
	c.recycle(k)
	return err
}

// end does k and returns its outcome.
func (c Client) end(ctx context.Context, k *call) error {
	k, err := c.wait(ctx, k)
	if err == nil {
		c.recycle(k)
	}
	return err
}

// wait does k. It returns k, for the caller to recycle, or an error.
func (c Client) wait(ctx context.Context, k *call) (*call, error) {
	if ctx.Err() != nil {
		k.Err = withdrawn(ctx, k, errWithdrawn)
	} else if c.Engine.submit(&k.Op, ctx.Done(), ctx.Done() == nil) {
		k.Err = withdrawn(ctx, k, k.Err)
	} else {
		select {
		case <-k.done:
		case <-ctx.Done():
			select {
			case <-k.done: // both: the outcome is known
			default:
				return nil, c.abandon(ctx, k)
			}
		}
	}
	if err := k.Err; err != nil {
		c.recycle(k)
		return nil, err
	}
	return k, nil
}

// abandon stops waiting for k at ctx's end. If the backend has it, the engine keeps it.
func (c Client) abandon(ctx context.Context, k *call) error {
	kind, name := k.Kind, string(k.Name)
	if k.queue.withdraw(&k.Op) {
		err := withdrawn(ctx, k, errWithdrawn)
		c.recycle(k)
		return err
	}
	if kind == OpLock {
		k.mu.Lock()
		k.abandoned = true
		late := k.ended
		k.mu.Unlock()
		if late && k.Lock != nil {
			_ = k.Lock.Close() // nobody asked for it any more
		}
	}
	if kind.Mutates() {
		return fmt.Errorf("%s %s: %w: %w: %w", kind, name, ErrUnavailable, ErrUnknownOutcome, context.Cause(ctx))
	}
	return fmt.Errorf("%s %s: %w: %w", kind, name, ErrUnavailable, context.Cause(ctx))
}

// withdrawn makes the caller's error of the one that says that the operation never reached the backend.
func withdrawn(ctx context.Context, k *call, err error) error {
	if !errors.Is(err, errWithdrawn) {
		return err
	}
	return fmt.Errorf("%s %s: %w: %w", k.Kind, k.Name, ErrUnavailable, context.Cause(ctx))
}
