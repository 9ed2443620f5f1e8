package fuse

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/volume"
	"skerry/volume/catalog"
)

// firstSize is the size in bytes that a volume gets, at least, when the first bytes of it are written before its size is known.
const firstSize = 4 << 20

// checkEnd refuses what would make a file longer than any volume can be.
func checkEnd(end int64) error {
	if end < 0 || end > mapper.MaxVolumeSize {
		return fmt.Errorf("%w: no volume is that large", volume.ErrOutOfRange)
	}
	return nil
}

// roundUp returns the size of the volume for a file of n bytes.
func roundUp(n int64) int64 { return (n + chunk.SectorSize - 1) / chunk.SectorSize * chunk.SectorSize }

// growLocked lets the handle make the file longer. The caller has the file's turn, too.
func (h *handle) growLocked() {
	if !h.grows.Load() {
		h.grows.Store(true)
		h.file.growers++
	}
}

// writeLonger writes anywhere, and makes the file longer if need be.
func (h *handle) writeLonger(ctx context.Context, q *request) error {
	f := h.file
	for {
		end := q.Offset + q.Length
		d, err := f.room(ctx, end)
		if err != nil {
			return err
		}
		err = h.change(q, d)
		f.mu.Lock()
		f.growing--
		f.mu.Unlock()
		if !errors.Is(err, volume.ErrOutOfRange) || d.Size() >= end {
			return err
		}
	}
}

// room makes the file end bytes long, at least, and its device as large, for a write that is to be counted off f.growing.
func (f *file) room(ctx context.Context, end int64) (Device, error) {
	if d := f.begin(end); d != nil {
		return d, nil
	}
	if err := checkEnd(end); err != nil {
		return nil, err
	}
	ctx, cancel := patient(ctx)
	defer cancel()
	if err := f.lock(ctx); err != nil {
		return nil, err
	}
	defer f.unlock()
	d, err := f.enlarge(context.WithoutCancel(ctx), end)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.growing++
	f.lengthenLocked(end)
	return d, nil
}

// begin is room if that takes nothing but to say so; else it returns nil.
func (f *file) begin(end int64) Device {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.device.Load()
	if d == nil || f.sizing || d.Size() < end {
		return nil
	}
	f.growing++
	f.lengthenLocked(end)
	return d
}

func (f *file) lengthenLocked(end int64) {
	if n := f.length.Load(); n != wholeDevice && n < end {
		f.length.Store(end)
	}
}

// enlarge makes the device end bytes large, at least, by doubling. The caller has the file's turn.
func (f *file) enlarge(ctx context.Context, end int64) (Device, error) {
	need := roundUp(end)
	if d := f.device.Load(); d != nil {
		if d.Size() >= end {
			return d, nil
		}
		f.keepForeign(d)
		err := d.Resize(ctx, max(need, 2*d.Size()))
		if err != nil {
			err = d.Resize(ctx, need) // twice the size may be more than there can be
		}
		f.sized = d.Size()
		return d, err
	}
	if err := f.make(ctx, max(need, firstSize)); err != nil {
		return nil, err
	}
	return f.device.Load(), nil
}

// make makes the volume of a pending file and opens it. The caller has the file's turn.
func (f *file) make(ctx context.Context, size int64) error {
	t, name := f.tree, f.label()
	if !f.isPending() {
		return f.openDevice(ctx) // it was made, but could not be opened
	}
	if err := t.volumes.Create(ctx, name, size); err != nil {
		return err
	}
	e, err := t.volumes.Lookup(ctx, name)
	if err != nil {
		return err
	}
	t.mu.Lock()
	delete(t.pending, name)
	t.files[e.ID] = f
	t.mu.Unlock()
	f.mu.Lock()
	f.pending, f.size = false, size
	f.mu.Unlock()
	f.sized = size
	return f.openDevice(ctx)
}

// settle gives the device the file's own size, unless writes are under way that may make it longer: then a later call does.
func (h *handle) settle(ctx context.Context) error {
	f := h.file
	if !h.grows.Load() || f.length.Load() == wholeDevice {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if err := f.lock(ctx); err != nil {
		return err
	}
	defer f.unlock()
	return f.fit(ctx)
}

// keepForeign makes a file that grows as long as its device, if somebody else has changed that meanwhile: resized it, or written through another
// export, perhaps beyond the end of the file. The caller has the file's turn.
func (f *file) keepForeign(d *opened) {
	f.notice(d)
	if f.adoptForeign(d.Size()) {
		f.tree.refuse("file keeps the size of its volume", f.label(), errForeign)
	}
}

var errForeign = errors.New("it was resized, or written through another export, while the file was written anew")

func (f *file) adoptForeign(size int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.length.Load() == wholeDevice || size == f.sized && f.foreign == f.known {
		return false
	}
	f.sized, f.known = size, f.foreign
	f.length.Store(size)
	return true
}

// fit is settle. The caller has the file's turn.
func (f *file) fit(ctx context.Context) error {
	if d := f.device.Load(); d != nil {
		f.keepForeign(d)
	}
	f.mu.Lock()
	length, d := f.length.Load(), f.device.Load()
	if f.growing > 0 || d == nil || length == wholeDevice {
		f.mu.Unlock()
		return nil
	}
	f.sizing = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.sizing = false
	}()
	size := max(roundUp(length), chunk.SectorSize)
	if size >= d.Size() {
		return nil
	}
	err := d.Resize(ctx, size)
	f.sized = d.Size()
	if errors.Is(err, catalog.ErrInUse) {
		f.tree.refuse("file keeps the larger size that it had while it was written", f.label(), err)
		return nil
	}
	return err
}

// settleLast ends the growth of the file with the last handle that could make it longer.
func (h *handle) settleLast() {
	f := h.file
	if !h.grows.Load() {
		return
	}
	f.turn <- struct{}{}
	defer f.unlock()
	f.mu.Lock()
	f.growers--
	last := f.growers == 0
	f.mu.Unlock()
	if !last {
		return
	}
	if err := f.fit(context.Background()); err != nil {
		f.tree.log.Error("file has not the size to which it was written", "volume", f.label(), "err", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.pending {
		f.length.Store(wholeDevice)
	}
}

// truncate sets the file's size. A file without a volume gets one with it. What lies beyond is lost; to length 0 all is, and then the
// handle may write the file anew.
func (h *handle) truncate(ctx context.Context, size int64) error {
	f := h.file
	ctx = context.WithoutCancel(ctx)
	// It comes before the turn, as with writes that make the file longer: those hold their bytes while they wait for that.
	q, err := f.newRequest(volume.WriteZeroes, 0, 0)
	if err != nil {
		return err
	}
	defer q.drop()
	if err := f.lock(ctx); err != nil {
		return err
	}
	defer f.unlock()
	d := f.device.Load()
	switch {
	case d == nil && size == 0:
		return nil
	case d == nil:
		if err := f.make(ctx, roundUp(size)); err != nil {
			return err
		}
	case size == 0:
		return h.empty(ctx, d, q)
	default:
		if err := h.cut(ctx, d, q, size); err != nil {
			return err
		}
	}
	f.touch()
	f.sized = roundUp(size)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.length.Load() != wholeDevice {
		f.length.Store(roundUp(size))
	}
	return nil
}

// cut makes the device as large as a file of size bytes needs, and what it has beyond in its last sector zeros. The caller has the file's turn.
func (h *handle) cut(ctx context.Context, d Device, q *request, size int64) error {
	need := roundUp(size)
	smaller := size < h.file.end()
	if need != d.Size() {
		if err := d.Resize(ctx, need); err != nil {
			return err
		}
	}
	if !smaller || need == size {
		return nil
	}
	q.Offset, q.Length = size, need-size
	return h.change(q, d)
}

// empty gives up the content of a volume. The smallest volume has one sector. The caller has the file's turn.
func (h *handle) empty(ctx context.Context, d *opened, q *request) error {
	if err := d.Resize(ctx, chunk.SectorSize); err != nil {
		return err
	}
	q.Length = chunk.SectorSize
	if err := h.change(q, d); err != nil {
		return err
	}
	f := h.file
	f.sized = chunk.SectorSize
	f.notice(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	h.growLocked()
	f.known = f.foreign
	f.length.Store(0)
	return nil
}
