package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// read fills a request piece by piece.
func (d *Device) read(ctx context.Context, r *Request) error {
	for off, end := r.Offset, r.Offset+r.Length; off < end; {
		p := d.geom.First(off, end-off)
		err := d.readPiece(ctx, p, r.Data[off-r.Offset:][:p.Length], func(at, n int64) {
			d.zeros(r, d.geom.Start(p.Index)+at, n)
		})
		if err != nil {
			return err
		}
		off += p.Length
	}
	return nil
}

// readPiece fills data with a piece. zeros is called for the runs of zeros, with offsets in the chunk; data is
// left as it is there.
func (d *Device) readPiece(ctx context.Context, p chunk.Piece, data []byte, zeros func(off, n int64)) error {
	segs := segments.Get().(*[]mapper.Segment)
	defer segments.Put(segs)
	s, err := d.plan(ctx, p.Index, p.Off, p.Length, (*segs)[:0])
	if err != nil {
		return err
	}
	*segs = s
	for i := range s {
		if err := d.readSegment(ctx, p.Index, &s[i], data[s[i].Off-p.Off:][:s[i].Length], zeros); err != nil {
			return err
		}
	}
	return nil
}

// segments are lists of segments that are not in use.
var segments = sync.Pool{New: func() any { return new([]mapper.Segment) }}

// plan is Map.PlanRead that loads the page if need be.
func (d *Device) plan(ctx context.Context, index uint64, off, n int64, segs []mapper.Segment) ([]mapper.Segment, error) {
	for {
		if s, ok := d.m.PlanRead(index, off, n, segs); ok {
			return s, nil
		}
		if err := d.ready(ctx, index); err != nil {
			return nil, err
		}
	}
}

// ready brings the map page of a chunk into memory.
func (d *Device) ready(ctx context.Context, index uint64) error {
	return damage(d.m.Ready(ctx, index))
}

// damage marks the error of a map page that is missing or wrong.
func damage(err error) error {
	if errors.Is(err, mapper.ErrDamaged) || errors.Is(err, drivers.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

func (d *Device) readSegment(ctx context.Context, index uint64, s *mapper.Segment, data []byte, zeros func(off, n int64)) error {
	if s.Zero {
		zeros(s.Off, s.Length)
		return nil
	}
	err := d.guest.ReadAt(ctx, chunk.DataName(s.Owner, index, s.Serial), data, s.Off)
	if !errors.Is(err, drivers.ErrNotFound) {
		return err
	}
	// Requests keep the objects alive that the map shows, so this one is really missing.
	return fmt.Errorf("chunk %d: %w: %w", index, ErrDamaged, err)
}

// readBlocks fills data, whole blocks of a chunk from block first on, zeros included.
func (d *Device) readBlocks(ctx context.Context, index uint64, first int, data []byte) error {
	p := chunk.Piece{Index: index, Off: int64(first) * chunk.BlockSize, Length: int64(len(data))}
	return d.readPiece(ctx, p, data, func(off, n int64) { clear(data[off-p.Off:][:n]) })
}

// prefetch reads a range to warm the storage's cache.
func (d *Device) prefetch(ctx context.Context, off, n int64) error {
	const step = 256 << 10
	buf := make([]byte, min(step, n))
	for end := off + n; off < end; {
		p := d.geom.First(off, min(end-off, step))
		if err := d.readPiece(ctx, p, buf[:p.Length], func(int64, int64) {}); err != nil {
			return err
		}
		off += p.Length
	}
	return nil
}

// Extents calls fn with the extents of [off, off+n), in ascending order and without gaps, until
// fn returns false. Neighbours of one kind may come apart at the borders of chunks.
func (d *Device) Extents(ctx context.Context, off, n int64, fn func(Extent) bool) error {
	if err := d.accept(&Request{Kind: Cache, Offset: off, Length: n}); err != nil {
		return err
	}
	slot := d.grace.enter()
	defer d.grace.leave(slot)
	var last Extent
	add := func(e Extent) bool {
		if last.Length > 0 && last.Flags == e.Flags {
			last.Length += e.Length
			return true
		}
		if last.Length > 0 && !fn(last) {
			return false
		}
		last = e
		return true
	}
	var segs []mapper.Segment
	for end := off + n; off < end; {
		p := d.geom.First(off, end-off)
		if chunks := d.m.Absent(p.Index); chunks > 0 {
			to := min(end, d.geom.Start(p.Index+chunks))
			if !add(Extent{Offset: off, Length: to - off, Flags: Zero | Hole}) {
				return nil
			}
			off = to
			continue
		}
		var err error
		if segs, err = d.plan(ctx, p.Index, p.Off, p.Length, segs[:0]); err != nil {
			return err
		}
		for _, s := range segs {
			e := Extent{Offset: d.geom.Start(p.Index) + s.Off, Length: s.Length}
			switch {
			case s.Zero:
				e.Flags = Zero | Hole
			case s.Shared:
				e.Flags = Shared
			}
			if !add(e) {
				return nil
			}
		}
		off += p.Length
	}
	if last.Length > 0 {
		fn(last)
	}
	return nil
}
