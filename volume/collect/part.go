package collect

import (
	"context"
	"fmt"

	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// Part ends the tie of a volume to its parent if neither its present state nor a snapshot reaches anything that came before it, as every
// collection of the volume does. It reports whether the volume has no parent then. It fails with a [locking.HeldError] if another process holds
// the volume.
func Part(ctx context.Context, p *catalog.Pool, name string) (parted bool, err error) {
	c := &collector{p: p, client: p.Engine().Client(drivers.LaneBackground, 0, nil)}
	for try := 1; ; try++ {
		id, err := p.Lookup(ctx, name)
		if err != nil {
			return false, err
		}
		h, err := p.Hold(ctx, id)
		if err != nil {
			return false, err
		}
		parted, err = c.part(ctx, h)
		if doneErr := h.Done(ctx); err == nil {
			err = doneErr
		}
		if try == looks || !h.Overtaken(ctx, err) {
			if err != nil {
				return false, fmt.Errorf("part volume %s from its parent: %w", name, err)
			}
			return parted, nil
		}
	}
}

func (c *collector) part(ctx context.Context, h *catalog.Held) (bool, error) {
	root := h.Root()
	if root.State != mapper.Live {
		return false, nil // it was removed meanwhile
	}
	if root.Parent.Volume.IsZero() {
		return true, nil
	}
	r, err := c.reached(ctx, h)
	if err != nil || r.inherits {
		return false, err
	}
	return true, h.Part(ctx)
}
