package collect

import (
	"context"
	"errors"
	"sync"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/hash"
)

// seal compares a snapshot with its seal, if it has one.
func (s *scrubber) seal(ctx context.Context, name string, one state) error {
	snap := one.record
	record, err := s.p.Sealed(ctx, snap.Volume, snap.Serial)
	object := chunk.SerialName(snap.Volume, chunk.Seals, snap.Serial)
	switch {
	case errors.Is(err, drivers.ErrNotFound):
		return nil
	case fatal(ctx, err):
		return err
	case err != nil:
		s.injury(Injury{Volume: name, Snapshot: one.snapshot, Object: object, Text: err.Error()})
		return nil
	}
	tree := hash.Tree{Size: record.Size, Sum: record.Sum, Grain: record.Grain}
	for _, c := range record.Cells {
		tree.Cells = append(tree.Cells, hash.Cell(c))
	}
	r := &reader{s: s, snap: snap, m: mapper.New(s.client, snap.Volume, snap.Geometry, snap.Size, snap.Owners, snap.Pages, ^chunk.Serial(0), foldMemory)}
	err = tree.Verify(ctx, r, hash.Options{Workers: scrubbers}, func(off, n int64, err error) {
		// What cannot be read was met with the objects, unless it is gone with the snapshot.
		if errors.Is(err, hash.ErrMismatch) {
			s.injury(Injury{Volume: name, Snapshot: one.snapshot, Offset: off, Length: n, Text: "content is not what was sealed"})
		}
	})
	if err = errors.Join(r.ended(), err); fatal(ctx, err) {
		return err
	}
	if err != nil && r.unread == nil {
		s.injury(Injury{Volume: name, Snapshot: one.snapshot, Object: object, Text: err.Error()})
	}
	s.report.Sealed++
	return nil
}

// reader reads a snapshot in the background.
type reader struct {
	s    *scrubber
	snap *mapper.Snapshot
	m    *mapper.Map

	mu     sync.Mutex
	fatal  error // what ends the scrub
	unread error // that something could not be read
}

func (r *reader) ended() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fatal
}

// note remembers an error that was met.
func (r *reader) note(err error) error {
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unread == nil {
		r.unread = err
	}
	if r.fatal == nil && refused(err) {
		r.fatal = err
	}
	return err
}

// Size implements [hash.Origin].
func (r *reader) Size() int64 { return r.snap.Size }

// segments calls fn with where a range comes from.
func (r *reader) segments(ctx context.Context, off, n int64, fn func(index uint64, start int64, s mapper.Segment) error) error {
	g := r.snap.Geometry
	var segs []mapper.Segment
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := g.First(off, end-off)
		var ok bool
		if segs, ok = r.m.PlanRead(p.Index, p.Off, p.Length, segs[:0]); !ok {
			if err := r.m.Ready(ctx, p.Index); err != nil {
				return err
			}
			continue
		}
		for _, s := range segs {
			if err := fn(p.Index, g.Start(p.Index)+s.Off, s); err != nil {
				return err
			}
		}
		off += p.Length
	}
	return nil
}

// ReadAt implements [hash.Origin].
func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := r.s.limit.wait(ctx, int64(len(p))); err != nil {
		return err
	}
	err := r.segments(ctx, off, int64(len(p)), func(index uint64, start int64, s mapper.Segment) error {
		part := p[start-off:][:s.Length]
		if s.Zero {
			clear(part)
			return nil
		}
		return r.s.client.ReadAt(ctx, chunk.DataName(s.Owner, index, s.Serial), part, s.Off)
	})
	if err == nil {
		r.s.progress(int64(len(p)))
	}
	return r.note(err)
}

// errEnough ends a list of extents.
var errEnough = errors.New("enough")

// Extents implements [hash.Origin].
func (r *reader) Extents(ctx context.Context, off, n int64, fn func(volume.Extent) bool) error {
	var last volume.Extent
	err := r.segments(ctx, off, n, func(_ uint64, start int64, s mapper.Segment) error {
		e := volume.Extent{Offset: start, Length: s.Length}
		if s.Zero {
			e.Flags = volume.Zero
		}
		if last.Length > 0 && last.Flags == e.Flags {
			last.Length += e.Length
			return nil
		}
		if last.Length > 0 && !fn(last) {
			return errEnough
		}
		last = e
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	if err == nil && last.Length > 0 {
		fn(last)
	}
	return r.note(err)
}
