package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"skerry/volume"
)

// ExportStream writes the content of dev as an image to w from front to back, zeros included. If w is a pipe, ctx ends also a write
// that nobody takes. A qcow2 image of this kind cannot be compressed.
func ExportStream(ctx context.Context, dev Origin, w io.Writer, o ExportOptions) (Progress, error) {
	if err := o.Check(); err != nil {
		return Progress{}, err
	}
	write := func(w io.Writer) (Progress, error) { return exportStream(ctx, dev, w, o) }
	if f, ok := w.(*os.File); ok {
		return toStream(ctx, f, write)
	}
	return write(w)
}

// toStream has something written to a file from where it stands. If it is a pipe, ctx ends also a write that nobody takes.
func toStream(ctx context.Context, f *os.File, write func(io.Writer) (Progress, error)) (Progress, error) {
	s, err := newSink(ctx, f)
	if err != nil {
		return Progress{}, err
	}
	p, err := write(s)
	return p, errors.Join(err, s.Close())
}

func exportStream(ctx context.Context, dev Origin, w io.Writer, o ExportOptions) (Progress, error) {
	if o.Format == Qcow2 {
		return streamQcow2(ctx, dev, w, o)
	}
	return streamRaw(ctx, dev, w, o.Options)
}

func streamRaw(ctx context.Context, dev Origin, w io.Writer, o Options) (Progress, error) {
	p := newProgress(o, dev.Size())
	buf := make([]byte, min(segmentSize, dev.Size()))
	for off := int64(0); off < dev.Size(); {
		if err := ctx.Err(); err != nil {
			return p.final(), err
		}
		b := buf[:min(segmentSize, dev.Size()-off)]
		if err := readZeros(ctx, dev, b, off); err != nil {
			return p.final(), err
		}
		if err := writeAll(w, b); err != nil {
			return p.final(), fmt.Errorf("write at %d: %w", off, err)
		}
		p.copied.Add(int64(len(b)))
		p.done(int64(len(b)))
		off += int64(len(b))
	}
	return p.final(), nil
}

// readZeros fills b with what dev has from off on, zeros included.
func readZeros(ctx context.Context, dev Origin, b []byte, off int64) error {
	err := eachExtent(ctx, dev, off, int64(len(b)), func(e volume.Extent) error {
		part := b[e.Offset-off:][:e.Length]
		if e.Flags&volume.Zero != 0 {
			clear(part)
			return nil
		}
		return dev.ReadAt(ctx, part, e.Offset)
	})
	if err != nil {
		return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
	}
	return nil
}

func writeAll(w io.Writer, b []byte) error {
	n, err := w.Write(b)
	if err == nil && n != len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// sink is a file that is written from front to back. Once its context is done, writes to a pipe that nobody reads end.
type sink struct {
	*os.File
	ctx   context.Context
	own   bool // the file is closed with the sink
	watch func() bool
}

// openSink opens a pipe, or whatever else is no regular file. It waits until a pipe has a reader.
func openSink(ctx context.Context, path string) (*sink, error) {
	const again = 50 * time.Millisecond
	for {
		f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			return watched(ctx, f, true), nil
		}
		if !errors.Is(err, unix.ENXIO) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(again):
		}
	}
}

// newSink returns a sink that writes to what f does. A pipe is opened once more for that: the file description of standard output
// belongs to other processes too, which a change to non-blocking mode would surprise.
func newSink(ctx context.Context, f *os.File) (*sink, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode()&os.ModeNamedPipe == 0 {
		return watched(ctx, f, false), nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var again *os.File
	var failed error
	err = raw.Control(func(fd uintptr) {
		again, failed = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY|unix.O_NONBLOCK, 0)
	})
	if err = errors.Join(err, failed); err != nil {
		return watched(ctx, f, false), nil // it works, only not as well
	}
	return watched(ctx, again, true), nil
}

func watched(ctx context.Context, f *os.File, own bool) *sink {
	s := &sink{File: f, ctx: ctx, own: own, watch: func() bool { return true }}
	if own {
		s.watch = context.AfterFunc(ctx, func() {
			// Files that are no pipes have no deadlines, and need none.
			_ = f.SetWriteDeadline(time.Unix(1, 0))
		})
	}
	return s
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.File.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = s.ctx.Err()
	}
	if errors.Is(err, unix.EPIPE) {
		err = fmt.Errorf("%w: %w", ErrReader, err)
	}
	return n, imageSpace(err, s.Name())
}

// Close ends the use of the sink.
func (s *sink) Close() error {
	s.watch()
	if s.own {
		return s.File.Close()
	}
	return nil
}
