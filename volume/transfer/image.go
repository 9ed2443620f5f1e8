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
	ErrFormat   = errors.New("image format is not supported")
	ErrDamaged  = errors.New("image is damaged")
	ErrShort    = errors.New("image ends too early")
	ErrChanged  = errors.New("image was changed while it was read")
	ErrTooLarge = errors.New("image is too large")
	ErrEmpty    = errors.New("image is empty")
	// ErrMoved says that a volume that is still copied from an image finds another there.
	ErrMoved = errors.New("is not the image any more that the volume was bound to")
	// ErrSpace says that there is no space where an image is written: not in the pool.
	ErrSpace = errors.New("no space for the image")
	// ErrReader says that whoever read an image from a pipe reads no more.
	ErrReader = errors.New("nobody reads the image any more")
)

// Format names an image format.
type Format string

// The formats that are read. Auto recognises them by their first bytes.
const (
	Auto  Format = ""
	Raw   Format = "raw"
	Qcow2 Format = "qcow2"
)

// OpenOptions are the choices of opening an image.
type OpenOptions struct {
	// Format is the image's format; Auto recognises it. A compressed file that is taken as Raw is not unpacked.
	Format Format
	// FollowBacking lets a qcow2 image name other files of this host that are read for what it does not have
	// itself. Without it an image that does is refused, and no other file is opened.
	FollowBacking bool
	// Size, if not 0, bounds what a compressed raw image may unpack to, in bytes. With it the image is unpacked once;
	// without it twice, the first time to learn its size, and the bound is 16 TiB.
	Size int64
	// Progress, if not nil, is called while an image is unpacked before it can be read.
	Progress func(Progress)
}

// Image is a foreign disk file that is open for reading.
type Image struct {
	name    string
	format  Format
	packing packing
	size    int64 // -1: not known before its end
	// One of the two is set.
	data   source
	stream func(ctx context.Context) (io.ReadCloser, error)

	closers []io.Closer
	verify  []func() error // asked at the end of an import
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

// Compression returns how the image's file is compressed as a whole, "gzip", "zstd" or "xz"; empty: it is not.
func (i *Image) Compression() string { return string(i.packing) }

// Close ends the use of the image.
func (i *Image) Close() error {
	var err error
	for _, c := range i.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

// OpenFile opens an image file, a block device or a named pipe. With format Auto the format is recognised by the first
// bytes; a file that is no known image is raw. ctx ends the wait for a pipe and the checks of large images.
func OpenFile(ctx context.Context, path string, o OpenOptions) (*Image, error) {
	// Without O_NONBLOCK the open of a named pipe waits for a writer, and nothing ends that.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err // names the operation and the path
	}
	img, err := openImage(ctx, f, path, o)
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	img.closers = append(img.closers, f)
	return img, nil
}

// OpenStream opens an image that f reads: by position if f is a file or a block device, as if it began at
// offset 0; else from front to back. A qcow2 image that comes from front to back is first written to a temporary file. ctx ends the
// wait for the first bytes. Closing the image does not close f.
func OpenStream(ctx context.Context, f *os.File, o OpenOptions) (*Image, error) {
	return openImage(ctx, f, "", o)
}

// openImage opens the image in f. Names of backing files are relative to path; if it is empty they have to be absolute.
func openImage(ctx context.Context, f *os.File, path string, o OpenOptions) (*Image, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	opening := opening{OpenOptions: o, name: f.Name(), path: path}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		img, err := opening.random(ctx, f, st.Size(), holes{f: f, size: st.Size()})
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", f.Name(), err)
		}
		img.verify = append(img.verify, func() error { return unchanged(f, st) })
		return img, nil
	case mode.IsDir():
		return nil, fmt.Errorf("open %s: %w", f.Name(), unix.EISDIR)
	case isBlockDevice(mode):
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, err
		}
		img, err := opening.random(ctx, f, size, solid{f})
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", f.Name(), err)
		}
		return img, nil
	}
	img, err := opening.pipe(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return img, nil
}

func isBlockDevice(m os.FileMode) bool { return m&os.ModeDevice != 0 && m&os.ModeCharDevice == 0 }

// opening is what is known of an image while it is opened.
type opening struct {
	OpenOptions
	name string // for messages
	path string // that names of backing files are relative to; may be empty
}

// random opens an image of size bytes that can be read by position.
func (o opening) random(ctx context.Context, f io.ReaderAt, size int64, content source) (*Image, error) {
	if size == 0 {
		return nil, ErrEmpty
	}
	head, err := readUpTo(f, size, sniffLength)
	if err != nil {
		return nil, err
	}
	format, packed, err := recognise(head, o.Format)
	switch {
	case err != nil:
		return nil, err
	case packed != "":
		whole := func(ctx context.Context) (io.ReadCloser, error) {
			return unpack(packed, reader{ctx, io.NewSectionReader(f, 0, size)})
		}
		return o.unpack(ctx, packed, whole, whole, true)
	case format == Qcow2:
		return o.qcow2(ctx, f, size)
	}
	if o.Format == Auto {
		if err := noFixedVHD(f, size); err != nil {
			return nil, err
		}
	}
	return &Image{name: o.name, format: Raw, size: size, data: content}, nil
}

// noFixedVHD refuses an image in the one format that is told by its end: behind a disk as in a raw image there is a footer.
func noFixedVHD(f io.ReaderAt, size int64) error {
	var end [8]byte
	if size < 512 {
		return nil
	}
	if err := readFull(f, end[:], size-512); err != nil {
		return err
	}
	if string(end[:]) != "conectix" {
		return nil
	}
	return foreign("vpc", "convert it with: qemu-img convert -f vpc -O qcow2 FILE NEW.qcow2")
}

func foreign(name, advice string) error {
	return fmt.Errorf("looks like %s; %s, or take it as it is with --format raw: %w", name, advice, ErrFormat)
}

// pipe opens an image that can only be read from front to back.
func (o opening) pipe(ctx context.Context, f *os.File) (*Image, error) {
	p := &pipe{f: f}
	if err := p.fill(ctx, sniffLength); err != nil {
		return nil, err
	}
	if len(p.head) == 0 {
		return nil, ErrEmpty
	}
	format, packed, err := recognise(p.head, o.Format)
	if err != nil {
		return nil, err
	}
	if packed != "" {
		// Enough for the first piece of any compressed stream, so that it can be unpacked without what follows.
		if err := p.fill(ctx, packedHead); err != nil {
			return nil, err
		}
		first := func(context.Context) (io.ReadCloser, error) { return unpack(packed, bytes.NewReader(p.head)) }
		return o.unpack(ctx, packed, first, func(ctx context.Context) (io.ReadCloser, error) {
			return unpack(packed, p.reader(ctx))
		}, false)
	}
	whole := func(ctx context.Context) (io.ReadCloser, error) { return io.NopCloser(p.reader(ctx)), nil }
	if format == Qcow2 {
		return o.spool(ctx, p.head, whole)
	}
	return &Image{name: o.name, format: Raw, size: -1, stream: whole}, nil
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

// imageSpace marks an error of writing to a file that is no part of a pool, if it says that there is no space in where.
func imageSpace(err error, where string) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w in %s: %w", ErrSpace, where, err)
	}
	return err
}

// sniffLength is how much of an image recognise wants to see.
const sniffLength = 4 << 10

// recognise returns the format of the image that begins with head, or how it is compressed. Formats that are known but not read are an
// error: as raw images they would make disks that no guest can use.
func recognise(head []byte, want Format) (Format, packing, error) {
	switch want {
	case Raw:
		return Raw, "", nil
	case Qcow2, Auto:
	default:
		return "", "", fmt.Errorf("format %q: want raw or qcow2: %w", want, ErrFormat)
	}
	const unpackInto = "unpack it into: skerry import - (%s -dc)"
	const convert = "convert it with: qemu-img convert -f %s -O qcow2 FILE NEW.qcow2"
	if bytes.HasPrefix(head, []byte(qcow2Magic)) {
		if bytes.HasPrefix(head[4:], []byte{0, 0, 0, 1}) { // the format before qcow2
			return "", "", foreign("qcow", fmt.Sprintf(convert, "qcow"))
		}
		return Qcow2, "", nil
	}
	for magic, p := range map[string]packing{"\x1f\x8b\x08": packedGzip, "\x28\xb5\x2f\xfd": packedZstd, "\xfd7zXZ\x00": packedXz} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return "", p, nil
		}
	}
	if want == Qcow2 {
		return "", "", fmt.Errorf("no qcow2 image: it begins with %q; without --format it is recognised: %w", head[:min(4, len(head))], ErrFormat)
	}
	for _, k := range []struct {
		magic, name, advice string
		at                  int
	}{
		{"KDMV", "vmdk", convert, 0},
		{"COWD", "vmdk", convert, 0},
		{"# Disk DescriptorFile", "vmdk", convert, 0},
		{"vhdxfile", "vhdx", convert, 0},
		{"conectix", "vpc", convert, 0},
		{"\x7f\x10\xda\xbe", "vdi", convert, 0x40},
		{"QED\x00", "qed", convert, 0},
		{"WithoutFreeSpace", "parallels", convert, 0},
		{"WithouFreSpacExt", "parallels", convert, 0},
		{deltaMagic, "delta", "apply the %s with: skerry import FILE --onto NAME", 0},
		{"BZh", "bzip2", unpackInto, 0},
		{"\x04\x22\x4d\x18", "lz4", unpackInto, 0},
		{"PK\x03\x04", "zip", "import what is in it: un%s -p FILE | skerry import -", 0},
		{"7z\xbc\xaf\x27\x1c", "7z", "import what is in it: %s x -so FILE | skerry import -", 0},
		{"ustar", "tar", "an archive, as OVA files are too: take the disk out of it (%s -xf FILE) and import that", 257},
	} {
		if len(head) >= k.at && bytes.HasPrefix(head[k.at:], []byte(k.magic)) {
			return "", "", foreign(k.name, fmt.Sprintf(k.advice, k.name))
		}
	}
	return Raw, "", nil
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
