package exports

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/fuse"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
)

// FUSE returns the exports as a directory shows them.
func (t *Table) FUSE() fuse.Volumes { return fuseVolumes{t} }

type fuseVolumes struct{ *Table }

// List returns all volumes and snapshots that can be read; what is damaged is logged.
func (x fuseVolumes) List(ctx context.Context) ([]fuse.Entry, error) {
	infos, err := x.pool.List(ctx)
	if err != nil {
		return nil, err
	}
	var all []fuse.Entry
	add := func(e fuse.Entry) {
		if len(x.names) == 0 || slices.Contains(x.names, e.Name) {
			all = append(all, e)
		}
	}
	for _, i := range infos {
		if i.Err != nil {
			x.log.Warn("volume is damaged and not shown; see: skerry check", "volume", i.Name, "err", i.Err)
			continue
		}
		add(x.volumeEntry(i))
		for _, s := range i.Snapshots {
			add(snapshotEntry(i.ID, catalog.Ref{Volume: i.Name, Snapshot: s.Name}, s.Serial, s.Size, s.Created))
		}
	}
	return all, nil
}

func (x fuseVolumes) volumeEntry(i catalog.Info) fuse.Entry {
	e := fuse.Entry{Name: i.Name, ID: entryID(i.ID, 0), Size: i.Size, Granted: i.Granted, Grant: i.Generation}
	if d := x.opened(i.Name); d != nil {
		e.Size, e.Changes = d.Size(), changes(d)
	}
	return e
}

func snapshotEntry(id chunk.VolumeID, r catalog.Ref, serial chunk.Serial, size int64, created time.Time) fuse.Entry {
	return fuse.Entry{Name: r.String(), ID: entryID(id, serial), Size: size, Granted: created}
}

// entryID returns the number of a volume, or with a serial that of a snapshot of it. Ids of volumes are random.
func entryID(id chunk.VolumeID, serial chunk.Serial) uint64 {
	const golden = 0x9e3779b97f4a7c15 // spreads the serials over all bits
	return max(binary.LittleEndian.Uint64(id[:])^uint64(serial)*golden, 2) &^ (1 << 63)
}

// opened returns the device of a volume if it is open.
func (t *Table) opened(name string) *volume.Device {
	t.mu.Lock()
	e := t.open[name]
	t.mu.Unlock()
	if e == nil {
		return nil
	}
	select {
	case <-e.ready:
		return e.device
	default:
		return nil
	}
}

// Lookup returns a volume or a snapshot.
func (x fuseVolumes) Lookup(ctx context.Context, name string) (fuse.Entry, error) {
	r, err := x.ref(name)
	if err != nil {
		return fuse.Entry{}, err
	}
	i, err := x.pool.Brief(ctx, r.Volume)
	if err != nil {
		return fuse.Entry{}, err
	}
	if r.Snapshot == "" {
		return x.volumeEntry(i), nil
	}
	var found *mapper.Snapshot
	err = x.pool.EachSnapshot(ctx, i.ID, func(s *mapper.Snapshot, err error) error {
		if err == nil && !s.Hidden() && s.Name == r.Snapshot {
			found = s
		}
		return nil // a damaged one does not hide the others
	})
	if err != nil {
		return fuse.Entry{}, err
	}
	if found == nil {
		return fuse.Entry{}, fmt.Errorf("snapshot %v: %w", r, catalog.ErrNotFound)
	}
	return snapshotEntry(i.ID, r, found.Serial, found.Size, found.Created), nil
}

// ref reads the name of what is shown.
func (x fuseVolumes) ref(name string) (catalog.Ref, error) {
	r, err := catalog.ParseRef(name)
	if err != nil || len(x.names) > 0 && !slices.Contains(x.names, name) {
		return r, fmt.Errorf("%s: %w", name, catalog.ErrNotFound)
	}
	return r, nil
}

// Open opens a volume or a snapshot.
func (x fuseVolumes) Open(ctx context.Context, name string) (fuse.Device, func(), error) {
	d, release, err := x.Device(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	return fuseDevice{d, x.Table, name}, release, nil
}

// Create makes a volume.
func (x fuseVolumes) Create(ctx context.Context, name string, size int64) error {
	if err := x.mayName(); err != nil {
		return err
	}
	_, err := x.pool.Create(ctx, name, catalog.CreateOptions{Size: size})
	return err
}

// Rename gives a volume another name.
func (x fuseVolumes) Rename(ctx context.Context, name, to string) error {
	if err := x.mayName(); err != nil {
		return err
	}
	return x.pool.Rename(ctx, name, to)
}

var errGiven = errors.New("only given volumes are shown")

// mayName refuses what would make a new name.
func (x fuseVolumes) mayName() error {
	switch {
	case x.readOnly:
		return volume.ErrReadOnly
	case len(x.names) > 0:
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, errGiven)
	}
	return nil
}

// Remove removes a volume or a snapshot.
func (x fuseVolumes) Remove(ctx context.Context, name string) error {
	if x.readOnly {
		return volume.ErrReadOnly
	}
	r, err := x.ref(name)
	if err != nil {
		return err
	}
	if x.remove != nil {
		return x.remove(ctx, r)
	}
	_, err = x.pool.Remove(ctx, r, catalog.RemoveOptions{})
	return err
}

// Space returns what the storage has.
func (x fuseVolumes) Space(ctx context.Context) (fuse.Space, error) {
	if x.space == nil {
		return fuse.Space{}, nil
	}
	return x.space(ctx)
}

// fuseDevice is the device of an open file.
type fuseDevice struct {
	*volume.Device
	table *Table
	name  string
}

// ReadOnly reports whether changes are refused.
func (d fuseDevice) ReadOnly() bool { return d.table.readOnly || d.Device.ReadOnly() }

// Submit refuses what would change a table that is read-only.
func (d fuseDevice) Submit(r *volume.Request) bool {
	if d.table.readOnly {
		return readOnlyDevice{d.Device}.Submit(r)
	}
	return d.Device.Submit(r)
}

// Changes returns how many requests have changed the device.
func (d fuseDevice) Changes() int64 { return changes(d.Device) }

func changes(d *volume.Device) int64 {
	s := d.Stats()
	return s.Writes + s.Zeroes
}

// Resize makes the device larger, or if nobody else uses it smaller.
func (d fuseDevice) Resize(ctx context.Context, size int64) error {
	if d.table.readOnly {
		return volume.ErrReadOnly
	}
	if size < d.Size() && d.table.shared(d.name) {
		return fmt.Errorf("volume %s: %w: it is open through NBD too, and can only be made larger", d.name, catalog.ErrInUse)
	}
	err := d.Device.Resize(ctx, size)
	if errors.Is(err, volume.ErrInvalid) {
		err = fmt.Errorf("%w: %w", drivers.ErrInvalid, err)
	}
	return err
}

// shared reports whether more than one client uses an export.
func (t *Table) shared(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.open[name]
	if e == nil {
		return false
	}
	clients := e.users
	if slices.Contains(t.names, name) {
		clients-- // OpenNamed's
	}
	return clients > 1
}
