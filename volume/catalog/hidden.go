package catalog

import (
	"context"
	"errors"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// hidden returns a hidden snapshot of a volume.
func (p *Pool) hidden(ctx context.Context, name string, serial chunk.Serial) (*mapper.Snapshot, error) {
	_, root, err := p.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	s, err := p.loadSnapshot(ctx, root.Volume, serial)
	if errors.Is(err, drivers.ErrNotFound) || err == nil && (s.Deleting || !s.Hidden()) {
		err = tell(ErrNotFound, "volume %s: its hidden snapshot is gone: try again", name)
	}
	return s, err
}

// RemoveHidden removes a hidden snapshot that [Pool.SnapshotHidden] took, unless it has a clone. It fails as that does; one that is gone
// already is no error.
func (p *Pool) RemoveHidden(ctx context.Context, name string, serial chunk.Serial) error {
	err := p.holding(ctx, name, func(h *Held) error {
		s, err := p.loadSnapshot(ctx, h.id, serial)
		if errors.Is(err, drivers.ErrNotFound) || err == nil && !s.Hidden() {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = h.dropHidden(ctx, s)
		return err
	})
	if err != nil {
		return doing(err, "remove a hidden snapshot of volume %s", name)
	}
	return nil
}
