package local

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"skerry/drivers"
)

// dirID tells a directory from a later one of the same name.
type dirID struct {
	inode uint64
	born  unix.StatxTimestamp
}

// makeTries bounds how often a directory is made again that others remove.
const makeTries = 100

func relative(group string) string {
	if group == "" {
		return "."
	}
	return group
}

// makeat is openat for a file that may be made, after its directory.
func (b *Backend) makeat(name string, flags int) (int, error) {
	group := drivers.Group(name)
	var err error
	for range makeTries {
		if err = b.makeGroup(group); err == nil {
			var fd int
			if fd, err = b.openat(name, flags); err == nil {
				return fd, nil
			}
		}
		if !errors.Is(err, unix.ENOENT) {
			return -1, err
		}
		b.forget(group) // somebody removed the directory
	}
	return -1, err
}

// makeGroup makes the directory of a group, durably.
func (b *Backend) makeGroup(group string) error {
	b.mu.Lock()
	_, known := b.known[group]
	b.mu.Unlock()
	if known {
		return nil
	}
	parent := drivers.Group(group)
	if err := b.makeGroup(parent); err != nil {
		return err
	}
	err := retryErr(func() error { return unix.Mkdirat(b.fd(), group, 0o700) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	// Before the sync: if another takes its place meanwhile, that one is not known.
	id, err := b.identify(b.fd(), group, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	// Also if it was there: whoever made it may have died before this.
	if err := b.syncDir(parent); err != nil {
		return err
	}
	b.mu.Lock()
	b.known[group] = id
	b.mu.Unlock()
	return nil
}

func (b *Backend) identify(fd int, path string, flags int) (dirID, error) {
	var st unix.Statx_t
	err := retryErr(func() error { return unix.Statx(fd, path, flags, unix.STATX_INO|unix.STATX_BTIME, &st) })
	return dirID{inode: st.Ino, born: st.Btime}, err
}

// forget has the directories of a group made again.
func (b *Backend) forget(group string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ; group != ""; group = drivers.Group(group) {
		delete(b.known, group)
	}
}

// syncDir makes the names in a group's directory durable, and its own.
func (b *Backend) syncDir(group string) error {
	fd, err := b.openat(relative(group), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	id, err := b.identify(fd, "", unix.AT_EMPTY_PATH)
	if err == nil {
		err = retryErr(func() error { return unix.Fsync(fd) })
	}
	if err = errors.Join(err, unix.Close(fd)); err != nil || group == "" {
		return err
	}
	b.mu.Lock()
	known, ok := b.known[group]
	b.mu.Unlock()
	if ok && known == id {
		return nil
	}
	// Another process has made this directory, and may not have synced it.
	b.forget(group)
	return b.makeGroup(group)
}

// SyncGroup implements [drivers.Backend]. It removes the directory of a group without objects.
func (b *Backend) SyncGroup(_ context.Context, group string) error {
	if err := b.checkGroup("sync group", group); err != nil {
		return err
	}
	if err := b.syncDir(group); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
		return fmt.Errorf("sync group %s: %w", relative(group), mapError(err))
	}
	b.prune(group)
	return nil
}

// prune removes the directory of a group if it is empty, and then those above it. Whoever needs one makes it again. If a crash
// brings one back, that harms nothing.
func (b *Backend) prune(group string) {
	for ; group != ""; group = drivers.Group(group) {
		if err := unix.Unlinkat(b.fd(), group, unix.AT_REMOVEDIR); err != nil {
			return // it has objects, or is somebody else's business
		}
		b.mu.Lock()
		delete(b.known, group)
		b.mu.Unlock()
	}
}
