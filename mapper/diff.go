package mapper

import (
	"context"
	"fmt"
	"slices"

	"skerry/chunk"
)

// Picture is what a volume holds at one moment, as its map says: that of a snapshot, or of a root that names no journal.
type Picture struct {
	Geometry chunk.Geometry
	Size     int64 // bytes
	Owners   []chunk.VolumeID
	Pages    []PageRef // by ascending number
}

// Picture returns the picture that the snapshot is. It shares its tables.
func (s *Snapshot) Picture() Picture {
	return Picture{Geometry: s.Geometry, Size: s.Size, Owners: s.Owners, Pages: s.Pages}
}

// Picture returns what the root's pages say; what its journals say is not in it. It shares the root's tables.
func (r *Root) Picture() Picture {
	return Picture{Geometry: r.Geometry, Size: r.Size, Owners: r.Owners, Pages: r.Pages}
}

// Change is a run of bytes that may differ between two pictures.
type Change struct {
	Offset, Length int64 // bytes
	Zero           bool  // the newer picture has zeros there
}

// Diff calls fn with the runs of bytes of to that may differ from what from has there, in ascending order and not
// touching one another unless they differ in Zero, until fn returns an error, which Diff returns. Both pictures must be such that what
// they reach is not changed any more.
//
// What is left out is the same on both sides: the block lies in the same object, or is zeros, in both. So no
// change is missed. Blocks that were rewritten with what they held, or moved to another object (by a merge), are in it
// all the same. Bytes past the end of from count as changed; bytes past the end of to do not come up.
//
// Pages that both pictures name are not read. Memory is that of two pages.
func Diff(ctx context.Context, store Store, from, to Picture, fn func(Change) error) error {
	d := differ{from: side{Picture: from}, to: side{Picture: to}, fn: fn}
	d.common = CommonSize(from.Size, to.Size)
	for off := int64(0); off < to.Size; {
		if end := d.shared(off); end > off {
			off = end
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		end, err := d.step(ctx, store, off)
		if err != nil {
			return err
		}
		off = end
	}
	return d.flush()
}

// CommonSize returns how many bytes at the beginning can be compared, in blocks, of something of from bytes and a newer one of to bytes. Where the newer
// one goes on, the block in which the other ends has a rest that it says nothing about.
func CommonSize(from, to int64) int64 {
	if to <= from {
		return to
	}
	return from / chunk.BlockSize * chunk.BlockSize
}

// differ is one comparison.
type differ struct {
	from, to side
	common   int64 // bytes at the beginning that both have
	owners   []chunk.VolumeID
	last     Change // not told yet
	fn       func(Change) error
}

// side is one of the two pictures.
type side struct {
	Picture
	next    int // the first page that does not end before what is looked at
	loaded  int // index of the page in memory + 1
	content *content
}

// source says where bytes come from.
type source struct {
	owner  uint16 // index in differ.owners
	serial chunk.Serial
	zero   bool
}

// shared returns the end of what both sides have in the same page, or in none, from off on; off if that is not so.
func (d *differ) shared(off int64) int64 {
	if off >= d.common {
		return off
	}
	a, aEnd := d.from.page(off)
	b, bEnd := d.to.page(off)
	switch {
	case a == nil && b == nil:
	case a == nil || b == nil || d.from.Geometry != d.to.Geometry:
		return off
	case a.Serial != b.Serial || d.from.Owners[a.Owner] != d.to.Owners[b.Owner]:
		return off
	}
	return min(aEnd, bEnd, d.common)
}

// step compares from off on as far as each side has one source, and returns the end of that.
func (d *differ) step(ctx context.Context, store Store, off int64) (int64, error) {
	is, end, err := d.run(ctx, store, &d.to, off)
	if err != nil {
		return 0, err
	}
	same := false
	if off < d.common {
		was, wasEnd, err := d.run(ctx, store, &d.from, off)
		if err != nil {
			return 0, err
		}
		end = min(end, wasEnd, d.common)
		same = was == is && (is.zero || d.from.Geometry == d.to.Geometry)
	}
	if same {
		return end, nil
	}
	return end, d.add(Change{Offset: off, Length: end - off, Zero: is.zero})
}

// page returns the page that describes the byte at off, or nil for zeros, and where what it says of that ends. off only grows.
func (s *side) page(off int64) (*PageRef, int64) {
	size := s.Geometry.Size() * PageChunks
	number := uint64(off / size)
	for s.next < len(s.Pages) && s.Pages[s.next].Number < number {
		s.next++
	}
	if s.next == len(s.Pages) {
		return nil, s.Size
	}
	ref := &s.Pages[s.next]
	if ref.Number > number {
		return nil, min(int64(ref.Number)*size, s.Size)
	}
	return ref, min(int64(number+1)*size, s.Size)
}

// run returns where the bytes from off on come from, and the end of those that come from there.
func (d *differ) run(ctx context.Context, store Store, s *side, off int64) (source, int64, error) {
	ref, end := s.page(off)
	if ref == nil {
		return source{zero: true}, end, nil
	}
	if s.loaded != s.next+1 {
		if err := d.load(ctx, store, s, *ref); err != nil {
			return source{}, 0, fmt.Errorf("load map page %d: %w", ref.Number, err)
		}
		s.loaded = s.next + 1
	}
	index := s.Geometry.Index(off)
	start := s.Geometry.Start(index)
	var one [1]layer
	l, zero, last := s.content.get(uint16(index%PageChunks), &one).run(int((off-start)/chunk.BlockSize), s.Geometry.Blocks())
	end = min(start+int64(last)*chunk.BlockSize, s.Size)
	if zero {
		return source{zero: true}, end, nil
	}
	return source{owner: l.owner, serial: l.serial}, end, nil
}

func (d *differ) load(ctx context.Context, store Store, s *side, ref PageRef) error {
	owner := s.Owners[ref.Owner]
	b, err := store.Load(ctx, chunk.SerialName(owner, chunk.Pages, ref.Serial))
	if err != nil {
		return err
	}
	s.content, err = decodePage(b, pageIdentity{volume: owner, number: ref.Number, serial: ref.Serial, geom: s.Geometry}, d.owner)
	return err
}

// owner returns the index of a volume in the table that both sides share.
func (d *differ) owner(id chunk.VolumeID) (uint16, error) {
	i := slices.Index(d.owners, id)
	if i < 0 {
		if i = len(d.owners); i == 2*MaxOwners {
			return 0, fmt.Errorf("more than %d owners", i)
		}
		d.owners = append(d.owners, id)
	}
	return uint16(i), nil
}

// add tells of a change once the next one does not continue it.
func (d *differ) add(c Change) error {
	if d.last.Zero == c.Zero && d.last.Offset+d.last.Length == c.Offset && d.last.Length > 0 {
		d.last.Length += c.Length
		return nil
	}
	err := d.flush()
	d.last = c
	return err
}

func (d *differ) flush() error {
	if d.last.Length == 0 {
		return nil
	}
	return d.fn(d.last)
}
