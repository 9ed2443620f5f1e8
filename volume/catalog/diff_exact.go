package catalog

import (
	"bytes"
	"context"
	"fmt"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/volume"
)

// siftSize is how much is compared at once. It stays in the processor's cache.
const siftSize = 256 << 10

// sifter passes on the blocks of extents whose content is not the same on both sides.
type sifter struct {
	from, to *volume.Device
	was, is  []byte
	last     volume.Extent // not told yet
	fn       func(volume.Extent) error
}

func newSifter(from, to *volume.Device, fn func(volume.Extent) error) *sifter {
	return &sifter{from: from, to: to, was: make([]byte, siftSize), is: make([]byte, siftSize), fn: fn}
}

// sift compares the content of an extent of the newer side.
func (x *sifter) sift(ctx context.Context, e volume.Extent) error {
	common := max(0, min(e.Length, mapper.CommonSize(x.from.Size(), x.to.Size())-e.Offset))
	for n := int64(0); n < common; {
		step := min(siftSize, common-n)
		if err := x.compare(ctx, volume.Extent{Offset: e.Offset + n, Length: step, Flags: e.Flags}); err != nil {
			return err
		}
		n += step
	}
	if common < e.Length {
		return x.add(volume.Extent{Offset: e.Offset + common, Length: e.Length - common, Flags: e.Flags})
	}
	return nil
}

// compare compares one piece.
func (x *sifter) compare(ctx context.Context, e volume.Extent) error {
	was, is := x.was[:e.Length], x.is[:e.Length]
	if err := x.from.ReadAt(ctx, was, e.Offset); err != nil {
		return fmt.Errorf("read %d bytes at %d of the older one: %w", e.Length, e.Offset, err)
	}
	if e.Flags&volume.Zero != 0 {
		clear(is)
	} else if err := x.to.ReadAt(ctx, is, e.Offset); err != nil {
		return fmt.Errorf("read %d bytes at %d of the newer one: %w", e.Length, e.Offset, err)
	}
	for at := int64(0); at < e.Length; at += chunk.BlockSize {
		end := min(at+chunk.BlockSize, e.Length)
		if bytes.Equal(was[at:end], is[at:end]) {
			continue
		}
		if err := x.add(volume.Extent{Offset: e.Offset + at, Length: end - at, Flags: e.Flags}); err != nil {
			return err
		}
	}
	return nil
}

// add tells of an extent once the next one does not continue it.
func (x *sifter) add(e volume.Extent) error {
	if x.last.Length > 0 && x.last.Flags == e.Flags && x.last.Offset+x.last.Length == e.Offset {
		x.last.Length += e.Length
		return nil
	}
	err := x.flush()
	x.last = e
	return err
}

// flush tells of the last extent.
func (x *sifter) flush() error {
	if x.last.Length == 0 {
		return nil
	}
	return x.fn(x.last)
}
