package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
)

// Pending reports whether a volume that is being created is kept though nobody holds it: by its root, and the clock of this pool.
func (p *Pool) Pending(root *mapper.Root) bool {
	return root.State == mapper.Creating && p.o.Now().Before(root.Until)
}

// Resume goes on with a creation that was suspended or cut off, and has all that was written before the last Checkpoint, at least. It is kept for
// another keep from now on. match is asked about what the creation was begun with, CreateOptions.Source or what the
// last Checkpoint said; its error is returned. It fails with ErrNotFound if there is no such creation of that name, with ErrExists if a living
// process is at it.
func (p *Pool) Resume(ctx context.Context, name string, keep time.Duration, match func(source []byte) error) (*Creation, error) {
	var c *Creation
	err := p.WithReserve(ctx, func() (err error) {
		c, err = p.resume(ctx, name, keep, match)
		return err
	})
	if err != nil {
		return nil, doing(err, "go on with volume %s", name)
	}
	c.keep = keep
	return c, nil
}

func (p *Pool) resume(ctx context.Context, name string, keep time.Duration, match func(source []byte) error) (*Creation, error) {
	none := tell(ErrNotFound, "volume %s: nothing of it was kept to go on with", name)
	if err := checkName(name); err != nil {
		return nil, err
	}
	id, err := p.record(ctx, name)
	if errors.Is(err, drivers.ErrNotFound) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	resumable := func(r *mapper.Root) bool {
		return r.State == mapper.Creating && r.Name == name && !r.Until.IsZero()
	}
	root, err := locking.Inspect(ctx, p.client, id)
	if errors.Is(err, drivers.ErrNotFound) || err == nil && !resumable(root) {
		return nil, none
	}
	if err != nil {
		return nil, err
	}
	if err := match(root.Source); err != nil {
		return nil, tell(err, "%v", err) // names the thing
	}
	h, err := p.Hold(ctx, id)
	var held *locking.HeldError
	switch {
	case errors.Is(err, drivers.ErrNotFound):
		return nil, none
	case errors.As(err, &held):
		return nil, tell(ErrExists, "volume %s: exists already: process %d on host %s is making it; wait for that", name, held.Holder.PID, held.Holder.Host)
	case err != nil:
		return nil, err
	case h.dev != nil:
		h.done(ctx)
		return nil, tell(ErrExists, "volume %s: exists already: this process is making it", name)
	}
	c, err := h.resume(ctx, keep, resumable, match)
	if err != nil {
		h.done(ctx)
		return nil, err
	}
	if c == nil {
		return nil, errors.Join(none, h.Done(ctx))
	}
	return c, nil
}

// resume opens a held creation; it returns nil if it is none any more.
func (h *Held) resume(ctx context.Context, keep time.Duration, resumable func(*mapper.Root) bool, match func([]byte) error) (*Creation, error) {
	root := h.Root() // the one that was read before the grant may be an old one
	id, err := h.pool.record(ctx, root.Name)
	if errors.Is(err, drivers.ErrNotFound) || err == nil && (id != h.id || !resumable(root)) {
		return nil, nil
	}
	if err == nil {
		err = match(root.Source)
	}
	if err == nil {
		until := h.pool.o.Now().Add(keep)
		err = h.lease.Switch(ctx, func(r *mapper.Root) { r.Until = until })
	}
	if err != nil {
		return nil, err
	}
	return h.creation(ctx)
}

// Checkpoint makes all that was written durable, and then what the creation says of its source: whoever resumes it from there on is told
// that. The time for which it is kept begins anew.
func (c *Creation) Checkpoint(ctx context.Context, source []byte) error {
	if len(source) > mapper.MaxSource {
		return fmt.Errorf("volume %s: source of %d bytes: %w", c.name, len(source), drivers.ErrInvalid)
	}
	err := c.dev.Flush(ctx)
	if err == nil {
		until := c.pool.o.Now().Add(c.keep)
		err = c.lease.Switch(ctx, func(r *mapper.Root) { r.Source, r.Until = source, until })
	}
	if err != nil {
		return fmt.Errorf("checkpoint of volume %s: %w", c.name, err)
	}
	return nil
}

// Source returns what the creation says of its source.
func (c *Creation) Source() []byte { return c.lease.Root().Source }

// Snapshots returns the snapshots that were taken of the volume so far, the oldest first.
func (c *Creation) Snapshots(ctx context.Context) ([]*mapper.Snapshot, error) {
	return c.pool.Snapshots(ctx, c.id)
}

// Suspend ends the work on a creation and keeps what there is of it, to be resumed. Of one that was begun without Keep
// nothing is kept. After Commit or Abort it does nothing.
func (c *Creation) Suspend(ctx context.Context) error {
	if c.ended {
		return nil
	}
	h, err := c.close(ctx)
	if h != nil {
		err = errors.Join(err, h.Done(ctx))
	}
	if err != nil {
		return fmt.Errorf("suspend volume %s: %w", c.name, err)
	}
	return nil
}
