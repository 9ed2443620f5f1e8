package catalog

import (
	"context"
	"errors"
	"sync"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

// Held is a volume that nobody but the caller changes until Done: the caller has its turn in the pool, and the
// pool has its lease, taken for this or because the volume is open. It is for one goroutine.
type Held struct {
	pool  *Pool
	id    chunk.VolumeID
	entry *entry
	lease *locking.Lease
	dev   *volume.Device  // nil: not open
	ended <-chan struct{} // of dev

	end struct {
		sync.Mutex
		abandoned bool          // by a device: release is to abandon the lease
		gaveUp    bool          // the close of a device has: it abandons the lease once the storage has let go, before or after release
		left      bool          // to that: release came first
		free      chan struct{} // closed when a device that gave up abandons the lease; nil: none gave up before it did
	}
}

// Hold takes a volume by its id, whatever its state. It fails as [locking.Instance.Acquire] does.
func (p *Pool) Hold(ctx context.Context, id chunk.VolumeID) (*Held, error) {
	e, err := p.enter(ctx, id)
	if err != nil {
		return nil, err
	}
	if lease := p.pinner(e); lease != nil {
		p.leave(id, e)
		root := lease.Root()
		return nil, &locking.HeldError{Volume: cloneName(root), Holder: root.Holder}
	}
	h := &Held{pool: p, id: id, entry: e}
	if h.dev, h.lease, h.ended = p.open(e); h.dev != nil {
		return h, nil
	}
	if h.lease, err = p.instance.Acquire(ctx, id); err == nil && h.lease.Claimed() {
		// The close of its device has given up, and leaves the lease alone as long as the storage may still be at work under it.
		root := h.lease.Root()
		err = &locking.HeldError{Volume: cloneName(root), Holder: root.Holder}
	}
	if err != nil {
		p.leave(id, e)
		return nil, err
	}
	return h, nil
}

// holdNamed takes a live volume by its name.
func (p *Pool) holdNamed(ctx context.Context, name string) (*Held, error) {
	for try := 1; ; try++ {
		id, _, err := p.lookup(ctx, name)
		if err != nil {
			return nil, err
		}
		h, err := p.Hold(ctx, id)
		if err != nil && !errors.Is(err, drivers.ErrNotFound) {
			return nil, err
		}
		if err == nil {
			// The root that was read before the grant may be an old one.
			counts, err := p.counts(ctx, name, h.Root())
			if err == nil && counts {
				return h, nil
			}
			if err := errors.Join(err, h.Done(ctx)); err != nil {
				return nil, err
			}
		}
		if try == tries {
			return nil, notFound(Ref{Volume: name})
		}
	}
}

// holding calls fn with a live volume: once more if the device that fn went through was closed meanwhile.
func (p *Pool) holding(ctx context.Context, name string, fn func(*Held) error) error {
	for try := 1; ; try++ {
		h, err := p.holdNamed(ctx, name)
		if err != nil {
			return err
		}
		err = fn(h)
		h.done(ctx)
		if try == tries || !h.Overtaken(ctx, err) {
			return err
		}
	}
}

// openHere says that this pool has a volume open, for what needs it closed.
func openHere(name string) error {
	return tell(ErrInUse, "volume %s: in use: this process has it open; close it first", name)
}

// unheld turns the error that a living process holds a volume into ErrInUse, for what is refused then.
func unheld(err error) error {
	var held *locking.HeldError
	if errors.As(err, &held) {
		return tell(ErrInUse, "%v", held)
	}
	return err
}

// Root returns a copy of the root in force.
func (h *Held) Root() *mapper.Root { return h.lease.Root() }

// Lease returns the lease under which the volume may be changed.
func (h *Held) Lease() *locking.Lease { return h.lease }

// Device returns the device if this pool has the volume open, else nil.
func (h *Held) Device() *volume.Device { return h.dev }

// Client returns a client whose mutations end with the lease.
func (h *Held) Client(lane drivers.Lane) drivers.Client {
	return h.pool.engine.Client(lane, tenant(h.id), h.lease)
}

// Done gives the volume back. A lease that was taken for this is released.
func (h *Held) Done(ctx context.Context) error {
	defer h.pool.leave(h.id, h.entry)
	return h.release(ctx, nil)
}

// release ends a lease that was taken for this, with a last change of the root.
func (h *Held) release(ctx context.Context, change func(*mapper.Root)) error {
	if h.dev != nil || h.lease.Err() != nil {
		return nil
	}
	h.end.Lock()
	abandoned := h.end.abandoned
	h.end.left = h.end.gaveUp && !abandoned
	left := h.end.left
	h.end.Unlock()
	if abandoned {
		h.lease.Abandon()
	}
	if abandoned || left {
		return nil
	}
	// The lease goes back even if the caller has given up.
	if err := h.lease.Release(context.WithoutCancel(ctx), change); err != nil {
		h.lease.Abandon()
		return err
	}
	return nil
}

// Overtaken reports whether err, of something that was done under h and is over, says only that the device of the volume was closed
// meanwhile. Then it waits for the end of that, so that the volume can be held anew.
func (h *Held) Overtaken(ctx context.Context, err error) bool {
	if h.dev == nil || !errors.Is(err, volume.ErrClosed) && !errors.Is(err, locking.ErrReleased) {
		return false
	}
	select {
	case <-h.ended:
		return true
	case <-ctx.Done():
		return false
	}
}

// done is Done for what has succeeded or failed otherwise: the next to take the volume finds it unclean.
func (h *Held) done(ctx context.Context) {
	if err := h.Done(ctx); err != nil {
		h.pool.log.Warn("lease not released", "volume", h.id.String(), "err", err)
	}
}

// device calls fn with a device of the volume: the open one, or one that is opened for it and closed after it.
func (h *Held) device(ctx context.Context, fn func(*volume.Device) error) error {
	if h.dev != nil {
		return fn(h.dev)
	}
	config, lease, b, err := h.pool.attach(ctx, h.Root(), kept{h.lease, h})
	if err != nil {
		return err
	}
	dev, err := volume.Open(ctx, config, lease)
	if err != nil {
		b.end()
		return err // names the volume
	}
	return errors.Join(fn(dev), h.close(ctx, dev))
}

// close closes a device that was opened under a [kept] lease.
func (h *Held) close(ctx context.Context, dev *volume.Device) error {
	err := dev.Close(ctx)
	if err != nil {
		h.end.Lock()
		defer h.end.Unlock()
		if h.end.gaveUp = true; !h.end.abandoned {
			h.end.free = make(chan struct{})
		}
	}
	return err
}

// freed waits until a device whose close has given up has no operation under way any more, at longest until ctx ends, and reports whether
// it has none. Before that nothing may be done to the volume.
func (h *Held) freed(ctx context.Context) bool {
	h.end.Lock()
	free := h.end.free
	h.end.Unlock()
	if free == nil {
		return true
	}
	select {
	case <-free:
		return true
	default:
	}
	select {
	case <-free:
		return true
	case <-ctx.Done():
		return false
	}
}

// abandon says that the lease is not to be released as if all were well: by release, or if that is over, at once.
func (h *Held) abandon() {
	h.end.Lock()
	if h.end.free != nil && !h.end.abandoned {
		close(h.end.free)
	}
	h.end.abandoned = true
	left := h.end.left
	h.end.Unlock()
	if left {
		h.lease.Abandon()
	}
}

// kept is a lease that outlives its device.
type kept struct {
	*locking.Lease
	h *Held
}

// Release implements [volume.Lease].
func (k kept) Release(ctx context.Context, change func(*mapper.Root)) error {
	if change == nil {
		return nil
	}
	return k.Switch(ctx, change)
}

// Abandon implements [volume.Lease].
func (k kept) Abandon() { k.h.abandon() }
