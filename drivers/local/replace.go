package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"skerry/drivers"
)

// nameLock keeps replacements of one name apart.
type nameLock struct {
	mu    sync.Mutex
	users int // guarded by Backend.mu
}

func (b *Backend) lockName(name string) (unlock func()) {
	b.mu.Lock()
	l := b.names[name]
	if l == nil {
		l = &nameLock{}
		b.names[name] = l
	}
	l.users++
	b.mu.Unlock()
	l.mu.Lock()
	return func() {
		l.mu.Unlock()
		b.mu.Lock()
		defer b.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(b.names, name)
		}
	}
}

// Load implements [drivers.Backend].
func (b *Backend) Load(_ context.Context, name string) ([]byte, error) {
	if err := b.check("load", name); err != nil {
		return nil, err
	}
	data, err := b.load(name, drivers.MaxSmall+1)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", name, mapError(err))
	}
	if len(data) > drivers.MaxSmall {
		return nil, fmt.Errorf("load %s: more than %d bytes: %w", name, drivers.MaxSmall, drivers.ErrInvalid)
	}
	return data, nil
}

// load returns the first bytes of a file, at most n.
func (b *Backend) load(name string, n int) ([]byte, error) {
	fd, err := b.openat(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) // only read
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.ENOENT // a group is no object
	}
	data := make([]byte, min(int64(n), st.Size))
	k, err := readFull(fd, data, 0)
	return data[:k], err
}

// Replace implements [drivers.Backend].
func (b *Backend) Replace(_ context.Context, name string, data []byte, cond drivers.Condition) error {
	if err := drivers.CheckReplace(name, data, cond); err != nil {
		return err
	}
	if err := b.checkOpen("replace", name); err != nil {
		return err
	}
	defer b.lockName(name)()
	if len(cond.Prefix) > 0 {
		old, err := b.load(name, len(cond.Prefix))
		if err != nil {
			return fmt.Errorf("replace %s: %w", name, mapError(err))
		}
		if !bytes.Equal(old, cond.Prefix) {
			return fmt.Errorf("replace %s: %w", name, drivers.ErrConflict)
		}
	}
	if err := b.replace(name, data, cond.Absent); err != nil {
		return fmt.Errorf("replace %s: %w", name, mapError(err))
	}
	return nil
}

func (b *Backend) replace(name string, data []byte, absent bool) error {
	temp, fd, err := b.makeTemp(name)
	if err != nil {
		return err
	}
	err = writeFull(fd, data, 0)
	if err == nil {
		err = retryErr(func() error { return unix.Fsync(fd) })
	}
	renamed := false
	switch {
	case err != nil:
	case absent:
		err = retryErr(func() error { return unix.Linkat(b.fd(), temp, b.fd(), name, 0) })
	default:
		err = retryErr(func() error { return unix.Renameat(b.fd(), temp, b.fd(), name) })
		renamed = err == nil
	}
	if !renamed {
		// One that stays is harmless.
		_ = unix.Unlinkat(b.fd(), temp, 0)
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil {
		return err
	}
	err = b.syncDir(drivers.Group(name))
	if errors.Is(err, unix.ENOENT) {
		return nil // somebody has removed the object already, and the directory
	}
	return err
}

// makeTemp makes a temporary file beside name, and locks it: as long as that lasts CleanTemp leaves it alone.
func (b *Backend) makeTemp(name string) (temp string, fd int, err error) {
	for range makeTries {
		temp = tempName(name)
		if fd, err = b.makeat(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL); err != nil {
			return "", -1, err
		}
		var st unix.Stat_t
		err = retryErr(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err == nil && st.Nlink > 0 {
			return temp, fd, nil
		}
		_ = unix.Unlinkat(b.fd(), temp, 0)
		_ = unix.Close(fd) // nothing was written
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return "", -1, err
		}
		// CleanTemp saw it before it was locked.
		err = unix.EAGAIN
	}
	return "", -1, err
}

// lock is a lock of flock(2).
type lock struct {
	mu   sync.Mutex
	fd   int
	name string
}

// Lock implements [drivers.Locker] by flock(2).
func (b *Backend) Lock(ctx context.Context, name string) (io.Closer, error) {
	if err := b.check("lock", name); err != nil {
		return nil, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		fd, err := b.lockOnce(name)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if fd >= 0 {
			return &lock{fd: fd, name: name}, nil
		}
	}
}

// lockOnce returns -1 if the file that it locked does not have the name any more.
func (b *Backend) lockOnce(name string) (int, error) {
	fd, err := b.makeat(name, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return -1, mapError(err)
	}
	err = retryErr(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	var mine, named unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &mine)
	}
	if err == nil {
		err = unix.Fstatat(b.fd(), name, &named, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil && mine.Ino == named.Ino && mine.Dev == named.Dev {
		return fd, nil
	}
	_ = unix.Close(fd) // it holds nothing of ours
	switch {
	case err == nil || errors.Is(err, unix.ENOENT):
		return -1, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return -1, drivers.ErrLocked
	}
	return -1, mapError(err)
}

// Close ends the lock.
func (l *lock) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return fmt.Errorf("unlock %s: %w", l.name, drivers.ErrClosed)
	}
	fd := l.fd
	l.fd = -1
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("unlock %s: %w", l.name, mapError(err))
	}
	return nil
}
