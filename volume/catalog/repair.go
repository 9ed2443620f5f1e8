package catalog

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// RepairPool writes the pool record anew if it is gone or damaged in a place that holds a pool otherwise, and reports whether it did.
// The pool gets another id. It fails with drivers.ErrInvalid if another version wrote the record.
func RepairPool(ctx context.Context, e *drivers.Engine) (bool, error) {
	client := e.Client(drivers.LaneMeta, 0, nil)
	b, err := client.Load(ctx, chunk.PoolName)
	condition := drivers.Condition{Prefix: b[:min(len(b), maxPrefix)]}
	switch {
	case errors.Is(err, drivers.ErrNotFound):
		condition = drivers.Condition{Absent: true}
	case err != nil:
		return false, fmt.Errorf("repair pool: %w", err)
	default:
		if _, err := mapper.DecodePoolRecord(b); err == nil {
			return false, nil
		}
		if mapper.Intact(b) {
			return false, fmt.Errorf("the pool was made by another version of skerry: use that: %w", drivers.ErrInvalid)
		}
	}
	used := false
	for _, g := range []string{chunk.NamesGroup, chunk.VolumesGroup(), chunk.TrashGroup, chunk.ReserveGroup} {
		err := client.List(ctx, g, func(drivers.Info) error {
			used = true
			return errEnough
		})
		if err != nil && !errors.Is(err, errEnough) {
			return false, fmt.Errorf("repair pool: %w", err)
		}
	}
	if !used && condition.Absent {
		return false, nil
	}
	if err := client.Replace(ctx, chunk.PoolName, newPoolRecord().Encode(), condition); err != nil {
		return false, fmt.Errorf("repair pool: %w", err)
	}
	return true, nil
}

// maxPrefix is the longest content that a replacement can be conditional on, in bytes.
const maxPrefix = 512

// Roots are the roots in force of the volumes of a pool, as far as they can be read.
type Roots struct {
	All    []*mapper.Root
	Hidden int // volumes whose root cannot be read
}

// Roots reads all roots. It lists every object of the pool.
func (p *Pool) Roots(ctx context.Context) (Roots, error) {
	var r Roots
	ids, err := p.Volumes(ctx)
	if err != nil {
		return r, err
	}
	for _, id := range ids {
		root, err := p.Inspect(ctx, id)
		switch {
		case err == nil:
			// The map may be large, and is not what is asked for.
			root.Pages, root.Owners = nil, nil
			r.All = append(r.All, root)
		case errors.Is(err, mapper.ErrDamaged):
			r.Hidden++
		case !errors.Is(err, drivers.ErrNotFound):
			return r, err
		}
	}
	return r, nil
}

// RepairName makes a damaged name record good: it is written anew for the volume that names itself so, the youngest if several do,
// since a name can be taken again only once it is free. Where none does and every root can be read, it is removed. It returns what it
// did, empty: nothing, since a volume that cannot be read may have the name.
func (p *Pool) RepairName(ctx context.Context, name string, roots Roots) (string, error) {
	record := chunk.NameRecord(name)
	if !ValidName(name) {
		return "", nil
	}
	if _, err := p.record(ctx, name); !errors.Is(err, mapper.ErrDamaged) {
		return "", err
	}
	if err := p.spoiled(ctx, record); err != nil {
		return "", err
	}
	b, err := p.client.Load(ctx, record)
	if err != nil {
		return "", err
	}
	var owner *mapper.Root
	for _, r := range roots.All {
		if r.Name == name && r.State != mapper.Trashed && (owner == nil || r.Created.After(owner.Created)) {
			owner = r
		}
	}
	if owner == nil && roots.Hidden > 0 {
		return "", nil
	}
	if owner == nil {
		if err := p.client.Unlink(ctx, record); err != nil {
			return "", err
		}
		return "removed its damaged name record: no volume has the name", p.client.SyncGroup(ctx, chunk.NamesGroup)
	}
	h, err := p.Hold(ctx, owner.Volume)
	if err != nil {
		return "", err
	}
	if h.Root().Name == name {
		next := mapper.NameRecord{Name: name, Volume: h.id}
		err = h.Client(drivers.LaneMeta).Replace(ctx, record, next.Encode(), drivers.Condition{Prefix: b[:min(len(b), maxPrefix)]})
	}
	if err := errors.Join(err, h.Done(ctx)); err != nil {
		return "", err
	}
	return fmt.Sprintf("wrote its name record anew: it is volume %v", owner.Volume), nil
}

// NameAgain gives a live volume that no name stands for its name back, or another one if that is taken. It returns the name, empty: the
// volume has one, or is open here.
func (p *Pool) NameAgain(ctx context.Context, root *mapper.Root) (string, error) {
	id := root.Volume.String()
	for _, name := range []string{root.Name, "recovered-" + id[:8], "recovered-" + id} {
		if !ValidName(name) {
			continue
		}
		given, err := p.named(ctx, root.Volume, name)
		if !errors.Is(err, ErrExists) && !errors.Is(err, mapper.ErrDamaged) {
			return given, err
		}
	}
	return "", fmt.Errorf("volume %v: every name for it is taken: %w", id, ErrExists)
}

// named gives a live volume that no name stands for a name.
func (p *Pool) named(ctx context.Context, id chunk.VolumeID, name string) (given string, err error) {
	err = p.naming(ctx, name, func() error {
		h, err := p.Hold(ctx, id)
		if err != nil {
			return err
		}
		root := h.Root()
		counts, err := p.counts(ctx, root.Name, root)
		if errors.Is(err, mapper.ErrDamaged) && root.Name != name {
			err = nil // that name cannot be had
		}
		if err == nil && !counts && root.State == mapper.Live && h.dev == nil {
			if err = p.reserve(ctx, name, id); err == nil && name != root.Name {
				err = h.lease.Switch(ctx, func(r *mapper.Root) { r.Name = name })
			}
			given = name
		}
		return errors.Join(err, h.Done(ctx))
	})
	if err != nil {
		given = ""
	}
	return given, err
}

// Reregister registers a clone at its snapshot again, if the registration is lost and the snapshot is there. It reports whether it did.
func (p *Pool) Reregister(ctx context.Context, clone *mapper.Root) (bool, error) {
	parent := clone.Parent
	if parent.Volume.IsZero() || !clone.State.Kept() {
		return false, nil
	}
	name := chunk.RegistrationName(parent.Volume, parent.Snapshot, clone.Volume)
	if _, err := p.client.Stat(ctx, name); !errors.Is(err, drivers.ErrNotFound) {
		return false, err
	}
	s, err := p.loadSnapshot(ctx, parent.Volume, parent.Snapshot)
	if errors.Is(err, drivers.ErrNotFound) || errors.Is(err, mapper.ErrDamaged) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	h, err := p.Hold(ctx, clone.Volume)
	if err != nil {
		return false, err
	}
	done := false
	if root := h.Root(); root.State.Kept() && root.Parent == parent {
		done = true
		// Its remover, if it has one, finds this, or finds before that a clone is not registered.
		if err = p.register(ctx, h, s); errors.Is(err, drivers.ErrExists) {
			err = nil
		}
	}
	return done && err == nil, errors.Join(err, h.Done(ctx))
}

// Rerecord writes the record of a volume in the trash anew if it is gone or damaged; since when it is there nobody knows then. It reports whether it did.
func (p *Pool) Rerecord(ctx context.Context, root *mapper.Root) (bool, error) {
	name := chunk.TrashRecord(root.Volume)
	if root.State != mapper.Trashed {
		return false, nil
	}
	err := p.Recorded(ctx, root)
	if errors.Is(err, mapper.ErrDamaged) {
		if err := p.spoiled(ctx, name); err != nil {
			return false, err
		}
	} else if !errors.Is(err, drivers.ErrNotFound) {
		return false, err
	} else if bare, err := p.Bare(ctx, root); err != nil || bare {
		return false, err // gc removes it
	}
	h, err := p.Hold(ctx, root.Volume)
	if err != nil {
		return false, err
	}
	done := false
	if root := h.Root(); root.State == mapper.Trashed {
		done = true
		record := mapper.TrashRecord{Name: root.Name, Volume: h.id}
		err = h.Client(drivers.LaneMeta).Replace(ctx, name, record.Encode(), drivers.Condition{})
	}
	return done && err == nil, errors.Join(err, h.Done(ctx))
}
