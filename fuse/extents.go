package fuse

import (
	"context"
	"errors"
	"syscall"

	"golang.org/x/sys/unix"

	"skerry/volume"
)

// step is the most that one request discards or zeroes, in bytes: each has a deadline.
const step = 1 << 30

// Allocate implements [fs.FileAllocater]. Space is never reserved: storage that is copied on write cannot promise it.
func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	kind := volume.WriteZeroes
	switch mode {
	case unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE:
		kind = volume.Discard
	case unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE:
	default:
		return syscall.EOPNOTSUPP
	}
	if off > 1<<61 || size > 1<<61 {
		return syscall.EFBIG
	}
	from, to := int64(off), int64(off+size)
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 && to > h.file.end() {
		if !h.grows.Load() {
			return h.beyond()
		}
		if err := h.reach(ctx, to); err != nil {
			return h.fail("size cannot be set", err)
		}
	}
	d := h.file.device.Load()
	to = min(to, h.file.end())
	for d != nil && from < to {
		n := min(to-from, step)
		if err := h.zero(kind, from, n, d); err != nil {
			return h.fail("space cannot be zeroed", err)
		}
		from += n
	}
	return 0
}

// zero discards or zeroes.
func (h *handle) zero(kind volume.Kind, off, n int64, d Device) error {
	q, err := h.file.newRequest(kind, off, 0)
	if err != nil {
		return err
	}
	defer q.drop()
	q.Length = n
	return h.change(q, d)
}

// reach makes the file end bytes long, at least.
func (h *handle) reach(ctx context.Context, end int64) error {
	if _, err := h.file.room(ctx, end); err != nil {
		return err
	}
	h.file.mu.Lock()
	defer h.file.mu.Unlock()
	h.file.growing--
	return nil
}

// Lseek implements [fs.FileLseeker]. The end of the file counts as a hole.
func (h *handle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	f := h.file
	end := f.end()
	if off >= uint64(end) {
		return 0, syscall.ENXIO
	}
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	d := f.device.Load()
	if d == nil {
		return 0, syscall.ENXIO
	}
	ctx, cancel := patient(ctx)
	defer cancel()
	from, found := int64(off), int64(-1)
	err := d.Extents(ctx, from, end-from, func(e volume.Extent) bool {
		if hole := e.Flags&volume.Zero != 0; hole == (whence == unix.SEEK_HOLE) {
			found = max(e.Offset, from)
			return false
		}
		return true
	})
	switch {
	case errors.Is(err, volume.ErrOutOfRange):
		return 0, syscall.ENXIO // it was made smaller meanwhile
	case err != nil:
		return 0, h.fail("extents cannot be found", err)
	case found >= 0:
		return uint64(found), 0
	case whence == unix.SEEK_HOLE:
		return uint64(end), 0
	}
	return 0, syscall.ENXIO
}
