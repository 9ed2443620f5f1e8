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
)

func notFound(r Ref) error {
	if r.Snapshot != "" {
		return tell(ErrNotFound, "snapshot %v: not found; skerry ls %s shows its snapshots", r, r.Volume)
	}
	return tell(ErrNotFound, "volume %s: not found; skerry ls shows the volumes of the pool", r.Volume)
}

// removing says that a snapshot has lost its right to be used.
func removing(r Ref) error {
	return tell(ErrNotFound, "snapshot %v: not found: its removal was begun; finish it with: skerry rm %v", r, r)
}

func exists(r Ref) error {
	return tell(ErrExists, "%s: exists already; choose another name, or remove it with: skerry rm %v", r.thing(), r)
}

// lookup returns the live volume that a name stands for, and its root at this moment.
func (p *Pool) lookup(ctx context.Context, name string) (chunk.VolumeID, *mapper.Root, error) {
	if !ValidName(name) {
		return chunk.VolumeID{}, nil, notFound(Ref{Volume: name})
	}
	id, err := p.record(ctx, name)
	if errors.Is(err, drivers.ErrNotFound) {
		return id, nil, notFound(Ref{Volume: name})
	}
	if err != nil {
		return id, nil, err
	}
	root, err := locking.Inspect(ctx, p.client, id)
	if errors.Is(err, drivers.ErrNotFound) || err == nil && !namedBack(name, root) {
		return id, nil, notFound(Ref{Volume: name})
	}
	if err != nil {
		return id, nil, tell(err, "volume %s: %v", name, err)
	}
	return id, root, nil
}

// namedBack reports whether a record of this name that points to root's volume counts.
func namedBack(name string, root *mapper.Root) bool {
	return root.State == mapper.Live && root.Name == name
}

// counts reports whether the name stands for the volume of root, which is in force.
func (p *Pool) counts(ctx context.Context, name string, root *mapper.Root) (bool, error) {
	id, err := p.record(ctx, name)
	if errors.Is(err, drivers.ErrNotFound) {
		return false, nil
	}
	return err == nil && id == root.Volume && namedBack(name, root), err
}

// record returns the volume that a name record points to, whether it counts or not; [drivers.ErrNotFound] if there is none.
func (p *Pool) record(ctx context.Context, name string) (chunk.VolumeID, error) {
	b, err := p.client.Load(ctx, chunk.NameRecord(name))
	if err != nil {
		return chunk.VolumeID{}, tell(err, "name %s: %v", name, err)
	}
	r, err := mapper.DecodeNameRecord(b)
	if err == nil && r.Name != name {
		err = fmt.Errorf("%w: it is the record of %q", mapper.ErrDamaged, r.Name)
	}
	if err != nil {
		return chunk.VolumeID{}, tell(err, "name %s: %v", name, err)
	}
	return r.Volume, nil
}

// Names calls fn with every name record: its name, and its volume or what is wrong with it. The records need not count.
func (p *Pool) Names(ctx context.Context, fn func(name string, id chunk.VolumeID, err error) error) error {
	var names []string
	err := p.client.List(ctx, chunk.NamesGroup, func(info drivers.Info) error {
		names = append(names, info.Name[len(chunk.NamesGroup)+1:])
		return nil
	})
	if err != nil {
		return fmt.Errorf("list names: %w", err)
	}
	for _, name := range names {
		id, err := p.record(ctx, name)
		if errors.Is(err, drivers.ErrNotFound) {
			continue // removed meanwhile
		}
		if err := fn(name, id, err); err != nil {
			return err
		}
	}
	return nil
}

// vacate makes sure that a name is free: a record that does not count is removed. It fails with ErrExists if the name is taken, also
// by a volume that a living process is creating.
func (p *Pool) vacate(ctx context.Context, name string) error {
	id, err := p.record(ctx, name)
	if errors.Is(err, drivers.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	root, err := locking.Inspect(ctx, p.client, id)
	switch {
	case errors.Is(err, drivers.ErrNotFound):
	case err != nil:
		return tell(err, "volume %s: %v", name, err)
	case namedBack(name, root):
		return exists(Ref{Volume: name})
	}
	_, err = p.tidy(ctx, id, name, removeLimit)
	if err == nil && root != nil && root.Name == name && p.Pending(root) {
		return reserved(root)
	}
	var held *locking.HeldError
	if errors.As(err, &held) {
		return tell(ErrExists, "volume %s: exists already: process %d on host %s is creating or removing it; wait for that, or choose another name",
			name, held.Holder.PID, held.Holder.Host)
	}
	return err
}

// reserved says that the name of a creation that can be resumed is taken.
func reserved(root *mapper.Root) error {
	return tell(ErrExists, "volume %s: exists already: making it was interrupted, and what there is of it is kept until %s: go on with the command that began it, or remove it with: skerry rm %s",
		root.Name, root.Until.Format(time.DateTime), root.Name)
}

// tries is how often something is begun anew because others are at it too.
const tries = 3

// naming makes a name free and then calls fn, which takes it: again if another record came between. Nothing is held between
// the calls, so that the volume of a record in the way can be waited for.
func (p *Pool) naming(ctx context.Context, name string, fn func() error) error {
	if err := checkName(name); err != nil {
		return err
	}
	for try := 1; ; try++ {
		if err := p.vacate(ctx, name); err != nil {
			return err
		}
		if err := fn(); !errors.Is(err, ErrExists) || try == tries {
			return err
		}
	}
}

// reserve creates the record of a name, for a volume that is there. It fails with ErrExists if there is one, whether it
// counts or not.
func (p *Pool) reserve(ctx context.Context, name string, id chunk.VolumeID) error {
	record := mapper.NameRecord{Name: name, Volume: id}
	err := p.client.Replace(ctx, chunk.NameRecord(name), record.Encode(), drivers.Condition{Absent: true})
	if err == nil {
		return nil
	}
	there, readErr := p.record(context.WithoutCancel(ctx), name)
	switch {
	case readErr == nil && there == id:
		// It is ours, but nobody said that it is durable.
		return p.client.SyncGroup(ctx, chunk.NamesGroup)
	case errors.Is(err, drivers.ErrExists):
		return exists(Ref{Volume: name})
	}
	return fmt.Errorf("name %s: %w", name, err)
}

// unname removes the record of a name, durably, if it points to the held volume.
func (h *Held) unname(ctx context.Context, name string) error {
	// Were it given up before its outcome is known, it could still remove the record of the next one to have the name.
	ctx = context.WithoutCancel(ctx)
	id, err := h.pool.record(ctx, name)
	if err == nil && id == h.id {
		err = h.Client(drivers.LaneMeta).Unlink(ctx, chunk.NameRecord(name))
	}
	if err == nil || errors.Is(err, drivers.ErrNotFound) {
		err = h.pool.client.SyncGroup(ctx, chunk.NamesGroup)
	}
	if err != nil {
		return fmt.Errorf("remove name %s: %w", name, err)
	}
	return nil
}
