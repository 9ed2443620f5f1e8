package nbd

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lag is how long a change may wait to be read before it is asked whether its client is still there. It is well below the least time-out of the
// kernel's client, which is a second, and so long that a busy connection does not ask.
const lag = 250 * time.Millisecond

var errGone = errors.New("the client has closed the connection and gets no answers any more")

// present returns errGone if the client has closed the connection for both directions. It is asked after each wait for room, and before a change that
// may have lain here for longer than lag: the kernel's client gives
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
