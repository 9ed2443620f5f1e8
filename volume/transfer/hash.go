package transfer

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/volume"
	"skerry/volume/hash"
)

// Hash returns the content hash that a volume has that the image is imported to, and the size of that: the image is filled up with zeros to a
// whole sector. It fails with ErrChanged if the image is changed meanwhile.
func Hash(ctx context.Context, img *Image, o hash.Options) (hash.Sum, int64, error) {
	sum, size, err := hashImage(ctx, img, o)
	for _, verify := range img.verify {
		if err == nil {
			err = verify()
		}
	}
	if err != nil {
		return sum, size, fmt.Errorf("hash %s: %w", img.name, err)
	}
	return sum, size, nil
}

func hashImage(ctx context.Context, img *Image, o hash.Options) (hash.Sum, int64, error) {
	if img.stream == nil {
		sum, err := hash.Of(ctx, imageContent{img}, o)
		return sum, img.VolumeSize(), err
	}
	r, err := img.stream(ctx)
	if err != nil {
		return hash.Sum{}, 0, err
	}
	sum, size, err := hash.OfReader(ctx, r, chunk.SectorSize, o)
	if err == nil && img.size >= 0 && size != img.VolumeSize() {
		err = ErrChanged
	}
	return sum, size, errors.Join(err, r.Close())
}

// imageContent is what a volume has that an image is imported to.
type imageContent struct{ img *Image }

func (c imageContent) Size() int64 { return c.img.VolumeSize() }

func (c imageContent) ReadAt(ctx context.Context, p []byte, off int64) error {
	n := max(0, min(int64(len(p)), c.img.size-off))
	clear(p[n:])
	if err := ctx.Err(); err != nil {
		return err
	}
	return readFull(c.img.data, p[:n], off)
}

// Extents describes the segments that the range touches, and what fills up the last sector with the data before it.
func (c imageContent) Extents(_ context.Context, off, n int64, fn func(volume.Extent) bool) error {
	for end := off + n; off < end; {
		segment := off / segmentSize * segmentSize
		rest := min(segment+segmentSize, c.img.size)
		for at := segment; at < rest; {
			length, zero, err := c.img.data.extent(at, rest-at)
			if err != nil {
				return fmt.Errorf("extent at %d: %w", at, err)
			}
			e := volume.Extent{Offset: max(at, off), Length: at + length - max(at, off)}
			if zero {
				e.Flags = volume.Zero
			}
			at += length
			if at == c.img.size {
				e.Length += c.Size() - c.img.size
			}
			if e.Length > 0 && e.Offset < end && !fn(e) {
				return nil
			}
		}
		off = segment + segmentSize
	}
	return nil
}
