package transfer

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// unpacker decompresses clusters. Making a decompressor costs more than a cluster, so they are used again.
type unpacker struct {
	pool  *sync.Pool
	open  func(io.Reader) (io.Reader, error)
	reset func(d, r io.Reader) error
}

// newUnpacker returns the unpacker of a compression type of qcow2 images.
func newUnpacker(compression byte) unpacker {
	u := unpacker{pool: &sync.Pool{}}
	if compression == qcow2Zstd {
		u.open = func(r io.Reader) (io.Reader, error) {
			return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20), zstd.WithDecoderLowmem(true))
		}
		u.reset = func(d, r io.Reader) error { return d.(*zstd.Decoder).Reset(r) }
	} else {
		u.open = func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil }
		u.reset = func(d, r io.Reader) error { return d.(flate.Resetter).Reset(r, nil) }
	}
	return u
}

// cluster fills p from the beginning of what packed decompresses to. What follows in packed does not matter.
func (u unpacker) cluster(p, packed []byte) error {
	r := bytes.NewReader(packed)
	d, ok := u.pool.Get().(io.Reader)
	var err error
	if ok {
		err = u.reset(d, r)
	} else {
		d, err = u.open(r)
	}
	if err != nil {
		return err
	}
	defer u.pool.Put(d)
	if _, err = io.ReadFull(d, p); errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
