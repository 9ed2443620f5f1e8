package catalog

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// registered makes sure that all clones of snapshots of the held volume are registered there. A removal goes by the
// registrations; were one lost, what its clone needs would be removed with the snapshot.
func (h *Held) registered(ctx context.Context, all ...*mapper.Snapshot) error {
	if len(all) == 0 {
		return nil
	}
	parents := make(map[mapper.Parent]bool)
	for _, s := range all {
		parents[mapper.Parent{Volume: h.id, Snapshot: s.Serial}] = true
	}
	look := func(id chunk.VolumeID, err error) error {
		var root *mapper.Root
		if err == nil {
			root, err = h.pool.Inspect(ctx, id)
		}
		switch {
		case errors.Is(err, mapper.ErrDamaged), errors.Is(err, drivers.ErrNotFound):
			return nil // it does not say what it is a clone of
		case err != nil:
			return err
		case !root.State.Kept(), !parents[root.Parent]:
			return nil
		}
		_, err = h.pool.client.Stat(ctx, chunk.RegistrationName(h.id, root.Parent.Snapshot, id))
		if !errors.Is(err, drivers.ErrNotFound) {
			return err
		}
		again, err := h.pool.Inspect(ctx, id)
		if errors.Is(err, drivers.ErrNotFound) || err == nil && (!again.State.Kept() || again.Parent != root.Parent) {
			return nil // it was removed meanwhile, or needs nothing any more
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("volume %s, a clone of %s, is not registered there: %w", root.Name, h.Root().Name, mapper.ErrDamaged)
	}
	err := h.pool.Names(ctx, func(_ string, id chunk.VolumeID, err error) error { return look(id, err) })
	if err != nil {
		return err
	}
	return h.pool.TrashRecords(ctx, func(id chunk.VolumeID, _ mapper.TrashRecord, _ error) error { return look(id, nil) })
}
