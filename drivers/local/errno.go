package local

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"skerry/drivers"
)

// mapError adds the sentinel of package drivers that an error of the operating system means.
func mapError(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case unix.ENOENT, unix.ENOTDIR:
		return fmt.Errorf("%w: %w", drivers.ErrNotFound, err)
	case unix.EEXIST:
		return fmt.Errorf("%w: %w", drivers.ErrExists, err)
	case unix.ENOSPC, unix.EDQUOT:
		return fmt.Errorf("%w: %w", drivers.ErrNoSpace, err)
	case unix.EROFS, unix.EACCES, unix.EPERM:
		return fmt.Errorf("%w: %w", drivers.ErrReadOnly, err)
	case unix.ESTALE, unix.ETIMEDOUT, unix.ENODEV, unix.ENXIO:
		return fmt.Errorf("%w: %w", drivers.ErrUnavailable, err)
	case unix.EINVAL, unix.ENAMETOOLONG, unix.EFBIG, unix.EISDIR:
		return fmt.Errorf("%w: %w", drivers.ErrInvalid, err)
	}
	return err
}

// retry repeats a system call that a signal interrupted.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

func retryErr(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// random returns 32 hexadecimal digits.
func random() string {
	var r [16]byte
	rand.Read(r[:]) // never fails, says its documentation
	return hex.EncodeToString(r[:])
}
