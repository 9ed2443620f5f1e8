package collect

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// Options say what a collection does.
type Options struct {
	DryRun bool   // only count
	Volume string // only this volume; "": all of the pool
}

// Report says what a collection has given back, or would.
type Report struct {
	Volumes   int   // volumes looked at
	Objects   int64 // removed
	Bytes     int64 // space that these took
	Unnamed   int   // volumes removed that did not count, and name records
	Snapshots int   // snapshots removed: hidden ones, and those whose removal was begun
	Instances int   // instance files of dead processes
	Skipped   []Skipped
	Problems  []Problem // volumes of which nothing was removed since they are damaged
}

// Skipped is a volume that was left alone.
type Skipped struct {
	Volume string // name, or id if it has none
	Why    string
	Holder *locking.Holder // of the living process that holds it
}

// Collect removes what nothing reaches. Volumes that living processes hold are skipped, unless this pool has them open. It
// goes on after what it cannot do and reports that; its error is for what ended it.
func Collect(ctx context.Context, p *catalog.Pool, o Options) (Report, error) {
	var report Report
	err := p.WithReserve(ctx, func() (err error) {
		report, err = collectAll(ctx, p, o)
		return err
	})
	if err == nil && !o.DryRun && o.Volume == "" {
		err = p.KeepReserve(ctx)
	}
	if err != nil {
		return report, fmt.Errorf("collect: %w", err)
	}
	return report, nil
}

func collectAll(ctx context.Context, p *catalog.Pool, o Options) (Report, error) {
	c := &collector{p: p, client: p.Engine().Client(drivers.LaneBackground, 0, nil)}
	var err error
	switch {
	case o.DryRun:
		err = c.dryRun(ctx, o)
	case o.Volume != "":
		var id chunk.VolumeID
		if id, err = p.Lookup(ctx, o.Volume); err == nil {
			err = c.one(ctx, id)
		}
	default:
		err = c.all(ctx)
	}
	return c.report, err
}

// collector collects one pool.
type collector struct {
	p      *catalog.Pool
	client drivers.Client                      // without a lease
	clones map[chunk.VolumeID][]chunk.VolumeID // of each volume, as their roots say
	report Report
}

// one collects one volume.
func (c *collector) one(ctx context.Context, id chunk.VolumeID) error {
	infos, err := c.p.List(ctx)
	if err != nil {
		return err
	}
	c.clones = make(map[chunk.VolumeID][]chunk.VolumeID)
	for _, info := range infos {
		c.clones[info.ParentID.Volume] = append(c.clones[info.ParentID.Volume], info.ID)
	}
	trash, err := c.p.Trash(ctx)
	if err != nil {
		return err
	}
	for _, info := range trash {
		c.clones[info.ParentID.Volume] = append(c.clones[info.ParentID.Volume], info.ID)
	}
	return c.live(ctx, id)
}

// dryRun counts what Check finds.
func (c *collector) dryRun(ctx context.Context, o Options) error {
	found, err := Check(ctx, c.p, CheckOptions{Volume: o.Volume})
	if err != nil {
		return err
	}
	c.report = Report{Volumes: found.Volumes, Objects: found.LeakedObjects, Bytes: found.LeakedBytes, Unnamed: found.Unnamed, Snapshots: found.Snapshots, Skipped: found.Skipped}
	for _, problem := range found.Problems {
		if problem.Kind == Damage {
			c.report.Problems = append(c.report.Problems, problem)
		}
	}
	if o.Volume == "" {
		c.report.Instances, err = c.p.Instance().Bury(ctx, true)
	}
	return err
}

func (c *collector) all(ctx context.Context) (err error) {
	if c.report.Instances, err = c.p.Instance().Bury(ctx, false); err != nil {
		return err
	}
	if err := c.names(ctx); err != nil {
		return err
	}
	if err := c.trash(ctx); err != nil {
		return err
	}
	ids, err := c.p.Volumes(ctx)
	if err != nil {
		return err
	}
	c.clones = make(map[chunk.VolumeID][]chunk.VolumeID)
	var roots []*mapper.Root
	for _, id := range ids {
		root, err := c.p.Inspect(ctx, id)
		if err == nil && root.State.Kept() {
			roots = append(roots, &mapper.Root{Volume: id, Created: root.Created})
			c.clones[root.Parent.Volume] = append(c.clones[root.Parent.Volume], id)
			continue
		}
		if err == nil && c.p.Pending(root) {
			continue
		}
		if err == nil || errors.Is(err, drivers.ErrNotFound) {
			err = c.tidy(ctx, id, "")
		}
		if err := c.went(id.String(), err); err != nil {
			return err
		}
	}
	// Clones are younger than what they were cloned from.
	slices.SortStableFunc(roots, func(a, b *mapper.Root) int { return b.Created.Compare(a.Created) })
	for _, r := range roots {
		if err := c.live(ctx, r.Volume); err != nil {
			return err
		}
	}
	return nil
}

// names removes the name records that do not count.
func (c *collector) names(ctx context.Context) error {
	return c.p.Names(ctx, func(name string, id chunk.VolumeID, err error) error {
		if err == nil {
			var root *mapper.Root
			root, err = c.p.Inspect(ctx, id)
			if err == nil && (root.State == mapper.Live || c.p.Pending(root)) && root.Name == name {
				return nil
			}
			if err == nil || errors.Is(err, drivers.ErrNotFound) {
				err = c.tidy(ctx, id, name)
			}
		}
		return c.went(name, err)
	})
}

// trash removes the records of volumes that are not in the trash.
func (c *collector) trash(ctx context.Context) error {
	return c.p.TrashRecords(ctx, func(id chunk.VolumeID, _ mapper.TrashRecord, _ error) error {
		root, err := c.p.Inspect(ctx, id)
		if err == nil && root.State == mapper.Trashed {
			return nil
		}
		if err == nil || errors.Is(err, drivers.ErrNotFound) {
			if err = c.p.TidyTrash(ctx, id); err == nil {
				c.report.Unnamed++
			}
		}
		return c.went(id.String(), err)
	})
}

func (c *collector) tidy(ctx context.Context, id chunk.VolumeID, name string) error {
	removal, err := c.p.Tidy(ctx, id, name)
	c.report.Objects += removal.Objects
	c.report.Bytes += removal.Bytes
	if err == nil {
		c.report.Unnamed++
	}
	return err
}

// went notes how it went with a volume. It returns the errors that end the collection.
func (c *collector) went(volume string, err error) error {
	var held *locking.HeldError
	switch {
	case err == nil:
	case errors.As(err, &held):
		c.skip(held)
	case damaged(err):
		c.report.Problems = append(c.report.Problems, Problem{Kind: Damage, Volume: volume, Text: err.Error()})
	case errors.Is(err, drivers.ErrNotFound): // it was removed meanwhile
	default:
		return fmt.Errorf("volume %s: %w", volume, err)
	}
	return nil
}

func (c *collector) skip(held *locking.HeldError) {
	same := func(s Skipped) bool { return s.Volume == held.Volume }
	if !slices.ContainsFunc(c.report.Skipped, same) {
		c.report.Skipped = append(c.report.Skipped, Skipped{Volume: held.Volume, Why: held.Error(), Holder: &held.Holder})
	}
}

// live collects a volume that counts, or is in the trash.
func (c *collector) live(ctx context.Context, id chunk.VolumeID) error {
	for try := 1; ; try++ {
		h, err := c.p.Hold(ctx, id)
		if err != nil {
			return c.went(id.String(), err)
		}
		name := h.Root().Name
		err = errors.Join(c.held(ctx, h), h.Done(ctx))
		if try == looks || !h.Overtaken(ctx, err) {
			return c.went(name, err)
		}
	}
}

func (c *collector) held(ctx context.Context, h *catalog.Held) error {
	root := h.Root()
	if !root.State.Kept() {
		return nil // it was removed meanwhile
	}
	if expired, err := c.expire(ctx, h); expired || err != nil {
		return err
	}
	if removed, err := h.RemoveShell(ctx); removed || err != nil {
		if removed {
			c.report.Unnamed++
		}
		return err
	}
	if root.State == mapper.Live {
		counts, err := c.p.Counts(ctx, root)
		if err == nil && !counts {
			err = fmt.Errorf("%w: live volume %s (%v) has no name record that points to it", errDamage, root.Name, root.Volume)
		}
		if err != nil {
			return err
		}
	}
	c.report.Volumes++
	if err := c.registered(ctx, root.Volume); err != nil {
		return err
	}
	n, err := h.Prune(ctx)
	c.report.Snapshots += n
	if err != nil {
		return err
	}
	return c.sweep(ctx, h)
}

// expire removes a volume whose time in the trash is over. It reports whether that is done.
func (c *collector) expire(ctx context.Context, h *catalog.Held) (bool, error) {
	name := h.Root().Name
	removal, expired, err := h.Expire(ctx)
	c.report.Objects += removal.Objects
	c.report.Bytes += removal.Bytes
	if errors.Is(err, catalog.ErrInUse) {
		c.report.Skipped = append(c.report.Skipped, Skipped{Volume: name, Why: "its time in the trash is over, but: " + err.Error()})
		return false, nil
	}
	if expired && err == nil {
		c.report.Unnamed++
	}
	return expired, err
}

// registered makes sure that the clones of a volume are registered there: what they need would be removed else.
func (c *collector) registered(ctx context.Context, id chunk.VolumeID) error {
	for _, clone := range c.clones[id] {
		root, err := c.p.Inspect(ctx, clone)
		if errors.Is(err, drivers.ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		if !root.State.Kept() || root.Parent.Volume != id {
			continue
		}
		_, err = c.client.Stat(ctx, chunk.RegistrationName(id, root.Parent.Snapshot, clone))
		if errors.Is(err, drivers.ErrNotFound) {
			var again *mapper.Root
			again, err = c.p.Inspect(ctx, clone)
			if err == nil && again.State.Kept() && again.Parent == root.Parent {
				return fmt.Errorf("%w: volume %s is not registered at the snapshot that it is a clone of", errDamage, root.Name)
			}
			// It was removed meanwhile, or needs nothing any more.
		}
		if err != nil && !errors.Is(err, drivers.ErrNotFound) {
			return err
		}
	}
	return nil
}
