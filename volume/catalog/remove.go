package catalog

import (
	"context"
	"errors"
	"strings"
	"time"

	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
)

// RemoveOptions say what a removal takes along.
type RemoveOptions struct {
	Snapshots bool          // the snapshots of a volume too
	Trash     time.Duration // above 0: a volume can be restored for that time, at most MaxTrash
	Now       bool          // also a volume in the trash, by its name or id
	Limit     time.Duration // for the objects of a volume; 0: about a second. The rest is for gc
}

const removeLimit = time.Second

// Remove removes a snapshot, or a volume. A volume that has named snapshots (unless RemoveOptions.Snapshots) and whatever has clones
// stays: ErrInUse names them. So does a volume that a living process holds; a snapshot of such a volume fails with a
// [locking.HeldError] unless it is open in this pool. A removal that was interrupted is finished by repeating it, or by gc. What was kept of an
// interrupted creation is removed by its name, and a snapshot though an interrupted copy of it needs it.
func (p *Pool) Remove(ctx context.Context, r Ref, o RemoveOptions) (Removal, error) {
	var removal Removal
	var err error
	if o.Limit <= 0 {
		o.Limit = removeLimit
	}
	if o.Trash < 0 || o.Trash > MaxTrash {
		return removal, tell(drivers.ErrInvalid, "%v in the trash: want a time from 0 to %d days", o.Trash, MaxTrash/(24*time.Hour))
	}
	err = p.WithReserve(ctx, func() (err error) {
		if r.Snapshot != "" {
			return p.removeSnapshot(ctx, r)
		}
		removal, err = p.removeVolume(ctx, r.Volume, o)
		return err
	})
	if err != nil {
		return removal, doing(err, "remove %v", r)
	}
	return removal, nil
}

func (p *Pool) removeSnapshot(ctx context.Context, r Ref) error {
	var decided *mapper.Snapshot // by a try that was overtaken
	return p.holding(ctx, r.Volume, func(h *Held) error {
		if decided != nil && decided.Volume == h.id {
			return h.unlinkSnapshots(ctx, decided)
		}
		s, err := p.snapshotNamed(ctx, h.id, r)
		if err != nil {
			return err
		}
		if err := h.registered(ctx, s); err != nil {
			return err
		}
		if err := h.endPins(ctx, s); err != nil {
			return err
		}
		if err := h.flagAll(ctx, r, s); err != nil {
			return err
		}
		decided = s
		return h.unlinkSnapshots(ctx, s)
	})
}

func hasClones(r Ref, clones []string) error {
	if len(clones) == 0 {
		return nil
	}
	return tell(ErrInUse, "%s: in use: it has clones: %s; remove them first, or skerry flatten them", r.thing(), strings.Join(clones, ", "))
}

func (p *Pool) removeVolume(ctx context.Context, name string, o RemoveOptions) (Removal, error) {
	h, err := p.holdNamed(ctx, name)
	if errors.Is(err, ErrNotFound) {
		h, err = p.holdUnfinished(ctx, name)
		if errors.Is(err, ErrNotFound) {
			h, err = p.holdRemoved(ctx, name, o.Now, err)
		}
	}
	if err != nil {
		return Removal{}, unheld(err)
	}
	root := h.Root()
	removal, err := h.remove(ctx, o)
	if err := errors.Join(err, h.Done(ctx)); err != nil {
		return removal, err
	}
	if removal.Left == 0 {
		p.dropHidden(ctx, root.Parent)
	}
	p.unpin(ctx, root)
	return removal, nil
}

// holdUnfinished takes a volume whose creation or removal under this name was interrupted.
func (p *Pool) holdUnfinished(ctx context.Context, name string) (*Held, error) {
	gone := notFound(Ref{Volume: name})
	if !ValidName(name) {
		return nil, gone
	}
	id, err := p.record(ctx, name)
	if errors.Is(err, drivers.ErrNotFound) {
		return nil, gone
	}
	if err != nil {
		return nil, err
	}
	unfinished := func(r *mapper.Root) bool {
		return r.State == mapper.Deleted || r.State == mapper.Creating && r.Name == name
	}
	root, err := locking.Inspect(ctx, p.client, id)
	if errors.Is(err, drivers.ErrNotFound) || err == nil && !unfinished(root) {
		return nil, gone
	}
	if err != nil {
		return nil, err
	}
	h, err := p.Hold(ctx, id)
	switch {
	case errors.Is(err, locking.ErrHeld) && root.State == mapper.Creating:
		return nil, err
	case errors.Is(err, drivers.ErrNotFound), errors.Is(err, locking.ErrHeld):
		return nil, gone
	case err != nil:
		return nil, err
	case !unfinished(h.Root()):
		return nil, errors.Join(gone, h.Done(ctx))
	}
	return h, nil
}

// remove removes the held volume.
func (h *Held) remove(ctx context.Context, o RemoveOptions) (Removal, error) {
	if h.dev != nil {
		return Removal{}, openHere(h.Root().Name)
	}
	if !h.Root().State.Kept() {
		return h.destroy(ctx, o.Limit)
	}
	all, err := h.pool.Snapshots(ctx, h.id)
	if err != nil {
		return Removal{}, err
	}
	trashed := h.Root().State == mapper.Trashed
	var named []string
	for _, s := range all {
		if !s.Hidden() {
			named = append(named, s.Name)
		}
	}
	if len(named) > 0 && !o.Snapshots && !trashed {
		return Removal{}, tell(ErrInUse, "volume %s: in use: it has snapshots: %s; remove them first, or with it by --snapshots", h.Root().Name, strings.Join(named, ", "))
	}
	if err := h.registered(ctx, all...); err != nil {
		return Removal{}, err
	}
	if err := h.endPins(ctx, all...); err != nil {
		return Removal{}, err
	}
	if o.Trash > 0 && !trashed {
		// Nothing that a clone needs goes: it is refused only since it would be in the end.
		if err := h.unneeded(ctx, Ref{Volume: h.Root().Name}, all...); err != nil {
			return Removal{}, err
		}
		until, err := h.trash(ctx, o.Trash)
		return Removal{Until: until}, err
	}
	if err := h.flagAll(ctx, Ref{Volume: h.Root().Name}, all...); err != nil {
		return Removal{}, err
	}
	return h.destroy(ctx, o.Limit)
}

// dropHidden removes a hidden snapshot that has lost its last clone, if its volume can be had. Else gc does.
func (p *Pool) dropHidden(ctx context.Context, parent mapper.Parent) {
	if parent.Volume.IsZero() {
		return
	}
	s, err := p.loadSnapshot(ctx, parent.Volume, parent.Snapshot)
	if err == nil && s.Hidden() {
		var h *Held
		if h, err = p.Hold(ctx, parent.Volume); err == nil {
			_, err = h.dropHidden(ctx, s)
			h.done(ctx)
		}
	}
	if err != nil && !errors.Is(err, drivers.ErrNotFound) {
		p.log.Debug("hidden snapshot is left for gc", "volume", parent.Volume.String(), "err", err)
	}
}

// dropHidden removes a hidden snapshot of the held volume, or one whose removal was begun, if nobody needs it.
func (h *Held) dropHidden(ctx context.Context, s *mapper.Snapshot) (bool, error) {
	err := h.dropSnapshots(ctx, Ref{Volume: h.Root().Name, Snapshot: s.Name}, s)
	if errors.Is(err, ErrInUse) {
		return false, nil
	}
	return err == nil, err
}
