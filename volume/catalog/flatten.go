package catalog

import (
	"context"
	"errors"
	"time"

	"skerry/locking"
	"skerry/volume"
)

// closeTime bounds the end of a device after something that was given up.
const closeTime = time.Minute

// Flatten copies what a volume has of its parent, so that all that it shows is its own; see [volume.Device.Flatten]. progress, which may be nil, is
// told the bytes that are copied, and how many there are in all. It goes through the device if this pool has the volume open, and fails with a
// [locking.HeldError] if another process has; else the volume is open meanwhile. Nothing keeps others of this pool from the volume. What was
// copied stays when it fails, or when ctx ends. The parent is known until a collection finds that no snapshot of the volume needs it.
func (p *Pool) Flatten(ctx context.Context, name string, progress func(done, total int64)) error {
	if err := p.flatten(ctx, name, volume.FlattenOptions{Progress: progress}); err != nil {
		return doing(err, "flatten volume %s", name)
	}
	return nil
}

func (p *Pool) flatten(ctx context.Context, name string, o volume.FlattenOptions) error {
	h, err := p.holdNamed(ctx, name)
	if err != nil {
		return err
	}
	if dev := h.dev; dev != nil {
		b := p.boundOf(h.id, dev)
		h.done(ctx)
		if b.pause() { // it would not tell how far it is
			defer p.CopyBehind(dev) // goes on, or lets go of the image
		}
		err := dev.Flatten(ctx, o)
		if errors.Is(err, volume.ErrClosed) || errors.Is(err, locking.ErrReleased) {
			err = tell(ErrInUse, "volume %s: it was closed before all was copied; what was copied stays: begin again", name)
		}
		return err
	}
	dev, err := h.open(ctx)
	if err != nil {
		return err
	}
	err = dev.Flatten(ctx, o)
	// It is closed also after an interruption, so that the next one need not apply a journal.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	return errors.Join(err, dev.Close(closing))
}
