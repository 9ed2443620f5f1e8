package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
)

// DamagedRemoval says what was removed though it was damaged.
type DamagedRemoval struct {
	Removal
	Name      string // of the volume; empty: it had none that could be found
	ID        chunk.VolumeID
	Snapshots []string // names of those that went with it, as far as they could be read
}

// RemoveDamaged removes a volume of which a record is damaged or the name is lost, so that Remove cannot, with all that it has; or
// with a snapshot, given by its serial, one whose record is damaged. Volumes are given by name or id. What is sound is refused with
// drivers.ErrInvalid; what clones need, what is being read and what is held with ErrInUse, as Remove does.
func (p *Pool) RemoveDamaged(ctx context.Context, r Ref, o RemoveOptions) (DamagedRemoval, error) {
	var d DamagedRemoval
	if o.Limit <= 0 {
		o.Limit = removeLimit
	}
	err := p.WithReserve(ctx, func() error {
		id, err := p.find(ctx, r.Volume)
		if err != nil {
			return err
		}
		d = DamagedRemoval{ID: id}
		if r.Snapshot != "" {
			return p.removeDamagedSnapshot(ctx, id, r)
		}
		return p.removeDamagedVolume(ctx, r, o, &d)
	})
	if err != nil {
		return d, doing(err, "remove %v", r)
	}
	return d, nil
}

// find returns the volume that a name record points to, whether it counts or not, or that has the id.
func (p *Pool) find(ctx context.Context, which string) (chunk.VolumeID, error) {
	if !ValidName(which) {
		return chunk.VolumeID{}, notFound(Ref{Volume: which})
	}
	id, err := p.record(ctx, which)
	if !errors.Is(err, drivers.ErrNotFound) {
		return id, err
	}
	if id, err = chunk.ParseVolumeID(which); err != nil {
		return id, notFound(Ref{Volume: which})
	}
	return id, nil
}

// SnapshotRecords returns the snapshots of a volume whose records can be read, the oldest first, and what is wrong with the others. It
// needs no lease.
func (p *Pool) SnapshotRecords(ctx context.Context, id chunk.VolumeID) (good []*mapper.Snapshot, bad map[chunk.Serial]error, err error) {
	serials, err := p.serials(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	bad = make(map[chunk.Serial]error)
	for _, serial := range serials {
		s, err := p.loadSnapshot(ctx, id, serial)
		switch {
		case errors.Is(err, drivers.ErrNotFound): // removed meanwhile
		case errors.Is(err, mapper.ErrDamaged):
			bad[serial] = err
		case err != nil:
			return nil, nil, err
		default:
			good = append(good, s)
		}
	}
	return good, bad, nil
}

func (p *Pool) removeDamagedSnapshot(ctx context.Context, id chunk.VolumeID, r Ref) error {
	serial, ok := chunk.ParseSerialName("/" + r.Snapshot)
	if !ok {
		return tell(drivers.ErrInvalid, "snapshot %v: a damaged one is given by its serial, as skerry check tells it, for example %s@6.1", r, r.Volume)
	}
	h, err := p.Hold(ctx, id)
	if err != nil {
		return unheld(err)
	}
	return errors.Join(h.removeDamagedSnapshot(ctx, r, serial), h.Done(ctx))
}

func (h *Held) removeDamagedSnapshot(ctx context.Context, r Ref, serial chunk.Serial) error {
	name := chunk.SerialName(h.id, chunk.Snapshots, serial)
	_, err := h.pool.loadSnapshot(ctx, h.id, serial)
	switch {
	case err == nil:
		return tell(drivers.ErrInvalid, "snapshot %v: its record is sound: remove it by its name, without --damaged", r)
	case errors.Is(err, drivers.ErrNotFound):
		return notFound(r)
	case !errors.Is(err, mapper.ErrDamaged):
		return err
	}
	if err := h.pool.spoiled(ctx, name); err != nil {
		return err
	}
	// What a copy was to go on with cannot be read.
	if err := h.endPins(ctx, &mapper.Snapshot{Serial: serial}); err != nil {
		return err
	}
	// No clone can come any more: a cloner reads the record after it has registered.
	if err := h.unneeded(ctx, r, &mapper.Snapshot{Serial: serial}); err != nil {
		return err
	}
	err = h.pool.dependents(ctx, func(id chunk.VolumeID, root *mapper.Root) error {
		if root.Parent == (mapper.Parent{Volume: h.id, Snapshot: serial}) {
			return hasClones(r, []string{cloneName(root)})
		}
		return nil
	})
	if err != nil {
		return err
	}
	client := h.Client(drivers.LaneMeta)
	if err := client.Unlink(ctx, name); err != nil && !errors.Is(err, drivers.ErrNotFound) {
		return err
	}
	return client.SyncGroup(ctx, chunk.GroupName(h.id, chunk.Snapshots))
}

// spoiled fails unless the bytes of a record are not those that were written. A record of another version is none of ours to give up.
func (p *Pool) spoiled(ctx context.Context, name string) error {
	b, err := p.client.Load(ctx, name)
	if err == nil && mapper.Intact(b) {
		err = fmt.Errorf("%s was written by another version of skerry: use that: %w", name, drivers.ErrInvalid)
	}
	return err
}

// dependents calls fn with every volume whose root can be read and that may need what it was cloned from.
func (p *Pool) dependents(ctx context.Context, fn func(id chunk.VolumeID, root *mapper.Root) error) error {
	ids, err := p.Volumes(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		root, err := p.Inspect(ctx, id)
		switch {
		case errors.Is(err, drivers.ErrNotFound), errors.Is(err, mapper.ErrDamaged):
		case err != nil:
			return err
		case root.State != mapper.Deleted:
			if err := fn(id, root); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *Pool) removeDamagedVolume(ctx context.Context, r Ref, o RemoveOptions, d *DamagedRemoval) error {
	good, bad, err := p.SnapshotRecords(ctx, d.ID)
	if err != nil {
		return err
	}
	for _, s := range good {
		if !s.Hidden() {
			d.Snapshots = append(d.Snapshots, s.Name)
		}
	}
	root, err := p.Inspect(ctx, d.ID)
	var h *Held
	switch {
	case errors.Is(err, drivers.ErrNotFound):
		return notFound(r)
	case errors.Is(err, mapper.ErrDamaged):
		h, err = p.seizeForRemoval(ctx, r, o, d)
	case err == nil:
		d.Name = root.Name
		if err = p.harmed(ctx, r, root, len(bad)); err == nil {
			err = d.together(r, o)
		}
		if err == nil {
			h, err = p.Hold(ctx, d.ID)
		}
	}
	if errors.Is(err, locking.ErrHeld) {
		err = tell(ErrInUse, "volume %v: in use: %v", r, err)
	}
	if err != nil {
		return err
	}
	parent := h.Root().Parent
	d.Removal, err = h.removeDamaged(ctx, r, o, d, good, bad)
	if err := errors.Join(err, h.Done(ctx)); err != nil {
		return err
	}
	if d.Left == 0 {
		p.dropHidden(ctx, parent)
	}
	return nil
}

// harmed fails if all records of a volume are sound.
func (p *Pool) harmed(ctx context.Context, r Ref, root *mapper.Root, bad int) error {
	sound := tell(drivers.ErrInvalid, "volume %v: its records are sound: remove it without --damaged", r)
	switch {
	case bad > 0 || root.State == mapper.Deleted:
		return nil
	case root.State == mapper.Trashed:
		return sound
	}
	counts, err := p.counts(ctx, root.Name, root)
	if errors.Is(err, mapper.ErrDamaged) {
		return p.spoiled(ctx, chunk.NameRecord(root.Name))
	}
	if err != nil {
		return err
	}
	if root.State == mapper.Live && !counts {
		return nil
	}
	return sound
}

// together fails with ErrInUse if the volume has snapshots that were not to go with it.
func (d *DamagedRemoval) together(r Ref, o RemoveOptions) error {
	if len(d.Snapshots) > 0 && !o.Snapshots {
		return tell(ErrInUse, "volume %v: in use: it has snapshots: %s; remove them with it by --snapshots", r, strings.Join(d.Snapshots, ", "))
	}
	return nil
}

// disposable fails with ErrInUse if anything needs the volume.
func (p *Pool) disposable(ctx context.Context, r Ref, d *DamagedRemoval) error {
	var clones []string
	var ids []chunk.VolumeID
	err := p.Registrations(ctx, d.ID, func(_ chunk.Serial, clone chunk.VolumeID) { ids = append(ids, clone) })
	if err != nil {
		return err
	}
	for _, id := range ids {
		root, err := p.Inspect(ctx, id)
		switch {
		case errors.Is(err, mapper.ErrDamaged):
			clones = append(clones, id.String()+" (damaged)")
		case err == nil && root.Parent.Volume == d.ID:
			clones = append(clones, cloneName(root))
		case err != nil && !errors.Is(err, drivers.ErrNotFound):
			return err
		}
	}
	err = p.dependents(ctx, func(id chunk.VolumeID, root *mapper.Root) error {
		if root.Parent.Volume == d.ID && !slices.Contains(clones, cloneName(root)) {
			clones = append(clones, cloneName(root))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := hasClones(r, clones); err != nil {
		return err
	}
	all, err := p.Readers(ctx, d.ID)
	if err != nil {
		return err
	}
	var readers []string
	for _, reader := range all {
		if reader.Alive {
			readers = append(readers, readerText(reader.Process))
		}
	}
	return hasReaders(r, readers)
}

// seizeForRemoval takes a volume whose root cannot be read, to remove it. From then on it is deleted.
func (p *Pool) seizeForRemoval(ctx context.Context, r Ref, o RemoveOptions, d *DamagedRemoval) (*Held, error) {
	if err := d.together(r, o); err != nil {
		return nil, err
	}
	// No copy of it can go on.
	var pins []chunk.VolumeID
	err := p.Registrations(ctx, d.ID, func(_ chunk.Serial, clone chunk.VolumeID) { pins = append(pins, clone) })
	for _, pin := range pins {
		if err == nil {
			err = p.dropPin(ctx, pin)
		}
	}
	if err != nil {
		return nil, err
	}
	// Nobody can clone or open it, so what is not there now does not come.
	if err := p.disposable(ctx, r, d); err != nil {
		return nil, err
	}
	err = p.Names(ctx, func(name string, id chunk.VolumeID, err error) error {
		if err == nil && id == d.ID {
			d.Name = name
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	root, err := p.remains(d.ID, d.Name)
	if err != nil {
		return nil, err
	}
	root.Until = p.o.Now() // so that a record in the trash goes, too
	return p.seize(ctx, root)
}

// seize holds a volume whose root cannot be read by making its next one.
func (p *Pool) seize(ctx context.Context, root *mapper.Root) (*Held, error) {
	e, err := p.enter(ctx, root.Volume)
	if err != nil {
		return nil, err
	}
	lease, err := p.instance.Seize(ctx, root)
	if err != nil {
		p.leave(root.Volume, e)
		return nil, err
	}
	return &Held{pool: p, id: root.Volume, entry: e, lease: lease}, nil
}

// removeDamaged removes the held volume.
func (h *Held) removeDamaged(ctx context.Context, r Ref, o RemoveOptions, d *DamagedRemoval, good []*mapper.Snapshot, bad map[chunk.Serial]error) (Removal, error) {
	if h.dev != nil {
		return Removal{}, openHere(r.Volume)
	}
	root := h.Root()
	if root.State != mapper.Deleted {
		all := slices.Clone(good)
		for serial := range bad {
			all = append(all, &mapper.Snapshot{Serial: serial})
		}
		if err := h.endPins(ctx, all...); err != nil {
			return Removal{}, err
		}
		if err := h.flagAll(ctx, r, good...); err != nil {
			return Removal{}, err
		}
		if err := h.pool.disposable(ctx, r, d); err != nil {
			return Removal{}, errors.Join(err, h.unflagAll(ctx, good))
		}
	}
	if named := root.State != mapper.Trashed && ValidName(root.Name); named && h.pool.misnamed(ctx, root.Name) {
		if err := h.lease.Switch(ctx, func(r *mapper.Root) { r.State = mapper.Deleted }); err != nil {
			return Removal{}, err
		}
		// Whoever else has the name cannot be found by it either.
		err := h.Client(drivers.LaneMeta).Unlink(ctx, chunk.NameRecord(root.Name))
		if err != nil && !errors.Is(err, drivers.ErrNotFound) {
			return Removal{}, err
		}
	}
	return h.destroy(ctx, o.Limit)
}

// misnamed reports whether the record of a name is damaged.
func (p *Pool) misnamed(ctx context.Context, name string) bool {
	_, err := p.record(ctx, name)
	return errors.Is(err, mapper.ErrDamaged) && p.spoiled(ctx, chunk.NameRecord(name)) == nil
}

// unflagAll takes the flags of snapshots back that flagAll set.
func (h *Held) unflagAll(ctx context.Context, all []*mapper.Snapshot) error {
	var errs error
	for _, s := range all {
		flagged := *s
		flagged.Deleting = true
		_, err := h.flag(context.WithoutCancel(ctx), &flagged, false)
		errs = errors.Join(errs, err)
	}
	return errs
}
