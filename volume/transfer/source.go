package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume"
)

// Sources reads the images that volumes of a pool are still copied from. Its methods may be called concurrently.
type Sources struct {
	backend drivers.Attacher
	boot    [16]byte
}

// NewSources returns the sources of the pool on b, which shows them, for a host whose kernel has this boot id.
func NewSources(b drivers.Attacher, boot [16]byte) *Sources { return &Sources{b, boot} }

// Attach makes sure that a source is what it was, and shows it below the group of its id. verify looks again, at any time. What is read fails
// with [volume.ErrDamaged] from the moment on at which the image changes.
func (s *Sources) Attach(ctx context.Context, id chunk.VolumeID, geom chunk.Geometry, src *mapper.Source) (verify func() error, detach func(), err error) {
	a, err := s.open(ctx, id, geom, src)
	if err != nil {
		return nil, nil, err
	}
	group := chunk.VolumeGroup(src.ID)
	if err := s.backend.Attach(group, a); err != nil {
		return nil, nil, errors.Join(err, a.close())
	}
	return a.verify, func() {
		s.backend.Detach(group)
		_ = a.close() // nothing was written
	}, nil
}

// Check fails as Attach does.
func (s *Sources) Check(ctx context.Context, id chunk.VolumeID, src *mapper.Source) error {
	geom, err := chunk.NewGeometry(chunk.DefaultSize)
	if err != nil {
		return err
	}
	a, err := s.open(ctx, id, geom, src)
	if err != nil {
		return err
	}
	return a.close()
}

// open opens the image of a source.
func (s *Sources) open(ctx context.Context, id chunk.VolumeID, geom chunk.Geometry, src *mapper.Source) (*attached, error) {
	a := &attached{source: src, geom: geom, verify: func() error { return nil }}
	file := src.Files[0]
	var r io.ReaderAt
	switch {
	case len(src.Files) > 1:
		return nil, fmt.Errorf("%s needs other files, which this program does not read later: %w", file.Path, ErrFormat)
	case src.Object != 0:
		o, err := s.backend.Open(ctx, chunk.SerialName(id, chunk.Images, src.Object), drivers.ReadOnly)
		if errors.Is(err, drivers.ErrNotFound) {
			err = fmt.Errorf("%w: %w", volume.ErrDamaged, err)
		}
		if err != nil {
			return nil, err
		}
		r, a.close = objectReader{o}, o.Close
	default:
		b, err := rebind(file, src.Boot == s.boot)
		if err != nil {
			return nil, err
		}
		r, a.close, a.verify = b.f, b.f.Close, b.check
	}
	img, err := openAt(ctx, r, file.Path, file.Size, plain{r}, Format(src.Format))
	if errors.Is(err, ErrDamaged) || errors.Is(err, ErrShort) || errors.Is(err, ErrFormat) {
		err = fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	}
	if err == nil && img.size != src.Size {
		err = fmt.Errorf("%s has %d bytes of content, not %d: %w", file.Path, img.size, src.Size, volume.ErrDamaged)
	}
	if err == nil {
		err = a.verify()
	}
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	a.data = img.data
	return a, nil
}

// attached is an image that shows as the chunks of a volume: a [drivers.Source].
type attached struct {
	source *mapper.Source
	geom   chunk.Geometry
	data   source
	verify func() error
	close  func() error
}

// Find implements [drivers.Source].
func (a *attached) Find(name string) (off, n int64, ok bool) {
	id, group, ok := chunk.ParseVolume(name)
	index, serial, data := chunk.ParseDataName(name)
	if !ok || !data || id != a.source.ID || group != chunk.Data || serial != mapper.SourceSerial || index >= a.geom.Count(a.source.Size) {
		return 0, 0, false
	}
	off = a.geom.Start(index)
	return off, min(a.geom.Size(), a.source.Size-off), true
}

// ReadAt implements [drivers.Source]. That the image is what it was is looked at after it was read.
func (a *attached) ReadAt(p []byte, off int64) error {
	err := readFull(a.data, p, off)
	if changed := a.verify(); changed != nil {
		return changed // which may be why the read failed
	}
	return err
}

// plain is a source that is read, and of which no holes are asked for.
type plain struct{ io.ReaderAt }

func (plain) extent(_, n int64) (int64, bool, error) { return n, false, nil }

// objectReader reads an object of the pool.
type objectReader struct{ drivers.Object }

// ReadAt implements [io.ReaderAt] for what lies before the object's end.
func (o objectReader) ReadAt(p []byte, off int64) (int, error) {
	size, err := o.Size()
	if err != nil {
		return 0, err
	}
	n := int(min(int64(len(p)), max(0, size-off)))
	if err := o.Object.ReadAt(p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
