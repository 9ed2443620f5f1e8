package catalog

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// CloneOptions say how a clone differs from its snapshot.
type CloneOptions struct {
	Size int64 // bytes, at least the snapshot's; 0: the snapshot's
	// Hidden names the hidden snapshot of the volume to clone, as SnapshotHidden returned it, where the reference names no
	// snapshot; 0: take one.
	Hidden chunk.Serial
}

// Clone makes a volume that begins as a snapshot, whose chunks it shares. No data and no map page is read or written. Without a
// snapshot in from, a hidden one is taken that dies with its last clone: that fails with a [locking.HeldError] if another process
// holds the volume; then have it take the snapshot.
func (p *Pool) Clone(ctx context.Context, from Ref, name string, o CloneOptions) (Info, error) {
	var info Info
	err := p.naming(ctx, name, func() (err error) {
		info, err = p.clone(ctx, from, name, o)
		return err
	})
	if err != nil {
		return Info{}, doing(err, "clone %v to %s", from, name)
	}
	info.Parent = from
	return info, nil
}

func (p *Pool) clone(ctx context.Context, from Ref, name string, o CloneOptions) (Info, error) {
	if o.Size != 0 {
		if err := checkSize(o.Size); err != nil {
			return Info{}, err
		}
	}
	if from.Snapshot == "" && o.Hidden == 0 {
		return p.cloneVolume(ctx, from.Volume, name, o)
	}
	_, root, err := p.lookup(ctx, from.Volume)
	if err != nil {
		return Info{}, err
	}
	var s *mapper.Snapshot
	if from.Snapshot != "" {
		s, err = p.snapshotNamed(ctx, root.Volume, from)
	} else if s, err = p.loadSnapshot(ctx, root.Volume, o.Hidden); errors.Is(err, drivers.ErrNotFound) {
		err = tell(ErrNotFound, "volume %s: the hidden snapshot for its clone is gone: try again", from.Volume)
	}
	if err != nil {
		return Info{}, err
	}
	return p.cloneOf(ctx, s, name, o)
}

// cloneVolume clones a hidden snapshot that it takes. The volume is held until the clone is registered, so that no collection comes between.
func (p *Pool) cloneVolume(ctx context.Context, from, name string, o CloneOptions) (info Info, err error) {
	err = p.holding(ctx, from, func(h *Held) error {
		if err := fits(o.Size, h.Root().Size); err != nil {
			return err
		}
		s, err := h.snapshot(ctx, "")
		if err != nil {
			return err
		}
		if info, err = p.cloneOf(ctx, s, name, o); err != nil {
			if dropErr := h.dropSnapshots(context.WithoutCancel(ctx), Ref{Volume: from}, s); dropErr != nil {
				p.log.Warn("hidden snapshot is left for gc", "volume", from, "err", dropErr)
			}
		}
		return err
	})
	return info, err
}

func fits(size, least int64) error {
	if size != 0 && size < least {
		return tell(drivers.ErrInvalid, "a clone of %d bytes is smaller than what it begins as, %d bytes", size, least)
	}
	return nil
}

func (p *Pool) cloneOf(ctx context.Context, s *mapper.Snapshot, name string, o CloneOptions) (Info, error) {
	if err := fits(o.Size, s.Size); err != nil {
		return Info{}, err
	}
	if len(s.Owners) >= mapper.MaxOwners {
		return Info{}, fmt.Errorf("the snapshot shares objects of %d volumes, the most there can be: flatten the volume and clone a new snapshot of it", len(s.Owners))
	}
	size := s.Size
	if o.Size != 0 {
		size = o.Size
	}
	root := &mapper.Root{
		Name: name, Size: size, Geometry: s.Geometry, Parent: mapper.Parent{Volume: s.Volume, Snapshot: s.Serial},
		Owners: s.Owners, Pages: make([]mapper.PageRef, len(s.Pages)),
	}
	for i, ref := range s.Pages {
		ref.Owner++ // the clone itself comes first
		root.Pages[i] = ref
	}
	h, err := p.found(ctx, root)
	if err != nil {
		return Info{}, err
	}
	if err = p.register(ctx, h, s); err == nil {
		err = p.reserve(ctx, name, h.id)
	}
	if err != nil {
		return Info{}, h.undo(ctx, err)
	}
	return p.commit(ctx, h)
}

// register registers a clone that is being created at its snapshot, durably, and then makes sure that the snapshot is still
// there: its remover flags it first, and looks for registrations then.
func (p *Pool) register(ctx context.Context, h *Held, s *mapper.Snapshot) error {
	reg := chunk.RegistrationName(s.Volume, s.Serial, h.id)
	record := mapper.NameRecord{Name: h.Root().Name, Volume: h.id}
	err := h.Client(drivers.LaneMeta).Replace(ctx, reg, record.Encode(), drivers.Condition{Absent: true})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	again, err := p.loadSnapshot(ctx, s.Volume, s.Serial)
	if errors.Is(err, drivers.ErrNotFound) || err == nil && again.Deleting {
		return fmt.Errorf("the snapshot is being removed: %w", ErrNotFound)
	}
	return err
}
