package catalog

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/volume"
)

// DiffOptions say what a comparison does.
type DiffOptions struct {
	// Exact leaves out the blocks whose content is the same. It reads both sides where their maps differ.
	Exact bool
	// Hidden names the hidden snapshot of the volume that is the newer side, as SnapshotHidden returned it, where the reference
	// names no snapshot; 0: the volume as it is now.
	Hidden chunk.Serial
}

// Diff calls fn with the extents of to that may differ from the snapshot from, in ascending order, until fn returns an error, which
// Diff returns. It misses no change. Without DiffOptions.Exact it goes by the maps alone and reads no data: what was
// rewritten with the same content, or moved by a merge, comes up too. Extents consist of whole blocks, but for the end of
// to. Those that read as zeros have the flag [volume.Zero].
//
// The two need not be related, but what is shared is found only between snapshots, volumes and clones that share it. What to has
// beyond the end of from comes up whole; what from has beyond the end of to does not.
//
// Without a snapshot in to it is the volume as it is now: that needs its lease, and fails with a [locking.HeldError] if another
// process has it; then have that one take a snapshot.
func (p *Pool) Diff(ctx context.Context, from, to Ref, o DiffOptions, fn func(volume.Extent) error) error {
	if err := p.diff(ctx, from, to, o, fn); err != nil {
		return doing(err, "compare %v with %v", from, to)
	}
	return nil
}

func (p *Pool) diff(ctx context.Context, from, to Ref, o DiffOptions, fn func(volume.Extent) error) error {
	if from.Snapshot == "" {
		return tell(drivers.ErrInvalid, "%v is a volume: what is compared with has to be a snapshot", from)
	}
	was, end, err := p.readable(ctx, from)
	if err != nil {
		return err
	}
	defer end(ctx)
	d := comparison{p: p, from: was, exact: o.Exact, fn: fn}
	if to.Snapshot == "" && o.Hidden == 0 {
		return p.diffNow(ctx, &d, to.Volume)
	}
	var is *mapper.Snapshot
	if to.Snapshot != "" {
		is, end, err = p.readable(ctx, to)
	} else {
		if is, err = p.hidden(ctx, to.Volume, o.Hidden); err == nil {
			end, err = p.reading(ctx, is, to)
		}
	}
	if err != nil {
		return err
	}
	defer end(ctx)
	return d.withSnapshot(ctx, is)
}

// readable returns the snapshot of a name, which is not removed until end is called.
func (p *Pool) readable(ctx context.Context, r Ref) (s *mapper.Snapshot, end func(context.Context), err error) {
	_, s, err = p.findSnapshot(ctx, r)
	if err == nil && s.Deleting {
		err = removing(r)
	}
	if err == nil {
		end, err = p.reading(ctx, s, r)
	}
	return s, end, err
}

// diffNow compares with a volume as it is now. If this pool has it open, a hidden snapshot of it is taken for the time.
func (p *Pool) diffNow(ctx context.Context, d *comparison, name string) error {
	var err error
	// What fn was told cannot be told again: the comparison itself is not repeated.
	return errors.Join(p.holding(ctx, name, func(h *Held) error {
		if h.dev == nil {
			err = h.device(ctx, func(dev *volume.Device) error {
				return d.run(ctx, dev.Root().Picture(), func() (*volume.Device, func(), error) { return dev, func() {}, nil })
			})
			return nil
		}
		s, takeErr := h.snapshot(ctx, "")
		if takeErr != nil {
			return takeErr
		}
		err = d.withSnapshot(ctx, s)
		if dropErr := h.dropSnapshots(context.WithoutCancel(ctx), Ref{Volume: name}, s); dropErr != nil {
			p.log.Warn("hidden snapshot is left for gc", "volume", name, "err", dropErr)
		}
		return nil
	}), err)
}

// comparison compares something with a snapshot.
type comparison struct {
	p     *Pool
	from  *mapper.Snapshot
	exact bool
	fn    func(volume.Extent) error
}

// withSnapshot compares a snapshot with from.
func (d *comparison) withSnapshot(ctx context.Context, is *mapper.Snapshot) error {
	err := d.run(ctx, is.Picture(), func() (*volume.Device, func(), error) { return d.open(ctx, is) })
	return d.p.stillThere(ctx, err, d.from, is)
}

// stillThere tells what is missing since a snapshot was removed meanwhile from what is damaged.
func (p *Pool) stillThere(ctx context.Context, err error, all ...*mapper.Snapshot) error {
	if !errors.Is(err, drivers.ErrNotFound) {
		return err
	}
	for _, s := range all {
		if _, again := p.loadSnapshot(ctx, s.Volume, s.Serial); errors.Is(again, drivers.ErrNotFound) {
			return fmt.Errorf("the snapshot was removed meanwhile: %w", ErrNotFound)
		}
	}
	return fmt.Errorf("%w: %w", mapper.ErrDamaged, err)
}

// open opens a snapshot for reading, and returns what ends that.
func (d *comparison) open(ctx context.Context, s *mapper.Snapshot) (*volume.Device, func(), error) {
	dev, err := volume.OpenSnapshot(ctx, d.p.config(s.Volume), s)
	if err != nil {
		return nil, nil, err
	}
	return dev, func() {
		if err := dev.Close(context.WithoutCancel(ctx)); err != nil {
			d.p.log.Warn("a snapshot was not closed", "err", err)
		}
	}, nil
}

// run compares a picture with from. newer opens what the picture is of.
func (d *comparison) run(ctx context.Context, is mapper.Picture, newer func() (*volume.Device, func(), error)) error {
	if !d.exact {
		return d.maps(ctx, is, d.fn)
	}
	to, end, err := newer()
	if err != nil {
		return err
	}
	defer end()
	from, end, err := d.open(ctx, d.from)
	if err != nil {
		return err
	}
	defer end()
	x := newSifter(from, to, d.fn)
	if err := d.maps(ctx, is, func(e volume.Extent) error { return x.sift(ctx, e) }); err != nil {
		return err
	}
	return x.flush()
}

// maps compares the maps.
func (d *comparison) maps(ctx context.Context, is mapper.Picture, fn func(volume.Extent) error) error {
	return mapper.Diff(ctx, d.p.client, d.from.Picture(), is, func(c mapper.Change) error {
		e := volume.Extent{Offset: c.Offset, Length: c.Length}
		if c.Zero {
			e.Flags = volume.Zero | volume.Hole
		}
		return fn(e)
	})
}

// Changes calls fn with the extents of the snapshot to that may differ from the snapshot from, as Diff does by the maps alone. Something must keep
// both.
func (p *Pool) Changes(ctx context.Context, from, to *mapper.Snapshot, fn func(volume.Extent) error) error {
	d := comparison{p: p, from: from, fn: fn}
	if err := d.withSnapshot(ctx, to); err != nil {
		return fmt.Errorf("compare snapshots %v and %v of volume %v: %w", from.Serial, to.Serial, to.Volume, err)
	}
	return nil
}
