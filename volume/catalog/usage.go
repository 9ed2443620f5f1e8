package catalog

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// Usage is the space that a volume takes.
type Usage struct {
	Own    int64 // bytes of blocks in objects that only the volume's present state has
	Shared int64 // bytes of blocks in objects that snapshots, clones or the parent have too, or had
	Stored int64 // bytes of storage in use for all objects that the volume owns, also those of its snapshots
}

// Usage returns the space that a volume takes. It reads the whole map and lists all objects. What a journal
// says that is not in the map yet does not count in Own and Shared.
func (p *Pool) Usage(ctx context.Context, name string) (Usage, error) {
	u, err := p.usage(ctx, name)
	if err != nil {
		return Usage{}, doing(err, "usage of volume %s", name)
	}
	return u, nil
}

func (p *Pool) usage(ctx context.Context, name string) (u Usage, err error) {
	id, root, err := p.lookup(ctx, name)
	if err != nil {
		return u, err
	}
	client := p.client.WithLane(drivers.LaneBackground)
	for _, ref := range root.Pages {
		owner := root.Owners[ref.Owner]
		b, err := client.Load(ctx, chunk.SerialName(owner, chunk.Pages, ref.Serial))
		if err == nil {
			err = mapper.EachLayer(b, owner, ref, root.Geometry, func(l mapper.LayerRef) error {
				n := int64(l.Data) * chunk.BlockSize
				if l.Owner == id && l.Serial > root.Mark {
					u.Own += n
				} else {
					u.Shared += n
				}
				return nil
			})
		}
		if errors.Is(err, drivers.ErrNotFound) {
			err = fmt.Errorf("%w: %w", mapper.ErrDamaged, err)
		}
		if err != nil {
			return u, fmt.Errorf("map page %d: %w", ref.Number, err)
		}
	}
	err = client.List(ctx, chunk.VolumeGroup(id), func(info drivers.Info) error {
		u.Stored += info.Allocated
		return nil
	})
	return u, err
}
