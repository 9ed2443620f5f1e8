package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"skerry/drivers"
)

// List implements [drivers.Backend].
func (b *Backend) List(ctx context.Context, group string, fn func(drivers.Info) error) error {
	if err := b.checkGroup("list", group); err != nil {
		return err
	}
	return b.walk(ctx, group, func(name string, e fs.DirEntry) error {
		if !e.Type().IsRegular() || isTemp(e.Name()) {
			return nil
		}
		info, regular, err := b.stat(name)
		if errors.Is(err, unix.ENOENT) || err == nil && !regular {
			return nil // removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("list %s: stat %s: %w", relative(group), name, mapError(err))
		}
		return fn(info)
	})
}

// walk calls fn for all that is in a group's directory and those below it.
func (b *Backend) walk(ctx context.Context, group string, fn func(name string, e fs.DirEntry) error) error {
	fd, err := b.openat(relative(group), unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list %s: %w", relative(group), mapError(err))
	}
	dir := os.NewFile(uintptr(fd), relative(group))
	defer dir.Close() // only read
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s: %w", relative(group), err)
		}
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			name := e.Name()
			if group != "" {
				name = group + "/" + name
			}
			if e.IsDir() && drivers.ValidName(name) {
				if err := b.walk(ctx, name, fn); err != nil {
					return err
				}
			} else if drivers.ValidName(name) || isTemp(e.Name()) {
				if err := fn(name, e); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ENOENT) { // the end, or removed meanwhile
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", relative(group), mapError(err))
		}
	}
}

// CleanTemp removes the temporary files below group that a death left over, and the directories that are empty without them.
// Those of the living, of this process and others, stay.
func (b *Backend) CleanTemp(ctx context.Context, group string) error {
	if err := b.checkGroup("clean", group); err != nil {
		return err
	}
	groups := make(map[string]bool)
	err := b.walk(ctx, group, func(name string, e fs.DirEntry) error {
		if !e.Type().IsRegular() || !strings.HasPrefix(e.Name(), tempPrefix) {
			return nil
		}
		if err := b.cleanTemp(name); err != nil {
			return fmt.Errorf("clean %s: %w", name, mapError(err))
		}
		groups[drivers.Group(name)] = true
		return nil
	})
	for g := range groups {
		b.prune(g)
	}
	return err
}

// cleanTemp removes a temporary file if nobody has it locked.
func (b *Backend) cleanTemp(name string) error {
	fd, err := b.openat(name, unix.O_RDONLY|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd) // only read
	err = retryErr(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		err = unix.Unlinkat(b.fd(), name, 0)
	}
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
