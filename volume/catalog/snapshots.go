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
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

// SnapshotInfo is what the catalog knows of a snapshot.
type SnapshotInfo struct {
	Name      string // empty: hidden, taken for a clone
	Volume    string
	Serial    chunk.Serial
	Size      int64 // bytes
	ChunkSize int64 // bytes
	Created   time.Time
	Deleting  bool     // its removal was begun and not finished
	Clones    []string // names of the volumes that began as it, sorted; filled by Info and SnapshotInfo
}

// Ref returns the name of the snapshot.
func (s SnapshotInfo) Ref() Ref { return Ref{Volume: s.Volume, Snapshot: s.Name} }

func describeSnapshot(s *mapper.Snapshot, name string) SnapshotInfo {
	return SnapshotInfo{
		Name: s.Name, Volume: name, Serial: s.Serial, Size: s.Size, ChunkSize: s.Geometry.Size(), Created: s.Created, Deleting: s.Deleting,
	}
}

// Snapshots returns the records of the snapshots of a volume, the oldest first. It needs no lease; what changes meanwhile may
// or may not be seen.
func (p *Pool) Snapshots(ctx context.Context, id chunk.VolumeID) ([]*mapper.Snapshot, error) {
	var all []*mapper.Snapshot
	err := p.EachSnapshot(ctx, id, func(s *mapper.Snapshot, err error) error {
		all = append(all, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// EachSnapshot calls fn with the record of each snapshot of a volume, the oldest first, or with what keeps it from being read, until fn returns
// an error, which EachSnapshot returns.
func (p *Pool) EachSnapshot(ctx context.Context, id chunk.VolumeID, fn func(*mapper.Snapshot, error) error) error {
	serials, err := p.serials(ctx, id)
	if err != nil {
		return err
	}
	for _, serial := range serials {
		s, err := p.loadSnapshot(ctx, id, serial)
		if errors.Is(err, drivers.ErrNotFound) {
			continue // removed meanwhile
		}
		if err := fn(s, err); err != nil {
			return err
		}
	}
	return nil
}

// serials returns the serials of the snapshots of a volume, ascending.
func (p *Pool) serials(ctx context.Context, id chunk.VolumeID) ([]chunk.Serial, error) {
	var serials []chunk.Serial
	err := p.client.List(ctx, chunk.GroupName(id, chunk.Snapshots), func(info drivers.Info) error {
		if s, ok := chunk.ParseSerialName(info.Name); ok {
			serials = append(serials, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots of volume %v: %w", id, err)
	}
	slices.Sort(serials)
	return serials, nil
}

// loadSnapshot reads one record, and checks that it is the one it should be.
func (p *Pool) loadSnapshot(ctx context.Context, id chunk.VolumeID, serial chunk.Serial) (*mapper.Snapshot, error) {
	b, err := p.client.Load(ctx, chunk.SerialName(id, chunk.Snapshots, serial))
	var s *mapper.Snapshot
	if err == nil {
		s, err = mapper.DecodeSnapshot(b)
	}
	if err == nil && (s.Volume != id || s.Serial != serial) {
		err = fmt.Errorf("%w: it is snapshot %v of volume %v", mapper.ErrDamaged, s.Serial, s.Volume)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %v of volume %v: %w", serial, id, err)
	}
	return s, nil
}

// findSnapshot returns the volume and the snapshot that a name stands for.
func (p *Pool) findSnapshot(ctx context.Context, r Ref) (*mapper.Root, *mapper.Snapshot, error) {
	_, root, err := p.lookup(ctx, r.Volume)
	if err != nil {
		return nil, nil, err
	}
	s, err := p.snapshotNamed(ctx, root.Volume, r)
	return root, s, err
}

// snapshotNamed returns the snapshot of a name. One that is being removed is found too.
func (p *Pool) snapshotNamed(ctx context.Context, id chunk.VolumeID, r Ref) (*mapper.Snapshot, error) {
	all, err := p.Snapshots(ctx, id)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Name == r.Snapshot && !s.Hidden() {
			return s, nil
		}
	}
	return nil, notFound(r)
}

// Snapshot takes a snapshot of a volume: of what was answered before the call, at least. It goes through the device if this pool
// has the volume open, and fails with a [locking.HeldError] if another process has. It fails with ErrExists if the volume has
// a snapshot of that name.
func (p *Pool) Snapshot(ctx context.Context, r Ref) (SnapshotInfo, error) {
	if err := checkName(r.Snapshot); err != nil {
		return SnapshotInfo{}, doing(err, "snapshot %v", r)
	}
	return p.snapshot(ctx, r)
}

// SnapshotHidden takes a snapshot without a name, for a clone: see CloneOptions.Hidden. It is removed with its last clone, or by
// the next collection if it gets none.
func (p *Pool) SnapshotHidden(ctx context.Context, name string) (SnapshotInfo, error) {
	return p.snapshot(ctx, Ref{Volume: name})
}

func (p *Pool) snapshot(ctx context.Context, r Ref) (info SnapshotInfo, err error) {
	err = p.holding(ctx, r.Volume, func(h *Held) error {
		if r.Snapshot != "" {
			if err := h.freeSnapshotName(ctx, r); err != nil {
				return err
			}
		}
		s, err := h.snapshot(ctx, r.Snapshot)
		if err == nil {
			info = describeSnapshot(s, r.Volume)
		}
		return err
	})
	if err != nil {
		return info, doing(err, "snapshot %v", r)
	}
	return info, nil
}

// freeSnapshotName makes sure that a name of a snapshot is free: a removal that was begun is finished.
func (h *Held) freeSnapshotName(ctx context.Context, r Ref) error {
	s, err := h.pool.snapshotNamed(ctx, h.id, r)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err == nil && s.Deleting {
		if err = h.dropSnapshots(ctx, r, s); err == nil {
			return nil
		}
	}
	if err != nil && !errors.Is(err, ErrInUse) {
		return err
	}
	return exists(r)
}

// snapshot takes a snapshot of the held volume.
func (h *Held) snapshot(ctx context.Context, name string) (s *mapper.Snapshot, err error) {
	if err := h.whole(ctx); err != nil {
		return nil, err
	}
	err = h.device(ctx, func(dev *volume.Device) error {
		s, err = dev.Snapshot(ctx, name)
		return err
	})
	return s, err
}

// flag sets or takes back the mark of a snapshot that it is being removed. It returns the record as it is then.
func (h *Held) flag(ctx context.Context, s *mapper.Snapshot, deleting bool) (*mapper.Snapshot, error) {
	if s.Deleting == deleting {
		return s, nil
	}
	next := *s
	next.Deleting = deleting
	name := chunk.SerialName(h.id, chunk.Snapshots, s.Serial)
	err := h.Client(drivers.LaneMeta).Replace(ctx, name, next.Encode(), drivers.Condition{Prefix: s.Encode()[:mapper.SnapshotPrefix]})
	if err != nil {
		return nil, fmt.Errorf("flag snapshot %v: %w", s.Serial, err)
	}
	return &next, nil
}

// flagAll flags snapshots of the held volume, all or none, unless somebody needs one of them: ErrInUse says who. The first look spares
// flags that would be taken back, which others may meet; the second one is what decides.
func (h *Held) flagAll(ctx context.Context, r Ref, all ...*mapper.Snapshot) error {
	err := h.unneeded(ctx, r, all...)
	if err != nil {
		return err
	}
	flagged := make([]*mapper.Snapshot, 0, len(all))
	for _, s := range all {
		var f *mapper.Snapshot
		if f, err = h.flag(ctx, s, true); err != nil {
			break
		}
		flagged = append(flagged, f)
	}
	if err == nil {
		err = h.unneeded(ctx, r, all...)
	}
	if err == nil {
		return nil
	}
	for _, s := range flagged {
		if _, unflagErr := h.flag(context.WithoutCancel(ctx), s, false); unflagErr != nil {
			err = errors.Join(err, unflagErr)
		}
	}
	return err
}

// dropSnapshots removes snapshots, all or none: ErrInUse says who needs one of them.
func (h *Held) dropSnapshots(ctx context.Context, r Ref, all ...*mapper.Snapshot) error {
	if err := h.flagAll(ctx, r, all...); err != nil {
		return err
	}
	return h.unlinkSnapshots(ctx, all...)
}

// unlinkSnapshots ends the removal of snapshots that are flagged. It may be repeated.
func (h *Held) unlinkSnapshots(ctx context.Context, all ...*mapper.Snapshot) error {
	client := h.Client(drivers.LaneMeta)
	for _, s := range all {
		if err := client.Unlink(ctx, chunk.SerialName(h.id, chunk.Snapshots, s.Serial)); err != nil && !errors.Is(err, drivers.ErrNotFound) {
			return fmt.Errorf("remove snapshot %v: %w", s.Serial, err)
		}
	}
	if err := client.SyncGroup(ctx, chunk.GroupName(h.id, chunk.Snapshots)); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	for _, s := range all {
		if err := h.unseal(ctx, s.Serial); err != nil {
			return err
		}
	}
	return nil
}

// unneeded fails with ErrInUse if one of these snapshots of the held volume has clones, or is being read. r names what is to be removed.
func (h *Held) unneeded(ctx context.Context, r Ref, all ...*mapper.Snapshot) error {
	if len(all) == 0 {
		return nil
	}
	serials := make(map[chunk.Serial]bool, len(all))
	for _, s := range all {
		serials[s.Serial] = true
	}
	clones, err := h.clones(ctx, serials)
	if err == nil {
		err = hasClones(r, clones)
	}
	if err != nil {
		return err
	}
	readers, err := h.readers(ctx, serials)
	if err != nil {
		return err
	}
	return hasReaders(r, readers)
}

// clones returns the names of the clones of snapshots of the held volume, by a fresh list of registrations. Those of clones that are
// not there any more are removed.
func (h *Held) clones(ctx context.Context, serials map[chunk.Serial]bool) ([]string, error) {
	type registration struct {
		snap  chunk.Serial
		clone chunk.VolumeID
	}
	var all []registration
	err := h.pool.Registrations(ctx, h.id, func(s chunk.Serial, clone chunk.VolumeID) {
		if serials[s] {
			all = append(all, registration{s, clone})
		}
	})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range all {
		name, err := h.clone(ctx, r.snap, r.clone)
		if err != nil {
			return nil, err
		}
		if name != "" {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, strings.Compare)
	return names, nil
}

// clone returns the name of a registered clone, or removes its registration if it is none.
func (h *Held) clone(ctx context.Context, serial chunk.Serial, id chunk.VolumeID) (string, error) {
	root, err := locking.Inspect(ctx, h.pool.client, id)
	if err == nil && !root.State.Kept() {
		// Being created by someone, or the rest of one that is gone.
		_, err = h.pool.Tidy(ctx, id, "")
		if errors.Is(err, locking.ErrHeld) {
			return cloneName(root), nil
		}
		if err == nil {
			root, err = locking.Inspect(ctx, h.pool.client, id)
		}
	}
	switch {
	case errors.Is(err, mapper.ErrDamaged):
		return id.String(), nil
	case err != nil && !errors.Is(err, drivers.ErrNotFound):
		return "", err
	case err == nil && root.State == mapper.Trashed && root.Parent == mapper.Parent{Volume: h.id, Snapshot: serial}:
		return fmt.Sprintf("%s (in the trash, %v)", root.Name, id), nil
	case err == nil && root.Parent == mapper.Parent{Volume: h.id, Snapshot: serial}:
		return cloneName(root), nil
	}
	client := h.Client(drivers.LaneMeta)
	err = client.Unlink(ctx, chunk.RegistrationName(h.id, serial, id))
	if err != nil && !errors.Is(err, drivers.ErrNotFound) {
		return "", fmt.Errorf("end registration of clone %v: %w", id, err)
	}
	return "", nil
}

// cloneName returns what to call a clone.
func cloneName(root *mapper.Root) string {
	if root.State == mapper.Creating && root.Name == "" {
		return "(a copy that is being made)"
	}
	return cmp.Or(root.Name, root.Volume.String())
}

// Registrations calls fn with the registrations of clones at the snapshots of a volume.
func (p *Pool) Registrations(ctx context.Context, id chunk.VolumeID, fn func(snap chunk.Serial, clone chunk.VolumeID)) error {
	err := p.client.List(ctx, chunk.GroupName(id, chunk.Registrations), func(info drivers.Info) error {
		if snap, clone, ok := chunk.ParseRegistrationName(info.Name); ok {
			fn(snap, clone)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list registrations at volume %v: %w", id, err)
	}
	return nil
}
