package mapper

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"skerry/chunk"
)

// Store is where a [Map] loads its pages from; drivers.Client is one.
type Store interface {
	Load(ctx context.Context, name string) ([]byte, error)
}

// Map says which objects hold each chunk of one volume or snapshot: the pages are loaded
// on demand and forgotten again when they take too much memory. Its methods may be called
// concurrently. Calls that change one chunk, or that plan a change of it, need that chunk's lock,
// which is the caller's matter; changes to others do not disturb them.
type Map struct {
	store  Store
	volume chunk.VolumeID
	geom   chunk.Geometry
	blocks int
	limit  int64 // bytes of pages to keep in memory

	owners atomic.Pointer[[]chunk.VolumeID] // only grows
	mark   atomic.Uint64
	pages  atomic.Pointer[[]atomic.Pointer[page]] // only grows
	memory atomic.Int64
	clock  atomic.Uint64

	mu    sync.Mutex // loading, eviction, refs, growth of owners
	refs  []PageRef  // by page number; Serial 0: all zeros
	dirty atomic.Int64
}

// page is a page in memory. Once gone it is no longer the map's.
type page struct {
	number uint64
	used   atomic.Uint64

	mu      sync.Mutex
	gone    bool
	dirty   bool
	pending *Capture // holds a picture of the page that is not stored yet
	saved   *content // the picture, if the page was changed since
	content content
}

// New returns the map that owners and refs describe, with its pages still where they are stored. limit bounds the
// bytes of unchanged pages that it keeps in memory.
func New(store Store, volume chunk.VolumeID, geom chunk.Geometry, size int64, owners []chunk.VolumeID, refs []PageRef, mark chunk.Serial, limit int64) *Map {
	m := &Map{store: store, volume: volume, geom: geom, blocks: geom.Blocks(), limit: limit}
	count := PageCount(geom, size)
	pages := make([]atomic.Pointer[page], count)
	m.pages.Store(&pages)
	m.refs = make([]PageRef, count)
	for _, r := range refs {
		m.refs[r.Number] = r
	}
	table := slices.Clone(owners)
	m.owners.Store(&table)
	m.mark.Store(uint64(mark))
	return m
}

// Mark returns the serial up to which the volume's objects are shared.
func (m *Map) Mark() chunk.Serial { return chunk.Serial(m.mark.Load()) }

// SetMark raises the mark. No change may be under way.
func (m *Map) SetMark(s chunk.Serial) { m.mark.Store(uint64(s)) }

// Ready makes sure that the page of a chunk is in memory.
func (m *Map) Ready(ctx context.Context, index uint64) error {
	_, err := m.load(ctx, index/PageChunks)
	return err
}

// absentPages bounds the pages that one call of Absent looks at, which keeps others waiting.
const absentPages = 4096

// Absent returns how many chunks from index on, at least, are zeros because they have no page; 0 if that of index is there. It loads nothing.
func (m *Map) Absent(index uint64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	first, pages := index/PageChunks, m.table()
	number, end := first, min(first+absentPages, uint64(len(pages)))
	for number < end && m.refs[number].Serial == 0 && pages[number].Load() == nil {
		number++
	}
	if number == first {
		return 0
	}
	return number*PageChunks - index
}

// Segment is a run of bytes of a chunk that comes from one place.
type Segment struct {
	Owner       chunk.VolumeID
	Serial      chunk.Serial
	Off, Length int64 // bytes; Off from the chunk's start
	Zero        bool  // no object: zeros
	Shared      bool  // the object may not be written in place
}

// PlanRead appends to segs where the bytes [off, off+n) of a chunk come from, in order. It returns false, and
// nothing more, if the page is not in memory: call Ready.
func (m *Map) PlanRead(index uint64, off, n int64, segs []Segment) ([]Segment, bool) {
	p := m.get(index / PageChunks)
	if p == nil {
		return segs, false
	}
	defer p.mu.Unlock()
	var one [1]layer
	s := p.content.get(uint16(index%PageChunks), &one)
	owners := *m.owners.Load()
	end := int((off + n + chunk.BlockSize - 1) / chunk.BlockSize)
	for at := off; at < off+n; {
		l, zero, last := s.run(int(at/chunk.BlockSize), end)
		seg := Segment{Off: at, Length: min(int64(last)*chunk.BlockSize, off+n) - at, Zero: zero}
		if !zero {
			seg.Owner, seg.Serial, seg.Shared = owners[l.owner], l.serial, !m.writable(l)
		}
		if k := len(segs); zero && k > 0 && segs[k-1].Zero && segs[k-1].Off+segs[k-1].Length == at {
			segs[k-1].Length += seg.Length
		} else {
			segs = append(segs, seg)
		}
		at += seg.Length
	}
	return segs, true
}

func (m *Map) writable(l *layer) bool { return l.owner == 0 && l.serial > m.Mark() }

// Plan says how blocks of a chunk can be changed.
type Plan struct {
	// Serial is that of the top layer if Own.
	Serial chunk.Serial
	// Own: the top layer is the volume's own and newer than the mark; zeros can be recorded in it.
	Own bool
	// Writable: Own, and its object exists.
	Writable bool
	// InPlace: it holds all the blocks.
	InPlace bool
	// Zero: all the blocks read as zeros.
	Zero bool
	// First and Last say whether the first and the last block are held by the writable top layer.
	First, Last bool
	// Depth is the number of layers.
	Depth int
}

// Plan returns how the blocks [first, end) of a chunk can be changed, or false if the page is
// not in memory: call Ready.
func (m *Map) Plan(index uint64, first, end int) (Plan, bool) {
	p := m.get(index / PageChunks)
	if p == nil {
		return Plan{}, false
	}
	defer p.mu.Unlock()
	var one [1]layer
	s := p.content.get(uint16(index%PageChunks), &one)
	plan := Plan{Depth: len(s)}
	if len(s) == 0 {
		plan.Zero = true
		return plan, true
	}
	if top := &s[0]; m.writable(top) {
		plan.Serial, plan.Own, plan.Writable = top.serial, true, top.hasData()
		plan.InPlace = top.full || top.data.HasAll(first, end)
		plan.First = top.full || top.data.Has(first)
		plan.Last = top.full || top.data.Has(end-1)
	}
	if !plan.InPlace {
		_, zero, last := s.run(first, end)
		for zero && last < end {
			_, zero, last = s.run(last, end)
		}
		plan.Zero = zero
	}
	return plan, true
}

// Shows reports whether a chunk still shows data of the volume's own object serial, or may: its page is not in memory.
func (m *Map) Shows(index uint64, serial chunk.Serial) bool {
	p := m.get(index / PageChunks)
	if p == nil {
		return true
	}
	defer p.mu.Unlock()
	var one [1]layer
	for _, l := range p.content.get(uint16(index%PageChunks), &one) {
		if l.owner == 0 && l.serial == serial {
			return l.hasData()
		}
	}
	return false
}

// Publish records that the blocks [first, end) of a chunk are held by the volume's own object serial, or,
// with zero, that they are zeros in its layer. Layers that can no longer be seen leave the entry; the
// volume's own ones that have an object and are newer than the mark are appended to dropped. A change of the chunk that is under
// way may bring one back: [Map.Shows] tells once there is none. The page must be in memory or loadable.
func (m *Map) Publish(ctx context.Context, index uint64, serial chunk.Serial, first, end int, zero bool, dropped []chunk.Serial) ([]chunk.Serial, error) {
	p, err := m.lock(ctx, index/PageChunks)
	if err != nil {
		return dropped, err
	}
	defer p.mu.Unlock()
	m.touch(p)
	i := uint16(index % PageChunks)
	var one [1]layer
	s := p.content.get(i, &one)
	if p.content.entries[i]&stacked == 0 {
		s = slices.Clone(s)
	}
	before := len(dropped)
	s, dropped = s.set(serial, first, end, zero, m.blocks, dropped)
	s, dropped = s.normalize(m.blocks, dropped)
	if len(s) > maxLayers {
		panic(fmt.Sprintf("mapper: chunk %d has %d layers", index, len(s)))
	}
	p.content.put(i, s)
	mark := m.Mark()
	keep := dropped[:before]
	for _, d := range dropped[before:] {
		if d > mark {
			keep = append(keep, d)
		}
	}
	return keep, nil
}

// touch marks a locked page as changed, after saving the picture of it that a capture still needs.
func (m *Map) touch(p *page) {
	if p.pending != nil && p.saved == nil {
		p.saved = p.content.clone()
	}
	if !p.dirty {
		p.dirty = true
		m.dirty.Add(1)
	}
}

// clone returns a copy that shares no bitmap with c.
func (c *content) clone() *content {
	n := &content{entries: c.entries}
	if c.stacks != nil {
		n.stacks = make(map[uint16]stack, len(c.stacks))
	}
	for i, s := range c.stacks {
		t := slices.Clone(s)
		for j := range t {
			t[j].data, t[j].zero = t[j].data.Clone(), t[j].zero.Clone()
		}
		n.stacks[i] = t
	}
	return n
}

// table returns the pages in memory.
func (m *Map) table() []atomic.Pointer[page] { return *m.pages.Load() }

// get returns a page in memory, locked, or nil.
func (m *Map) get(number uint64) *page {
	pages := m.table()
	if number >= uint64(len(pages)) {
		panic(fmt.Sprintf("mapper: page %d of %d", number, len(pages)))
	}
	p := pages[number].Load()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	if p.gone {
		p.mu.Unlock()
		return nil
	}
	p.used.Store(m.clock.Load())
	return p
}

// lock returns a page, locked, loading it if need be.
func (m *Map) lock(ctx context.Context, number uint64) (*page, error) {
	for {
		if p := m.get(number); p != nil {
			return p, nil
		}
		if _, err := m.load(ctx, number); err != nil {
			return nil, err
		}
	}
}

// load brings a page into memory. Several may load one page; the first to end wins.
func (m *Map) load(ctx context.Context, number uint64) (*page, error) {
	for {
		if p := m.table()[number].Load(); p != nil {
			return p, nil
		}
		m.mu.Lock()
		ref := m.refs[number]
		m.mu.Unlock()
		p, err := m.fetch(ctx, number, ref)
		if err != nil {
			return nil, fmt.Errorf("load map page %d: %w", number, err)
		}
		if p := m.install(p, ref); p != nil {
			return p, nil
		}
	}
}

func (m *Map) fetch(ctx context.Context, number uint64, ref PageRef) (*page, error) {
	p := &page{number: number}
	if ref.Serial == 0 {
		return p, nil
	}
	owner := (*m.owners.Load())[ref.Owner]
	b, err := m.store.Load(ctx, chunk.SerialName(owner, chunk.Pages, ref.Serial))
	if err != nil {
		return nil, err
	}
	want := pageIdentity{volume: owner, number: number, serial: ref.Serial, geom: m.geom}
	c, err := decodePage(b, want, m.ownerIndex)
	if err != nil {
		return nil, err
	}
	p.content = *c
	return p, nil
}

// install makes p the map's page unless there is one already. It returns the map's page, or nil if what p was
// loaded from is no longer current.
func (m *Map) install(p *page, ref PageRef) *page {
	size := p.content.size() // before others see and change it
	m.mu.Lock()
	defer m.mu.Unlock()
	if q := m.table()[p.number].Load(); q != nil {
		return q
	}
	if m.refs[p.number] != ref {
		return nil
	}
	m.clock.Add(1)
	p.used.Store(m.clock.Load())
	m.table()[p.number].Store(p)
	if m.memory.Add(size) > m.limit {
		m.evictLocked(p.number)
	}
	return p
}

// size estimates the bytes that a page takes in memory.
func (c *content) size() int64 {
	n := int64(8*PageChunks + 256)
	for _, s := range c.stacks {
		n += 64
		for _, l := range s {
			n += 96 + 8*int64(len(l.data)+len(l.zero))
		}
	}
	return n
}

// ownerIndex returns the index of a volume in the table of owners, which grows if need be.
func (m *Map) ownerIndex(id chunk.VolumeID) (uint16, error) {
	if i := slices.Index(*m.owners.Load(), id); i >= 0 {
		return uint16(i), nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	table := *m.owners.Load()
	if i := slices.Index(table, id); i >= 0 {
		return uint16(i), nil
	}
	if len(table) == MaxOwners {
		return 0, fmt.Errorf("more than %d owners", MaxOwners)
	}
	grown := append(slices.Clip(table), id)
	m.owners.Store(&grown)
	return uint16(len(table)), nil
}

// evictLocked forgets pages that were not used lately until the limit holds; not page keep, nor changed ones.
func (m *Map) evictLocked(keep uint64) {
	pages := m.table()
	for round := range 2 {
		now := m.clock.Load()
		for i := range pages {
			if m.memory.Load() <= m.limit/4*3 {
				return
			}
			p := pages[i].Load()
			if p == nil || p.number == keep || round == 0 && now-p.used.Load() < uint64(len(pages)/2) {
				continue
			}
			p.mu.Lock()
			if !p.dirty && p.pending == nil {
				p.gone = true
				pages[i].Store(nil)
				m.memory.Add(-p.content.size())
			}
			p.mu.Unlock()
		}
	}
}
