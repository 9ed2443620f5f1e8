package fuse

import (
	"context"
	"errors"
	"syscall"

	"skerry/drivers"
	"skerry/locking"
	"skerry/volume"
	"skerry/volume/catalog"
)

// errno returns how an error looks to a program; 0: there is none. The more telling ones come first: an error of the storage prevails
// over what it made impossible.
func errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	for _, c := range []struct {
		is error
		n  syscall.Errno
	}{
		{drivers.ErrNoSpace, syscall.ENOSPC},
		{syscall.ENOSPC, syscall.ENOSPC},
		{syscall.EDQUOT, syscall.ENOSPC},
		{volume.ErrDamaged, syscall.EIO},
		{volume.ErrFailed, syscall.EIO},
		{catalog.ErrInUse, syscall.EBUSY},
		{locking.ErrHeld, syscall.EBUSY},
		{catalog.ErrExists, syscall.EEXIST},
		{errStale, syscall.ESTALE},
		{catalog.ErrNotFound, syscall.ENOENT},
		{volume.ErrReadOnly, syscall.EROFS},
		{drivers.ErrReadOnly, syscall.EROFS},
		{syscall.EROFS, syscall.EROFS},
		{volume.ErrOutOfRange, syscall.EFBIG},
		{errors.ErrUnsupported, syscall.EOPNOTSUPP},
		{volume.ErrInvalid, syscall.EINVAL},
		{drivers.ErrInvalid, syscall.EINVAL},
		{syscall.EMFILE, syscall.EMFILE},
		{syscall.ENFILE, syscall.ENFILE},
		{context.Canceled, syscall.EINTR},
	} {
		if errors.Is(err, c.is) {
			return c.n
		}
	}
	return syscall.EIO
}
