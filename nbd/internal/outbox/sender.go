package outbox

import (
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender writes lists of buffers to a connection. One goroutine at a time uses it.
type sender struct {
	conn  net.Conn
	raw   syscall.RawConn // nil if the connection has no descriptor
	step  func(fd uintptr) bool
	iov   []unix.Iovec
	rest  [][]byte // what is still to be sent
	block bool
	err   error
}

func newSender(conn net.Conn) *sender {
	s := &sender{conn: conn}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw, s.step, s.iov = raw, s.writev, make([]unix.Iovec, 0, vecLen)
		}
	}
	return s
}

// send sends rest. With block it returns when all is sent; otherwise when the kernel takes
// no more, and rest says what is left.
func (s *sender) send(block bool) error {
	switch {
	case len(s.rest) == 0:
		return nil
	case s.raw != nil:
		s.block, s.err = block, nil
		if err := s.raw.Write(s.step); err != nil {
			return err
		}
		return s.err
	case block:
		bufs := net.Buffers(s.rest)
		_, err := bufs.WriteTo(s.conn)
		s.rest = nil
		return err
	}
	return nil
}

// writev sends what the kernel takes. It returns false to be called again when there is room.
func (s *sender) writev(fd uintptr) bool {
	for len(s.rest) > 0 {
		s.iov = s.iov[:0]
		for _, b := range s.rest {
			v := unix.Iovec{Base: &b[0]}
			v.SetLen(len(b))
			s.iov = append(s.iov, v)
		}
		n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&s.iov[0])), uintptr(len(s.iov)))
		switch errno {
		case 0:
			s.consume(int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return !s.block
		default:
			s.err = errno
			return true
		}
	}
	return true
}

func (s *sender) consume(n int) {
	for n > 0 {
		if n < len(s.rest[0]) {
			s.rest[0] = s.rest[0][n:]
			return
		}
		n -= len(s.rest[0])
		s.rest = s.rest[1:]
	}
}
