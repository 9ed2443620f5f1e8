package mapper

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
)

// Adopt makes one full layer of another volume the whole entry of each of the chunks [first, end), which must be zeros. Nothing of
// it is ever written in place. When it fails some of the chunks may have the layer. No change of these chunks may be under way.
func (m *Map) Adopt(ctx context.Context, owner chunk.VolumeID, serial chunk.Serial, first, end uint64) error {
	if owner == m.volume {
		return errors.New("adopt: a volume's own objects are published")
	}
	o, err := m.ownerIndex(owner)
	if err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	for first < end {
		p, err := m.lock(ctx, first/PageChunks)
		if err != nil {
			return err
		}
		m.touch(p)
		for ; first < end && first/PageChunks == p.number; first++ {
			i := uint16(first % PageChunks)
			if p.content.entries[i] != 0 {
				p.mu.Unlock()
				return fmt.Errorf("adopt: chunk %d is not empty", first)
			}
			p.content.put(i, stack{{owner: o, serial: serial, full: true}})
		}
		p.mu.Unlock()
	}
	return nil
}
