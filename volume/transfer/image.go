package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"skerry/chunk"
)

// The errors of images. They come wrapped; test with [errors.Is].
var (
	ErrFormat  = errors.New("image format is not supported")
	ErrDamaged = errors.New("image is damaged")
	ErrShort   = errors.New("image ends too early")
	ErrChanged = errors.New("image was changed while it was read")
)

// Format names an image format.
type Format string

// The formats that are read. Auto recognises them by their first bytes.
const (
	Auto  Format = ""
	Raw   Format = "raw"
	Qcow2 Format = "qcow2"
)

// Image is a foreign disk file that is open for reading.
type Image struct {
	name   string
	format Format
	size   int64 // -1: not known before its end
	// One of the two is set.
	data   source
	stream *pipe

	close  func() error
	verify func() error // asked at the end of an import; may be nil
}

// source is random access to the content of an image. Its methods may be called concurrently.
type source interface {
	// ReadAt fills p from off or fails, as io.ReaderAt.
	io.ReaderAt
	// extent returns the length, 1 to n, of a run that begins at off, and whether it reads as zeros.
	// off is a multiple of segmentSize, or the end of a run returned earlier for the same segment.
	extent(off, n int64) (length int64, zero bool, err error)
}

// Format returns the image's format.
func (i *Image) Format() Format { return i.format }

// Size returns the image's length in bytes, -1 if only its end will show.
func (i *Image) Size() int64 { return i.size }

// VolumeSize returns the size of a volume that holds the image: its length rounded up to whole sectors; -1 if that is not
// known.
func (i *Image) VolumeSize() int64 {
	if i.size < 0 {
		return -1
	}
	return (i.size + chunk.SectorSize - 1) / chunk.SectorSize * chunk.SectorSize
}

// Close ends the use of the image.
func (i *Image) Close() error { return i.close() }

// OpenFile opens an image file or a block device. With format Auto the format is recognised by its first
// bytes; a file that is no known image is raw.
func OpenFile(ctx context.Context, path string, format Format) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // names the operation and the path
	}
	img, err := OpenStream(ctx, f, format)
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	img.close = f.Close
	return img, nil
}

// OpenStream opens an image that f reads: by position if f is a file or a block device, as if it began at
// offset 0; else from front to back, which only raw images allow. ctx ends the wait for the first bytes. Closing the
// image does not close f.
func OpenStream(ctx context.Context, f *os.File, format Format) (*Image, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		img, err := openRandom(f, st.Size(), holes{f: f, size: st.Size()}, format)
		if err != nil {
			return nil, err
		}
		img.verify = func() error { return unchanged(f, st) }
		return img, nil
	case mode.IsDir():
		return nil, fmt.Errorf("open %s: is a directory: %w", f.Name(), ErrFormat)
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, err
		}
		return openRandom(f, size, solid{f}, format)
	}
	return openPipe(ctx, f, format)
}

func openRandom(f *os.File, size int64, data source, format Format) (*Image, error) {
	name := f.Name()
	if size == 0 {
		return nil, fmt.Errorf("open %s: image is empty", name)
	}
	head := make([]byte, min(size, sniffLength))
	if n, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	} else if n < len(head) {
		return nil, fmt.Errorf("open %s: %w", name, ErrShort)
	}
	format, err := recognise(head, format)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	img := &Image{name: name, format: format, size: size, data: data, close: func() error { return nil }}
	if format == Qcow2 {
		img.data, img.size, err = openQcow2(f, size, name)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", name, err)
		}
	}
	return img, nil
}

func unchanged(f *os.File, then os.FileInfo) error {
	now, err := f.Stat()
	if err != nil {
		return err
	}
	if now.Size() != then.Size() || !now.ModTime().Equal(then.ModTime()) {
		return fmt.Errorf("%s: %w", f.Name(), ErrChanged)
	}
	return nil
}

// sniffLength is how much of an image recognise wants to see.
const sniffLength = 4 << 10

// recognise returns the format of the image that begins with head. Formats that are known but not read are an error: as raw
// images they would make disks that no guest can use.
func recognise(head []byte, want Format) (Format, error) {
	switch want {
	case Raw:
		return Raw, nil
	case Qcow2:
		if !bytes.HasPrefix(head, []byte(qcow2Magic)) {
			return "", fmt.Errorf("no qcow2 image: it begins with %q: %w", head[:min(4, len(head))], ErrFormat)
		}
		return Qcow2, nil
	case Auto:
	default:
		return "", fmt.Errorf("%q: want raw or qcow2: %w", want, ErrFormat)
	}
	if bytes.HasPrefix(head, []byte(qcow2Magic)) {
		return Qcow2, nil
	}
	for _, k := range []struct {
		magic, name, advice string
		at                  int
	}{
		{"KDMV", "vmdk", "convert it with: qemu-img convert -O raw", 0},
		{"# Disk DescriptorFile", "vmdk", "convert it with: qemu-img convert -O raw", 0},
		{"vhdxfile", "vhdx", "convert it with: qemu-img convert -O raw", 0},
		{"conectix", "vpc", "convert it with: qemu-img convert -O raw", 0},
		{"\x7f\x10\xda\xbe", "vdi", "convert it with: qemu-img convert -O raw", 0x40},
		{"QED\x00", "qed", "convert it with: qemu-img convert -O raw", 0},
		{"\x1f\x8b\x08", "gzip", "unpack it into: skerry import - (gzip -dc)", 0},
		{"\x28\xb5\x2f\xfd", "zstd", "unpack it into: skerry import - (zstd -dc)", 0},
		{"\xfd7zXZ\x00", "xz", "unpack it into: skerry import - (xz -dc)", 0},
		{"BZh", "bzip2", "unpack it into: skerry import - (bzip2 -dc)", 0},
	} {
		if len(head) >= k.at && bytes.HasPrefix(head[k.at:], []byte(k.magic)) {
			return "", fmt.Errorf("looks like %s; %s, or take it as it is with --format raw: %w", k.name, k.advice, ErrFormat)
		}
	}
	return Raw, nil
}

// solid is a source that knows of no holes.
type solid struct{ *os.File }

func (solid) extent(_, n int64) (int64, bool, error) { return n, false, nil }

// holes is a regular file, whose holes the file system shows.
type holes struct {
	f    *os.File
	size int64
}

func (h holes) ReadAt(p []byte, off int64) (int, error) { return h.f.ReadAt(p, off) }

// extent asks the file system. lseek moves the offset of the open file, which nothing here uses.
func (h holes) extent(off, n int64) (int64, bool, error) {
	fd := int(h.f.Fd())
	data, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		// Beyond the last data; a file that was cut short meanwhile says the same.
		if st, err := h.f.Stat(); err != nil || st.Size() < off+n {
			return 0, false, errors.Join(err, ErrShort)
		}
		return n, true, nil
	case err != nil:
		return n, false, nil // the file system cannot tell: all is data
	case data > off:
		return min(n, data-off), true, nil
	}
	hole, err := unix.Seek(fd, off, unix.SEEK_HOLE)
	if err != nil || hole <= off {
		return n, false, nil
	}
	return min(n, hole-off), false, nil
}
