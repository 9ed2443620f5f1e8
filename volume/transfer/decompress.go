package transfer

import (
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
)

// RegisterDecompressors makes the qcow2 reader use decompressors that are reused, and that give
// all that they are asked for at once: the reader begins a cluster anew for each part that it gets. Without
// this call it knows no zstd. Its table of methods is global and has no lock: call this once, from main, before the first image
// is opened.
func RegisterDecompressors() {
	qcow2.SetDecompressor(qcow2.CompressionTypeZlib, pooled(func(r io.Reader) (io.Reader, error) {
		return flate.NewReader(r), nil
	}, func(d io.Reader, r io.Reader) error {
		return d.(flate.Resetter).Reset(r, nil)
	}))
	qcow2.SetDecompressor(qcow2.CompressionTypeZstd, pooled(func(r io.Reader) (io.Reader, error) {
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	}, func(d io.Reader, r io.Reader) error {
		return d.(*zstd.Decoder).Reset(r)
	}))
}

// pooled returns a method whose decompressors are used again. Making one costs more than a cluster.
func pooled(make func(io.Reader) (io.Reader, error), reset func(d, r io.Reader) error) qcow2.Decompressor {
	pool := &sync.Pool{}
	return func(r io.Reader) (io.ReadCloser, error) {
		d, ok := pool.Get().(io.Reader)
		var err error
		if ok {
			err = reset(d, r)
		} else {
			d, err = make(r)
		}
		if err != nil {
			return nil, err
		}
		return &decompressor{d, pool}, nil
	}
}

// decompressor is a decompressor that goes back to its pool.
type decompressor struct {
	data io.Reader
	pool *sync.Pool
}

// Read fills p, unless the data ends before.
func (d *decompressor) Read(p []byte) (int, error) {
	n, err := io.ReadFull(d.data, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// Close gives the decompressor back. It must not be used any more.
func (d *decompressor) Close() error {
	d.pool.Put(d.data)
	return nil
}
