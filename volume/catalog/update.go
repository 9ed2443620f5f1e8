package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"skerry/chunk"
	"skerry/mapper"
	"skerry/volume"
)

// ErrChanged says that a volume was written since a snapshot of it.
var ErrChanged = errors.New("written since then")

// UpdateOptions say what an update begins with.
type UpdateOptions struct {
	Base     chunk.Serial // of the snapshot of the volume that it begins as
	Rollback bool         // what was written since then is given up
}

// Update gives a volume another content and takes a snapshot of it, both or nothing: fn changes the volume through a device that has the
// content of the base, which fn does not close. If fn fails, or the process dies, the volume is what it was. The snapshot comes first: where the process dies between the
// two, the volume has the snapshot and is what it was, and [Pool.Rollback] to it does the rest. It fails with ErrChanged if the content of the volume is not that of
// the base, with ErrExists if it has a snapshot of that name, and with ErrInUse if a living process holds it.
func (p *Pool) Update(ctx context.Context, r Ref, o UpdateOptions, fn func(*volume.Device) error) (SnapshotInfo, error) {
	var info SnapshotInfo
	err := checkName(r.Snapshot)
	if err == nil {
		info, err = p.update(ctx, r, o, fn)
	}
	if err != nil {
		return SnapshotInfo{}, doing(err, "update volume %s", r.Volume)
	}
	return info, nil
}

func (p *Pool) update(ctx context.Context, r Ref, o UpdateOptions, fn func(*volume.Device) error) (info SnapshotInfo, err error) {
	h, err := p.holdSettled(ctx, r.Volume)
	if err != nil {
		return info, err
	}
	defer h.done(ctx)
	base, err := p.loadSnapshot(ctx, h.id, o.Base)
	if err != nil {
		return info, err
	}
	if err := h.freeSnapshotName(ctx, r); err != nil {
		return info, err
	}
	if !o.Rollback {
		if err := h.unchanged(ctx, base); err != nil {
			return info, err
		}
	}
	l, err := h.stage(base)
	if err != nil {
		return info, err
	}
	dev, err := volume.Open(ctx, p.config(h.id), l)
	if err != nil {
		return info, err
	}
	s, err := filled(ctx, dev, r.Snapshot, fn)
	// What the device leaves behind is not reached by the root in force: it is found by the next collection.
	if closeErr := h.close(context.WithoutCancel(ctx), dev); err != nil || closeErr != nil {
		return info, errors.Join(err, closeErr)
	}
	next := l.Root()
	err = h.lease.Switch(context.WithoutCancel(ctx), func(root *mapper.Root) {
		root.Size, root.Owners, root.Pages, root.Mark = next.Size, next.Owners, next.Pages, next.Mark
		root.Journals, root.Failed = nil, false
	})
	if err != nil {
		return info, fmt.Errorf("finish it with skerry rollback %v: %w", r, err)
	}
	return describeSnapshot(s, r.Volume), nil
}

// filled has a device changed, and takes a snapshot of it.
func filled(ctx context.Context, dev *volume.Device, name string, fn func(*volume.Device) error) (*mapper.Snapshot, error) {
	if err := fn(dev); err != nil {
		return nil, err
	}
	return dev.Snapshot(ctx, name)
}

// holdSettled takes a volume that no journal has to be applied to, under a grant under which nothing was written.
func (p *Pool) holdSettled(ctx context.Context, name string) (*Held, error) {
	for try := 1; ; try++ {
		h, err := p.holdNamed(ctx, name)
		if err != nil {
			return nil, unheld(err)
		}
		if h.dev != nil {
			h.done(ctx)
			return nil, openHere(name)
		}
		if err := h.whole(ctx); err != nil {
			h.done(ctx)
			return nil, err
		}
		if len(h.Root().Journals) == 0 {
			return h, nil
		}
		err = p.WithReserve(ctx, func() error { return h.device(ctx, func(*volume.Device) error { return nil }) })
		if err := errors.Join(err, h.Done(ctx)); err != nil {
			return nil, err
		}
		if try == tries {
			return nil, tell(ErrInUse, "volume %s: in use: others write it all the time", name)
		}
	}
}

// Unchanged reports whether the content of a volume is that of a snapshot of it.
func (p *Pool) Unchanged(ctx context.Context, name string, s *mapper.Snapshot) (bool, error) {
	h, err := p.holdSettled(ctx, name)
	if err != nil {
		return false, doing(err, "volume %s", name)
	}
	err = h.unchanged(ctx, s)
	if errors.Is(err, ErrChanged) {
		return false, h.Done(ctx)
	}
	return err == nil, errors.Join(err, h.Done(ctx))
}

// unchanged makes sure that the content of the held volume, which has no journal, is that of a snapshot of it.
func (h *Held) unchanged(ctx context.Context, s *mapper.Snapshot) error {
	root := h.Root()
	changed := tell(ErrChanged, "volume %s is not what its snapshot %s is: it was written since then", root.Name, s.Name)
	if root.Size != s.Size {
		return changed
	}
	if slices.Equal(root.Pages, s.Pages) && slices.Equal(root.Owners, s.Owners) {
		return nil
	}
	now := *s
	now.Owners, now.Pages = root.Owners, root.Pages
	d := comparison{p: h.pool, from: s, exact: true, fn: func(volume.Extent) error { return changed }}
	return d.run(ctx, root.Picture(), func() (*volume.Device, func(), error) { return d.open(ctx, &now) })
}

// staged is a lease whose root nobody else sees: what a device does under it counts once that root is put in force.
type staged struct {
	kept

	mu   sync.Mutex
	root *mapper.Root
}

var _ volume.Lease = (*staged)(nil)

// stage returns a lease for a device that begins as a snapshot of the held volume and changes nothing that the root in force or a snapshot
// reaches.
func (h *Held) stage(s *mapper.Snapshot) (*staged, error) {
	root := h.Root()
	root.Size, root.Owners, root.Pages = s.Size, slices.Clone(s.Owners), slices.Clone(s.Pages)
	root.Journals, root.Failed = nil, false
	mark, err := h.lease.NextSerial()
	if err != nil {
		return nil, err
	}
	root.Mark = mark
	return &staged{kept: kept{h.lease, h}, root: root}, nil
}

// Root implements [volume.Lease].
func (l *staged) Root() *mapper.Root {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.root.Clone()
}

// Switch implements [volume.Lease].
func (l *staged) Switch(_ context.Context, change func(*mapper.Root)) error {
	if err := l.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.root.Clone()
	change(next)
	next.Sequence++
	l.root = next
	return nil
}

// Release implements [volume.Lease]. The lease goes on.
func (l *staged) Release(ctx context.Context, change func(*mapper.Root)) error {
	if change == nil {
		return nil
	}
	return l.Switch(ctx, change)
}
