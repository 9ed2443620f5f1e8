package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"skerry/volume"
	"skerry/volume/catalog"
	"skerry/volume/hash"
)

// DeltaOptions are the choices of [ExportDelta].
type DeltaOptions struct {
	Compress Compression // Zstd or Uncompressed
	Force    bool        // replace a file
	// Progress, if not nil, is called by one goroutine at a time: first with what is hashed, then with what is compared and written.
	Progress func(Work)
}

// DeltaExport says what an export wrote.
type DeltaExport struct {
	Header DeltaHeader
	Data   int64 // bytes of data in it
	Zero   int64 // bytes that became zeros
}

// ExportDelta writes what makes the snapshot from to the snapshot to, which may be any two of the pool, as a delta to a file: "" is out, else as
// [ExportFile] treats files, but for block devices, which are refused.
func ExportDelta(ctx context.Context, p *catalog.Pool, from, to catalog.Ref, path string, out *os.File, o DeltaOptions) (DeltaExport, error) {
	e, err := exportDelta(ctx, p, from, to, path, out, o)
	if err != nil {
		return e, fmt.Errorf("export %v from %v: %w", to, from, err)
	}
	return e, nil
}

func exportDelta(ctx context.Context, p *catalog.Pool, from, to catalog.Ref, path string, out *os.File, o DeltaOptions) (e DeltaExport, err error) {
	if o.Compress != Zstd && o.Compress != Uncompressed {
		return e, fmt.Errorf("compression %q: a delta can be compressed with zstd only: %w", o.Compress, ErrFormat)
	}
	if o.Progress == nil {
		o.Progress = func(Work) {}
	}
	older, err := p.OpenSnapshot(ctx, from)
	if err != nil {
		return e, err
	}
	defer closeReader(ctx, older)
	newer, err := p.OpenSnapshot(ctx, to)
	if err != nil {
		return e, err
	}
	defer closeReader(ctx, newer)
	info, err := p.SnapshotInfo(ctx, to)
	if err != nil {
		return e, err
	}
	e.Header = DeltaHeader{Volume: to.Volume, From: from.Snapshot, To: to.Snapshot, FromSize: older.Size(), ToSize: newer.Size(), Created: info.Created}
	if e.Header.FromSum, err = sumOf(ctx, older, from.Snapshot, o.Progress); err != nil {
		return e, err
	}
	if e.Header.ToSum, err = sumOf(ctx, newer, to.Snapshot, o.Progress); err != nil {
		return e, err
	}
	stream := func(w io.Writer) (Progress, error) {
		d, err := newDeltaWriter(w, e.Header, o.Compress)
		if err != nil {
			return Progress{}, err
		}
		err = p.Diff(ctx, from, to, catalog.DiffOptions{Exact: true}, func(x volume.Extent) error {
			return d.from(ctx, newer, x, func(done int64) { o.Progress(Work{Snapshot: to.Snapshot, Done: done, Total: newer.Size()}) })
		})
		err = errors.Join(err, d.close())
		e.Data, e.Zero = d.data, d.zero
		return Progress{}, err
	}
	if path == "" {
		_, err = toStream(ctx, out, stream)
		return e, err
	}
	_, err = writeFile(ctx, path, o.Force, output{
		file: func(f *os.File) (Progress, error) {
			p, err := stream(f)
			if err == nil {
				err = f.Sync()
			}
			return p, imageSpace(err, path)
		},
		device: func() (Progress, error) {
			return Progress{}, errors.New("is a block device: a delta is written to a file or a pipe")
		},
		stream: stream,
	})
	return e, err
}

func closeReader(ctx context.Context, dev *volume.Device) {
	_ = dev.Close(context.WithoutCancel(ctx)) // it was only read
}

// sumOf hashes a device.
func sumOf(ctx context.Context, dev *volume.Device, name string, progress func(Work)) (hash.Sum, error) {
	return hash.Of(ctx, dev, hash.Options{Progress: func(done, total int64) {
		progress(Work{Verify: true, Snapshot: name, Done: done, Total: total})
	}})
}

// from writes an extent with what dev has there.
func (d *deltaWriter) from(ctx context.Context, dev Origin, e volume.Extent, report func(done int64)) error {
	if e.Flags&volume.Zero != 0 {
		return d.extent(e.Offset, e.Length, nil)
	}
	buf := make([]byte, min(maxDeltaData, e.Length))
	for at, end := e.Offset, e.Offset+e.Length; at < end; {
		b := buf[:min(int64(len(buf)), end-at)]
		if err := dev.ReadAt(ctx, b, at); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", len(b), at, err)
		}
		for len(b) > 0 {
			n, data := dataRun(b, true), []byte(nil)
			if n == 0 {
				n = dataRun(b, false)
				data = b[:n]
			}
			if err := d.extent(at, int64(n), data); err != nil {
				return err
			}
			at, b = at+int64(n), b[n:]
		}
		report(at)
	}
	return nil
}
