package collect

import (
	"context"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
	"skerry/mapper/journal"
	"skerry/volume"
	"skerry/volume/catalog"
)

// errDamage says that something that should be there is not, or is not what it should be.
var errDamage = errors.New("damaged")

// damaged reports whether an error says that what is stored is wrong.
func damaged(err error) bool {
	for _, target := range []error{errDamage, mapper.ErrDamaged, journal.ErrDamaged, journal.ErrVersion, volume.ErrDamaged} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// reached is what a volume's root, snapshots and journals reach of its own objects.
type reached struct {
	own      serials // of data, pages and journals
	inherits bool    // something of other volumes is reached too
}

// swept are the groups whose objects are collected.
var swept = [...]chunk.Group{chunk.Data, chunk.Pages, chunk.Journals, chunk.Images}

// sweep removes the objects of a held volume that nothing reaches.
func (c *collector) sweep(ctx context.Context, h *catalog.Held) error {
	bound := chunk.MakeSerial(h.Lease().Generation()-1, math.MaxUint32)
	if dev := h.Device(); dev != nil {
		var err error
		if bound, err = dev.Cut(ctx); err != nil {
			return err
		}
	}
	r, err := c.reached(ctx, h)
	if err != nil {
		return err
	}
	root := h.Root()
	if dev := h.Device(); dev != nil {
		// Requests may still read what left the map since the first cut. The second one waits for them.
		if _, err := dev.Cut(ctx); err != nil {
			return err
		}
	}
	client := h.Client(drivers.LaneBackground)
	for _, g := range swept {
		if err := c.sweepGroup(ctx, client, chunk.GroupName(root.Volume, g), bound, r); err != nil {
			return err
		}
	}
	if !r.inherits && !root.Parent.Volume.IsZero() {
		return h.Part(ctx)
	}
	return nil
}

// reached finds out what is reached of a held volume. While its device is in use a cut may replace what the root names that was just read, and
// have it removed: then it looks again.
func (c *collector) reached(ctx context.Context, h *catalog.Held) (*reached, error) {
	for look := 1; ; look++ {
		root := h.Root()
		r, err := c.reach(ctx, root, h.Device() != nil)
		if h.Device() == nil || !damaged(err) || look == looks || h.Root().Sequence == root.Sequence {
			return r, err
		}
	}
}

// reach finds out what is reached of a volume. The root in force is as given, or a later one that reaches less of what was there
// before it. With cut, its pages alone reach all that is alive up to the bound: the journals, which are being written, are not read.
func (c *collector) reach(ctx context.Context, root *mapper.Root, cut bool) (*reached, error) {
	r := &reached{}
	image, object, err := catalog.ShownBy(root)
	if err != nil {
		return nil, err
	}
	if object != 0 {
		r.own.add(object)
	}
	// Pages of other volumes were written before this one began, and name nothing of it.
	w := walker{load: c.client.Load, seen: make(map[pageKey]bool), only: root.Volume}
	note := func(owner chunk.VolumeID, s chunk.Serial) {
		switch {
		case owner == root.Volume:
			r.own.add(s)
		case owner != image || image.IsZero():
			r.inherits = true
		}
	}
	w.page = note
	w.layer = func(l mapper.LayerRef) error {
		note(l.Owner, l.Serial)
		return nil
	}
	err = w.walk(ctx, root.Owners, root.Pages, root.Geometry)
	var all []*mapper.Snapshot
	if err == nil {
		all, err = c.p.Snapshots(ctx, root.Volume)
	}
	for _, s := range all {
		if err == nil {
			err = w.walk(ctx, s.Owners, s.Pages, s.Geometry)
		}
	}
	for _, j := range root.Journals {
		r.own.add(j.Start.Object)
		if err == nil && !cut {
			err = c.journal(ctx, root, j, r)
		}
	}
	if errors.Is(err, drivers.ErrNotFound) {
		err = fmt.Errorf("%w: %w", errDamage, err)
	}
	if err != nil {
		return nil, err
	}
	r.own.seal()
	return r, nil
}

// journal adds what a journal names to what is reached. Whether its records count is not asked.
func (c *collector) journal(ctx context.Context, root *mapper.Root, j mapper.JournalRef, r *reached) error {
	state, err := journal.Fold(ctx, c.client, root.Volume, journal.ProcessDied, journal.Source{Generation: j.Generation, Start: j.Start})
	if err != nil {
		return err
	}
	for _, o := range state.Objects {
		r.own.add(o.Serial)
	}
	return nil
}

// doomed bounds how many names are kept between listing and removing.
const doomed = 4096

// removers is how many objects are removed at once.
const removers = 8

// errFull ends a list.
var errFull = errors.New("full")

// sweepGroup removes what is not reached below one group.
func (c *collector) sweepGroup(ctx context.Context, client drivers.Client, group string, bound chunk.Serial, r *reached) error {
	for full := true; full; {
		var unreached []drivers.Info
		err := client.List(ctx, group, func(info drivers.Info) error {
			if s, ok := serialOf(info.Name); !ok || s > bound || r.own.has(s) {
				return nil
			}
			if len(unreached) == doomed {
				return errFull
			}
			unreached = append(unreached, info)
			return nil
		})
		if full = errors.Is(err, errFull); err != nil && !full {
			return fmt.Errorf("list %s: %w", group, err)
		}
		if err := c.unlink(ctx, client, unreached); err != nil {
			return err
		}
	}
	return nil
}

// serialOf returns the serial in the name of an object of one of the swept groups.
func serialOf(name string) (chunk.Serial, bool) {
	_, g, ok := chunk.ParseVolume(name)
	if ok && g == chunk.Data {
		_, s, ok := chunk.ParseDataName(name)
		return s, ok
	}
	if !ok || g != chunk.Pages && g != chunk.Journals && g != chunk.Images {
		return 0, false
	}
	return chunk.ParseSerialName(name)
}

func (c *collector) unlink(ctx context.Context, client drivers.Client, all []drivers.Info) error {
	gone := make([]bool, len(all))
	groups := make(map[string]bool)
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(removers)
	for i, info := range all {
		groups[drivers.Group(info.Name)] = true
		g.Go(func() error {
			err := client.Unlink(groupCtx, info.Name)
			if errors.Is(err, drivers.ErrNotFound) {
				return nil
			}
			gone[i] = err == nil
			return err
		})
	}
	err := g.Wait()
	for i, info := range all {
		if gone[i] {
			c.report.Objects++
			c.report.Bytes += info.Allocated
		}
	}
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	for name := range groups {
		if err := client.SyncGroup(ctx, name); err != nil {
			return fmt.Errorf("sync %s: %w", name, err)
		}
	}
	return nil
}
