package collect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
	"skerry/volume/catalog"
)

// Check looks for damage, leaks and what dead processes left. It takes no lease and changes nothing. What journals say that were not
// applied yet counts, as the next open would let it. The error is for what ended the check, not for what it found.
func Check(ctx context.Context, p *catalog.Pool, o CheckOptions) (CheckReport, error) {
	c := &checker{p: p, client: p.Engine().Client(drivers.LaneBackground, 0, nil)}
	c.family.client = c.client
	var err error
	if o.Volume != "" {
		var id chunk.VolumeID
		if id, err = p.Lookup(ctx, o.Volume); err == nil {
			err = c.volume(ctx, id)
		}
	} else {
		err = c.pool(ctx)
	}
	if err != nil {
		return c.report, fmt.Errorf("check: %w", err)
	}
	return c.report, nil
}

// checker checks one pool.
type checker struct {
	p      *catalog.Pool
	client drivers.Client
	family family
	report CheckReport
	seen   []chunk.Serial // snapshots of the volume that is being looked at
}

func (c *checker) found(kind Kind, volume, format string, args ...any) {
	c.report.Problems = append(c.report.Problems, Problem{Kind: kind, Volume: volume, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) pool(ctx context.Context) error {
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
	for _, id := range ids {
		if err := c.volume(ctx, id); err != nil {
			return err
		}
	}
	dead, err := c.p.Instance().Bury(ctx, true)
	if dead > 0 {
		c.found(Stale, "", "%d instance files of dead processes: gc removes them", dead)
	}
	return err
}

// names looks for name records that do not count.
func (c *checker) names(ctx context.Context) error {
	return c.p.Names(ctx, func(name string, id chunk.VolumeID, err error) error {
		if err != nil {
			if !damaged(err) {
				return err
			}
			c.found(Damage, name, "%v: skerry check --repair mends it, unless a volume that cannot be read may have the name", err)
			return nil
		}
		root, err := c.p.Inspect(ctx, id)
		switch {
		case errors.Is(err, drivers.ErrNotFound):
			c.report.Unnamed++
			c.found(Leak, name, "the name points to volume %v, which is not there: gc removes the name", id)
		case damaged(err): // found with the volume
		case err != nil:
			return err
		case root.State == mapper.Live && root.Name == name:
		case root.State.Kept():
			alive, err := c.alive(ctx, root)
			if err != nil {
				return err
			}
			if !alive {
				c.report.Unnamed++
				what := "has the name " + root.Name
				if root.State == mapper.Trashed {
					what = "is in the trash"
				}
				c.found(Leak, name, "the name points to volume %v, which %s: gc removes it", id, what)
			}
		}
		return nil
	})
}

// trash looks for records of the trash that do not count.
func (c *checker) trash(ctx context.Context) error {
	return c.p.TrashRecords(ctx, func(id chunk.VolumeID, _ mapper.TrashRecord, _ error) error {
		root, err := c.p.Inspect(ctx, id)
		switch {
		case errors.Is(err, drivers.ErrNotFound):
		case damaged(err): // found with the volume
			return nil
		case err != nil:
			return err
		case root.State == mapper.Trashed:
			return nil
		default:
			if alive, err := c.alive(ctx, root); alive || err != nil {
				return err
			}
		}
		c.report.Unnamed++
		c.found(Leak, id.String(), "it has a record in the trash, and is not there: gc removes the record")
		return nil
	})
}

// alive reports whether a living process holds the volume.
func (c *checker) alive(ctx context.Context, root *mapper.Root) (bool, error) {
	if !root.Held {
		return false, nil
	}
	alive, err := c.p.Instance().Alive(ctx, root.Holder)
	if errors.Is(err, errors.ErrUnsupported) {
		return true, nil // nobody can tell
	}
	return alive, err
}

// looks bounds how often a volume is looked at that changes meanwhile.
const looks = 4

// volume checks one volume, again if it changed meanwhile.
func (c *checker) volume(ctx context.Context, id chunk.VolumeID) error {
	for look := 1; ; look++ {
		before := c.report
		before.Problems, before.Skipped = slices.Clip(before.Problems), slices.Clip(before.Skipped)
		root, err := c.look(ctx, id)
		if err != nil {
			return fmt.Errorf("volume %v: %w", id, err)
		}
		if len(c.report.Problems) == len(before.Problems) {
			return nil
		}
		again, err := c.p.Inspect(ctx, id)
		if err != nil && !damaged(err) && !errors.Is(err, drivers.ErrNotFound) {
			return fmt.Errorf("volume %v: %w", id, err)
		}
		if same(root, again) {
			// A collection removes snapshots, then their objects, and leaves the root.
			gone, err := c.gone(ctx, id, c.seen)
			if err != nil {
				return fmt.Errorf("volume %v: %w", id, err)
			}
			if !gone {
				return nil
			}
		}
		c.report = before
		if look == looks {
			c.report.Skipped = append(c.report.Skipped, Skipped{Volume: id.String(), Why: "it changes all the time: check it again"})
			return nil
		}
	}
}

// same reports whether two reads of a root in force, nil if it could not be read, found the same one.
func same(a, b *mapper.Root) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Generation == b.Generation && a.Sequence == b.Sequence && a.Nonce == b.Nonce
}

// gone reports whether one of these snapshots of a volume has been removed.
func (c *checker) gone(ctx context.Context, id chunk.VolumeID, all []chunk.Serial) (bool, error) {
	for _, serial := range all {
		_, err := c.client.Stat(ctx, chunk.SerialName(id, chunk.Snapshots, serial))
		if errors.Is(err, drivers.ErrNotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// look checks a volume as it is now, and returns the root that it saw.
func (c *checker) look(ctx context.Context, id chunk.VolumeID) (*mapper.Root, error) {
	c.seen = c.seen[:0]
	root, err := c.p.Inspect(ctx, id)
	switch {
	case errors.Is(err, drivers.ErrNotFound):
		c.report.Unnamed++
		c.found(Leak, id.String(), "objects of a volume that is not there: gc removes them")
		return nil, c.abandoned(ctx, id)
	case damaged(err):
		c.found(Damage, id.String(), "%v: nothing of the volume can be read; skerry rm --damaged %v gives it up", err, id)
		return nil, nil
	case err != nil:
		return nil, err
	}
	alive, err := c.alive(ctx, root)
	if err != nil {
		return nil, err
	}
	if !root.State.Kept() || c.p.Over(root) {
		if alive {
			return root, nil
		}
		if c.p.Pending(root) {
			c.pending(root)
			return root, nil
		}
		c.report.Unnamed++
		why := "nobody works on it"
		if root.State == mapper.Trashed {
			why = "its time there is over"
		}
		c.found(Leak, root.Name, "volume %v is %v, and %s: gc removes it", id, root.State, why)
		return root, c.abandoned(ctx, id)
	}
	if root.State == mapper.Live {
		counts, err := c.p.Counts(ctx, root)
		if err != nil && !damaged(err) {
			return nil, err
		}
		if err == nil && !counts {
			return root, c.nameless(ctx, root, alive)
		}
	} else if shell, err := c.recorded(ctx, root, alive); err != nil || shell {
		return root, err
	}
	c.report.Volumes++
	if root.Held && !alive {
		c.found(Stale, root.Name, "its lease was granted to process %d on host %s, which is dead: the next open takes it over", root.Holder.PID, root.Holder.Host)
	}
	if root.Held && alive {
		h := &locking.HeldError{Volume: root.Name, Holder: root.Holder}
		c.report.Skipped = append(c.report.Skipped, Skipped{Volume: root.Name, Why: h.Error(), Holder: &root.Holder})
	}
	return root, c.live(ctx, root, alive)
}

// pending tells of what is kept of a creation that was interrupted.
func (c *checker) pending(root *mapper.Root) {
	until := root.Until.Format(time.DateTime)
	if root.Name == "" {
		c.found(Pending, root.Volume.String(), "snapshot %v of volume %v is kept until %s for a copy of it that was interrupted", root.Parent.Snapshot, root.Parent.Volume, until)
		return
	}
	c.found(Pending, root.Name, "making it was interrupted: go on with the command that began it, or give it up with skerry rm; it is kept until %s", until)
}

// recorded checks that the trash shows a volume that is there. It reports whether the volume is an empty shell.
func (c *checker) recorded(ctx context.Context, root *mapper.Root, alive bool) (shell bool, err error) {
	why := c.p.Recorded(ctx, root)
	missing := errors.Is(why, drivers.ErrNotFound)
	if why == nil || alive {
		return false, nil
	}
	if !missing && !damaged(why) {
		return false, why
	}
	if missing {
		if shell, err = c.p.Bare(ctx, root); err != nil {
			return false, err
		}
	}
	if shell {
		c.report.Unnamed++
		c.found(Leak, root.Name, "volume %v is in the trash, and has neither a record there nor any object: gc removes it", root.Volume)
		return true, nil
	}
	c.found(Damage, root.Name, "volume %v is in the trash, and has no good record there: %v: skerry check --repair writes one", root.Volume, why)
	return false, nil
}

// nameless tells an empty shell from a volume that lost its name record.
func (c *checker) nameless(ctx context.Context, root *mapper.Root, alive bool) error {
	bare, err := c.p.Bare(ctx, root)
	switch {
	case err != nil:
		return err
	case !bare:
		c.found(Damage, root.Name, "live volume %v has no name record that points to it: skerry check --repair gives it a name", root.Volume)
	case !alive:
		c.report.Unnamed++
		c.found(Leak, root.Name, "volume %v has neither a name record nor any object: gc removes it", root.Volume)
	}
	return nil
}

// abandoned counts the objects of a volume of which nothing counts.
func (c *checker) abandoned(ctx context.Context, id chunk.VolumeID) error {
	return c.client.List(ctx, chunk.VolumeGroup(id), func(info drivers.Info) error {
		if _, g, ok := chunk.ParseVolume(info.Name); ok && g != chunk.Roots {
			c.report.LeakedObjects++
			c.report.LeakedBytes += info.Allocated
		}
		return nil
	})
}
