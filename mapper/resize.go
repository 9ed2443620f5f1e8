package mapper

import (
	"context"
	"slices"
	"sync/atomic"
)

// Grow makes room for the chunks of a volume of size bytes, which are zeros.
func (m *Map) Grow(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, count := m.table(), PageCount(m.geom, size)
	if count <= uint64(len(old)) {
		return
	}
	pages := make([]atomic.Pointer[page], count)
	for i := range old {
		pages[i].Store(old[i].Load())
	}
	m.refs = append(slices.Clip(m.refs), make([]PageRef, count-uint64(len(m.refs)))...)
	m.pages.Store(&pages)
}

// Mend marks the page of a chunk as changed, so that the next capture has it.
func (m *Map) Mend(ctx context.Context, index uint64) error {
	p, err := m.lock(ctx, index/PageChunks)
	if err != nil {
		return err
	}
	defer p.mu.Unlock()
	m.touch(p)
	return nil
}
