package catalog

import (
	"context"
	"errors"

	"skerry/chunk"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

// OpenVolume leases a volume and opens it for reading and writing. The device is the caller's to close; the pool remembers it
// until then, and Snapshot, Clone and the removal of snapshots go through it. One device is open at a time: opening it again in this
// pool fails with ErrInUse, in another process with a [locking.HeldError].
func (p *Pool) OpenVolume(ctx context.Context, name string) (*volume.Device, error) {
	var dev *volume.Device
	err := p.WithReserve(ctx, func() (err error) {
		dev, err = p.openVolume(ctx, name)
		return err
	})
	if err != nil {
		return nil, doing(err, "open volume %s", name)
	}
	return dev, nil
}

func (p *Pool) openVolume(ctx context.Context, name string) (*volume.Device, error) {
	h, err := p.holdNamed(ctx, name)
	if err != nil {
		return nil, err
	}
	if h.dev != nil {
		h.done(ctx)
		return nil, tell(ErrInUse, "volume %s: in use: this process has it open", name)
	}
	return h.open(ctx)
}

// open opens the held volume, which is not open, and gives it back: from now on its device holds it.
func (h *Held) open(ctx context.Context) (*volume.Device, error) {
	p := h.pool
	defer p.leave(h.id, h.entry)
	config, lease, b, err := p.attach(ctx, h.Root(), tracked{h.lease, p, h.id, h.entry})
	if err != nil {
		return nil, errors.Join(err, h.release(ctx, nil))
	}
	dev, err := volume.Open(ctx, config, lease)
	if err != nil {
		b.end()
		return nil, err
	}
	p.opened(h.entry, dev, h.lease, b)
	return dev, nil
}

// tracked is the lease of a device that the pool forgets with it.
type tracked struct {
	*locking.Lease
	pool  *Pool
	id    chunk.VolumeID
	entry *entry
}

// Release implements [volume.Lease].
func (t tracked) Release(ctx context.Context, change func(*mapper.Root)) error {
	err := t.Lease.Release(ctx, change)
	if t.Err() != nil {
		t.pool.ended(t.id, t.entry, t.Lease)
	}
	return err
}

// Abandon implements [volume.Lease].
func (t tracked) Abandon() {
	t.Lease.Abandon()
	t.pool.ended(t.id, t.entry, t.Lease)
}

// OpenSnapshot opens a snapshot for reading. It needs no lease. Until the device, which is the caller's to close, is closed or the
// process ends the snapshot is not removed, provided that the pool can be written.
func (p *Pool) OpenSnapshot(ctx context.Context, r Ref) (*volume.Device, error) {
	_, s, err := p.findSnapshot(ctx, r)
	if err == nil && s.Deleting {
		err = removing(r)
	}
	var dev *volume.Device
	if err == nil {
		dev, err = p.openKnown(ctx, s, r)
	}
	if err != nil {
		return nil, doing(err, "open snapshot %v", r)
	}
	return dev, nil
}

func (p *Pool) openKnown(ctx context.Context, s *mapper.Snapshot, r Ref) (*volume.Device, error) {
	end, err := p.reading(ctx, s, r)
	if err != nil {
		return nil, err
	}
	c := p.config(s.Volume)
	c.Closed = end
	dev, err := volume.OpenSnapshot(ctx, c, s)
	if err != nil {
		end(ctx)
	}
	return dev, err
}
