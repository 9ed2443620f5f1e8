package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper/journal"
)

// How a flush chooses its way: up to smallFlush blocks, and up to scatteredFlush blocks if they lie in short runs, go into the journal. Longer runs
// are cheaper to sync where they are than to write twice.
const (
	smallFlush     = 64
	scatteredFlush = 1024
	shortRun       = 32 // blocks
	syncParallel   = 16
	syncBehind     = 2 // of cuts that nobody waits for, so that flushes meet few of them at the disk
)

// flusher lets one flush run at a time; those that arrive meanwhile share the next one.
type flusher struct {
	token chan struct{} // held by the flush that runs

	mu   sync.Mutex
	next *flight

	covered atomic.Uint64 // deltas in frames up to here are durable
}

// cover notes that the deltas in frames up to seq are durable.
func (f *flusher) cover(seq uint64) {
	for c := f.covered.Load(); c < seq && !f.covered.CompareAndSwap(c, seq); c = f.covered.Load() {
	}
}

// flight is one flush and those who wait for it.
type flight struct {
	done chan struct{}
	err  error
}

// flush makes durable all that was answered before the call.
func (d *Device) flush(ctx context.Context) error {
	if d.lease == nil {
		return nil
	}
	f := &d.flusher
	f.mu.Lock()
	if f.next == nil {
		f.next = &flight{done: make(chan struct{})}
	}
	fl := f.next
	f.mu.Unlock()
	select {
	case f.token <- struct{}{}:
	case <-fl.done:
		return fl.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-f.token }()
	f.mu.Lock()
	mine := f.next == fl
	if mine {
		f.next = nil
	}
	f.mu.Unlock()
	if mine {
		// Others wait for it: it does not end with this caller.
		fl.err = d.flushNow(context.WithoutCancel(ctx))
		close(fl.done)
	}
	<-fl.done
	return fl.err
}

// flushNow does one flush. The token is held.
func (d *Device) flushNow(ctx context.Context) error {
	for {
		err := d.tryFlush(ctx)
		if !errors.Is(err, journal.ErrFull) {
			return err
		}
		if err := d.cutter.room(ctx, d); err != nil {
			return err
		}
	}
}

func (d *Device) tryFlush(ctx context.Context) error {
	d.gate.enter()
	leave := sync.OnceFunc(d.gate.leave)
	defer leave()
	return d.flushInside(ctx, leave)
}

// flushInside is a flush by someone inside the gate, or who closed it. It calls leave when a barrier may pass.
func (d *Device) flushInside(ctx context.Context, leave func()) error {
	if err := d.Err(); err != nil {
		return err
	}
	if err := d.syncFailure(); err != nil {
		return d.fail(err)
	}
	w := d.journal.Load()
	if w == nil {
		return d.lease.Err() // nothing was ever changed
	}
	covers, objects, fans, count := d.dirty.capture(w.Last)
	if count == 0 && d.recorded.Load() <= d.flusher.covered.Load() {
		return d.lease.Err()
	}
	var seq uint64
	var err error
	if journaled(objects, count) && count*(chunk.BlockSize+journal.MaxEntry) < int(w.Size()/4) {
		d.stats.journalFlushes.Add(1)
		seq, err = d.flushToJournal(ctx, w, objects, covers)
	} else {
		d.stats.objectFlushes.Add(1)
		voids := w.Last()
		leave() // a barrier may pass: nothing of a block's content is recorded any more
		seq, err = d.flushObjects(ctx, w, objects, fans, covers, voids)
	}
	leave()
	d.dirty.recorded()
	switch {
	case errors.Is(err, journal.ErrFull):
		d.dirty.restore(objects)
		return err
	case err != nil:
		return d.fail(err)
	}
	if err := w.Sync(ctx, seq); err != nil {
		return d.fail(fmt.Errorf("sync the journal: %w", err))
	}
	d.flusher.cover(covers)
	if w.Live() > w.Size()/2 {
		d.cutter.kick()
	}
	return d.lease.Err()
}

// journaled decides whether the captured blocks go into the journal.
func journaled(objects []written, count int) bool {
	if count <= smallFlush {
		return true
	}
	if count > scatteredFlush {
		return false
	}
	runs := 0
	for _, w := range objects {
		eachRun(w.blocks, func(int, int) { runs++ })
	}
	return count < runs*shortRun
}

func eachRun(b chunk.Bitmap, fn func(first, end int)) {
	for first, end := b.Run(0, len(b)*64); first < end; first, end = b.Run(end, len(b)*64) {
		fn(first, end)
	}
}

// flushToJournal records the content of the captured blocks. They are locked until all of it is
// appended, so that what the journal says of a block is in the order in which it was written. Locks are taken in ascending
// order; nobody else holds several.
func (d *Device) flushToJournal(ctx context.Context, w *journal.Writer, objects []written, covers uint64) (uint64, error) {
	locked := make([]held, 0, len(objects))
	defer func() {
		for _, h := range locked {
			d.locks.unlock(h)
		}
	}()
	b := batches.Get().(*journal.Batch)
	defer batches.Put(b)
	b.Reset()
	for i := 0; i < len(objects); {
		// Objects of one chunk share a lock.
		j, index := i, objects[i].object.Chunk
		for j < len(objects) && objects[j].object.Chunk == index {
			j++
		}
		locked = append(locked, d.locks.lock(index, 0, d.geom.Blocks()))
		for _, o := range objects[i:j] {
			// Even if this flush does not come to its end, a later one makes its data count.
			d.dirty.journal(o.object, o.blocks)
			if err := d.recordBlocks(ctx, w, b, o); err != nil {
				return 0, err
			}
		}
		i = j
	}
	if b.Room() < journal.MaxEntry {
		if _, err := w.Append(ctx, b); err != nil {
			return 0, err
		}
		b.Reset()
	}
	b.Flush(covers)
	return w.Append(ctx, b)
}

// recordBlocks adds the content of an object's captured blocks to b, which is appended as it fills up.
func (d *Device) recordBlocks(ctx context.Context, w *journal.Writer, b *journal.Batch, o written) error {
	var err error
	eachRun(o.blocks, func(first, end int) {
		for first < end && err == nil {
			n := (b.Room() - journal.MaxEntry) / chunk.BlockSize
			if n <= 0 {
				if _, err = w.Append(ctx, b); err == nil {
					b.Reset()
				}
				continue
			}
			n = min(n, end-first)
			err = d.readWritten(ctx, o.object, first, b.DataFill(o.object, first, n))
			first += n
		}
	})
	if err != nil {
		return fmt.Errorf("record chunk %d: %w", o.object.Chunk, err)
	}
	return nil
}

// readWritten fills p with blocks of an object, which are locked.
func (d *Device) readWritten(ctx context.Context, o journal.Object, first int, p []byte) error {
	for _, r := range d.dirty.recall(o, first, p) {
		part := p[(r.first-first)*chunk.BlockSize : (r.end-first)*chunk.BlockSize]
		if err := d.guest.ReadAt(ctx, chunk.DataName(d.id, o.Chunk, o.Serial), part, int64(r.first)*chunk.BlockSize); err != nil {
			return err
		}
	}
	return nil
}

// flushObjects syncs the objects of the captured blocks and says in the journal that older data there
// is void: all in frames up to voids, which were appended before the objects are synced.
func (d *Device) flushObjects(ctx context.Context, w *journal.Writer, objects []written, fans []fan, covers, voids uint64) (uint64, error) {
	names := make([]string, len(objects))
	for i, o := range objects {
		names[i] = chunk.DataName(d.id, o.object.Chunk, o.object.Serial)
	}
	if err := d.syncAll(ctx, d.guest, names, fans, syncParallel); err != nil {
		return 0, err
	}
	b := batches.Get().(*journal.Batch)
	defer batches.Put(b)
	b.Reset()
	b.AsOf(voids)
	var err error
	for _, o := range objects {
		eachRun(d.dirty.stale(o), func(first, end int) {
			if err == nil && b.Room() < 2*journal.MaxEntry {
				_, err = w.Append(ctx, b)
				b.Reset()
				b.AsOf(voids)
			}
			b.Supersede(o.object, first, end)
		})
	}
	if err != nil {
		return 0, err
	}
	b.Flush(covers)
	return w.Append(ctx, b)
}

// syncAll syncs objects, so many at a time, and the groups with new ones.
func (d *Device) syncAll(ctx context.Context, c drivers.Client, names []string, fans []fan, parallel int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, n := range names {
		g.Go(func() error { return c.Sync(ctx, n) })
	}
	for _, f := range fans {
		g.Go(func() error { return c.SyncGroup(ctx, f.group) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	d.dirty.fansSynced(fans)
	return nil
}

// syncFailure returns an error if a sync of one of the volume's objects failed that the engine did by itself. What
// such an object shows may not be what was written, so that it may not even be recorded.
func (d *Device) syncFailure() error {
	for _, name := range d.engine.FailedSyncs() {
		if strings.HasPrefix(name, d.group) && !slices.Contains(d.failedBefore, name) {
			return fmt.Errorf("sync of %s in the background", name)
		}
	}
	return nil
}
