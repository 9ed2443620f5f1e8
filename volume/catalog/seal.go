package catalog

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume/hash"
)

// Seal hashes the content of a snapshot and stores the hash, with those of its parts, beside it, so that a scrub finds what
// changed. The seal goes with the snapshot. A snapshot that is sealed already is compared with that: an error matches
// [hash.ErrMismatch]. A seal that is damaged itself is made anew.
func (p *Pool) Seal(ctx context.Context, r Ref, o hash.Options) (hash.Sum, error) {
	sum, err := p.seal(ctx, r, o)
	if err != nil {
		return hash.Sum{}, doing(err, "seal snapshot %v", r)
	}
	return sum, nil
}

func (p *Pool) seal(ctx context.Context, r Ref, o hash.Options) (sum hash.Sum, err error) {
	s, end, err := p.readable(ctx, r)
	if err != nil {
		return sum, err
	}
	// Nobody removes the snapshot before the seal is stored.
	defer end(context.WithoutCancel(ctx))
	d := comparison{p: p}
	dev, closeDevice, err := d.open(ctx, s)
	if err != nil {
		return sum, err
	}
	defer closeDevice()
	tree, err := hash.Grow(ctx, dev, o)
	if err != nil {
		return sum, err
	}
	seal := &mapper.Seal{Volume: s.Volume, Snapshot: s.Serial, Created: p.o.Now().UTC(), Size: tree.Size, Sum: tree.Sum, Grain: tree.Grain}
	for _, c := range tree.Cells {
		seal.Cells = append(seal.Cells, mapper.SealCell(c))
	}
	name := chunk.SerialName(s.Volume, chunk.Seals, s.Serial)
	err = p.client.Replace(ctx, name, seal.Encode(), drivers.Condition{Absent: true})
	if errors.Is(err, drivers.ErrExists) {
		var before *mapper.Seal
		before, err = p.Sealed(ctx, s.Volume, s.Serial)
		switch {
		case errors.Is(err, mapper.ErrDamaged):
			p.log.Warn("the seal was damaged: it is made anew", "volume", s.Volume.String(), "snapshot", r.String(), "err", err)
			err = p.client.Replace(ctx, name, seal.Encode(), drivers.Condition{})
		case err == nil && before.Sum != seal.Sum:
			err = tell(hash.ErrMismatch, "snapshot %v: it was sealed with %v, and is now %v; skerry scrub %s tells where", r, hash.Sum(before.Sum), tree.Sum, r.Volume)
		}
	}
	return tree.Sum, err
}

// SealOf returns the hash that a snapshot was sealed with; false if it was not.
func (p *Pool) SealOf(ctx context.Context, r Ref) (hash.Sum, bool, error) {
	_, s, err := p.findSnapshot(ctx, r)
	if err != nil {
		return hash.Sum{}, false, err
	}
	seal, err := p.Sealed(ctx, s.Volume, s.Serial)
	if errors.Is(err, drivers.ErrNotFound) {
		return hash.Sum{}, false, nil
	}
	if err != nil {
		return hash.Sum{}, false, err
	}
	return seal.Sum, true, nil
}

// Sealed returns the seal of a snapshot. It fails with [drivers.ErrNotFound] if there is none.
func (p *Pool) Sealed(ctx context.Context, id chunk.VolumeID, snap chunk.Serial) (*mapper.Seal, error) {
	b, err := p.client.Load(ctx, chunk.SerialName(id, chunk.Seals, snap))
	var s *mapper.Seal
	if err == nil {
		s, err = mapper.DecodeSeal(b)
	}
	if err == nil && (s.Volume != id || s.Snapshot != snap) {
		err = fmt.Errorf("%w: it is that of snapshot %v of volume %v", mapper.ErrDamaged, s.Snapshot, s.Volume)
	}
	if err != nil {
		return nil, fmt.Errorf("seal of snapshot %v of volume %v: %w", snap, id, err)
	}
	return s, nil
}

// Seals returns the snapshots of a volume that have seals, also those that are gone.
func (p *Pool) Seals(ctx context.Context, id chunk.VolumeID) ([]chunk.Serial, error) {
	var all []chunk.Serial
	err := p.client.List(ctx, chunk.GroupName(id, chunk.Seals), func(info drivers.Info) error {
		if s, ok := chunk.ParseSerialName(info.Name); ok {
			all = append(all, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list seals of volume %v: %w", id, err)
	}
	return all, nil
}

// unseal removes the seal of a snapshot of the held volume that is gone.
func (h *Held) unseal(ctx context.Context, snap chunk.Serial) error {
	client := h.Client(drivers.LaneMeta)
	err := client.Unlink(ctx, chunk.SerialName(h.id, chunk.Seals, snap))
	if errors.Is(err, drivers.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = client.SyncGroup(ctx, chunk.GroupName(h.id, chunk.Seals))
	}
	if err != nil {
		return fmt.Errorf("remove the seal of snapshot %v: %w", snap, err)
	}
	return nil
}

// pruneSeals removes seals of snapshots that are gone. A serial names no other snapshot ever again.
func (h *Held) pruneSeals(ctx context.Context) error {
	all, err := h.pool.Seals(ctx, h.id)
	if err != nil {
		return err
	}
	for _, snap := range all {
		_, err := h.pool.client.Stat(ctx, chunk.SerialName(h.id, chunk.Snapshots, snap))
		if errors.Is(err, drivers.ErrNotFound) {
			err = h.unseal(ctx, snap)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
