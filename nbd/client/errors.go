package client

import (
	"errors"
	"fmt"

	"skerry/nbd/internal/proto"
)

// The errors of this package. They come wrapped.
var (
	// ErrProtocol says that the server broke a rule of the protocol.
	ErrProtocol = errors.New("nbd protocol violated")
	// ErrClosed says that the client was closed, by itself or by the server.
	ErrClosed = errors.New("nbd connection closed")
)

// Errno is an error value in a reply.
type Errno uint32

// The error values that proto.md defines.
const (
	EPERM     = Errno(proto.EPERM)
	EIO       = Errno(proto.EIO)
	ENOMEM    = Errno(proto.ENOMEM)
	EINVAL    = Errno(proto.EINVAL)
	ENOSPC    = Errno(proto.ENOSPC)
	EOVERFLOW = Errno(proto.EOVERFLOW)
	ENOTSUP   = Errno(proto.ENOTSUP)
	ESHUTDOWN = Errno(proto.ESHUTDOWN)
)

// Error returns the value's name.
func (e Errno) Error() string {
	switch e {
	case EPERM:
		return "EPERM"
	case EIO:
		return "EIO"
	case ENOMEM:
		return "ENOMEM"
	case EINVAL:
		return "EINVAL"
	case ENOSPC:
		return "ENOSPC"
	case EOVERFLOW:
		return "EOVERFLOW"
	case ENOTSUP:
		return "ENOTSUP"
	case ESHUTDOWN:
		return "ESHUTDOWN"
	}
	return fmt.Sprintf("error %d", uint32(e))
}

// ReplyError is the error of one request. It matches its [Errno].
type ReplyError struct {
	Errno   Errno
	Message string // from the server; may be empty
}

// Error returns both parts.
func (e *ReplyError) Error() string {
	if e.Message == "" {
		return "server answers " + e.Errno.Error()
	}
	return fmt.Sprintf("server answers %v: %s", e.Errno, e.Message)
}

// Unwrap returns the error value.
func (e *ReplyError) Unwrap() error { return e.Errno }

// OptionError is an error reply to an option.
type OptionError struct {
	Option, Type uint32
	Message      string // from the server; may be empty
}

// Error returns all parts.
func (e *OptionError) Error() string {
	return fmt.Sprintf("option %d: server answers error %d: %s", e.Option, e.Type&^proto.RepFlagError, e.Message)
}

func violated(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}
