package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
)

// Info is what the catalog knows of a volume.
type Info struct {
	Name       string
	ID         chunk.VolumeID
	Size       int64 // bytes
	ChunkSize  int64 // bytes
	Created    time.Time
	State      string // "live", "damaged"
	Generation uint32
	Granted    time.Time       // when the lease was granted last
	Holder     *locking.Holder // the process that the lease was granted to and that has not released it; nil: none
	Unclean    bool            // the next open applies a journal; always so while it is held and was written

	Parent   Ref           // names of the volume and the snapshot that it began as; of a hidden snapshot only the volume's
	ParentID mapper.Parent // the same by identifiers

	Snapshots []SnapshotInfo // by age
	Hidden    int            // hidden snapshots

	Source *SourceInfo // what it is still copied from; nil: it has all, or is one of a list

	Err error // what is wrong with it if State is "damaged"
}

// describe returns what a root says.
func (p *Pool) describe(r *mapper.Root) Info {
	info := Info{
		Name: r.Name, ID: r.Volume, Size: r.Size, ChunkSize: r.Geometry.Size(), Created: r.Created, State: r.State.String(),
		Generation: r.Generation, Granted: r.Holder.Since, ParentID: r.Parent, Unclean: len(r.Journals) > 0,
	}
	if r.Held {
		info.Holder = &r.Holder
	}
	return info
}

// Info returns what is known of a volume: its root at this moment, and its snapshots with their clones.
func (p *Pool) Info(ctx context.Context, name string) (Info, error) {
	_, root, err := p.lookup(ctx, name)
	if err != nil {
		return Info{}, err
	}
	info, err := p.full(ctx, root)
	if err == nil {
		info.Source, err = p.source(ctx, root)
	}
	if err == nil && len(info.Snapshots) > 0 {
		err = p.fillClones(ctx, root.Volume, info.Snapshots)
	}
	if err != nil {
		return Info{}, fmt.Errorf("volume %s: %w", name, err)
	}
	return info, nil
}

// Brief returns what the root of a volume says at this moment, without its snapshots, parent and source: it costs little.
func (p *Pool) Brief(ctx context.Context, name string) (Info, error) {
	_, root, err := p.lookup(ctx, name)
	if err != nil {
		return Info{}, err
	}
	return p.describe(root), nil
}

// fillClones finds the names of the clones of snapshots of a volume. One that cannot be read has its id for a name.
func (p *Pool) fillClones(ctx context.Context, id chunk.VolumeID, snapshots []SnapshotInfo) error {
	type registration struct {
		snapshot *SnapshotInfo
		clone    chunk.VolumeID
		name     string
	}
	var all []registration
	err := p.Registrations(ctx, id, func(snap chunk.Serial, clone chunk.VolumeID) {
		if i := slices.IndexFunc(snapshots, func(s SnapshotInfo) bool { return s.Serial == snap }); i >= 0 {
			all = append(all, registration{&snapshots[i], clone, clone.String()})
		}
	})
	if err != nil {
		return err
	}
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(listers)
	for i := range all {
		r := &all[i]
		g.Go(func() error {
			root, err := locking.Inspect(groupCtx, p.client, r.clone)
			switch {
			case errors.Is(err, drivers.ErrNotFound), err == nil && root.Parent != mapper.Parent{Volume: id, Snapshot: r.snapshot.Serial}:
				r.name = "" // it is none any more
			case err == nil:
				r.name = cloneName(root)
			case !errors.Is(err, mapper.ErrDamaged):
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, r := range all {
		if r.name != "" {
			r.snapshot.Clones = append(r.snapshot.Clones, r.name)
		}
	}
	for i := range snapshots {
		slices.Sort(snapshots[i].Clones)
	}
	return nil
}

// Large reports whether a volume's map is so large that a command does not begin to give its space back: that is for gc.
func (p *Pool) Large(ctx context.Context, name string) (bool, error) {
	_, root, err := p.lookup(ctx, name)
	if err != nil {
		return false, err
	}
	return len(root.Pages) > pagesAtOnce, nil
}

// full is describe with what the snapshots and the parent say.
func (p *Pool) full(ctx context.Context, root *mapper.Root) (Info, error) {
	info := p.describe(root)
	all, err := p.Snapshots(ctx, root.Volume)
	if err != nil {
		return info, err
	}
	for _, s := range all {
		if s.Hidden() {
			info.Hidden++
			continue
		}
		info.Snapshots = append(info.Snapshots, describeSnapshot(s, root.Name))
	}
	info.Parent, err = p.parentName(ctx, root.Parent)
	return info, err
}

// SnapshotInfo returns what is known of a snapshot, with its clones.
func (p *Pool) SnapshotInfo(ctx context.Context, r Ref) (SnapshotInfo, error) {
	_, s, err := p.findSnapshot(ctx, r)
	if err != nil {
		return SnapshotInfo{}, err
	}
	info := []SnapshotInfo{describeSnapshot(s, r.Volume)}
	err = p.fillClones(ctx, s.Volume, info)
	return info[0], err
}

// parentName returns the names of a parent, as far as it is there. Of one that is damaged, which is no damage of the clone's, and of one in the
// trash it is the id.
func (p *Pool) parentName(ctx context.Context, parent mapper.Parent) (Ref, error) {
	if parent.Volume.IsZero() {
		return Ref{}, nil
	}
	root, err := locking.Inspect(ctx, p.client, parent.Volume)
	if errors.Is(err, drivers.ErrNotFound) {
		return Ref{}, nil
	}
	if errors.Is(err, mapper.ErrDamaged) {
		return Ref{Volume: parent.Volume.String()}, nil
	}
	if err != nil {
		return Ref{}, err
	}
	if root.State == mapper.Trashed {
		return Ref{Volume: parent.Volume.String()}, nil // another one may have the name
	}
	r := Ref{Volume: root.Name}
	s, err := p.loadSnapshot(ctx, parent.Volume, parent.Snapshot)
	if err == nil {
		r.Snapshot = s.Name
	} else if !errors.Is(err, drivers.ErrNotFound) && !errors.Is(err, mapper.ErrDamaged) {
		return Ref{}, err
	}
	return r, nil
}

// listers is how many volumes are looked at at once.
const listers = 16

// List returns all volumes by name. One that cannot be read is there with State "damaged".
func (p *Pool) List(ctx context.Context) ([]Info, error) {
	var infos []Info
	err := p.Names(ctx, func(name string, id chunk.VolumeID, err error) error {
		infos = append(infos, Info{Name: name, ID: id, Err: err})
		return nil
	})
	if err != nil {
		return nil, err
	}
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(listers)
	for i := range infos {
		info := &infos[i]
		if info.Err != nil {
			info.State = "damaged"
			continue
		}
		g.Go(func() error {
			root, err := locking.Inspect(groupCtx, p.client, info.ID)
			if err == nil && namedBack(info.Name, root) {
				*info, err = p.full(groupCtx, root)
			}
			switch {
			case errors.Is(err, mapper.ErrDamaged):
				info.State, info.Err = "damaged", err
			case err != nil && !errors.Is(err, drivers.ErrNotFound):
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	infos = slices.DeleteFunc(infos, func(i Info) bool { return i.State == "" })
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}
