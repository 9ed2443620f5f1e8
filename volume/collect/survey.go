package collect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
	"skerry/volume/catalog"
)

// survey is what is seen of one live volume.
type survey struct {
	c       *checker
	root    *mapper.Root
	alive   bool // a living process holds it
	own     serials
	away    bool           // something of other volumes is reached
	image   chunk.VolumeID // owns the layers that show an image that is not copied yet; zero: none
	pages   map[string][]byte
	missing int64 // objects that the map names
}

// missingNamed is how many missing objects of a volume are told by name.
const missingNamed = 20

// live checks a volume that counts.
func (c *checker) live(ctx context.Context, root *mapper.Root, alive bool) error {
	s := &survey{c: c, root: root, alive: alive}
	// What the map says is looked for among objects that were listed later, so that a new one is not missed.
	c.family.forget(root.Volume)
	if err := s.source(ctx); err != nil {
		return s.note("source", err)
	}
	owners, pages := root.Owners, root.Pages
	if !alive {
		var err error
		if owners, pages, err = s.fold(ctx); err != nil {
			return s.note("journal", err)
		}
	}
	w := walker{load: s.load, seen: make(map[pageKey]bool), page: s.page}
	w.layer = func(l mapper.LayerRef) error { return s.layer(ctx, l) }
	if err := s.note("map", w.walk(ctx, owners, pages, root.Geometry)); err != nil {
		return err
	}
	// The root's own pages are reached even if a journal changes them.
	for _, ref := range root.Pages {
		s.page(root.Owners[ref.Owner], ref.Serial)
	}
	if err := s.snapshots(ctx, w); err != nil {
		return err
	}
	if more := s.missing - missingNamed; more > 0 {
		s.c.found(Damage, s.root.Name, "%d more objects are missing", more)
	}
	if err := s.parent(ctx); err != nil {
		return err
	}
	return s.leaks(ctx)
}

// note turns an error that says that something is damaged into a problem.
func (s *survey) note(what string, err error) error {
	if err == nil || !damaged(err) && !errors.Is(err, drivers.ErrNotFound) {
		return err
	}
	s.c.found(Damage, s.root.Name, "%s: %v", what, err)
	return nil
}

// load reads a page: one that a journal changed, or a stored one.
func (s *survey) load(ctx context.Context, name string) ([]byte, error) {
	if b, ok := s.pages[name]; ok {
		return b, nil
	}
	return s.c.client.Load(ctx, name)
}

func (s *survey) page(owner chunk.VolumeID, serial chunk.Serial) {
	if owner == s.root.Volume {
		s.own.add(serial)
	} else {
		s.away = true
	}
}

// layer looks for the object of a layer.
func (s *survey) layer(ctx context.Context, l mapper.LayerRef) error {
	if l.Owner == s.image && !s.image.IsZero() {
		return nil // there is no such object
	}
	s.page(l.Owner, l.Serial)
	if l.Data == 0 {
		return nil
	}
	data, err := s.c.family.data(ctx, l.Owner)
	if err != nil {
		return err
	}
	if data.has(l.Serial) {
		return nil
	}
	name := chunk.DataName(l.Owner, l.Chunk, l.Serial)
	switch _, err := s.c.client.Stat(ctx, name); {
	case errors.Is(err, drivers.ErrNotFound):
		if s.missing++; s.missing <= missingNamed {
			s.c.found(Damage, s.root.Name, "chunk %d: object %s is missing", l.Chunk, name)
		}
	case err != nil:
		return err
	}
	return nil
}

// source looks at the image that the volume is still copied from, if there is one.
func (s *survey) source(ctx context.Context) error {
	image, object, err := catalog.ShownBy(s.root)
	if err != nil {
		return err
	}
	s.image = image
	if object != 0 {
		s.own.add(object)
	}
	if err = s.c.p.CheckSource(ctx, s.root); err != nil && ctx.Err() == nil {
		s.c.found(Damage, s.root.Name, "what is not copied yet cannot be read: %v", err)
		return nil
	}
	return err
}

// snapshots checks the snapshots and their registrations.
func (s *survey) snapshots(ctx context.Context, w walker) error {
	all, bad, err := s.c.p.SnapshotRecords(ctx, s.root.Volume)
	if err != nil {
		return err
	}
	for _, snap := range all {
		s.c.seen = append(s.c.seen, snap.Serial)
	}
	for _, serial := range slices.Sorted(maps.Keys(bad)) {
		s.c.found(Damage, s.root.Name, "%v: skerry rm --damaged %s@%v gives that snapshot up; until then gc removes nothing of the volume", bad[serial], s.root.Name, serial)
	}
	needed := make(map[chunk.Serial]int) // how many clones and readers need a snapshot
	var ids []chunk.VolumeID
	err = s.c.p.Registrations(ctx, s.root.Volume, func(snap chunk.Serial, clone chunk.VolumeID) {
		needed[snap]++
		ids = append(ids, clone)
	})
	if err != nil {
		return err
	}
	if err := s.readers(ctx, needed); err != nil {
		return err
	}
	for _, snap := range all {
		what := "snapshot " + snap.Name
		if snap.Hidden() {
			what = "hidden snapshot " + snap.Serial.String()
		}
		if err := s.note(what, w.walk(ctx, snap.Owners, snap.Pages, snap.Geometry)); err != nil {
			return err
		}
		if !s.alive && needed[snap.Serial] == 0 && (snap.Hidden() || snap.Deleting) {
			s.c.report.Snapshots++
			s.c.found(Leak, s.root.Name, "%s is needed by nobody: gc removes it", what)
		}
	}
	if err := s.seals(ctx, all); err != nil {
		return err
	}
	return s.registrations(ctx, all, ids)
}

// seals reads the seals of snapshots, and looks for those that are left of others.
func (s *survey) seals(ctx context.Context, all []*mapper.Snapshot) error {
	sealed, err := s.c.p.Seals(ctx, s.root.Volume)
	if err != nil {
		return err
	}
	left := 0
	for _, serial := range sealed {
		if slices.ContainsFunc(all, func(snap *mapper.Snapshot) bool { return snap.Serial == serial }) {
			_, err := s.c.p.Sealed(ctx, s.root.Volume, serial)
			if errors.Is(err, drivers.ErrNotFound) {
				continue // removed meanwhile
			}
			if err := s.note("seal", err); err != nil {
				return err
			}
		} else if !s.alive {
			left++
		}
	}
	if left > 0 {
		s.c.found(Leak, s.root.Name, "%d seals of snapshots that are gone: gc removes them", left)
	}
	return nil
}

// readers counts living readers of snapshots like clones, and looks for what dead ones left.
func (s *survey) readers(ctx context.Context, needed map[chunk.Serial]int) error {
	all, err := s.c.p.Readers(ctx, s.root.Volume)
	dead := 0
	for _, reader := range all {
		if reader.Alive {
			needed[reader.Snapshot]++
		} else {
			dead++
		}
	}
	if dead > 0 {
		s.c.found(Stale, s.root.Name, "%d readers of its snapshots are dead: gc removes their records", dead)
	}
	return err
}

// registrations looks for registrations that pin nothing.
func (s *survey) registrations(ctx context.Context, all []*mapper.Snapshot, ids []chunk.VolumeID) error {
	for _, id := range ids {
		root, err := s.c.p.Inspect(ctx, id)
		if errors.Is(err, drivers.ErrNotFound) {
			s.c.found(Leak, s.root.Name, "clone %v is registered, but is not there: gc ends that", id)
			continue
		}
		if err != nil && !damaged(err) {
			return err
		}
		is := func(snap *mapper.Snapshot) bool { return err == nil && root.Parent.Snapshot == snap.Serial }
		if err == nil && root.State.Kept() && !slices.ContainsFunc(all, is) {
			s.c.found(Leak, s.root.Name, "volume %s is registered as a clone, but is none: gc ends that", root.Name)
		}
	}
	return nil
}

// parent checks that a volume that reaches others is registered at its parent.
func (s *survey) parent(ctx context.Context) error {
	p := s.root.Parent
	if !s.away {
		return nil
	}
	if p.Volume.IsZero() {
		s.c.found(Damage, s.root.Name, "it has no parent, but shares objects of other volumes")
		return nil
	}
	for _, name := range []string{
		chunk.SerialName(p.Volume, chunk.Snapshots, p.Snapshot),
		chunk.RegistrationName(p.Volume, p.Snapshot, s.root.Volume),
	} {
		if _, err := s.c.client.Stat(ctx, name); err != nil {
			if err := s.note("parent", err); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaks counts objects of the volume that nothing reaches. What a living process has made and not
// published yet is none.
func (s *survey) leaks(ctx context.Context) error {
	s.own.seal()
	var objects, bytes int64
	for _, g := range swept {
		err := s.c.client.List(ctx, chunk.GroupName(s.root.Volume, g), func(info drivers.Info) error {
			s.c.report.Objects++
			s.c.report.Bytes += info.Allocated
			if serial, ok := serialOf(info.Name); ok && !s.alive && !s.own.has(serial) {
				objects++
				bytes += info.Allocated
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
	}
	// What a damaged map does not show may be reached all the same: gc leaves it, too.
	hurt := slices.ContainsFunc(s.c.report.Problems, func(p Problem) bool { return p.Kind == Damage && p.Volume == s.root.Name })
	if objects > 0 && !hurt {
		s.c.report.LeakedObjects += objects
		s.c.report.LeakedBytes += bytes
		s.c.found(Leak, s.root.Name, "%d objects of %d bytes are reached by nothing: gc removes them", objects, bytes)
	}
	return nil
}

// foldMemory bounds the bytes of unchanged pages in memory while a journal is folded.
const foldMemory = 16 << 20

// fold returns the map as the next open would make it of the root and its journals. The changed pages
// stay in memory.
func (s *survey) fold(ctx context.Context) ([]chunk.VolumeID, []mapper.PageRef, error) {
	r := s.root
	if len(r.Journals) == 0 {
		return r.Owners, r.Pages, nil
	}
	m := mapper.New(s.c.client, r.Volume, r.Geometry, r.Size, r.Owners, r.Pages, r.Mark, foldMemory)
	for _, j := range r.Journals {
		s.own.add(j.Start.Object)
	}
	state, _, err := r.Fold(ctx, s.c.client, s.c.p.Boot(), s.c.p.Engine().Properties().DurableWrites)
	if err != nil {
		return nil, nil, err
	}
	for _, o := range state.Objects {
		s.own.add(o.Serial)
	}
	for _, d := range state.Deltas {
		if d.Object.Chunk >= r.Geometry.Count(r.Size) || d.End > r.Geometry.Blocks() || d.Object.Serial <= r.Mark {
			return nil, nil, fmt.Errorf("%w: the journal names object %v of chunk %d", errDamage, d.Object.Serial, d.Object.Chunk)
		}
		if _, err := m.Publish(ctx, d.Object.Chunk, d.Object.Serial, d.First, d.End, d.Zero, nil); err != nil {
			return nil, nil, err
		}
	}
	if err := s.restored(ctx, state); err != nil {
		return nil, nil, err
	}
	capture := m.Capture()
	s.pages = make(map[string][]byte)
	next := chunk.MakeSerial(^uint32(0), 0) // of a generation that is never granted
	err = capture.Store(func() (chunk.Serial, error) {
		next++
		return next, nil
	}, func(name string, b []byte) error {
		s.pages[name] = b
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	owners, pages := capture.Refs()
	return owners, pages, nil
}

// restored counts the objects as there that the journal has data for: opening makes those that are missing.
func (s *survey) restored(ctx context.Context, state *journal.State) error {
	if len(state.Blocks) == 0 {
		return nil
	}
	data, err := s.c.family.data(ctx, s.root.Volume)
	if err != nil {
		return err
	}
	for _, b := range state.Blocks {
		data.add(b.Object.Serial)
	}
	data.seal()
	return nil
}
