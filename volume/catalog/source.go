package catalog

import (
	"context"
	"errors"
	"fmt"
	"os"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// Sources gives access to the images that volumes are still copied from. Its methods may be called concurrently.
type Sources interface {
	// Attach makes sure that a source is what it was, and lets the layers that it owns be read through the pool's engine until detach
	// is called, which is after the last such read. geom is that of the volume. verify looks again, at any time. It fails with
	// [drivers.ErrUnavailable] where the image is not there, and with [skerry/volume.ErrDamaged] where it is another.
	Attach(ctx context.Context, id chunk.VolumeID, geom chunk.Geometry, s *mapper.Source) (verify func() error, detach func(), err error)

	// Check fails as Attach does.
	Check(ctx context.Context, id chunk.VolumeID, s *mapper.Source) error
}

// SourceInfo is what a volume is still copied from.
type SourceInfo struct {
	Path   string // of the image
	Host   string // that has the image; empty: it is an object of the pool
	Chunks uint64 // that came from it at first
	Left   uint64 // that still do, at least in part
}

// Percent returns how much of the image is copied, in whole percents.
func (s SourceInfo) Percent() int {
	if s.Chunks == 0 {
		return 100
	}
	return int(100 * (s.Chunks - min(s.Left, s.Chunks)) / s.Chunks)
}

// sourceOf returns what the volume of root is still copied from, nil if it is not.
func sourceOf(root *mapper.Root) (*mapper.Source, error) {
	if len(root.Source) == 0 || root.State != mapper.Live && root.State != mapper.Trashed {
		return nil, nil // what a volume that is being created comes from is an Origin
	}
	s, err := mapper.DecodeSource(root.Source)
	if err != nil {
		return nil, tell(err, "volume %s: %v", root.Name, err)
	}
	return s, nil
}

// ShownBy returns the id that owns the layers which show the image that root's volume is still copied from, and the serial of the volume's
// object that the image lies in. Both are zero if there is none.
func ShownBy(root *mapper.Root) (id chunk.VolumeID, object chunk.Serial, err error) {
	s, err := sourceOf(root)
	if s == nil {
		return id, 0, err
	}
	return s.ID, s.Object, nil
}

// source describes what the volume of root is still copied from, as its map says that is stored; nil if it is not.
func (p *Pool) source(ctx context.Context, root *mapper.Root) (*SourceInfo, error) {
	s, err := sourceOf(root)
	if s == nil {
		return nil, err
	}
	info := &SourceInfo{Path: s.Files[0].Path, Chunks: s.Chunks}
	if s.Object == 0 {
		info.Host = s.Host
	}
	client := p.client.WithLane(drivers.LaneBackground)
	for _, ref := range root.Pages {
		owner := root.Owners[ref.Owner]
		b, err := client.Load(ctx, chunk.SerialName(owner, chunk.Pages, ref.Serial))
		if err == nil {
			err = mapper.EachLayer(b, owner, ref, root.Geometry, func(l mapper.LayerRef) error {
				if l.Owner == s.ID {
					info.Left++
				}
				return nil
			})
		}
		if errors.Is(err, drivers.ErrNotFound) {
			err = fmt.Errorf("%w: %w", mapper.ErrDamaged, err)
		}
		if err != nil {
			return info, fmt.Errorf("map page %d: %w", ref.Number, err)
		}
	}
	return info, nil
}

// whole refuses what needs all of a volume's content in the pool, while it is still copied from an image.
func (h *Held) whole(ctx context.Context) error {
	root := h.Root()
	info, err := h.pool.source(ctx, root)
	if info == nil || err != nil {
		return err
	}
	return tell(ErrInUse, "volume %s: in use: it is still being copied from %s (%d %% done); finish that with: skerry flatten %s",
		root.Name, info.Path, info.Percent(), root.Name)
}

// reachable returns the source of a volume if it can be read from here, nil if it has none.
func (p *Pool) reachable(root *mapper.Root) (*mapper.Source, error) {
	s, err := sourceOf(root)
	switch {
	case s == nil:
		return nil, err
	case p.o.Sources == nil:
		return nil, tell(errors.ErrUnsupported, "volume %s: it is still being copied from %s, which cannot be read here", root.Name, s.Files[0].Path)
	case s.Object == 0 && s.HostID != p.o.Identity.HostID && s.Boot != p.o.Identity.Boot:
		return nil, tell(ErrInUse, "volume %s: in use: it is still being copied from %s on host %s; use it there, or finish that there with: skerry flatten %s",
			root.Name, s.Files[0].Path, s.Host, root.Name)
	}
	return s, nil
}

// CheckSource makes sure that the image that a volume is still copied from is what it was. It does nothing if there is none, or where it is
// on another host.
func (p *Pool) CheckSource(ctx context.Context, root *mapper.Root) error {
	s, err := p.reachable(root)
	if s == nil {
		if errors.Is(err, ErrInUse) || errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	}
	return p.o.Sources.Check(ctx, root.Volume, s)
}

// CloneFile makes an object of the new volume that shares the storage of a file, and returns its serial. It fails
// as [drivers.FileCloner] does.
func (c *Creation) CloneFile(ctx context.Context, f *os.File) (chunk.Serial, error) {
	serial, err := c.lease.NextSerial()
	if err != nil {
		return 0, err
	}
	client := c.pool.engine.Client(drivers.LaneMeta, tenant(c.id), c.lease)
	return serial, client.CloneFile(ctx, chunk.SerialName(c.id, chunk.Images, serial), f)
}

// Bind says what the new volume is still copied from when Commit has made it appear.
func (c *Creation) Bind(s *mapper.Source) error {
	b, err := s.Encode()
	if err != nil {
		return doing(err, "create volume %s", c.name)
	}
	c.source = b
	return nil
}
