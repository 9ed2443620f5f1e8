package transfer

import (
	"bytes"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// packer compresses clusters.
type packer struct {
	// append appends what it makes of a cluster to dst. It is nil if nothing is compressed, and may be called concurrently.
	append func(dst, cluster []byte) ([]byte, error)
	close  func()
}

// newPacker returns a packer whose output qemu reads, for as many callers at once.
func newPacker(c Compression, callers int) (packer, error) {
	switch c {
	case Zlib:
		pool := &sync.Pool{}
		return packer{func(dst, cluster []byte) ([]byte, error) { return deflate(pool, dst, cluster) }, func() {}}, nil
	case Zstd:
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(callers), zstd.WithEncoderCRC(false))
		if err != nil {
			return packer{}, err
		}
		return packer{
			func(dst, cluster []byte) ([]byte, error) { return e.EncodeAll(cluster, dst), nil },
			func() { _ = e.Close() }, // nothing is written
		}, nil
	}
	return packer{close: func() {}}, nil
}

// deflateWindow is the largest that qemu unpacks.
const deflateWindow = 4 << 10

func deflate(pool *sync.Pool, dst, cluster []byte) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	w, ok := pool.Get().(*flate.Writer)
	if ok {
		w.Reset(out)
	} else {
		var err error
		if w, err = flate.NewWriterWindow(out, deflateWindow); err != nil {
			return nil, err
		}
	}
	defer pool.Put(w)
	if _, err := w.Write(cluster); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
