package catalog

import (
	"context"
	"math"

	"skerry/chunk"
	"skerry/mapper"
)

// Rollback makes a volume again what it was when a snapshot was taken, its size included. What was written since then is lost,
// the snapshots stay. It fails with ErrInUse if a living process holds the volume.
func (p *Pool) Rollback(ctx context.Context, r Ref) error {
	if err := p.WithReserve(ctx, func() error { return p.rollback(ctx, r) }); err != nil {
		return doing(err, "roll back to %v", r)
	}
	return nil
}

func (p *Pool) rollback(ctx context.Context, r Ref) error {
	h, err := p.holdNamed(ctx, r.Volume)
	if err != nil {
		return unheld(err)
	}
	defer h.done(ctx)
	if h.dev != nil {
		return openHere(r.Volume)
	}
	if err := h.whole(ctx); err != nil {
		return err
	}
	s, err := p.snapshotNamed(ctx, h.id, r)
	if err != nil {
		return err
	}
	if s.Deleting {
		return removing(r)
	}
	return h.lease.Release(ctx, func(root *mapper.Root) {
		// The parent stays: it is the snapshot's, or none of its snapshots reaches the parent any more.
		root.Size = s.Size
		root.Owners, root.Pages = s.Owners, s.Pages
		// Nothing of before is written in place again, whatever the journal says, which no longer counts.
		root.Mark = chunk.MakeSerial(root.Generation-1, math.MaxUint32)
		root.Journals, root.Failed = nil, false
	})
}
