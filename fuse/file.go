package fuse

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"skerry/volume"
	"skerry/volume/catalog"
)

// wholeDevice as the length of a file says that it ends where its device does.
const wholeDevice = -1

// file is a volume or a snapshot, or a volume to be: then it is pending, and has no device.
type file struct {
	tree     *tree
	ino      uint64
	snapshot bool
	limits   limits

	turn  chan struct{} // has room for the one who opens, closes, resizes or renames
	sized int64         // of the device, in bytes, as the growth of the file has made it; who has the turn uses it

	device atomic.Pointer[opened]
	length atomic.Int64 // bytes that programs see; wholeDevice but while the file is made by writing to it
	mtime  atomic.Int64 // nanoseconds; of the last change
	own    atomic.Int64 // changes made through the mount under the grant

	mu      sync.Mutex
	name    string
	pending bool
	users   int // handles
	growers int // of these, those that may make the file longer
	growing int // writes under way of these
	sizing  bool
	idle    chan struct{} // closed when the last handle goes; nil: nobody waits
	atime   int64         // nanoseconds; 0: that of the last change
	foreign int64         // changes by others under the grant, as far as noticed
	known   int64         // of these, the ones that do not concern the growth of the file
	grant   uint32        // the last one known
	size    int64         // as last looked up
}

// opened is an open device.
type opened struct {
	Device
	release func()
}

// lock takes the file's turn.
func (f *file) lock(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *file) unlock() { <-f.turn }

// label returns the name of the volume or snapshot.
func (f *file) label() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.name
}

func (f *file) isPending() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pending
}

func (f *file) inUse() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.users > 0
}

// refresh takes over what was looked up.
func (f *file) refresh(e Entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.name, f.size = e.Name, e.Size
	// While the device is open its changes go on being counted, also under another grant; and what was looked up may be older than that.
	if f.device.Load() == nil && (f.grant != e.Grant || f.mtime.Load() == 0) {
		f.mtime.Store(e.Granted.UnixNano()) // somebody may have written it since
		f.grantLocked(e.Grant)
	}
	f.noticeLocked(e.Changes)
}

// grantLocked begins to count the changes of another grant.
func (f *file) grantLocked(grant uint32) {
	f.grant, f.foreign, f.known = grant, 0, 0
	f.own.Store(0)
}

// noticeLocked dates changes that others have made.
func (f *file) noticeLocked(changes int64) {
	if n := changes - f.own.Load(); n > f.foreign {
		f.foreign = n
		f.mtime.Store(time.Now().UnixNano())
	}
}

// open adds a handle; the first one opens the device. One that writes to a file that is pending, or that others make longer, may make it longer.
func (f *file) open(ctx context.Context, h *handle) error {
	if err := f.lock(ctx); err != nil {
		return err
	}
	defer f.unlock()
	if f.device.Load() == nil && !f.isPending() {
		if err := f.openDevice(ctx); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users++
	if h.write && (f.pending || f.growers > 0) {
		h.growLocked()
	}
	return nil
}

// errStale says that a file is not the one of its name any more. The kernel looks the name up again.
var errStale = errors.New("another volume or snapshot has the name now")

// openDevice opens the device. The caller has the file's turn.
func (f *file) openDevice(ctx context.Context) error {
	name := f.label()
	d, release, err := f.tree.volumes.Open(ctx, name)
	if err != nil {
		return err
	}
	e, err := f.tree.volumes.Lookup(ctx, name)
	if err == nil && e.ID != f.ino && f.tree.knows(e.ID, f) {
		err = fmt.Errorf("%s: %w", name, errStale)
	}
	if err != nil {
		release()
		return err
	}
	f.mu.Lock()
	if e.Grant > f.grant+1 {
		f.mtime.Store(e.Granted.UnixNano()) // somebody else had it in between
	}
	if e.Grant != f.grant {
		f.grantLocked(e.Grant)
	}
	f.mu.Unlock()
	f.device.Store(&opened{d, release})
	return nil
}

// knows reports whether an id is that of another file than f.
func (t *tree) knows(id uint64, f *file) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.files[id] != f
}

// close removes a handle; the last one closes the device.
func (f *file) close() {
	f.turn <- struct{}{}
	defer f.unlock()
	f.mu.Lock()
	f.users--
	last := f.users == 0
	f.mu.Unlock()
	if !last {
		return
	}
	if d := f.device.Load(); d != nil {
		f.notice(d)
		f.device.Store(nil)
		d.release()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// releaseTime is how long removing and renaming wait for handles that are about to go: the kernel tells of the end of a handle after close
// has returned.
const releaseTime = 500 * time.Millisecond

// unused waits a moment until the file has no handles and reports whether that came.
func (f *file) unused(ctx context.Context) bool {
	f.mu.Lock()
	if f.users == 0 {
		f.mu.Unlock()
		return true
	}
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	idle := f.idle
	f.mu.Unlock()
	t := time.NewTimer(releaseTime)
	defer t.Stop()
	select {
	case <-idle:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// end returns how long the file is, in bytes.
func (f *file) end() int64 {
	if n := f.length.Load(); n != wholeDevice {
		return n
	}
	if d := f.device.Load(); d != nil {
		return d.Size()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size
}

// notice dates changes that others have made to an open device.
func (f *file) notice(d *opened) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noticeLocked(d.Changes())
}

// changing counts a change that is about to be made through the mount; changed ends it.
func (f *file) changing() { f.own.Add(1) }

// changed dates a change made through the mount.
func (f *file) changed(err error) {
	if refused(err) {
		f.own.Add(-1)
	}
	f.touch()
}

// refused reports whether a device has not counted a request that ended with an error.
func refused(err error) bool {
	return errors.Is(err, volume.ErrOutOfRange) || errors.Is(err, volume.ErrInvalid) || errors.Is(err, volume.ErrReadOnly) || errors.Is(err, volume.ErrClosed)
}

// touch dates the last change.
func (f *file) touch() { f.mtime.Store(time.Now().UnixNano()) }

// look brings what is known of the file up to date.
func (f *file) look(ctx context.Context) syscall.Errno {
	if d := f.device.Load(); d != nil {
		f.notice(d)
		return 0
	}
	if f.isPending() {
		return 0
	}
	ctx, cancel := patient(ctx)
	defer cancel()
	name := f.label()
	e, err := f.tree.volumes.Lookup(ctx, name)
	if errors.Is(err, catalog.ErrNotFound) || err == nil && f.tree.knows(e.ID, f) {
		return syscall.ESTALE // the kernel looks the name up again
	}
	if err != nil {
		f.tree.failed("file cannot be looked up", name, err)
		return errno(err)
	}
	f.refresh(e)
	return 0
}

// attributes fills in what stat shows.
func (f *file) attributes(a *fuse.Attr) {
	size := f.end()
	changed := f.mtime.Load()
	f.mu.Lock()
	read := f.atime
	f.mu.Unlock()
	if read == 0 {
		read = changed
	}
	t := f.tree
	a.Ino, a.Size, a.Nlink, a.Mode = f.ino, uint64(size), 1, t.access.file
	if f.snapshot {
		a.Mode &^= 0o222
	}
	a.Uid, a.Gid = t.access.uid, t.access.gid
	a.Blksize = blockSize
	a.Blocks = uint64(size+511) / 512
	at, mt := time.Unix(0, read), time.Unix(0, changed)
	a.SetTimes(&at, &mt, &mt)
}
