package transfer

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// packing is how an image's file is compressed as a whole; empty: it is not.
type packing string

const (
	packedGzip packing = "gzip"
	packedZstd packing = "zstd"
	packedXz   packing = "xz"
)

const (
	// packedHead is more than the largest piece of a compressed stream, a block of zstd, with all that comes before it.
	packedHead = 256 << 10
	// zstdMaxWindow is what the zstd program allows too, unless it is told to take more.
	zstdMaxWindow = 128 << 20
	// maxUnpacked bounds what a compressed image may become if nobody says how large it is to be.
	maxUnpacked = 16 << 40
	// spoolSlack is what a qcow2 file may have beside twice its disk: tables, an internal snapshot.
	spoolSlack = 64 << 20
)

// unpack returns a reader of what r has, unpacked. What it allocates does not depend on what r says.
func unpack(p packing, r io.Reader) (io.ReadCloser, error) {
	switch p {
	case packedGzip:
		z, err := gzip.NewReader(bufio.NewReaderSize(r, 64<<10))
		if err != nil {
			return nil, badPacking(p, err)
		}
		return &unpacked{p, z, func() error { _ = z.Close(); return nil }}, nil // it says again what a read has said
	case packedZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdMaxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, badPacking(p, err)
		}
		return &unpacked{p, z, func() error { z.Close(); return nil }}, nil
	}
	return &unpacked{p, newXz(r), func() error { return nil }}, nil
}

// unpacked tells errors of compressed data from its end.
type unpacked struct {
	packing packing
	io.Reader
	close func() error
}

// Read implements io.Reader.
func (u *unpacked) Read(b []byte) (int, error) {
	n, err := u.Reader.Read(b)
	if err != nil && err != io.EOF { // io.EOF itself is the end; wrapped it is not
		err = badPacking(u.packing, err)
	}
	return n, err
}

// Close implements io.Closer.
func (u *unpacked) Close() error { return u.close() }

func badPacking(p packing, err error) error {
	var failed *os.PathError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrFormat), errors.As(err, &failed):
		return fmt.Errorf("unpack %s: %w", p, err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("unpack %s: a window of more than %d bytes; unpack it with zstd -dc --long=31: %w", p, zstdMaxWindow, ErrFormat)
	}
	return fmt.Errorf("unpack %s: %w: %w", p, noEOF(err), ErrDamaged)
}

// opener begins to read what is packed.
type opener func(context.Context) (io.ReadCloser, error)

// unpack opens the image that whole unpacks; first unpacks its beginning. If again is set, whole can be called several times.
func (o opening) unpack(ctx context.Context, p packing, first, whole opener, again bool) (*Image, error) {
	head, err := unpackedHead(ctx, first)
	if err != nil {
		return nil, err
	}
	if len(head) == 0 {
		return nil, fmt.Errorf("%s: %w", p, ErrEmpty)
	}
	format, twice, err := recognise(head, o.Format)
	switch {
	case err != nil:
		return nil, fmt.Errorf("in %s: %w", p, err)
	case twice != "":
		return nil, fmt.Errorf("compressed with %s and with %s; unpack it first: %w", p, twice, ErrFormat)
	}
	img := &Image{name: o.name, format: Raw, size: -1, stream: whole}
	switch {
	case format == Qcow2:
		img, err = o.spool(ctx, head, whole)
	case again && o.Size == 0:
		img.size, err = o.measure(ctx, whole)
	}
	if err != nil {
		return nil, err
	}
	img.packing = p
	return img, nil
}

// unpackedHead returns what recognise wants to see of what first unpacks.
func unpackedHead(ctx context.Context, first opener) ([]byte, error) {
	r, err := first(ctx)
	if err != nil {
		return nil, err
	}
	head := make([]byte, sniffLength)
	n, err := readMost(r, head)
	if errors.Is(err, io.EOF) && !errors.Is(err, ErrDamaged) {
		err = nil
	}
	return head[:n], errors.Join(err, r.Close())
}

// measure returns the size of a compressed raw image.
func (o opening) measure(ctx context.Context, whole opener) (int64, error) {
	return o.drain(ctx, whole, maxUnpacked, func([]byte, int64) error { return nil })
}

// drain gives all that whole has to take, piece by piece, and returns how much it was. More than limit bytes are an error.
func (o opening) drain(ctx context.Context, whole opener, limit int64, take func(b []byte, off int64) error) (off int64, err error) {
	r, err := whole(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	p := newProgress(Options{Progress: o.Progress}, -1)
	b := make([]byte, segmentSize)
	for ended := false; !ended; {
		if err := ctx.Err(); err != nil {
			return off, err
		}
		n, err := readMost(r, b)
		if ended = err == io.EOF; err != nil && !ended {
			return off, err
		}
		if int64(n) > limit-off {
			return off, fmt.Errorf("unpacks to more than %d bytes: %w", limit, ErrFormat)
		}
		if err := take(b[:n], off); err != nil {
			return off, err
		}
		off += int64(n)
		p.done(int64(n))
	}
	return off, nil
}

// spool opens a qcow2 image that comes from front to back: it is written to a temporary file first, which has no name any more when
// this returns.
func (o opening) spool(ctx context.Context, head []byte, whole opener) (*Image, error) {
	if len(head) < qcow2HeaderV2 {
		return nil, fmt.Errorf("qcow2 header: too short: %w", ErrDamaged)
	}
	limit := int64(maxUnpacked)
	if size := binary.BigEndian.Uint64(head[24:]); size < math.MaxInt64/4 {
		limit = min(limit, 2*int64(size)+spoolSlack)
	}
	f, err := os.CreateTemp("", "skerry-*.qcow2")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	img, err := o.spoolTo(ctx, f, whole, limit)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	img.closers = append(img.closers, f)
	return img, nil
}

func (o opening) spoolTo(ctx context.Context, f *os.File, whole opener, limit int64) (*Image, error) {
	var copied atomic.Int64
	size, err := o.drain(ctx, whole, limit, func(b []byte, off int64) error {
		return writeData(ctx, b, off, func(_ context.Context, p []byte, off int64) error {
			_, err := f.WriteAt(p, off)
			return imageSpace(err, "the directory for temporary files (TMPDIR)")
		}, &copied)
	})
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return nil, err
	}
	return o.qcow2(ctx, f, size)
}
