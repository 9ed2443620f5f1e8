package catalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume"
)

// A pin is a volume without a name in state creating, registered at a snapshot as a clone of it would be. While a process holds it, and
// after that until the time in its root, the snapshot stays. Nothing is ever read from or written to it.

// PinInfo names a pin and what it pins.
type PinInfo struct {
	ID       chunk.VolumeID
	Volume   chunk.VolumeID // of the snapshot
	Snapshot chunk.Serial
}

// Pin makes a pin on a snapshot that keeps it for a while; OpenPin makes that longer. Without a snapshot in from a hidden one is taken, which is
// removed with its last pin or clone: that fails with a [locking.HeldError] if another process holds the volume; then have it make the pin.
func (p *Pool) Pin(ctx context.Context, from Ref, keep time.Duration) (PinInfo, error) {
	var info PinInfo
	var err error
	if from.Snapshot == "" {
		err = p.holding(ctx, from.Volume, func(h *Held) error {
			s, err := h.snapshot(ctx, "")
			if err != nil {
				return err
			}
			if info, err = p.pinOf(ctx, s, keep); err != nil && info.ID.IsZero() {
				if dropErr := h.dropSnapshots(context.WithoutCancel(ctx), from, s); dropErr != nil {
					p.log.Warn("hidden snapshot is left for gc", "volume", from.Volume, "err", dropErr)
				}
			}
			return err
		})
	} else {
		var s *mapper.Snapshot
		if _, s, err = p.findSnapshot(ctx, from); err == nil && s.Deleting {
			err = removing(from)
		}
		if err == nil {
			info, err = p.pinOf(ctx, s, keep)
		}
	}
	if err != nil && !info.ID.IsZero() {
		err = errors.Join(err, p.EndPin(context.WithoutCancel(ctx), info.ID)) // nobody would learn of it
	}
	if err != nil {
		return PinInfo{}, doing(err, "keep %v", from)
	}
	return info, nil
}

// pinOf makes a pin. If there is one in spite of an error, it is returned: a pin that nobody knows would last for its time. Therefore its
// creation, which is one small write, is not interrupted.
func (p *Pool) pinOf(ctx context.Context, s *mapper.Snapshot, keep time.Duration) (PinInfo, error) {
	if err := ctx.Err(); err != nil {
		return PinInfo{}, err
	}
	h, err := p.found(context.WithoutCancel(ctx), &mapper.Root{
		Size: chunk.SectorSize, Geometry: s.Geometry, Parent: mapper.Parent{Volume: s.Volume, Snapshot: s.Serial}, Until: p.o.Now().Add(keep),
	})
	if err != nil {
		return PinInfo{}, err
	}
	if err := p.register(ctx, h, s); err != nil {
		return PinInfo{}, h.undo(ctx, err)
	}
	return PinInfo{h.id, s.Volume, s.Serial}, h.Done(ctx)
}

// HeldPin is a pin that this process holds. It ends with Release or End. It is for one goroutine.
type HeldPin struct {
	pool  *Pool
	id    chunk.VolumeID
	lease *locking.Lease
	snap  *mapper.Snapshot
}

// OpenPin holds a pin, and lets it last for keep after that. It fails with ErrNotFound if the pin or its snapshot is gone, with a [locking.HeldError] if
// another process holds it.
func (p *Pool) OpenPin(ctx context.Context, id chunk.VolumeID, keep time.Duration) (*HeldPin, error) {
	h, err := p.Hold(ctx, id)
	if errors.Is(err, drivers.ErrNotFound) {
		return nil, fmt.Errorf("pin %v: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("pin %v: %w", id, err)
	}
	root := h.Root()
	if !isPin(root) {
		return nil, errors.Join(fmt.Errorf("pin %v: %w", id, ErrNotFound), h.Done(ctx))
	}
	s, err := p.loadSnapshot(ctx, root.Parent.Volume, root.Parent.Snapshot)
	if errors.Is(err, drivers.ErrNotFound) {
		err = ErrNotFound
	}
	if err == nil {
		until := p.o.Now().Add(keep)
		err = h.lease.Switch(ctx, func(r *mapper.Root) { r.Until = until })
	}
	if err != nil {
		h.done(ctx)
		return nil, fmt.Errorf("pin %v: %w", id, err)
	}
	p.pinned(h.entry, h.lease)
	p.leave(id, h.entry)
	return &HeldPin{p, id, h.lease, s}, nil
}

func isPin(root *mapper.Root) bool {
	return root.State == mapper.Creating && root.Name == "" && !root.Parent.Volume.IsZero()
}

// Info names the pin and what it pins.
func (h *HeldPin) Info() PinInfo { return PinInfo{h.id, h.snap.Volume, h.snap.Serial} }

// Snapshot returns the record of the snapshot, which is not the caller's to change.
func (h *HeldPin) Snapshot() *mapper.Snapshot { return h.snap }

// Release gives the pin back. The snapshot stays for the time that was given to OpenPin.
func (h *HeldPin) Release(ctx context.Context) error {
	held, err := h.take(ctx)
	if err != nil {
		return err
	}
	return held.Done(ctx)
}

// End removes the pin, and a hidden snapshot that nothing else needs.
func (h *HeldPin) End(ctx context.Context) error {
	held, err := h.take(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(held.scrap(ctx), held.Done(ctx)); err != nil {
		return fmt.Errorf("pin %v: %w", h.id, err)
	}
	h.pool.dropHidden(ctx, mapper.Parent{Volume: h.snap.Volume, Snapshot: h.snap.Serial})
	return nil
}

// take makes a pin that is in use a held volume again.
func (h *HeldPin) take(ctx context.Context) (*Held, error) {
	e, err := h.pool.enter(ctx, h.id)
	if err != nil {
		return nil, err
	}
	h.pool.pinned(e, nil)
	return &Held{pool: h.pool, id: h.id, entry: e, lease: h.lease}, nil
}

// endPins removes pins on snapshots of the held volume that nobody holds any more: the snapshots are to be removed, and what the pins keep
// them for cannot be finished then. If anything else needs one of the snapshots, so that their removal is refused, all pins stay.
func (h *Held) endPins(ctx context.Context, all ...*mapper.Snapshot) error {
	if len(all) == 0 {
		return nil
	}
	doomed := make(map[chunk.Serial]bool)
	for _, s := range all {
		doomed[s.Serial] = true
	}
	type registration struct {
		snap  chunk.Serial
		clone chunk.VolumeID
	}
	var registered []registration
	err := h.pool.Registrations(ctx, h.id, func(s chunk.Serial, clone chunk.VolumeID) {
		if doomed[s] {
			registered = append(registered, registration{s, clone})
		}
	})
	if err != nil || len(registered) == 0 {
		return err
	}
	var pins []*Held
	defer func() {
		for _, pin := range pins {
			pin.done(ctx)
		}
	}()
	for _, r := range registered {
		pin, err := h.pool.holdPin(ctx, r.clone)
		if pin != nil {
			pins = append(pins, pin)
			continue
		}
		name := ""
		if err == nil {
			name, err = h.clone(ctx, r.snap, r.clone)
		}
		if name != "" || err != nil {
			return err
		}
	}
	if readers, err := h.readers(ctx, doomed); err != nil || len(readers) > 0 {
		return err
	}
	for _, pin := range pins {
		if err := pin.scrap(ctx); err != nil {
			return err
		}
	}
	return nil
}

// holdPin takes a pin unless a living process holds it; nil: it does, or there is no such pin.
func (p *Pool) holdPin(ctx context.Context, id chunk.VolumeID) (*Held, error) {
	root, err := locking.Inspect(ctx, p.client, id)
	if errors.Is(err, drivers.ErrNotFound) || errors.Is(err, mapper.ErrDamaged) || err == nil && !isPin(root) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	h, err := p.Hold(ctx, id)
	if errors.Is(err, drivers.ErrNotFound) || errors.Is(err, locking.ErrHeld) {
		return nil, nil
	}
	if err == nil && !isPin(h.Root()) {
		return nil, h.Done(ctx)
	}
	return h, err
}

// EndPin removes a pin that nobody has opened, and a hidden snapshot that nothing else needs. A pin that a living process holds stays.
func (p *Pool) EndPin(ctx context.Context, id chunk.VolumeID) error {
	h, err := p.holdPin(ctx, id)
	if h == nil || err != nil {
		return err
	}
	parent := h.Root().Parent
	if err := errors.Join(h.scrap(ctx), h.Done(ctx)); err != nil {
		return fmt.Errorf("pin %v: %w", id, err)
	}
	p.dropHidden(ctx, parent)
	return nil
}

// dropPin removes a pin unless a living process holds it. A volume that is no pin stays.
func (p *Pool) dropPin(ctx context.Context, id chunk.VolumeID) error {
	h, err := p.holdPin(ctx, id)
	if h == nil || err != nil {
		return err
	}
	return errors.Join(h.scrap(ctx), h.Done(ctx))
}

// unpin removes what an unfinished copy, which was removed, kept in this pool.
func (p *Pool) unpin(ctx context.Context, root *mapper.Root) {
	o, err := DecodeOrigin(root.Source)
	if err != nil || o.Pool != p.id {
		return
	}
	if err := p.dropPin(ctx, o.Pin); err != nil {
		p.log.Warn("what was kept for a copy is left for gc", "volume", root.Name, "err", err)
		return
	}
	p.dropHidden(ctx, mapper.Parent{Volume: o.Volume, Snapshot: o.Snapshot})
}

// OpenSerial opens a snapshot, a hidden one or one of a creation too, for reading. It needs no lease, and keeps the snapshot as OpenSnapshot does. The device is
// the caller's to close.
func (p *Pool) OpenSerial(ctx context.Context, id chunk.VolumeID, serial chunk.Serial) (*volume.Device, error) {
	s, err := p.loadSnapshot(ctx, id, serial)
	if err == nil && s.Deleting {
		err = fmt.Errorf("snapshot %v of volume %v is being removed: %w", serial, id, drivers.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	return p.openKnown(ctx, s, Ref{Volume: id.String(), Snapshot: s.Name})
}
