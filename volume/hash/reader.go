package hash

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
)

// OfReader returns the hash of what r has until its end, filled up with zeros to a multiple of align bytes, and the size of that. Progress
// is told a total of -1.
func OfReader(ctx context.Context, r io.Reader, align int64, o Options) (Sum, int64, error) {
	t := newTree(noGrain, nil)
	hasher := blake3.NewDeriveKey(leafContext)
	buf := make([]byte, pieceSize) // divides a leaf
	size, ended := int64(0), false
	for !ended {
		if err := ctx.Err(); err != nil {
			return Sum{}, 0, err
		}
		n, err := io.ReadFull(r, buf)
		ended = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return Sum{}, 0, fmt.Errorf("read at %d: %w", size+int64(n), err)
		}
		_, _ = hasher.Write(buf[:n]) // never fails
		size += int64(n)
		if ended {
			rest := (align - size%align) % align
			_, _ = hasher.Write(make([]byte, rest))
			size += rest
		}
		// The last leaf may be full, and then nothing follows it.
		if inLeaf := size % LeafSize; inLeaf == 0 && n > 0 || inLeaf != 0 && ended || size == 0 {
			var h [Size]byte
			hasher.Sum(h[:0])
			hasher.Reset()
			t.add(h, 0)
		}
		if o.Progress != nil {
			o.Progress(size, -1)
		}
	}
	return t.sum(size), size, nil
}
