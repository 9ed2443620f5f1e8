package service

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// ErrNoSocket says that systemd listens on no socket for this process, or on none of the name that was asked for.
var ErrNoSocket = errors.New("no such socket was passed by systemd")

var errNotListening = errors.New("it takes no connections: a socket of systemd needs ListenStream= and Accept=no")

// Passed reports whether systemd listens on sockets for this process.
func Passed() bool {
	return os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) && os.Getenv("LISTEN_FDS") != ""
}

// Sockets are those on which systemd listens for this process. They go on listening when the process ends: clients that
// connect meanwhile wait for the next one.
type Sockets struct{ files []*os.File }

// TakeSockets takes over the sockets. It is called once in the life of a process: afterwards neither the environment
// nor programs that the process starts know of them.
func TakeSockets() Sockets { return Sockets{activation.Files(true)} }

// Len returns how many there are.
func (s Sockets) Len() int { return len(s.files) }

// Listen returns listeners on the sockets whose name (FileDescriptorName= of systemd.socket(5)) is name, on all of them if it is empty. A
// socket that is of no use is an error.
func (s Sockets) Listen(name string) ([]net.Listener, error) {
	var all []net.Listener
	for _, f := range s.files {
		if name != "" && f.Name() != name {
			continue
		}
		err := listens(f)
		var l net.Listener
		if err == nil {
			l, err = net.FileListener(f)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("socket %s of systemd: %w", f.Name(), err), closeAll(all))
		}
		all = append(all, l)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%q: %w", name, ErrNoSocket)
	}
	return all, nil
}

// listens makes sure that f is a socket on which connections can be accepted.
func listens(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var accepts int
	var get error
	if err := c.Control(func(fd uintptr) { accepts, get = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN) }); err != nil {
		return err
	}
	if get != nil {
		return os.NewSyscallError("getsockopt", get)
	}
	if accepts == 0 {
		return errNotListening
	}
	return nil
}

// Close closes the sockets, not the listeners on them.
func (s Sockets) Close() error {
	var errs []error
	for _, f := range slices.Backward(s.files) {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func closeAll(all []net.Listener) error {
	var errs []error
	for _, l := range all {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
