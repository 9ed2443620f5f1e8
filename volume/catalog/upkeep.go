package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
)

// Volumes returns the ids of all volumes of which anything is stored, whether they count or not, in ascending order. It lists
// every object of the pool.
func (p *Pool) Volumes(ctx context.Context) ([]chunk.VolumeID, error) {
	seen := make(map[chunk.VolumeID]bool)
	err := p.client.WithLane(drivers.LaneBackground).List(ctx, chunk.VolumesGroup(), func(info drivers.Info) error {
		if id, _, ok := chunk.ParseVolume(info.Name); ok {
			seen[id] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	ids := make([]chunk.VolumeID, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b chunk.VolumeID) int { return slices.Compare(a[:], b[:]) })
	return ids, nil
}

// Lookup returns the id of the live volume that a name stands for.
func (p *Pool) Lookup(ctx context.Context, name string) (chunk.VolumeID, error) {
	id, _, err := p.lookup(ctx, name)
	return id, err
}

// Counts reports whether a live volume, of which root is in force, has a name record that points to it.
func (p *Pool) Counts(ctx context.Context, root *mapper.Root) (bool, error) {
	return p.counts(ctx, root.Name, root)
}

// Boot returns the boot id under which this pool's journals are written.
func (p *Pool) Boot() [16]byte { return p.o.Identity.Boot }

// Prune removes what no clone needs any more of the held volume, which is live or in the trash: registrations of clones that are gone or at snapshots that are gone,
// records of dead readers, seals of snapshots that are gone, hidden snapshots without clones, and snapshots whose removal was begun; where there are clones or readers after all the flag is taken back. It
// returns how many snapshots it removed.
func (h *Held) Prune(ctx context.Context) (removed int, err error) {
	all, err := h.pool.Snapshots(ctx, h.id)
	if err != nil {
		return 0, err
	}
	there := make(map[chunk.Serial]bool)
	for _, s := range all {
		there[s.Serial] = true
		if !s.Hidden() && !s.Deleting {
			continue
		}
		gone, err := h.dropHidden(ctx, s)
		if err != nil {
			return removed, err
		}
		if gone {
			removed++
			delete(there, s.Serial)
		} else if s.Deleting {
			if _, err := h.flag(ctx, s, false); err != nil && !errors.Is(err, drivers.ErrConflict) {
				return removed, err
			}
		}
	}
	if err := h.pruneSeals(ctx); err != nil {
		return removed, err
	}
	if _, err := h.readers(ctx, nil); err != nil { // removes the records of dead ones
		return removed, err
	}
	return removed, h.pruneRegistrations(ctx, there)
}

// pruneRegistrations removes registrations without a clone or without a snapshot.
func (h *Held) pruneRegistrations(ctx context.Context, there map[chunk.Serial]bool) error {
	type registration struct {
		snap  chunk.Serial
		clone chunk.VolumeID
	}
	var all []registration
	err := h.pool.Registrations(ctx, h.id, func(snap chunk.Serial, clone chunk.VolumeID) {
		all = append(all, registration{snap, clone})
	})
	if err != nil {
		return err
	}
	client := h.Client(drivers.LaneMeta)
	for _, r := range all {
		if there[r.snap] {
			if _, err := h.clone(ctx, r.snap, r.clone); err != nil {
				return err
			}
			continue
		}
		// A cloner that registered too late finds its snapshot gone and backs off.
		root, err := h.pool.Inspect(ctx, r.clone)
		if err == nil && root.State.Kept() && root.Parent == (mapper.Parent{Volume: h.id, Snapshot: r.snap}) {
			return fmt.Errorf("snapshot %v, of which volume %s is a clone, is missing: %w", r.snap, root.Name, mapper.ErrDamaged)
		}
		if err != nil && !errors.Is(err, drivers.ErrNotFound) {
			return err
		}
		err = client.Unlink(ctx, chunk.RegistrationName(h.id, r.snap, r.clone))
		if err != nil && !errors.Is(err, drivers.ErrNotFound) {
			return fmt.Errorf("end registration of clone %v: %w", r.clone, err)
		}
	}
	return nil
}

// Part ends the registration of the held volume at its parent: nothing of it and its snapshots reaches what came before it.
func (h *Held) Part(ctx context.Context) error {
	parent := h.Root().Parent
	if err := h.lease.Switch(ctx, func(r *mapper.Root) { r.Parent = mapper.Parent{} }); err != nil {
		return err
	}
	return h.unregister(ctx, parent)
}

// RemoveShell removes the held volume if it is live and has no name record, or is in the trash and has no record there, and is [Pool.Bare]: late delivery of a grant
// can leave such a one after a removal. It reports whether it did.
func (h *Held) RemoveShell(ctx context.Context) (bool, error) {
	root := h.Root()
	var counts bool
	var err error
	if root.State == mapper.Trashed {
		_, err = h.pool.client.Stat(ctx, chunk.TrashRecord(h.id))
		if counts = err == nil; errors.Is(err, drivers.ErrNotFound) {
			err = nil
		}
	} else {
		counts, err = h.pool.Counts(ctx, root)
	}
	if err != nil || counts || h.dev != nil {
		return false, err
	}
	if bare, err := h.pool.Bare(ctx, root); err != nil || !bare {
		return false, err
	}
	_, err = h.destroy(ctx, 0)
	return err == nil, err
}

// Bare reports whether nothing is left of a volume, of which root is in force, but its roots: no object, and no registration as a clone,
// which a removal ends before it removes the roots.
func (p *Pool) Bare(ctx context.Context, root *mapper.Root) (bool, error) {
	err := p.client.List(ctx, chunk.VolumeGroup(root.Volume), func(info drivers.Info) error {
		if _, g, ok := chunk.ParseVolume(info.Name); !ok || g != chunk.Roots {
			return errEnough
		}
		return nil
	})
	if err == nil && !root.Parent.Volume.IsZero() {
		_, err = p.client.Stat(ctx, chunk.RegistrationName(root.Parent.Volume, root.Parent.Snapshot, root.Volume))
		if errors.Is(err, drivers.ErrNotFound) {
			return true, nil
		}
		if err == nil {
			err = errEnough
		}
	}
	if errors.Is(err, errEnough) {
		return false, nil
	}
	return err == nil, err
}

// Inspect returns the root in force of a volume, without a lease.
func (p *Pool) Inspect(ctx context.Context, id chunk.VolumeID) (*mapper.Root, error) {
	return locking.Inspect(ctx, p.client, id)
}
