package volume

import (
	"context"
	"fmt"
	"sync"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// A change that meets a chunk with more than mergeDepth layers has them merged in the background; one that
// meets maxDepth merges them first. Reads never merge.
const (
	mergeDepth = 8
	maxDepth   = 32
	maxMerges  = 1024 // that wait; more are found by later changes
)

// merger merges the layers of chunks in the background, one chunk at a time.
type merger struct {
	wake chan struct{}

	mu     sync.Mutex
	chunks map[uint64]bool
}

func (m *merger) init() {
	m.wake = make(chan struct{}, 1)
	m.chunks = make(map[uint64]bool)
}

// add asks for a chunk to be merged.
func (m *merger) add(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.chunks) >= maxMerges {
		return
	}
	m.chunks[index] = true
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// next takes one chunk.
func (m *merger) next() (uint64, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.chunks {
		delete(m.chunks, i)
		return i, true
	}
	return 0, false
}

// mergeLoop merges the chunks that are asked for.
func (d *Device) mergeLoop() {
	for {
		select {
		case <-d.cutter.quit:
			return
		case <-d.merger.wake:
		}
		for i, ok := d.merger.next(); ok && !d.closing.Load(); i, ok = d.merger.next() {
			if err := d.mergeChunk(context.Background(), i); err != nil {
				d.log.Warn("layers could not be merged; it is tried again when they are written to", "chunk", i, "err", err)
			}
		}
	}
}

// mergeChunk merges the layers of a chunk if they are many.
func (d *Device) mergeChunk(ctx context.Context, index uint64) error {
	slot := d.grace.enter()
	defer d.grace.leave(slot)
	if err := d.throttle(ctx); err != nil {
		return err
	}
	d.gate.enter()
	defer d.gate.leave()
	if err := d.Err(); err != nil {
		return err
	}
	if index >= d.geom.Count(d.Size()) {
		return nil // the volume was made smaller meanwhile
	}
	if err := d.ready(ctx, index); err != nil {
		return err
	}
	h := d.locks.lock(index, 0, d.geom.Blocks())
	defer d.locks.unlock(h)
	plan, ok := d.m.Plan(index, 0, d.geom.Blocks())
	if !ok || plan.Depth <= mergeDepth {
		return nil
	}
	return d.merge(ctx, index)
}

// merge copies all layers of a chunk, which is locked whole, into one new object.
func (d *Device) merge(ctx context.Context, index uint64) error {
	segs, err := d.plan(ctx, index, 0, d.geom.Size(), nil)
	if err != nil {
		return err
	}
	o, err := d.create(ctx, index)
	if err != nil {
		return err
	}
	buf := make([]byte, min(d.geom.Size(), 1<<20))
	for _, s := range segs {
		for off := s.Off; !s.Zero && off < s.Off+s.Length; {
			part := buf[:min(int64(len(buf)), s.Off+s.Length-off)]
			if err := d.guest.ReadAt(ctx, chunk.DataName(s.Owner, index, s.Serial), part, off); err != nil {
				return fmt.Errorf("merge chunk %d: %w", index, err)
			}
			if err := d.guest.WriteAt(ctx, o.name, part, off); err != nil {
				return fmt.Errorf("merge chunk %d: %w", index, err)
			}
			off += int64(len(part))
		}
	}
	blocks := func(s mapper.Segment) (first, end int) {
		return int(s.Off / chunk.BlockSize), int((s.Off + s.Length) / chunk.BlockSize)
	}
	for _, s := range segs {
		if first, end := blocks(s); !s.Zero {
			d.dirty.write(o.Object, first, end, nil)
		}
	}
	err = d.record(ctx, func(b *journal.Batch) {
		for _, s := range segs {
			first, end := blocks(s)
			b.Delta(o.Object, first, end, s.Zero, false)
		}
	})
	if err != nil {
		return err
	}
	d.dirty.touch(o.Object)
	for _, s := range segs {
		first, end := blocks(s)
		if err := d.show(ctx, o.Object, first, end, s.Zero); err != nil {
			return err
		}
	}
	d.stats.merges.Add(1)
	return nil
}
