package volume

import (
	"context"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// adoptPages is how many map pages are changed by Adopt before they are stored, which bounds the memory that they take.
const adoptPages = 1024

// Adopt makes one object of another volume, of this serial in each chunk, all the content of the chunks [first, end). They must be
// zeros, and nobody else may use them before Adopt returns. No journal tells of it: it holds only once the device was closed
// cleanly, or after a cut.
func (d *Device) Adopt(ctx context.Context, owner chunk.VolumeID, serial chunk.Serial, first, end uint64) error {
	if d.lease == nil {
		return ErrReadOnly
	}
	if end > d.geom.Count(d.Size()) {
		return fmt.Errorf("%w: chunk %d of %d", ErrOutOfRange, end-1, d.geom.Count(d.Size()))
	}
	slot := d.grace.enter()
	defer d.grace.leave(slot)
	for first < end {
		next := min(end, (first/mapper.PageChunks+1)*mapper.PageChunks)
		if err := d.adopt(ctx, owner, serial, first, next); err != nil {
			return err
		}
		first = next
		if d.m.Changed() >= adoptPages {
			if _, err := d.cut(ctx, cutOptions{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// adopt is Adopt for chunks of one page.
func (d *Device) adopt(ctx context.Context, owner chunk.VolumeID, serial chunk.Serial, first, end uint64) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("chunk %d: %w: %w", first, drivers.ErrUnavailable, context.Cause(ctx))
	}
	d.gate.enter()
	defer d.gate.leave()
	switch {
	case d.closing.Load():
		return ErrClosed
	case d.Err() != nil:
		return d.Err()
	case d.lease.Err() != nil:
		return d.lease.Err()
	}
	if err := d.ready(ctx, first); err != nil {
		return err
	}
	return d.m.Adopt(ctx, owner, serial, first, end)
}
