package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"skerry/cmd/internal/control"
	"skerry/fuse"
	"skerry/volume/catalog"
)

func (a *app) umountCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "umount DIR",
		Short: "End a mount",
		Long: `End a mount of skerry, and wait until its process has flushed all, released the leases and ended. While programs use the
directory that is refused, and they are named. What a killed process left is removed.`,
		Example: "  skerry umount /mnt/vms",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.umount(cmd.Context(), args[0]) },
	}
}

// busyTime is how long umount tries again: whoever starts another program has its open files twice for a moment.
const busyTime = time.Second

func (a *app) umount(ctx context.Context, dir string) error {
	dir, err := mountPath(dir)
	if err != nil {
		return err
	}
	ours, err := fuse.Mounted(dir)
	if err != nil {
		return err
	}
	if !ours {
		return usage("%s is no mount of skerry", dir)
	}
	process, err := a.mounter(ctx, dir)
	if err != nil {
		return err
	}
	if process >= 0 {
		defer func() { _ = unix.Close(process) }() // it is only waited for
	}
	err = fuse.Unmount(dir)
	for until := time.Now().Add(busyTime); errors.Is(err, syscall.EBUSY) && time.Now().Before(until) && ctx.Err() == nil; {
		time.Sleep(pollStep * time.Millisecond)
		err = fuse.Unmount(dir)
	}
	if errors.Is(err, syscall.EBUSY) {
		return fmt.Errorf("%s: %w: it is used by %s", dir, catalog.ErrInUse, strings.Join(fuse.Users(dir), ", "))
	}
	if err != nil {
		return err
	}
	return waitProcess(ctx, process)
}

// mountPath returns the path of a directory that may be mounted on, as the kernel knows it. The directory itself is not asked: its process may
// be dead.
func mountPath(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if err != nil {
		return "", err
	}
	dir = filepath.Join(parent, filepath.Base(dir))
	if to, err := os.Readlink(dir); err == nil {
		if !filepath.IsAbs(to) {
			to = filepath.Join(parent, to)
		}
		return mountPath(to)
	}
	return dir, nil
}

// mounter returns a descriptor of the process that mounts a directory, -1 if none of this user does.
func (a *app) mounter(ctx context.Context, dir string) (int, error) {
	clients, err := control.Clients(control.Directory(a.env.Getenv))
	if err != nil {
		return -1, err
	}
	for _, c := range clients {
		p, err := c.Process(ctx)
		if err != nil || !slices.Contains(p.Mounts, dir) {
			continue // it has ended, or is another's
		}
		fd, err := unix.PidfdOpen(p.PID, 0)
		if errors.Is(err, syscall.ESRCH) {
			return -1, nil
		}
		return fd, os.NewSyscallError("pidfd_open", err)
	}
	return -1, nil
}

// pollStep is how often waiting looks whether it is interrupted, in milliseconds.
const pollStep = 100

// waitProcess waits for the end of a process.
func waitProcess(ctx context.Context, fd int) error {
	for fd >= 0 {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, pollStep)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, syscall.EINTR):
			return os.NewSyscallError("poll", err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	return nil
}
