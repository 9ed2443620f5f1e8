package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"skerry/volume"
)

// Origin is what an export reads: a [skerry/volume.Device].
type Origin interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, off int64) error
	// Extents describes [off, off+n) in ascending order, whole, until fn returns false.
	Extents(ctx context.Context, off, n int64, fn func(volume.Extent) bool) error
}

// ExportOptions are the choices of an export to a file.
type ExportOptions struct {
	Options
	// Force lets the export replace a file, or write a block device.
	Force bool
}

// ExportFile writes the content of dev as a raw image. A regular file appears under its name only when it is complete
// and durable, and replaces another only with Force. A block device is written in place, only with Force, and
// must be large enough; what it has beyond stays. Anything else, such as a pipe, is written from front to back.
func ExportFile(ctx context.Context, dev Origin, path string, o ExportOptions) (Progress, error) {
	p, err := exportFile(ctx, dev, path, o)
	if err != nil {
		return p, fmt.Errorf("export to %s: %w", path, err)
	}
	return p, nil
}

func exportFile(ctx context.Context, dev Origin, path string, o ExportOptions) (Progress, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return exportNew(ctx, dev, path, o)
	case err != nil:
		return Progress{}, err
	case st.IsDir():
		return Progress{}, errors.New("is a directory")
	case st.Mode().IsRegular() && !o.Force:
		return Progress{}, fmt.Errorf("%w; replace it with --force", os.ErrExist)
	case st.Mode().IsRegular():
		return exportNew(ctx, dev, path, o)
	case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
		if !o.Force {
			return Progress{}, errors.New("is a block device; overwrite it with --force")
		}
		return exportDevice(ctx, dev, path, o)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return Progress{}, err
	}
	p, err := ExportStream(ctx, dev, f, o.Options)
	return p, errors.Join(err, f.Close())
}

func exportNew(ctx context.Context, dev Origin, path string, o ExportOptions) (Progress, error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	temp := filepath.Join(dir, "."+base+"."+rand.Text()+".partial")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	var failed *os.PathError
	if errors.As(err, &failed) {
		return Progress{}, fmt.Errorf("create a file in %s: %w", dir, failed.Err)
	}
	if err != nil {
		return Progress{}, err
	}
	p, err := fillNew(ctx, dev, f, o.Options)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = publish(temp, path, o.Force)
	}
	if err != nil {
		return p, errors.Join(err, os.Remove(temp))
	}
	return p, syncDir(dir)
}

// fillNew writes the content of dev to an empty file, which reads as zeros, and makes it durable.
func fillNew(ctx context.Context, dev Origin, f *os.File, o Options) (Progress, error) {
	if err := f.Truncate(dev.Size()); err != nil {
		return Progress{}, err
	}
	p, err := exportRandom(ctx, dev, f, o, nil)
	if err != nil {
		return p, err
	}
	return p, f.Sync()
}

// publish gives the file temp its name.
func publish(temp, path string, replace bool) error {
	if replace {
		return os.Rename(temp, path)
	}
	// Unlike rename, link does not replace a file that has appeared meanwhile.
	err := unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // the file system has no such rename
		if err = os.Link(temp, path); err == nil {
			return os.Remove(temp)
		}
	}
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w; replace it with --force", os.ErrExist)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// exportDevice overwrites the beginning of a block device, zeros included.
func exportDevice(ctx context.Context, dev Origin, path string, o ExportOptions) (Progress, error) {
	// With O_EXCL the kernel refuses a device that is mounted or otherwise in use.
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_EXCL, 0)
	if err != nil {
		return Progress{}, err
	}
	p, err := fillDevice(ctx, dev, f, o.Options)
	return p, errors.Join(err, f.Close())
}

func fillDevice(ctx context.Context, dev Origin, f *os.File, o Options) (Progress, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return Progress{}, err
	}
	if size < dev.Size() {
		return Progress{}, fmt.Errorf("device of %d bytes is too small for %d", size, dev.Size())
	}
	p, err := exportRandom(ctx, dev, f, o, func(off, n int64) error { return zeroRange(f, off, n) })
	if err != nil {
		return p, err
	}
	return p, f.Sync()
}

// zeroRange makes a range of a file or device read as zero, quickly where the kernel can.
func zeroRange(f *os.File, off, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if err == nil {
		return nil
	}
	zeros := make([]byte, min(n, 1<<20))
	for n > 0 {
		m, err := f.WriteAt(zeros[:min(n, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}

// pieceSize is how much an export reads and writes at once. A piece stays in the processor's cache between the two, and the
// kernel finds pages for it that were in use lately. With 4 MiB an export of 1 GiB took 2.6 to 4.9 s where this takes 1.1 to 1.3 s.
const pieceSize = 256 << 10

// exportRandom writes the data of dev to the same offsets of w. Zeros are left out if zero is nil, else made by it.
func exportRandom(ctx context.Context, dev Origin, w io.WriterAt, o Options, zero func(off, n int64) error) (Progress, error) {
	p := newProgress(o, dev.Size())
	write := func(_ context.Context, b []byte, off int64) error {
		n, err := w.WriteAt(b, off)
		if err == nil && n != len(b) {
			err = io.ErrShortWrite
		}
		return err
	}
	err := inSegments(ctx, dev.Size(), o.workers(), func(ctx context.Context, off int64, buf []byte) error {
		err := eachExtent(ctx, dev, off, int64(len(buf)), func(e volume.Extent) error {
			if e.Flags&volume.Zero != 0 {
				if zero == nil {
					return nil
				}
				return zero(e.Offset, e.Length)
			}
			for at, end := e.Offset, e.Offset+e.Length; at < end; {
				b := buf[:min(pieceSize, end-at)]
				if err := dev.ReadAt(ctx, b, at); err != nil {
					return fmt.Errorf("read %d bytes at %d: %w", len(b), at, err)
				}
				var err error
				if zero != nil { // every byte of the range has to be written
					p.copied.Add(int64(len(b)))
					err = write(ctx, b, at)
				} else {
					err = writeData(ctx, b, at, write, &p.copied)
				}
				if err != nil {
					return err
				}
				at += int64(len(b))
			}
			return nil
		})
		if err != nil {
			return err
		}
		p.done(int64(len(buf)))
		return nil
	})
	return p.final(), err
}

// eachExtent calls fn for the extents of a range, clipped to it, and checks that they cover it.
func eachExtent(ctx context.Context, dev Origin, off, n int64, fn func(volume.Extent) error) error {
	at, end := off, off+n
	var failed error
	err := dev.Extents(ctx, off, n, func(e volume.Extent) bool {
		if e.Offset != at || e.Length <= 0 {
			failed = fmt.Errorf("extents: %d bytes at %d, want them from %d on", e.Length, e.Offset, at)
			return false
		}
		e.Length = min(e.Length, end-at)
		failed = fn(e)
		at += e.Length
		return failed == nil && at < end
	})
	if err = errors.Join(failed, err); err != nil {
		return err
	}
	if at != end {
		return fmt.Errorf("extents: they end at %d, want %d", at, end)
	}
	return nil
}

// ExportStream writes the content of dev to w from front to back, zeros included.
func ExportStream(ctx context.Context, dev Origin, w io.Writer, o Options) (Progress, error) {
	p := newProgress(o, dev.Size())
	buf := make([]byte, min(segmentSize, dev.Size()))
	for off := int64(0); off < dev.Size(); {
		if err := ctx.Err(); err != nil {
			return p.final(), err
		}
		b := buf[:min(segmentSize, dev.Size()-off)]
		err := eachExtent(ctx, dev, off, int64(len(b)), func(e volume.Extent) error {
			part := b[e.Offset-off:][:e.Length]
			if e.Flags&volume.Zero != 0 {
				clear(part)
				return nil
			}
			return dev.ReadAt(ctx, part, e.Offset)
		})
		if err != nil {
			return p.final(), fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
		}
		n, err := w.Write(b)
		if err == nil && n != len(b) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return p.final(), fmt.Errorf("write at %d: %w", off, err)
		}
		p.copied.Add(int64(len(b)))
		p.done(int64(len(b)))
		off += int64(len(b))
	}
	return p.final(), nil
}
