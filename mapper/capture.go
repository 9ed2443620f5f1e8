package mapper

import (
	"fmt"
	"slices"

	"skerry/chunk"
)

// Capture is a picture of the changed pages of a map at one moment. I/O goes on while it is
// being stored. At most one exists at a time; it ends with Commit or Abort.
type Capture struct {
	m      *Map
	count  uint64 // of chunks; what lies beyond is left out
	pages  []*page
	stored map[uint64]PageRef
}

// Capture takes a picture of all pages changed since the last one. No change may be under way.
func (m *Map) Capture() *Capture { return m.CaptureTo(m.PageCount() * PageChunks) }

// CaptureTo is Capture for a map that ends after count chunks, at least one: what lies beyond is not in what is stored, and leaves the map with
// Commit. The last of these chunks must have been marked with [Map.Mend] since the last capture, and none beyond it may be changed from now on,
// unless Abort is called.
func (m *Map) CaptureTo(count uint64) *Capture {
	c := &Capture{m: m, count: count, stored: make(map[uint64]PageRef)}
	m.mu.Lock()
	defer m.mu.Unlock()
	pages := m.table()
	for i := range pages {
		p := pages[i].Load()
		if p == nil {
			continue
		}
		p.mu.Lock()
		if p.dirty {
			p.dirty, p.pending = false, c
			m.dirty.Add(-1)
			c.pages = append(c.pages, p)
		}
		p.mu.Unlock()
	}
	return c
}

// Empty reports whether no page had changed.
func (c *Capture) Empty() bool { return len(c.pages) == 0 }

// Store calls write for each captured page, with a fresh serial from next and the page's encoding. write makes the object
// of that name, durably, or fails. A page that became all zeros is not written.
func (c *Capture) Store(next func() (chunk.Serial, error), write func(name string, b []byte) error) error {
	for _, p := range c.pages {
		if _, done := c.stored[p.number]; done {
			continue
		}
		serial, err := next()
		if err != nil {
			return err
		}
		b := c.encode(p, serial)
		ref := PageRef{Number: p.number}
		if b != nil {
			ref.Serial = serial
			if err := write(chunk.SerialName(c.m.volume, chunk.Pages, serial), b); err != nil {
				return fmt.Errorf("store map page %d: %w", p.number, err)
			}
		}
		c.stored[p.number] = ref
	}
	return nil
}

// beyond returns the first entry of a page that lies beyond the map's end, if one does.
func (c *Capture) beyond(number uint64) (first int, ok bool) {
	start := number * PageChunks
	if c.count >= start+PageChunks {
		return 0, false
	}
	return int(max(c.count, start) - start), true
}

// cut empties the entries from first on.
func (c *content) cut(first int) {
	for i := first; i < PageChunks; i++ {
		c.put(uint16(i), nil)
	}
}

func (c *Capture) encode(p *page, serial chunk.Serial) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	picture := p.saved
	if picture == nil {
		picture = &p.content
	}
	if first, beyond := c.beyond(p.number); beyond {
		picture = picture.clone()
		picture.cut(first)
	}
	if picture.empty() {
		return nil
	}
	return encodePage(picture, c.m.volume, p.number, serial, c.m.geom, *c.m.owners.Load())
}

// pageCount returns the number of pages that the captured map has.
func (c *Capture) pageCount() uint64 { return (c.count + PageChunks - 1) / PageChunks }

// Refs returns the owners and page references of the map as captured, once Store has succeeded.
func (c *Capture) Refs() ([]chunk.VolumeID, []PageRef) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	var refs []PageRef
	for n, r := range c.m.refs[:c.pageCount()] {
		if s, ok := c.stored[uint64(n)]; ok {
			r = s
		}
		if r.Serial != 0 {
			refs = append(refs, r)
		}
	}
	return slices.Clone(*c.m.owners.Load()), refs
}

// Commit ends the capture: its pages are stored, and a root names them. It returns the
// serials of the volume's own pages that they replace.
func (c *Capture) Commit() (replaced []chunk.Serial) {
	c.m.mu.Lock()
	for n, r := range c.stored {
		if old := c.m.refs[n]; old.Serial != 0 && old.Owner == 0 {
			replaced = append(replaced, old.Serial)
		}
		c.m.refs[n] = r
	}
	replaced = c.truncateLocked(replaced)
	c.m.mu.Unlock()
	c.end(false)
	c.m.shrink()
	return replaced
}

// truncateLocked takes what lies beyond the end out of the map, and appends the volume's own pages of it to replaced.
func (c *Capture) truncateLocked(replaced []chunk.Serial) []chunk.Serial {
	m, pages := c.m, c.m.table()
	for n := c.count / PageChunks; n < uint64(len(pages)); n++ {
		first, _ := c.beyond(n)
		if ref := m.refs[n]; first == 0 && ref.Serial != 0 {
			if ref.Owner == 0 {
				replaced = append(replaced, ref.Serial)
			}
			m.refs[n] = PageRef{}
		}
		p := pages[n].Load()
		if p == nil {
			continue
		}
		p.mu.Lock()
		p.content.cut(first)
		if first == 0 {
			if p.dirty {
				p.dirty = false
				m.dirty.Add(-1)
			}
			p.gone = true
			pages[n].Store(nil)
		}
		p.mu.Unlock()
	}
	return replaced
}

// Abort ends the capture without effect: its pages count as changed again.
func (c *Capture) Abort() { c.end(true) }

func (c *Capture) end(dirty bool) {
	for _, p := range c.pages {
		p.mu.Lock()
		p.pending, p.saved = nil, nil
		if dirty && !p.dirty {
			p.dirty = true
			c.m.dirty.Add(1)
		}
		p.mu.Unlock()
	}
}

// shrink recounts the memory of the pages, which grow as they change, and forgets some if it is too much.
func (m *Map) shrink() {
	m.mu.Lock()
	defer m.mu.Unlock()
	var sum int64
	pages := m.table()
	for i := range pages {
		if p := pages[i].Load(); p != nil {
			p.mu.Lock()
			sum += p.content.size()
			p.mu.Unlock()
		}
	}
	m.memory.Store(sum)
	if sum > m.limit {
		m.evictLocked(uint64(len(m.table())))
	}
}

// Changed returns the number of pages that were changed since the last capture.
func (m *Map) Changed() int64 { return m.dirty.Load() }
