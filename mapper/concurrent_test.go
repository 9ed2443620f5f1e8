package mapper

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"skerry/chunk"
)

// TestConcurrentUse publishes, reads, captures and evicts at once. Each capture must be the map of the moment in which it began.
func TestConcurrentUse(t *testing.T) {
	const (
		pages      = 6
		perPage    = 4 // chunks that are changed
		publishers = 4
		changes    = 400
	)
	rng := random(t)
	id, g := someID(rng), geometry(t, chunk.MinSize)
	size := g.Size() * pages * PageChunks
	store := newMemStore()
	owners := []chunk.VolumeID{id}
	m := New(store, id, g, size, owners, nil, 0, 1)
	chunkOf := func(i int) uint64 { return uint64(i/perPage*PageChunks + i%perPage*100) }

	var (
		counter   atomic.Uint32
		published [pages * perPage]atomic.Uint64 // serial of the one full layer
		gate      sync.RWMutex                   // read: a change is under way
		running   atomic.Int32
		changers  sync.WaitGroup
		others    sync.WaitGroup
	)
	next := func() (chunk.Serial, error) { return chunk.MakeSerial(1, counter.Add(1)), nil }
	running.Store(publishers)
	for p := range publishers {
		changers.Go(func() {
			defer running.Add(-1)
			for n := range changes {
				i := (n*publishers + p) % len(published) // another one's at no time
				gate.RLock()
				s, _ := next()
				// First a part, which only readers see.
				_, err := m.Publish(t.Context(), chunkOf(i), s, 3, 5, n%3 == 0, nil)
				if err == nil {
					_, err = m.Publish(t.Context(), chunkOf(i), s, 0, g.Blocks(), false, nil)
				}
				published[i].Store(uint64(s))
				gate.RUnlock()
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 2 {
		others.Go(func() {
			var seen [len(published)]chunk.Serial
			var segs []Segment
			for i := 0; running.Load() > 0; i = (i + 1) % len(published) {
				least := chunk.Serial(published[i].Load())
				var ok bool
				if segs, ok = m.PlanRead(chunkOf(i), 0, g.Size(), segs[:0]); !ok {
					if err := m.Ready(t.Context(), chunkOf(i)); err != nil {
						t.Error(err)
					}
					continue
				}
				if last := segs[len(segs)-1].Serial; last < max(least, seen[i]) {
					t.Errorf("chunk %d: %v after %v", chunkOf(i), last, max(least, seen[i]))
				} else {
					seen[i] = last
				}
				m.Plan(chunkOf(i), 0, g.Blocks())
				m.Changed()
			}
		})
	}
	others.Go(func() {
		for n := 0; running.Load() > 0; n++ {
			gate.Lock()
			c := m.Capture()
			var moment [len(published)]chunk.Serial
			for i := range moment {
				moment[i] = chunk.Serial(published[i].Load())
			}
			gate.Unlock()
			if err := c.Store(next, store.write); err != nil {
				t.Error(err)
				return
			}
			tables, refs := c.Refs()
			if err := sameAs(t, New(store, id, g, size, tables, refs, 0, 1<<20), moment[:], chunkOf); err != nil {
				t.Error(err)
				return
			}
			if n%5 == 4 {
				c.Abort()
			} else {
				c.Commit()
			}
		}
	})
	changers.Wait()
	others.Wait()
	var now [len(published)]chunk.Serial
	for i := range now {
		now[i] = chunk.Serial(published[i].Load())
	}
	if err := sameAs(t, m, now[:], chunkOf); err != nil {
		t.Error(err)
	}
}

// sameAs reports an error unless chunk chunkOf(i) has the one full layer want[i], or none for 0.
func sameAs(t *testing.T, m *Map, want []chunk.Serial, chunkOf func(int) uint64) error {
	for i, s := range want {
		var segs []Segment
		for ok := false; !ok; {
			if err := m.Ready(t.Context(), chunkOf(i)); err != nil {
				return err
			}
			segs, ok = m.PlanRead(chunkOf(i), 0, m.geom.Size(), nil)
		}
		if len(segs) != 1 || segs[0].Serial != s || segs[0].Zero != (s == 0) {
			return fmt.Errorf("chunk %d: %+v, want %v", chunkOf(i), segs, s)
		}
	}
	return nil
}

// TestReadyIsShared loads one page from many goroutines.
func TestReadyIsShared(t *testing.T) {
	w := newWalk(t, random(t), chunk.MinSize, 1<<20)
	w.fill(5)
	w.reload()
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := w.m.Ready(t.Context(), 5); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	checkMap(t, w.m, w.model)
}
