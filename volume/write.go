package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// change does a write, write zeroes or discard.
func (d *Device) change(ctx context.Context, r *Request) (err error) {
	if r.run.exposed {
		defer func() {
			r.run.exposed = false
			if err != nil {
				err = d.fail(err) // what is not hidden may change at any time
			}
			d.retired.exposed.Add(-1)
		}()
	}
	for {
		err := d.tryChange(ctx, r)
		if !errors.Is(err, journal.ErrFull) {
			return err
		}
		// All of it is done again: a change that is not published has no effect.
		if err := d.cutter.room(ctx, d); err != nil {
			return err
		}
	}
}

func (d *Device) tryChange(ctx context.Context, r *Request) error {
	if err := d.throttle(ctx); err != nil {
		return err
	}
	d.gate.enter()
	defer d.gate.leave()
	if err := d.Err(); err != nil {
		return err
	}
	if err := d.lease.Err(); err != nil {
		return err
	}
	if err := d.inRange(r); err != nil {
		return err // the volume was made smaller meanwhile
	}
	if err := d.ensureJournal(ctx); err != nil {
		return err
	}
	for off, end := r.Offset, r.Offset+r.Length; off < end; {
		p := d.geom.First(off, end-off)
		var err error
		switch {
		case r.Kind == Write:
			err = d.writePiece(ctx, p, r.Data[off-r.Offset:][:p.Length])
		case r.Flags&NoHole != 0:
			err = d.writeZeros(ctx, p)
		default:
			err = d.zeroPiece(ctx, p)
		}
		if err != nil {
			return err
		}
		off += p.Length
	}
	return d.lease.Err()
}

// object is the volume's own object of a chunk that a change goes to.
type object struct {
	journal.Object
	name string
}

func (d *Device) object(index uint64, s chunk.Serial) object {
	return object{journal.Object{Chunk: index, Serial: s}, chunk.DataName(d.id, index, s)}
}

// batches are journal batches that are not in use.
var batches = sync.Pool{New: func() any { return new(journal.Batch) }}

// record appends one batch to the journal, which fill fills.
func (d *Device) record(ctx context.Context, fill func(*journal.Batch)) error {
	b := batches.Get().(*journal.Batch)
	defer batches.Put(b)
	b.Reset()
	fill(b)
	return d.append(ctx, b)
}

func (d *Device) append(ctx context.Context, b *journal.Batch) error {
	w := d.journal.Load()
	seq, err := w.Append(ctx, b)
	return d.appended(w, seq, err)
}

// appended notes the outcome of an append to w.
func (d *Device) appended(w *journal.Writer, seq uint64, err error) error {
	switch {
	case err == nil:
		for last := d.recorded.Load(); last < seq && !d.recorded.CompareAndSwap(last, seq); last = d.recorded.Load() {
		}
		if w.Live() > w.Size()/2 {
			d.cutter.kick()
		}
		return nil
	case errors.Is(err, journal.ErrFull):
		return err
	case w.Err() != nil:
		return d.fail(fmt.Errorf("append to the journal: %w", err))
	}
	return fmt.Errorf("append to the journal: %w", err)
}

// touch makes the journal name an object before it is changed in place.
func (d *Device) touch(ctx context.Context, o object) error {
	if d.dirty.isTouched(o.Object) {
		return nil
	}
	if err := d.record(ctx, func(b *journal.Batch) { b.Touch(o.Object) }); err != nil {
		return err
	}
	d.dirty.touch(o.Object)
	return nil
}

// writeTries is how often a write goes to another object after an unknown outcome.
const writeTries = 3

// writePiece writes data to a piece of a chunk. If the outcome is unknown the object is retired and the write done again
// in a new layer, which hides whatever becomes of it.
func (d *Device) writePiece(ctx context.Context, p chunk.Piece, data []byte) error {
	var err error
	exposed := false
	for range writeTries {
		var o object
		o, err = d.writeOnce(ctx, p, data)
		if isUnknown(err) && o.name != "" {
			if !exposed {
				d.retired.exposed.Add(1)
				defer d.retired.exposed.Add(-1)
			}
			exposed = true
			d.retired.add(o.Object)
			continue
		}
		if err != nil && exposed {
			return d.fail(err) // what is not hidden may change at any time
		}
		return err
	}
	return d.fail(err)
}

// writeOnce is one try of writePiece. It names the object when it has begun to write to it.
func (d *Device) writeOnce(ctx context.Context, p chunk.Piece, data []byte) (o object, err error) {
	first, end := p.Blocks()
	h, plan, err := d.lockFor(ctx, p.Index, first, end, func(plan mapper.Plan) bool { return plan.Writable })
	if err != nil {
		return object{}, err
	}
	defer d.locks.unlock(h)
	if !plan.Writable {
		if o, err = d.create(ctx, p.Index); err != nil {
			return object{}, err
		}
	} else {
		o = d.object(p.Index, plan.Serial)
		if err := d.touch(ctx, o); err != nil {
			return object{}, err
		}
	}
	if plan.InPlace {
		err := d.guest.WriteAt(ctx, o.name, data, p.Off)
		d.dirty.write(o.Object, first, end, wholeBlocks(p, data, err)) // also of a failed write, which may have changed some
		return o, err
	}
	if err := d.writeEdges(ctx, o, p, data, plan); err != nil {
		if plan.Writable {
			d.dirty.write(o.Object, first, end, nil) // blocks that it had may have changed
		} else {
			d.dirty.drop(p.Index, []chunk.Serial{o.Serial})
		}
		return o, err
	}
	return object{}, d.publish(ctx, o, first, end, wholeBlocks(p, data, nil))
}

// wholeBlocks returns data if it is what the blocks of a piece hold after it was written with that outcome.
func wholeBlocks(p chunk.Piece, data []byte, err error) []byte {
	if err != nil || (p.Off|p.Length)%chunk.BlockSize != 0 {
		return nil
	}
	return data
}

// lockFor locks the blocks [first, end) of a chunk for a change and returns the plan for them. Unless the plan suits, the
// whole chunk is locked and its layers merged if there are too many.
func (d *Device) lockFor(ctx context.Context, index uint64, first, end int, suits func(mapper.Plan) bool) (held, mapper.Plan, error) {
	lo, hi := first, end
	for {
		h := d.locks.lock(index, lo, hi)
		plan, ok := d.planChange(index, first, end)
		whole := lo == 0 && hi == d.geom.Blocks()
		switch {
		case !ok:
			d.locks.unlock(h)
			if err := d.ready(ctx, index); err != nil {
				return held{}, mapper.Plan{}, err
			}
		case ctx.Err() != nil:
			// A request that was answered must not undo what comes after it.
			d.locks.unlock(h)
			return held{}, mapper.Plan{}, fmt.Errorf("chunk %d: %w: %w", index, drivers.ErrUnavailable, context.Cause(ctx))
		case suits(plan) || whole && plan.Depth < maxDepth:
			if plan.Depth > mergeDepth {
				d.merger.add(index)
			}
			return h, plan, nil
		case whole:
			err := d.merge(ctx, index)
			d.locks.unlock(h)
			if err != nil {
				return held{}, mapper.Plan{}, err
			}
		default:
			d.locks.unlock(h)
			lo, hi = 0, d.geom.Blocks()
		}
	}
}

// create makes a new object for a chunk that is locked whole. A name whose creation did not succeed is not used again.
func (d *Device) create(ctx context.Context, index uint64) (object, error) {
	var err error
	for range 3 {
		var s chunk.Serial
		if s, err = d.lease.NextSerial(); err != nil {
			return object{}, err
		}
		o := d.object(index, s)
		if err = d.guest.Create(ctx, o.name); err == nil {
			d.dirty.created(chunk.DataGroup(d.id, index))
			return o, nil
		}
		if !errors.Is(err, drivers.ErrExists) && !errors.Is(err, drivers.ErrUnknownOutcome) {
			break
		}
	}
	return object{}, fmt.Errorf("new object for chunk %d: %w", index, err)
}

// writeEdges writes data to an object so that all blocks of the piece become whole: blocks that data covers
// in part, and that the object lacks, are filled with what they held.
func (d *Device) writeEdges(ctx context.Context, o object, p chunk.Piece, data []byte, plan mapper.Plan) error {
	first, end := p.Blocks()
	off, stop := p.Off, p.Off+p.Length
	if off%chunk.BlockSize != 0 || end == first+1 && p.Length < chunk.BlockSize {
		n := min(int64(first+1)*chunk.BlockSize, stop) - off
		if err := d.writeBlock(ctx, o, first, off, data[:n], plan.First); err != nil {
			return err
		}
		off, data = off+n, data[n:]
	}
	if rest := stop % chunk.BlockSize; off < stop && rest != 0 {
		n := stop - off - rest
		if err := d.writeBlock(ctx, o, end-1, stop-rest, data[n:], plan.Last); err != nil {
			return err
		}
		data = data[:n]
	}
	if len(data) == 0 {
		return nil
	}
	return d.guest.WriteAt(ctx, o.name, data, off)
}

// writeBlock writes a part of one block at off of the chunk. Unless the object has the block already, the rest of it
// is copied from where it is now.
func (d *Device) writeBlock(ctx context.Context, o object, block int, off int64, data []byte, present bool) error {
	if present {
		return d.guest.WriteAt(ctx, o.name, data, off)
	}
	buf := make([]byte, chunk.BlockSize)
	if err := d.readBlocks(ctx, o.Chunk, block, buf); err != nil {
		return err
	}
	start := int64(block) * chunk.BlockSize
	copy(buf[off-start:], data)
	return d.guest.WriteAt(ctx, o.name, buf, start)
}

// publish makes the blocks [first, end) of a chunk those of an object that has been written. whole is as in dirty.write.
func (d *Device) publish(ctx context.Context, o object, first, end int, whole []byte) error {
	d.dirty.write(o.Object, first, end, whole)
	err := d.record(ctx, func(b *journal.Batch) { b.Delta(o.Object, first, end, false, false) })
	if err != nil {
		return err
	}
	d.dirty.touch(o.Object)
	return d.show(ctx, o.Object, first, end, false)
}

// show changes the map, after the journal.
func (d *Device) show(ctx context.Context, o journal.Object, first, end int, zero bool) error {
	dropped, err := d.m.Publish(context.WithoutCancel(ctx), o.Chunk, o.Serial, first, end, zero, nil)
	if err != nil {
		// The journal has it and memory does not: only the next open can bring them together.
		return d.fail(fmt.Errorf("chunk %d: %w", o.Chunk, err))
	}
	d.dirty.drop(o.Chunk, dropped)
	return nil
}

// zeroBlocks is what is written where zeros must take space.
var zeroBlocks [256 << 10]byte

// writeZeros writes a piece of zeros as data.
func (d *Device) writeZeros(ctx context.Context, p chunk.Piece) error {
	for p.Length > 0 {
		n := min(p.Length, int64(len(zeroBlocks)))
		if err := d.writePiece(ctx, chunk.Piece{Index: p.Index, Off: p.Off, Length: n}, zeroBlocks[:n]); err != nil {
			return err
		}
		p.Off, p.Length = p.Off+n, p.Length-n
	}
	return nil
}

// zeroPiece makes a piece zero and gives its whole blocks back.
func (d *Device) zeroPiece(ctx context.Context, p chunk.Piece) error {
	stop := p.Off + p.Length
	first := int((p.Off + chunk.BlockSize - 1) / chunk.BlockSize)
	end := int(stop / chunk.BlockSize)
	if d.geom.Start(p.Index)+stop == d.end.Load() {
		end = int((stop + chunk.BlockSize - 1) / chunk.BlockSize) // nothing follows the last block
	}
	if first >= end {
		return d.zeroPart(ctx, p)
	}
	if head := int64(first)*chunk.BlockSize - p.Off; head > 0 {
		if err := d.zeroPart(ctx, chunk.Piece{Index: p.Index, Off: p.Off, Length: head}); err != nil {
			return err
		}
	}
	if tail := stop - int64(end)*chunk.BlockSize; tail > 0 {
		if err := d.zeroPart(ctx, chunk.Piece{Index: p.Index, Off: stop - tail, Length: tail}); err != nil {
			return err
		}
	}
	return d.zeroWhole(ctx, p.Index, first, end)
}

// zeroPart makes parts of blocks zero.
func (d *Device) zeroPart(ctx context.Context, p chunk.Piece) error {
	segs, err := d.plan(ctx, p.Index, p.Off, p.Length, nil)
	if err != nil || len(segs) == 1 && segs[0].Zero {
		return err
	}
	return d.writeZeros(ctx, p)
}

// hideZeros records the blocks [first, end) of a chunk, as far as they are zeros still, in a new layer: a punch of the one below may
// still come, when this grant is over and the object counts as writable again.
func (d *Device) hideZeros(ctx context.Context, index uint64, first, end int) error {
	h := d.locks.lock(index, 0, d.geom.Blocks())
	defer d.locks.unlock(h)
	segs, err := d.plan(ctx, index, int64(first)*chunk.BlockSize, int64(end-first)*chunk.BlockSize, nil)
	if err != nil {
		return d.fail(err)
	}
	s, err := d.lease.NextSerial()
	if err != nil {
		return d.fail(err)
	}
	o := journal.Object{Chunk: index, Serial: s}
	for _, seg := range segs {
		if !seg.Zero {
			continue // written since, to a newer layer
		}
		first, end := int(seg.Off/chunk.BlockSize), int((seg.Off+seg.Length)/chunk.BlockSize)
		if err := d.record(ctx, func(b *journal.Batch) { b.Delta(o, first, end, true, false) }); err != nil {
			return d.fail(err)
		}
		if err := d.show(ctx, o, first, end, true); err != nil {
			return err
		}
	}
	return nil
}

// zeroWhole makes the blocks [first, end) of a chunk zero: the map says so, and space in the volume's own object is given back.
func (d *Device) zeroWhole(ctx context.Context, index uint64, first, end int) (err error) {
	h, plan, err := d.lockFor(ctx, index, first, end, func(plan mapper.Plan) bool { return plan.Own || plan.Zero })
	if err != nil {
		return err
	}
	hide := false
	defer func() {
		d.locks.unlock(h)
		if hide {
			err = d.hideZeros(context.WithoutCancel(ctx), index, first, end) // also where the request was answered meanwhile
		}
	}()
	if plan.Zero {
		return nil
	}
	o := d.object(index, plan.Serial)
	if !plan.Own {
		s, err := d.lease.NextSerial()
		if err != nil {
			return err
		}
		o = d.object(index, s) // a layer of zeros has no object
	}
	err = d.record(ctx, func(b *journal.Batch) { b.Delta(o.Object, first, end, true, false) })
	if err != nil {
		return err
	}
	if err := d.show(ctx, o.Object, first, end, true); err != nil || !plan.Writable {
		return err
	}
	d.dirty.touch(o.Object)
	// The blocks stay dirty: a flush that began before the zeros were recorded covers what the blocks held, and not the zeros.
	d.dirty.punch(o.Object, first, end)
	err = d.guest.PunchHole(ctx, o.name, int64(first)*chunk.BlockSize, int64(end-first)*chunk.BlockSize)
	if isUnknown(err) {
		d.retired.add(o.Object)
		hide = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("give back space of chunk %d: %w", index, err)
	}
	return nil
}
