package collect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// clan measures volumes that may reach objects of one another, and no others.
type clan struct {
	m       *measurer
	members []*member // the youngest first, as a collection goes
	byID    map[chunk.VolumeID]*member
	objects map[chunk.VolumeID]*stored
	shared  int64 // what several members reach
	removed int64 // what is left of those of which nothing counts
}

// member is a volume that counts.
type member struct {
	number   int32 // from 1, in the order of measuring
	usage    VolumeUsage
	root     *mapper.Root   // nil: it cannot be read
	alive    bool           // a living process holds it
	image    chunk.VolumeID // owns the layers that show an image that is not copied yet; zero: none
	pending  bool           // it is kept as it is until its creation goes on
	inherits bool           // it reaches objects of others
	reached  int64          // bytes of what it reaches
	only     int64          // of these, what no other member reaches
	pruned   map[chunk.Serial]bool
	seen     []chunk.Serial // its snapshots
}

// stored are the objects of one volume.
type stored struct {
	list          []object // by serial
	snapshots     map[chunk.Serial]int64
	registrations []registration
	more          int64 // bytes of all else: roots
}

// registration is that of a clone at a snapshot.
type registration struct {
	snap  chunk.Serial
	clone chunk.VolumeID
	bytes int64
}

// Who reaches an object, or which state of a member does: nobody, one by its number, or several.
const (
	nobody  = 0
	several = -1
)

// object is a data object, a page or a journal.
type object struct {
	serial chunk.Serial
	bytes  int64
	member int32 // who reaches it
	last   int32 // the last member that was seen to
	state  int32 // if one member does, which state of it: its index in States, or several
}

// family measures the volumes of a family, again if one of them changes meanwhile.
func (m *measurer) family(ctx context.Context, ids []chunk.VolumeID) (*clan, error) {
	for look := 1; ; look++ {
		f := &clan{m: m, byID: make(map[chunk.VolumeID]*member), objects: make(map[chunk.VolumeID]*stored)}
		changed, err := f.measure(ctx, ids)
		if err != nil || !changed || look == looks {
			return f, err
		}
	}
}

// measure measures the volumes. It reports whether damage that was met may come of a change meanwhile.
func (f *clan) measure(ctx context.Context, ids []chunk.VolumeID) (changed bool, err error) {
	// What is listed before the maps are read, and is not reached by them, is not new.
	for _, id := range ids {
		if err := f.list(ctx, id); err != nil {
			return false, err
		}
	}
	for _, id := range ids {
		if err := f.join(ctx, id); err != nil {
			return false, fmt.Errorf("volume %v: %w", id, err)
		}
	}
	slices.SortStableFunc(f.members, func(a, b *member) int {
		if a.root == nil || b.root == nil {
			return 0
		}
		return b.root.Created.Compare(a.root.Created)
	})
	for _, v := range f.members {
		f.byID[v.usage.ID] = v
	}
	for i, v := range f.members {
		v.number = int32(i + 1)
		if v.root == nil {
			continue
		}
		err := f.walk(ctx, v)
		if errors.Is(err, drivers.ErrNotFound) {
			err = fmt.Errorf("%w: %w", errDamage, err)
		}
		if err != nil && !damaged(err) {
			return false, fmt.Errorf("volume %s: %w", v.usage.Name, err)
		}
		if err != nil {
			v.usage.Err = err
			again, err := f.m.c.p.Inspect(ctx, v.usage.ID)
			changed = changed || err != nil || !same(v.root, again)
			gone, err := f.m.c.gone(ctx, v.usage.ID, v.seen)
			changed = changed || err != nil || gone
		}
	}
	f.sum()
	return changed, nil
}

func (f *clan) volumes() []VolumeUsage {
	all := make([]VolumeUsage, 0, len(f.members))
	for _, v := range f.members {
		all = append(all, v.usage)
	}
	return all
}

// list notes the objects of a volume.
func (f *clan) list(ctx context.Context, id chunk.VolumeID) error {
	s := &stored{snapshots: make(map[chunk.Serial]int64)}
	f.objects[id] = s
	err := f.m.c.client.List(ctx, chunk.VolumeGroup(id), func(info drivers.Info) error {
		if serial, ok := serialOf(info.Name); ok {
			s.list = append(s.list, object{serial: serial, bytes: info.Allocated})
			return nil
		}
		_, g, _ := chunk.ParseVolume(info.Name)
		snap, isSnap := chunk.ParseSerialName(info.Name)
		reg, clone, isReg := chunk.ParseRegistrationName(info.Name)
		switch {
		case (g == chunk.Snapshots || g == chunk.Seals) && isSnap:
			s.snapshots[snap] += info.Allocated
		case g == chunk.Registrations && isReg:
			s.registrations = append(s.registrations, registration{reg, clone, info.Allocated})
		default:
			s.more += info.Allocated
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list objects of volume %v: %w", id, err)
	}
	slices.SortFunc(s.list, func(a, b object) int { return cmp.Compare(a.serial, b.serial) })
	return nil
}

// join makes a volume a member if it counts.
func (f *clan) join(ctx context.Context, id chunk.VolumeID) error {
	v := &member{usage: VolumeUsage{Name: id.String(), ID: id}, pruned: make(map[chunk.Serial]bool)}
	root, err := f.m.c.p.Inspect(ctx, id)
	switch {
	case errors.Is(err, drivers.ErrNotFound):
		return nil
	case damaged(err):
		v.usage.State, v.usage.Err = "damaged", err
		f.members = append(f.members, v)
		return nil
	case err != nil:
		return err
	}
	if v.alive, err = f.m.c.alive(ctx, root); err != nil {
		return err
	}
	v.pending = !v.alive && f.m.c.p.Pending(root)
	if !v.alive && !v.pending && !root.State.Kept() || f.m.c.p.Over(root) {
		return nil
	}
	v.root, v.usage.State, v.usage.Size = root, root.State.String(), root.Size
	if root.Name != "" {
		v.usage.Name = root.Name
	}
	if root.State == mapper.Live {
		counts, err := f.m.c.p.Counts(ctx, root)
		if err != nil && !damaged(err) {
			return err
		}
		if err == nil && !counts {
			v.usage.Name = id.String()
		}
	}
	f.members = append(f.members, v)
	return nil
}

// needed reports whether a registration at a snapshot is that of a clone that needs it. The clones were measured before.
func (f *clan) needed(at chunk.VolumeID, r registration) bool {
	v := f.byID[r.clone]
	if v == nil {
		return false
	}
	if v.root == nil || v.number == 0 || v.usage.Err != nil {
		return true // nobody knows
	}
	return v.root.Parent == mapper.Parent{Volume: at, Snapshot: r.snap} && (v.inherits || v.alive || v.pending)
}

// sum gives each object to whom it belongs.
func (f *clan) sum() {
	for id, s := range f.objects {
		owner := f.byID[id]
		for _, o := range s.list {
			switch {
			case o.member == several:
				f.shared += o.bytes
			case o.member == nobody:
				f.unreached(owner, o)
			default:
				v := f.members[o.member-1]
				v.only += o.bytes
				if o.state != several {
					v.usage.States[o.state].Own += o.bytes
				}
			}
		}
		f.rest(owner, s)
	}
	for _, v := range f.members {
		v.usage.Own += v.only
		v.usage.Shared = v.reached - v.only
		for i := range v.usage.States {
			v.usage.States[i].Shared -= v.usage.States[i].Own
		}
	}
}

// unreached counts an object that nobody reaches.
func (f *clan) unreached(owner *member, o object) {
	switch {
	case owner == nil:
		f.removed += o.bytes
	case owner.root == nil, owner.usage.Err != nil, owner.pending, owner.alive && o.serial.Generation() >= owner.fresh():
		owner.usage.Own += o.bytes
	default:
		owner.usage.Reclaimable += o.bytes
	}
}

// rest counts records. A registration goes with the clone.
func (f *clan) rest(owner *member, s *stored) {
	if owner == nil {
		f.removed += s.more
	} else {
		owner.usage.Own += s.more
	}
	for serial, n := range s.snapshots {
		switch {
		case owner == nil:
			f.removed += n
		case owner.pruned[serial]:
			owner.usage.Reclaimable += n
		default:
			owner.usage.Own += n
		}
	}
	for _, r := range s.registrations {
		switch {
		case owner == nil:
			f.removed += r.bytes
		case f.needed(owner.usage.ID, r):
			f.byID[r.clone].usage.Own += r.bytes
		default:
			owner.usage.Reclaimable += r.bytes
		}
	}
}
