package process

import (
	"context"
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
func becomeFlusher(ctx context.Context, signals *Signals) error {
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
	return fmt.Errorf("begin anew on all threads: %w", beginAnew(ctx, signals))
}

// beginAnew begins the program anew, with this thread's attributes, unless a signal has come: the new program would know nothing of that.
func beginAnew(ctx context.Context, signals *Signals) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	signals.Stop() // until the new program has handlers a signal ends it
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err = syscall.Exec(program, os.Args, os.Environ())
	signals.start()
	return err
}

// isFlusher reports whether this thread has the flag. Without CAP_SYS_RESOURCE it is not told.
func isFlusher() (bool, error) {
	n, err := unix.PrctlRetInt(unix.PR_GET_IO_FLUSHER, 0, 0, 0, 0)
	if err != nil {
		return false, fmt.Errorf("PR_GET_IO_FLUSHER: %w", err)
	}
	return n == 1, nil
}
