package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
)

// Target is what an import writes: a [skerry/volume.Device] that reads as zeros.
type Target interface {
	Size() int64
	WriteAt(ctx context.Context, p []byte, off int64) error
	Flush(ctx context.Context) error
}

// Import copies an image to the beginning of dev, and flushes it. Whatever dev has beyond the image stays as it
// is. When it returns an error, dev holds an unknown part of the image. Nothing of the copy runs any more when it returns.
func Import(ctx context.Context, img *Image, dev Target, o Options) (Progress, error) {
	if need := img.VolumeSize(); need > dev.Size() {
		return Progress{}, fmt.Errorf("import %s: %d bytes do not fit a volume of %d", img.name, need, dev.Size())
	}
	p := newProgress(o, img.size)
	flushed := newFlushing(ctx, dev)
	var err error
	if img.stream != nil {
		err = importStream(ctx, img, flushed, o, p)
	} else {
		err = importRandom(ctx, img.data, img.size, flushed, o, p)
	}
	if ferr := flushed.end(err != nil); err == nil {
		err = ferr
	}
	for _, verify := range img.verify {
		if err == nil {
			err = verify()
		}
	}
	if err == nil {
		if err = dev.Flush(ctx); err != nil {
			err = fmt.Errorf("flush: %w", err)
		}
	}
	if err != nil {
		return p.final(), fmt.Errorf("import %s: %w", img.name, err)
	}
	return p.final(), nil
}

// flushing is a target that is flushed while it is written, every flushEvery bytes, so that the storage has work before the last
// byte is there and little to do after it.
type flushing struct {
	Target
	ctx    context.Context // of the flushes, which belong to no single write
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	since   int64 // bytes written since the last flush began
	running bool
	err     error // of a flush
}

const flushEvery = 64 << 20

func newFlushing(ctx context.Context, dev Target) *flushing {
	f := &flushing{Target: dev}
	f.ctx, f.cancel = context.WithCancel(ctx)
	return f
}

// WriteAt implements Target. It fails once a flush has failed.
func (f *flushing) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := f.Target.WriteAt(ctx, p, off); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since += int64(len(p)); f.since >= flushEvery && !f.running {
		f.since, f.running = 0, true
		f.wg.Go(f.flush)
	}
	return f.err
}

func (f *flushing) flush() {
	err := f.Flush(f.ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = false
	if err != nil && f.err == nil {
		f.err = fmt.Errorf("flush: %w", err)
	}
}

// end waits for the flush that runs, and returns the error of one that failed. Nothing is written any more. If
// the copy has failed, the flush need not succeed.
func (f *flushing) end(failed bool) error {
	if failed {
		f.cancel()
	}
	f.wg.Wait()
	f.cancel()
	return f.err
}

func importRandom(ctx context.Context, src source, size int64, dev Target, o Options, p *progress) error {
	skip := func(_ context.Context, off int64) (int64, error) {
		n, zero, err := src.extent(off, size-off)
		if err != nil {
			return 0, fmt.Errorf("extent at %d: %w", off, err)
		}
		if !zero {
			n = 0
		}
		return off + n, nil
	}
	return inSegments(ctx, &cursor{size: size, skip: skip, p: p}, o.workers(), func(ctx context.Context, off int64, buf []byte) error {
		for at := int64(0); at < int64(len(buf)); {
			n, zero, err := src.extent(off+at, int64(len(buf))-at)
			if err != nil {
				return fmt.Errorf("extent at %d: %w", off+at, err)
			}
			if !zero {
				if err := readFull(src, buf[at:at+n], off+at); err != nil {
					return err
				}
				// A run of data need not begin or end with a block. Blocks are counted from its beginning:
				// that costs a little sparseness, never correctness.
				if err := writePadded(ctx, buf[at:at+n], off+at, size, dev, p); err != nil {
					return err
				}
			}
			at += n
		}
		return nil
	})
}

// writePadded writes what was read at off of an image of size bytes; the image's last part is filled up
// with zeros to a whole sector.
func writePadded(ctx context.Context, b []byte, off, size int64, dev Target, p *progress) error {
	if tail := size % chunk.SectorSize; tail != 0 && off+int64(len(b)) == size {
		b = append(b[:len(b):len(b)], make([]byte, chunk.SectorSize-tail)...)
	}
	return writeData(ctx, b, off, dev.WriteAt, &p.copied)
}

// readFull fills p from off. A reader that gives a part is asked again for the rest, one that gives nothing has ended too early.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := r.ReadAt(p, off)
		if n < 0 || n > len(p) {
			return fmt.Errorf("read %d bytes at %d: got %d: %w", len(p), off, n, ErrDamaged)
		}
		if n == len(p) && (err == nil || errors.Is(err, io.EOF)) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
		}
		if n == 0 {
			return fmt.Errorf("read %d bytes at %d: %w", len(p), off, ErrShort)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// importStream reads in turn and writes in parallel.
func importStream(ctx context.Context, img *Image, dev Target, o Options, p *progress) (err error) {
	g, ctx := errgroup.WithContext(ctx)
	r, err := img.stream(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var mu sync.Mutex
	var off int64
	var ended bool
	next := func(buf []byte) (int64, int, error) {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return off, 0, nil
		}
		n, err := readMost(r, buf)
		at := off
		off += int64(n)
		ended = err != nil
		if err != nil && err != io.EOF { // which is not wrapped
			return at, 0, fmt.Errorf("read at %d: %w", off, err)
		}
		switch {
		case off > dev.Size():
			ended = true
			return at, 0, fmt.Errorf("more than the %d bytes of the volume: %w", dev.Size(), ErrTooLarge)
		case img.size >= 0 && (off > img.size || ended && off < img.size):
			ended = true
			return at, 0, ErrChanged
		}
		return at, n, nil
	}
	for range o.workers() {
		g.Go(func() error {
			buf := make([]byte, segmentSize)
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				at, n, err := next(buf)
				if err != nil || n == 0 {
					return err
				}
				if err := writePadded(ctx, buf[:n], at, at+int64(n), dev, p); err != nil {
					return err
				}
				p.done(int64(n))
			}
		})
	}
	return g.Wait()
}
