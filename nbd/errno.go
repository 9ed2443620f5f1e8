package nbd

import (
	"errors"
	"syscall"

	"skerry/drivers"
	"skerry/nbd/internal/proto"
	"skerry/volume"
)

// The error values that an Options.Errno may return, as proto.md defines them.
const (
	EPERM     = proto.EPERM
	EIO       = proto.EIO
	ENOMEM    = proto.ENOMEM
	EINVAL    = proto.EINVAL
	ENOSPC    = proto.ENOSPC
	EOVERFLOW = proto.EOVERFLOW
	ENOTSUP   = proto.ENOTSUP
	ESHUTDOWN = proto.ESHUTDOWN
)

// errno returns the error value for the outcome of a request of a kind.
func (s *Server) errno(kind volume.Kind, err error) uint32 {
	if s.opts.Errno != nil {
		if n, ok := s.opts.Errno(err); ok && n != 0 {
			return n
		}
	}
	switch {
	case errors.Is(err, volume.ErrOutOfRange):
		return beyondEnd(kind)
	case errors.Is(err, volume.ErrReadOnly), errors.Is(err, drivers.ErrReadOnly):
		return EPERM
	case errors.Is(err, drivers.ErrNoSpace), errors.Is(err, syscall.ENOSPC),
		errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return ENOSPC
	case errors.Is(err, volume.ErrInvalid), errors.Is(err, drivers.ErrInvalid):
		return EINVAL
	case errors.Is(err, volume.ErrClosed), errors.Is(err, drivers.ErrClosed):
		return ESHUTDOWN
	}
	return EIO
}

// beyondEnd returns the error value for a request that crosses the end of the device: proto.md wants
// ENOSPC for what writes, EINVAL for the rest, trim included.
func beyondEnd(kind volume.Kind) uint32 {
	if kind == volume.Write || kind == volume.WriteZeroes {
		return ENOSPC
	}
	return EINVAL
}
