package catalog

import (
	"context"
	"math"

	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume"
)

// ResizeOptions say what size a volume gets.
type ResizeOptions struct {
	Size   int64 // bytes, a multiple of 512
	By     bool  // Size is added to the size that the volume has; it may be negative
	Shrink bool  // the volume may become smaller: what lies beyond the new end is lost
}

// of returns the new size of a volume.
func (o ResizeOptions) of(root *mapper.Root) (int64, error) {
	size := o.Size
	if o.By {
		if size > math.MaxInt64-root.Size {
			return 0, tell(drivers.ErrInvalid, "volume %s: too large", root.Name)
		}
		if size += root.Size; size <= 0 {
			return 0, tell(drivers.ErrInvalid, "volume %s: it has %d bytes: it cannot lose %d", root.Name, root.Size, -o.Size)
		}
	}
	if err := checkSize(size); err != nil {
		return 0, err
	}
	if mapper.PageCount(root.Geometry, size) > mapper.MaxPages {
		return 0, tell(drivers.ErrInvalid, "volume %s: %d bytes are too large for its chunks of %d bytes", root.Name, size, root.Geometry.Size())
	}
	if size < root.Size && !o.Shrink {
		return 0, tell(drivers.ErrInvalid, "volume %s: it has %d bytes: what lies beyond %d would be lost; say --allow-shrink if that is meant", root.Name, root.Size, size)
	}
	return size, nil
}

// Resize makes a volume larger or smaller; see [volume.Device.Resize]. It goes through the device if this pool has the volume open, and
// fails with a [locking.HeldError] if another process has. A volume that is open becomes larger only: else the error is ErrInUse.
func (p *Pool) Resize(ctx context.Context, name string, o ResizeOptions) (Info, error) {
	var info Info
	// It may be to have less in full storage.
	err := p.WithReserve(ctx, func() (err error) {
		info, err = p.resize(ctx, name, o)
		return err
	})
	if err != nil {
		return Info{}, doing(err, "resize volume %s", name)
	}
	return info, nil
}

func (p *Pool) resize(ctx context.Context, name string, o ResizeOptions) (info Info, err error) {
	_, root, err := p.lookup(ctx, name)
	if err != nil {
		return Info{}, err
	}
	size, err := o.of(root)
	if err != nil {
		return Info{}, err
	}
	err = p.holding(ctx, name, func(h *Held) error {
		root := h.Root()
		if size, err = o.of(root); err != nil {
			return err
		}
		if size < root.Size && h.dev != nil {
			return openHere(name)
		}
		if size != root.Size {
			if err := h.device(ctx, func(dev *volume.Device) error { return dev.Resize(ctx, size) }); err != nil {
				return err
			}
		}
		info, err = p.full(ctx, h.Root())
		return err
	})
	if size < root.Size {
		err = unheld(err)
	}
	return info, err
}
