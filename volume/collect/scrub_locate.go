package collect

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// errMoved says that what a state reaches went away while it was looked at.
var errMoved = errors.New("changed meanwhile")

// locate finds out which volumes and snapshots need what could not be read. Roots and records are read again for that: what they do not
// reach any more is no damage, and what they reach although it had been missing before they were read is.
func (s *scrubber) locate(ctx context.Context, ids []chunk.VolumeID) error {
	if len(s.objects) == 0 && len(s.pages) == 0 {
		return nil
	}
	for _, id := range ids {
		for look := 1; ; look++ {
			name, found, err := s.needs(ctx, id)
			if errors.Is(err, errMoved) && look < looks {
				continue
			}
			if errors.Is(err, errMoved) {
				s.report.Skipped = append(s.report.Skipped, Skipped{Volume: name, Why: "it changes all the time: scrub it again"})
				err = nil
			}
			if err != nil {
				return fmt.Errorf("volume %v: %w", id, err)
			}
			for _, i := range found {
				s.injury(i)
			}
			break
		}
	}
	return nil
}

// needs returns what one volume needs of what could not be read.
func (s *scrubber) needs(ctx context.Context, id chunk.VolumeID) (name string, found []Injury, err error) {
	root, all, err := s.states(ctx, id, nil)
	if err != nil || root == nil {
		return id.String(), nil, err
	}
	image, _, err := catalog.ShownBy(root)
	if err != nil {
		image = chunk.VolumeID{} // told already
	}
	err = eachNumber(layouts(all), func(number uint64, keys []pageKey, states map[pageKey][]int32) error {
		for _, key := range keys {
			geom := all[states[key][0]].geom
			tell := func(i Injury) {
				for _, n := range states[key] {
					i.Volume, i.Snapshot = root.Name, all[n].snapshot
					if len(found) < maxInjuries {
						found = append(found, i)
					}
				}
			}
			var here []Injury
			err := s.page(ctx, number, key, geom, func(l mapper.LayerRef) error {
				if i, ok := s.hurt(l, geom); ok && l.Owner != image {
					here = append(here, i)
				}
				return nil
			})
			before := s.pages[key]
			switch {
			case err == nil:
				for _, i := range here {
					tell(i)
				}
			case fatal(ctx, err):
				return fmt.Errorf("map page %d: %w", number, err)
			case errors.Is(err, drivers.ErrNotFound) && before == nil:
				return errMoved
			default:
				span := geom.Size() * mapper.PageChunks
				tell(Injury{Offset: int64(number) * span, Length: span, Object: chunk.SerialName(key.owner, chunk.Pages, key.serial), Text: fmt.Sprintf("map page: %v", err)})
			}
		}
		return nil
	})
	return root.Name, found, err
}

// hurt returns what of a layer cannot be had.
func (s *scrubber) hurt(l mapper.LayerRef, geom chunk.Geometry) (Injury, bool) {
	key := objectKey{l.Owner, l.Chunk, l.Serial}
	x := s.objects[key]
	if x == nil || l.Data == 0 {
		return Injury{}, false
	}
	blocks := make(chunk.Bitmap, len(x.bad))
	l.AddTo(blocks)
	first, end := -1, 0
	for i := range blocks {
		if w := blocks[i] & x.bad[i]; w != 0 {
			if first < 0 {
				first = i*64 + bits.TrailingZeros64(w)
			}
			end = i*64 + bits.Len64(w)
		}
	}
	if first < 0 {
		return Injury{}, false
	}
	return Injury{
		Offset: geom.Start(l.Chunk) + int64(first)*chunk.BlockSize, Length: int64(end-first) * chunk.BlockSize,
		Object: key.name(), Text: x.err.Error(),
	}, true
}
