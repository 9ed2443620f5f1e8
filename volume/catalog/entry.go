package catalog

import (
	"context"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/volume"
)

// entry is what this pool knows of a volume that it works on or has open.
type entry struct {
	turn  chan struct{} // has room for the one whose turn it is
	users int           // guarded by Pool.mu, like all below

	dev   *volume.Device // open for writing
	lease *locking.Lease // of dev
	bound *bound         // the same, if the volume of dev has a source
	ended chan struct{}  // closed when dev has given up lease

	pin *locking.Lease // of a pin that is in use here
}

// enter waits for the turn of a volume.
func (p *Pool) enter(ctx context.Context, id chunk.VolumeID) (*entry, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, drivers.ErrClosed
	}
	e := p.entries[id]
	if e == nil {
		e = &entry{turn: make(chan struct{}, 1)}
		p.entries[id] = e
	}
	e.users++
	p.mu.Unlock()
	select {
	case e.turn <- struct{}{}: // whatever ctx says: something may have to be given back
		return e, nil
	default:
	}
	select {
	case e.turn <- struct{}{}:
		return e, nil
	case <-ctx.Done():
		p.forget(id, e)
		return nil, ctx.Err()
	}
}

// leave gives the turn back.
func (p *Pool) leave(id chunk.VolumeID, e *entry) {
	<-e.turn
	p.forget(id, e)
}

func (p *Pool) forget(id chunk.VolumeID, e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.users--
	if e.users == 0 && e.dev == nil && e.pin == nil {
		delete(p.entries, id)
	}
}

// opened remembers the open device of a volume.
func (p *Pool) opened(e *entry, dev *volume.Device, lease *locking.Lease, b *bound) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.dev, e.lease, e.bound, e.ended = dev, lease, b, make(chan struct{})
}

// ended forgets the device whose lease has ended.
func (p *Pool) ended(id chunk.VolumeID, e *entry, lease *locking.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.lease != lease {
		return
	}
	close(e.ended)
	e.dev, e.lease, e.bound, e.ended = nil, nil, nil, nil
	if e.users == 0 {
		delete(p.entries, id)
	}
}

// open returns the device of a volume, if this pool has it open.
func (p *Pool) open(e *entry) (*volume.Device, *locking.Lease, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.dev, e.lease, e.ended
}

// pinned remembers that a pin is in use here, or with nil that it no longer is.
func (p *Pool) pinned(e *entry, lease *locking.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.pin = lease
}

// pinner returns the lease of a pin that is in use here.
func (p *Pool) pinner(e *entry) *locking.Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.pin
}
