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
	pages  []*page
	stored map[uint64]PageRef
}

// Capture takes a picture of all pages changed since the last one. No change may be under way.
func (m *Map) Capture() *Capture {
	c := &Capture{m: m, stored: make(map[uint64]PageRef)}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.pages {
		p := m.pages[i].Load()
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

func (c *Capture) encode(p *page, serial chunk.Serial) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	picture := p.saved
	if picture == nil {
		picture = &p.content
	}
	if picture.empty() {
		return nil
	}
	return encodePage(picture, c.m.volume, p.number, serial, c.m.geom, *c.m.owners.Load())
}

// Refs returns the owners and page references of the map as captured, once Store has succeeded.
func (c *Capture) Refs() ([]chunk.VolumeID, []PageRef) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	var refs []PageRef
	for n, r := range c.m.refs {
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
	c.m.mu.Unlock()
	c.end(false)
	c.m.shrink()
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
	for i := range m.pages {
		if p := m.pages[i].Load(); p != nil {
			p.mu.Lock()
			sum += p.content.size()
			p.mu.Unlock()
		}
	}
	m.memory.Store(sum)
	if sum > m.limit {
		m.evictLocked(uint64(len(m.pages)))
	}
}

// Changed returns the number of pages that were changed since the last capture.
func (m *Map) Changed() int64 { return m.dirty.Load() }
