package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// Usage is what the objects of a pool take, in bytes of storage in use. Every object counts once:
// Stored is Pool, Shared and Removed, and of all volumes Own and Reclaimable.
type Usage struct {
	Volumes []VolumeUsage // by name
	Shared  int64         // what several volumes reach
	Removed int64         // what is left of volumes and names that do not count: a collection gives it back
	Pool    int64         // the pool's own: its record, its reserve, instance files
	Stored  int64
}

// VolumeUsage is what a volume takes, its snapshots included.
type VolumeUsage struct {
	Name  string // or its id
	ID    chunk.VolumeID
	State string
	Size  int64 // bytes of the volume

	Own         int64 // what nothing but this volume and its snapshots reaches, records and journals included
	Shared      int64 // what it reaches and other volumes reach too
	Reclaimable int64 // what it owns and nothing reaches: a collection gives it back, once no process holds the volume

	States []StateUsage // its present state first, then its snapshots, the oldest first
	Err    error        // what is damaged; then Own has what may be reachable
}

// StateUsage is what the present state of a volume, or a snapshot, takes.
type StateUsage struct {
	Name    string // of the snapshot
	Present bool   // it is no snapshot
	Hidden  bool   // the snapshot was taken for a clone and has no name
	Size    int64  // bytes of the volume then
	Own     int64  // what nothing else reaches
	Shared  int64  // what it reaches, and other states of the volume or other volumes reach too
}

// MeasurePool returns what the pool's objects take. It takes no lease and changes nothing. It reads all maps, and needs 40 bytes of memory
// for each object of a family: of volumes that began as one another's clones. What changes meanwhile may or may not be
// seen. A volume that cannot be read is there with Err set.
func MeasurePool(ctx context.Context, p *catalog.Pool) (Usage, error) {
	m := &measurer{c: &checker{p: p, client: p.Engine().Client(drivers.LaneBackground, 0, nil)}}
	u, err := m.pool(ctx)
	if err != nil {
		return u, fmt.Errorf("usage: %w", err)
	}
	return u, nil
}

// MeasureVolume returns what one volume takes, by the same rules.
func MeasureVolume(ctx context.Context, p *catalog.Pool, name string) (VolumeUsage, error) {
	m := &measurer{c: &checker{p: p, client: p.Engine().Client(drivers.LaneBackground, 0, nil)}}
	id, err := p.Lookup(ctx, name)
	if err != nil {
		return VolumeUsage{}, fmt.Errorf("usage: %w", err)
	}
	v, err := m.one(ctx, id)
	if err != nil {
		return VolumeUsage{}, fmt.Errorf("usage of volume %s: %w", name, err)
	}
	return v, nil
}

// measurer measures one pool.
type measurer struct{ c *checker }

// relation is what decides which volumes are of one family.
type relation struct {
	id      chunk.VolumeID
	related []chunk.VolumeID
}

func (m *measurer) pool(ctx context.Context) (Usage, error) {
	var u Usage
	ids, err := m.c.p.Volumes(ctx)
	if err != nil {
		return u, err
	}
	families, err := m.families(ctx, ids)
	if err != nil {
		return u, err
	}
	for _, f := range families {
		fam, err := m.family(ctx, f)
		if err != nil {
			return u, err
		}
		u.Volumes = append(u.Volumes, fam.volumes()...)
		u.Shared += fam.shared
		u.Removed += fam.removed
	}
	slices.SortFunc(u.Volumes, func(a, b VolumeUsage) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), slices.Compare(a.ID[:], b.ID[:]))
	})
	if err := m.records(ctx, &u); err != nil {
		return u, err
	}
	u.Stored = u.Pool + u.Shared + u.Removed
	for _, v := range u.Volumes {
		u.Stored += v.Own + v.Reclaimable
	}
	return u, nil
}

// one measures the family of a volume and returns the volume.
func (m *measurer) one(ctx context.Context, id chunk.VolumeID) (VolumeUsage, error) {
	ids := []chunk.VolumeID{id}
	err := m.c.p.Names(ctx, func(_ string, other chunk.VolumeID, err error) error {
		if err == nil && other != id {
			ids = append(ids, other)
		}
		return nil
	})
	if err == nil {
		err = m.c.p.TrashRecords(ctx, func(other chunk.VolumeID, _ mapper.TrashRecord, _ error) error {
			ids = append(ids, other)
			return nil
		})
	}
	if err != nil {
		return VolumeUsage{}, err
	}
	slices.SortFunc(ids, func(a, b chunk.VolumeID) int { return slices.Compare(a[:], b[:]) })
	families, err := m.families(ctx, slices.Compact(ids))
	if err != nil {
		return VolumeUsage{}, err
	}
	for _, f := range families {
		if !slices.Contains(f, id) {
			continue
		}
		fam, err := m.family(ctx, f)
		if err != nil {
			return VolumeUsage{}, err
		}
		for _, v := range fam.volumes() {
			if v.ID == id {
				var u Usage
				u.Volumes = []VolumeUsage{v}
				err := m.records(ctx, &u)
				return u.Volumes[0], err
			}
		}
	}
	return VolumeUsage{}, fmt.Errorf("%w: it was removed meanwhile", catalog.ErrNotFound)
}

// lookers is how many volumes are looked at at once.
const lookers = 16

// families sorts volumes into those that may reach objects of one another.
func (m *measurer) families(ctx context.Context, ids []chunk.VolumeID) ([][]chunk.VolumeID, error) {
	relations := make([]relation, len(ids))
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(lookers)
	for i, id := range ids {
		g.Go(func() (err error) {
			relations[i], err = m.relation(groupCtx, id)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	first := make(map[chunk.VolumeID]chunk.VolumeID) // towards the one that stands for a family
	find := func(id chunk.VolumeID) chunk.VolumeID {
		for {
			up, ok := first[id]
			if !ok {
				return id
			}
			if upper, ok := first[up]; ok {
				first[id] = upper // halve the way for the next
			}
			id = up
		}
	}
	for _, r := range relations {
		for _, other := range r.related {
			if a, b := find(r.id), find(other); a != b {
				first[a] = b
			}
		}
	}
	members := make(map[chunk.VolumeID][]chunk.VolumeID)
	var order []chunk.VolumeID
	for _, id := range ids {
		top := find(id)
		if members[top] == nil {
			order = append(order, top)
		}
		members[top] = append(members[top], id)
	}
	families := make([][]chunk.VolumeID, 0, len(order))
	for _, top := range order {
		families = append(families, members[top])
	}
	return families, nil
}

// relation returns the volumes that a volume's records name. Those of a damaged one are taken for none.
func (m *measurer) relation(ctx context.Context, id chunk.VolumeID) (relation, error) {
	r := relation{id: id}
	root, err := m.c.p.Inspect(ctx, id)
	if err == nil {
		r.related = append(r.related, root.Owners...)
		if !root.Parent.Volume.IsZero() {
			r.related = append(r.related, root.Parent.Volume)
		}
		var all []*mapper.Snapshot
		all, err = m.c.p.Snapshots(ctx, id)
		for _, s := range all {
			r.related = append(r.related, s.Owners...)
		}
	}
	if err == nil {
		err = m.c.p.Registrations(ctx, id, func(_ chunk.Serial, clone chunk.VolumeID) { r.related = append(r.related, clone) })
	}
	if err != nil && !damaged(err) && !errors.Is(err, drivers.ErrNotFound) {
		return r, err
	}
	return r, nil
}

// records adds what lies beside the volumes: names and records of the trash count for their volumes.
func (m *measurer) records(ctx context.Context, u *Usage) error {
	byName := make(map[string]*VolumeUsage)
	for i := range u.Volumes {
		v := &u.Volumes[i]
		switch v.State {
		case mapper.Trashed.String():
			byName[chunk.TrashRecord(v.ID)] = v
		default:
			byName[chunk.NameRecord(v.Name)] = v
		}
	}
	for _, group := range []string{chunk.NamesGroup, chunk.TrashGroup, chunk.InstanceGroup, chunk.ReserveGroup} {
		err := m.c.client.List(ctx, group, func(info drivers.Info) error {
			switch v := byName[info.Name]; {
			case v != nil:
				v.Own += info.Allocated
			case group == chunk.NamesGroup || group == chunk.TrashGroup:
				u.Removed += info.Allocated
			default:
				u.Pool += info.Allocated
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list %s: %w", group, err)
		}
	}
	info, err := m.c.client.Stat(ctx, chunk.PoolName)
	if err != nil {
		return err
	}
	u.Pool += info.Allocated
	return nil
}
