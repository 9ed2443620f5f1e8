package collect

import (
	"context"
	"fmt"

	"skerry/chunk"
	"skerry/mapper"
)

// pageKey names a stored page.
type pageKey struct {
	owner  chunk.VolumeID
	serial chunk.Serial
}

// walker visits what maps reach, each page once.
type walker struct {
	load  func(ctx context.Context, name string) ([]byte, error)
	seen  map[pageKey]bool
	only  chunk.VolumeID // read the pages of this volume alone; zero: of all
	page  func(owner chunk.VolumeID, serial chunk.Serial)
	layer func(mapper.LayerRef) error
}

// walk visits the pages of one map.
func (w *walker) walk(ctx context.Context, owners []chunk.VolumeID, refs []mapper.PageRef, geom chunk.Geometry) error {
	for _, ref := range refs {
		key := pageKey{owners[ref.Owner], ref.Serial}
		if w.seen[key] {
			continue
		}
		w.seen[key] = true
		w.page(key.owner, key.serial)
		if !w.only.IsZero() && key.owner != w.only {
			continue
		}
		b, err := w.load(ctx, chunk.SerialName(key.owner, chunk.Pages, key.serial))
		if err == nil {
			err = mapper.EachLayer(b, key.owner, ref, geom, w.layer)
		}
		if err != nil {
			return fmt.Errorf("map page %d: %w", ref.Number, err)
		}
	}
	return nil
}
