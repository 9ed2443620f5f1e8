package local

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"skerry/drivers"
)

// maxWrite is the most bytes that one call to the system writes. Linux caches what one call writes in folios as large as the call
// allows, and ext4 walks all blocks of a folio at every later write to it: after writes of 1 MiB random ones of 4 KiB took 25 us of CPU,
// after 256 KiB 12 us and after 64 KiB 10 us, which made cached random reads slower by a sixth instead (Linux 6.18).
const maxWrite = 256 << 10

// file is an open object.
type file struct {
	b        *Backend
	name     string
	fd       int
	readOnly bool
	closed   atomic.Bool
}

var (
	_ drivers.Object       = (*file)(nil)
	_ drivers.Puncher      = (*file)(nil)
	_ drivers.Allocator    = (*file)(nil)
	_ drivers.CacheDropper = (*file)(nil)
	_ drivers.TryReader    = (*file)(nil)
	_ drivers.TryWriter    = (*file)(nil)
)

func newFile(b *Backend, name string, fd int, readOnly bool) (*file, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.ENOENT // a group is no object
	}
	return &file{b: b, name: name, fd: fd, readOnly: readOnly}, nil
}

// check tests what all calls share.
func (f *file) check(what string, off, n int64, change bool) error {
	switch {
	case f.closed.Load():
		return fmt.Errorf("%s %s: %w", what, f.name, drivers.ErrClosed)
	case off < 0 || n < 0 || off > math.MaxInt64-n:
		return fmt.Errorf("%s %s: %d bytes at %d: %w", what, f.name, n, off, drivers.ErrInvalid)
	case change && f.readOnly:
		return fmt.Errorf("%s %s: opened for reading: %w", what, f.name, drivers.ErrReadOnly)
	}
	return nil
}

func (f *file) fail(what string, err error) error {
	return fmt.Errorf("%s %s: %w", what, f.name, mapError(err))
}

// ReadAt implements [drivers.Object].
func (f *file) ReadAt(p []byte, off int64) error {
	if err := f.check("read", off, int64(len(p)), false); err != nil {
		return err
	}
	n, err := readFull(f.fd, p, off)
	if err != nil {
		return f.fail("read", err)
	}
	clear(p[n:])
	return nil
}

// TryReadAt implements [drivers.TryReader].
func (f *file) TryReadAt(p []byte, off int64) (bool, error) {
	if f.b.inMemory {
		return true, f.ReadAt(p, off)
	}
	if f.b.noNoWait.Load() {
		return false, nil
	}
	if err := f.check("read", off, int64(len(p)), false); err != nil {
		return true, err
	}
	for len(p) > 0 {
		n, errno := readNoWait(f.fd, p, off)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false, nil
		case unix.EOPNOTSUPP, unix.ENOSYS:
			f.b.noNoWait.Store(true)
			return false, nil
		default:
			return true, f.fail("read", errno)
		}
		if n == 0 { // the end
			clear(p)
			break
		}
		p, off = p[n:], off+int64(n)
	}
	return true, nil
}

// readNoWait reads what is cached. It is preadv2(2) without the allocation of the library's wrapper.
func readNoWait(fd int, p []byte, off int64) (int, unix.Errno) {
	iov := unix.Iovec{Base: &p[0]}
	iov.SetLen(len(p))
	n, _, errno := unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), uintptr(uint64(off)>>32), unix.RWF_NOWAIT)
	return int(n), errno
}

// WriteAt implements [drivers.Object].
func (f *file) WriteAt(p []byte, off int64) error {
	return f.write(p, off, time.Since(f.b.start), false)
}

// TryWriteAt implements [drivers.TryWriter].
func (f *file) TryWriteAt(p []byte, off int64) (bool, error) {
	now := time.Since(f.b.start)
	if !f.b.pace.inline(now) {
		return false, nil
	}
	return true, f.write(p, off, now, true)
}

func (f *file) write(p []byte, off int64, now time.Duration, inline bool) error {
	if err := f.check("write", off, int64(len(p)), true); err != nil {
		return err
	}
	err := writeFull(f.fd, p, off)
	f.b.pace.wrote(len(p), now, time.Since(f.b.start), inline)
	if err != nil {
		return f.fail("write", err)
	}
	return nil
}

// PunchHole implements [drivers.Puncher].
func (f *file) PunchHole(off, n int64) error {
	return f.allocate("punch", unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// Allocate implements [drivers.Allocator].
func (f *file) Allocate(off, n int64) error {
	return f.allocate("allocate", 0, off, n)
}

func (f *file) allocate(what string, mode uint32, off, n int64) error {
	if err := f.check(what, off, n, true); err != nil || n == 0 {
		return err
	}
	if err := retryErr(func() error { return unix.Fallocate(f.fd, mode, off, n) }); err != nil {
		return f.fail(what, err) // EOPNOTSUPP is errors.ErrUnsupported
	}
	return nil
}

// Sync implements [drivers.Object].
func (f *file) Sync() error {
	if err := f.check("sync", 0, 0, false); err != nil {
		return err
	}
	if err := retryErr(func() error { return unix.Fdatasync(f.fd) }); err != nil {
		return f.fail("sync", err)
	}
	return nil
}

// DropCache implements [drivers.CacheDropper].
func (f *file) DropCache() error {
	if err := f.check("drop cache", 0, 0, false); err != nil {
		return err
	}
	if err := unix.Fadvise(f.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return f.fail("drop cache", err)
	}
	return nil
}

// Size implements [drivers.Object].
func (f *file) Size() (int64, error) {
	if err := f.check("size", 0, 0, false); err != nil {
		return 0, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, f.fail("size", err)
	}
	return st.Size, nil
}

// Close implements [drivers.Object].
func (f *file) Close() error {
	if f.closed.Swap(true) {
		return fmt.Errorf("close %s: %w", f.name, drivers.ErrClosed)
	}
	if err := unix.Close(f.fd); err != nil {
		return f.fail("close", err)
	}
	return nil
}

// readFull reads until p is full or the file ends, and returns how much that is.
func readFull(fd int, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		k, err := unix.Pread(fd, p[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case k == 0:
			return n, nil
		default:
			n += k
		}
	}
	return n, nil
}

func writeFull(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p[:min(int64(len(p)), maxWrite-off%maxWrite)], off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}
