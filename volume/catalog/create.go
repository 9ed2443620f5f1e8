package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

// CreateOptions say what a new volume is like.
type CreateOptions struct {
	Size      int64 // bytes, a multiple of 512
	ChunkSize int64 // bytes; 0: 4 MiB
	// Keep is how long a creation that was suspended or cut off is kept, to be resumed; 0: no longer than its process lives.
	Keep time.Duration
	// Source says where the content comes from, for whoever resumes it: at most mapper.MaxSource bytes.
	Source []byte
}

// Create makes a volume of zeros. It fails with ErrExists if the name is taken.
func (p *Pool) Create(ctx context.Context, name string, o CreateOptions) (Info, error) {
	var info Info
	err := p.naming(ctx, name, func() error {
		h, err := p.begin(ctx, name, o)
		if err == nil {
			info, err = p.commit(ctx, h)
		}
		return err
	})
	if err != nil {
		return Info{}, doing(err, "create volume %s", name)
	}
	return info, nil
}

// begin makes a new volume that has the name but does not count yet, and holds it.
func (p *Pool) begin(ctx context.Context, name string, o CreateOptions) (*Held, error) {
	if o.ChunkSize == 0 {
		o.ChunkSize = chunk.DefaultSize
	}
	geom, err := chunk.NewGeometry(o.ChunkSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", drivers.ErrInvalid, err)
	}
	if err := checkSize(o.Size); err != nil {
		return nil, err
	}
	if len(o.Source) > mapper.MaxSource {
		return nil, tell(drivers.ErrInvalid, "source of %d bytes: at most %d", len(o.Source), mapper.MaxSource)
	}
	h, err := p.found(ctx, &mapper.Root{Name: name, Size: o.Size, Geometry: geom, Source: o.Source})
	if err != nil {
		return nil, err
	}
	err = p.reserve(ctx, name, h.id)
	if err == nil && o.Keep > 0 {
		// Not before it has the name, without which nobody would find it again.
		until := p.o.Now().Add(o.Keep)
		err = h.lease.Switch(ctx, func(r *mapper.Root) { r.Until = until })
	}
	if err != nil {
		return nil, h.undo(ctx, err)
	}
	return h, nil
}

func checkSize(size int64) error {
	if size <= 0 || size > mapper.MaxVolumeSize || size%chunk.SectorSize != 0 {
		return tell(drivers.ErrInvalid, "size %d: want a multiple of %d up to 4P", size, chunk.SectorSize)
	}
	return nil
}

// found makes the root of a new volume, in state creating, with a fresh id, and holds it.
func (p *Pool) found(ctx context.Context, root *mapper.Root) (*Held, error) {
	if mapper.PageCount(root.Geometry, root.Size) > mapper.MaxPages {
		return nil, tell(drivers.ErrInvalid, "size %d: too large for chunks of %d bytes: choose larger chunks", root.Size, root.Geometry.Size())
	}
	root.Volume, root.State, root.Created = chunk.NewVolumeID(), mapper.Creating, p.o.Now()
	root.Owners = append([]chunk.VolumeID{root.Volume}, root.Owners...)
	return p.make(ctx, root)
}

// make holds a volume by making its first root.
func (p *Pool) make(ctx context.Context, root *mapper.Root) (*Held, error) {
	e, err := p.enter(ctx, root.Volume)
	if err != nil {
		return nil, err
	}
	lease, err := p.instance.Create(ctx, root)
	if err != nil {
		p.leave(root.Volume, e)
		return nil, err
	}
	return &Held{pool: p, id: root.Volume, entry: e, lease: lease}, nil
}

// commit makes a volume live that is being created and has its name, and gives it back. If it fails the volume is removed.
func (p *Pool) commit(ctx context.Context, h *Held) (Info, error) {
	return p.commitWith(ctx, h, nil)
}

// commitWith is commit for a volume that is still to be copied from a source.
func (p *Pool) commitWith(ctx context.Context, h *Held, source []byte) (Info, error) {
	err := h.lease.Release(ctx, func(r *mapper.Root) { r.State, r.Until, r.Source = mapper.Live, time.Time{}, source })
	if err != nil {
		return Info{}, h.undo(ctx, err)
	}
	defer h.done(ctx)
	return p.describe(h.Root()), nil
}

// settleTime bounds how long an interrupted creation waits for the storage, before it is left to the next collection.
const settleTime = 30 * time.Second

// undo removes a volume that is being created and gives it back. It returns why.
func (h *Held) undo(ctx context.Context, why error) error {
	ctx = context.WithoutCancel(ctx)
	defer h.done(ctx)
	settling, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	if !h.freed(settling) || h.lease.Err() != nil {
		return why // what is left is found by the next collection
	}
	if err := h.scrap(ctx); err != nil {
		h.pool.log.Warn("unfinished volume is left for gc", "volume", h.id.String(), "err", err)
	}
	return why
}

// scrap removes a volume that is being created. Storage that the volume has filled is no hindrance.
func (h *Held) scrap(ctx context.Context) error {
	return h.pool.WithReserve(ctx, func() error {
		_, err := h.destroy(ctx, 0)
		return err
	})
}

// Creation is a volume that is being filled before anybody can see it. It ends with Commit, Suspend or Abort. It is for
// one goroutine.
type Creation struct {
	pool  *Pool
	id    chunk.VolumeID
	name  string
	keep  time.Duration
	held  *Held // of which the turn was given back
	lease *locking.Lease
	dev   *volume.Device
	ended bool

	source []byte // see Bind
}

// Begin makes a volume, to be filled through its device, that appears with Commit. The name is taken from now on.
func (p *Pool) Begin(ctx context.Context, name string, o CreateOptions) (*Creation, error) {
	var c *Creation
	err := p.naming(ctx, name, func() error {
		h, err := p.begin(ctx, name, o)
		if err != nil {
			return err
		}
		if c, err = h.creation(ctx); err != nil {
			return h.undo(ctx, err)
		}
		c.keep = o.Keep
		return nil
	})
	if err != nil {
		return nil, doing(err, "create volume %s", name)
	}
	return c, nil
}

// creation opens the device of a volume that is being created. The volume is the creation's then.
func (h *Held) creation(ctx context.Context) (*Creation, error) {
	dev, err := volume.Open(ctx, h.pool.config(h.id), kept{h.lease, h})
	if err != nil {
		return nil, err
	}
	c := &Creation{pool: h.pool, id: h.id, name: h.Root().Name, held: h, lease: h.lease, dev: dev}
	h.pool.opened(h.entry, dev, h.lease, nil)
	h.pool.leave(h.id, h.entry)
	return c, nil
}

// Device returns the device of the volume. It is closed by Commit, Suspend and Abort.
func (c *Creation) Device() *volume.Device { return c.dev }

// Commit makes all that was written durable and publishes the volume. If it fails, Abort is still to be called.
func (c *Creation) Commit(ctx context.Context) (Info, error) {
	h, err := c.close(ctx)
	if err == nil {
		var info Info
		if info, err = c.pool.commitWith(ctx, h, c.source); err == nil {
			return info, nil
		}
	} else if h != nil {
		err = h.undo(ctx, err)
	}
	return Info{}, doing(err, "create volume %s", c.name)
}

// Abort removes the volume with all that was written. After Commit or Suspend it does nothing.
func (c *Creation) Abort(ctx context.Context) error {
	if c.ended {
		return nil
	}
	h, err := c.close(ctx)
	if h == nil {
		return fmt.Errorf("give up volume %s: %w", c.name, err)
	}
	defer h.done(ctx)
	if !h.freed(ctx) {
		return fmt.Errorf("give up volume %s: %w: gc removes it once this process has ended", c.name, err)
	}
	// What the device could not write is not missed.
	if err := h.lease.Err(); err != nil {
		return fmt.Errorf("give up volume %s: %w: gc removes it", c.name, err)
	}
	if err := h.scrap(ctx); err != nil {
		return fmt.Errorf("give up volume %s: %w: gc removes it", c.name, err)
	}
	return nil
}

// close closes the device and holds the volume.
func (c *Creation) close(ctx context.Context) (*Held, error) {
	if c.ended {
		return nil, errors.New("ended before")
	}
	e, err := c.pool.enter(ctx, c.id)
	if err != nil {
		return nil, err
	}
	c.ended = true
	c.held.entry = e
	err = c.held.close(ctx, c.dev)
	c.pool.ended(c.id, e, c.lease)
	return c.held, err
}
