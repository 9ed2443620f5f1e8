package catalog

import (
	"context"
	"errors"
	"fmt"

	"skerry/chunk"
	"skerry/locking"
	"skerry/mapper"
)

// LeaseInfo is what is known of the lease of a volume.
type LeaseInfo struct {
	Volume     string
	ID         chunk.VolumeID
	Generation uint32 // of the last grant
	Held       bool   // granted and not released
	Alive      bool   // Held by a process that lives
	Here       bool   // Held by this pool
	Holder     locking.Holder
	Fencing    string // what keeps a dead or cut-off holder from writing: "os" or "none"
}

// Leases returns the leases of all volumes, by name.
func (p *Pool) Leases(ctx context.Context) ([]LeaseInfo, error) {
	infos, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	var all []LeaseInfo
	for _, info := range infos {
		if info.Err != nil {
			continue
		}
		l, err := p.Lease(ctx, info.Name)
		if errors.Is(err, ErrNotFound) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// Lease returns the lease of a volume.
func (p *Pool) Lease(ctx context.Context, name string) (LeaseInfo, error) {
	_, root, err := p.lookup(ctx, name)
	if err != nil {
		return LeaseInfo{}, err
	}
	l, err := p.leaseOf(ctx, root)
	if err != nil {
		return LeaseInfo{}, fmt.Errorf("lease of volume %s: %w", name, err)
	}
	return l, nil
}

func (p *Pool) leaseOf(ctx context.Context, root *mapper.Root) (LeaseInfo, error) {
	l := LeaseInfo{
		Volume: root.Name, ID: root.Volume, Generation: root.Generation, Held: root.Held, Holder: root.Holder, Fencing: "os",
		Here: root.Held && root.Holder.Instance == p.instance.Nonce(),
	}
	if !root.Held {
		return l, nil
	}
	alive, err := p.instance.Alive(ctx, root.Holder)
	if errors.Is(err, errors.ErrUnsupported) {
		l.Alive, l.Fencing = true, "none" // nobody can tell
		return l, nil
	}
	l.Alive = alive
	return l, err
}
