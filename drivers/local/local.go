package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"skerry/drivers"
)

// Backend is a [drivers.Backend] in a directory.
type Backend struct {
	dir    string
	root   *os.File
	closed atomic.Bool
	start  time.Time // of the clock of pace

	inMemory bool        // reads never wait for a device
	noNoWait atomic.Bool // RWF_NOWAIT is not supported
	pace     pace

	mu    sync.Mutex
	known map[string]dirID     // the directories of groups that are there, durably
	names map[string]*nameLock // names that are being replaced
}

var (
	_ drivers.Backend = (*Backend)(nil)
	_ drivers.Locker  = (*Backend)(nil)
)

// Open returns the backend in dir, which must exist.
func Open(dir string) (*Backend, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open directory %s: %w", dir, mapError(err))
	}
	b := &Backend{
		dir:   dir,
		root:  os.NewFile(uintptr(fd), dir),
		start: time.Now(),
		known: map[string]dirID{"": {}},
		names: map[string]*nameLock{},
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err == nil {
		b.inMemory = st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
	}
	return b, nil
}

func (b *Backend) fd() int { return int(b.root.Fd()) }

// Properties implements [drivers.Backend].
func (b *Backend) Properties() drivers.Properties { return drivers.Properties{Kind: "local"} }

// check tests what all calls share.
func (b *Backend) check(what, name string) error {
	if !drivers.ValidName(name) {
		return fmt.Errorf("%s %q: %w", what, name, drivers.ErrInvalid)
	}
	return b.checkOpen(what, name)
}

func (b *Backend) checkGroup(what, group string) error {
	if group == "" {
		return b.checkOpen(what, "/")
	}
	return b.check(what, group)
}

func (b *Backend) checkOpen(what, name string) error {
	if b.closed.Load() {
		return fmt.Errorf("%s %s: %w", what, name, drivers.ErrClosed)
	}
	return nil
}

// Open implements [drivers.Backend].
func (b *Backend) Open(_ context.Context, name string, mode drivers.Mode) (drivers.Object, error) {
	if err := b.check("open", name); err != nil {
		return nil, err
	}
	var fd int
	var err error
	switch mode {
	case drivers.ReadOnly:
		fd, err = b.openat(name, unix.O_RDONLY)
	case drivers.ReadWrite:
		fd, err = b.openat(name, unix.O_RDWR)
	case drivers.Create:
		fd, err = b.makeat(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	default:
		return nil, fmt.Errorf("open %s: mode %d: %w", name, mode, drivers.ErrInvalid)
	}
	if err != nil {
		what := "open"
		if mode == drivers.Create {
			what = "create"
		}
		return nil, fmt.Errorf("%s %s: %w", what, name, mapError(err))
	}
	f, err := newFile(b, name, fd, mode == drivers.ReadOnly)
	if err != nil {
		_ = unix.Close(fd) // the other error is the one to tell
		return nil, fmt.Errorf("open %s: %w", name, mapError(err))
	}
	return f, nil
}

func (b *Backend) openat(name string, flags int) (int, error) {
	return retry(func() (int, error) { return unix.Openat(b.fd(), name, flags|unix.O_CLOEXEC, 0o600) })
}

// Stat implements [drivers.Backend].
func (b *Backend) Stat(_ context.Context, name string) (drivers.Info, error) {
	if err := b.check("stat", name); err != nil {
		return drivers.Info{}, err
	}
	info, regular, err := b.stat(name)
	if err == nil && !regular {
		err = unix.ENOENT // a group is no object
	}
	if err != nil {
		return drivers.Info{}, fmt.Errorf("stat %s: %w", name, mapError(err))
	}
	return info, nil
}

func (b *Backend) stat(name string) (info drivers.Info, regular bool, err error) {
	var st unix.Stat_t
	err = retryErr(func() error { return unix.Fstatat(b.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return drivers.Info{Name: name, Size: st.Size, Allocated: st.Blocks * 512}, st.Mode&unix.S_IFMT == unix.S_IFREG, err
}

// Unlink implements [drivers.Backend].
func (b *Backend) Unlink(_ context.Context, name string) error {
	if err := b.check("unlink", name); err != nil {
		return err
	}
	err := retryErr(func() error { return unix.Unlinkat(b.fd(), name, 0) })
	if errors.Is(err, unix.EISDIR) {
		err = unix.ENOENT // a group is no object
	}
	if err != nil {
		return fmt.Errorf("unlink %s: %w", name, mapError(err))
	}
	return nil
}

// Close implements [drivers.Backend].
func (b *Backend) Close() error {
	if b.closed.Swap(true) {
		return fmt.Errorf("close %s: %w", b.dir, drivers.ErrClosed)
	}
	return b.root.Close()
}

// tempName returns a new name of a temporary file beside name.
func tempName(name string) string {
	return path.Join(drivers.Group(name), tempPrefix+random())
}

const tempPrefix = ".tmp-"

func isTemp(base string) bool { return strings.HasPrefix(base, ".") }
