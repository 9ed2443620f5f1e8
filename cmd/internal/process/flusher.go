package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// errForgotten says that the kernel took the flag and does not have it.
var errForgotten = errors.New("PR_SET_IO_FLUSHER has no effect")

// becomeFlusher sets PR_SET_IO_FLUSHER on all threads. If that succeeds it has begun the program anew, or an earlier call had.
func becomeFlusher() error {
	// What is set on one thread must be what execve keeps.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	set, err := isFlusher()
	if err != nil || set {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("PR_SET_IO_FLUSHER: %w", err)
	}
	// A program that is begun without the flag would begin itself for ever.
	if set, err := isFlusher(); err != nil || !set {
		return errors.Join(errForgotten, err)
	}
	program, err := os.Executable()
	if err == nil {
		err = syscall.Exec(program, os.Args, os.Environ())
	}
	return fmt.Errorf("begin anew on all threads: %w", err)
}

// isFlusher reports whether this thread has the flag. Without CAP_SYS_RESOURCE it is not told.
func isFlusher() (bool, error) {
	n, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0)
	if err != nil {
		return false, fmt.Errorf("PR_GET_IO_FLUSHER: %w", err)
	}
	return n == 1, nil
}
