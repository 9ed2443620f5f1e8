package collect

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/mapper/journal"
	"skerry/volume/catalog"
)

// walk visits all that a member reaches.
func (f *clan) walk(ctx context.Context, v *member) error {
	all, err := f.m.c.p.Snapshots(ctx, v.usage.ID)
	if err != nil {
		return err
	}
	readers, err := f.m.c.p.Readers(ctx, v.usage.ID)
	if err != nil {
		return err
	}
	read := make(map[chunk.Serial]bool)
	for _, r := range readers {
		read[r.Snapshot] = read[r.Snapshot] || r.Alive
	}
	maps := []layout{{v.root.Owners, v.root.Pages, v.root.Geometry}}
	v.usage.States = []StateUsage{{Present: true, Size: v.root.Size}}
	for _, s := range all {
		v.seen = append(v.seen, s.Serial)
		if !read[s.Serial] && f.prunable(v, s) {
			v.pruned[s.Serial] = true
			continue
		}
		maps = append(maps, layout{s.Owners, s.Pages, s.Geometry})
		v.usage.States = append(v.usage.States, StateUsage{Name: s.Name, Hidden: s.Hidden(), Size: s.Size})
	}
	var image chunk.Serial
	if v.image, image, err = catalog.ShownBy(v.root); err != nil {
		return err
	}
	if err := f.pages(ctx, v, maps); err != nil {
		return err
	}
	if image != 0 {
		f.touch(v, v.usage.ID, image, []int32{0})
	}
	return f.journals(ctx, v)
}

// prunable reports whether a collection would remove a snapshot of a member, if nobody reads it.
func (f *clan) prunable(v *member, s *mapper.Snapshot) bool {
	if v.alive || v.pending || !s.Hidden() && !s.Deleting {
		return false
	}
	return !slices.ContainsFunc(f.objects[v.usage.ID].registrations, func(r registration) bool {
		return r.snap == s.Serial && f.needed(v.usage.ID, r)
	})
}

// layout is where the map of one state of a volume lies.
type layout struct {
	owners []chunk.VolumeID
	pages  []mapper.PageRef // by ascending number
	geom   chunk.Geometry
}

// pages visits the pages of all states of a member.
func (f *clan) pages(ctx context.Context, v *member, maps []layout) error {
	return eachNumber(maps, func(number uint64, keys []pageKey, states map[pageKey][]int32) error {
		for _, key := range keys {
			if err := f.page(ctx, v, maps[states[key][0]].geom, number, key, states[key]); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachNumber calls fn for each number of pages of maps, in ascending order, with the stored pages of that number, each once, and the indices of the
// maps that have each. What is reached through a page is reached through no page of another number.
func eachNumber(maps []layout, fn func(number uint64, keys []pageKey, states map[pageKey][]int32) error) error {
	next := make([]int, len(maps))
	for {
		number, more := uint64(0), false
		for i, m := range maps {
			if next[i] < len(m.pages) && (!more || m.pages[next[i]].Number < number) {
				number, more = m.pages[next[i]].Number, true
			}
		}
		if !more {
			return nil
		}
		states := make(map[pageKey][]int32)
		var keys []pageKey
		for i, m := range maps {
			if next[i] == len(m.pages) || m.pages[next[i]].Number != number {
				continue
			}
			ref := m.pages[next[i]]
			next[i]++
			key := pageKey{m.owners[ref.Owner], ref.Serial}
			if states[key] == nil {
				keys = append(keys, key)
			}
			states[key] = append(states[key], int32(i))
		}
		if err := fn(number, keys, states); err != nil {
			return err
		}
	}
}

// page visits a page that some states of a member have.
func (f *clan) page(ctx context.Context, v *member, geom chunk.Geometry, number uint64, key pageKey, states []int32) error {
	f.touch(v, key.owner, key.serial, states)
	b, err := f.m.c.client.Load(ctx, chunk.SerialName(key.owner, chunk.Pages, key.serial))
	if err == nil {
		err = mapper.EachLayer(b, key.owner, mapper.PageRef{Number: number, Serial: key.serial}, geom, func(l mapper.LayerRef) error {
			f.touch(v, l.Owner, l.Serial, states)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("map page %d: %w", number, err)
	}
	return nil
}

// touch notes that states of a member reach an object, if that was listed.
func (f *clan) touch(v *member, owner chunk.VolumeID, serial chunk.Serial, states []int32) {
	v.inherits = v.inherits || owner != v.usage.ID && (owner != v.image || v.image.IsZero())
	o := f.find(owner, serial)
	if o == nil {
		return
	}
	for _, s := range states {
		v.usage.States[s].Shared += o.bytes // own or shared; sum parts them
	}
	if o.last != v.number {
		v.reached += o.bytes
		o.last = v.number
	}
	state := states[0]
	if len(states) > 1 {
		state = several
	}
	switch o.member {
	case nobody:
		o.member, o.state = v.number, state
	case v.number:
		if o.state != state {
			o.state = several
		}
	default:
		o.member = several
	}
}

func (f *clan) find(owner chunk.VolumeID, serial chunk.Serial) *object {
	s := f.objects[owner]
	if s == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(s.list, serial, func(o object, serial chunk.Serial) int { return cmp.Compare(o.serial, serial) })
	if !ok {
		return nil
	}
	return &s.list[i]
}

// journals notes what the journals of a member's present state reach. Those of a living process are being written: what it has made
// since it took the volume is taken for reached.
func (f *clan) journals(ctx context.Context, v *member) error {
	present := []int32{0}
	for _, j := range v.root.Journals {
		f.touch(v, v.usage.ID, j.Start.Object, present)
	}
	if v.alive {
		return nil
	}
	for _, j := range v.root.Journals {
		state, err := journal.Fold(ctx, f.m.c.client, v.usage.ID, journal.ProcessDied, journal.Source{Generation: j.Generation, Start: j.Start})
		if err != nil {
			return err
		}
		for _, named := range state.Objects {
			o := f.find(v.usage.ID, named.Serial)
			if o != nil && o.last != v.number { // else its map or an earlier entry has it
				f.touch(v, v.usage.ID, named.Serial, present)
			}
		}
	}
	return nil
}

// fresh returns the generation from which on nothing of a member is garbage for sure.
func (v *member) fresh() uint32 {
	g := v.root.Generation
	for _, j := range v.root.Journals {
		g = min(g, j.Generation)
	}
	return g
}
