package kernel

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The errors of this package. They come wrapped.
var (
	// ErrNoModule says that the kernel has no nbd, or has not loaded it.
	ErrNoModule = errors.New("the kernel's nbd module is not loaded: run modprobe nbd")
	// ErrConfig says that the kernel would not take, or would misunderstand, what was asked for.
	ErrConfig = errors.New("not possible with a kernel nbd device")
	// ErrInUse says that the device is attached, mounted or otherwise taken already.
	ErrInUse = errors.New("device is in use")
	// ErrNotAttached says that nothing is attached to the device.
	ErrNotAttached = errors.New("nothing is attached to the device")
	// ErrPermission says that the process may not manage devices.
	ErrPermission = errors.New("managing nbd devices needs root (CAP_SYS_ADMIN)")
	// ErrAnswer says that the kernel's answer makes no sense.
	ErrAnswer = errors.New("unexpected answer of the kernel's nbd")
)

// classify adds the class of an error that the kernel answered.
func classify(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: %w", ErrPermission, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return err
}
