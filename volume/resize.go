package volume

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// Resize makes the volume size bytes large, a multiple of 512, while it is in use; it is durable when Resize returns. What is added reads as
// zeros. What is cut off is gone at once and for ever but for snapshots: requests that reach beyond the new end fail from now on, also those that
// wait already. When making the volume smaller fails the size is what it was, but zeros may have come to the chunk in which the volume was
// to end, after that point.
func (d *Device) Resize(ctx context.Context, size int64) error {
	if d.lease == nil {
		return ErrReadOnly
	}
	if size <= 0 || size > mapper.MaxVolumeSize || size%chunk.SectorSize != 0 || mapper.PageCount(d.geom, size) > mapper.MaxPages {
		return fmt.Errorf("resize: %w: %d bytes", ErrInvalid, size)
	}
	select {
	case d.resizing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("resize: %w", context.Cause(ctx))
	}
	defer func() { <-d.resizing }()
	slot := d.grace.enter() // Close waits
	defer d.grace.leave(slot)
	if d.closing.Load() {
		return ErrClosed
	}
	old := d.Size()
	if size == old && d.lease.Root().Size == size { // they differ after an unknown outcome
		return nil
	}
	if size < old {
		d.size.Store(size)
	}
	if err := d.resize(ctx, size); err != nil {
		if size < old && d.Err() == nil {
			d.size.Store(old)
		}
		return fmt.Errorf("resize: %w", err)
	}
	return nil
}

func (d *Device) resize(ctx context.Context, size int64) error {
	// What is under way may not end soon, and holds up all that follows it as long as the cut waits.
	ctx, cancel := context.WithTimeout(ctx, d.o.Deadline)
	defer cancel()
	for {
		err := d.throttle(ctx)
		if err == nil {
			_, err = d.cut(ctx, cutOptions{size: size})
		}
		if !errors.Is(err, journal.ErrFull) {
			return err
		}
		if err := d.cutter.room(ctx, d); err != nil {
			return err
		}
	}
}

// prepareSize makes the map ready for another size. The gate is closed.
func (d *Device) prepareSize(ctx context.Context, old, size int64) error {
	from := min(old, size)
	if err := d.zeroTail(ctx, from); err != nil {
		return err
	}
	if size < old {
		return damage(d.m.Mend(ctx, d.geom.Count(size)-1))
	}
	d.m.Grow(size)
	d.end.Store(size)
	return nil
}

// zeroTail makes all zeros that lies after an offset in the same chunk.
func (d *Device) zeroTail(ctx context.Context, from int64) error {
	p := d.geom.First(from, d.geom.Size())
	if p.Off == 0 {
		return nil
	}
	segs, err := d.plan(ctx, p.Index, p.Off, p.Length, nil)
	if err != nil || len(segs) == 1 && segs[0].Zero {
		return err
	}
	if err := d.ensureJournal(ctx); err != nil {
		return err
	}
	return d.zeroPiece(ctx, p)
}

// capture takes a picture of the map of a volume of size bytes.
func (d *Device) capture(size int64, smaller bool) *mapper.Capture {
	if smaller {
		return d.m.CaptureTo(d.geom.Count(size))
	}
	return d.m.Capture()
}

// settleSize finds out whether a volume was made smaller: a device that does not know must not go on. mark is that of the new root alone.
func (d *Device) settleSize(ctx context.Context, mark chunk.Serial, unknown error) error {
	if err := d.lease.Switch(context.WithoutCancel(ctx), func(*mapper.Root) {}); err != nil {
		return d.fail(errors.Join(unknown, err))
	}
	if d.lease.Root().Mark == mark {
		return nil
	}
	return unknown
}

// sized ends what prepareSize began.
func (d *Device) sized(old, size int64, err error) {
	switch {
	case err != nil:
		d.end.Store(old)
	case size < old:
		d.end.Store(size)
	default:
		d.size.Store(size)
	}
}
