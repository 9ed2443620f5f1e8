package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/locking"
	"skerry/mapper"
)

// Removal says what a removal has given back.
type Removal struct {
	Objects int64 // objects removed
	Bytes   int64 // space that these took
	Left    int64 // objects left for the next collection, at least; 0: all is gone

	Until time.Time // the volume is in the trash until then, and nothing was removed; zero: it is not
}

// batch is how many names are listed before they are removed. The time limit is looked at before each object.
const batch = 4096

// unlinkers is how many objects are removed at once.
const unlinkers = 8

// pagesAtOnce is the number of map pages of a volume, each with up to mapper.PageChunks objects, up to which its removal is begun
// where time is limited. More would not be done in that time.
const pagesAtOnce = 16

// errEnough ends a list.
var errEnough = errors.New("enough")

// destroy removes the held volume, which has no clones: its root becomes deleted, then all else of it goes,
// and its roots last. A limit above 0 bounds the time for its objects. It can be repeated after any failure.
func (h *Held) destroy(ctx context.Context, limit time.Duration) (Removal, error) {
	var r Removal
	if h.Root().State != mapper.Deleted {
		if err := h.lease.Switch(ctx, func(r *mapper.Root) { r.State = mapper.Deleted }); err != nil {
			return r, err
		}
	}
	root := h.Root()
	if root.Name != "" {
		if err := h.unname(ctx, root.Name); err != nil {
			return r, err
		}
	}
	if !root.Until.IsZero() {
		if err := h.untrash(ctx); err != nil {
			return r, err
		}
	}
	if own := ownPages(root); limit > 0 && own > pagesAtOnce {
		r.Left = own // at least these
		return r, nil
	}
	ends := h.pool.o.Now().Add(limit)
	for _, g := range []chunk.Group{chunk.Snapshots, chunk.Seals, chunk.Data, chunk.Pages, chunk.Journals, chunk.Images, chunk.Registrations, chunk.Readers} {
		if err := h.clear(ctx, chunk.GroupName(h.id, g), &r, func() bool { return limit > 0 && !h.pool.o.Now().Before(ends) }); err != nil {
			return r, err
		}
		if r.Left > 0 {
			return r, nil
		}
	}
	if err := h.unregister(ctx, root.Parent); err != nil {
		return r, err
	}
	return r, h.lease.Destroy(ctx)
}

// ownPages returns how many of the pages of a volume's map are not those of what it was cloned from.
func ownPages(root *mapper.Root) (n int64) {
	for _, ref := range root.Pages {
		if ref.Owner == 0 {
			n++
		}
	}
	return n
}

// clear removes all objects below a group, durably, unless late says to stop.
func (h *Held) clear(ctx context.Context, group string, r *Removal, late func() bool) error {
	client := h.Client(drivers.LaneBackground)
	groups := map[string]bool{}
	for {
		var infos []drivers.Info
		err := client.List(ctx, group, func(info drivers.Info) error {
			if len(infos) == batch {
				return errEnough
			}
			infos = append(infos, info)
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			return fmt.Errorf("list %s: %w", group, err)
		}
		if len(infos) == 0 {
			break
		}
		for _, info := range infos {
			groups[drivers.Group(info.Name)] = true
		}
		if err := unlinkAll(ctx, client, infos, r, late); err != nil {
			return err
		}
		if r.Left > 0 {
			break
		}
	}
	for g := range groups {
		if err := client.SyncGroup(ctx, g); err != nil {
			return fmt.Errorf("sync %s: %w", g, err)
		}
	}
	return nil
}

// unlinkAll removes objects until late says to stop, and counts them.
func unlinkAll(ctx context.Context, client drivers.Client, infos []drivers.Info, r *Removal, late func() bool) error {
	var objects, bytes atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(unlinkers)
	for i, info := range infos {
		if late() {
			r.Left += int64(len(infos) - i)
			break
		}
		g.Go(func() error {
			switch err := client.Unlink(ctx, info.Name); {
			case errors.Is(err, drivers.ErrNotFound):
			case err != nil:
				return fmt.Errorf("remove %s: %w", info.Name, err)
			default:
				objects.Add(1)
				bytes.Add(info.Allocated)
			}
			return nil
		})
	}
	err := g.Wait()
	r.Objects += objects.Load()
	r.Bytes += bytes.Load()
	return err
}

// unregister ends the registration of the held volume at its parent, durably. The volume reaches nothing of it.
func (h *Held) unregister(ctx context.Context, parent mapper.Parent) error {
	if parent.Volume.IsZero() {
		return nil
	}
	client := h.Client(drivers.LaneMeta)
	err := client.Unlink(ctx, chunk.RegistrationName(parent.Volume, parent.Snapshot, h.id))
	if errors.Is(err, drivers.ErrNotFound) {
		err = nil
	}
	if err == nil {
		err = client.SyncGroup(ctx, chunk.GroupName(parent.Volume, chunk.Registrations))
	}
	if err != nil {
		return fmt.Errorf("end registration at parent %v: %w", parent.Volume, err)
	}
	return nil
}

// Tidy removes what was left of a volume that does not count: all of it if it is being created or deleted and nobody holds it, else
// (of a live one, one in the trash, or one that is [Pool.Pending]) the record of a name that it does not have. It leaves all else alone, and
// fails as [Pool.Hold] does.
func (p *Pool) Tidy(ctx context.Context, id chunk.VolumeID, name string) (Removal, error) {
	return p.tidy(ctx, id, name, 0)
}

// tidy is Tidy with a limit of time for the objects, see destroy.
func (p *Pool) tidy(ctx context.Context, id chunk.VolumeID, name string, limit time.Duration) (Removal, error) {
	h, err := p.Hold(ctx, id)
	if errors.Is(err, drivers.ErrNotFound) {
		h, err = p.revive(ctx, id, name)
	}
	if err != nil {
		return Removal{}, err
	}
	removal, err := h.tidy(ctx, name, limit)
	return removal, errors.Join(err, h.Done(ctx))
}

func (h *Held) tidy(ctx context.Context, name string, limit time.Duration) (Removal, error) {
	root := h.Root()
	if h.dev != nil && root.State != mapper.Live {
		return Removal{}, &locking.HeldError{Volume: root.Name, Holder: root.Holder}
	}
	if name != "" && name != root.Name {
		if err := h.unname(ctx, name); err != nil {
			return Removal{}, err
		}
	}
	if root.State == mapper.Trashed && name == root.Name {
		if err := h.unname(ctx, name); err != nil { // it has none
			return Removal{}, err
		}
	}
	if root.State.Kept() || h.pool.Pending(root) {
		return Removal{}, nil
	}
	return h.destroy(ctx, limit)
}

// revive holds a volume that has no root left, by making one in state deleted.
func (p *Pool) revive(ctx context.Context, id chunk.VolumeID, name string) (*Held, error) {
	root, err := p.remains(id, name)
	if err != nil {
		return nil, err
	}
	return p.make(ctx, root)
}

// remains returns a root for a volume whose own is gone, for its removal.
func (p *Pool) remains(id chunk.VolumeID, name string) (*mapper.Root, error) {
	geom, err := chunk.NewGeometry(chunk.DefaultSize)
	if err != nil {
		return nil, err
	}
	return &mapper.Root{
		Volume: id, State: mapper.Deleted, Name: name, Size: chunk.DefaultSize, Geometry: geom,
		Created: p.o.Now(), Owners: []chunk.VolumeID{id},
	}, nil
}
