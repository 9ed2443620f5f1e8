package fuse

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Mounted reports whether the topmost mount at dir, an absolute path, is one of skerry.
func Mounted(dir string) (bool, error) {
	t, err := mountType(dir)
	return t == "fuse."+kind, err
}

// mountType returns the type of the topmost file system that is mounted at dir; empty: none is.
func mountType(dir string) (string, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return m.Mountpoint != dir, false })
	if err != nil || len(mounts) == 0 {
		return "", err
	}
	return mounts[len(mounts)-1].FSType, nil
}

// Unmount unmounts dir, an absolute path, if no program uses it: else it fails with an error that matches [syscall.EBUSY]. What a dead process
// left is removed whoever uses it.
func Unmount(dir string) error {
	flags := 0
	if dead(dir) {
		flags = unix.MNT_DETACH
	}
	return unmount(dir, flags)
}

// dead reports whether the process of a mount is gone. The kernel answers stat by itself for a while, but not this.
func dead(dir string) bool {
	var st unix.Statfs_t
	return errors.Is(unix.Statfs(dir, &st), syscall.ENOTCONN)
}

// clear removes a mount that a dead process left at dir.
func clear(dir string) error {
	ours, err := Mounted(dir)
	if err != nil || !ours {
		return err
	}
	if !dead(dir) {
		return fmt.Errorf("%w: skerry is mounted there already", syscall.EBUSY)
	}
	return unmount(dir, unix.MNT_DETACH)
}

// unmount unmounts dir; flags are those of umount2(2), as far as the user may use them.
func unmount(dir string, flags int) error {
	if os.Geteuid() == 0 {
		return os.NewSyscallError("umount2", unix.Unmount(dir, flags|unix.UMOUNT_NOFOLLOW))
	}
	args := []string{"-u"}
	if flags&unix.MNT_DETACH != 0 {
		args = append(args, "-z")
	}
	out, err := exec.Command("fusermount3", append(args, "--", dir)...).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "busy") {
			err = syscall.EBUSY
		}
		return fmt.Errorf("fusermount3: %s: %w", strings.TrimSpace(string(out)), err)
	}
	return nil
}
