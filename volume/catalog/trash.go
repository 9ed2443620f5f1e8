package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// MaxTrash is the longest time that a volume can be asked to stay in the trash.
const MaxTrash = 10 * 365 * 24 * time.Hour

// TrashInfo is what the catalog knows of a volume in the trash.
type TrashInfo struct {
	Name      string // that it had
	ID        chunk.VolumeID
	Size      int64     // bytes
	Since     time.Time // when it came there; zero: not known
	Until     time.Time // it can be restored until then, and as long as no gc runs; zero: no end
	Snapshots int       // with names
	ParentID  mapper.Parent
	Err       error // what is wrong with it if it cannot be read
}

// Over reports whether the time of a volume in the trash is over, so that a collection removes it. A root without a time, or
// with one that no clock has shown since there are such volumes, is not what Remove makes: it never is.
func (p *Pool) Over(root *mapper.Root) bool {
	return root.State == mapper.Trashed && root.Until.After(root.Created) && root.Until.Unix() > 0 && !p.o.Now().Before(root.Until)
}

// TrashRecords calls fn with every record of the trash: its volume, and what it says or what is wrong with it. The records need
// not count.
func (p *Pool) TrashRecords(ctx context.Context, fn func(id chunk.VolumeID, r mapper.TrashRecord, err error) error) error {
	var ids []chunk.VolumeID
	err := p.client.List(ctx, chunk.TrashGroup, func(info drivers.Info) error {
		if id, ok := chunk.ParseTrashRecord(info.Name); ok {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list the trash: %w", err)
	}
	for _, id := range ids {
		r, err := p.trashRecord(ctx, id)
		if errors.Is(err, drivers.ErrNotFound) {
			continue // removed meanwhile
		}
		if err := fn(id, r, err); err != nil {
			return err
		}
	}
	return nil
}

// trashRecord reads the record of a volume in the trash.
func (p *Pool) trashRecord(ctx context.Context, id chunk.VolumeID) (mapper.TrashRecord, error) {
	b, err := p.client.Load(ctx, chunk.TrashRecord(id))
	var r mapper.TrashRecord
	if err == nil {
		r, err = mapper.DecodeTrashRecord(b)
	}
	if err == nil && r.Volume != id {
		err = fmt.Errorf("%w: it is the record of volume %v", mapper.ErrDamaged, r.Volume)
	}
	if err != nil {
		return r, fmt.Errorf("record of volume %v in the trash: %w", id, err)
	}
	return r, nil
}

// Recorded makes sure that a volume in the trash, of which root is in force, has a good record there.
func (p *Pool) Recorded(ctx context.Context, root *mapper.Root) error {
	_, err := p.trashRecord(ctx, root.Volume)
	return err
}

// Trash returns the volumes in the trash, by name, the newest first where there are several of a name.
func (p *Pool) Trash(ctx context.Context) ([]TrashInfo, error) {
	var infos []TrashInfo
	err := p.TrashRecords(ctx, func(id chunk.VolumeID, r mapper.TrashRecord, err error) error {
		if err != nil && !errors.Is(err, mapper.ErrDamaged) {
			return err
		}
		info, err := p.trashed(ctx, id)
		if err == nil && info.ID == id {
			info.Since = r.Since
			infos = append(infos, info)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the trash: %w", err)
	}
	slices.SortFunc(infos, func(a, b TrashInfo) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), b.Since.Compare(a.Since), slices.Compare(a.ID[:], b.ID[:]))
	})
	return infos, nil
}

// trashed describes a volume if it is in the trash, else nothing.
func (p *Pool) trashed(ctx context.Context, id chunk.VolumeID) (TrashInfo, error) {
	root, err := p.Inspect(ctx, id)
	switch {
	case errors.Is(err, drivers.ErrNotFound), err == nil && root.State != mapper.Trashed:
		return TrashInfo{}, nil
	case errors.Is(err, mapper.ErrDamaged):
		return TrashInfo{ID: id, Err: err}, nil
	case err != nil:
		return TrashInfo{}, err
	}
	info := TrashInfo{Name: root.Name, ID: id, Size: root.Size, Until: root.Until, ParentID: root.Parent}
	all, err := p.Snapshots(ctx, id)
	for _, s := range all {
		if !s.Hidden() {
			info.Snapshots++
		}
	}
	if errors.Is(err, mapper.ErrDamaged) {
		info.Err, err = err, nil
	}
	return info, err
}

// trash moves the held live volume to the trash.
func (h *Held) trash(ctx context.Context, keep time.Duration) (time.Time, error) {
	now, root := h.pool.o.Now(), h.Root()
	record := mapper.TrashRecord{Name: root.Name, Volume: h.id, Since: now}
	if err := h.Client(drivers.LaneMeta).Replace(ctx, chunk.TrashRecord(h.id), record.Encode(), drivers.Condition{}); err != nil {
		return time.Time{}, fmt.Errorf("move to the trash: %w", err)
	}
	until := now.Add(keep)
	err := h.lease.Switch(ctx, func(r *mapper.Root) { r.State, r.Until = mapper.Trashed, until })
	if err != nil {
		if h.lease.Err() == nil && h.settled(ctx).State == mapper.Live {
			h.dropTrashRecord(ctx)
		}
		return time.Time{}, err
	}
	return until, h.unname(ctx, root.Name)
}

// settled returns the root of the held volume after a switch that failed: after one more, of which nobody doubts. If that fails
// too it says nothing.
func (h *Held) settled(ctx context.Context) *mapper.Root {
	if err := h.lease.Switch(context.WithoutCancel(ctx), func(*mapper.Root) {}); err != nil {
		return &mapper.Root{}
	}
	return h.Root()
}

// untrash removes the record of the held volume, which is not in the trash, durably.
func (h *Held) untrash(ctx context.Context) error {
	client := h.Client(drivers.LaneMeta)
	err := client.Unlink(ctx, chunk.TrashRecord(h.id))
	if err == nil || errors.Is(err, drivers.ErrNotFound) {
		err = client.SyncGroup(ctx, chunk.TrashGroup)
	}
	if err != nil {
		return fmt.Errorf("remove record %v of the trash: %w", h.id, err)
	}
	return nil
}

// dropTrashRecord is untrash where a record that stays does no harm.
func (h *Held) dropTrashRecord(ctx context.Context) {
	if err := h.untrash(context.WithoutCancel(ctx)); err != nil {
		h.pool.log.Warn("record of the trash is left for gc", "volume", h.id.String(), "err", err)
	}
}

// TidyTrash removes the record of a volume that is not in the trash. It fails as [Pool.Hold] does.
func (p *Pool) TidyTrash(ctx context.Context, id chunk.VolumeID) error {
	h, err := p.Hold(ctx, id)
	if errors.Is(err, drivers.ErrNotFound) {
		// No volume ever gets this id again.
		if err = p.client.Unlink(ctx, chunk.TrashRecord(id)); errors.Is(err, drivers.ErrNotFound) {
			err = nil
		}
		return err
	}
	if err != nil {
		return err
	}
	if h.Root().State != mapper.Trashed {
		err = h.untrash(ctx)
	}
	return errors.Join(err, h.Done(ctx))
}

func notInTrash(which string) error {
	return tell(ErrNotFound, "volume %s: not found in the trash; skerry ls --trash shows what is there", which)
}

// findTrashed returns the volumes in the trash that have an id, or had a name: then the newest comes first.
func (p *Pool) findTrashed(ctx context.Context, which string) ([]TrashInfo, error) {
	if id, err := chunk.ParseVolumeID(which); err == nil {
		if info, err := p.trashed(ctx, id); err != nil || info.ID == id {
			return []TrashInfo{info}, errors.Join(err, info.Err)
		}
	}
	all, err := p.Trash(ctx)
	all = slices.DeleteFunc(all, func(i TrashInfo) bool { return i.Name != which })
	if err == nil && len(all) == 0 {
		err = notInTrash(which)
	}
	return all, err
}

// holdTrashed takes a volume in the trash.
func (p *Pool) holdTrashed(ctx context.Context, id chunk.VolumeID) (*Held, error) {
	h, err := p.Hold(ctx, id)
	if errors.Is(err, drivers.ErrNotFound) {
		return nil, notInTrash(id.String())
	}
	if err == nil && h.Root().State != mapper.Trashed {
		return nil, errors.Join(notInTrash(id.String()), h.Done(ctx))
	}
	return h, err
}

// Restore takes a volume out of the trash, under the name that it had or another one. It is named by that name, then the newest
// of several is restored, or by its id. It fails with ErrNotFound if there is none, and with ErrExists if the name is taken.
func (p *Pool) Restore(ctx context.Context, which, name string) (Info, error) {
	info, err := p.restore(ctx, which, name)
	if err != nil {
		return Info{}, doing(err, "restore volume %s", which)
	}
	return info, nil
}

func (p *Pool) restore(ctx context.Context, which, name string) (Info, error) {
	found, err := p.findTrashed(ctx, which)
	if err != nil {
		return Info{}, err
	}
	name = cmp.Or(name, found[0].Name)
	var info Info
	err = p.naming(ctx, name, func() error {
		h, err := p.holdTrashed(ctx, found[0].ID)
		if err != nil {
			return err
		}
		err = h.restore(ctx, name)
		info = p.describe(h.Root())
		return errors.Join(err, h.Done(ctx))
	})
	if err != nil {
		return Info{}, err
	}
	info.Holder = nil
	return info, nil
}

// restore takes the held volume out of the trash.
func (h *Held) restore(ctx context.Context, name string) error {
	if err := h.pool.reserve(ctx, name, h.id); err != nil {
		return err
	}
	err := h.lease.Switch(ctx, func(r *mapper.Root) { r.State, r.Name, r.Until = mapper.Live, name, time.Time{} })
	if err == nil {
		h.dropTrashRecord(ctx)
		return nil
	}
	if h.lease.Err() == nil && h.settled(ctx).State == mapper.Trashed {
		if undoErr := h.unname(context.WithoutCancel(ctx), name); undoErr != nil {
			h.pool.log.Warn("name record is left for gc", "volume", name, "err", undoErr)
		}
	}
	return err
}

// holdRemoved takes the volume in the trash that is to be removed for good, if now says so. A name must not stand for several.
// Where there is none it fails with gone.
func (p *Pool) holdRemoved(ctx context.Context, which string, now bool, gone error) (*Held, error) {
	found, err := p.findTrashed(ctx, which)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, gone
	case err != nil:
		return nil, err
	case !now:
		return nil, tell(ErrNotFound, "volume %s: not found; one is in the trash: skerry rm --now %s removes it, skerry restore brings it back", which, which)
	case len(found) > 1:
		var ids []string
		for _, i := range found {
			ids = append(ids, i.ID.String())
		}
		return nil, tell(ErrExists, "volume %s: the trash has %d of that name: %s; give the id of one", which, len(ids), strings.Join(ids, ", "))
	}
	return p.holdTrashed(ctx, found[0].ID)
}

// Expire removes the held volume if it is in the trash, its time there is over, and nobody needs it: ErrInUse says who does. It
// reports whether the volume was one to be removed.
func (h *Held) Expire(ctx context.Context) (Removal, bool, error) {
	if h.dev != nil || !h.pool.Over(h.Root()) {
		return Removal{}, false, nil
	}
	r, err := h.remove(ctx, RemoveOptions{Snapshots: true})
	return r, true, err
}
