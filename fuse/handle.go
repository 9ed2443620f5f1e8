package fuse

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"skerry/volume"
	"skerry/volume/catalog"
)

// blockSize is what programs are told suits best.
const blockSize = 4096

// node is a file in the kernel's eyes. Several may stand for one file.
type node struct {
	fs.Inode
	file *file
}

var (
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
)

// handle is an open file.
type handle struct {
	file  *file
	write bool
	grows atomic.Bool // it may make the file longer by writing
}

var (
	_ fs.FileReader    = (*handle)(nil)
	_ fs.FileWriter    = (*handle)(nil)
	_ fs.FileFsyncer   = (*handle)(nil)
	_ fs.FileFlusher   = (*handle)(nil)
	_ fs.FileReleaser  = (*handle)(nil)
	_ fs.FileLseeker   = (*handle)(nil)
	_ fs.FileAllocater = (*handle)(nil)
)

// Getattr implements [fs.NodeGetattrer].
func (n *node) Getattr(ctx context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if e := n.file.look(ctx); e != 0 {
		return e
	}
	n.file.attributes(&out.Attr)
	return 0
}

// Open implements [fs.NodeOpener].
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f := n.file
	writes := flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0
	if writes && (f.snapshot || f.tree.o.ReadOnly) {
		return nil, 0, syscall.EROFS
	}
	h, err := f.tree.newHandle(ctx, f, flags)
	if err != nil {
		if errors.Is(err, catalog.ErrNotFound) {
			return nil, 0, syscall.ESTALE // the kernel looks the name up again
		}
		f.tree.refuse("file cannot be opened", f.label(), err)
		return nil, 0, errno(err)
	}
	// Who opens a file gets the size that it has, whatever was changed elsewhere while nobody had it open. This concerns attributes only, and the
	// kernel may have none.
	_ = n.NotifyContent(-1, 0)
	return h, openFlags(f), 0
}

// openFlags says how the kernel treats an open file. What can change is never cached: others may write the volume through another export.
func openFlags(f *file) uint32 {
	if f.snapshot {
		return fuse.FOPEN_KEEP_CACHE
	}
	return fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
}

// newHandle opens a file.
func (t *tree) newHandle(ctx context.Context, f *file, flags uint32) (*handle, error) {
	ctx, cancel := patient(ctx)
	defer cancel()
	h := &handle{file: f, write: flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	if err := f.open(ctx, h); err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.handles[h] = struct{}{}
	t.mu.Unlock()
	if flags&syscall.O_TRUNC != 0 {
		if err := h.truncate(ctx, 0); err != nil {
			t.end(h)
			return nil, err
		}
	}
	return h, nil
}

// end closes a handle, once.
func (t *tree) end(h *handle) {
	t.mu.Lock()
	_, open := t.handles[h]
	delete(t.handles, h)
	t.mu.Unlock()
	if open {
		h.settleLast()
		h.file.close()
	}
}

// Release implements [fs.FileReleaser].
func (h *handle) Release(context.Context) syscall.Errno {
	h.file.tree.end(h)
	return 0
}

// fail logs the failure of a request and returns how it looks to the program.
func (h *handle) fail(what string, err error) syscall.Errno {
	h.file.tree.failed(what, h.file.label(), err)
	return errno(err)
}

// Read implements [fs.FileReader].
func (h *handle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f := h.file
	for {
		n := min(int64(len(dest)), f.end()-off)
		d := f.device.Load()
		if n <= 0 || d == nil {
			return fuse.ReadResultData(nil), 0
		}
		q, err := f.newRequest(volume.Read, off, int(n))
		if err != nil {
			return nil, errno(err)
		}
		q.Data = q.room(int(n))
		if err = q.do(d); err == nil {
			return q, 0
		}
		q.drop()
		if !errors.Is(err, volume.ErrOutOfRange) || f.end()-off >= n {
			return nil, h.fail("read failed", err)
		}
		// The volume was made smaller meanwhile.
	}
}

// Write implements [fs.FileWriter]. What would cross the end of a file that does not grow is written up to there.
func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if len(data) == 0 {
		return 0, 0
	}
	q, err := h.file.newRequest(volume.Write, off, len(data))
	if err != nil {
		return 0, errno(err)
	}
	defer q.drop()
	q.Data = data
	if h.grows.Load() {
		err = h.writeLonger(ctx, q)
		return uint32(len(q.Data)), h.wrote(err)
	}
	n := min(int64(len(data)), h.file.end()-off)
	d := h.file.device.Load()
	if n <= 0 || d == nil {
		return 0, h.beyond()
	}
	q.Data, q.Length = q.Data[:n], n
	return uint32(n), h.wrote(h.change(q, d))
}

func (h *handle) wrote(err error) syscall.Errno {
	if err != nil {
		return h.fail("write failed", err)
	}
	return 0
}

var errLonger = errors.New("a volume is made longer with truncate, or skerry resize: only a file that was just created grows as it is written")

// beyond refuses a write after the end.
func (h *handle) beyond() syscall.Errno {
	h.file.tree.failed("write beyond the end", h.file.label(), errLonger)
	return syscall.EFBIG
}

// change does a request that changes the device.
func (h *handle) change(q *request, d Device) error {
	h.file.changing()
	err := q.do(d)
	h.file.changed(err)
	return err
}

// Fsync implements [fs.FileFsyncer]. There is no difference between data and the rest that is worth having.
func (h *handle) Fsync(ctx context.Context, _ uint32) syscall.Errno {
	err := h.settle(ctx)
	if d := h.file.device.Load(); err == nil && d != nil {
		err = h.file.flush(d)
	}
	if err != nil {
		return h.fail("sync failed", err)
	}
	return 0
}

// flush makes durable what was written before.
func (f *file) flush(d Device) error {
	q, err := f.newRequest(volume.Flush, 0, 0)
	if err != nil {
		return err
	}
	defer q.drop()
	return q.do(d)
}

// Flush implements [fs.FileFlusher]: a program closes a descriptor, perhaps not the last one of the handle. What it has written need not be
// durable, but the file has its size.
func (h *handle) Flush(ctx context.Context) syscall.Errno {
	if err := h.settle(ctx); err != nil {
		return h.fail("size cannot be set", err)
	}
	return 0
}

// Setattr implements [fs.NodeSetattrer].
func (n *node) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	f := n.file
	a := f.tree.access
	mode := a.file
	if f.snapshot {
		mode &^= 0o222
	}
	if e := a.keeps(in, mode); e != 0 {
		return e
	}
	if size, ok := in.GetSize(); ok {
		if f.snapshot || f.tree.o.ReadOnly {
			return syscall.EROFS
		}
		if err := n.resize(ctx, fh, size); err != nil {
			f.tree.refuse("file cannot get another size", f.label(), err)
			return errno(err)
		}
	}
	f.setTimes(in)
	return n.Getattr(ctx, fh, out)
}

// resize sets the size by a handle, or else by one of its own.
func (n *node) resize(ctx context.Context, fh fs.FileHandle, size uint64) error {
	if err := checkEnd(int64(size)); err != nil {
		return err
	}
	if h, ok := fh.(*handle); ok {
		return h.truncate(ctx, int64(size))
	}
	h, err := n.file.tree.newHandle(ctx, n.file, syscall.O_RDWR)
	if errors.Is(err, catalog.ErrNotFound) {
		return errStale
	}
	if err != nil {
		return err
	}
	defer n.file.tree.end(h)
	return h.truncate(ctx, int64(size))
}

// setTimes remembers the times that touch sets, as long as the mount lives or the volume is not changed.
func (f *file) setTimes(in *fuse.SetAttrIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := in.GetMTime(); ok {
		f.mtime.Store(t.UnixNano())
	}
	if t, ok := in.GetATime(); ok {
		f.atime = t.UnixNano()
	}
}
