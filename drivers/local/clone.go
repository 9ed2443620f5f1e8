package local

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"skerry/drivers"
)

var _ drivers.FileCloner = (*Backend)(nil)

// CloneFile implements [drivers.FileCloner] by ioctl_ficlone(2), for files of the same file system if that has reflinks. The file system
// holds up writers of f meanwhile.
func (b *Backend) CloneFile(_ context.Context, name string, f *os.File) error {
	if err := b.check("clone file to", name); err != nil {
		return err
	}
	fd, err := b.makeat(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return fmt.Errorf("clone file to %s: %w", name, mapError(err))
	}
	err = ficlone(fd, f)
	if err == nil {
		err = retryErr(func() error { return unix.Fsync(fd) })
	}
	err = errors.Join(err, unix.Close(fd))
	if err == nil {
		err = b.syncDir(drivers.Group(name))
	}
	if err == nil {
		return nil
	}
	// Nobody else knows the name; if this fails, too, what is left is what the first error says there may be.
	_ = unix.Unlinkat(b.fd(), name, 0)
	b.prune(drivers.Group(name))
	return fmt.Errorf("clone file to %s: %w", name, mapError(err))
}

// ficlone makes an empty file share all blocks of f.
func ficlone(fd int, f *os.File) error {
	from, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var cloneErr error
	err = from.Control(func(src uintptr) {
		cloneErr = retryErr(func() error { return unix.IoctlFileClone(fd, int(src)) })
	})
	if err != nil {
		return err
	}
	switch {
	case errors.Is(cloneErr, unix.EXDEV), errors.Is(cloneErr, unix.EINVAL), errors.Is(cloneErr, unix.ENOTTY), errors.Is(cloneErr, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, cloneErr)
	}
	return cloneErr
}
