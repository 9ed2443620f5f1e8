package locking

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"skerry/chunk"
	"skerry/drivers"
	"skerry/mapper"
)

// attempts bounds how often a grant is begun anew because others were granted or probe the same holder.
const attempts = 6

// Create makes a new volume and holds it: root becomes its generation 1. The volume's id must be fresh. Generation, sequence,
// nonce and holder are set here.
func (i *Instance) Create(ctx context.Context, root *mapper.Root) (*Lease, error) {
	if err := i.enter(ctx); err != nil {
		return nil, fmt.Errorf("create root of volume %v: %w", root.Volume, err)
	}
	defer i.leave()
	if err := i.appear(ctx); err != nil {
		return nil, fmt.Errorf("create root of volume %v: %w", root.Volume, err)
	}
	next := i.granted(root, 1)
	won, err := i.publish(ctx, next)
	if err == nil && !won {
		err = drivers.ErrExists
	}
	if err != nil {
		return nil, fmt.Errorf("create root of volume %v: %w", root.Volume, err)
	}
	return i.hold(next), nil
}

// Acquire takes the lease of a volume. An instance is one owner: if it holds the volume already it gets the same lease
// again, which still ends with the first Release. It fails at once with a [HeldError] if a living process holds
// the volume, with [drivers.ErrNotFound] if there is none, and with [mapper.ErrDamaged] if its root
// cannot be read.
func (i *Instance) Acquire(ctx context.Context, id chunk.VolumeID) (*Lease, error) {
	if err := i.enter(ctx); err != nil {
		return nil, fmt.Errorf("lease volume %v: %w", id, err)
	}
	defer i.leave()
	if l := i.lease(id); l != nil {
		live, err := l.settled(ctx)
		if err != nil {
			return nil, fmt.Errorf("lease volume %v: %w", id, err)
		}
		if live {
			return l, nil
		}
	}
	if err := i.appear(ctx); err != nil {
		return nil, fmt.Errorf("lease volume %v: %w", id, err)
	}
	for try := 1; ; try++ {
		l, err := i.grant(ctx, id)
		var held *HeldError
		switch {
		case err == nil && l != nil:
			return l, nil
		case err != nil && !errors.As(err, &held):
			return nil, fmt.Errorf("lease volume %v: %w", id, err)
		case try == attempts && held == nil:
			return nil, fmt.Errorf("lease volume %v: %w", id, i.outrun(ctx, id))
		case try == attempts:
			return nil, fmt.Errorf("lease volume %v: %w", id, held)
		}
		if err := pause(ctx, time.Millisecond<<try); err != nil {
			return nil, fmt.Errorf("lease volume %v: %w", id, err)
		}
	}
}

// outrun says who was granted a volume instead, again and again.
func (i *Instance) outrun(ctx context.Context, id chunk.VolumeID) error {
	root, _, err := inForce(ctx, i.client, id)
	if err != nil {
		return err
	}
	return heldError(root) // or the last one who held it, for a moment
}

// grant tries once. It returns nothing if another one won.
func (i *Instance) grant(ctx context.Context, id chunk.VolumeID) (*Lease, error) {
	root, generations, err := inForce(ctx, i.client, id)
	if err != nil {
		return nil, err
	}
	dead, err := i.bereave(ctx, root)
	if err != nil {
		return nil, err
	}
	defer dead.Close() // nothing was written under this lock
	if root.Held {
		// The holder may have switched the root once more before it ended. Now it cannot any more.
		last := root
		if root, generations, err = inForce(ctx, i.client, id); err != nil {
			return nil, err
		}
		if root.Generation != last.Generation || root.Nonce != last.Nonce {
			return nil, nil // it was granted to another one, or made anew
		}
	}
	next := i.granted(root, root.Generation+1)
	if next.Generation == 0 {
		return nil, errors.New("generations are used up")
	}
	won, err := i.publish(ctx, next)
	if err != nil || !won {
		return nil, err
	}
	after, err := listRoots(ctx, i.client, id)
	if err != nil {
		return nil, err
	}
	if len(after) == 0 || after[len(after)-1] != next.Generation {
		i.log.Warn("grant came too late", "volume", next.Name, "lease", next.Generation)
		i.discard(ctx, id, next.Generation)
		return nil, nil
	}
	l := i.hold(next)
	for _, g := range generations {
		if g < root.Generation {
			i.discard(ctx, id, g)
		}
	}
	i.log.Info("volume leased", "volume", next.Name, "lease", next.Generation, "taken over", root.Held)
	return l, nil
}

// bereave returns the lock of the dead process that holds root, if any does. It fails with a
// HeldError if a living one does.
func (i *Instance) bereave(ctx context.Context, root *mapper.Root) (io.Closer, error) {
	if !root.Held || root.Holder.Instance == i.nonce {
		// A root that names this instance, which has no such lease, is of a grant that was given up.
		return nothing{}, nil
	}
	lock, err := i.probe(ctx, root.Holder.Instance)
	if errors.Is(err, drivers.ErrLocked) || errors.Is(err, errors.ErrUnsupported) {
		return nil, heldError(root)
	}
	return lock, err
}

// granted returns a copy of root as the first of a generation that is granted to this instance.
func (i *Instance) granted(root *mapper.Root, generation uint32) *mapper.Root {
	next := root.Clone()
	next.Generation, next.Sequence, next.Held = generation, 1, true
	rand.Read(next.Nonce[:]) // never fails, says its documentation
	next.Holder = i.holder()
	return next
}

// publish creates a root and reports whether it is there, whatever the storage said.
func (i *Instance) publish(ctx context.Context, root *mapper.Root) (won bool, err error) {
	name, b := chunk.RootName(root.Volume, root.Generation), root.Encode()
	err = i.client.Replace(ctx, name, b, drivers.Condition{Absent: true})
	if err == nil {
		return true, nil
	}
	there, loadErr := i.client.Load(context.WithoutCancel(ctx), name)
	switch {
	case loadErr == nil && !bytes.Equal(there, b):
		return false, nil
	case loadErr == nil:
		// It is ours, but nobody said that it is durable.
		if syncErr := i.client.SyncGroup(ctx, drivers.Group(name)); syncErr != nil {
			return false, errors.Join(err, syncErr)
		}
		return true, nil
	case errors.Is(err, drivers.ErrExists) && errors.Is(loadErr, drivers.ErrNotFound):
		return false, nil // removed after it was found in the way
	}
	return false, err
}

// discard removes a root that pins nothing. What stays is removed by the next grant.
func (i *Instance) discard(ctx context.Context, id chunk.VolumeID, generation uint32) {
	name := chunk.RootName(id, generation)
	if err := i.client.Unlink(ctx, name); err != nil && !errors.Is(err, drivers.ErrNotFound) {
		i.log.Debug("old root stays", "object", name, "err", err)
	}
}

// hold makes the lease of a root that was granted.
func (i *Instance) hold(root *mapper.Root) *Lease {
	l := newLease(i, root)
	i.mu.Lock()
	i.leases[root.Volume] = l
	i.mu.Unlock()
	return l
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
