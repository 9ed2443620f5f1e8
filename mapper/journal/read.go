package journal

import (
	"context"
	"fmt"

	"skerry/chunk"
)

// readAhead is how many bytes are read at once.
const readAhead = 256 << 10

// Read calls fn with every frame of a journal from start on, in order, until one is not valid or
// fn returns an error, which Read returns. It returns the position after the last frame that fn
// took. An end where frames were lost that had been synced is [ErrDamaged]; frames before it
// were handed out. generation is that of the grant that wrote the journal.
func Read(ctx context.Context, store Store, vol chunk.VolumeID, generation uint32, start Position, fn func(Frame) error) (end Position, err error) {
	name := chunk.SerialName(vol, chunk.Journals, start.Object)
	if !start.valid() {
		return start, fmt.Errorf("read journal %s from %+v: %w", name, start, ErrDamaged)
	}
	r := reader{ctx: ctx, store: store, name: name, volume: vol, generation: generation, object: start.Object, size: start.Size}
	end = start
	for {
		f, next, ok, err := r.next(end)
		if err != nil {
			return end, fmt.Errorf("read journal %s: frame %d: %w", name, end.Seq, err)
		}
		if !ok {
			break
		}
		if err := fn(f); err != nil {
			return end, err
		}
		end = next
	}
	switch lost, err := r.synced(end); {
	case err != nil:
		return end, fmt.Errorf("read journal %s: %w", name, err)
	case lost:
		return end, fmt.Errorf("read journal %s: frame %d was synced and is not valid: %w", name, end.Seq, ErrDamaged)
	}
	return end, nil
}

// reader reads the frames of one journal through a window.
type reader struct {
	ctx        context.Context
	store      Store
	name       string
	volume     chunk.VolumeID
	generation uint32
	object     chunk.Serial
	size       int64

	window []byte
	from   int64 // offset of the window's first byte
}

// next returns the frame that continues at p, and the position after it. ok is false if there is none.
func (r *reader) next(p Position) (f Frame, end Position, ok bool, err error) {
	off := p.Offset
	h, b, ok, err := r.frame(off, func(h header) bool { return h.lap == p.Lap && h.follows(p) })
	if err == nil && !ok && off > 0 {
		off = 0
		h, b, ok, err = r.frame(off, func(h header) bool { return h.lap == p.Lap+1 && h.follows(p) })
	}
	if err != nil || !ok {
		return Frame{}, p, false, err
	}
	if h.version != formatVersion {
		return Frame{}, p, false, fmt.Errorf("version %d: %w", h.version, ErrVersion)
	}
	body := b[headerSize : headerSize+h.body]
	if !checkBody(body, h.seq) || h.synced >= h.seq {
		return Frame{}, p, false, fmt.Errorf("entries without a meaning: %w", ErrDamaged)
	}
	end = p
	end.Offset, end.Lap, end.Seq, end.Check = off+int64(len(b)), h.lap, h.seq+1, h.check
	if end.Offset == end.Size {
		end.Offset, end.Lap = 0, end.Lap+1
	}
	f = Frame{Seq: h.seq, Generation: h.generation, Boot: h.boot, Synced: h.synced, body: body}
	return f, end, true, nil
}

// follows reports whether the frame is the one expected at p.
func (h *header) follows(p Position) bool { return h.seq == p.Seq && h.previous == p.Check }

// frame returns the frame of this journal at off, if it is whole and its header is wanted. Its bytes are valid until the next call.
func (r *reader) frame(off int64, wanted func(header) bool) (header, []byte, bool, error) {
	b, err := r.bytes(off, Align)
	if err != nil {
		return header{}, nil, false, err
	}
	h, ok := parseHeader(b)
	n := int64(frameLen(int(h.body)))
	if !ok || h.volume != r.volume || h.generation != r.generation || h.object != r.object || off+n > r.size || !wanted(h) {
		return header{}, nil, false, nil
	}
	if b, err = r.bytes(off, n); err != nil {
		return header{}, nil, false, err
	}
	return h, b, checksum(b) == h.check, nil
}

// synced reports whether a frame later than the one missing at p says that the missing one was synced. All that
// was written after p lies in the rest of its lap, or in the next.
func (r *reader) synced(p Position) (bool, error) {
	for off := int64(0); off < r.size; off += Align {
		_, _, ok, err := r.frame(off, func(h header) bool {
			return (h.lap == p.Lap && off > p.Offset || h.lap == p.Lap+1) &&
				h.seq > p.Seq && h.synced >= p.Seq && h.synced < h.seq
		})
		if ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// bytes returns n bytes of the journal at off, valid until the next call. The caller has checked that they lie in it.
func (r *reader) bytes(off, n int64) ([]byte, error) {
	if off < r.from || off+n > r.from+int64(len(r.window)) {
		want := min(max(n, readAhead), r.size-off)
		if int64(cap(r.window)) < want {
			r.window = make([]byte, want)
		}
		r.window, r.from = r.window[:want], off
		if err := r.store.ReadAt(r.ctx, r.name, r.window, off); err != nil {
			r.window = r.window[:0]
			return nil, err
		}
	}
	b := r.window[off-r.from:]
	return b[:n:n], nil
}
