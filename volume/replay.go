package volume

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
)

// replay applies the journals that the root names, which an unclean end left behind, and stores the result in a root without
// journals. It can be repeated.
func (d *Device) replay(ctx context.Context, root *mapper.Root) error {
	state, lost, err := root.Fold(ctx, d.meta, d.o.Boot, d.engine.Properties().DurableWrites)
	if errors.Is(err, journal.ErrDamaged) || errors.Is(err, drivers.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return err
	}
	if err := d.apply(ctx, root, state); err != nil {
		return err
	}
	if err := d.syncReplayed(ctx, state.Objects); err != nil {
		if ctx.Err() == nil {
			return d.fail(err) // the next opening must not trust what the kernel kept
		}
		return err
	}
	d.log.Info("applied the journal", "frames", state.Frames, "deltas", len(state.Deltas), "blocks", len(state.Blocks), "powerLost", lost)
	return d.storeReplayed(ctx, root)
}

// apply brings what counts of a journal into the map and the objects. All it names is the volume's own and newer
// than the mark, since no replay crosses a barrier.
func (d *Device) apply(ctx context.Context, root *mapper.Root, state *journal.State) error {
	check := func(o journal.Object, end int) error {
		if o.Serial <= root.Mark || o.Chunk >= d.geom.Count(d.Size()) || end > d.geom.Blocks() {
			return fmt.Errorf("%w: the journal names object %v of chunk %d", ErrDamaged, o.Serial, o.Chunk)
		}
		return nil
	}
	if root.Failed {
		// What the kernel kept of failed writes is not what is stored.
		for _, o := range state.Objects {
			if err := d.meta.DropCache(ctx, chunk.DataName(d.id, o.Chunk, o.Serial)); err != nil && !errors.Is(err, drivers.ErrNotFound) {
				return err
			}
		}
	}
	for _, x := range state.Deltas {
		if err := check(x.Object, x.End); err != nil {
			return err
		}
		if _, err := d.m.Publish(ctx, x.Object.Chunk, x.Object.Serial, x.First, x.End, x.Zero, nil); err != nil {
			return err
		}
	}
	for _, b := range state.Blocks {
		if b.Object.Serial <= root.Mark && b.Object.Serial.Generation() > 0 {
			continue // also of chunks that a barrier has cut off
		}
		if b.Object.Serial.Generation() == 0 || b.Object.Chunk >= d.geom.Count(d.Size()) || b.Block >= d.geom.Blocks() {
			return fmt.Errorf("%w: the journal has data for object %v of chunk %d", ErrDamaged, b.Object.Serial, b.Object.Chunk)
		}
		if err := d.restoreBlock(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// restoreBlock writes a block that the journal has, to an object that may be missing.
func (d *Device) restoreBlock(ctx context.Context, b journal.Block) error {
	name := chunk.DataName(d.id, b.Object.Chunk, b.Object.Serial)
	off := int64(b.Block) * chunk.BlockSize
	err := d.meta.WriteAt(ctx, name, b.Data, off)
	if !errors.Is(err, drivers.ErrNotFound) {
		return err
	}
	if err := d.meta.Create(ctx, name); err != nil {
		return err
	}
	return d.meta.WriteAt(ctx, name, b.Data, off)
}

// syncReplayed makes all objects durable that a journal named. Some were never made, or removed again.
func (d *Device) syncReplayed(ctx context.Context, named []journal.Object) error {
	var names []string
	groups := make(map[string]bool)
	for _, o := range named {
		name := chunk.DataName(d.id, o.Chunk, o.Serial)
		switch err := d.meta.Open(ctx, name); {
		case err == nil:
			names = append(names, name)
			groups[chunk.DataGroup(d.id, o.Chunk)] = true
		case !errors.Is(err, drivers.ErrNotFound):
			return err
		}
	}
	var fans []fan
	for g := range groups {
		fans = append(fans, fan{group: g})
	}
	return d.syncAll(ctx, d.meta, names, fans, syncParallel)
}

// storeReplayed stores the map and a root that needs no journal.
func (d *Device) storeReplayed(ctx context.Context, root *mapper.Root) error {
	if _, err := d.cut(ctx, cutOptions{last: true}); err != nil {
		return err
	}
	for _, j := range root.Journals {
		if err := d.back.Unlink(ctx, chunk.SerialName(d.id, chunk.Journals, j.Start.Object)); err != nil && !errors.Is(err, drivers.ErrNotFound) {
			return err
		}
	}
	return nil
}
