package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
)

// LazyTarget is a new volume that is to be copied from an image after it has appeared; a [skerry/volume/catalog.Creation] and its
// device are one.
type LazyTarget interface {
	// ChunkSize is that of the volume in bytes.
	ChunkSize() int64
	// Size is that of the volume in bytes.
	Size() int64
	// CloneFile makes an object of the volume's own share the storage of f, and returns its serial; errors.ErrUnsupported where the
	// storage cannot do that.
	CloneFile(ctx context.Context, f *os.File) (chunk.Serial, error)
	// Adopt makes the layer of another volume the content of the chunks [first, end).
	Adopt(ctx context.Context, owner chunk.VolumeID, serial chunk.Serial, first, end uint64) error
	// Bind says what the volume is to be copied from.
	Bind(s *mapper.Source) error
}

// Lazy is an image that a volume can be copied from after it has appeared: a file that can be read by position.
type Lazy struct {
	*Image
	f *os.File
}

// OpenLazy opens a raw or qcow2 image for [ImportLazy]. Other images, also ones that are compressed or have backing files, are refused
// with ErrFormat.
func OpenLazy(ctx context.Context, path string, format Format) (*Lazy, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	var img *Image
	if err == nil {
		img, err = openAt(ctx, f, path, st.Size(), holes{f: f, size: st.Size()}, format)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return &Lazy{img, f}, nil
}

// openRegular opens a file, and nothing else.
func openRegular(path string) (*os.File, error) {
	if path == "-" {
		return nil, fmt.Errorf("standard input cannot be read later: import it without --lazy: %w", ErrFormat)
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, err // names the operation and the path
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file, nobody can tell whether it changes: import it without --lazy: %w", path, ErrFormat)
	}
	return os.Open(path)
}

// Close ends the use of the image.
func (l *Lazy) Close() error { return l.f.Close() }

// ImportLazy makes a new volume show an image without copying it. Where the pool's storage can share the blocks of the file the image becomes
// an object of the volume; else the volume is bound to the file, on the host that id names. It returns what the volume is bound to.
func ImportLazy(ctx context.Context, img *Lazy, dev LazyTarget, id locking.Identity) (*mapper.Source, error) {
	s, err := importLazy(ctx, img, dev, id)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", img.name, err)
	}
	return s, nil
}

func importLazy(ctx context.Context, img *Lazy, dev LazyTarget, id locking.Identity) (*mapper.Source, error) {
	if need := img.VolumeSize(); need > dev.Size() {
		return nil, fmt.Errorf("%d bytes do not fit a volume of %d", need, dev.Size())
	}
	b, err := bind(ctx, img.f)
	if err != nil {
		return nil, err
	}
	s := &mapper.Source{
		ID: chunk.NewVolumeID(), Format: string(img.format), Size: img.size,
		Host: id.Host, HostID: id.HostID, Boot: id.Boot, Files: []mapper.SourceFile{b.file},
	}
	s.Object, err = dev.CloneFile(ctx, img.f)
	if errors.Is(err, errors.ErrUnsupported) {
		s.Object = 0
		err = b.local()
	}
	if err != nil {
		return nil, err
	}
	if s.Chunks, err = adopt(ctx, img, dev, s.ID); err != nil {
		return nil, err
	}
	// Also of an object: where it has data the file has told.
	if err := b.check(); err != nil {
		return nil, err
	}
	return s, dev.Bind(s)
}

// adopt makes the chunks show the image that have data of it, and returns how many these are.
func adopt(ctx context.Context, img *Lazy, dev LazyTarget, id chunk.VolumeID) (count uint64, err error) {
	size := uint64(dev.ChunkSize())
	var first, end uint64 // chunks with data that are not adopted yet
	for off := int64(0); off < img.size; {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("%w: %w", drivers.ErrUnavailable, context.Cause(ctx))
		}
		n, zero, err := img.data.extent(off, img.size-off)
		if err != nil {
			return 0, fmt.Errorf("extent at %d: %w", off, err)
		}
		from, to := uint64(off)/size, (uint64(off+n)+size-1)/size
		if off += n; zero {
			continue
		}
		if from > end {
			if err := dev.Adopt(ctx, id, mapper.SourceSerial, first, end); err != nil {
				return 0, err
			}
			count, first = count+end-first, from
		}
		end = max(end, to)
	}
	return count + end - first, dev.Adopt(ctx, id, mapper.SourceSerial, first, end)
}

// openAt opens the raw or qcow2 image in r, a file of size bytes at path, whose content as a raw image is content.
func openAt(ctx context.Context, r io.ReaderAt, path string, size int64, content source, format Format) (*Image, error) {
	head, err := readUpTo(r, size, sniffLength)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if _, packed, err := recognise(head, format); err == nil && packed != "" {
		return nil, fmt.Errorf("open %s: is compressed with %s, which cannot be read by position: import it without --lazy: %w", path, packed, ErrFormat)
	}
	img, err := opening{OpenOptions: OpenOptions{Format: format}, name: path, path: path}.random(ctx, r, size, content)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return img, nil
}
