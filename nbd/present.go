package nbd

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

var errGone = errors.New("the client has closed the connection and gets no answers any more")

// present returns errGone if the client has closed the connection for both directions. It is asked after each wait for room: the kernel's client gives
// up a connection whose requests take too long, and sends them again on another. What it sent before lies unread here, and carried out
// late it would undo writes that came after. On TCP the end shows only when an answer was refused, or what came before was read, so there only part of them is caught.
func (c *conn) present() error {
	s, ok := c.nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR need not be asked for
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	if err == nil && gone {
		err = errGone
	}
	return err
}
