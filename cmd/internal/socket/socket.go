// Package socket makes Unix sockets that only their owner can use, in place of what a dead process left.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxPath is the longest path of a Unix socket in bytes, as the kernel has it.
const MaxPath = 107

// ErrInUse says that a living process listens on a socket.
var ErrInUse = errors.New("another process listens there")

// ErrNoSocket says that something else has the path of a socket.
var ErrNoSocket = errors.New("a file that is no socket is in the way")

// probeTime bounds the wait for a process that may listen on a socket.
const probeTime = 2 * time.Second

// Listen listens on a new Unix socket with mode 0600. A socket at path on which nobody listens is replaced; one on which
// somebody does is [ErrInUse], and a file of another kind is an error. Closing the listener removes the
// socket.
func Listen(ctx context.Context, path string) (*net.UnixListener, error) {
	if len(path) > MaxPath {
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, a Unix socket's has at most %d", path, len(path), MaxPath)
	}
	unlock, err := lockDirectory(ctx, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer unlock()
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	c := net.ListenConfig{Control: ownerOnly}
	l, err := c.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err // names the operation and the path
	}
	return l.(*net.UnixListener), nil
}

// Share lets the members of a group connect to a socket that [Listen] made.
func Share(l *net.UnixListener, gid int) error {
	path := l.Addr().String()
	if err := os.Lchown(path, -1, gid); err != nil {
		return fmt.Errorf("share the socket: %w", err)
	}
	// Not before: until then the group was another one.
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("share the socket: %w", err)
	}
	return nil
}

// lockDirectory keeps other processes from replacing sockets in a directory: what was found stale and is removed must not be
// the socket that another one has just made in its place. A lock that others hold for long, for reasons of their own, is done without.
func lockDirectory(ctx context.Context, dir string) (unlock func(), err error) {
	const pause = 5 * time.Millisecond
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	unlock = func() { _ = d.Close() } // ends the lock, whatever it returns
	ctx, cancel := context.WithTimeout(ctx, 2*probeTime)
	defer cancel()
	for {
		err = unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			unlock()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		if err == nil {
			return unlock, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return unlock, nil
		}
	}
}

// ownerOnly sets the mode of the socket before it has a name: bind gives the file the mode of the socket.
func ownerOnly(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return err
}

func removeStale(ctx context.Context, path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return ErrNoSocket
	}
	d := net.Dialer{Timeout: probeTime}
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // it was only a question
		return ErrInUse
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("see who listens there: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
