package mapper

import (
	"context"

	"skerry/chunk"
)

// Inherited is a chunk that shows data which is not the volume's own.
type Inherited struct {
	Index  uint64
	Blocks int // of such data
}

// PageCount returns how many pages the map has.
func (m *Map) PageCount() uint64 { return uint64(len(m.table())) }

// Inherited appends to list the chunks of one page, in ascending order, that show data in objects of other owners than the volume. What is
// such data never grows.
func (m *Map) Inherited(ctx context.Context, number uint64, list []Inherited) ([]Inherited, error) {
	if m.absent(number) {
		return list, nil
	}
	p, err := m.lock(ctx, number)
	if err != nil {
		return list, err
	}
	defer p.mu.Unlock()
	var one [1]layer
	for i := range uint16(PageChunks) {
		if n := p.content.get(i, &one).inherited(m.blocks); n > 0 {
			list = append(list, Inherited{Index: number*PageChunks + uint64(i), Blocks: n})
		}
	}
	return list, nil
}

// absent reports whether a page was never stored and is not in memory: most of a huge volume, of which no pages are to be made.
func (m *Map) absent(number uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refs[number].Serial == 0 && m.table()[number].Load() == nil
}

// inherited returns the number of blocks that lie in objects of other owners.
func (s stack) inherited(blocks int) (n int) {
	for i := len(s) - 1; i >= 0 && s[i].owner != 0; i-- { // the volume's own layers are above all others
		if s[i].full {
			n = blocks
			for _, l := range s[:i] {
				n -= l.data.Count() + l.zero.Count() // no block is in two layers
			}
			continue
		}
		n += s[i].data.Count()
	}
	return n
}

// Sole says that pages and layers of other owners are gone from the map as it is stored, and in memory.
func (m *Map) Sole() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owners.Store(&[]chunk.VolumeID{m.volume})
}
