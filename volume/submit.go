package volume

import (
	"context"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// Submit hands a request to the device. It returns true if the request has ended already: r.Err says
// how, and r.Done is not called, nor is r.Data used any more. Otherwise r belongs to the device until Released, and
// a [Keeper] has been asked to keep the data.
func (d *Device) Submit(r *Request) (done bool) {
	if r.Err = d.accept(r); r.Err != nil {
		return true
	}
	if r.Length == 0 && r.Kind != Flush {
		return true
	}
	slot := d.grace.enter()
	if d.closing.Load() {
		d.grace.leave(slot)
		r.Err = ErrClosed
		return true
	}
	switch r.Kind {
	case Read:
		done = d.readInline(r)
	case Write:
		done = d.writeInline(r)
	}
	if done {
		d.grace.leave(slot)
		return true
	}
	if k, ok := r.Done.(Keeper); ok {
		k.Keep(r)
	}
	r.run.slot = slot
	d.watch.add(r)
	switch {
	case r.Kind == Read || r.Kind == Cache:
		d.readers.put(r)
	case r.Kind == Flush || d.order.add(r):
		d.queue.put(r)
	}
	return false
}

// accept checks a request.
func (d *Device) accept(r *Request) error {
	if d.closing.Load() {
		return ErrClosed
	}
	if (r.Kind == Read || r.Kind == Write) && r.Length != int64(len(r.Data)) {
		return fmt.Errorf("%w: length %d with %d bytes of data", ErrInvalid, r.Length, len(r.Data))
	}
	if d.lease == nil && (r.Kind == Write || r.Kind == WriteZeroes || r.Kind == Discard) {
		return ErrReadOnly
	}
	if r.Kind > Cache {
		return fmt.Errorf("%w: kind %d", ErrInvalid, r.Kind)
	}
	if r.Kind == Flush {
		return nil
	}
	return d.inRange(r)
}

// inRange checks that a request lies in the volume as large as it is now.
func (d *Device) inRange(r *Request) error {
	size := d.Size()
	if r.Offset < 0 || r.Length < 0 || r.Offset > size || r.Length > size-r.Offset {
		return fmt.Errorf("%w: %d bytes at %d of %d", ErrOutOfRange, r.Length, r.Offset, size)
	}
	return nil
}

// readInline does a read that comes from one place and will not block.
func (d *Device) readInline(r *Request) bool {
	p := d.geom.First(r.Offset, r.Length)
	if p.Length != r.Length {
		return false
	}
	segs, ok := d.m.PlanRead(p.Index, p.Off, p.Length, r.run.room[:0])
	if !ok || len(segs) != 1 {
		return false
	}
	s := &segs[0]
	if s.Zero {
		d.zeros(r, r.Offset, r.Length)
	} else {
		op := &r.run.op
		op.Kind, op.Lane, op.Tenant, op.Guard = drivers.OpRead, drivers.LaneGuest, d.tenant, nil
		op.Name = chunk.AppendDataName(op.Scratch[:0], s.Owner, p.Index, s.Serial)
		op.Data, op.Off = r.Data, p.Off
		done := d.engine.Try(op)
		op.Data = nil
		if !done || op.Err != nil {
			return false // the other way copes with errors
		}
	}
	d.stats.reads.Add(1)
	d.stats.readBytes.Add(r.Length)
	return true
}

// zeros answers n bytes at off of the volume with zeros.
func (d *Device) zeros(r *Request, off, n int64) {
	if r.Flags&WantHoles != 0 {
		if k := len(r.Holes); k > 0 && r.Holes[k-1].Offset+r.Holes[k-1].Length == off {
			r.Holes[k-1].Length += n
			return
		}
		if len(r.Holes) < cap(r.Holes) {
			r.Holes = append(r.Holes, Extent{Offset: off, Length: n, Flags: Zero})
			return
		}
	}
	clear(r.Data[off-r.Offset:][:n])
}

// inlineLayer is the largest write in bytes that is done inline although its blocks are new to the layer that takes them.
const inlineLayer = 64 << 10

// writeInline does a write that will not block: one piece, to an object of the volume's own that the journal names and that holds its
// blocks, or that takes whole blocks which it did not hold.
func (d *Device) writeInline(r *Request) bool {
	p := d.geom.First(r.Offset, r.Length)
	if p.Length != r.Length || r.Flags&FUA != 0 || d.failure.Load() != nil || !d.gate.tryEnter() {
		return false
	}
	defer d.gate.leave()
	if r.Offset+r.Length > d.Size() {
		return false // it was made smaller meanwhile
	}
	if d.order.meets(r) {
		return false
	}
	first, end := p.Blocks()
	h, ok := d.locks.try(p.Index, first, end)
	if !ok {
		return false
	}
	defer d.locks.unlock(h)
	plan, ok := d.planChange(p.Index, first, end)
	if !ok || !plan.InPlace && !d.extendsInline(p, plan) {
		return false
	}
	object := journal.Object{Chunk: p.Index, Serial: plan.Serial}
	if !d.dirty.isTouched(object) {
		return false
	}
	op := &r.run.op
	op.Kind, op.Lane, op.Tenant, op.Guard = drivers.OpWrite, drivers.LaneGuest, d.tenant, d.lease
	op.Name = chunk.AppendDataName(op.Scratch[:0], d.id, p.Index, plan.Serial)
	op.Data, op.Off = r.Data, p.Off
	done := d.engine.Try(op)
	op.Data, op.Guard = nil, nil
	if !done {
		return false
	}
	// A failed write may have changed some of the blocks: they count as written.
	d.dirty.write(object, first, end, wholeBlocks(p, r.Data, op.Err))
	if isUnknown(op.Err) {
		d.retired.add(object)
		d.retired.exposed.Add(1)
		r.run.exposed = true
		return false
	}
	if r.Err = op.Err; r.Err == nil && !plan.InPlace && !d.publishInline(object, first, end) {
		return false // nothing shows it yet: it is done again
	}
	if r.Err == nil {
		r.Err = d.lease.Err()
	}
	d.stats.writes.Add(1)
	d.stats.writtenBytes.Add(r.Length)
	return true
}

// extendsInline decides whether a piece may be written inline to a layer that does not hold all of its blocks.
func (d *Device) extendsInline(p chunk.Piece, plan mapper.Plan) bool {
	if !plan.Writable || p.Length > inlineLayer || (p.Off|p.Length)%chunk.BlockSize != 0 {
		return false
	}
	w := d.journal.Load()
	if w == nil || full(w) {
		return false
	}
	if plan.Depth > mergeDepth {
		d.merger.add(p.Index)
	}
	return true
}

// publishInline is publish, after the write, if nobody else appends to the journal. It returns false if nothing was published.
func (d *Device) publishInline(o journal.Object, first, end int) bool {
	b := batches.Get().(*journal.Batch)
	defer batches.Put(b)
	b.Reset()
	b.Delta(o, first, end, false, false)
	w := d.journal.Load()
	seq, done, err := w.TryAppend(b)
	if !done || d.appended(w, seq, err) != nil {
		return false // the other way copes with errors
	}
	return d.show(context.Background(), o, first, end, false) == nil
}

// perform does a queued request on a worker.
func (d *Device) perform(r *Request) {
	slot := r.run.slot
	err := d.do(&r.run.ctx, r)
	if r.Kind == Write || r.Kind == WriteZeroes || r.Kind == Discard {
		d.order.end(r, d.queue.put)
	}
	d.watch.finish(r, err)
	d.grace.leave(slot)
}

// do does a request, step after step.
func (d *Device) do(ctx context.Context, r *Request) error {
	switch r.Kind {
	case Read:
		d.stats.reads.Add(1)
		d.stats.readBytes.Add(r.Length)
		return d.read(ctx, r)
	case Cache:
		return d.prefetch(ctx, r.Offset, r.Length)
	case Flush:
		d.stats.flushes.Add(1)
		return d.flush(ctx)
	case Write:
		d.stats.writes.Add(1)
		d.stats.writtenBytes.Add(r.Length)
	default:
		d.stats.zeroes.Add(1)
	}
	if err := d.change(ctx, r); err != nil {
		return err
	}
	if r.Flags&FUA != 0 {
		return d.flush(ctx)
	}
	return nil
}

// ReadAt fills p from off; it returns when the storage no longer uses p.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.call(ctx, &Request{Kind: Read, Offset: off, Length: int64(len(p)), Data: p})
}

// WriteAt writes p at off. Flush makes it durable.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64) error {
	return d.call(ctx, &Request{Kind: Write, Offset: off, Length: int64(len(p)), Data: p})
}

// WriteZeroes makes n bytes at off zero.
func (d *Device) WriteZeroes(ctx context.Context, off, n int64) error {
	return d.call(ctx, &Request{Kind: WriteZeroes, Offset: off, Length: n})
}

// Discard gives back n bytes at off, which read as zeros from then on.
func (d *Device) Discard(ctx context.Context, off, n int64) error {
	return d.call(ctx, &Request{Kind: Discard, Offset: off, Length: n})
}

// Flush makes all that was answered before durable.
func (d *Device) Flush(ctx context.Context) error {
	return d.call(ctx, &Request{Kind: Flush})
}

// call does a request on the caller's goroutine.
func (d *Device) call(ctx context.Context, r *Request) error {
	if err := d.accept(r); err != nil {
		return err
	}
	if r.Length == 0 && r.Kind != Flush {
		return nil
	}
	slot := d.grace.enter()
	defer d.grace.leave(slot)
	if d.closing.Load() {
		return ErrClosed
	}
	return d.do(ctx, r)
}
