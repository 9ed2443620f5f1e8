package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// How a volume is flattened.
const (
	flattenParallel = 4                         // chunks at once
	flattenBlocks   = 1 << 20 / chunk.BlockSize // that are locked and copied at once
	flattenCut      = 256                       // chunks after which what was copied is made durable
)

// FlattenOptions say how Flatten goes about it.
type FlattenOptions struct {
	// Progress, if it is not nil, is told how many bytes are the volume's own by now, of those that were not when Flatten began. It is called
	// by one goroutine at a time, and must not block.
	Progress func(done, total int64)
}

// Flatten copies all that the volume shows of objects that are not its own into objects of its own, in the background, while the volume is in
// use. Afterwards the root in force names no other owner and no source; its parent, which snapshots may still need, is the collector's matter.
// When Flatten ends early, by an error or since ctx does, what was copied stays, and the next call goes on from there. It fails with ErrClosed
// once the device is being closed.
func (d *Device) Flatten(ctx context.Context, o FlattenOptions) error {
	if d.lease == nil {
		return ErrReadOnly
	}
	if err := d.flatten(ctx, o); err != nil {
		return fmt.Errorf("flatten: %w", err)
	}
	return nil
}

func (d *Device) flatten(ctx context.Context, o FlattenOptions) error {
	select {
	case d.flattening <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-d.flattening }()
	f := flattener{d: d, progress: o.Progress, buffers: make(chan []byte, flattenParallel)}
	for range flattenParallel {
		f.buffers <- nil
	}
	for n := range d.m.PageCount() {
		list, err := f.inherited(ctx, n)
		if err != nil {
			return err
		}
		for _, c := range list {
			f.total += int64(c.Blocks) * chunk.BlockSize
		}
	}
	f.did(0)
	if err := f.all(ctx); err != nil {
		return err
	}
	if d.verify != nil && len(d.lease.Root().Source) > 0 { // an earlier flatten ended it, and nobody holds it any more
		if err := d.verify(); err != nil {
			return err
		}
	}
	if err := f.cut(ctx, cutOptions{sole: true}); err != nil {
		return err
	}
	f.did(f.total) // guests overwrote the rest
	return nil
}

// flattener is one run of Flatten.
type flattener struct {
	d        *Device
	progress func(done, total int64)
	buffers  chan []byte // that are not in use
	copied   int         // chunks since the last cut
	passed   atomic.Bool // chunks that the volume is about to lose

	mu          sync.Mutex
	done, total int64 // bytes
}

// did notes that n more bytes need not be copied any more.
func (f *flattener) did(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = min(f.done+n, f.total)
	if f.progress != nil {
		f.progress(f.done, f.total)
	}
}

// inherited returns the chunks of one page that are to be copied.
func (f *flattener) inherited(ctx context.Context, number uint64) ([]mapper.Inherited, error) {
	d := f.d
	slot := d.grace.enter()
	defer d.grace.leave(slot)
	if d.closing.Load() {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	list, err := d.m.Inherited(ctx, number, nil)
	return list, damage(err)
}

// all copies the chunks of all pages. Those beyond the end of a volume that is being made smaller are passed over; if that fails they are still there.
func (f *flattener) all(ctx context.Context) error {
	for {
		f.passed.Store(false)
		for n := range f.d.m.PageCount() {
			if err := f.page(ctx, n); err != nil {
				return err
			}
		}
		if !f.passed.Load() {
			return nil
		}
		select {
		case f.d.resizing <- struct{}{}:
			<-f.d.resizing
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// page copies the chunks of one page.
func (f *flattener) page(ctx context.Context, number uint64) error {
	list, err := f.inherited(ctx, number)
	for len(list) > 0 && err == nil {
		some := list[:min(len(list), flattenCut-f.copied)]
		g, groupCtx := errgroup.WithContext(ctx)
		g.SetLimit(flattenParallel)
		for _, c := range some {
			g.Go(func() error {
				err := f.chunk(groupCtx, c.Index)
				if err == nil {
					f.did(int64(c.Blocks) * chunk.BlockSize)
				}
				return err
			})
		}
		err = g.Wait()
		list, f.copied = list[len(some):], f.copied+len(some)
		if err == nil && f.copied == flattenCut {
			err = f.cut(ctx, cutOptions{})
		}
	}
	return err
}

// cut makes durable what was copied.
func (f *flattener) cut(ctx context.Context, o cutOptions) error {
	d := f.d
	slot := d.grace.enter() // Close waits
	defer d.grace.leave(slot)
	if d.closing.Load() {
		return ErrClosed
	}
	f.copied = 0
	// What is under way may not end soon, and holds up all that follows it as long as the cut waits.
	ctx, cancel := context.WithTimeout(ctx, d.o.Deadline)
	defer cancel()
	_, err := d.cut(ctx, o)
	d.garbage.kick()
	return err
}

// chunk copies what a chunk shows of other owners' objects, some blocks at a time.
func (f *flattener) chunk(ctx context.Context, index uint64) error {
	buf := <-f.buffers
	defer func() { f.buffers <- buf }()
	if buf == nil {
		buf = make([]byte, min(flattenBlocks*chunk.BlockSize, f.d.geom.Size()))
	}
	for {
		more, err := f.copySome(ctx, index, buf)
		if errors.Is(err, journal.ErrFull) {
			more, err = true, f.d.cutter.room(ctx, f.d)
		}
		if err != nil || !more {
			return err
		}
	}
}

// copySome copies the first run of a chunk's blocks that come from other owners' objects, as far as it fits into buf. It returns false if there
// is none.
func (f *flattener) copySome(ctx context.Context, index uint64, buf []byte) (bool, error) {
	d := f.d
	slot := d.grace.enter()
	defer d.grace.leave(slot)
	if d.closing.Load() {
		return false, ErrClosed
	}
	if err := d.throttle(ctx); err != nil {
		return false, err
	}
	d.gate.enter()
	defer d.gate.leave()
	if err := errors.Join(d.Err(), d.lease.Err()); err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if index >= d.geom.Count(d.Size()) {
		f.passed.Store(true)
		return false, nil
	}
	segs, err := d.plan(ctx, index, 0, d.geom.Size(), nil)
	if err != nil {
		return false, err
	}
	for _, s := range segs {
		if s.Zero || s.Owner == d.id {
			continue
		}
		if err := d.ensureJournal(context.WithoutCancel(ctx)); err != nil {
			return false, err
		}
		n := min(s.Length, int64(len(buf)))
		return true, d.copyRun(ctx, chunk.Piece{Index: index, Off: s.Off, Length: n}, buf[:n])
	}
	return false, nil
}

// copyRun makes the blocks of p the volume's own that are not. As with any write, an unknown outcome retires the object, and a newer layer
// hides whatever becomes of it.
func (d *Device) copyRun(ctx context.Context, p chunk.Piece, buf []byte) error {
	var err error
	exposed := false
	for range writeTries {
		var o object
		o, err = d.copyOnce(ctx, p, buf)
		if !isUnknown(err) {
			break
		}
		if o.name != "" {
			exposed = true
			d.retired.add(o.Object)
			ctx = context.WithoutCancel(ctx)
		}
	}
	if err != nil && exposed {
		return d.fail(err) // a later grant would write to blocks that may change at any time
	}
	return err
}

// copyOnce is one try of copyRun. It names the object when it has begun to write to one that the chunk shows.
func (d *Device) copyOnce(ctx context.Context, p chunk.Piece, buf []byte) (object, error) {
	first, end := p.Blocks()
	h, plan, err := d.lockFor(ctx, p.Index, first, end, func(plan mapper.Plan) bool { return plan.Writable })
	if err != nil {
		return object{}, err
	}
	defer d.locks.unlock(h)
	runs, data, err := d.readInherited(ctx, p, buf)
	if err != nil || len(runs) == 0 {
		return object{}, err
	}
	ctx = context.WithoutCancel(ctx) // half a change is of no use
	o := d.object(p.Index, plan.Serial)
	switch {
	case plan.Writable && data:
		err = d.touch(ctx, o)
	case data:
		o, err = d.create(ctx, p.Index)
	case !plan.Own:
		o.Serial, err = d.lease.NextSerial() // a layer of zeros has no object
	}
	if err != nil {
		return object{}, err
	}
	for _, r := range runs {
		if r.zero {
			continue
		}
		off := int64(r.first) * chunk.BlockSize
		err := d.back.WriteAt(ctx, o.name, buf[off-p.Off:][:int64(r.end-r.first)*chunk.BlockSize], off)
		if err != nil && plan.Writable {
			return o, err
		}
		if err != nil {
			d.dirty.drop(p.Index, []chunk.Serial{o.Serial})
			return object{}, err
		}
	}
	return object{}, d.publishRuns(ctx, o, runs, data)
}

// blockRun is a run of blocks of a chunk.
type blockRun struct {
	first, end int
	zero       bool
}

// readInherited fills buf with the blocks of p that come from other owners' objects. It returns the runs of them, and whether one is not zeros.
func (d *Device) readInherited(ctx context.Context, p chunk.Piece, buf []byte) (runs []blockRun, data bool, err error) {
	segs, err := d.plan(ctx, p.Index, p.Off, p.Length, nil)
	if err != nil {
		return nil, false, err
	}
	for _, s := range segs {
		if s.Zero || s.Owner == d.id {
			continue
		}
		part := buf[s.Off-p.Off:][:s.Length]
		err := d.back.ReadAt(ctx, chunk.DataName(s.Owner, p.Index, s.Serial), part, s.Off)
		if errors.Is(err, drivers.ErrNotFound) {
			err = fmt.Errorf("chunk %d: %w: %w", p.Index, ErrDamaged, err)
		}
		if err != nil {
			return nil, false, err
		}
		block := int(s.Off / chunk.BlockSize)
		for ; len(part) > 0; part, block = part[chunk.BlockSize:], block+1 {
			zero := bytes.Equal(part[:chunk.BlockSize], zeroBlocks[:chunk.BlockSize])
			data = data || !zero
			if k := len(runs); k > 0 && runs[k-1].end == block && runs[k-1].zero == zero {
				runs[k-1].end++
			} else {
				runs = append(runs, blockRun{block, block + 1, zero})
			}
		}
	}
	return runs, data, nil
}

// publishRuns makes runs of a chunk those of an object, which has been written if data is set, or zeros in its layer.
func (d *Device) publishRuns(ctx context.Context, o object, runs []blockRun, data bool) error {
	for _, r := range runs {
		if !r.zero {
			d.dirty.write(o.Object, r.first, r.end, nil)
		}
	}
	err := d.record(ctx, func(b *journal.Batch) {
		for _, r := range runs {
			b.Delta(o.Object, r.first, r.end, r.zero, false)
		}
	})
	if err != nil {
		return err
	}
	if data {
		d.dirty.touch(o.Object)
	}
	for _, r := range runs {
		if err := d.show(ctx, o.Object, r.first, r.end, r.zero); err != nil {
			return err
		}
	}
	return nil
}
