package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// pipe is an image that can only be read from front to back. It is not safe for concurrent use.
type pipe struct {
	f    *os.File
	head []byte // what was read to recognise the format
}

// fill makes the head n bytes long, or as long as the image is.
func (p *pipe) fill(ctx context.Context, n int) error {
	b := make([]byte, n)
	n, err := readMost(&pipeReader{ctx: ctx, p: p, head: p.head}, b)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	p.head = b[:n]
	return nil
}

// reader returns a reader of the whole image, for as long as ctx is not done. It can be called
// once after the head was filled.
func (p *pipe) reader(ctx context.Context) io.Reader {
	return &pipeReader{ctx: ctx, p: p, head: p.head}
}

// pipeReader reads a pipe on behalf of one call, whose context it keeps, since an io.Reader cannot be given one.
type pipeReader struct {
	ctx  context.Context
	p    *pipe
	head []byte // what is still to be given of it
}

// Read implements io.Reader.
func (r *pipeReader) Read(b []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(b, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	if err := r.p.wait(r.ctx); err != nil {
		return 0, err
	}
	return r.p.f.Read(b)
}

// reader ends reads once a context is done, on behalf of one call.
type reader struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}

// readMost fills b, unless an error comes before, such as io.EOF at the end. Other than io.ReadFull it keeps the
// end of the data apart from the error of a reader whose data ends too early.
func readMost(r io.Reader, b []byte) (n int, err error) {
	for empty := 0; n < len(b) && err == nil; {
		var m int
		m, err = r.Read(b[n:])
		n += m
		if m > 0 {
			empty = 0
		} else if empty++; empty > 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	if n == len(b) && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// wait returns when a read will not block. Standard input is rarely in non-blocking mode, and changing that
// would change it for all processes that share it; a read of it cannot be interrupted.
func (p *pipe) wait(ctx context.Context) error {
	const milliseconds = 100 // until the context is looked at again
	fds := []unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLIN}}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Poll(fds, milliseconds)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}
