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

func openPipe(ctx context.Context, f *os.File, format Format) (*Image, error) {
	p := &pipe{f: f}
	head := make([]byte, sniffLength)
	n, err := p.readFull(ctx, head)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if n == 0 {
		return nil, fmt.Errorf("read %s: image is empty", f.Name())
	}
	p.head = head[:n]
	format, err = recognise(p.head, format)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if format != Raw {
		return nil, fmt.Errorf("read %s: a %s image cannot be read from a pipe, save it to a file first: %w", f.Name(), format, ErrFormat)
	}
	return &Image{name: f.Name(), format: Raw, size: -1, stream: p, close: func() error { return nil }}, nil
}

// readFull fills b, or as much of it as there is before the end, then with io.EOF.
func (p *pipe) readFull(ctx context.Context, b []byte) (int, error) {
	n := copy(b, p.head)
	p.head = p.head[n:]
	for n < len(b) {
		if err := p.wait(ctx); err != nil {
			return n, err
		}
		m, err := p.f.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
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
